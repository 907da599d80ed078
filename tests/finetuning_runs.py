# Copyright 2026 The modeling_pixelvit team. All rights reserved.
# SPDX-License-Identifier: Apache-2.0
"""Short runs of fine-tuning in this process, and the classifiers that they start from."""

import torch
from helpers import tiny_config

from modeling_pixelvit import AdventurerForImageClassification, PixelViTForImageClassification, PixelViTImageProcessor
from training import finetune


MODEL_CLASSES = {"adventurer": AdventurerForImageClassification, "pixelvit": PixelViTForImageClassification}


def save_classifiers(folder, **fields):
    """A classifier of each family for images of 16 pixels, with the digits' classes."""
    for family, model_class in MODEL_CLASSES.items():
        torch.manual_seed(0)
        model_class(tiny_config(family, image_size=16, num_labels=10, **fields)).save_pretrained(folder / family)
        processor = PixelViTImageProcessor(size=16, crop_pct=0.9, image_mean=[0.1] * 3, image_std=[0.3] * 3)
        processor.save_pretrained(folder / family)
    return folder


def run_finetune(checkpoint, dataset, output_dir, *options):
    """The exit status of the command."""
    words = ["--model_name_or_path", checkpoint, "--dataset", dataset, "--output_dir", output_dir, *options]
    return finetune.main([str(word) for word in words])


def refusal_of(status, capsys):
    """The one line on stderr of a run that was refused."""
    assert status == 2
    lines = [line for line in capsys.readouterr().err.splitlines() if line.startswith("error: ")]
    assert len(lines) == 1
    return lines[0]


def same_tensors(one, other):
    return all(torch.equal(one[name], other[name]) for name in one | other)
