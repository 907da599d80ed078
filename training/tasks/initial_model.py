# Copyright 2026 The modeling_pixelvit team. All rights reserved.
# SPDX-License-Identifier: Apache-2.0
"""The model that a training starts from: new, or the checkpoint of an earlier stage at another patch or image size."""

import copy
import math
from typing import Any

import torch
from transformers import PreTrainedModel

from modeling_pixelvit.configuration_base import as_pair

from ..checkpoints.loading import load_weights
from ..settings.recipe import Recipe, RecipeError


# What makes a checkpoint another model, rather than the same model on another grid.
SIZE_FIELDS = (
    "hidden_size",
    "num_hidden_layers",
    "num_attention_heads",
    "intermediate_size",
    "head_dim",
    "state_size",
    "sequence_extension",
)


def build_initial_model(recipe: Recipe, model_class: type[PreTrainedModel], **fields: Any) -> PreTrainedModel:
    """
    Args:
        recipe: Its seed draws all weights that no checkpoint gives.
        model_class: The task's class for the recipe's family.
        fields: Of the configuration, as the data decide them: the labels.

    Returns:
        The model in float32 on the CPU. From a checkpoint patch kernel and positions are resampled to the recipe's
        patch and image size, and a head for another number of classes is new.

    Raises:
        RecipeError: if the initial checkpoint is not there, lacks weights, or is another family or size.
    """
    config = recipe.build_config(**fields)
    torch.manual_seed(recipe.seed)
    if recipe.initial_checkpoint is None:
        model = model_class(config)
        if recipe.position_scale:
            start_positions(model, recipe.position_scale)
        return model
    source = _load_initial_checkpoint(recipe, config)
    model_fields = {"drop_path_rate": recipe.drop_path_rate, **recipe.model, **fields}
    kernel_size = model_fields.pop("patch_kernel_size", None)
    resize(source, recipe.patch_size, recipe.image_size, kernel_size)
    config = copy.deepcopy(source.config)
    for name, value in model_fields.items():
        setattr(config, name, value)
    model = model_class(config)
    adopt_weights(model, source)
    return model


def resize(model: PreTrainedModel, patch_size: int, image_size: Any, kernel_size: int | None = None):
    """Resamples what differs: a kernel that is stored larger than the patch stays so at the same patch size."""
    changes = {"patch_size": patch_size} if patch_size != model.config.patch_size else {}
    if as_pair(image_size) != as_pair(model.config.image_size):
        changes["image_size"] = image_size
    if kernel_size is not None:
        changes["patch_kernel_size"] = kernel_size
    if changes:
        model.resize_patches(**changes)


def adopt_weights(model: PreTrainedModel, source: PreTrainedModel) -> list[str]:
    """
    Gives a model the encoder of another of the same family and sizes, and of the heads what fits.

    Returns:
        Names of the weights that stay new.
    """
    own, prefix = model.state_dict(), model.base_model_prefix
    if source.base_model is source:
        found = {f"{prefix}.{name}": tensor for name, tensor in source.state_dict().items()}
    else:
        found = source.state_dict()
    fitting = {name: tensor for name, tensor in found.items() if name in own and own[name].shape == tensor.shape}
    model.load_state_dict(fitting, strict=False)
    return sorted(own.keys() - fitting.keys())


@torch.no_grad()
def start_positions(model: PreTrainedModel, scale: float):
    """
    Fills the patch positions, if there is a table, with sines and cosines of row and column, of amplitude `scale`.

    Wavelengths go from 4 pixels to four times the image, whatever the patch size. The table is learned from there on.
    The copies of a patch, if the model has several, keep their random values on top: equal ones would get the same
    gradients from attention, and stay equal.
    """
    embeddings = model.base_model.embeddings
    if embeddings.position_embeddings is None:
        return
    size, (rows, columns) = embeddings.image_size, embeddings.grid_size
    table = embeddings.patch_tokens(embeddings.position_embeddings)
    waves = table.shape[-1] // 4
    wavelengths = torch.logspace(math.log2(4), math.log2(4 * max(size)), waves, base=2)

    def encode(count):
        centres = (torch.arange(count) + 0.5) * embeddings.patch_size
        angles = 2 * math.pi * centres[:, None] / wavelengths
        return torch.cat([angles.sin(), angles.cos()], dim=1)

    picture = torch.zeros(rows, columns, table.shape[-1])
    picture[..., : 2 * waves] = encode(rows)[:, None]
    picture[..., 2 * waves : 4 * waves] = encode(columns)
    start = scale * picture.flatten(0, 1)
    if embeddings.sequence_extension == 1:
        table.copy_(start)
    else:
        table.add_(start.repeat_interleave(embeddings.sequence_extension, dim=0))


def _load_initial_checkpoint(recipe: Recipe, config: Any) -> PreTrainedModel:
    try:
        source = load_weights(recipe.initial_checkpoint)
    except ValueError as error:
        raise RecipeError(
            f"initial_checkpoint={recipe.initial_checkpoint} was given, but no model can be loaded from there "
            f"({' '.join(str(error).split())})"
        ) from None
    names = ("model_type", *SIZE_FIELDS)
    differences = [
        f"{name} {getattr(source.config, name, None)} there, {getattr(config, name, None)} in the recipe"
        for name in names
        if getattr(source.config, name, None) != getattr(config, name, None)
    ]
    if differences:
        raise RecipeError(
            f"initial_checkpoint={recipe.initial_checkpoint} was given, which is another model than the recipe's "
            f"({'; '.join(differences)}); choose the recipe and variant of the checkpoint."
        )
    return source
