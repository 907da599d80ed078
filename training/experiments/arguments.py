# Copyright 2026 The modeling_pixelvit team. All rights reserved.
# SPDX-License-Identifier: Apache-2.0
"""The options of `training.sweep`."""

import argparse
import os
from typing import Any

from ..families.registry import FAMILIES
from ..settings.recipe import Recipe, find_recipes, load_recipe
from ..tasks.base import SWITCHED_OFF
from ..tasks.registry import TASKS


DATASET_IMAGE_SIZE = 32
DATASET_EPOCHS = 20
MOST_WORKERS = 4
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


def sweep_recipes(task: str) -> dict[str, Recipe]:
    """A task's recipes for small images by family, of those that have one, without what only other tasks do."""
    names, found = {family: f"{family}-{TASKS[task].sweep_recipe}" for family in FAMILIES}, find_recipes()
    off = {name: value for name, value in SWITCHED_OFF.items() if name not in TASKS[task].options}
    return {family: load_recipe(name, task=task, **off) for family, name in names.items() if name in found}


def recipe_value(recipe: Recipe, field: str) -> Any:
    """A field of a recipe, or of its model; None if the model's family has no such field."""
    return getattr(recipe, field) if hasattr(recipe, field) else getattr(recipe.build_config(patch_size=1), field, None)


def describe_default(field: str) -> str:
    """The default of a recipe's field in classification, family by family where they differ."""
    recipes = sweep_recipes("classification")
    values = {family: recipe_value(recipe, field) for family, recipe in recipes.items()}
    words = {
        family: " ".join(value) or "none" if isinstance(value, list) else str(value)
        for family, value in values.items()
        if value is not None
    }
    if len(set(words.values())) == 1:
        return f"default: {words.popitem()[1]}"
    return "default: " + ", ".join(f"{family} {word}" for family, word in words.items())


def dataset_named(text: str) -> str:
    """A data set as it was given; a folder is the same one with a slash at its end."""
    return os.path.normpath(text) if os.path.isdir(text) else text


def parse_arguments(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m training.sweep",
        description="Trains each model family at every patch size under one recipe and fits the scaling law.",
    )
    add = parser.add_argument
    add("--output_dir", default="runs/sweep", help="folder for checkpoints, table, picture and results.json")
    add("--task", default="classification", choices=list(TASKS), help="what is learned (default: %(default)s)")
    families = list(sweep_recipes("classification"))
    add("--families", nargs="+", default=families, choices=families, help="model families")
    add("--decoder", default="none", help="of segmentation: none, upernet, or both with a comma between")
    defaults = {name: task.patch_sizes for name, task in TASKS.items()}
    described = "; ".join(f"{task} {' '.join(map(str, sizes))}" for task, sizes in defaults.items())
    add("--patch_sizes", nargs="+", type=int, help=f"sides of a patch in pixels ({described})")
    text = "data set of the task to train on instead of the embedded digits, or scenes of them"
    add("--dataset", type=dataset_named, help=text)
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
    add("--overwrite", action="store_true", help="repeat finished runs that were made with other settings or images")
    return parser.parse_args(arguments)
