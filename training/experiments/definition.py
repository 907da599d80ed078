# Copyright 2026 The modeling_pixelvit team. All rights reserved.
# SPDX-License-Identifier: Apache-2.0
"""
Experiments and scales as data: files of `definitions/`, and `scales.yaml`.

An experiment says what is compared: a grid of values for the fields of recipes and models, which of them is the axis
of its figure, and which tell its curves apart. A scale says on what: images, their size and the recipes. Any experiment
can be run at any scale that has its task.
"""

import dataclasses
import itertools
import types
import typing
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from ..families.registry import FAMILIES
from ..settings.recipe import read_mapping, suggestion
from ..tasks.registry import TASKS
from .report import AXES


DEFINITIONS_DIR = Path(__file__).parent / "definitions"
SCALES_FILE = Path(__file__).parent / "scales.yaml"
# What a point can be told beside the fields of recipes and of models' configurations.
LABEL, IMAGES, COMPUTE, STORED_SIZE = "label", "images", "compute", "stored_image_size"
OF_POINTS = ("family", LABEL, IMAGES, COMPUTE, STORED_SIZE)
EVERY = "every"  # of the task's patch sizes at the scale


class ExperimentError(ValueError):
    """An experiment that cannot be run; the message says what was given, what is allowed and what to do."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Experiment:
    """
    Args:
        name: Of its file.
        title: Of its figure.
        question: What it answers, in one sentence.
        parts: Names of the experiments that it is made of; it has no grids of its own then.
        task: What is learned.
        families: Those that it is about.
        seeds: Every point is trained with each.
        base: Fields that all points have.
        grids: Each maps fields to the values that they take; all combinations are points. `every` stands for the
            task's patch sizes. Beside recipes' and models' fields there are `family`; `images` and `compute`, the
            length of the training as a share of the recipe's images, or of the operations that these take without a
            schedule (with draws: of all drawn patch sizes together); `stored_image_size`, the side in pixels to which
            images are resized before they are resized to `image_size`; and `label`, which names the grid's curve.
        x: The figure's axis, one of `report.AXES`.
        series: Fields whose values tell the curves apart, beside the label.
        reference: Label of the grid that the other curves are compared with.
        front: Whether the figure marks the points that no other one beats at less computation.
        start: What each point's training begins from: a mapping with the `task` of another run, and what is different
            in it; it has the point's family, sizes, patch and seed.
        paper: Which of the paper's tables and figures it is, as "table4".
        scales: What is different at some scales: any of the above by the scale's name.
    """

    name: str
    title: str
    question: str
    parts: list[str] = dataclasses.field(default_factory=list)
    task: str = "classification"
    families: list[str] = dataclasses.field(default_factory=lambda: list(FAMILIES))
    seeds: list[int] = dataclasses.field(default_factory=lambda: [0, 1, 2])
    base: dict[str, Any] = dataclasses.field(default_factory=dict)
    grids: list[dict[str, Any]] = dataclasses.field(default_factory=list)
    x: str = "patch_size"
    series: list[str] = dataclasses.field(default_factory=lambda: ["family"])
    reference: str | None = None
    front: bool = False
    start: dict[str, Any] | None = None
    paper: list[str] = dataclasses.field(default_factory=list)
    scales: dict[str, dict[str, Any]] = dataclasses.field(default_factory=dict)

    def at(self, scale: str) -> "Experiment":
        """The experiment with what is different at a scale."""
        return build_experiment({**dataclasses.asdict(self), **self.scales.get(scale, {}), "scales": {}}, self.name)

    def combinations(self, patch_sizes: Iterable[int]) -> Iterator[dict[str, Any]]:
        """
        The fields of each point but its seed, grid by grid.

        Args:
            patch_sizes: What `every` stands for.
        """
        for grid in self.grids:
            alternatives = {"family": self.base.get("family", self.families), **grid}
            for name, values in alternatives.items():
                values = list(patch_sizes) if values in (EVERY, [EVERY]) and name == "patch_size" else values
                alternatives[name] = values if isinstance(values, list) else [values]
            for values in itertools.product(*alternatives.values()):
                yield {**self.base, **dict(zip(alternatives, values, strict=True))}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Scale:
    """
    On what an experiment is run.

    Args:
        name: Its key in `scales.yaml`.
        about: What it is, in a sentence.
        dataset: The images, as `--dataset` of the commands has them; those that are embedded if not given.
        image_size: Side of the images in pixels; the embedded ones' own if not given.
        recipes: Endings of the recipes' names after the family's, by task; those of the sweep if not given.
        patch_sizes: What `every` stands for, by task; the task's own if not given.
        epochs: Of the training; the recipes' own if not given.
        changes: Fields that differ from the recipes', by task.
        start: What a training at this scale begins from, by task, as an experiment's `start`; its `scale` is another
            one.
        how: Options of the training loop.
        num_train_images, num_labels: Of the data set, for plans without it.
    """

    name: str
    about: str
    dataset: str | None = None
    image_size: int | None = None
    recipes: dict[str, str] = dataclasses.field(default_factory=dict)
    patch_sizes: dict[str, list[int]] = dataclasses.field(default_factory=dict)
    epochs: float | None = None
    changes: dict[str, dict[str, Any]] = dataclasses.field(default_factory=dict)
    start: dict[str, dict[str, Any]] = dataclasses.field(default_factory=dict)
    how: dict[str, Any] = dataclasses.field(default_factory=dict)
    num_train_images: int | None = None
    num_labels: int | None = None

    def has(self, task: str) -> bool:
        """Whether it has images and a recipe for a task."""
        return task in self.recipes or (self.dataset is None and not self.recipes)


def find_experiments() -> dict[str, Path]:
    """The files of `definitions/` by name."""
    return {path.stem: path for path in sorted(DEFINITIONS_DIR.glob("*.yaml"))}


def load_experiment(name: str) -> Experiment:
    """
    Args:
        name: Of a file in `definitions/` without its ending, or the path of a YAML file.

    Raises:
        ExperimentError: if there is none, or it cannot be used.
    """
    found = find_experiments()
    if name.endswith((".yaml", ".yml")):
        path = Path(name)
    elif name in found:
        path = found[name]
    else:
        raise ExperimentError(
            f"The experiment {name!r} was given; there are {', '.join(found)}.{suggestion(name, found)}"
        )
    return build_experiment({"name": path.stem, **_read(path)}, str(path))


def load_scales() -> dict[str, Scale]:
    """All scales by name."""
    return {name: Scale(name=name, **fields) for name, fields in _read(SCALES_FILE).items()}


def build_experiment(fields: dict[str, Any], where: str) -> Experiment:
    """
    Raises:
        ExperimentError: for a field that there is not, or a value that it cannot have, naming where it is from.
    """
    known = {field.name: field for field in dataclasses.fields(Experiment)}
    for name in fields:
        if name not in known:
            raise ExperimentError(
                f"{where} sets {name!r}; an experiment has {', '.join(known)}.{suggestion(name, known)}"
            )
    for name in ("title", "question"):
        if not isinstance(fields.get(name), str):
            raise ExperimentError(f"{where} has no {name}; give it one, in a sentence.")
    for name, hint in typing.get_type_hints(Experiment).items():
        if name in fields and not _fits(fields[name], hint):
            raise ExperimentError(f"{where} sets {name}: {fields[name]!r}; it must be of the type {hint}.")
    experiment = Experiment(**fields)
    if Path(experiment.name).name != experiment.name:
        raise ExperimentError(f"{where} sets name: {experiment.name}; folders are made of it, so it has no slash.")
    if bool(experiment.parts) == bool(experiment.grids):
        raise ExperimentError(
            f"{where} must have either grids or parts; it has {'both' if experiment.grids else 'none'}."
        )
    for wanted, allowed, what in (
        ([experiment.task], TASKS, "task"),
        (experiment.families, FAMILIES, "families"),
        ([experiment.x], AXES, "x"),
    ):
        for one in wanted:
            if one not in allowed:
                raise ExperimentError(f"{where} sets {what}: {one}; there are {', '.join(allowed)}.")
    for fields in ({"families": experiment.families}, *experiment.grids):
        for name, values in fields.items():
            if values == []:
                raise ExperimentError(f"{where} sets {name}: []; give one value or more, or leave it out.")
    if not experiment.seeds or not all(0 <= seed < 2**32 for seed in experiment.seeds):
        raise ExperimentError(f"{where} sets seeds: {experiment.seeds}; give one or more from 0 to 2^32 - 1.")
    scales = _read(SCALES_FILE) if experiment.scales else {}
    for name in experiment.scales:
        if name not in scales:
            raise ExperimentError(
                f"{where} sets scales: {name}; there are {', '.join(scales)}.{suggestion(name, scales)}"
            )
    return experiment


def _fits(value: Any, hint: Any) -> bool:
    """Whether a value from a YAML file is of an annotated type."""
    if isinstance(hint, types.UnionType):
        return any(_fits(value, one) for one in typing.get_args(hint))
    if hint is Any:
        return True
    kind, inside = typing.get_origin(hint) or hint, typing.get_args(hint)
    if not isinstance(value, kind) or (kind is int and isinstance(value, bool)):
        return False
    if kind is dict:
        return all(_fits(part, of) for item in value.items() for part, of in zip(item, inside, strict=True))
    return kind is not list or all(_fits(one, inside[0]) for one in value)


def _read(path: Path) -> dict[str, Any]:
    return read_mapping(path, "experiment", ExperimentError)
