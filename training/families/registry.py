# Copyright 2026 The modeling_pixelvit team. All rights reserved.
# SPDX-License-Identifier: Apache-2.0
"""The table of families, which another one joins by `register_family`."""

from transformers import PreTrainedModel

from .adventurer import ADVENTURER
from .base import Architecture, Family
from .pixelvit import PIXELVIT


FAMILIES: dict[str, Family] = {}


def register_family(family: Family):
    """Adds a family, or replaces the one of its name."""
    FAMILIES[family.name] = family


def model_classes() -> dict[str, type[PreTrainedModel]]:
    """All models of all families, by the names of their classes."""
    return {found.__name__: found for family in FAMILIES.values() for found in family.model_classes.values()}


def architecture_of(model: PreTrainedModel | type[PreTrainedModel]) -> Architecture | None:
    """What a model is for, by its class; None for a model of no family."""
    model_class = model if isinstance(model, type) else type(model)
    for family in FAMILIES.values():
        for architecture, own in family.model_classes.items():
            if issubclass(model_class, own):
                return architecture
    return None


for family in (ADVENTURER, PIXELVIT):
    register_family(family)
