# Copyright 2026 The modeling_pixelvit team. All rights reserved.
# SPDX-License-Identifier: Apache-2.0
"""The image processors' own settings: their ranges, and what they are for each task."""

from typing import Any

import numpy as np
from transformers.image_utils import SizeDict
from transformers.processing_utils import ImagesKwargs

from .image_geometry import checked_size, is_positive_integer


class PixelViTImageProcessorKwargs(ImagesKwargs, total=False):
    r"""
    crop_pct (`float`, *optional*, defaults to `self.crop_pct`):
        Crop ratio in (0, 1]: the share of the resized image's height and width that the centre crop keeps. Without
        effect when `do_resize` or `do_center_crop` is off.
    max_pixels (`int`, *optional*, defaults to `self.max_pixels`):
        Largest height times width that is accepted, for an image before it is decoded and for what resizing would
        make of it; `None` for no limit.
    do_reduce_labels (`bool`, *optional*, defaults to `self.do_reduce_labels`):
        Whether segmentation maps count classes from 1 and 0 means no class, as in ADE20K: 0 becomes 255 and k becomes
        k - 1.
    """

    crop_pct: int | float | None
    max_pixels: int | None
    do_reduce_labels: bool | None


def check_crop_size(crop_size: Any, size: SizeDict) -> None:
    if crop_size is not None and checked_size(crop_size, "crop_size", may_limit_edges=True) != size:
        raise ValueError(
            f"crop_size={crop_size!r} differs from size={dict(size)!r}, but the crop is always of `size`: leave "
            "crop_size out, give the size that is to come out as `size`, and set how much is cropped away with "
            "crop_pct."
        )


def checked_crop_pct(crop_pct: Any) -> float:
    is_number = isinstance(crop_pct, (int, float, np.number)) and not isinstance(crop_pct, bool)
    if not is_number or not 0 < crop_pct <= 1:
        raise ValueError(
            f"crop_pct={crop_pct!r} is out of range: give a number above 0 and at most 1, for instance 0.875, or 1.0 "
            "to keep all of the shorter edge."
        )
    return float(crop_pct)


def check_max_pixels(max_pixels: Any) -> None:
    if max_pixels is not None and not is_positive_integer(max_pixels):
        raise ValueError(
            f"max_pixels={max_pixels!r} is not accepted: give the largest number of pixels (height times width) an "
            "image may have as a positive integer, or None for no limit."
        )


def crop_ratio(image_size: int | tuple[int, int], patch_size: int | tuple[int, int]) -> float:
    """The crop ratio of the paper's evaluation: 0.875 for patch 16 at 224 and for inputs of 64 pixels, 1.0 for
    smaller patches or larger inputs.

    Between the sizes the paper names: 0.875 up to 64 pixels whatever the patch, and from 65 to 224 pixels for patches
    of 16 or more; otherwise 1.0. Of a non-square input the longer edge counts, of a non-square patch the shorter.
    """
    longest_edge = image_size if isinstance(image_size, int) else max(image_size)
    shortest_patch = patch_size if isinstance(patch_size, int) else min(patch_size)
    return 0.875 if longest_edge <= 64 or (shortest_patch >= 16 and longest_edge <= 224) else 1.0


def task_settings(image_size: tuple[int, int], patch_size: int | tuple[int, int], task: str) -> dict[str, Any]:
    """The settings of `PixelViTImageProcessorBase.for_config`."""
    height, width = image_size
    if task == "classification":
        return {"size": {"height": height, "width": width}, "crop_pct": crop_ratio(image_size, patch_size)}
    if task == "segmentation":
        edge = min(image_size)
        return {"size": {"shortest_edge": edge, "longest_edge": 4 * edge}, "do_center_crop": False}
    if task == "detection":
        limits = {"longest_edge": height} if height == width else {"max_height": height, "max_width": width}
        return {"size": limits, "pad_size": {"height": height, "width": width}, "do_center_crop": False}
    raise ValueError(f"task={task!r} is not known: give 'classification', 'segmentation' or 'detection'.")
