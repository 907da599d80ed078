# Copyright 2026 The modeling_pixelvit team. All rights reserved.
# SPDX-License-Identifier: Apache-2.0
"""What the training loop logs of detection and instance segmentation, from the records of single images."""

from ..metrics.coco_ap.coco_evaluation import STATISTICS, UNDEFINED, Record, coco_metrics


# As logged, by the name of the IoU type.
PREFIXES = {"bbox": "box", "segm": "mask"}


def detection_metrics(
    predictions: list[Record], references: list[Record], with_masks: bool = False
) -> dict[str, float]:
    """
    COCO's numbers over a set of images, in percent.

    Args:
        predictions, references: A record of each image, as `metrics.coco_ap.coco_evaluation.prediction_record` and
            `reference_record` make them.
        with_masks: Whether to measure the masks too.

    Returns:
        "box_ap", "box_ap50", "box_ap75", "box_ap_small", ..., "box_ar1", ..., and with masks "mask_ap", ...; without
        those that no object in the images defines, such as "box_ap_large" where all are small.

    Raises:
        ValueError: if there is no object in any image to be found.
    """
    iou_types = ("bbox", "segm") if with_masks else ("bbox",)
    measures = coco_metrics(predictions, references, iou_types)
    if measures["bbox_AP"] == UNDEFINED:
        raise ValueError(
            f"None of the {len(references)} images has an object that counts, so there is no AP; check the annotations."
        )
    return {
        f"{PREFIXES[iou_type]}_{name.lower()}": 100 * measures[f"{iou_type}_{name}"]
        for iou_type in iou_types
        for name in STATISTICS
        if measures[f"{iou_type}_{name}"] != UNDEFINED
    }
