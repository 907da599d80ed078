# Copyright 2026 The modeling_pixelvit team. All rights reserved.
# SPDX-License-Identifier: Apache-2.0
"""COCO segmentations, which are polygons or run lengths: checking them, and the pixels that they cover."""

from typing import Any

import numpy as np


# COCO's rasterisation follows an outline on a grid of fifths of a pixel.
SUBPIXELS = 5


def annotation_mask(segmentation: Any, height: int, width: int) -> np.ndarray:
    """The pixels that a COCO segmentation covers, as booleans of shape (height, width).

    Polygons are united, and rasterised to the same pixels as by COCO's own tools. Run lengths go down the columns and
    begin with a run of background; they may be a list of ints or COCO's compressed text.

    Raises:
        ValueError: if the segmentation is none, with the reason that `check_annotation` gives.
    """
    reason = segmentation_problem(segmentation, height, width)
    if reason is not None:
        raise ValueError(f"The segmentation cannot be used because {reason}: correct it or leave it out.")
    if isinstance(segmentation, dict):
        counts = _run_lengths(segmentation["counts"])
        return np.repeat(np.arange(len(counts)) % 2 == 1, counts).reshape(width, height).T
    mask = np.zeros((height, width), dtype=bool)
    for polygon in segmentation:
        mask |= _polygon_mask(np.asarray(polygon, dtype=np.float64).reshape(-1, 2), height, width)
    return mask


def _run_lengths(counts: Any) -> np.ndarray:
    """Run lengths as int64, from a list or from COCO's text.

    The text holds 6 bits for each character, counted from "0": five bits of a number, lowest first, and one that tells
    whether more follow. The last five are signed. From the fourth number on each is the difference from the length two
    before.
    """
    if not isinstance(counts, (str, bytes)):
        return np.asarray(counts, dtype=np.int64)
    lengths, value, shift = [], 0, 0
    for character in counts.encode() if isinstance(counts, str) else counts:
        bits = character - ord("0")
        if not 0 <= bits < 64:
            raise ValueError(f"a character {chr(character)!r} that run lengths do not have")
        value |= (bits & 31) << shift
        shift += 5
        if not bits & 32:
            value -= (1 << shift) if bits & 16 else 0
            lengths.append(value + (lengths[-2] if len(lengths) > 2 else 0))
            value = shift = 0
    if shift:
        raise ValueError("an end in the middle of a number")
    return np.array(lengths, dtype=np.int64)


def _polygon_mask(points: np.ndarray, height: int, width: int) -> np.ndarray:
    """The pixels inside a polygon (n, 2) of x and y, by the even-odd rule, where COCO's tools draw the outline.

    Corners are rounded to fifths of a pixel. Between them the outline is a chain of such fine points, one for each
    step along the longer direction. Where the chain passes the middle of a column of pixels, all pixels of the column
    from there downwards change between outside and inside.
    """
    corners = np.trunc(points * SUBPIXELS + 0.5).astype(np.int64)
    chains = [_chain(*pair) for pair in zip(corners, np.roll(corners, -1, axis=0), strict=True)]
    x, y = np.concatenate(chains).T
    before, after = x[:-1], x[1:]
    column = np.minimum(before, after)
    passes = (before != after) & (column % SUBPIXELS == SUBPIXELS // 2)
    column = column[passes] // SUBPIXELS
    row = np.minimum(y[:-1], y[1:])[passes]
    row = np.ceil((row + 0.5) / SUBPIXELS - 0.5).clip(0, height).astype(np.int64)
    inside = (column >= 0) & (column < width)
    changes = np.bincount(column[inside] * height + row[inside], minlength=height * width + 1)
    return (changes[: height * width].cumsum() % 2 == 1).reshape(width, height).T


def _chain(start: np.ndarray, end: np.ndarray) -> np.ndarray:
    """The fine points (n, 2) of an edge, rounded in the same way whichever end it begins at."""
    longer = int(np.argmax(np.abs(end - start)))
    backwards = start[longer] > end[longer]
    low, high = (end, start) if backwards else (start, end)
    steps = np.arange(high[longer] - low[longer] + 1)
    slope = (high - low)[1 - longer] / max(len(steps) - 1, 1)
    chain = np.empty((len(steps), 2), dtype=np.int64)
    chain[:, longer] = low[longer] + steps
    chain[:, 1 - longer] = np.trunc(low[1 - longer] + slope * steps + 0.5)
    return chain[::-1] if backwards else chain


# Checks


def finite_numbers(values: Any) -> np.ndarray | None:
    """A list of finite numbers as float64, `None` for anything else."""
    try:
        values = np.asarray(values, dtype=np.float64)
    except (TypeError, ValueError):
        return None
    return values if values.ndim == 1 and np.isfinite(values).all() else None


def segmentation_problem(segmentation: Any, height: int, width: int) -> str | None:
    if isinstance(segmentation, dict):
        return _run_length_problem(segmentation, height, width)
    if not isinstance(segmentation, (list, tuple)) or not segmentation:
        return "its segmentation is neither a list of polygons nor a dict of run lengths"
    for index, polygon in enumerate(segmentation):
        numbers = finite_numbers(polygon)
        if numbers is None or len(numbers) % 2:
            return f"its polygon {index} is no list of finite numbers [x0, y0, x1, y1, ...]"
        if len(numbers) < 6:
            return f"its polygon {index} has fewer than 3 points"
        x, y = numbers.reshape(-1, 2).T
        if _polygon_area(x, y) == 0:
            return f"its polygon {index} has no area"
        # A chain of fine points as long as a mistyped number says would fill the memory.
        if min(x.min() / width, y.min() / height) < -1 or max(x.max() / width, y.max() / height) > 2:
            return f"its polygon {index} reaches far out of the image of {height} x {width} pixels (height x width)"
    return None


def _polygon_area(x: np.ndarray, y: np.ndarray) -> float:
    """The area inside a simple polygon, by the shoelace formula; rounding errors count as 0."""
    x, y = x - x[0], y - y[0]
    products = np.concatenate([x * np.roll(y, -1), -y * np.roll(x, -1)])
    area = abs(products.sum()) / 2
    return area if area > 1e-9 * np.abs(products).sum() else 0.0


def _run_length_problem(segmentation: dict[str, Any], height: int, width: int) -> str | None:
    if not {"size", "counts"} <= set(segmentation):
        return "its run lengths lack size or counts"
    size = finite_numbers(segmentation["size"])
    if size is None or size.tolist() != [height, width]:
        return f"its run lengths are for size {segmentation['size']!r}, and the image has {[height, width]}"
    try:
        counts = _run_lengths(segmentation["counts"])
    except (TypeError, ValueError, OverflowError) as error:
        return f"its run lengths cannot be read ({error})"
    is_in_range = counts.ndim == 1 and ((counts >= 0) & (counts <= height * width)).all()
    if not is_in_range or counts.sum() != height * width:
        return f"its run lengths do not add up to the image's {height * width} pixels"
    return None
