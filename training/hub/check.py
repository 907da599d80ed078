# Copyright 2026 The modeling_pixelvit team. All rights reserved.
# SPDX-License-Identifier: Apache-2.0
"""Proves that a published folder gives what its source gives, in a process that has nothing of this project."""

import dataclasses
import json
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from safetensors.torch import save_file
from transformers import AutoImageProcessor, BaseImageProcessor, PreTrainedModel, pipeline

from ..cards.metadata import EXAMPLE_FILE
from ..families.registry import architecture_of
from . import remote_check as remote
from .handler import as_json, tasks_of


# With more tokens than this one image must do: a second one would cost minutes.
MANY_TOKENS = 4096
# Variables that would let the process find more, or other, than a stranger's would.
REMOVED_VARIABLES = ("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN", "HF_ENDPOINT", "HF_HUB_CACHE", "TRANSFORMERS_CACHE")


@dataclasses.dataclass(frozen=True)
class FolderJob:
    """
    A folder and the model and image processor that it was written from.

    Args:
        folder: As `build_folder` wrote it.
        model: In evaluation mode, on the CPU.
        processor: Any back end.
    """

    folder: Path
    model: PreTrainedModel
    processor: BaseImageProcessor


def check_folder(job: FolderJob) -> list[str]:
    """
    Compares the folder's outputs with its source's, bit for bit, in a fresh process.

    Returns:
        The names of the comparisons that were made.

    Raises:
        ValueError: naming the first comparisons that failed.
    """
    with tempfile.TemporaryDirectory(prefix="publish-check-") as temporary:
        work = Path(temporary)
        (result,) = run_fresh([expect(job, work / "expected")], work)
    if result["differences"]:
        first, *others = result["differences"]
        more = f" (and {len(others)} more: {'; '.join(others)[:400]})" if others else ""
        raise ValueError(
            f"The folder does not give what its source gives: {' '.join(first.split())}{more}; it was not published."
        )
    return result["compared"]


def expect(job: FolderJob, work: Path) -> dict[str, Any]:
    """Writes what the source gives to files of a new folder, and describes them for the fresh process."""
    work.mkdir(parents=True)
    images = [Image.open(job.folder / EXAMPLE_FILE).convert("RGB")]
    if getattr(job.model.config, "num_patch_tokens", MANY_TOKENS + 1) <= MANY_TOKENS:
        images.append(wide_image(images[0].size))
    files = []
    for index, image in enumerate(images):
        files.append(str(work / f"image-{index}.png"))
        image.save(files[-1])
    tensors = {}
    for backend in remote.BACKENDS:
        # The source's own settings through the other back end, by the package's classes.
        processor = AutoImageProcessor.from_pretrained(job.folder, backend=backend, trust_remote_code=False)
        name = f"AutoImageProcessor {backend}"
        tensors.update(remote.tensors_in(remote.processor_inputs(processor, images), f"{name}, image"))
    inputs = remote.processor_inputs(job.processor, images)
    auto_class = architecture_of(job.model).auto_class
    for name, model in {"AutoModel": job.model.base_model, auto_class: job.model}.items():
        tensors.update(remote.model_tensors(model, inputs, name))
    save_file(tensors, work / "expected.safetensors")
    answers = {
        "config": remote.config_entries(job.model.config),
        "weights": remote.weights_checksums(job.model),
        "pipelines": source_answers(job, images[0]),
    }
    (work / "expected.json").write_text(json.dumps(answers))
    return {
        "folder": str(job.folder.resolve()),
        "auto_class": auto_class,
        "images": files,
        "tensors": str(work / "expected.safetensors"),
        "answers": str(work / "expected.json"),
    }


def source_answers(job: FolderJob, image: Image.Image) -> dict[str, Any]:
    """What pipelines of the source model answer, by task, the main one first."""

    def make(task: str, **options: Any) -> Any:
        return pipeline(task, model=job.model, image_processor=job.processor, **options)

    return {task: as_json(remote.pipeline_answer(make, task, image)) for task in tasks_of(job.model.config)}


def wide_image(size: tuple[int, int]) -> Image.Image:
    """Noise half as wide again as high: what is not square takes other ways through the image processor."""
    width, height = size[0] * 3 // 2, size[1]
    pixels = np.random.default_rng(0).integers(0, 256, size=(height, width, 3), dtype=np.uint8)
    return Image.fromarray(pixels)


def run_fresh(jobs: list[dict[str, Any]], work: Path, python: str = sys.executable) -> list[dict[str, Any]]:
    """Runs the jobs in a new process, whose working directory, home of caches and modules lie in `work`."""
    home = work / "fresh"
    home.mkdir()
    (home / "jobs.json").write_text(json.dumps({"num_threads": torch.get_num_threads(), "jobs": jobs}))
    run_script(Path(remote.__file__), ["jobs.json", "results.json"], home, python)
    return json.loads((home / "results.json").read_text())


def run_script(script: Path, arguments: list[str], home: Path, python: str = sys.executable, **variables: str) -> str:
    """
    What a copy of a script prints in a new process on the CPU, whose working directory, home of caches and modules is
    `home`, with further environment variables.

    Raises:
        ValueError: with its last line if it fails.
    """
    environment = {name: value for name, value in os.environ.items() if name not in REMOVED_VARIABLES}
    environment.update(
        HF_HOME=str(home / "cache"),
        HF_MODULES_CACHE=str(home / "modules"),
        HF_HUB_OFFLINE="1",
        CUDA_VISIBLE_DEVICES="",
        PYTHONDONTWRITEBYTECODE="1",
        **variables,
    )
    copy = shutil.copy(script, home / "check.py")
    process = subprocess.run([python, copy, *arguments], cwd=home, env=environment, capture_output=True, text=True)
    if process.returncode != 0:
        last = (process.stderr.strip().splitlines() or ["nothing"])[-1]
        raise ValueError(f"The check in a fresh process ended with status {process.returncode} and says: {last}")
    return process.stdout
