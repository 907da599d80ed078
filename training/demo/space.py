# Copyright 2026 The modeling_pixelvit team. All rights reserved.
# SPDX-License-Identifier: Apache-2.0
"""Writing a folder that can be pushed as a Space: the demo's code, its checkpoints and its examples."""

import ast
import shutil
from pathlib import Path

from huggingface_hub import SpaceCardData

from ..common.files import is_free, whole_folder, write_json, write_text
from .gradio_parts import gr
from .pages import INTRODUCTION, TITLE
from .settings import Demo
from .space_app import CONTENT_FILE, LIMITS


SPACE_FILES = Path(__file__).with_name("space_files")
TRAINING = Path(__file__).parents[1]
PACKAGE = TRAINING.parent / "modeling_pixelvit"
ENTRY = "training.demo.space_app"
# What git keeps apart, if the folder is pushed by git.
ATTRIBUTES = "".join(f"*.{ending} filter=lfs diff=lfs merge=lfs -text\n" for ending in ("safetensors", "png"))


def export_space(demo: Demo, folder: Path):
    """
    Writes a Space of the demo. Checkpoints in folders are copied, those given by hub names are loaded from there.

    Args:
        demo: What the Space shows.
        folder: New, or empty.

    Raises:
        ValueError: if the folder is not empty, or a checkpoint in a folder is from a release without a licence.
    """
    if not is_free(folder):
        raise ValueError(f"--export_space {folder} was given, where there is something already; give a new folder.")
    check_licences(demo)
    with whole_folder(folder) as written:
        _write(demo, written)


def check_licences(demo: Demo):
    """
    Raises:
        ValueError: for weights in a folder whose release has no licence, which nobody else may publish.
    """
    for checkpoint in demo.checkpoints:
        origin = getattr(demo.store.load(checkpoint.name)[0].config, "weights_origin", None)
        if origin is not None and origin.get("license") is None and Path(checkpoint.name).is_dir():
            raise ValueError(
                f"{checkpoint.name} holds weights that were released without a licence ({origin.get('repo_id')}), so a "
                "Space must not carry them; leave it out, or give a repository on the hub that you may use."
            )


def _write(demo: Demo, folder: Path):
    content = {
        "checkpoints": [_copy_checkpoint(demo, one.name, folder) for one in demo.checkpoints],
        "examples": {task: [_copy_example(path, folder) for path in paths] for task, paths in demo.examples.items()},
        **{name: getattr(demo, name) for name in LIMITS},
    }
    write_json(folder / CONTENT_FILE, content)
    for path in modules_of(ENTRY):
        target = folder / path.relative_to(TRAINING.parent)
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(path, target)
    shutil.copytree(PACKAGE, folder / PACKAGE.name, ignore=shutil.ignore_patterns("__pycache__"))
    for path in SPACE_FILES.glob("*.*"):
        shutil.copy(path, folder)
    write_text(folder / ".gitattributes", ATTRIBUTES)
    write_text(folder / "README.md", space_card())


def space_card() -> str:
    """The Space's README.md: the metadata that the hub reads, and what the Space is."""
    metadata = SpaceCardData(
        title=TITLE,
        emoji="🔍",
        colorFrom="blue",
        colorTo="gray",
        sdk="gradio",
        sdk_version=gr.__version__,
        app_file="app.py",
        license="apache-2.0",
        short_description="PixelViT and Adventurer at any patch size",
    )
    return (
        f"---\n{metadata.to_yaml()}\n---\n\n# {TITLE}\n\n{INTRODUCTION} Labels, masks and boxes for an "
        "image of yours, and its tokens, time and memory at several patch sizes.\n\nTo run it elsewhere: `pip install "
        f"gradio=={gr.__version__} -r requirements.txt`, then `python app.py`.\n"
    )


def modules_of(name: str) -> list[Path]:
    """The files of a module of `training`, of all of its modules that importing it imports, and of their packages."""
    found: set[Path] = set()
    waiting = [name]
    while waiting:
        module = waiting.pop()
        path = TRAINING.parent.joinpath(*module.split("."))
        path = path / "__init__.py" if path.is_dir() else path.with_suffix(".py")
        if path in found:
            continue
        found.add(path)
        package = module if path.name == "__init__.py" else module.rpartition(".")[0]
        waiting += [package, package.rpartition(".")[0] or package]
        for node in ast.parse(path.read_text(encoding="utf-8")).body:
            if isinstance(node, ast.ImportFrom) and node.level:
                origin = package.rsplit(".", node.level - 1)[0]
                waiting.append(f"{origin}.{node.module}" if node.module else origin)
    return sorted(found)


def _copy_checkpoint(demo: Demo, name: str, folder: Path) -> str:
    """Saves a checkpoint anew, so that nothing but weights and settings is copied; returns its name in the Space."""
    if not Path(name).is_dir():
        return name
    taken = Path(name).resolve().name
    index = 2
    while (folder / "checkpoints" / taken).exists():
        taken, index = f"{Path(name).resolve().name}-{index}", index + 1
    model, processor = demo.store.load(name)
    target = folder / "checkpoints" / taken
    model.save_pretrained(target)
    processor.save_pretrained(target)
    return str(target.relative_to(folder))


def _copy_example(path: Path, folder: Path) -> str:
    target = folder / "examples" / path.name
    target.parent.mkdir(exist_ok=True)
    shutil.copy(path, target)
    return str(target.relative_to(folder))
