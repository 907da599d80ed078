# Copyright 2026 The modeling_pixelvit team. All rights reserved.
# SPDX-License-Identifier: Apache-2.0
"""What a run will do and what it costs, told before it is paid."""

import torch
from transformers import PreTrainedModel

from ..checkpoints.measured_cost import MeasuredCost, Work
from ..common.throughput import PASSES_PER_STEP
from ..settings.course import Course, batches_per_step
from ..settings.recipe import Recipe
from ..tasks.base import Share, Task
from .muon import Muon
from .optimizers import build_optimizer


FP32_BYTES = 4


def format_plan(
    recipe: Recipe,
    task: Task,
    share: Share,
    measured: MeasuredCost | None = None,
    gradient_checkpointing: bool = False,
) -> str:
    """
    Steps, tokens, parameters, operations and memory, and hours where they were measured; nothing is computed.

    Args:
        recipe, task: Of the run.
        share: Of a process.
        measured: Costs on a device like the run's.
        gradient_checkpointing: Of the run, which the memory of activations depends on.

    Raises:
        ValueError: if the batch cannot be shared equally or is larger than an epoch, or the family was not measured.
    """
    _, steps_per_epoch, num_steps = task.train_loader(share)
    course = Course(recipe, steps_per_epoch)
    with torch.device("meta"):
        template = task.model_class(recipe.build_config(**task.config_fields()))
    batches = course.batches_by_patch_size()
    flops = {size: task.forward_flops(template, size) for size in course.patch_sizes}
    total = sum(PASSES_PER_STEP * flops[size] * count * recipe.total_batch_size for size, count in batches.items())
    parameters = sum(parameter.numel() for parameter in template.parameters())
    per_process = recipe.total_batch_size // (share.num_ranks * share.accumulation)
    lines = {
        "model": f"{type(template).__name__}, {recipe.variant}, {parameters:,} parameters",
        "images": f"{task.num_train:,} for training, {task.num_eval:,} for evaluation, {recipe.image_size} pixels",
        "batch": f"{recipe.total_batch_size} images a step: {per_process} in each of {share.num_ranks} processes"
        + (f", {share.accumulation} times" if share.accumulation > 1 else ""),
        "steps": f"{num_steps:,}, {steps_per_epoch:,} an epoch, {recipe.num_train_epochs:g} epochs",
        "learning rate": f"{recipe.learning_rate:.3g} at its peak, {recipe.learning_rate_schedule}",
    }
    for size in course.patch_sizes:
        part = f"{batches.get(size, 0) / sum(batches.values()):.0%} of the images, " if len(flops) > 1 else ""
        tokens = f"{recipe.tokens_per_image(size):,} tokens"
        lines[f"patch {size}"] = f"{part}{tokens}, {_readable(flops[size], 'FLOP')} an image, forward"
    lines["training"] = f"{_readable(total, 'FLOP')}: {_hours(total / 1e12)} if all devices together keep up 1 TFLOP/s"
    if measured is None:
        lines["training"] += ", and less in proportion"
    else:
        fit = measured.of_training(recipe.family)
        work = {size: task.work(template, size) for size in course.patch_sizes}
        # What devices say to each other while they train is not in it.
        seconds = 0.0
        for size, count in batches.items():
            together = batches_per_step(recipe, size)
            steps = share.accumulation * count / together
            seconds += steps * fit.seconds(work[size], per_process * together)
        devices = "the device" if share.num_ranks == 1 else f"each of {share.num_ranks} devices"
        lines["training"] = (
            f"{_readable(total, 'FLOP')}: {_hours(seconds)} on {devices}, {measured.describe(recipe.family)}"
        )
    lines["memory"] = (
        f"{_readable(state_bytes(template, recipe), 'B')} of weights, gradients, optimizer and average in fp32, in "
        "each process unless it is shared by ZeRO or FSDP; activations come on top"
    )
    if measured is not None:
        lines["activations"] = _activations(measured, recipe, work, per_process, gradient_checkpointing)
    width = max(map(len, lines))
    return "\n".join(f"{name:<{width}}  {text}" for name, text in lines.items())


def _activations(
    measured: MeasuredCost, recipe: Recipe, work: dict[int, Work], batch_size: int, gradient_checkpointing: bool
) -> str:
    """Of the patch size that takes most."""
    if measured.settings["gradient_checkpointing"] != gradient_checkpointing:
        return (
            "not told: those that were measured were with gradient checkpointing and the run's are not, or vice versa"
        )
    fit = measured.of_training(recipe.family)
    images = {size: batch_size * batches_per_step(recipe, size) for size in work}
    sizes = {size: fit.bytes(one, images[size]) for size, one in work.items()}
    if None in sizes.values():
        return "not told: their memory was not measured"
    largest = max(sizes, key=sizes.get)
    error = "unknown" if fit.bytes_error is None else f"up to {fit.bytes_error:.0%}"
    return (
        f"{_readable(sizes[largest], 'B')} for {images[largest]} images in a process, by the same fit (error {error})"
    )


def state_bytes(model: PreTrainedModel, recipe: Recipe) -> int:
    """
    Of weights, gradients and average in fp32, and of the optimizer: two numbers for each weight that AdamW steps, one
    for each that Muon does.
    """
    optimizer = build_optimizer(model, recipe)
    of_optimizer = sum(
        parameter.numel() * (1 if isinstance(part, Muon) else 2)
        for part in getattr(optimizer, "optimizers", [optimizer])
        for group in part.param_groups
        for parameter in group["params"]
    )
    parameters = sum(parameter.numel() for parameter in model.parameters())
    return FP32_BYTES * (parameters * (2 + (recipe.ema_decay is not None)) + of_optimizer)


def _readable(amount: float, unit: str) -> str:
    for prefix, size in (("E", 1e18), ("P", 1e15), ("T", 1e12), ("G", 1e9), ("M", 1e6)):
        if amount >= size:
            return f"{amount / size:.3g} {prefix}{unit}"
    return f"{amount:,.0f} {unit}"


def _hours(seconds: float) -> str:
    hours = seconds / 3600
    if hours >= 1:
        return f"{hours:,.0f} hours" if hours >= 10 else f"{hours:.1f} hours"
    return f"{60 * hours:.1f} minutes"
