# Copyright 2026 The modeling_pixelvit team. All rights reserved.
# SPDX-License-Identifier: Apache-2.0
"""
Interoperability: what one version of transformers saves, the other loads, the oldest that we support and this one.

`PIXELVIT_OLDEST_TRANSFORMERS` may name a folder that the oldest is installed in, with the huggingface_hub that it takes
(`pip install --no-deps --target`); otherwise pip fetches both, which takes a network.
"""

import os
import subprocess
import sys
from pathlib import Path

import interop_remote
import pytest
import transformers
from interop_models import save_checkpoints


pytestmark = pytest.mark.slow

OLDEST = "5.17.0"
ROOT, TESTS = Path(__file__).parents[1], Path(__file__).parent
SAVE = "import sys, interop_models; interop_models.save_checkpoints(sys.argv[1])"
VERSION = "import transformers; print(transformers.__version__)"


@pytest.fixture(scope="module")
def run_in_oldest(tmp_path_factory):
    """Runs `python -c CODE ARGUMENTS` with the oldest transformers, and with this package unless `code` blocks it."""
    folder = os.environ.get("PIXELVIT_OLDEST_TRANSFORMERS")
    if folder is None:
        folder = str(tmp_path_factory.mktemp("transformers"))
        command = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--target", folder]
        subprocess.run([*command, f"transformers=={OLDEST}", "huggingface-hub<2"], check=True)
    environment = {
        **os.environ,
        "HF_HUB_OFFLINE": "1",
        "HF_MODULES_CACHE": str(tmp_path_factory.mktemp("modules")),
        "PYTHONPATH": os.pathsep.join([folder, str(ROOT), str(TESTS)]),
    }

    def run(code, *arguments):
        command = [sys.executable, "-c", code, *map(str, arguments)]
        done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        return done.stdout.strip()

    assert run(VERSION) == OLDEST != transformers.__version__
    return run


def pairs_of(folders):
    return [f"{task}={folder}" for (task, _), folder in folders.items()]


@pytest.mark.parametrize("code", [interop_remote.BY_PACKAGE, interop_remote.BY_REMOTE_CODE])
def test_the_oldest_loads_what_this_one_saves(run_in_oldest, code, tmp_path):
    pairs = pairs_of(save_checkpoints(tmp_path))
    run_in_oldest(code, tmp_path / "found", *pairs)
    interop_remote.assert_same_as(str(tmp_path / "found"), *pairs)


@pytest.mark.parametrize("code", [interop_remote.BY_PACKAGE, interop_remote.BY_REMOTE_CODE])
def test_this_one_loads_what_the_oldest_saves(run_in_oldest, code, tmp_path):
    run_in_oldest(SAVE, tmp_path)
    pairs = [f"{path.name.split('-')[0]}={path}" for path in sorted(tmp_path.iterdir())]
    assert len(pairs) == 8
    run_in_oldest(interop_remote.BY_PACKAGE, tmp_path / "found", *pairs)
    interop_remote.assert_same_as(str(tmp_path / "found"), *pairs)
    environment = {**os.environ, "HF_HUB_OFFLINE": "1", "HF_MODULES_CACHE": str(tmp_path / "modules")}
    environment["PYTHONPATH"] = os.pathsep.join([str(ROOT), str(TESTS)])
    command = [sys.executable, "-c", code, str(tmp_path / "again"), *pairs]
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    interop_remote.assert_same_as(str(tmp_path / "again"), *pairs)
