# Copyright 2026 The modeling_pixelvit team. All rights reserved.
# SPDX-License-Identifier: Apache-2.0
"""Image classification: labelled images in, soft cross-entropy as in the released training code, accuracy out."""

import dataclasses
from typing import Any

import datasets
import numpy as np
import torch
from timm.loss import SoftTargetCrossEntropy
from torch.nn import functional as F
from torch.utils.data import DataLoader

from modeling_pixelvit.image_processing_pixelvit import PixelViTImageProcessor

from ..augmentation.classification import Examples, build_mixup, build_train_transform, stack
from ..data.labelled import read_image
from ..data.sources import load_images
from ..data.splits import Splits
from ..data.streams import build_streamed_loader
from ..families.base import CLASSIFIER
from ..settings.recipe import Recipe
from .base import Batch, EmbeddedImages, Score, Share, SourceOptions, Task, patch_size_of


class ClassificationTask(Task):
    """See [`Task`]. Annotations are class indices."""

    name = "classification"
    architecture = CLASSIFIER
    options = frozenset(
        {
            *("label_smoothing", "label_smoothing_factor", "mixup_probability", "mixup_alpha", "cutmix_alpha"),
            *("min_crop_scale", "crop_padding", "color_jitter", "auto_augment", "random_erasing", "digit_distortion"),
            *("streaming", "num_train_images", "num_labels"),
        }
    )
    loss_name = "mean cross-entropy on the test images"
    scores = {
        "accuracy": Score("accuracy", "top-1 accuracy", "accuracy"),
        "accuracy_top5": Score(None, "top-5 accuracy", "accuracy"),
    }
    embedded_images = EmbeddedImages("embedded digits", "digits", 16)
    patch_sizes = (16, 8, 4, 2, 1)
    sweep_recipe = "sweep"

    def __init__(self, recipe: Recipe, images: Splits):
        if recipe.digit_distortion:
            images = _distorted(images, recipe.digit_distortion)
        self.is_streamed = isinstance(images.train, datasets.IterableDataset)
        super().__init__(recipe, images)
        self.train_loss = SoftTargetCrossEntropy()
        self.mixup = build_mixup(recipe, len(images.label_names))

    @classmethod
    def load_images(cls, data: SourceOptions) -> Splits:
        images = load_images(
            data.dataset,
            streaming=data.streaming,
            train_split=data.train_split,
            eval_split=data.eval_split,
            image_column=data.image_column,
            label_column=data.label_column,
            label_names=data.num_labels,
        )
        if data.num_labels not in (None, len(images.label_names)):
            raise ValueError(
                f"--num_labels {data.num_labels} was given, but --dataset {data.dataset} names its "
                f"{len(images.label_names)} classes; leave it out."
            )
        if len(images.label_names) < 2:
            raise ValueError(
                f"--dataset {data.dataset} has {len(images.label_names)} class; give one with at least two to tell "
                "apart."
            )
        return dataclasses.replace(images, stream_length=data.num_train_images)

    @staticmethod
    def classes_in(truth: int, num_labels: int) -> list[int]:
        return [truth]

    def chance_loss(self) -> float:
        """Of the classes' shares of the evaluation images."""
        images = self.images.evaluation
        labels = images.labels if hasattr(images, "labels") else [images[index][1] for index in range(len(images))]
        shares = np.bincount(np.asarray(labels)) / len(labels)
        shares = shares[shares > 0]
        return float(-(shares * np.log(shares)).sum())

    def build_processor(self, **settings: Any) -> PixelViTImageProcessor:
        if self.recipe.eval_crop_pct is not None:
            settings["crop_pct"] = self.recipe.eval_crop_pct
        return super().build_processor(**settings)

    def build_train_transform(self, image_mean: list[float], image_std: list[float]) -> Any:
        return build_train_transform(self.recipe, image_mean, image_std)

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
        return self.train_transform(read_image(row["image"])), row["label"]

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

    def image_values(self, results: list[tuple[float, int]]) -> dict[str, list[float]]:
        losses, preferred = zip(*results, strict=True)
        return {"loss": list(losses), "accuracy": [100.0 * (count < 1) for count in preferred]}


def _percent(preferred: tuple[int, ...], within: int) -> float:
    return 100 * sum(count < within for count in preferred) / len(preferred)


def _distorted(images: Splits, distortion: float) -> Splits:
    if not hasattr(images.train, "distorted"):
        raise ValueError(
            f"digit_distortion={distortion:g} was given, but {images.name} are not the embedded digits; set it to 0 "
            "(crop_padding and horizontal_flip are for photographs)."
        )
    return dataclasses.replace(images, train=images.train.distorted(distortion))
