# Copyright 2026 The modeling_pixelvit team. All rights reserved.
# SPDX-License-Identifier: Apache-2.0
"""
Which implementation the mixer's ops run on: the one place that looks for compiled kernels.

For the Mamba-2 mixer `"torch"` is plain PyTorch and runs everywhere. `"mamba_ssm"` takes the Triton kernels of the
mamba-ssm package, and the CUDA convolution of causal-conv1d where that is installed too; it needs a CUDA device (or
Triton's interpreter, `TRITON_INTERPRET=1`, for tests). `"auto"` takes mamba_ssm where it can run and torch elsewhere.
"""

import importlib.util
import logging
import os
import sys
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cache, partial

import torch

from .ops_conv1d import causal_conv1d
from .ops_mamba_ssm import load_mamba_ssm_ops
from .ops_norm import rms_norm_gated
from .ops_ssd import ssd_chunked


logger = logging.getLogger(__name__)


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
        ops = load_mamba_ssm_ops()
    except ImportError as error:
        return None, str(error)
    # The kernels keep their own working set small, so they get the whole sequence.
    return MixerBackend("mamba_ssm", *ops, segment_length=sys.maxsize), ""
