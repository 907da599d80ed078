# Copyright 2026 The modeling_pixelvit team. All rights reserved.
# SPDX-License-Identifier: Apache-2.0
"""Our loader and timm's beside each other, for `training.benchmark_loading`."""

import dataclasses
import resource
import statistics
import time
from collections.abc import Callable, Iterable
from pathlib import Path

import datasets
import numpy as np
import torch
from PIL import Image
from timm.data import create_dataset, create_loader
from torch.utils.data import default_collate

from ..augmentation.classification import build_train_transform
from ..data.batches import TrainingBatches, build_train_loader
from ..data.labelled import LabelledImages, load_labelled_images
from ..data.splits import Splits
from ..settings.recipe import Recipe, load_recipe
from .measuring import Rows


NUM_CLASSES = 10
IMAGE_SIZE = 224


def make_pictures(folder: Path, num_images: int, size: tuple[int, int] = (500, 375)):
    """JPEG files by class under `train` and one of each class under `val`: noise on two scales, about 100 KB each."""
    generator = np.random.default_rng(0)

    def noise(divisor: int) -> Image.Image:
        pixels = generator.integers(0, 256, (size[1] // divisor, size[0] // divisor, 3), dtype=np.uint8)
        return Image.fromarray(pixels).resize(size, Image.Resampling.BICUBIC)

    for split, count in (("train", num_images), ("val", NUM_CLASSES)):
        for index in range(count):
            file = folder / split / str(index % NUM_CLASSES) / f"{index}.jpg"
            file.parent.mkdir(parents=True, exist_ok=True)
            Image.blend(noise(32), noise(3), 0.4).save(file, quality=90)


def our_loader(splits: Splits, recipe: Recipe, num_workers: int) -> Iterable:
    images = LabelledImages(splits.train)
    transform = build_train_transform(recipe, splits.image_mean, splits.image_std)

    def example(index: int) -> tuple[torch.Tensor, int]:
        image, label = images[index]
        return transform(image), label

    return build_train_loader(example, TrainingBatches(recipe, len(images)), default_collate, num_workers)


def timm_loader(folder: Path, splits: Splits, recipe: Recipe, num_workers: int) -> Iterable:
    return create_loader(
        create_dataset("", str(folder)),
        (3, recipe.image_size, recipe.image_size),
        recipe.total_batch_size,
        is_training=True,
        use_prefetcher=False,
        scale=(recipe.min_crop_scale, 1.0),
        hflip=recipe.horizontal_flip,
        color_jitter=recipe.color_jitter,
        auto_augment=recipe.auto_augment,
        interpolation="bicubic",
        re_prob=recipe.random_erasing,
        mean=tuple(splits.image_mean),
        std=tuple(splits.image_std),
        num_workers=num_workers,
        persistent_workers=False,
    )


def cpu_seconds() -> float:
    """Of this process and of those that it started and that have ended."""
    usages = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(usage.ru_utime + usage.ru_stime for usage in usages)


def read_all(build: Callable[..., Iterable], *arguments) -> tuple[float, float]:
    """Seconds and processor seconds of one pass over a new loader."""
    start, cpu_start = time.perf_counter(), cpu_seconds()
    for _ in build(*arguments):
        pass
    return time.perf_counter() - start, cpu_seconds() - cpu_start


def measure(folder: Path, num_images: int, batch_size: int, worker_counts: list[int], rounds: int) -> Rows:
    make_pictures(folder, num_images)
    datasets.config.HF_DATASETS_CACHE = folder / "cache"  # to go with the rest
    splits = load_labelled_images(str(folder))
    recipe = load_recipe(
        "adventurer-stage1",
        image_size=IMAGE_SIZE,
        total_batch_size=batch_size,
        num_train_epochs=1.0,
        warmup_epochs=0.0,
        augmentation_repeats=1,
    )
    images_read = num_images // batch_size * batch_size
    rows: Rows = {}
    for workers in worker_counts:
        pairs = []
        for seed in range(rounds + 1):
            seeded = dataclasses.replace(recipe, seed=seed)  # timm draws other augmentations in every round as well
            pairs.append(
                (
                    read_all(our_loader, splits, seeded, workers),
                    read_all(timm_loader, folder / "train", splits, seeded, workers),
                )
            )
        del pairs[0]  # found neither files nor code in memory
        row: dict[str, float | str] = {}
        for index, (unit, cores) in enumerate((("second_per_core", max(1, workers)), ("cpu_second", 1))):
            ours, other = ([pair[side][index] for pair in pairs] for side in (0, 1))
            row[f"images_per_{unit}"] = images_read / statistics.median(ours) / cores
            row[f"timm_images_per_{unit}"] = images_read / statistics.median(other) / cores
            row[f"ratio_of_{unit.removesuffix('_per_core')}s"] = statistics.median(
                our_time / other_time for our_time, other_time in zip(ours, other, strict=True)
            )
        rows[f"{workers} workers" if workers != 1 else "1 worker"] = row
    return rows
