# Copyright 2026 The modeling_pixelvit team. All rights reserved.
# SPDX-License-Identifier: Apache-2.0
"""What the doctor says of this machine, of made-up ones, and of kernels that are wrong."""

import types
from importlib import metadata

import pytest
import torch
from helpers import tiny_config, tiny_model

from modeling_pixelvit import AdventurerForImageClassification
from training import doctor
from training.benchmarks import doctor as report
from training.benchmarks.doctor import Device, examine, recommended_precision


def test_this_processor(capsys):
    assert doctor.main(["--device", "cpu"]) == 0
    told = capsys.readouterr().out
    assert "auto runs torch" in told and "torch: can run" in told
    assert "its kernels run on CUDA devices" in told or "the package mamba-ssm is not installed" in told
    assert "sdpa runs, unless another attn_implementation is given" in told and "sdpa: can run" in told
    assert f"torch {metadata.version('torch')}" in told


def test_a_checkpoint_is_asked_for_its_own_ops_alone(tmp_path, capsys):
    tiny_model(AdventurerForImageClassification).save_pretrained(tmp_path)
    assert doctor.main([str(tmp_path), "--device", "cpu"]) == 0
    told = capsys.readouterr().out
    assert "mixer" in told and "attention" not in told
    assert doctor.main([str(tmp_path / "none"), "--device", "cpu"]) == 2
    assert "which has no configuration" in capsys.readouterr().err


def test_a_missing_compiler_is_told(monkeypatch):
    monkeypatch.delenv("CC", raising=False)
    monkeypatch.setenv("PATH", "")
    told = examine(Device("cpu", "some processor", None, True), {}, 16)
    assert "none: Triton's kernels cannot be launched" in told and "Inference in bf16" in told
    monkeypatch.setenv("CC", "/opt/cc")
    assert "C compiler  /opt/cc" in examine(Device("cpu", "some processor", None, False), {}, 16)


@pytest.mark.parametrize(
    ("device", "precision"),
    [
        (Device("cuda", "A100", (8, 0), True), "bf16"),
        (Device("cuda", "T4", (7, 5), False), "fp16"),
        (Device("cpu", "old", None, False), "fp32"),
    ],
)
def test_the_precision_that_suits_a_device(device, precision):
    assert recommended_precision(device)[0] == precision


def test_the_self_check_of_kernels_is_told_with_its_errors(monkeypatch):
    def check(device, dtype):
        if dtype == torch.float16:
            raise OSError("no launcher")
        return {"scan": 2e-4, "gate": 1e-7}

    monkeypatch.setitem(report.SELF_CHECKS, "torch", check)
    config = tiny_config("adventurer")
    lines, _ = report.mixer_report(Device("cpu", "some processor", None, False), torch.float32, config)
    assert any("float32" in line and "scan 2.0e-04, gate 1.0e-07" in line for line in lines)
    lines, _ = report.mixer_report(Device("cpu", "some processor", None, False), torch.float16, config)
    assert "torch, self-check in float16: failed, OSError: no launcher" in lines


def test_what_a_model_would_run_on_is_told_of_its_own_sizes(monkeypatch):
    asked = []

    def select(name, device, dtype, state_shape):
        asked.append(state_shape)
        if name != "auto":
            raise ValueError("too large")
        return types.SimpleNamespace(name="torch")

    monkeypatch.setattr(report, "select_mixer_backend", select)
    config = tiny_config("adventurer", state_size=256)
    lines, _ = report.mixer_report(Device("cpu", "some processor", None, False), torch.float32, config)
    assert set(asked) == {(config.head_dim, 256)} and "triton: too large" in lines
