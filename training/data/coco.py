# Copyright 2026 The modeling_pixelvit team. All rights reserved.
# SPDX-License-Identifier: Apache-2.0
"""
Images with annotated objects: COCO files beside folders of images, and tables that the `datasets` library reads.

All annotations are checked when a data set is loaded; images are decoded, and masks drawn, one at a time.
"""

import json
import os
from collections.abc import Callable, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import datasets
import numpy as np
import torch
from PIL import Image

from modeling_pixelvit.image_masks import annotation_mask

from .dense import InvalidEntries, UnusableExample, load_tables
from .labelled import read_image
from .records import ImageRecord, PackedRecords, decide_masks, object_record, reason_against
from .splits import Splits, choose_splits, held_out
from .tables import ObjectTable, table_class_names


ROBOFLOW_FILE = "_annotations.coco.json"
INSTANCES = "instances_"
NEEDED_OF_IMAGE = ("id", "file_name", "height", "width")
ID_TYPES = (int, float, str)
FileChecker = Callable[[str], bool]


class Categories(NamedTuple):
    """The categories in the order of their ids, so that the class index of `ids[k]` and of `names[k]` is k."""

    ids: list[Any]
    names: list[str]

    @property
    def labels(self) -> dict[Any, int]:
        """The class index of each category id."""
        return {category: index for index, category in enumerate(self.ids)}


class CocoDetection(torch.utils.data.Dataset):
    """
    Images by their index, as (PIL image in mode RGB, target) with a target of

    - `image_id`: int
    - `class_labels`: class indices (n,), int64
    - `boxes`: left, top, right and bottom edges in pixels (n, 4), float32
    - `masks`: bool (n, height, width), if the data set has masks
    - `area`: square pixels (n,), float32
    - `iscrowd`: 1 for a region of many objects, else 0 (n,), int64

    Args:
        name: The file or split, for messages.
        records: The images.
        categories: Of the objects.
        has_masks: Whether targets have masks.
        table: Has the images in its column `image`, undecoded; None if they are files.
        indices: The records to give, in this order; all of them if not given.

    Raises:
        UnreadableImage: by `[index]`, for an image that cannot be decoded; and as `UnusableExample`, for one of
            another size than annotated.
    """

    def __init__(
        self,
        name: str,
        records: PackedRecords,
        categories: Categories,
        has_masks: bool,
        table: datasets.Dataset | None = None,
        indices: Sequence[int] | None = None,
    ):
        self.name, self.categories, self.has_masks = name, categories, has_masks
        self._records, self._table = records, table
        self._indices = np.arange(len(records)) if indices is None else np.asarray(indices, dtype=np.int64)

    def __len__(self) -> int:
        return len(self._indices)

    @property
    def label_names(self) -> list[str]:
        """The name of each class."""
        return list(self.categories.names)

    def record(self, index: int) -> ImageRecord:
        """What the annotations say of an image; nothing is decoded."""
        if not 0 <= index < len(self):
            raise IndexError(f"image {index} of {len(self)}")
        return self._records[int(self._indices[index])]

    def select(self, indices: Sequence[int]) -> "CocoDetection":
        """The data set of these images."""
        return CocoDetection(
            self.name, self._records, self.categories, self.has_masks, self._table, self._indices[list(indices)]
        )

    def __getitem__(self, index: int) -> tuple[Image.Image, dict[str, Any]]:
        record = self.record(index)
        if self._table is None:
            name, file = record.file, {"bytes": None, "path": record.file}
        else:
            name, file = f"{self.name}[{record.file}]", self._table[record.file]["image"]
        image = read_image(file, name)
        if image.size != (record.width, record.height):
            raise UnusableExample(
                name,
                f"its annotations are for {record.height} x {record.width} pixels, but upright it has "
                f"{image.height} x {image.width}",
            )
        return image, self._target(record)

    def _target(self, record: ImageRecord) -> dict[str, Any]:
        objects = record.objects
        target = {
            "image_id": record.image_id,
            "class_labels": torch.tensor([entry.class_label for entry in objects], dtype=torch.int64),
            "boxes": torch.tensor([entry.box for entry in objects], dtype=torch.float32).reshape(-1, 4),
            "area": torch.tensor([entry.area for entry in objects], dtype=torch.float32),
            "iscrowd": torch.tensor([entry.iscrowd for entry in objects], dtype=torch.int64),
        }
        if self.has_masks:
            masks = np.zeros((len(objects), record.height, record.width), dtype=bool)
            for mask, entry in zip(masks, objects, strict=True):
                mask[:] = annotation_mask(entry.segmentation, record.height, record.width)
            target["masks"] = torch.from_numpy(masks)
        return target


def load_detection_splits(
    source: str | os.PathLike,
    *,
    on_invalid: str = "refuse",
    with_masks: bool | None = None,
    train_split: str | None = None,
    eval_split: str | None = None,
    image_column: str | None = None,
    objects_column: str | None = None,
    box_format: str = "xywh",
) -> Splits:
    """
    Finds training and evaluation images with annotated objects. No image is decoded.

    Args:
        source: A folder with `annotations/instances_<split>.json` (or `annotations/<split>.json`) and the images in
            `<split>` or `images/<split>`; a folder with `<split>/_annotations.coco.json` beside the images; a folder
            of parquet files; a folder of images with `metadata.jsonl`; or the name of a data set on the hub. Tables
            have a column of images and one of `objects` with `bbox` and `category`, and optionally `id`, `area`,
            `iscrowd` and `segmentation`.
        on_invalid: "refuse" an annotation that cannot be right, or "skip" it, which leaves its object unlabelled.
        with_masks: Whether every object must have a mask; found out if not given.
        train_split, eval_split: Names of splits; see `choose_splits`. Without an evaluation split a fifth of the
            training images is held out.
        image_column, objects_column: Of a table; `image` and `objects` if not given.
        box_format: Of a table's boxes: "xywh" (left, top, width, height), as COCO's own files have them, or "xyxy" (the
            four edges), in pixels.

    Raises:
        ValueError: if there is no such data, or it is invalid and to be refused.
    """
    source = os.fspath(source)
    files = coco_files(Path(source))
    tables = {} if files else load_tables(source)
    train_name, eval_name = choose_splits(files or tables, source, train_split, eval_split)
    if files:
        if box_format != "xywh":
            raise ValueError(
                f"--box_format {box_format} was given, but {source} has COCO annotations, whose boxes are xywh; "
                "leave it out."
            )
        train = load_coco(*files[train_name], on_invalid, with_masks)
        evaluation = eval_name and load_coco(*files[eval_name], on_invalid, train.has_masks, train.categories)
    else:
        table = ObjectTable(source, image_column, objects_column, box_format, on_invalid)
        names = table_class_names(table, tables[train_name])
        train = _from_table(table, tables[train_name], train_name, names, with_masks)
        evaluation = eval_name and _from_table(table, tables[eval_name], eval_name, names, train.has_masks)
    if evaluation is None:
        train, evaluation = held_out(train, source)
    for split in (train, evaluation):
        if len(split) == 0:
            raise ValueError(f"{split.name} has no usable image; give one with images.")
    return Splits(
        name=source,
        label_names=train.label_names,
        train=train,
        evaluation=evaluation,
    )


def coco_files(folder: Path) -> dict[str, tuple[Path, Path]]:
    """The annotation file and the image folder of each split in a folder; nothing for another layout."""
    beside = {file.parent.name: (file, file.parent) for file in sorted(folder.glob(f"*/{ROBOFLOW_FILE}"))}
    if beside:
        return beside
    files = sorted(folder.glob("annotations/*.json"))
    instances = [file for file in files if file.name.startswith(INSTANCES)]
    found = {file.stem.removeprefix(INSTANCES): file for file in instances or files}
    return {split: (file, _image_folder(folder, split)) for split, file in found.items()}


def _image_folder(folder: Path, split: str) -> Path:
    in_images = folder / "images" / split
    return in_images if in_images.is_dir() else folder / split


def load_coco(
    annotations: str | os.PathLike,
    images: str | os.PathLike,
    on_invalid: str = "refuse",
    with_masks: bool | None = None,
    categories: Categories | None = None,
) -> CocoDetection:
    """
    Reads a COCO annotation file and checks every entry of it. No image is decoded.

    Args:
        annotations: The json file, with `images`, `annotations` and `categories`.
        images: The folder that its file names start from.
        on_invalid: "refuse" an entry that cannot be right, or "skip" it: an image that is not there or has no size or
            an id of another one; an annotation of an unknown image or category, or with a box or mask that is empty or
            not on the image.
        with_masks: Whether masks are read and every annotation must have one; if not given, whether any has one.
        categories: Of the training images, for a file of evaluation images; the file's own if not given.

    Raises:
        ValueError: if there is no such file or folder, if it is not in COCO's form, or if entries are invalid and to be
            refused.
    """
    annotations, images = Path(annotations), Path(images)
    content = _read_coco(annotations)
    if not images.is_dir():
        raise ValueError(f"{annotations} was given with the image folder {images}, which does not exist; correct it.")
    own = _categories(content["categories"], annotations)
    if categories is None:
        categories = own
    elif unknown := set(zip(*own, strict=True)) - set(zip(*categories, strict=True)):
        raise ValueError(
            f"{annotations} has the category {min(unknown, key=str)}, which the training annotations do not have; give "
            "both the same ids and names."
        )
    invalid = InvalidEntries(str(annotations), on_invalid)
    known = _image_records(content["images"], images, invalid)
    has_masks = decide_masks(with_masks, content["annotations"])
    _add_objects(known, content["annotations"], categories.labels, has_masks, invalid)
    invalid.settle()
    records = PackedRecords(record for record in known.values() if record is not None)
    return CocoDetection(str(annotations), records, categories, has_masks)


def _read_coco(file: Path) -> dict[str, list[dict[str, Any]]]:
    try:
        content = json.loads(file.read_bytes())
    except (OSError, ValueError) as error:
        raise ValueError(f"{file} cannot be read ({error}); give a COCO annotation file.") from error
    keys = ("images", "annotations", "categories")
    missing = [key for key in keys if not isinstance(content, dict) or not isinstance(content.get(key), list)]
    if missing:
        raise ValueError(f"{file} has no list of {missing[0]}; give a COCO annotation file with {', '.join(keys)}.")
    if wrong := [(key, entry) for key in keys for entry in content[key] if not isinstance(entry, dict)]:
        raise ValueError(f"{file} has {wrong[0][1]!r} among its {wrong[0][0]}; give objects with named values.")
    return content


def _categories(entries: list[dict[str, Any]], file: Path) -> Categories:
    ids = [entry.get("id") for entry in entries]
    alike = any(all(isinstance(one, types) for one in ids) for types in ((int, float), str))  # so they have an order
    if not ids or not alike or len(set(ids)) < len(ids):
        raise ValueError(
            f"{file} has the category ids {ids}; give at least one category, each with an id of its own, all of them "
            "numbers or all of them texts."
        )
    names = {entry["id"]: str(entry.get("name", entry["id"])) for entry in entries}
    ids = sorted(ids)
    return Categories(ids, [names[category] for category in ids])


def _image_records(
    images: list[dict[str, Any]], folder: Path, invalid: InvalidEntries
) -> dict[Any, ImageRecord | None]:
    """The images by their id, without objects; None for an invalid one, whose annotations go with it."""
    is_there = _file_checker()
    records: dict[Any, ImageRecord | None] = {}
    for place, image in enumerate(images):
        reason = _reason_against_image(image, folder, is_there)
        if reason is None and image["id"] in records:
            invalid.add(f"image {image['id']} ({image['file_name']})", "another image has its id")
        elif reason is None:
            file, size = str(folder / image["file_name"]), (image["height"], image["width"])
            records[image["id"]] = ImageRecord(image["id"], file, *size, [])
        else:
            invalid.add(f"image {image.get('id', f'at place {place}')}", reason)
            if isinstance(image.get("id"), ID_TYPES):
                records.setdefault(image["id"], None)
    return records


def _reason_against_image(image: dict[str, Any], folder: Path, is_there: FileChecker) -> str | None:
    if missing := [key for key in NEEDED_OF_IMAGE if image.get(key) is None]:
        return f"it has no {missing[0]}"
    if not isinstance(image["id"], ID_TYPES):
        return "its id is neither a number nor a text"
    if not all(isinstance(image[side], int) and image[side] > 0 for side in ("height", "width")):
        return f"its size is {image['height']!r} x {image['width']!r}"
    if not isinstance(image["file_name"], str) or not is_there(str(folder / image["file_name"])):
        return f"its file {image['file_name']!r} is not in {folder}"
    return None


def _file_checker() -> FileChecker:
    """Whether a file exists, by one listing of its folder: asking for each is slow on a file system of a network."""

    @cache
    def names_in(folder: str) -> frozenset[str]:
        return frozenset(os.listdir(folder)) if os.path.isdir(folder) else frozenset()

    return lambda file: os.path.basename(file) in names_in(os.path.dirname(file))


def _add_objects(
    records: dict[Any, ImageRecord | None],
    annotations: list[dict[str, Any]],
    labels: Mapping[Any, int],
    has_masks: bool,
    invalid: InvalidEntries,
):
    for place, annotation in enumerate(annotations):
        annotation = {"id": f"at place {place}", **annotation}
        image_id = annotation.get("image_id")
        if not isinstance(image_id, ID_TYPES) or image_id not in records:
            invalid.add(f"annotation {annotation['id']}", f"its image {image_id!r} is not among the images")
        elif (record := records[image_id]) is not None:
            reason = reason_against(annotation, labels, record.height, record.width, has_masks)
            if reason is not None:
                invalid.add(f"annotation {annotation['id']} of {record.file}", reason)
            else:
                record.objects.append(object_record(annotation, labels, record.height, record.width, has_masks))


def _from_table(
    table: ObjectTable, split: datasets.Dataset, split_name: str, names: list[Any], with_masks: bool | None
) -> CocoDetection:
    categories = Categories(list(range(len(names))), [str(name) for name in names])
    records, has_masks = table.records(split, split_name, names, with_masks)
    images = table.images(split)
    return CocoDetection(f"{table.source} {split_name}", PackedRecords(records), categories, has_masks, images)
