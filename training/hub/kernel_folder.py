# Copyright 2026 The modeling_pixelvit team. All rights reserved.
# SPDX-License-Identifier: Apache-2.0
"""
A kernel repository, as the package `kernels` loads it from the hub, of this package's Triton kernels.

Its one build variant is `build/torch-cuda`, which stands for pure Triton on CUDA: the kernels' files as they are,
`kernel_functions.py` as its `__init__.py`, and `metadata.json`. The kernel's id, by which it is imported and which is
the namespace of its ops, has a checksum of all files, so that any two versions can be loaded by one process.
"""

import base64
import hashlib
import json
import re
import shutil
import string
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import huggingface_hub
import numpy as np
import torch
from packaging.version import Version
from safetensors.torch import load_file

from ..common.files import is_free, whole_folder, write_json, write_text
from .check import run_script
from .folder import DEFAULT_LICENSE, LICENSE_FILE
from .scan import PACKAGE_FOLDER


# Of the functions: the hub's branch is named after it. 0 is for those that may still change; a later one must rise with
# every change of what is public.
VERSION = 0
VARIANT = Path("build", "torch-cuda")
OLDEST_ARCH = "8.0+PTX"  # and any newer: Triton compiles for the card at hand
METADATA_FILE = "metadata.json"
FUNCTIONS_FILE = Path(__file__).with_name("kernel_functions.py")
CARD_FILE = Path(__file__).with_name("kernel_card.md")
CHECK_FILE = Path(__file__).with_name("kernel_check.py")
IMPORTED = re.compile(r"^from \.(\w+) import", re.MULTILINE)
NAME = re.compile("[a-z][-a-z0-9]*[a-z0-9]")
ID_DIGITS = 10
OLDEST_HUB = Version("2.4")  # of those that were tried: 2.0 refuses
BLOCKED = ("modeling_pixelvit", "training", "transformers", "mamba_ssm", "causal_conv1d")


def needed_files() -> dict[str, Path]:
    """Files of the build variant by name: the public functions, and what these import, and so on."""
    files = {"__init__.py": FUNCTIONS_FILE}
    names = IMPORTED.findall(FUNCTIONS_FILE.read_text())
    while names:
        name = f"{names.pop()}.py"
        if name not in files:
            files[name] = PACKAGE_FOLDER / name
            names += IMPORTED.findall(files[name].read_text())
    return dict(sorted(files.items()))


def kernel_name(repo_id: str) -> str:
    """
    Raises:
        ValueError: if the repository's name cannot be a kernel's.
    """
    name = repo_id.split("/")[1]
    if not NAME.fullmatch(name):
        raise ValueError(
            f"--repo-id {repo_id} was given; a kernel's name has small letters, digits and '-' only, begins with a "
            "letter and does not end with '-': give such a one, as USER/mamba2-triton."
        )
    return name


def check_can_push_kernels():
    """
    Raises:
        ValueError: if the installed huggingface_hub makes repositories of kernels, but puts no files into them.
    """
    if Version(huggingface_hub.__version__) < OLDEST_HUB:
        raise ValueError(
            f"--push was given, and huggingface_hub {huggingface_hub.__version__} cannot send files to a repository of "
            f"kernels; pip install 'huggingface_hub>={OLDEST_HUB}', or leave --push out."
        )


def interpreter_fault() -> str:
    """Why the installed Triton cannot interpret kernels, by which they are checked, in one sentence; or nothing."""
    try:
        import triton  # takes a while, and nothing else here needs it
    except ImportError:
        return "The kernels are checked by Triton's interpreter, but triton cannot be imported; pip install triton."
    # Seen with 3.6, and not with 3.8: it makes numbers of arrays that have a dimension.
    if Version(triton.__version__) < Version("3.7") and Version(np.__version__) >= Version("2.4"):
        return (
            f"The kernels are checked by Triton's interpreter, and that of Triton {triton.__version__} does not run "
            f"with numpy {np.__version__}; pip install 'numpy<2.4'."
        )
    return ""


def write_kernels(folder: Path, repo_id: str) -> dict[str, Any]:
    """
    Writes a kernel repository to an empty folder.

    Returns:
        The content of its `metadata.json`.
    """
    variant = folder / VARIANT
    variant.mkdir(parents=True)
    digests, whole = {}, hashlib.sha256()
    for name, path in needed_files().items():
        shutil.copyfile(path, variant / name)
        digest = hashlib.sha256(path.read_bytes()).digest()
        digests[name] = base64.b64encode(digest).decode()
        whole.update(name.encode() + digest)
    name = kernel_name(repo_id)
    metadata = {
        "name": name,
        "id": f"_{name.replace('-', '_')}_cuda_{whole.hexdigest()[:ID_DIGITS]}",
        "version": VERSION,
        "license": DEFAULT_LICENSE,
        "python-depends": [],
        "backend": {"type": "cuda", "archs": [OLDEST_ARCH]},
        "digest": {"algorithm": "sha256", "files": digests},
    }
    write_json(variant / METADATA_FILE, metadata)
    shutil.copyfile(LICENSE_FILE, folder / "LICENSE")
    card = string.Template(CARD_FILE.read_text()).substitute(repo_id=repo_id, version=VERSION)
    write_text(folder / "README.md", card)
    return metadata


def build_kernels(repo_id: str, output_dir: Path, report: Callable[[str], None] = print):
    """
    Writes a kernel repository, whole and proven, or not at all.

    Args:
        repo_id: USER/NAME on the hub.
        output_dir: The folder to write; a kernel repository there is replaced.
        report: Gets a line of text for each thing worth knowing.

    Raises:
        ValueError: in one sentence, if the name or the folder cannot be taken, or the repository does not give what
            this package gives.
    """
    kernel_name(repo_id)
    output_dir = output_dir.resolve()
    if not is_free(output_dir) and not (output_dir / VARIANT / METADATA_FILE).is_file():
        raise ValueError(f"{output_dir} holds something other than kernels; give another --output_dir.")
    with whole_folder(output_dir) as folder:
        metadata = write_kernels(folder, repo_id)
        loader, compared = check_kernels(folder, metadata)
    report(f"same as the package, bit for bit, loaded by {loader}: {', '.join(compared)}")
    report(f"wrote {output_dir}: {VARIANT}, id {metadata['id']}, version {VERSION}")


def check_kernels(folder: Path, metadata: dict[str, Any]) -> tuple[str, list[str]]:
    """
    Compares outputs and gradients of a kernel repository's functions with those of this package's kernels, bit for bit,
    on small inputs that Triton interprets: each in a fresh process, the repository's in one that has nothing of this
    project, the package's in one that has loaded the repository too. A third has no Triton.

    Returns:
        What loaded it, and the functions that were compared.

    Raises:
        ValueError: in one sentence, for whatever is not as it must be.
    """
    if fault := interpreter_fault():
        raise ValueError(fault)
    kernel_id = metadata["id"]
    job = {"variant": str((folder / VARIANT).resolve()), "id": kernel_id, "functions": None, "blocked": BLOCKED}
    with tempfile.TemporaryDirectory(prefix="publish-kernels-") as temporary:
        alone, found = _run(job, Path(temporary, "alone"))
        strangers = [name for name in alone["ops"] if name.partition("::")[0] != kernel_id]
        if strangers or not alone["ops"]:
            raise ValueError(
                f"Ops of the kernels must be in {kernel_id}, but there is {min(strangers, default='none')}."
            )
        _, expected = _run({**job, "functions": str(FUNCTIONS_FILE), "blocked": []}, Path(temporary, "beside"))
        different = [name for name in expected if name not in found or not torch.equal(found[name], expected[name])]
        if different or not expected:
            raise ValueError(f"The kernels do not give what the package gives: {min(different, default='nothing')}.")
        without, _ = _run({**job, "blocked": [*BLOCKED, "triton"]}, Path(temporary, "without"))
    mute = [said for said in without["refusals"] if "triton cannot be imported" not in said]
    if mute:
        raise ValueError(f"Without Triton the kernels must say that it is missing, but one says {mute[0]!r}.")
    loader = "the package kernels" if alone["loader"] else "its file, since the package kernels is not installed"
    return loader, sorted({name.partition(",")[0] for name in found})


def _run(job: dict[str, Any], home: Path) -> tuple[dict[str, Any], dict[str, torch.Tensor]]:
    """What `kernel_check.py` prints about a job, and the tensors that it computes."""
    home.mkdir()
    (home / "job.json").write_text(json.dumps(job))
    variables = {"TRITON_INTERPRET": "1", "TRITON_CACHE_DIR": str(home / "triton")}
    variables["PYTHONPATH"] = str(PACKAGE_FOLDER.parent)
    told = run_script(CHECK_FILE, ["job.json", "result.safetensors"], home, **variables)
    result = home / "result.safetensors"
    return json.loads(told.splitlines()[-1]), load_file(result) if result.exists() else {}
