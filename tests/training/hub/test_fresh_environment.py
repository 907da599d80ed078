# Copyright 2026 The modeling_pixelvit team. All rights reserved.
# SPDX-License-Identifier: Apache-2.0
"""
Published folders in an environment made for the purpose, with torch, torchvision, transformers and pillow alone.

It takes six gigabytes and a network for pip. `PIXELVIT_CHECKPOINTS` may name checkpoints that are published and tried
too, the sweep's for example, separated as in PATH; `PIXELVIT_FRESH_ENVIRONMENT` an environment made before.
"""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image
from published import PUBLISHED, build_all, build_job

from training.hub.check import expect, run_fresh
from training.hub.source import find_source


pytestmark = pytest.mark.slow

PACKAGES = ("torch", "torchvision", "transformers", "pillow")
PYTHON_BLOCK = re.compile(r"```python\n(.*?)```", re.DOTALL)
CHECKPOINTS = [path for path in os.environ.get("PIXELVIT_CHECKPOINTS", "").split(os.pathsep) if path]
# Of a checkpoint the two last names of its path: those of the sweeps have the same last one.
NAMES = [*PUBLISHED, *("-".join(Path(path).parts[-2:]) for path in CHECKPOINTS)]


@pytest.fixture(scope="module", params=["newest", "5.17.0"])
def python(request, tmp_path_factory):
    """The environment's Python, with one version of transformers after the other."""
    folder = os.environ.get("PIXELVIT_FRESH_ENVIRONMENT") or str(tmp_path_factory.getbasetemp() / "environment")
    python = str(Path(folder, "bin", "python"))
    if not Path(python).exists():
        subprocess.run([sys.executable, "-m", "venv", folder], check=True)
    version = "transformers" if request.param == "newest" else f"transformers=={request.param}"
    packages = [version if name == "transformers" else name for name in PACKAGES]
    subprocess.run([python, "-m", "pip", "install", "--quiet", "--upgrade", *packages], check=True)
    for name in ("modeling_pixelvit", "timm", "mamba_ssm", "flash_attn", "sklearn"):
        assert subprocess.run([python, "-c", f"import {name}"], capture_output=True, cwd=folder).returncode == 1
    return python


@pytest.fixture(scope="module")
def jobs(tmp_path_factory):
    work = tmp_path_factory.mktemp("published")
    jobs = build_all(work)
    for name, path in zip(NAMES[len(PUBLISHED) :], CHECKPOINTS, strict=True):
        jobs[name] = build_job(find_source(path), work / name)
    return jobs


@pytest.fixture(scope="module")
def results(python, jobs, tmp_path_factory):
    work = tmp_path_factory.mktemp("check")
    described = [expect(job, work / name) for name, job in jobs.items()]
    return dict(zip(jobs, run_fresh(described, work, python), strict=True))


@pytest.mark.parametrize("name", NAMES)
def test_folder_gives_what_its_source_gives_here(results, name):
    assert results[name]["differences"] == [] and len(results[name]["compared"]) >= 7


RUN_SNIPPETS = """
import json, sys
sys.modules["modeling_pixelvit"] = None  # not importable, whatever the path
for name, blocks in json.load(open("snippets.json")).items():
    print("#", name, flush=True)
    names = {}
    for code in blocks:
        exec(compile(code, name, "exec"), names)
"""


def test_snippets_of_the_cards_run_as_a_new_user_runs_them(python, jobs, tmp_path):
    snippets = {}
    for name, job in jobs.items():
        blocks = PYTHON_BLOCK.findall((job.folder / "README.md").read_text())
        snippets[name] = [block.replace(f"tester/{name}", str(job.folder)) for block in blocks]
        assert any(str(job.folder) in block for block in snippets[name])
    (tmp_path / "snippets.json").write_text(json.dumps(snippets))
    (tmp_path / "run.py").write_text(RUN_SNIPPETS)
    Image.new("RGB", (60, 40), "teal").save(tmp_path / "photo.jpg")
    environment = {**os.environ, "HF_HOME": str(tmp_path / "home"), "HF_HUB_OFFLINE": "1"}
    environment.pop("PYTHONPATH", None)
    process = subprocess.run([python, "run.py"], cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert process.returncode == 0, process.stderr[-3000:]
    assert [line[2:] for line in process.stdout.splitlines() if line.startswith("# ")] == list(jobs)
