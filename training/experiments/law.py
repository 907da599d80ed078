# Copyright 2026 The modeling_pixelvit team. All rights reserved.
# SPDX-License-Identifier: Apache-2.0
"""Which runs had converged, and what several seeds agree on. The law itself: `fits.py`."""

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from scipy import stats


CONFIDENCE = 0.95
# The training loss of a run that has learned, at most, as a share of the loss of guessing.
MOST_OF_CHANCE = 0.9
# What twice the images may at most take off the test loss of a converged run, as a share of it.
MOST_GAIN = 0.5
CONVERGENCE_RULE = (
    f"A run counts as converged if twice the images would take at most {MOST_GAIN:.0%} off its test loss. It is in the "
    "fit, converged or not, if it has learned: if its training loss (mean over the last tenth) is not above that of a "
    "larger patch of its family and seed, since small patches show a model all that larger ones do, and not above "
    f"{MOST_OF_CHANCE:.0%} of the loss of guessing by how frequent the classes are (there is none such for detection's "
    "sum of losses). A comparison of test losses plays no part in this."
)
GAIN_NOTE = (
    "x2 gains: what twice the images might take off the test loss, if they took off it as much as off the training "
    "loss, or where that is the larger one the same share, and that went on falling as in the end of the run in "
    "proportion to a power of the images seen (an upper bound: the falling learning rate helps there)."
)


def summarize_curve(losses: Sequence[float], final_part: int | None = None) -> dict[str, float | None]:
    """
    What a run's training losses, one a step, say about its convergence.

    Args:
        losses: Of all steps.
        final_part: Steps since the patch size changed for the last time; all steps if not given.

    Returns:
        `train_loss`, the mean of the last tenth, and `gain_of_doubling`, the share of it that twice the images
        would take off (negative if the loss rose), by a power law through two windows: the two halves of the last two
        fifths of the run, or of the second half of its final part where that is shorter. Both are None for a run of
        less than ten steps.
    """
    total = len(losses)
    half = min(total // 5, (final_part or total) // 4)
    if total < 10 or half == 0:
        return {"train_loss": None, "gain_of_doubling": None}
    before, last = mean(losses[-2 * half : -half]), mean(losses[-half:])
    power = math.log(before / last) / math.log((total - half / 2) / (total - 3 * half / 2))
    return {"train_loss": mean(losses[-total // 10 :]), "gain_of_doubling": 1 - 2**-power}


def expected_gain(run: dict[str, Any]) -> float | None:
    """What `GAIN_NOTE` tells of, as a share of the test loss; None where the run was too short to tell."""
    if run.get("gain_of_doubling") is None or run.get("test_loss") is None:
        return None
    # Training images that are distorted have a loss above that of the test images, which cannot lose more than it all.
    return run["gain_of_doubling"] * min(1.0, run["train_loss"] / run["test_loss"])


def judge_convergence(runs: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """
    Applies `CONVERGENCE_RULE` to runs of one task, and of one recipe per family and decoder: their metrics, in the same
    order, with `learned` and `converged`.

    Each has `family`, `decoder`, `patch_size`, `train_loss` and `chance_loss`, the loss of guessing or None, and may
    have `seed`, `test_loss` and `gain_of_doubling`.
    """

    def has_learned(run):
        loss = run["train_loss"]
        if loss is None or (run["chance_loss"] is not None and loss > MOST_OF_CHANCE * run["chance_loss"]):
            return False
        coarser = [
            other["train_loss"]
            for other in runs
            if (series_of(other), other.get("seed")) == (series_of(run), run.get("seed"))
            and other["patch_size"] > run["patch_size"]
        ]
        return all(other is None or loss <= other for other in coarser)

    def judged(run):
        learned, gain = has_learned(run), expected_gain(run)
        return {**run, "learned": learned, "converged": learned and (gain is None or gain <= MOST_GAIN)}

    return [judged(run) for run in runs]


def series_of(run: dict[str, Any]) -> str | tuple[str, str | None]:
    """What the points of one curve have in common: what an experiment says, or family and decoder."""
    return run.get("series") or (run["family"], run["decoder"])


def axis_of(run: dict[str, Any]) -> str:
    """The number of a run that its curve is drawn over."""
    return run.get("axis", "patch_size")


def by_axis(runs: Sequence[dict[str, Any]]) -> dict[float, list[dict[str, Any]]]:
    """The runs of one curve by their place on the axis, towards more computation; those of one place differ by seed."""
    found: dict[float, list[dict[str, Any]]] = {}
    for run in runs:
        found.setdefault(run[axis_of(run)], []).append(run)
    return dict(sorted(found.items(), reverse=not runs or axis_of(runs[0]) == "patch_size"))


def mean(values: Sequence[float]) -> float:
    return math.fsum(values) / len(values)


def half_width(values: Sequence[float]) -> float | None:
    """Of the `CONFIDENCE` interval of the values' mean, by Student's t; None for a single value."""
    if len(values) < 2:
        return None
    return float(stats.sem(values) * stats.t.ppf((1 + CONFIDENCE) / 2, len(values) - 1))


@dataclass(frozen=True)
class Fall:
    """
    How the test loss changes from one place on the axis to the next, over seeds that have both.

    Args:
        places: As two patch sizes, the larger one first, or two numbers of tokens.
        ratio: Test loss at the second one over that at the first one, geometric mean over the seeds.
        interval: Of it at `CONFIDENCE`, by paired differences of logarithms; None for a single seed.
        seeds, falling: Seeds that have both, and those of them whose loss falls.
    """

    places: tuple[float, float]
    ratio: float
    interval: tuple[float, float] | None
    seeds: int
    falling: int


def losses_by_seed(runs: Sequence[dict[str, Any]]) -> dict[int | None, float]:
    """Test losses of runs that differ by their seed."""
    return {run.get("seed"): run["test_loss"] for run in runs}


def ratio_of(losses: dict[int | None, float], others: dict[int | None, float]) -> tuple[float, Any, list[float]] | None:
    """
    The geometric mean of the ratios of losses to those of others with the same seed, its interval at `CONFIDENCE` (None
    for a single seed) and the logarithms of the ratios; None if no seed has both.
    """
    logs = [math.log(loss / others[seed]) for seed, loss in losses.items() if seed in others]
    if not logs:
        return None
    centre, half = mean(logs), half_width(logs)
    return math.exp(centre), None if half is None else (math.exp(centre - half), math.exp(centre + half)), logs


def find_falls(runs: Sequence[dict[str, Any]]) -> list[Fall]:
    """Of the runs of one curve, from each place on the axis to the next."""
    falls = []
    for (place, same), (next_place, following) in itertools.pairwise(by_axis(runs).items()):
        found = ratio_of(losses_by_seed(following), losses_by_seed(same))
        if found is not None:
            ratio, interval, logs = found
            falls.append(Fall((place, next_place), ratio, interval, len(logs), sum(log < 0 for log in logs)))
    return falls


def count_falling_runs(runs: Sequence[dict[str, Any]]) -> tuple[int, int]:
    """Of the seeds that have all places of one curve, at least two, those whose loss falls at each step, and all."""
    places = [losses_by_seed(same) for same in by_axis(runs).values()]
    whole = [seed for seed in places[0] if len(places) > 1 and all(seed in losses for losses in places)]
    falling = sum(all(one[seed] > other[seed] for one, other in itertools.pairwise(places)) for seed in whole)
    return falling, len(whole)
