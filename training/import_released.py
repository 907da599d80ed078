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
from pathlib import Path

from safetensors import SafetensorError
from transformers.utils import logging as transformers_logging

from .checkpoints.reading import CheckpointError
from .foreign.importing import Outcome, import_checkpoint, paper_accuracy
from .foreign.released import ReleasedCheckpoint, released_checkpoints, select


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
