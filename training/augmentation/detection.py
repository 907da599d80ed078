# Copyright 2026 The modeling_pixelvit team. All rights reserved.
# SPDX-License-Identifier: Apache-2.0
"""
What happens to the training images of a detection: ViTDet's large-scale jitter (arXiv 2203.16527, after 2012.07177) and
mirroring, with boxes and masks that follow.
"""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from PIL import Image
from torchvision import tv_tensors
from torchvision.ops import box_convert, masks_to_boxes
from torchvision.transforms.v2 import functional as F

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
from .segmentation import distort_colours


# Nothing can be seen of an object whose visible box is narrower, in pixels.
LEAST_SIDE = 0.5
# A box that a crop makes smaller by less, in pixels, is whole but for rounding.
CUT_TOLERANCE = 1e-3
Example = dict[str, Any]


def build_detection_transform(
    image_size: int,
    *,
    image_mean: Sequence[float],
    image_std: Sequence[float],
    scale_range: Sequence[float] = (0.1, 2.0),
    flip: float = 0.5,
    photometric: bool = False,
) -> Callable[[Image.Image, dict[str, Any]], Example]:
    """
    Resizing by a random factor, a random crop where the image became larger, mirroring, normalization, padding.

    Args:
        image_size: Side of the result. At factor 1 an image's longer side has it; the ratio of the sides stays.
        image_mean, image_std: Per channel, for pixels in [0, 1].
        scale_range: The least and the largest factor.
        flip: Probability of mirroring left and right.
        photometric: Whether colours are distorted, as in segmentation.

    Returns:
        A function of an RGB image and a target of `CocoDetection` to
        - `pixel_values`: float32 (3, image_size, image_size), padded by 0 at the bottom and right
        - `pixel_mask`: uint8 (image_size, image_size), 1 where the image is and 0 where it is padded
        - `labels`: `class_labels` int64 (n,), `boxes` float32 (n, 4) as centre, width and height in shares of the
          image without padding, `iscrowd` int64 (n,), and with masks `masks` bool (n, image_size, image_size)

        Objects of which nothing is left are left out; of an object that is cut, the box goes around what its mask
        shows, or without masks around the visible part of its box. Randomness comes from PyTorch's global generator.

    Raises:
        ValueError: for a size below 1, a range that does not rise or a probability outside of [0, 1].
    """
    check_ranges(image_size, scale_range, flip)

    def transform(image: Image.Image, target: dict[str, Any]) -> Example:
        size = (image.height, image.width)
        parts = {"image": image_tensor(image)}
        parts["boxes"] = tv_tensors.BoundingBoxes(target["boxes"], format="XYXY", canvas_size=size)
        if "masks" in target:
            parts["masks"] = tv_tensors.Mask(target["masks"])
        parts = _resized(parts, _fitted_size(size, image_size, uniform(*scale_range)))
        parts, kept = _cropped(parts, image_size)
        if chance(flip):
            parts = {name: F.horizontal_flip(part) for name, part in parts.items()}
        if photometric:
            parts["image"] = distort_colours(parts["image"])
        parts["image"] = normalized(parts["image"], image_mean, image_std)
        return _example(parts, target, kept, image_size)

    return transform


def _fitted_size(size: tuple[int, int], image_size: int, factor: float) -> tuple[int, int]:
    """Height and width with the ratio of `size`, the longer of them `image_size` times the factor."""
    scale = factor * image_size / max(size)
    height, width = (max(1, round(side * scale)) for side in size)
    return height, width


def _resized(parts: dict[str, torch.Tensor], size: tuple[int, int]) -> dict[str, torch.Tensor]:
    resized = {"image": resized_image(parts["image"], size), "boxes": F.resize(parts["boxes"], list(size))}
    if "masks" in parts:
        resized["masks"] = resized_masks(parts["masks"], size)
    return resized


def _cropped(parts: dict[str, torch.Tensor], image_size: int) -> tuple[dict[str, torch.Tensor], torch.Tensor]:
    """A crop of at most `image_size` a side, with the boxes and masks of what is left, and which objects (n,) are."""
    size = parts["image"].shape[-2:]
    crop = [min(side, image_size) for side in size]
    corner = random_corner(size, crop)
    cropped = {name: F.crop(part, *corner, *crop) for name, part in parts.items()}
    boxes = cropped["boxes"]
    is_cut = (_sides(boxes) < _sides(parts["boxes"]) - CUT_TOLERANCE).any(1)
    if "masks" in cropped:
        is_seen = cropped["masks"].flatten(1).any(1)
        is_cut &= is_seen
        boxes[is_cut] = _visible_boxes(cropped["masks"][is_cut], boxes[is_cut])
    kept = (_sides(boxes) >= LEAST_SIDE).all(1)
    if "masks" in cropped:
        kept &= is_seen
        cropped["masks"] = tv_tensors.Mask(cropped["masks"][kept])
    cropped["boxes"] = tv_tensors.wrap(boxes[kept], like=boxes)
    return cropped, kept


def _visible_boxes(masks: torch.Tensor, boxes: torch.Tensor) -> torch.Tensor:
    """Boxes around masks, none of which is empty, and inside of the given boxes where the two meet."""
    around = masks_to_boxes(masks)
    around[:, 2:] += 1  # to the far edge of the last pixel
    inside = torch.cat([torch.maximum(around[:, :2], boxes[:, :2]), torch.minimum(around[:, 2:], boxes[:, 2:])], dim=1)
    return torch.where((_sides(inside) > 0).all(1, keepdim=True), inside, around)


def _sides(boxes: torch.Tensor) -> torch.Tensor:
    boxes = boxes.as_subclass(torch.Tensor)
    return boxes[:, 2:] - boxes[:, :2]


def _example(parts: dict[str, torch.Tensor], target: dict[str, Any], kept: torch.Tensor, image_size: int) -> Example:
    height, width = parts["image"].shape[-2:]
    square = (image_size, image_size)
    boxes = box_convert(parts["boxes"].as_subclass(torch.Tensor), "xyxy", "cxcywh")
    labels = {
        "class_labels": target["class_labels"][kept],
        "boxes": boxes / torch.tensor([width, height, width, height], dtype=torch.float32),
        "iscrowd": target["iscrowd"][kept],
    }
    if "masks" in parts:
        labels["masks"] = padded(parts["masks"].as_subclass(torch.Tensor), square, False)
    return {
        "pixel_values": padded(parts["image"], square, 0.0),
        "pixel_mask": padded(torch.ones(height, width, dtype=torch.uint8), square, 0),
        "labels": labels,
    }


def collate_detection(examples: list[Example]) -> Example:
    """
    Examples as a batch: `pixel_values` (B, 3, H, W), `pixel_mask` (B, H, W) and `labels`, a list of B mappings.

    Smaller images, and their masks (n, H, W), are padded at the bottom and right by 0, which `pixel_mask` says too.
    """
    size = [max(example["pixel_mask"].shape[axis] for example in examples) for axis in (0, 1)]
    return {
        "pixel_values": torch.stack([padded(example["pixel_values"], size, 0.0) for example in examples]),
        "pixel_mask": torch.stack([padded(example["pixel_mask"], size, 0) for example in examples]),
        "labels": [_padded_masks(example["labels"], size) for example in examples],
    }


def _padded_masks(labels: dict[str, Any], size: Sequence[int]) -> dict[str, Any]:
    return labels | {name: padded(masks, size, 0) for name, masks in labels.items() if name == "masks"}
