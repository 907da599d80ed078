# Copyright 2026 The modeling_pixelvit team. All rights reserved.
# SPDX-License-Identifier: Apache-2.0
"""Which images are trained on and which are evaluated on, whatever is to be learned of them."""

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

import datasets
import numpy as np
from transformers.image_utils import IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD


# What is looked at while training is chosen by; a test set is for what was chosen, if there is another.
EVALUATION_SPLITS = ("validation", "valid", "val", "test")
EVALUATION_SHARE = 0.2  # held out of the training images where there is no other split
SPLIT_SEED = 2026


@dataclass(frozen=True)
class Splits:
    """
    Training and evaluation images, with what they have in common.

    Args:
        name: The source, for reports.
        label_names: The name of each class.
        train, evaluation: Data sets that give (PIL image in RGB, annotation) by an index; a streamed one for training
            is a `datasets.IterableDataset`.
        image_mean, image_std: Normalization per channel, for pixels in [0, 1]; ImageNet's if not given.
        stream_length: Images in a training stream that does not tell it.
    """

    name: str
    label_names: list[str]
    train: Any
    evaluation: Any
    image_mean: list[float] = field(default_factory=lambda: list(IMAGENET_DEFAULT_MEAN))
    image_std: list[float] = field(default_factory=lambda: list(IMAGENET_DEFAULT_STD))
    stream_length: int | None = None

    @property
    def num_train_images(self) -> int | None:
        """Number of training images; None for a stream that does not know its length."""
        if not isinstance(self.train, datasets.IterableDataset):
            return len(self.train)
        if self.stream_length is not None:
            return self.stream_length
        splits = self.train.info.splits or {}
        return splits[self.train.split].num_examples or None if self.train.split in splits else None

    def identity(self) -> dict[str, Any]:
        """What tells these images from others under the same name; for JSON."""
        return {
            "label_names": list(self.label_names),
            "num_train_images": self.num_train_images,
            "num_test_images": len(self.evaluation),
        }


def choose_splits(
    names: Iterable[str], source: str, train_split: str | None = None, eval_split: str | None = None
) -> tuple[str, str | None]:
    """
    The splits for training and for evaluation, by the beginning of their names ("train2017", "training").

    Returns:
        For training `train_split`, or the first split that begins with "train", or else the first. For evaluation
        `eval_split`, or the first other one that begins with "validation", "valid", "val" or "test", in this order;
        None if there is none.

    Raises:
        ValueError: if a given split does not exist.
    """
    names = list(names)
    for option, name in (("train_split", train_split), ("eval_split", eval_split)):
        if name is not None and name not in names:
            raise ValueError(
                f"--{option} {name} was given, but {source} has the splits {', '.join(names)}; choose from these."
            )
    if train_split is None:
        train_split = next((name for name in names if name.startswith("train")), names[0])
    return train_split, eval_split or next(iter(evaluation_splits(names, train_split)), None)


def evaluation_splits(names: Iterable[str], train_split: str) -> list[str]:
    """Those to evaluate on, the best choice first."""
    others = [name for name in names if name != train_split]
    return list(dict.fromkeys(name for kind in EVALUATION_SPLITS for name in others if name.startswith(kind)))


def held_out(images: Any, source: str) -> tuple[Any, Any]:
    """
    Images for training, and a fifth of them for evaluation: the same each time.

    Args:
        images: With a length, and `select` by indices.
        source: What has them, for messages.

    Raises:
        ValueError: if there are fewer than two images.
    """
    num_images = len(images)
    if num_images < 2:
        raise ValueError(f"{source} has {num_images} usable images; at least two are needed, to train and to test.")
    order = np.random.default_rng(SPLIT_SEED).permutation(num_images).tolist()
    num_held_out = max(1, round(EVALUATION_SHARE * num_images))
    return images.select(sorted(order[num_held_out:])), images.select(sorted(order[:num_held_out]))
