# Copyright 2026 The modeling_pixelvit team. All rights reserved.
# SPDX-License-Identifier: Apache-2.0
"""The embedded digits: their split, their places on the canvas, and what draws them."""

import numpy as np
import pytest
import torch

from training.data.digits import load_digits, load_digits_images, place


@pytest.fixture(scope="module")
def images():
    return load_digits_images()


def crop(image):
    """The smallest rectangle around what is not black: the same wherever the digit stands."""
    pixels = np.asarray(image)[..., 0]
    rows, columns = np.nonzero(pixels.any(1))[0], np.nonzero(pixels.any(0))[0]
    return pixels[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1].tobytes()


def test_training_and_test_digits_never_mix(images):
    originals, _ = load_digits()
    test = {crop(images.evaluation[index][0]) for index in range(len(images.evaluation))}
    train = {crop(images.train[index][0]) for index in range(len(images.train))}
    # By cropped content, which a handful of different digits could share; none does.
    assert len(test) == 397 and len(train) == 1400 == len(images.train)
    assert not test & train
    assert len(originals) == 1797 and len(images.evaluation) == 4 * 397


def test_form(images):
    assert images.label_names == [str(digit) for digit in range(10)]
    image, label = images.train[3]
    assert (image.mode, image.size, type(label)) == ("RGB", (16, 16), int)
    assert load_digits_images(32).train[0][0].size == (32, 32)


def test_placements_for_training_are_drawn_by_torchs_generator(images):
    torch.manual_seed(0)
    first, second = (np.asarray(images.train[5][0]) for _ in range(2))
    torch.manual_seed(0)
    assert (np.asarray(images.train[5][0]) == first).all() and not (first == second).all()
    assert first.sum() == second.sum()
    seen = np.max([np.asarray(images.train[5][0]) for _ in range(500)], axis=0)
    assert (seen[:, 3:-3] > 0).all()


def test_placements_for_testing_are_fixed_and_cover_the_canvas(images):
    torch.manual_seed(1)
    again = load_digits_images()
    for index in (0, 900, 1587):
        assert (np.asarray(again.evaluation[index][0]) == np.asarray(images.evaluation[index][0])).all()
        assert again.evaluation[index][1] == images.evaluation[index][1]
    seen = np.max([np.asarray(images.evaluation[index][0]) for index in range(len(images.evaluation))], axis=0)
    assert (seen[:, 1:-1] > 0).all()


def test_a_canvas_shows_the_digit_at_its_position():
    digits, _ = load_digits()
    pixels = np.asarray(place(digits[3], row=2, column=7, canvas_size=16))
    assert pixels.shape == (16, 16, 3) and pixels.dtype == np.uint8
    assert (pixels[2:10, 7:15, 1] == digits[3].numpy()).all()
    assert pixels.sum() == 3 * digits[3].sum()


def test_a_canvas_must_hold_a_digit():
    with pytest.raises(ValueError, match="image_size=7 was given, but a digit has 8 by 8"):
        load_digits_images(7)
