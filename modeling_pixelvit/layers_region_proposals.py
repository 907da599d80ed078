# Copyright 2026 The modeling_pixelvit team. All rights reserved.
# SPDX-License-Identifier: Apache-2.0
"""Region proposals (Faster R-CNN, arXiv 1506.01497, section 3) by torchvision's network on the pyramid's strides."""

import torch
from torch.nn import functional as F
from torchvision.models.detection.anchor_utils import AnchorGenerator
from torchvision.models.detection.rpn import RegionProposalNetwork, RPNHead, concat_box_prediction_layers

from .layers_detection_targets import covered_by_crowd
from .layers_weight_init import normal, note_weight_init


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
        image_sizes: list[tuple[int, int]],
        targets: list[dict[str, torch.Tensor]] | None = None,
    ) -> tuple[list[torch.Tensor], dict[str, torch.Tensor]]:
        """
        Args:
            pyramid (list of `torch.Tensor` of shape `(batch_size, channels, rows, columns)`): One map for each stride.
            image_sizes (list of `(height, width)`): Of each image without padding.
            targets (list of dicts, *optional*): What `prepare_targets` makes of labels.

        Returns:
            The proposals of each image, `(n, 4)` float32 pixels inside the image, with the best ones first; and with
            targets the losses, float32 scalars `loss_objectness` and `loss_rpn_box`.
        """
        objectness, deltas = ([output.float() for output in outputs] for outputs in self.head(pyramid))
        anchors_per_level = [level[0].numel() for level in objectness]
        objectness, deltas = concat_box_prediction_layers(objectness, deltas)
        anchors = [self.anchor_generator(pyramid)] * len(image_sizes)
        proposals = self.box_coder.decode(deltas.detach(), anchors).view(len(image_sizes), -1, 4)
        # Anchors in the padding lose their area when clipped to the image, and are dropped.
        proposals, _ = self.filter_proposals(proposals, objectness, image_sizes, anchors_per_level)
        if targets is None:
            return proposals, {}
        labels, matched_boxes = self.assign_targets_to_anchors(anchors, targets)
        box_targets = self.box_coder.encode(matched_boxes, anchors)
        loss_objectness, loss_box = self.compute_loss(objectness, deltas, labels, box_targets)
        return proposals, {"loss_objectness": loss_objectness, "loss_rpn_box": loss_box}

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


__all__ = ["RegionProposals", "StridedAnchorGenerator"]
