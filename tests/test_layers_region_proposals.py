# Copyright 2026 The modeling_pixelvit team. All rights reserved.
# SPDX-License-Identifier: Apache-2.0
"""Region proposals: where the anchors stand, what the losses count, and that proposals stay inside the image."""

import torch
from helpers import tiny_config

from modeling_pixelvit.layers_region_proposals import RegionProposals, StridedAnchorGenerator


def build(**fields):
    torch.manual_seed(0)
    config = tiny_config(
        "pixelvit", **{"pyramid_channels": 6, "rpn_num_convs": 1, "anchor_sizes": (8, 16, 32, 64, 128), **fields}
    )
    proposals = RegionProposals(config)
    for parameter in proposals.parameters():
        torch.nn.init.normal_(parameter, std=0.2)
    return proposals


def random_pyramid(batch_size, size):
    return [torch.randn(batch_size, 6, -(-size[0] // stride), -(-size[1] // stride)) for stride in (4, 8, 16, 32, 64)]


def target(boxes=(), crowd_boxes=()):
    boxes, crowd_boxes = (torch.tensor(one, dtype=torch.float32).reshape(-1, 4) for one in (boxes, crowd_boxes))
    return {"boxes": boxes, "labels": torch.ones(len(boxes), dtype=torch.long), "crowd_boxes": crowd_boxes}


def limits(*sizes):
    return torch.tensor([[width, height] * 2 for height, width in sizes], dtype=torch.float32)


def test_anchors_stand_at_the_strides():
    generator = StridedAnchorGenerator([8, 16], [0.5, 1.0, 2.0], [4, 8])
    anchors = generator([torch.zeros(1, 1, 3, 5), torch.zeros(1, 1, 2, 3)])
    assert anchors.shape == (3 * (15 + 6), 4) and anchors.dtype == torch.float32
    centres = (anchors[:, :2] + anchors[:, 2:]) / 2
    finer, coarser = centres[:45].view(3, 5, 3, 2), centres[45:].view(2, 3, 3, 2)
    for centre, stride in ((finer, 4), (coarser, 8)):
        rows, columns = centre.shape[:2]
        y, x = torch.meshgrid(torch.arange(rows) * stride, torch.arange(columns) * stride, indexing="ij")
        torch.testing.assert_close(centre, torch.stack([x, y], dim=-1)[:, :, None].expand_as(centre).float())
    # Height over width, area kept, corners on whole pixels.
    assert anchors[:3].tolist() == [[-6, -3, 6, 3], [-4, -4, 4, 4], [-3, -6, 3, 6]]


def test_proposals_lie_inside_the_image_without_padding():
    sizes = [(50, 100), (100, 31)]
    proposals, holds_box, losses = build().eval()(random_pyramid(2, (100, 100)), limits(*sizes))
    assert losses == {}
    for boxes, held, (height, width) in zip(proposals, holds_box, sizes, strict=True):
        boxes = boxes[held]
        assert len(boxes) > 20
        assert (boxes >= 0).all() and (boxes[:, 2] <= width).all() and (boxes[:, 3] <= height).all()
        assert (boxes[:, 2:] > boxes[:, :2]).all()


def test_numbers_of_the_config_limit_the_proposals():
    network = build(rpn_post_nms_top_n_train=7, rpn_post_nms_top_n_test=3)
    inputs = random_pyramid(1, (64, 64)), limits((64, 64))
    for is_training, count in ((True, 7), (False, 3)):
        boxes, holds_box, _ = network.train(is_training)(*inputs)
        assert boxes.shape == (1, count, 4) and holds_box.all()


def test_losses_of_a_known_head():
    """A head of zeros gives every sampled anchor log 2, and each true one the distance of its own coding from zero."""
    network = build(rpn_batch_size_per_image=100000)
    for parameter in network.parameters():
        torch.nn.init.zeros_(parameter)
    size, box = (64, 64), torch.tensor([10.0, 12.0, 27.0, 27.0])
    pyramid = random_pyramid(1, size)
    *_, losses = network(pyramid, limits(size), [target([box.tolist()])])
    torch.testing.assert_close(losses["loss_objectness"], torch.tensor(2.0).log())

    anchors = network.anchor_generator(pyramid)
    shared = (torch.minimum(anchors[:, 2:], box[2:]) - torch.maximum(anchors[:, :2], box[:2])).clamp(min=0).prod(1)
    sides = anchors[:, 2:] - anchors[:, :2]
    iou = shared / (sides.prod(1) + 17 * 15 - shared)
    positive = (iou >= 0.7) | (iou == iou.max())
    counted = positive | (iou < 0.3)
    own, sides = anchors[positive], sides[positive]
    coding = torch.cat(
        [
            (torch.tensor([18.5, 19.5]) - (own[:, :2] + own[:, 2:]) / 2) / sides,
            (torch.tensor([17.0, 15.0]) / sides).log(),
        ],
        dim=1,
    ).abs()
    smooth = torch.where(coding < 1 / 9, 4.5 * coding**2, coding - 1 / 18).sum()
    torch.testing.assert_close(losses["loss_rpn_box"], smooth / counted.sum())


def test_background_in_a_crowd_does_not_count():
    network = build()
    pyramid, size = random_pyramid(1, (64, 64)), (64, 64)
    anchors = network.anchor_generator(pyramid)
    crowd = [[0.0, 0.0, 30.0, 64.0]]
    labels, _ = network.assign_targets_to_anchors([anchors], [target([[20.0, 20, 28, 28]], crowd)])
    plain, _ = network.assign_targets_to_anchors([anchors], [target([[20.0, 20, 28, 28]])])
    assert (labels[0][plain[0] == 1] == 1).all()
    left = (anchors[:, 0] >= 0) & (anchors[:, 2] <= 30) & (anchors[:, 1] >= 0) & (anchors[:, 3] <= 64)
    right = anchors[:, 0] >= 30
    assert (labels[0][left & (plain[0] == 0)] == -1).all() and (left & (plain[0] == 0)).any()
    assert (labels[0][right] == plain[0][right]).all()
    # A crowd all over leaves nothing to sample.
    *_, losses = network(pyramid, limits(size), [target([], [[-1000.0, -1000.0, 1000.0, 1000.0]])])
    assert [loss.item() for loss in losses.values()] == [0, 0]
    sum(losses.values()).backward()
    assert all((parameter.grad == 0).all() for parameter in network.parameters())
