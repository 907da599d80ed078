# Copyright 2026 The modeling_pixelvit team. All rights reserved.
# SPDX-License-Identifier: Apache-2.0
"""
COCO's average precision of boxes and masks, computed by pycocotools from records of images.

A record is a dict of plain lists that JSON and Arrow can hold: "image_id", "boxes" [x0, y0, x1, y1] in pixels,
"labels", "masks" as the text of COCO's run lengths (RLE) and "mask_size" [height, width], both empty without masks. A
prediction's record also has "scores", that of an image's objects "area" and "iscrowd".
"""

import contextlib
import io
from collections.abc import Iterable
from typing import Any

import numpy as np
from pycocotools import mask as run_lengths
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval


Record = dict[str, Any]

IOU_TYPES = ("bbox", "segm")
# In the order of COCOeval.stats. AP over IoU 0.5 to 0.95 unless a threshold in percent is named; AR at so many
# detections of an image; small, medium and large by the area in pixels, up to 32² and 96² and above.
STATISTICS = (
    *("AP", "AP50", "AP75", "AP_small", "AP_medium", "AP_large"),
    *("AR1", "AR10", "AR100", "AR_small", "AR_medium", "AR_large"),
)
UNDEFINED = -1


def prediction_record(image_id: int, boxes: Any, scores: Any, labels: Any, masks: Any = None) -> Record:
    """
    The record of what is predicted in an image.

    Args:
        image_id: The image.
        boxes: (n, 4), x0, y0, x1, y1 in pixels.
        scores: (n,), any order.
        labels: (n,) class indices.
        masks: None or n masks: arrays (n, H, W) of booleans or integers, not 0 where the object is; or RLE dicts with
            "size" and "counts".

    Raises:
        ValueError: if their numbers or values do not fit.
    """
    record = _record(image_id, boxes, labels, masks)
    record["scores"] = _numbers("scores", scores, record)
    return record


def reference_record(
    image_id: int, boxes: Any, labels: Any, masks: Any = None, area: Any = None, iscrowd: Any = None
) -> Record:
    """
    The record of the objects in an image.

    Args:
        image_id, boxes, labels, masks: As of `prediction_record`.
        area: (n,) pixels, by which objects are small, medium or large; those of the masks, or without masks of the
            boxes, if not given.
        iscrowd: (n,), 1 for regions with many objects that count neither as found nor as missed; 0 if not given.

    Raises:
        ValueError: if their numbers or values do not fit.
    """
    record = _record(image_id, boxes, labels, masks)
    if area is None:
        area = _areas(record, "segm" if record["masks"] else "bbox")
    record["area"] = _numbers("area", area, record)
    iscrowd = [0] * len(record["labels"]) if iscrowd is None else iscrowd
    record["iscrowd"] = [int(flag) for flag in _numbers("iscrowd", iscrowd, record)]
    return record


def _record(image_id: int, boxes: Any, labels: Any, masks: Any) -> Record:
    boxes, labels = np.asarray(boxes, dtype=np.float64), np.asarray(labels)
    if boxes.size == 0:
        boxes = boxes.reshape(0, 4)
    if boxes.ndim != 2 or boxes.shape[1] != 4 or labels.shape != boxes.shape[:1]:
        raise ValueError(
            f"Boxes of shape {boxes.shape} and labels of shape {labels.shape} were given for image {image_id}; they "
            "must be (n, 4) and (n,)."
        )
    if not np.isfinite(boxes).all() or (boxes[:, 2:] < boxes[:, :2]).any():
        raise ValueError(
            f"A box of image {image_id} is not finite or ends before it begins; give x0, y0, x1, y1 in pixels."
        )
    encoded, mask_size = ([], []) if masks is None else encode_masks(masks)
    if masks is not None and len(encoded) != len(labels):
        raise ValueError(
            f"{len(encoded)} masks and {len(labels)} boxes were given for image {image_id}; give a mask for each box."
        )
    return {
        "image_id": int(image_id),
        "boxes": boxes.tolist(),
        "labels": [int(label) for label in labels],
        "masks": encoded,
        "mask_size": mask_size,
    }


def _numbers(name: str, values: Any, record: Record) -> list[float]:
    values = np.asarray(values, dtype=np.float64)
    if values.shape != (len(record["labels"]),) or not np.isfinite(values).all():
        raise ValueError(
            f"{name} of shape {values.shape} were given for image {record['image_id']} with {len(record['labels'])} "
            "boxes; give a finite number for each box."
        )
    return values.tolist()


def encode_masks(masks: Iterable[Any]) -> tuple[list[str], list[int]]:
    """
    Masks of one image as COCO's run lengths.

    Args:
        masks: Arrays (H, W) of booleans or integers, not 0 where the object is; or RLE dicts with "size" and "counts",
            compressed or not.

    Returns:
        The text of each mask's counts, and [height, width] in pixels, or [] without masks.

    Raises:
        ValueError: if a mask is neither, or they differ in size.
    """
    encoded = [_encode_mask(mask) for mask in masks]
    sizes = {tuple(mask["size"]) for mask in encoded}
    if len(sizes) > 1:
        raise ValueError(f"Masks of sizes {sorted(sizes)} were given for one image; they must be of one size.")
    counts = [mask["counts"] for mask in encoded]
    texts = [count.decode("ascii") if isinstance(count, bytes) else count for count in counts]
    return texts, [int(side) for size in sizes for side in size]


def _encode_mask(mask: Any) -> dict[str, Any]:
    if isinstance(mask, dict):
        height, width = mask["size"]
        return run_lengths.frPyObjects(mask, height, width) if isinstance(mask["counts"], list) else mask
    mask = np.asarray(mask)
    if mask.ndim != 2 or mask.dtype.kind not in "biu":
        raise ValueError(
            f"A mask of shape {mask.shape} and type {mask.dtype} was given; it must be (height, width) of booleans or "
            "integers, so compare probabilities with a threshold first."
        )
    return run_lengths.encode(np.asfortranarray(mask != 0, dtype=np.uint8))


def coco_metrics(
    predictions: list[Record],
    references: list[Record],
    iou_types: Iterable[str] = ("bbox",),
    per_class: bool = False,
) -> dict[str, Any]:
    """
    COCO's twelve numbers over a whole evaluation set.

    Args:
        predictions: A record for each image, in any order; an image without one has no predictions.
        references: A record for each image.
        iou_types: "bbox" for boxes, "segm" for masks, or both.
        per_class: Whether to give the AP of each class too.

    Returns:
        For each of iou_types "<iou type>_<name>" for the names in `STATISTICS`, shares from 0 to 1, or -1 where no
        object defines the number; and with per_class "<iou type>_AP_per_class", a dict of AP by label, of the classes
        that have objects.

    Raises:
        ValueError: for an image that occurs twice or is unknown, another IoU type, or missing masks.
    """
    _check_images(predictions, references)
    results: dict[str, Any] = {}
    for iou_type in iou_types:
        if iou_type not in IOU_TYPES:
            raise ValueError(f'The IoU type "{iou_type}" was given; it must be "bbox" or "segm".')
        if iou_type == "segm":
            _check_masks(predictions, references)
        labels = sorted({label for record in references for label in record["labels"]})
        with contextlib.redirect_stdout(io.StringIO()):  # pycocotools reports its progress there
            truth = _as_coco(references, references, labels, iou_type)
            evaluator = COCOeval(truth, _as_coco(predictions, references, labels, iou_type), iou_type)
            evaluator.evaluate()
            evaluator.accumulate()
            evaluator.summarize()
        for name, value in zip(STATISTICS, evaluator.stats, strict=True):
            results[f"{iou_type}_{name}"] = float(value)
        if per_class:
            results[f"{iou_type}_AP_per_class"] = _precision_by_class(evaluator)
    return results


def _check_images(predictions: list[Record], references: list[Record]):
    known = [record["image_id"] for record in references]
    for what, images in (("references", known), ("predictions", [record["image_id"] for record in predictions])):
        if len(set(images)) != len(images):
            twice = next(image for image in images if images.count(image) > 1)
            raise ValueError(f"Image {twice} occurs twice among the {what}; give each image an image_id of its own.")
        if unknown := set(images) - set(known):
            raise ValueError(
                f"There are predictions for image {min(unknown)}, but no reference; give one, empty if there is no "
                "object."
            )


def _check_masks(predictions: list[Record], references: list[Record]):
    sizes = {}
    for record in [*references, *predictions]:
        image = record["image_id"]
        if len(record["masks"]) != len(record["labels"]):
            raise ValueError(
                f'The IoU type "segm" needs masks, but image {image} has none; give them, or "bbox" alone.'
            )
        if record["masks"] and sizes.setdefault(image, record["mask_size"]) != record["mask_size"]:
            raise ValueError(
                f"The masks predicted for image {image} are of size {record['mask_size']} and those of its objects "
                f"{sizes[image]}; bring the predictions to the image's size."
            )


def _as_coco(records: list[Record], images: list[Record], labels: list[int], iou_type: str) -> COCO:
    """The records as pycocotools holds a data set. (Its own loader of predictions refuses to load none.)"""
    annotations = []
    for record in records:
        areas = record["area"] if "area" in record else _areas(record, iou_type)
        for index, (x0, y0, x1, y1) in enumerate(record["boxes"]):
            annotation = {
                "id": len(annotations) + 1,  # 0 would mean that nothing was matched
                "image_id": record["image_id"],
                "category_id": record["labels"][index],
                "bbox": [x0, y0, x1 - x0, y1 - y0],
                "area": areas[index],
                "iscrowd": record["iscrowd"][index] if "iscrowd" in record else 0,
            }
            if "scores" in record:
                annotation["score"] = record["scores"][index]
            if iou_type == "segm":
                annotation["segmentation"] = {"size": record["mask_size"], "counts": record["masks"][index]}
            annotations.append(annotation)
    coco = COCO()
    coco.dataset = {
        # The height and width of images matter to polygons only, and there are none.
        "images": [{"id": record["image_id"], "height": 0, "width": 0} for record in images],
        "categories": [{"id": label} for label in labels],
        "annotations": annotations,
    }
    coco.createIndex()
    return coco


def _areas(record: Record, iou_type: str) -> list[float]:
    """Pixels of each object, by its mask or its box."""
    if iou_type == "segm":
        masks = [{"size": record["mask_size"], "counts": counts} for counts in record["masks"]]
        return run_lengths.area(masks).tolist() if masks else []
    return [(x1 - x0) * (y1 - y0) for x0, y0, x1, y1 in record["boxes"]]


def _precision_by_class(evaluator: COCOeval) -> dict[int, float]:
    # Thresholds, recalls, classes, areas ("all" first) and numbers of detections (the largest last).
    precision = evaluator.eval["precision"][:, :, :, 0, -1]
    means = {}
    for index, label in enumerate(evaluator.params.catIds):
        defined = precision[:, :, index][precision[:, :, index] != UNDEFINED]
        if defined.size:
            means[int(label)] = float(defined.mean())
    return means
