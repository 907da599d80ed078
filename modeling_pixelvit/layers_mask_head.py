# Copyright 2026 The modeling_pixelvit team. All rights reserved.
# SPDX-License-Identifier: Apache-2.0
"""The mask of a box's object (Mask R-CNN, arXiv 1703.06870, section 3): a picture of 28 by 28 cells for each class."""

import torch
from torch import nn
from torch.nn import functional as F
from torchvision.models.detection.mask_rcnn import MaskRCNNHeads, MaskRCNNPredictor
from torchvision.ops import roi_align

from .layers_boxes import rois_of_lists
from .layers_cascade import MatchedBoxes
from .layers_roi_align import PyramidRoIAlign
from .layers_simple_pyramid import ChannelNorm
from .layers_weight_init import MSRA, normal, note_weight_init


POOLED_SIZE = 14
MASK_SIZE = 2 * POOLED_SIZE


class MaskHead(nn.Module):
    """Convolutions on the pooled features of a box, then one mask for each class."""

    def __init__(self, config):
        super().__init__()
        channels = config.mask_head_channels
        self.pool = PyramidRoIAlign(config, POOLED_SIZE)
        self.mask_head = MaskRCNNHeads(
            config.pyramid_channels, [channels] * config.mask_head_num_convs, 1, norm_layer=ChannelNorm
        )
        width = channels if config.mask_head_num_convs else config.pyramid_channels
        self.mask_predictor = MaskRCNNPredictor(width, channels, config.num_labels)
        note_weight_init(self, MSRA)
        note_weight_init(self.mask_predictor.mask_fcn_logits, normal(0.001))

    def forward(
        self, pyramid: list[torch.Tensor], rois: torch.Tensor, labels: torch.Tensor, dtype: torch.dtype
    ) -> torch.Tensor:
        """
        Args:
            pyramid: float32 maps.
            rois: `(n, 5)` as in `layers_boxes`.
            labels: Classes of the boxes `(n,)`, from 1 on.
            dtype: Of the head.

        Returns:
            `torch.Tensor` of shape `(n, 28, 28)`: float32 logits of each box's class; cells divide the box.
        """
        logits = self.mask_predictor(self.mask_head(self.pool(pyramid, rois).to(dtype))).float()
        return logits[torch.arange(logits.shape[0], device=logits.device), labels - 1]

    def loss(
        self,
        pyramid: list[torch.Tensor],
        samples: list[MatchedBoxes],
        targets: list[dict[str, torch.Tensor]],
        dtype: torch.dtype,
    ) -> torch.Tensor:
        """
        Binary cross-entropy, mean over the cells of all objects among the samples, which are the first stage's, as in
        detectron2's cascade; 0 if there are none.
        """
        positive = [sample[sample.labels > 0] for sample in samples]
        labels = torch.cat([sample.labels for sample in positive])
        logits = self(pyramid, rois_of_lists([sample.boxes for sample in positive]), labels, dtype)
        pairs = zip(positive, targets, strict=True)
        wanted = torch.cat([mask_targets(target["masks"], sample, self.pool.aligned) for sample, target in pairs])
        return F.binary_cross_entropy_with_logits(logits, wanted, reduction="sum") / max(1, wanted.numel())


def mask_targets(masks: torch.Tensor, sample: MatchedBoxes, aligned: bool = True) -> torch.Tensor:
    """
    Share of each cell of the boxes that its object's mask covers.

    Args:
        masks: `(objects, height, width)`, 0 or 1 for each pixel of the image.
        sample: n boxes, each with an object.
        aligned: `config.roi_aligned`.

    Returns:
        `torch.Tensor` of shape `(n, 28, 28)`, float32 in [0, 1].
    """
    rois = torch.cat([sample.objects[:, None].float(), sample.boxes], dim=1)
    return roi_align(masks[:, None].float(), rois, MASK_SIZE, spatial_scale=1.0, aligned=aligned)[:, 0]
