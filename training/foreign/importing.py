# Copyright 2026 The modeling_pixelvit team. All rights reserved.
# SPDX-License-Identifier: Apache-2.0
"""Released checkpoints as folders of ours, each with a card: downloaded, converted and verified."""

from dataclasses import dataclass
from pathlib import Path

import torch
from transformers import PreTrainedModel

from modeling_pixelvit import PixelViTImageProcessor

from ..cards.card import PLACEHOLDER_USER, render_checkpoint_card
from ..cards.results import load_results
from ..checkpoints.checksums import file_checksum, verify_checksums, write_checksums
from ..checkpoints.loading import load_checkpoint
from ..checkpoints.reading import CheckpointError, read_settings
from ..checkpoints.weights import nonfinite_weights
from ..common.files import whole_folder
from .conversion import build_model, check_output, load_translation, variant_name
from .released import ReleasedCheckpoint, download, find_file


NUM_CLASSES = 1000
# Logits are compared on an image of as many patches a side; that of all 50,176 would take minutes.
COMPARED_SIDE = 16


@dataclass
class Outcome:
    """What became of a checkpoint: "imported", "there already" or "failed"."""

    entry: ReleasedCheckpoint
    state: str


def import_checkpoint(
    entry: ReleasedCheckpoint,
    output_dir: Path,
    source: Path | None = None,
    ema: bool = False,
    overwrite: bool = False,
) -> Outcome:
    """
    Writes one released checkpoint as a folder for `from_pretrained`, whole or not at all.

    Args:
        entry: Which.
        output_dir: The folder that gets a folder of the checkpoint's name.
        source: A folder with files downloaded before; None: from the hub.
        ema: The averaged weights, where a file has them.
        overwrite: Whether to replace a checkpoint that is there.

    Raises:
        CheckpointError: in one sentence, if it cannot be had, or is not the model that its name says.
    """
    target = (output_dir / entry.name).resolve()
    wanted = "model_ema" if ema else "model"
    if not overwrite and is_imported(entry, target, wanted):
        return Outcome(entry, "there already")
    path = None if source is None else find_file(entry, source)
    check_output(target, overwrite, path or target.parent / "hub")
    checksum = None
    if path is None:
        path, checksum = download(entry, print)
    model = convert_released(entry, path, ema)
    model.config.weights_origin = {
        "name": entry.name,
        "repo_id": entry.repo_id,
        "filename": entry.filename,
        "sha256": checksum or file_checksum(path),
        "license": entry.license,
        "entry": wanted,
    }
    settings = {} if entry.crop_pct is None else {"crop_pct": entry.crop_pct}
    processor = PixelViTImageProcessor.for_config(model.config, **settings)
    with whole_folder(target) as folder:
        model.save_pretrained(folder)
        processor.save_pretrained(folder)
        card = render_checkpoint_card(
            model.config, processor, f"{PLACEHOLDER_USER}/{entry.name}", license=entry.license, released=not ema
        )
        (folder / "README.md").write_text(card, encoding="utf-8")
        write_checksums(folder)
        compare_with_written(model, folder)
    return Outcome(entry, "imported")


def is_imported(entry: ReleasedCheckpoint, folder: Path, wanted: str) -> bool:
    """Whether a folder holds this checkpoint, undamaged, as an earlier import left it."""
    if not (folder / "config.json").is_file():
        return False
    origin = (read_settings(folder, "config.json") or {}).get("weights_origin")
    if not isinstance(origin, dict) or (origin.get("name"), origin.get("entry")) != (entry.name, wanted):
        return False
    verify_checksums(folder)
    return True


def convert_released(entry: ReleasedCheckpoint, path: Path, ema: bool = False) -> PreTrainedModel:
    """
    The model in a released file.

    Raises:
        CheckpointError: if the file cannot be converted, a tensor is missing or left over, or the model is not of the
            family, size, patch, image size and number of parameters of the table.
    """
    translation, _ = load_translation(path, ema)
    weights = translation.tensors.get("classifier.weight")
    if weights is None or weights.shape[:1] != (NUM_CLASSES,):
        found = "no classifier" if weights is None else f"{(*weights.shape, 0)[0]} classes"
        raise CheckpointError(f"{path} has {found}, but {entry.name} has {NUM_CLASSES}; get the file again.")
    model = build_model(translation, path, imagenet_labels())
    config = model.config
    expected = {
        "family": (config.model_type, entry.family),
        "size": (variant_name(config), f"size {entry.variant}" if entry.variant else variant_name(config)),
        "patch size": (config.patch_size, entry.patch_size),
        "image size": (config.image_size, entry.image_size),
        "number of parameters": (sum(parameter.numel() for parameter in model.parameters()), entry.parameters),
    }
    for what, (found, right) in expected.items():
        if found != right:
            raise CheckpointError(
                f"{path} is not {entry.name}: its {what} is {found}, expected is {right}; check which file it is."
            )
    broken = nonfinite_weights(model)
    if broken:
        raise CheckpointError(f"{path} has NaN or infinite values in {broken[0]}; it is damaged. Get it again.")
    return model


def imagenet_labels() -> list[str]:
    """Names of ImageNet-1k's classes in the order of the weights' outputs, such as "tench, Tinca tinca"."""
    from timm.data import ImageNetInfo  # with which timm itself comes, and that takes seconds

    return ImageNetInfo("imagenet-1k").label_descriptions()


@torch.no_grad()
def compare_with_written(model: PreTrainedModel, folder: Path):
    """
    Loads a folder and compares each weight and the logits of an image with those of the model, bit for bit.

    Raises:
        CheckpointError: if they differ. That is a mistake here or of the disk, not of the source.
    """
    written, _ = load_checkpoint(str(folder))
    weights = model.float().state_dict()
    for name, tensor in written.state_dict().items():
        if not torch.equal(tensor, weights[name]):
            raise CheckpointError(f"{name} is not the same after it was written; check the disk and try again.")
    # Weights mapped from a file may lie at addresses for which the processor adds in another order.
    for parameter in written.parameters():
        parameter.data = parameter.data.clone()
    config = model.config
    side = min(config.image_size, COMPARED_SIDE * config.patch_size)
    image = torch.randn(1, config.num_channels, side, side, generator=torch.Generator().manual_seed(0))
    logits, again = (one(image, interpolate_pos_encoding=True).logits for one in (model, written))
    if not torch.equal(logits, again) or not logits.isfinite().all():
        raise CheckpointError("Logits are not the same after the model was written; check the disk and try again.")


def paper_accuracy(name: str) -> str:
    """Top-1 accuracy of a checkpoint as its authors report it, in percent, or "-"."""
    for result in load_results()["checkpoints"].get(name, {}).get("results", ()):
        if (
            result["metric"] == "accuracy"
            and result["source"]["kind"] == "paper"
            and "sequence_extended_to" not in result
        ):
            return f"{result['value']} (paper)"
    return "-"
