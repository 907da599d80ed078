# Copyright 2026 The modeling_pixelvit team. All rights reserved.
# SPDX-License-Identifier: Apache-2.0
"""
The simple feature pyramid of ViTDet (arXiv 2203.16527, section 3): every level from the encoder's last map alone.

Cell (r, c) of a level of stride s stands for the pixels from (s r, s c) to (s r + s, s c + s), exactly, whatever the
patch size: RoIs and anchors need no more than the stride.
"""

import functools
import math

import torch
from torch import nn
from torch.nn import functional as F
from torchvision.models.convnext import LayerNorm2d
from transformers.utils import logging

from .layers_pyramid import fit_map
from .layers_weight_init import DEFAULT, init_noted_weights, note_weight_init


logger = logging.get_logger(__name__)

# A LayerNorm over the channels of maps (B, C, rows, columns), with the epsilon of ViTDet.
ChannelNorm = functools.partial(LayerNorm2d, eps=1e-6)


def count_doublings(patch_size: int, stride: int) -> int:
    """
    The steps of two from patches of this side that come closest to the stride from below, negative where patches are
    larger; what then remains is resampled.
    """
    return math.floor(math.log2(stride / patch_size))


class SimplePyramidLevel(nn.Module):
    """
    The encoder's map, or its maximum over squares of patches, at another stride and with the pyramid's channels.

    Args:
        hidden_size (`int`): Channels D of the encoder.
        channels (`int`): Channels of the pyramid.
        patch_size (`int`): Stride in pixels of the encoder's map.
        stride (`int`): Stride in pixels of the level.
    """

    def __init__(self, hidden_size: int, channels: int, patch_size: int, stride: int):
        super().__init__()
        self.stride = stride
        self.halvings = max(0, -count_doublings(patch_size, stride))
        width = hidden_size
        layers = []
        for step in range(self.halvings):
            if step > 0:
                layers += [ChannelNorm(width), nn.GELU()]
            # ViTDet needs two steps and halves the channels in both; further ones (patches above 16) keep them.
            halved = max(1, width // 2) if step < 2 else width
            layers.append(nn.ConvTranspose2d(width, halved, kernel_size=2, stride=2))
            width = halved
        self.upsample = nn.Sequential(*layers)
        self.project = nn.Sequential(nn.Conv2d(width, channels, kernel_size=1, bias=False), ChannelNorm(channels))
        self.smooth = nn.Sequential(
            nn.Conv2d(channels, channels, kernel_size=3, padding=1, bias=False), ChannelNorm(channels)
        )

    def pooling_at(self, patch_size: int) -> int:
        """Patches on a side of the square over which the map's maximum is this level's input."""
        return 2 ** max(0, count_doublings(patch_size, self.stride))

    def forward(self, features: torch.Tensor, size: tuple[int, int], patch_size: int) -> torch.Tensor:
        """
        Args:
            features (`torch.Tensor` of shape `(batch_size, hidden_size, rows, columns)`):
                The encoder's map, pooled by `self.pooling_at(patch_size)`.
            size (`tuple[int, int]`): Height and width of the images in pixels.
            patch_size (`int`): That of the construction, or one with as many transposed convolutions.

        Returns:
            `torch.Tensor` of shape `(batch_size, channels, ceil(height / stride), ceil(width / stride))`.

        Raises:
            ValueError: if the patch size needs another number of transposed convolutions.
        """
        doublings = count_doublings(patch_size, self.stride)
        if max(0, -doublings) != self.halvings:
            raise ValueError(
                f"patch_size={patch_size} was given, at which the pyramid's level of stride {self.stride} halves the "
                f"patches another number of times than the {self.halvings} that it has weights for; call "
                "resize_patches(patch_size) and train it."
            )
        cell = patch_size * 2.0**doublings
        rows, columns = (-(-side // self.stride) for side in size)
        features = self.upsample(features)
        # Where patches and strides do not divide each other, the patches may end before the last cell of the level does
        # (then their border goes on), or reach further (then they are cut off).
        extent = (rows * self.stride, columns * self.stride)
        bottom, right = (
            max(0, math.ceil(pixels / cell) - given) for pixels, given in zip(extent, features.shape[-2:], strict=True)
        )
        if bottom or right:
            features = F.pad(features, (0, right, 0, bottom), mode="replicate")
        covered = [cells * cell for cells in features.shape[-2:]]
        return self.smooth(self.project(fit_map(features, covered, extent, (rows, columns))))


class SimpleFeaturePyramid(nn.Module):
    """
    Levels of `config.detection_strides` from the last map of the encoder: transposed convolutions to finer strides,
    maximum pooling to coarser ones, then 1x1 and 3x3 convolutions, each with a LayerNorm over the channels. The last
    level is every second cell of the one before it.
    """

    def __init__(self, config):
        super().__init__()
        self.patch_size = config.patch_size
        self.levels = nn.ModuleList(
            [
                SimplePyramidLevel(config.hidden_size, config.pyramid_channels, config.patch_size, stride)
                for stride in config.detection_strides[:-1]
            ]
        )
        note_weight_init(self, DEFAULT)  # as in ViTDet

    def forward(self, features: torch.Tensor, size: tuple[int, int], patch_size: int) -> list[torch.Tensor]:
        """
        Args:
            features (`torch.Tensor` of shape `(batch_size, hidden_size, rows, columns)`):
                The map of patches; a last row and column may lie partly outside the images.
            size (`tuple[int, int]`): Height and width of the images in pixels.
            patch_size (`int`): Side of the patches in pixels.

        Returns:
            List of `torch.Tensor` of shape `(batch_size, pyramid_channels, ceil(height / s), ceil(width / s))`, one for
            each stride s.
        """
        maps, pooled = [], 1
        for level in self.levels:  # of rising strides, so that each pools what the one before has left
            pooling = level.pooling_at(patch_size)
            if pooling > pooled:
                features = F.max_pool2d(features, pooling // pooled, ceil_mode=True)
                pooled = pooling
            maps.append(level(features, size, patch_size))
        maps.append(F.max_pool2d(maps[-1], kernel_size=1, stride=2))
        return maps

    @torch.no_grad()
    def resized(self, config) -> "SimpleFeaturePyramid":
        """A pyramid for another patch size; weights that have the same name and shape there are kept, others new."""
        pyramid = SimpleFeaturePyramid(config)
        pyramid.apply(init_noted_weights)
        old, new = dict(self.named_parameters()), dict(pyramid.named_parameters())
        for name, weight in new.items():
            if name in old:
                weight.requires_grad_(old[name].requires_grad)
                if old[name].shape == weight.shape:
                    weight.copy_(old[name])
        begun = [name for name, weight in new.items() if name not in old or old[name].shape != weight.shape]
        if begun:
            logger.warning(
                f"At patch_size={config.patch_size} the feature pyramid has other layers than at {self.patch_size}. "
                f"These weights are new and want training: {', '.join(f'pyramid.{name}' for name in begun)}."
            )
        reference = next(self.parameters())
        return pyramid.to(reference.device, reference.dtype).train(self.training)
