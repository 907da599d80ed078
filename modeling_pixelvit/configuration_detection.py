# Copyright 2026 The modeling_pixelvit team. All rights reserved.
# SPDX-License-Identifier: Apache-2.0
"""The fields of the detection and instance segmentation models."""

import itertools

from huggingface_hub.dataclasses import strict

from .configuration_checks import LARGEST_INTEGER, CheckedConfig


# Samples of a cell grow with its square, and no weight tells how many there are.
LARGEST_SAMPLING_RATIO = 16
LARGEST_RATIO = 1000
MOST_CONVOLUTIONS = 64
MOST_SAMPLES = 2**31 - 1


@strict
class DetectionHeadConfig(CheckedConfig):
    r"""
    Part of [`PixelPreTrainedConfig`] that only the `...ForObjectDetection` models read. The defaults are those of
    detectron2's ViTDet (arXiv 2203.16527): a simple feature pyramid, Cascade Mask R-CNN, class-agnostic boxes.

    Args:
        use_cascade (`bool`, *optional*, defaults to `True`):
            Whether boxes are refined in as many stages as `cascade_iou_thresholds` (Cascade R-CNN, arXiv 1712.00726);
            else one stage at an IoU of 0.5 with boxes for each class, a plain Mask R-CNN (arXiv 1703.06870).
        use_masks (`bool`, *optional*, defaults to `True`): Whether each detection also has a mask.
        cascade_iou_thresholds (`list[float]`, *optional*, defaults to `[0.5, 0.6, 0.7]`):
            IoU from which a stage of the cascade counts a proposal as an object.
        detection_strides (`list[int]`, *optional*, defaults to `[4, 8, 16, 32, 64]`):
            Strides of the feature pyramid in pixels, each twice the one before. The last one serves the region
            proposals only.
        pyramid_channels (`int`, *optional*, defaults to 256): Channels of each level.
        anchor_sizes (`list[int]`, *optional*, defaults to `[32, 64, 128, 256, 512]`):
            Side in pixels of the square anchor on each level.
        anchor_ratios (`list[float]`, *optional*, defaults to `[0.5, 1.0, 2.0]`):
            Height over width of the anchors, their area kept.
        rpn_num_convs (`int`, *optional*, defaults to 2): Convolutions of the region proposal head.
        rpn_foreground_threshold, rpn_background_threshold (`float`, *optional*, default to 0.7 and 0.3):
            IoU from which an anchor is an object, and below which it is background.
        rpn_batch_size_per_image, rpn_positive_fraction (*optional*, default to 256 and 0.5):
            Anchors that the loss samples of an image, and the largest share of objects among them.
        rpn_pre_nms_top_n_train, rpn_pre_nms_top_n_test (`int`, *optional*, default to 2000 and 1000):
            Proposals of each level before non-maximum suppression.
        rpn_post_nms_top_n_train, rpn_post_nms_top_n_test (`int`, *optional*, default to 1000 each):
            Proposals of an image after it.
        rpn_nms_threshold (`float`, *optional*, defaults to 0.7): IoU above which it suppresses a proposal.
        roi_aligned (`bool`, *optional*, defaults to `True`):
            Whether RoIAlign, of features and of the masks to learn, counts from the pixels' corners, as detectron2's;
            else from their centres, half a pixel beside, as torchvision's Mask R-CNN.
        roi_sampling_ratio (`int`, *optional*, defaults to 0):
            Samples of RoIAlign in each direction of a cell, 2 in torchvision's Mask R-CNN; 0 takes as many as the cell
            has cells of the map, as detectron2; at most 16.
        box_head_num_convs, box_head_hidden_size (`int`, *optional*, default to 4 and 1024):
            Convolutions and width of the linear layer in each stage's box head.
        box_batch_size_per_image, box_positive_fraction (*optional*, default to 512 and 0.25):
            Proposals that the loss samples of an image, and the largest share of objects among them.
        box_score_threshold (`float`, *optional*, defaults to 0.05): Least score of a detection.
        box_nms_threshold (`float`, *optional*, defaults to 0.5):
            IoU above which a detection suppresses those of its class with lower scores.
        max_detections (`int`, *optional*, defaults to 100): Detections of an image.
        mask_head_num_convs, mask_head_channels (`int`, *optional*, default to 4 and 256):
            Convolutions and channels of the mask head, whose masks have 28 by 28 cells.
    """

    use_cascade: bool = True
    use_masks: bool = True
    cascade_iou_thresholds: list[float] | tuple[float, ...] = (0.5, 0.6, 0.7)
    detection_strides: list[int] | tuple[int, ...] = (4, 8, 16, 32, 64)
    pyramid_channels: int = 256
    anchor_sizes: list[int] | tuple[int, ...] = (32, 64, 128, 256, 512)
    anchor_ratios: list[float] | tuple[float, ...] = (0.5, 1.0, 2.0)
    rpn_num_convs: int = 2
    rpn_foreground_threshold: float | int = 0.7
    rpn_background_threshold: float | int = 0.3
    rpn_batch_size_per_image: int = 256
    rpn_positive_fraction: float | int = 0.5
    rpn_pre_nms_top_n_train: int = 2000
    rpn_pre_nms_top_n_test: int = 1000
    rpn_post_nms_top_n_train: int = 1000
    rpn_post_nms_top_n_test: int = 1000
    rpn_nms_threshold: float | int = 0.7
    roi_aligned: bool = True
    roi_sampling_ratio: int = 0
    box_head_num_convs: int = 4
    box_head_hidden_size: int = 1024
    box_batch_size_per_image: int = 512
    box_positive_fraction: float | int = 0.25
    box_score_threshold: float | int = 0.05
    box_nms_threshold: float | int = 0.5
    max_detections: int = 100
    mask_head_num_convs: int = 4
    mask_head_channels: int = 256

    @property
    def stage_iou_thresholds(self) -> list[float]:
        """IoU from which each stage counts a proposal as an object."""
        return list(self.cascade_iou_thresholds) if self.use_cascade else [0.5]

    def validate_architecture(self):
        super().validate_architecture()
        self._require_positive_integers(
            "pyramid_channels",
            "rpn_num_convs",
            "rpn_pre_nms_top_n_test",
            "rpn_post_nms_top_n_test",
            "box_head_hidden_size",
            "max_detections",
            "mask_head_channels",
        )
        # Of training: they bound how many are drawn of those that there are, and any number is "all of them".
        self._require_positive_integers(
            "rpn_batch_size_per_image",
            "rpn_pre_nms_top_n_train",
            "rpn_post_nms_top_n_train",
            "box_batch_size_per_image",
            most=MOST_SAMPLES,
        )
        self._require_counts("box_head_num_convs", "mask_head_num_convs", "roi_sampling_ratio")
        self._require_at_most(LARGEST_SAMPLING_RATIO, "roi_sampling_ratio")
        self._require_at_most(MOST_CONVOLUTIONS, "rpn_num_convs", "box_head_num_convs", "mask_head_num_convs")
        self._require_shares(
            "rpn_foreground_threshold",
            "rpn_background_threshold",
            "rpn_positive_fraction",
            "rpn_nms_threshold",
            "box_positive_fraction",
            "box_score_threshold",
            "box_nms_threshold",
        )
        self._require(
            self.rpn_background_threshold <= self.rpn_foreground_threshold,
            "rpn_background_threshold",
            f"it must be at most rpn_foreground_threshold={self.rpn_foreground_threshold}",
        )
        self._require_list("detection_strides")
        strides = list(self.detection_strides)
        self._require(
            len(strides) >= 2
            and strides[0] >= 1
            and strides[-1] <= LARGEST_INTEGER
            and all(after == 2 * before for before, after in itertools.pairwise(strides)),
            "detection_strides",
            f"it must be a list of at least two integers of at most {LARGEST_INTEGER}, each twice the one before",
        )
        self._require(
            len(self.anchor_sizes) == len(strides)
            and min(self.anchor_sizes) >= 1
            and max(self.anchor_sizes) <= LARGEST_INTEGER,
            "anchor_sizes",
            f"it must have one size from 1 to {LARGEST_INTEGER} for each of the {len(strides)} detection_strides",
        )
        # An IoU is at most 1; a ratio ends where a side would be no number any more.
        for field, least, most in (
            ("anchor_ratios", 1 / LARGEST_RATIO, LARGEST_RATIO),
            ("cascade_iou_thresholds", 0, 1),
        ):
            self._require_list(field)
            self._require(
                all(least <= value <= most and value > 0 for value in getattr(self, field)),
                field,
                f"it must be a list of numbers above 0, from {least} to {most}",
            )
