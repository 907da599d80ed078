# Copyright 2026 The modeling_pixelvit team. All rights reserved.
# SPDX-License-Identifier: Apache-2.0
"""
What the kernels of mamba-ssm and causal-conv1d are given. In their place are functions that record it and compute the
same in plain PyTorch, on the meta device where sizes are those of the paper.
"""

import logging
import sys
import types

import pytest
import torch
from helpers import relative_difference

from modeling_pixelvit import AdventurerConfig, ops_mamba_ssm
from modeling_pixelvit.ops_conv1d import causal_conv1d_reference
from modeling_pixelvit.ops_norm import rms_norm_gated_reference
from modeling_pixelvit.ops_ssd import ssd_chunked, ssd_sequential


TOKENS = 224 * 224 + 2  # of an image in pixels, with its class token and the average that goes first


def fake_scan(x, dt, A, B, C, chunk_size, D, dt_bias, initial_states, dt_softplus, return_final_states):
    assert chunk_size == 256 and dt_softplus and return_final_states
    if x.is_meta:
        return torch.empty_like(x), x.new_empty(x.shape[0], *x.shape[2:], B.shape[-1], dtype=torch.float32)
    return ssd_sequential(x, dt, torch.log(-A), B, C, D, dt_bias, initial_states)


def fake_conv(x, weight, bias, activation):
    assert activation == "silu"
    return torch.empty_like(x)


def fake_norm(x, weight, bias, z, eps, group_size, norm_before_gate):
    assert bias is None and not norm_before_gate
    if x.is_meta:
        return torch.empty_like(x)
    return rms_norm_gated_reference(x, z, weight, x.shape[-1] // group_size, eps)


@pytest.fixture
def ops(monkeypatch):
    """Scan, convolution and norm over fake kernels, and a list of (name, tensor arguments) of what these were given."""
    calls = []

    def recording(name, function):
        def record(*args, **kwargs):
            tensors = [value for value in (*args, *kwargs.values()) if isinstance(value, torch.Tensor)]
            calls.append((name, tensors))
            return function(*args, **kwargs)

        return record

    names = {
        "mamba_ssm.ops.triton.layernorm_gated": {"rmsnorm_fn": recording("norm", fake_norm)},
        "mamba_ssm.ops.triton.ssd_combined": {"mamba_chunk_scan_combined": recording("scan", fake_scan)},
        "causal_conv1d": {"causal_conv1d_fn": recording("convolution", fake_conv)},
    }
    for package in ("mamba_ssm", "mamba_ssm.ops", "mamba_ssm.ops.triton"):
        monkeypatch.setitem(sys.modules, package, types.ModuleType(package))
    for name, functions in names.items():
        module = types.ModuleType(name)
        vars(module).update(functions)
        monkeypatch.setitem(sys.modules, name, module)
    ops_mamba_ssm._report_parts.cache_clear()
    return (*ops_mamba_ssm.load_mamba_ssm_ops(), calls)


def reach(tensor):
    """The offset after that of the last element, from which the kernels' own tensors are counted too."""
    return 1 + sum((size - 1) * stride for size, stride in zip(tensor.shape, tensor.stride(), strict=True))


def mixer_inputs(config, batch_size, length=TOKENS, dtype=torch.bfloat16, device="meta"):
    """Arguments of the scan, the convolution and the norm, views of one projection as in the mixer."""
    states, inner, heads = config.n_groups * config.state_size, config.inner_size, config.num_heads
    widths = [inner, inner + 2 * states, heads]
    z, convolved, dt = torch.randn(batch_size, length, sum(widths), dtype=dtype, device=device).split(widths, dim=-1)
    x, B, C = torch.randn(convolved.shape, dtype=dtype, device=device).split([inner, states, states], dim=-1)
    x, B, C = x.unflatten(-1, (heads, -1)), *(part.unflatten(-1, (config.n_groups, -1)) for part in (B, C))
    by_head = [torch.randn(heads, device=device) for _ in range(3)]
    weight = torch.randn(convolved.shape[-1], 1, config.conv_kernel, device=device)
    scan = (x, dt, by_head[0], B, C, by_head[1], by_head[2])
    return scan, (convolved, weight, weight[:, 0, 0]), (x.flatten(-2).contiguous(), z)


@pytest.mark.parametrize(("size", "most"), [("tiny", 36), ("small", 19), ("base", 13), ("large", 10), ("huge", 8)])
def test_no_offset_of_a_large_batch_reaches_2_to_the_31(ops, size, most, caplog):
    ssd, conv1d, norm, calls = ops
    config = AdventurerConfig.from_variant(size, patch_size=1)
    for batch_size in (most, most + 1, 128):
        scan, convolution, gate = mixer_inputs(config, batch_size)
        calls.clear()
        with caplog.at_level(logging.INFO):
            y, state = ssd(*scan)
            convolved, conv_state = conv1d(*convolution)
            normed = norm(*gate, torch.ones(config.inner_size, device="meta"), 1, 1e-5)
        assert y.shape == scan[0].shape and state.shape == (batch_size, config.num_heads, 64, 64)
        assert convolved.shape == convolution[0].shape and conv_state.shape == (batch_size, 3, convolved.shape[-1])
        assert normed.shape == gate[0].shape
        for name in ("scan", "convolution", "norm"):
            given = [tensors for call, tensors in calls if call == name]
            batches = [len(tensors[0]) for tensors in given]
            assert sum(batches) == batch_size and (len(batches) == 1) == (batch_size == most)
            assert max(batches) <= most and max(batches) - min(batches) <= len(batches)
            assert all(reach(tensor) <= 2**31 for tensors in given for tensor in tensors)
    said = [record.getMessage() for record in caplog.records]
    assert len(said) == len(set(said)) == 6 and all(f"at most {most} images" in sentence for sentence in said)


@pytest.mark.parametrize(
    ("fields", "elements"),
    [
        ({"state_size": 2048}, 1536 * 2048),  # the chunks' states
        ({"n_groups": 24, "state_size": 1}, 24 * 256 * 256),  # scores
        ({"head_dim": 1}, 1536 * 256 * 8),  # the backward pass's sums by tile
    ],
)
def test_tensors_that_the_scan_makes_count_too(ops, fields, elements):
    ssd, *_, calls = ops
    config = AdventurerConfig(patch_size=1, **fields)
    most = 2**31 // (197 * elements)
    for batch_size in (most, most + 1):
        ssd(*mixer_inputs(config, batch_size)[0])
    assert [len(tensors[0]) for _, tensors in calls] == [most, (most + 2) // 2, (most + 1) // 2]


def test_an_image_that_does_not_fit_is_refused(ops):
    ssd, conv1d, norm, _ = ops
    scan, convolution, gate = mixer_inputs(AdventurerConfig(), 2, length=1024 * 1024 + 2)
    sentence = (
        r"The {} of mixer_implementation='mamba_ssm' was given images of 1048578 tokens, with \d+ elements to an "
    )
    sentence += r"image; its kernels count to 2147483648, in 32 bits. Use mixer_implementation='torch', smaller images"
    with pytest.raises(ValueError, match=sentence.format("scan")):
        ssd(*scan)
    with pytest.raises(ValueError, match=sentence.format("convolution")):
        conv1d(*convolution)
    with pytest.raises(ValueError, match=sentence.format("norm")):
        norm(*gate, torch.ones(1536, device="meta"), 1, 1e-5)


@pytest.mark.parametrize("with_state", [False, True])
def test_parts_give_the_results_and_gradients_of_the_whole(ops, with_state, monkeypatch):
    ssd, _, norm, calls = ops
    config = AdventurerConfig(hidden_size=16, head_dim=8, state_size=4)
    torch.manual_seed(0)
    scan, _, gate = mixer_inputs(config, 5, length=7, dtype=torch.float32, device="cpu")
    arguments = [tensor.detach().requires_grad_() for tensor in scan]
    if with_state:
        arguments.append(torch.randn(5, 4, 8, 4, requires_grad=True))
    y, z = (tensor.detach().requires_grad_() for tensor in gate)
    weight = torch.randn(32, requires_grad=True)

    def results(op, *tensors):
        outputs = op(*tensors)
        outputs = outputs if isinstance(outputs, tuple) else (outputs,)
        torch.manual_seed(1)
        weights = [torch.randn_like(output) for output in outputs]
        return [*outputs, *torch.autograd.grad(outputs, tensors, weights)]

    def gated(y, z, weight):
        return norm(y, z, weight, 2, 1e-5)

    for op, tensors, elements in ((ssd, arguments, 256 * 256), (gated, (y, z, weight), 7 * 76)):
        whole = results(op, *tensors)
        calls.clear()
        with monkeypatch.context() as patch:
            patch.setattr(ops_mamba_ssm, "MOST_ELEMENTS", 2 * elements)
            parts = results(op, *tensors)
        assert [len(given[0]) for _, given in calls] == [2, 2, 1]
        for actual, expected in zip(parts, whole, strict=True):
            torch.testing.assert_close(actual, expected)


@pytest.mark.parametrize(
    ("dtype", "given"),
    [(torch.float16, torch.float32), (torch.bfloat16, torch.bfloat16), (torch.float32, torch.float32)],
)
def test_states_beyond_float16(ops, dtype, given):
    """The kernels hold the state to the dtype of C where they multiply the two."""
    ssd, *_, calls = ops
    x = torch.full((1, 300, 1, 4), 100.0, dtype=dtype)
    dt = torch.zeros(1, 300, 1, dtype=dtype)
    B, C = torch.full((1, 300, 1, 2), 8.0, dtype=dtype), torch.full((1, 300, 1, 2), 2**-6, dtype=dtype)
    A_log, D = torch.full((1,), -10.0), torch.zeros(1)
    y, state = ssd(x, dt, A_log, B, C, D, torch.ones(1))
    assert [tensor.dtype for tensor in calls[0][1] if tensor.dim() == 4] == [given] * 3
    assert y.dtype == dtype and state.dtype == torch.float32 and state.max() > torch.finfo(torch.float16).max
    expected, _ = ssd_chunked(x, dt, A_log, B, C, D, torch.ones(1))
    assert y.isfinite().all() and relative_difference(y.float(), expected.float()) < 0.01


@pytest.mark.parametrize(
    ("hidden_size", "fields", "is_given"),
    [
        (768, {}, True),
        (192, {}, False),  # six heads: rows of 902
        (32, {"head_dim": 32, "state_size": 16}, False),  # rows of 162
        (128, {"head_dim": 32, "state_size": 16}, True),
        (64, {"head_dim": 16, "state_size": 1}, False),  # 130 channels
        (12, {"head_dim": 3, "state_size": 4, "expand": 1}, False),  # 20 channels
        (12, {"head_dim": 1, "state_size": 2, "expand": 3}, False),  # rows of 112, of which z are 36, channels 40
        (768, {"conv_kernel": 5}, False),
    ],
)
def test_rows_that_causal_conv1d_cannot_read(ops, hidden_size, fields, is_given):
    _, conv1d, _, calls = ops
    x, weight, bias = mixer_inputs(AdventurerConfig(hidden_size=hidden_size, **fields), 2, length=9)[1]
    y, state = conv1d(x, weight, bias)
    assert y.shape == x.shape and state.shape == (2, weight.shape[-1] - 1, x.shape[-1])
    assert len(calls) == is_given


@pytest.mark.parametrize("length", [1, 2, 3, 4, 50])
def test_only_the_last_tokens_are_kept_as_the_state(ops, length, monkeypatch):
    _, conv1d, *_ = ops
    x, weight, bias = torch.randn(2, length, 8), torch.randn(8, 1, 4), torch.randn(8)
    expected = causal_conv1d_reference(x, weight, bias)[1]
    monkeypatch.setattr(ops_mamba_ssm, "_suits_causal_conv1d", lambda x, weight: True)
    pad, padded = torch.nn.functional.pad, []
    monkeypatch.setattr(ops_mamba_ssm.F, "pad", lambda tensor, widths: padded.append(tensor) or pad(tensor, widths))
    torch.testing.assert_close(conv1d(x, weight, bias)[1], expected)
    assert [tensor.shape[1] for tensor in padded] == [min(length, 3)]
