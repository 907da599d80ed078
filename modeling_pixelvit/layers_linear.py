# Copyright 2026 The modeling_pixelvit team. All rights reserved.
# SPDX-License-Identifier: Apache-2.0
"""The linear layers of the blocks."""

import torch
from torch import nn
from transformers import PreTrainedConfig

from .ops_linear import linear


class Linear(nn.Linear):
    """`nn.Linear` with the product that is fastest where it runs; parameters and hooks are the same, results nearly."""

    def forward(self, hidden_states: torch.Tensor) -> torch.Tensor:
        return linear(hidden_states, self.weight, self.bias)


def linear_layer(config: PreTrainedConfig, in_features: int, out_features: int, bias: bool = True) -> nn.Linear:
    """
    The layer of a model with this configuration: PyTorch's own where weights are to be quantized, since bitsandbytes
    exchanges layers of exactly that class and would leave any other as it is.
    """
    is_quantized = getattr(config, "quantization_config", None) is not None
    return (nn.Linear if is_quantized else Linear)(in_features, out_features, bias=bias)
