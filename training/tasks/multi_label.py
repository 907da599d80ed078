# Copyright 2026 The modeling_pixelvit team. All rights reserved.
# SPDX-License-Identifier: Apache-2.0
"""Multi-label classification: images of several classes or of none in, a yes or no for each class, mean AP out."""

import functools
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import torch
from PIL import Image
from torch.nn import functional as F
from torch.utils.data import Dataset

from ..data.classes import check_labels, classes_of, index_by_label
from ..data.coco import coco_files, load_detection_splits
from ..data.dense import IMAGE_COLUMNS, find_column, load_tables, undecoded
from ..data.digit_scenes import digit_scenes_canvas, load_digit_scenes
from ..data.labelled import read_image
from ..data.splits import Splits, choose_splits, held_out
from ..families.base import MULTI_LABEL
from .base import Batch, EmbeddedImages, Score, SourceOptions, patch_size_of
from .classification import ClassificationTask


LABELS_COLUMNS = ("labels", "label", "classes", "tags")


class LabelSets(Dataset):
    """
    Images by their index, each as (PIL image in RGB, float32 (C,), 1 for each class that it has and 0 else).

    Args:
        read: Gives the image by its index; it may raise `UnreadableImage`.
        labels: The class indices of each image.
        num_labels: C.
    """

    def __init__(self, read: Callable[[int], Image.Image], labels: list[list[int]], num_labels: int):
        self.read, self.labels, self.num_labels = read, labels, num_labels

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: int) -> tuple[Image.Image, torch.Tensor]:
        return self.read(index), self.truth(index)

    def truth(self, index: int) -> torch.Tensor:
        """The annotation alone; nothing is decoded."""
        truth = torch.zeros(self.num_labels)
        truth[self.labels[index]] = 1
        return truth


class MultiLabelTask(ClassificationTask):
    """
    See [`ClassificationTask`]. Annotations are float32 (C,), 1 for each class that an image has and 0 else.

    The data are a folder of images with a `metadata.jsonl` of `file_name` and `labels`, a folder of parquet files or a
    data set of the hub with such a column, of lists of names or of class indices; or images with COCO annotations, of
    which the objects' classes are taken.
    """

    name = "multi_label"
    options = frozenset({"min_crop_scale", "crop_padding", "color_jitter", "auto_augment", "random_erasing"})
    loss_name = "mean binary cross-entropy of a class of the test images"
    scores = {"mean_ap": Score("mAP", "mean over the classes of average precision", "mean_average_precision")}
    embedded_images = EmbeddedImages("digit scenes", "digit-scenes", 32)
    patch_sizes = (8, 4, 2)

    @classmethod
    def load_images(cls, data: SourceOptions) -> Splits:
        load_objects = functools.partial(load_detection_splits, with_masks=False)
        canvas_size = digit_scenes_canvas(data.dataset)
        if canvas_size is not None:
            return _of_objects(load_digit_scenes(load_objects, canvas_size))
        if coco_files(Path(data.dataset)):
            return _of_objects(load_objects(data.dataset, train_split=data.train_split, eval_split=data.eval_split))
        return _of_tables(data)

    @staticmethod
    def classes_in(truth: torch.Tensor, num_labels: int) -> list[int]:
        return truth.nonzero()[:, 0].tolist()

    def chance_loss(self) -> float:
        """Of the classes' shares of the evaluation images."""
        shares = torch.stack([self.images.evaluation.truth(index) for index in range(self.num_eval)]).mean(0)
        inside = shares[(shares > 0) & (shares < 1)]
        return float(-(inside * inside.log() + (1 - inside) * (1 - inside).log()).sum() / len(shares))

    def config_fields(self) -> dict[str, Any]:
        return {**super().config_fields(), "problem_type": MULTI_LABEL}

    def collate(self, examples: list[tuple[torch.Tensor, torch.Tensor]]) -> Batch:
        """`pixel_values` (B, 3, H, W) and `labels` (B, C), float32."""
        pixels, labels = zip(*examples, strict=True)
        return {"pixel_values": torch.stack(pixels), "labels": torch.stack(labels)}

    def prepare_batch(self, batch: Batch) -> Batch:
        return batch

    def losses(self, model: torch.nn.Module, batch: Batch) -> dict[str, torch.Tensor]:
        logits = model(pixel_values=batch["pixel_values"], **patch_size_of(batch)).logits
        return {"loss": F.binary_cross_entropy_with_logits(logits.float(), batch["labels"].float())}

    def results(self, model: torch.nn.Module, batch: Batch) -> list[tuple[float, np.ndarray, np.ndarray]]:
        """Of each image its loss, and of each class the logit and whether the image has it."""
        logits = model(
            pixel_values=batch["pixel_values"], interpolate_pos_encoding=True, **patch_size_of(batch)
        ).logits.float()
        labels = batch["labels"].float()
        losses = F.binary_cross_entropy_with_logits(logits, labels, reduction="none").mean(1)
        return list(zip(losses.tolist(), logits.cpu().numpy(), labels.cpu().numpy() == 1, strict=True))

    def metrics(self, results: list[tuple[float, np.ndarray, np.ndarray]]) -> dict[str, float]:
        """
        Mean loss, and the mean over the classes that occur of scikit-learn's average precision.

        Raises:
            ValueError: if no image has a class.
        """
        from sklearn.metrics import average_precision_score

        losses, logits, labels = zip(*results, strict=True)
        logits, labels = np.stack(logits).astype(np.float64), np.stack(labels)
        logits = np.nan_to_num(logits, nan=np.finfo(np.float32).min)  # what is not a number comes last
        occur = labels.any(0)
        if not occur.any():
            raise ValueError(f"None of the {len(labels)} images has a class, so there is no mean AP; check the labels.")
        precisions = average_precision_score(labels[:, occur], logits[:, occur], average=None)
        return {"loss": sum(losses) / len(losses), "mean_ap": 100 * float(np.mean(precisions))}

    def image_values(self, results: list[tuple[float, np.ndarray, np.ndarray]]) -> dict[str, list[float]]:
        return {"loss": [loss for loss, _, _ in results]}


def _of_objects(splits: Splits) -> Splits:
    """A detection data set, of whose objects the classes count."""

    def labels_of(images: Any) -> LabelSets:
        records = map(images.record, range(len(images)))
        labels = [sorted({found.class_label for found in record.objects}) for record in records]
        return LabelSets(functools.partial(_image_of, images), labels, len(splits.label_names))

    return replace(splits, train=labels_of(splits.train), evaluation=labels_of(splits.evaluation))


def _of_tables(data: SourceOptions) -> Splits:
    """Tables with a column of images and one of lists of labels."""
    source, tables = data.dataset, load_tables(data.dataset)
    train_name, eval_name = choose_splits(tables, source, data.train_split, data.eval_split)
    train = tables[train_name]
    image_column = find_column(train, source, data.image_column, IMAGE_COLUMNS, "--image_column", "images")
    column = find_column(train, source, data.label_column, LABELS_COLUMNS, "--label_column", "lists of labels")
    names = _class_names(train, column, source)
    indices = index_by_label(names)

    def labels_of(split: datasets.Dataset, split_name: str) -> LabelSets:
        images = undecoded(split.select_columns(image_column), image_column)
        labels = split[column][:]
        for place, found in enumerate(labels):
            check_labels(found or (), indices, f"{split_name}[{place}] of {source}")
        read = functools.partial(_read, images, image_column, split_name)
        return LabelSets(read, [[indices[label] for label in found or ()] for found in labels], len(names))

    if eval_name is None:
        train, evaluation = held_out(train, source)
        eval_name = train_name
    else:
        evaluation = tables[eval_name]
    return Splits(
        name=source,
        label_names=[str(name) for name in names],
        train=labels_of(train, train_name),
        evaluation=labels_of(evaluation, eval_name),
    )


def _image_of(images: Dataset, index: int) -> Image.Image:
    return images[index][0]


def _read(images: datasets.Dataset, column: str, split_name: str, index: int) -> Image.Image:
    return read_image(images[index][column], f"{split_name}[{index}]")


def _class_names(train: datasets.Dataset, column: str, source: str) -> list[Any]:
    """The declared classes, or names in their order, or as many numbers as there are."""
    declared = getattr(train.features[column], "feature", None)
    if isinstance(declared, datasets.ClassLabel):
        return list(declared.names)
    labels = train[column][:]
    values = {label for found in labels if isinstance(found, list) for label in found}
    if declared is None or not values:
        raise ValueError(
            f"The column {column} of {source} holds no lists of labels; give each image a list of class names or "
            "numbers, or use --task classification for one class an image."
        )
    return classes_of(values, f"The column {column} of {source}")
