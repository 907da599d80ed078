# Copyright 2026 The modeling_pixelvit team. All rights reserved.
# SPDX-License-Identifier: Apache-2.0
"""The classes of labels, which are names, or numbers from 0 on."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any


def given_names(names: Sequence[str] | int) -> list[str]:
    """Names of classes where these, or their number, are given."""
    return [str(index) for index in range(names)] if isinstance(names, int) else [str(name) for name in names]


def classes_of(labels: Iterable[Any], source: str) -> list[str] | list[int]:
    """
    The classes of labels that declare none: names in their order, or as many numbers as there are.

    Args:
        source: What has the labels, for messages.

    Raises:
        ValueError: if there are none, or they are neither all strings nor all integers from 0 on.
    """
    labels = list(labels)
    if labels and all(isinstance(label, str) for label in labels):
        return sorted(set(labels))
    wrong = [label for label in labels if not isinstance(label, int) or label < 0]
    if wrong or not labels:
        found = f"the label {wrong[0]!r}" if wrong else "no labels"
        raise ValueError(f"{source} has {found}; labels are strings, or integers from 0 on.")
    return list(range(max(labels) + 1))


def index_by_label(classes: Sequence[Any]) -> dict[Any, int]:
    """The index of a class by its name and by itself, since data sets give either."""
    return {name: index for index, name in enumerate(classes)} | {index: index for index in range(len(classes))}


def check_labels(labels: Iterable[Any], indices: Mapping[Any, int], source: str):
    """
    Args:
        indices: What `index_by_label` gives.
        source: What has the labels, for messages.

    Raises:
        ValueError: for a label of no class.
    """
    for label in labels:
        if label not in indices:
            count = len(set(indices.values()))
            raise ValueError(
                f"{source} has the label {label!r}, which is none of the {count} classes; correct it, or choose "
                "another split."
            )
