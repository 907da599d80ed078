# Copyright 2026 The modeling_pixelvit team. All rights reserved.
# SPDX-License-Identifier: Apache-2.0
"""What is compared on a GPU, tried on a CPU at toy size: that numbers are right where they are known beforehand."""

import dataclasses
import json
import sys
import types

import pytest
import torch

from modeling_pixelvit.layers_mamba2 import Mamba2Mixer
from training import benchmark
from training.benchmarks import gpu


pytestmark = pytest.mark.usefixtures("one_thread")

SETTINGS = gpu.GpuSettings("cpu", "tiny", 8, 4, 2, 1, 100.0, 1)
WORDS = "gpu --device cpu --variant tiny --image_size 8 --patch_size 4 --batch_size 2 --rounds 1 --threads 1"


@pytest.fixture(scope="module")
def results(tmp_path_factory):
    path = tmp_path_factory.mktemp("gpu") / "gpu.json"
    benchmark.main([*WORDS.split(), "--curve_steps", "12", "--curve_side", "4", "--output", str(path)])
    content = json.loads(path.read_text())
    assert content["environment"]["torch"] == torch.__version__ and content["settings"]["variant"] == "tiny"
    return content["results"]


def test_what_agrees_and_what_cannot_run(results):
    row = results["agreement with float32 in PyTorch: torch, fp32"]
    assert row == {"logits": 0.0, "worst_gradient": 0.0}
    assert 1e-4 < results["agreement with float32 in PyTorch: torch, bf16"]["logits"] < 0.1
    assert "mixer_implementation" in results["agreement with float32 in PyTorch: mamba_ssm, fp32"]["unmeasured"]
    row = results["a batch of 2 against its images alone: torch, bf16"]
    assert row["logits"] < 0.02 and row["repeats_to_the_bit"] == "yes"


def test_a_mixer_that_is_wrong_for_all_images_together_is_seen(monkeypatch):
    """Where no gradient is wanted a few go through it at a time."""
    mix = Mamba2Mixer.forward

    def wrong(self, hidden_states, *arguments):
        mixed = mix(self, hidden_states, *arguments)
        if torch.is_grad_enabled() and len(mixed) > 1:
            return torch.cat([mixed[:-1], torch.zeros_like(mixed[-1:])])
        return mixed

    monkeypatch.setattr(Mamba2Mixer, "forward", wrong)
    monkeypatch.setattr(gpu, "MIXERS", ("torch",))
    whole, block = (found for row in gpu.compare_batches(SETTINGS) for found in row.values())
    assert whole["logits"] < 0.02 < 0.1 < block["gradients"] and block["repeats_to_the_bit"] == "yes"


def test_what_is_timed(results):
    for family, name in (("adventurer", "torch"), ("pixelvit", "sdpa")):
        for mode in ("training", "inference"):
            row = results[f"{family}-tiny 8/p4, {mode}: {name}"]
            assert row["batch_size"] == 2 and row["images_per_second"] == pytest.approx(2 / row["seconds"])
            assert row["mfu"] > 0
    assert "unmeasured" in results["pixelvit-tiny 8/p4, training: flash_attention_2"]
    for op in ("convolution and silu", "scan", "gate and norm"):
        assert results[f"{op}: torch"]["forward_over_floor"] > 0 < results[f"{op}: torch"]["backward_over_floor"]


def gated_linear_attention(queries, keys, values, decays, scale):
    """By its definition; in place of fla's, which has kernels for GPUs alone."""
    state = torch.zeros(*values.shape[:1], values.shape[2], keys.shape[-1], values.shape[-1])
    outputs = []
    for query, key, value, decay in zip(*(t.float().unbind(1) for t in (queries, keys, values, decays)), strict=True):
        state = state * decay.exp()[..., None, None] + key[..., None] * value[..., None, :]
        outputs.append((query[..., None] * state).sum(-2) * scale)
    return torch.stack(outputs, 1).to(values.dtype), None


def test_linear_attention_is_the_scan(results, monkeypatch):
    assert "No module named 'fla'" in results["scan: fla's chunk_simple_gla"]["unmeasured"]
    module = types.ModuleType("fla.ops.simple_gla")
    module.chunk_simple_gla = gated_linear_attention
    for name in ("fla", "fla.ops"):
        monkeypatch.setitem(sys.modules, name, types.ModuleType(name))
    monkeypatch.setitem(sys.modules, "fla.ops.simple_gla", module)
    row = gpu.time_linear_attention(dataclasses.replace(SETTINGS, image_size=12, patch_size=2))
    assert row["beside_pytorch"] < 0.01 and row["forward_seconds"] > 0 < row["backward_seconds"]


def test_short_trainings(results):
    row = results["12 steps, adventurer 4/p1: torch, bf16"]
    assert row["not_finite"] == 0 and row["most_beside_the_first_curve"] == 0.0
    assert row["last_loss"] < row["first_loss"]


def test_the_time_is_over_and_what_is_done_is_kept(tmp_path):
    path = tmp_path / "gpu.json"
    benchmark.main([*WORDS.split(), "--parts", "agreement", "curves", "--max_seconds", "1e-9", "--output", str(path)])
    results = json.loads(path.read_text())["results"]
    assert len(results) == 2 and "the rest of agreement, curves: 1e-09 s are over" in results["ended"]["unmeasured"]


@pytest.mark.parametrize("kind", [RuntimeError, AssertionError, type("OutOfResources", (Exception,), {})])
def test_what_fails_does_not_end_the_rest(monkeypatch, kind):
    """Errors of Triton are of no other kind than Exception, and packages of kernels assert."""

    def fail(*_, **__):
        raise kind("no kernel\nimage")

    monkeypatch.setattr(gpu, "measure_cell", fail)
    rows = [row for found in gpu.time_steps(SETTINGS) for row in found.values()]
    assert rows[1:] == [{"unmeasured": f"{kind.__name__}: no kernel image"}] * (len(rows) - 1) and len(rows) > 10
    monkeypatch.setattr(gpu, "model_of", fail)
    rows = [row for found in gpu.compare_implementations(SETTINGS) for row in found.values()]
    assert rows == [{"unmeasured": f"{kind.__name__}: no kernel image"}]
