# Copyright 2026 The modeling_pixelvit team. All rights reserved.
# SPDX-License-Identifier: Apache-2.0
"""
From proposals to classes and boxes, in one stage (Fast R-CNN, arXiv 1504.08083) or several, each of which begins with
the boxes of the one before (Cascade R-CNN, arXiv 1712.00726).

Classes are counted from 1 inside this file; 0 is background.
"""

import dataclasses
import math

import torch
from torch import nn
from torch.nn import functional as F
from torchvision.models.detection._utils import BalancedPositiveNegativeSampler, BoxCoder, Matcher
from torchvision.models.detection.faster_rcnn import FastRCNNConvFCHead
from torchvision.ops import box_iou, clip_boxes_to_image, nms
from torchvision.ops.boxes import remove_small_boxes

from .layers_detection_targets import covered_by_crowd
from .layers_roi_align import PyramidRoIAlign
from .layers_simple_pyramid import ChannelNorm
from .layers_weight_init import MSRA, XAVIER, normal, note_weight_init


POOLED_SIZE = 7
# Least side in pixels of a detection.
MIN_SIDE = 1e-2
# Label of a box that is neither object nor background.
IGNORED = -1


@dataclasses.dataclass(frozen=True)
class MatchedBoxes:
    """
    Boxes of one image with what a stage's loss takes them for.

    Args:
        boxes: `(n, 4)` pixels.
        objects: `(n,)` int64, index of the object that a box with a label above 0 stands for.
        labels: `(n,)` int64, a class from 1 on, 0 for background or -1 for a box that the loss leaves out.
    """

    boxes: torch.Tensor
    objects: torch.Tensor
    labels: torch.Tensor

    def __getitem__(self, chosen: torch.Tensor) -> "MatchedBoxes":
        return MatchedBoxes(self.boxes[chosen], self.objects[chosen], self.labels[chosen])


class _ScaleGradient(torch.autograd.Function):
    """The identity, whose gradient is multiplied by a number."""

    @staticmethod
    def forward(ctx, features: torch.Tensor, scale: float) -> torch.Tensor:
        ctx.scale = scale
        return features.view_as(features)

    @staticmethod
    def backward(ctx, gradient: torch.Tensor) -> tuple[torch.Tensor, None]:
        return gradient * ctx.scale, None


class BoxStage(nn.Module):
    """
    One stage: head, the two predictors, and what it counts as an object.

    A cascade's boxes are the same for all classes and its box loss is L1, as in detectron2's ViTDet; a single stage has
    boxes for each class and torchvision's smooth L1.

    Args:
        config: The model's configuration.
        index (`int`): Place of the stage, from 0. Box changes are stored 10 (x, y) and 5 (width, height) times as
            large in the first stage, twice that in the second, and so on, since later ones have less to change.
    """

    def __init__(self, config, index: int):
        super().__init__()
        channels, width = config.pyramid_channels, config.box_head_hidden_size
        self.box_head = FastRCNNConvFCHead(
            (channels, POOLED_SIZE, POOLED_SIZE), [channels] * config.box_head_num_convs, [width], ChannelNorm
        )
        self.class_predictor = nn.Linear(width, config.num_labels + 1)
        self.box_predictor = nn.Linear(width, 4 if config.use_cascade else 4 * config.num_labels)
        note_weight_init(self.box_head, MSRA)
        note_weight_init(self.box_head[-2], XAVIER)  # the linear layer
        note_weight_init(self.class_predictor, normal(0.01))
        note_weight_init(self.box_predictor, normal(0.001))
        threshold = config.stage_iou_thresholds[index]
        self.matcher = Matcher(threshold, threshold)
        scale = index + 1.0
        self.box_coder = BoxCoder((10 * scale, 10 * scale, 5 * scale, 5 * scale))
        self.box_loss_beta = 0.0 if config.use_cascade else 1 / 9

    def forward(self, pooled: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """
        Args:
            pooled (`torch.Tensor` of shape `(n, channels, 7, 7)`): Features of boxes.

        Returns:
            `class_logits` of shape `(n, 1 + num_labels)` with background first and `deltas` of shape
            `(n, 1 or num_labels, 4)`, both float32.
        """
        hidden = self.box_head(pooled)
        return self.class_predictor(hidden).float(), self.box_predictor(hidden).float().unflatten(1, (-1, 4))

    def decode(self, deltas: torch.Tensor, boxes: torch.Tensor, image_size: tuple[int, int]) -> torch.Tensor:
        """Boxes `(n, 4)` of an image, changed by `(n, k, 4)` and clipped to the image: `(n, k, 4)`."""
        decoded = self.box_coder.decode_single(deltas.flatten(1), boxes).unflatten(1, (-1, 4))
        return clip_boxes_to_image(decoded, image_size)

    def match(self, boxes: torch.Tensor, target: dict[str, torch.Tensor]) -> MatchedBoxes:
        """Gives each of an image's boxes to the object it overlaps most, if that is enough at this stage."""
        if len(boxes) == 0 or len(target["boxes"]) == 0:
            objects = labels = torch.zeros(len(boxes), dtype=torch.int64, device=boxes.device)
        else:
            matches = self.matcher(box_iou(target["boxes"], boxes))
            objects = matches.clamp(min=0)
            labels = torch.where(matches >= 0, target["labels"][objects], 0)
        if len(target["crowd_boxes"]):
            covered = covered_by_crowd(boxes, target["crowd_boxes"])
            labels = torch.where((labels == 0) & covered, IGNORED, labels)
        return MatchedBoxes(boxes, objects, labels)

    def losses(
        self,
        class_logits: torch.Tensor,
        deltas: torch.Tensor,
        samples: list[MatchedBoxes],
        targets: list[dict[str, torch.Tensor]],
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Class and box loss over the boxes of all images, each divided by the number of boxes that count."""
        labels = torch.cat([sample.labels for sample in samples])
        count = (labels != IGNORED).sum().clamp(min=1)
        class_loss = F.cross_entropy(class_logits, labels, ignore_index=IGNORED, reduction="sum") / count
        positive = torch.where(labels > 0)[0]
        objects = [
            target["boxes"][sample.objects[sample.labels > 0]] for sample, target in zip(samples, targets, strict=True)
        ]
        boxes = torch.cat([sample.boxes for sample in samples])[positive]
        wanted = self.box_coder.encode_single(torch.cat(objects), boxes)
        of_class = labels[positive] - 1 if deltas.shape[1] > 1 else torch.zeros_like(positive)
        box_loss = F.smooth_l1_loss(deltas[positive, of_class], wanted, beta=self.box_loss_beta, reduction="sum")
        return class_loss, box_loss / count


class BoxStages(nn.Module):
    """All stages, the features they read, and the choice of samples and detections."""

    def __init__(self, config):
        super().__init__()
        self.pool = PyramidRoIAlign(config, POOLED_SIZE)
        self.stages = nn.ModuleList([BoxStage(config, index) for index in range(len(config.stage_iou_thresholds))])
        self.sampler = BalancedPositiveNegativeSampler(config.box_batch_size_per_image, config.box_positive_fraction)
        self.score_threshold = config.box_score_threshold
        self.nms_threshold = config.box_nms_threshold
        self.max_detections = config.max_detections

    def sample(self, proposals: list[torch.Tensor], targets: list[dict[str, torch.Tensor]]) -> list[MatchedBoxes]:
        """The first stage's training boxes: of proposals and true boxes, so many of each kind as the config says."""
        matched = [
            self.stages[0].match(torch.cat([boxes, target["boxes"]]), target)
            for boxes, target in zip(proposals, targets, strict=True)
        ]
        positive, negative = self.sampler([sample.labels for sample in matched])
        return [
            sample[torch.where(is_positive | is_negative)[0]]
            for sample, is_positive, is_negative in zip(matched, positive, negative, strict=True)
        ]

    def losses(
        self,
        pyramid: list[torch.Tensor],
        samples: list[MatchedBoxes],
        targets: list[dict[str, torch.Tensor]],
        image_sizes: list[tuple[int, int]],
        dtype: torch.dtype,
    ) -> dict[str, torch.Tensor]:
        """
        Args:
            pyramid: float32 maps.
            samples: What `sample` gave. Later stages take the boxes that the one before makes of its own, all of
                them, and match them anew.
            targets: What `prepare_targets` gave.
            image_sizes: Height and width of each image.
            dtype: Of the heads.

        Returns:
            float32 scalars `loss_classifier_stage1`, `loss_box_stage1` and so on.
        """
        losses = {}
        for number, stage in enumerate(self.stages, start=1):
            boxes = [sample.boxes for sample in samples]
            # All stages send gradients into the same features: their mean, not their sum.
            pooled = _ScaleGradient.apply(self.pool(pyramid, boxes), 1 / len(self.stages))
            class_logits, deltas = stage(pooled.to(dtype))
            class_loss, box_loss = stage.losses(class_logits, deltas, samples, targets)
            losses[f"loss_classifier_stage{number}"] = class_loss
            losses[f"loss_box_stage{number}"] = box_loss
            if number < len(self.stages):
                samples = self._samples_of_next(stage, self.stages[number], deltas, boxes, targets, image_sizes)
        return losses

    @torch.no_grad()
    def _samples_of_next(self, stage, next_stage, deltas, boxes, targets, image_sizes) -> list[MatchedBoxes]:
        samples = []
        for deltas_of_image, boxes_of_image, target, size in zip(
            deltas.split([len(one) for one in boxes]), boxes, targets, image_sizes, strict=True
        ):
            refined = stage.decode(deltas_of_image, boxes_of_image, size)[:, 0]
            refined = refined[(refined[:, 2:] > refined[:, :2]).all(dim=1)]  # clipping may leave nothing of a box
            samples.append(next_stage.match(refined, target))
        return samples

    def detect(
        self,
        pyramid: list[torch.Tensor],
        proposals: list[torch.Tensor],
        image_sizes: list[tuple[int, int]],
        dtype: torch.dtype,
    ) -> list[dict[str, torch.Tensor]]:
        """
        Args:
            pyramid, image_sizes, dtype: As in `losses`.
            proposals: Boxes of each image.

        Returns:
            For each image a dict of at most `max_detections` `boxes` (n, 4) in pixels, `scores` (n,), the largest
            first, and `labels` (n,) from 1 on.
        """
        counts = [len(boxes) for boxes in proposals]
        boxes, probabilities = proposals, 0
        for number, stage in enumerate(self.stages, start=1):
            class_logits, deltas = stage(self.pool(pyramid, boxes).to(dtype))
            probabilities = probabilities + class_logits.softmax(dim=1) / len(self.stages)
            boxes = [
                stage.decode(deltas_of_image, boxes_of_image, size)
                for deltas_of_image, boxes_of_image, size in zip(deltas.split(counts), boxes, image_sizes, strict=True)
            ]
            if number < len(self.stages):
                boxes = [boxes_of_image[:, 0].detach() for boxes_of_image in boxes]
        return [
            self._best(boxes_of_image, scores[:, 1:])
            for boxes_of_image, scores in zip(boxes, probabilities.split(counts), strict=True)
        ]

    def _best(self, boxes: torch.Tensor, scores: torch.Tensor) -> dict[str, torch.Tensor]:
        """Detections of an image among boxes `(n, 1 or num_labels, 4)` with scores `(n, num_labels)`."""
        num_labels = scores.shape[1]
        box, label = torch.where(scores > self.score_threshold)
        scores = scores[box, label]
        boxes = boxes[box, label if boxes.shape[1] > 1 else 0]
        large = remove_small_boxes(boxes, MIN_SIDE)
        boxes, scores, label = boxes[large], scores[large], label[large]
        largest = boxes.detach().max() if len(boxes) else 0.0
        kept = suppress(boxes, scores, 0, label, num_labels, self.nms_threshold, largest)[: self.max_detections]
        return {"boxes": boxes[kept], "scores": scores[kept], "labels": label[kept] + 1}


def suppress(
    boxes: torch.Tensor,
    scores: torch.Tensor,
    images: torch.Tensor | int,
    classes: torch.Tensor,
    num_classes: int,
    threshold: float,
    largest: torch.Tensor | float,
) -> torch.Tensor:
    """
    Indices of the boxes `(n, 4)` that no better one of the same image and class overlaps by more than `threshold`, best
    first.

    One call does for all, each class of each image moved to a place of its own. The places of an image form a square,
    since in one row the last of a thousand classes would be a million pixels away, where float32 knows no fractions of
    one (torchvision's `batched_nms` does that).

    Args:
        images, classes: Of each box (n,), from 0 on.
        num_classes: In all.
        largest: The largest coordinate that a box can have.
    """
    side = math.ceil(math.sqrt(num_classes))
    place = torch.stack([classes % side, images * side + classes // side], dim=1) * (largest + 1)
    return nms(boxes + place.repeat(1, 2), scores, threshold)


__all__ = ["BoxStage", "BoxStages", "MatchedBoxes", "suppress"]
