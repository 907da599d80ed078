# Copyright 2026 The modeling_pixelvit team. All rights reserved.
# SPDX-License-Identifier: Apache-2.0
"""
The Triton kernels against their references in float64: run by `test_ops_triton.py` in a process of its own.

Triton is interpreted or not from its import on, so these tests have no place among those that may have imported it:
`TRITON_INTERPRET=1 python -m pytest tests/triton_cases.py` on a CPU, without the variable on a CUDA device.

bfloat16 is for devices: the interpreter gets its matrix products wrong (triton#11584).
"""

from functools import partial
from itertools import product

import pytest
import torch
import triton
from helpers import tiny_model
from packaging.version import Version
from torch.utils.checkpoint import checkpoint

from modeling_pixelvit import (
    AdventurerForImageClassification,
    ops_triton_check,
    ops_triton_conv1d,
    ops_triton_mixer,
    ops_triton_norm,
    ops_triton_rms_norm,
    ops_triton_ssd,
    ops_triton_swiglu,
)
from modeling_pixelvit.layers_scan_order import ScanOrder
from modeling_pixelvit.ops_conv1d import causal_conv1d_reference
from modeling_pixelvit.ops_norm import rms_norm_gated_reference
from modeling_pixelvit.ops_ssd import ssd_sequential
from modeling_pixelvit.ops_triton_base import INTERPRETED, unit
from modeling_pixelvit.ops_triton_check import (
    add_rms_norm,
    add_rms_norm_reference,
    mix_reference,
    rms_norm_reference,
    triton_differences,
)
from modeling_pixelvit.ops_triton_conv1d import causal_conv1d_triton
from modeling_pixelvit.ops_triton_mixer import mix_triton
from modeling_pixelvit.ops_triton_norm import rms_norm_gated_triton
from modeling_pixelvit.ops_triton_rms_norm import rms_norm_triton
from modeling_pixelvit.ops_triton_ssd import ssd_triton
from modeling_pixelvit.ops_triton_swiglu import swiglu_triton


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


def check(function, reference, arguments, ops=1, scale=1, cancelling=()):
    """
    Every output and every gradient against the reference in float64, which gets the same rounded numbers, for gradients
    of outputs of about `scale`; `ops` that are done one after the other may each add to the difference. Where rounding
    is enlarged, as by a norm of few channels that all are small, the reference in the kernels' own dtype is as far off,
    and they may be thrice that; and in half precision thrice as far off may be what has an index in `cancelling`.
    """
    dtype = arguments[0].dtype
    weights = [scale * weight for weight in output_gradients(function, arguments)]
    actual = with_gradients(function, arguments, weights)
    expected = with_gradients(reference, [t.double() for t in arguments], [t.double() for t in weights])
    for index, (one, other) in enumerate(zip(actual, expected, strict=True)):
        assert one.shape == other.shape and one.isfinite().all()
        difference, allowed = distance(one, other), ops * TOLERANCES[dtype]
        if index in cancelling and dtype.itemsize == 2:
            allowed *= 3
        if difference >= allowed:
            allowed = 3 * distance(with_gradients(reference, arguments, weights)[index], other)
        print(f"{dtype} {index}: {difference:.1e}")
        assert difference < allowed, f"output or gradient {index} is {difference:.1e} off"


def distance(one, other):
    return ((one.double() - other).norm() / other.norm().clamp(min=1e-300)).item()


# The gradients of A_log and dt_bias, after two outputs: a head's is one sum over all tokens, of terms that cancel, so
# that what factors are rounded by is more of what is left. Emulated, bfloat16 is up to 1.2e-2 off, and float16 by TF32
# products whose factors are cut, as a device may do it, 1.5e-3.
BY_HEAD = (4, 8)
# Lengths about those of chunks and blocks. The default suite has each of them where there are such, with what else
# varies in turn, and few tokens where each is worked on alone; the slow tests have all of them.
LENGTHS = [1, 63, 64, 65, 255, 257, 1025]
HALF = DTYPES[1:]


# In float32 the longest has 65 chunks, one like the other.
@pytest.mark.parametrize(("length", "dtype"), [*product(LENGTHS[:-1], DTYPES), (LENGTHS[-1], torch.float16)])
def test_scan(length, dtype):
    """Of one group or two in turn; short ones of two images, in which heads of 18 go into two blocks."""
    groups = 1 + (LENGTHS.index(length) + DTYPES.index(dtype)) % 2
    batch, head_dim = (2, 5 if groups == 1 else 18) if length < 65 else (1, 5)
    arguments = scan_arguments(batch, length, 2, head_dim, groups, dtype=dtype)
    check(ssd_triton, ssd_sequential, arguments, cancelling=BY_HEAD)


@pytest.mark.slow
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("groups", [1, 2])
@pytest.mark.parametrize("length", LENGTHS)
def test_scan_of_any_length(dtype, length, groups):
    # A head's gradients are sums over tokens, of which more may leave a small part of what they add up.
    arguments = scan_arguments(2, length, 2, 16, groups, 16, dtype=dtype)
    check(ssd_triton, ssd_sequential, arguments, ops=1 + length // 256, cancelling=BY_HEAD)


@pytest.mark.slow
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(("head_dim", "state_size"), [(64, 64), (32, 128)])
def test_wide_scan(dtype, head_dim, state_size):
    arguments = scan_arguments(2, 255, 4, head_dim, 2, state_size, dtype=dtype)
    check(ssd_triton, ssd_sequential, arguments, cancelling=BY_HEAD)


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


def test_scores_and_states_beyond_the_range_of_float16():
    """Where what is read and written, forward and backward, is within."""
    x, dt, A_log, B, C, D, dt_bias, state = scan_arguments(1, 65, state_size=64, dtype=torch.float16)
    maps = [80 * torch.sigmoid(t) for t in (B, C)]
    assert (maps[0].float() * maps[1].float()).sum(-1).min() > 65504
    arguments = [x / 128, dt, A_log, *maps, D, dt_bias, state]
    check(ssd_triton, ssd_sequential, arguments, scale=1 / 128, cancelling=BY_HEAD)
    large = 2e5 * state.float()
    arguments = [x, dt, A_log, B, C / 1024, D, dt_bias, large]
    check(ssd_triton, ssd_sequential, arguments, scale=1 / 128, cancelling=BY_HEAD)


def test_scan_of_part_of_the_batch_at_a_time(monkeypatch):
    arguments = scan_arguments(3, 5, dtype=torch.float32)
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


def test_no_group_is_refused():
    x, dt, A_log, B, C, D, dt_bias, state = scan_arguments(1, 4, dtype=torch.float32)
    with pytest.raises(ValueError, match="0 groups"):
        ssd_triton(x, dt, A_log, B[:, :, :0], C[:, :, :0], D, dt_bias, state)


def convolution_arguments(batch, length, channels=70, kernel_size=4, dtype=torch.float64):
    """x, a slice, weight, bias, initial_state."""
    x = random(batch, length, channels + 3, dtype=dtype)[..., 2:-1]
    weight, bias = random(channels, 1, kernel_size, dtype=dtype), random(channels, dtype=dtype)
    return [x, weight, bias, random(batch, kernel_size - 1, channels, dtype=dtype)]


@pytest.mark.parametrize("length", [2, *LENGTHS])
def test_convolution(length):
    """Dtypes and kernel sizes in turn; the short ones without a state, too."""
    turn = [2, *LENGTHS].index(length)
    dtype, kernel_size = DTYPES[turn % len(DTYPES)], (3, 4, 2)[turn % 3]
    batch, channels = (2, 70) if length < 65 else (1, 24)
    arguments = convolution_arguments(batch, length, channels, kernel_size, dtype)
    check(causal_conv1d_triton, causal_conv1d_reference, arguments)
    if length < 65:
        check(causal_conv1d_triton, causal_conv1d_reference, arguments[:3])


@pytest.mark.slow
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("length", LENGTHS)
def test_convolution_of_any_length(dtype, length):
    check(causal_conv1d_triton, causal_conv1d_reference, convolution_arguments(2, length, 24, dtype=dtype))


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
@pytest.mark.parametrize(("batch", "length"), [(1, 1), (3, 7)])
def test_norm(dtype, batch, length):
    check(norm_op, norm_reference, norm_arguments(batch, length, dtype=dtype))


@pytest.mark.slow
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("length", LENGTHS)
def test_norm_of_any_length(dtype, length):
    check(norm_op, norm_reference, norm_arguments(2, length, 24, dtype=dtype))


def mixer_arguments(batch, length, heads=2, head_dim=5, groups=1, state_size=6, dtype=torch.float64):
    """projected, conv_weight, conv_bias, A_log, D, dt_bias, norm_weight, conv_state, scan_state."""
    inner = heads * head_dim
    channels = inner + 2 * groups * state_size
    projected = random(batch, length, inner + channels + heads, dtype=dtype)
    by_head = random(3, heads, dtype=dtype)
    return [
        projected,
        random(channels, 1, 4, dtype=dtype),
        random(channels, dtype=dtype),
        *by_head,
        random(inner, dtype=dtype, seed=1),
        random(batch, 3, channels, dtype=dtype),
        random(batch, heads, head_dim, state_size, dtype=dtype),
    ]


def scan_place(name, batch, length):
    """The places of tokens in each order; by columns those of two columns of patches and a class token."""
    if name == "as they stand":
        return None
    if name == "by image":
        generator = torch.Generator().manual_seed(0)
        return torch.stack([torch.randperm(length, generator=generator) for _ in range(batch)]).to(DEVICE)
    if length == 1:
        return torch.zeros(1, dtype=torch.int32, device=DEVICE)  # the class token alone, which makes no columns
    order = ScanOrder("columns" in name, "backwards" in name)
    columns = 2 if length % 2 else 1
    return order.places(torch.empty(batch, length, 1, device=DEVICE), ((length - 1) // columns, columns))


ORDERS = ["as they stand", "backwards", "columns", "columns backwards", "by image"]


def check_mixer(order, batch, length, groups=1, **sizes):
    options = {"order": scan_place(order, batch, length), "groups": groups, "eps": 1e-5}
    arguments = mixer_arguments(batch, length, groups=groups, **sizes)
    # The convolution, three products of the scan and the norm.
    check(partial(mix_triton, **options), partial(mix_reference, **options), arguments, ops=5)


# Every order in either dtype, with lengths and groups in turn.
QUICK_MIXERS = [
    *((1, 2, "backwards", torch.float32), (64, 1, "backwards", torch.float16)),
    *((19, 1, "columns", torch.float32), (63, 2, "columns", torch.float16)),
    *((65, 1, "columns backwards", torch.float32), (9, 2, "columns backwards", torch.float16)),
    *((33, 2, "as they stand", torch.float32), (17, 1, "as they stand", torch.float16)),
    *((5, 1, "by image", torch.float32), (18, 2, "by image", torch.float16)),
]


@pytest.mark.parametrize(("length", "groups", "order", "dtype"), QUICK_MIXERS)
def test_mixer(length, groups, order, dtype):
    check_mixer(order, 2 if length < 20 else 1, length, groups, dtype=dtype)


@pytest.mark.parametrize("dtype", HALF)
def test_mixer_whose_rows_are_multiples_of_eight(dtype):
    sizes = {"heads": 8, "head_dim": 2, "groups": 2, "state_size": 8}
    projected, *_ = mixer_arguments(1, 9, **sizes)
    assert unit(projected[..., 8:]) == 8 > unit(projected[..., 8:, None])
    check_mixer("columns backwards", 1, 9, **sizes, dtype=dtype)


# Every length with every order, the number of groups and the dtype in turn.
MIXERS = [(t, o, DTYPES[i % len(DTYPES)], 1 + i // 2 % 2) for i, (t, o) in enumerate(product(LENGTHS, ORDERS))]


@pytest.mark.slow
@pytest.mark.parametrize(("length", "order", "dtype", "groups"), MIXERS)
def test_mixer_of_any_length(length, order, dtype, groups):
    # A norm of at least 32 channels: of eight a token's may all be small, and its rounding most of the difference.
    check_mixer(order, 2, length, heads=4, head_dim=16, groups=groups, state_size=8, dtype=dtype)


def test_offsets_beyond_32_bits():
    """Sequences and tokens that stand 2^31 and 2^29 elements from each other, in memory that is hardly used."""
    together, *others = mixer_arguments(2, 3, dtype=torch.float16)
    apart = torch.empty(2**31 + 2**30 + together.shape[2], dtype=torch.float16, device=DEVICE)
    apart = apart.as_strided(together.shape, (2**31, 2**29, 1)).copy_(together)
    op = partial(mix_triton, order=scan_place("backwards", 2, 3), groups=1, eps=1e-5)
    weights = output_gradients(op, [together, *others])
    expected = with_gradients(op, [together, *others], weights)
    for one, other in zip(with_gradients(op, [apart, *others], weights), expected, strict=True):
        assert torch.equal(one, other)


def test_mixer_in_parts_of_the_batch(monkeypatch):
    options = {"order": scan_place("by image", 3, 5), "groups": 1, "eps": 1e-5}
    arguments, op = mixer_arguments(3, 5, dtype=torch.float32), partial(mix_triton, **options)
    weights = output_gradients(op, arguments)
    expected = with_gradients(op, arguments, weights)
    monkeypatch.setattr(ops_triton_ssd, "STATES_IN_USE", 1)
    for one, other in zip(with_gradients(op, arguments, weights), expected, strict=True):
        assert torch.equal(one, other)


def rms_norm_op(h, weight):
    return rms_norm_triton(h, weight, 1e-5)


def add_rms_norm_op(h, weight, branch):
    return add_rms_norm(h, weight, branch, SCALE[: len(h)], eps=1e-5)


def swiglu_reference(gate, up):
    return torch.nn.functional.silu(gate) * up


SCALE = torch.tensor([0.0, 1.25, 0.5], device=DEVICE)


def tokens(count, batch, length, channels=50, dtype=torch.float64):
    """Slices of one tensor, and in their midst the weight of a norm."""
    first, *others = random(batch, length, count * channels + 1, dtype=dtype)[..., 1:].chunk(count, dim=-1)
    return [first, random(channels, dtype=dtype), *others]


def gate_arguments(batch, length, channels=50, dtype=torch.float64):
    gate, _, up = tokens(2, batch, length, channels, dtype)
    return [gate, up]


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(("batch", "length"), [(1, 1), (3, 7)])
def test_what_is_between_the_products(dtype, batch, length):
    check(rms_norm_op, partial(rms_norm_reference, eps=1e-5), tokens(1, batch, length, dtype=dtype))
    for scale in (None, SCALE[:batch]):
        options = {"scale": scale, "eps": 1e-5}
        arguments = tokens(2, batch, length, dtype=dtype)
        check(partial(add_rms_norm, **options), partial(add_rms_norm_reference, **options), arguments)
    check(swiglu_triton, swiglu_reference, gate_arguments(batch, length, dtype=dtype))


@pytest.mark.slow
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("length", LENGTHS)
def test_what_is_between_the_products_at_any_length(dtype, length):
    reference = partial(add_rms_norm_reference, scale=SCALE[:2], eps=1e-5)
    check(add_rms_norm_op, reference, tokens(2, 2, length, 40, dtype))
    check(rms_norm_op, partial(rms_norm_reference, eps=1e-5), tokens(1, 2, length, 40, dtype))
    check(swiglu_triton, swiglu_reference, gate_arguments(2, length, 40, dtype))


def test_a_branch_in_half_precision():
    """As under autocast: the sum is as wide as the stream, the norm as narrow as the branch."""
    h, weight, branch = tokens(2, 2, 3, dtype=torch.float32)
    arguments = [h.detach().requires_grad_(), weight.requires_grad_(), branch.half().requires_grad_()]
    with torch.autocast(DEVICE, dtype=torch.float16):
        total, normed = add_rms_norm(*arguments, eps=1e-5)
    assert (total.dtype, normed.dtype) == (torch.float32, torch.float16)
    expected = add_rms_norm_reference(*(t.double() for t in arguments), eps=1e-5)
    for one, other in zip((total, normed), expected, strict=True):
        torch.testing.assert_close(one.double(), other, rtol=1e-3, atol=1e-3)
    actual = torch.autograd.grad(total.sum() + normed.float().square().sum(), arguments)
    expected = torch.autograd.grad(expected[0].sum() + expected[1].square().sum(), arguments)
    for one, other, argument in zip(actual, expected, arguments, strict=True):
        assert one.dtype == argument.dtype
        torch.testing.assert_close(one.double(), other.double(), rtol=5e-3, atol=5e-3)


def tiny_models(**fields):
    """A model on the torch path, and the same on the Triton kernels; four blocks, so all scan orders."""
    fields = {"scan_order": "rows_and_columns", "state_size": 16, "num_hidden_layers": 4, **fields}
    models = [tiny_model(AdventurerForImageClassification, **fields).to(DEVICE) for _ in range(2)]
    for model, name in zip(models, ("torch", "triton"), strict=True):
        model.set_mixer_implementation(name)
    return models


def logits_and_gradients(model, pixels, seed=0):
    torch.manual_seed(seed)
    output = model(pixels, labels=torch.arange(len(pixels), device=DEVICE))
    return [output.logits.detach(), *torch.autograd.grad(output.loss, list(model.parameters()))]


PIXELS = torch.linspace(-1, 1, 384, device=DEVICE).sin().view(2, 3, 8, 8)


def test_a_model_on_the_kernels():
    expected, actual = (logits_and_gradients(model, PIXELS[:1]) for model in tiny_models(patch_size=4))
    for one, other in zip(actual, expected, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-3, atol=1e-5)


@pytest.mark.slow
def test_training_on_the_kernels():
    """Patches and branches are left out of the same images."""
    models = tiny_models(patch_dropout=0.4, drop_path_rate=0.5)
    expected, actual = (logits_and_gradients(model.train(), PIXELS) for model in models)
    for one, other in zip(actual, expected, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-3, atol=1e-5)


def test_kept_states_in_bfloat16(monkeypatch):
    """What the backward pass does for inputs in bfloat16, whose products the interpreter gets wrong."""
    arguments = scan_arguments(1, 33, dtype=torch.float32)
    weights = output_gradients(ssd_triton, arguments)
    expected = with_gradients(ssd_triton, arguments, weights)
    monkeypatch.setattr(ops_triton_ssd, "_kept_dtype", lambda dtype: torch.bfloat16)
    actual = with_gradients(ssd_triton, arguments, weights)
    differences = [((one - other).norm() / other.norm()).item() for one, other in zip(actual, expected, strict=True)]
    assert 1e-5 < max(differences) < 2**-8, differences


def test_parameters_are_there_while_their_own_layer_runs():
    """Which is when ZeRO-3 gathers them, layer by layer."""
    _, model = tiny_models(num_hidden_layers=1, patch_size=4)

    def gather(module, arguments):
        for parameter, data in whole[module]:
            parameter.data = data

    def release(module, *_):
        for parameter, _ in whole[module]:
            parameter.data = parameter.data.new_empty(0)

    with torch.no_grad():
        expected = model(PIXELS).logits
        whole = {module: [(p, p.data) for p in module.parameters(recurse=False)] for module in model.modules()}
        for module in model.modules():
            module.register_forward_pre_hook(gather)
            module.register_forward_hook(release)
            release(module)
        torch.testing.assert_close(model(PIXELS).logits, expected, rtol=0, atol=0)


def test_a_compiled_model_is_one_graph():
    _, model = tiny_models(num_hidden_layers=2, scan_order="rows", patch_size=4)
    with torch.no_grad():
        expected = model(PIXELS).logits
        compiled = torch.compile(model, fullgraph=True, backend="eager")
        torch.testing.assert_close(compiled(PIXELS).logits, expected, rtol=0, atol=0)


@pytest.mark.slow
def test_a_compiled_training_step():
    """One graph forward and one backward, of ops that are traced by fake tensors."""
    _, model = tiny_models(num_hidden_layers=2, patch_size=4, drop_path_rate=0.2)
    expected = logits_and_gradients(model.train(), PIXELS)
    compiled = torch.compile(model, fullgraph=True, backend="aot_eager")
    compiled.parameters = model.parameters
    for one, other in zip(logits_and_gradients(compiled, PIXELS), expected, strict=True):
        torch.testing.assert_close(one, other)


OPS = {
    "scan": (ssd_triton, scan_arguments),
    "convolution": (causal_conv1d_triton, convolution_arguments),
    "norm": (norm_op, norm_arguments),
    "mixer": (
        lambda *tensors: mix_triton(*tensors, torch.arange(tensors[0].shape[1]).flip(0).to(DEVICE), 1, 1e-5),
        mixer_arguments,
    ),
    "norm and mean": (rms_norm_op, partial(tokens, 1)),
    "sum and norm": (add_rms_norm_op, partial(tokens, 2)),
    "gate": (swiglu_triton, gate_arguments),
}


@pytest.mark.skipif(not INTERPRETED, reason="float64 products are for the interpreter")
@pytest.mark.parametrize("name", OPS)
def test_gradients_by_differences(name):
    if name in ("scan", "mixer") and Version(triton.__version__) < Version("3.6"):
        pytest.skip("Triton 3.4 has no products of float64")
    function, arguments = OPS[name]
    arguments = [t.detach().requires_grad_() for t in arguments(1, 3)]
    assert torch.autograd.gradcheck(function, arguments, fast_mode=True)


@pytest.mark.parametrize("name", OPS)
def test_repetition_gives_the_same_bits(name):
    function, arguments = OPS[name]
    arguments = arguments(1, 18, dtype=DTYPES[0])
    weights = output_gradients(function, arguments)
    first, second = (with_gradients(function, arguments, weights) for _ in range(2))
    for one, other in zip(first, second, strict=True):
        assert torch.equal(one, other)


@pytest.mark.parametrize("name", OPS)
def test_an_empty_batch(name):
    function, arguments = OPS[name]
    arguments = arguments(1, 5, dtype=torch.float32)
    weights = output_gradients(function, arguments)
    # Weights of layers stay as they are.
    empty = [t[:0] if t.dim() > 2 and len(t) == 1 else t for t in arguments]
    results = with_gradients(function, empty, [weight[:0] for weight in weights])
    assert [t.shape for t in results[len(weights) :]] == [t.shape for t in empty]
    assert not any(t.any() for t in results)


@pytest.mark.parametrize("name", OPS)
def test_forward_mode_is_refused(name):
    """Tangents would be lost, and zeros returned for them."""
    function, arguments = OPS[name]
    arguments = tuple(arguments(1, 3, dtype=torch.float32))
    message = "setup_context" if name == "norm and mean" else "has no forward-mode derivative"
    with pytest.raises(RuntimeError, match=message):
        torch.func.jvp(function, arguments, arguments)


def test_places_in_every_other_element():
    arguments = mixer_arguments(2, 9, dtype=torch.float32)
    for order in (scan_place("backwards", 2, 9), scan_place("by image", 2, 9).long()):
        apart = torch.stack([order, torch.zeros_like(order)], dim=-1)[..., 0]
        assert apart.stride(-1) == 2
        mixed = [mix_triton(*arguments, places, 1, 1e-5) for places in (apart, order)]
        assert torch.equal(*mixed)


def test_more_sequences_than_a_grid_has_rows(monkeypatch):
    """Of CUDA's three dimensions of a grid the second and third end at 65,535, whatever the batch."""
    grids = []

    def launch(kernel, grid, *arguments, **options):
        grids.append(grid)

    for module in (ops_triton_ssd, ops_triton_conv1d, ops_triton_norm, ops_triton_rms_norm, ops_triton_swiglu):
        monkeypatch.setattr(module, "launch", launch)
    for function, arguments in OPS.values():
        arguments = arguments(1, 2, dtype=torch.float32)
        many = [t.expand(2**16, *t.shape[1:]) if t.dim() > 2 and len(t) == 1 else t for t in arguments]
        with_gradients(function, many, [random(1, dtype=t.dtype).expand(t.shape) for t in flat(function(*many))])
    assert len(grids) > 20 and all(size < 2**16 for grid in grids for size in grid[1:])


@pytest.mark.parametrize("name", OPS)
def test_checkpointing(name):
    """The way transformers does it, by which a backward pass may ask for its tensors once."""
    function, arguments = OPS[name]
    arguments = arguments(1, 5, dtype=DTYPES[0])
    weights = output_gradients(function, arguments)
    expected = with_gradients(function, arguments, weights)
    actual = with_gradients(partial(checkpoint, function, use_reentrant=False), arguments, weights)
    for one, other in zip(actual, expected, strict=True):
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
    sizes = {"length": 5, "heads": 2, "size": 16, "programs": 5} if INTERPRETED else {}
    for dtype in HALF:
        differences = triton_differences(torch.device(DEVICE), dtype, **sizes)
        names = {"convolution", "scan", "gated norm", "mixer", "norm", "norm of a sum", "gate"}
        assert {*names, "scan of many", "mixer of many"} == set(differences)
        assert all(difference < 5 * TOLERANCES[dtype] for difference in differences.values()), differences


def test_a_device_is_checked_by_every_variant(monkeypatch):
    """Those of the kernels that are launched, which here are not carried out."""
    launched = set()

    def launch(kernel, *arguments, **options):
        launched.add((kernel.fn.__name__, options.get("UNIT"), options.get("BLOCK_P")))

    for module in (ops_triton_ssd, ops_triton_conv1d, ops_triton_norm):
        monkeypatch.setattr(module, "launch", launch)
    triton_differences(torch.device(DEVICE), torch.float16, length=2)
    for name in ("outputs_kernel", "states_kernel"):
        assert {columns for kernel, _, columns in launched if kernel == name} == {16, 64}
    for name in ("_forward_kernel", "_backward_kernel"):
        assert {unit for kernel, unit, _ in launched if kernel == name} == {1, 8}


@pytest.mark.slow
def test_a_wrong_kernel_is_seen(monkeypatch):
    monkeypatch.setattr(ops_triton_check, "rms_norm_gated_triton", lambda y, z, weight, groups, eps: y + z + weight)
    differences = triton_differences(torch.device(DEVICE), torch.float32, length=2, heads=2, size=16, programs=1)
    assert differences["gated norm"] > 0.1 > differences["scan"]


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
    called = [str(node.target) for node in exported.graph.nodes if str(node.target).startswith("modeling_pixelvit.")]
    assert len(called) == 1
    for one, other in zip(flat(exported.module()(*arguments)), flat(function(*arguments)), strict=True):
        torch.testing.assert_close(one, other, rtol=0, atol=0)


@pytest.mark.parametrize(
    ("op", "arguments"),
    [
        (ops_triton_ssd._ssd, scan_arguments(2, 5, dtype=torch.float32)),
        (ops_triton_conv1d._causal_conv1d, convolution_arguments(2, 5, dtype=torch.float32)),
        (ops_triton_norm._rms_norm_gated, [*norm_arguments(2, 5, dtype=torch.float32), 2, 1e-5]),
        (
            ops_triton_mixer._mix,
            [*mixer_arguments(2, 5, dtype=torch.float32), torch.arange(5, device=DEVICE).flip(0), 1, 1e-5],
        ),
        (
            ops_triton_rms_norm._add_rms_norm,
            [*random(2, 2, 3, 8, dtype=torch.float32), None, torch.ones(8, device=DEVICE), 1e-5, torch.float32],
        ),
        (ops_triton_swiglu._swiglu, gate_arguments(1, 3, dtype=torch.float32)),
    ],
)
def test_registration(op, arguments):
    is_real = [isinstance(t, torch.Tensor) and t.is_floating_point() for t in arguments]
    arguments = [t.detach().requires_grad_() if real else t for t, real in zip(arguments, is_real, strict=True)]
    torch.library.opcheck(op, arguments)
