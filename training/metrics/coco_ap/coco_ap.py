# Copyright 2026 The modeling_pixelvit team. All rights reserved.
# SPDX-License-Identifier: Apache-2.0
"""The metric `coco_ap` for `evaluate`: average precision of boxes and masks as COCO measures it."""

from typing import Any

import datasets
import evaluate

from .coco_evaluation import coco_metrics, prediction_record, reference_record


DESCRIPTION = """
Average precision (AP) and recall (AR) of detected boxes and masks as COCO defines them, computed by pycocotools.
"""

CITATION = """
@inproceedings{lin2014coco,
    title = {Microsoft {COCO}: Common Objects in Context},
    author = {Lin, Tsung-Yi and Maire, Michael and Belongie, Serge and Hays, James and Perona, Pietro and
              Ramanan, Deva and Dollár, Piotr and Zitnick, C. Lawrence},
    booktitle = {European Conference on Computer Vision},
    year = {2014}
}
"""

USAGE = """
Args:
    predictions: Of each image a dict: "image_id", "boxes" (n, 4) as x0, y0, x1, y1 in pixels, "scores" (n,), "labels"
        (n,) class indices, and for masks "masks": an array (n, H, W) of booleans or integers, or n RLE dicts.
    references: Of each image a dict in the same order: "image_id", "boxes", "labels", "masks" likewise; "area" (n,)
        pixels, those of the masks or else of the boxes if not given; "iscrowd" (n,), 0 if not given.
    iou_types: "bbox" for boxes, "segm" for masks, or both in a list; ["bbox"] if not given.
    per_class: Whether to give the AP of each class too; it is not if not given.

Returns:
    For each IoU type, for instance "bbox": "bbox_AP", "bbox_AP50", "bbox_AP75", "bbox_AP_small", "bbox_AP_medium",
    "bbox_AP_large", "bbox_AR1", "bbox_AR10", "bbox_AR100", "bbox_AR_small", "bbox_AR_medium" and "bbox_AR_large", each
    a share from 0 to 1, or -1 where there is no object that defines it; with per_class "bbox_AP_per_class", a dict of
    AP by class index.

Raises:
    ValueError: if the numbers of boxes, labels, scores and masks differ, an image occurs twice, or masks are missing.

Examples:

    >>> import evaluate
    >>> coco_ap = evaluate.load("training/metrics/coco_ap")
    >>> found = {"image_id": 7, "boxes": [[8, 8, 40, 40], [50, 50, 60, 60]], "scores": [0.9, 0.4], "labels": [0, 3]}
    >>> reference = {"image_id": 7, "boxes": [[8, 8, 40, 36]], "labels": [0]}
    >>> results = coco_ap.compute(predictions=[found], references=[reference])
    >>> round(results["bbox_AP"], 3), round(results["bbox_AP75"], 3)
    (0.8, 1.0)
"""

COMMON_FEATURES = {
    "image_id": datasets.Value("int64"),
    "boxes": datasets.List(datasets.List(datasets.Value("float64"))),
    "labels": datasets.List(datasets.Value("int64")),
    "masks": datasets.List(datasets.Value("string")),
    "mask_size": datasets.List(datasets.Value("int64")),
}
PREDICTION_KEYS = {"image_id", "boxes", "scores", "labels"}
REFERENCE_KEYS = {"image_id", "boxes", "labels"}


class CocoAp(evaluate.Metric):
    """See `USAGE`. Masks are kept as run lengths."""

    def _info(self) -> evaluate.MetricInfo:
        numbers = datasets.List(datasets.Value("float64"))
        return evaluate.MetricInfo(
            description=DESCRIPTION,
            citation=CITATION,
            inputs_description=USAGE,
            features=datasets.Features(
                {
                    "predictions": {**COMMON_FEATURES, "scores": numbers},
                    "references": {
                        **COMMON_FEATURES,
                        "area": numbers,
                        "iscrowd": datasets.List(datasets.Value("int64")),
                    },
                }
            ),
            reference_urls=["https://cocodataset.org/#detection-eval"],
        )

    def add(self, *, prediction, reference):
        """Adds one image."""
        self.add_batch(predictions=[prediction], references=[reference])

    def add_batch(self, *, predictions, references):
        """Adds a batch of images."""
        for prediction in predictions:
            _check_keys("prediction", prediction, PREDICTION_KEYS, {"masks"})
        for reference in references:
            _check_keys("reference", reference, REFERENCE_KEYS, {"masks", "area", "iscrowd"})
        images = [[int(image["image_id"]) for image in batch] for batch in (predictions, references)]
        if images[0] != images[1]:
            raise ValueError(
                f"Predictions for the images {images[0]} and references for {images[1]} were given; a batch must have "
                "both of the same images in the same order."
            )
        super().add_batch(
            predictions=[prediction_record(**prediction) for prediction in predictions],
            references=[reference_record(**reference) for reference in references],
        )

    def _compute(self, predictions, references, iou_types=("bbox",), per_class=False):
        iou_types = [iou_types] if isinstance(iou_types, str) else iou_types
        return coco_metrics(predictions, references, iou_types, per_class)


def _check_keys(what: str, given: dict[str, Any], required: set[str], optional: set[str]):
    if not required <= given.keys() <= required | optional:
        raise ValueError(
            f"A {what} with {sorted(given)} was given; it must have {sorted(required)} and may have {sorted(optional)}."
        )
