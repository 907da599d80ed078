# Copyright 2026 The modeling_pixelvit team. All rights reserved.
# SPDX-License-Identifier: Apache-2.0
"""A run from the command line to its exit status."""

import dataclasses
import os
import signal
import sys
from collections.abc import Iterable
from pathlib import Path

import torch
from accelerate import Accelerator
from accelerate.utils import GradientAccumulationPlugin, InitProcessGroupKwargs, ProjectConfiguration, is_cuda_available
from safetensors import SafetensorError
from transformers.utils import logging

from ..checkpoints.measured_cost import load_measured_cost
from ..data.unreadable import TooManyUnreadable, UnusableData
from ..settings.recipe import Recipe
from ..tasks.base import DataOptions, Share, Task
from ..tasks.registry import check_options, task_named
from .arguments import parse_arguments
from .coordination import main_processes_first
from .log import format_metrics
from .loop import TrainingLoop
from .options import LoopOptions, Outcome, TrainingStopped
from .plan import format_plan


PROJECT = "pixelvit"  # what trackers file the runs under


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


def prepare(recipe: Recipe, data: DataOptions, options: LoopOptions) -> TrainingLoop:
    """
    A run up to its first step.

    Raises:
        ValueError: for whatever is asked for and cannot be had.
        OSError: if the output folder cannot be written to.
    """
    Path(options.output_dir).mkdir(parents=True, exist_ok=True)  # before all that takes time
    accelerator = build_accelerator(options)
    task = load_task(accelerator, recipe, data)
    loop = TrainingLoop(accelerator, recipe, task, options)
    if accelerator.trackers is not None and accelerator.log_with:
        start_trackers(accelerator, recipe, loop.progress.step)
    return loop


def load_task(accelerator: Accelerator, recipe: Recipe, data: DataOptions) -> Task:
    """
    Raises:
        ValueError: if there is no such task, its images cannot be loaded, or an option is for another one.
    """
    task_class = task_named(recipe.task)
    check_options(recipe.task, data)
    with main_processes_first(accelerator):  # which fill the cache of the data set for the others
        return task_class.from_options(recipe, data)


def plan(recipe: Recipe, data: DataOptions, options: LoopOptions) -> str:
    """
    What the run would do.

    Raises:
        ValueError: for whatever is asked for and cannot be had.
    """
    options.check()
    accelerator = build_accelerator(options)
    share = Share(accelerator.process_index, accelerator.num_processes, options.gradient_accumulation_steps)
    cost = None if options.cost_file is None else load_measured_cost(options.cost_file)
    return format_plan(recipe, load_task(accelerator, recipe, data), share, cost, options.gradient_checkpointing)


def finish(loop: TrainingLoop) -> Outcome:
    """Trains to the end, after which the processes can go on to another run: `end_training` would part them."""
    try:
        return loop.run()
    finally:
        for tracker in loop.accelerator.trackers:
            tracker.finish()
        loop.accelerator.free_memory()


def start_trackers(accelerator: Accelerator, recipe: Recipe, first_step: int):
    """Gives the trackers the recipe; TensorBoard forgets the steps that are now done again."""
    config = {
        name: value if isinstance(value, (int, float, str)) else str(value)
        for name, value in dataclasses.asdict(recipe).items()
    }
    accelerator.init_trackers(PROJECT, config, init_kwargs={"tensorboard": {"purge_step": first_step + 1}})


def run_commands(command_lines: Iterable[list[str] | None]) -> int:
    """
    Runs one after the other, on the same processes.

    Args:
        command_lines: The words of `training.train` for each; None: those of this process. The next are asked for when
            a run is done.

    Returns:
        The exit status of the first that did not succeed, or 0.
    """
    logging.disable_progress_bar()  # of every file that transformers writes or reads
    try:
        return next((status for words in command_lines if (status := _run(words))), 0)
    finally:
        if torch.distributed.is_available() and torch.distributed.is_initialized():
            torch.distributed.destroy_process_group()


def _run(arguments: list[str] | None) -> int:
    try:
        recipe, data, options = parse_arguments(arguments)
        if options.plan:
            text = plan(recipe, data, options)
            if int(os.environ.get("RANK", "0")) == 0:
                print(text)
            return 0
        loop = prepare(recipe, data, options)
    except (ValueError, ImportError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1 if isinstance(error, TooManyUnreadable) else 2
    except KeyboardInterrupt:
        print("\nInterrupted before the first step.", file=sys.stderr)
        return 128 + signal.SIGINT
    # From here on only the data, or a disk that is full, can be the user's mistake; the rest is worth its traceback.
    try:
        outcome = finish(loop)
    except (TrainingStopped, UnusableData) as error:
        # From a process of a data loader the sentence comes below its traceback.
        sentence = str(error).rsplit(f"{type(error).__name__}: ", 1)[-1]
        print(f"error: {sentence}", file=sys.stderr)
        return 1 if isinstance(error, (TrainingStopped, TooManyUnreadable)) else 2
    except (OSError, SafetensorError) as error:
        print(f"error: In the run of --output_dir {options.output_dir}: {error}", file=sys.stderr)
        return 1
    if outcome.signal:
        print(f"Stopped by a signal after step {outcome.step}; --resume auto goes on.", file=sys.stderr)
        return 128 + outcome.signal
    print(f"Done: {outcome.step} steps, {format_metrics(outcome.metrics)}.", file=sys.stderr)
    return 0
