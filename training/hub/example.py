# Copyright 2026 The modeling_pixelvit team. All rights reserved.
# SPDX-License-Identifier: Apache-2.0
"""The example image of a published checkpoint: of the embedded digits, as it was trained on or a scene of them."""

from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from transformers import PreTrainedConfig

from modeling_pixelvit.configuration_base import as_pair
from modeling_pixelvit.image_reading import read_pixels

from ..data.digit_scenes import LEAST_CANVAS, draw_scene
from ..data.digits import DIGIT_SIZE, SPLIT_SEED, load_digits, num_positions, place, split_indices


EXAMPLE_SEED = 2026
MAX_SIDE = 1024
MAX_CANVAS = 256  # on which digits are drawn one by one; larger scenes are magnified
MAX_PIXELS = 100_000_000
DIGIT_NAMES = {str(digit) for digit in range(10)}


def example_image(config: PreTrainedConfig, file: str | None = None) -> Image.Image:
    """
    An image for the hub's widget, in RGB, without whatever else an image file tells.

    Args:
        config: Of the model: a classifier of digits gets a digit, any other model a scene of digits, of its image size.
        file: An image file to take instead; its longer side becomes at most 1,024 pixels.

    Raises:
        ValueError: if the file cannot be read as an image.
    """
    if file is not None:
        return _read(file)
    side = min(MAX_SIDE, *as_pair(config.image_size))
    digits, labels = load_digits()
    _, test = split_indices(len(digits), torch.Generator().manual_seed(SPLIT_SEED))
    if _classifies_digits(config) and side >= DIGIT_SIZE:
        middle = num_positions(side) // 2
        return place(digits[test[0]], middle, middle, side)
    generator = np.random.default_rng(EXAMPLE_SEED)
    canvas = min(max(LEAST_CANVAS, side), MAX_CANVAS)
    scene = Image.fromarray(draw_scene(digits[test].numpy(), labels[test].numpy(), canvas, generator).pixels)
    return scene.resize((side, side), Image.Resampling.BICUBIC) if side > canvas else scene


def _classifies_digits(config: Any) -> bool:
    name = (config.architectures or [""])[0]
    return name.endswith("ForImageClassification") and set(config.id2label.values()) == DIGIT_NAMES


def _read(file: str) -> Image.Image:
    if not Path(file).is_file():
        raise ValueError(f"There is no file {file}; give an image file by --example_image.")
    pixels = read_pixels(file, max_pixels=MAX_PIXELS, name=file)
    image = Image.fromarray(pixels.permute(1, 2, 0).numpy())
    image.thumbnail((MAX_SIDE, MAX_SIDE))
    return image
