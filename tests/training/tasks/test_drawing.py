# Copyright 2026 The modeling_pixelvit team. All rights reserved.
# SPDX-License-Identifier: Apache-2.0
"""Pictures of what models find: where they draw, what they leave alone, and the command on all kinds of models."""

import itertools

import numpy as np
import pytest
import torch
from demo_models import CLASSES, save_tiny
from helpers import tiny_model
from PIL import Image

from modeling_pixelvit.image_processing_pixelvit import PixelViTImageProcessor
from modeling_pixelvit.modeling_adventurer import AdventurerModel
from modeling_pixelvit.modeling_pixelvit import PixelViTForImageClassification
from training.tasks.drawing import (
    MIN_SIDE,
    distinct_colour,
    draw_classification,
    draw_detections,
    draw_segmentation,
    free_place,
    readable_on,
)
from training.visualize import main


GREY = (90, 90, 90)
NAMES = ["no object", "cat", "dog", "a bird", "fish"]


def changed_places(picture, image):
    """Rows and columns of the picture that differ from the image, each pixel of which has become a square."""
    scale = picture.width // image.width
    before = np.asarray(image.convert("RGB")).repeat(scale, 0).repeat(scale, 1)
    return (np.asarray(picture)[: len(before), : before.shape[1]] != before).any(-1)


def test_boxes_are_drawn_where_they_are():
    image = Image.new("L", (500, 400), 90)
    boxes = torch.tensor([[300.0, 200.0, 420.0, 380.0], [20.0, 60.0, 130.0, 160.0]])
    picture = draw_detections(image, boxes, torch.tensor([1, 9]), torch.tensor([0.25, 0.875]), label_names=NAMES)
    assert picture.size == image.size and picture.mode == "RGB"
    # The best one has the first colour.
    for (x0, y0, x1, y1), colour in zip(boxes.int().tolist(), (distinct_colour(1), distinct_colour(0)), strict=True):
        for place in ((x0, y0), (x1 - 1, y0), (x0, y1 - 1), (x1 - 1, y1 - 1), ((x0 + x1) // 2, y1 - 1)):
            assert picture.getpixel(place) == colour
        assert picture.getpixel(((x0 + x1) // 2, (y0 + y1) // 2)) == GREY
    changed = changed_places(picture, image)
    rows, columns = np.nonzero(changed)
    assert rows.min() >= 60 - 25 and rows.max() == 379 and columns.min() == 20 and columns.max() == 419
    texts = np.asarray(picture)[35:60, 20:130].reshape(-1, 3)
    assert {distinct_colour(0), readable_on(distinct_colour(0))} <= set(map(tuple, texts.tolist()))


def test_masks_tint_and_small_images_are_magnified():
    image = Image.fromarray(np.full((32, 24, 3), 90, dtype=np.uint8))
    masks = np.zeros((2, 32, 24), dtype=bool)
    masks[0, 4:12, 6:14], masks[1, 8:16, 10:18] = True, True
    picture = draw_detections(image, [[6, 4, 14, 12], [10, 8, 18, 16]], [0, 1], [0.5, 0.9], masks)
    scale = MIN_SIDE // 32
    assert picture.size == (24 * scale, 32 * scale)
    second, best = (np.round(0.5 * np.array(GREY) + 0.5 * np.array(distinct_colour(rank))) for rank in (1, 0))
    assert np.array_equal(picture.getpixel((7 * scale + 5, 6 * scale + 5)), second)
    assert np.array_equal(picture.getpixel((16 * scale + 5, 14 * scale + 5)), best)
    assert picture.getpixel((3 * scale, 28 * scale)) == GREY
    assert np.asarray(image).max() == 90  # which is not changed


def test_texts_stay_inside_and_apart():
    picture = (200, 100)
    own = (0, 0, 60, 40)
    first = free_place((50, 20), picture, own, [], [own])
    assert first == (0, 40, 50, 60)  # above there is no room
    second = free_place((50, 20), picture, own, [first], [own])
    assert second[1] >= 60 or second[3] <= 40
    assert free_place((50, 20), picture, (190, 90, 200, 100), [], [])[2:] <= picture
    assert free_place((50, 20), picture, (20, 50, 60, 80), [], [(0, 0, 200, 50)]) == (20, 80, 70, 100)


@pytest.mark.parametrize("size", [(384, 500), (30, 20), (2, 900)])
def test_nothing_found(size):
    image = Image.new("RGB", size, GREY)
    picture = draw_detections(image, np.zeros((0, 4)), [], [], np.zeros((0, size[1], size[0])))
    assert not changed_places(picture, image).any()
    picture = draw_segmentation(image, np.full((size[1], size[0]), 255))
    assert not changed_places(picture, image).any() and picture.width % size[0] == 0


def test_classes_tint_and_are_listed_below():
    image = Image.new("RGB", (400, 300), GREY)
    class_map = torch.full((300, 400), 2)
    class_map[:100], class_map[100:150] = 4, 255
    picture = draw_segmentation(image, class_map, dict(enumerate(NAMES)))
    assert picture.width == 400 and picture.height > 300
    for place, label in (((10, 10), 4), ((399, 299), 2)):
        assert np.array_equal(
            picture.getpixel(place), np.round(0.5 * np.array(GREY) + 0.5 * np.array(distinct_colour(label)))
        )
    assert picture.getpixel((50, 120)) == GREY
    legend = np.asarray(picture)[300:].reshape(-1, 3).tolist()
    listed = [label for label in range(6) if list(distinct_colour(label)) in legend]
    assert listed == [2, 4] and legend[0] == [255, 255, 255]
    # A hundred long names need more space, not each other's.
    many = draw_segmentation(image, np.arange(300 * 400).reshape(300, 400) % 100, ["n" * 70] * 100)
    assert 400 < many.width < 500 and many.height > 300 + 100 * 14


def test_most_likely_classes_are_listed_below():
    image = Image.new("RGB", (390, 20), GREY)
    picture = draw_classification(image, torch.tensor([0.1, 0.6, 0.3]), NAMES)
    assert picture.width == 390 and not changed_places(picture, image).any()
    bars = (np.asarray(picture)[20:, :, 2] == 240).sum(1)
    assert len(set(bars.tolist())) >= 4 and bars.max() < 0.62 * 390
    narrow = draw_classification(Image.new("RGB", (5, 400)), np.eye(9)[0], ["a long name, longer than the image"] * 9)
    assert narrow.width > 200


def test_colours_differ():
    colours = [distinct_colour(index) for index in range(151)]
    assert len(set(colours)) == 151
    neighbours = itertools.pairwise(colours)
    assert all(sum(abs(one - other) for one, other in zip(*pair, strict=True)) > 100 for pair in neighbours)


def test_shapes_are_checked():
    image = Image.new("RGB", (6, 5))
    with pytest.raises(ValueError, match="1 boxes, 2 labels and 1 scores"):
        draw_detections(image, [[0, 0, 1, 1]], [1, 2], [0.5])
    with pytest.raises(ValueError, match=r"they must be \(1, 5, 6\)"):
        draw_detections(image, [[0, 0, 1, 1]], [1], [0.5], np.zeros((1, 6, 5)))
    with pytest.raises(ValueError, match="image of 5 by 6 pixels"):
        draw_segmentation(image, np.zeros((6, 5)))


# The command


@pytest.mark.parametrize(("task", "family"), CLASSES)
def test_command_on_every_kind_of_model(tmp_path, photo, task, family, capsys):
    fields = {"use_masks": False} if (task, family) == ("detection", "adventurer") else {}
    checkpoint, output = save_tiny(tmp_path / "checkpoint", task, family, **fields), tmp_path / "out.png"
    assert main([str(checkpoint), str(photo), "--output", str(output), "--threshold", "0"]) == 0
    assert capsys.readouterr().out.splitlines()[-1] == str(output)
    picture, image = Image.open(output), Image.open(photo)
    assert picture.format == "PNG" and picture.width == 57 * 7
    assert changed_places(picture, image).any() == (task != "classification")
    assert (picture.height > 40 * 7) == (task != "detection")


def test_command_draws_what_is_above_the_threshold(tmp_path, photo, monkeypatch):
    checkpoint = save_tiny(tmp_path / "checkpoint", "detection")
    monkeypatch.chdir(tmp_path)
    assert main([str(checkpoint), str(photo), "--threshold", "1"]) == 0
    assert not changed_places(Image.open("photo-prediction.png"), Image.open(photo)).any()


def test_command_says_what_is_wrong(tmp_path, photo, capsys):
    checkpoint = save_tiny(tmp_path / "checkpoint", "segmentation")
    base = tmp_path / "base"
    tiny_model(AdventurerModel).save_pretrained(base)
    bare = tmp_path / "bare"
    tiny_model(PixelViTForImageClassification).save_pretrained(bare)
    cropping = save_tiny(tmp_path / "cropping", "segmentation")
    PixelViTImageProcessor().save_pretrained(cropping)
    (tmp_path / "text.png").write_text("no image")
    output = ["--output", str(tmp_path / "out.png")]
    for message, arguments in (
        ("neither a checkpoint folder", [str(tmp_path / "missing"), str(photo)]),
        ("holds AdventurerModel; what can be drawn is found by", [str(base), str(photo)]),
        ("lacks a part that can be read", [str(bare), str(photo)]),
        ("crops images (do_center_crop)", [str(cropping), str(photo)]),
        ("There is no file", [str(checkpoint), str(tmp_path / "missing.png")]),
        ("not an image that Pillow can read", [str(checkpoint), str(tmp_path / "text.png")]),
        ("--threshold 2 was given", [str(checkpoint), str(photo), "--threshold", "2"]),
        ("must be a file in a folder that exists", [str(checkpoint), str(photo), "--output", str(tmp_path)]),
    ):
        assert main([*output, *arguments]) == 2, message
        errors = capsys.readouterr().err
        assert message in errors and errors.startswith("error: ") and errors.count("\n") == 1, errors
    assert not (tmp_path / "out.png").exists()
