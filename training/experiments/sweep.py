# Copyright 2026 The modeling_pixelvit team. All rights reserved.
# SPDX-License-Identifier: Apache-2.0
"""
The sweep: an experiment over patch sizes that options of the command line make, whose runs lie together in one folder
under short names.
"""

import argparse
import dataclasses
import math
import tempfile
from pathlib import Path
from typing import Any

from ..settings.recipe import Recipe
from ..tasks.base import Task
from ..tasks.registry import TASKS
from .arguments import DATASET_IMAGE_SIZE, RECIPE_OPTIONS, sweep_recipes
from .carrying import Carrying
from .changes import head_width
from .definition import Experiment, build_experiment, load_scales
from .experiment import Outcome, exit_status
from .images import load_run_images
from .known import Results
from .points import Choices, Planner, Point
from .predictions import PREDICTIONS_FILE, draw_predictions, save_example
from .run import METRICS_FILE, Run, check_same_images, tell_images
from .workers import Resources


DECODERS = {"none": "no decoder", "upernet": "UperNet"}
POSITIVE_OPTIONS = (
    "image_size",
    "train_images",
    "epochs",
    "batch_size",
    "width",
    "num_blocks",
    "peak_rate",
    "workers",
    "threads",
)
LOADING_EXAMPLE = """\
import modeling_pixelvit  # registers the models
from transformers import pipeline

find = pipeline({hub_task!r}, {checkpoint!r})
print([found["label"] for found in find({image!r})])  # the picture shows: {answer}
"""


def sweep(options: argparse.Namespace, command: str) -> int:
    """The whole sweep; returns the process's exit status."""
    folder, task = Path(options.output_dir), TASKS[options.task]
    with tempfile.TemporaryDirectory(prefix="sweep-") as images_folder:
        images = load_sweep_images(options, Path(images_folder))
        experiment, points = plan_sweep(options, images)
        runs = [point.run for point in points]
        forget_other_runs(runs, images, options.overwrite)
        results, size = Results(), runs[0].recipe.image_size
        to_do = results.to_do(runs)
        print(
            f"{images.name}: {len(images.train):,} training images, {len(images.evaluation):,} test images, "
            f"{size} by {size} pixels. {len(to_do)} of {len(runs)} runs to do, {options.workers} at a "
            "time."
        )

        place = f"{images.name}, {size} by {size} pixels"
        outcome = Outcome(experiment, place, points, results, folder, command)
        carrying = Carrying(resources=Resources(options.workers, options.threads))
        errors = outcome.carry_out(to_do, carrying, images_folder)
        if rows := outcome.rows():
            show_checkpoints(task, rows, images, folder)
        return exit_status(errors)


def show_checkpoints(task: type[Task], rows: list[dict[str, Any]], images: Any, folder: Path):
    """Draws what the best family's models see, and prints how to load the best one."""
    best = min(rows, key=lambda run: run["test_loss"])
    if draw_predictions(task, [run for run in rows if run["family"] == best["family"]], images, folder):
        print(f"Predictions: {folder / PREDICTIONS_FILE}")
    image, answer = save_example(task, images, folder)
    print("\nTo load a checkpoint (here the one with the lowest test loss):\n")
    checkpoint, hub_task = str(folder / best["name"]), task.architecture.hub_task
    print(LOADING_EXAMPLE.format(hub_task=hub_task, checkpoint=checkpoint, image=str(image), answer=answer))


def load_sweep_images(options: argparse.Namespace, folder: Path) -> Any:
    """
    The images of all runs; those of a data set of classes are stored in the folder.

    Raises:
        ValueError: for an option out of range, or images that cannot be had, in one sentence.
    """
    embedded = TASKS[options.task].embedded_images
    image_size = options.image_size or (DATASET_IMAGE_SIZE if options.dataset else embedded.image_size)
    recipes = sweep_recipes(options.task)
    check_arguments(options, recipes, image_size)
    return load_run_images(next(iter(recipes.values())), options.dataset or embedded.title, image_size, folder)


def check_arguments(options: argparse.Namespace, recipes: dict[str, Recipe], image_size: int):
    """
    Raises:
        ValueError: for an option out of range, in one sentence.
    """
    for name in POSITIVE_OPTIONS:
        value = getattr(options, name)
        if value is not None and not 0 < value < math.inf:
            raise ValueError(f"--{name} {value} was given; it must be finite and above zero.")
    if not set(options.decoder.split(",")) <= DECODERS.keys():
        raise ValueError(f"--decoder {options.decoder} was given; choose none, upernet or none,upernet.")
    if options.decoder != "none" and "decoder" not in TASKS[options.task].options:
        raise ValueError(f"--decoder {options.decoder} was given; --task {options.task} has no decoder to choose.")
    for family in options.families:
        head_dim = head_width(recipes[family])
        if options.width is not None and options.width % head_dim:
            raise ValueError(
                f"--width {options.width} was given; {family} takes multiples of its head width {head_dim}."
            )
    for patch_size in options.patch_sizes or TASKS[options.task].patch_sizes:
        if patch_size < 1 or image_size % patch_size:
            divisors = [str(size) for size in range(1, image_size + 1) if image_size % size == 0]
            raise ValueError(
                f"--patch_sizes {patch_size} was given, which does not divide images of {image_size} pixels; choose "
                f"from {', '.join(divisors)}, or change --image_size."
            )


def plan_sweep(options: argparse.Namespace, images: Any) -> tuple[Experiment, list[Point]]:
    """
    The experiment that the options ask for, and all of its points, finished or not.

    Args:
        images: The splits of all runs, of which `train` and `label_names` are looked at.

    Raises:
        ValueError: for a value that a recipe or a model does not take.
    """
    base = {field: getattr(options, name) for name, (_, field, _) in RECIPE_OPTIONS.items()}
    base = {field: value for field, value in base.items() if value is not None}
    if base.get("patch_schedule") == ["none"]:
        base["patch_schedule"] = []
    seed = base.pop("seed", Recipe.seed)
    grid = {"patch_size": list(dict.fromkeys(options.patch_sizes or TASKS[options.task].patch_sizes))}
    grids, decoders = [grid], list(dict.fromkeys(options.decoder.split(",")))
    if "decoder" in TASKS[options.task].options:
        grids = [{"label": DECODERS[decoder], "decoder_type": decoder, **grid} for decoder in decoders]
    fields = {
        "title": "Test loss against patch size",
        "question": "Does test loss fall with the patch, one recipe for all patch sizes?",
        "task": options.task,
        "families": options.families,
        "seeds": list(dict.fromkeys(options.seeds or [seed])),
        "base": base,
        "grids": grids,
        "reference": DECODERS["none"] if len(decoders) > 1 else None,
    }
    experiment = build_experiment({"name": "sweep", **fields}, "the command line")
    choices = Choices(
        points_dir=options.output_dir,
        dataset=options.dataset,
        image_size=options.image_size,
        epochs=options.train_images / len(images.train) if options.train_images else options.epochs,
    )
    planner = Planner(experiment, load_scales()["digits"], choices, lambda recipe, source, image_size: images)

    def named(point: Point) -> Point:
        name = name_of(point.run.recipe, with_seed=len(experiment.seeds) > 1)
        return dataclasses.replace(
            point, run=dataclasses.replace(point.run, folder=str(Path(options.output_dir, name)))
        )

    return experiment, list(map(named, planner.points()))


def name_of(recipe: Recipe, with_seed: bool = False) -> str:
    """Of a run's folder: family, decoder if there is one, patch size."""
    decoder = recipe.model.get("decoder_type", "none")
    of_decoder = "" if decoder == "none" else f"-{decoder}"
    return f"{recipe.family}{of_decoder}-patch{recipe.patch_size}" + (f"-seed{recipe.seed}" if with_seed else "")


def forget_other_runs(runs: list[Run], images: Any, overwrite: bool):
    """
    Makes finished runs unfinished that were made with other settings or images than those that are asked for now.

    Raises:
        ValueError: if there is one and `overwrite` is not set.
    """
    for run in runs:
        metrics = run.finished_metrics()
        if metrics is None:
            continue
        try:
            if differences := describe_differences(metrics, run.settings):
                raise ValueError(
                    f"{run.folder} holds a finished run with other settings ({differences}); give another "
                    "--output_dir to keep it, or --overwrite to repeat it."
                )
            check_same_images(run, metrics, tell_images(images))
        except ValueError:
            if not overwrite:
                raise
            Path(run.folder, METRICS_FILE).unlink()


def describe_differences(metrics: dict[str, Any], settings: dict[str, Any]) -> str:
    """
    What a finished run was made with and what is asked for now, where they differ. A recipe without one of today's
    fields, from before there was such a field, means what is the default today.
    """
    differences, defaults = [], {"recipe": dataclasses.asdict(Recipe())}
    for part, wanted in settings.items():
        found = {**defaults.get(part, {}), **metrics.get(part, {})}
        for name in sorted(found.keys() | wanted.keys()):
            if found.get(name) != wanted.get(name):
                differences.append(f"{name}: {found.get(name)} there, {wanted.get(name)} now")
    return "; ".join(differences)
