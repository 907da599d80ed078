# Copyright 2026 The modeling_pixelvit team. All rights reserved.
# SPDX-License-Identifier: Apache-2.0
"""
Which images of a folder belong to which split, by the names of the folders that the classes lie in.

The `datasets` library would guess it from all names, so that one file called `photo-3-test.png` or a class called
`train` makes it pass over all other images.
"""

import glob
import logging
import os
import re
from collections.abc import Iterable, Iterator, Mapping
from pathlib import PurePath

from datasets.packaged_modules.imagefolder.imagefolder import ImageFolder


logger = logging.getLogger(__name__)

# The names of splits that `datasets` knows: alone, or set off by punctuation or a number, as in "train2017".
SPLIT_WORDS = {
    "train": ("train", "training"),
    "validation": ("validation", "valid", "dev", "val"),
    "test": ("test", "testing", "eval", "evaluation"),
}
IMAGE_ENDINGS = frozenset(ImageFolder.EXTENSIONS)
METADATA_FILES = frozenset(ImageFolder.METADATA_FILENAMES)
NUMBERS = re.compile(r"\d+")


class FolderError(ValueError):
    """A folder of images whose classes cannot be told."""


def split_named(name: str) -> str | None:
    """The split ("train", "validation" or "test") that a folder's or a file's name tells, or None."""
    for split, words in SPLIT_WORDS.items():
        for word in words:
            if re.search(rf"(?:^|[-._ 0-9]){word}(?:[-._ 0-9]|$)", name):
                return split
    return None


def split_patterns(folder: str) -> dict[str, list[str]] | None:
    """
    The splits of a folder of images, as patterns of `datasets` for the files of each, relative to it.

    A split is told by the name of a folder above those of the classes, the outermost that has such a name; if there is
    none, by the names of the files, where all of them have one and it is not always the same. Otherwise all images are
    "train".

    Args:
        folder: Its images are files; what lies beside them does not matter.

    Returns:
        The patterns by "train", "validation" or "test"; None if `datasets` is to find them by itself, as for images in
        archives and for tables of images in folders with a split's name.

    Raises:
        FolderError: if there are images at several depths, or folders of one name that are not of one class.
    """
    images: list[PurePath] = []
    has_table = False
    for path in _files(folder):
        if path.suffix.lower() == ".zip" or (path.name in METADATA_FILES and _split_folder(path.parts[:-1])):
            return None
        has_table = has_table or path.name in METADATA_FILES
        if path.suffix.lower() in IMAGE_ENDINGS:
            images.append(path)
    if not images:
        return None
    # An image lies in the folder of its class; what is above may tell the split.
    tops = {parent: _split_folder(parent.parts[:-1]) for parent in {path.parent for path in images}}
    named = {top for top in tops.values() if top}
    outside = [path for path in images if not tops[path.parent]]
    if named and (not outside or "train" in {split_named(top.name) for top in named}):
        if outside:
            logger.warning(
                "%s: %d images outside of its folders %s are not used, such as %s.",
                *(folder, len(outside), ", ".join(sorted(map(str, named))), outside[0]),
            )
        _check_depths({parent: top for parent, top in tops.items() if top}, folder)
        patterns: dict[str, list[str]] = {split: [] for split in SPLIT_WORDS}
        for top in sorted(named):
            patterns[split_named(top.name)].append(f"{glob.escape(top.as_posix())}/**")
        return {split: found for split, found in patterns.items() if found}
    if not has_table:
        _check_depths(tops, folder)
    by_file = {split_named(path.name) for path in images}
    if None not in by_file and len(by_file) > 1 and not has_table and not any(split_named(top.name) for top in tops):
        return None  # since `datasets` finds these
    return {"train": ["**"]}


def files_by_split(files: Iterable[str]) -> dict[str, list[str]]:
    """Image files by their split, which the folder above that of the class tells, or else all are "train"."""
    splits: dict[str, list[str]] = {split: [] for split in SPLIT_WORDS}  # `datasets` learns the classes of the first
    for file in files:
        splits[split_named(PurePath(file).parent.parent.name) or "train"].append(file)
    return {split: found for split, found in splits.items() if found}


def _files(folder: str) -> Iterator[PurePath]:
    """Relative paths of the files that `datasets` would see, which passes over hidden ones and `__pycache__`'s like."""
    for place, folders, files in os.walk(folder, followlinks=True):
        folders[:] = sorted(name for name in folders if not name.startswith((".", "__")))
        relative = PurePath(place).relative_to(folder)
        yield from (relative / name for name in sorted(files) if not name.startswith("."))


def _split_folder(parts: tuple[str, ...]) -> PurePath | None:
    """The outermost folder with a split's name."""
    for count, name in enumerate(parts, 1):
        if split_named(name):
            return PurePath(*parts[:count])
    return None


def _check_depths(tops: Mapping[PurePath, PurePath | None], folder: str):
    """
    Args:
        tops: The folders of images, and in which split's folder each lies.
        folder: For messages.

    Raises:
        FolderError: see `split_patterns`.
    """
    advice = f"put the images of each class directly into one folder {os.path.join(folder, 'CLASS')}"
    shallow, *_, deep = sorted(tops, key=lambda parent: (len(parent.parts), parent)) if len(tops) > 1 else [None, None]
    if len(tops) > 1 and len(shallow.parts) != len(deep.parts):
        where = "no folder of their own" if shallow == PurePath() else f"its folder {shallow}"
        raise FolderError(
            f"--dataset {folder} has images in {where} and deeper, in {deep}, so its folders are not its classes; "
            f"{advice}, or CLASS of a folder train and one of a folder test."
        )
    seen: dict[tuple[PurePath | None, str], PurePath] = {}
    for parent in sorted(tops):
        other = seen.setdefault((tops[parent], parent.name), parent)
        # Parts of one data set, such as part1/cat and part2/cat, differ in a number only.
        if NUMBERS.sub("", str(other)) != NUMBERS.sub("", str(parent)):
            raise FolderError(
                f"--dataset {folder} has images in {other} and in {parent}, which would be one class "
                f"{parent.name}; {advice}, or, if {parent.name} is a class, give all images by a pattern, as "
                f"'{os.path.join(folder, *['*'] * len(parent.parts), '*')}'."
            )
