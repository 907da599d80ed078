# Copyright 2026 The modeling_pixelvit team. All rights reserved.
# SPDX-License-Identifier: Apache-2.0
"""Fine-tuning for detection and instance segmentation: images and annotated objects in, COCO AP out."""

from ..tasks import detection as task_detection
from .dense import DenseFinetuneTask


class DetectionTask(DenseFinetuneTask):
    """See [`DenseFinetuneTask`]."""

    kind = "detection"
    hub_name = "object-detection"
    dense_task_class = task_detection.DetectionTask
