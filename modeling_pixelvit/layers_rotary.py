# Copyright 2026 The modeling_pixelvit team. All rights reserved.
# SPDX-License-Identifier: Apache-2.0
"""
Rotary positions of an image (RoFormer, arXiv 2104.09864, in two dimensions), counted in pixels and not in patches.

A patch turns the pairs of channels of its queries and keys by the row and the column of its centre in pixels, so scores
depend on distances in pixels: the same ones whatever the patch size, and for images of any size, without a table.
"""

import math

import torch


def rotary_angles(
    grid: tuple[int, int],
    patch_size: int,
    head_dim: int,
    wavelengths: tuple[float, float],
    class_token_last: bool,
    device: torch.device,
) -> torch.Tensor:
    """
    Args:
        grid (`tuple[int, int]`): Patches as (rows, columns).
        patch_size (`int`): Side p of a patch in pixels; the centre of patch (r, c) is at ((r + 1/2) p, (c + 1/2) p).
        head_dim (`int`): Channels of a head, a multiple of 4: a quarter of them as pairs for rows, another for columns.
        wavelengths (pair of `float`): The shortest and the longest full turn in pixels; the others lie between them in
            equal ratios.
        class_token_last (`bool`): Where the class token stands, which is not turned.
        device (`torch.device`): Where to compute.

    Returns:
        `torch.Tensor` of shape `(rows * columns + 1, head_dim / 2)`: radians, float32.
    """
    count = head_dim // 4
    shortest, longest = wavelengths
    between = [shortest * (longest / shortest) ** (index / max(1, count - 1)) for index in range(count)]
    # In float32: at 224 pixels and a turn of 4 an angle is off by 2e-5 at most.
    frequencies = torch.tensor([2 * math.pi / wavelength for wavelength in between], device=device)
    rows, columns = (
        (torch.arange(side, device=device, dtype=torch.float32) + 0.5)[:, None] * patch_size * frequencies
        for side in grid
    )
    patches = torch.cat(
        [rows[:, None].expand(*grid, count), columns[None].expand(*grid, count)],
        dim=-1,
    ).flatten(0, 1)
    class_token = patches.new_zeros(1, 2 * count)
    return torch.cat([patches, class_token] if class_token_last else [class_token, patches])


def rotate(states: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor) -> torch.Tensor:
    """
    Turns channel i of the first half and channel i of the second half, as a pair, by their angle.

    Args:
        states: (batch_size, heads, sequence_length, head_dim)
        cos, sin: Of the angles, (sequence_length, head_dim / 2) or with a batch (batch_size, 1, ...); float32.

    Returns:
        (batch_size, heads, sequence_length, head_dim), computed in float32 and of the dtype of `states`.
    """
    first, second = states.float().chunk(2, dim=-1)
    return torch.cat([first * cos - second * sin, second * cos + first * sin], dim=-1).to(states.dtype)
