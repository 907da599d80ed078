# Copyright 2026 The modeling_pixelvit team. All rights reserved.
# SPDX-License-Identifier: Apache-2.0
"""Short runs in this process, and those of segmentation and detection on written scenes of digits."""

import os
import signal
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from accelerate import Accelerator
from accelerate.utils import GradientAccumulationPlugin
from safetensors.torch import load_file

from training.engine.checkpoints import find_checkpoints
from training.engine.evaluation import evaluate
from training.engine.log import read_metrics
from training.engine.loop import TrainingLoop
from training.engine.options import LoopOptions
from training.settings.recipe import load_recipe
from training.tasks.registry import TASKS


TINY = {
    "adventurer": {"hidden_size": 32, "num_hidden_layers": 2, "head_dim": 16, "state_size": 8},
    "pixelvit": {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 64},
}
SHORT = {
    "patch_size": 4,
    "image_size": 32,
    "num_train_epochs": 2.0,
    "warmup_epochs": 0.5,
    "total_batch_size": 8,
    "base_learning_rate": 2e-3,
    "layer_decay": 1.0,
    "horizontal_flip": 0.0,
    "min_resize_scale": 1.0,
    "max_resize_scale": 1.0,
}


def make_recipe(name, heads, **fields):
    """One of the recipes for a tiny encoder under `heads`, short."""
    recipe = load_recipe(name)
    model = {**recipe.model, **TINY[recipe.family], **heads, **fields.pop("model", {})}
    return load_recipe(name, "tiny", **{**SHORT, "model": model, **fields})


def make_loop(recipe, images, folder, task_class=None, **options):
    options = {"logging_steps": 1, "save_minutes": 0.0, "report_to": "none", **options}
    options = LoopOptions(output_dir=str(folder), **options)
    plugin = GradientAccumulationPlugin(num_steps=options.gradient_accumulation_steps, sync_with_dataloader=False)
    accelerator = Accelerator(cpu=True, gradient_accumulation_plugin=plugin)
    task = (task_class or TASKS[recipe.task])(recipe, images)
    return TrainingLoop(accelerator, recipe, task, options, quiet=True)


def stop_after(loop, step):
    """Runs until SIGTERM, which comes during that step."""
    return loop.run(lambda steps, loss: os.kill(os.getpid(), signal.SIGTERM) if steps == step else None)


def train_losses(folder):
    """The total and its parts, step by step."""
    return [
        {name: value for name, value in record.items() if "loss" in name or name == "step"}
        for record in read_metrics(folder)
        if "loss" in record
    ]


def evaluations(folder):
    return [record for record in read_metrics(folder) if "eval_loss" in record]


def tensors(folder):
    """All tensors of a run's last checkpoint, by file and name: weights, buffers, averages and optimizer."""
    checkpoint = max(find_checkpoints(folder / "checkpoints"))
    return {
        (str(file.relative_to(checkpoint)), name): tensor
        for file in sorted(checkpoint.rglob("*.safetensors"))
        for name, tensor in load_file(file).items()
    }


def assert_same_run(folder, other):
    """Bit for bit, in what was logged and in what is kept."""
    assert train_losses(folder) == train_losses(other) and evaluations(folder) == evaluations(other)
    found, expected = tensors(folder), tensors(other)
    assert found.keys() == expected.keys()
    assert all(torch.equal(found[name], expected[name]) for name in expected)


def check_going_on(recipe, scenes, folder, *steps):
    """Stopped at each of the steps, a run goes on as the one in `folder / "whole"` that was not, bit for bit."""
    options = {"gradient_accumulation_steps": 2, "eval_epochs": 1.0}
    make_loop(recipe, scenes, folder / "whole", **options).run()
    for step in steps:
        broken = folder / f"broken{step}"
        outcome = stop_after(make_loop(recipe, scenes, broken, **options), step)
        assert outcome.step == step and outcome.signal
        make_loop(recipe, scenes, broken, resume="auto", **options).run()
        assert_same_run(broken, folder / "whole")


def evaluation_of_best(folder):
    """What was logged of the step whose checkpoint is kept as the best."""
    step = int((folder / "best").resolve().name.removeprefix("best-"))
    (record,) = [record for record in evaluations(folder) if record["step"] == step]
    return record


def evaluate_model(task, model, batch_size):
    """By one process."""
    alone = SimpleNamespace(gather=lambda content: [content])
    evaluation = evaluate(task, {"model": model}, lambda batch: batch, alone, batch_size=batch_size)
    assert evaluation.unreadable == []
    metrics, values = evaluation.metrics["model"], evaluation.image_values["model"]
    assert len(values["loss"]) == task.num_eval
    weights = values.get("weight", np.ones(task.num_eval))
    assert values["loss"] @ weights / weights.sum() == pytest.approx(metrics["loss"], rel=1e-5)
    return metrics
