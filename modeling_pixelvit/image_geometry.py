# Copyright 2026 The modeling_pixelvit team. All rights reserved.
# SPDX-License-Identifier: Apache-2.0
"""Sizes that images are resized, cropped and padded to, and where the pixels of an image end up."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from transformers.image_utils import SizeDict


# Sizes are (height, width) in pixels. Besides {"height", "width"}, which a crop needs, a size may limit edges so that
# the aspect ratio stays:
EDGE_SIZES = ({"shortest_edge"}, {"longest_edge"}, {"shortest_edge", "longest_edge"}, {"max_height", "max_width"})


def keeps_aspect_ratio(size: SizeDict) -> bool:
    return size.height is None


def is_padded(do_pad: bool | None, size: SizeDict) -> bool:
    """Whether images are padded: if `do_pad` does not tell, where `size` lets their sizes differ."""
    return keeps_aspect_ratio(size) if do_pad is None else bool(do_pad)


def checked_size(size: Any, name: str = "size", may_limit_edges: bool = False) -> SizeDict:
    """Turns an int (square), a pair (height, width) or {"height", "width"} into a `SizeDict` of positive ints; with
    `may_limit_edges` also dicts with the keys of one of `EDGE_SIZES`."""
    size = dict(size) if isinstance(size, SizeDict) else size
    sides = size
    if isinstance(size, int):
        sides = {"height": size, "width": size}
    elif isinstance(size, (list, tuple)) and len(size) == 2:
        sides = {"height": size[0], "width": size[1]}
    is_form = isinstance(sides, dict) and set(sides) in ({"height", "width"}, *(EDGE_SIZES if may_limit_edges else ()))
    if not is_form or not all(is_positive_integer(side) for side in sides.values()):
        forms = "{'height': 224, 'width': 224}, (height, width) or one integer for a square"
        edges = "{'shortest_edge': 512}, {'longest_edge': 1024}, both of them or {'max_height': 768, 'max_width': 1024}"
        if may_limit_edges:
            forms += f"; or, keeping the aspect ratio, {edges}"
        elif name == "size":
            forms += f", and set how much is cropped away with crop_pct; or turn do_center_crop off to use {edges}"
        raise ValueError(
            f"{name}={size!r} is not accepted: give the size that is to come out, as positive integers, in the form "
            f"{forms}."
        )
    return SizeDict(**sides)


def is_positive_integer(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value > 0


def covering_size(image_size: tuple[int, int], size: SizeDict, crop_pct: float) -> tuple[int, int]:
    """The smallest size of the image's shape that covers `size / crop_pct`.

    For a square `size` this is torchvision's `Resize(int(size / crop_pct))`: the shorter edge has that length and the
    longer one `int(shorter * long / short)`.
    """
    height, width = image_size
    cover_height, cover_width = int(size.height / crop_pct), int(size.width / crop_pct)
    if cover_height * width >= cover_width * height:
        return cover_height, int(cover_height * width / height)
    return int(cover_width * height / width), cover_width


def fitting_size(image_size: tuple[int, int], size: SizeDict) -> tuple[int, int]:
    """The size of the image's shape that keeps to limits of the edges, rounded to the nearest pixels, at least 1.

    The shorter edge gets `shortest_edge`, unless the longer one would exceed `longest_edge` and gets that; with
    `longest_edge` alone, or `max_height` and `max_width`, the image becomes as large as they allow. Small images grow.
    """
    height, width = image_size
    if size.max_height is not None:
        limits = [(size.max_height, height), (size.max_width, width)]
    else:
        edges = ((size.shortest_edge, min(image_size)), (size.longest_edge, max(image_size)))
        limits = [(limit, edge) for limit, edge in edges if limit is not None]
    # The smallest ratio, compared as integers so that no rounding error decides.
    numerator, denominator = limits[0]
    for limit, edge in limits[1:]:
        if limit * denominator < numerator * edge:
            numerator, denominator = limit, edge
    return tuple(max(1, (2 * side * numerator + denominator) // (2 * denominator)) for side in image_size)


def resized_size(
    image_size: tuple[int, int], size: SizeDict, crop_pct: float, do_center_crop: bool | None
) -> tuple[int, int]:
    """The size that `do_resize` gives an image, before any crop."""
    if do_center_crop:
        return covering_size(image_size, size, crop_pct)
    if keeps_aspect_ratio(size):
        return fitting_size(image_size, size)
    return size.height, size.width


def centered_window(length: int, window: int) -> tuple[int, int, int]:
    """Zeros to add before and after an edge of `length`, and where a window then starts, to centre it.

    Rounds as torchvision's `CenterCrop` does, which for odd differences is neither always down nor always up.
    """
    missing = max(window - length, 0)
    return missing // 2, (missing + 1) // 2, round(max(length - window, 0) / 2)


def padded_size(image_sizes: list[tuple[int, int]], pad_size: SizeDict | None) -> tuple[int, int]:
    """What images of these sizes are padded to: `pad_size`, or the largest height and the largest width of them.

    Raises:
        ValueError: if an image is larger than `pad_size`.
    """
    height, width = (max(sides) for sides in zip(*image_sizes, strict=True))
    if pad_size is None:
        return height, width
    if height > pad_size.height or width > pad_size.width:
        raise ValueError(
            f"The batch has images of up to {height} x {width} pixels, more than pad_size={dict(pad_size)!r}: give a "
            "larger pad_size or a smaller `size`, or leave pad_size out to pad to the largest image of the batch."
        )
    return pad_size.height, pad_size.width


@dataclass(frozen=True)
class Placement:
    """Where the pixels of an image end up: resized to `resized`, its top left corner then at `offset` (rows, columns)
    of a frame of size `output`; a negative offset is cropped away. Padding of the batch comes after, below and right.
    """

    image: tuple[int, int]
    resized: tuple[int, int]
    offset: tuple[int, int]
    output: tuple[int, int]

    @classmethod
    def of(
        cls,
        image_size: tuple[int, int],
        size: SizeDict,
        crop_pct: float,
        do_resize: bool | None,
        do_center_crop: bool | None,
    ) -> "Placement":
        """The placement that the image processors' settings mean for an image of `image_size`."""
        image_size = tuple(image_size)
        resized = resized_size(image_size, size, crop_pct, do_center_crop) if do_resize else image_size
        if not do_center_crop:
            return cls(image_size, resized, (0, 0), resized)
        output = (size.height, size.width)
        windows = [centered_window(length, window) for length, window in zip(resized, output, strict=True)]
        return cls(image_size, resized, tuple(before - start for before, _, start in windows), output)

    def move_map(self, pixels: np.ndarray, frame: tuple[int, int], fill: int) -> np.ndarray:
        """Moves maps (..., height, width) of the image to (..., *frame) by the nearest pixel, `fill` outside of it.

        Exact for any integers: each pixel takes the value under its centre. `frame` is `output` or, padded, larger.
        """
        for axis in (0, 1):
            places = np.arange(frame[axis]) - self.offset[axis]
            inside = (places >= 0) & (places < self.resized[axis]) & (np.arange(frame[axis]) < self.output[axis])
            source = (2 * places + 1) * self.image[axis] // (2 * self.resized[axis])
            pixels = np.take(pixels, source.clip(0, self.image[axis] - 1), axis=axis - 2)
            inside = inside if axis else inside[:, None]
            pixels = np.where(inside, pixels, np.asarray(fill, pixels.dtype))
        return pixels

    def move_boxes(self, boxes: np.ndarray) -> np.ndarray:
        """Moves boxes (n, 4) of x, y, x, y in pixels of the image to pixels of the output, cut at its borders."""
        rows, columns = ((after / before) for after, before in zip(self.resized, self.image, strict=True))
        top, left = self.offset
        moved = boxes * np.array([columns, rows, columns, rows]) + np.array([left, top, left, top])
        height, width = self.output
        return moved.clip(0, np.array([width, height, width, height]))
