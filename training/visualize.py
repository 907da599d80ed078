# Copyright 2026 The modeling_pixelvit team. All rights reserved.
# SPDX-License-Identifier: Apache-2.0
"""
Draws what a model finds in an image.

    python -m training.visualize runs/train/best photo.jpg                     # writes photo-prediction.png
    python -m training.visualize runs/train/best photo.jpg --output out.png --threshold 0.7

A classifier's five most likely classes are listed below the image, a segmentation model's classes tint it, and a
detector's boxes, names, scores and masks are drawn into it. Images of few pixels are magnified, so that text fits.
"""

import argparse
import sys
from pathlib import Path

import torch
from PIL import Image
from transformers.utils import logging as transformers_logging

from modeling_pixelvit.image_reading import read_pixels

from .checkpoints.loading import class_name_of, load_checkpoint
from .families.registry import architecture_of, model_classes
from .tasks.drawing import DRAWABLE, visualize


def main(arguments: list[str] | None = None) -> int:
    """Runs the command; returns its exit status, 2 after one sentence on stderr."""
    parser = argparse.ArgumentParser(
        prog="python -m training.visualize", description="Draws what a model finds in an image."
    )
    parser.add_argument("checkpoint", metavar="CHECKPOINT", help="folder saved by save_pretrained, or name on the hub")
    parser.add_argument("image", metavar="IMAGE", type=Path, help="image file")
    parser.add_argument(
        "--output", type=Path, help="PNG file to write; <name of the image>-prediction.png if not given"
    )
    parser.add_argument("--threshold", type=float, default=0.5, help="least score of the objects that are drawn")
    options = parser.parse_args(arguments)
    output = options.output or Path(f"{options.image.stem}-prediction.png")
    transformers_logging.disable_progress_bar()
    transformers_logging.set_verbosity_error()
    try:
        if not 0 <= options.threshold <= 1:
            raise ValueError(f"--threshold {options.threshold:g} was given; it must be from 0 to 1.")
        if output.is_dir() or not output.parent.is_dir():
            raise ValueError(f"--output {output} was given; it must be a file in a folder that exists.")
        if not options.image.is_file():
            raise ValueError(f"There is no file {options.image}; give an image file.")
        name = class_name_of(options.checkpoint)
        drawable = [name for name, known in model_classes().items() if architecture_of(known) in DRAWABLE]
        if name not in drawable:
            raise ValueError(f"{options.checkpoint} holds {name}; what can be drawn is found by {', '.join(drawable)}.")
        model, processor = load_checkpoint(options.checkpoint)
        pixels = read_pixels(options.image, max_pixels=processor.max_pixels, name=str(options.image))
        image = Image.fromarray(pixels.permute(1, 2, 0).numpy())
        model.to("cuda" if torch.cuda.is_available() else "cpu")
        visualize(model, processor, image, options.threshold).save(output, format="PNG")
    except (OSError, ValueError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    print(output)
    return 0


if __name__ == "__main__":
    sys.exit(main())
