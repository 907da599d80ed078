# Copyright 2026 The modeling_pixelvit team. All rights reserved.
# SPDX-License-Identifier: Apache-2.0
"""
Trains a model by a recipe.

    accelerate launch -m training.train --recipe adventurer-stage1 --variant tiny --patch_size 8 --dataset path/to/data
    python -m training.train --help

Any field of the recipe can be given on the command line. `accelerate launch --config_file training/configs/NAME.yaml`
chooses devices, precision and sharding. The output folder has `checkpoints/`, `best` (for `from_pretrained`),
`metrics.jsonl` and, in the end, `results.json`.

Exit status: 0 when all steps are done, 128 + n after signal n (130: SIGINT, 143: SIGTERM; a checkpoint was written, and
the same command with `--resume auto` goes on), 2 for an error in what was asked, 1 for a run that had to stop.
"""

import argparse
import dataclasses
import difflib
import json
import os
import sys
from collections.abc import Callable
from typing import Any

from accelerate import Accelerator
from accelerate.utils import GradientAccumulationPlugin, InitProcessGroupKwargs, ProjectConfiguration, is_cuda_available
from transformers import HfArgumentParser
from transformers.utils import logging

from .data.unreadable import TooManyUnreadable
from .engine.loop import LoopOptions, Outcome, TrainingLoop, TrainingStopped
from .settings.recipe import Recipe, load_recipe
from .tasks.base import DataOptions
from .tasks.registry import TASKS


@dataclasses.dataclass(kw_only=True)
class RecipeOptions:
    """Which recipe."""

    recipe: str = dataclasses.field(
        default="adventurer-stage1", metadata={"help": "name of a file in training/recipes, or path of a YAML file"}
    )


def build_parser() -> HfArgumentParser:
    """A parser of all options; those of the recipe's fields have no default but the recipe's."""
    fields = dataclasses.fields(Recipe)
    recipe_fields = dataclasses.make_dataclass(
        "RecipeFields",
        [
            # Without the bounds, which argparse does not know and the recipe checks.
            (field.name, field.type, dataclasses.field(default=None, metadata={"help": field.metadata["help"]}))
            for field in fields
        ],
    )
    parser = HfArgumentParser([RecipeOptions, DataOptions, LoopOptions, recipe_fields], prog="python -m training.train")
    names = {field.name for field in fields}
    for action in parser._actions:
        if action.dest in names:
            action.default = argparse.SUPPRESS
            action.type = _or_none(action.type)
        if action.dest == "model":
            action.type = json.loads
    return parser


def _or_none(kind: Callable[[str], Any]) -> Callable[[str], Any]:
    """Leaves "none" for the recipe, which knows the fields that take it."""

    def convert(word: str) -> Any:
        return word if word == "none" else kind(word)

    convert.__name__ = kind.__name__  # which argparse tells when a value is wrong
    return convert


def parse_arguments(arguments: list[str] | None = None) -> tuple[Recipe, DataOptions, LoopOptions]:
    """
    Raises:
        ValueError: for a recipe that cannot be used.
        SystemExit: for an unknown option, after a message that names the nearest known one.
    """
    parser = build_parser()
    given, unknown = parser.parse_known_args(arguments)
    for word in unknown:
        if word.startswith("--"):
            known = [option for action in parser._actions for option in action.option_strings]
            nearest = difflib.get_close_matches(word.split("=")[0], known, n=1, cutoff=0.5)
            hint = f" Did you mean {nearest[0]}?" if nearest else " --help lists the options."
            parser.error(f"unknown option {word}.{hint}")
    if unknown:
        parser.error(f"{unknown[0]!r} belongs to no option.")
    values = vars(given)
    groups = []
    for kind in (DataOptions, LoopOptions):
        groups.append(kind(**{field.name: values.pop(field.name) for field in dataclasses.fields(kind)}))
    recipe = load_recipe(values.pop("recipe"), values.pop("variant", None), **values)
    return recipe, *groups


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


def main(arguments: list[str] | None = None) -> int:
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


if __name__ == "__main__":
    sys.exit(main())
