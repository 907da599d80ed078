# Copyright 2026 The modeling_pixelvit team. All rights reserved.
# SPDX-License-Identifier: Apache-2.0
"""Recipes: their numbers against the paper's tables, the schema's answers to mistakes, and a step with each."""

import dataclasses
import json
import math
import re
from pathlib import Path

import pytest
import torch
from helpers import tiny_model

from modeling_pixelvit import AdventurerForImageClassification, PixelViTForImageClassification
from training.data.batches import TrainingBatches
from training.engine.optimizers import build_optimizer, build_scheduler
from training.settings.recipe import RECIPES_DIR, Recipe, RecipeError, find_recipes, load_recipe
from training.tasks.registry import TASKS


TABLES = json.loads((Path(__file__).parents[2] / "golden" / "recipe_tables.json").read_text())
MODEL_CLASSES = {"adventurer": AdventurerForImageClassification, "pixelvit": PixelViTForImageClassification}
VARIANTS = ("tiny", "small", "base", "large", "huge")
STAGES = [name for name in find_recipes() if "-stage" in name]
DENSE = {"segmentation": "segmentation", "segmentation-upernet": "segmentation", "detection": "detection"}
DENSE_RECIPES = [f"{family}-{ending}" for family in MODEL_CLASSES for ending in DENSE]
DENSE_COLUMNS = [
    (name, variant, column)
    for name in DENSE_RECIPES
    for column in TABLES[DENSE[name.split("-", 1)[1]]]
    for variant in column["variants"]
]
TOY = {
    "adventurer": {"hidden_size": 32, "num_hidden_layers": 2, "head_dim": 16, "state_size": 8},
    "pixelvit": {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 48},
}
TOY_HEADS = {
    "segmentation": {"decoder_hidden_size": 16, "auxiliary_channels": 8, "pool_scales": [1, 2]},
    "detection": {
        **{"pyramid_channels": 16, "detection_strides": [4, 8], "anchor_sizes": [8, 16], "rpn_num_convs": 1},
        **{"rpn_pre_nms_top_n_train": 50, "rpn_post_nms_top_n_train": 50, "box_batch_size_per_image": 32},
        **{"box_head_num_convs": 1, "box_head_hidden_size": 16, "mask_head_num_convs": 1, "mask_head_channels": 8},
    },
}
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


@pytest.mark.parametrize(("name", "variant", "column"), DENSE_COLUMNS)
def test_numbers_are_those_of_the_configurations(name, variant, column):
    """Which count in iterations, where recipes count in epochs of whole batches."""
    recipe = load_recipe(name, variant)
    assert (recipe.family, recipe.variant) == (name.split("-")[0], variant)
    rate = column["learning rate"]
    assert recipe.learning_rate == rate and recipe.weight_decay == column["weight decay"]
    assert dataclasses.replace(recipe, total_batch_size=8).learning_rate == rate  # never scaled
    assert [recipe.adam_beta1, recipe.adam_beta2] == column["betas"]
    assert recipe.total_batch_size == column["batch size"] and recipe.image_size == column["image size"]
    assert [recipe.min_resize_scale, recipe.max_resize_scale] == column["resize ratio"]
    assert recipe.horizontal_flip == column["flip"]
    assert recipe.photometric_distortion == column["photometric distortion"]
    assert recipe.drop_path_rate == column["stochastic depth"]
    assert recipe.layer_decay == (column["layer-wise lr decay"] or 1.0)
    assert recipe.muon_learning_rate is None and recipe.max_grad_norm is None and recipe.ema_decay is None
    assert recipe.warmup_learning_rate == pytest.approx(column["warmup start"] * rate)
    batches = TrainingBatches(recipe, column["images"])
    assert batches.num_steps == column["iterations"] and recipe.learning_rate_changes == "step"
    assert round(recipe.warmup_epochs * batches.steps_per_epoch) == column["warmup iterations"]
    if "milestones" in column:
        drops = [round(share * batches.num_steps) for share in recipe.learning_rate_drops]
        assert recipe.learning_rate_schedule == "steps" and drops == column["milestones"]
    else:
        assert recipe.learning_rate_schedule == "linear" and recipe.min_learning_rate == column["last learning rate"]


def test_every_recipe_is_found_and_loads():
    """Below the folder as well: a file that no name leads to would be trained from by nobody."""
    found = find_recipes()
    sweeps = [name for name in found if name.endswith("-sweep")]
    assert len(STAGES) == 12 and len(DENSE_RECIPES) == 6 and len(sweeps) == 6
    assert sorted(found) == sorted([*STAGES, *DENSE_RECIPES, *sweeps])
    shared = {path.stem for path in (RECIPES_DIR / "shared").glob("*.yaml")}
    assert len(list(RECIPES_DIR.rglob("*.y*ml"))) == len(found) + len(shared)
    included = [re.search(r"^include: \[(.*)\]$", path.read_text(), re.MULTILINE)[1] for path in found.values()]
    assert {name for names in included for name in names.split(", ")} == shared
    for path in found.values():
        assert isinstance(load_recipe(path), Recipe)


@pytest.mark.parametrize("epochs", [0.0, math.inf, math.nan])
def test_epochs_are_finite_and_above_zero(epochs):
    with pytest.raises(RecipeError, match=r"num_train_epochs=\S+ was given; it must be"):
        load_recipe("pixelvit-sweep", num_train_epochs=epochs)


@pytest.mark.parametrize(
    ("model", "sentence"),
    [
        ({"hiden_size": 3}, r"model sets 'hiden_size', which is no field of PixelViTConfig; .* mean 'hidden_size'\?"),
        ({"scan_order": "rows"}, r"model sets 'scan_order', which is no field of PixelViTConfig"),
        ({"_out_features": []}, r"model sets '_out_features', which is no field"),
        ({"hidden_size": "wide"}, r"model cannot be used: Field 'hidden_size' expected int, got str"),
        ({"hidden_size": 0}, r"hidden_size=0 was given"),
    ],
)
def test_fields_of_the_model_are_checked(tmp_path, model, sentence):
    recipe = load_recipe("pixelvit-sweep", model=model)
    with pytest.raises(ValueError, match=sentence):
        recipe.build_config()
    recipe.save(tmp_path / "recipe.yaml")
    assert load_recipe(tmp_path / "recipe.yaml") == recipe  # that of an older checkpoint can still be read


@pytest.mark.parametrize("family", MODEL_CLASSES)
@pytest.mark.parametrize("name", ["segmentation-sweep", "segmentation-upernet"])
def test_upernets_coarsest_level_has_a_cell_for_each_of_its_pools(family, name):
    """Else the pools repeat each other, and of where things are the last block's tokens tell nothing."""
    recipe = load_recipe(f"{family}-{name}")
    for patch_size in TASKS["segmentation"].patch_sizes:
        config = recipe.build_config(patch_size=patch_size)
        assert recipe.image_size >= config.pyramid_strides[-1] * max(config.pool_scales)


def test_every_variant_has_every_recipe():
    for family in MODEL_CLASSES:
        for stage in (1, 2, 3):
            for variant in VARIANTS:
                recipe = load_recipe(f"{family}-stage{stage}", variant, patch_size=8)
                config = recipe.build_config()
                assert (config.patch_size, config.image_size) == (8, recipe.image_size)
                assert config.drop_path_rate == recipe.drop_path_rate
    for name in DENSE_RECIPES:
        for variant in VARIANTS:
            recipe = load_recipe(name, variant, patch_size=8)
            TASKS[recipe.task].check_recipe(recipe)
            config = recipe.build_config()
            assert (config.patch_size, config.image_size) == (8, recipe.image_size)
            assert config.drop_path_rate == recipe.drop_path_rate
            assert (config.decoder_type == "upernet") == config.use_auxiliary_head == name.endswith("upernet")
    # The tables have no Tiny in the later stages, and no Huge; no configuration of a dense task has a Tiny.
    assert load_recipe("adventurer-stage3", "tiny").drop_path_rate == 0.4
    assert load_recipe("adventurer-stage2", "huge").layer_decay == 0.9
    for name in DENSE_RECIPES:
        tiny, base = (load_recipe(name, variant) for variant in ("tiny", "base"))
        assert dataclasses.replace(tiny, variant="base") == base


@pytest.mark.parametrize("name", [*STAGES, *DENSE_RECIPES])
def test_headers_tell_how_to_run_it_and_what_to_expect(name):
    path = RECIPES_DIR / f"{name}.yaml"
    header = path.read_text().split("include:")[0]
    measure = "Accuracy" if name in STAGES else "AP" if name.endswith("detection") else "mIoU"
    assert "Table" in header and "Hardware:" in header and measure in header
    assert f"--recipe {name.removesuffix('-large')} " in header.replace("\\\n#", "")
    assert load_recipe(path).variant in header  # the file's own name works, too


@pytest.fixture(scope="module")
def scenes(scenes_folder):
    """For each dense task."""
    return {task: TASKS[task].load_splits(scenes_folder) for task in ("segmentation", "detection")}


def take_a_step(model, recipe, loss):
    """At the end of the warmup; every parameter must change."""
    optimizer = build_optimizer(model, recipe)
    scheduler = build_scheduler(optimizer, recipe, steps_per_epoch=10)
    scheduler.step(math.ceil(recipe.warmup_epochs))
    scheduler.step_update(math.ceil(10 * recipe.warmup_epochs))
    before = {name: parameter.clone() for name, parameter in model.named_parameters()}
    torch.manual_seed(0)
    loss().backward()
    optimizer.step()
    for name, parameter in model.named_parameters():
        assert parameter.isfinite().all() and not torch.equal(parameter, before[name]), name


@pytest.mark.parametrize("name", [name for name in find_recipes() if load_recipe(name).task == "classification"])
def test_takes_a_step_at_toy_width(name):
    recipe = load_recipe(RECIPES_DIR / f"{name}.yaml")
    model = tiny_model(MODEL_CLASSES[recipe.family], drop_path_rate=recipe.drop_path_rate).train()
    take_a_step(model, recipe, lambda: model(torch.randn(4, 3, 8, 8), labels=torch.arange(4)).loss)


@pytest.mark.parametrize("name", [name for name in find_recipes() if load_recipe(name).task != "classification"])
def test_takes_a_step_with_its_task_at_toy_width(name, scenes):
    """Data, augmentation, collation, model and losses as the loop has them."""
    path = RECIPES_DIR / f"{name}.yaml"
    recipe = load_recipe(path)
    fields = {**recipe.model, **TOY[recipe.family], **TOY_HEADS[recipe.task]}
    recipe = load_recipe(path, patch_size=8, image_size=32, total_batch_size=8, model=fields)
    task = TASKS[recipe.task](recipe, scenes[recipe.task])
    model = task.build_model().train()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.05 * torch.randn_like(parameter))
    torch.manual_seed(0)
    batch = task.collate([task.train_example(index) for index in range(8)])
    take_a_step(model, recipe, lambda: task.losses(model, batch)["loss"])


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
        (("adventurer-stage1",), {"seed": -1}, "seed=-1 .* at least 0"),
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
        ("include:\n", "sets include to None; give a list of names"),
        ("patch_draws: [4:1, 2:1]\n", r"'patch_draws\[0\]' expected str, got int \(value: 241\)"),  # base 60 to YAML
        ("variants: tiny\n", "sets variants to 'tiny'; give a list of names"),
        ("variant: {tiny: 1}\n", "sets variant to {'tiny': 1}; give one of tiny, small"),
    ]:
        path.write_text(content)
        with pytest.raises(RecipeError, match=message):
            load_recipe(path)
    path.write_bytes(b"\xff\xfe")
    with pytest.raises(RecipeError, match="cannot be read"):
        load_recipe(path)


def test_numbers_as_yaml_reads_them(tmp_path):
    path = tmp_path / "mine.yaml"
    path.write_text("base_learning_rate: 5e-4\nnum_train_epochs: 3\nwarmup_epochs: 1\n")  # text and integers to YAML
    recipe = load_recipe(path, patch_size=2)
    assert (recipe.base_learning_rate, recipe.num_train_epochs, recipe.patch_size) == (5e-4, 3.0, 2)
    path.write_text("learning_rate_schedule: steps\nlearning_rate_drops: [5e-1, 0.75]\n")
    assert load_recipe(path).learning_rate_drops == [0.5, 0.75]


def test_a_saved_recipe_is_the_same_one(tmp_path):
    recipe = load_recipe("pixelvit-stage2", "tiny", patch_size=4, initial_checkpoint="runs/stage1/best")
    recipe.save(tmp_path / "recipe.yaml")
    assert load_recipe(tmp_path / "recipe.yaml") == recipe
    assert load_recipe(tmp_path / "recipe.yaml", seed=1) == dataclasses.replace(recipe, seed=1)
    assert isinstance(recipe, Recipe)
