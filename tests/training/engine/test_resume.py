# Copyright 2026 The modeling_pixelvit team. All rights reserved.
# SPDX-License-Identifier: Apache-2.0
"""
A run that is killed and goes on is the same run: losses step by step and final weights, bit for bit.

Runs are killed by SIGKILL, all their processes at once, at random moments: while they start, in a step, while they
evaluate or write a checkpoint. `make test-faults` kills 40 times in longer runs, the default suite six.
"""

import json
import os
import random
import shutil
import signal
import time

import pytest
import torch
from launching import DDP, FSDP2, ONE_PROCESS, ZERO2, ZERO3, launch, launch_on_a_gpu
from packaging import version
from safetensors.torch import load_file

from training.engine.checkpoints import PARTIAL, find_checkpoints


TINY = {
    "adventurer": {"hidden_size": 32, "num_hidden_layers": 2, "head_dim": 16, "state_size": 16},
    "pixelvit": {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 64},
}
PLAIN = {
    "variant": "tiny",
    "patch_size": 8,
    "image_size": 16,
    "num_train_epochs": 1.875,
    "warmup_epochs": 0.2,
    "learning_rate_changes": "step",
    "base_learning_rate": 5e-3,
    "total_batch_size": 16,  # of 256 images
    "max_grad_norm": 1.0,
    "augmentation_repeats": 1,
    "logging_steps": 1,
    "save_steps": 4,
    "eval_epochs": 0.5,
    "report_to": "none",
    "resume": "auto",
}
# Steps of a run, and options that make it as short.
LONG, SHORT = (30, {}), (16, {"num_train_epochs": 1.0})
KINDS = ("exp_avg", "exp_avg_sq")
EVERYTHING = {"gradient_accumulation_steps": 2, "ema_decay": 0.9, "augmentation_repeats": 3, "num_workers": 2}
# From patch 16 to the recipe's 8 after 40% of the steps; the learning rate begins anew.
SCHEDULE = {"patch_schedule": ["16:0.4", "8:0.6"], "learning_rate_restarts": True}
# The whole image as one patch in a third of the steps, or as four, and twice the images where it is one.
DRAWS = {
    "patch_draws": ["16:1", "8:2"],
    "tokens_per_step": 32,
    "model": json.dumps({**TINY["pixelvit"], "patch_kernel_size": 16}),
}
UPERNET = {"decoder_type": "upernet", "decoder_hidden_size": 16, "pool_scales": [1, 2]}
# Batch norm has statistics beside its weights; 31 steps are an epoch of 2,000 scenes.
SEGMENTATION = {
    **{"recipe": "pixelvit-segmentation-upernet", "dataset": "digit-scenes", "num_train_epochs": LONG[0] / 31},
    "total_batch_size": 64,
    **{"image_size": 32, "ema_decay": 0.9, "gradient_accumulation_steps": 2, "num_workers": 2},
    "model": json.dumps({**TINY["pixelvit"], **UPERNET}),
}
# Blocks of a new model begin with biases that are computed, for the weights' average too.
FSDP = {
    **EVERYTHING,
    "model": json.dumps({**TINY["pixelvit"], "position_embedding_type": "absolute_rotary", "locality_init_value": 4.0}),
}
needs_fsdp2 = pytest.mark.skipif(
    version.parse(torch.__version__) < version.parse("2.11"), reason="over gloo, FSDP 2 of torch 2.8 sums gradients"
)
# name: (family, configuration, launch options, options)
MODES = {
    "plain": ("adventurer", ONE_PROCESS, [], {}),
    "accumulation": ("pixelvit", ONE_PROCESS, [], {"gradient_accumulation_steps": 2}),
    "average": ("adventurer", ONE_PROCESS, [], {"ema_decay": 0.9}),
    "repeats": ("pixelvit", ONE_PROCESS, [], {"augmentation_repeats": 3}),
    "workers": ("adventurer", ONE_PROCESS, [], {"num_workers": 2}),
    "everything": ("adventurer", ONE_PROCESS, [], {**EVERYTHING, **SCHEDULE}),
    "draws": ("pixelvit", ONE_PROCESS, [], {**DRAWS, "num_train_epochs": 2.75}),
    "ddp": ("adventurer", DDP, [], {**EVERYTHING, **SCHEDULE}),
    "zero2-fp16": ("pixelvit", ZERO2, ["--mixed_precision", "fp16"], EVERYTHING),
    "zero3-bf16": ("adventurer", ZERO3, [], {**EVERYTHING, **SCHEDULE}),
    "fsdp2": ("pixelvit", FSDP2, ["--mixed_precision", "no"], FSDP),
    "segmentation-fsdp2": ("pixelvit", FSDP2, [], SEGMENTATION),
    "segmentation-ddp": ("pixelvit", DDP, [], SEGMENTATION),
}
# The same by the configurations for several GPUs, on one.
ON_A_GPU = {
    "gpu-ddp": ("adventurer", "a100x8", {**EVERYTHING, **SCHEDULE}),
    "gpu-zero2-fp16": ("pixelvit", "a100x8_zero2", EVERYTHING),
    "gpu-zero3": ("adventurer", "a100x8_zero3", EVERYTHING),
    "gpu-fsdp2": ("pixelvit", FSDP2, FSDP),
}


def launch_mode(mode, folder, pictures, length, instead=None):
    family, config, *launch_options, options = (MODES | ON_A_GPU)[mode]
    options = {"recipe": f"{family}-stage1", "model": json.dumps(TINY[family]), **options, **length[1]}
    options = {**PLAIN, "dataset": pictures, **options, "output_dir": str(folder)}
    if mode in ON_A_GPU:
        return launch_on_a_gpu(config, options, folder)
    return launch(instead or config, *launch_options, options, folder)


def finish(mode, folder, pictures, length, instead=None):
    process = launch_mode(mode, folder, pictures, length, instead)
    assert process.wait(timeout=300) == 0, (folder.parent / f"{folder.name}.log").read_text()[-3000:]


def kill_after(mode, folder, pictures, length, steps, moment, while_saving):
    """Starts a run and kills it after so many more steps, at a moment from 0 to 1; returns whether it was killed."""
    process = launch_mode(mode, folder, pictures, length)
    metrics = folder / "metrics.jsonl"
    before = steps_in(metrics)
    while process.poll() is None:
        is_writing = any((folder / "checkpoints").glob(f"*{PARTIAL}"))
        if steps_in(metrics) >= before + steps and (is_writing or not while_saving):
            break
        time.sleep(0.002)
    else:
        assert process.returncode == 0, (folder.parent / f"{folder.name}.log").read_text()[-3000:]
        return False
    time.sleep(moment * (0.01 if while_saving else 0.1))
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    return True


def steps_in(metrics):
    return metrics.read_bytes().count(b'"learning_rate"') if metrics.exists() else 0


def losses(folder):
    """What metrics.jsonl says of training and evaluation, without the times."""
    records = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return [
        {name: value for name, value in record.items() if "loss" in name or "accuracy" in name or name == "step"}
        for record in records
    ]


def tensors(folder):
    """All tensors of the last checkpoint and of the best, by file and name, as bytes."""
    checkpoint = max(find_checkpoints(folder / "checkpoints"))
    files = sorted([*checkpoint.rglob("*.safetensors"), *(folder / "best").resolve().rglob("*.safetensors")])
    return {
        (file.parent.name, file.name, name): tensor.numpy().tobytes()
        for file in files
        for name, tensor in load_file(file).items()
    }


def check_kills(mode, kills, tmp_path, pictures, length, seed=0):
    chance = random.Random(f"{mode}{seed}")
    finish(mode, tmp_path / "whole", pictures, length)
    done = 0
    # A kill while saving waits for the next checkpoint, and the last one must come before the run's end.
    most_steps = min(9, length[0] // kills - PLAIN["save_steps"] + 1)
    least_steps = PLAIN["save_steps"] + 1 if kills == 1 else 2  # of one kill, or there may be nothing to go on from
    for attempt in range(kills):
        steps = chance.randint(least_steps, most_steps)
        if not kill_after(mode, tmp_path / "killed", pictures, length, steps, chance.random(), attempt % 2 == 1):
            break
        done += 1
        for checkpoint in (tmp_path / "killed" / "checkpoints").glob("step-*[0-9]"):
            assert checkpoint in find_checkpoints(checkpoint.parent), f"{checkpoint} is torn"
    shutil.copytree(tmp_path / "killed", tmp_path / "moved", symlinks=True)
    finish(mode, tmp_path / "killed", pictures, length)
    assert done == kills
    whole, killed = losses(tmp_path / "whole"), losses(tmp_path / "killed")
    assert len(killed) == len(whole) > length[0]
    if mode in ON_A_GPU:  # of whose kernels some add up in any order
        for record, expected in zip(killed, whole, strict=True):
            assert record == pytest.approx(expected, rel=1e-3)
        return
    assert killed == whole
    assert tensors(tmp_path / "killed") == tensors(tmp_path / "whole")


@pytest.mark.parametrize(
    "mode, kills",
    [("everything", 3), ("ddp", 1), ("zero2-fp16", 1), pytest.param("zero3-bf16", 1, marks=pytest.mark.slow)],
)
def test_a_killed_run_goes_on_as_if_nothing_had_happened(mode, kills, tmp_path, pictures):
    check_kills(mode, kills, tmp_path, pictures, SHORT)
    if mode in ("ddp", "zero3-bf16"):
        check_one_process_goes_on(tmp_path / "moved", pictures, SHORT)


@pytest.mark.gpu
@pytest.mark.parametrize("mode", ON_A_GPU)
def test_so_it_does_on_a_gpu(mode, tmp_path, pictures):
    check_kills(mode, 1, tmp_path, pictures, SHORT)


@needs_fsdp2
def test_weights_that_are_shared_out_learn_as_others_do(tmp_path, pictures):
    """By the configuration for GPUs."""
    finish("fsdp2", tmp_path / "shared", pictures, SHORT)
    finish("fsdp2", tmp_path / "whole", pictures, SHORT, instead=DDP)
    shared, whole = losses(tmp_path / "shared"), losses(tmp_path / "whole")
    assert len(shared) == len(whole) > SHORT[0]
    for record, expected in zip(shared, whole, strict=True):
        assert record == pytest.approx(expected, rel=1e-3)


def check_one_process_goes_on(folder, pictures, length):
    """By the weights, averages and optimizer that two processes had; what they mix and in which order is another."""
    checkpoint = max(find_checkpoints(folder / "checkpoints"))
    stored = load_file(checkpoint / "average" / "model.safetensors")
    files = sorted(checkpoint.glob("optimizer-*"))
    names = [name for file in files for name in load_file(file)]
    assert len(files) == 2 and sorted(names) == sorted(f"{kind}|{name}" for kind in KINDS for name in stored)
    before = losses(folder)
    finish("everything", folder, pictures, length)
    after = losses(folder)
    step = int(checkpoint.name.removeprefix("step-"))
    kept = [record for record in before if record["step"] <= step]
    assert after[: len(kept)] == kept and after[-1]["step"] == length[0]
    assert all(0.8 < record["loss"] / kept[-1]["loss"] < 1.2 for record in after if "loss" in record)


@pytest.mark.slow
@pytest.mark.parametrize("mode", [pytest.param(mode, marks=needs_fsdp2 if "fsdp2" in mode else ()) for mode in MODES])
def test_many_kills(mode, tmp_path, pictures):
    check_kills(mode, 4, tmp_path, pictures, LONG, seed=1)
