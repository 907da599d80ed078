# Copyright 2026 The modeling_pixelvit team. All rights reserved.
# SPDX-License-Identifier: Apache-2.0
"""
Intervals of means over seeds, over test images, and over both.

Seeds are few, so what other ones would give is taken from Student's t. Test images are many: they are drawn with
replacement (Efron's bootstrap), the same ones for all runs, so that an image that is hard for all of them is no
difference between two. As seeds and images have nothing to do with each other, their deviations add up.

What is the same for all of them, be it seeds or images, tells nothing of other ones. So scores are drawn from two
images more, one of which all runs get right and one of which none does: near 0 and 100% the ends are then about those
of Clopper and Pearson, and of a run that errs in none of n images the share of errors goes up to 3/n. A single image
has no interval.
"""

import math
import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from scipy import stats

from ..engine.evaluation import IMAGES_FILE
from ..tasks.base import IMAGE_WEIGHT


CONFIDENCE = 0.95
LEVELS = ((1 - CONFIDENCE) / 2, (1 + CONFIDENCE) / 2)
RESAMPLES = 1000
# What intervals are over, and how that is told. Of those that there are, the first is told where only one is.
SEEDS_AND_IMAGES, SEEDS, IMAGES = "seeds and images", "seeds", "images"
SOURCES = {SEEDS_AND_IMAGES: "over seeds and test images", SEEDS: "over seeds", IMAGES: "over test images"}
DRAWS = "draws"  # of a run's metrics: what `with_draws` adds
Intervals = dict[str, tuple[float, float]]


def mean(values: Sequence[float]) -> float:
    return math.fsum(values) / len(values)


def student(freedom: int, shape: tuple[int, int], seed: int) -> np.ndarray:
    """Rows of multivariate t. They are spread evenly (quasi-random), as its tails would else take many more of them."""
    even = stats.qmc.Halton(shape[1] + 1, seed=seed).random(shape[0])
    return stats.norm.ppf(even[:, 1:]) * np.sqrt(freedom / stats.chi2.ppf(even[:, :1], freedom))


def draw_images(
    values: np.ndarray, weights: np.ndarray | None = None, resamples: int = RESAMPLES, imagined: int = 0
) -> np.ndarray:
    """
    Means over other test images, as many.

    Args:
        values: (runs, images), of each image.
        weights: (runs, images), of the images in the means; equal ones if not given.
        imagined: Of the images, those to draw from that were not tested.

    Returns:
        (resamples, runs), of which the runs of a row have the same images.
    """
    weights = np.ones_like(values, float) if weights is None else np.asarray(weights, float)
    draw, number, weighted = np.random.default_rng(0), values.shape[1], values * weights
    size = number - imagined
    times = (np.bincount(draw.integers(number, size=size), minlength=number) for _ in range(resamples))
    return np.array([weighted @ one / (weights @ one) for one in times])


def intervals_of(values: Sequence[float], draws: np.ndarray | None = None) -> Intervals:
    """
    Of the mean of some values at `CONFIDENCE`, by what they are over: over seeds if there are two values that differ.

    Args:
        values: One for each seed.
        draws: (resamples, seeds), the same values with other test images.
    """
    found: Intervals = {}
    centre = mean(values)
    if len(values) > 1:
        error = float(stats.sem(values))
        half = error * float(stats.t.ppf(LEVELS[1], len(values) - 1))
        if half > 0:
            found[SEEDS] = centre - half, centre + half
    if draws is not None:
        drawn = draws.mean(1)
        found[IMAGES] = tuple(np.quantile(drawn, LEVELS).tolist())
        if len(values) > 1:
            moved = drawn + error * student(len(values) - 1, (len(draws), 1), 0)[:, 0]
            found[SEEDS_AND_IMAGES] = tuple(np.quantile(moved, LEVELS).tolist())
    return found


def told(intervals: Intervals) -> tuple[float, float] | None:
    """The one that counts most; None if there is none."""
    return next((intervals[source] for source in SOURCES if source in intervals), None)


def interval_of(runs: Sequence[dict[str, Any]], name: str) -> tuple[float, float] | None:
    """Of the mean of a metric of runs that differ by their seed; None where nothing tells it."""
    return told(intervals_of([run[name] for run in runs], draws_of(runs, name)))


def draws_of(runs: Sequence[dict[str, Any]], name: str) -> np.ndarray | None:
    """(resamples, runs), a metric of runs with other test images; None if that is not known of one of them."""
    if not runs or not all(name in run.get(DRAWS, {}) for run in runs):
        return None
    return np.stack([run[DRAWS][name] for run in runs], 1)


def with_draws(runs: Sequence[dict[str, Any]], folder: Path) -> list[dict[str, Any]]:
    """
    Runs with `draws`, what their metrics come to with other test images, (`RESAMPLES`,) by the metric's name.

    Args:
        runs: Metrics of finished runs of one task.
        folder: In which each may have a folder of its name, and there the values of its test images.

    Returns:
        The runs in their order; those without such values, or of which the values are another result's, as they were.
        All of them are if they were not tested on the same images, or on a single one.
    """
    found = {index: values for index, run in enumerate(runs) if (values := _values_of(run, folder / run["name"]))}
    if not found:
        return list(runs)
    losses = [values["loss"] for values in found.values()]
    readable = np.isfinite(losses[0])
    if any(len(one) != len(readable) or not np.array_equal(np.isfinite(one), readable) for one in losses):
        return list(runs)
    if readable.sum() < 2:
        return list(runs)
    first = next(iter(found.values()))
    weights = None
    if IMAGE_WEIGHT in first:
        weights = np.stack([values[IMAGE_WEIGHT] for values in found.values()])[:, readable]
    drawn: dict[int, dict[str, np.ndarray]] = {index: {} for index in found}
    for name in set.intersection(*(set(values) for values in found.values())) - {IMAGE_WEIGHT}:
        values = np.stack([one[name] for one in found.values()])[:, readable]
        if name == "loss":
            draws = draw_images(values, weights)
        else:  # what is in percent is of single images 0 or 100
            draws = draw_images(np.pad(values, ((0, 0), (1, 1)), constant_values=(0, 100)), imagined=2)
        for index, column in zip(found, draws.T, strict=True):
            drawn[index][f"test_{name}"] = column
    return [{**run, DRAWS: drawn[index]} if index in drawn else run for index, run in enumerate(runs)]


def _values_of(run: dict[str, Any], folder: Path) -> dict[str, np.ndarray]:
    """What a run's folder keeps of single test images, by the metric's name; nothing if it is another result's."""
    try:
        with np.load(folder / IMAGES_FILE) as file:
            values = {name: file[name].astype(float) for name in file.files}
    except FileNotFoundError:
        return {}
    except (OSError, ValueError, zipfile.BadZipFile) as error:
        raise ValueError(
            f"{folder / IMAGES_FILE} holds no values of test images ({error}); remove it, and intervals are over seeds "
            "alone."
        ) from None
    # A model that reads several patch sizes has those of its own under the metrics' names.
    prefix = f"patch{run['patch_size']}_"
    prefix = prefix if f"{prefix}loss" in values else ""
    own = {name.removeprefix(prefix): one for name, one in values.items() if name.startswith(prefix)}
    own = {name: one for name, one in own.items() if f"test_{name}" in run or name == IMAGE_WEIGHT}
    weights = np.nan_to_num(own.get(IMAGE_WEIGHT, np.isfinite(own["loss"]).astype(float)))
    loss = np.nan_to_num(own["loss"]) @ weights / weights.sum()
    return own if math.isclose(loss, run["test_loss"], rel_tol=1e-4) else {}
