# Copyright 2026 The modeling_pixelvit team. All rights reserved.
# SPDX-License-Identifier: Apache-2.0
"""
The images of an experiment's runs.

Those of a data set with labels, of small images, are read once, resized and stored as arrays, which every run maps into
its memory. Those with masks or boxes, or of which training takes crops, are read as the training loop reads them.
"""

import hashlib
import json
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from torch.utils.data import Dataset, Subset

from modeling_pixelvit.image_processing_pixelvit import PixelViTImageProcessor

from ..common.files import whole_folder
from ..data.sources import load_images
from ..data.splits import Splits
from ..settings.recipe import Recipe
from ..tasks.base import SourceOptions
from ..tasks.classification import ClassificationTask
from ..tasks.registry import TASKS


SPLITS = ("train", "evaluation")
SPLITS_FILE = "splits.json"


class StoredImages(Dataset):
    """
    One split of stored images, by index: (PIL image in RGB, class index).

    Args:
        folder: Where `store_images` has written it.
        split: "train" or "evaluation".
    """

    def __init__(self, folder: Path, split: str):
        self.pixels = np.load(folder / f"{split}_pixels.npy", mmap_mode="r")
        self.labels = np.load(folder / f"{split}_labels.npy")

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: int) -> tuple[Image.Image, int]:
        return Image.fromarray(self.pixels[index]), int(self.labels[index])


def store_images(source: str, image_size: int, folder: Path, most: int | None = None):
    """
    Reads a data set, resizes its images (shorter side, then centre crop) and writes them to `folder`.

    Args:
        most: Images of a split that are taken, from all over it; all if not given.

    Raises:
        ValueError: if there is no such data set, or it has no images, no class labels or an image that is damaged.
    """
    images = load_images(source)
    processor = PixelViTImageProcessor(
        size={"height": image_size, "width": image_size}, crop_pct=1.0, do_rescale=False, do_normalize=False
    )
    for split in SPLITS:
        examples = getattr(images, split)
        if most is not None and most < len(examples):
            examples = Subset(examples, np.linspace(0, len(examples) - 1, most).round().astype(int).tolist())
        pixels = np.empty((len(examples), image_size, image_size, 3), dtype=np.uint8)
        labels = np.empty(len(examples), dtype=np.int64)
        for index in range(len(examples)):
            image, labels[index] = examples[index]
            resized = processor(image, return_tensors="np")["pixel_values"][0]
            pixels[index] = resized.round().clip(0, 255).transpose(1, 2, 0)
        np.save(folder / f"{split}_pixels.npy", pixels)
        np.save(folder / f"{split}_labels.npy", labels)
    facts = {name: getattr(images, name) for name in ("name", "label_names", "image_mean", "image_std")}
    (folder / SPLITS_FILE).write_text(json.dumps(facts))


def _reads_stored(recipe: Recipe, source: str) -> bool:
    # Crops of random size are taken from the original.
    is_embedded = source == TASKS[recipe.task].embedded_images.title
    return recipe.task == ClassificationTask.name and not is_embedded and recipe.min_crop_scale == 1


def load_run_images(recipe: Recipe, source: str, image_size: int, folder: Path, most: int | None = None) -> Any:
    """
    The images of a run, with `train`, `evaluation`, `name`, `label_names` and their statistics.

    Args:
        recipe: Of the run.
        source: The title of the task's embedded images, which are then made of this size, or the name of a data set.
        image_size: Side in pixels.
        folder: Where those of a data set are stored, if this has not been done yet.
        most: Images of a split that are then stored; all if not given.

    Raises:
        ValueError: if they cannot be loaded, or do not fit the task.
    """
    task = TASKS[recipe.task]
    if source == task.embedded_images.title:
        return task.load_images(SourceOptions(dataset=f"{task.embedded_images.dataset}-{image_size}"))
    if not _reads_stored(recipe, source):
        return task.load_images(SourceOptions(dataset=source))
    place = folder / f"{hashlib.sha256(source.encode()).hexdigest()[:10]}-{image_size}"
    if not place.exists():
        with whole_folder(place, replace=False) as partial:
            store_images(source, image_size, partial, most)
    splits = {split: StoredImages(place, split) for split in SPLITS}
    return Splits(**splits, **json.loads((place / SPLITS_FILE).read_text()))
