# Copyright 2026 The modeling_pixelvit team. All rights reserved.
# SPDX-License-Identifier: Apache-2.0
"""One small model for every task and family, as the tests of other libraries' tools want them."""

from pathlib import Path

import numpy as np
import pytest
import torch
from helpers import SMALL_HEADS, tiny_model

from modeling_pixelvit import (
    AdventurerForImageClassification,
    AdventurerForObjectDetection,
    AdventurerForSemanticSegmentation,
    AdventurerModel,
    PixelViTForImageClassification,
    PixelViTForObjectDetection,
    PixelViTForSemanticSegmentation,
    PixelViTImageProcessor,
    PixelViTImageProcessorPil,
    PixelViTModel,
)


FAMILIES = ("adventurer", "pixelvit")
CLASSES = {
    "features": {"adventurer": AdventurerModel, "pixelvit": PixelViTModel},
    "classification": {"adventurer": AdventurerForImageClassification, "pixelvit": PixelViTForImageClassification},
    "segmentation": {"adventurer": AdventurerForSemanticSegmentation, "pixelvit": PixelViTForSemanticSegmentation},
    "detection": {"adventurer": AdventurerForObjectDetection, "pixelvit": PixelViTForObjectDetection},
}
# Three levels and one stage: what a tracer has to go through grows with them.
DETECTOR = {
    "image_size": 32,
    "patch_size": 8,
    "num_hidden_layers": 2,
    "num_labels": 3,
    **SMALL_HEADS,
    "rpn_num_convs": 1,
    "detection_strides": (4, 8, 16),
    "anchor_sizes": (8, 16, 32),
    "max_detections": 20,
}
FIELDS = {
    "features": {"num_hidden_layers": 2},
    "classification": {"num_hidden_layers": 2},
    "segmentation": {"num_hidden_layers": 2},
    "upernet": {"num_hidden_layers": 2, "decoder_type": "upernet", "decoder_hidden_size": 8, "pool_scales": (1, 2)},
    "detection": {**DETECTOR, "use_cascade": False},
}


# What a model of either family has beyond the paper's.
OPTIONS = {
    "adventurer": {"scan_order": "rows_and_columns", "patch_kernel_size": 4},
    "pixelvit": {"position_embedding_type": "absolute_rotary", "use_qk_norm": True, "patch_kernel_size": 4},
}


def slow_but(*quick: tuple[str, str]) -> list:
    """All pairs of task and family, those that are not `quick` marked as slow."""
    pairs = [(task, family) for task in FIELDS for family in FAMILIES]
    return [pair if pair in quick else pytest.param(*pair, marks=pytest.mark.slow) for pair in pairs]


def interop_model(task: str, family: str, **fields):
    """A model for a key of `FIELDS`, in evaluation mode, of 8 by 8 pixels or, detectors, of 32 by 32."""
    model_class = CLASSES["segmentation" if task == "upernet" else task][family]
    return tiny_model(model_class, **{**FIELDS[task], **fields})


def save_checkpoint(folder: Path, task: str, family: str):
    """A small model of a task and its image processor."""
    model = interop_model(task, family)
    model.save_pretrained(folder)
    # Images of a batch have one size, so a segmenter's, which keep their shapes, are padded.
    settings = {"do_pad": True, "pad_size": 16} if task in ("segmentation", "upernet") else {}
    kind = {"features": "classification", "upernet": "segmentation"}.get(task, task)
    PixelViTImageProcessor.for_config(model.config, task=kind, **settings).save_pretrained(folder)


def save_checkpoints(parent: Path) -> dict[tuple[str, str], Path]:
    """A checkpoint with an image processor for each task and family, in folders of `parent`."""
    folders = {}
    for task, classes in CLASSES.items():
        for family in classes:
            folder = folders[task, family] = Path(parent) / f"{task}-{family}"
            save_checkpoint(folder, task, family)
    return folders


def save_processor(folder: Path):
    """An image processor, and what each backend makes of a picture, for `interop_remote.check_processors`."""
    image = np.random.default_rng(0).integers(0, 256, (30, 50, 3), dtype=np.uint8)
    PixelViTImageProcessor(size=16).save_pretrained(folder)
    np.save(folder / "image.npy", image)
    for processor in (PixelViTImageProcessor(size=16), PixelViTImageProcessorPil(size=16)):
        np.save(folder / f"{processor.backend}.npy", processor(image, return_tensors="np").pixel_values)


def detector(model_class, **fields):
    return tiny_model(model_class, **{**DETECTOR, **fields})


def pixels_for(model, batch_size: int = 2, seed: int = 0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    size = model.config.image_size
    return torch.randn(batch_size, 3, size, size, generator=generator)


def tensors_of(outputs) -> dict[str, torch.Tensor]:
    """The output's tensors by name."""
    return {name: value.detach() for name, value in outputs.items() if isinstance(value, torch.Tensor)}


def assert_same_outputs(actual, expected, rtol: float = 1e-4, atol: float = 1e-5):
    """All tensors of two outputs agree, of which there must be some."""
    actual, expected = tensors_of(actual), tensors_of(expected)
    assert actual.keys() == expected.keys() and expected
    for name, tensor in expected.items():
        torch.testing.assert_close(
            actual[name], tensor, rtol=rtol, atol=atol, msg=lambda text, name=name: f"{name}: {text}"
        )
