# Copyright 2026 The modeling_pixelvit team. All rights reserved.
# SPDX-License-Identifier: Apache-2.0
"""
One run of the sweep: a recipe and images in, a checkpoint folder with `metrics.json` out.

`metrics.json` is written last, so its presence says that the run is finished. Until then the folder holds a run of
`training.engine.loop`, which goes on after an interruption, to the same result as without one.
"""

import dataclasses
import functools
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

from accelerate import Accelerator
from transformers import PreTrainedModel

from ..common.files import write_json
from ..common.throughput import PASSES_PER_STEP, peak_memory_mib
from ..engine.checkpoints import BEST_LINK, COMPLETE_FILE, EVALUATION_FILE
from ..engine.log import METRICS_FILE as LOG_FILE
from ..engine.log import read_metrics
from ..engine.loop import TrainingLoop
from ..engine.options import LoopOptions
from ..settings.course import Course
from ..settings.recipe import Recipe
from ..tasks.base import Task
from ..tasks.registry import TASKS
from .law import summarize_curve


METRICS_FILE = "metrics.json"
SETTINGS_FILE = "settings.json"
UNFINISHED_FOLDER = "unfinished_run"
MINUTES_BETWEEN_CHECKPOINTS = 1 / 3


class Interrupted(Exception):
    """The run was told to stop, and can be continued."""


@dataclasses.dataclass(frozen=True)
class Run:
    """
    One point of the sweep.

    Args:
        recipe: What is trained.
        num_batches: Batches of the recipe's size that it sees.
        data: What distinguishes the images: their source and size.
        folder: For checkpoint and metrics.
        is_one_of_seeds: Whether others differ from it by the seed alone, so that its name tells its own.
    """

    recipe: Recipe
    num_batches: int
    data: dict[str, Any]
    folder: str
    is_one_of_seeds: bool = False

    @property
    def decoder(self) -> str | None:
        """Of a segmentation model."""
        return self.recipe.model.get("decoder_type")

    @property
    def name(self) -> str:
        """Of the run's folder; the decoder is told if there is one."""
        decoder = "" if self.decoder in (None, "none") else f"-{self.decoder}"
        seed = f"-seed{self.recipe.seed}" if self.is_one_of_seeds else ""
        return f"{self.recipe.family}{decoder}-patch{self.recipe.patch_size}{seed}"

    @functools.cached_property
    def course(self) -> Course:
        """Which patch size each step has."""
        return Course(self.recipe, round(self.num_batches / self.recipe.num_train_epochs))

    @property
    def num_tokens(self) -> int:
        """Patch tokens of an image; the class token comes on top."""
        return self.recipe.tokens_per_image(self.recipe.patch_size)

    @property
    def settings(self) -> dict[str, Any]:
        """What a finished run must agree with to count as this one, as it is after a round trip through JSON."""
        return json.loads(json.dumps({"recipe": dataclasses.asdict(self.recipe), "data": self.data}))

    def finished_metrics(self) -> dict[str, Any] | None:
        """The metrics of this run if it is finished."""
        try:
            return json.loads(Path(self.folder, METRICS_FILE).read_text())
        except FileNotFoundError:
            return None


def execute(run: Run, images: Any, report: Callable[[int, float], None] = lambda step, loss: None) -> dict:
    """
    Trains, tests and saves one run, from where it was interrupted if it was.

    Args:
        run: What to do; `run.folder` is made.
        images: The images that `run.data` tells of.
        report: Called after every step with the steps done and the step's training loss.

    Returns:
        What `metrics.json` holds.

    Raises:
        Interrupted: after SIGINT or SIGTERM and a checkpoint.
    """
    folder = Path(run.folder)
    unfinished = folder / UNFINISHED_FOLDER
    _forget_other_run(unfinished, run.settings)
    options = LoopOptions(
        output_dir=str(unfinished),
        resume="auto",
        eval_epochs=0,
        logging_steps=1,
        save_minutes=MINUTES_BETWEEN_CHECKPOINTS,
        keep_checkpoints=1,
        report_to="none",
    )
    task = TASKS[run.recipe.task](run.recipe, images)
    loop = TrainingLoop(Accelerator(cpu=True), run.recipe, task, options, quiet=True)
    outcome = loop.run(report)
    if outcome.signal:
        raise Interrupted(f"{run.name} was stopped by signal {outcome.signal}; it can go on.")
    losses = [record["loss"] for record in read_metrics(unfinished) if "loss" in record]
    metrics = {
        "task": run.recipe.task,
        "name": run.name,
        "family": run.recipe.family,
        "decoder": run.decoder,
        "patch_size": run.recipe.patch_size,
        "seed": run.recipe.seed,
        "tokens": run.num_tokens,
        "num_classes": len(images.label_names),
        "chance_loss": task.chance_loss(),
        "parameters": sum(parameter.numel() for parameter in loop.sharded.module.parameters()),
        "images_seen": run.num_batches * run.recipe.total_batch_size,
        "training_flops": training_flops(run, task, loop.template),
        **{name.replace("eval_", "test_", 1): value for name, value in outcome.metrics.items()},
        **summarize_curve(losses, final_part=run.course.num_steps - run.course.last_change),
        "seconds": loop.progress.seconds,
        "cpu_seconds": loop.progress.cpu_seconds,
        "peak_memory_mib": peak_memory_mib(),
        **run.settings,
    }
    left_out = shutil.ignore_patterns(COMPLETE_FILE, EVALUATION_FILE)
    shutil.copytree(unfinished / BEST_LINK, folder, dirs_exist_ok=True, ignore=left_out)
    shutil.copy(unfinished / LOG_FILE, folder)
    write_json(folder / METRICS_FILE, metrics)
    shutil.rmtree(unfinished)
    return metrics


def training_flops(run: Run, task: Task, template: PreTrainedModel) -> int:
    """Floating-point operations of the forward and backward passes of the whole run."""
    total = 0
    for patch_size, batches in run.course.batches_by_patch_size().items():
        per_image = task.cost(template, patch_size).flops
        total += PASSES_PER_STEP * per_image * batches * run.recipe.total_batch_size
    return total


def _forget_other_run(unfinished: Path, settings: dict[str, Any]):
    """Removes what was begun with other settings, and notes the settings of what begins now."""
    path = unfinished / SETTINGS_FILE
    if path.exists() and json.loads(path.read_text()) == settings:
        return
    shutil.rmtree(unfinished, ignore_errors=True)
    unfinished.mkdir(parents=True)
    write_json(path, settings)
