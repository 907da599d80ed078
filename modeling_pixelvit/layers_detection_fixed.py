# Copyright 2026 The modeling_pixelvit team. All rights reserved.
# SPDX-License-Identifier: Apache-2.0
"""
Detection over tensors of fixed shapes: what `torch.compile` fuses and `torch.export` and ONNX record.

The same detections as by `RegionProposals` and `BoxStages`, which hold a list of as many boxes for each image as there
are. Here an image has P places for proposals and K for detections, full or not, and images are a dimension, so that the
batch may be of any size. Only suppression and the sorting of boxes into pyramid levels have shapes that depend on what
is found, and these end where they begin.

Letters: B images, P proposals, C classes, K detections. Boxes are left, top, right, bottom in pixels.
"""

import torch
from torch.nn import functional as F
from torchvision.models.detection.rpn import concat_box_prediction_layers
from torchvision.ops import box_convert

from .layers_cascade import MIN_SIDE, BoxStages, suppress
from .layers_mask_head import MaskHead
from .layers_region_proposals import RegionProposals


# Score of a place that holds no box: below every probability.
NO_BOX = -1.0


def image_sizes_tensor(pixel_values: torch.Tensor, pixel_mask: torch.Tensor | None) -> torch.Tensor:
    """
    Height and width of each image without its padding: (B, 2), float32.

    Args:
        pixel_values: The padded images (B, channels, height, width).
        pixel_mask: (B, height, width), ones in one rectangle from the top left corner; that it is one is not checked,
            since a graph cannot depend on it.

    Raises:
        ValueError: if the mask has another shape.
    """
    batch_size, _, height, width = pixel_values.shape
    if pixel_mask is None:
        size = torch.tensor([[height, width]], dtype=torch.float32, device=pixel_values.device)
        return size.expand(batch_size, 2)
    if pixel_mask.dim() != 3 or pixel_mask.shape[1:] != pixel_values.shape[2:]:
        raise ValueError(
            f"pixel_mask has shape {tuple(pixel_mask.shape)}; with these pixel_values it must be (batch_size, "
            f"{height}, {width})."
        )
    inside = (pixel_mask != 0).float()
    return torch.stack([inside[:, :, 0].sum(dim=1), inside[:, 0, :].sum(dim=1)], dim=1)


def detect_in_fixed_shapes(
    proposals: RegionProposals,
    box_stages: BoxStages,
    mask_head: MaskHead | None,
    pyramid: list[torch.Tensor],
    image_sizes: torch.Tensor,
) -> dict[str, torch.Tensor | None]:
    """
    Args:
        proposals, box_stages, mask_head: The heads of a detector.
        pyramid: One map (B, channels, rows, columns) for each stride.
        image_sizes: (B, 2), height and width of each image in pixels, float32.

    Returns:
        `scores`, `pred_classes`, `pred_boxes` and `pred_masks` as a detector's output has them.
    """
    dtype = pyramid[0].dtype
    limits = image_sizes.flip(1).repeat(1, 2)[:, None]  # B 1 4
    boxes, holds_box = propose(proposals, pyramid, limits)
    pyramid = [level.float() for level in pyramid]  # boxes are pooled in float32
    boxes, scores = refine(box_stages, pyramid, boxes, limits, dtype)
    scores = scores.masked_fill(~(holds_box[..., None] & _has_sides(boxes, MIN_SIDE)), 0.0)
    boxes, scores, classes = select(box_stages, boxes, scores, limits)
    found = scores > 0
    masks = None
    if mask_head is not None:
        logits = mask_head.logits_of_rois(pyramid, _rois(boxes), classes.flatten() + 1, dtype)
        masks = logits.sigmoid().unflatten(0, boxes.shape[:2]) * found[..., None, None]
    shares = box_convert(boxes / limits, "xyxy", "cxcywh")
    return {
        "scores": scores,
        "pred_classes": classes * found,
        "pred_boxes": shares * found[..., None],
        "pred_masks": masks,
    }


def propose(
    network: RegionProposals, pyramid: list[torch.Tensor], limits: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """Proposals (B, P, 4), the best ones first, and which places hold one (B, P)."""
    batch_size = pyramid[0].shape[0]
    objectness, deltas = ([output.float() for output in outputs] for outputs in network.head(pyramid))
    anchors_per_level = [level.shape[1:].numel() for level in objectness]
    objectness, deltas = concat_box_prediction_layers(objectness, deltas)
    anchors = network.anchor_generator(pyramid).repeat(batch_size, 1)
    decoded = network.box_coder.decode_single(deltas, anchors).view(batch_size, -1, 4)
    by_level = zip(
        objectness.view(batch_size, -1).split(anchors_per_level, dim=1),
        decoded.split(anchors_per_level, dim=1),
        strict=True,
    )
    boxes, scores, levels = [], [], []
    for level, (objectness_of_level, boxes_of_level) in enumerate(by_level):
        count = min(network.pre_nms_top_n(), objectness_of_level.shape[1])
        best, index = objectness_of_level.topk(count, dim=1)
        boxes.append(_take(boxes_of_level, index))
        scores.append(best.sigmoid())
        levels.append(torch.full_like(index, level))
    boxes, scores, levels = _clip(torch.cat(boxes, dim=1), limits), torch.cat(scores, dim=1), torch.cat(levels, dim=1)
    is_box = _has_sides(boxes, network.min_size) & (scores >= network.score_thresh)
    scores = scores.masked_fill(~is_box, NO_BOX)
    image = torch.arange(batch_size, device=boxes.device)[:, None]
    image = image.expand_as(levels).flatten()
    flat = boxes.flatten(0, 1), scores.flatten()
    kept = suppress(*flat, image, levels.flatten(), len(pyramid), network.nms_thresh, limits.max())
    scores = scores.masked_fill(~_flags(kept, scores), NO_BOX)
    best, index = scores.topk(min(network.post_nms_top_n(), scores.shape[1]), dim=1)
    return _take(boxes, index), best > NO_BOX


def refine(
    box_stages: BoxStages, pyramid: list[torch.Tensor], boxes: torch.Tensor, limits: torch.Tensor, dtype: torch.dtype
) -> tuple[torch.Tensor, torch.Tensor]:
    """The boxes (B, P, 1 or C, 4) that the stages make of proposals (B, P, 4), and their scores (B, P, C)."""
    places, probabilities = boxes.shape[:2], 0
    for number, stage in enumerate(box_stages.stages, start=1):
        class_logits, deltas = stage(box_stages.pool.pool_rois(pyramid, _rois(boxes)).to(dtype))
        probabilities = probabilities + class_logits.softmax(dim=1) / len(box_stages.stages)
        decoded = stage.box_coder.decode_single(deltas.flatten(1), boxes.flatten(0, 1)).unflatten(1, (-1, 4))
        decoded = _clip(decoded.unflatten(0, places), limits[:, :, None])
        if number < len(box_stages.stages):
            boxes = decoded[:, :, 0]
    return decoded, probabilities[:, 1:].unflatten(0, places)


def select(
    box_stages: BoxStages, boxes: torch.Tensor, scores: torch.Tensor, limits: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """
    The best detections of each image after suppression by class.

    Args:
        boxes: (B, P, 1 or C, 4)
        scores: (B, P, C), 0 where there is no box.
        limits: (B, 1, 4)

    Returns:
        Boxes (B, K, 4), scores (B, K), falling, and classes (B, K) from 0 on; score 0 where there is no detection.
    """
    places, classes = scores.shape[1:]
    boxes = boxes.expand(-1, -1, classes, -1).flatten(1, 2)
    scores = scores.flatten(1)
    candidates = (scores > box_stages.score_threshold).flatten().nonzero()[:, 0]
    image, label = candidates // (places * classes), candidates % classes
    flat = boxes.flatten(0, 1)[candidates], scores.flatten()[candidates]
    kept = suppress(*flat, image, label, classes, box_stages.nms_threshold, limits.max())
    scores = scores.masked_fill(~_flags(candidates[kept], scores), 0.0)
    scores, index = scores.topk(min(box_stages.max_detections, places * classes), dim=1)
    boxes = _take(boxes, index)
    free = box_stages.max_detections - index.shape[1]
    return F.pad(boxes, (0, 0, 0, free)), F.pad(scores, (0, free)), F.pad(index % classes, (0, free))


def _flags(index: torch.Tensor, like: torch.Tensor) -> torch.Tensor:
    """True at the places `index`, counted over the flattened tensor `like`, and of its shape."""
    flags = torch.zeros_like(like, dtype=torch.bool).flatten()
    return flags.index_put((index,), torch.ones((), dtype=torch.bool, device=like.device)).view(like.shape)


def _rois(boxes: torch.Tensor) -> torch.Tensor:
    """Boxes (B, n, 4) with the index of their image before them: (B n, 5)."""
    image = torch.arange(boxes.shape[0], device=boxes.device, dtype=boxes.dtype)[:, None, None]
    return torch.cat([image.expand(-1, boxes.shape[1], 1), boxes], dim=2).flatten(0, 1)


def _take(boxes: torch.Tensor, index: torch.Tensor) -> torch.Tensor:
    """Of boxes (B, n, 4) those at `index` (B, k): (B, k, 4)."""
    return boxes.gather(1, index[..., None].expand(-1, -1, 4))


def _clip(boxes: torch.Tensor, limits: torch.Tensor) -> torch.Tensor:
    return torch.minimum(boxes.clamp(min=0), limits)


def _has_sides(boxes: torch.Tensor, least: float) -> torch.Tensor:
    """Whether both sides of each box (..., 4) are at least so many pixels."""
    return ((boxes[..., 2:] - boxes[..., :2]) >= least).all(dim=-1)


__all__ = ["detect_in_fixed_shapes", "image_sizes_tensor"]
