# Copyright 2026 The modeling_pixelvit team. All rights reserved.
# SPDX-License-Identifier: Apache-2.0
"""
What `training.finetune` asks of a task. It knows nothing else of one, so another joins by a class like
`finetune_classification.ClassificationTask` and a line in `finetune.TASKS`.
"""

import logging
from abc import ABC, abstractmethod
from typing import Any

import torch
from torch.utils.data import Dataset
from transformers import BaseImageProcessor

from .finetune_arguments import DataArguments
from .recipe import Recipe
from .unreadable_images import TooManyUnreadable, UnreadableImage


logger = logging.getLogger(__name__)


class FinetuneTask(ABC):
    """
    A task's data and what the Trainer needs for them.

    Raises:
        ValueError: at construction, if the data cannot be loaded.
    """

    auto_class: type  # transformers' Auto class that loads the models
    hub_name: str  # the hub's name of the task, for the model card
    # Fields of TrainingArguments that the task cannot do without, whatever the command line says.
    training_arguments: dict[str, Any] = {}

    name: str  # of the data set
    label_names: list[str]
    # What a checkpoint without image processor is given.
    image_mean: list[float]
    image_std: list[float]

    @abstractmethod
    def __init__(self, data: DataArguments):
        """Loads the data."""

    @abstractmethod
    def trainer_options(self, processor: BaseImageProcessor, recipe: Recipe) -> dict[str, Any]:
        """
        What `FinetuneTrainer` takes beside model and arguments: `train_dataset`, `eval_dataset`, `data_collator`,
        `train_collator`, `compute_metrics` and, if the task needs them, others.

        Args:
            processor: What evaluation does to an image; its normalization is for training too.
            recipe: The augmentation of the training images.

        Raises:
            ValueError: for an augmentation that does not exist.
        """


class ReadableExamples(Dataset):
    """
    The examples of `source`, in which one that raises `UnreadableImage` gives way to the next, with a warning.

    Args:
        source: Any data set with a length.
        prepare: Makes the example of what the source holds.
        max_unreadable: So many different images may be skipped, over all epochs and all processes of a data loader.

    Raises:
        TooManyUnreadable: when reading, if there are more.
    """

    def __init__(self, source: Any, prepare: Any, max_unreadable: int):
        self.source, self.prepare, self.max_unreadable = source, prepare, max_unreadable
        # Shared, so that the processes of a data loader count together.
        self.unreadable = torch.zeros(len(source), dtype=torch.bool).share_memory_()

    def __len__(self) -> int:
        return len(self.source)

    def __getitem__(self, index: int) -> Any:
        for place in range(index, index + len(self)):
            place %= len(self)
            if self.unreadable[place]:
                continue
            try:
                content = self.source[place]
            except UnreadableImage as error:
                self._note(place, error)
                continue
            return self.prepare(*content)
        raise TooManyUnreadable("None of the images can be decoded; get complete copies of them.")

    def _note(self, index: int, error: UnreadableImage):
        self.unreadable[index] = True
        count = int(self.unreadable.sum())
        if count > self.max_unreadable:
            raise TooManyUnreadable(
                f"{count} images cannot be decoded, the last one {error.entry}; repair or remove these files, or allow "
                f"more than {self.max_unreadable} by --max_unreadable_images."
            )
        logger.warning("Left out, and replaced by the next image: %s", error.entry)
