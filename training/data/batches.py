# Copyright 2026 The modeling_pixelvit team. All rights reserved.
# SPDX-License-Identifier: Apache-2.0
"""
Which images a step sees and with what randomness, as a function of the step alone.

A run that was interrupted goes on at any step without reading what came before, and sees there what it would have seen:
no state of samplers, workers or generators has to be saved.
"""

import random
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import numpy as np
import torch
from timm.data.distributed_sampler import RepeatAugSampler
from torch.utils.data import DataLoader, Dataset, DistributedSampler, Sampler

from ..settings.course import Course
from ..settings.recipe import Recipe
from .unreadable import readable_example


UNREADABLE = "unreadable"  # the key of a batch for the images that it should have had


def derive_seed(*numbers: int) -> int:
    """
    A seed of 32 bits that differs, but by chance, for any other sequence of numbers, zeros at its end apart.
    """
    return int(np.random.SeedSequence(numbers).generate_state(1)[0])


def share_of_batch(recipe: Recipe, num_ranks: int, accumulation: int) -> int:
    """
    Images in one batch of one process.

    Raises:
        ValueError: if the total batch cannot be shared equally.
    """
    if recipe.total_batch_size % (num_ranks * accumulation):
        raise ValueError(
            f"total_batch_size={recipe.total_batch_size} was given for {num_ranks} processes and {accumulation} "
            "accumulation steps; it must be a multiple of their product."
        )
    return recipe.total_batch_size // (num_ranks * accumulation)


def build_sampler(recipe: Recipe, num_images: int, rank: int, num_ranks: int) -> Sampler[int]:
    """
    The order of the training images for one process; `set_epoch` draws that of another epoch.

    With repeats the copies of an image go to neighbouring ranks, and an epoch ends after as many images as without
    repeats, rounded down to a multiple of 256, as in the released training code; its order depends on the epoch alone.
    Without, every image comes once, some twice to make the processes' shares equal, by the recipe's seed.
    """
    images = range(num_images)
    if recipe.augmentation_repeats > 1:
        return RepeatAugSampler(images, num_ranks, rank, num_repeats=recipe.augmentation_repeats)
    return DistributedSampler(images, num_ranks, rank, seed=recipe.seed)


def seed_cpu(seed: int):
    """
    Seeds the global generators that images are augmented with: Python's, NumPy's and PyTorch's of the CPU.

    transformers' `set_seed` seeds those of the devices as well. That takes a quarter of the time that it takes to read
    a photograph, where the device is not in use as in workers; where it is, it would interfere with the model.
    """
    random.seed(seed)
    np.random.seed(seed)
    torch.default_generator.manual_seed(seed)


class TrainingBatches(Sampler[list[tuple[int, int]]]):
    """
    The batches of one process from step `first_step` on, `accumulation` of them a step; those of a step that is several
    batches of the recipe are so many times as large.

    A batch is a list of (index of the image, seed of its augmentation). The seed follows the image's place in the
    epoch, so it depends neither on the process nor on the worker that reads it.

    Args:
        recipe: Gives the order of the images, the batch size and the number of epochs.
        num_images: Images in the training set.
        rank, num_ranks: This process among all.
        accumulation: Batches whose gradients are summed up before a step.
        first_step: The step to start from, counted from 0 over the whole training.

    Raises:
        ValueError: if the total batch cannot be shared equally, or the data set is smaller than it.
    """

    def __init__(
        self,
        recipe: Recipe,
        num_images: int,
        rank: int = 0,
        num_ranks: int = 1,
        accumulation: int = 1,
        first_step: int = 0,
    ):
        self.recipe, self.num_images = recipe, num_images
        self.rank, self.num_ranks = rank, num_ranks
        self.accumulation, self.first_step = accumulation, first_step
        self.batch_size = share_of_batch(recipe, num_ranks, accumulation)
        share = len(self._sampler())
        self.steps_per_epoch = share // (self.batch_size * accumulation)
        if self.steps_per_epoch == 0:
            raise ValueError(
                f"total_batch_size={recipe.total_batch_size} was given, but an epoch has only "
                f"{share * num_ranks} images; make it smaller."
            )
        self.course = Course(recipe, self.steps_per_epoch)

    def _sampler(self):
        return build_sampler(self.recipe, self.num_images, self.rank, self.num_ranks)

    @property
    def num_steps(self) -> int:
        """Optimizer steps of the whole training; what is left of an epoch after its last whole batch is not seen."""
        return self.course.num_steps

    def __len__(self) -> int:
        return max(0, self.num_steps - self.first_step) * self.accumulation

    def __iter__(self) -> Iterator[list[tuple[int, int]]]:
        sampler, order, epoch_of_order = self._sampler(), [], None
        for step in range(self.first_step, self.num_steps):
            keys: list[list[tuple[int, int]]] = [[] for _ in range(self.accumulation)]
            for batch in self.course.batches(step):
                epoch, batch_of_epoch = divmod(batch, self.steps_per_epoch)
                if epoch != epoch_of_order:
                    sampler.set_epoch(epoch)
                    order, epoch_of_order = list(sampler), epoch
                for part in range(self.accumulation):
                    start = (batch_of_epoch * self.accumulation + part) * self.batch_size
                    places = range(start, start + self.batch_size)
                    keys[part] += [(order[place], self._seed(epoch, place)) for place in places]
            yield from keys

    def _seed(self, epoch: int, place: int) -> int:
        return derive_seed(self.recipe.seed, epoch, place * self.num_ranks + self.rank)


class SeededExamples(Dataset):
    """
    `example(index)` with the global generators of the CPU seeded before, for the keys of `TrainingBatches`.

    An image that cannot be decoded is replaced by the next one that can, under the same seed, so that batches keep
    their size and a step depends on nothing but its number and the files.

    Args:
        example: Makes the example of an image; it may raise `UnreadableImage`.
        num_images: After the last of them comes the first.
    """

    def __init__(self, example: Callable[[int], Any], num_images: int):
        self.example, self.num_images = example, num_images

    def __getitem__(self, key: tuple[int, int]) -> tuple[Any, list[str]]:
        """
        The example, and an entry for each image that could not be decoded on the way to it.

        Raises:
            TooManyUnreadable: if there are `MAX_TRIES` such images in a row, or no others.
        """
        index, seed = key

        def seeded(index: int) -> Any:
            seed_cpu(seed)
            return self.example(index)

        example, errors = readable_example(seeded, index, self.num_images)
        return example, [error.entry for error in errors]


def collate_readable(collate: Callable[[list], Any], pairs: list[tuple[Any, list[str]]]) -> Any:
    """`collate` for pairs of an example and the list of those that it replaces, which go into the batch if any."""
    batch = collate([example for example, _ in pairs])
    if unreadable := list(dict.fromkeys(entry for _, entries in pairs for entry in entries)):
        batch[UNREADABLE] = unreadable
    return batch


def build_train_loader(
    example: Callable[[int], Any], batches: TrainingBatches, collate: Callable[[list], Any], num_workers: int = 0
) -> DataLoader:
    """
    Loads `batches`, all epochs in one go, so that workers read ahead across the end of an epoch.

    A batch is what `collate` makes of a list of examples. If images could not be decoded it must be a dictionary, and
    gets a list of strings "file: reason" under the key "unreadable".
    """
    return DataLoader(
        SeededExamples(example, batches.num_images),
        batch_sampler=batches,
        collate_fn=partial(collate_readable, collate),
        num_workers=num_workers,
        pin_memory=torch.cuda.is_available(),
    )
