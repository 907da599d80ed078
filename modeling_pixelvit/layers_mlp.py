# Copyright 2026 The modeling_pixelvit team. All rights reserved.
# SPDX-License-Identifier: Apache-2.0
"""Channel mixers: the plain MLP of the vision transformer and the gated one of Adventurer."""

from collections.abc import Callable
from functools import partial

import torch
from torch import nn
from transformers import PreTrainedConfig
from transformers.activations import ACT2FN

from .layers_linear import linear_layer
from .ops_segments import map_segments


class MLP(nn.Module):
    """Two linear layers with an activation between them: tokens (B, T, D) to (B, T, D)."""

    def __init__(self, config: PreTrainedConfig):
        super().__init__()
        self.fc1 = linear_layer(config, config.hidden_size, config.intermediate_size)
        self.activation_fn = ACT2FN[config.hidden_act]
        self.fc2 = linear_layer(config, config.intermediate_size, config.hidden_size)

    def forward(self, hidden_states: torch.Tensor) -> torch.Tensor:
        return map_segments(self._mix, hidden_states)

    def _mix(self, hidden_states: torch.Tensor) -> torch.Tensor:
        return self.fc2(self.activation_fn(self.fc1(hidden_states)))


class GatedMLP(nn.Module):
    """W3(silu(W1 n) * (W2 n)) with biases on all three: tokens (B, T, D) to (B, T, D)."""

    def __init__(self, config: PreTrainedConfig):
        super().__init__()
        self.gate_proj = linear_layer(config, config.hidden_size, config.intermediate_size)
        self.up_proj = linear_layer(config, config.hidden_size, config.intermediate_size)
        self.down_proj = linear_layer(config, config.intermediate_size, config.hidden_size)

    def forward(self, hidden_states: torch.Tensor, swiglu: Callable | None = None) -> torch.Tensor:
        """With `swiglu`, an op for silu(gate) * up, that is computed by it."""
        return map_segments(self._mix if swiglu is None else partial(self._mix_by, swiglu), hidden_states)

    def _mix(self, hidden_states: torch.Tensor) -> torch.Tensor:
        gate = nn.functional.silu(self.gate_proj(hidden_states))
        return self.down_proj(gate * self.up_proj(hidden_states))

    def _mix_by(self, swiglu: Callable, hidden_states: torch.Tensor) -> torch.Tensor:
        return self.down_proj(swiglu(self.gate_proj(hidden_states), self.up_proj(hidden_states)))
