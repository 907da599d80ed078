# Copyright 2026 The modeling_pixelvit team. All rights reserved.
# SPDX-License-Identifier: Apache-2.0
"""Evaluation over all processes: every image counts once, whatever the number of processes."""

import io
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset

from ..common.files import write_bytes
from ..data.unreadable import readable_example
from ..tasks.base import PATCH_SIZE, Batch, Task
from .coordination import Coordination


NOT_COUNTED = -1
IMAGES_FILE = "evaluation_images.npz"


@dataclass(frozen=True)
class Evaluation:
    """
    Args:
        metrics: Of the whole evaluation set, by the model's name.
        image_values: By the model's name what the task tells of single images (`Task.image_values`), float32
            (evaluation images,) each, not a number for an image that could not be read.
        unreadable: The images that could not be read, on all processes.
    """

    metrics: dict[str, dict[str, float]]
    image_values: dict[str, dict[str, np.ndarray]]
    unreadable: list[str]


def write_image_values(folder: Path, values: dict[str, np.ndarray]):
    """Writes the values of single images to `IMAGES_FILE` in a folder: at most 4 bytes for each, compressed."""
    content = io.BytesIO()
    np.savez_compressed(content, **values)
    write_bytes(folder / IMAGES_FILE, content.getvalue())


class _Examples(Dataset):
    """
    One process's share of the evaluation images: (example, its index or `NOT_COUNTED`, images that were unreadable).

    All processes have equally many, since a model that is split among them computes on all or on none; what is too
    much, and what stands in for an image that cannot be read, is not counted.
    """

    def __init__(self, task: Task, rank: int, num_ranks: int):
        self.task, self.rank, self.num_ranks = task, rank, num_ranks

    def __len__(self) -> int:
        return -(-self.task.num_eval // self.num_ranks)

    def __getitem__(self, position: int) -> tuple[Any, int, list[str]]:
        index = position * self.num_ranks + self.rank
        example, errors = readable_example(self.task.eval_example, index % self.task.num_eval, self.task.num_eval)
        counts = not errors and index < self.task.num_eval
        return example, index if counts else NOT_COUNTED, [error.entry for error in errors]


def _collate(task: Task, triples: list[tuple[Any, int, list[str]]]) -> tuple[Batch, list[int], list[str]]:
    examples, indices, unreadable = zip(*triples, strict=True)
    return task.collate(list(examples)), list(indices), [text for texts in unreadable for text in texts]


@torch.no_grad()
def evaluate(
    task: Task,
    models: dict[str, torch.nn.Module],
    to_device: Callable[[Batch], Batch],
    coordination: Coordination,
    rank: int = 0,
    num_ranks: int = 1,
    batch_size: int = 64,
    num_workers: int = 0,
    patch_sizes: Sequence[int | None] = (None,),
) -> Evaluation:
    """
    The task's metrics of one or more models over the whole evaluation set, which is read once for all of them.

    Args:
        models: By a name for each; they are left in evaluation mode.
        to_device: Moves a batch to the models' device and precision.
        rank, num_ranks: This process among all, every one of which must call this.
        patch_sizes: Sides of the patches in pixels at which the models read the images. Those after the first have
            their metrics under names that begin with "patch", the side and an underscore.
    """
    loader = DataLoader(
        _Examples(task, rank, num_ranks),
        batch_size=batch_size,
        num_workers=num_workers,
        collate_fn=partial(_collate, task),
    )
    for model in models.values():
        model.eval()
    readings = [(name, patch_size) for name in models for patch_size in patch_sizes]
    results: dict[tuple[str, int | None], dict[int, Any]] = {reading: {} for reading in readings}
    unreadable: list[str] = []
    for batch, indices, texts in loader:
        unreadable += texts
        batch = to_device(batch)
        for name, patch_size in readings:
            read_by = {} if patch_size is None else {PATCH_SIZE: patch_size}
            found = task.results(models[name], {**batch, **read_by})
            results[name, patch_size].update(zip(indices, found, strict=True))
    shares = coordination.gather((results, unreadable))
    metrics: dict[str, dict[str, float]] = {name: {} for name in models}
    image_values: dict[str, dict[str, np.ndarray]] = {name: {} for name in models}
    for name, patch_size in readings:
        # By index, so that sums do not depend on how the images were shared.
        together = {index: result for share, _ in shares for index, result in share[name, patch_size].items()}
        counted = [index for index in sorted(together) if index != NOT_COUNTED]
        ordered = [together[index] for index in counted]
        prefix = "" if patch_size == patch_sizes[0] else f"patch{patch_size}_"
        metrics[name].update({prefix + metric: value for metric, value in task.metrics(ordered).items()})
        for metric, values in task.image_values(ordered).items():
            of_images = np.full(task.num_eval, np.nan, np.float32)
            of_images[counted] = values
            image_values[name][prefix + metric] = of_images
    return Evaluation(metrics, image_values, [text for _, texts in shares for text in texts])
