# Copyright 2026 The modeling_pixelvit team. All rights reserved.
# SPDX-License-Identifier: Apache-2.0
"""
What `training.finetune` asks of a task. It knows nothing else of one, so another joins by a class like
`classification.ClassificationTask` and its name in `finetune.TASKS`.
"""

import logging
from abc import ABC, abstractmethod
from typing import Any

import torch
from torch.utils.data import Dataset
from transformers import BaseImageProcessor

from ..data.unreadable import TooManyUnreadable, UnreadableImage, UnusableData
from ..settings.recipe import Recipe
from .arguments import DataArguments
from .trainer import FinetuneTrainer


logger = logging.getLogger(__name__)


class FinetuneTask(ABC):
    """
    A task's data and what the Trainer needs for them.

    Raises:
        ValueError: at construction, if the data cannot be loaded.
    """

    kind: str  # of `Recipe.task`
    trainer_class: type[FinetuneTrainer] = FinetuneTrainer
    hub_name: str  # the hub's name of the task, for the model card
    # Fields of TrainingArguments that the task cannot do without, whatever the command line says.
    training_arguments: dict[str, Any] = {}

    name: str  # of the data set
    label_names: list[str]
    # What a checkpoint without image processor is given.
    image_mean: list[float]
    image_std: list[float]

    @abstractmethod
    def __init__(self, data: DataArguments, recipe: Recipe):
        """Loads the data; the recipe tells the sizes and the augmentation of the training images."""

    def config_fields(self) -> dict[str, Any]:
        """Fields of the model's configuration that the data decide."""
        return {
            "id2label": dict(enumerate(self.label_names)),
            "label2id": {label: index for index, label in enumerate(self.label_names)},
        }

    @abstractmethod
    def trainer_options(self, processor: BaseImageProcessor) -> dict[str, Any]:
        """
        What `trainer_class` takes beside model and arguments: `train_dataset`, `eval_dataset`, `data_collator`,
        `train_collator` and, if the task needs them, others.

        Args:
            processor: What evaluation does to an image; its normalization is for training too.

        Raises:
            ValueError: for an augmentation that does not exist.
        """


def normalization(processor: BaseImageProcessor) -> tuple[list[float], list[float]]:
    """Mean and deviation per channel, for pixels in [0, 1], that a processor normalizes by."""
    if not getattr(processor, "do_normalize", True):
        return [0.0] * 3, [1.0] * 3
    return list(processor.image_mean), list(processor.image_std)


class ReadableExamples(Dataset):
    """
    The examples of `source`, in which one that raises `UnreadableImage` gives way to the next, with a warning.

    Args:
        source: Any data set with a length.
        prepare: Makes the example of what the source holds.
        max_unreadable: So many different images may be skipped, over all epochs and all processes of a data loader.

    Raises:
        TooManyUnreadable: when reading, if there are more.
        UnusableData: when reading, for an example that the source refuses.
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
            except ValueError as error:
                raise UnusableData(str(error)) from error
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
