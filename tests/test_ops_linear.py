# Copyright 2026 The modeling_pixelvit team. All rights reserved.
# SPDX-License-Identifier: Apache-2.0
"""The linear layer by oneDNN against PyTorch's own, values and gradients, and when it is taken."""

import pytest
import torch
from helpers import relative_difference
from torch.nn import functional as F
from torch.utils.flop_counter import FlopCounterMode

from modeling_pixelvit import ops_linear
from modeling_pixelvit.layers_linear import Linear
from modeling_pixelvit.ops_linear import linear_onednn


needs_onednn = pytest.mark.skipif(not torch.backends.mkldnn.is_available(), reason="this PyTorch is without oneDNN")


def make_arguments(shape, out_features, bias=True):
    torch.manual_seed(0)
    shapes = [shape, (out_features, shape[-1]), (out_features,)]
    arguments = [torch.randn(shape, requires_grad=True) for shape in shapes]
    return arguments if bias else [*arguments[:2], None]


@needs_onednn
@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("shape", [(1, 7), (3, 7), (2, 5, 7), (2, 1, 3, 64)])
@pytest.mark.parametrize("out_features", [1, 5, 90])
def test_equals_pytorch(shape, out_features, bias):
    arguments = make_arguments(shape, out_features, bias)
    expected, actual = F.linear(*arguments), linear_onednn(*arguments)
    assert actual.shape == expected.shape
    wanted = [argument for argument in arguments if argument is not None]
    weights = torch.randn_like(expected)
    gradients = torch.autograd.grad(actual, wanted, weights)
    expected_gradients = torch.autograd.grad(expected, wanted, weights)
    torch.testing.assert_close([actual, *gradients], [expected, *expected_gradients], rtol=1e-5, atol=1e-5)
    with torch.no_grad():
        torch.testing.assert_close(linear_onednn(*arguments), expected, rtol=1e-5, atol=1e-5)


@needs_onednn
def test_takes_strided_tensors():
    x, weight, bias = (argument.detach() for argument in make_arguments((4, 6, 30), 9))
    views = x[:, ::2, 10:20], weight[:, 10:20], bias
    torch.testing.assert_close(linear_onednn(*views), F.linear(*views))
    views = x.transpose(0, 1), torch.randn(30, 9).t(), bias
    torch.testing.assert_close(linear_onednn(*views), F.linear(*views))


@needs_onednn
def test_second_derivative_and_gradients_per_example():
    arguments = make_arguments((3, 2, 7), 5)

    def penalty(function):
        gradients = torch.autograd.grad(function(*arguments).square().sum(), arguments, create_graph=True)
        return torch.autograd.grad(sum(gradient.square().sum() for gradient in gradients), arguments)

    torch.testing.assert_close(penalty(linear_onednn), penalty(F.linear), rtol=1e-4, atol=1e-3)

    def per_example(function):
        gradient = torch.func.grad(lambda weight, x: function(x, weight, arguments[2]).square().sum())
        return torch.func.vmap(gradient, in_dims=(None, 0))(arguments[1], arguments[0])

    torch.testing.assert_close(per_example(linear_onednn), per_example(F.linear))


@needs_onednn
def test_taken_for_large_products_on_processors_that_mkl_neglects(monkeypatch):
    calls = []

    def record(*arguments):
        calls.append(arguments)
        return linear_onednn(*arguments)

    monkeypatch.setattr(ops_linear, "linear_onednn", record)
    layer, tokens = Linear(256, 128), torch.randn(1, 128, 256)
    expected = F.linear(tokens, layer.weight, layer.bias)
    for speedup, count in ((1.1, 0), (2.0, 1)):
        monkeypatch.setattr(ops_linear, "onednn_speedup", lambda speedup=speedup: speedup)
        calls.clear()
        assert relative_difference(layer(tokens), expected) < 1e-6
        assert len(calls) == count
    calls.clear()
    layer(tokens[:, :-1])  # just too small
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert layer(tokens).dtype == torch.bfloat16
    layer.double()(tokens.double())
    layer.bfloat16()(tokens.bfloat16())
    assert not calls


def test_the_measurement_is_seen_by_nobody(monkeypatch):
    """Not by the caller's random numbers, threads, gradients, nor by what counts its operations."""
    threads, state = torch.get_num_threads(), torch.get_rng_state()
    ops_linear.onednn_speedup.cache_clear()
    layer, tokens = Linear(256, 128), torch.randn(1, 128, 256, requires_grad=True)
    torch.set_rng_state(state)
    with FlopCounterMode(display=False) as counter:
        layer(tokens).sum()
    assert ops_linear.onednn_speedup.cache_info().currsize == 1
    assert counter.get_total_flops() in (0, 2 * 128 * 256 * 128)  # it does not know oneDNN's product
    assert torch.get_num_threads() == threads and torch.equal(torch.get_rng_state(), state)
    assert ops_linear.onednn_speedup() >= 0
    monkeypatch.setattr(torch.backends.mkl, "is_available", lambda: False)
    ops_linear.onednn_speedup.cache_clear()
    assert ops_linear.onednn_speedup() == 0
    ops_linear.onednn_speedup.cache_clear()


def test_compiled_and_exported_models_keep_the_plain_product(monkeypatch):
    monkeypatch.setattr(ops_linear, "onednn_speedup", lambda: 2.0)
    layer, tokens = Linear(256, 128), torch.randn(1, 128, 256)
    program = torch.export.export(layer, (tokens,))
    assert "mkldnn" not in program.graph_module.code
    torch.testing.assert_close(program.module()(tokens), layer(tokens), rtol=1e-4, atol=1e-5)
