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
    grid: tuple[int, int], patch_size: int, head_dim: int, wavelengths: tuple[float, float], device: torch.device
) -> torch.Tensor:
    """
    Args:
        grid (`tuple[int, int]`): Patches as (rows, columns).
        patch_size (`int`): Side p of a patch in pixels; the centre of patch (r, c) is at ((r + 1/2) p, (c + 1/2) p).
        head_dim (`int`): Channels of a head, a multiple of 4: a quarter of them as pairs for rows, another for columns.
        wavelengths (pair of `float`): The shortest and the longest full turn in pixels; the others lie between them in
            equal ratios.
        device (`torch.device`): Where to compute.

    Returns:
        `torch.Tensor` of shape `(1 + rows * columns, head_dim / 2)`: radians, float32; the class token, which comes
        first, is not turned.
    """
    frequencies = _frequencies(head_dim, wavelengths, device)
    rows, columns = (
        (torch.arange(side, device=device, dtype=torch.float32) + 0.5)[:, None] * patch_size * frequencies
        for side in grid
    )
    patches = torch.cat([rows[:, None].expand(*grid, -1), columns[None].expand(*grid, -1)], dim=-1).flatten(0, 1)
    return torch.cat([patches.new_zeros(1, patches.shape[-1]), patches])


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


def neighbor_bias(
    num_heads: int, head_dim: int, wavelengths: tuple[float, float], distance: float, score: float, of_keys: bool
) -> torch.Tensor:
    """
    Bias of queries or keys with which each head looks at one place beside the token, whatever the tokens hold: head h
    of H at `distance` in the direction of the angle 2 pi h / H, from "to the right" on downwards. Attention of so many
    heads can do what a convolution does (arXiv 1911.03584), and so begins as one (as in ConViT, arXiv 2103.10697).

    Args:
        num_heads (`int`): H.
        head_dim, wavelengths: As in `rotary_angles`.
        distance (`float`): In pixels.
        score (`float`):
            That of the place before the softmax, where queries and keys are these biases alone. Others have less: it
            falls with the mean of cos(2 pi d / wavelength), d the distance from the place in rows and in columns.
        of_keys (`bool`): Whether the bias of keys is wanted, or else that of queries.

    Returns:
        `torch.Tensor` of shape `(num_heads * head_dim,)`, float32.
    """
    device = torch.device("cpu")  # whatever a caller's `with torch.device` says
    frequencies = _frequencies(head_dim, wavelengths, device)
    directions = 2 * math.pi / num_heads * torch.arange(num_heads, device=device)
    steps = distance * torch.stack([directions.sin(), directions.cos()], dim=1)  # (H, 2): down and to the right
    # Keys are turned back by what the place is ahead, so there they agree with queries, which are not turned.
    turns = (
        -(steps[..., None] * frequencies).flatten(1)
        if of_keys
        else torch.zeros(num_heads, head_dim // 2, device=device)
    )
    size = math.sqrt(2 * score / math.sqrt(head_dim))  # of each of head_dim / 2 pairs
    return size * torch.cat([turns.cos(), turns.sin()], dim=1).flatten()


def _frequencies(head_dim: int, wavelengths: tuple[float, float], device: torch.device) -> torch.Tensor:
    """Radians per pixel of the pairs of channels for rows, and again for columns: (head_dim / 4,), float32."""
    count = head_dim // 4
    shortest, longest = wavelengths
    between = [shortest * (longest / shortest) ** (index / max(1, count - 1)) for index in range(count)]
    # In float32: at 224 pixels and a turn of 4 an angle is off by 2e-5 at most.
    return torch.tensor([2 * math.pi / wavelength for wavelength in between], device=device)
