# Copyright 2026 The modeling_pixelvit team. All rights reserved.
# SPDX-License-Identifier: Apache-2.0
"""
Mamba-2 blocks in Triton, forward and backward: convolution, chunked scan, norms and gate.

Letters: B sequences of T tokens, H heads of dimension P, G groups of H / G heads that share maps with state size S, and
K taps. Tokens come before channels. Inputs are float32, float16 or bfloat16, may be slices (of a fused projection, for
one), and share one dtype; weights may be wider. Sums and states are in float32. Every function has a gradient for each
tensor that it is given, but for `order` and `scale`, gives the same bits on repetition, and is one op to torch.compile.

Each raises ImportError where Triton is not installed, and ValueError for a device that the kernels do not run on, or
for tensors that do not fit each other.
"""

import torch

from .ops_triton_base import check_device
from .ops_triton_check import triton_differences
from .ops_triton_conv1d import causal_conv1d_triton
from .ops_triton_mixer import mix_triton
from .ops_triton_norm import rms_norm_gated_triton
from .ops_triton_rms_norm import add_rms_norm_triton, rms_norm_triton
from .ops_triton_ssd import ssd_triton
from .ops_triton_swiglu import swiglu_triton


__all__ = [
    "add_rms_norm",
    "causal_conv1d",
    "mamba_chunk_scan",
    "mamba_split_conv1d_scan",
    "rms_norm",
    "rms_norm_gated",
    "scan_order",
    "self_check",
    "swiglu",
]


def _check(op: str, device: torch.device, **expected: tuple[torch.Tensor | None, tuple[int, ...]]):
    """Kernels trust the sizes that they are given: what does not fit would be read from elsewhere in memory."""
    check_device(op, device)
    for name, (tensor, shape) in expected.items():
        if tensor is not None and (tuple(tensor.shape) != shape or tensor.device != device):
            raise ValueError(
                f"{op} got {name} of shape {tuple(tensor.shape)} on {tensor.device}; by its other inputs it must be of "
                f"shape {shape} on {device}."
            )


def _check_rank(op: str, name: str, tensor: torch.Tensor, letters: str):
    if tensor.dim() != len(letters.split()):
        raise ValueError(f"{op} got {name} of shape {tuple(tensor.shape)}; it must be ({letters.replace(' ', ', ')}).")


def causal_conv1d(
    x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor, initial_state: torch.Tensor | None = None
) -> tuple[torch.Tensor, torch.Tensor]:
    """
    The causal depthwise convolution with its silu.

    Args:
        x: (B, T, C).
        weight, bias: (C, 1, K), as `torch.nn.Conv1d` has it, and (C,).
        initial_state: (B, K - 1, C), the inputs before the first token; zeros if None.

    Returns:
        The outputs (B, T, C), and the last K - 1 inputs (B, K - 1, C), with which a sequence goes on.
    """
    _check_rank("causal_conv1d", "x", x, "B T C")
    _check_rank("causal_conv1d", "weight", weight, "C 1 K")
    (batch, _, channels), taps = x.shape, weight.shape[-1]
    _check(
        "causal_conv1d",
        x.device,
        weight=(weight, (channels, 1, taps)),
        bias=(bias, (channels,)),
        initial_state=(initial_state, (batch, taps - 1, channels)),
    )
    return causal_conv1d_triton(x, weight, bias, initial_state)


def mamba_chunk_scan(
    x: torch.Tensor,
    dt: torch.Tensor,
    A_log: torch.Tensor,
    B: torch.Tensor,
    C: torch.Tensor,
    D: torch.Tensor,
    dt_bias: torch.Tensor,
    initial_state: torch.Tensor | None = None,
) -> tuple[torch.Tensor, torch.Tensor]:
    """
    The state-space scan of Mamba-2: with step = softplus(dt + dt_bias) and decay = exp(-exp(A_log) step),
    state <- decay state + step x B^T and y = state C + D x.

    Args:
        x: (B, T, H, P), P at most 128.
        dt: (B, T, H).
        A_log, D, dt_bias: (H,).
        B, C: (B, T, G, S), S at most 128.
        initial_state: (B, H, P, S), before the first token; zeros if None.

    Returns:
        y (B, T, H, P), and the last state (B, H, P, S), in float32 at least.
    """
    _check_rank("mamba_chunk_scan", "x", x, "B T H P")
    _check_rank("mamba_chunk_scan", "B", B, "B T G S")
    (batch, length, heads, head_dim), (groups, states) = x.shape, B.shape[2:]
    _check(
        "mamba_chunk_scan",
        x.device,
        dt=(dt, (batch, length, heads)),
        A_log=(A_log, (heads,)),
        B=(B, (batch, length, groups, states)),
        C=(C, (batch, length, groups, states)),
        D=(D, (heads,)),
        dt_bias=(dt_bias, (heads,)),
        initial_state=(initial_state, (batch, heads, head_dim, states)),
    )
    return ssd_triton(x, dt, A_log, B, C, D, dt_bias, initial_state)


def mamba_split_conv1d_scan(
    projected: torch.Tensor,
    conv_weight: torch.Tensor,
    conv_bias: torch.Tensor,
    A_log: torch.Tensor,
    D: torch.Tensor,
    dt_bias: torch.Tensor,
    norm_weight: torch.Tensor,
    groups: int = 1,
    eps: float = 1e-5,
    conv_state: torch.Tensor | None = None,
    scan_state: torch.Tensor | None = None,
    order: torch.Tensor | None = None,
) -> torch.Tensor:
    """
    A Mamba-2 mixer between its two projections: convolution, scan and gated norm, with M = H P channels of the scan and
    C = M + 2 G S of the convolution. Gradients are written into one tensor of the projection's layout.

    Args:
        projected: (B, T, M + C + H), the channels z, x B C and dt.
        conv_weight, conv_bias: (C, 1, K) and (C,).
        A_log, D, dt_bias: (H,).
        norm_weight: (M,).
        groups: G, of the maps and of the norm.
        eps: That of the norm.
        conv_state, scan_state: (B, K - 1, C) and (B, H, P, S), before the first token; zeros if None.
        order: Where in `projected` the token t of the scan stands, as `scan_order` gives it: (T,), or (B, T), int32 or
            int64, a permutation, which is not checked. Tokens are read and written there, so that no copy is made. The
            order of `projected` itself if None.

    Returns:
        (B, T, M), in the order of `projected`.
    """
    op = "mamba_split_conv1d_scan"
    _check_rank(op, "projected", projected, "B T M+C+H")
    _check_rank(op, "conv_weight", conv_weight, "C 1 K")
    (batch, length, _), (channels, _, taps) = projected.shape, conv_weight.shape
    heads, inner = A_log.numel(), norm_weight.numel()
    if heads < 1 or groups < 1 or inner % heads or heads % groups or (channels - inner) % (2 * groups):
        raise ValueError(
            f"{op} got {heads} heads, {groups} groups, {inner} channels of the norm and {channels} of the convolution; "
            "heads must be a multiple of the groups, M one of the heads, and C - M one of twice the groups."
        )
    states = (channels - inner) // (2 * groups)
    _check(
        op,
        projected.device,
        projected=(projected, (batch, length, inner + channels + heads)),
        conv_weight=(conv_weight, (channels, 1, taps)),
        conv_bias=(conv_bias, (channels,)),
        A_log=(A_log, (heads,)),
        D=(D, (heads,)),
        dt_bias=(dt_bias, (heads,)),
        norm_weight=(norm_weight, (inner,)),
        conv_state=(conv_state, (batch, taps - 1, channels)),
        scan_state=(scan_state, (batch, heads, inner // heads, states)),
        order=(order, (length,) if order is not None and order.dim() == 1 else (batch, length)),
    )
    tensors = (projected, conv_weight, conv_bias, A_log, D, dt_bias, norm_weight, conv_state, scan_state, order)
    return mix_triton(*tensors, groups, eps)


def rms_norm_gated(
    y: torch.Tensor, z: torch.Tensor, weight: torch.Tensor, groups: int = 1, eps: float = 1e-5
) -> torch.Tensor:
    """
    weight * v / sqrt(mean(v^2) + eps) with v = y silu(z), the mean over the M / G channels of a group.

    Args:
        y, z: (B, T, M).
        weight: (M,).
        groups: G, which divides M.
    """
    _check_rank("rms_norm_gated", "y", y, "B T M")
    if groups < 1 or y.shape[2] % groups:
        raise ValueError(f"rms_norm_gated got {y.shape[2]} channels and {groups} groups; the latter must divide them.")
    _check("rms_norm_gated", y.device, z=(z, tuple(y.shape)), weight=(weight, (y.shape[2],)))
    return rms_norm_gated_triton(y, z, weight, groups, eps)


def rms_norm(x: torch.Tensor, weight: torch.Tensor, eps: float = 1e-5) -> torch.Tensor:
    """
    weight * x / sqrt(mean(x^2) + eps), in the dtype that a linear layer's output has: that of x, or autocast's.

    Args:
        x: (B, T, C).
        weight: (C,).
    """
    _check_rank("rms_norm", "x", x, "B T C")
    _check("rms_norm", x.device, weight=(weight, (x.shape[2],)))
    return rms_norm_triton(x, weight, eps)[1]


def add_rms_norm(
    x: torch.Tensor,
    residual: torch.Tensor,
    weight: torch.Tensor,
    eps: float = 1e-5,
    scale: torch.Tensor | None = None,
) -> tuple[torch.Tensor, torch.Tensor]:
    """
    `rms_norm` of residual + scale * x, and that sum, in the wider of their dtypes, to go on with.

    Args:
        x, residual: (B, T, C); they may differ in dtype.
        weight: (C,).
        scale: (B,), for stochastic depth for one; 1 if None.
    """
    _check_rank("add_rms_norm", "x", x, "B T C")
    _check(
        "add_rms_norm",
        x.device,
        residual=(residual, tuple(x.shape)),
        weight=(weight, (x.shape[2],)),
        scale=(scale, (x.shape[0],)),
    )
    total, normed = add_rms_norm_triton(residual, weight, eps, x, scale)
    return normed, total


def swiglu(gate: torch.Tensor, up: torch.Tensor) -> torch.Tensor:
    """silu(gate) * up of two tensors of one shape."""
    _check("swiglu", gate.device, up=(up, tuple(gate.shape)))
    return swiglu_triton(gate, up)


def scan_order(
    rows: int,
    columns: int,
    by_columns: bool = False,
    backwards: bool = False,
    device: torch.device | str | None = None,
) -> torch.Tensor:
    """
    `order` for an image's tokens in raster order: (rows * columns,), int32.

    Args:
        by_columns: Down one column after the other, or else along one row after the other.
        backwards: From the last token to the first.
    """
    order = torch.arange(rows * columns, dtype=torch.int32, device=device).view(rows, columns)
    order = (order.t() if by_columns else order).flatten()
    return order.flip(0) if backwards else order


def self_check(device: torch.device | str, dtype: torch.dtype) -> dict[str, float]:
    """
    Runs a small case of each op on a device, forward and backward: by op the greatest norm of a difference from a
    reference in float64, over the norm of what is expected. Up to 1e-3 in float32 (1e-2 where torch may take TF32),
    1e-2 in float16 and 5e-2 in bfloat16 are rounding; more is wrong.
    """
    return triton_differences(torch.device(device), dtype)
