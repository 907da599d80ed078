# Copyright 2026 The modeling_pixelvit team. All rights reserved.
# SPDX-License-Identifier: Apache-2.0
"""
The feature pyramid under UperNet: maps of a plain encoder's tokens, each brought to a stride of its own.

A map has cells, each the square of pixels that it stands for; sizes, in cells or pixels, are (rows, columns). Patches,
strides and images need not divide each other, so each map is laid out over an extent that all levels share: the
image's sides rounded up to multiples of the coarsest stride, from the top left corner on. Where the tokens end before
the extent does, the last row and column of tokens go on.
"""

import math
from collections.abc import Sequence

import torch
from torch import nn
from torch.nn import functional as F


class BatchNorm(nn.BatchNorm2d):
    """
    `nn.BatchNorm2d` that also trains on one value per channel, and with statistics more exact than its weights.

    One value is what UperNet's coarsest pooled branch has in a batch of one image. It has no variance, so the running
    statistics stand in, as they do in evaluation, and are left as they are. DeepSpeed's ZeRO-3 leaves the statistics in
    float32 where it halves the weights, which PyTorch takes on no device.
    """

    def forward(self, input: torch.Tensor) -> torch.Tensor:
        is_trained = self.training and input.numel() != self.num_features
        exact = self.running_mean.dtype
        is_mixed = exact != self.weight.dtype
        if not is_mixed and is_trained:
            return super().forward(input)
        values, weight, bias = (tensor.to(exact) if is_mixed else tensor for tensor in (input, self.weight, self.bias))
        if is_trained:
            self.num_batches_tracked.add_(1)
        normalized = F.batch_norm(
            values, self.running_mean, self.running_var, weight, bias, is_trained, self.momentum, self.eps
        )
        return normalized.to(input.dtype)


def extent_of(image_size: Sequence[int], strides: Sequence[int]) -> tuple[int, int]:
    """Height and width in pixels that every level covers, for an image of this height and width."""
    return tuple(-(-side // strides[-1]) * strides[-1] for side in image_size)


def interpolate_axis(features: torch.Tensor, dim: int, size: int, step: float) -> torch.Tensor:
    """
    Linear interpolation along one dimension at `size` cells of `step` old ones each, the edge repeated beyond it.

    `interpolate` with a size and a scale of its own would be this, but copies its input whenever the sizes agree.
    """
    last = features.shape[dim] - 1
    places = ((torch.arange(size, device=features.device) + 0.5) * step - 0.5).clamp(0, last)
    before = places.floor().long()
    weight = (places - before).to(features.dtype).view(-1, *[1] * (features.dim() - 1 - dim))
    left, right = (features.index_select(dim, index) for index in (before, (before + 1).clamp(max=last)))
    return left + weight * (right - left)


def fit_map(
    features: torch.Tensor, covered: Sequence[float], extent: Sequence[int], size: Sequence[int]
) -> torch.Tensor:
    """
    The same picture in other cells: cropped if the cells stay as large as they are, else resampled bilinearly.

    Args:
        features (`torch.Tensor` of shape `(batch_size, channels, rows, columns)`): The map.
        covered (pair of numbers): Pixels that it covers from the top left corner on, at least `extent`.
        extent (pair of `int`): Pixels that the result is to cover, from the same corner.
        size (pair of `int`): Rows and columns of the result.

    Returns:
        `torch.Tensor` of shape `(batch_size, channels, *size)`, a view where no resampling is needed.
    """
    for dim, new, whole, part in zip((2, 3), size, covered, extent, strict=True):
        old = features.shape[dim]
        if new * whole == old * part:
            features = features.narrow(dim, 0, new)
        else:
            features = interpolate_axis(features, dim, new, (part * old) / (new * whole))
    return features


def crop_to_image(logits: torch.Tensor, covered: Sequence[int], image_size: Sequence[int]) -> torch.Tensor:
    """
    Lets a map end where the image ends: cells beyond it go, and where one of the rest sticks out, all are resampled.

    Args:
        logits (`torch.Tensor` of shape `(batch_size, channels, rows, columns)`): The map.
        covered (pair of `int`): Pixels that it covers from the top left corner on, at least `image_size`.
        image_size (pair of `int`): Height and width of the image in pixels.

    Returns:
        `torch.Tensor` of shape `(batch_size, channels, rows, columns)`, rows and columns as many as touch the image.
    """
    size = [
        -(-side * cells // whole) for side, cells, whole in zip(image_size, logits.shape[-2:], covered, strict=True)
    ]
    return fit_map(logits, covered, image_size, size)


def count_halvings(patch_size: int, stride: int) -> int:
    """Stride-2 transposed convolutions from patches of this side to a map of this stride."""
    return max(0, round(math.log2(patch_size / stride)))


class PyramidLevel(nn.Module):
    """
    One level: tokens of square patches to a map at a stride.

    Stride-2 transposed convolutions halve the patch as often as brings it nearest to the stride, with a norm and GELU
    between two of them; max pooling joins as many patches as the stride has room for. If the stride is no power of two
    times smaller, or no multiple, bilinear resampling does the rest.

    Args:
        hidden_size (`int`): Channels, before and after.
        patch_size (`int`): Side of a token's patch in pixels.
        stride (`int`): Side of a cell of the level in pixels.
    """

    def __init__(self, hidden_size: int, patch_size: int, stride: int):
        super().__init__()
        self.halvings = count_halvings(patch_size, stride)
        layers = []
        for index in range(self.halvings):
            if index > 0:
                layers += [BatchNorm(hidden_size), nn.GELU()]
            layers.append(nn.ConvTranspose2d(hidden_size, hidden_size, kernel_size=2, stride=2))
        self.resample = nn.Sequential(*layers)

    def forward(self, features: torch.Tensor, extent: Sequence[int], patch_size: int, stride: int) -> torch.Tensor:
        """
        Args:
            features (`torch.Tensor` of shape `(batch_size, hidden_size, rows, columns)`):
                The tokens as a map that covers `extent` at least.
            extent (pair of `int`): Pixels that the level is to cover.
            patch_size, stride (`int`):
                Those of the construction, or another pair with as many transposed convolutions.

        Returns:
            `torch.Tensor` of shape `(batch_size, hidden_size, *extent / stride)`, rounded up.

        Raises:
            ValueError: if the pair needs another number of transposed convolutions.
        """
        if count_halvings(patch_size, stride) != self.halvings:
            raise ValueError(
                f"patch_size={patch_size} was given, at which the pyramid's level of stride {stride} halves patches "
                f"another number of times than the {self.halvings} that it has weights for; call "
                "resize_patches(patch_size) and train it."
            )
        features = self.resample(features)
        pooled = max(1, stride // patch_size)
        if pooled > 1:
            features = F.max_pool2d(features, pooled, ceil_mode=True)
        cell = patch_size * pooled / 2**self.halvings
        covered = [cells * cell for cells in features.shape[-2:]]
        return fit_map(features, covered, extent, [-(-side // stride) for side in extent])


class FeaturePyramid(nn.Module):
    """
    A map of tokens for each level, to maps of the strides `config.pyramid_strides`.

    Args:
        config ([`PixelPreTrainedConfig`]): The model's configuration.
    """

    def __init__(self, config):
        super().__init__()
        self.levels = nn.ModuleList(
            PyramidLevel(config.hidden_size, config.patch_size, stride) for stride in config.pyramid_strides
        )

    def forward(
        self,
        feature_maps: Sequence[torch.Tensor],
        image_size: Sequence[int],
        patch_size: int,
        strides: Sequence[int],
    ) -> list[torch.Tensor]:
        """
        Args:
            feature_maps (sequence of `torch.Tensor` of shape `(batch_size, hidden_size, rows, columns)`):
                The tokens of each level on the patch grid, from the finest level to the coarsest.
            image_size (pair of `int`): Height and width of the images in pixels.
            patch_size (`int`): Side of the tokens' patches in pixels.
            strides (sequence of `int`): `config.pyramid_strides_at(patch_size)`.

        Returns:
            list of `torch.Tensor` of shape `(batch_size, hidden_size, height / stride, width / stride)` with the height
            and width of `extent_of(image_size, strides)`.
        """
        extent = extent_of(image_size, strides)
        rows, columns = (-(-side // patch_size) for side in extent)
        maps = []
        for level, features, stride in zip(self.levels, feature_maps, strides, strict=True):
            bottom, right = max(0, rows - features.shape[-2]), max(0, columns - features.shape[-1])
            if bottom or right:
                features = F.pad(features, (0, right, 0, bottom), mode="replicate")
            maps.append(level(features, extent, patch_size, stride))
        return maps
