# Copyright 2026 The modeling_pixelvit team. All rights reserved.
# SPDX-License-Identifier: Apache-2.0
"""
The patch-size sweep: each family at every patch size, under one recipe, on real images that need no download.

    python -m training.sweep                                       # 14 minutes on two cores
    python -m training.sweep --dataset path/to/folder --image_size 64 --patch_sizes 16 8 4
    python -m training.sweep --help

It ends with a table, a picture of test loss against patch size with the fitted power law, `results.json` and a
checkpoint folder for every run. An interrupted sweep goes on where it stopped when the same command is given again;
what is finished is not repeated.
"""

import argparse
import dataclasses
import os
import shlex
import signal
import sys
import tempfile
import textwrap
import time
from pathlib import Path
from typing import Any

from .batches import TrainingBatches
from .labelled_images import LabelledSplits
from .recipe import CONFIG_CLASSES, Recipe, load_recipe
from .sweep_images import EMBEDDED_DIGITS, load_sweep_images, store_images
from .sweep_law import judge_convergence
from .sweep_report import PICTURE_FILE, RESULTS_FILE, TABLE_FILE, draw, format_report, write_results
from .sweep_run import METRICS_FILE, Run
from .sweep_workers import WorkerPool


DIGITS_IMAGE_SIZE = 16
DATASET_IMAGE_SIZE = 32
DATASET_EPOCHS = 20
MOST_WORKERS = 4
TRAIN_IMAGES = 40_000
WARMUP_SHARE = 0.1  # of a run
# What the command line can change, for all runs alike: (type, field of the recipe or of its model, help).
RECIPE_OPTIONS = {
    "batch_size": (int, "total_batch_size", "images per step"),
    "width": (int, "hidden_size", "hidden size"),
    "num_blocks": (int, "num_hidden_layers", "blocks of a model"),
    "peak_rate": (float, "base_learning_rate", "AdamW's learning rate after the warmup"),
    "seed": (int, "seed", "of initial weights, and of order and placement in training"),
}
FAMILIES = tuple(CONFIG_CLASSES)
RECIPES = {family: load_recipe(f"{family}-sweep") for family in FAMILIES}
POSITIVE_OPTIONS = ("image_size", "train_images", "epochs", "batch_size", "width", "num_blocks", "peak_rate")


def recipe_value(recipe: Recipe, field: str) -> Any:
    """A field of a recipe, or of its model."""
    return recipe.model[field] if field in recipe.model else getattr(recipe, field)


def describe_default(field: str) -> str:
    """The default of a recipe's field, family by family where they differ."""
    values = {family: recipe_value(recipe, field) for family, recipe in RECIPES.items()}
    if len(set(values.values())) == 1:
        return f"default: {values.popitem()[1]}"
    return "default: " + ", ".join(f"{family} {value}" for family, value in values.items())


def parse_arguments(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m training.sweep",
        description="Trains each model family at every patch size under one recipe and fits the scaling law.",
    )
    add = parser.add_argument
    add("--output_dir", default="runs/sweep", help="folder for checkpoints, table, picture and results.json")
    add("--families", nargs="+", default=list(FAMILIES), choices=FAMILIES, help="model families")
    add("--patch_sizes", nargs="+", type=int, default=[16, 8, 4, 2, 1], help="sides of a patch in pixels")
    add("--dataset", help="image folder or hub data set to train on instead of the embedded digits")
    add("--image_size", type=int, help=f"side in pixels ({DIGITS_IMAGE_SIZE}; with --dataset {DATASET_IMAGE_SIZE})")
    length = parser.add_mutually_exclusive_group()
    length.add_argument(
        "--train_images",
        type=int,
        help=f"images a run sees, for the digits placements (default: {TRAIN_IMAGES})",
    )
    length.add_argument("--epochs", type=float, help=f"the same in epochs (with --dataset {DATASET_EPOCHS})")
    for name, (kind, field, text) in RECIPE_OPTIONS.items():
        add(f"--{name}", type=kind, help=f"{text} ({describe_default(field)})")
    cores = os.cpu_count() or 1
    add("--workers", type=int, default=min(cores, MOST_WORKERS), help="runs at a time, each in its own process")
    add("--threads", type=int, default=1, help="PyTorch's threads in each process; results depend on it")
    add("--overwrite", action="store_true", help="repeat finished runs that were made with other settings")
    return parser.parse_args(arguments)


def check_arguments(options: argparse.Namespace, image_size: int):
    """
    Raises:
        ValueError: for an option out of range, in one sentence.
    """
    for name in (*POSITIVE_OPTIONS, "workers", "threads"):
        value = getattr(options, name)
        if value is not None and value <= 0:
            raise ValueError(f"--{name} {value} was given; it must be above zero.")
    for family in options.families:
        head_dim = head_width(RECIPES[family])
        if options.width is not None and options.width % head_dim:
            raise ValueError(
                f"--width {options.width} was given; {family} takes multiples of its head width {head_dim}."
            )
    for patch_size in options.patch_sizes:
        if patch_size < 1 or image_size % patch_size:
            divisors = [str(size) for size in range(1, image_size + 1) if image_size % size == 0]
            raise ValueError(
                f"--patch_sizes {patch_size} was given, which does not divide images of {image_size} pixels; choose "
                f"from {', '.join(divisors)}, or change --image_size."
            )


def head_width(recipe: Recipe) -> int:
    """Width of a head, in the attention and in the scan, which another hidden size keeps."""
    model = recipe.model
    return model["head_dim"] if "head_dim" in model else model["hidden_size"] // model["num_attention_heads"]


def change_recipe(recipe: Recipe, changes: dict[str, Any]) -> Recipe:
    """The recipe with other values of its fields or of its model's."""
    of_model = {name: value for name, value in changes.items() if name in recipe.model}
    if "hidden_size" in of_model and "num_attention_heads" in recipe.model:
        of_model["num_attention_heads"] = of_model["hidden_size"] // head_width(recipe)
        of_model["intermediate_size"] = 4 * of_model["hidden_size"]
    of_recipe = {name: value for name, value in changes.items() if name not in recipe.model}
    return dataclasses.replace(recipe, **of_recipe, model={**recipe.model, **of_model})


def plan_runs(options: argparse.Namespace, image_size: int, num_train: int, data: dict[str, Any]) -> list[Run]:
    """All runs that the options ask for, finished or not, on a data set of so many training images."""
    changes = {field: getattr(options, name) for name, (_, field, _) in RECIPE_OPTIONS.items()}
    changes = {field: value for field, value in changes.items() if value is not None}
    train_images = options.train_images
    if train_images is None and (options.epochs or options.dataset):
        train_images = round((options.epochs or DATASET_EPOCHS) * num_train)
    runs = []
    for family in options.families:
        recipe = change_recipe(RECIPES[family], {**changes, "image_size": image_size})
        steps_per_epoch = TrainingBatches(recipe, num_train).steps_per_epoch
        num_steps = (train_images or TRAIN_IMAGES) // recipe.total_batch_size
        if num_steps == 0:
            raise ValueError(
                f"{train_images} training images are fewer than one batch of {recipe.total_batch_size}; give more."
            )
        epochs = num_steps / steps_per_epoch
        for patch_size in dict.fromkeys(options.patch_sizes):
            run_recipe = dataclasses.replace(
                recipe, patch_size=patch_size, num_train_epochs=epochs, warmup_epochs=WARMUP_SHARE * epochs
            )
            folder = Path(options.output_dir, f"{family}-patch{patch_size}")
            runs.append(Run(run_recipe, num_steps, data, str(folder)))
    return runs


def unfinished_runs(runs: list[Run], overwrite: bool) -> list[Run]:
    """
    The runs still to do.

    Raises:
        ValueError: if a finished run was made with other settings and `overwrite` is not set.
    """
    unfinished = []
    for run in runs:
        metrics = run.finished_metrics()
        if metrics is not None and (differences := describe_differences(metrics, run.settings)):
            if not overwrite:
                raise ValueError(
                    f"{run.folder} holds a finished run with other settings ({differences}); give another "
                    "--output_dir to keep it, or --overwrite to repeat it."
                )
            Path(run.folder, METRICS_FILE).unlink()
            metrics = None
        if metrics is None:
            unfinished.append(run)
    return unfinished


def describe_differences(metrics: dict[str, Any], settings: dict[str, Any]) -> str:
    """What a finished run was made with and what is asked for now, where they differ."""
    differences = []
    for part, wanted in settings.items():
        found = metrics.get(part, {})
        for name in sorted(found.keys() | wanted.keys()):
            if found.get(name) != wanted.get(name):
                differences.append(f"{name}: {found.get(name)} there, {wanted.get(name)} now")
    return "; ".join(differences)


def save_example(images: LabelledSplits, folder: Path) -> tuple[Path, str]:
    """Writes the first test image, for trying a checkpoint; returns its path and its class."""
    path = folder / "test_image.png"
    image, label = images.evaluation[0]
    image.save(path)
    return path, images.label_names[label]


def loading_example(run: dict[str, Any], folder: Path, image: Path, label: str) -> str:
    """A program that loads a checkpoint and names the class of an image."""
    checkpoint = folder / f"{run['family']}-patch{run['patch_size']}"
    return textwrap.dedent(f"""\
        import modeling_pixelvit  # registers the models
        from PIL import Image
        from transformers import AutoImageProcessor, AutoModelForImageClassification

        folder = {str(checkpoint)!r}
        model = AutoModelForImageClassification.from_pretrained(folder)
        processor = AutoImageProcessor.from_pretrained(folder)
        inputs = processor(Image.open({str(image)!r}), return_tensors="pt")
        print(model.config.id2label[model(**inputs).logits.argmax(-1).item()])  # the picture shows: {label}
        """)


def report(runs: list[dict[str, Any]], images: LabelledSplits, options: argparse.Namespace, command: str):
    """Writes table, picture and results, and prints what they say."""
    folder = Path(options.output_dir)
    text = format_report(runs)
    (folder / TABLE_FILE).write_text(text)
    size = runs[0]["data"]["image_size"]
    title = f"{images.name} on {size} by {size} pixels, {runs[0]['images_seen']:,} images seen"
    draw(runs, title, folder / PICTURE_FILE)
    write_results(runs, folder, command, options.workers, options.threads)
    print(f"\n{text}\nPicture: {folder / PICTURE_FILE}\nNumbers: {folder / RESULTS_FILE}")
    best = min(runs, key=lambda run: run["test_loss"])
    image, label = save_example(images, folder)
    print("\nTo load a checkpoint (here the one with the lowest test loss):\n")
    print(loading_example(best, folder, image, label))


def sweep(options: argparse.Namespace, command: str) -> int:
    """The whole sweep; returns the process's exit status."""
    image_size = options.image_size or (DATASET_IMAGE_SIZE if options.dataset else DIGITS_IMAGE_SIZE)
    check_arguments(options, image_size)
    source = options.dataset or EMBEDDED_DIGITS
    with tempfile.TemporaryDirectory(prefix="sweep-") as images_folder:
        if source != EMBEDDED_DIGITS:
            store_images(source, image_size, Path(images_folder))
        images = load_sweep_images(source, image_size, Path(images_folder))
        runs = plan_runs(options, image_size, len(images.train), {"source": source, "image_size": image_size})
        to_do = unfinished_runs(runs, options.overwrite)
        Path(options.output_dir).mkdir(parents=True, exist_ok=True)
        print(
            f"{images.name}: {len(images.train):,} training images, {len(images.evaluation):,} test images, "
            f"{image_size} by {image_size} pixels. {len(to_do)} of {len(runs)} runs to do, "
            f"{runs[0].num_steps * runs[0].recipe.total_batch_size:,} images each, {options.workers} at a time."
        )
        started = time.monotonic()
        errors = WorkerPool(to_do, images_folder, options.workers, options.threads).execute() if to_do else {}
        print(f"{len(to_do) - len(errors)} runs done in {time.monotonic() - started:.0f} s.")
        finished = judge_convergence([metrics for run in runs if (metrics := run.finished_metrics()) is not None])
        if finished:
            report(finished, images, options, command)
    for name, error in errors.items():
        print(f"{name} failed:\n{error}", file=sys.stderr)
    return 1 if errors else 0


def interrupt(signal_number: int, frame: Any):
    raise KeyboardInterrupt


def main(arguments: list[str] | None = None) -> int:
    # A job scheduler's way to say Ctrl-C, which a shell's background jobs do not get.
    signal.signal(signal.SIGTERM, interrupt)
    options = parse_arguments(arguments)
    command = shlex.join(["python", "-m", "training.sweep", *(sys.argv[1:] if arguments is None else arguments)])
    try:
        return sweep(options, command)
    except ValueError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print(
            "\nInterrupted. Finished runs are kept and the others go on from their last saved state (at most half a "
            f"minute old) with the same command:\n    {command}",
            file=sys.stderr,
        )
        return 130


if __name__ == "__main__":
    sys.exit(main())
