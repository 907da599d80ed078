# Copyright 2026 The modeling_pixelvit team. All rights reserved.
# SPDX-License-Identifier: Apache-2.0
"""
Makes a plain folder for `from_pretrained` of a run's checkpoint.

    python -m training.consolidate runs/train runs/train-weights            # the last complete checkpoint
    python -m training.consolidate runs/train runs/train-average --average  # its averaged weights
    python -m training.consolidate runs/train/checkpoints/step-00010000 weights

The optimizer's state stays behind, which is two thirds of a checkpoint or more. However many processes wrote it and
however they shared the model, the result is the same.
"""

import argparse
import shutil
import sys
from pathlib import Path

from .common.files import whole_folder
from .engine.checkpoints import COMPLETE_FILE, find_checkpoint
from .engine.state import AVERAGE_FOLDER, PROGRESS_FILE


def consolidate(source: Path, target: Path, average: bool = False) -> Path:
    """
    Copies model, processor and recipe of a checkpoint.

    Args:
        source: A checkpoint, or a run, of which the last complete one is taken.
        target: A folder that is made.
        average: The averaged weights instead of those of the last step.

    Returns:
        The checkpoint that was taken.

    Raises:
        ValueError: if there is no complete checkpoint, it has no average, or the target is there already.
    """
    checkpoint = find_checkpoint(source)
    if target.exists():
        raise ValueError(f"{target} is there already; name a new folder.")
    model = checkpoint / AVERAGE_FOLDER if average else checkpoint
    if not model.is_dir():
        raise ValueError(f"{checkpoint} has no averaged weights, since its recipe has no ema_decay.")
    left_out = shutil.ignore_patterns(AVERAGE_FOLDER, "optimizer-*.safetensors", PROGRESS_FILE, COMPLETE_FILE)
    with whole_folder(target) as folder:
        shutil.copytree(model, folder, ignore=left_out, dirs_exist_ok=True)
    return checkpoint


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m training.consolidate", description="Makes a plain folder for from_pretrained of a checkpoint."
    )
    parser.add_argument("source", type=Path, help="folder of a run or of one of its checkpoints")
    parser.add_argument("target", type=Path, help="folder to make")
    parser.add_argument("--average", action="store_true", help="take the averaged weights")
    options = parser.parse_args(arguments)
    try:
        checkpoint = consolidate(options.source, options.target, options.average)
    except ValueError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    print(f"{options.target}: {'average of ' if options.average else ''}{checkpoint}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
