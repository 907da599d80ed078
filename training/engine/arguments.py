# Copyright 2026 The modeling_pixelvit team. All rights reserved.
# SPDX-License-Identifier: Apache-2.0
"""The options of `training.train`: the recipe's fields, those of the data and those of the loop."""

import argparse
import dataclasses
import difflib
import json
from collections.abc import Callable
from typing import Any

from transformers.hf_argparser import HfArg, HfArgumentParser

from ..settings.recipe import Recipe, load_recipe
from ..tasks.base import DataOptions
from .options import LoopOptions


@dataclasses.dataclass(kw_only=True)
class RecipeOptions:
    """Which recipe."""

    recipe: str = HfArg(default="adventurer-stage1", help="name of a file in training/recipes, or path of a YAML file")


def build_parser() -> HfArgumentParser:
    """A parser of all options; those of the recipe's fields have no default but the recipe's."""
    fields = dataclasses.fields(Recipe)
    recipe_fields = dataclasses.make_dataclass(
        "RecipeFields",
        [
            # Without the bounds, which argparse does not know and the recipe checks.
            (field.name, field.type, HfArg(default=None, help=field.metadata["help"]))
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
