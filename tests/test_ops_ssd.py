# Copyright 2026 The modeling_pixelvit team. All rights reserved.
# SPDX-License-Identifier: Apache-2.0
"""The scan: the sequential reference by hand and against transformers, the chunked form against the reference."""

import gc
import math
import subprocess
import sys
import weakref

import pytest
import torch
from helpers import PeakMemory, relative_difference, tiny_config
from transformers.models.mamba2.configuration_mamba2 import Mamba2Config
from transformers.models.mamba2.modeling_mamba2 import Mamba2Mixer

from modeling_pixelvit import ops_ssd
from modeling_pixelvit.layers_mamba2 import Mamba2Mixer as OurMixer
from modeling_pixelvit.ops_conv1d import causal_conv1d_reference
from modeling_pixelvit.ops_norm import rms_norm_gated_reference
from modeling_pixelvit.ops_segments import Workspace
from modeling_pixelvit.ops_ssd import _ssd_for_compilers, ssd_chunked, ssd_sequential


def make_arguments(batch, length, heads=4, head_dim=3, groups=2, state_size=5, dtype=torch.float64, requires_grad=True):
    """x, dt, A_log, B, C, D, dt_bias, initial_state."""
    generator = torch.Generator().manual_seed(length)
    shapes = [
        (batch, length, heads, head_dim),
        (batch, length, heads),
        (heads,),
        (batch, length, groups, state_size),
        (batch, length, groups, state_size),
        (heads,),
        (heads,),
        (batch, heads, head_dim, state_size),
    ]
    tensors = [torch.randn(shape, generator=generator, dtype=torch.float64).to(dtype) for shape in shapes]
    return [tensor.requires_grad_(requires_grad) for tensor in tensors]


def with_gradients(function, arguments, seed=0):
    """Outputs, and the gradients of all arguments for random gradients of both outputs."""
    outputs = function(*arguments)
    generator = torch.Generator().manual_seed(seed)
    weights = [torch.randn(output.shape, generator=generator, dtype=torch.float64).to(output) for output in outputs]
    gradients = torch.autograd.grad(outputs, arguments, weights)
    return [*outputs, *gradients]


def test_sequential_by_hand():
    # One head, one channel, one state, two tokens; steps of 1 and 2, decay rate 1.
    inverse_softplus = [math.log(math.expm1(step)) for step in (1.0, 2.0)]
    x = torch.tensor([3.0, 5.0]).view(1, 2, 1, 1)
    dt = torch.tensor(inverse_softplus).view(1, 2, 1) - 0.25
    B, C = torch.tensor([7.0, 11.0]).view(1, 2, 1, 1), torch.tensor([13.0, 17.0]).view(1, 2, 1, 1)
    state = torch.tensor([19.0]).view(1, 1, 1, 1)
    y, final = ssd_sequential(x, dt, torch.zeros(1), B, C, torch.tensor([0.5]), torch.tensor([0.25]), state)
    first = math.exp(-1) * 19 + 1 * 3 * 7
    second = math.exp(-2) * first + 2 * 5 * 11
    expected = torch.tensor([13 * first + 1.5, 17 * second + 2.5]).view(1, 2, 1, 1)
    torch.testing.assert_close(y, expected)
    torch.testing.assert_close(final, torch.tensor(second).view(1, 1, 1, 1))


@pytest.mark.parametrize("groups", [1, 2])
@pytest.mark.parametrize("implementation", [ssd_sequential, ssd_chunked])
def test_against_transformers(implementation, groups):
    config = Mamba2Config(
        hidden_size=32,
        num_heads=4,
        head_dim=16,
        state_size=8,
        n_groups=groups,
        num_hidden_layers=1,
        layer_norm_epsilon=1e-5,
    )
    torch.manual_seed(0)
    reference = Mamba2Mixer(config, layer_idx=0).double()
    if groups > 1 and not hasattr(reference.norm, "group_size"):
        pytest.skip("this version of transformers normalises all groups as one")
    ours = OurMixer(tiny_config("adventurer", n_groups=groups)).double()
    ours.load_state_dict(reference.state_dict())
    tokens = torch.randn(2, 37, 32, dtype=torch.float64)
    with torch.no_grad():
        expected = reference(tokens)
        z, convolved, dt = ours.in_proj(tokens).split(ours.projection_sizes, dim=-1)
        convolved, _ = causal_conv1d_reference(convolved, ours.conv1d.weight, ours.conv1d.bias)
        x, B, C = convolved.split(ours.conv_sizes, dim=-1)
        split = {"x": x.unflatten(-1, (4, 16)), "B": B.unflatten(-1, (groups, 8)), "C": C.unflatten(-1, (groups, 8))}
        y, _ = implementation(dt=dt, A_log=ours.A_log, D=ours.D, dt_bias=ours.dt_bias, **split)
        normed = rms_norm_gated_reference(y.flatten(-2), z, ours.norm.weight, groups, 1e-5)
        # transformers computes parts of its mixer in float32 whatever the dtype.
        assert relative_difference(ours.out_proj(normed), expected) < 1e-5
        assert relative_difference(ours(tokens), expected) < 1e-5


@pytest.mark.parametrize("length", [1, 2, 15, 16, 17, 63, 64, 65, 130])
@pytest.mark.parametrize("groups", [1, 2, 4])
def test_chunked_equals_sequential_in_float64(length, groups):
    arguments = make_arguments(2, length, groups=groups)

    def chunked(*tensors):
        return ssd_chunked(*tensors, chunk_size=16, matrices_per_segment=16)  # two chunks in a segment

    expected = with_gradients(ssd_sequential, arguments)
    for actual, reference in zip(with_gradients(chunked, arguments), expected, strict=True):
        assert relative_difference(actual, reference) < 1e-11


@pytest.mark.parametrize("length", [1, 2, 15, 16, 17, 65])
@pytest.mark.parametrize(("groups", "least_heads"), [(1, 4), (2, 4), (4, 4), (1, 1), (1, 3), (2, 1)])
def test_the_form_for_compilers_equals_sequential(length, groups, least_heads, monkeypatch):
    monkeypatch.setattr(ops_ssd, "LEAST_HEADS", least_heads)  # below four, heads come in parts
    arguments = make_arguments(2, length, groups=groups)
    expected = with_gradients(ssd_sequential, arguments)
    for actual, reference in zip(
        with_gradients(lambda *t: _ssd_for_compilers(*t, 16), arguments), expected, strict=True
    ):
        assert relative_difference(actual, reference) < 1e-11


def test_memory_of_the_form_for_compilers():
    """Of sixteen images in pixels at the sizes of Adventurer-Base, where x takes 4.9 GB in float32."""
    arguments = make_arguments(1, 1, 24, 64, 1, 64, torch.float32, requires_grad=False)[:-1]
    x, dt, A_log, B, C, D, dt_bias = (tensor.to("meta") for tensor in arguments)
    x, dt, B, C = (tensor.expand(16, 50178, *tensor.shape[2:]) for tensor in (x, dt, B, C))
    with PeakMemory() as memory:
        _ssd_for_compilers(x, dt, A_log, B, C, D, dt_bias, None, 64)
    assert memory.peak < 5 * x.numel() * x.element_size(), memory.peak / 1e9


@pytest.mark.parametrize("matrices", [1, 8, 10**9])
@pytest.mark.parametrize("chunk_size", [1, 7, 64])
def test_segments_and_chunks_change_nothing(chunk_size, matrices):
    arguments = make_arguments(1, 100)
    expected = with_gradients(ssd_sequential, arguments)

    def chunked(*tensors):
        return ssd_chunked(*tensors, chunk_size=chunk_size, matrices_per_segment=matrices)

    for actual, reference in zip(with_gradients(chunked, arguments), expected, strict=True):
        assert relative_difference(actual, reference) < 1e-11


def test_no_initial_state_is_zero_state():
    *arguments, state = make_arguments(2, 33)
    for implementation in (ssd_sequential, ssd_chunked):
        expected = implementation(*arguments, torch.zeros_like(state))
        for actual, reference in zip(implementation(*arguments), expected, strict=True):
            torch.testing.assert_close(actual, reference)


def test_two_halves_carry_the_state():
    x, dt, A_log, B, C, D, dt_bias, state = make_arguments(2, 75, requires_grad=False)
    whole, final = ssd_chunked(x, dt, A_log, B, C, D, dt_bias, state)
    workspace = Workspace()
    outputs = []
    for part in (slice(0, 31), slice(31, 75)):
        y, state = ssd_chunked(
            x[:, part], dt[:, part], A_log, B[:, part], C[:, part], D, dt_bias, state, workspace=workspace
        )
        outputs.append(y.clone())
    torch.testing.assert_close(torch.cat(outputs, dim=1), whole)
    torch.testing.assert_close(state, final)


def test_float32_gradients_are_as_precise_as_the_reference():
    arguments = make_arguments(2, 256, heads=4, head_dim=16, groups=1, state_size=16)
    expected = with_gradients(ssd_sequential, arguments)
    single = [argument.detach().float().requires_grad_() for argument in arguments]
    for actual, reference in zip(with_gradients(ssd_chunked, single), expected, strict=True):
        assert relative_difference(actual.double(), reference) < 5e-6


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
@pytest.mark.parametrize("length", [1, 2, 63, 64, 65, 300])
def test_extreme_steps(dtype, length):
    arguments = make_arguments(1, length, requires_grad=False)
    arguments[1] = torch.linspace(-80, 80, length * 4, dtype=torch.float64).view(1, length, 4)
    arguments[1] = arguments[1][:, torch.randperm(length, generator=torch.Generator().manual_seed(1))]
    # What is compared is the arithmetic, so the reference gets the rounded inputs.
    rounded = [argument.to(dtype).requires_grad_() for argument in arguments]
    exact = [argument.detach().double().requires_grad_() for argument in rounded]
    expected = with_gradients(ssd_sequential, exact)
    tolerance = 1e-4 if dtype == torch.float32 else 10 * torch.finfo(dtype).eps
    underflow = 0.0 if dtype == torch.bfloat16 else torch.finfo(dtype).tiny
    for actual, reference in zip(with_gradients(ssd_chunked, rounded), expected, strict=True):
        assert actual.isfinite().all()
        allowed = tolerance * reference.norm() + underflow * reference.numel() ** 0.5
        assert (actual.double() - reference).norm() <= allowed


def test_extreme_steps_at_full_length():
    arguments = make_arguments(1, 50178, heads=2, head_dim=2, groups=1, state_size=2, dtype=torch.float32)
    with torch.no_grad():
        arguments[1].copy_(torch.linspace(-80, 80, 50178 * 2).view(1, 50178, 2))
    for tensor in with_gradients(ssd_chunked, arguments):
        assert tensor.isfinite().all()


def test_low_precision_parameters_are_raised():
    arguments = make_arguments(1, 65, requires_grad=False, dtype=torch.bfloat16)
    y, state = ssd_chunked(*arguments)
    expected, expected_state = ssd_sequential(*(argument.double() for argument in arguments))
    assert y.dtype == torch.bfloat16 and state.dtype == torch.float32
    assert relative_difference(y.double(), expected) < torch.finfo(torch.bfloat16).eps
    assert relative_difference(state.double(), expected_state) < 1e-5


def test_autocast_does_not_reach_the_scan():
    arguments = make_arguments(1, 65, dtype=torch.float32, requires_grad=False)
    expected, _ = ssd_chunked(*arguments)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        actual, _ = ssd_chunked(*arguments)
    torch.testing.assert_close(actual, expected, rtol=0, atol=0)


def test_bad_shapes_are_refused():
    arguments = make_arguments(1, 8, heads=4, groups=2, requires_grad=False)
    arguments[3] = arguments[4] = torch.zeros(1, 8, 3, 5, dtype=torch.float64)
    with pytest.raises(ValueError, match="4 heads and 3 groups"):
        ssd_chunked(*arguments)


MEMORY_CODE = """
import resource, sys, torch
from modeling_pixelvit import ops_ssd
from modeling_pixelvit.ops_ssd import ssd_chunked
length = int(sys.argv[1])
shapes = [(1, length, 8, 32), (1, length, 8), (8,), (1, length, 1, 32), (1, length, 1, 32), (8,), (8,)]
for gradients in (False, True):
    arguments = [torch.rand(shape).requires_grad_(gradients) for shape in shapes]
    y = torch.ones(shapes[0])
    grads = [argument.clone().detach() for argument in arguments] + [y.clone()] if gradients else []
    del y, grads
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    y, _ = ssd_chunked(*arguments)
    if gradients:
        y.backward(y.detach())
    print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024)
    del y, arguments
"""


def test_working_set_does_not_grow_with_the_sequence():
    """
    Beyond inputs, outputs and their gradients, whose memory the process has touched before; first without gradients.

    At this length an output takes 128 MB, and a state kept for each chunk would take 64 MB.
    """
    run = subprocess.run([sys.executable, "-c", MEMORY_CODE, "131072"], capture_output=True, text=True, check=True)
    megabytes = [float(line) for line in run.stdout.splitlines()]
    assert len(megabytes) == 2 and max(megabytes) < 48, f"{megabytes} MB beyond inputs and outputs"


def test_segments_are_freed_at_once(monkeypatch):
    """A cycle of references would keep every segment's tensors until the garbage collector happens to run."""
    made, alive = [], weakref.WeakSet()

    class Tracked(ops_ssd._Segment):
        def __init__(self, *arguments):
            super().__init__(*arguments)
            made.append(self.length)
            alive.add(self)

    monkeypatch.setattr(ops_ssd, "_Segment", Tracked)
    gc.disable()
    try:
        y, _ = ssd_chunked(*make_arguments(1, 40), chunk_size=8, matrices_per_segment=1)
        y.sum().backward()
        assert len(made) >= 10 and not alive
    finally:
        gc.enable()
