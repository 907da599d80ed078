# Copyright 2026 The modeling_pixelvit team. All rights reserved.
# SPDX-License-Identifier: Apache-2.0
"""
The Mamba-2 mixer between its two projections as one op over the Triton kernels: convolution, scan and gated norm.

    [z | x B C | dt] = projected        x B C = silu(conv(x B C))        y = scan(x, dt, B, C)
    output = weight RMSNorm(y * silu(z))

One op, for the sake of memory and its traffic: the gradients of z, x B C and dt are written into one tensor with the
layout of the projection, where autograd would put three together; convolved channels are not kept for the backward
pass, which makes them anew; and tokens are read and written where they stand, whatever the order of the scan.
"""

from __future__ import annotations

import torch

from .ops_segments import compute_dtype
from .ops_triton_base import check_device, op_name
from .ops_triton_conv1d import launch_backward as convolve_backward
from .ops_triton_conv1d import launch_forward as convolve
from .ops_triton_norm import launch_backward as normalize_backward
from .ops_triton_norm import launch_forward as normalize
from .ops_triton_ssd import check_sizes
from .ops_triton_ssd import launch_backward as scan_backward
from .ops_triton_ssd import launch_forward as scan


def _by_channels(projected, conv_weight, A_log):
    """z, x B C and dt, views of a tensor with the layout of the projection."""
    channels, heads = conv_weight.shape[0], A_log.shape[0]
    return projected.split([projected.shape[-1] - channels - heads, channels, heads], dim=-1)


def _by_heads(convolved, A_log, inner, groups):
    """x (B, T, H, P), B and C (B, T, G, S), views of a tensor of convolved channels."""
    states = (convolved.shape[-1] - inner) // 2
    x, B, C = convolved.split([inner, states, states], dim=-1)
    return x.unflatten(-1, (A_log.shape[0], -1)), B.unflatten(-1, (groups, -1)), C.unflatten(-1, (groups, -1))


@torch.library.custom_op(op_name(__name__, "mix"), mutates_args=())
def _mix(
    projected: torch.Tensor, conv_weight: torch.Tensor, conv_bias: torch.Tensor, A_log: torch.Tensor, D: torch.Tensor,
    dt_bias: torch.Tensor, norm_weight: torch.Tensor, conv_state: torch.Tensor | None, scan_state: torch.Tensor | None,
    order: torch.Tensor | None, groups: int, eps: float,
) -> tuple[torch.Tensor, torch.Tensor]:  # fmt: skip
    """The output, and y, which the backward pass needs, both (B, T, M)."""
    z, channels, dt = _by_channels(projected, conv_weight, A_log)
    output, y = (torch.empty_like(z, memory_format=torch.contiguous_format) for _ in range(2))
    convolved = torch.empty_like(channels, memory_format=torch.contiguous_format)
    convolve(channels, conv_weight, conv_bias, conv_state, order, convolved)
    x, B, C = _by_heads(convolved, A_log, z.shape[-1], groups)
    scan(x, dt, A_log, B, C, D, dt_bias, scan_state, order, y.view(x.shape), None)
    normalize(y, z, norm_weight, groups, eps, output)
    return output, y


@_mix.register_fake
def _like_outputs(
    projected, conv_weight, conv_bias, A_log, D, dt_bias, norm_weight, conv_state, scan_state, order, groups, eps
):
    z = _by_channels(projected, conv_weight, A_log)[0]
    return tuple(torch.empty_like(z, memory_format=torch.contiguous_format) for _ in range(2))


@torch.library.custom_op(op_name(__name__, "mix_backward"), mutates_args=())
def _mix_backward(
    grad: torch.Tensor, y: torch.Tensor, projected: torch.Tensor, conv_weight: torch.Tensor, conv_bias: torch.Tensor,
    A_log: torch.Tensor, D: torch.Tensor, dt_bias: torch.Tensor, norm_weight: torch.Tensor,
    conv_state: torch.Tensor | None, scan_state: torch.Tensor | None, order: torch.Tensor | None,
    groups: int, eps: float,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:  # fmt: skip
    """
    Gradients of projected, of the convolution's weight and bias together (K + 1, C), of A_log, D and dt_bias together
    (3, H), of norm_weight, conv_state and scan_state.
    """
    z, channels, dt = _by_channels(projected, conv_weight, A_log)
    grad_projected = torch.empty_like(projected, memory_format=torch.contiguous_format)
    grad_z, grad_channels, grad_dt = _by_channels(grad_projected, conv_weight, A_log)
    grad_y = torch.empty_like(y)
    grad_norm_weight = normalize_backward(grad, y, z, norm_weight, groups, eps, grad_y, grad_z)

    convolved = torch.empty_like(channels, memory_format=torch.contiguous_format)
    convolve(channels, conv_weight, conv_bias, conv_state, order, convolved)
    x, B, C = _by_heads(convolved, A_log, z.shape[-1], groups)
    grad_convolved = torch.empty_like(convolved)
    grad_x, grad_B, grad_C = _by_heads(grad_convolved, A_log, z.shape[-1], groups)
    dtype, batch = compute_dtype(projected.dtype), projected.shape[0]
    grad_scan_state = projected.new_empty(batch, *x.shape[2:], B.shape[3], dtype=dtype)
    by_head = scan_backward(
        grad_y.view(x.shape), None, x, dt, A_log, B, C, D, dt_bias, scan_state, order,
        grad_x, grad_dt, grad_B, grad_C, grad_scan_state,
    )  # fmt: skip

    grad_conv_state = projected.new_empty(batch, conv_weight.shape[-1] - 1, conv_weight.shape[0], dtype=dtype)
    grad_taps = convolve_backward(
        grad_convolved, None, channels, conv_weight, conv_bias, conv_state, order, grad_channels, grad_conv_state
    )
    return grad_projected, grad_taps, by_head, grad_norm_weight, grad_conv_state, grad_scan_state


@_mix_backward.register_fake
def _like_gradients(
    grad, y, projected, conv_weight, conv_bias, A_log, D, dt_bias, norm_weight, conv_state, scan_state, order,
    groups, eps,
):  # fmt: skip
    (channels, _, kernel_size), heads, inner = conv_weight.shape, A_log.shape[0], y.shape[-1]
    batch, states = projected.shape[0], (channels - inner) // (2 * groups)
    grad_taps = projected.new_empty(kernel_size + 1, channels, dtype=compute_dtype(projected.dtype))
    return (
        torch.empty_like(projected, memory_format=torch.contiguous_format),
        grad_taps,
        grad_taps.new_empty(3, heads),
        grad_taps.new_empty(inner),
        grad_taps.new_empty(batch, kernel_size - 1, channels),
        grad_taps.new_empty(batch, heads, inner // heads, states),
    )


def _save(ctx, inputs, output):
    *tensors, ctx.groups, ctx.eps = inputs
    ctx.save_for_backward(output[1], *tensors)
    ctx.set_materialize_grads(False)  # nobody asks for the gradient of y, which would be zeros


def _backward(ctx, grad, _):
    if grad is None:
        return (None,) * 12
    y, *tensors = ctx.saved_tensors
    _, conv_weight, conv_bias, A_log, D, dt_bias, norm_weight, conv_state, scan_state, _ = tensors
    gradients = _mix_backward(grad, y, *tensors, ctx.groups, ctx.eps)
    grad_projected, grad_taps, by_head, grad_norm_weight, grad_conv_state, grad_scan_state = gradients
    grad_taps, grad_bias = grad_taps[:-1].t().unsqueeze(1).to(conv_weight.dtype), grad_taps[-1].to(conv_bias.dtype)
    by_head = (g.to(v.dtype) for g, v in zip(by_head, (A_log, D, dt_bias), strict=True))
    states = ((grad_conv_state, conv_state), (grad_scan_state, scan_state))
    states = (None if state is None else g.to(state.dtype) for g, state in states)
    return grad_projected, grad_taps, grad_bias, *by_head, grad_norm_weight.to(norm_weight.dtype), *states, *[None] * 3


_mix.register_autograd(_backward, setup_context=_save)


def mix_triton(
    projected: torch.Tensor,
    conv_weight: torch.Tensor,
    conv_bias: torch.Tensor,
    A_log: torch.Tensor,
    D: torch.Tensor,
    dt_bias: torch.Tensor,
    norm_weight: torch.Tensor,
    conv_state: torch.Tensor | None,
    scan_state: torch.Tensor | None,
    order: torch.Tensor | None,
    groups: int,
    eps: float,
) -> torch.Tensor:
    """
    The mixer between its projections. Letters as in `ops_ssd`; M = H P channels of the scan, C = M + 2 G S of the
    convolution.

    Args:
        projected: (B, T, M + C + H), the channels z, x B C and dt of tokens in any order.
        conv_weight, conv_bias: (C, 1, K) and (C,).
        A_log, D, dt_bias: (H,).
        norm_weight: (M,).
        conv_state, scan_state: (B, K - 1, C) and (B, H, P, S), before the first token; zeros if None.
        order: Where in `projected` the token t of the scan stands: (T,), or (B, T), int32 or int64, a permutation; the
            order of `projected` itself if None.
        groups: G, for the norm too.
        eps: That of the norm.

    Returns:
        (B, T, M), in the order of `projected`.

    Raises:
        ImportError: if Triton is not installed.
        ValueError: for sizes or a device that the kernels do not do.
    """
    differentiable = (projected, conv_weight, conv_bias, A_log, D, dt_bias, norm_weight, conv_state, scan_state)
    check_device("mix_triton", projected.device, *differentiable)
    heads, inner = A_log.shape[0], norm_weight.shape[0]
    if order is not None and order.stride(-1) != 1:
        order = order.contiguous()
    check_sizes(projected.shape[1], heads, inner // heads, groups, (conv_weight.shape[0] - inner) // (2 * groups))
    return _mix(*differentiable, order, groups, eps)[0]
