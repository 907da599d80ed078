# Copyright 2026 The modeling_pixelvit team. All rights reserved.
# SPDX-License-Identifier: Apache-2.0
"""Choosing the mixer's implementation: what is picked, what is said, what is refused."""

import logging

import pytest
import torch
from helpers import relative_difference, tiny_config, tiny_model

from modeling_pixelvit import AdventurerForImageClassification, ops_backend
from modeling_pixelvit.ops_backend import select_mixer_backend


CPU = torch.device("cpu")


def test_auto_picks_torch_on_a_cpu_and_says_so_once(caplog):
    ops_backend._report_choice.cache_clear()
    with caplog.at_level(logging.DEBUG):
        backends = [select_mixer_backend("auto", CPU) for _ in range(3)]
    assert [backend.name for backend in backends] == ["torch"] * 3
    assert [record.getMessage() for record in caplog.records] == ["mixer_implementation='auto' picked 'torch' on cpu."]
    assert caplog.records[0].levelno == logging.INFO  # nothing to warn about


def test_a_missing_package_is_named(monkeypatch):
    monkeypatch.setattr(ops_backend.importlib.util, "find_spec", lambda name: None)
    config = tiny_config("adventurer", mixer_implementation="mamba_ssm")
    with pytest.raises(ImportError, match=r"mamba-ssm is not installed; install it .* or use 'torch' or 'auto'"):
        AdventurerForImageClassification(config)


def test_kernels_do_not_run_on_a_cpu(monkeypatch):
    monkeypatch.setattr(ops_backend.importlib.util, "find_spec", lambda name: object())
    monkeypatch.delenv("TRITON_INTERPRET", raising=False)
    with pytest.raises(ValueError, match=r"the input is on cpu; .* use 'torch' or 'auto'"):
        select_mixer_backend("mamba_ssm", CPU)


def test_a_broken_package_is_an_error_only_if_named(monkeypatch):
    monkeypatch.setattr(ops_backend.importlib.util, "find_spec", lambda name: object())
    monkeypatch.setattr(ops_backend, "_load_mamba_ssm", lambda: (None, "undefined symbol"))
    cuda = torch.device("cuda")
    with pytest.raises(ImportError, match="cannot be imported \\(undefined symbol\\); reinstall"):
        select_mixer_backend("mamba_ssm", cuda)
    assert select_mixer_backend("auto", cuda).name == "torch"


@pytest.mark.gpu
@pytest.mark.parametrize("length", [1, 64, 257, 1025])
def test_mamba_ssm_agrees_with_torch(length):
    pytest.importorskip("mamba_ssm")
    ours = tiny_model(AdventurerForImageClassification, head_dim=32, state_size=16).cuda().adventurer.layers[0].mixer
    tokens = torch.randn(2, length, 32, device="cuda", requires_grad=True)
    results = []
    for name in ("torch", "mamba_ssm"):
        ours.implementation = name
        output = ours(tokens)
        gradients = torch.autograd.grad(output.square().sum(), [tokens, *ours.parameters()])
        results.append([output, *gradients])
    for actual, expected in zip(*results, strict=True):
        assert relative_difference(actual, expected) < 1e-2  # the kernels multiply in tf32
