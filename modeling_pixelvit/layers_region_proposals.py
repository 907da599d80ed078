# Copyright 2026 The modeling_pixelvit team. All rights reserved.
# SPDX-License-Identifier: Apache-2.0
"""Region proposals (Faster R-CNN, arXiv 1506.01497, section 3) by torchvision's network on the pyramid's strides."""

import torch
from torch.nn import functional as F
from torchvision.models.detection.anchor_utils import AnchorGenerator
from torchvision.models.detection.rpn import RegionProposalNetwork, RPNHead, concat_box_prediction_layers

from .layers_boxes import clip, flags, has_sides, suppress, take
from .layers_detection_targets import covered_by_crowd
from .layers_weight_init import normal, note_weight_init


# Score of a place that holds no box: below every probability.
NO_BOX = -1.0


class StridedAnchorGenerator(AnchorGenerator):
    """
    Anchors of one size on each level, float32, at known strides. (torchvision's generator takes the image's size over
    the map's for the stride, which is off where the stride does not divide the image.)

    Args:
        sizes (`list[int]`): Side in pixels of the square anchor of each level.
        ratios (`list[float]`): Heights over widths.
        strides (`list[int]`): Stride in pixels of each level.
    """

    def __init__(self, sizes: list[int], ratios: list[float], strides: list[int]):
        super().__init__(tuple((size,) for size in sizes), (tuple(ratios),) * len(sizes))
        self.strides = tuple(strides)

    def forward(self, feature_maps: list[torch.Tensor]) -> torch.Tensor:
        """Anchors `(cells * ratios of all levels, 4)` as left, top, right, bottom in pixels, for every image alike."""
        self.set_cell_anchors(torch.float32, feature_maps[0].device)
        sizes = [tuple(feature_map.shape[-2:]) for feature_map in feature_maps]
        return torch.cat(self.grid_anchors(sizes, [(stride, stride) for stride in self.strides]))


class RegionProposals(RegionProposalNetwork):
    """torchvision's network with the numbers of `config`; its head runs in the model's dtype, the rest in float32."""

    def __init__(self, config):
        anchor_generator = StridedAnchorGenerator(config.anchor_sizes, config.anchor_ratios, config.detection_strides)
        super().__init__(
            anchor_generator,
            RPNHead(config.pyramid_channels, len(config.anchor_ratios), conv_depth=config.rpn_num_convs),
            fg_iou_thresh=config.rpn_foreground_threshold,
            bg_iou_thresh=config.rpn_background_threshold,
            batch_size_per_image=config.rpn_batch_size_per_image,
            positive_fraction=config.rpn_positive_fraction,
            pre_nms_top_n={"training": config.rpn_pre_nms_top_n_train, "testing": config.rpn_pre_nms_top_n_test},
            post_nms_top_n={"training": config.rpn_post_nms_top_n_train, "testing": config.rpn_post_nms_top_n_test},
            nms_thresh=config.rpn_nms_threshold,
        )
        note_weight_init(self.head, normal(0.01))

    def forward(
        self,
        pyramid: list[torch.Tensor],
        limits: torch.Tensor,
        targets: list[dict[str, torch.Tensor]] | None = None,
    ) -> tuple[torch.Tensor, torch.Tensor, dict[str, torch.Tensor]]:
        """
        Args:
            pyramid (list of `torch.Tensor` of shape `(batch_size, channels, rows, columns)`): One map for each stride.
            limits (`torch.Tensor` of shape `(batch_size, 4)`): As in `layers_boxes`.
            targets (list of dicts, *optional*): What `prepare_targets` makes of labels.

        Returns:
            The proposals, `(batch_size, P, 4)` float32 pixels inside the image, with the best ones first; which places
            hold one, `(batch_size, P)`; and with targets the losses, float32 scalars `loss_objectness` and
            `loss_rpn_box`.
        """
        objectness, deltas = ([output.float() for output in outputs] for outputs in self.head(pyramid))
        anchors_per_level = [level.shape[1:].numel() for level in objectness]
        objectness, deltas = concat_box_prediction_layers(objectness, deltas)
        anchors = self.anchor_generator(pyramid)
        boxes, holds_box = self.propose(objectness.detach(), deltas.detach(), anchors, anchors_per_level, limits)
        if targets is None:
            return boxes, holds_box, {}
        anchors = [anchors] * len(targets)
        labels, matched_boxes = self.assign_targets_to_anchors(anchors, targets)
        box_targets = self.box_coder.encode(matched_boxes, anchors)
        loss_objectness, loss_box = self.compute_loss(objectness, deltas, labels, box_targets)
        return boxes, holds_box, {"loss_objectness": loss_objectness, "loss_rpn_box": loss_box}

    def propose(
        self,
        objectness: torch.Tensor,
        deltas: torch.Tensor,
        anchors: torch.Tensor,
        anchors_per_level: list[int],
        limits: torch.Tensor,
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """
        What torchvision's `filter_proposals` does, in places: the best anchors of each level, changed and clipped to
        the image, those that are left after suppression on each level, and of these the best of all levels.
        """
        batch_size = limits.shape[0]
        decoded = self.box_coder.decode_single(deltas, anchors.repeat(batch_size, 1)).view(batch_size, -1, 4)
        by_level = zip(
            objectness.view(batch_size, -1).split(anchors_per_level, dim=1),
            decoded.split(anchors_per_level, dim=1),
            strict=True,
        )
        boxes, scores, levels = [], [], []
        for level, (objectness_of_level, boxes_of_level) in enumerate(by_level):
            count = min(self.pre_nms_top_n(), objectness_of_level.shape[1])
            best, index = objectness_of_level.topk(count, dim=1)
            boxes.append(take(boxes_of_level, index))
            scores.append(best.sigmoid())
            levels.append(torch.full_like(index, level))
        boxes = clip(torch.cat(boxes, dim=1), limits.unsqueeze(1))
        scores, levels = torch.cat(scores, dim=1), torch.cat(levels, dim=1)
        # Anchors in the padding lose their area when clipped to the image.
        is_box = has_sides(boxes, self.min_size) & (scores >= self.score_thresh)
        scores = scores.masked_fill(~is_box, NO_BOX)
        image = torch.arange(batch_size, device=boxes.device).unsqueeze(1).expand_as(levels).flatten()
        flat = boxes.flatten(0, 1), scores.flatten()
        kept = suppress(*flat, image, levels.flatten(), len(anchors_per_level), self.nms_thresh, limits.max())
        scores = scores.masked_fill(~flags(kept, scores), NO_BOX)
        best, index = scores.topk(min(self.post_nms_top_n(), scores.shape[1]), dim=1)
        return take(boxes, index), best > NO_BOX

    def assign_targets_to_anchors(self, anchors, targets):
        """As torchvision's; background inside a crowd region is left out (label -1)."""
        labels, matched_boxes = super().assign_targets_to_anchors(anchors, targets)
        for anchors_of_image, labels_of_image, target in zip(anchors, labels, targets, strict=True):
            if len(target["crowd_boxes"]):
                covered = covered_by_crowd(anchors_of_image, target["crowd_boxes"])
                labels_of_image[(labels_of_image == 0) & covered] = -1
        return labels, matched_boxes

    def compute_loss(self, objectness, pred_bbox_deltas, labels, regression_targets):
        """As torchvision's, but 0 where crowd regions leave no anchor to sample, which there is not a number."""
        positive, negative = (torch.where(torch.cat(part))[0] for part in self.fg_bg_sampler(labels))
        sampled = torch.cat([positive, negative])
        count = max(1, len(sampled))
        labels, regression_targets = torch.cat(labels), torch.cat(regression_targets)
        box_loss = F.smooth_l1_loss(
            pred_bbox_deltas[positive], regression_targets[positive], beta=1 / 9, reduction="sum"
        )
        objectness_loss = F.binary_cross_entropy_with_logits(
            objectness.flatten()[sampled], labels[sampled], reduction="sum"
        )
        return objectness_loss / count, box_loss / count
