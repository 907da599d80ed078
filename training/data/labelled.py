# Copyright 2026 The modeling_pixelvit team. All rights reserved.
# SPDX-License-Identifier: Apache-2.0
"""
Labelled images of any source that the `datasets` library reads: folders of images, parquet files or WebDataset shards,
and data sets of the hub; and their decoding, which is ours, so that a damaged file can be named and passed over.
"""

import glob
import hashlib
import logging
import os
import re
from collections.abc import Iterable, Sequence
from io import BytesIO
from typing import Any

import datasets
import fsspec
import torch
from PIL import Image

from modeling_pixelvit.image_reading import read_pixels, upright_image

from .classes import check_labels, classes_of, given_names, index_by_label
from .folders import FolderError, files_by_split, split_patterns
from .splits import EVALUATION_SPLITS, Splits, choose_splits, evaluation_splits, held_out
from .unreadable import UnreadableImage


logger = logging.getLogger(__name__)

Split = datasets.Dataset | datasets.IterableDataset

LABEL_COLUMNS = ("label", "labels", "fine_label", "cls", "json.label")
CLASSES_SHOWN = 5
UNLABELLED = -1  # what some data sets give in a test split whose labels they keep to themselves
# The builders of `datasets` for a folder, by what is in it; anything else is a folder of images.
BUILDERS = {".parquet": "parquet", ".tar": "webdataset"}
# Not by `folders.SPLIT_WORDS`: a split is called here as in the name, such as "val", and as --eval_split names it.
SPLIT_OF_FILE = re.compile(r"(?<![a-z])(train|validation|valid|val|test)(?![a-z])")


def load_labelled_images(
    source: str,
    *,
    streaming: bool = False,
    train_split: str | None = None,
    eval_split: str | None = None,
    image_column: str | None = None,
    label_column: str | None = None,
    label_names: Sequence[str] | int | None = None,
) -> Splits:
    """
    Finds training and evaluation images with their labels. Nothing is decoded.

    Args:
        source: A folder with one subfolder of images per class, or one such tree under `train` and another under
            `validation`, `val` or `test` (`folders.split_patterns`); a folder of parquet files or of WebDataset shards
            (.tar, with the class index as `cls` or as "label" of a `json`), with `train`, `validation` or `test` in
            their names; a pattern for such files, as "shards/*.tar"; or the name of a data set on the hub.
        streaming: Read the files in order, as they are, at the cost of an exact shuffle; without, `datasets` first
            converts shards and parquet files to a cache of its own, of the same size, where any image can be fetched.
        train_split, eval_split: Names of splits. If not given, `train` (or the first) and the first with labels among
            `validation`, `valid`, `val` and `test`; where there is none, a fifth of the training images.
        image_column, label_column: If not given, the first column of images and the first of class labels, or the one
            with a usual name. "json.label" is the key of a column of mappings.
        label_names: Names of the classes, or their number. Needed only to stream labels whose classes are not declared,
            which would all have to be read to know them.

    Returns:
        Splits of `datasets` with the columns `image`, undecoded, and `label`, a class index.

    Labels are class indices (with a declared `ClassLabel`, or integers from 0 on) or strings, whose classes are
    numbered in the order of their sorted names.

    Raises:
        ValueError: if there is no such data set, split or column, if it has no images or no labels, or, for a stream,
            if there is no evaluation split or the classes are not known.
    """
    splits = _load(source, streaming)
    train_split, _ = choose_splits(splits, source, train_split, eval_split)
    columns = _columns(splits[train_split], source, image_column, label_column)
    train = _two_columns(splits[train_split], *columns, source)
    if eval_split is not None:
        evaluation = _two_columns(splits[eval_split], *columns, source)
    else:
        candidates = (splits[name] for name in evaluation_splits(splits, train_split))
        evaluation = _labelled_evaluation(candidates, *columns, source)
    names = _class_names(train, label_names, source)
    train = _with_class_labels(train, names, source)
    if evaluation is None:
        train, evaluation = _held_out(train, source)
    else:
        evaluation = _with_class_labels(evaluation, names, source)
    _warn_of_unseen(train, evaluation, names, source)
    return Splits(
        name=source,
        label_names=names,
        train=train,
        evaluation=evaluation,
    )


def _warn_of_unseen(train: Split, evaluation: Split, names: list[str], source: str):
    """Logs the classes that are tested without having been trained on; of streams, which are not read, none."""
    if isinstance(train, datasets.IterableDataset) or isinstance(evaluation, datasets.IterableDataset):
        return
    seen, tested = ({*split.select_columns("label").unique("label")} for split in (train, evaluation))
    if unseen := [names[index] for index in sorted(tested - seen)]:
        shown = ", ".join(unseen[:CLASSES_SHOWN]) + (
            f" ... ({len(unseen)} classes)" if len(unseen) > CLASSES_SHOWN else ""
        )
        logger.warning(
            "--dataset %s has test images but no training image of %s, so no model can get these right.", source, shown
        )


def _load(source: str, streaming: bool) -> dict[str, Split]:
    try:
        if os.path.isdir(source):
            builder = BUILDERS.get(_first_ending(source), "imagefolder")
            patterns = split_patterns(source) if builder == "imagefolder" else None
            return datasets.load_dataset(builder, data_dir=source, data_files=patterns, streaming=streaming)
        if glob.has_magic(source):
            files = sorted(glob.glob(source, recursive=True))
            if not files:
                raise FileNotFoundError("no file matches the pattern")
            builder = BUILDERS.get(os.path.splitext(files[0])[1], "imagefolder")
            by_split = files_by_split if builder == "imagefolder" else _files_by_split
            found = {split: list(map(glob.escape, names)) for split, names in by_split(files).items()}
            return datasets.load_dataset(builder, data_files=found, streaming=streaming)
        return datasets.load_dataset(source, streaming=streaming)
    except FolderError:
        raise
    except Exception as error:  # of many types: no such name, no connection, no images in the folder
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise ValueError(
            f"--dataset {source} is neither a folder with images nor a data set that could be loaded from the hub "
            f"({reason}); give a folder with one subfolder of images per class, a folder of parquet files or .tar "
            "shards, or the hub's name of a data set."
        ) from error


def _first_ending(folder: str) -> str | None:
    """The ending that decides what a folder is, or None; the first is enough, as a folder of images may be large."""
    endings = {*BUILDERS, *Image.registered_extensions()}
    for _, _, files in os.walk(folder):
        for file in files:
            if (ending := os.path.splitext(file)[1].lower()) in endings:
                return ending
    return None


def _files_by_split(files: list[str]) -> dict[str, list[str]]:
    splits: dict[str, list[str]] = {}
    for file in files:
        found = SPLIT_OF_FILE.search(os.path.basename(file).lower())
        splits.setdefault(found.group() if found else "train", []).append(file)
    return splits


def _columns(split: Split, source: str, image_column: str | None, label_column: str | None) -> tuple[str, str]:
    """The names of the image column and of the label column."""
    features = dict(split.features or {})
    for name, feature in list(features.items()):
        if isinstance(feature, dict):
            features.update({f"{name}.{key}": value for key, value in feature.items()})
    for option, column in (("image_column", image_column), ("label_column", label_column)):
        if column is not None and column not in features:
            raise ValueError(
                f"--{option} {column} was given, but --dataset {source} has the columns {', '.join(features)}; choose "
                "from these."
            )
    images = [name for name, feature in features.items() if _holds_images(feature)]
    labels = [name for name, feature in features.items() if isinstance(feature, datasets.ClassLabel)]
    labels += [name for name in LABEL_COLUMNS if name in features]
    if not (image_column or images):
        raise ValueError(f"--dataset {source} has the columns {', '.join(features)}, none of them images.")
    if not (label_column or labels):
        raise ValueError(
            f"--dataset {source} has images but no class labels (columns: {', '.join(features)}); put the images of "
            "each of two or more classes into a subfolder of its own, named after the class."
        )
    label_column = label_column or labels[0]
    if isinstance(features[label_column], (list, datasets.List, datasets.LargeList)):
        raise ValueError(
            f"The column {label_column} of --dataset {source} holds lists of labels; name one of single labels as "
            "--label_column, or use --task multi_label for several classes an image."
        )
    return image_column or images[0], label_column


def _holds_images(feature: Any) -> bool:
    """Whether a column holds images, declared so or, in files that `datasets` did not write, as bytes and path."""
    return isinstance(feature, datasets.Image) or (isinstance(feature, dict) and set(feature) == {"bytes", "path"})


def _two_columns(split: Split, image_column: str, label_column: str, source: str) -> Split:
    """The split with undecoded images in `image` and labels, of any type, in `label`."""
    outer, _, key = label_column.partition(".")
    if missing := [name for name in (image_column, outer) if name not in (split.features or {})]:
        raise ValueError(
            f"The split {split.split} of --dataset {source} has no column {missing[0]}; choose another split."
        )
    split = split.select_columns([image_column, outer])
    if key and isinstance(split, datasets.Dataset):
        # Unlike `map` this copies no images. It would take apart a column of images that is not declared as such.
        outer = label_column
        split = split.cast_column(image_column, datasets.Image()).flatten().select_columns([image_column, outer])
    split = split.cast_column(image_column, datasets.Image(decode=False))
    if key and isinstance(split, datasets.IterableDataset):
        labels = split.features[outer][key]
        split = split.map(
            lambda values: {"label": [value[key] for value in values]},
            input_columns=outer,
            batched=True,
            remove_columns=outer,
            features=datasets.Features({image_column: split.features[image_column], "label": labels}),
        )
        outer = "label"
    names = {image_column: "image", outer: "label"}
    return split.rename_columns({old: new for old, new in names.items() if old != new})


def _labelled_evaluation(
    candidates: Iterable[Split], image_column: str, label_column: str, source: str
) -> Split | None:
    for candidate in candidates:
        split = _two_columns(candidate, image_column, label_column, source)
        if isinstance(split, datasets.Dataset):
            labels: Iterable[Any] = split.unique("label")
        else:  # a stream is not read through for this: without labels it has none from the first image on
            labels = [row["label"] for row in split.take(1)]
        if UNLABELLED not in labels:
            return split
    return None


def _held_out(train: Split, source: str) -> tuple[datasets.Dataset, datasets.Dataset]:
    if isinstance(train, datasets.IterableDataset):
        raise ValueError(
            f"--dataset {source} has no labelled split to evaluate on ({', '.join(EVALUATION_SPLITS)}), and nothing "
            "can be held out of a stream; name a split as --eval_split, add files with such a name, or do not stream."
        )
    return held_out(train, f"--dataset {source}")


def _class_names(train: Split, label_names: Sequence[str] | int | None, source: str) -> list[str]:
    declared = train.features["label"]
    if isinstance(declared, datasets.ClassLabel):
        return list(declared.names)
    if label_names is not None:
        return given_names(label_names)
    if isinstance(train, datasets.IterableDataset):
        raise ValueError(
            f"--dataset {source} is streamed and does not declare its classes; give their number by --num_labels, or "
            "do not stream."
        )
    classes = classes_of(train.unique("label"), f"The split {train.split} of --dataset {source}")
    return [str(name) for name in classes]


def _with_class_labels(split: Split, names: list[str], source: str) -> Split:
    """The split with a `ClassLabel` of these names, whether its labels are class indices or names."""
    declared = isinstance(split.features["label"], datasets.ClassLabel)
    feature = datasets.ClassLabel(names=names)
    if isinstance(split, datasets.IterableDataset):
        return split if declared else split.cast_column("label", feature)
    indices = index_by_label(names)
    check_labels(split.unique("label"), indices, f"The split {split.split} of --dataset {source}")
    if declared:
        return split
    # A cast would copy the images to the cache with the labels.
    labels = [indices[label] for label in split["label"][:]]
    return split.remove_columns("label").add_column("label", labels, feature=feature)


class LabelledImages(torch.utils.data.Dataset):
    """
    The images of a split by their index, as (PIL image in mode RGB, class index).

    Args:
        split: With the columns `image` and `label`, as `load_labelled_images` gives it.

    Raises:
        UnreadableImage: by `[index]`, for an image that cannot be decoded.
    """

    def __init__(self, split: datasets.Dataset):
        self.split = split
        # `datasets` takes a thirtieth of the time that it takes to read a photograph to make a row. Images in files of
        # their own are so many paths, small enough to hold, from which it is made ten times as fast.
        are_files = len(split) > 0 and split[0]["image"]["bytes"] is None
        self._columns = split.with_format("arrow")[:] if are_files else None

    @property
    def labels(self) -> Sequence[int]:
        """The class indices, without the images."""
        return self.split["label"]

    def __len__(self) -> int:
        return len(self.split)

    def __getitem__(self, index: int) -> tuple[Image.Image, int]:
        if self._columns is None:
            row = self.split[index]
        else:
            row = {name: self._columns[name][index].as_py() for name in ("image", "label")}
        return read_image(row["image"], f"{self.split.split}[{index}]"), row["label"]


def read_image(file: dict[str, Any], name: str | None = None) -> Image.Image:
    """
    Decodes an image `{"bytes": ..., "path": ...}`: upright and in mode RGB, transparency over white.

    Args:
        name: What an error calls the image if its bytes are given; if not given, the hash of these. Images in files of
            their own are called by their path.

    Raises:
        UnreadableImage: if it cannot be decoded.
    """
    content, path = file["bytes"], file["path"]
    is_file = content is None and path is not None
    if is_file and "://" in path:
        # Outside of what counts as unreadable: a connection that fails says nothing about the image.
        with fsspec.open(path, "rb") as opened:
            content = opened.read()
    try:
        if content is None:
            # In one go: Pillow would read a photograph in dozens of pieces.
            with open(path, "rb") as opened:
                content = opened.read()
        image = upright_image(Image.open(BytesIO(content)), "the image", max_pixels=None)
        if image.mode != "RGB" or "transparency" in image.info:
            image = Image.fromarray(read_pixels(image).permute(1, 2, 0).numpy())
    except MemoryError:
        raise
    except Exception as error:  # Pillow's decoders raise many types for damaged files
        name = path if is_file else _name_of_bytes(content, path, name)
        raise UnreadableImage(name, " ".join(str(error.__cause__ or error).split())) from error
    return image


def _name_of_bytes(content: bytes | None, path: str | None, name: str | None) -> str:
    name = name or f"image with SHA-256 {hashlib.sha256(content or b'').hexdigest()[:16]}"
    return f"{name} ({path})" if path else name  # never the path alone: in some data sets all images have the same
