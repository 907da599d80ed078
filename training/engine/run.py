# Copyright 2026 The modeling_pixelvit team. All rights reserved.
# SPDX-License-Identifier: Apache-2.0
"""A run from the command line to its exit status."""

import dataclasses
import os
import sys
from typing import Any

from accelerate import Accelerator
from accelerate.utils import GradientAccumulationPlugin, InitProcessGroupKwargs, ProjectConfiguration, is_cuda_available
from transformers.utils import logging

from ..data.unreadable import TooManyUnreadable
from ..settings.recipe import Recipe
from ..tasks.base import DataOptions
from ..tasks.registry import TASKS
from .arguments import parse_arguments
from .loop import TrainingLoop
from .options import LoopOptions, Outcome, TrainingStopped


def build_accelerator(options: LoopOptions) -> Accelerator:
    """Devices, precision and sharding as `accelerate launch` says; on a CPU processes talk through gloo."""
    several_on_cpu = "LOCAL_RANK" in os.environ and not is_cuda_available()
    trackers = [name.strip() for name in options.report_to.split(",") if name.strip() not in ("", "none")]
    uses_deepspeed = os.environ.get("ACCELERATE_USE_DEEPSPEED") == "true"
    return Accelerator(
        # Which switches DeepSpeed off, and without which there would be processes that do not talk.
        cpu=several_on_cpu and not uses_deepspeed,
        gradient_accumulation_plugin=GradientAccumulationPlugin(
            num_steps=options.gradient_accumulation_steps, adjust_scheduler=False, sync_with_dataloader=False
        ),
        log_with=trackers or None,
        project_config=ProjectConfiguration(project_dir=options.output_dir, logging_dir=options.output_dir),
        # Accelerate would not start DeepSpeed's processes without a GPU if it were not told how they talk.
        kwargs_handlers=[InitProcessGroupKwargs(backend="gloo")] if several_on_cpu else [],
    )


def train(recipe: Recipe, data: DataOptions, options: LoopOptions) -> Outcome:
    """One run from its options to its end."""
    accelerator = build_accelerator(options)
    with accelerator.local_main_process_first():  # which fills the cache of the data set for the others
        task = TASKS[recipe.task].from_options(recipe, data)
    loop = TrainingLoop(accelerator, recipe, task, options)
    if accelerator.trackers is not None and accelerator.log_with:
        start_trackers(accelerator, recipe, loop.progress.step)
    try:
        return loop.run()
    finally:
        accelerator.end_training()


def start_trackers(accelerator: Accelerator, recipe: Recipe, first_step: int):
    """Gives the trackers the recipe; TensorBoard forgets the steps that are now done again."""
    config = {
        name: value if isinstance(value, (int, float, str)) else str(value)
        for name, value in dataclasses.asdict(recipe).items()
    }
    accelerator.init_trackers("tensorboard", config, init_kwargs={"tensorboard": {"purge_step": first_step + 1}})


def run_command(arguments: list[str] | None = None) -> int:
    """What `training.train` does with its words; returns its exit status."""
    logging.disable_progress_bar()  # of every file that transformers writes or reads
    try:
        recipe, data, options = parse_arguments(arguments)
        outcome = train(recipe, data, options)
    except (TrainingStopped, TooManyUnreadable) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    except (ValueError, ImportError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    if outcome.signal:
        print(f"Stopped by a signal after step {outcome.step}; --resume auto goes on.", file=sys.stderr)
        return 128 + outcome.signal
    print(f"Done: {outcome.step} steps, {format_metrics(outcome.metrics)}.", file=sys.stderr)
    return 0


def format_metrics(metrics: dict[str, Any]) -> str:
    return ", ".join(f"{name} {value:.4g}" for name, value in metrics.items())
