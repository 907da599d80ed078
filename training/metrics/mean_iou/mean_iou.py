# Copyright 2026 The modeling_pixelvit team. All rights reserved.
# SPDX-License-Identifier: Apache-2.0
"""The metric `mean_iou` for `evaluate`: semantic segmentation over a whole evaluation set."""

import datasets
import evaluate
import numpy as np

from .confusion import ConfusionMatrix, pixel_counts


DESCRIPTION = """
IoU and accuracy of semantic segmentation, from one confusion matrix over all pixels of all images. The IoU of a class
is the number of its pixels that are predicted right over the number of those that are labelled or predicted as it.
"""

USAGE = """
Args:
    predictions: Of each image a map (H, W) of class indices. Images may differ in size.
    references: Of each image a map (H, W) of labels.
    num_labels: Number of classes.
    ignore_index: Label of the pixels that do not count; 255 if not given.
    reduce_labels: Whether label 0 stands for pixels that do not count either, and all others are one too high, as in
        the files of ADE20K; they are not if not given.

Returns:
    Shares from 0 to 1: "mean_iou", over the classes that occur in labels or predictions; "mean_accuracy", over those
    that occur in labels; "overall_accuracy", over the pixels; and the lists "per_category_iou" and
    "per_category_accuracy", NaN for the classes that a mean leaves out.

Raises:
    ValueError: if sizes, types or classes do not fit, or no pixel counts.

Examples:

    >>> import evaluate
    >>> mean_iou = evaluate.load("training/metrics/mean_iou")
    >>> mean_iou.add(prediction=[[0, 1], [1, 1]], reference=[[0, 0], [1, 255]])
    >>> mean_iou.add(prediction=[[0, 0, 0]], reference=[[0, 0, 0]])
    >>> results = mean_iou.compute(num_labels=3)
    >>> results["per_category_iou"]
    [0.8, 0.5, nan]
    >>> results["mean_iou"]
    0.65
"""


class MeanIou(evaluate.Metric):
    """See `USAGE`. Of an image only the confusion counts are kept, not its maps."""

    def _info(self) -> evaluate.MetricInfo:
        maps = datasets.List(datasets.List(datasets.Value("int64")))
        return evaluate.MetricInfo(
            description=DESCRIPTION,
            citation="",
            inputs_description=USAGE,
            features=datasets.Features({"predictions": maps, "references": maps}),
        )

    def add(self, *, prediction, reference):
        """Adds one image."""
        self.add_batch(predictions=[prediction], references=[reference])

    def add_batch(self, *, predictions, references):
        """Adds a batch of images."""
        if len(predictions) != len(references):
            raise ValueError(
                f"{len(predictions)} predictions and {len(references)} references were given; give a pair for each "
                "image."
            )
        counts = [pixel_counts(*maps) for maps in zip(predictions, references, strict=True)]
        # Each column keeps its side: the labels, and the classes with their pixels.
        super().add_batch(predictions=[rows[:, 1:] for rows in counts], references=[rows[:, :1] for rows in counts])

    def _compute(self, predictions, references, num_labels, ignore_index=255, reduce_labels=False):
        confusion = ConfusionMatrix(num_labels, ignore_index, reduce_labels)
        for predicted, labels in zip(predictions, references, strict=True):
            confusion.add(np.hstack([labels, predicted]))
        return confusion.metrics()
