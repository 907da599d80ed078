# Copyright 2026 The modeling_pixelvit team. All rights reserved.
# SPDX-License-Identifier: Apache-2.0
"""The box stages' arithmetic, from predictors that give the same known numbers for every box."""

import math

import pytest
import torch
from helpers import tiny_config

from modeling_pixelvit.layers_cascade import BoxStages, MatchedBoxes, _ScaleGradient


SIZE = (60, 80)
LIMITS = torch.tensor([[80.0, 60.0, 80.0, 60.0]])
FIELDS = {
    "pyramid_channels": 4,
    "box_head_num_convs": 1,
    "box_head_hidden_size": 8,
    "num_labels": 3,
    "box_score_threshold": 0.0,
    "box_batch_size_per_image": 1000,
    "box_positive_fraction": 1.0,
}
# Of each stage, for every box: logits of background and three classes, and change of x, y, log width, log height.
LOGITS = [[0.0, 1.0, 2.0, 0.5], [1.0, 0.0, 0.3, -1.0], [-1.0, 0.2, 0.0, 0.9]]
DELTAS = [[0.5, -1.0, 0.4, 0.2], [-0.3, 2.0, -1.0, 0.7], [1.5, 0.6, 0.9, -2.0]]


def build(**fields):
    """Stages whose predictors ignore their input."""
    torch.manual_seed(0)
    stages = BoxStages(tiny_config("pixelvit", **{**FIELDS, **fields}))
    for stage, logits, deltas in zip(stages.stages, LOGITS, DELTAS, strict=False):
        for predictor, numbers in ((stage.class_predictor, logits), (stage.box_predictor, deltas)):
            torch.nn.init.zeros_(predictor.weight)
            predictor.bias.data.copy_(torch.tensor(numbers))
    return stages


def random_pyramid():
    return [torch.randn(1, 4, -(-SIZE[0] // stride), -(-SIZE[1] // stride)) for stride in (4, 8, 16, 32, 64)]


def refine(box, stage):
    """A box after a stage by the definition: shift in sides, then growth, weighted by stage, clipped to the image."""
    left, top, right, bottom = box
    width, height = right - left, bottom - top
    dx, dy, dw, dh = (value / weight for value, weight in zip(DELTAS[stage], (10, 10, 5, 5), strict=True))
    dx, dy, dw, dh = (value / (stage + 1) for value in (dx, dy, dw, dh))
    x, y = (left + right) / 2 + dx * width, (top + bottom) / 2 + dy * height
    width, height = width * math.exp(dw), height * math.exp(dh)
    corners = (x - width / 2, y - height / 2, x + width / 2, y + height / 2)
    return [min(max(value, 0.0), most) for value, most in zip(corners, (SIZE[1], SIZE[0]) * 2, strict=True)]


def overlap(one, two):
    width, height = (min(one[i + 2], two[i + 2]) - max(one[i], two[i]) for i in (0, 1))
    shared = max(width, 0) * max(height, 0)
    area = sum((box[2] - box[0]) * (box[3] - box[1]) for box in (one, two))
    return shared / (area - shared)


def coding(box, wanted, stage):
    """What a stage would have to predict to turn a box into the wanted one."""
    sides = [box[2] - box[0], box[3] - box[1]]
    shift = [((wanted[i] + wanted[i + 2]) / 2 - (box[i] + box[i + 2]) / 2) / sides[i] for i in (0, 1)]
    growth = [math.log((wanted[i + 2] - wanted[i]) / sides[i]) for i in (0, 1)]
    return [value * weight * (stage + 1) for value, weight in zip(shift + growth, (10, 10, 5, 5), strict=True)]


def softmax(logits):
    total = sum(math.exp(value) for value in logits)
    return [math.exp(value) / total for value in logits]


def test_detections_have_the_last_boxes_and_the_mean_of_the_probabilities():
    box = [70.0, 10.0, 78.0, 30.0]
    expected = box
    for stage in range(3):
        expected = refine(expected, stage)
    proposals, holds_box = torch.tensor([[[9.0, 9.0, 50.0, 50.0], box]]), torch.tensor([[False, True]])
    boxes, scores, classes = build().detect(random_pyramid(), proposals, holds_box, LIMITS, torch.float32)
    probabilities = [sum(column) / 3 for column in zip(*(softmax(logits) for logits in LOGITS), strict=True)][1:]
    order = sorted(range(3), key=lambda index: -probabilities[index])
    assert classes[0, :3].tolist() == order
    torch.testing.assert_close(scores[0, :3], torch.tensor([probabilities[index] for index in order]))
    torch.testing.assert_close(boxes[0, :3], torch.tensor([expected] * 3))
    assert (scores[0, 3:] == 0).all()


def test_losses_match_every_stage_anew():
    truth = [[10.0, 10.0, 30.0, 40.0], [50.0, 5.0, 75.0, 25.0]]
    classes = [2, 3]
    boxes = [[9.0, 8.0, 28.0, 37.0], [14.0, 10.0, 30.0, 40.0], [45.0, 5.0, 70.0, 22.0], [0.0, 45.0, 20.0, 60.0], *truth]
    target = {
        "boxes": torch.tensor(truth),
        "labels": torch.tensor(classes),
        "crowd_boxes": torch.zeros(0, 4),
    }
    stages = build()
    samples = stages.sample([torch.tensor(boxes[:4])], [target])
    torch.testing.assert_close(samples[0].boxes, torch.tensor(boxes))
    losses = stages.losses(random_pyramid(), samples, [target], LIMITS, torch.float32)
    assert list(losses) == [f"loss_{kind}_stage{stage}" for stage in (1, 2, 3) for kind in ("classifier", "box")]
    kinds = []
    for stage, threshold in enumerate((0.5, 0.6, 0.7)):
        class_loss = box_loss = 0.0
        kinds.append([])
        for box in boxes:
            best = max((0, 1), key=lambda index: overlap(box, truth[index]))
            label = classes[best] if overlap(box, truth[best]) >= threshold else 0
            kinds[-1].append(label)
            class_loss -= math.log(softmax(LOGITS[stage])[label])
            if label:
                wanted = coding(box, truth[best], stage)
                box_loss += sum(abs(value - delta) for value, delta in zip(wanted, DELTAS[stage], strict=True))
        torch.testing.assert_close(losses[f"loss_classifier_stage{stage + 1}"], torch.tensor(class_loss / len(boxes)))
        torch.testing.assert_close(losses[f"loss_box_stage{stage + 1}"], torch.tensor(box_loss / len(boxes)))
        boxes = [refine(box, stage) for box in boxes]
    assert kinds[0] == [2, 2, 3, 0, 2, 3] and kinds[2] != kinds[0]  # or the test would not tell the stages apart


def test_sampling_keeps_to_the_numbers():
    torch.manual_seed(0)
    stages = build(box_batch_size_per_image=20, box_positive_fraction=0.25)
    truth = torch.tensor([[10.0, 10.0, 30.0, 40.0]])
    target = {"boxes": truth, "labels": torch.tensor([2]), "crowd_boxes": torch.zeros(0, 4)}
    near = truth + torch.rand(30, 4)
    far = near + 30
    sample = stages.sample([torch.cat([near, far])], [target])[0]
    assert (sample.labels == 2).sum() == 5 and (sample.labels == 0).sum() == 15


def test_background_in_a_crowd_is_left_out():
    stages = build()
    boxes = torch.tensor([[10.0, 10.0, 30.0, 40.0], [40.0, 10.0, 60.0, 30.0], [0.0, 0.0, 8.0, 8.0]])
    target = {
        "boxes": boxes[:1],
        "labels": torch.tensor([1]),
        "crowd_boxes": torch.tensor([[5.0, 5.0, 70.0, 50.0]]),
    }
    assert stages.stages[0].match(boxes, target).labels.tolist() == [1, -1, 0]
    samples = stages.sample([boxes], [target])
    assert samples[0].labels.tolist() == [1, 0, 1]
    nothing = {**target, "boxes": boxes[:0], "labels": torch.zeros(0, dtype=torch.long)}
    ignored = [MatchedBoxes(boxes[1:2], torch.zeros(1, dtype=torch.long), torch.tensor([-1]))]
    losses = stages.losses(random_pyramid(), ignored, [nothing], LIMITS, torch.float32)
    assert [loss.item() for loss in losses.values()] == [0.0] * 6


def test_boxes_clipped_to_nothing_do_no_harm():
    stages = build()
    for stage in stages.stages:
        stage.box_predictor.bias.data.copy_(torch.tensor([1e3, 0.0, 0.0, 0.0]))
    target = {
        "boxes": torch.tensor([[10.0, 10.0, 30.0, 40.0]]),
        "labels": torch.tensor([1]),
        "crowd_boxes": torch.zeros(0, 4),
    }
    samples = stages.sample([torch.zeros(0, 4)], [target])
    losses = stages.losses(random_pyramid(), samples, [target], LIMITS, torch.float32)
    assert all(loss.isfinite() for loss in losses.values())
    assert losses["loss_classifier_stage2"] == 0  # with no box left
    proposals, holds_box = target["boxes"][None], torch.ones(1, 1, dtype=torch.bool)
    _, scores, _ = stages.detect(random_pyramid(), proposals, holds_box, LIMITS, torch.float32)
    assert (scores == 0).all()


@pytest.mark.parametrize("thresholds", [(0.5,), (0.4, 0.5, 0.6, 0.7)])
def test_weights_grow_with_the_stage(thresholds):
    stages = build(cascade_iou_thresholds=thresholds).stages
    assert [stage.box_coder.weights for stage in stages] == [
        (10.0 * n, 10.0 * n, 5.0 * n, 5.0 * n) for n in range(1, len(thresholds) + 1)
    ]
    assert [stage.matcher.high_threshold for stage in stages] == list(thresholds)


def test_features_get_the_mean_of_the_stages_gradients():
    features = torch.randn(3, 4, requires_grad=True)
    scaled = _ScaleGradient.apply(features, 0.25)
    assert torch.equal(scaled, features)
    scaled.square().sum().backward()
    torch.testing.assert_close(features.grad, features.detach() / 2)


def test_classes_suppress_only_themselves():
    config = tiny_config("pixelvit", **{**FIELDS, "use_cascade": False, "num_labels": 2, "box_score_threshold": 0.2})
    stages = BoxStages(config)
    boxes = torch.tensor([[0.0, 0, 10, 10], [0, 0, 10, 9], [20, 20, 30, 30]])[:, None].expand(-1, 2, -1)
    scores = torch.tensor([[0.5, 0.6], [0.7, 0.3], [0.1, 0.21]])
    boxes, scores, classes = stages.select(boxes[None], scores[None], LIMITS)
    assert classes[0, :3].tolist() == [0, 1, 1]
    torch.testing.assert_close(scores[0, :3], torch.tensor([0.7, 0.6, 0.21]))
    assert boxes[0, :3].tolist() == [[0, 0, 10, 9], [0, 0, 10, 10], [20, 20, 30, 30]]
    assert scores.shape == (1, stages.max_detections) and (scores[0, 3:] == 0).all()
