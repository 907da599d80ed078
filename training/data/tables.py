# Copyright 2026 The modeling_pixelvit team. All rights reserved.
# SPDX-License-Identifier: Apache-2.0
"""Tables with a column of images and one of their objects, as detection data sets of the hub have them."""

from collections.abc import Sequence
from typing import Any

import datasets

from modeling_pixelvit.image_masks import finite_numbers

from .classes import classes_of, index_by_label
from .dense import IMAGE_COLUMNS, InvalidEntries, find_column, header_size, undecoded
from .records import ImageRecord, decide_masks, object_record, reason_against
from .unreadable import UnreadableImage


OBJECT_COLUMNS = ("objects", "annotations")
CATEGORY_KEYS = ("category", "category_id", "label", "labels")
BOX_FORMATS = ("xywh", "xyxy")  # left, top, width, height, as in COCO; left, top, right, bottom; in pixels
COPIED_KEYS = ("id", "area", "iscrowd", "segmentation")


class ObjectTable:
    """
    How the tables of a source are read.

    Args:
        source: For messages.
        image_column, objects_column: Found by their usual names if not given.
        box_format: One of `BOX_FORMATS`.
        on_invalid: "refuse" or "skip".

    Raises:
        ValueError: for another box format.
    """

    def __init__(
        self, source: str, image_column: str | None, objects_column: str | None, box_format: str, on_invalid: str
    ):
        if box_format not in BOX_FORMATS:
            raise ValueError(f"box_format={box_format!r} was given; give one of {', '.join(BOX_FORMATS)}.")
        self.source, self.box_format, self.on_invalid = source, box_format, on_invalid
        self._image_column, self._objects_column = image_column, objects_column

    def image_column(self, split: datasets.Dataset) -> str:
        """Raises ValueError if there is none."""
        return find_column(split, self.source, self._image_column, IMAGE_COLUMNS, "image_column", "images")

    def objects_column(self, split: datasets.Dataset) -> str:
        """Raises ValueError if there is none."""
        return find_column(split, self.source, self._objects_column, OBJECT_COLUMNS, "objects_column", "objects")

    def images(self, split: datasets.Dataset) -> datasets.Dataset:
        """The images alone, undecoded, in the column `image`."""
        column = self.image_column(split)
        split = undecoded(split.select_columns(column), column)
        return split if column == "image" else split.rename_column(column, "image")

    def records(
        self, split: datasets.Dataset, split_name: str, names: Sequence[Any], with_masks: bool | None
    ) -> tuple[list[ImageRecord], bool]:
        """
        Checks the objects of all images.

        Args:
            names: Of the classes, as `table_class_names` gives them.
            with_masks: Whether every object must have a mask; if not given, whether any has one.

        Returns:
            The images' records, without those whose size cannot be found out, and whether objects have masks.

        Raises:
            ValueError: if an entry is invalid and to be refused.
        """
        invalid = InvalidEntries(f"{self.source} {split_name}", self.on_invalid)
        labels = index_by_label(names)
        rows = [self._annotations(row, place) for place, row in enumerate(self._without_images(split))]
        has_masks = decide_masks(with_masks, (annotation for annotations, _ in rows for annotation in annotations))
        images, records = self.images(split), []
        for place, (annotations, row) in enumerate(rows):
            name = f"{split_name}[{place}]"
            try:
                height, width = _size(row) or header_size(images[place]["image"], name)
            except UnreadableImage as error:
                invalid.add(name, error.reason)
                continue
            image_id = row.get("image_id", place)
            record = ImageRecord(image_id if isinstance(image_id, int) else place, place, height, width, [])
            for annotation in annotations:
                reason = reason_against(annotation, labels, height, width, has_masks)
                if reason is not None:
                    by_edges = {**annotation, "bbox": _from_edges(annotation["bbox"])}
                    is_right_by_edges = reason_against(by_edges, labels, height, width, has_masks) is None
                    if self.box_format != "xyxy" and is_right_by_edges:
                        reason += "; as left, top, right, bottom, by --box_format xyxy, it would be right"
                    invalid.add(f"annotation {annotation['id']} of {name}", reason)
                else:
                    record.objects.append(object_record(annotation, labels, height, width, has_masks))
            records.append(record)
        invalid.settle()
        return records, has_masks

    def _without_images(self, split: datasets.Dataset) -> datasets.Dataset:
        wanted = [self.objects_column(split), "image_id", "height", "width"]
        return split.select_columns([name for name in wanted if name in split.column_names])

    def _annotations(self, row: dict[str, Any], place: int) -> tuple[list[dict[str, Any]], dict[str, Any]]:
        """The objects of a row in COCO's words, and what else is in the row."""
        column = self._objects_column or next(name for name in OBJECT_COLUMNS if name in row)
        annotations = []
        for number, entry in enumerate(_entries(row[column])):
            annotation = {"id": f"{place}.{number}"}
            annotation |= {key: entry[key] for key in COPIED_KEYS if entry.get(key) is not None}
            annotation["category_id"] = next((entry[key] for key in CATEGORY_KEYS if key in entry), None)
            box = entry.get("bbox")
            annotation["bbox"] = _from_edges(box) if self.box_format == "xyxy" else box
            annotations.append(annotation)
        return annotations, {key: value for key, value in row.items() if key != column}


def _from_edges(box: Any) -> Any:
    """(left, top, right, bottom) to COCO's (left, top, width, height); anything else as it is."""
    numbers = finite_numbers(box)
    if numbers is None or len(numbers) != 4:
        return box
    left, top, right, bottom = numbers.tolist()
    return [left, top, right - left, bottom - top]


def table_class_names(table: ObjectTable, split: datasets.Dataset) -> list[Any]:
    """
    The classes of the objects: declared ones, or strings in their order, or as many integers as there are.

    Raises:
        ValueError: if there are no objects, or their categories are neither strings nor integers from 0 on.
    """
    column = table.objects_column(split)
    feature = _unwrapped(split.features[column])
    if isinstance(feature, dict):
        for key in CATEGORY_KEYS:
            declared = _unwrapped(feature.get(key))
            if isinstance(declared, datasets.ClassLabel):
                return list(declared.names)
    entries = [entry for objects in split[column] for entry in _entries(objects)]
    categories = {entry[key] for entry in entries for key in CATEGORY_KEYS if key in entry}
    return classes_of(categories, f"The field `category` of the objects of {table.source}")


def _entries(objects: Any) -> list[dict[str, Any]]:
    """Objects as a list of mappings, whether they are stored so or as a mapping of lists."""
    if not isinstance(objects, dict):
        return list(objects or [])
    count = max((len(values) for values in objects.values() if values is not None), default=0)
    lists = {key: values for key, values in objects.items() if values is not None and len(values) == count}
    return [{key: values[place] for key, values in lists.items()} for place in range(count)]


def _unwrapped(feature: Any) -> Any:
    """What the elements of a list are."""
    return getattr(feature, "feature", feature)


def _size(row: dict[str, Any]) -> tuple[int, int] | None:
    height, width = row.get("height"), row.get("width")
    return (height, width) if isinstance(height, int) and isinstance(width, int) else None
