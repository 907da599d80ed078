# Copyright 2026 The modeling_pixelvit team. All rights reserved.
# SPDX-License-Identifier: Apache-2.0
"""Multi-head self-attention through transformers' attention interface."""

import functools

import torch
from torch import nn
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS
from transformers.processing_utils import Unpack
from transformers.utils import TransformersKwargs

from .layers_linear import linear_layer
from .layers_norm import RMSNorm
from .layers_rotary import neighbor_bias, rotate


def eager_attention_forward(
    module: nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: None,
    scaling: float,
    dropout: float = 0.0,
    **kwargs: Unpack[TransformersKwargs],
) -> tuple[torch.Tensor, torch.Tensor]:
    """
    Attention written out, the only implementation that returns its weights.

    Args:
        query, key, value: (batch_size, num_attention_heads, sequence_length, head size).
        attention_mask: Of no use: every token sees every other.

    Returns:
        Output (batch_size, sequence_length, num_attention_heads, head size) and weights (batch_size,
        num_attention_heads, sequence_length, sequence_length); the softmax is taken in float32.
    """
    weights = torch.matmul(query, key.transpose(2, 3)) * scaling
    weights = nn.functional.softmax(weights, dim=-1, dtype=torch.float32).to(query.dtype)
    weights = nn.functional.dropout(weights, p=dropout, training=module.training)
    return torch.matmul(weights, value).transpose(1, 2).contiguous(), weights


class Attention(nn.Module):
    """Self-attention of all tokens with all tokens: (B, T, D) to (B, T, D)."""

    def __init__(self, config, layer_idx: int):
        super().__init__()
        self.config = config
        self.head_dim = config.hidden_size // config.num_attention_heads
        self.scaling = self.head_dim**-0.5
        self.attention_dropout = config.attention_probs_dropout_prob
        self.is_causal = False  # read by the attention implementations
        self.q_proj = linear_layer(config, config.hidden_size, config.hidden_size, bias=config.qkv_bias)
        self.k_proj = linear_layer(config, config.hidden_size, config.hidden_size, bias=config.qkv_bias)
        self.v_proj = linear_layer(config, config.hidden_size, config.hidden_size, bias=config.qkv_bias)
        self.o_proj = linear_layer(config, config.hidden_size, config.hidden_size)
        if config.locality_init_value is not None and config.has_rotary_positions:
            for projection in (self.q_proj, self.k_proj):
                # Noted on the layer, since `_init_weights` does not see what it is in.
                projection.initial_bias = functools.partial(
                    neighbor_bias,
                    config.num_attention_heads,
                    self.head_dim,
                    tuple(config.rotary_wavelengths),
                    config.neighbor_distance(layer_idx),
                    config.locality_init_value,
                    of_keys=projection is self.k_proj,
                )
        self.q_norm, self.k_norm = (
            RMSNorm(self.head_dim, config.layer_norm_eps) if config.use_qk_norm else nn.Identity() for _ in range(2)
        )

    def forward(
        self,
        hidden_states: torch.Tensor,
        position_embeddings: tuple[torch.Tensor, torch.Tensor] | None = None,
        **kwargs: Unpack[TransformersKwargs],
    ) -> tuple[torch.Tensor, torch.Tensor | None]:
        """
        Args:
            hidden_states: (B, T, D)
            position_embeddings: Cosine and sine for `layers_rotary.rotate`, if positions are rotary.

        Returns:
            The mixed tokens, and the attention weights where the implementation has them.
        """
        # One product with all three weights side by side took 1.03 to 1.09 times as long on a CPU (width 768, 256 to
        # 3,137 tokens), and would go past whatever replaces these layers or gathers their weights.
        query, key, value = (
            projection(hidden_states).unflatten(-1, (-1, self.head_dim)).transpose(1, 2)
            for projection in (self.q_proj, self.k_proj, self.v_proj)
        )
        query, key = self.q_norm(query), self.k_norm(key)
        if position_embeddings is not None:
            query, key = rotate(query, *position_embeddings), rotate(key, *position_embeddings)
        attend = ALL_ATTENTION_FUNCTIONS.get_interface(self.config._attn_implementation, eager_attention_forward)
        output, weights = attend(
            self,
            query,
            key,
            value,
            None,
            dropout=self.attention_dropout if self.training else 0.0,
            scaling=self.scaling,
            **kwargs,
        )
        return self.o_proj(output.flatten(2)), weights
