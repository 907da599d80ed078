# Copyright 2026 The modeling_pixelvit team. All rights reserved.
# SPDX-License-Identifier: Apache-2.0
"""Recipes with other values of some of their fields, and with a length in images."""

import dataclasses
from typing import Any

from huggingface_hub.errors import StrictDataclassError

from ..data.batches import TrainingBatches
from ..settings.recipe import Recipe, build_recipe


WARMUP_SHARE = 0.1  # of a run
# What small photographs go through; digits must not be mirrored. Crops of padded images are for many epochs: within two
# of CIFAR-10 at 16 pixels nothing is learned by heart, and two pixels of padding cost PixelViT 0.2 of its test loss.
PHOTOGRAPHS = {"horizontal_flip": 0.5, "digit_distortion": 0.0}


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
    changed = build_recipe(fields, "the recipe with these changes")
    try:
        changed.build_config(patch_size=1)
    except StrictDataclassError as error:
        raise ValueError(" ".join(str(error.__cause__ or error).split())) from None
    return changed


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
