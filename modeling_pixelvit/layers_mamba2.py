# Copyright 2026 The modeling_pixelvit team. All rights reserved.
# SPDX-License-Identifier: Apache-2.0
"""The Mamba-2 token mixer (arXiv 2405.21060, section 7), without an inference cache: an image is there all at once."""

from collections.abc import Callable
from functools import partial

import torch
from torch import nn

from .layers_linear import linear_layer
from .layers_norm import RMSNormGated
from .ops_backend import MixerBackend, select_mixer_backend
from .ops_segments import Workspace, autocast_dtype, map_batch, map_segments


class CausalConv1d(nn.Conv1d):
    """Parameters of the causal depthwise convolution; the caller gives the op."""

    def __init__(self, channels: int, kernel_size: int):
        super().__init__(channels, channels, kernel_size, groups=channels)

    def forward(self, op: Callable, *tensors: torch.Tensor, **options):
        """`op` of the tensors, weight and bias. (What shards a model gathers these for such a call.)"""
        return op(*tensors, self.weight, self.bias, **options)


def copies(*parameters):
    """Parameters of a layer for an op that several layers have a part in, which outlive the call of this one."""
    return tuple(value.clone() if isinstance(value, torch.Tensor) else value for value in parameters)


class Mamba2Mixer(nn.Module):
    """
    Causal mixing of tokens: (B, T, D) to (B, T, D).

        [z | x B C | dt] = W_in u        x B C = silu(conv(x B C))
        y = scan(x, dt, B, C)            out = W_out RMSNorm(y * silu(z))

    A_log, D and dt_bias are raised to float32 inside the scan whatever the model's dtype.
    """

    def __init__(self, config):
        super().__init__()
        self.implementation = config.mixer_implementation
        self.chunk_size = config.chunk_size
        self.head_dim = config.head_dim
        self.state_shape = (config.head_dim, config.state_size)
        self.n_groups = config.n_groups
        inner_size, num_heads = config.inner_size, config.num_heads
        group_states = config.n_groups * config.state_size
        conv_size = inner_size + 2 * group_states
        self.projection_sizes = [inner_size, conv_size, num_heads]  # z, x B C, dt
        self.conv_sizes = [inner_size, group_states, group_states]  # x, B, C

        self.in_proj = linear_layer(config, config.hidden_size, sum(self.projection_sizes), bias=False)
        self.conv1d = CausalConv1d(conv_size, config.conv_kernel)
        # In float32 from the start, as `_keep_in_fp32_modules_strict` has them when they are loaded.
        self.dt_bias = nn.Parameter(torch.empty(num_heads, dtype=torch.float32))
        self.A_log = nn.Parameter(torch.empty(num_heads, dtype=torch.float32))
        self.D = nn.Parameter(torch.empty(num_heads, dtype=torch.float32))
        self.norm = RMSNormGated(inner_size, config.n_groups, config.rms_norm_eps)
        self.out_proj = linear_layer(config, inner_size, config.hidden_size, bias=False)

    def select_backend(self, hidden_states: torch.Tensor) -> MixerBackend:
        """What the mixer runs on for `hidden_states`."""
        dtype = autocast_dtype(hidden_states)
        return select_mixer_backend(self.implementation, hidden_states.device, dtype, self.state_shape)

    def forward(
        self, hidden_states: torch.Tensor, heading: torch.Tensor | None = None, order: torch.Tensor | None = None
    ) -> torch.Tensor:
        """
        Args:
            hidden_states: (B, T, D), and so is what is returned.
            heading: (B, 1, D), a token that goes first and has no output; only where the backend has ops for a block.
            order: Where the tokens stand that come first, second and so on: (T,) or (B, T), as they are if not given.
                It comes with a heading.
        """
        backend = self.select_backend(hidden_states)
        if heading is not None:
            return map_batch(partial(self._mix_by_index, backend), hidden_states, heading, order)
        workspace = Workspace()
        conv_state = scan_state = None

        def mix(segment):
            nonlocal conv_state, scan_state
            z, convolved, dt = self.in_proj(segment).split(self.projection_sizes, dim=-1)
            y, conv_state, scan_state = self._scan(backend, convolved, dt, conv_state, scan_state, workspace)
            return self.out_proj(self.norm(backend.rms_norm_gated, y.flatten(-2), z, workspace=workspace))

        return map_segments(mix, hidden_states, backend.segment_length)

    def _scan(self, backend, convolved, dt, conv_state, scan_state, workspace):
        """Outputs of the scan (B, T, H, P), and the states of convolution and scan after the last token."""
        convolved, conv_state = self.conv1d(
            backend.causal_conv1d, convolved, initial_state=conv_state, workspace=workspace
        )
        x, B, C = convolved.split(self.conv_sizes, dim=-1)
        y, scan_state = backend.ssd(
            x.unflatten(-1, (-1, self.head_dim)),
            dt,
            self.A_log,
            B.unflatten(-1, (self.n_groups, -1)),
            C.unflatten(-1, (self.n_groups, -1)),
            self.D,
            self.dt_bias,
            initial_state=scan_state,
            chunk_size=self.chunk_size,
            workspace=workspace,
        )
        return y, conv_state, scan_state

    def _mix_by_index(self, backend, hidden_states, heading, order):
        """Nothing is copied for the heading, of which there is left what it does to the states, nor for the order."""
        _, convolved, dt = self.in_proj(heading).split(self.projection_sizes, dim=-1)
        _, conv_state, scan_state = self._scan(backend, convolved, dt, None, None, None)
        norm_weight, groups, eps = self.norm(copies)
        mixed = backend.block.mix(
            self.in_proj(hidden_states),
            *self.conv1d(copies),
            self.A_log,
            self.D,
            self.dt_bias,
            norm_weight,
            conv_state,
            scan_state,
            order,
            groups,
            eps,
        )
        return self.out_proj(mixed)
