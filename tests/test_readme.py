# Copyright 2026 The modeling_pixelvit team. All rights reserved.
# SPDX-License-Identifier: Apache-2.0
"""The README's commands exist and its Python runs, in its order, as a reader would run it."""

import re
from pathlib import Path

import torch
from helpers import tiny_model
from PIL import Image
from published import build_job, save_checkpoint

from modeling_pixelvit import AdventurerForImageClassification, PixelViTForImageClassification
from training.hub.source import Source


ROOT = Path(__file__).parents[1]
TEXT = (ROOT / "README.md").read_text(encoding="utf-8")
PYTHON_BLOCK = re.compile(r"```python\n(.*?)```", re.DOTALL)
# What a reader has; what the README calls it -> what it is in the test.
CHECKPOINT, PUBLISHED = "path/or/name", "runs/hub/pixelvit-patch4"


@torch.no_grad()
def test_python_runs(tmp_path, capsys):
    tiny_model(AdventurerForImageClassification).save_pretrained(tmp_path / "checkpoint")
    source = Source(save_checkpoint(tmp_path / "source", PixelViTForImageClassification, "classification"))
    job = build_job(source, tmp_path / "published")
    example = Image.open(job.folder / "example.png").convert("RGB")
    label = job.model(**job.processor(example, return_tensors="pt")).logits.argmax().item()
    blocks = PYTHON_BLOCK.findall(TEXT)
    code = "\n".join(blocks)
    assert len(blocks) >= 4 and CHECKPOINT in code and PUBLISHED in code
    code = code.replace(CHECKPOINT, str(tmp_path / "checkpoint")).replace(PUBLISHED, str(job.folder))
    names = {"image": Image.new("RGB", (60, 40), "teal"), "pixel_values": torch.randn(1, 3, 40, 24)}
    capsys.readouterr()
    exec(compile(code, "README.md", "exec"), names)
    assert capsys.readouterr().out.splitlines()[-2:] == ["4096 torch.Size([1, 10])", f"LABEL_{label}"]
    assert set(names["objects"]) == {"scores", "labels", "boxes"}


def test_files_that_it_shows_are_there():
    links = [link for link in re.findall(r"\]\(([^)]+)\)", TEXT) if not link.startswith("http")]
    assert len(links) >= 10
    assert [link for link in links if not (ROOT / link).exists()] == []


def test_commands_exist():
    modules = set(re.findall(r"python -m (training\.\w+)", TEXT))
    assert len(modules) >= 10
    assert [name for name in sorted(modules) if not (ROOT / f"{name.replace('.', '/')}.py").exists()] == []
    targets = set(re.findall(r"`?make ([a-z-]+)", TEXT)) - {"a"}
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    assert [name for name in sorted(targets) if f"\n{name}:" not in makefile] == []
