# Copyright 2026 The modeling_pixelvit team. All rights reserved.
# SPDX-License-Identifier: Apache-2.0
"""
Which implementation the mixer's ops run on: the one place that looks for compiled kernels.

For the Mamba-2 mixer `"torch"` is plain PyTorch and runs everywhere. `"mamba_ssm"` takes the Triton kernels of the
mamba-ssm package (2.3.0 or newer), and the CUDA convolution of causal-conv1d where that is installed too; it needs a
CUDA device (or Triton's interpreter, `TRITON_INTERPRET=1`, for tests). `"auto"` takes mamba_ssm where it can run, and
torch elsewhere and in what `torch.compile` and `torch.export` trace.
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


MIXER_IMPLEMENTATIONS = ("auto", "torch", "mamba_ssm")

_TORCH_CPU = MixerBackend("torch", ssd_chunked, causal_conv1d, rms_norm_gated)
_TORCH_GPU = replace(_TORCH_CPU, ssd=partial(ssd_chunked, matrices_per_segment=8192))


def check_mixer_implementation(name: str):
    """
    Raises:
        ValueError: if `name` is not `"auto"`, `"torch"` or `"mamba_ssm"`.
        ImportError: if its package is not installed.
    """
    if name not in MIXER_IMPLEMENTATIONS:
        raise ValueError(f"mixer_implementation={name!r} was given; choose one of {', '.join(MIXER_IMPLEMENTATIONS)}.")
    if name == "mamba_ssm" and not _is_installed():
        raise ImportError(
            "mixer_implementation='mamba_ssm' was given, but the package mamba-ssm is not installed; install it on a "
            "machine with CUDA by `pip install --no-build-isolation 'mamba-ssm>=2.3.0' causal-conv1d`, or use 'torch' "
            "or 'auto'."
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
    if name == "torch" or torch.compiler.is_compiling():
        return torch_backend  # a compiler fuses it, and has no way through the hooks of mamba_ssm's kernels
    backend, reason = _load_mamba_ssm() if device.type == "cuda" else (None, "")
    backend = backend or torch_backend
    _report_choice(backend.name, device.type, reason)
    return backend


def _is_installed() -> bool:
    return importlib.util.find_spec("mamba_ssm") is not None


@cache
def _report_choice(name: str, device_type: str, reason: str):
    if reason and _is_installed():
        logger.warning(
            "mixer_implementation='auto' picked %r on %s, which is slower: mamba-ssm is installed, but cannot be "
            "imported (%s).",
            name,
            device_type,
            reason,
        )
    else:
        logger.info("mixer_implementation='auto' picked %r on %s.", name, device_type)


@cache
def _load_mamba_ssm() -> tuple[MixerBackend | None, str]:
    """The mamba_ssm backend, or None with the reason why there is none."""
    try:
        ops = load_mamba_ssm_ops()
    except Exception as error:  # Triton and CUDA libraries that do not fit raise whatever they like
        return None, f"{type(error).__name__}: {error}"
    # The kernels keep their own working set small, so they get the whole sequence.
    return MixerBackend("mamba_ssm", *ops, segment_length=sys.maxsize), ""
