# Copyright 2026 The modeling_pixelvit team. All rights reserved.
# SPDX-License-Identifier: Apache-2.0
"""
Runs the functions of a kernel repository on small inputs, in the way of somebody who has none of this project.

    python kernel_check.py JOB.json RESULT.safetensors

A script by itself, which imports nothing of this project, unless it is told to run the package's own kernels. Triton
must be interpreted, so that a CPU does.
"""

import importlib.util
import json
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import torch
from safetensors.torch import save_file


BATCH, TOKENS, HEADS, HEAD_DIM, GROUPS, STATES, TAPS = 2, 20, 4, 4, 2, 8, 4
GRID = (4, 5)


def load_kernel(variant: Path, kernel_id: str) -> ModuleType:
    """By the package `kernels` if it is installed, else in the same way."""
    try:
        from kernels import get_local_kernel
    except ImportError:
        return load_module(kernel_id, variant / "__init__.py")
    return get_local_kernel(variant)


def load_module(name: str, path: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location(name, path)
    module = sys.modules[name] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def calls(kernel: ModuleType) -> dict[str, tuple[list[torch.Tensor], dict[str, Any]]]:
    """Tensors, which get gradients, and other arguments for each function that computes."""
    generator = torch.Generator().manual_seed(0)

    def random(*shape: int) -> torch.Tensor:
        return torch.randn(shape, generator=generator)

    inner, maps = HEADS * HEAD_DIM, GROUPS * STATES
    channels = inner + 2 * maps
    projected = random(BATCH, TOKENS, inner + channels + HEADS)
    z, convolved, dt = projected.split([inner, channels, HEADS], dim=-1)
    x, B, C = convolved.split([inner, maps, maps], dim=-1)
    x, B, C = x.unflatten(-1, (HEADS, -1)), B.unflatten(-1, (GROUPS, -1)), C.unflatten(-1, (GROUPS, -1))
    taps, by_head, weight = (random(channels, 1, TAPS), random(channels)), random(3, HEADS).unbind(), random(inner)
    before = random(BATCH, TAPS - 1, channels), random(BATCH, HEADS, HEAD_DIM, STATES)
    residual, scale = random(BATCH, TOKENS, inner), random(BATCH)
    mixer = {"groups": GROUPS, "order": kernel.scan_order(*GRID, by_columns=True, backwards=True)}
    mixer |= {"conv_state": before[0], "scan_state": before[1]}
    A_log, D, dt_bias = by_head
    return {
        "causal_conv1d": ([convolved, *taps, before[0]], {}),
        "mamba_chunk_scan": ([x, dt, A_log, B, C, D, dt_bias, before[1]], {}),
        "mamba_split_conv1d_scan": ([projected, *taps, *by_head, weight], mixer),
        "rms_norm_gated": ([x.flatten(-2), z, weight], {"groups": GROUPS}),
        "rms_norm": ([residual, weight], {}),
        "add_rms_norm": ([z, residual, weight], {"scale": scale}),
        "swiglu": ([z, residual], {}),
    }


def computed(kernel: ModuleType) -> dict[str, torch.Tensor]:
    """Outputs and gradients by function."""
    found = {}
    for name, (tensors, options) in calls(kernel).items():
        tensors = [tensor.detach().requires_grad_() for tensor in tensors]
        outputs = getattr(kernel, name)(*tensors, **options)
        outputs = (outputs,) if isinstance(outputs, torch.Tensor) else outputs
        weights = [torch.linspace(-1, 1, output.numel()).view(output.shape) for output in outputs]
        gradients = torch.autograd.grad(outputs, tensors, weights)
        found |= {f"{name}, output {index}": tensor for index, tensor in enumerate(outputs)}
        found |= {f"{name}, gradient {index}": tensor for index, tensor in enumerate(gradients)}
    return {name: tensor.detach().contiguous().clone() for name, tensor in found.items()}


def refusals(kernel: ModuleType) -> list[str]:
    """What each function says, once it is called."""
    said = []
    for name, (tensors, options) in calls(kernel).items():
        try:
            getattr(kernel, name)(*tensors, **options)
        except ImportError as error:
            said.append(str(error))
        else:
            said.append("")
    return said


def op_names() -> set[str]:
    return set(torch._C._dispatch_get_all_op_names())


def main(job_file: str, result_file: str):
    """
    The job: `blocked`, modules that are as if not installed; `variant` and `id` of a kernel repository; `functions`,
    the file that calls the package's kernels, or None to call the repository's.
    """
    job = json.loads(Path(job_file).read_text())
    sys.modules.update(dict.fromkeys(job["blocked"]))
    before = op_names()
    kernel = load_kernel(Path(job["variant"]), job["id"])
    report = {"ops": sorted(op_names() - before), "public": sorted(kernel.__all__), "loader": "kernels" in sys.modules}
    if "triton" in job["blocked"]:
        print(json.dumps({**report, "refusals": refusals(kernel)}))
        return
    if job["functions"] is not None:
        kernel = load_module("modeling_pixelvit.kernel_functions", Path(job["functions"]))
    save_file(computed(kernel), result_file)
    print(json.dumps(report))


if __name__ == "__main__":
    main(*sys.argv[1:])
