# Copyright 2026 The modeling_pixelvit team. All rights reserved.
# SPDX-License-Identifier: Apache-2.0
"""What is kept in memory of a detection data set: for each image its file, its size and its checked annotations."""

import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from modeling_pixelvit.image_annotations import check_annotation, has_segmentation


class ObjectRecord(NamedTuple):
    """
    One annotation.

    Args:
        id: Of the annotation.
        class_label: Class index, from 0 on.
        box: Left, top, right and bottom edge in pixels, inside the image.
        area: In square pixels.
        iscrowd: Whether it is a region of many objects, which are neither learned nor counted.
        segmentation: Polygons or a run-length code as in COCO; None without masks.
    """

    id: int | str
    class_label: int
    box: tuple[float, float, float, float]
    area: float
    iscrowd: bool
    segmentation: Any


class ImageRecord(NamedTuple):
    """One image: its id, its file's path or its row in a table, its size upright, and what is on it."""

    image_id: int
    file: str | int
    height: int
    width: int
    objects: list[ObjectRecord]


class PackedRecords(Sequence):
    """
    Records in one array of bytes.

    A million Python objects would be copied into every worker process bit by bit, as their reference counts change.
    """

    def __init__(self, records: Iterable[ImageRecord]):
        packed = [json.dumps(record, default=as_plain, separators=(",", ":")).encode() for record in records]
        self._ends = np.cumsum([0, *map(len, packed)])
        self._bytes = np.frombuffer(b"".join(packed), dtype=np.uint8)

    def __len__(self) -> int:
        return len(self._ends) - 1

    def __getitem__(self, index: int) -> ImageRecord:
        if not 0 <= index < len(self):
            raise IndexError(f"record {index} of {len(self)}")
        *fields, objects = json.loads(self._bytes[self._ends[index] : self._ends[index + 1]].tobytes())
        return ImageRecord(*fields, [ObjectRecord(*values)._replace(box=tuple(values[2])) for values in objects])


def as_plain(value: Any) -> Any:
    """A part of a segmentation as JSON has it: tables hold run-length codes as bytes, and numbers as arrays."""
    if isinstance(value, bytes):
        return value.decode("ascii")
    if isinstance(value, (np.ndarray, np.generic)):
        return value.tolist()
    raise TypeError(f"a {type(value).__name__} in an annotation; expected are numbers, texts and lists of them")


def decide_masks(with_masks: bool | None, annotations: Iterable[dict[str, Any]]) -> bool:
    """Whether masks are read: as given, or if any annotation has one."""
    if with_masks is not None:
        return with_masks
    return any(map(has_segmentation, annotations))


def reason_against(
    annotation: dict[str, Any], labels: Mapping[Any, int], height: int, width: int, with_masks: bool
) -> str | None:
    """
    What is wrong with a COCO annotation of an image, or None.

    Args:
        labels: The class index of each category id.
        height, width: Of the image in pixels.
        with_masks: Whether it must have a segmentation.
    """
    category = annotation.get("category_id")
    if not isinstance(category, (int, str)) or category not in labels:
        return f"its category {category!r} is not among the data set's categories"
    if with_masks and not has_segmentation(annotation):
        return "it has no segmentation, while masks are read"
    # Of tables categories may be strings; where masks are not read, segmentations may be anything.
    read = {key: value for key, value in annotation.items() if with_masks or key != "segmentation"}
    return check_annotation(read | {"category_id": labels[category]}, height, width)


def object_record(
    annotation: dict[str, Any], labels: Mapping[Any, int], height: int, width: int, with_masks: bool
) -> ObjectRecord:
    """The record of an annotation that `reason_against` has nothing against; its box is cut at the image's edges."""
    left, top, box_width, box_height = map(float, annotation["bbox"])
    right, bottom = min(left + box_width, width), min(top + box_height, height)
    left, top = max(left, 0.0), max(top, 0.0)
    area = annotation.get("area")
    return ObjectRecord(
        id=annotation["id"],
        class_label=labels[annotation["category_id"]],
        box=(left, top, right, bottom),
        area=(right - left) * (bottom - top) if area is None else float(area),
        iscrowd=bool(annotation.get("iscrowd")),
        segmentation=annotation["segmentation"] if with_masks else None,
    )
