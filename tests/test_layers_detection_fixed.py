# Copyright 2026 The modeling_pixelvit team. All rights reserved.
# SPDX-License-Identifier: Apache-2.0
"""Detection in fixed shapes, which compilers and exporters trace, against the lists of boxes of an ordinary call."""

import pytest
import torch
from interop_models import detector

from modeling_pixelvit import AdventurerForObjectDetection, PixelViTForObjectDetection
from modeling_pixelvit.layers_detection_fixed import detect_in_fixed_shapes, image_sizes_tensor
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
def in_fixed_shapes(model, pixel_values, pixel_mask):
    tokens = model.base_model(pixel_values, interpolate_pos_encoding=True).last_hidden_state
    embeddings = model.base_model.embeddings
    patches = embeddings.patch_tokens(tokens).unflatten(1, embeddings.grid_of(pixel_values)).permute(0, 3, 1, 2)
    pyramid = model.pyramid(patches, SIZE)
    image_sizes = image_sizes_tensor(pixel_values, pixel_mask)
    return detect_in_fixed_shapes(model.proposals, model.box_stages, model.mask_head, pyramid, image_sizes)


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
def test_equals_the_lists(model_class, fields, is_padded):
    model = detector(model_class, **fields)
    pixel_values, mask = padded_batch()
    mask = mask if is_padded else None
    actual = in_fixed_shapes(model, pixel_values, mask)
    with torch.no_grad():
        expected = model(pixel_values, pixel_mask=mask)
    assert (expected.scores > 0).sum() > 10
    for name in NAMES:
        if actual[name] is None:
            assert name == "pred_masks" and expected.pred_masks is None
        else:
            assert actual[name].dtype == expected[name].dtype
            torch.testing.assert_close(actual[name], expected[name], rtol=1e-5, atol=1e-6)


def test_nothing_found():
    model = detector(PixelViTForObjectDetection, box_score_threshold=1.0)
    actual = in_fixed_shapes(model, *padded_batch())
    assert {name: tuple(actual[name].shape) for name in NAMES} == {
        "scores": (3, 20),
        "pred_classes": (3, 20),
        "pred_boxes": (3, 20, 4),
        "pred_masks": (3, 20, 28, 28),
    }
    assert all((actual[name] == 0).all() for name in NAMES)


def test_image_sizes():
    pixel_values, mask = padded_batch()
    for given in (None, mask):
        assert image_sizes_tensor(pixel_values, given).tolist() == [
            list(map(float, size)) for size in image_sizes_of(pixel_values, given)
        ]
    with pytest.raises(ValueError, match=r"pixel_mask has shape \(3, 40, 55\); .* it must be \(batch_size, 40, 56\)"):
        image_sizes_tensor(pixel_values, mask[..., 1:])
