# Copyright 2026 The modeling_pixelvit team. All rights reserved.
# SPDX-License-Identifier: Apache-2.0
"""
Brings released checkpoints in, by name: downloads, converts, verifies, and writes each as a folder with a card.

    python -m training.import_released --list
    python -m training.import_released adventurer-base-patch1-224
    python -m training.import_released released                # the 17 Adventurers of the paper's authors
    python -m training.import_released all --from DOWNLOADS    # files that are there already

Nothing in a file is executed. The paper's authors' repositories state no licence: the folders say so, in the card and
as `weights_origin` in config.json, and `training.publish` does not push them unless told to.
"""

import argparse
import sys
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import SafetensorError
from transformers import PreTrainedModel
from transformers.utils import logging as transformers_logging

from modeling_pixelvit import PixelViTImageProcessor

from .checkpoint_loading import load_checkpoint
from .checkpoint_reading import CheckpointError, read_settings
from .checkpoint_weights import nonfinite_weights
from .checksums import file_checksum, verify_checksums, write_checksums
from .convert_checkpoint import build_model, check_output, load_translation, variant_name, written_completely
from .model_card import PLACEHOLDER_USER, render_checkpoint_card
from .model_card_results import load_results
from .released import ReleasedCheckpoint, download, find_file, released_checkpoints, select


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
    with written_completely(target) as folder:
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


def table(rows: list[tuple[str, ...]]) -> str:
    """Columns of text, the first row a heading."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows
    )


# The command line


def parse_arguments(arguments: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m training.import_released", description="Import released checkpoints by name."
    )
    parser.add_argument("names", metavar="NAME", nargs="*", help="names that --list shows, or all, released, deit")
    parser.add_argument("--output_dir", type=Path, default=Path("checkpoints"), help="gets a folder for each name")
    parser.add_argument("--from", dest="source", type=Path, metavar="DIR", help="take files that are there, unverified")
    parser.add_argument("--ema", action="store_true", help="take the averaged weights, model_ema")
    parser.add_argument("--overwrite", action="store_true", help="replace checkpoints that are there")
    parser.add_argument("--list", action="store_true", help="list what can be imported, and from where")
    return parser.parse_args(arguments)


def main(arguments: list[str] | None = None) -> int:
    """Runs the command; returns its exit status: 0, 1 if a checkpoint failed, 2 for wrong arguments."""
    options = parse_arguments(arguments)
    transformers_logging.disable_progress_bar()
    if options.list:
        print(list_of_released())
        return 0
    try:
        entries = select(options.names)
        if not entries:
            raise CheckpointError("No name was given; give all, released, deit, or names that --list shows.")
        if options.source is not None and not options.source.is_dir():
            raise CheckpointError(f"--from {options.source} is no folder; give the folder of the files.")
    except CheckpointError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    outcomes = [attempt(entry, options) for entry in entries]
    rows = [("name", "state", "parameters", "top-1")]
    for outcome in outcomes:
        entry = outcome.entry
        rows.append((entry.name, outcome.state, f"{entry.parameters:,}", paper_accuracy(entry.name)))
    print(table(rows))
    return 1 if any(outcome.state == "failed" for outcome in outcomes) else 0


def attempt(entry: ReleasedCheckpoint, options: argparse.Namespace) -> Outcome:
    """Imports one checkpoint; of one that fails the reason is told, and the next goes on."""
    try:
        outcome = import_checkpoint(entry, options.output_dir, options.source, options.ema, options.overwrite)
    except (CheckpointError, OSError, SafetensorError) as error:
        print(f"error: {entry.name}: {error}", file=sys.stderr)
        return Outcome(entry, "failed")
    print(f"{entry.name}: {outcome.state}, {options.output_dir / entry.name}")
    return outcome


def list_of_released() -> str:
    """A line for each checkpoint that is known: where from, its parameters, licence and reported accuracy."""
    rows = [("name", "repository", "file", "parameters", "licence", "top-1")]
    for name, entry in released_checkpoints().items():
        license = entry.license or "none stated"
        rows.append((name, entry.repo_id, entry.filename, f"{entry.parameters:,}", license, paper_accuracy(name)))
    return table(rows)


if __name__ == "__main__":
    sys.exit(main())
