# Copyright 2026 The modeling_pixelvit team. All rights reserved.
# SPDX-License-Identifier: Apache-2.0
"""
RMSNorm as Triton kernels, with what a block has around it: the residual branch that is added before, and the average of
its tokens, which goes before them in a scan.

    sum = h + scale * branch        normed = weight * sum / sqrt(mean(sum^2) + eps)

A program takes some tokens of a sequence, one after the other, so that memory is read and written once; backward too,
where it adds the gradients that the stream and the tokens have from elsewhere. The gradient of the weight, and forward
the tokens' sum, leave each program as one term that torch adds up.
"""

from __future__ import annotations

import torch

from .ops_segments import autocast_dtype, compute_dtype
from .ops_triton_base import check_device, jit, launch, op_name, tl, triton, triton_dtype


# Tokens of a program, and its warps.
ROWS, WARPS = 16, 4


@jit
def _forward_kernel(
    h, branch, scale, weight, total, normed, sums, T, eps,
    SIZE: tl.constexpr, BLOCK: tl.constexpr, ROWS: tl.constexpr, ACC: tl.constexpr,
):  # fmt: skip
    """
    Programs: (sequences * blocks of tokens,).

    h, branch or None, total or None without one, and normed (B, T, D), scale (B,) or None, weight (D,) and sums
    (B, blocks of tokens, D) or None, of the normed tokens of each block; contiguous.
    """
    blocks = tl.cdiv(T, ROWS)
    b = (tl.program_id(0) // blocks).to(tl.int64)
    column = tl.arange(0, BLOCK)
    mask, zeros = column < SIZE, tl.zeros_like(column)
    factor = tl.load(weight + column, mask=mask, other=0).to(ACC)
    share = 1.0
    if scale is not None:
        share = tl.load(scale + b).to(ACC)
    added_up = tl.zeros((BLOCK,), ACC)
    first = (tl.program_id(0) % blocks).to(tl.int64) * ROWS
    for row in range(0, ROWS):
        t = first + row
        # As a block, since the interpreter of Triton 3.9 joins no block of truth values with a single one.
        here = mask & (t + zeros < T)
        offsets = (b * T + t) * SIZE + column
        v = tl.load(h + offsets, mask=here, other=0).to(ACC)
        if branch is not None:
            v += tl.load(branch + offsets, mask=here, other=0).to(ACC) * share
            # Rounded, so that the norm is that of the sum which goes on.
            rounded = v.to(total.dtype.element_ty)
            tl.store(total + offsets, rounded, mask=here)
            v = rounded.to(ACC)
        result = factor * v * tl.rsqrt(tl.sum(v * v, 0) / SIZE + eps)
        added_up += result
        tl.store(normed + offsets, result.to(normed.dtype.element_ty), mask=here)
    if sums is not None:
        part = sums + tl.program_id(0).to(tl.int64) * SIZE + column
        tl.store(part, added_up, mask=mask)


@jit
def _backward_kernel(
    grad_total, grad_normed, grad_mean, total, scale, weight, grad_h, grad_branch, grad_weight, T, eps,
    SIZE: tl.constexpr, BLOCK: tl.constexpr, ROWS: tl.constexpr, ACC: tl.constexpr,
):  # fmt: skip
    """
    With r = 1 / sqrt(mean(total^2) + eps), n = total r and g = (grad_normed + grad_mean / T) weight, total gets
    grad_total + r (g - n mean(g n)). Programs as forward.

    grad_total or None, grad_normed, total, grad_h and grad_branch or None (B, T, D), grad_mean (B, D) or None, scale
    (B,) or None, weight (D,), and grad_weight (B, blocks of tokens, D), each block's part; contiguous.
    """
    blocks = tl.cdiv(T, ROWS)
    b = (tl.program_id(0) // blocks).to(tl.int64)
    column = tl.arange(0, BLOCK)
    mask, zeros = column < SIZE, tl.zeros_like(column)
    factor = tl.load(weight + column, mask=mask, other=0).to(ACC)
    share = 1.0
    if scale is not None:
        share = tl.load(scale + b).to(ACC)
    from_mean = tl.zeros((BLOCK,), ACC)
    if grad_mean is not None:
        from_mean += tl.load(grad_mean + b * SIZE + column, mask=mask, other=0).to(ACC) / T
    sum_weight = tl.zeros((BLOCK,), ACC)
    first = (tl.program_id(0) % blocks).to(tl.int64) * ROWS
    for row in range(0, ROWS):
        t = first + row
        here = mask & (t + zeros < T)
        offsets = (b * T + t) * SIZE + column
        v = tl.load(total + offsets, mask=here, other=0).to(ACC)
        grad = tl.load(grad_normed + offsets, mask=here, other=0).to(ACC) + from_mean
        rate = tl.rsqrt(tl.sum(v * v, 0) / SIZE + eps)
        v *= rate  # zero after the last token, and so is what it adds
        sum_weight += grad * v
        grad *= factor
        grad = rate * (grad - v * (tl.sum(grad * v, 0) / SIZE))
        if grad_total is not None:
            grad += tl.load(grad_total + offsets, mask=here, other=0).to(ACC)
        tl.store(grad_h + offsets, grad.to(grad_h.dtype.element_ty), mask=here)
        if grad_branch is not None:
            tl.store(grad_branch + offsets, (grad * share).to(grad_branch.dtype.element_ty), mask=here)
    part = grad_weight + tl.program_id(0).to(tl.int64) * SIZE + column
    tl.store(part, sum_weight, mask=mask)


def _launch(kernel, tensors, h, eps):
    batch, length, size = h.shape
    constants = {"SIZE": size, "BLOCK": triton.next_power_of_2(size), "ROWS": ROWS}
    constants["ACC"] = triton_dtype(compute_dtype(h.dtype))
    launch(kernel, (batch * triton.cdiv(length, ROWS),), tensors, length, eps, warps=WARPS, **constants)


def _parts(h):
    """Room for the terms of a sum over tokens: (B, blocks of tokens, D)."""
    return h.new_empty(h.shape[0], triton.cdiv(h.shape[1], ROWS), h.shape[2], dtype=compute_dtype(h.dtype))


@torch.library.custom_op(op_name(__name__, "rms_norm_forward"), mutates_args=())
def _rms_norm_forward(
    h: torch.Tensor, weight: torch.Tensor, eps: float, dtype: torch.dtype
) -> tuple[torch.Tensor, torch.Tensor]:
    """The norm in `dtype`, and its mean over tokens (B, D) in at least float32."""
    normed, _ = _like_norm(h, weight, eps, dtype)
    parts = _parts(h)
    _launch(_forward_kernel, (h.contiguous(), None, None, weight.contiguous(), None, normed, parts), h, eps)
    return normed, parts.sum(1) / h.shape[1]


@_rms_norm_forward.register_fake
def _like_norm(h, weight, eps, dtype):
    return h.new_empty(h.shape, dtype=dtype), h.new_empty(h.shape[0], h.shape[2], dtype=compute_dtype(h.dtype))


@torch.library.custom_op(op_name(__name__, "rms_norm_backward"), mutates_args=())
def _rms_norm_backward(
    grad_total: torch.Tensor | None, grad_normed: torch.Tensor, grad_mean: torch.Tensor | None, total: torch.Tensor,
    scale: torch.Tensor | None, weight: torch.Tensor, eps: float, dtype: torch.dtype, branch_dtype: torch.dtype | None,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:  # fmt: skip
    """Gradients of h, in `dtype`, of the branch, empty unless `branch_dtype` is given, and of the weight."""
    arguments = (grad_total, grad_normed, grad_mean, total, scale, weight, eps, dtype, branch_dtype)
    grad_h, grad_branch, _ = _like_gradients(*arguments)
    parts = _parts(total)
    grad_total, grad_mean, scale = (None if t is None else t.contiguous() for t in (grad_total, grad_mean, scale))
    own = (grad_h, None if branch_dtype is None else grad_branch, parts)
    inputs = (grad_total, grad_normed.contiguous(), grad_mean, total.contiguous(), scale, weight.contiguous())
    _launch(_backward_kernel, (*inputs, *own), total, eps)
    return grad_h, grad_branch, parts.sum((0, 1))


@_rms_norm_backward.register_fake
def _like_gradients(grad_total, grad_normed, grad_mean, total, scale, weight, eps, dtype, branch_dtype):
    grad_h = total.new_empty(total.shape, dtype=dtype)
    grad_branch = total.new_empty(0) if branch_dtype is None else total.new_empty(total.shape, dtype=branch_dtype)
    return grad_h, grad_branch, total.new_empty(total.shape[2], dtype=compute_dtype(total.dtype))


class _RMSNorm(torch.autograd.Function):
    """An op of torch.library may not return what it was given, which here comes back for its gradient to be added."""

    @staticmethod
    def forward(ctx, h, weight, eps, dtype):
        ctx.save_for_backward(h, weight)
        ctx.eps = eps
        return h.view_as(h), *_rms_norm_forward(h, weight, eps, dtype)

    @staticmethod
    def backward(ctx, grad_h, grad_normed, grad_mean):
        h, weight = ctx.saved_tensors
        arguments = (grad_h, grad_normed, grad_mean, h, None, weight, ctx.eps, h.dtype, None)
        grad_h, _, grad_weight = _rms_norm_backward(*arguments)
        return grad_h, grad_weight.to(weight.dtype), None, None


@torch.library.custom_op(op_name(__name__, "add_rms_norm"), mutates_args=())
def _add_rms_norm(
    h: torch.Tensor, branch: torch.Tensor, scale: torch.Tensor | None, weight: torch.Tensor, eps: float,
    dtype: torch.dtype,
) -> tuple[torch.Tensor, torch.Tensor]:  # fmt: skip
    """The sum, and the norm of it in `dtype`."""
    total, normed = _like_outputs(h, branch, scale, weight, eps, dtype)
    scale = None if scale is None else scale.contiguous()
    tensors = (h.contiguous(), branch.contiguous(), scale, weight.contiguous(), total, normed, None)
    _launch(_forward_kernel, tensors, total, eps)
    return total, normed


@_add_rms_norm.register_fake
def _like_outputs(h, branch, scale, weight, eps, dtype):
    total = h.new_empty(h.shape, dtype=torch.promote_types(h.dtype, branch.dtype))
    return total, h.new_empty(h.shape, dtype=dtype)


def _save(ctx, inputs, output):
    h, branch, scale, weight, ctx.eps, _ = inputs
    ctx.dtype, ctx.branch_dtype = h.dtype, branch.dtype
    ctx.save_for_backward(output[0], scale, weight)


def _backward(ctx, grad_total, grad_normed):
    total, scale, weight = ctx.saved_tensors
    # Of two gradients that are the same one is written.
    is_shared = scale is None and ctx.branch_dtype == ctx.dtype
    branch_dtype = None if is_shared else ctx.branch_dtype
    arguments = (grad_total, grad_normed, None, total, scale, weight, ctx.eps, ctx.dtype, branch_dtype)
    grad_h, grad_branch, grad_weight = _rms_norm_backward(*arguments)
    return grad_h, grad_h if is_shared else grad_branch, None, grad_weight.to(weight.dtype), None, None


_add_rms_norm.register_autograd(_backward, setup_context=_save)


def rms_norm_triton(h: torch.Tensor, weight: torch.Tensor, eps: float) -> tuple[torch.Tensor, ...]:
    """
    weight * h / sqrt(mean(h^2) + eps) for h (B, T, D), computed in float32 at least.

    Returns:
        h, to go on with: its gradient is then added up where that of the norm is computed. The norm (B, T, D) in the
        dtype in which a linear layer takes it, so under autocast in autocast's. Its mean over tokens (B, 1, D), in that
        dtype.

    Raises:
        ImportError: if Triton is not installed.
        ValueError: for a device that the kernels do not run on.
    """
    check_device("rms_norm_triton", h.device)
    dtype = autocast_dtype(h)
    h, normed, mean = _RMSNorm.apply(h, weight, eps, dtype)
    return h, normed, mean.to(dtype)[:, None]


def add_rms_norm_triton(
    h: torch.Tensor, weight: torch.Tensor, eps: float, branch: torch.Tensor, scale: torch.Tensor | None = None
) -> tuple[torch.Tensor, torch.Tensor]:
    """
    The sum h + scale * branch, in the wider of their dtypes, and the norm of it as in `rms_norm_triton`.

    Args:
        h, branch: (B, T, D).
        scale: (B,), 1 if None; it gets no gradient.

    Raises:
        ImportError: if Triton is not installed.
        ValueError: for a device that the kernels do not run on.
    """
    check_device("add_rms_norm_triton", h.device, h, branch, scale, weight)
    return _add_rms_norm(h, branch, scale, weight, eps, autocast_dtype(h))
