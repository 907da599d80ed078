# Copyright 2026 The modeling_pixelvit team. All rights reserved.
# SPDX-License-Identifier: Apache-2.0
"""
The product of a linear layer in float32 on a CPU, by oneDNN where that is faster than MKL.

PyTorch sends float32 products to MKL, which gives some processors its slower kernels; oneDNN, which every PyTorch build
for x86 brings too, picks by what the processor can do. On an AMD EPYC with AVX-512 it is twice as fast, forward and
backward; elsewhere it need not be, so each process measures it once.
"""

import time
from concurrent.futures import ThreadPoolExecutor
from functools import cache

import torch
from torch.nn import functional as F


# Fewest multiplications of a product that oneDNN is faster at; below, its fixed cost per call shows.
FEWEST_MULTIPLICATIONS = 2**22
LEAST_SPEEDUP = 1.25  # clear of what measurements differ by, so that runs on one machine compute the same bits


def linear(x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None) -> torch.Tensor:
    """x weight^T + bias for x (..., in_features), by oneDNN where that is faster than what PyTorch would take."""
    if _prefers_onednn(x, weight):
        return linear_onednn(x, weight, bias)
    return F.linear(x, weight, bias)


def _prefers_onednn(x: torch.Tensor, weight: torch.Tensor) -> bool:
    return (
        x.device.type == "cpu"
        and x.dtype == weight.dtype == torch.float32
        and x.dim() > 1
        and not (torch.compiler.is_compiling() or torch.jit.is_tracing() or torch.is_autocast_enabled("cpu"))
        # Quantized, distributed and traced tensors are subclasses that know nothing of oneDNN's op.
        and type(x) is torch.Tensor
        and type(weight) in (torch.Tensor, torch.nn.Parameter)
        and x.numel() * weight.shape[0] >= FEWEST_MULTIPLICATIONS
        and onednn_speedup() >= LEAST_SPEEDUP
    )


@cache
def onednn_speedup() -> float:
    """MKL's time for a float32 product over oneDNN's, measured at the first call (0.1 s); 0 without a choice."""
    if not (torch.backends.mkl.is_available() and torch.backends.mkldnn.is_available()):
        return 0.0
    # A thread of its own is out of reach of whatever counts or traces the caller's operations.
    with ThreadPoolExecutor(max_workers=1) as thread:
        return thread.submit(_measure_speedup).result()


@torch.inference_mode()
def _measure_speedup() -> float:
    """By the shortest of many short products on one thread, which other processes on the machine do not disturb."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        x, weight = torch.ones(256, 192), torch.ones(768, 192)
        times: dict = {F.linear: [], _product: []}
        for function in (F.linear, _product) * 20:
            start = time.perf_counter()
            function(x, weight)
            times[function].append(time.perf_counter() - start)
        return min(times[F.linear]) / min(times[_product])
    finally:
        torch.set_num_threads(threads)


def linear_onednn(x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None = None) -> torch.Tensor:
    """
    x weight^T + bias, differentiable any number of times.

    Args:
        x: (..., in_features) of at least two dimensions, not empty, float32, on a CPU.
        weight: (out_features, in_features)
        bias: (out_features,)

    Returns:
        (..., out_features)
    """
    if torch.is_grad_enabled():
        return _LinearOneDNN.apply(x, weight, bias)
    return _product(x, weight, bias)


def _product(x, weight, bias=None):
    return torch.ops.mkldnn._linear_pointwise(x, weight, bias, "none", [], "")


class _LinearOneDNN(torch.autograd.Function):
    generate_vmap_rule = True

    @staticmethod
    def forward(x, weight, bias):
        return _product(x, weight, bias)

    @staticmethod
    def setup_context(ctx, inputs, output):
        ctx.save_for_backward(*inputs[:2])

    @staticmethod
    def backward(ctx, grad_output):
        x, weight = ctx.saved_tensors
        grad_x = grad_weight = grad_bias = None
        if ctx.needs_input_grad[0]:
            grad_x = linear_onednn(grad_output, weight.t())
        if ctx.needs_input_grad[1]:
            rows, columns = grad_output.flatten(0, -2), x.flatten(0, -2)
            # Its kernels run along the columns of the result, so the longer side goes there.
            if weight.shape[0] <= weight.shape[1]:
                grad_weight = linear_onednn(rows.t(), columns.t())
            else:
                grad_weight = linear_onednn(columns.t(), rows.t()).t()
        if ctx.needs_input_grad[2]:
            grad_bias = grad_output.flatten(0, -2).sum(0)
        return grad_x, grad_weight, grad_bias
