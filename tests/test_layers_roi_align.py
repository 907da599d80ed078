# Copyright 2026 The modeling_pixelvit team. All rights reserved.
# SPDX-License-Identifier: Apache-2.0
"""RoIAlign over the pyramid: which level, and which places on it."""

import pytest
import torch

from modeling_pixelvit import PixelViTConfig
from modeling_pixelvit.layers_boxes import rois_of_lists
from modeling_pixelvit.layers_roi_align import PyramidRoIAlign


def coordinate_maps(size, strides):
    """Maps of the (x, y) pixel coordinates of their cells' centres."""
    maps = []
    for stride in strides:
        rows, columns = (-(-side // stride) for side in size)
        y, x = torch.meshgrid(torch.arange(rows), torch.arange(columns), indexing="ij")
        maps.append((torch.stack([x, y])[None] + 0.5) * stride)
    return maps


def pool_of(strides, output_size):
    """With the default settings, on levels of these strides and a last one of which no box is pooled."""
    strides = [*strides, 2 * strides[-1]]
    return PyramidRoIAlign(PixelViTConfig(detection_strides=strides, anchor_sizes=[32] * len(strides)), output_size)


@pytest.mark.parametrize(
    ("side", "level"), [(8, 0), (111, 0), (112, 1), (223, 1), (224, 2), (447, 2), (448, 3), (896, 3), (4000, 3), (0, 0)]
)
def test_level_of_a_box(side, level):
    pool = pool_of([4, 8, 16, 32], 7)
    assert pool.level_of(torch.tensor([[10.0, 10.0, 10.0 + side, 10.0 + side]])).tolist() == [level]


def test_finer_strides_shift_the_levels():
    boxes = torch.tensor([[0.0, 0.0, 30.0, 30.0], [0.0, 0.0, 60.0, 60.0], [0.0, 0.0, 120.0, 120.0]])
    assert pool_of([2, 4, 8], 7).level_of(boxes).tolist() == [0, 1, 2]


@pytest.mark.parametrize("size", [(333, 500), (512, 640)])
def test_cells_hold_what_lies_under_them(size):
    """Pooled from maps of pixel coordinates, each cell holds the coordinates of its own centre, on every level."""
    strides = [4, 8, 16, 32]
    boxes = [
        torch.tensor([[40.0, 33.0, 61.0, 90.0], [100.0, 20.0, 250.0, 180.0]]),
        torch.tensor([[20.0, 40.0, 300.0, 290.0], [20.0, 20.0, 470.0, 300.0], [33.3, 50.1, 38.9, 52.7]]),
    ]
    pool = pool_of(strides, 7)
    assert set(pool.level_of(torch.cat(boxes)).tolist()) == {0, 1, 2}
    pyramid = [level.expand(2, -1, -1, -1) for level in coordinate_maps(size, strides)]
    pooled = pool(pyramid, rois_of_lists(boxes))
    share = (torch.arange(7) + 0.5) / 7
    for actual, (left, top, right, bottom) in zip(pooled, torch.cat(boxes), strict=True):
        torch.testing.assert_close(actual[0], (left + share * (right - left)).expand(7, 7), rtol=1e-4, atol=1e-3)
        torch.testing.assert_close(actual[1].t(), (top + share * (bottom - top)).expand(7, 7), rtol=1e-4, atol=1e-3)


def test_boxes_read_their_own_image():
    pyramid = [torch.arange(3.0).view(3, 1, 1, 1).expand(3, 1, 8, 8).contiguous() for _ in range(2)]
    boxes = [torch.tensor([[2.0, 2.0, 9.0, 9.0]]), torch.zeros(0, 4), torch.tensor([[2.0, 2.0, 9.0, 9.0]] * 2)]
    assert pool_of([4, 8], 2)(pyramid, rois_of_lists(boxes))[:, 0, 0, 0].tolist() == [0, 2, 2]


def test_no_box_at_all_still_has_a_gradient():
    pyramid = [torch.randn(1, 3, 8, 8, requires_grad=True)]
    pooled = pool_of([4], 7)(pyramid, torch.zeros(0, 5))
    assert pooled.shape == (0, 3, 7, 7)
    pooled.sum().backward()
    assert (pyramid[0].grad == 0).all()
