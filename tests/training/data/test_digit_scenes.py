# Copyright 2026 The modeling_pixelvit team. All rights reserved.
# SPDX-License-Identifier: Apache-2.0
"""Scenes of digits: what is drawn, that masks, boxes and class maps agree, and that both loaders read one folder."""

import os

import numpy as np
import pytest
import torch

from training.data.coco import load_detection_splits
from training.data.digit_scenes import (
    BACKGROUND,
    IMAGE_MEAN,
    IMAGE_STD,
    _run_lengths,
    _split_digits,
    digit_scenes_canvas,
    draw_scene,
    load_digit_scenes,
    write_digit_scenes,
)
from training.data.digits import load_digits, load_digits_images
from training.data.segmentation import load_segmentation_splits


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("scenes") / "data"
    write_digit_scenes(folder, num_train=60, num_test=12, canvas_size=40, seed=1)
    return folder


def test_both_loaders_read_the_folder_and_agree(folder):
    detection, segmentation = load_detection_splits(folder), load_segmentation_splits(folder)
    digits = [str(digit) for digit in range(10)]
    assert detection.label_names == digits and segmentation.label_names == [*digits, "background"]
    for boxes, maps, count in (
        (detection.train, segmentation.train, 60),
        (detection.evaluation, segmentation.evaluation, 12),
    ):
        assert len(boxes) == len(maps) == count
        for index in range(count):
            image, target = boxes[index]
            other, classes = maps[index]
            assert image.size == (40, 40) and (np.asarray(image) == np.asarray(other)).all()
            assert 2 <= len(target["boxes"]) <= 5
            expected = np.full((40, 40), BACKGROUND)
            for label, mask in zip(target["class_labels"], target["masks"].numpy(), strict=True):
                assert (expected[mask] == BACKGROUND).all()  # of no other digit
                expected[mask] = label
            assert (classes == expected).all()
            for mask, box, area in zip(target["masks"], target["boxes"], target["area"], strict=True):
                rows, columns = torch.nonzero(mask, as_tuple=True)
                tight = [columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]
                assert box.tolist() == [float(edge) for edge in tight] and area == mask.sum()


def test_digits_are_told_from_the_background_by_no_single_threshold_and_still_brighter(folder):
    inside, outside = [], []
    for image, classes in (load_segmentation_splits(folder).train[index] for index in range(60)):
        grey = np.asarray(image).mean(2)
        inside.append(grey[classes != BACKGROUND])
        outside.append(grey[classes == BACKGROUND])
        assert inside[-1].mean() > outside[-1].mean() + 20
        assert grey[classes == BACKGROUND].std() > 3
    assert np.concatenate(inside).min() < np.concatenate(outside).max()


def test_training_and_test_digits_are_those_of_the_classification():
    split, images = _split_digits(), load_digits_images()
    for name, data in (("train", images.train), ("test", images.evaluation)):
        pixels, labels = split[name]
        count = len(labels)
        assert (pixels == data.digits[:count].numpy()).all() and (labels == data.labels[:count].numpy()).all()
    assert len(split["train"][1]) == 1400 and len(split["test"][1]) == 397


def test_scenes_have_digits_of_their_own_split_only(tmp_path, monkeypatch):
    """With other classes in each split of the digits, the scenes of a split have its classes and no others."""
    pixels, labels = load_digits()
    parts = {"train": labels < 5, "test": labels >= 5}
    split = {name: (pixels[part].numpy(), labels[part].numpy()) for name, part in parts.items()}
    monkeypatch.setattr("training.data.digit_scenes._split_digits", lambda: split)
    write_digit_scenes(tmp_path / "data", 30, 30)
    splits = load_detection_splits(tmp_path / "data")
    for data, classes in ((splits.train, range(5)), (splits.evaluation, range(5, 10))):
        assert {entry.class_label for index in range(30) for entry in data.record(index).objects} == set(classes)


@pytest.mark.parametrize("canvas", [16, 23, 32, 48])
def test_scenes_of_any_size(canvas):
    pixels, labels = _split_digits()["test"]
    for seed in range(40):
        scene = draw_scene(pixels, labels, canvas, np.random.default_rng(seed))
        assert scene.pixels.shape == (canvas, canvas, 3) and scene.pixels.dtype == np.uint8
        assert 1 <= len(scene.digits) == len(scene.masks) <= max(2, canvas // 8)
        assert scene.masks.any((1, 2)).all() and scene.masks.sum(0).max() == 1


def test_the_seed_decides(tmp_path):
    contents = []
    for name, seed in (("a", 1), ("b", 1), ("c", 2)):
        write_digit_scenes(tmp_path / name, 3, 2, 32, seed)
        files = sorted(path for path in (tmp_path / name).rglob("*") if path.is_file())
        contents.append({path.relative_to(tmp_path / name): path.read_bytes() for path in files})
    assert contents[0] == contents[1] and contents[0].keys() == contents[2].keys()
    assert all(contents[0][path] != contents[2][path] for path in contents[0] if path.suffix == ".json")


@pytest.mark.parametrize("first", [False, True])
def test_run_lengths(first):
    mask = np.random.default_rng(0).random((5, 7)) < 0.5
    mask[0, 0] = first
    counts, value, pixels = _run_lengths(mask), False, []
    for count in counts:
        pixels += [value] * count
        value = not value
    assert (mask == np.array(pixels).reshape(7, 5).T).all()
    assert _run_lengths(np.zeros((2, 3), dtype=bool)) == [6] and _run_lengths(np.ones((2, 3), dtype=bool)) == [0, 6]


def test_the_cache(tmp_path, monkeypatch):
    detection = load_digit_scenes(load_detection_splits, 32, tmp_path)
    assert (len(detection.train), len(detection.evaluation)) == (2000, 200) and detection.train.has_masks
    (written,) = tmp_path.iterdir()
    times = {path: os.stat(path).st_mtime_ns for path in written.rglob("*")}
    segmentation = load_digit_scenes(load_segmentation_splits, 32, tmp_path)
    assert len(segmentation.label_names) == 11 and list(tmp_path.iterdir()) == [written]
    assert times == {path: os.stat(path).st_mtime_ns for path in written.rglob("*")}
    pixels = np.stack([np.asarray(segmentation.train[index][0]) for index in range(2000)]) / 255
    assert np.abs(pixels.mean((0, 1, 2)) - IMAGE_MEAN).max() < 0.005
    assert np.abs(pixels.std((0, 1, 2)) - IMAGE_STD).max() < 0.005
    assert segmentation.image_mean == IMAGE_MEAN and detection.image_std == IMAGE_STD


def test_an_interruption_leaves_nothing_and_another_process_may_be_first(tmp_path, monkeypatch):
    def interrupted(folder, **_):
        (folder / "half").touch()
        raise KeyboardInterrupt

    monkeypatch.setattr("training.data.digit_scenes.write_digit_scenes", interrupted)
    with pytest.raises(KeyboardInterrupt):
        load_digit_scenes(load_detection_splits, 32, tmp_path)
    assert list(tmp_path.iterdir()) == []

    def overtaken(folder, **_):
        write_digit_scenes(folder, 2, 1)
        write_digit_scenes(tmp_path / "digit-scenes-32-v1", 4, 3)

    monkeypatch.setattr("training.data.digit_scenes.write_digit_scenes", overtaken)
    splits = load_digit_scenes(load_detection_splits, 32, tmp_path)
    assert (len(splits.train), len(splits.evaluation)) == (4, 3) and len(list(tmp_path.iterdir())) == 1


def test_names_and_arguments(tmp_path):
    assert [digit_scenes_canvas(name) for name in ("digit-scenes", "digit-scenes-48", "digits-32", "coco")] == [
        32,
        48,
        None,
        None,
    ]
    with pytest.raises(ValueError, match="canvas_size=15 was given; scenes need at least 16"):
        write_digit_scenes(tmp_path / "a", canvas_size=15)
    with pytest.raises(ValueError, match="num_test=0 were given"):
        write_digit_scenes(tmp_path / "a", num_test=0)
    (tmp_path / "file").touch()
    with pytest.raises(ValueError, match="is not empty"):
        write_digit_scenes(tmp_path)
