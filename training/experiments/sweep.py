# Copyright 2026 The modeling_pixelvit team. All rights reserved.
# SPDX-License-Identifier: Apache-2.0
"""A sweep from its options to its report."""

import argparse
import tempfile
from pathlib import Path
from typing import Any

from ..tasks.registry import TASKS
from .arguments import DATASET_IMAGE_SIZE, sweep_recipes
from .carrying import Carrying, SoFar, carry_out
from .images import load_run_images
from .plan import check_arguments, plan_runs, unfinished_runs
from .predictions import PREDICTIONS_FILE, draw_predictions, save_example
from .report import (
    PICTURE_FILE,
    RESULTS_FILE,
    TABLE_FILE,
    draw,
    fit_series,
    format_report,
    write_results,
)
from .run import check_same_images, tell_images
from .workers import Resources


LOADING_EXAMPLE = """\
import modeling_pixelvit  # registers the models
from transformers import pipeline

find = pipeline({hub_task!r}, {checkpoint!r})
print([found["label"] for found in find({image!r})])  # the picture shows: {answer}
"""


def report(runs: list[dict[str, Any]], images: Any, options: argparse.Namespace, command: str):
    """Writes table, pictures and results, and prints what they say."""
    folder = Path(options.output_dir)
    fits = fit_series(runs)
    text = format_report(runs, fits)
    (folder / TABLE_FILE).write_text(text)
    size = runs[0]["data"]["image_size"]
    seen = " and ".join(f"{number:,}" for number in dict.fromkeys(run["images_seen"] for run in runs))
    title = f"{images.name} on {size} by {size} pixels, {seen} images seen"
    draw(runs, fits, title, folder / PICTURE_FILE)
    write_results(runs, fits, folder, command, options.workers, options.threads)
    print(f"\n{text}\nPicture: {folder / PICTURE_FILE}\nNumbers: {folder / RESULTS_FILE}")
    best = min(runs, key=lambda run: run["test_loss"])
    task = TASKS[options.task]
    if draw_predictions(task, [run for run in runs if run["family"] == best["family"]], images, folder):
        print(f"Predictions: {folder / PREDICTIONS_FILE}")
    image, answer = save_example(task, images, folder)
    print("\nTo load a checkpoint (here the one with the lowest test loss):\n")
    checkpoint, hub_task = str(folder / best["name"]), task.architecture.hub_task
    print(LOADING_EXAMPLE.format(hub_task=hub_task, checkpoint=checkpoint, image=str(image), answer=answer))


def sweep(options: argparse.Namespace, command: str) -> int:
    """The whole sweep; returns the process's exit status."""
    embedded = TASKS[options.task].embedded_images
    image_size = options.image_size or (DATASET_IMAGE_SIZE if options.dataset else embedded.image_size)
    check_arguments(options, image_size)
    source = options.dataset or embedded.title
    with tempfile.TemporaryDirectory(prefix="sweep-") as images_folder:
        data = {"source": source, "image_size": image_size}
        recipe = next(iter(sweep_recipes(options.task).values()))
        images = load_run_images(recipe, **data, folder=Path(images_folder))
        runs = plan_runs(options, image_size, len(images.train), data)
        to_do = unfinished_runs(runs, options.overwrite)
        images_now = tell_images(images)
        for run in runs:
            check_same_images(run, images_now)
        Path(options.output_dir).mkdir(parents=True, exist_ok=True)
        print(
            f"{images.name}: {len(images.train):,} training images, {len(images.evaluation):,} test images, "
            f"{image_size} by {image_size} pixels. {len(to_do)} of {len(runs)} runs to do, {options.workers} at a time."
        )

        def look() -> SoFar:
            finished = [metrics for run in runs if (metrics := run.finished_metrics()) is not None]
            return SoFar(finished, len(runs) - len(finished), [run.recipe.patch_size for run in runs])

        num_series = len({(run.recipe.family, run.decoder) for run in runs})
        return carry_out(
            to_do,
            Carrying(resources=Resources(options.workers, options.threads)),
            images_folder,
            Path(options.output_dir),
            look,
            lambda finished: report(finished, images, options, command),
            title="sweep",
            short_runs=2 * num_series,
        )
