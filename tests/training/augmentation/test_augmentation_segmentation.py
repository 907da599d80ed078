# Copyright 2026 The modeling_pixelvit team. All rights reserved.
# SPDX-License-Identifier: Apache-2.0
"""Augmentation of segmentation: image and class map stay together, and every step does what it is defined to do."""

import colorsys

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision import tv_tensors
from transformers import set_seed

from training.augmentation.segmentation import (
    build_segmentation_transform,
    collate_segmentation,
    distort_colours,
    fitted_size,
    random_crop,
    saturated,
)


MEAN, STD = [0.485, 0.456, 0.406], [0.229, 0.224, 0.225]
COLOURS = np.array([[0, 0, 0], [255, 0, 0], [0, 255, 0], [0, 0, 255]], dtype=np.uint8)


def blocks(height, width, side=8):
    """Squares of the four colours, and the class map that says which."""
    rows, columns = np.mgrid[:height, :width] // side
    classes = ((rows + 2 * columns) % 4).astype(np.uint8)
    return Image.fromarray(COLOURS[classes]), classes


def build(size=32, **options):
    settings = {"image_mean": [0.0] * 3, "image_std": [1.0] * 3, "photometric": False, **options}
    return build_segmentation_transform(size, **settings)


def agreement(example):
    """The share of the pixels with a class whose colour is that of the class."""
    labels = example["labels"]
    known = labels != 255
    colours = torch.from_numpy(COLOURS / 255).float()
    nearest = torch.cdist(example["pixel_values"].permute(1, 2, 0)[known], colours).argmin(1)
    return (nearest == labels[known]).float().mean().item()


@pytest.mark.parametrize("size", [(40, 40), (24, 56), (61, 33), (200, 20)])
@pytest.mark.parametrize("scale_range", [(0.5, 2.0), (1.0, 1.0), (0.3, 0.6)])
def test_image_and_classes_stay_together(size, scale_range):
    transform = build(scale_range=scale_range)
    for seed in range(10):
        set_seed(seed)
        image, classes = blocks(*size)
        example = transform(image, classes)
        assert example["pixel_values"].shape == (3, 32, 32) and example["pixel_values"].dtype == torch.float32
        assert example["labels"].shape == (32, 32) and example["labels"].dtype == torch.int64
        # Shrunk borders between colours are blends of them.
        assert agreement(example) > (0.9 if scale_range[0] == 1.0 and size == (40, 40) else 0.5)
        padding = example["labels"] == 255
        assert (example["pixel_values"][:, padding] == 0).all()
        rows, columns = (int((~padding).any(axis).sum()) for axis in (1, 0))
        assert not padding[:rows, :columns].any()


def test_nothing_changes_at_scale_one():
    image, classes = blocks(32, 32)
    example = build(scale_range=(1.0, 1.0), flip=0.0)(image, classes)
    assert (example["labels"].numpy() == classes).all() and agreement(example) == 1
    assert (example["pixel_values"].permute(1, 2, 0) * 255 == torch.from_numpy(np.array(image))).all()


def test_mirroring_twice_is_nothing():
    image, classes = blocks(32, 32)
    mirrored = build(scale_range=(1.0, 1.0), flip=1.0)
    once = mirrored(image, classes)
    assert (once["labels"].numpy() == classes[:, ::-1]).all() and agreement(once) == 1
    pixels = (once["pixel_values"].permute(1, 2, 0).numpy() * 255).round().astype(np.uint8)
    twice = mirrored(Image.fromarray(pixels), once["labels"].numpy())
    assert (twice["labels"].numpy() == classes).all()
    assert torch.equal(twice["pixel_values"].flip(2), once["pixel_values"])


def test_enlarging_by_two_repeats_every_pixel():
    image, classes = blocks(16, 16, side=1)
    set_seed(0)
    example = build(size=16, scale_range=(2.0, 2.0), flip=0.0, cat_max_ratio=1.0)(image, classes)
    enlarged = classes.repeat(2, 0).repeat(2, 1)
    windows = np.lib.stride_tricks.sliding_window_view(enlarged, (16, 16))
    assert (windows == example["labels"].numpy()).all((2, 3)).any()


def test_labels_without_class_stay_and_normalization_is_of_the_image_alone():
    image = Image.new("RGB", (16, 12), (255, 255, 255))
    transform = build(scale_range=(1.0, 1.0), image_mean=MEAN, image_std=STD)
    example = transform(image, np.full((12, 16), 255, dtype=np.uint8))
    assert (example["labels"] == 255).all()
    white = (1 - torch.tensor(MEAN)) / torch.tensor(STD)
    torch.testing.assert_close(example["pixel_values"], white[:, None, None].expand(3, 32, 32))
    short = build(scale_range=(0.5, 0.5), image_mean=MEAN, image_std=STD)(image, np.zeros((12, 16), dtype=np.uint8))
    assert (short["labels"] == 0).sum() == 16 * 21 and (short["pixel_values"][:, 16:] == 0).all()
    torch.testing.assert_close(short["pixel_values"][:, :16, :21], white[:, None, None].expand(3, 16, 21))


def test_sizes():
    """The shorter side is fitted, unless the longer one would be above four times that."""
    assert fitted_size((300, 400), 512, 1.0) == (512, 683)
    assert fitted_size((400, 300), 512, 0.5) == (341, 256)
    assert fitted_size((100, 1000), 512, 1.0) == (205, 2048)
    assert fitted_size((2, 1000), 8, 0.5) == (1, 16)


def test_crops_of_one_class_are_drawn_anew():
    """Of a map of one class with a corner of another, nearly all crops show both in the wanted shares."""
    labels = torch.zeros(1, 40, 40, dtype=torch.uint8)
    labels[:, :20, :20] = 1
    labels[:, :4] = 255  # counts for nothing
    pixels = labels.expand(3, -1, -1).clone()

    def varied(ratio):
        count = 0
        for seed in range(100):
            torch.manual_seed(seed)
            image, crop = random_crop(tv_tensors.Image(pixels), tv_tensors.Mask(labels), 16, ratio)
            assert crop.shape == (1, 16, 16) and torch.equal(image[:1].as_subclass(torch.Tensor), crop + 0)
            counts = torch.stack([(crop == value).sum() for value in (0, 1)]).float()
            count += bool(counts.max() < 0.75 * counts.sum())
        return count

    assert varied(1.0) < 45 and varied(0.75) > 85  # 11 tries at 0.27 each: 97


def test_no_crop_is_varied():
    labels = tv_tensors.Mask(torch.zeros(1, 20, 20, dtype=torch.uint8))
    _, crop = random_crop(tv_tensors.Image(torch.zeros(3, 20, 20, dtype=torch.uint8)), labels, 8, 0.75)
    assert crop.shape == (1, 8, 8)


class TestColours:
    @pytest.fixture(scope="class")
    def pixels(self):
        return torch.randint(256, (3, 6, 7), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)

    @pytest.mark.parametrize("factor", [0.5, 1.0, 1.5])
    def test_saturation_of_the_hsv_model(self, pixels, factor):
        values = pixels.float() / 255
        values[:, 0, 0], values[:, 0, 1] = 0.0, 0.5  # black and grey have none
        expected = values.clone()
        for row in range(6):
            for column in range(7):
                hue, saturation, value = colorsys.rgb_to_hsv(*values[:, row, column].tolist())
                changed = colorsys.hsv_to_rgb(hue, min(1, saturation * factor), value)
                expected[:, row, column] = torch.tensor(changed)
        torch.testing.assert_close(saturated(values, factor), expected, atol=1e-5, rtol=0)

    def test_all_parts_occur_and_stay_in_bounds(self, pixels):
        unchanged, results = 0, []
        for seed in range(200):
            torch.manual_seed(seed)
            result = distort_colours(pixels)
            assert result.dtype == torch.float32 and result.min() >= 0 and result.max() <= 1
            unchanged += torch.allclose(result, pixels / 255)
            results.append(result.mean().item())
        assert 3 < unchanged < 30  # none of four parts: 1 in 16
        mean = (pixels / 255).mean().item()
        assert min(results) < 0.6 * mean and max(results) > 1.2 * mean

    def test_grey_stays_grey(self):
        grey = torch.full((3, 4, 4), 100, dtype=torch.uint8)
        for seed in range(50):
            torch.manual_seed(seed)
            result = distort_colours(grey)
            torch.testing.assert_close(result, result[:1].expand(3, -1, -1), atol=1e-5, rtol=0)

    def test_labels_do_not_depend_on_colours(self):
        image, classes = blocks(40, 50)
        torch.manual_seed(3)
        plain = build(scale_range=(0.5, 2.0))(image, classes)
        torch.manual_seed(3)
        distorted = build(scale_range=(0.5, 2.0), photometric=True)(image, classes)
        assert torch.equal(plain["labels"], distorted["labels"])
        assert not torch.equal(plain["pixel_values"], distorted["pixel_values"])


def test_the_global_seed_decides():
    image, classes = blocks(40, 50)
    transform = build(photometric=True)
    results = []
    for seed in (5, 5, 6):
        set_seed(seed)
        results.append(transform(image, classes))
    for name in ("pixel_values", "labels"):
        assert torch.equal(results[0][name], results[1][name]) and not torch.equal(results[0][name], results[2][name])


def test_a_batch_of_different_sizes():
    examples = [
        {"pixel_values": torch.ones(3, *size), "labels": torch.zeros(size, dtype=torch.int64)}
        for size in ((4, 6), (5, 3))
    ]
    batch = collate_segmentation(examples)
    assert batch["pixel_values"].shape == (2, 3, 5, 6) and batch["labels"].shape == (2, 5, 6)
    for index, (height, width) in enumerate(((4, 6), (5, 3))):
        inside = torch.zeros(5, 6, dtype=torch.bool)
        inside[:height, :width] = True
        assert torch.equal(batch["labels"][index] == 0, inside) and (batch["labels"][index][~inside] == 255).all()
        assert torch.equal(batch["pixel_values"][index, 0] == 1, inside)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"size": 0}, "image_size=0 was given"),
        ({"scale_range": (2.0, 0.5)}, r"scale_range=\(2\.0, 0\.5\) was given"),
        ({"scale_range": (0.0, 1.0)}, "scale_range="),
        ({"flip": 1.5}, r"flip=1\.5 was given"),
    ],
)
def test_settings(options, message):
    with pytest.raises(ValueError, match=message):
        build(**options)
