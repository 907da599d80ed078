# Copyright 2026 The modeling_pixelvit team. All rights reserved.
# SPDX-License-Identifier: Apache-2.0
"""The simple feature pyramid: sizes at every patch size, where its cells lie, and what survives another patch size."""

import pytest
import torch
from helpers import tiny_config
from torch import nn

from modeling_pixelvit.layers_simple_pyramid import SimpleFeaturePyramid, SimplePyramidLevel


SIZES = [(64, 96), (65, 33), (37, 130), (5, 3), (1, 1)]


def build(patch_size, **fields):
    torch.manual_seed(0)
    config = tiny_config(
        "pixelvit", **{"patch_size": patch_size, "image_size": patch_size, "pyramid_channels": 6, **fields}
    )
    return SimpleFeaturePyramid(config).eval()


def patch_map(size, patch_size, channels=32):
    grid = [-(-side // patch_size) for side in size]
    return torch.randn(2, channels, *grid)


@pytest.mark.parametrize("patch_size", [64, 32, 16, 14, 12, 8, 7, 6, 5, 4, 3, 2, 1])
@pytest.mark.parametrize("size", SIZES)
def test_each_level_has_a_cell_for_every_stride_begun(patch_size, size):
    with torch.no_grad():
        maps = build(patch_size)(patch_map(size, patch_size), size, patch_size)
    assert [tuple(level.shape) for level in maps] == [
        (2, 6, -(-size[0] // stride), -(-size[1] // stride)) for stride in (4, 8, 16, 32, 64)
    ]


def test_layers_of_patch_16_are_those_of_vitdet():
    pyramid = build(16)
    channels = [
        [layer.weight.shape[:2] for layer in level.upsample if isinstance(layer, nn.ConvTranspose2d)]
        for level in pyramid.levels
    ]
    assert channels == [[(32, 16), (16, 8)], [(32, 16)], [], []]
    assert [type(layer).__name__ for layer in pyramid.levels[0].upsample] == [
        "ConvTranspose2d",
        "LayerNorm2d",
        "GELU",
        "ConvTranspose2d",
    ]
    assert [level.pooling_at(16) for level in pyramid.levels] == [1, 1, 1, 2]
    assert [level.project[0].weight.shape[1] for level in pyramid.levels] == [8, 16, 32, 32]
    assert all(level.project[0].bias is None and level.smooth[0].bias is None for level in pyramid.levels)


def test_a_large_patch_keeps_the_channels_of_the_second_step():
    layers = [layer for layer in build(64).levels[0].upsample if isinstance(layer, nn.ConvTranspose2d)]
    assert [layer.weight.shape[1] for layer in layers] == [16, 8, 8, 8]


def test_pooled_levels_are_maxima_over_squares_of_patches():
    pyramid, size = build(1), (13, 22)
    features = patch_map(size, 1)
    maps = pyramid(features, size, 1)
    for level, actual in zip(pyramid.levels, maps, strict=False):
        stride = level.stride
        rows, columns = actual.shape[-2:]
        expected = torch.stack(
            [
                torch.stack(
                    [
                        features[:, :, stride * r : stride * r + stride, stride * c : stride * c + stride].amax((2, 3))
                        for c in range(columns)
                    ],
                    dim=-1,
                )
                for r in range(rows)
            ],
            dim=-2,
        )
        torch.testing.assert_close(actual, level.smooth(level.project(expected)))
    torch.testing.assert_close(maps[4], maps[3][:, :, ::2, ::2])


@pytest.mark.parametrize(("patch_size", "stride"), [(3, 4), (7, 8), (5, 8), (6, 8)])
@pytest.mark.parametrize("size", [(70, 43), (71, 96)])
def test_cells_lie_where_their_stride_says(patch_size, stride, size):
    """A map that holds the coordinates of its patches' centres comes out with those of the level's cells."""
    level = SimplePyramidLevel(2, 2, patch_size, stride)
    level.project = level.smooth = nn.Identity()
    rows, columns = (-(-side // patch_size) for side in size)
    down, right = torch.meshgrid(torch.arange(rows), torch.arange(columns), indexing="ij")
    centres = (torch.stack([down, right])[None] + 0.5) * patch_size
    down, right = torch.meshgrid(
        torch.arange(-(-size[0] // stride)), torch.arange(-(-size[1] // stride)), indexing="ij"
    )
    expected = (torch.stack([down, right])[None] + 0.5) * stride
    # Past the centres of the last patches there is nothing to interpolate with.
    expected = torch.minimum(expected, centres[..., -1:, -1:])
    torch.testing.assert_close(level(centres, size, patch_size), expected)


def test_pixels_outside_the_image_are_cut_off():
    """Of patches that reach out of the image, only the cells inside count."""
    pyramid, size = build(16), (20, 40)
    features = patch_map(size, 16)
    fine = pyramid.levels[0].upsample(features)
    assert fine.shape[-2:] == (8, 12)
    changed = fine.clone()
    changed[:, :, 5:] += 1
    changed[:, :, :, 10:] += 1
    pyramid.levels[0].upsample = nn.Identity()
    expected, found = (pyramid.levels[0](features, size, 16) for features in (fine, changed))
    torch.testing.assert_close(found, expected, rtol=0, atol=0)


@pytest.mark.parametrize(("before", "after"), [(4, 2), (2, 1), (1, 4)])
def test_patches_that_divide_the_finest_stride_share_all_weights(before, after):
    pyramid = build(before)
    config = tiny_config("pixelvit", patch_size=after, image_size=after, pyramid_channels=6)
    resized = pyramid.resized(config)
    assert resized.patch_size == after
    assert resized.state_dict().keys() == pyramid.state_dict().keys()
    for name, weight in resized.state_dict().items():
        assert torch.equal(weight, pyramid.state_dict()[name])


def test_another_patch_size_keeps_the_levels_that_stay_what_they_are():
    pyramid = build(16).to(torch.bfloat16).requires_grad_(False)
    resized = pyramid.resized(tiny_config("pixelvit", patch_size=8, image_size=8, pyramid_channels=6))
    assert {weight.dtype for weight in resized.parameters()} == {torch.bfloat16} and not resized.training
    assert not any(weight.requires_grad for weight in resized.parameters())
    old, new = pyramid.state_dict(), resized.state_dict()
    assert torch.equal(old["levels.2.project.0.weight"], new["levels.2.project.0.weight"])  # as wide: 32 channels
    assert torch.equal(old["levels.0.smooth.0.weight"], new["levels.0.smooth.0.weight"])
    assert new["levels.1.project.0.weight"].shape == (6, 32, 1, 1)
    with torch.no_grad():
        levels = resized(patch_map((30, 20), 8).to(torch.bfloat16), (30, 20), 8)
    assert all(level.isfinite().all() for level in levels)
