# Copyright 2026 The modeling_pixelvit team. All rights reserved.
# SPDX-License-Identifier: Apache-2.0
"""
The gated RMSNorm of Mamba-2: gate first, then norm over groups of channels.

    v = y * silu(z)        out = weight * v / sqrt(mean(v^2 over the group) + eps)

Both functions take y and z (B, T, M), weight (M,), the number of groups (M is a multiple of it) and eps, and return
(B, T, M) in the dtype of y. Everything is computed in float32 whatever the dtype (in float64 if y is float64).
"""

import torch
from torch.nn import functional as F

from .ops_segments import Workspace, batch_blocks, compute_dtype, empty_like, op_segment_length, segments


def rms_norm_gated_reference(
    y: torch.Tensor, z: torch.Tensor, weight: torch.Tensor, groups: int, eps: float
) -> torch.Tensor:
    """The gated norm as the module's docstring writes it."""
    dtype = compute_dtype(y.dtype)
    v = (y.to(dtype) * F.silu(z.to(dtype))).unflatten(-1, (groups, -1))
    v = v * torch.rsqrt(v.square().mean(-1, keepdim=True) + eps)
    return (weight.to(dtype) * v.flatten(-2)).to(y.dtype)


def rms_norm_gated(
    y: torch.Tensor, z: torch.Tensor, weight: torch.Tensor, groups: int, eps: float, workspace: Workspace | None = None
) -> torch.Tensor:
    """
    The gated norm, segment by segment; the backward pass keeps y and z alone.

    With a workspace, and where no gradient is recorded, the output is part of it.
    """
    if torch.compiler.is_compiling():
        return rms_norm_gated_reference(y, z, weight, groups, eps)  # a compiler fuses it on its own
    if torch.is_grad_enabled():
        return _RMSNormGated.apply(y, z, weight, groups, eps)
    return _forward(y, z, weight, groups, eps, workspace)


def _scale(v, eps):
    """1 / rms of v (B, L, G, M / G) over its last dimension: (B, L, G, 1)."""
    return torch.linalg.vector_norm(v, dim=-1, keepdim=True).square_().div_(v.shape[-1]).add_(eps).rsqrt_()


def _blocks(y):
    length = op_segment_length(y.device)
    return [(rows, part) for rows in batch_blocks(y, length) for part in segments(y.shape[1], length)]


def _forward(y, z, weight, groups, eps, workspace=None):
    dtype = compute_dtype(y.dtype)
    weight = weight.to(dtype)
    output = empty_like("normed", y, workspace)
    temporaries = Workspace()
    for block in _blocks(y):
        output_part = output[block]
        v = output_part if output.dtype == dtype else temporaries.buffer("v", output_part.shape, like=weight)
        torch.ops.aten.silu.out(z[block].to(dtype), out=v).mul_(y[block])
        v_by_group = v.unflatten(-1, (groups, -1))
        v_by_group.mul_(_scale(v_by_group, eps))
        output_part.copy_(v.mul_(weight))
    return output


class _RMSNormGated(torch.autograd.Function):
    @staticmethod
    def forward(ctx, y, z, weight, groups, eps):
        ctx.save_for_backward(y, z, weight)
        ctx.groups, ctx.eps = groups, eps
        return _forward(y, z, weight, groups, eps)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx, grad_output):
        y, z, weight = ctx.saved_tensors
        dtype, groups = compute_dtype(y.dtype), ctx.groups
        weight_wide = weight.to(dtype)
        grad_weight = torch.zeros_like(weight_wide)
        grad_y, grad_z = (torch.empty_like(t, memory_format=torch.contiguous_format) for t in (y, z))
        workspace = Workspace()
        for block in _blocks(y):
            y_part, z_part, grad = (t[block].to(dtype) for t in (y, z, grad_output))
            gate, normed, product = (workspace.buffer(name, grad.shape, grad) for name in ("gate", "normed", "product"))
            torch.ops.aten.silu.out(z_part, out=gate)
            by_group = torch.mul(gate, y_part, out=normed).unflatten(-1, (groups, -1))
            scale = _scale(by_group, ctx.eps)
            by_group.mul_(scale)
            grad_weight += torch.mul(grad, normed, out=product).sum((0, 1))
            # grad_v = (grad_normed - normed * mean(grad_normed * normed)) * scale, by group
            shared = product.mul_(weight_wide).unflatten(-1, (groups, -1)).mean(-1, keepdim=True)
            grad_v = torch.mul(grad, weight_wide, out=product).unflatten(-1, (groups, -1))
            grad_v.sub_(by_group.mul_(shared)).mul_(scale)
            grad_y[block] = gate.mul_(product)
            grad_z[block] = torch.ops.aten.silu_backward.grad_input(product.mul_(y_part), z_part, grad_input=gate)
        return grad_y, grad_z, grad_weight.to(weight.dtype), None, None
