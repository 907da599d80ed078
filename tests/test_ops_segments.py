# Copyright 2026 The modeling_pixelvit team. All rights reserved.
# SPDX-License-Identifier: Apache-2.0
"""How long the segments are, on a CPU and on what is none: the meta device, which computes nothing."""

import pytest
import torch
import torch._dynamo
from helpers import PeakMemory, tiny_config, tiny_model
from torch.export import Dim
from torch.utils._python_dispatch import TorchDispatchMode

from modeling_pixelvit import AdventurerModel, ops_segments
from modeling_pixelvit.layers_norm import RMSNorm
from modeling_pixelvit.ops_conv1d import causal_conv1d
from modeling_pixelvit.ops_norm import rms_norm_gated
from modeling_pixelvit.ops_segments import map_batch, map_segments


TOKENS = 224 * 224 + 2


class Counter(TorchDispatchMode):
    """Counts the operations that would each be a launch."""

    def __init__(self):
        super().__init__()
        self.launches = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        self.launches += not func.is_view
        return func(*args, **kwargs or {})


def conv(*x):
    weight, bias = torch.randn(1664, 1, 4, device="meta", requires_grad=True), torch.randn(1664, device="meta")
    return causal_conv1d(*x, weight, bias)[0]


def norm(y, z):
    return rms_norm_gated(y, z, torch.randn(1664, device="meta", requires_grad=True), 1, 1e-5)


@pytest.mark.parametrize(("op", "inputs"), [(conv, 1), (norm, 2)])
def test_ops_do_much_at_once_on_a_device(op, inputs):
    """Of sixteen images in pixels; in segments of a CPU's length these were 5,700 to 27,000."""
    tensors = [
        torch.empty(16, TOKENS, 1664, device="meta", dtype=torch.bfloat16, requires_grad=True) for _ in range(inputs)
    ]
    with Counter() as forward:
        output = op(*tensors)
    with Counter() as backward:
        torch.autograd.grad(output, tensors, torch.empty_like(output))
    assert forward.launches < 200 and backward.launches < 700, (forward.launches, backward.launches)


@pytest.mark.parametrize(
    ("device", "shape", "lengths"),
    [
        ("cpu", (1, 4099), [2048, 2048, 3]),
        ("cpu", (300, 2049), [2048, 1]),
        ("meta", (1, 2**19), [2**19]),
        ("meta", (8, TOKENS), [TOKENS]),
        ("meta", (16, TOKENS), [2**15, TOKENS - 2**15]),
        ("meta", (2**19 + 1, 2), [1, 1]),
    ],
)
def test_length_of_a_layers_segments(device, shape, lengths):
    seen = []

    def function(tokens):
        seen.append(tokens.shape[1])
        return tokens

    with torch.no_grad():
        map_segments(function, torch.empty(*shape, 1, device=device))
    assert seen == lengths


def test_norms_are_not_cut_on_a_device():
    with torch.no_grad(), Counter() as counter:
        RMSNorm(768, 1e-5).to("meta")(torch.empty(128, TOKENS, 768, device="meta"))
    whole = counter.launches
    with torch.no_grad(), Counter() as counter:
        RMSNorm(768, 1e-5).to("meta")(torch.empty(1, 1, 768, device="meta"))
    assert whole == counter.launches


@pytest.mark.parametrize("backwards", [False, True])
@pytest.mark.parametrize("run", [lambda function: function, torch._dynamo.run])
def test_inference_holds_little_more_than_the_stream(backwards, run):
    """
    Beside the stream that a block gets, of its length there are at most what the mixer reads and what it gives, in
    another order once more, or the stream after the mixer, the MLP's output and their sum. Where a compiler looks at
    every frame, Python holds a function's arguments until it returns.
    """
    torch.manual_seed(0)
    config = tiny_config("adventurer", patch_size=1, image_size=128, hidden_size=16, chunk_size=8)
    layer = AdventurerModel(config).eval().layers[int(backwards)]
    assert layer.scan_order.backwards == backwards
    stream = torch.randn(1, 128**2 + 1, 16)
    with torch.inference_mode():
        with PeakMemory() as of_segment:
            layer.mixer(stream[:, :2048])
        with PeakMemory() as whole:
            run(layer.forward)(stream, grid=(128, 128))
    lengths = (whole.peak - of_segment.peak) / stream.nbytes
    assert lengths < 3.1, lengths


def test_an_export_for_a_device_takes_any_batch():
    class Twice(torch.nn.Module):
        def forward(self, tokens):
            return map_segments(lambda part: 2 * part, tokens)

    tokens = torch.empty(2, 5, 3, device="meta")
    with torch.no_grad():
        program = torch.export.export(Twice(), (tokens,), dynamic_shapes=({0: Dim("batch", min=1)},), strict=False)
    assert program.module()(tokens.expand(2, 5, 3)[:1]).shape == (1, 5, 3)


@pytest.mark.parametrize("others", ["none", "shared", "of each"])
def test_parts_of_the_batch(monkeypatch, others):
    tokens, lengths = torch.randn(5, 7, 3), []
    other = {"none": None, "shared": torch.arange(7), "of each": torch.arange(35).view(5, 7)}[others]

    def function(tokens, other):
        lengths.append(len(tokens))
        return tokens if other is None else tokens * other[..., None]

    expected = function(tokens, other)
    monkeypatch.setattr(ops_segments, "DEVICE_LAYER_TOKENS", 15)
    with torch.no_grad():
        torch.testing.assert_close(map_batch(function, tokens, other), expected, rtol=0, atol=0)
    assert lengths == [5, 2, 2, 1]
    map_batch(function, tokens, other)
    assert lengths[4:] == [5]


@pytest.mark.parametrize("keeps_gradients", [True, False])
def test_an_empty_batch(keeps_gradients):
    """As a process has that finds none of a batch's images left: nothing comes out, and parameters get zeros."""
    mixer, norm = tiny_model(AdventurerModel).layers[0].mixer, RMSNorm(32, 1e-5)
    tokens = torch.empty(0, 5, 32, requires_grad=keeps_gradients)
    with torch.set_grad_enabled(keeps_gradients):
        output = mixer(norm(tokens))
        assert output.shape == tokens.shape == map_batch(norm, tokens).shape
        assert map_segments(torch.square, tokens.to("meta")).shape == tokens.shape
    if keeps_gradients:
        gradients = torch.autograd.grad(output.sum(), [tokens, *mixer.parameters(), *norm.parameters()])
        assert gradients[0].shape == tokens.shape and not any(gradient.any() for gradient in gradients)
