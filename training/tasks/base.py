# Copyright 2026 The modeling_pixelvit team. All rights reserved.
# SPDX-License-Identifier: Apache-2.0
"""
What a task is: its data, its model, its loss and its metric, and how it is called and shown.

The training loop, the Trainer of `training.finetune`, sweeps, cards and publishing know nothing else of it, so another
one joins by a class like `classification.ClassificationTask`, or one derived from it, and `registry.register_task`.
"""

import copy
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import torch
from PIL import Image
from torch.utils.data import DataLoader
from transformers import BaseImageProcessor, PreTrainedConfig, PreTrainedModel
from transformers.hf_argparser import HfArg

from modeling_pixelvit.image_processing_pixelvit import PixelViTImageProcessor

from ..checkpoints.cost import ModelCost, model_cost
from ..checkpoints.measured_cost import Work, work_of
from ..data.batches import TrainingBatches, build_train_loader
from ..data.splits import Splits
from ..families.base import Architecture
from ..families.registry import FAMILIES
from ..settings.recipe import Recipe
from .initial_model import build_initial_model


Batch = dict[str, Any]
# The key of a batch for the side of the patches in pixels that the model is to read it by; its own if there is none.
PATCH_SIZE = "patch_size"
# In `Task.image_values`, how much an image counts in the means over the images.
IMAGE_WEIGHT = "weight"
# Of a recipe, what only some tasks do to their images and labels (`Task.options`), and the value that says no.
SWITCHED_OFF = {
    "mixup_probability": 0.0,
    "color_jitter": 0.0,
    "auto_augment": None,
    "random_erasing": 0.0,
    "label_smoothing": 0.0,
    "crop_padding": 0,
    "digit_distortion": 0.0,
    "photometric_distortion": False,
    "eval_window": None,
}


def patch_size_of(batch: Batch) -> dict[str, int]:
    """The keyword for a model's forward pass, if the batch is to be read by other patches than the model's own."""
    return {PATCH_SIZE: batch[PATCH_SIZE]} if PATCH_SIZE in batch else {}


def normalization(processor: BaseImageProcessor) -> tuple[list[float], list[float]]:
    """Mean and deviation per channel, for pixels in [0, 1], that a processor normalizes by."""
    if not getattr(processor, "do_normalize", True):
        return [0.0] * 3, [1.0] * 3
    return list(processor.image_mean), list(processor.image_std)


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


@dataclass(frozen=True)
class Score:
    """
    How a metric in percent is called.

    Args:
        title: Of its column in a sweep's table; None: it has none.
        name: In a model card.
        hub: Its id there.
    """

    title: str | None
    name: str
    hub: str


@dataclass(frozen=True)
class EmbeddedImages:
    """
    The images of a task that need no download.

    Args:
        title: Their name in reports.
        dataset: As `--dataset` has it, without the size.
        image_size: Their side in pixels if nobody says otherwise.
    """

    title: str
    dataset: str
    image_size: int


@dataclass(kw_only=True)
class SourceOptions:
    """Which images, and how they are read. Each field's help text is also the command line's."""

    dataset: str = HfArg(
        default="digits",
        help="folder of images by class, of images and masks, or of images and COCO annotations; folder of "
        "parquet files or of WebDataset shards; name of a hub data set; digits or digit-scenes for the embedded "
        "ones (digits-32: on a canvas of 32 pixels)",
    )
    train_split: str | None = HfArg(default=None, help="name of the training split; found if not given")
    eval_split: str | None = HfArg(default=None, help="name of the split to evaluate on")
    image_column: str | None = HfArg(default=None, help="column of the images; found if not given")
    label_column: str | None = HfArg(default=None, help="column of the labels; found if not given")
    on_invalid: Literal["refuse", "skip"] = HfArg(
        default="refuse",
        help="segmentation, detection: annotations that cannot be right; refuse stops and names them, skip "
        "leaves them out",
    )
    box_format: Literal["xywh", "xyxy"] = HfArg(
        default="xywh",
        help="detection: boxes of a table; left, top, width, height, as COCO has them, or left, top, right, bottom",
    )
    reduce_labels: bool = HfArg(
        default=False, help="segmentation: classes count from 1 and 0 is no class, as in ADE20k"
    )
    num_labels: int | None = HfArg(
        default=None, help="classification, segmentation: number of classes, where the data do not name them"
    )
    streaming: ClassVar[bool] = False
    num_train_images: ClassVar[int | None] = None


@dataclass(kw_only=True)
class DataOptions(SourceOptions):
    """Those of the training loop, which can also read a stream."""

    streaming: bool = HfArg(default=False, help="classification: read the data set in order, without storing it first")
    num_train_images: int | None = HfArg(
        default=None, help="images in a streamed training split that does not tell its size"
    )


class Task(ABC):
    """
    A task's data, model, loss and metric, for one recipe.

    Everything random in `train_example`, `prepare_batch` and the model must come from the global generators of Python,
    NumPy and PyTorch, which the caller seeds by the step, so that a run can go on at any step.

    Args:
        recipe: What to train and how.
        images: As `load_images` gives them.

    Raises:
        ValueError: if the recipe asks for what the task does not do.
    """

    name: ClassVar[str]  # in recipes and on the command line
    architecture: ClassVar[Architecture]
    # The recipe's fields and the commands' options that only some tasks have a use for, and this one among them.
    options: ClassVar[frozenset[str]] = frozenset()
    loss_name: ClassVar[str]  # what the test loss is
    # Among the names of `metrics`; the first is the one by which checkpoints are compared, and all of them should grow.
    scores: ClassVar[dict[str, Score]]
    # What a sweep takes if it is not told: images, patch sizes in pixels, the ending of the recipes' names after the
    # family's, and the scores that get a picture.
    embedded_images: ClassVar[EmbeddedImages]
    patch_sizes: ClassVar[tuple[int, ...]]
    sweep_recipe: ClassVar[str]
    drawn_scores: ClassVar[tuple[str, ...]] = ()

    processor: BaseImageProcessor  # what evaluation does to an image, saved beside the model

    def __init__(self, recipe: Recipe, images: Splits):
        self.check_recipe(recipe)
        self.recipe, self.images = recipe, images
        self.num_train, self.num_eval = images.num_train_images, len(images.evaluation)
        self.use_processor(self.build_processor())

    @classmethod
    def check_recipe(cls, recipe: Recipe):
        """
        Raises:
            ValueError: for a recipe that asks for what only other tasks do.
        """
        for name, off in SWITCHED_OFF.items():
            if name not in cls.options and getattr(recipe, name) != off:
                raise ValueError(
                    f"{name}={getattr(recipe, name)} was given, which {cls.name} has no use for; set it to "
                    f"{'none' if off is None else off}."
                )

    @classmethod
    def from_options(cls, recipe: Recipe, data: SourceOptions) -> "Task":
        """
        The task on the images that a command line names.

        Raises:
            ValueError: if they cannot be loaded, or do not fit the task or the recipe.
        """
        return cls(recipe, cls.load_images(data))

    @classmethod
    @abstractmethod
    def load_images(cls, data: SourceOptions) -> Splits:
        """
        The images that a command line names.

        Raises:
            ValueError: if they cannot be loaded, or do not fit the task.
        """

    @classmethod
    def main_metric(cls) -> str:
        """The name of the first score."""
        return next(iter(cls.scores))

    @staticmethod
    @abstractmethod
    def classes_in(truth: Any, num_labels: int) -> list[int]:
        """The classes of an evaluation image by its annotation."""

    @staticmethod
    def draw_truth(image: Image.Image, truth: Any, label_names: list[str]) -> Image.Image | None:
        """A picture of an evaluation image and its annotation; None where there is nothing to draw."""
        return None

    def chance_loss(self) -> float | None:
        """The evaluation loss of guessing by how frequent the classes are; None where there is no such thing."""
        return None

    @property
    def model_class(self) -> type[PreTrainedModel]:
        return FAMILIES[self.recipe.family].model_classes[self.architecture]

    def build_processor(self, **settings: Any) -> PixelViTImageProcessor:
        """The paper's evaluation of an image, with the data's normalization."""
        config = self.recipe.build_config()
        config.image_size = self.recipe.eval_image_size or self.recipe.image_size
        statistics = {name: list(getattr(self.images, name)) for name in ("image_mean", "image_std")}
        return PixelViTImageProcessor.for_config(config, task=self.architecture.does, **{**statistics, **settings})

    def use_processor(self, processor: BaseImageProcessor):
        """Takes what evaluation does to an image, and its normalization for the training images too."""
        self.processor = processor
        self.train_transform = self.build_train_transform(*normalization(processor))

    @abstractmethod
    def build_train_transform(self, image_mean: list[float], image_std: list[float]) -> Any:
        """What a training image goes through."""

    def config_fields(self) -> dict[str, Any]:
        """Fields of the model's configuration that the data decide."""
        names = self.images.label_names
        return {
            "id2label": dict(enumerate(names)),
            "label2id": {name: index for index, name in enumerate(names)},
        }

    def build_model(self) -> PreTrainedModel:
        """The model to train, on the CPU in float32: new, its weights by the recipe's seed, or from its checkpoint."""
        return build_initial_model(self.recipe, self.model_class, **self.config_fields())

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
        """
        The metrics over the results of the whole evaluation set: "loss" and, in percent, those of `scores` that the
        data define.
        """

    def image_values(self, results: list[Any]) -> dict[str, Sequence[float]]:
        """
        Of each result, in order, the values of which metrics are the means over the images, by the metric's name;
        those by `IMAGE_WEIGHT`, if there are any, are the images' weights in these means. Other metrics are of all
        images together, as a mean IoU and AP, and not in it.
        """
        return {}

    def train_loader(self, share: Share) -> tuple[DataLoader, int, int]:
        """The batches of a process, the steps of an epoch and the steps of the whole training."""
        batches = TrainingBatches(
            self.recipe, self.num_train, share.rank, share.num_ranks, share.accumulation, share.first_step
        )
        loader = build_train_loader(self.train_example, batches, self.collate, share.num_workers)
        return loader, batches.steps_per_epoch, batches.num_steps

    def cost(self, template: PreTrainedModel, patch_size: int) -> ModelCost:
        """What a model costs that reads images by patches of this size; the template may be on the meta device."""
        return model_cost(_config_at(template, patch_size), type(template).__name__)

    def forward_flops(self, template: PreTrainedModel, patch_size: int) -> int:
        """Floating-point operations of one image's forward pass."""
        return self.cost(template, patch_size).flops

    def work(self, template: PreTrainedModel, patch_size: int) -> Work:
        """The same by what it is for, as measured costs are told by."""
        return work_of(_config_at(template, patch_size), self.forward_flops(template, patch_size))

    def num_tokens(self, batch: Batch) -> int:
        """Patch tokens of a batch, those over an edge included, from which the tokens per second are told."""
        images, patch_size = batch["pixel_values"], batch.get(PATCH_SIZE) or self.recipe.patch_size
        patches = -(-images.shape[-2] // patch_size) * -(-images.shape[-1] // patch_size)
        return images.shape[0] * patches * self.recipe.tokens_per_patch


def _config_at(template: PreTrainedModel, patch_size: int) -> PreTrainedConfig:
    config = copy.deepcopy(template.config)
    config.patch_size = patch_size
    return config
