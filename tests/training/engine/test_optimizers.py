# Copyright 2026 The modeling_pixelvit team. All rights reserved.
# SPDX-License-Identifier: Apache-2.0
"""Which parameters decay, how fast each block learns, and the learning rate's course, by their definitions."""

import copy
import dataclasses
import math
from types import SimpleNamespace

import pytest
import torch
from accelerate import Accelerator
from helpers import tiny_model

from modeling_pixelvit import (
    AdventurerForImageClassification,
    AdventurerForObjectDetection,
    AdventurerForSemanticSegmentation,
    AdventurerModel,
    PixelViTForImageClassification,
    PixelViTForObjectDetection,
    PixelViTForSemanticSegmentation,
)
from modeling_pixelvit.configuration_base import as_pair
from training.engine.muon import Muon, orthogonalize
from training.engine.optimizers import build_optimizer, build_scheduler, parameter_groups
from training.settings.recipe import Recipe, build_recipe, load_recipe


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


# With patches of 8 pixels, since finer ones need no kernels to come to a stride of 4.
UPERNET = {"decoder_type": "upernet", "decoder_hidden_size": 16, "auxiliary_channels": 8, "use_auxiliary_head": True}
UPERNET |= {"patch_size": 8, "image_size": 32}
DETECTION = {"pyramid_channels": 16, "box_head_hidden_size": 16, "mask_head_channels": 8}


@pytest.mark.parametrize(
    ("model_class", "fields", "heads"),
    [
        (AdventurerForSemanticSegmentation, {"decoder_type": "none"}, {"decode_head"}),
        (PixelViTForSemanticSegmentation, {"decoder_type": "none"}, {"decode_head"}),
        (AdventurerForSemanticSegmentation, UPERNET, {"decode_head", "pyramid", "auxiliary_head"}),
        (PixelViTForSemanticSegmentation, UPERNET, {"decode_head", "pyramid", "auxiliary_head"}),
        (AdventurerForObjectDetection, DETECTION, {"pyramid", "proposals", "box_stages", "mask_head"}),
        (PixelViTForObjectDetection, DETECTION, {"pyramid", "proposals", "box_stages", "mask_head"}),
    ],
)
def test_every_parameter_of_a_dense_model_is_in_one_group(model_class, fields, heads):
    """By the modules that hold the parameters: norms and biases do not decay, and all heads learn at the whole rate."""
    model = tiny_model(model_class, **fields)
    groups = parameter_groups(model, weight_decay=0.3, layer_decay=0.5)
    names = [name for group in groups for name in group["names"]]
    assert sorted(names) == sorted(name for name, _ in model.named_parameters())
    for group in groups:
        named = dict(model.named_parameters())
        assert [id(named[name]) for name in group["names"]] == [id(parameter) for parameter in group["params"]]
    named = {name: group for group in groups for name in group["names"]}
    assert {name.split(".")[0] for name in named} == {*heads, model.base_model_prefix}
    kernels = (torch.nn.Linear, torch.nn.Conv1d, torch.nn.Conv2d, torch.nn.ConvTranspose2d)
    num_kernels = 0
    for path, module in model.named_modules():
        for own_name, _ in module.named_parameters(prefix=path, recurse=False):
            decays = isinstance(module, kernels) and own_name.endswith("weight")
            num_kernels += decays
            assert named[own_name]["weight_decay"] == (0.3 if decays else 0.0), own_name
            if own_name.split(".")[0] in heads:
                assert named[own_name]["lr_scale"] == 1.0, own_name
    assert num_kernels > 10
    scales = {named[name]["lr_scale"] for name in named if name.startswith(model.base_model_prefix)}
    assert scales == {0.5**level for level in range(6)}  # final norm, four blocks, embeddings


@pytest.mark.parametrize(
    ("name", "level"),
    [
        ("adventurer.embeddings.cls_token", 0),
        ("embeddings.position_embeddings", 0),
        ("pixelvit.layers.0.mlp.fc1.weight", 1),
        ("layers.3.norm1.bias", 4),
        ("base_model.model.adventurer.layers.2.mixer.in_proj.weight", 3),  # as adapters wrap it
        ("adventurer.norm.weight", 5),
        # Layers, embeddings and blocks of a decoder's own, which learn like a head.
        ("decode_head.layers.0.weight", 5),
        ("pyramid.levels.1.layers.0.weight", 5),
        ("box_stages.layers.2.weight", 5),
        ("mask_head.embeddings.weight", 5),
        ("neck.adventurer_layers.1.weight", 5),
    ],
)
def test_level_of_a_name(name, level):
    """With four blocks: 0 is the embeddings', 5 that of all that follows the last block."""
    *path, last = name.split(".")
    root = module = torch.nn.Module()
    for part in path:
        module.add_module(part, torch.nn.Module())
        module = module.get_submodule(part)
    module.register_parameter(last, torch.nn.Parameter(torch.zeros(2, 2)))
    root.config = SimpleNamespace(num_hidden_layers=4)
    (group,) = parameter_groups(root, weight_decay=0.1, layer_decay=0.5)
    assert group["names"] == [name] and group["lr_scale"] == 0.5 ** (5 - level)


def test_blocks_of_a_base_model_and_frozen_parameters():
    model = tiny_model(AdventurerModel)
    model.embeddings.requires_grad_(False)
    groups = parameter_groups(model, weight_decay=0.1, layer_decay=0.5)
    assert sorted({group["lr_scale"] for group in groups}) == [0.0625, 0.125, 0.25, 0.5, 1.0]
    assert not any("embeddings" in name for group in groups for name in group["names"])


def test_rate_by_epoch_is_the_released_course():
    """Epochs 0 to 4 rise from 1e-6 in equal steps; from there on half a cosine over all 300, down to 1e-5."""
    recipe = load_recipe("adventurer-stage1", "base")
    optimizer = build_optimizer(tiny_model(AdventurerForImageClassification), recipe)
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
    optimizer = build_optimizer(tiny_model(AdventurerForImageClassification), recipe)
    scheduler = build_scheduler(optimizer, recipe, steps_per_epoch=20)
    scheduler.step_update(50)
    scheduler.step(1)  # without effect
    expected = 1e-5 + 0.5 * (1 - 1e-5) * (1 + math.cos(math.pi * 50 / 200))
    for group in optimizer.param_groups:
        assert group["lr"] == pytest.approx(expected * group["lr_scale"])


def rates_at(recipe, steps_per_epoch, times, by_epoch=False):
    """The learning rate of the head and of the embeddings at each of `times`, read in any order."""
    optimizer = build_optimizer(tiny_model(AdventurerForImageClassification), recipe)
    scheduler = build_scheduler(optimizer, recipe, steps_per_epoch)
    rates = []
    for time in times:
        (scheduler.step if by_epoch else scheduler.step_update)(time)
        (scheduler.step_update if by_epoch else scheduler.step)(1)  # without effect
        rates.append((optimizer.param_groups[-1]["lr"], optimizer.param_groups[0]["lr"]))
    return rates


def test_line():
    """200 steps, the first 20 from 0.2 up in equal steps, then along the line from 1 at step 0 to 0.1 at step 200."""
    recipe = Recipe(
        **{"num_train_epochs": 10.0, "warmup_epochs": 1.0, "base_learning_rate": 1.0, "learning_rate_batch_size": None},
        **{"warmup_learning_rate": 0.2, "min_learning_rate": 0.1, "learning_rate_schedule": "linear"},
        layer_decay=0.5,
    )
    expected = {0: 0.2, 1: 0.24, 10: 0.6, 19: 0.96, 20: 0.91, 21: 0.9055, 100: 0.55, 199: 0.1045}
    for order in (list(expected), list(expected)[::-1]):
        for time, (head, embeddings) in zip(order, rates_at(recipe, 20, order), strict=True):
            assert head == pytest.approx(expected[time])
            # timm's warmup starts every group at its share of the start.
            assert embeddings == pytest.approx(expected[time] / 32)


def test_line_by_epoch():
    recipe = Recipe(
        **{"num_train_epochs": 10.0, "warmup_epochs": 2.0, "base_learning_rate": 1.0, "learning_rate_batch_size": None},
        **{"warmup_learning_rate": 0.0, "min_learning_rate": 0.0, "learning_rate_schedule": "linear"},
        learning_rate_changes="epoch",
    )
    rates = [head for head, _ in rates_at(recipe, 20, range(10), by_epoch=True)]
    assert rates == pytest.approx([0, 0.5, 0.8, 0.7, 0.6, 0.5, 0.4, 0.3, 0.2, 0.1])


def test_warmup_stable_decay():
    """200 steps, the first 20 from 0.2 up, the whole rate to step 150, and from there along a line to 0.1."""
    recipe = Recipe(
        **{"num_train_epochs": 10.0, "warmup_epochs": 1.0, "base_learning_rate": 1.0, "learning_rate_batch_size": None},
        **{"warmup_learning_rate": 0.2, "min_learning_rate": 0.1, "learning_rate_schedule": "warmup_stable_decay"},
        **{"decay_share": 0.25, "layer_decay": 0.5},
    )
    expected = {0: 0.2, 10: 0.6, 19: 0.96, 20: 1.0, 149: 1.0, 150: 1.0, 151: 0.982, 175: 0.55, 199: 0.118, 200: 0.1}
    for order in (list(expected), list(expected)[::-1]):
        for time, (head, _) in zip(order, rates_at(recipe, 20, order), strict=True):
            assert head == pytest.approx(expected[time])
    rates = rates_at(recipe, 20, [20, 175])
    assert [embeddings for _, embeddings in rates] == pytest.approx([(0.1 + 0.9) / 32, 0.55 / 32])
    by_epoch = dataclasses.replace(recipe, learning_rate_changes="epoch", decay_share=0.5)
    rates = [head for head, _ in rates_at(by_epoch, 20, range(11), by_epoch=True)]
    assert rates == pytest.approx([0.2, 1, 1, 1, 1, 1, 0.82, 0.64, 0.46, 0.28, 0.1])


@pytest.mark.parametrize(("decay_share", "warmup_epochs"), [(0.0, 1.0), (0.95, 1.0), (1.0, 0.1)])
def test_decay_that_does_not_fit_is_refused(decay_share, warmup_epochs):
    fields = {"learning_rate_schedule": "warmup_stable_decay", "num_train_epochs": 10.0}
    fields |= {"warmup_epochs": warmup_epochs, "decay_share": decay_share}
    with pytest.raises(
        ValueError, match=r"decay_share=.* was given with .* of 10 epochs of warmup; it must be above 0"
    ):
        build_recipe(fields, "the test")


def test_drops():
    """200 steps: those before number 160 at the whole rate, from there to 179 at a tenth, the rest at a hundredth."""
    recipe = Recipe(
        **{"num_train_epochs": 10.0, "warmup_epochs": 0.5, "base_learning_rate": 1.0, "learning_rate_batch_size": None},
        **{"warmup_learning_rate": 0.5, "learning_rate_schedule": "steps", "learning_rate_drops": [0.8, 0.9]},
        layer_decay=0.5,
    )
    expected = {0: 0.5, 1: 0.55, 9: 0.95, 10: 1.0, 11: 1.0, 158: 1.0, 159: 1.0}
    expected |= {160: 0.1, 161: 0.1, 179: 0.1, 180: 0.01, 181: 0.01, 199: 0.01}
    for order in (list(expected), list(expected)[::-1]):
        for time, (head, embeddings) in zip(order, rates_at(recipe, 20, order), strict=True):
            assert head == pytest.approx(expected[time]) and embeddings == pytest.approx(expected[time] / 32)


@pytest.mark.parametrize(
    ("variant", "first", "second"), [("base", 163889, 177546), ("large", 163889, 177546), ("huge", 122916, 133159)]
)
def test_steps_of_the_drops_of_detection(variant, first, second):
    """Of 118,287 images in batches of 64, as the configurations that the recipe follows count them."""
    recipe = load_recipe("pixelvit-detection", variant)
    steps = [0, 100, first - 1, first, second - 1, second]
    rates = [head for head, _ in rates_at(recipe, 118287 // 64, steps)]
    warmup = round(recipe.warmup_epochs * 1848)
    assert rates == pytest.approx([1e-7, 1e-7 + 100 * (1e-4 - 1e-7) / warmup, 1e-4, 1e-5, 1e-5, 1e-6])


def test_steps_of_segmentation():
    recipe = load_recipe("adventurer-segmentation", "base")
    rates = [head for head, _ in rates_at(recipe, 20210 // 16, [0, 750, 1499, 1500, 80000, 159999])]
    line = [6e-5 * (160000 - step) / 160000 for step in (1500, 80000, 159999)]
    assert rates == pytest.approx([6e-11, 3e-5 + 3e-11, 6e-5 * (1499 + 1e-6) / 1500, *line], rel=1e-6)


def test_frozen_rate_learns_nothing():
    """A layer decay of zero leaves all but the head as it is."""
    model = tiny_model(PixelViTForImageClassification)
    recipe = Recipe(layer_decay=0.0, base_learning_rate=0.1)
    optimizer = build_optimizer(model, recipe)
    build_scheduler(optimizer, recipe, steps_per_epoch=1).step_update(10)
    before = {name: parameter.clone() for name, parameter in model.named_parameters()}
    model(torch.randn(2, 3, 8, 8), labels=torch.tensor([0, 1])).loss.backward()
    optimizer.step()
    changed = {name for name, parameter in model.named_parameters() if not torch.equal(parameter, before[name])}
    assert changed and all("layers" not in name and "embeddings" not in name for name in changed)


class TestMuon:
    @pytest.mark.parametrize("shape", [(2, 6, 4), (1, 4, 9)])
    def test_singular_values_become_about_one(self, shape):
        matrices = torch.randn(shape, generator=torch.Generator().manual_seed(0))
        values = torch.linalg.svdvals(orthogonalize(matrices))
        assert values.min() > 0.5 and values.max() < 1.3

    def test_a_step_goes_downhill_and_vectors_are_refused(self):
        matrix = torch.nn.Parameter(torch.ones(4, 3))
        optimizer = Muon([matrix], lr=0.1)
        for _ in range(20):
            optimizer.zero_grad()
            matrix.square().sum().backward()
            optimizer.step()
        assert matrix.square().sum() < 6
        with pytest.raises(ValueError, match=r"shape \(3,\); it takes matrices"):
            Muon([torch.nn.Parameter(torch.ones(3))], lr=0.1)


class TestMuonUnderLossScaling:
    """fp16's loss scaling looks at all gradients before a step, and lets Muon and AdamW both step or neither."""

    def start(self):
        """A model, its optimizer as Accelerate wraps it, and the scaler."""
        torch.manual_seed(0)
        model = tiny_model(PixelViTForImageClassification)
        recipe = Recipe(family="pixelvit", muon_learning_rate=0.01, weight_decay=0.1, max_grad_norm=1.0)
        scaler = torch.amp.GradScaler("cpu", init_scale=1024.0)
        accelerator = Accelerator(cpu=True)
        accelerator.scaler = scaler  # which Accelerate itself makes on a GPU only
        optimizer = accelerator.prepare_optimizer(build_optimizer(model, recipe))
        assert {"momentum", "betas"} <= {key for group in optimizer.param_groups for key in group}
        return model, optimizer, scaler

    def step(self, model, optimizer, scaler, overflow_in=None):
        pixels = torch.randn(2, 3, *as_pair(model.config.image_size), generator=torch.Generator().manual_seed(1))
        loss = model(pixels, labels=torch.tensor([0, 1])).loss
        (scaler.scale(loss) if scaler is not None else loss).backward()
        if overflow_in is not None:
            dict(model.named_parameters())[overflow_in].grad.view(-1)[0] = torch.inf
        if scaler is not None:
            scaler.unscale_(optimizer.optimizer)
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()

    @pytest.mark.parametrize("name", ["classifier.bias", "pixelvit.layers.0.mlp.fc1.weight"])
    def test_an_overflow_anywhere_skips_the_whole_step(self, name):
        model, optimizer, scaler = self.start()
        before = copy.deepcopy(model.state_dict())
        self.step(model, optimizer, scaler, overflow_in=name)
        assert optimizer.step_was_skipped and scaler.get_scale() == 512.0
        assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())
        self.step(model, optimizer, scaler)
        assert not optimizer.step_was_skipped and scaler.get_scale() == 512.0
        assert not any(torch.equal(value, before[key]) for key, value in model.named_parameters())

    def test_gradients_are_unscaled_once(self):
        model, optimizer, scaler = self.start()
        plain = copy.deepcopy(model)
        recipe = Recipe(family="pixelvit", muon_learning_rate=0.01, weight_decay=0.1)
        other = build_optimizer(plain, recipe)
        for _ in range(3):
            self.step(model, optimizer, scaler)
            self.step(plain, other, None)
            for group in (*optimizer.param_groups, *other.param_groups):
                group["lr"] *= 0.5  # as a scheduler does
        before = copy.deepcopy(plain.state_dict())
        for group in (*optimizer.param_groups, *other.param_groups):
            group["lr"] = 0.0
        self.step(model, optimizer, scaler)
        self.step(plain, other, None)
        assert all(torch.equal(value, before[key]) for key, value in plain.state_dict().items())
        for (name, scaled), unscaled in zip(model.named_parameters(), plain.parameters(), strict=True):
            torch.testing.assert_close(scaled, unscaled, rtol=1e-5, atol=1e-6, msg=name)
