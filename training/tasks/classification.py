# Copyright 2026 The modeling_pixelvit team. All rights reserved.
# SPDX-License-Identifier: Apache-2.0
"""Image classification: labelled images in, soft cross-entropy as in the released training code, accuracy out."""

import dataclasses
from typing import Any

import datasets
import torch
from timm.loss import SoftTargetCrossEntropy
from torch.nn import functional as F
from torch.utils.data import DataLoader
from transformers import PreTrainedModel

from modeling_pixelvit.image_processing_pixelvit import PixelViTImageProcessor

from ..augmentation.classification import Examples, build_mixup, build_train_transform, stack
from ..data.labelled import LabelledSplits, read_row
from ..data.sources import load_images
from ..data.streams import build_streamed_loader
from ..families.base import CLASSIFIER
from ..settings.recipe import Recipe
from .base import Batch, DataOptions, Share, Task, patch_size_of
from .initial_model import build_initial_model


class ClassificationTask(Task):
    """
    Args:
        recipe: What to train and how.
        images: What to train and to evaluate on.
        num_train_images: In a stream that does not tell it.
    """

    architecture = CLASSIFIER
    main_metric, higher_is_better = "accuracy", True

    def __init__(self, recipe: Recipe, images: LabelledSplits, num_train_images: int | None = None):
        if recipe.digit_distortion:
            images = _distorted(images, recipe.digit_distortion)
        self.recipe, self.images = recipe, images
        self.is_streamed = isinstance(images.train, datasets.IterableDataset)
        self.num_train = num_train_images or images.num_train_images if self.is_streamed else len(images.train)
        self.num_eval = len(images.evaluation)
        mean, std = list(self.images.image_mean), list(self.images.image_std)
        self.train_transform = build_train_transform(recipe, mean, std)
        self.mixup = build_mixup(recipe, len(self.images.label_names))
        self.train_loss = SoftTargetCrossEntropy()
        self.processor = self._build_processor(image_mean=mean, image_std=std)

    @classmethod
    def from_options(cls, recipe: Recipe, data: DataOptions) -> "ClassificationTask":
        images = load_images(
            data.dataset,
            streaming=data.streaming,
            train_split=data.train_split,
            eval_split=data.eval_split,
            image_column=data.image_column,
            label_column=data.label_column,
        )
        return cls(recipe, images, data.num_train_images)

    def _build_processor(self, **statistics: Any) -> PixelViTImageProcessor:
        config = self.recipe.build_config()
        config.image_size = self.recipe.eval_image_size or self.recipe.image_size
        if self.recipe.eval_crop_pct is not None:
            statistics["crop_pct"] = self.recipe.eval_crop_pct
        return PixelViTImageProcessor.for_config(config, **statistics)

    def build_model(self) -> PreTrainedModel:
        names = self.images.label_names
        labels = {
            "id2label": dict(enumerate(names)),
            "label2id": {name: index for index, name in enumerate(names)},
        }
        return build_initial_model(self.recipe, self.model_class, **labels)

    def train_example(self, index: int) -> tuple[torch.Tensor, int]:
        """Pixels (3, image_size, image_size), float32, and the class."""
        image, label = self.images.train[index]
        return self.train_transform(image), label

    def train_loader(self, share: Share) -> tuple[DataLoader, int, int]:
        if not self.is_streamed:
            return super().train_loader(share)
        loader = build_streamed_loader(
            self._example_from_row,
            self.images.train,
            self.recipe,
            self.collate,
            share.rank,
            share.num_ranks,
            share.accumulation,
            share.first_step,
            share.num_workers,
            self.num_train,
        )
        return loader, loader.dataset.steps_per_epoch, loader.dataset.num_steps

    def _example_from_row(self, row: dict[str, Any]) -> tuple[torch.Tensor, int]:
        image, label = read_row(row)
        return self.train_transform(image), label

    def eval_example(self, index: int) -> tuple[torch.Tensor, int]:
        image, label = self.images.evaluation[index]
        return self.processor(image, return_tensors="pt").pixel_values[0], label

    def collate(self, examples: Examples) -> Batch:
        return stack(examples)

    def prepare_batch(self, batch: Batch) -> Batch:
        """Mixes the images; the labels become soft, (B, num_classes)."""
        if self.mixup is not None:
            pixels, labels = self.mixup(batch["pixel_values"], batch["labels"])
        else:
            pixels, labels = batch["pixel_values"], F.one_hot(batch["labels"], len(self.images.label_names)).float()
            smoothing = self.recipe.label_smoothing
            labels = labels * (1 - smoothing) + smoothing / labels.shape[-1]
        return {**batch, "pixel_values": pixels, "labels": labels}

    def losses(self, model: torch.nn.Module, batch: Batch) -> dict[str, torch.Tensor]:
        logits = model(pixel_values=batch["pixel_values"], **patch_size_of(batch)).logits
        return {"loss": self.train_loss(logits.float(), batch["labels"].float())}

    def results(self, model: torch.nn.Module, batch: Batch) -> list[tuple[float, int]]:
        """Of each image its loss, and how many classes the model prefers to the right one."""
        logits = model(
            pixel_values=batch["pixel_values"], interpolate_pos_encoding=True, **patch_size_of(batch)
        ).logits.float()
        labels = batch["labels"]
        losses = F.cross_entropy(logits, labels, reduction="none")
        # Told by what is not below, so that a logit that is not a number counts as preferred.
        preferred = (~(logits <= logits.gather(1, labels[:, None]))).sum(1)
        return list(zip(losses.tolist(), preferred.tolist(), strict=True))

    def metrics(self, results: list[tuple[float, int]]) -> dict[str, float]:
        """Mean cross-entropy, and top-1 and (of more than five classes) top-5 accuracy in percent."""
        losses, preferred = zip(*results, strict=True)
        metrics = {"loss": sum(losses) / len(losses), "accuracy": _percent(preferred, 1)}
        if len(self.images.label_names) > 5:
            metrics["accuracy_top5"] = _percent(preferred, 5)
        return metrics


def _percent(preferred: tuple[int, ...], within: int) -> float:
    return 100 * sum(count < within for count in preferred) / len(preferred)


def _distorted(images: LabelledSplits, distortion: float) -> LabelledSplits:
    if not hasattr(images.train, "distorted"):
        raise ValueError(
            f"digit_distortion={distortion:g} was given, but {images.name} are not the embedded digits; set it to 0 "
            "(crop_padding and horizontal_flip are for photographs)."
        )
    return dataclasses.replace(images, train=images.train.distorted(distortion))
