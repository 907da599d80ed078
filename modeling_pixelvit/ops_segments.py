# Copyright 2026 The modeling_pixelvit team. All rights reserved.
# SPDX-License-Identifier: Apache-2.0
"""
Long sequences in segments, so that what is in use at one time stays in a CPU's cache or is a small part of a GPU's
memory, whatever the length.
"""

from collections.abc import Callable, Iterable

import torch


# What a device other than a CPU works on together, in tokens of the whole batch. Launches cost nothing beside so much
# work (an op that only moves memory takes about half a millisecond at the widths of the paper), and of the temporaries
# of a layer or an op there are some gigabytes at most.
DEVICE_LAYER_TOKENS = 2**19
DEVICE_OP_TOKENS = 2**17
CPU_OP_TOKENS = 2**10  # few enough for its cache at the widths of the paper


def compute_dtype(dtype: torch.dtype) -> torch.dtype:
    """The dtype that an op computes in for inputs of `dtype`: at least float32."""
    return torch.promote_types(dtype, torch.float32)


def autocast_dtype(tensor: torch.Tensor) -> torch.dtype:
    """The dtype that a linear layer's output has for `tensor`: autocast's where that is on."""
    device_type = tensor.device.type
    # Meta knows no autocast. (To ask torch which devices do would break a graph of torch 2.11.)
    if device_type != "meta" and torch.is_autocast_enabled(device_type):
        return torch.get_autocast_dtype(device_type)
    return tensor.dtype


def segments(length: int, segment_length: int, start: int = 0) -> list[slice]:
    """Slices of at most `segment_length` that cover the positions from `start` up to `length` in order."""
    return [slice(first, min(first + segment_length, length)) for first in range(start, length, segment_length)]


def op_segment_length(device: torch.device) -> int:
    """Tokens of a batch that an op with several float32 temporaries works on together: few on a CPU, else many."""
    return CPU_OP_TOKENS if device.type == "cpu" else DEVICE_OP_TOKENS


def batch_blocks(tokens: torch.Tensor, segment_length: int) -> list[slice]:
    """Slices of the batch of `tokens` (B, T, ...), each of about `segment_length` tokens in all, or one sequence."""
    return segments(tokens.shape[0], max(1, segment_length // tokens.shape[1]))


def map_batch(
    function: Callable[..., torch.Tensor], tokens: torch.Tensor, *others: torch.Tensor | None
) -> torch.Tensor:
    """
    `function` of some of the sequences in `tokens` (B, T, ...) at a time, as many as a device should work on together,
    and of those rows of the other tensors, unless they have one dimension. Where autograd records or something traces
    it is called once, as in `map_segments`.
    """
    parts = batch_blocks(tokens, DEVICE_LAYER_TOKENS)
    if len(parts) <= 1 or torch.is_grad_enabled() or torch.compiler.is_compiling():
        return function(tokens, *others)

    def rows_of(tensor, rows):
        return tensor if tensor is None or tensor.dim() == 1 else tensor[rows]

    return torch.cat([function(tokens[rows], *(rows_of(other, rows) for other in others)) for rows in parts])


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
    segment has `segment_length` tokens, or what suits the device: few on a CPU, to stay in its cache, else all until
    the batch has more than a device's memory should hold at once.

    Where autograd records, it is called once with all tokens: everything has to be kept for the backward pass anyway.
    So it is where a compiler or exporter traces, which would unroll the loop.
    """
    if torch.is_grad_enabled() or torch.compiler.is_compiling():
        return function(tokens)
    length = tokens.shape[1]
    if segment_length is None:
        on_device = max(1, DEVICE_LAYER_TOKENS // max(1, tokens.shape[0]))
        segment_length = 2048 if tokens.device.type == "cpu" else on_device
    if length <= segment_length:
        return function(tokens)
    output = None
    for part in segments(length, segment_length):
        result = function(tokens[:, part])
        if output is None:
            output = result.new_empty(result.shape[0], length, *result.shape[2:])
        output[:, part] = result
    return output
