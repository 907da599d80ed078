# Copyright 2026 The modeling_pixelvit team. All rights reserved.
# SPDX-License-Identifier: Apache-2.0
"""Long sequences in short segments, so that what is in use at one time stays in the cache, whatever the length."""

from collections.abc import Callable, Iterable

import torch


def compute_dtype(dtype: torch.dtype) -> torch.dtype:
    """The dtype that an op computes in for inputs of `dtype`: at least float32."""
    return torch.promote_types(dtype, torch.float32)


def segments(length: int, segment_length: int, start: int = 0) -> list[slice]:
    """Slices of at most `segment_length` that cover the positions from `start` up to `length` in order."""
    return [slice(first, min(first + segment_length, length)) for first in range(start, length, segment_length)]


def device_segment_length(device: torch.device) -> int:
    """Tokens to work on together: a CPU wants them to stay in its cache, a GPU wants much to do at once."""
    return 2048 if device.type == "cpu" else 16384


def batch_blocks(tokens: torch.Tensor, segment_length: int) -> list[slice]:
    """Slices of the batch of `tokens` (B, T, ...), each of about `segment_length` tokens in all, or one sequence."""
    return segments(tokens.shape[0], max(1, segment_length // tokens.shape[1]))


class Workspace(dict):
    """
    Buffers by name, reused from segment to segment: on a CPU the page faults of fresh memory would cost several times
    the arithmetic. What an op returns with a workspace given is one of its buffers, good until the op's next call.
    """

    def buffer(self, name: str, shape: Iterable[int], like: torch.Tensor) -> torch.Tensor:
        """An uninitialized tensor with the dtype and device of `like`: the last one of that name if it fits."""
        shape = tuple(shape)
        if name not in self or self[name].shape != shape or self[name].dtype != like.dtype:
            self[name] = like.new_empty(shape)
        return self[name]


def empty_like(name: str, tensor: torch.Tensor, workspace: Workspace | None) -> torch.Tensor:
    """A contiguous tensor like `tensor`, from the workspace if there is one."""
    if workspace is None:
        return torch.empty_like(tensor, memory_format=torch.contiguous_format)
    return workspace.buffer(name, tensor.shape, tensor)


def map_segments(
    function: Callable[[torch.Tensor], torch.Tensor], tokens: torch.Tensor, segment_length: int | None = None
) -> torch.Tensor:
    """
    `function` of the segments of `tokens` (batch_size, sequence_length, ...), first to last, put side by side; a
    segment has `segment_length` tokens, or what suits the device.

    Where autograd records, it is called once with all tokens: everything has to be kept for the backward pass anyway.
    So it is where a compiler or exporter traces, which would unroll the loop.
    """
    length = tokens.shape[1]
    if segment_length is None:
        segment_length = device_segment_length(tokens.device)
    if length <= segment_length or torch.is_grad_enabled() or torch.compiler.is_compiling():
        return function(tokens)
    output = None
    for part in segments(length, segment_length):
        result = function(tokens[:, part])
        if output is None:
            output = result.new_empty(result.shape[0], length, *result.shape[2:])
        output[:, part] = result
    return output
