# Copyright 2026 The modeling_pixelvit team. All rights reserved.
# SPDX-License-Identifier: Apache-2.0
"""Masks: targets by counting pixels, and the loss of a known head."""

import torch
from helpers import tiny_config

from modeling_pixelvit.layers_cascade import MatchedBoxes
from modeling_pixelvit.layers_mask_head import MaskHead, mask_targets


def matched(boxes, objects, labels):
    return MatchedBoxes(torch.tensor(boxes).reshape(-1, 4), torch.tensor(objects).long(), torch.tensor(labels).long())


def test_targets_of_whole_pixels():
    """A box of 28 by 28 pixels has a cell for each pixel, one of 56 by 28 a mean of two."""
    generator = torch.Generator().manual_seed(0)
    masks = torch.rand(2, 60, 80, generator=generator) > 0.5
    sample = matched([[5.0, 7.0, 33.0, 35.0], [10.0, 20.0, 66.0, 48.0]], [1, 0], [1, 1])
    targets = mask_targets(masks, sample)
    torch.testing.assert_close(targets[0], masks[1, 7:35, 5:33].float())
    torch.testing.assert_close(targets[1], masks[0, 20:48, 10:66].float().unflatten(1, (28, 2)).mean(2))
    torch.testing.assert_close(mask_targets(masks.to(torch.uint8), sample), targets)


def test_loss_of_a_known_head():
    config = tiny_config(
        "pixelvit", pyramid_channels=4, mask_head_num_convs=1, mask_head_channels=6, num_labels=3, hidden_size=32
    )
    head = MaskHead(config)
    last = head.mask_predictor.mask_fcn_logits
    torch.nn.init.zeros_(last.weight)
    last.bias.data.copy_(torch.tensor([5.0, -1.0, 2.0]))
    pyramid = [torch.randn(2, 4, -(-60 // stride), -(-80 // stride)) for stride in (4, 8, 16, 32, 64)]
    masks = torch.zeros(1, 60, 80)
    masks[0, :, :24] = 1
    samples = [
        matched([[10.0, 10.0, 38.0, 38.0], [0.0, 0.0, 9.0, 9.0]], [0, 0], [2, 0]),
        matched([[10.0, 10.0, 38.0, 38.0]], [0], [3]),
    ]
    loss = head.loss(pyramid, samples, [{"masks": masks}] * 2, torch.float32)
    # Half of each positive box is covered; logits are -1 for the first one's class and 2 for the other's.
    expected = [0.5 * torch.log1p((-x).exp()) + 0.5 * torch.log1p(x.exp()) for x in torch.tensor([-1.0, 2.0])]
    torch.testing.assert_close(loss, sum(expected) / 2)
    nothing = head.loss(pyramid, [samples[0][torch.tensor([1])]] * 2, [{"masks": masks}] * 2, torch.float32)
    nothing.backward()
    assert nothing == 0 and all(parameter.grad is not None for parameter in head.parameters())
