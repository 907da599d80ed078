# Copyright 2026 The modeling_pixelvit team. All rights reserved.
# SPDX-License-Identifier: Apache-2.0
"""Features of boxes: RoIAlign (Mask R-CNN, arXiv 1703.06870, section 3) on the level of the pyramid that fits a box."""

import math

import torch
from torch import nn
from torchvision.ops import roi_align


# A box of 224 by 224 pixels is pooled from the level of stride 16 (FPN, arXiv 1612.03144, equation 1).
CANONICAL_BOX, CANONICAL_STRIDE = 224, 16


class PyramidRoIAlign(nn.Module):
    """
    RoIAlign on the level that fits a box. (torchvision's `MultiScaleRoIAlign` guesses strides from sizes, and counts
    from the pixels' centres only.)

    Args:
        config: Has `roi_aligned`, `roi_sampling_ratio` and `detection_strides`, each stride twice the one before; of
            the last level no box is pooled.
        output_size (`int`): Rows and columns that are made of a box.
    """

    def __init__(self, config, output_size: int):
        super().__init__()
        self.strides = tuple(config.detection_strides[:-1])
        self.output_size = output_size
        self.aligned, self.sampling_ratio = config.roi_aligned, config.roi_sampling_ratio

    def forward(self, pyramid: list[torch.Tensor], rois: torch.Tensor) -> torch.Tensor:
        """
        Args:
            pyramid (list of `torch.Tensor` of shape `(batch_size, channels, rows, columns)`): float32 maps, one for
                each stride and perhaps coarser ones, which are not read.
            rois (`torch.Tensor` of shape `(n, 5)`): As in `layers_boxes`, float32.

        Returns:
            `torch.Tensor` of shape `(n, channels, output_size, output_size)`, float32.
        """
        levels = self.level_of(rois[:, 1:])
        pooled = pyramid[0].new_zeros(rois.shape[0], pyramid[0].shape[1], self.output_size, self.output_size)
        for level, stride in enumerate(self.strides):
            chosen = torch.where(levels == level)[0]
            pooled[chosen] = roi_align(
                pyramid[level], rois[chosen], self.output_size, 1 / stride, self.sampling_ratio, self.aligned
            )
        return pooled

    def level_of(self, boxes: torch.Tensor) -> torch.Tensor:
        """Index of the level from which each box of `(n, 4)` is pooled."""
        sides = (boxes[:, 2:] - boxes[:, :2]).prod(dim=1).sqrt()
        canonical_level = math.log2(CANONICAL_STRIDE / self.strides[0])
        levels = torch.floor(canonical_level + torch.log2(sides / CANONICAL_BOX) + 1e-6)
        return levels.clamp(min=0, max=len(self.strides) - 1).long()

    def extra_repr(self) -> str:
        settings = f"aligned={self.aligned}, sampling_ratio={self.sampling_ratio}"
        return f"strides={self.strides}, output_size={self.output_size}, {settings}"
