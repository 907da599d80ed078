# Copyright 2026 The modeling_pixelvit team. All rights reserved.
# SPDX-License-Identifier: Apache-2.0
"""The classification as a task: labels that are smoothed and mixed, and what counts as right."""

import math
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from training.settings.recipe import Recipe
from training.tasks.base import SourceOptions
from training.tasks.classification import ClassificationTask


@pytest.fixture(scope="module")
def digits():
    return ClassificationTask.load_images(SourceOptions(dataset="digits"))


def test_number_of_classes_that_are_named():
    with pytest.raises(ValueError, match="--num_labels 3 was given, but --dataset digits names its 10 classes"):
        ClassificationTask.load_images(SourceOptions(dataset="digits", num_labels=3))


def make_task(images, **fields):
    plain = {"auto_augment": None, "color_jitter": 0.0, "mixup_probability": 0.0, "random_erasing": 0.0}
    return ClassificationTask(Recipe(family="pixelvit", image_size=16, patch_size=16, **{**plain, **fields}), images)


def answering(logits):
    return lambda **inputs: SimpleNamespace(logits=torch.as_tensor(logits, dtype=torch.float32))


def test_smoothed_labels(digits):
    batch = {"pixel_values": torch.zeros(3, 3, 16, 16), "labels": torch.tensor([0, 4, 9])}
    found = make_task(digits, label_smoothing=0.3).prepare_batch(batch)["labels"]
    expected = torch.full((3, 10), 0.03)
    expected[range(3), [0, 4, 9]] += 0.7
    torch.testing.assert_close(found, expected)


def test_mixed_images_and_labels(digits):
    pixels = torch.arange(4.0).reshape(4, 1, 1, 1).expand(4, 3, 16, 16).clone()
    batch = {"pixel_values": pixels, "labels": torch.arange(4)}
    np.random.seed(0)
    found = make_task(digits, mixup_probability=1.0, cutmix_alpha=0.0, label_smoothing=0.0).prepare_batch(batch)
    torch.testing.assert_close(found["labels"].sum(1), torch.ones(4))
    # An image is mixed as its label is: its grey level is the mean class.
    torch.testing.assert_close(found["pixel_values"][:, 0, 0, 0], found["labels"] @ torch.arange(10.0))


def test_loss_and_accuracy(digits):
    task, logits = make_task(digits), np.tile(np.arange(10.0), (4, 1))
    batch = {"pixel_values": torch.zeros(4, 3, 16, 16), "labels": torch.tensor([9, 5, 4, 0])}
    found = task.metrics(task.results(answering(logits), batch))
    expected = F.cross_entropy(torch.tensor(logits), batch["labels"]).item()
    assert found == {"loss": pytest.approx(expected), "accuracy": 25.0, "accuracy_top5": 50.0}
    logits[0, 9] = np.nan  # is no answer, although it was the right one
    found = task.metrics(task.results(answering(logits), batch))
    assert (found["accuracy"], found["accuracy_top5"]) == (0.0, 25.0) and math.isnan(found["loss"])
    hard = {**batch, "labels": F.one_hot(batch["labels"], 10).float()}
    logits[0, 9] = 9
    torch.testing.assert_close(task.losses(answering(logits), hard)["loss"].item(), expected)
    assert task.chance_loss() == pytest.approx(math.log(10), rel=0.01)  # nearly equally many of each digit
