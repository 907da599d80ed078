# Copyright 2026 The modeling_pixelvit team. All rights reserved.
# SPDX-License-Identifier: Apache-2.0
"""
What the data of segmentation and of detection have in common: tables that the `datasets` library reads, and what
happens to an annotation that cannot be right.
"""

import logging
import os
from collections.abc import Iterable
from io import BytesIO
from pathlib import Path
from typing import Any

import datasets
from PIL import ExifTags, Image

from .folders import split_patterns
from .unreadable import UnreadableImage


logger = logging.getLogger(__name__)

ON_INVALID = ("refuse", "skip")
ENTRIES_SHOWN = 5
IMAGE_COLUMNS = ("image", "img", "pixel_values")
TABLE_ENDINGS = {".parquet": "parquet", ".jsonl": "imagefolder"}  # a metadata.jsonl lies beside its images
SIDEWAYS = (5, 6, 7, 8)  # EXIF orientations that exchange height and width


class UnusableExample(UnreadableImage):
    """An image that can be decoded but does not fit its annotation; a training passes it over like an unreadable."""

    def __str__(self) -> str:
        return f"{self.name} cannot be used ({self.reason}); correct it or leave it out."


def check_on_invalid(on_invalid: str):
    """Raises ValueError for anything but "refuse" and "skip"."""
    if on_invalid not in ON_INVALID:
        raise ValueError(f"on_invalid={on_invalid!r} was given; give 'refuse' or 'skip'.")


class InvalidEntries:
    """
    Files and annotations of a data set that cannot be right: all are looked for, then refused or left out.

    Args:
        source: The file or data set, for messages.
        on_invalid: "refuse" or "skip".

    Raises:
        ValueError: for another `on_invalid`.
    """

    def __init__(self, source: str, on_invalid: str):
        check_on_invalid(on_invalid)
        self.source, self.on_invalid = source, on_invalid
        self.entries: list[str] = []

    def __len__(self) -> int:
        return len(self.entries)

    def add(self, name: str, reason: str):
        self.entries.append(f"{name}: {reason}")

    def settle(self):
        """
        Logs what is left out.

        Raises:
            ValueError: if there is anything and it is to be refused.
        """
        if not self.entries:
            return
        shown = "; ".join(self.entries[:ENTRIES_SHOWN])
        more = f"; and {len(self) - ENTRIES_SHOWN} more" if len(self) > ENTRIES_SHOWN else ""
        if self.on_invalid == "refuse":
            raise ValueError(
                f"{self.source} has {len(self)} invalid entries ({shown}{more}); correct them, or leave them out by "
                "--on_invalid skip."
            )
        logger.warning("%s: %d invalid entries are left out (%s%s).", self.source, len(self), shown, more)


def load_tables(source: str) -> dict[str, datasets.Dataset]:
    """
    The splits of a folder of parquet files, of a folder of images with `metadata.jsonl`, or of a hub data set.

    Raises:
        ValueError: if it is none of them.
    """
    try:
        if not os.path.isdir(source):
            return dict(datasets.load_dataset(source))
        builder = _table_builder(Path(source))
        if builder is None:
            raise FileNotFoundError("the folder has neither parquet files nor a metadata.jsonl")
        patterns = split_patterns(source) if builder == "imagefolder" else None
        return dict(datasets.load_dataset(builder, data_dir=source, data_files=patterns))
    except Exception as error:  # of many types: no such name, no connection, files that do not belong together
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise ValueError(
            f"{source} is no data set that could be loaded ({reason}); give a folder of images and annotations as the "
            "documentation shows, a folder of parquet files, or the hub's name of a data set."
        ) from error


def _table_builder(folder: Path) -> str | None:
    """The first table decides; a folder of images may be large, so it is not read to its end."""
    for _, _, files in os.walk(folder):
        for file in sorted(files):
            ending = os.path.splitext(file)[1]
            if ending == ".parquet" or file == "metadata.jsonl":
                return TABLE_ENDINGS[ending]
    return None


def find_column(
    split: datasets.Dataset, source: str, given: str | None, usual: Iterable[str], option: str, what: str
) -> str:
    """
    The name of a column: the given one, or the first usual one that is there.

    Args:
        option: The argument that names the column, for messages.
        what: What the column should hold, for messages.

    Raises:
        ValueError: if it does not exist.
    """
    columns = ", ".join(split.column_names)
    if given is not None:
        if given not in split.column_names:
            raise ValueError(f"{option}={given} was given, but {source} has the columns {columns}; choose from these.")
        return given
    for name in usual:
        if name in split.column_names:
            return name
    raise ValueError(f"{source} has the columns {columns}, none of them known to hold {what}; name it as {option}.")


def undecoded(split: datasets.Dataset, column: str) -> datasets.Dataset:
    """The split with the images of a column as mappings of `bytes` and `path`."""
    return split.cast_column(column, datasets.Image(decode=False))


def header_size(file: dict[str, Any], name: str) -> tuple[int, int]:
    """
    Height and width of an upright image by its header, from a mapping of `bytes` and `path`; nothing is decoded.

    Raises:
        UnreadableImage: if there is no readable header.
    """
    try:
        with Image.open(file["path"] if file["bytes"] is None else BytesIO(file["bytes"])) as image:
            width, height = image.size
            sideways = image.getexif().get(ExifTags.Base.Orientation) in SIDEWAYS
    except Exception as error:  # Pillow's readers raise many types for damaged files
        raise UnreadableImage(name, " ".join(str(error).split())) from error
    return (width, height) if sideways else (height, width)
