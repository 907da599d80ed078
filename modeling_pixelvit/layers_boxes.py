# Copyright 2026 The modeling_pixelvit team. All rights reserved.
# SPDX-License-Identifier: Apache-2.0
"""
Boxes of a batch, as detectors hand them on.

An image has P places for boxes, full or not, and images are a dimension, so that shapes do not depend on what is found
and the batch may be of any size: what `torch.compile` fuses and `torch.export` and ONNX record is then what an ordinary
call computes. Only suppression and the sorting of boxes into pyramid levels have shapes that depend on boxes, and these
end where they begin.

Boxes are left, top, right, bottom in pixels. `limits` (B, 4) are width, height, width, height of each image without its
padding, so the most that a box's coordinates can be. RoIs (n, 5) have the index of their image before the box.
"""

import math
from collections.abc import Callable

import torch
from torch.nn import functional as F
from torchvision.ops import nms


def limits_of(pixel_values: torch.Tensor, pixel_mask: torch.Tensor | None) -> torch.Tensor:
    """
    The limits (B, 4), float32, of padded images.

    Args:
        pixel_values: (B, channels, height, width)
        pixel_mask: (B, height, width), ones in one rectangle from the top left corner; that it is one is not checked,
            since a graph cannot depend on it.

    Raises:
        ValueError: if the mask has another shape.
    """
    batch_size, _, height, width = pixel_values.shape
    if pixel_mask is None:
        limits = torch.tensor([[width, height, width, height]], dtype=torch.float32, device=pixel_values.device)
        return limits.expand(batch_size, 4)
    if pixel_mask.dim() != 3 or pixel_mask.shape[1:] != pixel_values.shape[2:]:
        raise ValueError(
            f"pixel_mask has shape {tuple(pixel_mask.shape)}; with these pixel_values it must be (batch_size, "
            f"{height}, {width})."
        )
    inside = (pixel_mask != 0).float()
    return torch.stack([inside[:, 0, :].sum(dim=1), inside[:, :, 0].sum(dim=1)], dim=1).repeat(1, 2)


def clip(boxes: torch.Tensor, limits: torch.Tensor) -> torch.Tensor:
    """Boxes (..., 4) inside images whose limits have a shape that boxes can be broadcast with."""
    return torch.minimum(boxes.clamp(min=0), limits)


def has_sides(boxes: torch.Tensor, least: float) -> torch.Tensor:
    """Whether both sides of each box (..., 4) are at least so many pixels."""
    return ((boxes[..., 2:] - boxes[..., :2]) >= least).all(dim=-1)


def take(boxes: torch.Tensor, index: torch.Tensor) -> torch.Tensor:
    """Of boxes (B, n, 4) those at `index` (B, k): (B, k, 4)."""
    return boxes.gather(1, index[..., None].expand(-1, -1, 4))


def rows_of(
    held: torch.Tensor, function: Callable[..., tuple[torch.Tensor, ...]], *inputs: torch.Tensor
) -> tuple[torch.Tensor, ...]:
    """
    What a function makes of the rows of inputs (n, ...) that hold something, (n,), and zeros in the others. In a graph,
    whose shapes must not depend on it, they are whatever the function makes of empty rows.
    """
    if torch.compiler.is_compiling():
        return function(*inputs)
    index = held.nonzero()[:, 0]
    outputs = function(*(one[index] for one in inputs))
    return tuple(one.new_zeros(len(held), *one.shape[1:]).index_copy(0, index, one) for one in outputs)


def rois_of_places(boxes: torch.Tensor) -> torch.Tensor:
    """RoIs (B P, 5) of boxes (B, P, 4)."""
    image = torch.arange(boxes.shape[0], device=boxes.device, dtype=boxes.dtype).view(-1, 1, 1)
    return torch.cat([image.expand(-1, boxes.shape[1], 1), boxes], dim=2).flatten(0, 1)


def rois_of_lists(boxes: list[torch.Tensor]) -> torch.Tensor:
    """RoIs (all boxes, 5) of the boxes (n, 4) of each image."""
    return torch.cat([F.pad(boxes_of_image, (1, 0), value=float(index)) for index, boxes_of_image in enumerate(boxes)])


def suppress(
    boxes: torch.Tensor,
    scores: torch.Tensor,
    images: torch.Tensor,
    classes: torch.Tensor,
    num_classes: int,
    threshold: float,
    largest: torch.Tensor | float,
) -> torch.Tensor:
    """
    Indices of the boxes `(n, 4)` that no better one of the same image and class overlaps by more than `threshold`, in
    no particular order.

    Each class of an image is moved to a place of its own. The places form a square, since in one row the last of a
    thousand classes would be a million pixels away, where float32 knows no fractions of one (torchvision's
    `batched_nms` does that).

    Args:
        images, classes: Of each box (n,), from 0 on.
        num_classes: In all.
        largest: The largest coordinate that a box can have.
    """
    side = math.ceil(math.sqrt(num_classes))
    row = classes // side
    if torch.compiler.is_compiling():  # the images, too: a graph has no loop over as many as there are
        row = row + images * side
    moved = boxes + torch.stack([classes % side, row], dim=1).repeat(1, 2) * (largest + 1)
    if torch.compiler.is_compiling():
        return nms(moved, scores, threshold)
    # The work grows with the square of the boxes, so it is done image by image.
    of_image = [torch.where(images == image)[0] for image in images.unique()]
    kept = [index[nms(moved[index], scores[index], threshold)] for index in of_image]
    return torch.cat(kept) if kept else images


def flags(index: torch.Tensor, like: torch.Tensor) -> torch.Tensor:
    """True at the places `index`, counted over the flattened tensor `like`, and of its shape."""
    none = torch.zeros_like(like, dtype=torch.bool).flatten()
    return none.index_put((index,), torch.ones((), dtype=torch.bool, device=like.device)).view(like.shape)
