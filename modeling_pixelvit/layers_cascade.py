# Copyright 2026 The modeling_pixelvit team. All rights reserved.
# SPDX-License-Identifier: Apache-2.0
"""
From proposals to classes and boxes, in one stage (Fast R-CNN, arXiv 1504.08083) or several, each of which begins with
the boxes of the one before (Cascade R-CNN, arXiv 1712.00726).

Classes are counted from 1 inside this file; 0 is background.
"""

import dataclasses
import functools

import torch
from torch import nn
from torch.nn import functional as F
from torchvision.models.detection._utils import BalancedPositiveNegativeSampler, BoxCoder, Matcher
from torchvision.models.detection.faster_rcnn import FastRCNNConvFCHead
from torchvision.ops import box_iou

from .layers_boxes import clip, flags, has_sides, rois_of_lists, rois_of_places, rows_of, suppress, take
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

    def decode(self, deltas: torch.Tensor, boxes: torch.Tensor, limits: torch.Tensor) -> torch.Tensor:
        """Boxes `(n, 4)`, changed by `(n, k, 4)` and clipped to their image's `limits` `(n, 4)`: `(n, k, 4)`."""
        decoded = self.box_coder.decode_single(deltas.flatten(1), boxes).unflatten(1, (-1, 4))
        return clip(decoded, limits.unsqueeze(1))

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
        limits: torch.Tensor,
        dtype: torch.dtype,
    ) -> dict[str, torch.Tensor]:
        """
        Args:
            pyramid: float32 maps.
            samples: What `sample` gave. Later stages take the boxes that the one before makes of its own, all of
                them, and match them anew.
            targets: What `prepare_targets` gave.
            limits: `(batch_size, 4)` as in `layers_boxes`.
            dtype: Of the heads.

        Returns:
            float32 scalars `loss_classifier_stage1`, `loss_box_stage1` and so on.
        """
        losses = {}
        for number, stage in enumerate(self.stages, start=1):
            rois = rois_of_lists([sample.boxes for sample in samples])
            # All stages send gradients into the same features: their mean, not their sum.
            pooled = _ScaleGradient.apply(self.pool(pyramid, rois), 1 / len(self.stages))
            class_logits, deltas = stage(pooled.to(dtype))
            class_loss, box_loss = stage.losses(class_logits, deltas, samples, targets)
            losses[f"loss_classifier_stage{number}"] = class_loss
            losses[f"loss_box_stage{number}"] = box_loss
            if number < len(self.stages):
                image = rois[:, 0].long()
                refined = stage.decode(deltas.detach(), rois[:, 1:], limits[image])[:, 0]
                refined = refined.split([len(sample.boxes) for sample in samples])
                samples = [
                    # Clipping may leave nothing of a box.
                    self.stages[number].match(boxes[(boxes[:, 2:] > boxes[:, :2]).all(dim=1)], target)
                    for boxes, target in zip(refined, targets, strict=True)
                ]
        return losses

    def detect(
        self,
        pyramid: list[torch.Tensor],
        boxes: torch.Tensor,
        holds_box: torch.Tensor,
        limits: torch.Tensor,
        dtype: torch.dtype,
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """
        The best detections of each image after suppression by class.

        Args:
            pyramid, limits, dtype: As in `losses`.
            boxes: Proposals (B, P, 4).
            holds_box: Which places hold one (B, P).

        Returns:
            Boxes (B, K, 4) in pixels, scores (B, K), falling, and classes (B, K) from 0 on; K is `max_detections`, and
            the score is 0 where there is no detection.
        """
        rois, limits_of_rois = rois_of_places(boxes), limits.unsqueeze(1).expand_as(boxes).flatten(0, 1)
        refine = functools.partial(self.refine, pyramid, dtype)
        refined, scores = rows_of(holds_box.flatten(), refine, rois, limits_of_rois)
        refined, scores = refined.unflatten(0, boxes.shape[:2]), scores.unflatten(0, boxes.shape[:2])
        scores = scores.masked_fill(~(holds_box[..., None] & has_sides(refined, MIN_SIDE)), 0.0)
        return self.select(refined, scores, limits)

    def refine(
        self, pyramid: list[torch.Tensor], dtype: torch.dtype, rois: torch.Tensor, limits: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """What the stages make of RoIs (n, 5) with limits (n, 4): boxes (n, 1 or C, 4) and scores of classes (n, C)."""
        probabilities = 0
        for number, stage in enumerate(self.stages, start=1):
            class_logits, deltas = stage(self.pool(pyramid, rois).to(dtype))
            probabilities = probabilities + class_logits.softmax(dim=1) / len(self.stages)
            boxes = stage.decode(deltas, rois[:, 1:], limits)
            if number < len(self.stages):
                rois = torch.cat([rois[:, :1], boxes[:, 0].detach()], dim=1)
        return boxes, probabilities[:, 1:]

    def select(
        self, boxes: torch.Tensor, scores: torch.Tensor, limits: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """What `detect` returns, of boxes (B, P, 1 or C, 4) and scores (B, P, C), 0 where there is no box."""
        places, classes = scores.shape[1:]
        classes_of_box = classes // boxes.shape[2]  # that share it
        boxes, scores = boxes.flatten(1, 2), scores.flatten(1)
        candidates = (scores > self.score_threshold).flatten().nonzero()[:, 0]
        image, label = candidates // (places * classes), candidates % classes
        flat = boxes.flatten(0, 1)[candidates // classes_of_box], scores.flatten()[candidates]
        kept = suppress(*flat, image, label, classes, self.nms_threshold, limits.max())
        scores = scores.masked_fill(~flags(candidates[kept], scores), 0.0)
        scores, index = scores.topk(min(self.max_detections, places * classes), dim=1)
        boxes = take(boxes, index // classes_of_box)
        free = self.max_detections - index.shape[1]
        return F.pad(boxes, (0, 0, 0, free)), F.pad(scores, (0, free)), F.pad(index % classes, (0, free))
