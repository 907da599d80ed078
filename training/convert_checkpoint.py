# Copyright 2026 The modeling_pixelvit team. All rights reserved.
# SPDX-License-Identifier: Apache-2.0
"""
Brings other people's checkpoints in, as folders that `from_pretrained` loads.

    python -m training.convert_checkpoint adventurer_base.pth OUT            a released Adventurer: its last weights
    python -m training.convert_checkpoint adventurer_base.pth OUT --ema      its averaged weights
    python -m training.convert_checkpoint deit_base.pth OUT                  timm's vit_* and deit_*, DeiT's own files
    python -m training.convert_checkpoint facebook-deit-base/ OUT            transformers' ViT: a folder, or its weights

Family, size, patch and image size follow from the tensors' shapes; what does not is printed as assumed. Every tensor is
converted, named as dropped, or the checkpoint is refused. Nothing in a file is executed (see `checkpoints/reading.py`).
"""

import argparse
import json
import sys
from pathlib import Path

from safetensors import SafetensorError
from transformers.utils import logging as transformers_logging

from .checkpoints.reading import CheckpointError
from .foreign.conversion import convert


def read_labels(path: str | Path) -> list[str]:
    """Class names from a file: a JSON list, or one name a line."""
    try:
        text = Path(path).read_text(encoding="utf-8")
        labels = json.loads(text) if text.lstrip().startswith("[") else text.rstrip().splitlines()
    except (OSError, ValueError) as error:
        raise CheckpointError(
            f"The labels in {path} cannot be read ({error}); give a text file or JSON list."
        ) from None
    labels = [label.strip() if isinstance(label, str) else "" for label in labels]
    if not labels or not all(labels):
        raise CheckpointError(f"{path} has an empty or missing name; give one name a line, or a JSON list of names.")
    return labels


def parse_arguments(arguments: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m training.convert_checkpoint",
        description="Convert a released Adventurer, timm ViT/DeiT or transformers ViT checkpoint for this package.",
    )
    parser.add_argument("source", metavar="FILE", help="checkpoint file, or folder saved by save_pretrained")
    parser.add_argument("output_dir", metavar="OUT", help="folder to write")
    parser.add_argument("--ema", action="store_true", help="take the averaged weights, model_ema")
    parser.add_argument(
        "--image_size", type=int, nargs=2, metavar=("HEIGHT", "WIDTH"), help="training size in pixels, if not square"
    )
    parser.add_argument("--num_attention_heads", type=int, metavar="N", help="where the checkpoint does not tell")
    parser.add_argument("--labels", metavar="FILE", help="class names: one a line, or a JSON list")
    parser.add_argument("--image_mean", type=float, nargs="+", metavar="M", help="mean of each channel in training")
    parser.add_argument("--image_std", type=float, nargs="+", metavar="S", help="deviation of each channel in training")
    parser.add_argument("--overwrite", action="store_true", help="replace OUT if it is a checkpoint")
    return parser.parse_args(arguments)


def main(arguments: list[str] | None = None) -> int:
    """Runs the command; returns its exit status, 1 after one sentence on stderr."""
    options = vars(parse_arguments(arguments))
    transformers_logging.disable_progress_bar()
    try:
        if options["labels"] is not None:
            options["labels"] = read_labels(options["labels"])
        convert(**options, report=print)
    except CheckpointError as error:
        print(error, file=sys.stderr)
        return 1
    except (OSError, SafetensorError) as error:
        out = options["output_dir"]
        print(f"{out} was not written: {error}. Check its path, permissions and free space.", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
