# Copyright 2026 The modeling_pixelvit team. All rights reserved.
# SPDX-License-Identifier: Apache-2.0
"""Norms and scales over channels."""

from collections.abc import Callable

import torch
from torch import nn
from torch.nn import functional as F

from .ops_segments import compute_dtype, map_segments


class RMSNorm(nn.Module):
    """weight * h / sqrt(mean(h^2) + eps) for tokens (B, T, D), in float32 at least; the dtype of h comes back."""

    def __init__(self, hidden_size: int, eps: float):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(hidden_size))
        self.eps = eps

    def forward(self, hidden_states: torch.Tensor, op: Callable | None = None):
        """The norm, or with `op` what that makes of tokens, weight and eps."""
        if op is not None:
            return op(hidden_states, self.weight, self.eps)
        if hidden_states.device.type != "cpu":
            return self._norm(hidden_states)  # makes nothing larger than its output
        return map_segments(self._norm, hidden_states)

    def _norm(self, hidden_states: torch.Tensor) -> torch.Tensor:
        dtype = compute_dtype(hidden_states.dtype)
        normed = F.rms_norm(hidden_states.to(dtype), self.weight.shape, self.weight.to(dtype), self.eps)
        return normed.to(hidden_states.dtype)

    def extra_repr(self) -> str:
        return f"{self.weight.numel()}, eps={self.eps}"


class RMSNormGated(nn.Module):
    """The mixer's norm of y * silu(z) over groups of channels, by the op that the caller gives."""

    def __init__(self, inner_size: int, groups: int, eps: float):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(inner_size))
        self.groups = groups
        self.eps = eps

    def forward(self, op: Callable, *tensors: torch.Tensor, **options):
        """`op` of the tensors, weight, groups and eps. (What shards a model gathers the weight for such a call.)"""
        return op(*tensors, self.weight, self.groups, self.eps, **options)

    def extra_repr(self) -> str:
        return f"{self.weight.numel()}, groups={self.groups}, eps={self.eps}"


class LayerScale(nn.Module):
    """A learned scale per channel at the end of a branch (arXiv 2103.17239)."""

    def __init__(self, hidden_size: int, init_value: float):
        super().__init__()
        self.init_value = init_value
        self.lambda1 = nn.Parameter(torch.full((hidden_size,), float(init_value)))

    def forward(self, hidden_states: torch.Tensor) -> torch.Tensor:
        return hidden_states * self.lambda1
