# Copyright 2026 The modeling_pixelvit team. All rights reserved.
# SPDX-License-Identifier: Apache-2.0
"""Segmentation maps and COCO annotations: reading, checking, and moving them as their image is moved.

A COCO annotation is a dict with `bbox` [x, y, width, height] in pixels, `category_id`, and optionally `segmentation`
(a list of polygons [x0, y0, x1, y1, ...] in pixels, or run lengths {"size": [height, width], "counts": ...}), `area`
in pixels, `iscrowd` (0 or 1) and `id`. An empty `segmentation` counts as none.
"""

import math
import os
from numbers import Integral, Real
from typing import Any

import numpy as np
import torch
from PIL import Image

from .image_geometry import Placement
from .image_masks import annotation_mask, finite_numbers, segmentation_problem
from .image_reading import check_not_empty, flatten_images, image_name, open_image, upright_image


IGNORED_LABEL = 255
# COCO rounds coordinates to two digits, and some boxes end a fraction of a pixel outside their image.
BOX_TOLERANCE = 1.0


# Segmentation maps


def read_segmentation_map(source: Any, name: str, max_pixels: int | None = None) -> np.ndarray:
    """Reads a map of class indices as int64 of shape (height, width); a palette image gives its indices.

    Args:
        source: a PIL image of one band, a path or another source that `open_image` takes, or an array or tensor of
            integers or booleans of shape (height, width) or (1, height, width).
        name: what errors call the map.
        max_pixels: largest height times width, checked before a file is decoded; `None` for no limit.

    Raises:
        ValueError: for an image with colours, an array of another shape or type, and negative indices.
        TypeError: for what is neither an image nor an array.
    """
    if isinstance(source, (str, os.PathLike)):
        with open_image(source, name) as opened:
            return read_segmentation_map(opened, name, max_pixels)
    if isinstance(source, Image.Image):
        image = upright_image(source, name, max_pixels)
        if len(image.getbands()) != 1:
            raise ValueError(
                f"{name} is an image of mode {image.mode}, which has colours: pass one with a single band of class "
                "indices (mode L, P or I), or map its colours to indices beforehand."
            )
        pixels = np.asarray(image)
    elif isinstance(source, (np.ndarray, torch.Tensor)):
        pixels = source.detach().cpu().numpy() if isinstance(source, torch.Tensor) else source
        pixels = pixels[0] if pixels.ndim == 3 and len(pixels) == 1 else pixels
    else:
        raise TypeError(
            f"{name} is of type {type(source).__name__}: pass a PIL image, a numpy array, a torch tensor or a path."
        )
    if pixels.ndim != 2 or pixels.dtype.kind not in "biu":
        raise ValueError(
            f"{name} has shape {pixels.shape} and dtype {pixels.dtype}: pass one integer for each pixel, the index of "
            "its class, in the shape (height, width)."
        )
    check_not_empty(pixels.shape, name)
    pixels = pixels.astype(np.int64)
    if pixels.min() < 0:
        raise ValueError(
            f"{name} has negative class indices, down to {pixels.min()}: give pixels without a class the index "
            f"{IGNORED_LABEL}."
        )
    return pixels


def reduced_labels(labels: np.ndarray) -> np.ndarray:
    """Class indices counted from 1, with 0 for no class, to indices from 0 with 255 for no class; 255 stays."""
    return np.where((labels == 0) | (labels == IGNORED_LABEL), IGNORED_LABEL, labels - 1)


def segmentation_labels(
    maps: Any,
    placements: list[Placement],
    frames: list[tuple[int, int]],
    do_reduce_labels: bool | None = False,
    max_pixels: int | None = None,
) -> list[np.ndarray]:
    """The labels of a batch: int64 of shape `frame` for each image, 255 outside of it.

    Args:
        maps: one map, or a list or array of as many as images, of the kinds that `read_segmentation_map` takes.
        placements: where the pixels of each image end up.
        frames: the size that each comes out with, padding included.
        do_reduce_labels: whether to apply `reduced_labels`.
        max_pixels: as `read_segmentation_map` takes it.

    Raises:
        ValueError: if there are more or fewer maps than images, or one has another size than its image.
    """
    maps = list(flatten_images(maps, expected_ndims=2))
    if len(maps) != len(placements):
        raise ValueError(
            f"{len(maps)} segmentation_maps were given for {len(placements)} images: pass one for each image."
        )
    labels = []
    for index, (source, placement, frame) in enumerate(zip(maps, placements, frames, strict=True)):
        name = f"the segmentation map of {image_name(index, source)}"
        classes = read_segmentation_map(source, name, max_pixels)
        if classes.shape != placement.image:
            raise ValueError(
                f"{name} has {classes.shape[0]} x {classes.shape[1]} pixels and its image has {placement.image[0]} x "
                f"{placement.image[1]}: give a map of the image's own size (height x width), turned upright as it is."
            )
        classes = reduced_labels(classes) if do_reduce_labels else classes
        labels.append(placement.move_map(classes, frame, fill=IGNORED_LABEL))
    return labels


# Checks


def check_annotation(annotation: Any, height: int, width: int) -> str | None:
    """Why a COCO annotation of an image of `height` by `width` pixels cannot be used, as a clause, or `None`.

    A usable one has a `category_id` of at least 0, a box of some width and height inside the image (to one pixel) and,
    if it has a segmentation, polygons of at least 3 points and some area, or run lengths that fill the image.
    """
    if not isinstance(annotation, dict):
        return f"it is of type {type(annotation).__name__}, not a dict"
    for key in ("bbox", "category_id"):
        if annotation.get(key) is None:
            return f"it has no {key}"
    category, crowd, area = annotation["category_id"], annotation.get("iscrowd", 0), annotation.get("area", 0)
    if not isinstance(category, Integral) or isinstance(category, bool) or category < 0:
        return f"its category_id={category!r} is no integer of at least 0"
    if crowd not in (0, 1):
        return f"its iscrowd={crowd!r} is neither 0 nor 1"
    if not isinstance(area, Real) or not math.isfinite(area) or area < 0:
        return f"its area={area!r} is no number of at least 0"
    reason = _box_problem(annotation["bbox"], height, width)
    if reason is None and has_segmentation(annotation):
        reason = segmentation_problem(annotation["segmentation"], height, width)
    return reason


def has_segmentation(annotation: dict[str, Any]) -> bool:
    return bool(annotation.get("segmentation"))


def _box_problem(box: Any, height: int, width: int) -> str | None:
    numbers = finite_numbers(box)
    if numbers is None or len(numbers) != 4:
        return f"its bbox={box!r} is not of four finite numbers [x, y, width, height]"
    x, y, box_width, box_height = numbers
    if box_width <= 0 or box_height <= 0:
        return f"its bbox={box!r} has no width or no height"
    outside = max(-x, -y, x + box_width - width, y + box_height - height) > BOX_TOLERANCE
    if outside or min(x + box_width, y + box_height) <= 0 or x >= width or y >= height:
        return f"its bbox={box!r} reaches out of the image of {height} x {width} pixels (height x width)"
    return None


# Targets of detection


def detection_target(target: dict[str, Any], placement: Placement, frame: tuple[int, int], with_masks: bool) -> dict:
    """The target of one image as transformers' DETR has it, from COCO annotations.

    Args:
        target: {"image_id": int, "annotations": [COCO annotations]}.
        placement: where the image's pixels end up.
        frame: size of the masks, at least `placement.output`: the batch's padded size.
        with_masks: whether to make masks; each annotation then needs a segmentation.

    Returns:
        A dict of numpy arrays for the n annotations of which a pixel is left: `class_labels` (n,) int64; `boxes` (n,
        4) float32, centre x, centre y, width, height from 0 to 1 of `placement.output`; `area` (n,) float32 in pixels
        after resizing; `iscrowd` (n,) int64; with masks `masks` (n, *frame) bool; and int64 `image_id` (1,),
        `orig_size` (2,) and `size` (2,), which is `placement.output`.

    Raises:
        ValueError: for an annotation that `check_annotation` refuses, or that lacks a segmentation; the message names
            `image_id` and the annotation's `id`.
    """
    height, width = placement.image
    annotations = target["annotations"]
    for index, annotation in enumerate(annotations):
        reason = check_annotation(annotation, height, width)
        if reason is None and with_masks and not has_segmentation(annotation):
            reason = "it has no segmentation, and masks are asked for"
        if reason is not None:
            number = annotation.get("id") if isinstance(annotation, dict) else None
            label = f"annotation {number}" if number is not None else f"the annotation at place {index}"
            raise ValueError(
                f"{label} of image_id {target['image_id']} cannot be used because {reason}: correct it or leave it out."
            )
    corners = np.array([annotation["bbox"] for annotation in annotations], dtype=np.float64).reshape(-1, 4)
    corners[:, 2:] += corners[:, :2]
    corners = placement.move_boxes(corners.clip(0, [width, height, width, height]))
    sides = corners[:, 2:] - corners[:, :2]
    kept = (sides > 0).all(axis=1)
    result = {}
    if with_masks:
        masks = np.zeros((len(annotations), *frame), dtype=bool)
        for index in kept.nonzero()[0]:
            mask = annotation_mask(annotations[index]["segmentation"], height, width)
            masks[index] = placement.move_map(mask, frame, fill=False)
        kept &= masks.any(axis=(1, 2))
        result["masks"] = masks[kept]
    scale = math.prod(placement.resized) / (height * width)
    area = [annotation.get("area", annotation["bbox"][2] * annotation["bbox"][3]) for annotation in annotations]
    output_height, output_width = placement.output
    boxes = np.concatenate([corners[:, :2] + sides / 2, sides], axis=1)
    boxes = boxes / [output_width, output_height, output_width, output_height]
    return {
        "image_id": np.array([target["image_id"]], dtype=np.int64),
        "class_labels": np.array([item["category_id"] for item in annotations], dtype=np.int64)[kept],
        "boxes": boxes[kept].astype(np.float32),
        **result,
        "area": (np.array(area, dtype=np.float64) * scale)[kept].astype(np.float32),
        "iscrowd": np.array([item.get("iscrowd", 0) for item in annotations], dtype=np.int64)[kept],
        "orig_size": np.array(placement.image, dtype=np.int64),
        "size": np.array(placement.output, dtype=np.int64),
    }


def detection_targets(
    targets: Any, placements: list[Placement], frames: list[tuple[int, int]], with_masks: bool | None = None
) -> list[dict[str, np.ndarray]]:
    """`detection_target` of each image of a batch.

    Args:
        targets: one for each image, or the only image's.
        placements, frames: for each image, as `detection_target` takes them.
        with_masks: whether to make masks; if `None`, where any annotation of the batch has a segmentation.

    Raises:
        ValueError: if there are more or fewer targets than images, or one is not of the form above.
    """
    targets = [targets] if isinstance(targets, dict) else list(targets)
    if len(targets) != len(placements):
        raise ValueError(
            f"{len(targets)} annotations were given for {len(placements)} images: pass one dict for each image, with "
            "an empty list 'annotations' where nothing is annotated."
        )
    for index, target in enumerate(targets):
        is_target = isinstance(target, dict) and isinstance(target.get("annotations"), (list, tuple))
        if not is_target or not isinstance(target.get("image_id"), Integral):
            raise ValueError(
                f"The annotations of image {index} are no COCO target: pass a dict with the integer 'image_id' and the "
                "list 'annotations' for each image."
            )
    if with_masks is None:
        annotations = [annotation for target in targets for annotation in target["annotations"]]
        with_masks = any(isinstance(annotation, dict) and has_segmentation(annotation) for annotation in annotations)
    images = zip(targets, placements, frames, strict=True)
    return [detection_target(target, placement, frame, with_masks) for target, placement, frame in images]
