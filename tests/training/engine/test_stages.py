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
from launching import CONFIGS, DDP, ONE_PROCESS, REPOSITORY, ZERO2, launch, words_of
from test_resume import PLAIN, TINY, losses, tensors

from training.settings.recipe import load_recipe


MODES = {
    "ddp": (DDP, [], {"ema_decay": 0.9, "learning_rate_changes": ["step", "epoch"]}),
    # The second stage has other batches, which DeepSpeed's configuration must hear of.
    "zero2-fp16": (ZERO2, ["--mixed_precision", "fp16"], {"total_batch_size": ["64", "32"]}),
}
STAGES = {
    **{name: value for name, value in PLAIN.items() if name != "learning_rate_changes"},
    "recipes": ["pixelvit-stage1", "pixelvit-stage2"],
    "patch_size": ["8", "4"],
    "num_train_epochs": 0.5,
    "model": json.dumps(TINY["pixelvit"]),
}


def start(mode, folder):
    config, launch_options, options = MODES[mode]
    return launch(config, launch_options, {**STAGES, **options, "output_dir": str(folder)}, folder, "train_stages")


def finish(mode, folder):
    process = start(mode, folder)
    assert process.wait(timeout=300) == 0, (folder.parent / f"{folder.name}.log").read_text()[-3000:]


def kill_when(mode, folder, is_time):
    process = start(mode, folder)
    while not is_time():
        assert process.poll() is None, (folder.parent / f"{folder.name}.log").read_text()[-3000:]
        time.sleep(0.002)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()


@pytest.mark.parametrize(
    "launcher",
    [
        ["torch.distributed.run", "--standalone", "--nproc_per_node", "2"],
        pytest.param(
            ["accelerate.commands.launch", "--config_file", str(CONFIGS / f"{ONE_PROCESS}.yaml")],
            marks=pytest.mark.slow,
        ),
    ],
)
def test_by_the_launchers_the_second_stage_has_the_same_processes(launcher, tmp_path):
    folder = tmp_path / "run"
    options = words_of({**STAGES, **MODES["ddp"][2], "output_dir": str(folder)})
    command = [sys.executable, "-m", *launcher, "-m", "training.train_stages", *options]
    done = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr[-3000:]
    assert load_recipe(folder / "stage2/best/recipe.yaml").initial_checkpoint == str(folder / "stage1" / "best")
    assert losses(folder / "stage2")[0]["step"] == 0  # evaluated as it came


@pytest.mark.slow
@pytest.mark.parametrize("mode", MODES)
def test_kills_inside_and_between(mode, tmp_path):
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    finish(mode, whole)
    first, second = (killed / stage / "metrics.jsonl" for stage in ("stage1", "stage2"))
    kill_when(mode, killed, lambda: first.exists() and len(first.read_text().splitlines()) > 5)
    kill_when(mode, killed, (killed / "stage1" / "results.json").exists)
    kill_when(mode, killed, lambda: second.exists() and len(second.read_text().splitlines()) > 5)
    finish(mode, killed)
    for stage in ("stage1", "stage2"):
        assert losses(killed / stage) == losses(whole / stage)
        assert tensors(killed / stage) == tensors(whole / stage)
