# Copyright 2026 The modeling_pixelvit team. All rights reserved.
# SPDX-License-Identifier: Apache-2.0
"""The table of tasks, which another one joins by `register_task`."""

import dataclasses
from typing import Any

from .base import Score, Task
from .classification import ClassificationTask
from .detection import DetectionTask
from .multi_label import MultiLabelTask
from .segmentation import SegmentationTask


TASKS: dict[str, type[Task]] = {}


def register_task(task: type[Task]):
    """Adds a task, or replaces the one of its name."""
    TASKS[task.name] = task


def task_named(name: str) -> type[Task]:
    """
    Raises:
        ValueError: if there is no such task.
    """
    if name not in TASKS:
        raise ValueError(f"task={name} was given; there are {', '.join(TASKS)}.")
    return TASKS[name]


def known_scores() -> dict[str, Score]:
    """How the scores of all tasks are called, by their names in `Task.metrics`."""
    return {name: score for task in TASKS.values() for name, score in task.scores.items()}


def check_options(name: str, *groups: Any):
    """
    Args:
        name: Of the task.
        groups: Options, as instances of dataclasses.

    Raises:
        ValueError: for an option, other than at its default, that other tasks have a use for and this one has not.
    """
    for group in groups:
        for option in dataclasses.fields(group):
            users = [task.name for task in TASKS.values() if option.name in task.options]
            if users and name not in users and getattr(group, option.name) != option.default:
                raise ValueError(
                    f"--{option.name} {getattr(group, option.name)} was given, which is for {' and '.join(users)}; "
                    f"leave it out for {name}."
                )


for task in (ClassificationTask, MultiLabelTask, SegmentationTask, DetectionTask):
    register_task(task)
