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
    monkeypatch.setattr(ops_backend, "_is_installed", lambda package: False)
    sentence = r"mamba-ssm is not installed; install it .* or use 'torch' or 'auto'"
    model = AdventurerForImageClassification(tiny_config("adventurer", mixer_implementation="mamba_ssm"))
    with pytest.raises(ImportError, match=sentence):
        model(torch.zeros(1, 3, 8, 8))
    with pytest.raises(ImportError, match=sentence):
        model.set_mixer_implementation("mamba_ssm")
    with pytest.raises(ImportError, match="the package triton is not installed; `pip install triton`"):
        model.set_mixer_implementation("triton")


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
        sentence = "^mixer_implementation='cuda' was given; choose one of auto, torch, triton, mamba_ssm.$"
        model = AdventurerForImageClassification(tiny_config("adventurer"))
        with pytest.raises(ValueError, match=sentence):
            model.set_mixer_implementation("cuda")
        assert self.chosen(model) == "auto"
        with pytest.raises(ValueError, match=sentence):
            AdventurerForImageClassification.from_pretrained(folder / "nowhere", mixer_implementation="cuda")
        with pytest.raises(ValueError, match=sentence):
            AutoModel.from_config(tiny_config("adventurer"), mixer_implementation="cuda")


CUDA = torch.device("cuda")


@pytest.fixture
def kernels(monkeypatch):
    """What the two kinds of kernels say when they are loaded: why they cannot run, or an empty string."""
    said = {"triton": "", "mamba_ssm": ""}

    def load(name):
        if said[name]:
            return None, said[name]
        ops_backend._KERNELS[name] = ops_backend.MixerBackend(name, None, None, None)
        return ops_backend._KERNELS[name], ""

    monkeypatch.setattr(ops_backend, "_KERNELS", {})
    monkeypatch.setattr(ops_backend, "_is_installed", lambda package: True)
    monkeypatch.setattr(ops_backend, "_load_triton", lambda *_: load("triton"))
    monkeypatch.setattr(ops_backend, "_load_mamba_ssm", lambda: load("mamba_ssm"))
    ops_backend._report_choice.cache_clear()
    yield said
    ops_backend._report_choice.cache_clear()


@pytest.mark.parametrize("name", ["triton", "mamba_ssm"])
def test_kernels_do_not_run_on_a_cpu(name, kernels, monkeypatch):
    monkeypatch.delenv("TRITON_INTERPRET", raising=False)
    with pytest.raises(ValueError, match=rf"='{name}' was given, but the input is on cpu; .* use 'torch' or 'auto'"):
        select_mixer_backend(name, CPU)
    monkeypatch.setenv("TRITON_INTERPRET", "1")
    assert select_mixer_backend(name, CPU).name == name
    assert select_mixer_backend("auto", CPU).name == "torch"


def test_the_order_of_auto(kernels):
    assert select_mixer_backend("auto", CUDA).name == "triton"
    kernels["triton"] = "no compiler"
    assert select_mixer_backend("auto", CUDA).name == "mamba_ssm"
    kernels["mamba_ssm"] = "undefined symbol"
    assert select_mixer_backend("auto", CUDA).name == "torch"
    with pytest.raises(ImportError, match="cannot be imported \\(undefined symbol\\); reinstall"):
        select_mixer_backend("mamba_ssm", CUDA)
    with pytest.raises(RuntimeError, match="its kernels cannot run here: no compiler; use 'auto'"):
        select_mixer_backend("triton", CUDA)


def test_auto_warns_once_of_what_it_cannot_take(kernels, caplog):
    kernels |= {"triton": "no compiler", "mamba_ssm": "undefined symbol"}
    with caplog.at_level(logging.INFO):
        assert [select_mixer_backend("auto", CUDA).name for _ in range(3)] == ["torch"] * 3
    (record,) = caplog.records
    assert record.levelno == logging.WARNING
    assert record.getMessage() == (
        "mixer_implementation='auto' picked 'torch' on cuda, which is slower: triton cannot run (no compiler) and "
        "mamba_ssm cannot run (undefined symbol)."
    )


def test_a_package_that_is_not_there_is_nothing_to_warn_about(kernels, caplog, monkeypatch):
    kernels |= {"triton": "no compiler", "mamba_ssm": "ModuleNotFoundError: No module"}
    monkeypatch.setattr(ops_backend, "_is_installed", lambda package: package != "mamba_ssm")
    with caplog.at_level(logging.INFO):
        select_mixer_backend("auto", CUDA)
    assert [record.getMessage() for record in caplog.records] == [
        "mixer_implementation='auto' picked 'torch' on cuda, which is slower: triton cannot run (no compiler)."
    ]
    with pytest.raises(ImportError, match="mamba-ssm is not installed"):
        select_mixer_backend("mamba_ssm", CUDA)


def test_whatever_an_import_raises_is_a_reason(monkeypatch):
    def broken():
        raise RuntimeError("0 active drivers")

    monkeypatch.setattr(ops_backend, "load_mamba_ssm_ops", broken)
    assert ops_backend._load_mamba_ssm.__wrapped__() == (None, "RuntimeError: 0 active drivers")


def test_what_a_compiler_gets(kernels, monkeypatch):
    monkeypatch.setattr(torch.compiler, "is_compiling", lambda: True)
    assert select_mixer_backend("auto", CUDA).name == "triton"
    kernels["triton"] = "no compiler"
    assert select_mixer_backend("auto", CUDA).name == "torch"  # it fuses that, and cannot trace mamba_ssm's
    assert select_mixer_backend("mamba_ssm", CUDA).name == "mamba_ssm"
    kernels["triton"] = ""
    monkeypatch.setattr(torch.compiler, "is_exporting", lambda: True)
    assert select_mixer_backend("auto", CUDA).name == "torch"
    assert select_mixer_backend("triton", CUDA).name == "triton"
    with pytest.raises(ValueError, match="'mamba_ssm' was given, but its kernels cannot be exported; use 'torch'"):
        select_mixer_backend("mamba_ssm", CUDA)


def test_mamba_ssm_by_name_breaks_the_graph(monkeypatch):
    calls = []

    def load():
        torch_ops = ops_backend._TORCH_CPU

        def ssd(*args, chunk_size=None, **kwargs):
            calls.append(torch.compiler.is_compiling())
            return torch_ops.ssd(*args, **kwargs)

        return ssd, torch_ops.causal_conv1d, torch_ops.rms_norm_gated

    monkeypatch.setattr(ops_backend, "_KERNELS", {})
    monkeypatch.setattr(ops_backend, "_is_installed", lambda package: True)
    monkeypatch.setattr(ops_backend, "load_mamba_ssm_ops", load)
    monkeypatch.setattr(ops_backend, "_load_mamba_ssm", ops_backend._load_mamba_ssm.__wrapped__)
    monkeypatch.setenv("TRITON_INTERPRET", "1")
    mixer = tiny_model(AdventurerForImageClassification).adventurer.layers[0].mixer
    tokens = torch.randn(2, 7, 32)
    expected = mixer(tokens)
    mixer.implementation = "mamba_ssm"
    torch._dynamo.reset()
    torch.testing.assert_close(torch.compile(mixer, backend="eager")(tokens), expected)
    assert calls == [False]
    torch._dynamo.reset()
    with pytest.raises(torch._dynamo.exc.Unsupported, match="for one graph use 'triton', 'torch' or 'auto'"):
        torch.compile(mixer, backend="eager", fullgraph=True)(tokens)
    torch._dynamo.reset()


class TestTheFirstUse:
    """A device's first use of the Triton kernels compares them with the references."""

    @pytest.fixture
    def check(self, monkeypatch):
        check = pytest.importorskip("modeling_pixelvit.ops_triton_check")
        check._fault.cache_clear()
        monkeypatch.setattr(check, "INTERPRETED", False)
        monkeypatch.setattr(check, "IMPORT_ERROR", None)
        monkeypatch.setattr(ops_backend, "_KERNELS", {})
        monkeypatch.setattr(ops_backend, "_is_installed", lambda package: package != "mamba_ssm")
        ops_backend._report_choice.cache_clear()
        yield check
        check._fault.cache_clear()

    @staticmethod
    def picked(caplog, **kwargs):
        caplog.clear()
        ops_backend._report_choice.cache_clear()
        with caplog.at_level(logging.WARNING):
            name = select_mixer_backend("auto", CUDA, **kwargs).name
        return name, "".join(record.getMessage() for record in caplog.records)

    def test_agreement(self, check, monkeypatch, caplog):
        calls = []

        def differences(device, dtype):
            calls.append((device, dtype, torch.is_grad_enabled()))
            return {"scan": 1e-5}

        monkeypatch.setattr(check, "triton_differences", differences)
        with torch.no_grad():
            assert [self.picked(caplog) for _ in range(2)] == [("triton", "")] * 2
        assert calls == [(CUDA, torch.float32, True)]

    @pytest.mark.parametrize("difference", [0.5, float("nan")])
    def test_difference(self, check, monkeypatch, caplog, difference):
        monkeypatch.setattr(check, "triton_differences", lambda *_: {"scan": difference, "norm": 1e-6})
        name, warning = self.picked(caplog, dtype=torch.bfloat16)
        assert name == "torch" and f"differ from the reference, scan by {difference:.1e}" in warning
        assert "norm by" not in warning
        with pytest.raises(RuntimeError, match="differ from the reference"):
            select_mixer_backend("triton", CUDA, torch.bfloat16)

    @pytest.mark.parametrize(
        ("has_compiler", "message", "sentence"),
        [
            (True, "launch failed", "RuntimeError: launch failed"),
            (False, "launch failed", "RuntimeError: launch failed"),
            (False, "Failed to find C compiler. Please specify", "there is no C compiler"),
        ],
    )
    def test_no_launch(self, check, monkeypatch, caplog, has_compiler, message, sentence):
        def differences(*_):
            raise RuntimeError(message)

        monkeypatch.setattr(check, "triton_differences", differences)
        monkeypatch.setattr(check.shutil, "which", lambda name: f"/usr/bin/{name}" if has_compiler else None)
        monkeypatch.delenv("CC", raising=False)
        name, warning = self.picked(caplog)
        assert name == "torch" and sentence in warning

    def test_no_memory(self, check, monkeypatch, caplog):
        """Which there may be the next time."""
        outcomes = [torch.OutOfMemoryError("CUDA out of memory"), RuntimeError("Triton Error [CUDA]: out of memory")]
        outcomes += [{}]

        def differences(*_):
            if isinstance(outcome := outcomes.pop(0), Exception):
                raise outcome
            return outcome

        monkeypatch.setattr(check, "triton_differences", differences)
        for kind in ("OutOfMemoryError: CUDA", "RuntimeError: Triton Error"):
            name, warning = self.picked(caplog)
            assert name == "torch" and f"could not be tried, {kind}" in warning
        assert [self.picked(caplog) for _ in range(2)] == [("triton", "")] * 2

    def test_no_import_and_what_kernels_do_not_hold(self, check, monkeypatch, caplog):
        monkeypatch.setattr(check, "triton_differences", lambda *_: {})
        for kwargs, sentence in [
            ({"dtype": torch.float64}, "not for torch.float64"),
            ({"state_shape": (64, 256)}, "128 is the most"),
        ]:
            name, warning = self.picked(caplog, **kwargs)
            assert name == "torch" and sentence in warning
        monkeypatch.setattr(check, "IMPORT_ERROR", ImportError("libcuda"))
        assert "Triton cannot be imported, ImportError: libcuda" in self.picked(caplog)[1]


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
        # The kernels multiply in tf32. Of one token nothing decays, so that gradient is zero.
        assert relative_difference(actual, expected) < 1e-2 or (actual == expected).all()
