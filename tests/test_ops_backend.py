# Copyright 2026 The modeling_pixelvit team. All rights reserved.
# SPDX-License-Identifier: Apache-2.0
"""Choosing the mixer's implementation: what is picked, what is said, what is refused."""

import json
import logging

import pytest
import torch
from helpers import relative_difference, tiny_config, tiny_model
from transformers import AutoModel, AutoModelForImageClassification

from modeling_pixelvit import AdventurerConfig, AdventurerForImageClassification, ops_backend
from modeling_pixelvit.layers_mamba2 import Mamba2Mixer
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
    sentence = r"mamba-ssm is not installed; install it .* or use 'torch' or 'auto'"
    model = AdventurerForImageClassification(tiny_config("adventurer", mixer_implementation="mamba_ssm"))
    with pytest.raises(ImportError, match=sentence):
        model(torch.zeros(1, 3, 8, 8))
    with pytest.raises(ImportError, match=sentence):
        model.set_mixer_implementation("mamba_ssm")


class TestAChoiceOfTheRun:
    """The mixer's implementation is neither kept by a checkpoint nor taken from one."""

    @pytest.fixture
    def folder(self, tmp_path):
        """A checkpoint whose config names an implementation, as older versions wrote it."""
        tiny_model(AdventurerForImageClassification, mixer_implementation="mamba_ssm").save_pretrained(tmp_path)
        entries = json.loads((tmp_path / "config.json").read_text())
        assert "mixer_implementation" not in entries and "layer_types" not in entries
        (tmp_path / "config.json").write_text(json.dumps({**entries, "mixer_implementation": "mamba_ssm"}))
        return tmp_path

    @staticmethod
    def chosen(model):
        names = {module.implementation for module in model.modules() if isinstance(module, Mamba2Mixer)}
        assert names == {model.config.mixer_implementation}
        return names.pop()

    @pytest.mark.parametrize("model_class", [AdventurerForImageClassification, AutoModelForImageClassification])
    def test_by_from_pretrained(self, folder, model_class):
        model = model_class.from_pretrained(folder)
        assert self.chosen(model) == "auto"
        model(torch.zeros(1, 3, 8, 8))
        assert self.chosen(model_class.from_pretrained(folder, mixer_implementation="torch")) == "torch"
        config = AdventurerConfig.from_pretrained(folder, mixer_implementation="torch")
        assert self.chosen(model_class.from_pretrained(folder, config=config)) == "torch"
        assert self.chosen(model_class.from_pretrained(folder, config=config, mixer_implementation="auto")) == "auto"
        assert config.mixer_implementation == "torch"
        model, info = model_class.from_pretrained(folder, mixer_implementation="torch", output_loading_info=True)
        assert self.chosen(model) == "torch" and not info["unexpected_keys"]

    def test_by_a_config(self, folder):
        config = AdventurerConfig.from_pretrained(folder)
        assert config.mixer_implementation == "auto"
        config.mixer_implementation = "torch"
        assert self.chosen(AdventurerForImageClassification(config)) == "torch"
        assert "mixer_implementation" not in {**config.to_dict(), **config.to_diff_dict()}
        config = tiny_config("adventurer")
        assert self.chosen(AutoModel.from_config(config, mixer_implementation="torch")) == "torch"
        assert self.chosen(AutoModel.from_config(tiny_config("adventurer"))) == "auto"

    def test_later(self, folder):
        model = AdventurerForImageClassification.from_pretrained(folder)
        model.set_mixer_implementation("torch")
        assert self.chosen(model) == "torch"
        model.save_pretrained(folder)
        assert "mixer_implementation" not in json.loads((folder / "config.json").read_text())

    def test_a_wrong_name(self, folder):
        sentence = "^mixer_implementation='triton' was given; choose one of auto, torch, mamba_ssm.$"
        model = AdventurerForImageClassification(tiny_config("adventurer"))
        with pytest.raises(ValueError, match=sentence):
            model.set_mixer_implementation("triton")
        assert self.chosen(model) == "auto"
        with pytest.raises(ValueError, match=sentence):
            AdventurerForImageClassification.from_pretrained(folder / "nowhere", mixer_implementation="triton")
        with pytest.raises(ValueError, match=sentence):
            AutoModel.from_config(tiny_config("adventurer"), mixer_implementation="triton")


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


def test_auto_warns_once_of_an_installed_package_that_it_cannot_take(monkeypatch, caplog):
    monkeypatch.setattr(ops_backend.importlib.util, "find_spec", lambda name: object())
    monkeypatch.setattr(ops_backend, "_load_mamba_ssm", lambda: (None, "ImportError: undefined symbol"))
    ops_backend._report_choice.cache_clear()
    with caplog.at_level(logging.INFO):
        assert [select_mixer_backend("auto", torch.device("cuda")).name for _ in range(3)] == ["torch"] * 3
    (record,) = caplog.records
    assert record.levelno == logging.WARNING
    assert record.getMessage() == (
        "mixer_implementation='auto' picked 'torch' on cuda, which is slower: mamba-ssm is installed, but cannot be "
        "imported (ImportError: undefined symbol)."
    )


def test_a_package_that_is_not_there_is_nothing_to_warn_about(monkeypatch, caplog):
    monkeypatch.setattr(ops_backend.importlib.util, "find_spec", lambda name: None)
    monkeypatch.setattr(ops_backend, "_load_mamba_ssm", lambda: (None, "ModuleNotFoundError: No module"))
    ops_backend._report_choice.cache_clear()
    with caplog.at_level(logging.INFO):
        select_mixer_backend("auto", torch.device("cuda"))
    assert [record.levelno for record in caplog.records] == [logging.INFO]


def test_whatever_an_import_raises_is_a_reason(monkeypatch):
    def broken():
        raise RuntimeError("0 active drivers")

    monkeypatch.setattr(ops_backend, "load_mamba_ssm_ops", broken)
    assert ops_backend._load_mamba_ssm.__wrapped__() == (None, "RuntimeError: 0 active drivers")


def test_auto_gives_a_compiler_what_it_can_trace(monkeypatch):
    kernels = ops_backend.MixerBackend("mamba_ssm", None, None, None)
    monkeypatch.setattr(ops_backend, "_load_mamba_ssm", lambda: (kernels, ""))
    cuda = torch.device("cuda")
    assert select_mixer_backend("auto", cuda).name == "mamba_ssm"
    monkeypatch.setattr(torch.compiler, "is_compiling", lambda: True)
    assert select_mixer_backend("auto", cuda).name == "torch"


@pytest.mark.gpu
@pytest.mark.parametrize("hidden_size", [32, 128])  # rows of 162, which are not for causal-conv1d, and of 552
@pytest.mark.parametrize("length", [1, 64, 257, 1025])
def test_mamba_ssm_agrees_with_torch(length, hidden_size):
    pytest.importorskip("mamba_ssm")
    model = tiny_model(AdventurerForImageClassification, hidden_size=hidden_size, head_dim=32, state_size=16)
    ours = model.cuda().adventurer.layers[0].mixer
    tokens = torch.randn(2, length, hidden_size, device="cuda", requires_grad=True)
    results = []
    for name in ("torch", "mamba_ssm"):
        ours.implementation = name
        output = ours(tokens)
        gradients = torch.autograd.grad(output.square().sum(), [tokens, *ours.parameters()])
        results.append([output, *gradients])
    for actual, expected in zip(*results, strict=True):
        assert relative_difference(actual, expected) < 1e-2  # the kernels multiply in tf32
