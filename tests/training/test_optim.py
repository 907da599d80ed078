# Copyright 2026 The modeling_pixelvit team. All rights reserved.
# SPDX-License-Identifier: Apache-2.0
"""Which parameters decay, how fast each block learns, and the learning rate's course, by their definitions."""

import math

import pytest
import torch
from helpers import tiny_model

from modeling_pixelvit import AdventurerForImageClassification, AdventurerModel, PixelViTForImageClassification
from training.optim import build_optimizers, build_scheduler, parameter_groups
from training.recipe import Recipe, load_recipe


@pytest.mark.parametrize("model_class", [AdventurerForImageClassification, PixelViTForImageClassification])
def test_every_parameter_is_in_one_group(model_class):
    model = tiny_model(model_class)
    groups = parameter_groups(model, weight_decay=0.3, layer_decay=0.5)
    named = {name: group for group in groups for name in group["names"]}
    assert sum(len(group["names"]) for group in groups) == len(named) == len(list(model.parameters()))
    for name, parameter in model.named_parameters():
        group = named[name]
        assert any(parameter is other for other in group["params"])
        exempt = parameter.dim() == 1 or "cls_token" in name or "position_embeddings" in name
        assert group["weight_decay"] == (0.0 if exempt else 0.3), name
        # Four blocks: embeddings, then the blocks, then what follows them.
        if "embeddings" in name:
            level = 0
        elif ".layers." in name:
            level = 1 + int(name.split(".layers.")[1].split(".")[0])
        else:
            level = 5
        assert group["lr_scale"] == 0.5 ** (5 - level), name


def test_blocks_of_a_base_model_and_frozen_parameters():
    model = tiny_model(AdventurerModel)
    model.embeddings.requires_grad_(False)
    groups = parameter_groups(model, weight_decay=0.1, layer_decay=0.5)
    assert sorted({group["lr_scale"] for group in groups}) == [0.0625, 0.125, 0.25, 0.5, 1.0]
    assert not any("embeddings" in name for group in groups for name in group["names"])


def test_rate_by_epoch_is_the_released_course():
    """Epochs 0 to 4 rise from 1e-6 in equal steps; from there on half a cosine over all 300, down to 1e-5."""
    recipe = load_recipe("adventurer-stage1", "base")
    optimizer = build_optimizers(tiny_model(AdventurerForImageClassification), recipe)[0]
    assert optimizer.defaults["betas"] == (0.9, 0.999)
    scheduler = build_scheduler(optimizer, recipe, steps_per_epoch=7)
    for epoch in (0, 1, 4, 5, 150, 299):
        scheduler.step(epoch)
        scheduler.step_update(3)  # without effect
        expected = 1e-5 + 0.5 * (1e-3 - 1e-5) * (1 + math.cos(math.pi * epoch / 300))
        if epoch < 5:
            expected = 1e-6 + epoch * (1e-3 - 1e-6) / 5
        assert all(group["lr"] == pytest.approx(expected) for group in optimizer.param_groups)


def test_rate_by_step():
    recipe = Recipe(
        num_train_epochs=10.0, warmup_epochs=1.0, base_learning_rate=1.0, learning_rate_batch_size=None, layer_decay=0.5
    )
    optimizer = build_optimizers(tiny_model(AdventurerForImageClassification), recipe)[0]
    scheduler = build_scheduler(optimizer, recipe, steps_per_epoch=20)
    scheduler.step_update(50)
    scheduler.step(1)  # without effect
    expected = 1e-5 + 0.5 * (1 - 1e-5) * (1 + math.cos(math.pi * 50 / 200))
    for group in optimizer.param_groups:
        assert group["lr"] == pytest.approx(expected * group["lr_scale"])


def test_frozen_rate_learns_nothing():
    """A layer decay of zero leaves all but the head as it is."""
    model = tiny_model(PixelViTForImageClassification)
    recipe = Recipe(layer_decay=0.0, base_learning_rate=0.1)
    optimizer = build_optimizers(model, recipe)[0]
    build_scheduler(optimizer, recipe, steps_per_epoch=1).step_update(10)
    before = {name: parameter.clone() for name, parameter in model.named_parameters()}
    model(torch.randn(2, 3, 8, 8), labels=torch.tensor([0, 1])).loss.backward()
    optimizer.step()
    changed = {name for name, parameter in model.named_parameters() if not torch.equal(parameter, before[name])}
    assert changed and all("layers" not in name and "embeddings" not in name for name in changed)
