# Copyright 2026 The modeling_pixelvit team. All rights reserved.
# SPDX-License-Identifier: Apache-2.0
"""A sweep from its options to its report."""

import argparse
import sys
import tempfile
import textwrap
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from .arguments import DATASET_IMAGE_SIZE
from .images import load_sweep_images, store_images
from .law import judge_convergence
from .plan import check_arguments, plan_runs, unfinished_runs
from .predictions import PREDICTIONS_FILE, draw_predictions, save_example
from .report import (
    PICTURE_FILE,
    RESULTS_FILE,
    TABLE_FILE,
    draw,
    format_preview,
    format_report,
    write_results,
)
from .run import Run
from .tasks import SWEEP_TASKS
from .workers import WorkerPool


LOADING_EXAMPLES = {
    "classification": """\
        import modeling_pixelvit  # registers the models
        from PIL import Image
        from transformers import AutoImageProcessor, AutoModelForImageClassification

        folder = {checkpoint!r}
        model = AutoModelForImageClassification.from_pretrained(folder)
        processor = AutoImageProcessor.from_pretrained(folder)
        inputs = processor(Image.open({image!r}), return_tensors="pt")
        print(model.config.id2label[model(**inputs).logits.argmax(-1).item()])  # the picture shows: {answer}
        """,
    "segmentation": """\
        import modeling_pixelvit  # registers the models
        from transformers import pipeline

        segmenter = pipeline("image-segmentation", {checkpoint!r})
        print([segment["label"] for segment in segmenter({image!r})])  # the picture shows: {answer}
        """,
    "detection": """\
        import modeling_pixelvit  # registers the models
        from transformers import pipeline

        detector = pipeline("object-detection", {checkpoint!r})
        print(detector({image!r}))  # the picture shows: {answer}
        """,
}


def loading_example(run: dict[str, Any], folder: Path, image: Path, answer: str) -> str:
    """A program that loads a checkpoint and says what is on an image."""
    program = textwrap.dedent(LOADING_EXAMPLES[run["task"]])
    return program.format(checkpoint=str(folder / run["name"]), image=str(image), answer=answer)


def report(runs: list[dict[str, Any]], images: Any, options: argparse.Namespace, command: str):
    """Writes table, pictures and results, and prints what they say."""
    folder = Path(options.output_dir)
    text = format_report(runs)
    (folder / TABLE_FILE).write_text(text)
    size = runs[0]["data"]["image_size"]
    seen = " and ".join(f"{number:,}" for number in dict.fromkeys(run["images_seen"] for run in runs))
    title = f"{images.name} on {size} by {size} pixels, {seen} images seen"
    draw(runs, title, folder / PICTURE_FILE)
    write_results(runs, folder, command, options.workers, options.threads)
    print(f"\n{text}\nPicture: {folder / PICTURE_FILE}\nNumbers: {folder / RESULTS_FILE}")
    best = min(runs, key=lambda run: run["test_loss"])
    if options.task != "classification":
        draw_predictions([run for run in runs if run["family"] == best["family"]], images, folder)
        print(f"Predictions: {folder / PREDICTIONS_FILE}")
    image, answer = save_example(images, folder)
    print("\nTo load a checkpoint (here the one with the lowest test loss):\n")
    print(loading_example(best, folder, image, answer))


def sweep(options: argparse.Namespace, command: str) -> int:
    """The whole sweep; returns the process's exit status."""
    kind = SWEEP_TASKS[options.task]
    image_size = options.image_size or (DATASET_IMAGE_SIZE if options.dataset else kind.image_size)
    check_arguments(options, image_size)
    source = options.dataset or kind.source
    with tempfile.TemporaryDirectory(prefix="sweep-") as images_folder:
        if options.dataset and options.task == "classification":
            store_images(source, image_size, Path(images_folder))
        images = load_sweep_images(options.task, source, image_size, Path(images_folder))
        runs = plan_runs(options, image_size, len(images.train), {"source": source, "image_size": image_size})
        to_do = unfinished_runs(runs, options.overwrite)
        Path(options.output_dir).mkdir(parents=True, exist_ok=True)
        print(
            f"{images.name}: {len(images.train):,} training images, {len(images.evaluation):,} test images, "
            f"{image_size} by {image_size} pixels. {len(to_do)} of {len(runs)} runs to do, {options.workers} at a time."
        )
        started = time.monotonic()
        errors = train_runs(to_do, runs, images_folder, options) if to_do else {}
        print(f"{len(to_do) - len(errors)} runs done in {time.monotonic() - started:.0f} s.")
        finished = judge_convergence([metrics for run in runs if (metrics := run.finished_metrics()) is not None])
        if finished:
            report(finished, images, options, command)
    for name, error in errors.items():
        print(f"{name} failed:\n{error}", file=sys.stderr)
    return 1 if errors else 0


def train_runs(to_do: list[Run], runs: list[Run], images_folder: str, options: argparse.Namespace) -> dict[str, str]:
    """Trains what is to do, and shows what all runs have come to whenever one ends; the errors by the run's name."""

    def show(run: Run, write: Callable[[str], None]):
        finished = [metrics for run in runs if (metrics := run.finished_metrics()) is not None]
        if len(finished) < len(runs):
            write(f"\n{format_preview(finished, [run.recipe.patch_size for run in runs])}\n")

    num_series = len({(run.recipe.family, run.decoder) for run in runs})
    pool = WorkerPool(to_do, images_folder, options.workers, options.threads, finished=show, short_runs=2 * num_series)
    return pool.execute()
