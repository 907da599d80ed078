# Copyright 2026 The modeling_pixelvit team. All rights reserved.
# SPDX-License-Identifier: Apache-2.0
"""Any image folder, or any image classification data set of the hub, through the `datasets` library."""

import os

import datasets
import torch
from transformers.image_utils import IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD

from modeling_pixelvit.image_processing_pixelvit import PixelViTImageProcessor

from .image_set import ImageSet, shuffled_epochs


TEST_SPLITS = ("test", "validation", "valid", "val")
TEST_SHARE = 0.2  # held out of the training images where there is no test split
SPLIT_SEED = 2026
LABEL_COLUMNS = ("label", "labels", "fine_label")


class StoredImages(ImageSet):
    """
    The images of a data set, resized (shorter side, then centre crop) and kept in memory.

    Args:
        source (`str`): A folder with one subfolder of images per class (or one such tree under `train` and `test`), or
            the name of a data set on the hub.
        image_size (`int`): Side of the images in pixels.

    Raises:
        ValueError: if there is no such data set, or it has no images or no class labels.
    """

    def __init__(self, source: str, image_size: int):
        splits = _load(source)
        image_column, label_column = _columns(next(iter(splits.values())), source)
        train, test = _training_and_test(splits, source, label_column)
        train, test, names = _with_class_labels(train, test, label_column)
        self.train_pixels, self.train_labels = _read(train, image_column, label_column, image_size)
        test_pixels, test_labels = _read(test, image_column, label_column, image_size)
        super().__init__(
            name=source,
            image_size=image_size,
            label_names=names,
            image_mean=list(IMAGENET_DEFAULT_MEAN),
            image_std=list(IMAGENET_DEFAULT_STD),
            test_pixels=test_pixels,
            test_labels=test_labels,
        )

    @property
    def num_train(self) -> int:
        return len(self.train_pixels)

    def training_order(self, num_images: int, seed: int) -> torch.Tensor:
        """Rows (image,)."""
        return shuffled_epochs(self.num_train, num_images, torch.Generator().manual_seed(seed))[:, None]

    def training_batch(self, order: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        return self.train_pixels[order[:, 0]], self.train_labels[order[:, 0]]


def _load(source: str) -> datasets.DatasetDict:
    try:
        if os.path.isdir(source):
            return datasets.load_dataset("imagefolder", data_dir=source)
        return datasets.load_dataset(source)
    except Exception as error:  # of many types: no such name, no connection, no images in the folder
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise ValueError(
            f"--dataset {source} is neither a folder with images nor a data set that could be loaded from the hub "
            f"({reason}); give a folder with one subfolder of images per class, or the hub's name of a data set."
        ) from error


def _training_and_test(
    splits: datasets.DatasetDict, source: str, label_column: str
) -> tuple[datasets.Dataset, datasets.Dataset]:
    train = splits["train"] if "train" in splits else next(iter(splits.values()))
    for name in TEST_SPLITS:
        # Some data sets keep the labels of their test split to themselves and give -1.
        if name in splits and splits[name] is not train and -1 not in splits[name].unique(label_column):
            return train, splits[name]
    if len(train) < 2:
        raise ValueError(f"--dataset {source} has {len(train)} images; at least two are needed, to train and to test.")
    halves = train.train_test_split(test_size=TEST_SHARE, seed=SPLIT_SEED)
    return halves["train"], halves["test"]


def _columns(dataset: datasets.Dataset, source: str) -> tuple[str, str]:
    """The names of the image column and of the label column."""
    features = dataset.features
    images = [name for name, feature in features.items() if isinstance(feature, datasets.Image)]
    labels = [name for name, feature in features.items() if isinstance(feature, datasets.ClassLabel)]
    labels += [name for name in LABEL_COLUMNS if name in features]
    if not images:
        raise ValueError(f"--dataset {source} has the columns {', '.join(features)}, none of them images.")
    if not labels:
        raise ValueError(
            f"--dataset {source} has images but no class labels (columns: {', '.join(features)}); put the images of "
            "each class into a subfolder of its own, named after the class."
        )
    return images[0], labels[0]


def _with_class_labels(train, test, column: str) -> tuple[datasets.Dataset, datasets.Dataset, list[str]]:
    """Both splits with class indices in `column`, and the names of the classes."""
    if not isinstance(train.features[column], datasets.ClassLabel):
        names = sorted({str(label) for label in train[column]})
        feature = datasets.ClassLabel(names=names)
        train, test = (
            split.map(lambda row: {column: str(row[column])}).cast_column(column, feature) for split in (train, test)
        )
    return train, test, list(train.features[column].names)


def _read(dataset, image_column: str, label_column: str, image_size: int) -> tuple[torch.Tensor, torch.Tensor]:
    """uint8 pixels (N, 3, image_size, image_size) and labels (N,)."""
    processor = PixelViTImageProcessor(
        size={"height": image_size, "width": image_size}, crop_pct=1.0, do_rescale=False, do_normalize=False
    )
    pixels = torch.empty(len(dataset), 3, image_size, image_size, dtype=torch.uint8)
    for index, image in enumerate(dataset[image_column]):
        pixels[index] = processor(image, return_tensors="pt").pixel_values[0].round().clamp(0, 255).to(torch.uint8)
    return pixels, torch.tensor(dataset[label_column])
