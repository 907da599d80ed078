# Copyright 2026 The modeling_pixelvit team. All rights reserved.
# SPDX-License-Identifier: Apache-2.0
"""What a recipe or a command asks for, and the task has no use for."""

import pytest

from training.settings.recipe import load_recipe
from training.tasks.base import DataOptions
from training.tasks.registry import TASKS, check_options


of_dense_tasks = pytest.mark.parametrize("task", ["segmentation", "detection"])


@of_dense_tasks
@pytest.mark.parametrize(
    ("field", "value", "off"),
    [
        ("mixup_probability", 1.0, "0.0"),
        ("color_jitter", 0.3, "0.0"),
        ("auto_augment", "3a", "none"),
        ("random_erasing", 0.25, "0.0"),
        ("label_smoothing", 0.1, "0.0"),
    ],
)
def test_what_only_classification_has(task, field, value, off):
    recipe = load_recipe(f"pixelvit-{task}", **{field: value})
    with pytest.raises(ValueError, match=f"{field}={value} was given, which {task} .* set it to {off}"):
        TASKS[task].check_recipe(recipe)


@of_dense_tasks
def test_streaming(task):
    with pytest.raises(ValueError, match=r"--streaming True was given, which is for classification; leave"):
        check_options(task, DataOptions(streaming=True))
