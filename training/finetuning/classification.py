# Copyright 2026 The modeling_pixelvit team. All rights reserved.
# SPDX-License-Identifier: Apache-2.0
"""Fine-tuning for image classification: labelled images in, cross-entropy, accuracy out."""

from functools import partial
from typing import Any

import numpy as np
import torch
from PIL import Image
from timm.data.mixup import mixup_target
from torch.nn import functional as F
from torch.utils.data import Dataset, Subset
from transformers import BaseImageProcessor, EvalPrediction

from ..augmentation.classification import Examples, build_mixup, build_train_transform, stack
from ..data.sources import load_images
from ..settings.recipe import Recipe
from .arguments import DataArguments
from .task import FinetuneTask, ReadableExamples, normalization


class ClassificationTask(FinetuneTask):
    """See [`FinetuneTask`]. An example is a pair of pixels (3, H, W), float32, and a class index."""

    kind = "classification"
    hub_name = "image-classification"

    def __init__(self, data: DataArguments, recipe: Recipe):
        self.data, self.recipe = data, recipe
        images = load_images(
            data.dataset,
            train_split=data.train_split,
            eval_split=data.eval_split,
            image_column=data.image_column,
            label_column=data.label_column,
        )
        self.train = _first(images.train, data.max_train_samples)
        self.evaluation = _first(images.evaluation, data.max_eval_samples)
        self.name, self.label_names = images.name, list(images.label_names)
        self.image_mean, self.image_std = list(images.image_mean), list(images.image_std)
        if len(self.label_names) < 2:
            raise ValueError(
                f"--dataset {data.dataset} has {len(self.label_names)} class; give one with at least two to tell apart."
            )

    def trainer_options(self, processor: BaseImageProcessor) -> dict[str, Any]:
        recipe, num_classes = self.recipe, len(self.label_names)
        augment = build_train_transform(recipe, *normalization(processor))
        mixup = build_mixup(recipe, num_classes)
        is_soft = mixup is not None or recipe.label_smoothing > 0
        max_unreadable = self.data.max_unreadable_images
        return {
            "train_dataset": ReadableExamples(self.train, partial(_transform, augment), max_unreadable),
            "eval_dataset": ReadableExamples(self.evaluation, partial(_process, processor), max_unreadable),
            "data_collator": stack,
            "train_collator": SoftLabels(num_classes, recipe.label_smoothing, mixup) if is_soft else stack,
            "compute_loss_func": cross_entropy,
            "compute_metrics": accuracy,
        }


def _first(images: Dataset, most: int | None) -> Dataset:
    return images if most is None or most >= len(images) else Subset(images, range(most))


def _transform(transform: Any, image: Image.Image, label: int) -> tuple[torch.Tensor, int]:
    return transform(image), label


def _process(processor: BaseImageProcessor, image: Image.Image, label: int) -> tuple[torch.Tensor, int]:
    return processor(image, return_tensors="pt")["pixel_values"][0], label


class SoftLabels:
    """
    Collates training examples, smooths their labels and mixes them.

    Args:
        num_classes: Number of classes C.
        label_smoothing: Share of a label spread over all classes.
        mixup: timm's Mixup, with the same label smoothing, or None.

    The result has `labels` of shape (B, C).
    """

    def __init__(self, num_classes: int, label_smoothing: float, mixup: Any):
        self.num_classes, self.label_smoothing, self.mixup = num_classes, label_smoothing, mixup

    def __call__(self, examples: Examples) -> dict[str, torch.Tensor]:
        batch = stack(examples)
        pixels, labels = batch["pixel_values"], batch["labels"]
        if self.mixup is not None:
            pixels, soft = self.mixup(pixels, labels)
        else:
            soft = mixup_target(labels, self.num_classes, smoothing=self.label_smoothing)
        return {"pixel_values": pixels, "labels": soft}


def cross_entropy(outputs: Any, labels: torch.Tensor, num_items_in_batch: torch.Tensor | None = None) -> torch.Tensor:
    """
    The mean cross-entropy over the images of an optimizer step, or of `labels` alone if their number is not given.

    Args:
        outputs: With `logits` (B, C).
        labels: Class indices (B,) or soft labels (B, C).
        num_items_in_batch: As the Trainer counts, over all batches of a step and all processes: every number in
            `labels` is one item, so that an image with soft labels is C.
    """
    logits = outputs["logits"].float()
    total = F.cross_entropy(logits, labels, reduction="sum")
    if num_items_in_batch is None:
        return total / len(labels)
    return total * labels[0].numel() / num_items_in_batch


def accuracy(prediction: EvalPrediction) -> dict[str, float]:
    """Top-1 and, of more than five classes, top-5 accuracy in percent."""
    predictions = prediction.predictions
    # With hidden states or attentions, if the configuration asks for them.
    logits = predictions[0] if isinstance(predictions, tuple) else predictions
    # Ascending order of the negative puts a logit that is not a number last.
    best = np.argsort(-logits, axis=1, kind="stable")[:, :5] == prediction.label_ids[:, None]
    metrics = {"accuracy": 100 * best[:, 0].mean().item()}
    if logits.shape[1] > 5:
        metrics["accuracy_top5"] = 100 * best.any(axis=1).mean().item()
    return metrics
