# Copyright 2026 The modeling_pixelvit team. All rights reserved.
# SPDX-License-Identifier: Apache-2.0
"""The runs that a sweep is made of: what its options ask for, and which of them are finished."""

import argparse
import dataclasses
import itertools
from pathlib import Path
from typing import Any

from huggingface_hub.errors import StrictDataclassError

from ..data.batches import TrainingBatches
from ..settings.recipe import Recipe, build_recipe
from ..tasks.registry import TASKS
from .arguments import DATASET_EPOCHS, RECIPE_OPTIONS, sweep_recipes
from .run import METRICS_FILE, Run


DECODERS = ("none", "upernet")
WARMUP_SHARE = 0.1  # of a run
# What small photographs go through; digits must not be mirrored. Crops of padded images are for many epochs: within two
# of CIFAR-10 at 16 pixels nothing is learned by heart, and two pixels of padding cost PixelViT 0.2 of its test loss.
PHOTOGRAPHS = {"horizontal_flip": 0.5, "digit_distortion": 0.0}
POSITIVE_OPTIONS = ("image_size", "train_images", "epochs", "batch_size", "width", "num_blocks", "peak_rate")


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
    if options.decoder != "none" and not _has_decoder(options):
        raise ValueError(f"--decoder {options.decoder} was given; --task {options.task} has no decoder to choose.")
    recipes = sweep_recipes(options.task)
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


def _has_decoder(options: argparse.Namespace) -> bool:
    return "decoder" in TASKS[options.task].options


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
    task = TASKS[options.task]
    if options.dataset and "crop_padding" in task.options:
        changes = {**PHOTOGRAPHS, **changes}
    seeds = dict.fromkeys(options.seeds or [None])
    recipes, runs = sweep_recipes(options.task), []
    for family in options.families:
        for decoder in dict.fromkeys(options.decoder.split(",")):
            of_decoder = {"decoder_type": decoder} if _has_decoder(options) else {}
            recipe = change_recipe(recipes[family], {**changes, **of_decoder, "image_size": image_size})
            epochs = options.epochs or (DATASET_EPOCHS if options.dataset else recipe.num_train_epochs)
            train_images = options.train_images or round(epochs * num_train)
            recipe, num_batches = set_length(recipe, num_train, train_images)
            for patch_size, seed in itertools.product(dict.fromkeys(options.patch_sizes or task.patch_sizes), seeds):
                of_run = {"patch_size": patch_size, "seed": recipe.seed if seed is None else seed}
                of_run = build_recipe({**dataclasses.asdict(recipe), **of_run}, "the command line")
                name = name_of(of_run, with_seed=len(seeds) > 1)
                runs.append(Run(of_run, num_batches, data, str(Path(options.output_dir, name))))
    return runs


def set_length(
    recipe: Recipe, num_train: int, images_seen: int, warmup_share: float = WARMUP_SHARE
) -> tuple[Recipe, int]:
    """
    The recipe with as many epochs of a data set as make up the images, and the batches that these are.

    Args:
        num_train: Training images of the data set.
        images_seen: In the whole training, each counted as often as it is seen.
        warmup_share: Of the training.

    Raises:
        ValueError: if they are fewer than one batch.
    """
    num_batches = images_seen // recipe.total_batch_size
    if num_batches == 0:
        raise ValueError(
            f"{images_seen} training images are fewer than one batch of {recipe.total_batch_size}; give more."
        )
    epochs = num_batches / TrainingBatches(recipe, num_train).steps_per_epoch
    return dataclasses.replace(recipe, num_train_epochs=epochs, warmup_epochs=warmup_share * epochs), num_batches


def name_of(recipe: Recipe, with_seed: bool = False) -> str:
    """Of a run's folder: family, decoder if there is one, patch size."""
    decoder = recipe.model.get("decoder_type", "none")
    of_decoder = "" if decoder == "none" else f"-{decoder}"
    return f"{recipe.family}{of_decoder}-patch{recipe.patch_size}" + (f"-seed{recipe.seed}" if with_seed else "")


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
