# Copyright 2026 The modeling_pixelvit team. All rights reserved.
# SPDX-License-Identifier: Apache-2.0
"""The feature pyramid under UperNet: sizes and values of its levels, and where their cells lie on the image."""

import pytest
import torch
from helpers import tiny_config
from torch import nn
from torch.nn import functional as F

from modeling_pixelvit.layers_pyramid import BatchNorm, FeaturePyramid, PyramidLevel, crop_to_image, extent_of, fit_map


def centres(cells: int, cell: float) -> torch.Tensor:
    """Pixel positions of the middles of `cells` cells of `cell` pixels."""
    return (torch.arange(cells) + 0.5) * cell


def ramp(rows: int, columns: int, cell_height: float, cell_width: float) -> torch.Tensor:
    """A map (1, 2, rows, columns) that holds where each cell's middle is: row, then column, in pixels."""
    return torch.stack(torch.meshgrid(centres(rows, cell_height), centres(columns, cell_width), indexing="ij"))[None]


def sample(features: torch.Tensor, covered: tuple, extent: tuple, size: tuple) -> torch.Tensor:
    """What `fit_map` should give, by `grid_sample` at the middles of the new cells."""
    places = [
        centres(count, whole / count) / old * 2 - 1 for count, whole, old in zip(size, extent, covered, strict=True)
    ]
    rows, columns = torch.meshgrid(*places, indexing="ij")
    grid = torch.stack([columns, rows], dim=-1).expand(features.shape[0], -1, -1, -1).to(features.dtype)
    return F.grid_sample(features, grid, mode="bilinear", padding_mode="border", align_corners=False)


@pytest.mark.parametrize("training", [True, False])
def test_batch_norm_is_the_usual_one_where_that_works(training):
    torch.manual_seed(0)
    ours, theirs = BatchNorm(3).train(training), nn.BatchNorm2d(3).train(training)
    features = torch.randn(2, 3, 1, 1)
    torch.testing.assert_close(ours(features), theirs(features))
    torch.testing.assert_close(ours.state_dict(), theirs.state_dict())


@pytest.mark.parametrize("training", [False, True])
def test_batch_norm_of_halved_weights_has_exact_statistics(training):
    """As ZeRO-3 leaves them."""
    half, exact = BatchNorm(3).train(training), nn.BatchNorm2d(3).train(training)
    half.weight.data, half.bias.data = half.weight.data.bfloat16(), half.bias.data.bfloat16()
    values = torch.randn(2, 3, 4, 5).bfloat16()
    found, wanted = half(values), exact(values.float())
    assert found.dtype == torch.bfloat16
    torch.testing.assert_close(found, wanted.bfloat16())
    for name, buffer in exact.named_buffers():
        torch.testing.assert_close(half.get_buffer(name), buffer)


def test_batch_norm_takes_running_statistics_for_a_single_value():
    norm = BatchNorm(3).train()
    with torch.no_grad():
        norm.running_mean.fill_(2.0)
        norm.running_var.fill_(4.0)
        norm.bias.fill_(1.0)
    before = {name: tensor.clone() for name, tensor in norm.state_dict().items()}
    features = torch.full((1, 3, 1, 1), 6.0, requires_grad=True)
    output = norm(features)
    torch.testing.assert_close(output, torch.full((1, 3, 1, 1), 3.0), rtol=1e-4, atol=0)
    torch.testing.assert_close(norm.state_dict(), before)
    output.sum().backward()
    torch.testing.assert_close(features.grad, torch.full((1, 3, 1, 1), 0.5), rtol=1e-4, atol=0)
    assert norm.weight.grad is not None and norm.bias.grad is not None


@pytest.mark.parametrize(
    ("cells", "covered", "extent", "size"),
    [
        ((4, 6), (16, 24), (16, 24), (4, 6)),
        ((4, 6), (16, 24), (8, 12), (2, 3)),
        ((4, 6), (16, 24), (13, 22), (4, 6)),
        ((3, 3), (42, 42), (42, 42), (11, 11)),
        ((5, 7), (70, 98), (64, 96), (4, 6)),
        ((2, 1), (64, 32), (33, 1), (2, 1)),
    ],
)
def test_fit_map_keeps_every_cell_in_its_place(cells, covered, extent, size):
    torch.manual_seed(0)
    features = torch.randn(2, 3, *cells, dtype=torch.float64)
    actual = fit_map(features, covered, extent, size)
    assert actual.shape == (2, 3, *size)
    torch.testing.assert_close(actual, sample(features, covered, extent, size), rtol=0, atol=1e-5)


def test_fit_map_copies_nothing_where_cells_stay():
    features = torch.randn(1, 3, 4, 6)
    assert fit_map(features, (16, 24), (16, 24), (4, 6)).data_ptr() == features.data_ptr()
    torch.testing.assert_close(fit_map(features, (16, 24), (8, 12), (2, 3)), features[..., :2, :3], rtol=0, atol=0)


@pytest.mark.parametrize("image_size", [(32, 48), (29, 40), (17, 33), (1, 5)])
def test_the_padded_part_does_not_shift_the_map(image_size):
    """Upsampled to the image, a map of places gives each pixel its own place, as far as there are cells around it."""
    grid = [-(-side // 4) for side in image_size]
    logits = crop_to_image(ramp(*grid, 4, 4), [4 * count for count in grid], image_size)
    assert logits.shape == (1, 2, *grid)
    pixels = F.interpolate(logits, size=image_size, mode="bilinear", align_corners=False)
    for axis, side in enumerate(image_size):
        places = pixels[0, axis].movedim(axis, 0).flatten(1)
        inner = slice(6, side - 6)
        expected = centres(side, 1)[inner, None].expand_as(places[inner])
        torch.testing.assert_close(places[inner], expected, rtol=0, atol=1e-3)


def test_crop_to_image_drops_the_cells_beyond_the_image():
    logits = torch.randn(1, 3, 8, 8)
    torch.testing.assert_close(crop_to_image(logits, (32, 32), (20, 32)), logits[:, :, :5], rtol=0, atol=0)
    assert crop_to_image(logits, (32, 32), (21, 5)).shape == (1, 3, 6, 2)


@pytest.mark.parametrize("patch_size", [1, 2, 3, 4, 8, 14, 16, 32, 64])
@pytest.mark.parametrize("image_size", [(64, 64), (40, 72), (33, 47), (1, 3)])
def test_sizes_of_levels(patch_size, image_size):
    config = tiny_config("pixelvit", hidden_size=4, num_attention_heads=1, patch_size=patch_size, image_size=patch_size)
    pyramid = FeaturePyramid(config)
    strides = config.pyramid_strides
    assert strides == [min(4, patch_size) * factor for factor in (1, 2, 4, 8)]
    grid = [-(-side // patch_size) for side in image_size]
    with torch.no_grad():
        maps = pyramid([torch.randn(2, 4, *grid) for _ in strides], image_size, patch_size, strides)
    extent = extent_of(image_size, strides)
    assert all(
        whole % strides[-1] == 0 and 0 <= whole - side < strides[-1]
        for whole, side in zip(extent, image_size, strict=True)
    )
    expected = [(2, 4, extent[0] // stride, extent[1] // stride) for stride in strides]
    assert [tuple(features.shape) for features in maps] == expected


def test_levels_that_need_no_weights_have_known_values():
    config = tiny_config("pixelvit", hidden_size=4, num_attention_heads=1, patch_size=2, decoder_strides=[2, 4, 6, 12])
    pyramid = FeaturePyramid(config)
    assert not list(pyramid.parameters())
    tokens = torch.randn(1, 4, 7, 5)  # of images of 13 by 10 pixels, on an extent of 24 by 12
    maps = pyramid([tokens] * 4, (13, 10), 2, config.pyramid_strides)
    rows, columns = torch.arange(12).clamp(max=6), torch.arange(6).clamp(max=4)
    extended = tokens[:, :, rows][:, :, :, columns]
    torch.testing.assert_close(maps[0], extended, rtol=0, atol=0)
    for index, joined in ((1, 2), (2, 3), (3, 6)):
        windows = extended.unflatten(3, (-1, joined)).unflatten(2, (-1, joined))
        torch.testing.assert_close(maps[index], windows.amax(dim=(3, 5)), rtol=0, atol=0)


def test_identity_level_is_the_map_of_tokens():
    tokens = torch.randn(1, 4, 6, 8)
    assert PyramidLevel(4, 16, 16)(tokens, (96, 128), 16, 16).data_ptr() == tokens.data_ptr()


def test_a_halving_is_one_linear_map_for_each_quarter_of_the_patch():
    torch.manual_seed(0)
    level = PyramidLevel(4, 16, 8)
    tokens = torch.randn(2, 4, 3, 5)
    quarters = level(tokens, (48, 80), 16, 8)
    weight, bias = level.resample[0].weight, level.resample[0].bias
    for row, column in ((0, 0), (0, 1), (1, 0), (1, 1)):
        expected = torch.einsum("bdrc,de->berc", tokens, weight[:, :, row, column]) + bias[:, None, None]
        torch.testing.assert_close(quarters[:, :, row::2, column::2], expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("patch_size", "stride", "halvings"),
    [(32, 4, 3), (16, 4, 2), (14, 4, 2), (12, 4, 2), (6, 4, 1), (5, 4, 0), (4, 4, 0), (14, 16, 0), (1, 8, 0)],
)
def test_a_patch_is_halved_until_it_is_nearest_to_the_stride(patch_size, stride, halvings):
    kinds = [type(module) for module in PyramidLevel(4, patch_size, stride).resample]
    between = [BatchNorm, nn.GELU, nn.ConvTranspose2d]
    assert [kind for kind in kinds if kind is not nn.MaxPool2d] == ([nn.ConvTranspose2d] + between * (halvings - 1)) * (
        halvings > 0
    )


@pytest.mark.parametrize(("patch_size", "stride"), [(14, 16), (5, 4), (3, 5), (7, 16), (14, 32)])
def test_levels_at_odd_ratios_lie_where_they_should(patch_size, stride):
    level = PyramidLevel(2, patch_size, stride)
    assert level.halvings == 0
    extent = (6 * stride, 4 * stride)
    grid = [-(-side // patch_size) for side in extent]
    places = level(ramp(*grid, patch_size, patch_size), extent, patch_size, stride)
    assert places.shape == (1, 2, 6, 4)
    # A maximum over several patches is that of the last one.
    shift = (max(1, stride // patch_size) - 1) * patch_size / 2
    torch.testing.assert_close(places[0, 0, 1:-1], (centres(6, stride)[1:-1, None] + shift).expand(-1, 4))


def test_gradients_reach_every_level():
    config = tiny_config("pixelvit", hidden_size=4, num_attention_heads=1, patch_size=16, image_size=32)
    pyramid = FeaturePyramid(config).train()
    tokens = [torch.randn(1, 4, 3, 3, requires_grad=True) for _ in range(4)]
    sum(features.square().sum() for features in pyramid(tokens, (40, 33), 16, config.pyramid_strides)).backward()
    assert all(features.grad.abs().max() > 0 for features in tokens)
    assert all(parameter.grad is not None for parameter in pyramid.parameters())
