# Copyright 2026 The modeling_pixelvit team. All rights reserved.
# SPDX-License-Identifier: Apache-2.0
"""
What the Triton kernels share: an import that does without Triton, the arithmetic they compute in, and how an op is
registered.

Every kernel takes the strides of its inputs, since those are slices of one projection. Program ids and token positions
are 64-bit integers before a stride multiplies them: a batch of long sequences has more than 2^31 elements.
"""

from __future__ import annotations  # annotations of kernels name `tl`, which may be missing

import os
from collections.abc import Callable

import torch
from torch.autograd.forward_ad import unpack_dual

from .ops_segments import compute_dtype


IMPORT_ERROR = None
try:
    import triton
    import triton.language as tl
except Exception as error:  # not installed, or one that does not fit its torch, which raises whatever it likes
    triton = tl = None
    IMPORT_ERROR = error


# Triton decides where a kernel is defined, not where it is launched.
INTERPRETED = os.environ.get("TRITON_INTERPRET") == "1"


def jit(function: Callable) -> Callable:
    """`triton.jit`, or the function as it is where Triton is absent: `check_device` then refuses before its launch."""
    return function if triton is None else triton.jit(function)


def check_device(op: str, device: torch.device, *tensors: torch.Tensor | None):
    """
    Raises:
        ImportError: if Triton is not installed.
        ValueError: if no kernel can run on `device`.
        NotImplementedError: if one of the `tensors` has a tangent, of forward-mode differentiation, which an op of
            torch.library would drop without a word.
    """
    if triton is None:
        raise ImportError(
            f"{op} is a Triton kernel, but triton cannot be imported ({IMPORT_ERROR}); `pip install triton`."
        )
    if device.type != "cuda" and not INTERPRETED:
        raise ValueError(
            f"{op} is a Triton kernel and runs on CUDA devices, but its input is on {device}; move it to one, or set "
            "TRITON_INTERPRET=1 before Python starts to have kernels interpreted on the CPU, slowly."
        )
    if any(tensor is not None and unpack_dual(tensor).tangent is not None for tensor in tensors):
        raise NotImplementedError(
            f"{op} is a Triton kernel and has no forward-mode derivative (torch.func.jvp); take gradients, or "
            "PyTorch's own ops."
        )


def launch(
    kernel: Callable, grid: tuple[int, ...], tensors: tuple[torch.Tensor | None, ...], *numbers: int | float,
    warps: int, stages: int = 1, **constants,
):  # fmt: skip
    """Launches `kernel` on the device of its tensors: Triton by itself would take the current one."""
    if 0 in grid:
        return  # there is nothing in the batch
    device = next(tensor.device for tensor in tensors if tensor is not None)
    with torch.cuda.device(device if device.type == "cuda" else -1):
        kernel[grid](*tensors, *numbers, **constants, num_warps=warps, num_stages=stages)


def generation(tensor: torch.Tensor, table: dict):
    """The entry of `table` (by compute capability, rising) for the device of `tensor`: the newest not newer than it."""
    capability = torch.cuda.get_device_capability(tensor.device) if tensor.is_cuda else max(table)
    return table[max((key for key in table if key <= capability), default=min(table))]


def triton_dtype(dtype: torch.dtype):
    """A torch dtype as Triton's."""
    return getattr(tl, str(dtype).removeprefix("torch."))


def uses_tf32() -> bool:
    """Whether torch multiplies float32 as TF32 on CUDA; its older name cannot be read once the newer one was set."""
    matmul = torch.backends.cuda.matmul
    return matmul.fp32_precision == "tf32" if hasattr(matmul, "fp32_precision") else matmul.allow_tf32


def arithmetic(dtype: torch.dtype) -> dict:
    """
    Compile-time arguments of a kernel with matrix products, for inputs of `dtype`: ACC, the dtype of sums, DOT, that of
    factors, WIDE, that of factors of products which have one made of scores, of a state or of sums of gradients, and
    PRECISION, by which factors in float32 are multiplied.

    Scores and states leave the range of float16 where inputs and outputs do not, and so do sums of gradients under a
    loss scale: WIDE is then float32, multiplied as TF32, which holds as many digits. For inputs in float32 the choice
    is that of torch for its own products; three TF32 products give about float32's precision.
    """
    wide = compute_dtype(dtype)
    precision = "tf32" if dtype == torch.float16 or uses_tf32() else "tf32x3"
    return {
        "ACC": triton_dtype(wide),
        "DOT": triton_dtype(dtype),
        "WIDE": triton_dtype(dtype if dtype == torch.bfloat16 else wide),
        "PRECISION": "ieee" if dtype in (torch.bfloat16, torch.float64) else precision,
    }


def op_name(module: str, name: str) -> str:
    """
    The qualified name of an op, in a namespace named after the package that `module` is in. Code that came with a
    checkpoint or from a repository of kernels is another package than this one, and torch keeps one op a name.
    """
    return f"{module.rpartition('.')[0].replace('.', '_')}::{name}"


@jit
def places(order, tokens, inside):
    """Where tokens (Q,) of a sequence stand in memory: as `order` (T,) says, or in their own order if it is None."""
    if order is not None:
        tokens = tl.load(order + tokens, mask=inside, other=0).to(tl.int64)
    return tokens


def order_stride(order: torch.Tensor | None) -> int:
    """Elements from one sequence's row of `order` (B, T), or (T,), to the next."""
    return 0 if order is None or order.dim() == 1 else order.stride(0)


def unit(*tensors: torch.Tensor) -> int:
    """
    Elements that all strides of `tensors` but the last are counted in. A kernel that multiplies by this constant is
    known to read rows from multiples of it on, and so several channels at a time; a row of the fused projection, of
    3,224 for a Base model, is no multiple of the 16 that Triton finds out by itself.
    """
    steps = [stride for tensor in tensors for stride in tensor.stride()[:-1]]
    return 8 if all(tensor.stride(-1) == 1 for tensor in tensors) and all(step % 8 == 0 for step in steps) else 1


def in_units(tensor: torch.Tensor, unit: int) -> tuple[int, ...]:
    """The strides of `tensor`, all but the last in units."""
    return *(stride // unit for stride in tensor.stride()[:-1]), tensor.stride(-1)
