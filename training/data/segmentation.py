# Copyright 2026 The modeling_pixelvit team. All rights reserved.
# SPDX-License-Identifier: Apache-2.0
"""
Images with a class for every pixel: folders of images and of masks, as ADE20k has them, and tables that the `datasets`
library reads.
"""

import json
import os
from collections.abc import Sequence
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import torch
from PIL import Image

from modeling_pixelvit.image_annotations import read_segmentation_map, reduced_labels

from .classes import given_names
from .dense import (
    IMAGE_COLUMNS,
    InvalidEntries,
    UnusableExample,
    check_on_invalid,
    find_column,
    load_tables,
    undecoded,
)
from .labelled import read_image
from .splits import Splits, choose_splits, held_out
from .unreadable import UnreadableImage, UnusableData


IGNORED_LABEL = 255
MASK_FOLDERS = ("annotations", "masks")
MASK_COLUMNS = ("annotation", "mask", "label", "labels", "segmentation_mask")
NAME_FILES = ("classes.txt", "id2label.json", "objectInfo150.txt")
File = dict[str, Any]


@dataclass(frozen=True)
class MaskRules:
    """
    What the values of masks mean, and what happens to one that breaks the rule.

    Args:
        num_labels: Classes, at most 255.
        reduce_labels: Values count the classes from 1, and 0 is no class.
        on_invalid: "refuse" raises ValueError for a bad mask, "skip" `UnusableExample`, which a training passes over.

    Raises:
        ValueError: for another number or word.
    """

    num_labels: int
    reduce_labels: bool = False
    on_invalid: str = "refuse"

    def __post_init__(self):
        check_on_invalid(self.on_invalid)
        if not 1 <= self.num_labels <= IGNORED_LABEL:
            raise ValueError(
                f"num_labels={self.num_labels} was given; masks of 1 to {IGNORED_LABEL} classes can be read, as "
                f"{IGNORED_LABEL} is no class."
            )

    def class_map(self, mask: Any, name: str, size: tuple[int, int]) -> np.ndarray:
        """
        Class indices of an image's pixels as uint8 (height, width), 255 where there is no class.

        Args:
            mask: A PIL image with one band of class indices; of a palette image the indices count.
            size: Height and width of the image.
        """
        try:
            values = read_segmentation_map(mask, "the mask")
        except ValueError as error:
            raise self._bad(name, str(error)) from error
        if values.shape != size:
            heights = f"{values.shape[0]} x {values.shape[1]} pixels, but its image {size[0]} x {size[1]}"
            raise self._bad(name, f"the mask has {heights} (height x width)")
        labels = reduced_labels(values) if self.reduce_labels else values
        wrong = (labels >= self.num_labels) & (labels != IGNORED_LABEL)
        if wrong.any():
            least = int(self.reduce_labels)
            raise self._bad(
                name,
                f"the mask has the value {values[wrong].max()}, but {least} to {self.num_labels - 1 + least} are "
                f"classes with reduce_labels={self.reduce_labels}",
            )
        return labels.astype(np.uint8)

    def _bad(self, name: str, reason: str) -> ValueError:
        if self.on_invalid == "skip":
            return UnusableExample(name, reason)
        return UnusableData(f"{name} cannot be used ({reason}); correct it, or leave it out by --on_invalid skip.")


class SegmentationImages(torch.utils.data.Dataset):
    """
    Images by their index, as (PIL image in mode RGB, class map).

    A class map is a NumPy array of uint8 (height, width) with class indices and 255 for no class.

    Args:
        pairs: Rows with the columns `image` and `mask`, both as mappings of `bytes` and `path`.
        rules: What the values of the masks mean.
        name: The split, for messages.

    Raises:
        UnreadableImage: by `[index]`, for an image or a mask that cannot be decoded; and, as `MaskRules` says,
            `UnusableExample` or ValueError for a mask of another size than its image or with values that are no class.
    """

    def __init__(self, pairs: datasets.Dataset, rules: MaskRules, name: str):
        self.pairs, self.rules, self.name = pairs, rules, name

    def __len__(self) -> int:
        return len(self.pairs)

    def __getitem__(self, index: int) -> tuple[Image.Image, np.ndarray]:
        row = self.pairs[index]
        image = read_image(row["image"], f"{self.name}[{index}]")
        name = self._mask_name(row["mask"], index)
        return image, self.rules.class_map(_read_mask(row["mask"], name), name, (image.height, image.width))

    def select(self, indices: Sequence[int]) -> "SegmentationImages":
        """The data set of these images."""
        return SegmentationImages(self.pairs.select(indices), self.rules, self.name)

    def _mask_name(self, file: File, index: int) -> str:
        return file["path"] if file["bytes"] is None else f"the mask of {self.name}[{index}]"


def load_segmentation_splits(
    source: str | os.PathLike,
    *,
    on_invalid: str = "refuse",
    reduce_labels: bool = False,
    label_names: Sequence[str] | int | None = None,
    train_split: str | None = None,
    eval_split: str | None = None,
    image_column: str | None = None,
    mask_column: str | None = None,
) -> Splits:
    """
    Finds training and evaluation images with their masks. Nothing is decoded.

    Args:
        source: A folder with images in `images/<split>` and masks of the same names, but for their endings, in
            `annotations/<split>` or `masks/<split>`, as ADE20k with the splits `training` and `validation`; a folder
            of parquet files; a folder of images with `metadata.jsonl`; or the name of a data set on the hub.
        on_invalid: "refuse" what cannot be right, or "skip" it: an image without mask or a mask without image, found
            here; a mask of another size than its image or with a value that is no class, found when it is read.
        reduce_labels: The masks count classes from 1 and 0 is no class, as in ADE20k.
        label_names: Names of the classes, or their number. If not given, they are read from the folder's
            `classes.txt` (a name each line), `id2label.json` or `objectInfo150.txt`.
        train_split, eval_split: Names of splits; see `choose_splits`. Without an evaluation split a fifth of the
            training images is held out.
        image_column, mask_column: Of a table; found by their usual names if not given.

    Raises:
        ValueError: if there is no such data, if the classes are not known, or if images and masks do not pair and this
            is to be refused.
    """
    source = os.fspath(source)
    check_on_invalid(on_invalid)
    names = _label_names(label_names, Path(source), source)
    rules = MaskRules(len(names), reduce_labels, on_invalid)
    folders = mask_folders(Path(source))
    tables = {} if folders else load_tables(source)
    train_name, eval_name = choose_splits(folders or tables, source, train_split, eval_split)

    def load(split: str) -> SegmentationImages:
        if folders:
            pairs = _paired_files(*folders[split], on_invalid)
        else:
            pairs = _paired_columns(tables[split], source, image_column, mask_column)
        return SegmentationImages(pairs, rules, f"{source} {split}")

    train = load(train_name)
    if eval_name is None:
        train, evaluation = held_out(train, source)
    else:
        evaluation = load(eval_name)
    return Splits(
        name=source,
        label_names=names,
        train=train,
        evaluation=evaluation,
    )


def mask_folders(folder: Path) -> dict[str, tuple[Path, Path]]:
    """The image folder and the mask folder of each split that has both; nothing for another layout."""
    found = {}
    for images in sorted(path for path in folder.glob("images/*") if path.is_dir()):
        for masks in (folder / name / images.name for name in MASK_FOLDERS):
            if masks.is_dir():
                found[images.name] = (images, masks)
                break
    return found


def _paired_files(images: Path, masks: Path, on_invalid: str) -> datasets.Dataset:
    invalid = InvalidEntries(str(images), on_invalid)
    image_files, mask_files = _files_by_stem(images, invalid), _files_by_stem(masks, invalid)
    for stem in sorted(image_files.keys() - mask_files.keys()):
        invalid.add(image_files[stem], f"it has no mask in {masks}")
    for stem in sorted(mask_files.keys() - image_files.keys()):
        invalid.add(mask_files[stem], f"it is the mask of no image in {images}")
    invalid.settle()
    stems = sorted(image_files.keys() & mask_files.keys())
    if not stems:
        raise ValueError(f"{images} has no image with a mask in {masks}; give both the same names but for the ending.")
    columns = {
        name: [{"bytes": None, "path": files[stem]} for stem in stems]
        for name, files in (("image", image_files), ("mask", mask_files))
    }
    feature = datasets.Image(decode=False)
    return datasets.Dataset.from_dict(columns, features=datasets.Features({"image": feature, "mask": feature}))


def _files_by_stem(folder: Path, invalid: InvalidEntries) -> dict[str, str]:
    """Images by their path in the folder without its ending, those in subfolders included."""
    endings, files = Image.registered_extensions(), {}
    for path in sorted(folder.rglob("*")):
        if path.suffix.lower() in endings and not path.name.startswith("."):
            stem = path.relative_to(folder).with_suffix("").as_posix()
            if stem in files:
                invalid.add(str(path), f"{files[stem]} has the same name but for the ending")
            else:
                files[stem] = str(path)
    return files


def _paired_columns(
    split: datasets.Dataset, source: str, image_column: str | None, mask_column: str | None
) -> datasets.Dataset:
    image_column = find_column(split, source, image_column, IMAGE_COLUMNS, "image_column", "images")
    mask_column = find_column(split, source, mask_column, MASK_COLUMNS, "mask_column", "masks")
    pairs = undecoded(undecoded(split.select_columns([image_column, mask_column]), image_column), mask_column)
    names = {image_column: "image", mask_column: "mask"}
    return pairs.rename_columns({old: new for old, new in names.items() if old != new})


def _read_mask(file: File, name: str) -> Image.Image:
    """The mask as stored, with its palette if it has one."""
    try:
        with Image.open(file["path"] if file["bytes"] is None else BytesIO(file["bytes"])) as mask:
            mask.load()
            return mask
    except MemoryError:
        raise
    except Exception as error:  # Pillow's decoders raise many types for damaged files
        raise UnreadableImage(name, " ".join(str(error).split())) from error


def _label_names(given: Sequence[str] | int | None, folder: Path, source: str) -> list[str]:
    if given is not None:
        return given_names(given)
    for file in (folder / name for name in NAME_FILES):
        if file.is_file():
            return _names_in(file)
    raise ValueError(
        f"The classes of {source} are not known; put a classes.txt with a name in each line into its folder, "
        "or give their number by --num_labels."
    )


def _names_in(file: Path) -> list[str]:
    """
    The classes' names by a file.

    Raises:
        ValueError: if it is not in its form.
    """
    text = file.read_text(encoding="utf-8")
    try:
        if file.suffix == ".json":
            names = {int(index): str(name) for index, name in json.loads(text).items()}
            return [names[index] for index in range(len(names))]
        lines = [line for line in text.splitlines() if line.strip()]
        if file.name == "classes.txt":
            return [line.strip() for line in lines]
        # A head line, then a class each: its number from 1, the share of its pixels, two counts, and its names.
        return [line.split("\t")[-1].split(",")[0].strip() for line in lines[1:]]
    except (AttributeError, KeyError, ValueError) as error:
        raise ValueError(f"{file} does not name the classes 0, 1, and so on ({error!r}); correct it.") from error
