# Copyright 2026 The modeling_pixelvit team. All rights reserved.
# SPDX-License-Identifier: Apache-2.0
"""
Which implementation the mixer's ops run on: the one place that looks for compiled kernels.

For the Mamba-2 mixer `"torch"` is plain PyTorch and runs everywhere. `"triton"` takes the kernels in `ops_triton_*.py`,
which need no package but Triton, that PyTorch brings along on CUDA, and no compiler but one for C. `"mamba_ssm"` takes
those of the mamba-ssm package (2.3.0 or newer), and the CUDA convolution of causal-conv1d where that is installed too.
Both need a CUDA device (or Triton's interpreter, `TRITON_INTERPRET=1`, for tests).

`"auto"` takes on CUDA the first of triton, mamba_ssm and torch that can run, and elsewhere torch. It trusts the kernels
on a device once a small case of them, forward and backward, agrees there with the reference. What `torch.compile`
traces may hold our kernels, which are ops to it, and those of mamba_ssm only if these are named, with a break in the
graph; `torch.export` gets plain PyTorch, since an exported program runs where no op of ours is registered.
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
class BlockOps:
    """
    What a block of Adventurer is made of where that is more than the mixer's three ops, with the signatures of
    `ops_triton_mixer.mix_triton`, `ops_triton_rms_norm.rms_norm_triton` and `add_rms_norm_triton`, and
    `ops_triton_swiglu.swiglu_triton`.
    """

    mix: Callable
    rms_norm: Callable
    add_rms_norm: Callable
    swiglu: Callable


@dataclass(frozen=True)
class MixerBackend:
    """
    The three ops of the mixer, with the signatures of `ops_ssd.ssd_chunked` (without `matrices_per_segment`),
    `ops_conv1d.causal_conv1d` and `ops_norm.rms_norm_gated`, how many tokens the mixer gives them at a time when no
    gradient is wanted, and ops for the whole block, if there are any.
    """

    name: str
    ssd: Callable
    causal_conv1d: Callable
    rms_norm_gated: Callable
    segment_length: int | None = None  # what suits the device
    block: BlockOps | None = None


MIXER_IMPLEMENTATIONS = ("auto", "torch", "triton", "mamba_ssm")

_TORCH_CPU = MixerBackend("torch", ssd_chunked, causal_conv1d, rms_norm_gated)
_TORCH_GPU = replace(_TORCH_CPU, ssd=partial(ssd_chunked, matrices_per_segment=8192))
_KERNELS: dict[str, MixerBackend] = {}  # those that were loaded, by name


def check_mixer_implementation(name: str):
    """
    Raises:
        ValueError: if `name` is not `"auto"`, `"torch"`, `"triton"` or `"mamba_ssm"`.
        ImportError: if its package is not installed.
    """
    if name not in MIXER_IMPLEMENTATIONS:
        raise ValueError(f"mixer_implementation={name!r} was given; choose one of {', '.join(MIXER_IMPLEMENTATIONS)}.")
    if name == "mamba_ssm" and not _is_installed("mamba_ssm"):
        raise ImportError(
            "mixer_implementation='mamba_ssm' was given, but the package mamba-ssm is not installed; install it on a "
            "machine with CUDA by `pip install --no-build-isolation 'mamba-ssm>=2.3.0' causal-conv1d`, or use 'torch' "
            "or 'auto'."
        )
    if name == "triton" and not _is_installed("triton"):
        raise ImportError(
            "mixer_implementation='triton' was given, but the package triton is not installed; `pip install triton`, "
            "or use 'torch' or 'auto'."
        )


def select_mixer_backend(
    name: str, device: torch.device, dtype: torch.dtype = torch.float32, state_shape: tuple[int, int] = (64, 64)
) -> MixerBackend:
    """
    The backend for tensors on `device`.

    Args:
        name (`str`): `"auto"`, `"torch"`, `"triton"` or `"mamba_ssm"`.
        dtype: That of the tensors.
        state_shape: The scan's head dimension and state size.

    Raises:
        ImportError: if kernels are named and cannot be imported.
        ValueError: if kernels are named and do not run on the device, for the dtype or sizes, or in what is traced.
        RuntimeError: if Triton is named and its kernels fail on the device.
    """
    chosen = _choose(name, device, dtype, state_shape, torch.compiler.is_compiling())
    if chosen == "torch":
        return _TORCH_CPU if device.type == "cpu" else _TORCH_GPU
    return _KERNELS[chosen]


@torch.compiler.assume_constant_result  # so it runs as it is where a graph is traced
def _choose(name: str, device: torch.device, dtype: torch.dtype, state_shape: tuple[int, int], compiling: bool) -> str:
    """The name of the backend, which is in `_KERNELS` then unless it is torch's."""
    # Asked here, where it runs: in what torch 2.11 traces this is true for any compiler.
    exporting = torch.compiler.is_exporting()
    if name == "torch":
        return name
    if name == "triton":
        return _insist_on_triton(device, dtype, state_shape)
    if name == "mamba_ssm":
        return _insist_on_mamba_ssm(device, exporting)
    if device.type != "cuda" or exporting:
        _report_choice("torch", device.type)
        return "torch"
    backend, reason = _load_triton(device, dtype, state_shape)
    reasons = {"triton": reason}
    if backend is None and not compiling:
        backend, reason = _load_mamba_ssm()
        # A package that nobody has installed is nothing to speak of.
        reasons |= {"mamba_ssm": reason} if _is_installed("mamba_ssm") else {}
    chosen = "torch" if backend is None else backend.name
    skipped = " and ".join(f"{other} cannot run ({why})" for other, why in reasons.items() if why)
    _report_choice(chosen, device.type, skipped)
    return chosen


def _check_kernels(name: str, device: torch.device):
    """Raises if kernels that are named cannot be had, or run on other devices."""
    check_mixer_implementation(name)
    if device.type != "cuda" and os.environ.get("TRITON_INTERPRET") != "1":
        raise ValueError(
            f"mixer_implementation={name!r} was given, but the input is on {device}; its kernels run on CUDA devices, "
            "so move model and input to one, or use 'torch' or 'auto'."
        )


def _insist_on_triton(device: torch.device, dtype: torch.dtype, state_shape: tuple[int, int]) -> str:
    _check_kernels("triton", device)
    backend, reason = _load_triton(device, dtype, state_shape)
    if backend is None:
        raise RuntimeError(
            f"mixer_implementation='triton' was given, but its kernels cannot run here: {reason}; use 'auto' or "
            "'torch'."
        )
    return backend.name


def _insist_on_mamba_ssm(device: torch.device, exporting: bool) -> str:
    _check_kernels("mamba_ssm", device)
    if exporting:
        raise ValueError(
            "mixer_implementation='mamba_ssm' was given, but its kernels cannot be exported; use 'torch' or 'auto'."
        )
    backend, reason = _load_mamba_ssm()
    if backend is None:
        raise ImportError(
            f"mixer_implementation='mamba_ssm' was given, but mamba-ssm cannot be imported ({reason}); reinstall "
            "it for this torch by `pip install --force-reinstall --no-build-isolation mamba-ssm`, or use 'torch'."
        )
    return backend.name


@cache
def _is_installed(package: str) -> bool:
    if package in sys.modules:
        return sys.modules[package] is not None
    return importlib.util.find_spec(package) is not None


@cache
def _report_choice(name: str, device_type: str, skipped: str = ""):
    if skipped:
        logger.warning("mixer_implementation='auto' picked %r on %s, which is slower: %s.", name, device_type, skipped)
    else:
        logger.info("mixer_implementation='auto' picked %r on %s.", name, device_type)


def _load_triton(
    device: torch.device, dtype: torch.dtype, state_shape: tuple[int, int]
) -> tuple[MixerBackend | None, str]:
    """The backend of our own kernels, or None with the reason why they are not for these tensors."""
    try:
        from .ops_triton_check import load_triton_ops, why_not_triton
    except Exception as error:  # a Triton that does not fit its torch raises whatever it likes
        return None, f"{type(error).__name__}: {error}"
    reason = why_not_triton(device, dtype, state_shape)
    if reason:
        return None, reason
    if "triton" not in _KERNELS:
        # The kernels keep their own working set small, so they get the whole sequence.
        ops, block_ops = load_triton_ops()
        _KERNELS["triton"] = MixerBackend("triton", *ops, segment_length=sys.maxsize, block=BlockOps(*block_ops))
    return _KERNELS["triton"], ""


@cache
def _load_mamba_ssm() -> tuple[MixerBackend | None, str]:
    """The mamba_ssm backend, or None with the reason why there is none."""
    try:
        ops = load_mamba_ssm_ops()
    except Exception as error:  # Triton and CUDA libraries that do not fit raise whatever they like
        return None, f"{type(error).__name__}: {error}"
    # A compiler has no way through the hooks of these kernels. Where they are named they run, between two graphs.
    reason = (
        "mixer_implementation='mamba_ssm' runs kernels that torch.compile cannot trace; for one graph use 'triton', "
        "'torch' or 'auto'"
    )
    ops = (torch.compiler.disable(op, reason=reason) for op in ops)
    _KERNELS["mamba_ssm"] = MixerBackend("mamba_ssm", *ops, segment_length=sys.maxsize)
    return _KERNELS["mamba_ssm"], ""
