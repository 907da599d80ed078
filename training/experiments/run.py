# Copyright 2026 The modeling_pixelvit team. All rights reserved.
# SPDX-License-Identifier: Apache-2.0
"""
One point of an experiment: a recipe and images in, a checkpoint folder with `metrics.json` out.

`metrics.json` is written last, so its presence says that the run is finished. Until then the folder holds a run of
`training.engine.loop`, which goes on after an interruption, to the same result as without one.
"""

import contextlib
import dataclasses
import datetime
import functools
import hashlib
import json
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import filelock
import torch
from accelerate import Accelerator
from huggingface_hub.utils import WeakFileLock

from ..checkpoints.cost import ModelCost, model_cost
from ..checkpoints.measured_cost import MeasuredCost, work_of
from ..common.files import write_json
from ..common.machine import code_revision, describe_versions, processor_name
from ..common.throughput import PASSES_PER_STEP, peak_memory_mib
from ..data.splits import Splits
from ..engine.checkpoints import BEST_LINK, COMPLETE_FILE, EVALUATION_FILE
from ..engine.evaluation import IMAGES_FILE
from ..engine.log import METRICS_FILE as LOG_FILE
from ..engine.log import read_metrics
from ..engine.loop import TrainingLoop
from ..engine.options import LoopOptions
from ..families.registry import FAMILIES
from ..settings.course import Course, batches_per_step
from ..settings.recipe import Recipe, build_recipe
from ..tasks.registry import TASKS
from .law import summarize_curve


METRICS_FILE = "metrics.json"
SETTINGS_FILE = "settings.json"
RUN_FILE = "run.json"
UNFINISHED_FOLDER = "unfinished_run"
LOCK_FILE = "run.lock"
SECONDS_BETWEEN_TRIES = 1.0
MINUTES_BETWEEN_CHECKPOINTS = 1 / 3


class Interrupted(Exception):
    """The run was told to stop, and can be continued."""


@dataclasses.dataclass(frozen=True)
class Run:
    """
    One training, and its test.

    Args:
        recipe: What is trained.
        num_batches: Batches of the recipe's size that it sees.
        data: What distinguishes the images: their source and size.
        folder: For checkpoint and metrics; its last part is the run's name.
        start: The run whose checkpoint it begins with.
        how: Options of the training loop that do not change the result.
    """

    recipe: Recipe
    num_batches: int
    data: dict[str, Any]
    folder: str
    start: "Run | None" = None
    how: dict[str, Any] = dataclasses.field(default_factory=dict)

    @property
    def name(self) -> str:
        return Path(self.folder).name

    @property
    def decoder(self) -> str | None:
        """Of a segmentation model."""
        return self.recipe.model.get("decoder_type")

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
        settings = {"recipe": dataclasses.asdict(self.recipe), "data": self.data}
        if self.start is not None:
            settings["start"] = self.start.settings
        return json.loads(json.dumps(settings))

    @property
    def key(self) -> str:
        """The same for the same settings, also after recipes have got further fields, whose defaults do not count."""
        return key_of(self.settings)

    def finished_metrics(self) -> dict[str, Any] | None:
        """
        The metrics of this run if it is finished.

        Raises:
            ValueError: if its file is damaged.
        """
        path = Path(self.folder, METRICS_FILE)
        try:
            metrics = json.loads(path.read_text())
            if metrics.keys() >= self.settings.keys():
                return metrics
        except FileNotFoundError:
            return None
        except (ValueError, AttributeError):
            pass
        raise ValueError(f"{path} is damaged; remove the file, and the run is carried out again.")

    @contextlib.contextmanager
    def alone(self, is_wanted: Callable[[], bool] = lambda: True) -> Iterator[None]:
        """
        Waits until no other process of this machine carries out the run, which two would do into one folder.

        Raises:
            Interrupted: if it is no longer wanted meanwhile.
        """
        Path(self.folder).mkdir(parents=True, exist_ok=True)
        with contextlib.ExitStack() as held:
            while True:
                try:
                    held.enter_context(WeakFileLock(Path(self.folder, LOCK_FILE), timeout=SECONDS_BETWEEN_TRIES))
                    break
                except filelock.Timeout:
                    if not is_wanted():
                        raise Interrupted(f"{self.name} waited for another process that carries it out.") from None
            yield


def key_of(settings: dict[str, Any]) -> str:
    """Of a run's settings, as they also stand in its metrics."""
    own = {"recipe": without_defaults(settings["recipe"]), "data": settings["data"]}
    if "start" in settings:
        own["start"] = key_of(settings["start"])
    return hashlib.sha256(json.dumps(own, sort_keys=True).encode()).hexdigest()[:10]


def without_defaults(recipe: dict[str, Any]) -> dict[str, Any]:
    """Of a recipe's fields, as JSON has them, those that differ from the defaults."""
    defaults = json.loads(json.dumps(dataclasses.asdict(Recipe())))
    return {name: value for name, value in recipe.items() if value != defaults.get(name, ...)}


def write_run(run: Run) -> Path:
    """Writes what another process needs to carry out a run to the run's folder; returns the file."""
    folder = Path(run.folder)
    folder.mkdir(parents=True, exist_ok=True)
    write_json(folder / RUN_FILE, dataclasses.asdict(run))
    return folder / RUN_FILE


def read_run(path: str | Path) -> Run:
    """
    What `write_run` wrote.

    Raises:
        ValueError: if there is no such file, or it is something else.
    """
    try:
        return _run_from(json.loads(Path(path).read_text()))
    except (OSError, TypeError, KeyError, ValueError) as error:
        raise ValueError(f"{path} was given, which is no run that was written down ({error}).") from None


def _run_from(fields: dict[str, Any]) -> Run:
    start = None if fields["start"] is None else _run_from(fields["start"])
    recipe = build_recipe(fields["recipe"], "the run")
    return Run(**{**fields, "recipe": recipe, "start": start})


def execute(
    run: Run,
    images: Any,
    report: Callable[[int, float], None] = lambda step, loss: None,
    accelerator: Accelerator | None = None,
) -> dict[str, Any]:
    """
    Trains, tests and saves one run, from where it was interrupted if it was. Every process of a run that several share
    calls this.

    Args:
        run: What to do; `run.folder` is made.
        images: The images that `run.data` tells of.
        report: Called after every step with the steps done and the step's training loss.
        accelerator: The devices; one process on the CPU if not given.

    Returns:
        What `metrics.json` holds.

    Raises:
        Interrupted: after SIGINT or SIGTERM and a checkpoint.
        ValueError: if the devices cannot share the run's batch.
    """
    accelerator = accelerator or Accelerator(cpu=True)
    folder = Path(run.folder)
    unfinished = folder / UNFINISHED_FOLDER
    if accelerator.is_main_process:
        _forget_other_run(unfinished, run.settings)
    accelerator.wait_for_everyone()
    how = {"eval_epochs": 0, "logging_steps": 1, "save_minutes": MINUTES_BETWEEN_CHECKPOINTS, "keep_checkpoints": 1}
    options = LoopOptions(**{**how, **run.how}, output_dir=str(unfinished), resume="auto", report_to="none")
    recipe = run.recipe
    if run.start is not None:
        recipe = dataclasses.replace(recipe, initial_checkpoint=run.start.folder)
    task = TASKS[recipe.task](recipe, images)
    loop = TrainingLoop(accelerator, recipe, task, options, quiet=True)
    outcome = loop.run(report)
    if outcome.signal:
        raise Interrupted(f"{run.name} was stopped by signal {outcome.signal}; it can go on.")
    metrics = {
        "task": recipe.task,
        "name": run.name,
        "family": recipe.family,
        "decoder": run.decoder,
        "patch_size": recipe.patch_size,
        "seed": recipe.seed,
        "tokens": run.num_tokens,
        "num_classes": len(images.label_names),
        "chance_loss": task.chance_loss(),
        "parameters": sum(parameter.numel() for parameter in loop.template.parameters()),
        "images_seen": run.num_batches * recipe.total_batch_size,
        "training_flops": training_cost(run, len(images.label_names)),
        **{name.replace("eval_", "test_", 1): value for name, value in outcome.metrics.items()},
        "seconds": loop.progress.seconds,
        "cpu_seconds": loop.progress.cpu_seconds,
        "peak_memory_mib": peak_memory_mib(accelerator.device),
        "made_with": describe_origin(accelerator),
        "images": tell_images(images),
        **run.settings,
    }
    if accelerator.is_main_process:
        losses = [record["loss"] for record in read_metrics(unfinished) if "loss" in record]
        metrics |= summarize_curve(losses, final_part=run.course.num_steps - run.course.last_change)
        left_out = shutil.ignore_patterns(COMPLETE_FILE, EVALUATION_FILE)
        shutil.copytree(unfinished / BEST_LINK, folder, dirs_exist_ok=True, ignore=left_out)
        shutil.copy(unfinished / LOG_FILE, folder)
        if (unfinished / IMAGES_FILE).exists():
            shutil.copy(unfinished / IMAGES_FILE, folder)
            metrics["image_values"] = IMAGES_FILE
        write_json(folder / METRICS_FILE, metrics)
        shutil.rmtree(unfinished)
    accelerator.wait_for_everyone()
    return metrics


def tell_images(images: Splits) -> dict[str, Any]:
    """`Splits.identity`, as each run's metrics hold it: with a digest of the classes' names."""
    found = images.identity()
    digest = hashlib.sha256(json.dumps(found["label_names"]).encode()).hexdigest()[:10]
    return {"train": found["num_train_images"], "test": found["num_test_images"], "classes": digest}


def check_same_images(run: Run, metrics: dict[str, Any] | None, images: dict[str, Any] | None):
    """
    Args:
        run: Finished or not.
        metrics: What is known of it; None if nothing is.
        images: What `tell_images` says of its data set now; None if that has not been loaded.

    Raises:
        ValueError: if a finished run was made with other images than those that its data set has now.
    """
    then = (metrics or {}).get("images", images)  # older runs do not tell
    is_embedded = run.data["source"] == TASKS[run.recipe.task].embedded_images.title
    if images is not None and not is_embedded and then != images:
        classes = "the same" if then["classes"] == images["classes"] else "other"
        known = "leave out the file of --known that has it" if run.finished_metrics() is None else "remove the run"
        raise ValueError(
            f"{run.folder} was made with {then['train']:,} training and {then['test']:,} test images, and "
            f"{run.data['source']} now holds {images['train']:,} and {images['test']:,} of {classes} classes; put the "
            f"new ones into a folder of another name, or {known}."
        )


def describe_origin(accelerator: Accelerator) -> dict[str, Any]:
    """The devices, packages and code that a run was made with."""
    on_gpu = accelerator.device.type == "cuda"
    return {
        "device": torch.cuda.get_device_name(accelerator.device) if on_gpu else processor_name(),
        "processes": accelerator.num_processes,
        "precision": accelerator.mixed_precision,
        "threads": torch.get_num_threads(),  # on which a CPU's rounding depends
        "versions": describe_versions(),
        "revision": code_revision(),
        "date": datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds"),
    }


_KNOWN_COSTS: dict[tuple[str, str], ModelCost] = {}


def cost_of(recipe: Recipe, num_labels: int, patch_size: int) -> ModelCost:
    """Of a recipe's model with so many classes, read by such patches."""
    config = recipe.build_config(num_labels=num_labels)
    config.patch_size = patch_size
    model_class = FAMILIES[recipe.family].model_classes[TASKS[recipe.task].architecture]
    key = model_class.__name__, config.to_json_string(use_diff=False)
    if key not in _KNOWN_COSTS:  # seeds share a model, which takes a while to build
        _KNOWN_COSTS[key] = model_cost(config, model_class.__name__)
    return _KNOWN_COSTS[key]


def forward_flops(recipe: Recipe, num_labels: int, patch_size: int) -> int:
    """Operations of one image's forward pass."""
    return cost_of(recipe, num_labels, patch_size).flops


def training_seconds(run: Run, num_labels: int, measured: MeasuredCost) -> float:
    """
    Of the whole run on one device like the one that was measured.

    Raises:
        ValueError: if the run's family was not measured.
    """
    recipe, fit = run.recipe, measured.of_training(run.recipe.family)
    accumulation = run.how.get("gradient_accumulation_steps", 1)
    seconds = 0.0
    for size, count in run.course.batches_by_patch_size().items():
        config = recipe.build_config(num_labels=num_labels)
        config.patch_size = size
        work = work_of(config, forward_flops(recipe, num_labels, size))
        together = batches_per_step(recipe, size)
        images = recipe.total_batch_size * together // accumulation
        seconds += accumulation * count / together * fit.seconds(work, images)
    return seconds


def training_cost(run: Run, num_labels: int) -> int:
    """Floating-point operations of the forward and backward passes of the whole run."""
    batches = run.course.batches_by_patch_size()
    images = {size: count * run.recipe.total_batch_size for size, count in batches.items()}
    return sum(PASSES_PER_STEP * forward_flops(run.recipe, num_labels, size) * count for size, count in images.items())


def _forget_other_run(unfinished: Path, settings: dict[str, Any]):
    """Removes what was begun with other settings, and notes the settings of what begins now."""
    path = unfinished / SETTINGS_FILE
    with contextlib.suppress(OSError, ValueError):  # there is none, or it is damaged
        if json.loads(path.read_text()) == settings:
            return
    shutil.rmtree(unfinished, ignore_errors=True)
    unfinished.mkdir(parents=True)
    write_json(path, settings)
