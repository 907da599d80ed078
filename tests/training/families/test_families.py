# Copyright 2026 The modeling_pixelvit team. All rights reserved.
# SPDX-License-Identifier: Apache-2.0
"""A family of this folder's own, registered in one place, and then known to recipes, training, sweeps and reading."""

import dataclasses
import math
import re

import pytest
import torch
from accelerate import Accelerator
from transformers import AutoConfig, AutoModelForImageClassification

from modeling_pixelvit import PixelViTConfig, PixelViTForImageClassification, PixelViTModel
from training.checkpoints.cost import model_cost
from training.checkpoints.loading import load_checkpoint
from training.engine.loop import TrainingLoop
from training.engine.optimizers import parameter_groups
from training.engine.options import LoopOptions
from training.experiments.arguments import parse_arguments
from training.experiments.law import judge_convergence
from training.experiments.report import fit_series, format_report
from training.experiments.run import Run, execute
from training.experiments.sweep import name_of
from training.families.base import BASE_MODEL, CLASSIFIER
from training.families.pixelvit import PIXELVIT
from training.families.registry import FAMILIES, architecture_of, model_classes, register_family
from training.settings.recipe import Recipe, RecipeError, build_recipe, load_recipe
from training.tasks.classification import ClassificationTask


class ToyConfig(PixelViTConfig):
    model_type = "toy"


# What their checkpoints carry, where they are published with their code.
CODE = {
    "AutoConfig": "test_families.ToyConfig",
    "AutoModel": "test_families.ToyModel",
    "AutoModelForImageClassification": "test_families.ToyForImageClassification",
}


class ToyModel(PixelViTModel):
    config_class = ToyConfig
    family_auto_map = CODE
    base_model_prefix = "toy"


class ToyForImageClassification(PixelViTForImageClassification):
    """A classifier of another shape: the mean of the tokens through a hidden layer."""

    config_class = ToyConfig
    family_auto_map = CODE
    base_model_prefix = "toy"

    def __init__(self, config):
        super().__init__(config)
        self.toy = self._modules.pop("pixelvit")
        self.classifier = torch.nn.Sequential(
            torch.nn.Linear(config.hidden_size, 8), torch.nn.GELU(), torch.nn.Linear(8, config.num_labels)
        )

    @property
    def pixelvit(self):
        return self.toy


TINY = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 64}
SHORT = {
    "model": TINY,
    "variant": "tiny",
    "patch_size": 8,
    "image_size": 16,
    "num_train_epochs": 0.5,
    "warmup_epochs": 0.1,
    "total_batch_size": 64,
    "ema_decay": None,
}


@pytest.fixture
def toy():
    AutoConfig.register("toy", ToyConfig, exist_ok=True)
    AutoModelForImageClassification.register(ToyConfig, ToyForImageClassification, exist_ok=True)
    family = dataclasses.replace(
        PIXELVIT,
        config_class=ToyConfig,
        model_classes={BASE_MODEL: ToyModel, CLASSIFIER: ToyForImageClassification},
        title="Toy",
        colours=("#000000", "#888888"),
    )
    register_family(family)
    yield family
    del FAMILIES["toy"]


def test_it_is_trained_and_read(toy, tmp_path, digits):
    recipe = Recipe(family="toy", **SHORT)
    options = LoopOptions(output_dir=str(tmp_path), report_to="none", save_minutes=0)
    loop = TrainingLoop(Accelerator(cpu=True), recipe, ClassificationTask(recipe, digits), options, quiet=True)
    assert type(loop.sharded.module) is ToyForImageClassification
    assert loop.run().metrics["eval_loss"] < 1.2 * math.log(10)
    model, _ = load_checkpoint(str(tmp_path / "best"))
    assert type(model) is ToyForImageClassification and architecture_of(model) == CLASSIFIER
    assert model_cost(model.config, "ToyForImageClassification").tokens == 4
    # The blocks' depths are found in its names.
    groups = parameter_groups(model, weight_decay=0.1, layer_decay=0.5)
    scales = {name: group["lr_scale"] for group in groups for name in group["names"]}
    assert {name: scales[name] for name in scales if re.search(r"layers\.0\..*fc1.weight|cls_token", name)} == {
        "toy.layers.0.mlp.fc1.weight": 0.25,
        "toy.embeddings.cls_token": 0.125,
    }


def test_it_is_swept(toy, tmp_path, digits):
    assert parse_arguments([]).families == ["adventurer", "pixelvit"]  # it has no recipe for a sweep
    recipe = build_recipe({**dataclasses.asdict(load_recipe("pixelvit-sweep", model=TINY)), "family": "toy"}, "this")
    data = {"source": "embedded digits", "image_size": 16}
    recipe = dataclasses.replace(recipe, patch_size=16, num_train_epochs=4 * 64 / 1400, warmup_epochs=0.0)
    run = Run(recipe, 4, data, str(tmp_path / "run"))
    assert name_of(recipe) == "toy-patch16"
    metrics = execute(run, digits)
    runs = judge_convergence([{**metrics, "series": FAMILIES["toy"].title}])
    assert metrics["training_flops"] > 0 and "Toy" in format_report(runs, fit_series(runs))


def test_it_is_known_only_while_it_is_registered(toy):
    assert {"ToyModel", "ToyForImageClassification"} <= model_classes().keys()
    del FAMILIES["toy"]
    assert "ToyModel" not in model_classes()
    with pytest.raises(RecipeError, match="family=toy was given; there are adventurer, pixelvit"):
        build_recipe({"family": "toy"}, "the command line")
    register_family(toy)
