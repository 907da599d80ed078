# Copyright 2026 The modeling_pixelvit team. All rights reserved.
# SPDX-License-Identifier: Apache-2.0
"""
Scenes of the embedded digits, for segmentation and detection without a download.

A scene is a canvas of one dark colour with a slope of brightness and mild noise. On it are two to four bright digits
(more on a larger canvas), each in a colour of its own and one to two times its 8 by 8 pixels. Boxes of digits overlap
by at most a fifth of the smaller one; where digits meet, the later one hides the earlier one. The masks are the pixels
of which a digit's ink covers at least two fifths. Training scenes have training digits only, test scenes test digits.
"""

import json
import os
import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import datasets
import numpy as np
import torch
from PIL import Image

from ..common.files import is_free, whole_folder
from .digits import DIGIT_SIZE, SPLIT_SEED, load_digits, split_indices
from .splits import Splits


NAME = re.compile(r"digit-scenes(?:-(\d+))?")
VERSION = 1  # of the scenes in the cache: to be raised with any change of what is drawn
CANVAS_SIZE, SCENES_SEED = 32, 2026
NUM_TRAIN, NUM_TEST = 2000, 200
# Mean and deviation of the pixels of the training scenes on a canvas of 32 by 32.
IMAGE_MEAN, IMAGE_STD = [0.249] * 3, [0.186] * 3
BACKGROUND = 10  # class index in the masks, after the ten digits
CLASS_NAMES = (*map(str, range(10)), "background")
LEAST_CANVAS = 2 * DIGIT_SIZE
INK_THRESHOLD = 0.4
MAX_OVERLAP = 0.2  # of the smaller box
MIN_VISIBLE = 0.7  # of a digit's pixels
PLACEMENT_TRIES = 20
DARK, BRIGHT = (0, 90), (150, 255)  # grey levels of the channels, of the background and of digits
SLOPE, NOISE = 30, 8  # largest difference of brightness from side to side, and deviation per pixel


class Scene(NamedTuple):
    """
    One image and what is on it.

    Args:
        pixels: uint8 (size, size, 3).
        digits: Class index of each digit (n,).
        masks: Visible pixels, bool (n, size, size), none of them empty; no pixel is of two digits.
    """

    pixels: np.ndarray
    digits: list[int]
    masks: np.ndarray

    @property
    def class_map(self) -> np.ndarray:
        """uint8 (size, size)."""
        classes = np.full(self.pixels.shape[:2], BACKGROUND, dtype=np.uint8)
        for digit, mask in zip(self.digits, self.masks, strict=True):
            classes[mask] = digit
        return classes


def digit_scenes_canvas(dataset: str) -> int | None:
    """The canvas that a data set's name asks for: 32 for "digit-scenes", 48 for "digit-scenes-48", else None."""
    found = NAME.fullmatch(dataset)
    return int(found[1] or CANVAS_SIZE) if found else None


def load_digit_scenes(
    load_splits: Callable[[Path], Splits], canvas_size: int = CANVAS_SIZE, cache_folder: str | os.PathLike | None = None
) -> Splits:
    """
    2,000 training and 200 test scenes, written on first use.

    Args:
        load_splits: `load_segmentation_splits`, for 11 classes with the background, or `load_detection_splits`, for 10
            classes with masks.
        canvas_size: Side of the scenes in pixels, at least 16.
        cache_folder: Where the scenes are kept; the cache of `datasets` if not given.

    Raises:
        ValueError: for a smaller canvas.
    """
    cache = Path(cache_folder or Path(datasets.config.HF_DATASETS_CACHE) / "modeling_pixelvit")
    folder = cache / f"digit-scenes-{canvas_size}-v{VERSION}"
    if not folder.is_dir():
        with whole_folder(folder, replace=False) as written:
            write_digit_scenes(written, canvas_size=canvas_size)
    return replace(
        load_splits(folder), name="scenes of scikit-learn digits", image_mean=IMAGE_MEAN, image_std=IMAGE_STD
    )


def write_digit_scenes(
    folder: str | os.PathLike,
    num_train: int = NUM_TRAIN,
    num_test: int = NUM_TEST,
    canvas_size: int = CANVAS_SIZE,
    seed: int = SCENES_SEED,
):
    """
    Writes scenes that `load_segmentation_splits` and `load_detection_splits` read from one folder: images in
    `images/train` and `images/test`, masks in `annotations/train` and `annotations/test`, COCO annotations in
    `annotations/instances_train.json` and `annotations/instances_test.json`, and the masks' `classes.txt`.

    Args:
        folder: It must be empty or not exist.
        num_train, num_test: Scenes.
        canvas_size: Side of the scenes in pixels, at least 16.
        seed: Everything follows it, but for the split of the digits, which is that of the classification.

    Raises:
        ValueError: if there are no scenes to write, if the canvas is smaller, or if the folder is not empty.
    """
    folder = Path(folder)
    if canvas_size < LEAST_CANVAS:
        raise ValueError(f"canvas_size={canvas_size} was given; scenes need at least {LEAST_CANVAS} pixels a side.")
    if min(num_train, num_test) < 1:
        raise ValueError(f"num_train={num_train} and num_test={num_test} were given; give at least 1 each.")
    if not is_free(folder):
        raise ValueError(f"{folder} is not empty; give a new folder for the scenes.")
    digits = _split_digits()
    for place, (split, count) in enumerate((("train", num_train), ("test", num_test))):
        scenes = [
            draw_scene(*digits[split], canvas_size, np.random.default_rng((seed, place, index)))
            for index in range(count)
        ]
        _write_split(folder, split, scenes)
    (folder / "classes.txt").write_text("\n".join(CLASS_NAMES) + "\n", encoding="utf-8")


def _split_digits() -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Pixels and labels of the same training and test digits as in the classification."""
    pixels, labels = (values.numpy() for values in load_digits())
    train, test = split_indices(len(labels), torch.Generator().manual_seed(SPLIT_SEED))
    return {split: (pixels[part], labels[part]) for split, part in (("train", train.numpy()), ("test", test.numpy()))}


def draw_scene(pixels: np.ndarray, labels: np.ndarray, canvas_size: int, generator: np.random.Generator) -> Scene:
    """
    A scene of some of the digits.

    Args:
        pixels: uint8 (N, 8, 8).
        labels: Class indices (N,).
        canvas_size: Side of the scene in pixels.
        generator: Of everything random.
    """
    canvas = _background(canvas_size, generator)
    most = max(2, canvas_size // DIGIT_SIZE)
    masks, boxes, digits = np.zeros((0, canvas_size, canvas_size), dtype=bool), [], []
    for index in generator.choice(len(labels), size=generator.integers(2, most + 1), replace=False):
        for _ in range(PLACEMENT_TRIES):
            ink, box = _placed_ink(pixels[index], canvas_size, generator)
            mask = ink >= INK_THRESHOLD
            visible = masks & ~mask
            if not any(_overlap(box, other) > MAX_OVERLAP for other in boxes) and _are_seen(visible, masks):
                canvas += ink[..., None] * (generator.uniform(*BRIGHT, size=3) - canvas)
                masks = np.concatenate([visible, mask[None]])
                boxes.append(box)
                digits.append(int(labels[index]))
                break
    return Scene(canvas.round().clip(0, 255).astype(np.uint8), digits, masks)


def _background(size: int, generator: np.random.Generator) -> np.ndarray:
    """Grey levels (size, size, 3)."""
    down, right = generator.uniform(-SLOPE / 2, SLOPE / 2, size=2)
    position = np.linspace(-0.5, 0.5, size)
    slope = down * position[:, None] + right * position
    noise = generator.normal(0, NOISE, size=(size, size, 3))
    return (generator.uniform(*DARK, size=3) + slope[..., None] + noise).clip(0, 255)


def _placed_ink(
    digit: np.ndarray, canvas_size: int, generator: np.random.Generator
) -> tuple[np.ndarray, tuple[int, int, int, int]]:
    """A digit at a random scale and place: how much of each pixel its ink covers, and its square's edges."""
    side = int(generator.integers(DIGIT_SIZE, min(2 * DIGIT_SIZE, canvas_size // 2) + 1))
    top, left = generator.integers(0, canvas_size - side + 1, size=2).tolist()
    scaled = Image.fromarray(digit).resize((side, side), Image.Resampling.BILINEAR)
    ink = np.zeros((canvas_size, canvas_size))
    ink[top : top + side, left : left + side] = np.asarray(scaled) / 255
    return ink, (left, top, left + side, top + side)


def _overlap(one: tuple[int, int, int, int], other: tuple[int, int, int, int]) -> float:
    """The common area of two boxes as a share of the smaller one."""
    width = min(one[2], other[2]) - max(one[0], other[0])
    height = min(one[3], other[3]) - max(one[1], other[1])
    smaller = min((box[2] - box[0]) * (box[3] - box[1]) for box in (one, other))
    return max(width, 0) * max(height, 0) / smaller


def _are_seen(visible: np.ndarray, masks: np.ndarray) -> bool:
    """Whether another digit leaves enough of each of the earlier ones (n, size, size)."""
    return bool((visible.sum((1, 2)) >= MIN_VISIBLE * masks.sum((1, 2))).all())


def _write_split(folder: Path, split: str, scenes: list[Scene]):
    images, masks = folder / "images" / split, folder / "annotations" / split
    images.mkdir(parents=True)
    masks.mkdir(parents=True)
    coco = {"images": [], "annotations": [], "categories": []}
    for digit in range(10):
        coco["categories"].append({"id": digit + 1, "name": CLASS_NAMES[digit]})
    for index, scene in enumerate(scenes):
        name = f"{index:06}.png"
        Image.fromarray(scene.pixels).save(images / name)
        class_map = Image.fromarray(scene.class_map)
        class_map.putpalette(_palette())
        class_map.save(masks / name)
        height, width = scene.class_map.shape
        coco["images"].append({"id": index, "file_name": name, "height": height, "width": width})
        for digit, mask in zip(scene.digits, scene.masks, strict=True):
            number = len(coco["annotations"]) + 1
            coco["annotations"].append({"id": number, "image_id": index, **_annotation(digit, mask)})
    (folder / "annotations" / f"instances_{split}.json").write_text(json.dumps(coco), encoding="utf-8")


def _annotation(digit: int, mask: np.ndarray) -> dict:
    rows, columns = np.nonzero(mask.any(1))[0], np.nonzero(mask.any(0))[0]
    top, bottom, left, right = (int(value) for value in (rows[0], rows[-1] + 1, columns[0], columns[-1] + 1))
    return {
        "category_id": digit + 1,
        "bbox": [left, top, right - left, bottom - top],
        "area": int(mask.sum()),
        "iscrowd": 0,
        "segmentation": {"size": list(mask.shape), "counts": _run_lengths(mask)},
    }


def _run_lengths(mask: np.ndarray) -> list[int]:
    """Lengths of the runs of equal pixels down the columns, the first of them, which may be 0, of background."""
    pixels = np.concatenate([[False], mask.T.ravel()])
    starts = np.nonzero(pixels[1:] != pixels[:-1])[0]
    return np.diff([0, *starts, mask.size]).tolist()


def _palette() -> list[int]:
    """A colour for each class, red, green and blue, so that viewers show masks; the background is black."""
    colours = [Image.new("HSV", (1, 1), (25 * digit, 200, 255)).convert("RGB").getpixel((0, 0)) for digit in range(10)]
    return [level for colour in (*colours, (0, 0, 0)) for level in colour]
