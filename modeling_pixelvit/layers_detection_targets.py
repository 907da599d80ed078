# Copyright 2026 The modeling_pixelvit team. All rights reserved.
# SPDX-License-Identifier: Apache-2.0
"""
What detectors are given beside the images, checked and turned into pixels.

Labels come as transformers' DETR takes them; inside the model a target is what torchvision's detectors take: a dict of
`boxes` (n, 4) float32, left, top, right and bottom in pixels; `labels` (n,) int64 from 1 on, 0 being background; and
`masks` (n, H, W) where there are any. In addition `crowd_boxes` (m, 4): regions with objects that nobody told apart.
"""

import torch
from torchvision.ops import box_convert, clip_boxes_to_image


# How far, in widths and heights of the image, a box may reach out of it by rounding.
OUTSIDE_TOLERANCE = 1e-3
# Share of its own area from which a box inside a crowd region is neither object nor background.
CROWD_OVERLAP = 0.5


def prepare_targets(
    labels: list[dict[str, torch.Tensor]],
    image_sizes: list[tuple[int, int]],
    padded_size: tuple[int, int],
    num_labels: int,
    with_masks: bool,
    device: torch.device,
) -> list[dict[str, torch.Tensor]]:
    """
    The targets of a batch, as described above, with crowd regions taken apart from the objects.

    A box that has no area left inside the image, or none in float32, is left out with its class and mask.

    Args:
        labels: For each image `class_labels`, `boxes`, `masks` if `with_masks`, and optionally `iscrowd`.
        image_sizes: Height and width of each image in pixels.
        padded_size: Height and width of the batch.
        num_labels: Number of classes.
        with_masks: Whether masks are needed.
        device: Where the targets go.

    Raises:
        ValueError: for labels that do not fit, naming the image's index in the batch.
    """
    if len(labels) != len(image_sizes):
        raise ValueError(f"labels of {len(labels)} images were given for a batch of {len(image_sizes)}.")
    targets = []
    for index, (label, size) in enumerate(zip(labels, image_sizes, strict=True)):
        for field in ("class_labels", "boxes"):
            if field not in label:
                raise ValueError(f"labels of image {index} have no {field}; it must be there, even if it is empty.")
        classes = label["class_labels"].to(device, torch.int64).flatten()
        boxes = label["boxes"].to(device, torch.float32).reshape(-1, 4)
        _check_objects(index, classes, boxes, num_labels)
        scale = boxes.new_tensor([size[1], size[0], size[1], size[0]])
        boxes = clip_boxes_to_image(box_convert(boxes, "cxcywh", "xyxy") * scale, size)
        crowd = torch.zeros_like(classes, dtype=torch.bool)
        if "iscrowd" in label:
            crowd = label["iscrowd"].to(device).flatten() != 0
            if len(crowd) != len(classes):
                raise ValueError(f"labels of image {index} have {len(classes)} class_labels and {len(crowd)} iscrowd.")
        has_area = (boxes[:, 2:] > boxes[:, :2]).all(dim=1)
        objects, crowd = ~crowd & has_area, crowd & has_area
        target = {"boxes": boxes[objects], "labels": classes[objects] + 1, "crowd_boxes": boxes[crowd]}
        if with_masks:
            _check_masks(index, label, len(classes), size, padded_size)
            target["masks"] = label["masks"].to(device)[objects]
        targets.append(target)
    return targets


def _check_objects(index: int, classes: torch.Tensor, boxes: torch.Tensor, num_labels: int):
    if len(classes) != len(boxes):
        raise ValueError(f"labels of image {index} have {len(classes)} class_labels and {len(boxes)} boxes.")
    corners = box_convert(boxes, "cxcywh", "xyxy")
    sound = torch.stack(  # comparisons that a NaN does not pass
        [
            (classes >= 0) & (classes < num_labels),
            (boxes[:, 2:] > 0).all(dim=1),
            ((corners >= -OUTSIDE_TOLERANCE) & (corners <= 1 + OUTSIDE_TOLERANCE)).all(dim=1),
        ]
    )
    known_class, has_area, is_inside = sound.all(dim=1).tolist()
    if not known_class:
        raise ValueError(f"labels of image {index} have a class outside [0, {num_labels}): {classes.tolist()}.")
    if not has_area:
        raise ValueError(
            f"labels of image {index} have a box without area or not finite; boxes are (centre x, centre y, width, "
            "height), and width and height must be above 0. Leave such objects out."
        )
    if not is_inside:
        raise ValueError(
            f"labels of image {index} have a box that reaches out of the image; boxes are (centre x, centre y, width, "
            "height) in shares, from 0 to 1, of the image's width and height without padding."
        )


def _check_masks(
    index: int,
    label: dict[str, torch.Tensor],
    num_objects: int,
    image_size: tuple[int, int],
    padded_size: tuple[int, int],
):
    if label.get("masks") is None:
        raise ValueError(
            f"labels of image {index} have no masks, which the model trains on; give them, or build the model with "
            "use_masks=False."
        )
    shape = tuple(label["masks"].shape)
    allowed = [(num_objects, *padded_size), (num_objects, *image_size)]
    if shape not in allowed:
        raise ValueError(
            f"labels of image {index} have masks of shape {shape}; {num_objects} objects need {allowed[0]}, the size "
            f"of the batch, or {allowed[1]}, the size of the image."
        )


def covered_by_crowd(boxes: torch.Tensor, crowd_boxes: torch.Tensor) -> torch.Tensor:
    """
    Which boxes `(n, 4)` lie with more than half of their area inside one of the crowd regions `(m, 4)`: `(n,)` bool.

    Such a box may well hold an object, but which one nobody knows: it is neither object nor background.
    """
    top_left = torch.maximum(boxes[:, None, :2], crowd_boxes[None, :, :2])
    bottom_right = torch.minimum(boxes[:, None, 2:], crowd_boxes[None, :, 2:])
    shared = (bottom_right - top_left).clamp(min=0).prod(dim=2)
    areas = (boxes[:, 2:] - boxes[:, :2]).prod(dim=1)
    return (shared > CROWD_OVERLAP * areas[:, None]).any(dim=1)
