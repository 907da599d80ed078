# Copyright 2026 The modeling_pixelvit team. All rights reserved.
# SPDX-License-Identifier: Apache-2.0
"""
What the augmentations of segmentation and detection have in common: images and masks are resized, cut and mirrored
together. Everything random comes from PyTorch's global generator.
"""

from collections.abc import Sequence

import torch
from PIL import Image
from torchvision import tv_tensors
from torchvision.transforms import InterpolationMode
from torchvision.transforms.v2 import functional as F


def uniform(low: float, high: float) -> float:
    """A number between the two."""
    return low + (high - low) * torch.rand(()).item()


def chance(probability: float) -> bool:
    """Whether something of this probability happens."""
    return torch.rand(()).item() < probability


def random_corner(size: Sequence[int], crop: Sequence[int]) -> tuple[int, int]:
    """Top and left of a crop (height, width) anywhere in an image (height, width) at least as large."""
    top, left = (int(torch.randint(side - part + 1, ())) for side, part in zip(size, crop, strict=True))
    return top, left


def check_ranges(image_size: int, scale_range: Sequence[float], flip: float):
    """Raises ValueError for what no augmentation can be built of."""
    if image_size < 1:
        raise ValueError(f"image_size={image_size} was given; it must be at least 1.")
    if len(scale_range) != 2 or not 0 < scale_range[0] <= scale_range[1]:
        raise ValueError(f"scale_range={tuple(scale_range)} was given; give two rising numbers above 0.")
    if not 0 <= flip <= 1:
        raise ValueError(f"flip={flip} was given; it is a probability, from 0 to 1.")


def image_tensor(image: Image.Image) -> tv_tensors.Image:
    """An RGB image as uint8 (3, height, width)."""
    return tv_tensors.Image(F.pil_to_tensor(image))


def resized_image(image: torch.Tensor, size: Sequence[int]) -> tv_tensors.Image:
    """A uint8 image (3, height, width), bilinear and smoothed where it shrinks."""
    return tv_tensors.Image(F.resize_image(image, list(size), InterpolationMode.BILINEAR, antialias=True))


def resized_masks(masks: torch.Tensor, size: Sequence[int]) -> tv_tensors.Mask:
    """
    Masks or class maps (n, height, width), uint8 or bool, each pixel that of the nearest centre.

    `resize` of a `Mask` takes the nearest corner in older releases of torchvision, half a pixel beside the image.
    """
    values = F.resize_image(masks.to(torch.uint8), list(size), InterpolationMode.NEAREST_EXACT)
    return tv_tensors.Mask(values.to(masks.dtype))


def normalized(image: torch.Tensor, mean: Sequence[float], std: Sequence[float]) -> torch.Tensor:
    """An image of uint8, or of float32 in [0, 1], as plain float32 with mean and deviation per channel taken out."""
    image = F.to_dtype(image, torch.float32, scale=True)
    return F.normalize(image, list(mean), list(std)).as_subclass(torch.Tensor)


def padded(pixels: torch.Tensor, size: Sequence[int], fill: float) -> torch.Tensor:
    """(..., height, width) made larger to a size (height, width), at the bottom and at the right."""
    height, width = pixels.shape[-2:]
    if (height, width) == tuple(size):
        return pixels
    result = pixels.new_full((*pixels.shape[:-2], *size), fill)
    result[..., :height, :width] = pixels
    return result
