# Copyright 2026 The modeling_pixelvit team. All rights reserved.
# SPDX-License-Identifier: Apache-2.0
"""The table of families, which another one joins by `register_family`."""

from transformers import PreTrainedModel

from .adventurer import ADVENTURER
from .base import Family
from .pixelvit import PIXELVIT


FAMILIES: dict[str, Family] = {}


def register_family(family: Family):
    """Adds a family, or replaces the one of its name."""
    FAMILIES[family.name] = family


def model_classes() -> dict[str, type[PreTrainedModel]]:
    """All models of all families, by the names of their classes."""
    return {found.__name__: found for family in FAMILIES.values() for found in family.model_classes.values()}


def ending_of(model: PreTrainedModel | type[PreTrainedModel]) -> str | None:
    """The ending by which a model's family has its class; None for any other model."""
    model_class = model if isinstance(model, type) else type(model)
    for family in FAMILIES.values():
        for ending, own in family.model_classes.items():
            if issubclass(model_class, own):
                return ending
    return None


for family in (ADVENTURER, PIXELVIT):
    register_family(family)
