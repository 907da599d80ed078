# Copyright 2026 The modeling_pixelvit team. All rights reserved.
# SPDX-License-Identifier: Apache-2.0
"""
The exported Space: what is in it, and that it serves without the checkout.

Skipped without gradio, unless PIXELVIT_REQUIRE_BROWSER=1.
"""

import ast
import importlib.util
import json
import os
import re
import subprocess
import sys
from pathlib import Path
from urllib.request import urlopen

import pytest
from demo_models import photograph, save_tiny
from huggingface_hub import SpaceCard

from training.demo.checkpoints import ModelStore
from training.demo.settings import Demo


if importlib.util.find_spec("gradio") is None and os.environ.get("PIXELVIT_REQUIRE_BROWSER") != "1":
    pytest.skip("missing: gradio", allow_module_level=True)

from training.demo.space import ENTRY, export_space, modules_of
from training.demo_app import main


ROOT = Path(__file__).parents[3]
# Starts app.py as Python would in an environment in which this project is not installed, not even for editing.
WITHOUT_CHECKOUT = """
import runpy, sys
sys.path[:] = [{space!r}] + [path for path in sys.path if path not in ("", {root!r})]
sys.meta_path[:] = [finder for finder in sys.meta_path if "editable" not in str(finder)]
import modeling_pixelvit, training
assert modeling_pixelvit.__file__.startswith({space!r}) and training.__file__.startswith({space!r})
runpy.run_path("app.py", run_name="__main__")
"""


@pytest.fixture(scope="module")
def space(tmp_path_factory):
    """Two checkpoints of one name and an example, exported by the command."""
    root = tmp_path_factory.mktemp("space")
    names = [
        str(save_tiny(root / folder / "tiny", task)) for folder, task in (("a", "classification"), ("b", "detection"))
    ]
    (root / "examples").mkdir()
    photograph().save(root / "examples" / "photo.png")
    options = ["--port", "0", "--examples", str(root / "examples"), "--max_tokens", "100"]
    assert main([*names, *options, "--export_space", str(root / "written")]) == 0
    return root / "written"


def test_metadata(space):
    metadata = SpaceCard.load(space / "README.md").data
    assert (metadata.sdk, metadata.app_file, metadata.license) == ("gradio", "app.py", "apache-2.0")
    assert re.fullmatch(r"\d+\.\d+\.\d+", metadata.sdk_version) and len(metadata.short_description) <= 60


def test_content(space):
    content = json.loads((space / "demo.json").read_text())
    assert content["checkpoints"] == ["checkpoints/tiny", "checkpoints/tiny-2"] and content["most_tokens"] == 100
    assert all((space / path).is_file() for paths in content["examples"].values() for path in paths)
    kinds = {path.suffix for path in space.rglob("*") if path.is_file()}
    assert kinds == {".py", ".json", ".safetensors", ".png", ".md", ".txt", ""}


def test_every_package_is_asked_for(space):
    """What the copied modules import comes with Python, the folder, requirements.txt or, gradio, with the sdk."""
    asked_for = re.findall(r"^[\w-]+", (space / "requirements.txt").read_text(), re.MULTILINE)
    known = {name.replace("-", "_") for name in asked_for} | {"PIL", "gradio", "training", "modeling_pixelvit"}
    for path in (space / "training").rglob("*.py"):
        for node in ast.parse(path.read_text()).body:
            named = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            named += [node.module] if isinstance(node, ast.ImportFrom) and node.level == 0 else []
            for name in named:
                assert name.split(".")[0] in known | sys.stdlib_module_names, f"{path.name}: {name}"


def test_requirements_are_the_packages(space):
    project = (ROOT / "pyproject.toml").read_text()
    for line in (space / "requirements.txt").read_text().splitlines():
        assert f'"{line}"' in project


def test_space_serves_without_the_checkout(space, tmp_path):
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    environment |= {"GRADIO_SERVER_NAME": "127.0.0.1", "HF_HUB_OFFLINE": "1", "PYTHONUNBUFFERED": "1"}
    process_code = WITHOUT_CHECKOUT.format(root=str(ROOT), space=str(space))
    process = subprocess.Popen(
        [sys.executable, "-c", process_code],
        cwd=space,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        line = process.stdout.readline()
        assert line.startswith("The demo is at http://127.0.0.1:"), process.communicate(timeout=60)[1]
        config = json.loads(urlopen(line.split()[-1] + "config", timeout=20).read())
    finally:
        process.terminate()
        process.communicate(timeout=30)
    choices = [one["props"]["choices"] for one in config["components"] if one["type"] == "dropdown"]
    assert [[title for title, _ in listed] for listed in choices[:3]] == [
        ["PixelViT, patch 8, 32 px (tiny)"],
        [],
        ["PixelViT, patch 8, 32 px (tiny-2)"],
    ]
    # Visitors of a Space choose from what is there.
    assert "loader-name" not in {one["props"].get("elem_id") for one in config["components"]}


def test_what_is_not_exported(space, tmp_path, capsys):
    folder = save_tiny(tmp_path / "tiny", "classification")
    assert main([str(folder), "--port", "0", "--checkpoints_dir", str(tmp_path), "--export_space", str(space)]) == 2
    assert "give a new folder" in capsys.readouterr().err
    config = json.loads((folder / "config.json").read_text())
    origin = {"name": "some-model", "repo_id": "some/thing", "filename": "a.pth", "sha256": 64 * "0", "entry": "model"}
    config["weights_origin"] = {**origin, "license": None}
    (folder / "config.json").write_text(json.dumps(config))
    store = ModelStore()
    demo = Demo([store.describe(str(folder))], {}, store=store)
    with pytest.raises(ValueError, match="without a licence"):
        export_space(demo, tmp_path / "unlicensed")
    assert not (tmp_path / "unlicensed").exists()


def test_training_is_not_part_of_it():
    found = {str(path.relative_to(ROOT / "training")) for path in modules_of(ENTRY)}
    assert {"demo/pages.py", "checkpoints/loading.py", "tasks/__init__.py"} <= found
    assert not [path for path in found if path.startswith(("engine", "data", "experiments")) or path == "demo_app.py"]
