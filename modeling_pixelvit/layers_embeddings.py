# Copyright 2026 The modeling_pixelvit team. All rights reserved.
# SPDX-License-Identifier: Apache-2.0
"""
From pixels to tokens: patch embedding, class token and position table, and how all three change with the patch grid.

Grids are (rows, columns). The class token's position row stands where the class token stands: first in PixelViT, last
in Adventurer. A patch has k tokens in a row, copies of it, if the configuration's `sequence_extension` is k.
"""

import functools

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F

from .configuration_base import as_pair
from .ops_segments import compute_dtype


def resize_position_embeddings(
    position_embeddings: torch.Tensor, grid: tuple[int, int], new_grid: tuple[int, int], class_token_last: bool
) -> torch.Tensor:
    """
    Resamples the patch positions as a picture: bicubic, antialiased where it shrinks, in float32 at least; the class
    position is kept as it is. Of k rows for each patch, next to each other, the first ones are a picture, and so on.

    The released Adventurer code takes the first row for the class position although it is the last one, so each of its
    resizes moves the table by one; `tests/test_layers_embeddings.py` fixes that ours does not.

    Args:
        position_embeddings (`torch.Tensor` of shape `(1, k * rows * columns + 1, hidden_size)`): The table.
        grid (`tuple[int, int]`): The grid that the table is made for.
        new_grid (`tuple[int, int]`): The grid that is wanted.
        class_token_last (`bool`): Whether the class position is the last row, or else the first.

    Returns:
        `torch.Tensor` of shape `(1, k * new rows * new columns + 1, hidden_size)` and of the same dtype.
    """
    if tuple(grid) == tuple(new_grid):
        return position_embeddings
    patches = position_embeddings[:, :-1] if class_token_last else position_embeddings[:, 1:]
    class_position = position_embeddings[:, -1:] if class_token_last else position_embeddings[:, :1]
    picture = patches.unflatten(1, (*grid, -1)).flatten(3).permute(0, 3, 1, 2).to(compute_dtype(patches.dtype))
    picture = F.interpolate(picture, size=tuple(new_grid), mode="bicubic", antialias=True)
    patches = picture.flatten(2).transpose(1, 2).unflatten(2, (-1, patches.shape[2])).flatten(1, 2)
    patches = patches.to(position_embeddings.dtype)
    return torch.cat([patches, class_position] if class_token_last else [class_position, patches], dim=1)


def resize_patch_kernel(kernel: torch.Tensor, patch_size: int) -> torch.Tensor:
    """
    Resamples a patch-embedding kernel by FlexiViT's pseudo-inverse rule (arXiv 2212.08013, section 3.4).

    With B the matrix that resizes a patch (bicubic, antialiased, as the image processor does), the new kernel is the
    least-squares solution of `<B x, w_new> = <x, w>` for all patches x: exact for a larger patch.

    Args:
        kernel (`torch.Tensor` of shape `(hidden_size, num_channels, patch_size, patch_size)`): The kernel.
        patch_size (`int`): The new side.

    Returns:
        `torch.Tensor` of shape `(hidden_size, num_channels, patch_size, patch_size)` with the new side, same dtype;
        gradients flow back to `kernel`.
    """
    old = kernel.shape[-1]
    if old == patch_size:
        return kernel
    # In float64: the matrix is small, and what it solves is the one delicate step. (Apple's GPUs have no float64.)
    dtype = torch.float32 if kernel.device.type == "mps" else torch.float64
    solve = torch.tensor(_kernel_resize_matrix(old, patch_size), dtype=dtype, device=kernel.device)
    return (solve @ kernel.to(dtype) @ solve.t()).to(kernel.dtype)


@torch.compiler.assume_constant_result
def _kernel_resize_matrix(old: int, new: int) -> list[list[float]]:
    """`_compute_kernel_resize_matrix`, of which a compiler need not trace how it comes about."""
    return _compute_kernel_resize_matrix(old, new)


@functools.lru_cache(maxsize=64)
def _compute_kernel_resize_matrix(old: int, new: int) -> list[list[float]]:
    """
    The map (new, old) of either axis of a kernel: the pseudo-inverse of the transposed R, where B = R x R.

    Numbers and no tensor, since a tensor would belong to the mode, the device or the graph in which it was first asked
    for. R is PyTorch's `interpolate(mode="bicubic", antialias=True)`, which `tests/test_layers_embeddings.py` compares.
    """
    scale = old / new
    centres = (np.arange(new) + 0.5) * scale
    distance = np.abs(np.arange(old) + 0.5 - centres[:, None]) / max(scale, 1.0)
    near = 1.5 * distance**3 - 2.5 * distance**2 + 1
    far = -0.5 * distance**3 + 2.5 * distance**2 - 4 * distance + 2
    resize = np.where(distance < 1, near, np.where(distance < 2, far, 0.0))
    resize /= resize.sum(axis=1, keepdims=True)
    return np.linalg.pinv(resize.T).tolist()


class PatchProjection(nn.Conv2d):
    """The parameters of a convolution of stride p, applied as one linear map of each patch's pixels."""

    def __init__(self, num_channels: int, hidden_size: int, patch_size: int):
        super().__init__(num_channels, hidden_size, kernel_size=patch_size, stride=patch_size)

    def forward(self, pixel_values: torch.Tensor, patch_size: int | None = None) -> torch.Tensor:
        """
        (B, channels, rows p, columns p) to tokens in raster order (B, rows columns, D), p = `patch_size` or, if that is
        not given, the side of the stored kernel.
        """
        patch_size = self.kernel_size[0] if patch_size is None else patch_size
        # Anew at each call, about a hundredth of its time: nothing would tell of every change of the weight,
        # as by `weight.data.mul_`.
        kernel = resize_patch_kernel(self.weight, patch_size)
        pixel_values = pixel_values.to(kernel.dtype)
        patches = pixel_values.unflatten(3, (-1, patch_size)).unflatten(2, (-1, patch_size))
        # Copied at patch 1 too: of strided tokens PyTorch takes another product, with other roundings, for a weight
        # that is a parameter than for one that was resampled without gradients.
        patches = patches.permute(0, 2, 4, 1, 3, 5).flatten(3).flatten(1, 2).contiguous()
        return F.linear(patches, kernel.flatten(1), self.bias)


class PatchEmbeddings(nn.Module):
    """Images (B, channels, height, width) to patch tokens (B, N, D); patches are those of `config` if not told."""

    def __init__(self, config):
        super().__init__()
        self.patch_size = config.patch_size
        self.projection = PatchProjection(config.num_channels, config.hidden_size, config.stored_patch_size)

    def forward(self, pixel_values: torch.Tensor, patch_size: int | None = None) -> torch.Tensor:
        return self.projection(pixel_values, self.patch_size if patch_size is None else patch_size)


class PixelEmbeddings(nn.Module):
    """
    Images to the sequence of tokens: patches plus the class token, with their positions added if there is a table.

    Args:
        config ([`PixelPreTrainedConfig`]): The model's configuration.
        class_token_last (`bool`): Whether the class token ends the sequence, or else begins it.
        dropout (`float`, *optional*, defaults to 0.0): Dropout rate of the sum.
    """

    def __init__(self, config, class_token_last: bool, dropout: float = 0.0):
        super().__init__()
        self.class_token_last = class_token_last
        self.num_channels = config.num_channels
        self.patch_size = config.patch_size
        self.image_size = as_pair(config.image_size)
        self.grid_size = config.grid_size
        self.sequence_extension = config.sequence_extension
        self.patch_dropout = config.patch_dropout
        self.patch_embeddings = PatchEmbeddings(config)
        self.cls_token = nn.Parameter(torch.zeros(1, 1, config.hidden_size))
        table = torch.zeros(1, config.num_patch_tokens + 1, config.hidden_size) if config.has_position_table else None
        self.position_embeddings = None if table is None else nn.Parameter(table)
        self.dropout = nn.Dropout(dropout)

    def resize(self, config):
        """Resamples kernel and positions, in place, for the patch and image size of `config`."""
        projection = self.patch_embeddings.projection
        stored = config.stored_patch_size
        new_parameters = [(projection, "weight", resize_patch_kernel(projection.weight.detach(), stored))]
        if self.position_embeddings is not None:
            table = resize_position_embeddings(
                self.position_embeddings.detach(), self.grid_size, config.grid_size, self.class_token_last
            )
            new_parameters.append((self, "position_embeddings", table))
        for module, name, tensor in new_parameters:
            requires_grad = getattr(module, name).requires_grad
            setattr(module, name, nn.Parameter(tensor.clone(), requires_grad=requires_grad))
        projection.kernel_size = projection.stride = (stored, stored)
        self.patch_size = self.patch_embeddings.patch_size = config.patch_size
        self.image_size = as_pair(config.image_size)
        self.grid_size = config.grid_size

    def resolve_patch_size(self, patch_size: int | None) -> int:
        """
        The model's own patch size, or the one that a call asks for.

        Raises:
            ValueError: if it is no patch size that `resize_patches` would take.
        """
        if patch_size is None or patch_size == self.patch_size:
            return self.patch_size
        is_size = isinstance(patch_size, int) and not isinstance(patch_size, bool) and patch_size >= 1
        if not is_size or (self.position_embeddings is not None and any(side % patch_size for side in self.image_size)):
            height, width = self.image_size
            raise ValueError(
                f"patch_size={patch_size!r} was given; it must be an integer of at least 1 that divides the model's "
                f"image_size, {height} by {width} pixels."
            )
        return patch_size

    def grid_of(self, pixel_values: torch.Tensor, patch_size: int | None = None) -> tuple[int, int]:
        """The grid (rows, columns) of patches that `forward` makes of these images."""
        patch_size = self.patch_size if patch_size is None else patch_size
        return tuple(-(-side // patch_size) for side in pixel_values.shape[-2:])

    def draw_kept_patches(self, pixel_values: torch.Tensor, patch_size: int | None = None) -> torch.Tensor | None:
        """
        In training with a `patch_dropout`, which patches of each image stay: raster indices (B, n), rising, equally
        many for every image and at least one; by the global random generator of the images' device. Otherwise None.
        """
        if not self.training or not self.patch_dropout:
            return None
        rows, columns = self.grid_of(pixel_values, self.resolve_patch_size(patch_size))
        count = max(1, round(rows * columns * (1 - self.patch_dropout)))
        draws = torch.rand(pixel_values.shape[0], rows * columns, device=pixel_values.device)
        return draws.argsort(dim=1)[:, :count].sort(dim=1).values

    def positions_for(self, patch_size: int, grid: tuple[int, int]) -> torch.Tensor:
        """The position table (1, k rows columns + 1, D), as `resize_patches` and then the image's size make it."""
        own_grid = tuple(side // patch_size for side in self.image_size)
        table = resize_position_embeddings(self.position_embeddings, self.grid_size, own_grid, self.class_token_last)
        return resize_position_embeddings(table, own_grid, grid, self.class_token_last)

    def forward(
        self,
        pixel_values: torch.Tensor,
        interpolate_pos_encoding: bool | None = None,
        patch_size: int | None = None,
        kept_patches: torch.Tensor | None = None,
    ) -> torch.Tensor:
        """
        Args:
            pixel_values (`torch.Tensor` of shape `(batch_size, num_channels, height, width)`): Normalized images.
            interpolate_pos_encoding (`bool`, *optional*):
                Whether to take images of any size: positions are resampled to the image's grid, and height and width
                are padded with zeros, at the bottom and on the right, to a multiple of the patch size. Otherwise the
                size must be the config's `image_size`. A model without a position table always takes any size.
            patch_size (`int`, *optional*):
                Side of the patches in pixels, the config's if not given. Kernel and positions are resampled on the way
                in, to the same bits as by `resize_patches`; gradients flow through.
            kept_patches (`torch.Tensor` of shape `(batch_size, n)`, *optional*):
                Raster indices of the patches to keep, all if not given; see `draw_kept_patches`.

        Returns:
            `torch.Tensor` of shape `(batch_size, k * rows * columns + 1, hidden_size)`, or `(batch_size, k * n + 1,
            hidden_size)`.
        """
        patch_size = self.resolve_patch_size(patch_size)
        any_size = interpolate_pos_encoding or self.position_embeddings is None
        self._check_shape(pixel_values, any_size)
        grid = self.grid_of(pixel_values, patch_size)
        if any_size:
            bottom, right = (
                count * patch_size - side for count, side in zip(grid, pixel_values.shape[-2:], strict=True)
            )
            if bottom or right:
                pixel_values = F.pad(pixel_values, (0, right, 0, bottom))
        patches = self.patch_embeddings(pixel_values, patch_size)
        if self.sequence_extension > 1:
            patches = patches.repeat_interleave(self.sequence_extension, dim=1)
        cls_token = self.cls_token.expand(patches.shape[0], -1, -1)
        tokens = torch.cat([patches, cls_token] if self.class_token_last else [cls_token, patches], dim=1)
        if self.position_embeddings is not None:
            tokens = tokens + self.positions_for(patch_size, grid)
        if kept_patches is not None:
            kept = self.patch_tokens(tokens).unflatten(1, (-1, self.sequence_extension))
            kept = kept.take_along_dim(kept_patches[..., None, None], dim=1).flatten(1, 2)
            cls_token = self.class_token(tokens)[:, None]
            tokens = torch.cat([kept, cls_token] if self.class_token_last else [cls_token, kept], dim=1)
        return self.dropout(tokens)

    def _check_shape(self, pixel_values, any_size):
        if pixel_values.dim() != 4 or pixel_values.shape[1] != self.num_channels:
            raise ValueError(
                f"pixel_values has shape {tuple(pixel_values.shape)}; the model takes (batch_size, "
                f"{self.num_channels}, height, width)."
            )
        size = tuple(pixel_values.shape[-2:])
        if not any_size and size != self.image_size:
            raise ValueError(
                f"The input is {size[0]} by {size[1]} pixels, but the model's image_size is {self.image_size[0]} by "
                f"{self.image_size[1]}; resize the images, pass interpolate_pos_encoding=True, or call "
                "resize_patches(image_size=...) once."
            )
        if min(size) < 1:
            raise ValueError(f"The input is {size[0]} by {size[1]} pixels; height and width must be at least 1.")

    def patch_tokens(self, hidden_states: torch.Tensor) -> torch.Tensor:
        """The patch tokens (B, k N, D) of a sequence (B, k N + 1, D), a view of it."""
        return hidden_states[:, :-1] if self.class_token_last else hidden_states[:, 1:]

    def patch_features(self, hidden_states: torch.Tensor) -> torch.Tensor:
        """One vector for each patch, (B, N, D), of a sequence (B, k N + 1, D): the mean of its tokens."""
        patches = self.patch_tokens(hidden_states)
        if self.sequence_extension == 1:
            return patches
        return patches.unflatten(1, (-1, self.sequence_extension)).mean(dim=2)

    def feature_map(
        self, hidden_states: torch.Tensor, pixel_values: torch.Tensor, patch_size: int | None = None
    ) -> torch.Tensor:
        """`patch_features` of these images' sequences as a map, (B, D, rows, columns)."""
        grid = self.grid_of(pixel_values, patch_size)
        return self.patch_features(hidden_states).unflatten(1, grid).permute(0, 3, 1, 2)

    def class_token(self, hidden_states: torch.Tensor) -> torch.Tensor:
        """The class token (B, D) of a sequence (B, k N + 1, D)."""
        return hidden_states[:, -1] if self.class_token_last else hidden_states[:, 0]
