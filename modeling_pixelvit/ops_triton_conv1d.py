# Copyright 2026 The modeling_pixelvit team. All rights reserved.
# SPDX-License-Identifier: Apache-2.0
"""
The causal depthwise convolution of Mamba-2 with its silu as Triton kernels: letters and semantics of `ops_conv1d`.

A program takes a block of tokens and of channels. Taps read the tokens again, which the cache still holds, so that
memory is read and written once. Backward, the values before silu are computed anew, those of the K - 1 tokens after the
block included; gradients of weight and bias leave each program as one term that torch adds up.

With `order` the inputs stand in another order than they are convolved in: token t is at order[t] of x, and so is its
gradient, while outputs follow each other as they are computed. A flip then costs no copy.
"""

from __future__ import annotations

import torch

from .ops_segments import Workspace, compute_dtype
from .ops_triton_base import (
    check_device,
    in_units,
    jit,
    launch,
    op_name,
    order_stride,
    places,
    tl,
    triton,
    triton_dtype,
    unit,
)


# Tokens and channels of a block, and the blocks of tokens that one program of the backward pass goes through, so that
# few terms are left to add up. 64 channels side by side fill lines of the cache in every dtype.
TOKENS, CHANNELS, BLOCKS, WARPS = 32, 64, 8, 8


@jit
def _inputs(
    x, initial, order, tokens, T, channels, inside, x_t, x_c, initial_t, initial_c,
    K: tl.constexpr, UNIT: tl.constexpr, ACC: tl.constexpr,
):  # fmt: skip
    """Inputs at `tokens` (Q,), before 0 those of the initial state, zero before it and from T on: (Q, C)."""
    here = (tokens >= 0) & (tokens < T)
    at = places(order, tokens, here)
    offsets = at[:, None] * x_t * UNIT + channels[None, :] * x_c
    tile = tl.load(x + offsets, mask=here[:, None] & inside[None, :], other=0).to(ACC)
    if initial is not None:
        before = ((tokens < 0) & (tokens > -K))[:, None] & inside[None, :]
        offsets = (tokens + (K - 1))[:, None] * initial_t + channels[None, :] * initial_c
        tile += tl.load(initial + offsets, mask=before, other=0).to(ACC)
    return tile


@jit
def _forward_kernel(
    x, weight, bias, initial, order, y, T, CHANNELS_IN_ALL,
    x_b, x_t, x_c, initial_b, initial_t, initial_c, order_b,
    K: tl.constexpr, Q: tl.constexpr, BLOCK_C: tl.constexpr, UNIT: tl.constexpr, ACC: tl.constexpr,
):  # fmt: skip
    """
    y = silu(bias + sum_k weight_k x_{t - K + 1 + k}). Programs: (sequences * blocks of tokens, blocks of channels).

    x (B, T, C) and initial (B, K - 1, C), or None, by their strides, those of x in units; order (B, T) by its stride,
    or None; weight (C, K), bias (C,), y (B, T, C) contiguous.
    """
    in_sequence = tl.cdiv(T, Q)
    b = (tl.program_id(0) // in_sequence).to(tl.int64)
    rows = (tl.program_id(0) % in_sequence).to(tl.int64) * Q + tl.arange(0, Q)
    channels = tl.program_id(1).to(tl.int64) * BLOCK_C + tl.arange(0, BLOCK_C)
    inside = channels < CHANNELS_IN_ALL
    x += b * x_b * UNIT
    if order is not None:
        order += b * order_b
    if initial is not None:
        initial += b * initial_b
    total = tl.zeros((Q, BLOCK_C), ACC) + tl.load(bias + channels, mask=inside, other=0).to(ACC)[None, :]
    for k in tl.static_range(K):
        tap = tl.load(weight + channels * K + k, mask=inside, other=0).to(ACC)
        total += tap[None, :] * _inputs(
            x, initial, order, rows - (K - 1) + k, T, channels, inside, x_t, x_c, initial_t, initial_c, K, UNIT, ACC
        )
    offsets = (b * T + rows[:, None]) * CHANNELS_IN_ALL + channels[None, :]
    output = total * tl.sigmoid(total)
    tl.store(y + offsets, output.to(y.dtype.element_ty), mask=(rows < T)[:, None] & inside[None, :])


@jit
def _before_silu(
    grad_y, x, weight, bias, initial, order, tokens, T, channels, inside,
    y_t, y_c, x_t, x_c, initial_t, initial_c, K: tl.constexpr, UNIT: tl.constexpr, ACC: tl.constexpr,
):  # fmt: skip
    """The gradient of the values before silu at `tokens` (Q,), zero before 0 and from T on: (Q, C)."""
    mask = ((tokens >= 0) & (tokens < T))[:, None] & inside[None, :]
    offsets = tokens[:, None] * y_t * UNIT + channels[None, :] * y_c
    g = tl.load(grad_y + offsets, mask=mask, other=0).to(ACC)
    pre = tl.zeros_like(g) + tl.load(bias + channels, mask=inside, other=0).to(ACC)[None, :]
    for k in tl.static_range(K):
        tap = tl.load(weight + channels * K + k, mask=inside, other=0).to(ACC)
        pre += tap[None, :] * _inputs(
            x, initial, order, tokens - (K - 1) + k, T, channels, inside,
            x_t, x_c, initial_t, initial_c, K, UNIT, ACC,
        )  # fmt: skip
    gate = tl.sigmoid(pre)
    return g * gate * (1 + pre * (1 - gate))


@jit
def _backward_kernel(
    grad_y, grad_final, x, weight, bias, initial, order, grad_x, grad_initial, grad_taps,
    T, CHANNELS_IN_ALL, in_sequence, blocks,
    y_b, y_t, y_c, x_b, x_t, x_c, grad_b, grad_t, grad_c, initial_b, initial_t, initial_c, order_b,
    K: tl.constexpr, Q: tl.constexpr, BLOCK_C: tl.constexpr, TAPS: tl.constexpr, UNIT: tl.constexpr, ACC: tl.constexpr,
):  # fmt: skip
    """
    With g the gradient of the values before silu, x_t gets sum_k weight_k g_{t + K - 1 - k}, weight_k the sum over t of
    g_t x_{t - K + 1 + k}, and bias that of g. Programs (sequences * in_sequence, blocks of channels), each for `blocks`
    blocks of tokens one after the other, the first of which begins with the initial state, at -K + 1.

    grad_y, x and grad_x (B, T, C) by their strides, which are in units, initial (B, K - 1, C), or None, by its strides,
    order (B, T) by its stride, or None; grad_final (B, K - 1, C) or None, weight (C, K), bias (C,), grad_initial
    (B, K - 1, C) and grad_taps (sequences * in_sequence, K + 1, C), each program's part of the gradients of weight
    and bias, contiguous.
    """
    b = (tl.program_id(0) // in_sequence).to(tl.int64)
    channels = tl.program_id(1).to(tl.int64) * BLOCK_C + tl.arange(0, BLOCK_C)
    inside = channels < CHANNELS_IN_ALL
    x += b * x_b * UNIT
    grad_y += b * y_b * UNIT
    grad_x += b * grad_b * UNIT
    if order is not None:
        order += b * order_b
    if initial is not None:
        initial += b * initial_b
    rows = (tl.program_id(0) % in_sequence).to(tl.int64) * blocks * Q + tl.arange(0, Q) - (K - 1)
    index = tl.arange(0, TAPS)[:, None]
    sum_taps = tl.zeros((TAPS, BLOCK_C), ACC)
    for _ in range(0, blocks):
        g = _before_silu(
            grad_y, x, weight, bias, initial, order, rows, T, channels, inside,
            y_t, y_c, x_t, x_c, initial_t, initial_c, K, UNIT, ACC,
        )  # fmt: skip
        total = tl.load(weight + channels * K + (K - 1), mask=inside, other=0).to(ACC)[None, :] * g
        for k in tl.static_range(K):
            inputs = _inputs(
                x, initial, order, rows - (K - 1) + k, T, channels, inside,
                x_t, x_c, initial_t, initial_c, K, UNIT, ACC,
            )  # fmt: skip
            sum_taps += tl.where(index == k, tl.sum(g * inputs, 0)[None, :], 0)
        sum_taps += tl.where(index == K, tl.sum(g, 0)[None, :], 0)
        for ahead in range(1, K):  # not unrolled, which would take too many registers
            g = _before_silu(
                grad_y, x, weight, bias, initial, order, rows + ahead, T, channels, inside,
                y_t, y_c, x_t, x_c, initial_t, initial_c, K, UNIT, ACC,
            )  # fmt: skip
            tap = tl.load(weight + channels * K + (K - 1 - ahead), mask=inside, other=0).to(ACC)
            total += tap[None, :] * g
        if grad_final is not None:
            # The final state is the inputs at tokens T - K + 1 to T - 1.
            kept = ((rows >= T - (K - 1)) & (rows < T))[:, None] & inside[None, :]
            offsets = (b * (K - 1) + rows[:, None] - (T - (K - 1))) * CHANNELS_IN_ALL + channels[None, :]
            total += tl.load(grad_final + offsets, mask=kept, other=0).to(ACC)
        here = (rows >= 0) & (rows < T)
        at = places(order, rows, here)
        offsets = at[:, None] * grad_t * UNIT + channels[None, :] * grad_c
        mask = here[:, None] & inside[None, :]
        tl.store(grad_x + offsets, total.to(grad_x.dtype.element_ty), mask=mask)
        mask = (rows < 0)[:, None] & inside[None, :]
        offsets = (b * (K - 1) + rows[:, None] + (K - 1)) * CHANNELS_IN_ALL + channels[None, :]
        tl.store(grad_initial + offsets, total.to(grad_initial.dtype.element_ty), mask=mask)
        rows += Q
    parts = tl.program_id(0).to(tl.int64) * (K + 1) + index
    tl.store(grad_taps + parts * CHANNELS_IN_ALL + channels[None, :], sum_taps, mask=(index <= K) & inside[None, :])


def _strides(state: torch.Tensor | None) -> tuple[int, ...]:
    return (0, 0, 0) if state is None else state.stride()


def launch_forward(x, weight, bias, initial_state, order, y):
    """Writes y (B, T, C), contiguous, of x (B, T, C), whose tokens stand at `order` (B, T) or (T,)."""
    (batch, length, channels), kernel_size, step = x.shape, weight.shape[-1], unit(x)
    grid = (batch * triton.cdiv(length, TOKENS), triton.cdiv(channels, CHANNELS))
    constants = {"K": kernel_size, "Q": TOKENS, "BLOCK_C": CHANNELS, "UNIT": step}
    constants["ACC"] = triton_dtype(compute_dtype(x.dtype))
    tensors = (x, weight.contiguous(), bias.contiguous(), initial_state, order, y)
    strides = (*in_units(x, step), *_strides(initial_state), order_stride(order))
    launch(_forward_kernel, grid, tensors, length, channels, *strides, warps=WARPS, **constants)


def launch_backward(grad_y, grad_final, x, weight, bias, initial_state, order, grad_x, grad_initial) -> torch.Tensor:
    """
    Writes grad_x (B, T, C), by its strides, with tokens at `order`, and grad_initial (B, K - 1, C), contiguous.

    Returns:
        The gradients of weight and bias together: (K + 1, C).
    """
    (batch, length, channels), kernel_size, step = x.shape, weight.shape[-1], unit(grad_y, x, grad_x)
    blocks = min(BLOCKS, triton.cdiv(length + kernel_size - 1, TOKENS))
    in_sequence = triton.cdiv(length + kernel_size - 1, TOKENS * blocks)
    grid = (batch * in_sequence, triton.cdiv(channels, CHANNELS))
    parts = grad_initial.new_empty(grid[0], kernel_size + 1, channels, dtype=compute_dtype(x.dtype))
    constants = {"K": kernel_size, "Q": TOKENS, "BLOCK_C": CHANNELS, "UNIT": step}
    constants |= {"TAPS": triton.next_power_of_2(kernel_size + 1), "ACC": triton_dtype(compute_dtype(x.dtype))}
    grad_final = None if grad_final is None else grad_final.contiguous()
    weights = (weight.contiguous(), bias.contiguous())
    tensors = (grad_y, grad_final, x, *weights, initial_state, order, grad_x, grad_initial, parts)
    strides = (stride for tensor in (grad_y, x, grad_x) for stride in in_units(tensor, step))
    strides = (*strides, *_strides(initial_state), order_stride(order))
    launch(_backward_kernel, grid, tensors, length, channels, in_sequence, blocks, *strides, warps=WARPS, **constants)
    return parts.sum(0)


@torch.library.custom_op(op_name(__name__, "causal_conv1d"), mutates_args=())
def _causal_conv1d(
    x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor, initial_state: torch.Tensor | None
) -> tuple[torch.Tensor, torch.Tensor]:
    y, final_state = _like_outputs(x, weight, bias, initial_state)
    length, kernel_size = x.shape[1], weight.shape[-1]
    kept = min(length, kernel_size - 1)
    final_state[:, kernel_size - 1 - kept :] = x[:, length - kept :]
    before = final_state[:, : kernel_size - 1 - kept]
    before.copy_(initial_state[:, kept:]) if initial_state is not None else before.zero_()
    launch_forward(x, weight, bias, initial_state, None, y)
    return y, final_state


@_causal_conv1d.register_fake
def _like_outputs(x, weight, bias, initial_state):
    y = torch.empty_like(x, memory_format=torch.contiguous_format)
    return y, x.new_empty(x.shape[0], weight.shape[-1] - 1, x.shape[2])


@torch.library.custom_op(op_name(__name__, "causal_conv1d_backward"), mutates_args=())
def _causal_conv1d_backward(
    grad_y: torch.Tensor, grad_final: torch.Tensor | None, x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor,
    initial_state: torch.Tensor | None,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:  # fmt: skip
    """Gradients of x, of weight and bias together (K + 1, C), and of the state before the first token."""
    grad_x = torch.empty_like(x, memory_format=torch.contiguous_format)
    grad_initial = x.new_empty(x.shape[0], weight.shape[-1] - 1, x.shape[2], dtype=compute_dtype(x.dtype))
    grad_taps = launch_backward(grad_y, grad_final, x, weight, bias, initial_state, None, grad_x, grad_initial)
    return grad_x, grad_taps, grad_initial


@_causal_conv1d_backward.register_fake
def _like_gradients(grad_y, grad_final, x, weight, bias, initial_state):
    kernel_size, dtype = weight.shape[-1], compute_dtype(x.dtype)
    grad_x = torch.empty_like(x, memory_format=torch.contiguous_format)
    grad_taps = x.new_empty(kernel_size + 1, x.shape[2], dtype=dtype)
    return grad_x, grad_taps, x.new_empty(x.shape[0], kernel_size - 1, x.shape[2], dtype=dtype)


def _save(ctx, inputs, output):
    ctx.save_for_backward(*inputs)


def _backward(ctx, grad_y, grad_final):
    x, weight, bias, initial_state = ctx.saved_tensors
    grad_x, grad_taps, grad_initial = _causal_conv1d_backward(grad_y, grad_final, x, weight, bias, initial_state)
    grad_weight = grad_taps[:-1].t().unsqueeze(1).to(weight.dtype)
    grad_initial = None if initial_state is None else grad_initial.to(initial_state.dtype)
    return grad_x, grad_weight, grad_taps[-1].to(bias.dtype), grad_initial


_causal_conv1d.register_autograd(_backward, setup_context=_save)


def causal_conv1d_triton(
    x: torch.Tensor,
    weight: torch.Tensor,
    bias: torch.Tensor,
    initial_state: torch.Tensor | None = None,
    workspace: Workspace | None = None,
) -> tuple[torch.Tensor, torch.Tensor]:
    """
    The convolution, with the arguments and results of `ops_conv1d.causal_conv1d`; it needs no workspace.

    Raises:
        ImportError: if Triton is not installed.
        ValueError: for a device that the kernels do not run on.
    """
    check_device("causal_conv1d_triton", x.device, x, weight, bias, initial_state)
    return _causal_conv1d(x, weight, bias, initial_state)
