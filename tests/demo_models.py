# Copyright 2026 The modeling_pixelvit team. All rights reserved.
# SPDX-License-Identifier: Apache-2.0
"""Tiny checkpoints of all tasks for the tests of the demo and of pictures."""

from pathlib import Path

import numpy as np
from helpers import SMALL_HEADS, tiny_model
from PIL import Image

from modeling_pixelvit import (
    AdventurerForImageClassification,
    AdventurerForObjectDetection,
    AdventurerForSemanticSegmentation,
    PixelViTForImageClassification,
    PixelViTForObjectDetection,
    PixelViTForSemanticSegmentation,
    PixelViTImageProcessor,
)


# One that a page must not take for HTML.
NAMES = ["ant", "bee", "<img src=x>", "dog", "eel"]
IMAGE_SIZE = 32
CLASSES = {
    ("classification", "adventurer"): AdventurerForImageClassification,
    ("classification", "pixelvit"): PixelViTForImageClassification,
    ("segmentation", "adventurer"): AdventurerForSemanticSegmentation,
    ("segmentation", "pixelvit"): PixelViTForSemanticSegmentation,
    ("detection", "adventurer"): AdventurerForObjectDetection,
    ("detection", "pixelvit"): PixelViTForObjectDetection,
}
DETECTION_FIELDS = {**SMALL_HEADS, "box_score_threshold": 0.0, "max_detections": 4}


def save_tiny(folder: Path, task: str, family: str = "pixelvit", patch_size: int = 8, **fields) -> Path:
    """Saves a checkpoint with random weights for images of 32 pixels, and its image processor; returns the folder."""
    fields = {**(DETECTION_FIELDS if task == "detection" else {}), **fields}
    model = tiny_model(CLASSES[task, family], image_size=IMAGE_SIZE, patch_size=patch_size, **fields)
    model.config.id2label = dict(enumerate(NAMES))
    model.save_pretrained(folder)
    PixelViTImageProcessor.for_config(model.config, task=task).save_pretrained(folder)
    return folder


def photograph(height: int = 40, width: int = 57, seed: int = 0) -> Image.Image:
    """Noise in RGB."""
    return Image.fromarray(np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8))
