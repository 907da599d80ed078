# Copyright 2026 The modeling_pixelvit team. All rights reserved.
# SPDX-License-Identifier: Apache-2.0
"""The points of an experiment at a scale, and the runs that they stand for, which several points may share."""

import dataclasses
import functools
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, get_args

from huggingface_hub.errors import StrictDataclassError
from transformers import PreTrainedConfig

from modeling_pixelvit.configuration_detection import DetectionHeadConfig
from modeling_pixelvit.configuration_segmentation import SegmentationHeadConfig

from ..data.batches import TrainingBatches
from ..families.registry import FAMILIES
from ..settings.recipe import Recipe, as_declared, load_recipe, suggestion
from ..tasks.base import SWITCHED_OFF
from ..tasks.registry import TASKS
from .arguments import DATASET_EPOCHS, DATASET_IMAGE_SIZE
from .changes import PHOTOGRAPHS, WARMUP_SHARE, change_recipe, set_length
from .definition import (
    COMPUTE,
    EVERY,
    IMAGES,
    LABEL,
    OF_POINTS,
    STORED_SIZE,
    Experiment,
    ExperimentError,
    Scale,
    load_scales,
)
from .fits import readable
from .report import AXIS_UNITS
from .run import Run, cost_of, forward_flops, tell_images, training_cost


FAST_BATCHES = 12
NOT_VARIED = {
    "model": "give the fields of models' configurations by their names",
    "seed": "the experiment's seeds stand in its list of seeds, or come by --seeds",
    "task": "an experiment has one, which stands beside its grids",
}
RANGES = {
    **dict.fromkeys((IMAGES, COMPUTE), (lambda x: x is None or _is_number(x, int | float), "a number above zero")),
    **dict.fromkeys((STORED_SIZE, "image_size"), (lambda x: _is_number(x, int), "a whole number above zero")),
    "patch_size": (lambda x: _is_number(x, int), f"a whole number above zero, or {EVERY!r}"),
    LABEL: (lambda x: isinstance(x, str), "a text"),
}
RECIPE_TYPES = {field.name: field.type for field in dataclasses.fields(Recipe)}
START_KEYS = ("task", "scale", "recipe", "image_size", "epochs", "start")
START_RANGES = {
    "task": (lambda x: x in list(TASKS), f"one of {', '.join(TASKS)}"),
    "epochs": RANGES[IMAGES],
    "start": (lambda x: x is None or isinstance(x, dict), "a mapping"),
}
HEAD_FIELDS = frozenset(
    field.name for cls in (SegmentationHeadConfig, DetectionHeadConfig) for field in dataclasses.fields(cls)
)


@dataclasses.dataclass(frozen=True)
class Images:
    """What a plan needs to know of a data set: how many training images and classes it has."""

    num_train: int
    num_labels: int
    told: dict[str, Any] | None = None  # by `run.tell_images`, where they have been loaded


@dataclasses.dataclass(frozen=True)
class Choices:
    """
    What the command line chooses for an experiment.

    Args:
        points_dir: Folder of all runs, of all experiments.
        dataset, start_dataset: Images instead of the scale's, for the points and for what they start from.
        image_size, epochs, seeds, families: Instead of the scale's and the experiment's.
        fast: A few batches of a few points, which shows that all works and gives no result.
        how: Options of the training loop.
    """

    points_dir: str = "runs/points"
    dataset: str | None = None
    start_dataset: str | None = None
    image_size: int | None = None
    epochs: float | None = None
    seeds: tuple[int, ...] = ()
    families: tuple[str, ...] = ()
    fast: bool = False
    how: dict[str, Any] = dataclasses.field(default_factory=dict)


@dataclasses.dataclass(frozen=True)
class Point:
    """
    One point of a figure.

    Args:
        group: What is compared within: the family's title.
        variant: What tells its curve from the others of the group; "" if nothing does.
        run: What it takes.
    """

    group: str
    variant: str
    run: Run

    @property
    def series(self) -> str:
        return ", ".join(part for part in (self.group, self.variant) if part)


class Planner:
    """
    Args:
        experiment: As it is at the scale.
        scale: On what.
        choices: Of the command line.
        load: Images of (recipe, source, image size), of which `train` and `label_names` are looked at.
    """

    def __init__(self, experiment: Experiment, scale: Scale, choices: Choices, load: Callable[[Recipe, str, int], Any]):
        self.experiment, self.scale, self.choices, self.load = experiment, scale, choices, load
        self.scales = load_scales()
        self.known_images: dict[tuple[str, str, int], Images] = {}
        self.recipes: dict[tuple[str, str, str | None], tuple[Recipe, PreTrainedConfig]] = {}
        self.runs: dict[str, Run] = {}
        self.left_out: list[str] = []  # what cannot be at these images, in words
        self.configs = [family.config_class() for family in FAMILIES.values()]

    def points(self) -> list[Point]:
        """
        All points, seed by seed.

        Raises:
            ExperimentError: for fields that nothing has, or an experiment that the scale has no images for.
            ValueError: for a value that a recipe or a model does not take.
        """
        experiment, task = self.experiment, self.experiment.task
        if not self.scale.has(task):
            fitting = ", ".join(name for name, scale in self.scales.items() if scale.has(task))
            raise ExperimentError(
                f"--scale {self.scale.name} was given, which has no images for {task}, the task of {experiment.name}; "
                f"choose from {fitting}."
            )
        size = self._image_size(self.scale, task, self.choices.image_size)
        sizes = self.scale.patch_sizes.get(task) or TASKS[task].patch_sizes
        sizes = sorted((one for one in sizes if size % one == 0), reverse=True)
        combinations = list(self._narrowed().combinations(sizes[:2] if self.choices.fast else sizes))
        combinations = [one for one in combinations if one["family"] in (self.choices.families or [one["family"]])]
        self._check_fields(list(experiment.combinations(sizes)))
        seeds = self.choices.seeds or tuple(experiment.seeds)
        points: dict[tuple[str, str, str], Point] = {}
        places: dict[tuple[str, float, int], tuple[str, dict[str, Any]]] = {}
        for fields in combinations:
            patch_size, image_size = fields.get("patch_size"), fields.get("image_size", size)
            if isinstance(patch_size, list) or patch_size == EVERY:
                raise ExperimentError(
                    f"{experiment.name} has patch_size={patch_size} in its base, where a field has one value; several "
                    "stand in a grid."
                )
            for name, value in fields.items():
                if name in RANGES and not RANGES[name][0](value):
                    raise ExperimentError(f"{experiment.name} sets {name}: {value}; it must be {RANGES[name][1]}.")
            if fields.get(IMAGES) is not None and fields.get(COMPUTE) is not None:
                raise ExperimentError(
                    f"{experiment.name} sets {IMAGES}: {fields[IMAGES]} and {COMPUTE}: {fields[COMPUTE]} of one point; "
                    "either is the length of its training, so leave one out."
                )
            if patch_size is not None and image_size % patch_size:
                self.left_out.append(f"patch {patch_size}, which does not divide images of {image_size} pixels")
                continue
            for seed in seeds[:1] if self.choices.fast else seeds:
                try:
                    run = self._run(fields, seed, self.scale, task, self._start_of(self.scale, task))
                except (StrictDataclassError, TypeError) as error:  # others have a sentence
                    told = ", ".join(f"{name}: {value}" for name, value in fields.items())
                    reason = " ".join(str(error.__cause__ or error).split())
                    raise ExperimentError(f"{experiment.name} has a point that cannot be ({told}): {reason}") from None
                point = Point(*self._name_curve(fields), run)
                points.setdefault((point.group, point.variant, run.key), point)
                place = self._place(run)
                key, others = places.setdefault((point.series, place, seed), (run.key, fields))
                if key != run.key:
                    names = [name for name in fields | others if fields.get(name) != others.get(name)]
                    told = ", ".join(
                        f"{name}: {others.get(name, 'unset')} and {fields.get(name, 'unset')}" for name in names
                    )
                    raise ExperimentError(
                        f"{experiment.name} has two points at {AXIS_UNITS[experiment.x].format(readable(place))} of "
                        f"the curve {point.series} ({told}), which would count as seeds of one; name in its series "
                        "what differs, or give grids labels."
                    )
        self.left_out = list(dict.fromkeys(self.left_out))
        if not points:
            left_out = "; ".join(self.left_out) or f"all families but {', '.join(self.choices.families)}"
            raise ExperimentError(f"{experiment.name} has no points left; left out: {left_out}.")
        variants = dict.fromkeys(point.variant for point in points.values())
        has_all = not self.left_out and not self.choices.families
        if experiment.reference is not None and experiment.reference not in variants and has_all:
            raise ExperimentError(
                f"{experiment.name} sets reference: {experiment.reference}; its curves are {', '.join(variants)}."
            )
        return list(points.values())

    def _narrowed(self) -> Experiment:
        """With the families of the command line, and fewer values if it is to be fast."""
        families = [name for name in self.experiment.families if name in (self.choices.families or FAMILIES)]
        grids = self.experiment.grids
        if self.choices.fast:
            grids = [{name: _first_two(name, values) for name, values in grid.items()} for grid in grids]
        return dataclasses.replace(self.experiment, families=families, grids=grids)

    def _check_fields(self, combinations: list[dict[str, Any]]):
        families: dict[str, set[str]] = {}
        for fields in combinations:
            if fields["family"] not in list(FAMILIES):
                raise ExperimentError(
                    f"{self.experiment.name} sets family: {fields['family']}; it must be one of {', '.join(FAMILIES)}."
                )
            for name in fields:
                families.setdefault(name, set()).add(fields["family"])
        for name in self.experiment.series:
            if name not in families:
                raise ExperimentError(
                    f"{self.experiment.name} names {name!r} in its series, which none of its points sets; there are "
                    f"{', '.join(families)}.{suggestion(name, families)}"
                )
        start = {name: set(FAMILIES) for name in self.experiment.start or {} if name not in START_KEYS}
        recipe = Recipe()
        for name, of_families in (families | start).items():
            if name in NOT_VARIED:
                raise ExperimentError(f"{self.experiment.name} varies {name!r}; {NOT_VARIED[name]}.")
            owners = [recipe, *(config for config in self.configs if config.model_type in of_families)]
            if name not in OF_POINTS and not any(name in vars(owner) for owner in owners):
                known = {*OF_POINTS, *(field for owner in owners for field in vars(owner))}
                raise ExperimentError(
                    f"{self.experiment.name} varies {name!r}, which is no field of a recipe or of a configuration of "
                    f"{' or '.join(sorted(of_families))}, and none of {', '.join(OF_POINTS)}.{suggestion(name, known)}"
                )

    def _place(self, run: Run) -> float:
        """On the figure's axis."""
        recipe, num_labels = run.recipe, self.images_of(run).num_labels
        if self.experiment.x == "training_flops":
            return training_cost(run, num_labels)
        if self.experiment.x == "parameters":
            return cost_of(recipe, num_labels, recipe.patch_size).parameters
        if self.experiment.x == "images_seen":
            return run.num_batches * recipe.total_batch_size
        return run.num_tokens if self.experiment.x == "tokens" else recipe.patch_size

    def _name_curve(self, fields: dict[str, Any]) -> tuple[str, str]:
        words = [fields[LABEL]] if LABEL in fields else []
        for name in self.experiment.series:
            if name != "family" and name in fields:
                value = fields[name]
                words.append(value if isinstance(value, str) else f"{name.replace('_', ' ')} {value}")
        return FAMILIES[fields["family"]].title, ", ".join(words)

    def _image_size(self, scale: Scale, task: str, chosen: int | None) -> int:
        own = DATASET_IMAGE_SIZE if scale.dataset or self.choices.dataset else TASKS[task].embedded_images.image_size
        return chosen or scale.image_size or own

    def _start_of(self, scale: Scale, task: str) -> dict[str, Any] | None:
        own, of_scale = self.experiment.start, scale.start.get(task)
        start = None if own is None and of_scale is None else {**(own or {}), **(of_scale or {})}
        if start is not None and start.get("scale", self.scale.name) not in self.scales:
            known = ", ".join(self.scales)
            raise ExperimentError(f"{self.experiment.name} starts at the scale {start['scale']!r}; there are {known}.")
        return start

    def _run(
        self,
        fields: dict[str, Any],
        seed: int,
        scale: Scale,
        task: str,
        start: dict[str, Any] | None,
        spec: dict[str, Any] | None = None,
    ) -> Run:
        """
        A run, and before it what it starts from.

        Args:
            fields: Of the point.
            spec: What is told of a start beside its task; None for a point.
        """
        is_start, spec = spec is not None, spec or {}
        family = fields["family"]
        ending = spec.get("recipe") or scale.recipes.get(task) or TASKS[task].sweep_recipe
        is_small = ending == TASKS[task].sweep_recipe
        chosen = self.choices.start_dataset if is_start else self.choices.dataset
        if chosen is None and is_start and task == self.experiment.task:
            chosen = self.choices.dataset  # an earlier stage, on the same images
        dataset = chosen or scale.dataset
        image_size = self._image_size(scale, task, spec.get("image_size") or self.choices.image_size)
        photographs = PHOTOGRAPHS if dataset and is_small and "crop_padding" in TASKS[task].options else {}
        wanted = {**photographs, **scale.changes.get(task, {}), **spec.get("changes", {}), **fields, "seed": seed}
        wanted.setdefault("image_size", image_size)
        recipe = self._recipe(f"{family}-{ending}", task, wanted)
        source = dataset or TASKS[task].embedded_images.title
        data = {"source": source, "image_size": fields.get(STORED_SIZE, recipe.image_size)}
        images = self._images(recipe, data, scale)
        if images.num_train < recipe.total_batch_size:
            raise ExperimentError(
                f"{source} has {images.num_train} training images, fewer than the {recipe.total_batch_size} of a "
                "batch; add some, or make it smaller: --batch_size of a sweep, or an experiment's total_batch_size."
            )
        epochs = spec.get("epochs") or (None if is_start else self.choices.epochs) or scale.epochs
        if epochs is None:
            epochs = DATASET_EPOCHS if dataset and is_small else recipe.num_train_epochs
        for name, is_ignored, instead in (
            ("num_train_epochs", epochs != recipe.num_train_epochs, f"of {epochs:g} epochs; vary {IMAGES}, its share"),
            ("warmup_epochs", is_small, f"which has a warmup of {WARMUP_SHARE:.0%}; leave it out"),
        ):
            if name in fields and is_ignored:
                raise ExperimentError(f"{self.experiment.name} sets {name} of a training {instead}.")
        steps_per_epoch = TrainingBatches(recipe, images.num_train).steps_per_epoch
        seen = epochs * images.num_train if is_small else epochs * steps_per_epoch * recipe.total_batch_size
        seen = round(seen * fields.get(IMAGES, 1) * self._images_for_compute(recipe, images, fields.get(COMPUTE)))
        if self.choices.fast:
            seen = FAST_BATCHES * recipe.total_batch_size
        warmup = {} if is_small else {"warmup_share": recipe.warmup_epochs / recipe.num_train_epochs}
        recipe, num_batches = set_length(recipe, images.num_train, seen, **warmup)
        before = None if start is None else self._start_run(fields, seed, scale, task, start)
        run = Run(recipe, num_batches, data, "", before, {**scale.how, **self.choices.how})
        run = dataclasses.replace(run, folder=str(self._folder(run, fields)))
        return self.runs.setdefault(run.key, run)

    def _recipe(self, name: str, task: str, wanted: dict[str, Any]) -> Recipe:
        """A recipe with other values of its fields and of its model's."""
        key = name, task, wanted.get("variant")
        if key not in self.recipes:
            off = {field: value for field, value in SWITCHED_OFF.items() if field not in TASKS[task].options}
            recipe = load_recipe(name, variant=wanted.get("variant"), task=task, **off)
            self.recipes[key] = recipe, recipe.build_config(patch_size=1)
        recipe, config = self.recipes[key]
        changes = {field: _as_field(field, value) for field, value in wanted.items() if field not in OF_POINTS}
        # What a model has already is no change, so that the run is the same in all experiments.
        changes = {
            field: value
            for field, value in changes.items()
            if hasattr(recipe, field) or getattr(config, field, ...) != value
        }
        changed = change_recipe(recipe, changes)
        # Nor is a field that is taken back to nothing, where the model has nothing unless it is told.
        untold = dataclasses.replace(changed, model={k: v for k, v in changed.model.items() if v is not None})
        if untold == changed:
            return changed  # without making configurations, which takes a while for many points
        same = untold.build_config(patch_size=1).to_dict() == changed.build_config(patch_size=1).to_dict()
        return untold if same else changed

    def _start_run(self, fields: dict[str, Any], seed: int, scale: Scale, task: str, start: dict[str, Any]) -> Run:
        spec = {name: start[name] for name in START_KEYS if name in start}
        spec["changes"] = {name: value for name, value in start.items() if name not in START_KEYS}
        of_start = start.get("task", task)
        for name, (fits, what) in START_RANGES.items():
            if name in start and not fits(start[name]):
                raise ExperimentError(
                    f"{self.experiment.name} sets {name}: {start[name]} in its start; it must be {what}."
                )
        if "scale" in start:
            scale = self.scales[start["scale"]]
            spec.setdefault("start", scale.start.get(of_start))
        kept = {name: value for name, value in fields.items() if self._is_inherited(name)}
        return self._run(kept, seed, scale, of_start, spec.get("start"), spec=spec)

    def _is_inherited(self, name: str) -> bool:
        """Whether what a point starts from has the point's value: family, patch, and what makes the encoder."""
        if name in ("family", "variant", "patch_size"):
            return True
        is_field = any(hasattr(config, name) for config in self.configs)
        return is_field and name not in HEAD_FIELDS and name not in ("image_size", "drop_path_rate")

    def images_of(self, run: Run) -> Images:
        """Of a run among the points, or that one of them starts from."""
        return self.known_images[run.recipe.task, run.data["source"], run.data["image_size"]]

    def _images(self, recipe: Recipe, data: dict[str, Any], scale: Scale) -> Images:
        key = recipe.task, data["source"], data["image_size"]
        if key not in self.known_images:
            if scale.num_train_images is not None and data["source"] == scale.dataset:
                self.known_images[key] = Images(scale.num_train_images, scale.num_labels)
            else:
                loaded = self.load(recipe, data["source"], data["image_size"])
                self.known_images[key] = Images(len(loaded.train), len(loaded.label_names), tell_images(loaded))
        return self.known_images[key]

    def _images_for_compute(self, recipe: Recipe, images: Images, share: float | None) -> float:
        """Images, as a share of the recipe's, that cost so great a share of the operations without a schedule."""
        if share is None:
            return 1.0
        flops = functools.partial(forward_flops, recipe, images.num_labels)
        parts = recipe.patch_weights or recipe.patch_shares
        mean = sum(weight * flops(size) for size, weight in parts.items()) / sum(parts.values())
        reference = sum(map(flops, recipe.patch_weights)) if recipe.patch_weights else flops(recipe.patch_size)
        return share * reference / mean

    def _folder(self, run: Run, fields: dict[str, Any]) -> Path:
        """Where a run is, or is to be: its name tells some of its settings, and its key all of them."""
        folder = Path(self.choices.points_dir)
        for found in folder.glob(f"*-{run.key}"):
            return found
        words = [run.recipe.task, run.recipe.family]
        for name, value in fields.items():
            if name not in (*OF_POINTS, "patch_size", "seed", "task"):
                text = value if isinstance(value, str) else f"{name}{json.dumps(value)}"
                words.append("".join(letter if letter.isalnum() else "_" for letter in text).strip("_"))
        words += [f"{run.recipe.image_size}px", f"patch{run.recipe.patch_size}", f"seed{run.recipe.seed}", run.key]
        return folder / "-".join(words)


def _is_number(value: Any, kind: Any) -> bool:
    return isinstance(value, kind) and not isinstance(value, bool) and value > 0


def _first_two(name: str, values: Any) -> Any:
    """Of a field's values the first two, of patch sizes the two largest."""
    if not isinstance(values, list):
        return values
    return sorted(values, reverse=True)[:2] if name == "patch_size" else values[:2]


def _as_field(name: str, value: Any) -> Any:
    """
    A list of words may be written as one text, as on the command line.

    Raises:
        ValueError: for a word where a number must be.
    """
    if name in ("patch_schedule", "patch_draws") and isinstance(value, str):
        return [] if value == "none" else value.split()
    if name not in RECIPE_TYPES:
        return value
    declared = as_declared(value, RECIPE_TYPES[name])  # 1e-3 is a text in YAML, and 1 no float
    if isinstance(declared, str) and float in (RECIPE_TYPES[name], *get_args(RECIPE_TYPES[name])):
        raise ValueError(f"{name}: {value} was given; it must be a number.")
    return declared


def every_run(points: list[Point]) -> list[Run]:
    """The runs of points, each once, and before them those that they start from."""
    runs: dict[str, Run] = {}

    def add(run: Run):
        if run.start is not None:
            add(run.start)
        runs.setdefault(run.key, run)

    for point in points:
        add(point.run)
    return list(runs.values())
