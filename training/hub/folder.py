# Copyright 2026 The modeling_pixelvit team. All rights reserved.
# SPDX-License-Identifier: Apache-2.0
"""
Builds the folder of a checkpoint as it will lie on the hub.

Weights and settings come from the checkpoint, through the classes of this package; code comes from this package alone,
whatever lies beside the weights.
"""

import dataclasses
import importlib.metadata
import re
import shutil
import tempfile
from pathlib import Path

import torch
from transformers import BaseImageProcessor, PreTrainedConfig, PreTrainedModel

from ..cards.card import render_checkpoint_card, validate_card
from ..cards.metadata import EXAMPLE_FILE
from ..checkpoints.checksums import write_checksums
from ..checkpoints.loading import load_checkpoint
from ..checkpoints.weights import nonfinite_weights
from ..common.files import write_text
from .example import example_image
from .source import Source


LICENSE_FILE = Path(__file__).parents[2] / "LICENSE"
HANDLER_FILE = Path(__file__).with_name("handler.py")
DTYPES = {name: getattr(torch, name) for name in ("float32", "bfloat16", "float16")}
DEFAULT_LICENSE = "apache-2.0"
# Inference Endpoints bring torch along, and may bring an older transformers.
ENDPOINT_PACKAGES = ("transformers", "torchvision", "pillow")


@dataclasses.dataclass(frozen=True)
class FolderOptions:
    """
    What the user decides about a folder.

    Args:
        repo_id: USER/NAME on the hub.
        dtype: Of the weights; those that are always float32 stay so.
        max_shard_size: Largest weights file, as transformers writes sizes.
        license: An identifier of the hub; None: that of the weights' origin, and Apache-2.0 for own ones.
        example_image: An image file; None: drawn from the embedded digits.
    """

    repo_id: str
    dtype: str = "float32"
    max_shard_size: str = "2GB"
    license: str | None = None
    example_image: str | None = None


def build_folder(source: Source, folder: Path, options: FolderOptions) -> tuple[PreTrainedModel, BaseImageProcessor]:
    """
    Writes everything but the proof that it works.

    Args:
        source: The checkpoint.
        folder: An empty folder to write to.

    Returns:
        The model and the image processor that the folder was written from.

    Raises:
        ValueError: in one sentence, if the checkpoint or an option cannot be used.
    """
    model, processor = load_checkpoint(str(source.folder))
    if options.dtype != "float32":
        model = cast(model, DTYPES[options.dtype])
    license_id = license_of(model.config, options.license)
    model.save_pretrained(folder, max_shard_size=options.max_shard_size)
    processor.save_pretrained(folder)
    shutil.copyfile(HANDLER_FILE, folder / "handler.py")
    write_text(folder / "requirements.txt", endpoint_requirements())
    if license_id == DEFAULT_LICENSE:
        shutil.copyfile(LICENSE_FILE, folder / "LICENSE")
    example_image(model.config, options.example_image).save(folder / EXAMPLE_FILE, format="PNG")
    # After saving, which sets what the card reads.
    card = render_checkpoint_card(
        model.config,
        processor,
        repo_id=options.repo_id,
        license=license_id,
        metrics=source.metrics if source.metrics and source.metrics["dataset"] else None,
        training=source.training,
    )
    validate_card(card)
    write_text(folder / "README.md", card)
    write_checksums(folder)
    return model, processor


def cast(model: PreTrainedModel, dtype: torch.dtype) -> PreTrainedModel:
    """
    The model in another dtype, but for the weights that its class keeps in float32.

    Raises:
        ValueError: naming a weight that is too large for it.
    """
    with tempfile.TemporaryDirectory(prefix="publish-cast-") as folder:
        model.save_pretrained(folder)
        smaller = type(model).from_pretrained(folder, dtype=dtype).eval()
    broken = nonfinite_weights(smaller)
    if broken:
        raise ValueError(f"{broken[0]} has values too large for {dtype}; publish the weights in bfloat16 or float32.")
    return smaller


def license_of(config: PreTrainedConfig, given: str | None) -> str | None:
    """
    The licence that the card names; None for weights that were published without one.

    Raises:
        ValueError: if another licence is given than the weights came with.
    """
    origin = getattr(config, "weights_origin", None)
    if origin is None:
        return given or DEFAULT_LICENSE
    inherited = origin.get("license")
    if given is not None and given != inherited:
        came = f"under {inherited}" if inherited else "without a licence"
        raise ValueError(
            f"--license {given} was given, but the weights come from {origin.get('repo_id')}, {came}; leave it out."
        )
    return inherited


def endpoint_requirements() -> str:
    """requirements.txt with the versions that this package asks for."""
    lines = []
    for requirement in importlib.metadata.requires("modeling_pixelvit") or ():
        name = re.match(r"[\w.-]+", requirement)[0].lower()
        if name in ENDPOINT_PACKAGES and ";" not in requirement:
            lines.append(requirement)
    return "\n".join(sorted(lines)) + "\n"
