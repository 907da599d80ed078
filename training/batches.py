# Copyright 2026 The modeling_pixelvit team. All rights reserved.
# SPDX-License-Identifier: Apache-2.0
"""
Which images a step sees and with what randomness, as a function of the step alone.

A run that was interrupted goes on at any step without reading what came before, and sees there what it would have seen:
no state of samplers, workers or generators has to be saved.
"""

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset, Sampler
from transformers import set_seed

from .augmentation import build_sampler
from .recipe import Recipe


def derive_seed(*numbers: int) -> int:
    """A seed of 32 bits that differs, but by chance, for any other sequence of numbers."""
    return int(np.random.SeedSequence(numbers).generate_state(1)[0])


class TrainingBatches(Sampler[list[tuple[int, int]]]):
    """
    The batches of one process from step `first_step` on, `accumulation` of them a step.

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
        if recipe.total_batch_size % (num_ranks * accumulation):
            raise ValueError(
                f"total_batch_size={recipe.total_batch_size} was given for {num_ranks} processes and {accumulation} "
                "accumulation steps; it must be a multiple of their product."
            )
        self.recipe, self.num_images = recipe, num_images
        self.rank, self.num_ranks = rank, num_ranks
        self.accumulation, self.first_step = accumulation, first_step
        self.batch_size = recipe.total_batch_size // (num_ranks * accumulation)
        share = len(self._sampler())
        self.steps_per_epoch = share // (self.batch_size * accumulation)
        if self.steps_per_epoch == 0:
            raise ValueError(
                f"total_batch_size={recipe.total_batch_size} was given, but an epoch has only "
                f"{share * num_ranks} images; make it smaller."
            )

    def _sampler(self):
        return build_sampler(self.recipe, self.num_images, self.rank, self.num_ranks)

    @property
    def num_steps(self) -> int:
        """Optimizer steps of the whole training; what is left of an epoch after its last whole batch is not seen."""
        return round(self.recipe.num_train_epochs * self.steps_per_epoch)

    def __len__(self) -> int:
        return max(0, self.num_steps - self.first_step) * self.accumulation

    def __iter__(self) -> Iterator[list[tuple[int, int]]]:
        sampler, order, epoch_of_order = self._sampler(), [], None
        for step in range(self.first_step, self.num_steps):
            epoch, step_of_epoch = divmod(step, self.steps_per_epoch)
            if epoch != epoch_of_order:
                sampler.set_epoch(epoch)
                order, epoch_of_order = list(sampler), epoch
            for batch in range(self.accumulation):
                start = (step_of_epoch * self.accumulation + batch) * self.batch_size
                places = range(start, start + self.batch_size)
                yield [(order[place], self._seed(epoch, place)) for place in places]

    def _seed(self, epoch: int, place: int) -> int:
        return derive_seed(self.recipe.seed, epoch, place * self.num_ranks + self.rank)


class SeededExamples(Dataset):
    """`example(index)` with all global generators seeded before, for the keys of `TrainingBatches`."""

    def __init__(self, example: Callable[[int], Any]):
        self.example = example

    def __getitem__(self, key: tuple[int, int]) -> Any:
        index, seed = key
        set_seed(seed)
        return self.example(index)


def build_train_loader(
    example: Callable[[int], Any], batches: TrainingBatches, collate: Callable[[list], Any], num_workers: int = 0
) -> DataLoader:
    """Loads `batches`, all epochs in one go, so that workers read ahead across the end of an epoch."""
    return DataLoader(
        SeededExamples(example),
        batch_sampler=batches,
        collate_fn=collate,
        num_workers=num_workers,
        pin_memory=torch.cuda.is_available(),
    )
