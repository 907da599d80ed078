# Copyright 2026 The modeling_pixelvit team. All rights reserved.
# SPDX-License-Identifier: Apache-2.0
"""The causal convolution against PyTorch's own, values and gradients."""

import pytest
import torch
from helpers import relative_difference

from modeling_pixelvit import ops_segments
from modeling_pixelvit.ops_conv1d import causal_conv1d, causal_conv1d_reference
from modeling_pixelvit.ops_segments import Workspace


def make_arguments(length, kernel_size, dtype=torch.float64):
    torch.manual_seed(length)
    shapes = [(2, length, 5), (5, 1, kernel_size), (5,), (2, kernel_size - 1, 5)]
    return [torch.randn(shape, dtype=dtype, requires_grad=True) for shape in shapes]


@pytest.mark.parametrize("length", [1, 2, 3, 4, 7, 8, 30])
@pytest.mark.parametrize("kernel_size", [1, 2, 4])
def test_equals_reference(length, kernel_size, monkeypatch):
    monkeypatch.setattr(ops_segments, "CPU_OP_TOKENS", 7)  # so that several segments are used
    arguments = make_arguments(length, kernel_size)
    expected = causal_conv1d_reference(*arguments)
    actual = causal_conv1d(*arguments)
    weights = [torch.randn_like(output) for output in expected]
    expected_gradients = torch.autograd.grad(expected, arguments, weights)
    gradients = torch.autograd.grad(actual, arguments, weights)
    for value, reference in zip([*actual, *gradients], [*expected, *expected_gradients], strict=True):
        torch.testing.assert_close(value, reference, rtol=1e-12, atol=1e-12)


def test_no_initial_state_is_zero_state():
    x, weight, bias, state = make_arguments(9, 4)
    expected = causal_conv1d(x, weight, bias, torch.zeros_like(state))
    for function in (causal_conv1d, causal_conv1d_reference):
        for actual, reference in zip(function(x, weight, bias), expected, strict=True):
            torch.testing.assert_close(actual, reference)


@pytest.mark.parametrize("first", [1, 2, 3, 20])
def test_two_halves_carry_the_state(first):
    x, weight, bias, state = make_arguments(23, 4)
    whole, final = causal_conv1d(x, weight, bias, state)
    with torch.no_grad():
        workspace, outputs = Workspace(), []
        for part in (slice(0, first), slice(first, 23)):
            y, state = causal_conv1d(x[:, part], weight, bias, state, workspace=workspace)
            outputs.append(y.clone())
    torch.testing.assert_close(torch.cat(outputs, dim=1), whole.detach())
    torch.testing.assert_close(state, final.detach())


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_sums_in_float32(dtype):
    arguments = [argument.detach().to(dtype) for argument in make_arguments(50, 4)]
    y, state = causal_conv1d(*arguments)
    expected, _ = causal_conv1d_reference(*(argument.double() for argument in arguments))
    assert y.dtype == state.dtype == dtype
    assert relative_difference(y.double(), expected) < torch.finfo(dtype).eps


def test_is_causal():
    x, weight, bias, _ = (argument.detach() for argument in make_arguments(10, 4))
    changed = x.clone()
    changed[:, 6] += 1
    difference = (causal_conv1d(x, weight, bias)[0] - causal_conv1d(changed, weight, bias)[0]).abs().sum((0, 2))
    assert (difference[:6] == 0).all() and (difference[6:] > 0).all()
