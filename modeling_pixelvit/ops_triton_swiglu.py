# Copyright 2026 The modeling_pixelvit team. All rights reserved.
# SPDX-License-Identifier: Apache-2.0
"""The gate of Adventurer's MLP, silu(gate) * up, as Triton kernels, element by element."""

from __future__ import annotations

import torch

from .ops_segments import compute_dtype
from .ops_triton_base import check_device, jit, launch, op_name, tl, triton, triton_dtype


# Elements of a program, and its warps: eight elements a thread.
ELEMENTS, WARPS = 1024, 4


@jit
def _forward_kernel(gate, up, output, N, BLOCK: tl.constexpr, ACC: tl.constexpr):
    """All of N elements, contiguous. Programs: (blocks of elements,)."""
    offsets = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    mask = offsets < N
    g = tl.load(gate + offsets, mask=mask, other=0).to(ACC)
    result = g * tl.sigmoid(g) * tl.load(up + offsets, mask=mask, other=0).to(ACC)
    tl.store(output + offsets, result.to(output.dtype.element_ty), mask=mask)


@jit
def _backward_kernel(grad, gate, up, grad_gate, grad_up, N, BLOCK: tl.constexpr, ACC: tl.constexpr):
    """As forward."""
    offsets = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    mask = offsets < N
    d = tl.load(grad + offsets, mask=mask, other=0).to(ACC)
    g = tl.load(gate + offsets, mask=mask, other=0).to(ACC)
    u = tl.load(up + offsets, mask=mask, other=0).to(ACC)
    sigmoid = tl.sigmoid(g)
    tl.store(grad_up + offsets, (d * g * sigmoid).to(grad_up.dtype.element_ty), mask=mask)
    d *= u * sigmoid * (1 + g * (1 - sigmoid))
    tl.store(grad_gate + offsets, d.to(grad_gate.dtype.element_ty), mask=mask)


def _launch(kernel, *tensors):
    elements = tensors[0].numel()
    constants = {"BLOCK": ELEMENTS, "ACC": triton_dtype(compute_dtype(tensors[0].dtype))}
    launch(kernel, (triton.cdiv(elements, ELEMENTS),), tensors, elements, warps=WARPS, **constants)


@torch.library.custom_op(op_name(__name__, "swiglu"), mutates_args=())
def _swiglu(gate: torch.Tensor, up: torch.Tensor) -> torch.Tensor:
    output = _like_output(gate, up)
    _launch(_forward_kernel, gate.contiguous(), up.contiguous(), output)
    return output


@_swiglu.register_fake
def _like_output(gate, up):
    return torch.empty_like(gate, memory_format=torch.contiguous_format)


@torch.library.custom_op(op_name(__name__, "swiglu_backward"), mutates_args=())
def _swiglu_backward(
    grad: torch.Tensor, gate: torch.Tensor, up: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:  # fmt: skip
    grads = _like_gradients(grad, gate, up)
    _launch(_backward_kernel, grad.contiguous(), gate.contiguous(), up.contiguous(), *grads)
    return grads


@_swiglu_backward.register_fake
def _like_gradients(grad, gate, up):
    return tuple(torch.empty_like(t, memory_format=torch.contiguous_format) for t in (gate, up))


def _save(ctx, inputs, output):
    ctx.save_for_backward(*inputs)


def _backward(ctx, grad):
    return _swiglu_backward(grad, *ctx.saved_tensors)


_swiglu.register_autograd(_backward, setup_context=_save)


def swiglu_triton(gate: torch.Tensor, up: torch.Tensor) -> torch.Tensor:
    """
    silu(gate) * up of two tensors of one shape and dtype, computed in float32 at least.

    Raises:
        ImportError: if Triton is not installed.
        ValueError: for a device that the kernels do not run on.
    """
    check_device("swiglu_triton", gate.device, gate, up)
    return _swiglu(gate, up)
