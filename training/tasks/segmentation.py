# Copyright 2026 The modeling_pixelvit team. All rights reserved.
# SPDX-License-Identifier: Apache-2.0
"""Semantic segmentation: images and class maps in, cross-entropy of the pixels, mean IoU out."""

import functools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch.nn import functional as F

from modeling_pixelvit.image_post_processing import sliding_window_logits

from ..augmentation.geometry import padded
from ..augmentation.segmentation import build_segmentation_transform, collate_segmentation
from ..data.segmentation import IGNORED_LABEL, load_segmentation_splits
from ..data.splits import Splits
from ..families.base import SEGMENTER
from ..metrics.mean_iou.confusion import pixel_counts
from .base import IMAGE_WEIGHT, Batch, Score, SourceOptions, patch_size_of
from .dense import DenseTask
from .drawing import draw_segmentation
from .segmentation_metrics import segmentation_metrics


WINDOW_STRIDE = 2 / 3  # of the window's side, as mmsegmentation's 341 of 512


@dataclass(frozen=True)
class PixelResult:
    """
    Of one image: the cross-entropy summed over its pixels with a class, how many these are, and how often which class
    was taken for which, as `pixel_counts` tells.
    """

    loss: float
    num_pixels: int
    counts: np.ndarray


class SegmentationTask(DenseTask):
    """See [`DenseTask`]. The class maps are uint8 (height, width), 255 where there is no class."""

    name = "segmentation"
    architecture = SEGMENTER
    options = DenseTask.options | {"decoder", "reduce_labels", "num_labels", "eval_window"}
    loss_name = "mean cross-entropy of a pixel of the test images"
    scores = {
        "mean_iou": Score("mIoU", "mean IoU", "mean_iou"),
        "mean_accuracy": Score(None, "mean accuracy of the classes", "accuracy"),
        "pixel_accuracy": Score(None, "accuracy of the pixels", "accuracy"),
    }
    sweep_recipe = "segmentation-sweep"
    drawn_scores = ("mean_iou",)
    load_splits = staticmethod(load_segmentation_splits)
    train_transform_of = staticmethod(build_segmentation_transform)

    @classmethod
    def load_images(cls, data: SourceOptions) -> Splits:
        return super().load_images(
            data, mask_column=data.label_column, reduce_labels=data.reduce_labels, label_names=data.num_labels
        )

    @staticmethod
    def classes_in(truth: np.ndarray, num_labels: int) -> list[int]:
        return sorted({int(value) for value in truth.flat} & set(range(num_labels)))

    @staticmethod
    def draw_truth(image: Image.Image, truth: np.ndarray, label_names: list[str]) -> Image.Image:
        return draw_segmentation(image, truth, label_names)

    def chance_loss(self) -> float:
        """Of the classes' shares of the evaluation pixels."""
        num_classes = len(self.images.label_names)
        counts = np.zeros(num_classes)
        for index in range(self.num_eval):
            _, class_map = self.images.evaluation[index]
            counts += np.bincount(class_map[class_map < num_classes], minlength=num_classes)
        shares = counts[counts > 0] / counts.sum()
        return float(-(shares * np.log(shares)).sum())

    def eval_example(self, index: int) -> dict[str, Any]:
        """`pixel_values` (3, h, w) of the whole image, and its `class_map` (H, W) in the image's own size."""
        image, class_map = self.images.evaluation[index]
        pixels = self.processor(image, return_tensors="pt").pixel_values[0]
        return {"pixel_values": pixels, "class_map": torch.from_numpy(class_map).long()}

    def collate(self, examples: list[dict[str, Any]]) -> Batch:
        """
        Of training examples `pixel_values` and `labels`; of others `pixel_values`, padded at the bottom and right, with
        lists of their own `sizes` and of `class_maps`.
        """
        if "labels" in examples[0]:
            return collate_segmentation(examples)
        pixels = [example["pixel_values"] for example in examples]
        size = [max(image.shape[axis] for image in pixels) for axis in (-2, -1)]
        return {
            "pixel_values": torch.stack([padded(image, size, 0.0) for image in pixels]),
            "sizes": [tuple(image.shape[-2:]) for image in pixels],
            "class_maps": [example["class_map"] for example in examples],
        }

    def losses(self, model: torch.nn.Module, batch: Batch) -> dict[str, torch.Tensor]:
        outputs = model(pixel_values=batch["pixel_values"], labels=batch["labels"], **patch_size_of(batch))
        return {"loss": outputs.loss}

    def results(self, model: torch.nn.Module, batch: Batch) -> list[PixelResult]:
        """Of each image, from logits that no other image of the batch had a part in."""
        pixels, sizes = batch["pixel_values"], batch["sizes"]
        model = functools.partial(model, **patch_size_of(batch))
        if len(set(sizes)) == 1:
            logits = self._logits(model, pixels)
        else:
            images = zip(pixels, sizes, strict=True)
            logits = [self._logits(model, image[None, :, :height, :width])[0] for image, (height, width) in images]
        return [self._result(*pair) for pair in zip(logits, batch["class_maps"], strict=True)]

    def _logits(self, model: Callable[..., Any], pixel_values: torch.Tensor) -> torch.Tensor:
        side = self.recipe.eval_window
        if side is None:
            return model(pixel_values=pixel_values).logits
        stride = max(1, round(WINDOW_STRIDE * side))
        return sliding_window_logits(model, pixel_values, window=(side, side), stride=(stride, stride)).logits

    def _result(self, logits: torch.Tensor, class_map: torch.Tensor) -> PixelResult:
        logits = F.interpolate(logits[None].float(), size=class_map.shape, mode="bilinear", align_corners=False)
        loss = F.cross_entropy(logits, class_map[None], ignore_index=IGNORED_LABEL, reduction="sum")
        prediction = logits[0].argmax(0)
        counts = pixel_counts(prediction.cpu().numpy(), class_map.cpu().numpy())
        return PixelResult(loss.item(), int((class_map != IGNORED_LABEL).sum()), counts)

    def metrics(self, results: list[PixelResult]) -> dict[str, float]:
        """`loss`, the mean cross-entropy of a pixel; `mean_iou`, `mean_accuracy` and `pixel_accuracy` in percent."""
        num_pixels = sum(result.num_pixels for result in results)
        counts = [result.counts for result in results]
        return {
            "loss": sum(result.loss for result in results) / max(num_pixels, 1),
            **segmentation_metrics(counts, len(self.images.label_names), IGNORED_LABEL),
        }

    def image_values(self, results: list[PixelResult]) -> dict[str, list[float]]:
        """The mean loss of an image's pixels, which counts as often as it has pixels with a class."""
        return {
            "loss": [result.loss / max(result.num_pixels, 1) for result in results],
            IMAGE_WEIGHT: [result.num_pixels for result in results],
        }
