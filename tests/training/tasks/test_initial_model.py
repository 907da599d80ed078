# Copyright 2026 The modeling_pixelvit team. All rights reserved.
# SPDX-License-Identifier: Apache-2.0
"""What a training starts from: resampled bit for bit as `from_pretrained` does it, and never from a damaged encoder."""

import pytest
import torch
from helpers import tiny_model
from safetensors.torch import load_file, save_file

from modeling_pixelvit import AdventurerForImageClassification, PixelViTForImageClassification
from modeling_pixelvit.modeling_segmentation import AdventurerForSemanticSegmentation, PixelViTForSemanticSegmentation
from training.settings.recipe import Recipe, RecipeError
from training.tasks.initial_model import build_initial_model


CLASSIFIERS = {"adventurer": AdventurerForImageClassification, "pixelvit": PixelViTForImageClassification}
SEGMENTERS = {"adventurer": AdventurerForSemanticSegmentation, "pixelvit": PixelViTForSemanticSegmentation}
SIZES = {
    "adventurer": {"hidden_size": 32, "num_hidden_layers": 4, "head_dim": 16, "state_size": 8},
    "pixelvit": {"hidden_size": 32, "num_hidden_layers": 4, "num_attention_heads": 4, "intermediate_size": 48},
}


@pytest.fixture(params=CLASSIFIERS)
def family(request):
    return request.param


@pytest.fixture
def checkpoint(family, tmp_path):
    tiny_model(CLASSIFIERS[family]).save_pretrained(tmp_path / "checkpoint")
    return tmp_path / "checkpoint"


def recipe_for(family, checkpoint, **fields):
    sizes = {"patch_size": 4, "image_size": 16, "variant": "tiny", "drop_path_rate": 0.0, "model": SIZES[family]}
    return Recipe(family=family, initial_checkpoint=str(checkpoint), **{**sizes, **fields})


@pytest.mark.parametrize("sizes", [{}, {"patch_size": 2}, {"patch_size": 2, "image_size": 8}])
def test_as_from_pretrained(family, checkpoint, sizes):
    recipe = recipe_for(family, checkpoint, **sizes)
    model = build_initial_model(recipe, CLASSIFIERS[family], num_labels=5)
    resampled = {"patch_size": recipe.patch_size, "image_size": recipe.image_size}
    expected = CLASSIFIERS[family].from_pretrained(checkpoint, dtype=torch.float32, **resampled)
    assert model.config.patch_size == recipe.patch_size and model.config.image_size == recipe.image_size
    for name, tensor in expected.state_dict().items():
        assert torch.equal(model.state_dict()[name], tensor), name


def test_another_head_is_new(family, checkpoint):
    """For other classes, and for another task; the encoder stays."""
    stored = CLASSIFIERS[family].from_pretrained(checkpoint, patch_size=4, image_size=16)
    for model_class, num_labels in ((CLASSIFIERS[family], 7), (SEGMENTERS[family], 3)):
        model = build_initial_model(recipe_for(family, checkpoint), model_class, num_labels=num_labels)
        assert model.config.num_labels == num_labels and type(model) is model_class
        for name, tensor in stored.base_model.state_dict().items():
            assert torch.equal(model.base_model.state_dict()[name], tensor), name


def test_a_stored_kernel_stays_as_it_is(family, tmp_path):
    tiny_model(CLASSIFIERS[family], patch_kernel_size=8).save_pretrained(tmp_path / "checkpoint")
    recipe = recipe_for(family, tmp_path / "checkpoint", patch_size=2, image_size=8)
    model = build_initial_model(recipe, CLASSIFIERS[family], num_labels=5)
    assert model.config.patch_kernel_size == 8
    assert model.base_model.embeddings.patch_embeddings.projection.weight.shape[-1] == 8


@pytest.mark.parametrize("damage", ["missing", "shape", "pickle"])
def test_a_damaged_checkpoint_is_refused(family, checkpoint, damage):
    """transformers warns and draws new weights, or reads the pickle."""
    file = checkpoint / "model.safetensors"
    weights = load_file(file)
    name = next(name for name in weights if "layers.1" in name and name.endswith("weight") and weights[name].dim() == 2)
    if damage == "missing":
        del weights[name]
    elif damage == "shape":
        weights[name] = weights[name][:-1].contiguous()
    if damage == "pickle":
        file.unlink()
        torch.save(weights, checkpoint / "pytorch_model.bin")
    else:
        save_file(weights, file, metadata={"format": "pt"})
    with pytest.raises(RecipeError, match=r"initial_checkpoint=.* was given, but no model can be loaded from there"):
        build_initial_model(recipe_for(family, checkpoint), CLASSIFIERS[family], num_labels=5)
