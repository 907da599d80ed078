# Copyright 2026 The modeling_pixelvit team. All rights reserved.
# SPDX-License-Identifier: Apache-2.0
"""The kernels of the packages mamba-ssm and causal-conv1d, with the signatures of the ops in plain PyTorch."""

from collections.abc import Callable

import torch
from torch.nn import functional as F

from .ops_conv1d import causal_conv1d


# The kernels' own best chunk; the config's chunk_size is for the plain PyTorch scan.
CHUNK_SIZE = 256


def load_mamba_ssm_ops() -> tuple[Callable, Callable, Callable]:
    """
    The scan, the convolution and the gated norm, with the signatures of `ops_ssd.ssd_chunked` (without
    `matrices_per_segment`), `ops_conv1d.causal_conv1d` and `ops_norm.rms_norm_gated`. The convolution is that of
    causal-conv1d, where that is installed and has one for the call.

    Raises:
        ImportError: if mamba-ssm cannot be imported.
    """
    try:
        from mamba_ssm.ops.triton.layernorm_gated import rmsnorm_fn
        from mamba_ssm.ops.triton.ssd_combined import mamba_chunk_scan_combined
    except ImportError:
        raise  # in a block of its own, since loaders of code from checkpoints ask for whatever is imported outside
    try:
        from causal_conv1d import causal_conv1d_fn
    except ImportError:
        causal_conv1d_fn = None

    def ssd(x, dt, A_log, B, C, D, dt_bias, initial_state=None, chunk_size=None, workspace=None):
        return mamba_chunk_scan_combined(
            x,
            dt,
            -torch.exp(A_log.float()),
            B,
            C,
            chunk_size=CHUNK_SIZE,
            D=D.float(),
            dt_bias=dt_bias.float(),
            initial_states=initial_state,
            dt_softplus=True,
            return_final_states=True,
        )

    def conv1d(x, weight, bias, initial_state=None, workspace=None):
        # The CUDA kernel knows two to four taps, and its layout rules leave no room for a state before the sequence.
        kernel_size = weight.shape[-1]
        if causal_conv1d_fn is None or not x.is_cuda or initial_state is not None or not 2 <= kernel_size <= 4:
            return causal_conv1d(x, weight, bias, initial_state, workspace)
        y = causal_conv1d_fn(x.transpose(1, 2), weight[:, 0].to(x.dtype), bias.to(x.dtype), activation="silu")
        final_state = F.pad(x, (0, 0, kernel_size - 1, 0))[:, x.shape[1] :]
        return y.transpose(1, 2), final_state

    def norm(y, z, weight, groups, eps, workspace=None):
        group_size = y.shape[-1] // groups
        return rmsnorm_fn(y, weight, None, z=z, eps=eps, group_size=group_size, norm_before_gate=False)

    return ssd, conv1d, norm
