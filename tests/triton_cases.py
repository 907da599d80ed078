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

from modeling_pixelvit import ops_triton_check, ops_triton_conv1d, ops_triton_norm, ops_triton_ssd
from modeling_pixelvit.ops_conv1d import causal_conv1d_reference
from modeling_pixelvit.ops_norm import rms_norm_gated_reference
from modeling_pixelvit.ops_ssd import ssd_sequential
from modeling_pixelvit.ops_triton_base import INTERPRETED
from modeling_pixelvit.ops_triton_check import triton_differences
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


def with_gradients(function, arguments, weights):
    """Outputs, and the gradients of all arguments where the outputs have the gradients `weights`."""
    arguments = [t.detach().requires_grad_() for t in arguments]  # slices stay slices
    outputs = function(*arguments)
    outputs = [outputs] if isinstance(outputs, torch.Tensor) else outputs
    return [t.detach() for t in (*outputs, *torch.autograd.grad(outputs, arguments, weights))]


def output_gradients(function, arguments):
    with torch.no_grad():
        outputs = function(*arguments)
    outputs = [outputs] if isinstance(outputs, torch.Tensor) else outputs
    return [random(*output.shape, dtype=output.dtype, seed=1 + i) for i, output in enumerate(outputs)]


def check(function, reference, arguments):
    """Every output and every gradient against the reference in float64, which gets the same rounded numbers."""
    dtype = arguments[0].dtype
    weights = output_gradients(function, arguments)
    actual = with_gradients(function, arguments, weights)
    expected = with_gradients(reference, [t.double() for t in arguments], [t.double() for t in weights])
    for index, (one, other) in enumerate(zip(actual, expected, strict=True)):
        assert one.shape == other.shape and one.isfinite().all()
        difference = ((one.double() - other).norm() / other.norm().clamp(min=1e-300)).item()
        print(f"{dtype} {index}: {difference:.1e}")
        assert difference < TOLERANCES[dtype], f"output or gradient {index} is {difference:.1e} off"


# A length for each way of meeting a chunk of 16, 32 or 64 tokens.
SCANS = [(torch.float32, t) for t in (1, 15, 17, 33)] + [(t, n) for t in DTYPES[1:] for n in (1, 63, 64, 65, 129)]


@pytest.mark.parametrize(("dtype", "length"), SCANS)
def test_scan(dtype, length):
    check(ssd_triton, ssd_sequential, scan_arguments(2, length, dtype=dtype))


@pytest.mark.parametrize("dtype", DTYPES)
def test_scan_of_two_groups(dtype):
    check(ssd_triton, ssd_sequential, scan_arguments(1, 70, heads=4, head_dim=18, groups=2, dtype=dtype))


@pytest.mark.slow
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("length", [255, 257])
@pytest.mark.parametrize(("head_dim", "state_size"), [(64, 64), (32, 128)])
def test_long_scan(dtype, length, head_dim, state_size):
    check(ssd_triton, ssd_sequential, scan_arguments(2, length, 4, head_dim, 2, state_size, dtype=dtype))


def test_scan_without_initial_state():
    *arguments, state = scan_arguments(2, 20, dtype=torch.float32)
    expected = ssd_triton(*arguments, torch.zeros_like(state))
    for actual, other in zip(ssd_triton(*arguments), expected, strict=True):
        torch.testing.assert_close(actual, other, rtol=0, atol=0)


def test_scan_by_halves():
    *arguments, state = scan_arguments(1, 50, dtype=torch.float32)
    x, dt, A_log, B, C, D, dt_bias = arguments
    whole, last = ssd_triton(*arguments, state)
    parts = []
    for part in (slice(0, 21), slice(21, 50)):
        y, state = ssd_triton(x[:, part], dt[:, part], A_log, B[:, part], C[:, part], D, dt_bias, state)
        parts.append(y)
    torch.testing.assert_close(torch.cat(parts, dim=1), whole)
    torch.testing.assert_close(state, last)


@pytest.mark.parametrize("dtype", DTYPES)
def test_extreme_steps(dtype):
    arguments = scan_arguments(1, 65, dtype=dtype)
    steps = torch.linspace(-80, 80, 65 * 2, device=DEVICE).view(1, 65, 2)
    arguments[1] = steps[:, torch.randperm(65, generator=torch.Generator().manual_seed(1))].to(dtype)
    weights = output_gradients(ssd_triton, arguments)
    actual = with_gradients(ssd_triton, arguments, weights)
    expected = with_gradients(ssd_sequential, [t.double() for t in arguments], [t.double() for t in weights])
    for one, other in zip(actual, expected, strict=True):
        assert one.isfinite().all()
        allowed = max(1e-4, 10 * torch.finfo(dtype).eps) * other.norm() + torch.finfo(dtype).tiny * other.numel() ** 0.5
        assert (one.double() - other).norm() <= allowed


def test_scan_of_part_of_the_batch_at_a_time(monkeypatch):
    arguments = scan_arguments(3, 20, dtype=torch.float32)
    weights = output_gradients(ssd_triton, arguments)
    expected = with_gradients(ssd_triton, arguments, weights)
    monkeypatch.setattr(ops_triton_ssd, "STATES_IN_USE", 1)
    for one, other in zip(with_gradients(ssd_triton, arguments, weights), expected, strict=True):
        assert torch.equal(one, other)


@pytest.mark.parametrize(
    ("sizes", "message"),
    [({"length": 0}, "0 tokens"), ({"heads": 3, "groups": 2}, "3 heads"), ({"state_size": 200}, "200")],
)
def test_refused_sizes(sizes, message):
    with pytest.raises(ValueError, match=message):
        ssd_triton(*scan_arguments(1, **{"length": 4, **sizes}))


def convolution_arguments(batch, length, channels=70, kernel_size=4, dtype=torch.float64):
    """x, a slice, weight, bias, initial_state."""
    x = random(batch, length, channels + 3, dtype=dtype)[..., 2:-1]
    weight, bias = random(channels, 1, kernel_size, dtype=dtype), random(channels, dtype=dtype)
    return [x, weight, bias, random(batch, kernel_size - 1, channels, dtype=dtype)]


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(("length", "kernel_size"), [(1, 4), (2, 3), (3, 4), (61, 4), (64, 2), (130, 4)])
def test_convolution(dtype, length, kernel_size):
    arguments = convolution_arguments(2, length, kernel_size=kernel_size, dtype=dtype)
    check(causal_conv1d_triton, causal_conv1d_reference, arguments)
    check(causal_conv1d_triton, causal_conv1d_reference, arguments[:3])


def norm_op(y, z, weight):
    return rms_norm_gated_triton(y, z, weight, GROUPS, 1e-5)


def norm_reference(y, z, weight):
    return rms_norm_gated_reference(y, z, weight, GROUPS, 1e-5)


GROUPS = 2


def norm_arguments(batch, length, channels=48, dtype=torch.float64):
    """y, z, a slice, weight."""
    y, z = random(batch, length, channels, dtype=dtype), random(batch, length, channels + 7, dtype=dtype, seed=1)
    return [y, z[..., 3:-4], random(channels, dtype=dtype)]


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(("batch", "length"), [(1, 1), (2, 8), (3, 7)])
def test_norm(dtype, batch, length):
    check(norm_op, norm_reference, norm_arguments(batch, length, dtype=dtype))


OPS = {
    "scan": (ssd_triton, scan_arguments),
    "convolution": (causal_conv1d_triton, convolution_arguments),
    "norm": (norm_op, norm_arguments),
}


@pytest.mark.skipif(not INTERPRETED, reason="float64 products are for the interpreter")
@pytest.mark.parametrize("name", OPS)
def test_gradients_by_differences(name):
    function, arguments = OPS[name]
    arguments = [t.detach().requires_grad_() for t in arguments(2, 5)]
    assert torch.autograd.gradcheck(function, arguments, fast_mode=True)


@pytest.mark.parametrize("name", OPS)
def test_repetition_gives_the_same_bits(name):
    function, arguments = OPS[name]
    arguments = arguments(2, 37, dtype=DTYPES[-1])
    weights = output_gradients(function, arguments)
    first, second = (with_gradients(function, arguments, weights) for _ in range(2))
    for one, other in zip(first, second, strict=True):
        assert torch.equal(one, other)


@pytest.mark.parametrize(
    ("function", "arguments"),
    [(ssd_triton, scan_arguments(1, 3, dtype=torch.float32)), (causal_conv1d_triton, convolution_arguments(1, 3))],
)
@pytest.mark.parametrize("used", [0, 1])
def test_an_output_that_nothing_is_made_of(function, arguments, used):
    weights = output_gradients(function, arguments)
    weights[1 - used].zero_()
    expected = with_gradients(function, arguments, weights)[2:]
    arguments = [t.detach().requires_grad_() for t in arguments]
    output, weight = function(*arguments)[used], weights[used]
    for one, other in zip(torch.autograd.grad(output, arguments, weight), expected, strict=True):
        torch.testing.assert_close(one, other, rtol=0, atol=0)


def test_what_a_device_is_checked_by():
    sizes = {"length": 20, "heads": 2, "size": 16} if INTERPRETED else {}
    for dtype in DTYPES:
        differences = triton_differences(torch.device(DEVICE), dtype, **sizes)
        assert set(differences) == {"convolution", "scan", "norm"}
        assert all(difference < TOLERANCES[dtype] for difference in differences.values()), differences


def test_a_wrong_kernel_is_seen(monkeypatch):
    monkeypatch.setattr(ops_triton_check, "rms_norm_gated_triton", lambda y, z, weight, groups, eps: y + z + weight)
    differences = triton_differences(torch.device(DEVICE), torch.float32, length=5, heads=2, size=16)
    assert differences["norm"] > 0.1 > differences["scan"]


def flat(result):
    return [result] if isinstance(result, torch.Tensor) else list(result)


@pytest.mark.parametrize("name", OPS)
def test_compilers_see_one_op(name):
    function, arguments = OPS[name]
    arguments = [t.detach().requires_grad_() for t in arguments(2, 5, dtype=torch.float32)]
    weights = output_gradients(function, arguments)
    compiled = torch.compile(lambda *t: function(*t), fullgraph=True, backend="aot_eager")
    expected = with_gradients(function, arguments, weights)
    for one, other in zip(with_gradients(compiled, arguments, weights), expected, strict=True):
        torch.testing.assert_close(one, other, rtol=0, atol=0)

    class Module(torch.nn.Module):
        def forward(self, *tensors):
            return function(*tensors)

    exported = torch.export.export(Module(), tuple(t.detach() for t in arguments))
    called = [str(node.target) for node in exported.graph.nodes if "ops_triton" in str(node.target)]
    assert len(called) == 1
    for one, other in zip(flat(exported.module()(*arguments)), flat(function(*arguments)), strict=True):
        torch.testing.assert_close(one, other, rtol=0, atol=0)


@pytest.mark.parametrize(
    ("op", "arguments"),
    [
        (ops_triton_ssd._ssd, scan_arguments(2, 5, dtype=torch.float32)),
        (ops_triton_conv1d._causal_conv1d, convolution_arguments(2, 5, dtype=torch.float32)),
        (ops_triton_norm._rms_norm_gated, [*norm_arguments(2, 5, dtype=torch.float32), 2, 1e-5]),
    ],
)
def test_registration(op, arguments):
    arguments = [t.detach().requires_grad_() if isinstance(t, torch.Tensor) else t for t in arguments]
    torch.library.opcheck(op, arguments)
