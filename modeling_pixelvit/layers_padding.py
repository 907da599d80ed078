# Copyright 2026 The modeling_pixelvit team. All rights reserved.
# SPDX-License-Identifier: Apache-2.0
"""
Batches of images of different sizes, each padded at the bottom and on the right.

Padding is no part of an image: those of one size are computed together, without it, so that what a model makes of an
image does not depend on the others in the batch. (Detection is another matter: ViTDet's frame is part of its model.)
"""

import functools
from collections.abc import Callable
from typing import Any

import torch
from transformers.utils.generic import can_return_tuple


def image_sizes_of(pixel_values: torch.Tensor, pixel_mask: torch.Tensor | None) -> list[tuple[int, int]]:
    """
    Height and width of each image without its padding.

    Args:
        pixel_values (`torch.Tensor` of shape `(batch_size, channels, height, width)`): The padded images.
        pixel_mask (`torch.Tensor` of shape `(batch_size, height, width)`, *optional*): 1 where the image is, else 0.

    Raises:
        ValueError: if the mask has another shape, or is not a rectangle that begins at the top left.
    """
    batch_size, _, height, width = pixel_values.shape
    if pixel_mask is None:
        return [(height, width)] * batch_size
    if tuple(pixel_mask.shape) != (batch_size, height, width):
        raise ValueError(
            f"pixel_mask has shape {tuple(pixel_mask.shape)}; with these pixel_values it must be "
            f"({batch_size}, {height}, {width})."
        )
    inside = pixel_mask != 0
    rows, columns = inside.any(dim=2), inside.any(dim=1)
    heights, widths = rows.sum(dim=1), columns.sum(dim=1)
    down = torch.arange(height, device=inside.device)[None] < heights[:, None]
    right = torch.arange(width, device=inside.device)[None] < widths[:, None]
    is_corner = (inside == (down[:, :, None] & right[:, None, :])).flatten(1).all(dim=1) & (heights > 0)
    numbers = torch.stack([heights, widths, is_corner.to(heights.dtype)], dim=1).tolist()
    for index, (_, _, good) in enumerate(numbers):
        if not good:
            raise ValueError(
                f"pixel_mask of image {index} is not one rectangle of ones from the top left corner; images may be "
                "padded at the bottom and on the right only."
            )
    return [(image_height, image_width) for image_height, image_width, _ in numbers]


def split_by_size(
    pixel_values: torch.Tensor, pixel_mask: torch.Tensor | None
) -> list[tuple[torch.Tensor, torch.Tensor]] | None:
    """
    The images of each size without their padding: their indices in the batch and `(n, channels, height, width)`; None
    if there is no padding.

    Raises:
        ValueError: as `image_sizes_of`.
    """
    if pixel_mask is None:
        return None
    sizes = image_sizes_of(pixel_values, pixel_mask)
    if not torch.compiler.is_compiling() and set(sizes) <= {tuple(pixel_values.shape[-2:])}:
        return None
    groups = []
    for height, width in dict.fromkeys(sizes):
        index = [place for place, size in enumerate(sizes) if size == (height, width)]
        index = torch.tensor(index, device=pixel_values.device)
        groups.append((index, pixel_values[index, :, :height, :width]))
    return groups


def join_maps(maps: list[torch.Tensor], groups: list[tuple[torch.Tensor, torch.Tensor]]) -> torch.Tensor:
    """
    Maps `(n, channels, rows, columns)` of each group as those of the batch, every one in the top left corner of a map
    as large as the largest, and 0 outside.
    """
    batch_size = sum(len(index) for index, _ in groups)
    size = [max(part.shape[axis] for part in maps) for axis in (-2, -1)]
    joined = maps[0].new_zeros(batch_size, maps[0].shape[1], *size)
    for part, (index, _) in zip(maps, groups, strict=True):
        joined[index, :, : part.shape[-2], : part.shape[-1]] = part
    return joined


def by_image_size(forward: Callable) -> Callable:
    """
    Lets the forward pass of an encoder take a `pixel_mask`.

    The sequences of the joined output are those of the padded images' grid: an image's patches lie at the top left of
    it, and vectors of zeros stand for what is padding alone.
    """

    @functools.wraps(forward)
    @can_return_tuple
    def wrapper(
        self,
        pixel_values: torch.Tensor,
        interpolate_pos_encoding: bool | None = None,
        patch_size: int | None = None,
        pixel_mask: torch.Tensor | None = None,
        **kwargs,
    ) -> Any:
        groups = split_by_size(pixel_values, pixel_mask)
        if groups is None:
            return forward(self, pixel_values, interpolate_pos_encoding, patch_size, return_dict=True, **kwargs)
        if self.training and self.config.patch_dropout:
            raise ValueError(
                f"{type(self).__name__}: pixel_mask was given for padded images in training with patch_dropout="
                f"{self.config.patch_dropout}; train on images of one size, or set patch_dropout to 0."
            )
        any_size = True if interpolate_pos_encoding is None else interpolate_pos_encoding
        outputs = [forward(self, images, any_size, patch_size, return_dict=True, **kwargs) for _, images in groups]
        if outputs[0].get("attentions") is not None:
            raise ValueError(
                f"{type(self).__name__}: attentions were asked for of images that are padded; give those of one size."
            )
        grids = [self.embeddings.grid_of(images, patch_size) for _, images in groups]
        grid = self.embeddings.grid_of(pixel_values, patch_size)

        def join(parts: list[torch.Tensor]) -> torch.Tensor:
            joined = parts[0].new_zeros(
                len(pixel_values), *grid, self.embeddings.sequence_extension, parts[0].shape[-1]
            )
            class_tokens = parts[0].new_zeros(len(pixel_values), parts[0].shape[-1])
            for part, (index, _), (rows, columns) in zip(parts, groups, grids, strict=True):
                joined[index, :rows, :columns] = self.embeddings.patch_tokens(part).unflatten(1, (rows, columns, -1))
                class_tokens[index] = self.embeddings.class_token(part)
            order = [joined.flatten(1, 3), class_tokens[:, None]]
            return torch.cat(order if self.embeddings.class_token_last else order[::-1], dim=1)

        joined = type(outputs[0])(last_hidden_state=join([output.last_hidden_state for output in outputs]))
        pooled = outputs[0].pooler_output.new_zeros(len(pixel_values), outputs[0].pooler_output.shape[-1])
        for output, (index, _) in zip(outputs, groups, strict=True):
            pooled[index] = output.pooler_output
        joined.pooler_output = pooled
        if outputs[0].hidden_states is not None:
            states = zip(*(output.hidden_states for output in outputs), strict=True)
            joined.hidden_states = tuple(None if parts[0] is None else join(list(parts)) for parts in states)
        return joined

    return wrapper
