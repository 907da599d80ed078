# Copyright 2026 The modeling_pixelvit team. All rights reserved.
# SPDX-License-Identifier: Apache-2.0
"""Patch embedding and positions, and what becomes of them when the grid changes."""

import pytest
import torch
from helpers import tiny_config
from torch.nn import functional as F

from modeling_pixelvit.layers_embeddings import (
    PatchProjection,
    PixelEmbeddings,
    resize_patch_kernel,
    resize_position_embeddings,
)


@pytest.mark.parametrize("patch_size", [1, 2, 3, 8])
def test_projection_is_the_strided_convolution(patch_size):
    """In raster order, forward and backward."""
    torch.manual_seed(0)
    projection = PatchProjection(3, 7, patch_size).double()
    pixels = torch.randn(2, 3, 2 * patch_size, 5 * patch_size, dtype=torch.float64, requires_grad=True)
    expected = F.conv2d(pixels, projection.weight, projection.bias, stride=patch_size).flatten(2).transpose(1, 2)
    actual = projection(pixels)
    torch.testing.assert_close(actual, expected)
    weight = torch.randn_like(actual)
    parameters = [pixels, *projection.parameters()]
    for ours, theirs in zip(
        torch.autograd.grad(actual, parameters, weight), torch.autograd.grad(expected, parameters, weight), strict=True
    ):
        torch.testing.assert_close(ours, theirs)


@pytest.mark.parametrize("class_token_last", [False, True])
def test_the_class_position_stays_and_patch_positions_are_a_picture(class_token_last):
    """The released code takes the first row for the class position of a table whose class position is last."""
    grid, new_grid = (4, 6), (8, 3)
    rows, columns = torch.meshgrid(torch.arange(4.0), torch.arange(6.0), indexing="ij")
    patches = torch.stack([rows, columns], dim=-1).view(1, 24, 2)
    class_position = torch.tensor([[[-100.0, 100.0]]])
    order = [patches, class_position] if class_token_last else [class_position, patches]
    table = resize_position_embeddings(torch.cat(order, dim=1), grid, new_grid, class_token_last)
    assert table.shape == (1, 25, 2)
    new_patches = table[:, :-1] if class_token_last else table[:, 1:]
    new_class = table[:, -1:] if class_token_last else table[:, :1]
    torch.testing.assert_close(new_class, class_position, rtol=0, atol=0)
    picture = new_patches.view(8, 3, 2)
    # A ramp stays a ramp: down the rows in the first channel, along the columns in the second.
    assert (picture[1:, :, 0] >= picture[:-1, :, 0]).all() and (picture[:, 1:, 1] > picture[:, :-1, 1]).all()
    assert picture[:, :, 0].std(dim=1).max() < 1e-5 and picture[:, :, 1].std(dim=0).max() < 1e-5


@pytest.mark.parametrize("class_token_last", [False, True])
@pytest.mark.parametrize("new_grid", [(8, 3), (2, 5)])
def test_positions_of_each_copy_are_a_picture_of_their_own(class_token_last, new_grid):
    copies = [torch.randn(1, 4 * 6, 5) for _ in range(3)]
    class_position = torch.randn(1, 1, 5)

    def join(patches):
        return torch.cat([patches, class_position] if class_token_last else [class_position, patches], dim=1)

    table = resize_position_embeddings(join(torch.stack(copies, 2).flatten(1, 2)), (4, 6), new_grid, class_token_last)
    for index, copy in enumerate(copies):
        expected = resize_position_embeddings(join(copy), (4, 6), new_grid, class_token_last)
        patches = table[:, :-1] if class_token_last else table[:, 1:]
        class_row = table[:, -1:] if class_token_last else table[:, :1]
        assert torch.equal(class_row, class_position)
        torch.testing.assert_close(join(patches[:, index::3]), expected)


@pytest.mark.parametrize("new_grid", [(7, 7), (28, 28), (14, 28), (5, 30)])
def test_positions_are_resampled_as_timm_does(new_grid):
    timm_layers = pytest.importorskip("timm.layers")
    table = torch.randn(1, 197, 8)
    expected = timm_layers.resample_abs_pos_embed(table, new_grid, (14, 14), num_prefix_tokens=1)
    actual = resize_position_embeddings(table, (14, 14), new_grid, class_token_last=False)
    torch.testing.assert_close(actual, expected)


def test_positions_are_resampled_in_float32():
    table = torch.randn(1, 17, 4)
    half = resize_position_embeddings(table.bfloat16(), (4, 4), (7, 5), class_token_last=True)
    expected = resize_position_embeddings(table.bfloat16().float(), (4, 4), (7, 5), class_token_last=True)
    assert half.dtype == torch.bfloat16
    torch.testing.assert_close(half, expected.bfloat16(), rtol=0, atol=0)


@pytest.mark.parametrize(("old", "new"), [(4, 8), (4, 5), (1, 16), (2, 7)])
def test_a_larger_patch_embeds_the_resized_patch_as_before(old, new):
    torch.manual_seed(0)
    kernel = torch.randn(6, 3, old, old, dtype=torch.float64)
    patch = torch.randn(10, 3, old, old, dtype=torch.float64)
    resized = F.interpolate(patch, size=(new, new), mode="bicubic", antialias=True)
    expected = torch.einsum("bchw,dchw->bd", patch, kernel)
    actual = torch.einsum("bchw,dchw->bd", resized, resize_patch_kernel(kernel, new))
    torch.testing.assert_close(actual, expected)


@pytest.mark.parametrize(("old", "new"), [(16, 8), (16, 1), (8, 5)])
def test_a_smaller_patch_is_the_least_squares_solution(old, new):
    torch.manual_seed(0)
    kernel = torch.randn(2, 1, old, old, dtype=torch.float64)
    basis = torch.eye(old * old, dtype=torch.float64).view(-1, 1, old, old)
    resize = F.interpolate(basis, size=(new, new), mode="bicubic", antialias=True).flatten(1)  # (old^2, new^2)
    expected = torch.linalg.lstsq(resize, kernel.flatten(1).t()).solution
    torch.testing.assert_close(resize_patch_kernel(kernel, new).flatten(1).t(), expected)


def test_kernel_is_resampled_as_timm_does():
    timm_layers = pytest.importorskip("timm.layers")
    kernel = torch.randn(5, 3, 16, 16)
    for size in (8, 4, 1, 32):
        expected = timm_layers.resample_patch_embed(kernel, [size, size], interpolation="bicubic", antialias=True)
        torch.testing.assert_close(resize_patch_kernel(kernel, size), expected, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("class_token_last", [False, True])
def test_order_of_tokens_and_positions(class_token_last):
    embeddings = PixelEmbeddings(tiny_config("pixelvit", image_size=(4, 6), patch_size=2), class_token_last)
    with torch.no_grad():
        embeddings.patch_embeddings.projection.weight.zero_()
        embeddings.patch_embeddings.projection.bias.fill_(10)
        embeddings.cls_token.fill_(1000)
        embeddings.position_embeddings.copy_(torch.arange(7.0).view(1, 7, 1).expand(1, 7, 32))
        tokens = embeddings(torch.zeros(2, 3, 4, 6))
    patches = [10.0 + i for i in range(7)]
    expected = [*patches[:6], 1006.0] if class_token_last else [1000.0, *patches[1:]]
    assert tokens[:, :, 0].tolist() == [expected, expected]


def test_any_size_pads_at_the_bottom_and_on_the_right():
    torch.manual_seed(0)
    embeddings = PixelEmbeddings(tiny_config("pixelvit"), class_token_last=True)
    torch.nn.init.normal_(embeddings.position_embeddings)
    image = torch.randn(1, 3, 7, 13)
    actual = embeddings(image, interpolate_pos_encoding=True)
    assert actual.shape == (1, 4 * 7 + 1, 32) and embeddings.grid_of(image) == (4, 7)
    expected = embeddings(F.pad(image, (0, 1, 0, 1)), interpolate_pos_encoding=True)
    torch.testing.assert_close(actual, expected)


@pytest.mark.parametrize(
    ("shape", "interpolate", "sentence"),
    [
        ((3, 8, 8), False, r"\(batch_size, 3, height, width\)"),
        ((1, 1, 8, 8), True, r"\(batch_size, 3, height, width\)"),
        (
            (1, 3, 8, 10),
            False,
            "8 by 10 pixels, but the model's image_size is 8 by 8; resize .* interpolate_pos_encoding",
        ),
        ((1, 3, 0, 8), True, "at least 1"),
    ],
)
def test_wrong_shapes(shape, interpolate, sentence):
    embeddings = PixelEmbeddings(tiny_config("pixelvit"), class_token_last=True)
    with pytest.raises(ValueError, match=sentence):
        embeddings(torch.zeros(shape), interpolate)
