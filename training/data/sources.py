# Copyright 2026 The modeling_pixelvit team. All rights reserved.
# SPDX-License-Identifier: Apache-2.0
"""What a --dataset option may name: the embedded digits, or anything that `datasets` reads."""

import dataclasses
import re
from collections.abc import Iterator
from typing import Any

import datasets

from .labelled import LabelledImages, load_labelled_images
from .splits import Splits


DIGITS = re.compile(r"digits(?:-(\d+))?")
DIGITS_CANVAS = 16


def load_images(dataset: str, streaming: bool = False, **options: Any) -> Splits:
    """
    Training and evaluation images by the name of their source.

    Args:
        dataset: "digits" for the embedded ones on a canvas of 16 by 16 pixels, "digits-32" on another canvas, or a
            source of `load_labelled_images`, which takes the options.
        streaming: Leave the training images a stream. Those for evaluation are then stored in the cache of `datasets`.

    Returns:
        Splits that give (PIL image in RGB, class index) by an index; a streamed training split is left as it is.

    Raises:
        ValueError: if there is no such data set, or it has no images or no labels.
    """
    if digits := DIGITS.fullmatch(dataset):
        from .digits import load_digits_images  # brings scikit-learn, which nothing else needs

        return load_digits_images(int(digits[1] or DIGITS_CANVAS))
    splits = load_labelled_images(dataset, streaming=streaming, **options)
    if streaming:
        return dataclasses.replace(splits, evaluation=LabelledImages(_stored(splits.evaluation)))
    return dataclasses.replace(splits, train=LabelledImages(splits.train), evaluation=LabelledImages(splits.evaluation))


def _stored(stream: datasets.IterableDataset) -> datasets.Dataset:
    """All rows of a stream, images undecoded, in a file of the cache."""
    return datasets.Dataset.from_generator(
        _rows, gen_kwargs={"stream": stream}, features=stream.features, split=stream.split
    )


def _rows(stream: datasets.IterableDataset) -> Iterator[dict[str, Any]]:
    yield from stream
