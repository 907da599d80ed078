# Copyright 2026 The modeling_pixelvit team. All rights reserved.
# SPDX-License-Identifier: Apache-2.0
"""
Training batches from a stream, which has no n-th image to ask for, and still they are a function of the step alone.

The stream is dealt to lanes, one for each worker of each process, and a process takes its batches from its lanes in
turn. A run that goes on at any step gives its workers the lanes in the order of that step, and each lane passes over
what it had already given in that epoch, undecoded. All this depends on the numbers of processes and workers: with
others the images of an epoch come in another order.
"""

from collections.abc import Callable, Iterator
from functools import partial
from itertools import count, islice
from typing import Any

import datasets
import torch
from datasets.distributed import split_dataset_by_node
from torch.utils.data import DataLoader, IterableDataset, get_worker_info

from ..settings.recipe import Recipe
from .batches import SeededExamples, collate_readable, derive_seed, share_of_batch


# Undecoded images that a lane holds to draw the next from. They are about 100 MB of ImageNet's.
SHUFFLE_BUFFER = 1000
ROWS_PER_READ = 16
# With so many shards a lane it does not matter that some have one more.
MANY_SHARDS = 20


class StreamedBatches(IterableDataset):
    """
    The batches of one process from step `first_step` on, `accumulation` of them a step, for `build_streamed_loader`.

    Every epoch each lane passes once through its part of the stream, in another order, and gives as many batches as it
    takes to make an epoch. Lanes may be of unequal length: what is left of one is not seen in that epoch, and one that
    is short begins another pass, through the part that is dealt to it there. Where a batch has images that cannot be
    decoded, others of the batch stand in for them, so that a lane's position is known without decoding.

    If the number of shards is neither a multiple of the number of lanes nor `MANY_SHARDS` times as large, every lane
    reads the whole stream and keeps its share of the images.

    Args:
        example_from_row: Makes an example of a row of the stream; it may raise `UnreadableImage`.
        stream: Rows, their images undecoded, as `load_labelled_images` gives them.
        recipe: Gives the batch size, the number of epochs and the seed.
        num_images: Images in the stream, or how many make an epoch.
        rank, num_ranks: This process among all.
        accumulation: Batches whose gradients are summed up before a step.
        first_step: The step to start from, counted from 0 over the whole training.
        num_workers: Of the loader; 0 and 1 have one lane.

    Raises:
        ValueError: if the total batch cannot be shared equally, if the number of images is not known or smaller than
            it, or if the recipe repeats images; on iteration, if a lane has no images.
    """

    def __init__(
        self,
        example_from_row: Callable[[dict[str, Any]], Any],
        stream: datasets.IterableDataset,
        recipe: Recipe,
        num_images: int | None,
        rank: int = 0,
        num_ranks: int = 1,
        accumulation: int = 1,
        first_step: int = 0,
        num_workers: int = 0,
    ):
        if recipe.augmentation_repeats > 1:
            raise ValueError(
                f"augmentation_repeats={recipe.augmentation_repeats} was given, but the copies of a streamed image "
                "cannot be spread over the processes; set it to 1, or do not stream."
            )
        if recipe.tokens_per_step is not None:
            raise ValueError(
                f"tokens_per_step={recipe.tokens_per_step} was given, but a stream is read in batches of one size; set "
                "it to none, or do not stream."
            )
        if num_images is None:
            raise ValueError(
                "The streamed data set does not tell how many images it has; give their number as num_train_images."
            )
        self.batch_size = share_of_batch(recipe, num_ranks, accumulation)
        self.steps_per_epoch = num_images // recipe.total_batch_size
        if self.steps_per_epoch == 0:
            raise ValueError(
                f"total_batch_size={recipe.total_batch_size} was given, but an epoch has only {num_images} images; "
                "make it smaller."
            )
        self.example_from_row, self.stream, self.recipe = example_from_row, stream, recipe
        self.rank, self.num_ranks = rank, num_ranks
        self.accumulation, self.first_step = accumulation, first_step
        self.lanes_per_rank = max(1, num_workers)

    @property
    def num_steps(self) -> int:
        """Optimizer steps of the whole training; what is left of an epoch after its last whole batch is not seen."""
        return round(self.recipe.num_train_epochs * self.steps_per_epoch)

    def __len__(self) -> int:
        return max(0, self.num_steps - self.first_step) * self.accumulation

    def __iter__(self) -> Iterator[list[tuple[Any, list[str]]]]:
        """Lists of `batch_size` pairs as `SeededExamples` gives them: those of one lane if called in a worker."""
        worker = get_worker_info()
        # The loader asks its workers in turn and begins with the first, which so gets the lane of the first batch.
        lane_of_rank = (self.first_step * self.accumulation + (worker.id if worker else 0)) % self.lanes_per_rank
        lane = self.rank * self.lanes_per_rank + lane_of_rank
        end = self.num_steps * self.accumulation
        per_epoch = self.steps_per_epoch * self.accumulation
        for epoch in range(self.first_step // self.steps_per_epoch, -(-end // per_epoch)):
            batches = range(epoch * per_epoch, min((epoch + 1) * per_epoch, end))
            own = [batch for batch in batches if batch % self.lanes_per_rank == lane_of_rank]
            given = sum(batch < self.first_step * self.accumulation for batch in own)
            if given == len(own):
                continue
            places = count(given * self.batch_size)
            rows = islice(self._rows(lane, epoch), given * self.batch_size, None)
            for _ in own[given:]:
                keys = [derive_seed(self.recipe.seed, epoch, lane, next(places)) for _ in range(self.batch_size)]
                yield self._examples(list(islice(rows, self.batch_size)), keys)

    def _examples(self, rows: list[dict[str, Any]], seeds: list[int]) -> list[tuple[Any, list[str]]]:
        examples = SeededExamples(lambda index: self.example_from_row(rows[index]), len(rows))
        return [examples[key] for key in enumerate(seeds)]

    def _rows(self, lane: int, epoch: int) -> Iterator[dict[str, Any]]:
        """The lane's part of the stream in the order of an epoch, followed by further passes without end."""
        lanes = self.num_ranks * self.lanes_per_rank
        if self.stream.num_shards % lanes and self.stream.num_shards >= MANY_SHARDS * lanes:
            part = self.stream.shard(lanes, lane, contiguous=False)
        else:
            part = split_dataset_by_node(self.stream, lane, lanes)
        part = part.shuffle(seed=self.recipe.seed, buffer_size=SHUFFLE_BUFFER)
        # Further passes are those of epochs after the last.
        for order in count(epoch, step=-(-self.num_steps // self.steps_per_epoch)):
            part.set_epoch(order)
            is_empty = True
            # Iterated directly, the stream would deal itself to the loader's workers once more.
            for columns in part.iter(batch_size=ROWS_PER_READ):
                is_empty = False
                for values in zip(*columns.values(), strict=True):
                    yield dict(zip(columns, values, strict=True))
            if is_empty:
                raise ValueError(
                    f"The streamed data set has no images for part {lane} of {lanes}, one for each worker of each "
                    "process; take fewer workers, or do not stream."
                )


def build_streamed_loader(
    example_from_row: Callable[[dict[str, Any]], Any],
    stream: datasets.IterableDataset,
    recipe: Recipe,
    collate: Callable[[list], Any],
    rank: int = 0,
    num_ranks: int = 1,
    accumulation: int = 1,
    first_step: int = 0,
    num_workers: int = 0,
    num_images: int | None = None,
) -> DataLoader:
    """
    Loads the batches of `StreamedBatches`, which has the arguments' meanings, all epochs in one go; it is the loader's
    `dataset`, with `steps_per_epoch` and `num_steps`.

    A batch is what `collate` makes of a list of examples, with the key "unreadable" as of `build_train_loader`.

    Raises:
        ValueError: as `StreamedBatches`.
    """
    batches = StreamedBatches(
        example_from_row, stream, recipe, num_images, rank, num_ranks, accumulation, first_step, num_workers
    )
    return DataLoader(
        batches,
        batch_size=None,  # they are batches already
        collate_fn=partial(collate_readable, collate),
        num_workers=num_workers,
        pin_memory=torch.cuda.is_available(),
    )
