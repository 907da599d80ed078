# Copyright 2026 The modeling_pixelvit team. All rights reserved.
# SPDX-License-Identifier: Apache-2.0
"""The linear layers of the blocks."""

import torch
from torch import nn

from .ops_backend import linear


class Linear(nn.Linear):
    """`nn.Linear` with the product that is fastest where it runs; parameters and hooks are the same, results nearly."""

    def forward(self, hidden_states: torch.Tensor) -> torch.Tensor:
        return linear(hidden_states, self.weight, self.bias)
