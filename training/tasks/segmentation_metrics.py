# Copyright 2026 The modeling_pixelvit team. All rights reserved.
# SPDX-License-Identifier: Apache-2.0
"""What the training loop logs of semantic segmentation, from the confusion counts of single images."""

import numpy as np

from ..metrics.mean_iou.confusion import ConfusionMatrix


def segmentation_metrics(counts: list[np.ndarray], num_labels: int, ignore_index: int = 255) -> dict[str, float]:
    """
    The measures over all pixels of a set of images, in percent.

    Args:
        counts: Of each image int64 (n, 3), as `metrics.mean_iou.confusion.pixel_counts` makes them of a predicted map
            and labels in the image's own size.
        num_labels: Number of classes.
        ignore_index: Label of the pixels that do not count.

    Returns:
        "mean_iou", over the classes that occur in labels or predictions; "mean_accuracy", over those that occur in
        labels; "pixel_accuracy".

    Raises:
        ValueError: for a class out of range, or if no pixel counts.
    """
    confusion = ConfusionMatrix(num_labels, ignore_index)
    for image in counts:
        confusion.add(image)
    measures = confusion.metrics()
    return {
        "mean_iou": 100 * measures["mean_iou"],
        "mean_accuracy": 100 * measures["mean_accuracy"],
        "pixel_accuracy": 100 * measures["overall_accuracy"],
    }
