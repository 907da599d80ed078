# Copyright 2026 The modeling_pixelvit team. All rights reserved.
# SPDX-License-Identifier: Apache-2.0
"""The gated norm against its definition, values and gradients."""

import pytest
import torch
from helpers import relative_difference

from modeling_pixelvit import ops_segments
from modeling_pixelvit.ops_norm import rms_norm_gated, rms_norm_gated_reference


def make_arguments(length, dtype=torch.float64):
    torch.manual_seed(length)
    return [torch.randn(shape, dtype=dtype, requires_grad=True) for shape in ((2, length, 8), (2, length, 8), (8,))]


def test_reference_by_hand():
    y, z = torch.tensor([[[3.0, 4.0]]]), torch.full((1, 1, 2), 30.0)  # silu(30) is 30 in float32
    out = rms_norm_gated_reference(y, z, torch.tensor([1.0, 2.0]), groups=1, eps=0.0)
    torch.testing.assert_close(out, torch.tensor([[[3.0, 8.0]]]) / 12.5**0.5)


@pytest.mark.parametrize("length", [1, 6, 7, 8, 30])
@pytest.mark.parametrize("groups", [1, 2, 4])
def test_equals_reference(length, groups, monkeypatch):
    monkeypatch.setattr(ops_segments, "CPU_OP_TOKENS", 7)
    arguments = make_arguments(length)
    expected = rms_norm_gated_reference(*arguments, groups, 1e-5)
    actual = rms_norm_gated(*arguments, groups, 1e-5)
    weights = torch.randn_like(expected)
    expected_gradients = torch.autograd.grad(expected, arguments, weights)
    gradients = torch.autograd.grad(actual, arguments, weights)
    for value, reference in zip([actual, *gradients], [expected, *expected_gradients], strict=True):
        torch.testing.assert_close(value, reference, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_computes_in_float32(dtype):
    y, z, weight = (argument.detach().to(dtype) for argument in make_arguments(50))
    # Squares of these would overflow in float16.
    actual = rms_norm_gated(y * 1000, z, weight, 2, 1e-5)
    expected = rms_norm_gated_reference((y * 1000).double(), z.double(), weight.double(), 2, 1e-5)
    assert actual.dtype == dtype
    assert relative_difference(actual.double(), expected) < torch.finfo(dtype).eps
