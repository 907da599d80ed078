# Copyright 2026 The modeling_pixelvit team. All rights reserved.
# SPDX-License-Identifier: Apache-2.0
"""The embedded digits as labelled images."""

import numpy as np
import pytest
import torch

from training.digit_images import load_digits_images
from training.digits import DigitCanvases


@pytest.fixture(scope="module")
def digits():
    return load_digits_images()


def test_splits(digits):
    assert (len(digits.train), len(digits.evaluation)) == (1400, 1588)
    assert digits.label_names == [str(digit) for digit in range(10)]
    image, label = digits.train[3]
    assert (image.mode, image.size, type(label)) == ("RGB", (16, 16), int)
    assert load_digits_images(32).train[0][0].size == (32, 32)


def test_training_digits_are_placed_by_torchs_generator(digits):
    torch.manual_seed(0)
    first, second = (np.asarray(digits.train[5][0]) for _ in range(2))
    torch.manual_seed(0)
    assert (np.asarray(digits.train[5][0]) == first).all() and not (first == second).all()
    assert first.sum() == second.sum()


def test_evaluation_images_are_the_sweeps(digits):
    canvases = DigitCanvases()
    for index in (0, 900):
        image, label = digits.evaluation[index]
        assert (np.asarray(image) == canvases.test_pixels[index].permute(1, 2, 0).numpy()).all()
        assert label == canvases.test_labels[index]


def test_too_small_canvas_is_refused():
    with pytest.raises(ValueError, match="image_size=7 was given"):
        load_digits_images(7)
