# Copyright 2026 The modeling_pixelvit team. All rights reserved.
# SPDX-License-Identifier: Apache-2.0
"""Which classes a segmentation takes for which: counted for each image, measured over a whole set."""

from typing import Any

import numpy as np


def pixel_counts(prediction: Any, labels: Any) -> np.ndarray:
    """
    How often the labels of one image meet the predicted classes: small whatever the image's size, and the same
    whatever is ignored or counted in the end.

    Args:
        prediction, labels: Maps (H, W) of integers, as arrays, tensors on the CPU or nested lists.

    Returns:
        int64 (n, 3): label, predicted class and the number of pixels that have both, for each such pair that occurs.

    Raises:
        ValueError: if the maps are not two maps of integers of one size.
    """
    prediction, labels = np.asarray(prediction), np.asarray(labels)
    if prediction.shape != labels.shape or prediction.ndim != 2 or not prediction.size:
        raise ValueError(
            f"A predicted map of shape {prediction.shape} and labels of shape {labels.shape} were given; both must be "
            "(height, width) of one image."
        )
    if prediction.dtype.kind not in "iu" or labels.dtype.kind not in "iu":
        raise ValueError(
            f"A predicted map of {prediction.dtype} and labels of {labels.dtype} were given; both must hold the "
            "classes of the pixels as integers."
        )
    prediction, labels = prediction.astype(np.int64), labels.astype(np.int64)
    lowest, lowest_label = prediction.min(), labels.min()
    width = prediction.max() - lowest + 1
    pairs, pixels = np.unique((labels - lowest_label) * width + (prediction - lowest), return_counts=True)
    return np.stack([pairs // width + lowest_label, pairs % width + lowest, pixels], axis=1)


class ConfusionMatrix:
    """
    Pixels of a whole evaluation set by label and predicted class, in `matrix`, int64 (num_labels, num_labels).

    Args:
        num_labels: Number of classes.
        ignore_index: Label of the pixels that do not count.
        reduce_labels: Whether label 0 stands for pixels that do not count either, and all others are one too high, as
            in the files of ADE20K.
    """

    def __init__(self, num_labels: int, ignore_index: int = 255, reduce_labels: bool = False):
        if num_labels < 1:
            raise ValueError(f"num_labels={num_labels} was given; it must be at least 1.")
        self.num_labels, self.ignore_index, self.reduce_labels = num_labels, ignore_index, reduce_labels
        self.matrix = np.zeros((num_labels, num_labels), dtype=np.int64)

    def add(self, counts: np.ndarray):
        """
        Adds the counts of an image.

        Args:
            counts: int64 (n, 3), as `pixel_counts` makes them.

        Raises:
            ValueError: for a label or, where the label counts, a predicted class out of range.
        """
        labels, predicted, pixels = counts.T
        is_counted = labels != self.ignore_index
        if self.reduce_labels:
            is_counted &= labels != 0
            labels = labels - 1
        labels, predicted, pixels = labels[is_counted], predicted[is_counted], pixels[is_counted]
        for name, classes in (("label", labels), ("predicted class", predicted)):
            wrong = classes[(classes < 0) | (classes >= self.num_labels)]
            if wrong.size:
                raise ValueError(
                    f"There is a {name} {wrong[0]}{' after reducing' if self.reduce_labels else ''}, but num_labels="
                    f"{self.num_labels} allows 0 to {self.num_labels - 1} and ignore_index={self.ignore_index} for "
                    "labels; check these settings and reduce_labels."
                )
        np.add.at(self.matrix, (labels, predicted), pixels)

    def metrics(self) -> dict[str, Any]:
        """
        The measures of the matrix as shares from 0 to 1.

        Returns:
            "mean_iou": mean of the IoU over the classes that occur in labels or predictions. "mean_accuracy": mean over
            the classes that occur in labels of the share of their pixels that is right. "overall_accuracy": share of
            all pixels that is right. "per_category_iou" and "per_category_accuracy": of each class, NaN where a mean
            leaves it out.

        Raises:
            ValueError: if no pixel counts.
        """
        right, labelled, predicted = self.matrix.diagonal(), self.matrix.sum(axis=1), self.matrix.sum(axis=0)
        if not labelled.sum():
            raise ValueError(
                f"No pixel has a class: all labels are ignored (ignore_index={self.ignore_index}, reduce_labels="
                f"{self.reduce_labels}) or no image was added; check the labels."
            )
        iou, accuracy = _share(right, labelled + predicted - right), _share(right, labelled)
        return {
            "mean_iou": float(np.nanmean(iou)),
            "mean_accuracy": float(np.nanmean(accuracy)),
            "overall_accuracy": float(right.sum() / labelled.sum()),
            "per_category_iou": iou.tolist(),
            "per_category_accuracy": accuracy.tolist(),
        }


def _share(part: np.ndarray, whole: np.ndarray) -> np.ndarray:
    return np.divide(part, whole, out=np.full(len(part), np.nan), where=whole > 0)
