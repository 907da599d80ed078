# Copyright 2026 The modeling_pixelvit team. All rights reserved.
# SPDX-License-Identifier: Apache-2.0
"""What `training.benchmark` measures on a CUDA device."""

import argparse
import statistics

import torch

from .measuring import Rows, build, timed


def gpu_run(model: torch.nn.Module, batch_size: int, dtype: torch.dtype, training: bool, rounds: int) -> dict:
    """Images a second and memory per image, of a forward pass or of a training step under autocast."""
    side = model.config.image_size
    images = torch.randn(batch_size, 3, side, side, device="cuda", dtype=torch.float32 if training else dtype)
    labels = torch.randint(0, 1000, (batch_size,), device="cuda")
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()

    def forward():
        with torch.inference_mode():
            model(images)

    def step():
        model.zero_grad()
        with torch.autocast("cuda", dtype=dtype):
            loss = model(images, labels=labels).loss
        loss.backward()

    function = step if training else forward
    function()
    seconds = statistics.median(timed(function, "cuda") for _ in range(rounds))
    return {
        "images_per_second": batch_size / seconds,
        "megabytes_per_image": (torch.cuda.max_memory_allocated() - before) / batch_size / 1e6,
    }


def gpu_variants(size: str) -> list[tuple[str, str, dict]]:
    """Family, what is varied, and the configuration's fields for it."""
    variants = [("adventurer", name, {"mixer_implementation": name}) for name in ("torch", "triton", "mamba_ssm")]
    attention = ("sdpa", "flash_attention_2", "flex_attention")
    return variants + [("pixelvit", name, {"attn_implementation": name}) for name in attention]


def gpu_rows(family: str, name: str, fields: dict, size: str, patch_size: int, batch_size: int, rounds: int) -> Rows:
    """All measurements of one implementation; one that cannot run here says why instead."""
    rows: Rows = {}
    for dtype in (torch.bfloat16, torch.float16):
        for mode in ("forward", "training step"):
            label = f"{family}-{size} 224/p{patch_size} {name} {str(dtype)[6:]} {mode}"
            torch.cuda.empty_cache()
            try:
                model = build(family, size, patch_size=patch_size, **fields).cuda()
                model = model.train() if mode == "training step" else model.to(dtype)
                rows[label] = gpu_run(model, batch_size, dtype, mode == "training step", rounds)
            except (ImportError, ValueError, RuntimeError) as error:
                rows[label] = {"unmeasured": f"{type(error).__name__}: {error}".splitlines()[0]}
    return rows


def gpu_agreement(name: str, size: str, patch_size: int) -> Rows:
    """Logits and gradients of kernels against those of the torch path, by norm of the difference over norm."""
    torch.manual_seed(0)
    ours = build("adventurer", size, patch_size=patch_size, mixer_implementation="torch").cuda()
    kernels = build("adventurer", size, patch_size=patch_size, mixer_implementation=name).cuda()
    kernels.load_state_dict(ours.state_dict())
    image, label = torch.randn(1, 3, 224, 224, device="cuda"), torch.zeros(1, dtype=torch.long, device="cuda")
    try:
        outputs = [model(image, labels=label) for model in (ours, kernels)]
    except (ImportError, RuntimeError) as error:
        return {f"torch path / {name} path": {"unmeasured": f"{type(error).__name__}: {error}".splitlines()[0]}}
    for output in outputs:
        output.loss.backward()

    def relative(a, b):
        return ((a - b).norm() / b.norm()).item()

    gradients = [
        relative(kernel.grad, own.grad) for kernel, own in zip(kernels.parameters(), ours.parameters(), strict=True)
    ]
    return {
        f"torch path / {name} path, float32": {
            "logits_relative_difference": relative(outputs[1].logits, outputs[0].logits),
            "worst_gradient_relative_difference": max(gradients),
        }
    }


def measure_gpu(args: argparse.Namespace) -> Rows:
    rows: Rows = {}
    for name in ("triton", "mamba_ssm"):
        rows |= gpu_agreement(name, args.size, args.patch_size)
    for family, name, fields in gpu_variants(args.size):
        rows |= gpu_rows(family, name, fields, args.size, args.patch_size, args.batch_size, args.rounds)
    return rows
