# Copyright 2026 The modeling_pixelvit team. All rights reserved.
# SPDX-License-Identifier: Apache-2.0
"""What the READMEs say is there and runs, as a reader would run it."""

import importlib
import re
import shlex
from pathlib import Path

import pytest
import torch
from helpers import tiny_model
from PIL import Image
from published import build_job, save_checkpoint

from modeling_pixelvit import AdventurerForImageClassification, PixelViTForImageClassification
from training.engine.arguments import parse_arguments
from training.hub import publishing
from training.hub.source import Source


ROOT = Path(__file__).parents[1]
README = ROOT / "README.md"
FOLDERS = sorted((ROOT / "training").glob("*/README.md"))
ALL = [README, ROOT / "modeling_pixelvit" / "README.md", ROOT / "training" / "README.md", *FOLDERS]
PYTHON_BLOCK, SHELL_BLOCK = (re.compile(rf"```{name}\n(.*?)```", re.DOTALL) for name in ("python", "bash"))
# What a reader has; what the README calls it -> what it is in the test.
CHECKPOINT, PUBLISHED = "path/or/name", "runs/hub/pixelvit-digits"
# What makes the README's commands short, in its order.
SHORT = [
    ("training.sweep", ["--train_images", "96", "--workers", "1", "--width", "32", "--num_blocks", "2"]),
    ("training.finetune", ["--max_steps", "1", "--max_eval_samples", "16", "--use_cpu", "True", "--report_to", "none"]),
    ("training.visualize", []),
    ("training.export_onnx", []),
    ("training.publish", []),
    ("training.train", ["--num_train_epochs", "0.05", "--warmup_epochs", "0", "--report_to", "none"]),
]


def commands(path):
    """The commands of a README's shell blocks, as (module, words)."""
    text = "\n".join(SHELL_BLOCK.findall(path.read_text(encoding="utf-8"))).replace("\\\n", " ")
    lines = [shlex.split(line, comments=True) for line in text.splitlines()]
    return [(words[words.index("-m") + 1], words[words.index("-m") + 2 :]) for words in lines if "-m" in words]


@torch.no_grad()
def test_python_runs(tmp_path, capsys):
    tiny_model(AdventurerForImageClassification).save_pretrained(tmp_path / "checkpoint")
    source = Source(save_checkpoint(tmp_path / "source", PixelViTForImageClassification, "classification"))
    job = build_job(source, tmp_path / "published")
    example = Image.open(job.folder / "example.png").convert("RGB")
    label = job.model(**job.processor(example, return_tensors="pt")).logits.argmax().item()
    first, *others = PYTHON_BLOCK.findall(README.read_text(encoding="utf-8"))
    of_models = PYTHON_BLOCK.findall(ALL[1].read_text(encoding="utf-8"))
    code = "\n".join([first, *of_models, *others])
    assert len(of_models) >= 2 and CHECKPOINT in code and PUBLISHED in code
    code = code.replace(CHECKPOINT, str(tmp_path / "checkpoint")).replace(PUBLISHED, str(job.folder))
    names = {"image": Image.new("RGB", (60, 40), "teal"), "pixel_values": torch.randn(1, 3, 40, 24)}
    capsys.readouterr()
    exec(compile(code, "README.md", "exec"), names)
    assert capsys.readouterr().out.splitlines()[-2:] == ["4096 torch.Size([1, 10])", f"LABEL_{label}"]
    assert set(names["objects"]) == {"scores", "labels", "boxes"}


def test_commands_run(tmp_path, monkeypatch, one_thread, few_test_digits):
    """Each of the README, one after the other in one folder, as it stands but for what makes it short."""
    pytest.importorskip("onnxruntime")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(publishing, "check_folder", lambda job: [])  # which has tests of its own
    given = [(module, words) for module, words in commands(README) if "a100" not in " ".join(words)]
    given = [command for command in given if "path/to" not in " ".join(command[1])]
    assert [module for module, _ in given] == [module for module, _ in SHORT]
    for (module, words), (_, short) in zip(given, SHORT, strict=True):
        assert importlib.import_module(module).main([*words, *short]) == 0, (module, words)
    assert (tmp_path / "runs" / "hub" / "pixelvit-digits" / "handler.py").exists()


def test_commands_for_gpus_are_understood():
    found = [words for module, words in commands(README) if module == "training.train" and "path/to" in " ".join(words)]
    for words in found:
        recipe, data, _ = parse_arguments(words)
        assert (recipe.patch_size, recipe.image_size, data.dataset) == (4, 128, "path/to/imagenet")
    assert len(found) == 1


def anchors(path, link):
    """Of the headings of the file that a link names, as GitHub makes them."""
    text = (path.parent / link.partition("#")[0]).read_text(encoding="utf-8")
    headings = re.findall(r"^#+ (.+)$", text, re.MULTILINE)
    return [re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in headings]


@pytest.mark.parametrize("path", ALL, ids=lambda path: str(path.parent.relative_to(ROOT)))
def test_what_it_names_is_there(path, capsys):
    text = path.read_text(encoding="utf-8")
    links = [link for link in re.findall(r"\]\(([^)]+)\)", text) if not link.startswith("http")]
    assert [link for link in links if not (path.parent / link.partition("#")[0]).exists()] == []
    assert [link for link in links if "#" in link and link.partition("#")[2] not in anchors(path, link)] == []
    modules = set(re.findall(r"python -m (training\.[a-z]\w+)", text))
    assert [name for name in sorted(modules) if not (ROOT / f"{name.replace('.', '/')}.py").exists()] == []
    assert [name for name in re.findall(r"--config_file (\S+\.yaml)", text) if not (ROOT / name).exists()] == []
    targets = set(re.findall(r"`?make ([a-z-]+)", text)) - {"a"}
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    assert [name for name in sorted(targets) if f"\n{name}:" not in makefile] == []
    for module, words in commands(path):
        with pytest.raises(SystemExit):
            importlib.import_module(module).main(["--help"])
        options = set(re.findall(r"--[\w-]+", capsys.readouterr().out))
        assert {word for word in words if word.startswith("--")} <= options, (module, words)


def test_the_readme_is_short():
    assert len(README.read_text(encoding="utf-8").splitlines()) <= 220
