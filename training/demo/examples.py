# Copyright 2026 The modeling_pixelvit team. All rights reserved.
# SPDX-License-Identifier: Apache-2.0
"""Example images for the demo, written without a download: digits and scenes of digits, or photographs for others."""

import tempfile
from pathlib import Path

from PIL import Image
from sklearn.datasets import load_sample_images

from ..data.digit_scenes import CLASS_NAMES, LEAST_CANVAS, write_digit_scenes
from ..data.digits import DIGIT_SIZE, load_digits_images
from .checkpoints import Checkpoint


NUM_EXAMPLES = 10
DIGIT_NAMES = set(CLASS_NAMES)


def write_examples(checkpoint: Checkpoint, folder: Path) -> list[Path]:
    """
    PNG images of the kind that a checkpoint was trained on, as its label names tell: test digits, test scenes of
    digits, or else the two photographs that come with scikit-learn.

    Args:
        checkpoint: What the images are for.
        folder: Where they go; what is there already stays.
    """
    size = checkpoint.image_size if isinstance(checkpoint.image_size, int) else min(checkpoint.image_size)
    of_digits = set(checkpoint.label_names) <= DIGIT_NAMES
    if of_digits and checkpoint.task == "classification" and size >= DIGIT_SIZE:
        return _written(folder, f"digit-{size}", lambda: _digits(size))
    if of_digits and checkpoint.task != "classification" and size >= LEAST_CANVAS:
        return _written(folder, f"scene-{size}", lambda: _scenes(size))
    return _written(folder, "photograph", lambda: [Image.fromarray(photo) for photo in load_sample_images().images])


def _written(folder: Path, kind: str, draw) -> list[Path]:
    """The examples of a kind, drawn if they are not all there yet."""
    paths = sorted(folder.glob(f"{kind}-*.png"))
    if not paths:
        folder.mkdir(parents=True, exist_ok=True)
        for index, image in enumerate(draw()):
            path = folder / f"{kind}-{index}.png"
            image.save(path)
            paths.append(path)
    return paths


def _digits(size: int) -> list[Image.Image]:
    """The first test image of each class."""
    images, chosen = load_digits_images(size).evaluation, {}
    for index in range(len(images)):
        image, label = images[index]
        chosen.setdefault(label, image)
        if len(chosen) == NUM_EXAMPLES:
            break
    return [chosen[label] for label in sorted(chosen)]


def _scenes(size: int) -> list[Image.Image]:
    """The first test scenes."""
    with tempfile.TemporaryDirectory() as folder:
        write_digit_scenes(Path(folder, "scenes"), num_train=1, num_test=NUM_EXAMPLES, canvas_size=size)
        paths = sorted(Path(folder, "scenes", "images", "test").glob("*.png"))
        return [Image.open(path).convert("RGB") for path in paths]
