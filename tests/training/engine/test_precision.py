# Copyright 2026 The modeling_pixelvit team. All rights reserved.
# SPDX-License-Identifier: Apache-2.0
"""What half precision costs: in the scan's parameters, which DeepSpeed casts like all others, and in a training."""

import copy
import json
import math
import statistics

import pytest
import torch
from launching import ONE_PROCESS, ZERO2, launch

from modeling_pixelvit import AdventurerConfig, AdventurerForImageClassification


# Decay and step size, which a model in half precision would rather keep in float32.
SCAN_PARAMETERS = ("A_log", "D", "dt_bias")
DIGITS = {
    "dataset": "digits",
    "variant": "tiny",
    "patch_size": 4,
    "image_size": 16,
    "num_train_epochs": 40,
    "warmup_epochs": 4,
    "learning_rate_changes": "step",
    "learning_rate_batch_size": "none",
    "base_learning_rate": 4e-3,
    "total_batch_size": 32,
    "max_grad_norm": 1.0,
    "augmentation_repeats": 1,
    "drop_path_rate": 0,
    "mixup_probability": 0,
    "auto_augment": "none",
    "color_jitter": 0,
    "horizontal_flip": 0,
    "min_crop_scale": 1,
    "eval_crop_pct": 1,
    "ema_decay": "none",
    "eval_epochs": 0,
    "report_to": "none",
}
MODELS = {
    "adventurer": {"hidden_size": 48, "num_hidden_layers": 4, "head_dim": 16, "state_size": 16},
    "pixelvit": {
        "hidden_size": 64,
        "num_hidden_layers": 4,
        "num_attention_heads": 4,
        "intermediate_size": 256,
        "initializer_range": 0.1,
    },
}


@pytest.fixture(scope="module")
def trained_like():
    """A model of Tiny's width whose scan parameters are spread as after a training, with an image for it."""
    torch.manual_seed(0)
    config = AdventurerConfig.from_variant("tiny", patch_size=8, image_size=64, num_labels=10)
    model = AdventurerForImageClassification(config)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if name.endswith(SCAN_PARAMETERS):
                parameter.add_(0.5 * torch.randn_like(parameter))
    return model, torch.randn(2, 3, 64, 64)


def logits_and_gradient(model, pixel_values):
    model.zero_grad()
    logits = model(pixel_values).logits
    logits.square().sum().backward()
    return logits.detach(), torch.cat([parameter.grad.flatten() for parameter in model.parameters()])


def relative_error(value, reference):
    return ((value - reference).norm() / reference.norm()).item()


# Rounding changes a number by up to 2^-11 of it in fp16 and 2^-8 in bf16.
@pytest.mark.parametrize("dtype, bound", [(torch.float16, 4 * 2**-11), (torch.bfloat16, 4 * 2**-8)])
def test_what_rounding_the_scan_parameters_costs(trained_like, dtype, bound):
    """
    DeepSpeed rounds decay, skip and step size to the model's half precision; the scan then computes in float32. That
    costs about what rounding a number does, in the logits as in the gradient, and less than rounding other weights.
    """
    model, pixel_values = trained_like
    reference = logits_and_gradient(model, pixel_values)
    errors = {}
    for kind in ("scan", "others"):
        rounded = copy.deepcopy(model)
        with torch.no_grad():
            for name, parameter in rounded.named_parameters():
                if name.endswith(SCAN_PARAMETERS) == (kind == "scan"):
                    parameter.copy_(parameter.to(dtype))
        values = logits_and_gradient(rounded, pixel_values)
        errors[kind] = [relative_error(value, expected) for value, expected in zip(values, reference, strict=True)]
    assert 0 < max(errors["scan"]) < bound
    assert all(scan < others for scan, others in zip(errors["scan"], errors["others"], strict=True))


@pytest.mark.slow
@pytest.mark.parametrize("family", MODELS)
def test_a_training_in_fp16_ends_where_one_in_fp32_does(family, tmp_path, record_property):
    """
    DeepSpeed ZeRO-2 on two processes in fp16, against one process in float32, three seeds each: the means differ by
    less than twice the standard error of such a difference, and the worst run in fp16 is no failure.
    """
    losses = {"fp32": [], "fp16": []}
    runs = [("fp32", seed) for seed in range(3)] + [("fp16", seed) for seed in range(3)]
    for precision, seed in runs:
        folder = tmp_path / f"{precision}-{seed}"
        options = {**DIGITS, "recipe": f"{family}-stage1", "model": json.dumps(MODELS[family]), "seed": seed}
        config, words = (ZERO2, ["--mixed_precision", "fp16"]) if precision == "fp16" else (ONE_PROCESS, [])
        process = launch(config, words, {**options, "output_dir": str(folder)}, folder)
        log = folder.parent / f"{folder.name}.log"
        assert process.wait(timeout=1200) == 0, log.read_text()[-3000:]
        losses[precision].append(json.loads((folder / "results.json").read_text())["metrics"]["eval_loss"])
        record_property(folder.name, losses[precision][-1])
    print(family, losses)
    means = {precision: statistics.mean(values) for precision, values in losses.items()}
    error = math.sqrt(sum(statistics.variance(values) / len(values) for values in losses.values()))
    assert abs(means["fp16"] - means["fp32"]) < 2 * error
    assert max(losses["fp32"]) < 0.5 and max(losses["fp16"]) < 2 * max(losses["fp32"])
