# Copyright 2026 The modeling_pixelvit team. All rights reserved.
# SPDX-License-Identifier: Apache-2.0
"""
From pixels to tokens: patch embedding, class token and position table, and how all three change with the patch grid.

Grids are (rows, columns). The class token's position row stands where the class token stands: first in PixelViT, last
in Adventurer.
"""

import torch
from torch import nn
from torch.nn import functional as F

from .configuration_base import as_pair


def resize_position_embeddings(
    position_embeddings: torch.Tensor, grid: tuple[int, int], new_grid: tuple[int, int], class_token_last: bool
) -> torch.Tensor:
    """
    Resamples the patch positions as a picture: bicubic, antialiased where it shrinks, in float32; the class position is
    kept as it is.

    The released Adventurer code takes the first row for the class position although it is the last one, so each of its
    resizes moves the table by one; `tests/test_layers_embeddings.py` fixes that ours does not.

    Args:
        position_embeddings (`torch.Tensor` of shape `(1, rows * columns + 1, hidden_size)`): The table.
        grid (`tuple[int, int]`): The grid that the table is made for.
        new_grid (`tuple[int, int]`): The grid that is wanted.
        class_token_last (`bool`): Whether the class position is the last row, or else the first.

    Returns:
        `torch.Tensor` of shape `(1, new rows * new columns + 1, hidden_size)` and of the same dtype.
    """
    if tuple(grid) == tuple(new_grid):
        return position_embeddings
    patches = position_embeddings[:, :-1] if class_token_last else position_embeddings[:, 1:]
    class_position = position_embeddings[:, -1:] if class_token_last else position_embeddings[:, :1]
    picture = patches.unflatten(1, tuple(grid)).permute(0, 3, 1, 2).float()
    picture = F.interpolate(picture, size=tuple(new_grid), mode="bicubic", antialias=True)
    patches = picture.flatten(2).transpose(1, 2).to(position_embeddings.dtype)
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
        `torch.Tensor` of shape `(hidden_size, num_channels, patch_size, patch_size)` with the new side, same dtype.
    """
    old = kernel.shape[-1]
    if old == patch_size:
        return kernel
    # In float64 on the CPU: a small matrix, and its pseudo-inverse is the one delicate step.
    basis = torch.eye(old**2, dtype=torch.float64).view(old**2, 1, old, old)
    resized = F.interpolate(basis, size=(patch_size, patch_size), mode="bicubic", antialias=True)
    resize = resized.flatten(1).t()  # (new^2, old^2)
    solve = torch.linalg.pinv(resize.t())  # (new^2, old^2)
    weights = kernel.detach().to("cpu", torch.float64).flatten(2) @ solve.t()
    return weights.unflatten(2, (patch_size, patch_size)).to(kernel.device, kernel.dtype)


class PatchProjection(nn.Conv2d):
    """The parameters of a convolution of stride p, applied as one linear map of each patch's pixels."""

    def __init__(self, num_channels: int, hidden_size: int, patch_size: int):
        super().__init__(num_channels, hidden_size, kernel_size=patch_size, stride=patch_size)

    def forward(self, pixel_values: torch.Tensor) -> torch.Tensor:
        """(B, channels, rows p, columns p) to tokens in raster order (B, rows columns, D)."""
        patch = self.kernel_size[0]
        if patch == 1:  # no pixel moves but for the transposition
            patches = pixel_values.flatten(2).transpose(1, 2)
        else:
            patches = pixel_values.unflatten(3, (-1, patch)).unflatten(2, (-1, patch))
            patches = patches.permute(0, 2, 4, 1, 3, 5).flatten(3).flatten(1, 2)
        return F.linear(patches, self.weight.flatten(1), self.bias)


class PatchEmbeddings(nn.Module):
    """Images (B, channels, height, width) to patch tokens (B, N, D)."""

    def __init__(self, config):
        super().__init__()
        self.projection = PatchProjection(config.num_channels, config.hidden_size, config.patch_size)

    def forward(self, pixel_values: torch.Tensor) -> torch.Tensor:
        return self.projection(pixel_values.to(self.projection.weight.dtype))


class PixelEmbeddings(nn.Module):
    """
    Images to the sequence of tokens: patches plus the class token, with their positions added.

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
        self.patch_embeddings = PatchEmbeddings(config)
        self.cls_token = nn.Parameter(torch.zeros(1, 1, config.hidden_size))
        self.position_embeddings = nn.Parameter(torch.zeros(1, config.num_patches + 1, config.hidden_size))
        self.dropout = nn.Dropout(dropout)

    def resize(self, config):
        """Resamples kernel and positions, in place, for the patch and image size of `config`."""
        projection, new_parameters = self.patch_embeddings.projection, {}
        new_parameters["weight"] = resize_patch_kernel(projection.weight.detach(), config.patch_size)
        new_parameters["position_embeddings"] = resize_position_embeddings(
            self.position_embeddings.detach(), self.grid_size, config.grid_size, self.class_token_last
        )
        for module, name in ((projection, "weight"), (self, "position_embeddings")):
            requires_grad = getattr(module, name).requires_grad
            setattr(module, name, nn.Parameter(new_parameters[name].clone(), requires_grad=requires_grad))
        projection.kernel_size = projection.stride = (config.patch_size, config.patch_size)
        self.patch_size = config.patch_size
        self.image_size = as_pair(config.image_size)
        self.grid_size = config.grid_size

    def grid_of(self, pixel_values: torch.Tensor) -> tuple[int, int]:
        """The grid (rows, columns) of tokens that `forward` makes of these images."""
        return tuple(-(-side // self.patch_size) for side in pixel_values.shape[-2:])

    def forward(self, pixel_values: torch.Tensor, interpolate_pos_encoding: bool | None = None) -> torch.Tensor:
        """
        Args:
            pixel_values (`torch.Tensor` of shape `(batch_size, num_channels, height, width)`): Normalized images.
            interpolate_pos_encoding (`bool`, *optional*):
                Whether to take images of any size: positions are resampled to the image's grid, and height and width
                are padded with zeros, at the bottom and on the right, to a multiple of the patch size. Otherwise the
                size must be the config's `image_size`.

        Returns:
            `torch.Tensor` of shape `(batch_size, rows * columns + 1, hidden_size)`.
        """
        self._check_shape(pixel_values, interpolate_pos_encoding)
        positions = self.position_embeddings
        if interpolate_pos_encoding:
            grid = self.grid_of(pixel_values)
            bottom, right = (
                count * self.patch_size - side for count, side in zip(grid, pixel_values.shape[-2:], strict=True)
            )
            if bottom or right:
                pixel_values = F.pad(pixel_values, (0, right, 0, bottom))
            positions = resize_position_embeddings(positions, self.grid_size, grid, self.class_token_last)
        patches = self.patch_embeddings(pixel_values)
        cls_token = self.cls_token.expand(patches.shape[0], -1, -1)
        tokens = torch.cat([patches, cls_token] if self.class_token_last else [cls_token, patches], dim=1)
        return self.dropout(tokens + positions)

    def _check_shape(self, pixel_values, interpolate_pos_encoding):
        if pixel_values.dim() != 4 or pixel_values.shape[1] != self.num_channels:
            raise ValueError(
                f"pixel_values has shape {tuple(pixel_values.shape)}; the model takes (batch_size, "
                f"{self.num_channels}, height, width)."
            )
        size = tuple(pixel_values.shape[-2:])
        if not interpolate_pos_encoding and size != self.image_size:
            raise ValueError(
                f"The input is {size[0]} by {size[1]} pixels, but the model's image_size is {self.image_size[0]} by "
                f"{self.image_size[1]}; resize the images, pass interpolate_pos_encoding=True, or call "
                "resize_patches(image_size=...) once."
            )
        if min(size) < 1:
            raise ValueError(f"The input is {size[0]} by {size[1]} pixels; height and width must be at least 1.")

    def patch_tokens(self, hidden_states: torch.Tensor) -> torch.Tensor:
        """The N patch tokens of a sequence (B, N + 1, D)."""
        return hidden_states[:, :-1] if self.class_token_last else hidden_states[:, 1:]

    def class_token(self, hidden_states: torch.Tensor) -> torch.Tensor:
        """The class token (B, D) of a sequence (B, N + 1, D)."""
        return hidden_states[:, -1] if self.class_token_last else hidden_states[:, 0]
