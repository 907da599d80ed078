# Copyright 2026 The modeling_pixelvit team. All rights reserved.
# SPDX-License-Identifier: Apache-2.0
"""
Thousands of damaged and hostile checkpoints: each is refused by a sentence of ours, or loads and computes.

Nothing else escapes, no code from a checkpoint runs, no file outside it is opened, and time and memory stay bounded.
The long form is `pytest -m slow tests/training/test_fuzz_checkpoints.py`.
"""

import os
import pickle
import resource
import socket
import time
from pathlib import Path

import pytest
import torch
from fuzz_mutations import FINITE, NOTHING, SAME
from fuzz_running import (
    TooSlow,
    Watch,
    bounded_memory,
    bounded_time,
    fuzz_conversion,
    fuzz_folders,
    judge,
    outputs_of,
)
from helpers import SMALL_HEADS, tiny_model
from safetensors.torch import save_file
from transformers import ViTConfig, ViTForImageClassification, ViTImageProcessor

from modeling_pixelvit import (
    AdventurerForImageClassification,
    AdventurerForSemanticSegmentation,
    AdventurerModel,
    PixelViTForImageClassification,
    PixelViTForObjectDetection,
    PixelViTImageProcessor,
)
from training.checkpoints.reading import CheckpointError, read_checkpoint


pytestmark = pytest.mark.usefixtures("one_thread")

GOLDEN = Path(__file__).parents[3] / "tests" / "golden"
SMALL_DETECTOR = {
    **SMALL_HEADS,
    "rpn_num_convs": 1,
    "rpn_pre_nms_top_n_test": 40,
    "rpn_post_nms_top_n_test": 20,
    "max_detections": 7,
    "num_hidden_layers": 2,
}
SMALL_SEGMENTER = {"decoder_type": "upernet", "decoder_hidden_size": 8, "num_hidden_layers": 4}
CHECKPOINTS = {
    "pixelvit": (PixelViTForImageClassification, "classification", {}),
    "adventurer": (AdventurerForImageClassification, "classification", {"flip_blocks": [2, 3]}),
    "detector": (PixelViTForObjectDetection, "detection", SMALL_DETECTOR),
    "segmenter": (AdventurerForSemanticSegmentation, "segmentation", SMALL_SEGMENTER),
    "shards": (AdventurerModel, "classification", {}),
}


@pytest.fixture(scope="module")
def bases(tmp_path_factory) -> dict[str, Path]:
    """Small checkpoints of several tasks, without the code files, one of them in shards."""
    folder = tmp_path_factory.mktemp("bases")
    for name, (model_class, task, fields) in CHECKPOINTS.items():
        model = tiny_model(model_class, **fields)
        model.save_pretrained(folder / name, max_shard_size="40KB" if name == "shards" else "1GB")
        PixelViTImageProcessor.for_config(model.config, task=task).save_pretrained(folder / name)
        for path in (folder / name).glob("*.py"):
            path.unlink()
    assert len(list((folder / "shards").glob("*.safetensors"))) > 2
    return {name: folder / name for name in CHECKPOINTS}


@pytest.fixture(scope="module")
def sources(tmp_path_factory) -> list[Path]:
    """Other people's checkpoints: the released form as .pth and safetensors, DeiT's, transformers' folder."""
    timm = pytest.importorskip("timm")
    folder = tmp_path_factory.mktemp("sources")
    released = dict(read_checkpoint(GOLDEN / "adventurer_patch4_img32.pth")["model"])
    torch.save({"model": released, "epoch": 3}, folder / "released.pth")
    save_file(released, folder / "released.safetensors")
    deit = timm.models.VisionTransformer(
        img_size=16, patch_size=4, embed_dim=64, depth=2, num_heads=1, num_classes=5, init_values=1e-4
    )
    torch.save(deit.state_dict(), folder / "deit.pth")
    sizes = {"hidden_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 96}
    vit = ViTForImageClassification(ViTConfig(**sizes, image_size=16, patch_size=4, num_labels=5))
    vit.save_pretrained(folder / "vit")
    ViTImageProcessor(size={"height": 16, "width": 16}).save_pretrained(folder / "vit")
    return [folder / name for name in ("released.pth", "released.safetensors", "deit.pth", "vit")]


@pytest.fixture(scope="module")
def watch() -> Watch:
    return Watch()


def test_unmutated_checkpoints_load(bases):
    for folder in bases.values():
        outputs = outputs_of(folder)
        assert outputs.isfinite().all() and outputs.abs().sum() > 0


def refuse_in_two_lines():
    raise CheckpointError("It is not as it should be.\nSomewhere.")


def test_the_guards_see_what_they_are_for(tmp_path, watch):
    """A checker that lets everything pass would pass too."""
    folder = tmp_path / "checkpoint"
    for path in (folder, tmp_path / "outside"):
        path.mkdir()
        (path / "x").write_text("x")
    marker = tmp_path / "marker"
    actions = {
        "open": lambda: (tmp_path / "outside" / "x").read_text(),
        "open ": lambda: (tmp_path / "written").write_text("x"),
        "os.system": lambda: os.system("true"),
        "run": lambda: exec(compile("1", str(folder / "code.py"), "exec")),
        "socket": lambda: socket.getaddrinfo("localhost", 1),
        "pickle": lambda: pickle.loads(pickle.dumps(Path)),
    }
    for expected, action in actions.items():
        with watch.over(folder, may_write=False):
            action()
        assert watch.violations and watch.violations[0].startswith(expected.strip()), expected
    nothing = torch.zeros(1)
    assert judge(tmp_path, lambda: nothing, NOTHING, nothing)[2] == "it was to be refused"
    assert judge(tmp_path, lambda: nothing / 0, FINITE, nothing)[2] == "outputs are not finite"
    assert judge(tmp_path, lambda: nothing + 1, SAME, nothing)[2] == "other outputs"
    assert judge(tmp_path, lambda: {}["x"], SAME, nothing)[2].startswith("KeyError")
    assert judge(tmp_path, refuse_in_two_lines, SAME, nothing)[2].startswith("no sentence")
    marker.touch()
    assert judge(tmp_path, lambda: nothing, SAME, nothing)[2] == "code ran"
    with pytest.raises((MemoryError, RuntimeError)), bounded_memory(1 << 28):
        torch.zeros(1 << 29)
    with pytest.raises(TooSlow), bounded_time(1):
        time.sleep(10)


def run(fuzz, bases, cases: int, seed: int, work: Path, watch: Watch):
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with bounded_memory():
        report = fuzz(bases, cases, seed, work, watch)
    grown = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024
    print(f"{report}\npeak memory rose by {grown:.0f} MiB, {len(report.reasons)} different refusals")
    assert not report.failures, report
    outcomes = {outcome for _, outcome in report.outcomes}
    assert {"refused", "loaded"} <= outcomes <= {"refused", "refused the image", "loaded"}
    assert sum(report.outcomes.values()) == cases
    return report


def test_some_mutated_folders(bases, tmp_path, watch):
    run(fuzz_folders, bases, 150, 1, tmp_path, watch)


def test_some_mutated_sources(sources, tmp_path, watch):
    run(fuzz_conversion, sources, 50, 1, tmp_path, watch)


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(2, 6))
def test_many_mutated_folders(seed, bases, tmp_path, watch):
    run(fuzz_folders, bases, 2000, seed, tmp_path, watch)


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(2, 4))
def test_many_mutated_sources(seed, sources, tmp_path, watch):
    run(fuzz_conversion, sources, 1500, seed, tmp_path, watch)
