# Copyright 2026 The modeling_pixelvit team. All rights reserved.
# SPDX-License-Identifier: Apache-2.0
"""Which blocks are computed again under a budget, what that is counted by, and that gradients stay what they are."""

import json

import pytest
import torch
from dense_runs import TINY
from helpers import tiny_config

from modeling_pixelvit import AdventurerForImageClassification, PixelViTForImageClassification
from training import train
from training.engine.log import read_metrics
from training.engine.memory import KeptTensors, apply_plan, keeping, kept_bytes, plan_memory
from training.engine.options import LoopOptions, parse_bytes


pytestmark = pytest.mark.usefixtures("one_thread", "few_test_digits")

CPU = torch.device("cpu")
MODELS = (AdventurerForImageClassification, PixelViTForImageClassification)


def model_of(model_class, **fields):
    torch.manual_seed(0)
    fields = {"patch_size": 1, "image_size": 24, "num_hidden_layers": 4, "drop_path_rate": 0.5, **fields}
    return model_class(tiny_config(model_class.base_model_prefix, **fields)).train()


def gradients(model, images=2):
    """Of a loss with stochastic depth."""
    torch.manual_seed(1)
    side = model.config.image_size
    loss = model(torch.randn(images, 3, side, side), labels=torch.zeros(images, dtype=torch.long)).loss
    loss.backward()
    found = {name: parameter.grad for name, parameter in model.named_parameters()}
    model.zero_grad()
    return loss, found


@pytest.mark.parametrize("model_class", MODELS)
def test_what_blocks_keep_is_counted(model_class):
    """Against all that autograd keeps of them in a step at another size and batch."""
    model, images = model_of(model_class), 3
    told = kept_bytes(model, CPU, torch.float32) * images * 24**2
    parameters = {parameter.untyped_storage().data_ptr() for parameter in model.parameters()}
    kept = []
    hooks = []
    for layer in model.base_model.layers:
        counter = KeptTensors(parameters)
        kept.append(counter)
        hooks.append(layer.register_forward_pre_hook(lambda *_, counter=counter: counter.__enter__() and None))
        hooks.append(layer.register_forward_hook(lambda *_, counter=counter: counter.__exit__(None, None, None)))
    model(torch.randn(images, 3, 24, 24))
    for hook in hooks:
        hook.remove()
    found = sum(counter.bytes for counter in kept) / len(kept)
    assert told == pytest.approx(found, rel=0.05)
    assert not any(layer._forward_hooks or layer._forward_pre_hooks for layer in model.base_model.layers)


@pytest.mark.parametrize("model_class", MODELS)
def test_a_budget_has_as_few_blocks_computed_again_as_it_takes(model_class):
    model, given = model_of(model_class), {"state_bytes": 1000, "images": 2, "tokens": 24**2}

    def planned(budget):
        return plan_memory(model, int(budget), CPU, torch.float32, **given)

    roomy = planned(1e12)
    assert roomy.checkpointed == 0 and roomy.blocks == 4 and roomy.block_bytes > 2 * roomy.input_bytes
    tight = planned(roomy.expected_bytes - 1)
    assert tight.checkpointed == 1 and tight.expected_bytes < roomy.expected_bytes
    assert "memory: 1 of 4 blocks are computed again" in str(tight)
    apply_plan(model, tight)
    assert [layer.gradient_checkpointing for layer in model.base_model.layers] == [True, False, False, False]
    with pytest.raises(ValueError, match="with every block computed again; give more"):
        planned(1e4)


@pytest.mark.parametrize("model_class", MODELS)
def test_gradients_are_the_same_to_the_bit(model_class):
    model = model_of(model_class, image_size=8)
    loss, expected = gradients(model)
    model.gradient_checkpointing_enable()
    model.base_model.layers[2].gradient_checkpointing = False
    model.base_model.layers[3].gradient_checkpointing = False
    for offload in (False, True):
        with keeping(LoopOptions(offload_activations=offload), CPU):
            other_loss, found = gradients(model)
        assert other_loss == loss and all(torch.equal(found[name], expected[name]) for name in expected)


def test_what_is_computed_again_is_not_kept():
    model = model_of(PixelViTForImageClassification)
    sizes = []
    for count in (0, 2):
        model.gradient_checkpointing_enable()
        for layer in model.base_model.layers[count:]:
            layer.gradient_checkpointing = False
        counter = KeptTensors(set())
        with counter:
            model(torch.randn(2, 3, 24, 24))
        sizes.append(counter.bytes)
    saved = 2 * kept_bytes(model, CPU, torch.float32) * 2 * 24**2
    inputs = 2 * 2 * (24**2 + 1) * model.config.hidden_size * 4
    assert sizes[0] - sizes[1] == pytest.approx(saved - inputs, rel=0.1)


@pytest.mark.parametrize(("words", "size"), [("70GiB", 70 * 2**30), ("80 GB", 80 * 10**9), ("1.5mib", 3 * 2**19)])
def test_amounts_of_memory(words, size):
    assert parse_bytes(words) == size


@pytest.mark.parametrize("words", ["70", "GiB", "0GB", "-1GB", "5 apples"])
def test_what_is_no_amount_of_memory(words):
    with pytest.raises(ValueError, match="give an amount like 70GiB"):
        LoopOptions(memory_budget=words).check()


def test_one_way_to_save_memory_at_a_time():
    with pytest.raises(ValueError, match="--memory_budget and --gradient_checkpointing were given"):
        LoopOptions(memory_budget="1GB", gradient_checkpointing=True).check()


def test_a_run_says_what_it_picked_and_is_the_same_run(tmp_path, capsys):
    words = ["--recipe", "pixelvit-sweep", "--patch_size", "4", "--warmup_epochs", "0", "--report_to", "none"]
    words += ["--num_train_epochs", "0.05", "--logging_steps", "1", "--model", json.dumps(TINY["pixelvit"])]
    losses = []
    ways = {"plain": [], "budget": ["--memory_budget", "1GiB"], "off": ["--offload_activations"]}
    for name, options in {**ways, "every": ["--gradient_checkpointing"]}.items():
        assert train.main([*words, *options, "--output_dir", str(tmp_path / name)]) == 0
        told = "blocks are computed again in the backward pass; of 32 images of 16 tokens" in capsys.readouterr().err
        assert told == (name == "budget")
        losses.append([record["loss"] for record in read_metrics(tmp_path / name) if "loss" in record])
    assert losses == [losses[0]] * 4 and len(losses[0]) == 2
    assert train.main([*words, "--memory_budget", "1KB", "--output_dir", str(tmp_path / "small")]) == 2
    assert "give more, or fewer images at a time" in capsys.readouterr().err
