# Copyright 2026 The modeling_pixelvit team. All rights reserved.
# SPDX-License-Identifier: Apache-2.0
"""
The embedded images: scikit-learn's handwritten digits (8 by 8 pixels, 1,797 of them), each at a random position on a
larger black canvas, so that where a digit stands says nothing about what it is. No download, no files.
"""

import dataclasses
import math

import torch
from PIL import Image
from torch.utils.data import Dataset

from .splits import Splits


DIGIT_SIZE = 8
NUM_TEST_DIGITS = 397
PLACEMENTS_PER_TEST_DIGIT = 4
# The split and the test placements belong to the data set, so they do not follow the seed of a run.
SPLIT_SEED = 2026
# Mean and deviation of the pixels on a canvas of 16 by 16.
IMAGE_MEAN, IMAGE_STD = [0.076] * 3, [0.215] * 3


@dataclasses.dataclass(frozen=True)
class PlacedDigits(Dataset):
    """
    Digits, each time that one is read at a new position, drawn from PyTorch's global generator.

    `images[index]` is a PIL image in RGB and a class index.

    Args:
        digits: uint8 pixels (N, 8, 8).
        labels: Class indices (N,).
        canvas_size: Side of the canvas in pixels.
        distortion: From 0 (the digits as they are) to 1: how far each is turned (up to 15 degrees), scaled (to 0.86 to
            1.16, and as much as 1.1 to 1 between width and height) and sheared (by up to 0.15), drawn anew each time.
    """

    digits: torch.Tensor
    labels: torch.Tensor
    canvas_size: int
    distortion: float = 0.0

    def __len__(self) -> int:
        return len(self.digits)

    def __getitem__(self, index: int) -> tuple[Image.Image, int]:
        row, column = torch.randint(num_positions(self.canvas_size), (2,)).tolist()
        digit, label = self.digits[index], self.labels[index].item()
        if not self.distortion:
            return place(digit, row, column, self.canvas_size), label
        draws = [self.distortion * (2 * draw - 1) for draw in torch.rand(4).tolist()]
        return place_distorted(digit, row, column, self.canvas_size, *draws), label

    def distorted(self, distortion: float) -> "PlacedDigits":
        """The same digits under another distortion."""
        return dataclasses.replace(self, distortion=distortion)


class FixedDigits(Dataset):
    """
    Digits at positions that do not change, as PIL images in RGB with their class indices.

    Args:
        digits, labels, canvas_size: As of `PlacedDigits`.
        corners: Row and column of each digit's upper left corner (N, 2).
    """

    def __init__(self, digits: torch.Tensor, labels: torch.Tensor, corners: torch.Tensor, canvas_size: int):
        self.digits, self.labels, self.corners, self.canvas_size = digits, labels, corners, canvas_size

    def __len__(self) -> int:
        return len(self.digits)

    def __getitem__(self, index: int) -> tuple[Image.Image, int]:
        row, column = self.corners[index].tolist()
        return place(self.digits[index], row, column, self.canvas_size), self.labels[index].item()


def load_digits_images(canvas_size: int = 16) -> Splits:
    """
    The embedded digits in the form of `load_labelled_images`. 1,400 digits are for training, each time at a new
    position; the other 397 are for testing, each at four positions drawn once and for all.

    Args:
        canvas_size: Side of the canvas in pixels, at least 8.

    Raises:
        ValueError: if the canvas is smaller than a digit.
    """
    if canvas_size < DIGIT_SIZE:
        raise ValueError(f"image_size={canvas_size} was given, but a digit has {DIGIT_SIZE} by {DIGIT_SIZE} pixels.")
    digits, labels = load_digits()
    generator = torch.Generator().manual_seed(SPLIT_SEED)
    train, test = split_indices(len(digits), generator)
    test = test.repeat(PLACEMENTS_PER_TEST_DIGIT)
    corners = torch.randint(num_positions(canvas_size), (len(test), 2), generator=generator)
    return Splits(
        name="scikit-learn digits",
        label_names=[str(digit) for digit in range(10)],
        train=PlacedDigits(digits[train], labels[train], canvas_size),
        evaluation=FixedDigits(digits[test], labels[test], corners, canvas_size),
        image_mean=IMAGE_MEAN,
        image_std=IMAGE_STD,
    )


def split_indices(num_digits: int, generator: torch.Generator) -> tuple[torch.Tensor, torch.Tensor]:
    """Which digits are for training and which for testing; the data sets draw them first, from `SPLIT_SEED`."""
    shuffled = torch.randperm(num_digits, generator=generator)
    return shuffled[NUM_TEST_DIGITS:], shuffled[:NUM_TEST_DIGITS]


def load_digits() -> tuple[torch.Tensor, torch.Tensor]:
    """All digits: uint8 pixels (1797, 8, 8), their 17 grey levels spread over 0 to 255, and labels (1797,)."""
    from sklearn.datasets import load_digits as load_sklearn_digits  # a second that other commands save

    digits = load_sklearn_digits()
    pixels = torch.from_numpy(digits.images) * (255 / 16)
    return pixels.round().to(torch.uint8), torch.from_numpy(digits.target).long()


def num_positions(canvas_size: int) -> int:
    """Rows, and columns, at which a digit's upper left corner can be."""
    return canvas_size - DIGIT_SIZE + 1


def place(digit: torch.Tensor, row: int, column: int, canvas_size: int) -> Image.Image:
    """Puts a digit (8, 8) on a black canvas, its upper left corner at (row, column): an RGB image."""
    canvas = Image.new("L", (canvas_size, canvas_size))
    canvas.paste(Image.fromarray(digit.numpy()), (column, row))
    return canvas.convert("RGB")


def place_distorted(
    digit: torch.Tensor, row: int, column: int, canvas_size: int, turn: float, zoom: float, stretch: float, shear: float
) -> Image.Image:
    """
    Like `place`, with the digit turned, scaled, stretched and sheared about its centre (bicubic), each by a number from
    -1 to 1 in the units that `PlacedDigits` tells.
    """
    angle, scale, aspect = math.radians(15 * turn), math.exp(0.15 * zoom), math.exp(0.05 * stretch)
    cosine, sine = math.cos(angle), math.sin(angle)
    # From a place on the canvas to a place on the digit, as PIL wants it: turned, then scaled and sheared.
    wide, high, skew = 1 / (scale * aspect), aspect / scale, 0.15 * shear
    a, b = wide * cosine + skew * sine, -wide * sine + skew * cosine
    d, e = high * sine, high * cosine
    x, y = column + DIGIT_SIZE / 2, row + DIGIT_SIZE / 2
    margin = DIGIT_SIZE // 2  # so that ink at the digit's edge fades like ink elsewhere
    source = Image.new("L", (2 * DIGIT_SIZE, 2 * DIGIT_SIZE))
    source.paste(Image.fromarray(digit.numpy()), (margin, margin))
    middle = DIGIT_SIZE  # of the digit with its margin
    placed = source.transform(
        (canvas_size, canvas_size),
        Image.Transform.AFFINE,
        (a, b, middle - a * x - b * y, d, e, middle - d * x - e * y),
        resample=Image.Resampling.BICUBIC,
    )
    return placed.convert("RGB")
