# Copyright 2026 The modeling_pixelvit team. All rights reserved.
# SPDX-License-Identifier: Apache-2.0
"""Recipes: their numbers against the paper's tables, the schema's answers to mistakes, and a step with each."""

import dataclasses
import json
from pathlib import Path

import pytest
import torch
from helpers import tiny_model

from modeling_pixelvit import AdventurerForImageClassification, PixelViTForImageClassification
from training.optim import build_optimizers, build_scheduler
from training.recipe import RECIPES_DIR, Recipe, RecipeError, find_recipes, load_recipe


TABLES = json.loads((Path(__file__).parents[1] / "golden" / "recipe_tables.json").read_text())
MODEL_CLASSES = {"adventurer": AdventurerForImageClassification, "pixelvit": PixelViTForImageClassification}
PAPERS_RECIPES = [name for name in find_recipes() if not name.endswith("-sweep")]
COLUMNS = [
    (family, stage, variant, column)
    for family in MODEL_CLASSES
    for stage in ("stage1", "stage2", "stage3")
    for column in TABLES[stage]
    for variant in column["variants"]
]


@pytest.mark.parametrize(("family", "stage", "variant", "column"), COLUMNS)
def test_numbers_are_the_papers(family, stage, variant, column):
    recipe = load_recipe(f"{family}-{stage}", variant)
    assert (recipe.family, recipe.variant, recipe.task) == (family, variant, "classification")
    assert recipe.base_learning_rate == column["base learning rate"]
    assert recipe.weight_decay == column["weight decay"]
    assert recipe.num_train_epochs == column["epochs"]
    assert [recipe.adam_beta1, recipe.adam_beta2] == column["betas"]
    assert recipe.total_batch_size == column["batch size"]
    assert recipe.warmup_epochs == column["warmup epochs"]
    assert recipe.drop_path_rate == column["stochastic depth"]
    assert recipe.layer_decay == (column["layer-wise lr decay"] or 1.0)
    assert recipe.label_smoothing == (column["label smoothing"] or 0.0)
    assert recipe.random_erasing == (column["random erasing"] or 0.0)
    assert recipe.auto_augment == ("3a" if column["ThreeAugment"] else column["RandAugment"])
    assert recipe.augmentation_repeats == (3 if column["repeated augmentation"] else 1)


@pytest.mark.parametrize("family", MODEL_CLASSES)
@pytest.mark.parametrize("stage", [1, 2, 3])
def test_what_the_released_code_adds(family, stage):
    recipe = load_recipe(f"{family}-stage{stage}", "base")
    assert (recipe.mixup_alpha, recipe.cutmix_alpha) == (0.8, 1.0)
    assert (recipe.mixup_probability, recipe.mixup_switch_probability) == (1.0, 0.5)
    assert (recipe.color_jitter, recipe.min_crop_scale, recipe.horizontal_flip) == (0.3, 0.08, 0.5)
    assert (recipe.warmup_learning_rate, recipe.min_learning_rate) == (1e-6, 1e-5)
    assert recipe.ema_decay == 0.99996 and recipe.max_grad_norm is None
    # Scaled by the batch over 512, but for fine-tuning.
    assert recipe.learning_rate == pytest.approx(1e-3 if stage < 3 else 1e-5)
    assert recipe.image_size == (128 if stage == 1 else 224)


def test_every_variant_has_every_stage():
    assert len(find_recipes()) == len(PAPERS_RECIPES) + 2  # the sweep's
    assert len(PAPERS_RECIPES) == 12
    for family in MODEL_CLASSES:
        for stage in (1, 2, 3):
            for variant in ("tiny", "small", "base", "large", "huge"):
                recipe = load_recipe(f"{family}-stage{stage}", variant, patch_size=8)
                config = recipe.build_config()
                assert (config.patch_size, config.image_size) == (8, recipe.image_size)
                assert config.drop_path_rate == recipe.drop_path_rate
    # The tables have no Tiny in the later stages, and no Huge.
    assert load_recipe("adventurer-stage3", "tiny").drop_path_rate == 0.4
    assert load_recipe("adventurer-stage2", "huge").layer_decay == 0.9


@pytest.mark.parametrize("name", PAPERS_RECIPES)
def test_headers_tell_how_to_run_it_and_what_to_expect(name):
    path = RECIPES_DIR / f"{name}.yaml"
    header = path.read_text().split("include:")[0]
    assert "Table" in header and "Hardware:" in header and "Accuracy" in header
    assert f"--recipe {name.removesuffix('-large')} " in header.replace("\\\n#", "")
    assert load_recipe(path).variant in header  # the file's own name works, too


@pytest.mark.parametrize("name", find_recipes())
def test_takes_a_step_at_toy_width(name):
    recipe = load_recipe(RECIPES_DIR / f"{name}.yaml")
    model = tiny_model(MODEL_CLASSES[recipe.family], drop_path_rate=recipe.drop_path_rate).train()
    optimizers = build_optimizers(model, recipe)
    for optimizer in optimizers:
        scheduler = build_scheduler(optimizer, recipe, steps_per_epoch=10)
        scheduler.step(int(recipe.warmup_epochs))
        scheduler.step_update(10 * int(recipe.warmup_epochs))
    before = {name: parameter.clone() for name, parameter in model.named_parameters()}
    torch.manual_seed(0)
    model(torch.randn(4, 3, 8, 8), labels=torch.arange(4)).loss.backward()
    for optimizer in optimizers:
        optimizer.step()
    for parameter_name, parameter in model.named_parameters():
        assert parameter.isfinite().all() and not torch.equal(parameter, before[parameter_name]), parameter_name


@pytest.mark.parametrize(
    ("arguments", "changes", "message"),
    [
        (("adventurer-stag1",), {}, "Did you mean 'adventurer-stage1'"),
        (("adventurer-stage1", "bas"), {}, "for tiny, small, base, large, huge"),
        (("adventurer-stage1-large", "base"), {}, "for large, huge"),
        (("missing.yaml",), {}, "no such file"),
        (("adventurer-stage1",), {"patchsize": 4}, "'patchsize'.*Did you mean 'patch_size'"),
        (("adventurer-stage1",), {"patch_size": "four"}, "patch_size.*int.*four"),
        (("adventurer-stage1",), {"patch_size": 0}, "patch_size=0 .* at least 1"),
        (("adventurer-stage1",), {"drop_path_rate": 1.5}, "drop_path_rate=1.5 .* at most 1"),
        (("adventurer-stage1",), {"warmup_epochs": 300}, "warmup_epochs=300 .* 300 epochs"),
        (("adventurer-stage1",), {"learning_rate_changes": "batch"}, "learning_rate_changes"),
    ],
)
def test_mistakes_are_named(arguments, changes, message):
    with pytest.raises(RecipeError, match=message):
        load_recipe(*arguments, **changes)


def test_files_with_mistakes(tmp_path):
    path = tmp_path / "mine.yaml"
    for content, message in [
        ("family: adventurer\nweigth_decay: 0.1\n", "'weigth_decay'.*Did you mean 'weight_decay'"),
        ("- family\n", "holds a list"),
        ("family: [\n", "cannot be read"),
        ("drop_path_rate: {small: 0.1}\n", "for small and not for 'base'"),
        ("include: [nothing]\n", "nothing.yaml cannot be read"),
    ]:
        path.write_text(content)
        with pytest.raises(RecipeError, match=message):
            load_recipe(path)


def test_numbers_as_yaml_reads_them(tmp_path):
    path = tmp_path / "mine.yaml"
    path.write_text("base_learning_rate: 5e-4\nnum_train_epochs: 3\nwarmup_epochs: 1\n")  # text and integers to YAML
    recipe = load_recipe(path, patch_size=2)
    assert (recipe.base_learning_rate, recipe.num_train_epochs, recipe.patch_size) == (5e-4, 3.0, 2)


def test_a_saved_recipe_is_the_same_one(tmp_path):
    recipe = load_recipe("pixelvit-stage2", "tiny", patch_size=4, initial_checkpoint="runs/stage1/best")
    recipe.save(tmp_path / "recipe.yaml")
    assert load_recipe(tmp_path / "recipe.yaml") == recipe
    assert load_recipe(tmp_path / "recipe.yaml", seed=1) == dataclasses.replace(recipe, seed=1)
    assert isinstance(recipe, Recipe)
