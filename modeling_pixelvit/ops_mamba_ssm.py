# Copyright 2026 The modeling_pixelvit team. All rights reserved.
# SPDX-License-Identifier: Apache-2.0
"""
The kernels of the packages mamba-ssm and causal-conv1d, with the signatures of the ops in plain PyTorch.

The kernels count elements from the start of a tensor in 32 bits (mamba-ssm to 2.3.2 at least, signed; causal-conv1d
unsigned, so that half of its range is used here), and beyond that they read and write elsewhere without a word. So a
batch goes to them in parts that fit.
"""

import logging
import math
from collections.abc import Callable
from functools import cache

import torch
from torch.nn import functional as F

from .ops_conv1d import causal_conv1d


logger = logging.getLogger(__name__)

# The kernels' own best chunk; the config's chunk_size is for the plain PyTorch scan.
CHUNK_SIZE = 256
# Elements that offsets from 0 on can name.
MOST_ELEMENTS = 2**31
# Rows of the smallest tile of the scan's backward pass, which keeps a partial sum for each tile of a chunk.
LEAST_TILE = 32


def load_mamba_ssm_ops() -> tuple[Callable, Callable, Callable]:
    """
    The scan, the convolution and the gated norm, with the signatures of `ops_ssd.ssd_chunked` (without
    `matrices_per_segment`), `ops_conv1d.causal_conv1d` and `ops_norm.rms_norm_gated`. The convolution is that of
    causal-conv1d, where that is installed and has one for the call.

    In float16 the scan computes in float32: the kernels sum the state up in float32, but multiply it with C in the
    dtype of C, in which large states would be infinite. In bfloat16, which ends where float32 ends, that product rounds
    the state as it rounds C; a float32 C alone is not possible, since the backward pass multiplies it with the gradient
    of y, in the dtype of x.

    The ops raise ValueError if a single image is too large for the kernels.

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
        dtype = x.dtype
        if dtype == torch.float16:
            x, B, C = x.float(), B.float(), C.float()
        A, D, dt_bias = -torch.exp(A_log.float()), D.float(), dt_bias.float()

        def scan(x, dt, B, C, initial_state=None):
            return mamba_chunk_scan_combined(
                x,
                dt,
                A,
                B,
                C,
                chunk_size=CHUNK_SIZE,
                D=D,
                dt_bias=dt_bias,
                initial_states=initial_state,
                dt_softplus=True,
                return_final_states=True,
            )

        tensors = (x, dt, B, C) if initial_state is None else (x, dt, B, C, initial_state)
        chunks = math.ceil(x.shape[1] / CHUNK_SIZE)
        y, final_state = _by_parts("scan", scan, tensors, chunks * _scan_elements(x, B))
        return y.to(dtype), final_state

    def conv1d(x, weight, bias, initial_state=None, workspace=None):
        if causal_conv1d_fn is None or initial_state is not None or not _suits_causal_conv1d(x, weight):
            return causal_conv1d(x, weight, bias, initial_state, workspace)
        taps, bias = weight[:, 0].to(x.dtype), bias.to(x.dtype)

        def convolve(x):
            return (causal_conv1d_fn(x.transpose(1, 2), taps, bias, activation="silu").transpose(1, 2),)

        (y,) = _by_parts("convolution", convolve, (x,))
        history = weight.shape[-1] - 1
        final_state = x[:, max(x.shape[1] - history, 0) :]
        return y, F.pad(final_state, (0, 0, history - final_state.shape[1], 0))

    def norm(y, z, weight, groups, eps, workspace=None):
        group_size = y.shape[-1] // groups

        def normalize(y, z):
            return (rmsnorm_fn(y, weight, None, z=z, eps=eps, group_size=group_size, norm_before_gate=False),)

        (output,) = _by_parts("norm", normalize, (y, z))
        return output

    return ssd, conv1d, norm


def _suits_causal_conv1d(x: torch.Tensor, weight: torch.Tensor) -> bool:
    """
    Whether the CUDA kernel takes this call: two to four taps, and rows of x that it can read eight channels at a time.
    (Its layout rules leave no room for a state before the sequence.)
    """
    steps = (x.shape[2], x.stride(0), x.stride(1), x.storage_offset())
    return (
        x.device.type != "cpu"
        and 2 <= weight.shape[-1] <= 4
        and x.stride(2) == 1
        and all(step % 8 == 0 for step in steps)
    )


def _scan_elements(x: torch.Tensor, B: torch.Tensor) -> int:
    """Elements that a chunk has in the largest tensor that the scan makes, forward and backward."""
    heads, head_dim, (groups, state_size) = x.shape[2], x.shape[3], B.shape[2:]
    states = heads * head_dim * state_size
    scores = groups * CHUNK_SIZE * CHUNK_SIZE
    partial_sums = heads * CHUNK_SIZE * CHUNK_SIZE // LEAST_TILE
    return max(states, scores, partial_sums)


def _by_parts(
    op: str, function: Callable, tensors: tuple[torch.Tensor, ...], elements: int = 0
) -> tuple[torch.Tensor, ...]:
    """
    The outputs of `function` for a batch, which it gets in as few parts as fit, all of about one size.

    Args:
        tensors: Inputs, batch first. Of a view it is the strides that count, not the size.
        elements: Elements that an image has in what the op makes.

    Raises:
        ValueError: if a single image does not fit.
    """
    for tensor in tensors:
        last = sum((size - 1) * stride for size, stride in zip(tensor.shape[1:], tensor.stride()[1:], strict=True))
        elements = max(elements, tensor.stride(0), last + 1)
    batch_size, most = len(tensors[0]), MOST_ELEMENTS // max(elements, 1)
    if most == 0:
        raise ValueError(
            f"The {op} of mixer_implementation='mamba_ssm' was given images of {tensors[0].shape[1]} tokens, with "
            f"{elements} elements to an image; its kernels count to {MOST_ELEMENTS}, in 32 bits. Use "
            "mixer_implementation='torch', smaller images or larger patches."
        )
    if batch_size <= most:
        return function(*tensors)
    _report_parts(op, batch_size, most, elements)
    size = math.ceil(batch_size / math.ceil(batch_size / most))
    # By split, whose backward pass puts the gradients of the parts together; slices would each fill a whole one.
    results = [function(*part) for part in zip(*(tensor.split(size) for tensor in tensors), strict=True)]
    return tuple(torch.cat(outputs) for outputs in zip(*results, strict=True))


@cache
def _report_parts(op: str, batch_size: int, most: int, elements: int):
    logger.info(
        "The %s of mamba_ssm gets a batch of %d in parts of at most %d images: of %d elements an image, its kernels "
        "count to %d.",
        op,
        batch_size,
        most,
        elements,
        MOST_ELEMENTS,
    )
