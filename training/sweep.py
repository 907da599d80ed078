# Copyright 2026 The modeling_pixelvit team. All rights reserved.
# SPDX-License-Identifier: Apache-2.0
"""
The patch-size sweep: each family at every patch size, under one recipe, on real images that need no download.

    python -m training.sweep                                       # 9 minutes on two cores
    python -m training.sweep --task segmentation --decoder none,upernet
    python -m training.sweep --task detection
    python -m training.sweep --dataset path/to/folder --image_size 64 --patch_sizes 16 8 4
    python -m training.sweep --help

It ends with a table, a picture of test loss against patch size with the fitted power law (and of mean IoU or AP),
`results.json` and a checkpoint folder for every run. An interrupted sweep goes on where it stopped when the same
command is given again; what is finished is not repeated.
"""

import argparse
import dataclasses
import itertools
import os
import shlex
import signal
import sys
import tempfile
import textwrap
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from huggingface_hub.errors import StrictDataclassError
from transformers.utils import logging

from .batches import TrainingBatches
from .recipe import Recipe, build_recipe
from .sweep_images import load_sweep_images, store_images
from .sweep_law import judge_convergence
from .sweep_predictions import PREDICTIONS_FILE, draw_predictions, save_example
from .sweep_report import (
    PICTURE_FILE,
    RESULTS_FILE,
    TABLE_FILE,
    draw,
    format_preview,
    format_report,
    write_results,
)
from .sweep_run import METRICS_FILE, Run
from .sweep_tasks import DECODERS, FAMILIES, SWEEP_TASKS
from .sweep_workers import WorkerPool


DATASET_IMAGE_SIZE = 32
DATASET_EPOCHS = 20
MOST_WORKERS = 4
WARMUP_SHARE = 0.1  # of a run
# What the command line can change, for all runs alike, or for those of the families whose models have the field: (type,
# field of the recipe or of its model, help).
RECIPE_OPTIONS = {
    "batch_size": (int, "total_batch_size", "images per step"),
    "width": (int, "hidden_size", "hidden size"),
    "num_blocks": (int, "num_hidden_layers", "blocks of a model"),
    "peak_rate": (float, "base_learning_rate", "AdamW's learning rate after the warmup"),
    "patch_schedule": (
        str,
        "patch_schedule",
        "patch sizes to train at one after the other, down to the run's own, each with its share of the images as "
        "4:0.2 2:0.3 1:0.5, or none",
    ),
    "scan_order": (str, "scan_order", "Adventurer's: rows, as in the paper, or rows_and_columns"),
    "pooling": (str, "pooling", "what the classifier sees: cls, the class token, as in the paper, or mean"),
    "position_embedding_type": (
        str,
        "position_embedding_type",
        "PixelViT's: absolute, as in the paper, rotary or absolute_rotary",
    ),
    "horizontal_flip": (float, "horizontal_flip", "share of the training images that are mirrored"),
    "crop_padding": (int, "crop_padding", "pixels of black around a training image before it is cropped at random"),
    "digit_distortion": (float, "digit_distortion", "how far the embedded digits are turned, scaled and sheared"),
    "seed": (int, "seed", "of initial weights, and of order and placement in training"),
}
SEVERAL_WORDS = ("patch_schedule",)
# What photographs go through that are too small for random resized crops; digits must not be mirrored.
PHOTOGRAPHS = {"horizontal_flip": 0.5, "digit_distortion": 0.0}
PADDING_SHARE = 1 / 8  # of the image's side, as is usual for CIFAR's 32 pixels
POSITIVE_OPTIONS = ("image_size", "train_images", "epochs", "batch_size", "width", "num_blocks", "peak_rate")


def recipe_value(recipe: Recipe, field: str) -> Any:
    """A field of a recipe, or of its model; None if the model's family has no such field."""
    return getattr(recipe, field) if hasattr(recipe, field) else getattr(recipe.build_config(patch_size=1), field, None)


def describe_default(field: str) -> str:
    """The default of a recipe's field in classification, family by family where they differ."""
    recipes = SWEEP_TASKS["classification"].load_recipes()
    values = {family: recipe_value(recipe, field) for family, recipe in recipes.items()}
    words = {
        family: " ".join(value) or "none" if isinstance(value, list) else str(value)
        for family, value in values.items()
        if value is not None
    }
    if len(set(words.values())) == 1:
        return f"default: {words.popitem()[1]}"
    return "default: " + ", ".join(f"{family} {word}" for family, word in words.items())


def parse_arguments(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m training.sweep",
        description="Trains each model family at every patch size under one recipe and fits the scaling law.",
    )
    add = parser.add_argument
    add("--output_dir", default="runs/sweep", help="folder for checkpoints, table, picture and results.json")
    add("--task", default="classification", choices=list(SWEEP_TASKS), help="what is learned (default: %(default)s)")
    add("--families", nargs="+", default=list(FAMILIES), choices=FAMILIES, help="model families")
    add("--decoder", default="none", help="of segmentation: none, upernet, or both with a comma between")
    defaults = {task: SWEEP_TASKS[task].patch_sizes for task in SWEEP_TASKS}
    described = "; ".join(f"{task} {' '.join(map(str, sizes))}" for task, sizes in defaults.items())
    add("--patch_sizes", nargs="+", type=int, help=f"sides of a patch in pixels ({described})")
    add("--dataset", help="data set of the task to train on instead of the embedded digits, or scenes of them")
    add(
        "--image_size",
        type=int,
        help=f"side in pixels (the digits' 16, scenes' 32; with --dataset {DATASET_IMAGE_SIZE})",
    )
    length = parser.add_mutually_exclusive_group()
    length.add_argument("--train_images", type=int, help="images a run sees (default: the epochs of the recipes)")
    length.add_argument(
        "--epochs",
        type=float,
        help=f"the same in epochs ({describe_default('num_train_epochs')}; with --dataset {DATASET_EPOCHS})",
    )
    seeds = parser.add_mutually_exclusive_group()
    seeds.add_argument(
        "--seeds", nargs="+", type=int, help="several seeds: table, picture and numbers have means and intervals"
    )
    for name, (kind, field, text) in RECIPE_OPTIONS.items():
        group = seeds if name == "seed" else parser
        several = {"nargs": "+"} if name in SEVERAL_WORDS else {}
        group.add_argument(f"--{name}", type=kind, help=f"{text} ({describe_default(field)})", **several)
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
    for decoder in options.decoder.split(","):
        if decoder not in DECODERS:
            raise ValueError(f"--decoder {options.decoder} was given; choose none, upernet or none,upernet.")
    if options.decoder != "none" and options.task != "segmentation":
        raise ValueError(f"--decoder {options.decoder} was given; only --task segmentation has a decoder to choose.")
    recipes = SWEEP_TASKS[options.task].load_recipes()
    for family in options.families:
        head_dim = head_width(recipes[family])
        if options.width is not None and options.width % head_dim:
            raise ValueError(
                f"--width {options.width} was given; {family} takes multiples of its head width {head_dim}."
            )
    for patch_size in options.patch_sizes or SWEEP_TASKS[options.task].patch_sizes:
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
    """
    The recipe with other values of its fields or of its model's; a field that only the models of another family have is
    left out.

    Raises:
        ValueError: for a value that the recipe or the model does not take.
    """
    of_recipe = {name: value for name, value in changes.items() if hasattr(recipe, name)}
    known = recipe.build_config(patch_size=1)  # which fits every image
    of_model = {name: value for name, value in changes.items() if name not in of_recipe and hasattr(known, name)}
    if "hidden_size" in of_model and "num_attention_heads" in recipe.model:
        of_model["num_attention_heads"] = of_model["hidden_size"] // head_width(recipe)
        of_model["intermediate_size"] = 4 * of_model["hidden_size"]
    fields = {**dataclasses.asdict(recipe), **of_recipe, "model": {**recipe.model, **of_model}}
    changed = build_recipe(fields, "the command line")
    try:
        changed.build_config(patch_size=1)
    except StrictDataclassError as error:
        raise ValueError(" ".join(str(error.__cause__ or error).split())) from None
    return changed


def plan_runs(options: argparse.Namespace, image_size: int, num_train: int, data: dict[str, Any]) -> list[Run]:
    """All runs that the options ask for, finished or not, on a data set of so many training images."""
    changes = {field: getattr(options, name) for name, (_, field, _) in RECIPE_OPTIONS.items()}
    changes = {field: value for field, value in changes.items() if value is not None}
    if changes.get("patch_schedule") == ["none"]:
        changes["patch_schedule"] = []
    if options.dataset and options.task == "classification":
        changes = {**PHOTOGRAPHS, "crop_padding": round(PADDING_SHARE * image_size), **changes}
    seeds = dict.fromkeys(options.seeds or [None])
    kind = SWEEP_TASKS[options.task]
    recipes, runs = kind.load_recipes(), []
    for family in options.families:
        for decoder in dict.fromkeys(options.decoder.split(",")):
            of_decoder = {"decoder_type": decoder} if options.task == "segmentation" else {}
            recipe = change_recipe(recipes[family], {**changes, **of_decoder, "image_size": image_size})
            epochs = options.epochs or (DATASET_EPOCHS if options.dataset else recipe.num_train_epochs)
            train_images = options.train_images or round(epochs * num_train)
            num_batches = train_images // recipe.total_batch_size
            if num_batches == 0:
                raise ValueError(
                    f"{train_images} training images are fewer than one batch of {recipe.total_batch_size}; give more."
                )
            epochs = num_batches / TrainingBatches(recipe, num_train).steps_per_epoch
            recipe = dataclasses.replace(recipe, num_train_epochs=epochs, warmup_epochs=WARMUP_SHARE * epochs)
            for patch_size, seed in itertools.product(dict.fromkeys(options.patch_sizes or kind.patch_sizes), seeds):
                of_run = {"patch_size": patch_size, "seed": recipe.seed if seed is None else seed}
                of_run = build_recipe({**dataclasses.asdict(recipe), **of_run}, "the command line")
                run = Run(of_run, num_batches, data, "", is_one_of_seeds=len(seeds) > 1)
                runs.append(dataclasses.replace(run, folder=str(Path(options.output_dir, run.name))))
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


def interrupt(signal_number: int, frame: Any):
    raise KeyboardInterrupt


def main(arguments: list[str] | None = None) -> int:
    # A job scheduler's way to say Ctrl-C, which a shell's background jobs do not get.
    signal.signal(signal.SIGTERM, interrupt)
    logging.disable_progress_bar()  # of every file that transformers reads
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
