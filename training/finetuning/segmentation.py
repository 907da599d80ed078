# Copyright 2026 The modeling_pixelvit team. All rights reserved.
# SPDX-License-Identifier: Apache-2.0
"""Fine-tuning for semantic segmentation: images and class maps in, cross-entropy of the pixels, mean IoU out."""

from ..tasks import segmentation as task_segmentation
from .dense import DenseFinetuneTask


class SegmentationTask(DenseFinetuneTask):
    """See [`DenseFinetuneTask`]."""

    kind = "segmentation"
    hub_name = "image-segmentation"
    dense_task_class = task_segmentation.SegmentationTask
