# Copyright 2026 The modeling_pixelvit team. All rights reserved.
# SPDX-License-Identifier: Apache-2.0
"""
The Triton kernels against their references in float64: run by `test_ops_triton.py` in a process of its own.

Triton is interpreted or not from its import on, so these tests have no place among those that may have imported it:
`TRITON_INTERPRET=1 python -m pytest tests/triton_cases.py` on a CPU, without the variable on a CUDA device.

bfloat16 is for devices: the interpreter gets its matrix products wrong (triton#11584).
"""

import pytest
import torch
from torch.nn import functional as F

from modeling_pixelvit import ops_triton_conv1d, ops_triton_norm, ops_triton_ssd
from modeling_pixelvit.ops_conv1d import causal_conv1d_reference
from modeling_pixelvit.ops_norm import rms_norm_gated_reference
from modeling_pixelvit.ops_ssd import ssd_sequential
from modeling_pixelvit.ops_triton_base import INTERPRETED
from modeling_pixelvit.ops_triton_conv1d import causal_conv1d_triton
from modeling_pixelvit.ops_triton_norm import rms_norm_gated_triton
from modeling_pixelvit.ops_triton_ssd import ssd_triton


DEVICE = "cpu" if INTERPRETED else "cuda"
# Norm of the difference over the norm of what is expected. Sums are in float32, factors in the dtype.
TOLERANCES = {torch.float64: 1e-13, torch.float32: 2e-6, torch.float16: 1e-3, torch.bfloat16: 8e-3}
if INTERPRETED:
    DTYPES = [torch.float32, torch.float16]
else:
    DTYPES = [torch.float32, torch.float16, torch.bfloat16]


def random(*shape, dtype, seed=0):
    generator = torch.Generator().manual_seed(1000 * seed + sum(shape))
    return torch.randn(shape, generator=generator, dtype=torch.float64).to(DEVICE, dtype)


def scan_arguments(batch, length, heads=2, head_dim=5, groups=1, state_size=6, dtype=torch.float64):
    """x, dt, A_log, B, C, D, dt_bias, initial_state; the first, second, fourth and fifth are slices of one tensor."""
    sizes = [heads * head_dim, groups * state_size, groups * state_size, heads]
    x, B, C, dt = random(batch, length, sum(sizes), dtype=dtype).split(sizes, dim=-1)
    B, C = (t.unflatten(-1, (groups, -1)) for t in (B, C))
    A_log, D, dt_bias = random(3, heads, dtype=dtype)
    state = random(batch, heads, head_dim, state_size, dtype=dtype)
    return [x.unflatten(-1, (heads, -1)), dt, A_log, B, C, D, dt_bias, state]


def with_gradients(function, arguments, dtype=None):
    """Outputs, and the gradients of all arguments for random gradients of all outputs; in `dtype` if given."""
    # Detached, slices stay slices.
    arguments = [(t if dtype is None else t.to(dtype)).detach().requires_grad_() for t in arguments]
    outputs = function(*arguments)
    outputs = [outputs] if isinstance(outputs, torch.Tensor) else outputs
    weights = [random(*t.shape, dtype=arguments[0].dtype, seed=i + 1).to(t.dtype) for i, t in enumerate(outputs)]
    if dtype is not None:  # the reference gets the gradients as the kernels got them, rounded
        weights = [weight.to(with_gradients.rounded).to(dtype) for weight in weights]
    return [t.detach() for t in (*outputs, *torch.autograd.grad(outputs, arguments, weights))]


def check(function, reference, arguments):
    """Every output and every gradient against the reference in float64, which gets the same rounded inputs."""
    dtype = arguments[0].dtype
    with_gradients.rounded = dtype
    expected = with_gradients(reference, arguments, torch.float64)
    actual = with_gradients(function, arguments)
    for name, one, other in zip(["output", *"0123456789"], actual, expected, strict=False):
        assert one.shape == other.shape
        difference = ((one.double() - other).norm() / other.norm()).item()
        assert difference < TOLERANCES[dtype], f"{name}: {difference}"
