# Copyright 2026 The modeling_pixelvit team. All rights reserved.
# SPDX-License-Identifier: Apache-2.0
"""The metric `accuracy` for `evaluate`: top-1 and top-5 from logits or ranked classes."""

import datasets
import evaluate
import numpy as np


DESCRIPTION = """
Top-k accuracy: the share of the examples whose right class is among the k that are predicted first.
"""

USAGE = """
Args:
    predictions: Of each example the logits (C,) of all classes; with the configuration "ranked" class indices, the
        most likely first, as many for every example. Of equal logits the first counts as the largest; a logit that is
        not a number is never right.
    references: Class indices (N,).
    top_k: Numbers k, each at most the number of classes that are predicted; 1, and of more than five classes (or five
        ranked ones) also 5, if not given.

Returns:
    "accuracy" for k = 1 and "accuracy_top<k>" for the others, each a share from 0 to 1.

Raises:
    ValueError: if shapes, classes or k do not fit.

Examples:

    >>> import evaluate
    >>> accuracy = evaluate.load("training/metrics/accuracy")
    >>> accuracy.compute(predictions=[[0.1, 2.0, 1.0], [3.0, 0.0, 1.0]], references=[1, 2], top_k=[1, 2])
    {'accuracy': 0.5, 'accuracy_top2': 1.0}
    >>> ranked = evaluate.load("training/metrics/accuracy", "ranked")
    >>> ranked.compute(predictions=[[4, 2, 0, 1, 7], [3, 2, 1, 0, 5]], references=[4, 0])
    {'accuracy': 0.5, 'accuracy_top5': 1.0}
"""

CONFIGURATIONS = ("default", "logits", "ranked")


class Accuracy(evaluate.Metric):
    """
    See `USAGE`. Of an example only the place of the right class is kept, not its logits.

    Args:
        config_name: "logits", which is the default, or "ranked".
    """

    def _info(self) -> evaluate.MetricInfo:
        if self.config_name not in CONFIGURATIONS:
            raise ValueError(f'The configuration "{self.config_name}" was given; it must be "logits" or "ranked".')
        return evaluate.MetricInfo(
            description=DESCRIPTION,
            citation="",
            inputs_description=USAGE,
            features=datasets.Features(
                {"predictions": datasets.List(datasets.Value("float64")), "references": datasets.Value("int64")}
            ),
        )

    def add(self, *, prediction, reference):
        """Adds one example."""
        self.add_batch(predictions=[prediction], references=[reference])

    def add_batch(self, *, predictions, references):
        """Adds a batch of examples."""
        predictions, references = np.asarray(predictions), np.asarray(references)
        if predictions.ndim != 2 or references.shape != predictions.shape[:1]:
            raise ValueError(
                f"Predictions of shape {predictions.shape} and references of shape {references.shape} were given; "
                "they must be (N, C), logits or ranked classes of each example, and (N,)."
            )
        places = _places_in_ranking if self.config_name == "ranked" else _places_by_logits
        num_classes = np.full(len(references), predictions.shape[1])
        kept = np.stack([places(predictions, references), num_classes], axis=1)
        super().add_batch(predictions=kept.astype(np.float64), references=references)

    def _compute(self, predictions, references, top_k=None):
        places, (num_classes, *others) = np.array(predictions)[:, 0], {row[1] for row in predictions}
        if others:
            raise ValueError(
                f"{int(num_classes)} and {int(others[0])} classes were predicted of different examples; give as many "
                "for each."
            )
        if top_k is None:
            enough_for_top5 = num_classes >= 5 if self.config_name == "ranked" else num_classes > 5
            top_k = (1, 5) if enough_for_top5 else (1,)
        for k in top_k:
            if not 1 <= k <= num_classes:
                raise ValueError(f"top_k has {k}, but {int(num_classes)} classes are predicted; take 1 to that many.")
        return {"accuracy" if k == 1 else f"accuracy_top{k}": float(np.mean(places < k)) for k in top_k}


def _places_by_logits(logits: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """How many other classes (N,) come before the right one; infinite where its logit is not a number."""
    if labels.size and not 0 <= labels.min() <= labels.max() < logits.shape[1]:
        raise ValueError(
            f"References from {labels.min()} to {labels.max()} were given for logits of {logits.shape[1]} classes; "
            f"they must be from 0 to {logits.shape[1] - 1}."
        )
    # Ascending order of the negative puts logits that are not a number last, in the order of their classes.
    ranked = np.argsort(-logits.astype(np.float64), axis=1, kind="stable")
    right = np.take_along_axis(logits, labels[:, None], axis=1)[:, 0]
    return np.where(np.isnan(right), np.inf, (ranked == labels[:, None]).argmax(axis=1))


def _places_in_ranking(ranked: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """The place (N,) of the right class, from 0; infinite where it is not among the ranked ones."""
    if ranked.dtype.kind not in "iu":
        raise ValueError(
            f"Ranked predictions of type {ranked.dtype} were given; they must be class indices (for logits load the "
            'metric without "ranked").'
        )
    hits = ranked == labels[:, None]
    return np.where(hits.any(axis=1), hits.argmax(axis=1), np.inf)
