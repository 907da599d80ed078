# Copyright 2026 The modeling_pixelvit team. All rights reserved.
# SPDX-License-Identifier: Apache-2.0
"""
RMSNorm, with the residual branch that is added before it, as Triton kernels:

    sum = h + scale * branch        normed = weight * sum / sqrt(mean(sum^2) + eps)

A program takes some tokens, one after the other, so that memory is read and written once. The gradient of the weight
leaves each program as one term that torch adds up.
"""

from __future__ import annotations

import torch

from .ops_segments import autocast_dtype, compute_dtype
from .ops_triton_base import check_device, jit, launch, op_name, tl, triton, triton_dtype


# Tokens of a program, and its warps.
ROWS, WARPS = 16, 4


@jit
def _forward_kernel(
    h, branch, scale, weight, total, normed, N, T, eps,
    SIZE: tl.constexpr, BLOCK: tl.constexpr, ROWS: tl.constexpr, ACC: tl.constexpr,
):  # fmt: skip
    """
    Programs: (blocks of the N = B T tokens,).

    h, branch or None, total or None without one, and normed (B, T, D), scale (B,) or None, weight (D,); contiguous.
    """
    column = tl.arange(0, BLOCK)
    mask = column < SIZE
    factor = tl.load(weight + column, mask=mask, other=0).to(ACC)
    first = tl.program_id(0).to(tl.int64) * ROWS
    for row in range(0, ROWS):
        n = first + row
        here = mask & (n < N)
        offsets = n * SIZE + column
        v = tl.load(h + offsets, mask=here, other=0).to(ACC)
        if branch is not None:
            added = tl.load(branch + offsets, mask=here, other=0).to(ACC)
            if scale is not None:
                added *= tl.load(scale + n // T, mask=n < N, other=0).to(ACC)
            # Rounded, so that the norm is that of the sum which goes on.
            rounded = (v + added).to(total.dtype.element_ty)
            tl.store(total + offsets, rounded, mask=here)
            v = rounded.to(ACC)
        result = factor * v * tl.rsqrt(tl.sum(v * v, 0) / SIZE + eps)
        tl.store(normed + offsets, result.to(normed.dtype.element_ty), mask=here)


@jit
def _backward_kernel(
    grad_total, grad_normed, total, scale, weight, grad_h, grad_branch, grad_weight, N, T, eps,
    SIZE: tl.constexpr, BLOCK: tl.constexpr, ROWS: tl.constexpr, ACC: tl.constexpr,
):  # fmt: skip
    """
    With r = 1 / sqrt(mean(total^2) + eps), n = total r and g = grad_normed * weight, total gets
    grad_total + r (g - n mean(g n)). Programs as forward.

    grad_total or None, grad_normed, total, grad_h and grad_branch or None (B, T, D), scale (B,) or None, weight (D,),
    and grad_weight (blocks of tokens, D), each block's part; contiguous.
    """
    column = tl.arange(0, BLOCK)
    mask = column < SIZE
    factor = tl.load(weight + column, mask=mask, other=0).to(ACC)
    sum_weight = tl.zeros((BLOCK,), ACC)
    first = tl.program_id(0).to(tl.int64) * ROWS
    for row in range(0, ROWS):
        n = first + row
        here = mask & (n < N)
        offsets = n * SIZE + column
        v = tl.load(total + offsets, mask=here, other=0).to(ACC)
        grad = tl.load(grad_normed + offsets, mask=here, other=0).to(ACC)
        rate = tl.rsqrt(tl.sum(v * v, 0) / SIZE + eps)
        v *= rate
        sum_weight += grad * v
        grad *= factor
        grad = rate * (grad - v * (tl.sum(grad * v, 0) / SIZE))
        if grad_total is not None:
            grad += tl.load(grad_total + offsets, mask=here, other=0).to(ACC)
        tl.store(grad_h + offsets, grad.to(grad_h.dtype.element_ty), mask=here)
        if grad_branch is not None:
            if scale is not None:
                grad *= tl.load(scale + n // T, mask=n < N, other=0).to(ACC)
            tl.store(grad_branch + offsets, grad.to(grad_branch.dtype.element_ty), mask=here)
    part = grad_weight + tl.program_id(0).to(tl.int64) * SIZE + column
    tl.store(part, sum_weight, mask=mask)


def _launch(kernel, tensors, h, eps):
    batch, length, size = h.shape
    constants = {"SIZE": size, "BLOCK": triton.next_power_of_2(size), "ROWS": ROWS}
    constants["ACC"] = triton_dtype(compute_dtype(h.dtype))
    grid = (triton.cdiv(batch * length, ROWS),)
    launch(kernel, grid, tensors, batch * length, length, eps, warps=WARPS, **constants)


@torch.library.custom_op(op_name(__name__, "rms_norm"), mutates_args=())
def _rms_norm(
    h: torch.Tensor, branch: torch.Tensor | None, scale: torch.Tensor | None, weight: torch.Tensor, eps: float,
    dtype: torch.dtype,
) -> tuple[torch.Tensor, torch.Tensor]:  # fmt: skip
    """The sum, empty if there is no branch, and the norm of it in `dtype`."""
    total, normed = _like_outputs(h, branch, scale, weight, eps, dtype)
    h, weight = h.contiguous(), weight.contiguous()
    if branch is None:
        _launch(_forward_kernel, (h, None, None, weight, None, normed), h, eps)
    else:
        scale = None if scale is None else scale.contiguous()
        _launch(_forward_kernel, (h, branch.contiguous(), scale, weight, total, normed), h, eps)
    return total, normed


@_rms_norm.register_fake
def _like_outputs(h, branch, scale, weight, eps, dtype):
    normed = h.new_empty(h.shape, dtype=dtype)
    if branch is None:
        return h.new_empty(0), normed
    return h.new_empty(h.shape, dtype=torch.promote_types(h.dtype, branch.dtype)), normed


@torch.library.custom_op(op_name(__name__, "rms_norm_backward"), mutates_args=())
def _rms_norm_backward(
    grad_total: torch.Tensor | None, grad_normed: torch.Tensor, total: torch.Tensor, scale: torch.Tensor | None,
    weight: torch.Tensor, eps: float, dtype: torch.dtype, branch_dtype: torch.dtype | None,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:  # fmt: skip
    """Gradients of h, in `dtype`, of the branch, empty unless `branch_dtype` is given, and of the weight."""
    grad_h, grad_branch, _ = _like_gradients(grad_total, grad_normed, total, scale, weight, eps, dtype, branch_dtype)
    blocks = triton.cdiv(total.shape[0] * total.shape[1], ROWS)
    parts = total.new_empty(blocks, total.shape[2], dtype=compute_dtype(total.dtype))
    grad_total, scale = (None if t is None else t.contiguous() for t in (grad_total, scale))
    own = (grad_h, None if branch_dtype is None else grad_branch, parts)
    tensors = (grad_total, grad_normed.contiguous(), total.contiguous(), scale, weight.contiguous(), *own)
    _launch(_backward_kernel, tensors, total, eps)
    return grad_h, grad_branch, parts.sum(0)


@_rms_norm_backward.register_fake
def _like_gradients(grad_total, grad_normed, total, scale, weight, eps, dtype, branch_dtype):
    grad_h = total.new_empty(total.shape, dtype=dtype)
    grad_branch = total.new_empty(0) if branch_dtype is None else total.new_empty(total.shape, dtype=branch_dtype)
    return grad_h, grad_branch, total.new_empty(total.shape[2], dtype=compute_dtype(total.dtype))


def _save(ctx, inputs, output):
    h, branch, scale, weight, ctx.eps, _ = inputs
    ctx.dtype, ctx.branch_dtype = h.dtype, None if branch is None else branch.dtype
    ctx.save_for_backward(h if branch is None else output[0], scale, weight)
    ctx.set_materialize_grads(False)


def _backward(ctx, grad_total, grad_normed):
    total, scale, weight = ctx.saved_tensors
    if grad_normed is None:
        grad_normed = torch.zeros_like(total)
    if ctx.branch_dtype is None:
        grad_total = None  # of nothing
    # Of two gradients that are the same one is written.
    is_shared = scale is None and ctx.branch_dtype in (None, ctx.dtype)
    grad_h, grad_branch, grad_weight = _rms_norm_backward(
        grad_total, grad_normed, total, scale, weight, ctx.eps, ctx.dtype, None if is_shared else ctx.branch_dtype
    )
    if is_shared:
        grad_branch = None if ctx.branch_dtype is None else grad_h
    return grad_h, grad_branch, None, grad_weight.to(weight.dtype), None, None


_rms_norm.register_autograd(_backward, setup_context=_save)


def rms_norm_triton(h: torch.Tensor, weight: torch.Tensor, eps: float) -> torch.Tensor:
    """
    weight * h / sqrt(mean(h^2) + eps) for h (B, T, D), computed in float32 at least; it comes in the dtype in which
    a linear layer takes it, so under autocast in autocast's.

    Raises:
        ImportError: if Triton is not installed.
        ValueError: for a device that the kernels do not run on.
    """
    check_device("rms_norm_triton", h.device)
    return _rms_norm(h, None, None, weight, eps, autocast_dtype(h))[1]


def add_rms_norm_triton(
    h: torch.Tensor, weight: torch.Tensor, eps: float, branch: torch.Tensor, scale: torch.Tensor | None = None
) -> tuple[torch.Tensor, torch.Tensor]:
    """
    The sum h + scale * branch, in the wider of their dtypes, and `rms_norm_triton` of it.

    Args:
        h, branch: (B, T, D).
        scale: (B,), 1 if None; it gets no gradient.

    Raises:
        ImportError: if Triton is not installed.
        ValueError: for a device that the kernels do not run on.
    """
    check_device("add_rms_norm_triton", h.device)
    return _rms_norm(h, branch, scale, weight, eps, autocast_dtype(h))
