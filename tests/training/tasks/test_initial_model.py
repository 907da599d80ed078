# Copyright 2026 The modeling_pixelvit team. All rights reserved.
# SPDX-License-Identifier: Apache-2.0
"""What a training starts from: resampled bit for bit as `from_pretrained` does it, and never from a damaged encoder."""

import math

import pytest
import torch
from helpers import tiny_config, tiny_model
from safetensors.torch import load_file, save_file

from modeling_pixelvit import AdventurerForImageClassification, PixelViTForImageClassification
from modeling_pixelvit.modeling_segmentation import AdventurerForSemanticSegmentation, PixelViTForSemanticSegmentation
from training.settings.recipe import Recipe, RecipeError
from training.tasks.initial_model import build_initial_model, start_positions


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


def test_an_extended_sequence_stays_one(family, tmp_path):
    """Its positions are resampled; a checkpoint with other copies is another model, and none gets positions anew."""
    tiny_model(CLASSIFIERS[family], sequence_extension=2).save_pretrained(tmp_path / "checkpoint")
    sizes = SIZES[family]
    recipe = recipe_for(family, tmp_path / "checkpoint", model={**sizes, "sequence_extension": 2})
    model = build_initial_model(recipe, CLASSIFIERS[family], num_labels=5)
    expected = CLASSIFIERS[family].from_pretrained(tmp_path / "checkpoint", patch_size=4, image_size=16)
    assert model.config.sequence_extension == 2
    assert torch.equal(
        model.base_model.embeddings.position_embeddings, expected.base_model.embeddings.position_embeddings
    )
    for fields, wanted in (({}, 1), ({"sequence_extension": 4}, 4)):
        recipe = recipe_for(family, tmp_path / "checkpoint", model={**sizes, **fields})
        with pytest.raises(RecipeError, match=f"sequence_extension 2 there, {wanted} in the recipe"):
            build_initial_model(recipe, CLASSIFIERS[family], num_labels=5)


@pytest.mark.parametrize("copies", [1, 3])
def test_sines_and_cosines(family, copies):
    """Of each patch's centre, and for the copies of a patch those values and what was drawn for each of them."""
    torch.manual_seed(0)
    model = CLASSIFIERS[family](tiny_config(family, image_size=[8, 12], sequence_extension=copies))
    embeddings = model.base_model.embeddings
    before = embeddings.position_embeddings.detach().clone()
    start_positions(model, 2.0)
    waves = [4 * (4 * 12 / 4) ** (wave / 7) for wave in range(8)]
    sines = torch.zeros(4, 6, 32)
    for row in range(4):
        for column in range(6):
            for wave, length in enumerate(waves):
                for first, centre in ((0, 2 * row + 1), (16, 2 * column + 1)):
                    sines[row, column, first + wave] = 2 * math.sin(2 * math.pi * centre / length)
                    sines[row, column, first + 8 + wave] = 2 * math.cos(2 * math.pi * centre / length)
    table, drawn = (embeddings.patch_tokens(rows)[0] for rows in (embeddings.position_embeddings, before))
    class_rows = [embeddings.class_token(rows) for rows in (embeddings.position_embeddings, before)]
    assert torch.equal(*class_rows)
    for copy in range(copies):
        expected = sines.flatten(0, 1) + (drawn[copy::copies] if copies > 1 else 0)
        torch.testing.assert_close(table[copy::copies], expected, atol=1e-4, rtol=1e-4)
    for copy in range(1, copies):
        assert (table[copy::copies] - table[::copies]).std().item() == pytest.approx(0.02 * 2**0.5, rel=0.2)


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
