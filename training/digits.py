# Copyright 2026 The modeling_pixelvit team. All rights reserved.
# SPDX-License-Identifier: Apache-2.0
"""
The embedded images: scikit-learn's handwritten digits (8 by 8 pixels, 1,797 of them), each at a random position on a
larger black canvas, so that where a digit stands says nothing about what it is.
"""

import torch

from .image_set import ImageSet, shuffled_epochs


DIGIT_SIZE = 8
NUM_TEST_DIGITS = 397
PLACEMENTS_PER_TEST_DIGIT = 4
# The split and the test placements belong to the data set, so they do not follow the seed of a run.
SPLIT_SEED = 2026


class DigitCanvases(ImageSet):
    """
    Handwritten digits on a canvas. 1,400 digits are for training, each time at a new position; the other 397 are for
    testing, each at four positions drawn once and for all.

    Args:
        image_size (`int`, *optional*, defaults to 16): Side of the canvas in pixels, at least 8.

    Raises:
        ValueError: if the canvas is smaller than a digit.
    """

    def __init__(self, image_size: int = 16):
        if image_size < DIGIT_SIZE:
            raise ValueError(f"image_size={image_size} was given, but a digit has {DIGIT_SIZE} by {DIGIT_SIZE} pixels.")
        digits, labels = load_digits()
        generator = torch.Generator().manual_seed(SPLIT_SEED)
        shuffled = torch.randperm(len(digits), generator=generator)
        test, train = shuffled[:NUM_TEST_DIGITS], shuffled[NUM_TEST_DIGITS:]
        self.train_digits, self.train_labels = digits[train], labels[train]
        self.num_positions = image_size - DIGIT_SIZE + 1
        test = test.repeat(PLACEMENTS_PER_TEST_DIGIT)
        corners = torch.randint(self.num_positions, (len(test), 2), generator=generator)
        super().__init__(
            name="scikit-learn digits",
            image_size=image_size,
            label_names=[str(digit) for digit in range(10)],
            # Mean and deviation of the pixels on a canvas of 16 by 16.
            image_mean=[0.076, 0.076, 0.076],
            image_std=[0.215, 0.215, 0.215],
            test_pixels=place(digits[test], corners, image_size),
            test_labels=labels[test],
        )

    @property
    def num_train(self) -> int:
        return len(self.train_digits)

    def training_order(self, num_images: int, seed: int) -> torch.Tensor:
        """Rows (digit, row of its upper left corner, column of it)."""
        generator = torch.Generator().manual_seed(seed)
        digits = shuffled_epochs(self.num_train, num_images, generator)
        corners = torch.randint(self.num_positions, (num_images, 2), generator=generator)
        return torch.cat([digits[:, None], corners], dim=1)

    def training_batch(self, order: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        digits = order[:, 0]
        return place(self.train_digits[digits], order[:, 1:], self.image_size), self.train_labels[digits]


def load_digits() -> tuple[torch.Tensor, torch.Tensor]:
    """All digits: uint8 pixels (1797, 8, 8), their 17 grey levels spread over 0 to 255, and labels (1797,)."""
    from sklearn import datasets  # takes a second to import, which other image sets need not wait for

    digits = datasets.load_digits()
    pixels = torch.from_numpy(digits.images) * (255 / 16)
    return pixels.round().to(torch.uint8), torch.from_numpy(digits.target).long()


def place(digits: torch.Tensor, corners: torch.Tensor, image_size: int) -> torch.Tensor:
    """
    Puts each digit (B, 8, 8) on a black canvas, its upper left corner at (row, column) of `corners` (B, 2): uint8
    pixels (B, 3, image_size, image_size), the three channels alike.
    """
    canvas = torch.zeros(len(digits), image_size, image_size, dtype=torch.uint8)
    inside = torch.arange(DIGIT_SIZE)
    rows = corners[:, 0, None, None] + inside[:, None]
    columns = corners[:, 1, None, None] + inside
    canvas[torch.arange(len(digits))[:, None, None], rows, columns] = digits
    return canvas[:, None].expand(-1, 3, -1, -1)
