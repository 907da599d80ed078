# Copyright 2026 The modeling_pixelvit team. All rights reserved.
# SPDX-License-Identifier: Apache-2.0
"""What is told of a run before it starts, against what it then does; compiled, measured and fused steps."""

import json
import re

import pytest
import torch
from dense_runs import TINY
from helpers import tiny_model
from safetensors.torch import load_file

from modeling_pixelvit import PixelViTForImageClassification
from training import train
from training.engine.checkpoints import find_checkpoints
from training.engine.log import read_metrics
from training.engine.optimizers import build_optimizer
from training.engine.plan import format_plan
from training.settings.recipe import load_recipe
from training.tasks.base import Share, SourceOptions
from training.tasks.classification import ClassificationTask


pytestmark = pytest.mark.usefixtures("one_thread", "few_test_digits")

WORDS = ["--recipe", "pixelvit-sweep", "--patch_size", "4", "--warmup_epochs", "0", "--report_to", "none"]
FEW_STEPS = [*WORDS, "--num_train_epochs", "0.14", "--logging_steps", "1"]


@pytest.fixture(scope="module")
def digits():
    return ClassificationTask.load_images(SourceOptions())


def losses(folder):
    return [record["loss"] for record in read_metrics(folder) if "loss" in record]


def test_the_plan_by_the_command(tmp_path, capsys):
    out = tmp_path / "run"
    words = [*WORDS, "--num_train_epochs", "2", "--patch_schedule", "8:0.5", "4:0.5", "--output_dir", str(out)]
    assert train.main([*words, "--plan"]) == 0
    told = dict(re.split(r"  +", line, maxsplit=1) for line in capsys.readouterr().out.splitlines())
    assert told["steps"] == "86, 43 an epoch, 2 epochs" and told["batch"].startswith(
        "32 images a step: 32 in each of 1"
    )
    assert told["patch 8"].startswith("50% of the images, 4 tokens") and not out.exists()
    assert train.main([*words, "--gradient_accumulation_steps", "3", "--plan"]) == 2
    assert "must be a multiple of their product" in capsys.readouterr().err
    assert train.main([*words, "--task", "colouring", "--plan"]) == 2
    assert "task=colouring was given; there are classification, multi_label" in capsys.readouterr().err


@pytest.mark.parametrize("muon", [None, 0.02])
def test_its_numbers_are_those_of_the_run(digits, muon):
    recipe = load_recipe("pixelvit-sweep", patch_size=4, muon_learning_rate=muon, ema_decay=0.9)
    task = ClassificationTask(recipe, digits)
    told = format_plan(recipe, task, Share())
    model = task.build_model()
    optimizer = build_optimizer(model, recipe)
    model(torch.randn(2, 3, 16, 16), labels=torch.tensor([0, 1])).loss.backward()
    optimizer.step()
    state = [value for states in optimizer.state.values() for name, value in states.items() if name != "step"]
    parameters = list(model.parameters())
    count = sum(tensor.numel() for tensor in [*parameters, *(one.grad for one in parameters), *state, *parameters])
    assert f"{sum(one.numel() for one in parameters):,} parameters" in told
    assert f"{4 * count / 1e6:.3g} MB of weights, gradients, optimizer and average" in told
    images = 32 * int(re.search(r"steps +([\d,]+)", told)[1].replace(",", ""))
    flops = 3 * images * task.forward_flops(model, 4)
    assert f"{flops / 1e9:.3g} GFLOP: {flops / 1e12 / 60:.1f} minutes" in told


def test_tokens_of_an_extended_sequence(digits):
    """Those that are told, counted for the tokens per second, and seen by the model."""
    recipe = load_recipe("pixelvit-sweep", patch_size=4, model={**TINY["pixelvit"], "sequence_extension": 3})
    recipe.model["position_embedding_type"] = "absolute"
    task = ClassificationTask(recipe, digits)
    assert re.search(r"patch 4 +48 tokens, ", format_plan(recipe, task, Share()))
    images = torch.zeros(2, 3, 16, 16)
    assert task.num_tokens({"pixel_values": images}) == 2 * 48
    assert task.num_tokens({"pixel_values": images, "patch_size": 8}) == 2 * 12
    assert task.build_model().base_model(images).last_hidden_state.shape[1] == 48 + 1


def test_a_compiled_run_is_the_same_run(tmp_path):
    small = [*FEW_STEPS, "--model", json.dumps(TINY["pixelvit"])]
    for name, options in (("plain", []), ("compiled", ["--compile"])):
        assert train.main([*small, *options, "--output_dir", str(tmp_path / name)]) == 0
    assert len(losses(tmp_path / "plain")) == 6
    assert losses(tmp_path / "compiled") == pytest.approx(losses(tmp_path / "plain"), rel=1e-3)
    plain, compiled = (
        load_file(max(find_checkpoints(tmp_path / name / "checkpoints")) / "model.safetensors")
        for name in ("plain", "compiled")
    )
    assert plain.keys() == compiled.keys()


def test_measured_steps(tmp_path, capsys):
    assert train.main([*FEW_STEPS, "--profile", "2", "--output_dir", str(tmp_path)]) == 0
    events = json.loads((tmp_path / "trace.json").read_text())["traceEvents"]
    names = {event.get("name", "") for event in events}
    assert {name for name in names if name.startswith("ProfilerStep#")} == {"ProfilerStep#3", "ProfilerStep#4"}
    assert "Optimizer.step#AdamW.step" in names and "Self CPU time total" in capsys.readouterr().err


def test_a_fused_step_is_the_same_step():
    """On a CPU, where PyTorch has it too."""
    recipe, found = load_recipe("pixelvit-stage1", base_learning_rate=1e-3), []
    for fused in (False, True):
        torch.manual_seed(0)
        model = tiny_model(PixelViTForImageClassification)
        optimizer = build_optimizer(model, recipe, fused=fused)
        for seed in range(3):
            torch.manual_seed(seed)
            model(torch.randn(2, 3, 8, 8), labels=torch.tensor([0, 1])).loss.backward()
            optimizer.step()
            optimizer.zero_grad()
        assert all(bool(group.get("fused")) == fused for group in optimizer.param_groups)
        found.append(model.state_dict())
    for name, tensor in found[0].items():
        if name.endswith("k_proj.bias"):  # which changes nothing, so that its gradients are rounding
            continue
        torch.testing.assert_close(tensor, found[1][name], atol=1e-6, rtol=1e-5)
