# Copyright 2026 The modeling_pixelvit team. All rights reserved.
# SPDX-License-Identifier: Apache-2.0
"""Long sequences in short segments, so that what is in use at one time stays in the cache, whatever the length."""

from collections.abc import Callable

import torch


def compute_dtype(dtype: torch.dtype) -> torch.dtype:
    """The dtype that an op computes in for inputs of `dtype`: at least float32."""
    return torch.promote_types(dtype, torch.float32)


def segments(length: int, segment_length: int) -> list[slice]:
    """Slices of at most `segment_length` that cover `length` positions in order."""
    return [slice(start, min(start + segment_length, length)) for start in range(0, length, segment_length)]


def map_segments(
    function: Callable[[torch.Tensor], torch.Tensor], tokens: torch.Tensor, segment_length: int
) -> torch.Tensor:
    """
    `function` of the segments of `tokens` (batch_size, sequence_length, ...), first to last, put side by side.

    Where autograd records, it is called once with all tokens: everything has to be kept for the backward pass anyway.
    """
    length = tokens.shape[1]
    if length <= segment_length or torch.is_grad_enabled():
        return function(tokens)
    output = None
    for part in segments(length, segment_length):
        result = function(tokens[:, part])
        if output is None:
            output = result.new_empty(result.shape[0], length, *result.shape[2:])
        output[:, part] = result
    return output
