# Copyright 2026 The modeling_pixelvit team. All rights reserved.
# SPDX-License-Identifier: Apache-2.0
"""
The gated RMSNorm of Mamba-2 as Triton kernels: letters and semantics of `ops_norm`.

A program takes some tokens of one group, one after the other, so that a token's channels are in registers at once and
memory is read and written once. The gradient of the weight leaves each program as one term that torch adds up.
"""

from __future__ import annotations

import torch

from .ops_segments import Workspace, compute_dtype
from .ops_triton_base import check_device, in_units, jit, launch, op_name, tl, triton, triton_dtype, unit


# Tokens of a program, and its warps.
ROWS, WARPS = 16, 8


@jit
def _gated(y, z, b, t, y_b, y_t, y_m, z_b, z_t, z_m, channels, mask, UNIT: tl.constexpr, ACC: tl.constexpr):
    """y, z and sigmoid(z) of one token, zero outside the group."""
    y_row = tl.load(y + (b * y_b + t * y_t) * UNIT + channels * y_m, mask=mask, other=0).to(ACC)
    z_row = tl.load(z + (b * z_b + t * z_t) * UNIT + channels * z_m, mask=mask, other=0).to(ACC)
    return y_row, z_row, tl.sigmoid(z_row)


@jit
def _forward_kernel(
    y, z, weight, output, N, T, eps, y_b, y_t, y_m, z_b, z_t, z_m,
    GROUPS: tl.constexpr, SIZE: tl.constexpr, BLOCK: tl.constexpr, ROWS: tl.constexpr, UNIT: tl.constexpr,
    ACC: tl.constexpr,
):  # fmt: skip
    """
    v = y silu(z), output = weight v / sqrt(mean(v^2) + eps). Programs: (blocks of the N = B T tokens, groups).

    y and z (B, T, M) by their strides, in units; weight (M,) and output (B, T, M) contiguous; SIZE = M / G channels in
    a group.
    """
    column = tl.arange(0, BLOCK)
    mask, zeros = column < SIZE, tl.zeros_like(column)
    channels = tl.program_id(1).to(tl.int64) * SIZE + column
    scale = tl.load(weight + channels, mask=mask, other=0).to(ACC)
    first = tl.program_id(0).to(tl.int64) * ROWS
    for row in range(0, ROWS):
        n = first + row
        # As a block, since the interpreter of Triton 3.9 joins no block of truth values with a single one.
        here = mask & (n + zeros < N)
        y_row, z_row, gate = _gated(y, z, n // T, n % T, y_b, y_t, y_m, z_b, z_t, z_m, channels, here, UNIT, ACC)
        v = y_row * z_row * gate
        normed = v * tl.rsqrt(tl.sum(v * v, 0) / SIZE + eps)
        result = (scale * normed).to(output.dtype.element_ty)
        tl.store(output + n * (GROUPS * SIZE) + channels, result, mask=here)


@jit
def _backward_kernel(
    grad, y, z, weight, grad_y, grad_z, grad_weight, N, T, eps,
    g_b, g_t, g_m, y_b, y_t, y_m, z_b, z_t, z_m, grad_z_b, grad_z_t, grad_z_m,
    GROUPS: tl.constexpr, SIZE: tl.constexpr, BLOCK: tl.constexpr, ROWS: tl.constexpr, UNIT: tl.constexpr,
    ACC: tl.constexpr,
):  # fmt: skip
    """
    With r = 1 / sqrt(mean(v^2) + eps), n = v r and g = grad * weight, v gets r (g - n mean(g n)). Programs as forward.

    grad, y, z and grad_z (B, T, M) by their strides, in units; weight (M,), grad_y (B, T, M) and grad_weight (blocks of
    tokens, M), each block's part, contiguous.
    """
    column = tl.arange(0, BLOCK)
    mask, zeros = column < SIZE, tl.zeros_like(column)
    channels = tl.program_id(1).to(tl.int64) * SIZE + column
    scale = tl.load(weight + channels, mask=mask, other=0).to(ACC)
    sum_weight = tl.zeros((BLOCK,), ACC)
    first = tl.program_id(0).to(tl.int64) * ROWS
    for row in range(0, ROWS):
        n = first + row
        b = n // T
        t = n % T
        here = mask & (n + zeros < N)
        y_row, z_row, gate = _gated(y, z, b, t, y_b, y_t, y_m, z_b, z_t, z_m, channels, here, UNIT, ACC)
        grad_row = tl.load(grad + (b * g_b + t * g_t) * UNIT + channels * g_m, mask=here, other=0).to(ACC)
        v = y_row * z_row * gate
        rate = tl.rsqrt(tl.sum(v * v, 0) / SIZE + eps)
        normed = v * rate
        sum_weight += grad_row * normed
        grad_normed = grad_row * scale
        grad_v = rate * (grad_normed - normed * (tl.sum(grad_normed * normed, 0) / SIZE))
        grad_y_row = (grad_v * z_row * gate).to(grad_y.dtype.element_ty)
        tl.store(grad_y + n * (GROUPS * SIZE) + channels, grad_y_row, mask=here)
        grad_gate = grad_v * y_row * gate * (1 + z_row * (1 - gate))
        offsets = (b * grad_z_b + t * grad_z_t) * UNIT + channels * grad_z_m
        tl.store(grad_z + offsets, grad_gate.to(grad_z.dtype.element_ty), mask=here)
    part = grad_weight + tl.program_id(0).to(tl.int64) * (GROUPS * SIZE) + channels
    tl.store(part, sum_weight, mask=mask)


def _launch(kernel, tensors, strided, y, eps, groups):
    length, size, step = y.shape[1], y.shape[2] // groups, unit(*strided)
    tokens = y.shape[0] * length
    grid = (triton.cdiv(tokens, ROWS), groups)
    constants = {"GROUPS": groups, "SIZE": size, "BLOCK": triton.next_power_of_2(size), "ROWS": ROWS, "UNIT": step}
    constants["ACC"] = triton_dtype(compute_dtype(y.dtype))
    strides = (stride for tensor in strided for stride in in_units(tensor, step))
    launch(kernel, grid, tensors, tokens, length, eps, *strides, warps=WARPS, **constants)


def launch_forward(y, z, weight, groups, eps, output):
    """Writes output (B, T, M), contiguous."""
    _launch(_forward_kernel, (y, z, weight.contiguous(), output), (y, z), y, eps, groups)


def launch_backward(grad, y, z, weight, groups, eps, grad_y, grad_z) -> torch.Tensor:
    """Writes grad_y (B, T, M), contiguous, and grad_z, by its strides, and returns the gradient of weight."""
    blocks = triton.cdiv(y.shape[0] * y.shape[1], ROWS)
    parts = y.new_empty(blocks, y.shape[2], dtype=compute_dtype(y.dtype))
    tensors = (grad, y, z, weight.contiguous(), grad_y, grad_z, parts)
    _launch(_backward_kernel, tensors, (grad, y, z, grad_z), y, eps, groups)
    return parts.sum(0)


@torch.library.custom_op(op_name(__name__, "rms_norm_gated"), mutates_args=())
def _rms_norm_gated(y: torch.Tensor, z: torch.Tensor, weight: torch.Tensor, groups: int, eps: float) -> torch.Tensor:
    output = torch.empty_like(y, memory_format=torch.contiguous_format)
    launch_forward(y, z, weight, groups, eps, output)
    return output


@_rms_norm_gated.register_fake
def _like_output(y, z, weight, groups, eps):
    return torch.empty_like(y, memory_format=torch.contiguous_format)


@torch.library.custom_op(op_name(__name__, "rms_norm_gated_backward"), mutates_args=())
def _rms_norm_gated_backward(
    grad: torch.Tensor, y: torch.Tensor, z: torch.Tensor, weight: torch.Tensor, groups: int, eps: float
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    grad_y, grad_z = (torch.empty_like(t, memory_format=torch.contiguous_format) for t in (y, z))
    return grad_y, grad_z, launch_backward(grad, y, z, weight, groups, eps, grad_y, grad_z)


@_rms_norm_gated_backward.register_fake
def _like_gradients(grad, y, z, weight, groups, eps):
    grad_y, grad_z = (torch.empty_like(t, memory_format=torch.contiguous_format) for t in (y, z))
    return grad_y, grad_z, y.new_empty(y.shape[2], dtype=compute_dtype(y.dtype))


def _save(ctx, inputs, output):
    ctx.save_for_backward(*inputs[:3])
    ctx.groups, ctx.eps = inputs[3:]


def _backward(ctx, grad):
    y, z, weight = ctx.saved_tensors
    grad_y, grad_z, grad_weight = _rms_norm_gated_backward(grad, y, z, weight, ctx.groups, ctx.eps)
    return grad_y, grad_z, grad_weight.to(weight.dtype), None, None


_rms_norm_gated.register_autograd(_backward, setup_context=_save)


def rms_norm_gated_triton(
    y: torch.Tensor, z: torch.Tensor, weight: torch.Tensor, groups: int, eps: float, workspace: Workspace | None = None
) -> torch.Tensor:
    """
    The gated norm, with the arguments and results of `ops_norm.rms_norm_gated`; it needs no workspace.

    Raises:
        ImportError: if Triton is not installed.
        ValueError: for a device that the kernels do not run on.
    """
    check_device("rms_norm_gated_triton", y.device, y, z, weight)
    return _rms_norm_gated(y, z, weight, groups, eps)
