# Copyright 2026 The modeling_pixelvit team. All rights reserved.
# SPDX-License-Identifier: Apache-2.0
"""
Loading a checkpoint of any task with the image processor saved beside it, by this package's own classes.

A checkpoint may come from anybody. Code that it brings along is never run and pickles are not read; sizes are compared
with the files before memory is taken, and no file outside the folder is opened.
"""

import re
from dataclasses import dataclass
from pathlib import Path

from huggingface_hub import snapshot_download
from huggingface_hub.errors import HFValidationError, HTTPError
from transformers import BaseImageProcessor, PreTrainedConfig, PreTrainedModel

from ..families.base import CLASSIFIER, DETECTOR, SEGMENTER
from ..families.registry import architecture_of, model_classes
from .checksums import CHECKSUMS_FILE, verify_checksums
from .reading import CheckpointError, own_file, shown
from .settings import CONFIG_FILE, PROCESSOR_FILE, build_config, read_config_settings, read_processor
from .weights import INDEX_FILE, WEIGHTS_FILE, load_model, weight_names


SETTINGS_FILES = (CONFIG_FILE, PROCESSOR_FILE, CHECKSUMS_FILE, INDEX_FILE)


def class_name_of(checkpoint: str) -> str:
    """
    The name of the class whose weights a checkpoint holds.

    Raises:
        ValueError: in one sentence, if there is no such checkpoint.
    """
    folder, _ = _find_settings(checkpoint)
    return _architecture(read_config_settings(folder))


def load_checkpoint(checkpoint: str) -> tuple[PreTrainedModel, BaseImageProcessor]:
    """
    The model, in evaluation mode and float32, and the image processor saved beside it.

    Args:
        checkpoint: A folder, or the name of a repository on the hub.

    Raises:
        ValueError: in one sentence, if there is no such checkpoint, it lacks a part, is damaged (by its
            `checksums.json`, if it has one), or asks for what a checkpoint of ours does not need.
    """
    opened = _open(checkpoint)
    architecture, name = architecture_of(opened.model_class), opened.model_class.__name__
    processor = read_processor(opened.folder, opened.config, is_classifier=architecture == CLASSIFIER)
    if processor.do_center_crop and architecture in (SEGMENTER, DETECTOR):
        raise CheckpointError(
            f"The image processor of {checkpoint} crops images (do_center_crop), so what {name} finds has no place in "
            'the whole image; save one as for_config(config, task="segmentation" or "detection") makes it.'
        )
    return _load(opened), processor


def load_weights(checkpoint: str, revision: str | None = None) -> PreTrainedModel:
    """
    The model alone, with or without an image processor beside it; otherwise as `load_checkpoint`.

    Args:
        checkpoint: A folder, or the name of a repository on the hub.
        revision: A branch, tag or commit of that repository.
    """
    return _load(_open(checkpoint, revision))


@dataclass(frozen=True)
class _Opened:
    """A checkpoint whose settings have been read: `revision` is that of a copy from the hub, without weights yet."""

    name: str
    folder: Path
    revision: str | None
    model_class: type[PreTrainedModel]
    config: PreTrainedConfig


def _open(checkpoint: str, revision: str | None = None) -> _Opened:
    folder, revision = _find_settings(checkpoint, revision)
    settings = read_config_settings(folder)
    name, known = _architecture(settings), model_classes()
    if name not in known:
        raise CheckpointError(f"{checkpoint} holds {name}; expected is one of {', '.join(known)}.")
    return _Opened(
        checkpoint, folder, revision, known[name], build_config(settings, known[name], known.values(), folder)
    )


def _load(opened: _Opened) -> PreTrainedModel:
    if opened.revision is not None:
        _download_weights(opened.name, opened.folder, opened.revision)
    verify_checksums(opened.folder, complete=opened.revision is None)
    model = load_model(opened.model_class, opened.config, opened.folder)
    model.name_or_path = model.config.name_or_path = str(opened.name)
    return model


def _architecture(settings: dict) -> str:
    return (settings.get("architectures") or ["a model without architectures"])[0]


def _find_settings(checkpoint: str, revision: str | None = None) -> tuple[Path, str | None]:
    """The folder with a checkpoint's settings; of one on the hub a copy of them, and its commit."""
    folder = Path(checkpoint)
    if folder.is_dir():
        revision = None
    else:
        folder = _download(checkpoint, SETTINGS_FILES, revision)
        revision = folder.name
    for name in SETTINGS_FILES:
        if (folder / name).is_symlink():
            own_file(folder, name)
    return folder, revision


def _download_weights(checkpoint: str, folder: Path, revision: str):
    names = weight_names(folder) if (folder / INDEX_FILE).exists() else [WEIGHTS_FILE]
    for name in names:
        # To the hub's client they are patterns, of which one might match all that a repository has.
        if not re.fullmatch(r"[\w.-]+", name):
            raise CheckpointError(
                f"The {INDEX_FILE} of {checkpoint} names a file {shown(name)}; expected are names of letters, digits, "
                "'.', '_' and '-' only. Get the checkpoint from whoever made it."
            )
    _download(checkpoint, names, revision)


def _download(checkpoint: str, names: list[str] | tuple[str, ...], revision: str | None) -> Path:
    try:
        return Path(snapshot_download(checkpoint, revision=revision, allow_patterns=list(names)))
    except (OSError, HTTPError, HFValidationError) as error:
        raise CheckpointError(
            f"{checkpoint} is neither a checkpoint folder nor a checkpoint that could be loaded from the hub "
            f"({first_line(error)}); check the name."
        ) from None


def first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]
