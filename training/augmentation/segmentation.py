# Copyright 2026 The modeling_pixelvit team. All rights reserved.
# SPDX-License-Identifier: Apache-2.0
"""
What happens to the training images of a semantic segmentation: scale jitter, a crop that shows more than one class,
mirroring, and a distortion of colours, with the settings that are usual for ADE20k.
"""

from collections.abc import Callable, Sequence

import numpy as np
import torch
from PIL import Image
from torchvision import tv_tensors
from torchvision.transforms.v2 import functional as F

from ..data.segmentation import IGNORED_LABEL
from .geometry import (
    chance,
    check_ranges,
    image_tensor,
    normalized,
    padded,
    random_corner,
    resized_image,
    resized_masks,
    uniform,
)


MAX_ASPECT_RATIO = 4.0  # of the size to which images are fitted
MAX_CROP_TRIES = 10
DISTORTION_PROBABILITY = 0.5  # of each part
MAX_BRIGHTNESS = 32 / 255  # added
CONTRAST_RANGE = SATURATION_RANGE = (0.5, 1.5)  # factors
MAX_HUE = 0.1  # of the circle: 36 degrees
Example = dict[str, torch.Tensor]


def build_segmentation_transform(
    image_size: int,
    *,
    image_mean: Sequence[float],
    image_std: Sequence[float],
    scale_range: Sequence[float] = (0.5, 2.0),
    flip: float = 0.5,
    photometric: bool = True,
    cat_max_ratio: float = 0.75,
) -> Callable[[Image.Image, np.ndarray], Example]:
    """
    Resizing by a random factor, a random crop, mirroring, distortion of colours, normalization, padding.

    Args:
        image_size: Side of the crop. At factor 1 an image's shorter side has it, or its longer side has four times it
            if that makes the image smaller; the ratio of the sides stays.
        image_mean, image_std: Per channel, for pixels in [0, 1].
        scale_range: The least and the largest factor.
        flip: Probability of mirroring left and right.
        photometric: Whether colours are distorted.
        cat_max_ratio: A crop of which one class has at least this share of the pixels with a class is drawn anew, up
            to ten times; at 1 and above all are taken.

    Returns:
        A function of an RGB image and a class map, uint8 (height, width) with 255 for no class, to `pixel_values`
        float32 (3, image_size, image_size), padded by 0 at the bottom and right, and `labels` int64 (image_size,
        image_size), padded by 255. Its randomness comes from PyTorch's global generator.

    Raises:
        ValueError: for a size below 1, a range that does not rise or a probability outside of [0, 1].
    """
    check_ranges(image_size, scale_range, flip)

    def transform(image: Image.Image, class_map: np.ndarray) -> Example:
        size = fitted_size((image.height, image.width), image_size, uniform(*scale_range))
        pixels = resized_image(image_tensor(image), size)
        labels = resized_masks(torch.from_numpy(np.array(class_map, dtype=np.uint8))[None], size)
        pixels, labels = random_crop(pixels, labels, image_size, cat_max_ratio)
        if chance(flip):
            pixels, labels = F.horizontal_flip(pixels), F.horizontal_flip(labels)
        if photometric:
            pixels = distort_colours(pixels)
        square = (image_size, image_size)
        return {
            "pixel_values": padded(normalized(pixels, image_mean, image_std), square, 0.0),
            "labels": padded(labels[0].as_subclass(torch.Tensor).long(), square, IGNORED_LABEL),
        }

    return transform


def fitted_size(size: tuple[int, int], image_size: int, factor: float) -> tuple[int, int]:
    """Height and width with the ratio of `size`, as large as fit a shorter side and four times that, each a factor."""
    shorter, longer = sorted(size)
    scale = factor * image_size * min(1 / shorter, MAX_ASPECT_RATIO / longer)
    height, width = (max(1, round(side * scale)) for side in size)
    return height, width


def random_crop(
    pixels: tv_tensors.Image, labels: tv_tensors.Mask, image_size: int, cat_max_ratio: float
) -> tuple[tv_tensors.Image, tv_tensors.Mask]:
    """
    The same crop of an image (3, height, width) and a class map (1, height, width), of at most `image_size` a side.

    After ten crops that one class dominates the next one is taken as it is.
    """
    size = labels.shape[-2:]
    crop = [min(side, image_size) for side in size]
    for tries in range(MAX_CROP_TRIES + 1):
        corner = random_corner(size, crop)
        cropped = F.crop(labels, *corner, *crop)
        if tries == MAX_CROP_TRIES or cat_max_ratio >= 1 or _is_varied(cropped, cat_max_ratio):
            break
    return F.crop(pixels, *corner, *crop), cropped


def _is_varied(labels: torch.Tensor, cat_max_ratio: float) -> bool:
    """Whether there are two classes or more, none of them with as large a share of the pixels that have a class."""
    counts = torch.bincount(labels.flatten(), minlength=IGNORED_LABEL + 1)[:IGNORED_LABEL]
    return bool((counts > 0).sum() > 1 and counts.max() < cat_max_ratio * counts.sum())


def distort_colours(pixels: torch.Tensor) -> torch.Tensor:
    """
    The distortion of SSD (arXiv 1512.02325, section 2.2, "data augmentation") of a uint8 image: float32 in [0, 1].

    Brightness, contrast, saturation and hue change with a probability of a half each, in this order or, as often, with
    contrast last.
    """
    pixels = F.to_dtype(pixels, torch.float32, scale=True)
    if chance(DISTORTION_PROBABILITY):
        pixels = (pixels + uniform(-MAX_BRIGHTNESS, MAX_BRIGHTNESS)).clamp(0, 1)
    contrast_first = chance(0.5)
    if contrast_first:
        pixels = _change_contrast(pixels)
    if chance(DISTORTION_PROBABILITY):
        pixels = saturated(pixels, uniform(*SATURATION_RANGE))
    if chance(DISTORTION_PROBABILITY):
        pixels = F.adjust_hue(pixels, uniform(-MAX_HUE, MAX_HUE))
    return pixels if contrast_first else _change_contrast(pixels)


def _change_contrast(pixels: torch.Tensor) -> torch.Tensor:
    if chance(DISTORTION_PROBABILITY):
        return (pixels * uniform(*CONTRAST_RANGE)).clamp(0, 1)
    return pixels


def saturated(pixels: torch.Tensor, factor: float) -> torch.Tensor:
    """
    An image of float32 in [0, 1] with its saturation, in the HSV model, times a factor, at most 1.

    Hue and value V stay, so each channel's distance from V grows by the same factor; at saturation 1 the lowest
    channel is 0, V away.
    """
    value, lowest = pixels.amax(0, keepdim=True), pixels.amin(0, keepdim=True)
    limit = value / (value - lowest).clamp_min(torch.finfo(pixels.dtype).tiny)
    return (value - (value - pixels) * limit.clamp(max=factor)).clamp_min(0)


def collate_segmentation(examples: list[Example]) -> Example:
    """
    Examples as a batch: `pixel_values` (B, 3, H, W) and `labels` (B, H, W).

    Smaller ones are padded at the bottom and right, images by 0 and labels by 255.
    """
    height, width = (max(example["labels"].shape[axis] for example in examples) for axis in (0, 1))
    return {
        "pixel_values": torch.stack([padded(example["pixel_values"], (height, width), 0.0) for example in examples]),
        "labels": torch.stack([padded(example["labels"], (height, width), IGNORED_LABEL) for example in examples]),
    }
