# Copyright 2026 The modeling_pixelvit team. All rights reserved.
# SPDX-License-Identifier: Apache-2.0
"""
What the training loop asks of a task: its data, its model, its loss and its metric.

The loop knows nothing else of a task, so another one joins by a class like `classification.ClassificationTask`
and a line in `registry.TASKS`.
"""

from abc import ABC, abstractmethod
from dataclasses import dataclass, field
from typing import Any

import torch
from torch.utils.data import DataLoader
from transformers import BaseImageProcessor, PreTrainedModel

from ..common.throughput import forward_flops
from ..data.batches import TrainingBatches, build_train_loader
from ..families.registry import FAMILIES
from ..settings.recipe import Recipe


Batch = dict[str, Any]
# The key of a batch for the side of the patches in pixels that the model is to read it by; its own if there is none.
PATCH_SIZE = "patch_size"


def patch_size_of(batch: Batch) -> dict[str, int]:
    """The keyword for a model's forward pass, if the batch is to be read by other patches than the model's own."""
    return {PATCH_SIZE: batch[PATCH_SIZE]} if PATCH_SIZE in batch else {}


@dataclass(frozen=True)
class Share:
    """
    What one process does of a training run.

    Args:
        rank, num_ranks: The process among all.
        accumulation: Batches whose gradients are summed up before a step.
        first_step: The step to start from, counted from 0 over the whole training.
        num_workers: Processes that read its batches ahead; 0 reads them in the process itself.
    """

    rank: int = 0
    num_ranks: int = 1
    accumulation: int = 1
    first_step: int = 0
    num_workers: int = 0


@dataclass(kw_only=True)
class DataOptions:
    """Where the images come from. Each field's help text is also the command line's."""

    dataset: str = field(
        default="digits",
        metadata={
            "help": "folder of images by class, of images and masks, or of images and COCO annotations; folder of "
            "parquet files or of WebDataset shards; name of a hub data set; digits or digit-scenes for the embedded "
            "ones (digits-32: on a canvas of 32 pixels)"
        },
    )
    train_split: str | None = field(default=None, metadata={"help": "name of the training split; found if not given"})
    eval_split: str | None = field(default=None, metadata={"help": "name of the split to evaluate on"})
    image_column: str | None = field(default=None, metadata={"help": "column of the images; found if not given"})
    label_column: str | None = field(default=None, metadata={"help": "column of the labels; found if not given"})
    streaming: bool = field(default=False, metadata={"help": "read the data set in order, without storing it first"})
    num_train_images: int | None = field(
        default=None, metadata={"help": "images in a streamed training split that does not tell its size"}
    )
    on_invalid: str = field(
        default="refuse",
        metadata={"help": "annotations that cannot be right: refuse stops and names them, skip leaves them out"},
    )
    reduce_labels: bool = field(
        default=False, metadata={"help": "segmentation: classes count from 1 and 0 is no class, as in ADE20k"}
    )
    num_labels: int | None = field(
        default=None, metadata={"help": "segmentation: number of classes, where the data do not name them"}
    )


class Task(ABC):
    """
    A task's data, model, loss and metric, for one recipe.

    Everything random in `train_example`, `prepare_batch` and the model must come from the global generators of Python,
    NumPy and PyTorch, which the caller seeds by the step, so that a run can go on at any step.
    """

    architecture: str  # ending of the names of its models' classes, by which each family has one
    recipe: Recipe
    processor: BaseImageProcessor  # what evaluation does to an image, saved beside the model
    num_train: int
    num_eval: int
    # The number among those of `metrics` by which checkpoints are compared, and whether it should grow.
    main_metric: str
    higher_is_better: bool

    @property
    def model_class(self) -> type[PreTrainedModel]:
        return FAMILIES[self.recipe.family].model_classes[self.architecture]

    @classmethod
    @abstractmethod
    def from_options(cls, recipe: Recipe, data: DataOptions) -> "Task":
        """
        The task on the images that a command line names.

        Raises:
            ValueError: if they cannot be loaded, or do not fit the task or the recipe.
        """

    @abstractmethod
    def build_model(self) -> PreTrainedModel:
        """The model to train, on the CPU in float32: new, its weights by the recipe's seed, or from its checkpoint."""

    @abstractmethod
    def train_example(self, index: int) -> Any:
        """Training image `index`, augmented."""

    @abstractmethod
    def eval_example(self, index: int) -> Any:
        """Evaluation image `index`."""

    @abstractmethod
    def collate(self, examples: list) -> Batch:
        """Makes a batch of examples of either kind. Its tensors go to the model's device, those in lists too."""

    def prepare_batch(self, batch: Batch) -> Batch:
        """What a training batch goes through on the model's device: for one, mixing its images."""
        return batch

    @abstractmethod
    def losses(self, model: torch.nn.Module, batch: Batch) -> dict[str, torch.Tensor]:
        """float32 scalars, means over the batch: "loss", which is minimized, and parts of it to be logged."""

    @abstractmethod
    def results(self, model: torch.nn.Module, batch: Batch) -> list[Any]:
        """What the metrics need of each example in an evaluation batch, in order; plain Python and NumPy objects."""

    @abstractmethod
    def metrics(self, results: list[Any]) -> dict[str, float]:
        """The metrics over the results of the whole evaluation set, among them "loss" and the main metric."""

    def train_loader(self, share: Share) -> tuple[DataLoader, int, int]:
        """The batches of a process, the steps of an epoch and the steps of the whole training."""
        batches = TrainingBatches(
            self.recipe, self.num_train, share.rank, share.num_ranks, share.accumulation, share.first_step
        )
        loader = build_train_loader(self.train_example, batches, self.collate, share.num_workers)
        return loader, batches.steps_per_epoch, batches.num_steps

    def forward_flops(self, template: PreTrainedModel, patch_size: int | None = None) -> int | None:
        """Floating-point operations of one image's forward pass, by the model on the meta device; None: not told."""
        return forward_flops(template, self.recipe.image_size, patch_size)

    def num_tokens(self, batch: Batch) -> int:
        """Patches in a batch, those that stand out over an edge included, from which the tokens per second are told."""
        images, patch_size = batch["pixel_values"], batch.get(PATCH_SIZE) or self.recipe.patch_size
        return images.shape[0] * -(-images.shape[-2] // patch_size) * -(-images.shape[-1] // patch_size)
