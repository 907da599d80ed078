# Copyright 2026 The modeling_pixelvit team. All rights reserved.
# SPDX-License-Identifier: Apache-2.0
"""The table of families, which another one joins by `register_family`."""

from transformers import PreTrainedConfig, PreTrainedModel

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


def variant_of(config: PreTrainedConfig) -> str | None:
    """Which of Table 7's sizes a configuration has, or None."""
    fields = FAMILIES[config.model_type].size_fields
    sizes = {"image_size": config.image_size, "patch_size": config.patch_size}
    for name in type(config).variants:
        variant = type(config).from_variant(name, **sizes)
        if all(getattr(variant, field) == getattr(config, field) for field in fields):
            return name
    return None


for family in (ADVENTURER, PIXELVIT):
    register_family(family)
