# Copyright 2026 The modeling_pixelvit team. All rights reserved.
# SPDX-License-Identifier: Apache-2.0
"""Boxes in places: suppression, and detection as compilers and exporters trace it against an ordinary call."""

import pytest
import torch
from interop_models import detector
from torchvision.ops import nms

from modeling_pixelvit import AdventurerForObjectDetection, PixelViTForObjectDetection
from modeling_pixelvit.layers_boxes import limits_of, suppress
from modeling_pixelvit.layers_padding import image_sizes_of


SIZE = (40, 56)
NAMES = ("scores", "pred_classes", "pred_boxes", "pred_masks")


def padded_batch(num_images: int = 3) -> tuple[torch.Tensor, torch.Tensor]:
    """Noise, every image smaller than the one before; and the mask."""
    torch.manual_seed(1)
    mask = torch.zeros(num_images, *SIZE, dtype=torch.int64)
    for index in range(num_images):
        mask[index, : SIZE[0] - 7 * index, : SIZE[1] - 9 * index] = 1
    return torch.randn(num_images, 3, *SIZE) * mask[:, None], mask


@torch.no_grad()
def traced(monkeypatch, model, pixel_values, pixel_mask):
    """What is computed where no shape may depend on what is found."""
    with monkeypatch.context() as patch:
        patch.setattr(torch.compiler, "is_compiling", lambda: True)
        return model(pixel_values, pixel_mask=pixel_mask)


@pytest.mark.parametrize("model_class", [AdventurerForObjectDetection, PixelViTForObjectDetection])
@pytest.mark.parametrize(
    "fields",
    [
        {},
        {"use_cascade": False},
        {"use_masks": False, "roi_aligned": False, "roi_sampling_ratio": 2},
        {"rpn_pre_nms_top_n_test": 40, "rpn_post_nms_top_n_test": 15, "max_detections": 100},
        {"box_score_threshold": 0.0, "max_detections": 7},
    ],
)
@pytest.mark.parametrize("is_padded", [False, True])
def test_traced_as_called(monkeypatch, model_class, fields, is_padded):
    model = detector(model_class, **fields)
    pixel_values, mask = padded_batch()
    mask = mask if is_padded else None
    actual = traced(monkeypatch, model, pixel_values, mask)
    with torch.no_grad():
        expected = model(pixel_values, pixel_mask=mask)
    assert (expected.scores > 0).sum() > 10
    assert list(actual) == list(expected)
    for name in NAMES:
        if name in expected:
            assert actual[name].dtype == expected[name].dtype
            torch.testing.assert_close(actual[name], expected[name], rtol=1e-5, atol=1e-6)


def test_nothing_found(monkeypatch):
    model = detector(PixelViTForObjectDetection, box_score_threshold=1.0)
    pixel_values, mask = padded_batch()
    with torch.no_grad():
        called = model(pixel_values, pixel_mask=mask)
    for actual in (called, traced(monkeypatch, model, pixel_values, mask)):
        assert {name: tuple(actual[name].shape) for name in NAMES} == {
            "scores": (3, 20),
            "pred_classes": (3, 20),
            "pred_boxes": (3, 20, 4),
            "pred_masks": (3, 20, 28, 28),
        }
        assert all((actual[name] == 0).all() for name in NAMES)


def test_limits():
    pixel_values, mask = padded_batch()
    for given in (None, mask):
        assert limits_of(pixel_values, given).tolist() == [
            [float(width), float(height)] * 2 for height, width in image_sizes_of(pixel_values, given)
        ]
    with pytest.raises(ValueError, match=r"pixel_mask has shape \(3, 40, 55\); .* it must be \(batch_size, 40, 56\)"):
        limits_of(pixel_values, mask[..., 1:])


@pytest.mark.parametrize(("num_images", "num_classes"), [(1, 1203), (8, 1203), (3, 4)])
@pytest.mark.parametrize("in_graph", [False, True])
def test_suppression_is_that_of_each_class_alone(monkeypatch, num_images, num_classes, in_graph):
    """Of boxes that overlap by just more or less than the threshold, for as many classes as LVIS has."""
    generator = torch.Generator().manual_seed(0)
    pairs = 1500
    images = torch.randint(num_images, (pairs,), generator=generator).repeat(2)
    classes = torch.randint(num_classes - 3, num_classes, (pairs,), generator=generator).repeat(2)
    # Of 20 by 20 pixels, the second of a pair further right by x: an overlap of (20 - x) / (20 + x), 1/2 at 20 / 3.
    sign = torch.randint(2, (pairs,), generator=generator) * 2 - 1
    moved = 20 / 3 + sign * (0.05 + 0.2 * torch.rand(pairs, generator=generator))
    corners = 1000 * torch.rand(pairs, 2, generator=generator)
    corners = torch.cat([corners, corners + torch.stack([moved, torch.zeros(pairs)], dim=1)])
    boxes, scores = torch.cat([corners, corners + 20], dim=1), torch.rand(2 * pairs, generator=generator)
    monkeypatch.setattr(torch.compiler, "is_compiling", lambda: in_graph)
    found = suppress(boxes, scores, images, classes, num_classes, 0.5, boxes.max())
    wanted = []
    for group in (images * num_classes + classes).unique():
        index = torch.where(images * num_classes + classes == group)[0]
        wanted += index[nms(boxes[index].double(), scores[index].double(), 0.5)].tolist()
    assert sorted(found.tolist()) == sorted(wanted) and 1.2 * pairs < len(wanted) < 1.8 * pairs
