# Copyright 2026 The modeling_pixelvit team. All rights reserved.
# SPDX-License-Identifier: Apache-2.0
"""
The causal depthwise convolution of Mamba-2 with its silu, in plain PyTorch.

    y_t = silu(bias + sum_k weight_k x_{t - K + 1 + k})

Both functions take and return

    x              (B, T, C)      input, tokens before channels
    weight         (C, 1, K)      one filter a channel, as `nn.Conv1d(C, C, K, groups=C)` keeps it
    bias           (C,)
    initial_state  (B, K - 1, C)  inputs before the first token, zeros if None
    y              (B, T, C)      output, in the dtype of x
    final_state    (B, K - 1, C)  the last K - 1 inputs, those of the initial state included

Sums are computed in float32 whatever the dtype of the arguments (in float64 if x is float64).
"""

import torch
from torch.nn import functional as F

from .ops_segments import Workspace, batch_blocks, compute_dtype, empty_like, op_segment_length, segments


def causal_conv1d_reference(
    x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor, initial_state: torch.Tensor | None = None
) -> tuple[torch.Tensor, torch.Tensor]:
    """The convolution by PyTorch's own `conv1d`. Shapes and dtypes are those of the module's docstring."""
    dtype = compute_dtype(x.dtype)
    if initial_state is None:
        inputs = F.pad(x, (0, 0, weight.shape[-1] - 1, 0))
    else:
        inputs = torch.cat([initial_state.to(x.dtype), x], dim=1)
    y = F.conv1d(inputs.to(dtype).transpose(1, 2), weight.to(dtype), bias.to(dtype), groups=x.shape[2])
    return F.silu(y).transpose(1, 2).to(x.dtype), inputs[:, x.shape[1] :]


def causal_conv1d(
    x: torch.Tensor,
    weight: torch.Tensor,
    bias: torch.Tensor,
    initial_state: torch.Tensor | None = None,
    workspace: Workspace | None = None,
) -> tuple[torch.Tensor, torch.Tensor]:
    """
    The convolution as K multiply-adds over shifted tokens, which leaves the tokens before the channels, segment by
    segment. Shapes and dtypes are those of the module's docstring. The backward pass keeps x alone.

    With a workspace, and where no gradient is recorded, y is part of it.
    """
    if torch.compiler.is_compiling():
        return causal_conv1d_reference(x, weight, bias, initial_state)  # a compiler fuses it on its own
    if initial_state is None:
        initial_state = x.new_zeros(x.shape[0], weight.shape[-1] - 1, x.shape[2])
    if torch.is_grad_enabled():
        return _CausalConv1d.apply(x, weight, bias, initial_state)
    return _forward(x, weight, bias, initial_state, workspace)


def _inputs_of(part: slice, x, initial_state, dtype):
    """Inputs that the outputs of `part` depend on, in `dtype`: (B, K - 1 + part, C)."""
    history = initial_state.shape[1]
    if part.start >= history:
        return x[:, part.start - history : part.stop].to(dtype)
    return torch.cat([initial_state[:, part.start :].to(dtype), x[:, : part.stop].to(dtype)], dim=1)


def _before_activation(inputs, weight, bias, out):
    """`inputs` (B, K - 1 + L, C), weight (K, C), bias (C,): `out` (B, L, C)."""
    length = out.shape[1]
    torch.addcmul(bias, inputs[:, :length], weight[0], out=out)
    for k in range(1, weight.shape[0]):
        out.addcmul_(inputs[:, k : k + length], weight[k])
    return out


def _blocks(x, history):
    """
    Rows of x with the parts of their sequences. The first outputs come apart: they alone need the initial state put
    before the inputs, which means a copy.
    """
    length = op_segment_length(x.device)
    parts = [slice(0, min(history, x.shape[1])), *segments(x.shape[1], length, start=history)]
    return [(rows, parts) for rows in batch_blocks(x, length)]


def _forward(x, weight, bias, initial_state, workspace=None):
    dtype = compute_dtype(x.dtype)
    taps, bias = weight[:, 0].t().to(dtype).contiguous(), bias.to(dtype)
    y = empty_like("convolved", x, workspace)
    temporaries = Workspace()
    for rows, parts in _blocks(x, initial_state.shape[1]):
        for part in parts:
            y_part = y[rows, part]
            out = y_part if y.dtype == dtype else temporaries.buffer("out", y_part.shape, like=taps)
            _before_activation(_inputs_of(part, x[rows], initial_state[rows], dtype), taps, bias, out)
            y_part.copy_(F.silu(out, inplace=True))
    # What stands before a token after the last one.
    final_state = _inputs_of(slice(x.shape[1], x.shape[1]), x, initial_state, x.dtype)
    return y, final_state.clone()


class _CausalConv1d(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x, weight, bias, initial_state):
        ctx.save_for_backward(x, weight, bias, initial_state)
        return _forward(x, weight, bias, initial_state)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx, grad_y, grad_state):
        x, weight, bias, initial_state = ctx.saved_tensors
        dtype = compute_dtype(x.dtype)
        taps, bias_wide = weight[:, 0].t().to(dtype).contiguous(), bias.to(dtype)
        grad_taps, grad_bias = torch.zeros_like(taps), torch.zeros_like(bias_wide)
        grad_x, grad_initial = (torch.empty_like(t, memory_format=torch.contiguous_format) for t in (x, initial_state))
        workspace = Workspace()
        for rows, parts in _blocks(x, initial_state.shape[1]):
            # Gradient of the inputs that a part shares with the one before it; first those kept as the final state.
            carried = grad_state[rows].to(dtype)
            for part in reversed(parts):
                inputs = _inputs_of(part, x[rows], initial_state[rows], dtype)
                grad = grad_y[rows, part].to(dtype)
                carried, grad_part = _backward_part(
                    inputs, grad, carried, taps, bias_wide, workspace, grad_taps, grad_bias
                )
                grad_x[rows, part] = grad_part
            grad_initial[rows] = carried
        return grad_x, grad_taps.t().unsqueeze(1).to(weight.dtype), grad_bias.to(bias.dtype), grad_initial


def _backward_part(inputs, grad, carried, taps, bias, workspace, grad_taps, grad_bias):
    """
    Backward pass of the outputs that `inputs` (B, K - 1 + L, C) give, adding to `grad_taps` and `grad_bias`.

    Args:
        grad: Gradient of these outputs (B, L, C).
        carried: Gradient that the last K - 1 inputs have from later outputs.

    Returns:
        Gradients of the first K - 1 inputs, which are not whole yet, and of the other L.
    """
    length, history = grad.shape[1], inputs.shape[1] - grad.shape[1]
    buffer = workspace.buffer("before_activation", grad.shape, like=grad)
    _before_activation(inputs, taps, bias, buffer)
    grad_pre = workspace.buffer("grad_pre", grad.shape, like=grad)
    torch.ops.aten.silu_backward.grad_input(grad, buffer, grad_input=grad_pre)
    grad_inputs = workspace.buffer("grad_inputs", inputs.shape, like=grad).zero_()
    grad_inputs[:, length:] = carried
    for k in range(taps.shape[0]):
        grad_inputs[:, k : k + length].addcmul_(grad_pre, taps[k])
        grad_taps[k] += torch.mul(grad_pre, inputs[:, k : k + length], out=buffer).sum((0, 1))
    grad_bias += grad_pre.sum((0, 1))
    return grad_inputs[:, :history].clone(), grad_inputs[:, history:]
