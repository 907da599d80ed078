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

from .ops_segments import Workspace, compute_dtype, empty_like, segments


# Tokens that are worked on together: few enough for a CPU's cache at the widths of the paper.
SEGMENT_LENGTH = 1024


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


def _forward(y, z, weight, groups, eps, workspace=None):
    dtype = compute_dtype(y.dtype)
    weight = weight.to(dtype)
    output = empty_like("normed", y, workspace)
    for part in segments(y.shape[1], SEGMENT_LENGTH):
        output_part = output[:, part]
        v = output_part if output.dtype == dtype else torch.empty_like(output_part, dtype=dtype)
        torch.ops.aten.silu.out(z[:, part].to(dtype), out=v).mul_(y[:, part])
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
        dtype = compute_dtype(y.dtype)
        weight_wide = weight.to(dtype)
        grad_weight = torch.zeros_like(weight_wide)
        grad_y, grad_z = (torch.empty_like(t, memory_format=torch.contiguous_format) for t in (y, z))
        for part in segments(y.shape[1], SEGMENT_LENGTH):
            y_part, z_part, grad = (t[:, part].to(dtype) for t in (y, z, grad_output))
            gate = F.silu(z_part)
            v = (gate * y_part).unflatten(-1, (ctx.groups, -1))
            scale = _scale(v, ctx.eps)
            normed = v.mul_(scale)
            grad_weight += (grad * normed.flatten(-2)).sum((0, 1))
            grad_normed = (grad * weight_wide).unflatten(-1, (ctx.groups, -1))
            shared = (grad_normed * normed).mean(-1, keepdim=True)
            grad_v = grad_normed.sub_(normed.mul_(shared)).mul_(scale).flatten(-2)
            grad_y[:, part] = gate.mul_(grad_v)
            grad_z[:, part] = torch.ops.aten.silu_backward(grad_v.mul_(y_part), z_part)
        return grad_y, grad_z, grad_weight.to(weight.dtype), None, None
