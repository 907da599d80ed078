# Copyright 2026 The modeling_pixelvit team. All rights reserved.
# SPDX-License-Identifier: Apache-2.0
"""
Which implementation an op runs on: the one place that looks for compiled kernels and at the processor.

For the Mamba-2 mixer `"torch"` is plain PyTorch and runs everywhere. `"mamba_ssm"` takes the Triton kernels of the
mamba-ssm package, and the CUDA convolution of causal-conv1d where that is installed too; it needs a CUDA device (or
Triton's interpreter, `TRITON_INTERPRET=1`, for tests). `"auto"` takes mamba_ssm where it can run and torch elsewhere.
"""

import importlib.util
import logging
import os
import platform
import sys
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cache, partial
from pathlib import Path

import torch
from torch.nn import functional as F

from .ops_conv1d import causal_conv1d
from .ops_linear import FEWEST_MULTIPLICATIONS, linear_onednn
from .ops_norm import rms_norm_gated
from .ops_ssd import ssd_chunked


logger = logging.getLogger(__name__)

# The kernels' own best chunk; the config's chunk_size is for the plain PyTorch scan.
MAMBA_SSM_CHUNK_SIZE = 256


@dataclass(frozen=True)
class MixerBackend:
    """
    The three ops of the mixer, with the signatures of `ops_ssd.ssd_chunked` (without `matrices_per_segment`),
    `ops_conv1d.causal_conv1d` and `ops_norm.rms_norm_gated`, and how many tokens the mixer gives them at a time when no
    gradient is wanted.
    """

    name: str
    ssd: Callable
    causal_conv1d: Callable
    rms_norm_gated: Callable
    segment_length: int | None = None  # what suits the device


_TORCH_CPU = MixerBackend("torch", ssd_chunked, causal_conv1d, rms_norm_gated)
_TORCH_GPU = replace(_TORCH_CPU, ssd=partial(ssd_chunked, matrices_per_segment=8192))


def check_mixer_implementation(name: str):
    """Raises ImportError if `name` is an implementation whose package is not installed."""
    if name == "mamba_ssm" and importlib.util.find_spec("mamba_ssm") is None:
        raise ImportError(
            "mixer_implementation='mamba_ssm' was given, but the package mamba-ssm is not installed; install it on a "
            "machine with CUDA by `pip install mamba-ssm causal-conv1d --no-build-isolation`, or use 'torch' or 'auto'."
        )


def select_mixer_backend(name: str, device: torch.device) -> MixerBackend:
    """
    The backend for tensors on `device`.

    Args:
        name (`str`): `"auto"`, `"torch"` or `"mamba_ssm"`.

    Raises:
        ImportError: if mamba_ssm is named and cannot be imported.
        ValueError: if mamba_ssm is named and the device is not a CUDA device.
    """
    torch_backend = _TORCH_CPU if device.type == "cpu" else _TORCH_GPU
    runs_triton = device.type == "cuda" or os.environ.get("TRITON_INTERPRET") == "1"
    if name == "mamba_ssm":
        check_mixer_implementation(name)
        if not runs_triton:
            raise ValueError(
                f"mixer_implementation='mamba_ssm' was given, but the input is on {device}; its kernels run on CUDA "
                "devices, so move model and input to one, or use 'torch' or 'auto'."
            )
        backend, reason = _load_mamba_ssm()
        if backend is None:
            raise ImportError(
                f"mixer_implementation='mamba_ssm' was given, but mamba-ssm cannot be imported ({reason}); reinstall "
                "it for this torch by `pip install --force-reinstall --no-build-isolation mamba-ssm`, or use 'torch'."
            )
        return backend
    backend = torch_backend
    if name == "auto":
        if device.type == "cuda":
            backend = _load_mamba_ssm()[0] or torch_backend
        if not torch.compiler.is_compiling():
            _report_choice(backend.name, device.type)
    return backend


@cache
def _report_choice(name: str, device_type: str):
    logger.info("mixer_implementation='auto' picked %r on %s.", name, device_type)


@cache
def _load_mamba_ssm() -> tuple[MixerBackend | None, str]:
    """The mamba_ssm backend, or None with the reason why there is none."""
    try:
        from mamba_ssm.ops.triton.layernorm_gated import rmsnorm_fn
        from mamba_ssm.ops.triton.ssd_combined import mamba_chunk_scan_combined
    except ImportError as error:
        return None, str(error)
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
            chunk_size=MAMBA_SSM_CHUNK_SIZE,
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

    # The kernels keep their own working set small, so they get the whole sequence.
    return MixerBackend("mamba_ssm", ssd, conv1d, norm, segment_length=sys.maxsize), ""


def linear(x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None) -> torch.Tensor:
    """x weight^T + bias for x (..., in_features), by oneDNN where that is faster than what PyTorch would take."""
    if _prefers_onednn(x, weight):
        return linear_onednn(x, weight, bias)
    return F.linear(x, weight, bias)


def _prefers_onednn(x: torch.Tensor, weight: torch.Tensor) -> bool:
    return (
        x.device.type == "cpu"
        and x.dtype == weight.dtype == torch.float32
        and x.dim() > 1
        and not (torch.compiler.is_compiling() or torch.jit.is_tracing() or torch.is_autocast_enabled("cpu"))
        # Quantized, distributed and traced tensors are subclasses that know nothing of oneDNN's op.
        and type(x) is torch.Tensor
        and type(weight) in (torch.Tensor, torch.nn.Parameter)
        and x.numel() * weight.shape[0] >= FEWEST_MULTIPLICATIONS
        and _mkl_is_slow()
    )


@cache
def _mkl_is_slow() -> bool:
    """Whether float32 products go to MKL on a processor that it has no kernels of its own for, with oneDNN at hand."""
    cpuinfo = Path("/proc/cpuinfo")
    processor = cpuinfo.read_text() if cpuinfo.exists() else platform.processor()
    return torch.backends.mkl.is_available() and torch.backends.mkldnn.is_available() and "AuthenticAMD" in processor
