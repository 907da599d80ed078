# Copyright 2026 The modeling_pixelvit team. All rights reserved.
# SPDX-License-Identifier: Apache-2.0
"""The embedded digits as labelled images, for what trains on any data set: no download, no files."""

import torch
from PIL import Image
from torch.utils.data import Dataset

from .digits import DigitCanvases, place
from .labelled_images import LabelledSplits


class PlacedDigits(Dataset):
    """
    The training digits, each time that one is read at a new position, drawn from PyTorch's global generator.

    `digits[index]` is a PIL image in RGB and a class index.
    """

    def __init__(self, canvases: DigitCanvases):
        self.canvases = canvases

    def __len__(self) -> int:
        return self.canvases.num_train

    def __getitem__(self, index: int) -> tuple[Image.Image, int]:
        canvases = self.canvases
        corner = torch.randint(canvases.num_positions, (1, 2))
        pixels = place(canvases.train_digits[index][None], corner, canvases.image_size)[0]
        return _to_image(pixels), canvases.train_labels[index].item()


class FixedDigits(Dataset):
    """The test digits at the positions that belong to the data set, as PIL images in RGB with their class indices."""

    def __init__(self, canvases: DigitCanvases):
        self.canvases = canvases

    def __len__(self) -> int:
        return len(self.canvases.test_labels)

    def __getitem__(self, index: int) -> tuple[Image.Image, int]:
        return _to_image(self.canvases.test_pixels[index]), self.canvases.test_labels[index].item()


def load_digits_images(canvas_size: int = 16) -> LabelledSplits:
    """
    The embedded digits in the form of `load_labelled_images`.

    Raises:
        ValueError: if the canvas is smaller than a digit.
    """
    canvases = DigitCanvases(canvas_size)
    return LabelledSplits(
        name=canvases.name,
        label_names=canvases.label_names,
        train=PlacedDigits(canvases),
        evaluation=FixedDigits(canvases),
        image_mean=canvases.image_mean,
        image_std=canvases.image_std,
    )


def _to_image(pixels: torch.Tensor) -> Image.Image:
    """uint8 pixels (3, H, W) to a PIL image."""
    return Image.fromarray(pixels.permute(1, 2, 0).contiguous().numpy())
