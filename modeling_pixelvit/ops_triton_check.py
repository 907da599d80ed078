# Copyright 2026 The modeling_pixelvit team. All rights reserved.
# SPDX-License-Identifier: Apache-2.0
"""
Whether the Triton kernels can be trusted on a device: a small case of each, forward and backward, against its
reference in float64, at their first use there.
"""

import os
import shutil
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import cache, partial

import torch
from torch.nn import functional as F

from .ops_conv1d import causal_conv1d_reference
from .ops_norm import rms_norm_gated_reference
from .ops_ssd import ssd_sequential
from .ops_triton_base import IMPORT_ERROR, INTERPRETED, uses_tf32
from .ops_triton_conv1d import causal_conv1d_triton
from .ops_triton_mixer import mix_triton
from .ops_triton_norm import rms_norm_gated_triton
from .ops_triton_rms_norm import add_rms_norm_triton, rms_norm_triton
from .ops_triton_ssd import ENOUGH_PROGRAMS, LARGEST, ssd_triton
from .ops_triton_swiglu import swiglu_triton


# Norm of a difference over the norm of what is expected, beyond which kernels are wrong and not only rounded. In
# float32 products may have the precision of TF32, if torch's may.
LIMITS = {torch.float32: 1e-3, torch.float16: 1e-2, torch.bfloat16: 5e-2}
TF32_LIMIT = 1e-2


def load_triton_ops() -> tuple[tuple[Callable, ...], tuple[Callable, ...]]:
    """
    The scan, the convolution and the gated norm, with the signatures of `ops_ssd.ssd_chunked` (without
    `matrices_per_segment`), `ops_conv1d.causal_conv1d` and `ops_norm.rms_norm_gated`; and the ops of a block: the mixer
    between its projections, RMSNorm, the same of a sum, and the MLP's gate.
    """
    mixer_ops = (ssd_triton, causal_conv1d_triton, rms_norm_gated_triton)
    return mixer_ops, (mix_triton, rms_norm_triton, add_rms_norm_triton, swiglu_triton)


def find_c_compiler() -> str | None:
    """What Triton builds its launchers with: `CC`, or gcc or clang of the path; None if there is none."""
    return os.environ.get("CC") or shutil.which("gcc") or shutil.which("clang")


def why_not_triton(device: torch.device, dtype: torch.dtype, state_shape: tuple[int, int]) -> str:
    """
    Why the kernels are not for tensors on `device`, or an empty string. A device's first call for a dtype runs them,
    which takes some seconds, and remembers the answer.

    Args:
        state_shape: The scan's head dimension and state size.
    """
    if IMPORT_ERROR is not None:
        return f"Triton cannot be imported, {type(IMPORT_ERROR).__name__}: {IMPORT_ERROR}"
    if INTERPRETED and dtype == torch.bfloat16:
        return "Triton's interpreter gets products in bfloat16 wrong"
    if not INTERPRETED and dtype not in LIMITS:
        return f"they are for float32, float16 and bfloat16, not for {dtype}"
    if max(state_shape) > LARGEST:
        return f"head dimension and state size are {state_shape}, and {LARGEST} is the most that they hold"
    # What is interpreted is there to be tested itself.
    if INTERPRETED:
        return ""
    try:
        return _fault(device, dtype)
    except Exception as error:  # of a moment, as memory that others have, so it is not remembered
        return f"on {device} in {dtype} they could not be tried, {type(error).__name__}: {error}"


@cache
def _fault(device: torch.device, dtype: torch.dtype) -> str:
    """
    What is wrong with the kernels on a device, or an empty string.

    Raises:
        Exception: where there is no memory to tell.
    """
    # A thread of its own knows nothing of the modes that this one may be in: tracing, fake tensors, autocast, no_grad.
    with ThreadPoolExecutor(1) as thread:
        try:
            differences = thread.submit(triton_differences, device, dtype).result()
        except Exception as error:
            if "out of memory" in str(error):
                raise
            if find_c_compiler() is None and "C compiler" in str(error):
                return "there is no C compiler, with which Triton builds what launches them; install gcc or clang"
            return f"on {device} in {dtype} they failed with {type(error).__name__}: {error}"
    limit = LIMITS[dtype]
    if dtype == torch.float32 and uses_tf32():
        limit = TF32_LIMIT
    wrong = [f"{name} by {difference:.1e}" for name, difference in differences.items() if not difference <= limit]
    if wrong:
        return f"on {device} in {dtype} they differ from the reference, {', '.join(wrong)} of its norm"
    return ""


def triton_differences(
    device: torch.device,
    dtype: torch.dtype,
    length: int = 130,
    heads: int = 8,
    size: int = 64,
    programs: int = ENOUGH_PROGRAMS,
) -> dict[str, float]:
    """
    Of each op's outputs and gradients the greatest norm of a difference from the reference in float64, over the norm of
    what is expected. Kernels that are compiled in two ways run in both: the scan's with narrow columns and with wide
    ones, which many programs take, and those that read rows of a projection with rows of any length, in ops of their
    own, and of a multiple of eight, in the mixer.

    Args:
        length: Tokens of each of two sequences.
        heads: Heads, in two groups; a multiple of eight.
        size: Head dimension and state size.
        programs: What are many.
    """
    generator = torch.Generator().manual_seed(0)

    def random(*shape):
        return torch.randn(shape, generator=generator, dtype=torch.float64).to(device, dtype)

    groups, inner, states = 2, heads * size, 2 * size
    channels = inner + 2 * states
    projected, tokens = random(2, length, inner + channels + heads), random(3, 2, length, inner)
    z, convolved, dt, _ = random(2, length, inner + channels + heads + 1).split([inner, channels, heads, 1], dim=-1)
    x, B, C = (t.unflatten(-1, (-1, size)) for t in convolved.split([inner, states, states], dim=-1))
    by_head, weight = random(3, heads), random(inner)
    taps = (random(channels, 1, 4), random(channels))
    before = (random(2, 3, channels), random(2, heads, size, size))
    order = torch.randperm(length, generator=generator).to(device)
    norm = {"groups": groups, "eps": 1e-5}
    copies = -(-programs // (2 * heads))
    scanned = [x, dt, by_head[0], B / 8, C, *by_head[1:], before[1]]
    mixed, options = [projected / 2, *taps, *by_head, weight, *before], {"order": order, **norm}
    cases = {
        "convolution": (causal_conv1d_triton, causal_conv1d_reference, [convolved, *taps, before[0]], {}),
        "scan": (ssd_triton, ssd_sequential, scanned, {}),
        "scan of many": (partial(_of_many, ssd_triton, copies), ssd_sequential, scanned, {}),
        "gated norm": (rms_norm_gated_triton, rms_norm_gated_reference, [x.flatten(-2), z, weight], norm),
        "mixer": (mix_triton, mix_reference, mixed, options),
        "mixer of many": (partial(_of_many, mix_triton, copies), mix_reference, mixed, options),
        "norm": (rms_norm_triton, rms_norm_reference, [tokens[0], weight], {"eps": 1e-5}),
        "norm of a sum": (add_rms_norm, add_rms_norm_reference, [tokens[0], weight, tokens[1]], {"eps": 1e-5}),
        "gate": (swiglu_triton, lambda gate, up: F.silu(gate) * up, [tokens[0], tokens[1]], {}),
    }
    return {name: _difference(*case) for name, case in cases.items()}


def mix_reference(
    projected, conv_weight, conv_bias, A_log, D, dt_bias, norm_weight, conv_state, scan_state, order, groups, eps
):
    """`ops_triton_mixer.mix_triton` by the references of its parts, in any dtype."""
    inner, heads = norm_weight.shape[0], A_log.shape[0]
    if order is not None:
        order = order.long().expand(projected.shape[0], -1)[..., None]
    ordered = projected if order is None else projected.take_along_dim(order, dim=1)
    z, convolved, dt = ordered.split([inner, conv_weight.shape[0], heads], dim=-1)
    convolved, _ = causal_conv1d_reference(convolved, conv_weight, conv_bias, conv_state)
    states = (conv_weight.shape[0] - inner) // 2
    x, B, C = convolved.split([inner, states, states], dim=-1)
    x, B, C = x.unflatten(-1, (heads, -1)), B.unflatten(-1, (groups, -1)), C.unflatten(-1, (groups, -1))
    y, _ = ssd_sequential(x, dt, A_log, B, C, D, dt_bias, scan_state)
    output = rms_norm_gated_reference(y.flatten(-2), z, norm_weight, groups, eps)
    return output if order is None else output.take_along_dim(order.argsort(dim=1), dim=1)


def rms_norm_reference(h, weight, eps):
    """`ops_triton_rms_norm.rms_norm_triton` by torch."""
    normed = F.rms_norm(h, weight.shape, weight, eps)
    return h.view_as(h), normed, normed.mean(1, keepdim=True)


def add_rms_norm_reference(h, weight, branch, scale=None, *, eps):
    """`ops_triton_rms_norm.add_rms_norm_triton` by torch."""
    total = h + branch if scale is None else h + scale[:, None, None] * branch
    return total, F.rms_norm(total, weight.shape, weight, eps)


def add_rms_norm(h, weight, branch, scale=None, *, eps):
    """`ops_triton_rms_norm.add_rms_norm_triton`, tensors first."""
    return add_rms_norm_triton(h, weight, eps, branch, scale)


def _of_many(op: Callable, copies: int, *tensors: torch.Tensor, **options):
    """`op` of copies of two sequences, side by side; outputs of the first two."""
    # Of a batch are those of three dimensions or more, but for the weight of the convolution.
    repeated = (t.repeat(copies, *[1] * (t.dim() - 1)) if t.dim() > 2 and len(t) == 2 else t for t in tensors)
    outputs = op(*repeated, **options)
    return outputs[:2] if isinstance(outputs, torch.Tensor) else tuple(output[:2] for output in outputs)


def _difference(op: Callable, reference: Callable, arguments: list[torch.Tensor], options: dict) -> float:
    results = []
    for function, dtype in ((op, arguments[0].dtype), (reference, torch.float64)):
        tensors = [t.detach().to(dtype).requires_grad_() for t in arguments]
        outputs = function(*tensors, **options)
        outputs = (outputs,) if isinstance(outputs, torch.Tensor) else outputs
        weights = [torch.linspace(-1, 1, t.numel()).view(t.shape).to(t) for t in outputs]
        results.append([*outputs, *torch.autograd.grad(outputs, tensors, weights)])
    differences = [(a.double() - e).norm() / e.norm().clamp(min=1e-300) for a, e in zip(*results, strict=True)]
    # By torch, since Python's max loses a NaN that does not come first.
    return torch.stack(differences).max().item()
