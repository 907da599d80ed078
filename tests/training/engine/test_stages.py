# Copyright 2026 The modeling_pixelvit team. All rights reserved.
# SPDX-License-Identifier: Apache-2.0
"""`training.train_stages` on two processes, killed inside a stage and between two, and gone on."""

import json
import os
import signal
import subprocess
import sys
import time

import pytest
from launching import CONFIGS, DDP, FSDP2, ONE_PROCESS, REPOSITORY, ZERO2, launch, words_of
from test_resume import PLAIN, TINY, losses, needs_fsdp2, tensors

from training.settings.recipe import load_recipe


MODES = {
    "ddp": (DDP, [], {"ema_decay": 0.9, "learning_rate_changes": ["step", "epoch"]}),
    # The second stage has other batches, which DeepSpeed's configuration must hear of.
    "zero2-fp16": (ZERO2, ["--mixed_precision", "fp16"], {"total_batch_size": ["16", "8"]}),
    "fsdp2": (FSDP2, ["--mixed_precision", "no"], {"ema_decay": 0.9, "gradient_accumulation_steps": 2}),
}
STAGES = {
    **{name: value for name, value in PLAIN.items() if name != "learning_rate_changes"},
    "recipes": ["pixelvit-stage1", "pixelvit-stage2"],
    "patch_size": ["8", "4"],
    "num_train_epochs": 0.5,
    "model": json.dumps(TINY["pixelvit"]),
}


def start(mode, folder, pictures):
    config, launch_options, options = MODES[mode]
    options = {**STAGES, **options, "dataset": pictures, "output_dir": str(folder)}
    return launch(config, launch_options, options, folder, "train_stages")


def finish(mode, folder, pictures):
    process = start(mode, folder, pictures)
    assert process.wait(timeout=300) == 0, (folder.parent / f"{folder.name}.log").read_text()[-3000:]


def kill_when(mode, folder, pictures, is_time):
    process = start(mode, folder, pictures)
    while not is_time():
        assert process.poll() is None, (folder.parent / f"{folder.name}.log").read_text()[-3000:]
        time.sleep(0.002)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def check_second_stage(folder):
    assert load_recipe(folder / "stage2/best/recipe.yaml").initial_checkpoint == str(folder / "stage1" / "best")
    assert losses(folder / "stage2")[0]["step"] == 0  # evaluated as it came


def test_the_second_stage_has_the_same_processes(tmp_path, pictures):
    finish("ddp", tmp_path / "run", pictures)
    check_second_stage(tmp_path / "run")


@pytest.mark.slow
@pytest.mark.parametrize(
    "launcher",
    [
        ["torch.distributed.run", "--standalone", "--nproc_per_node", "2"],
        ["accelerate.commands.launch", "--config_file", str(CONFIGS / f"{ONE_PROCESS}.yaml")],
    ],
)
def test_so_it_has_by_the_launchers(launcher, tmp_path, pictures):
    folder = tmp_path / "run"
    options = words_of({**STAGES, **MODES["ddp"][2], "dataset": pictures, "output_dir": str(folder)})
    command = [sys.executable, "-m", *launcher, "-m", "training.train_stages", *options]
    done = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr[-3000:]
    check_second_stage(folder)


@pytest.mark.slow
@pytest.mark.parametrize("mode", [pytest.param(mode, marks=needs_fsdp2 if mode == "fsdp2" else ()) for mode in MODES])
def test_kills_inside_and_between(mode, tmp_path, pictures):
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    finish(mode, whole, pictures)
    first, second = (killed / stage / "metrics.jsonl" for stage in ("stage1", "stage2"))
    kill_when(mode, killed, pictures, lambda: first.exists() and len(first.read_text().splitlines()) > 5)
    kill_when(mode, killed, pictures, (killed / "stage1" / "results.json").exists)
    kill_when(mode, killed, pictures, lambda: second.exists() and len(second.read_text().splitlines()) > 5)
    finish(mode, killed, pictures)
    for stage in ("stage1", "stage2"):
        assert losses(killed / stage) == losses(whole / stage)
        assert tensors(killed / stage) == tensors(whole / stage)
