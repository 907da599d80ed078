# Copyright 2026 The modeling_pixelvit team. All rights reserved.
# SPDX-License-Identifier: Apache-2.0
"""Which runs had converged, and what several seeds agree on. The law itself: `fits.py`."""

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from .intervals import Intervals, draws_of, intervals_of, mean, told


# A cross-entropy in float32 that is about its rounding.
LEAST_LOSS = 1e-7
# The training loss of a run that has learned, at most, as a share of the loss of guessing.
MOST_OF_CHANCE = 0.9
# And of the loss of guessing what is left where nothing more is to be learned, whatever a larger patch comes to.
LITTLE_OF_CHANCE = 0.01
# What twice the images may at most take off the test loss of a converged run, as a share of it.
MOST_GAIN = 0.5
CONVERGENCE_RULE = (
    f"A run counts as converged if twice the images would take at most {MOST_GAIN:.0%} off its test loss, or if "
    f"that is below {LITTLE_OF_CHANCE:.0%} of the loss of guessing. It is in the fit, converged or not, if it has "
    "learned: if its training loss (mean over the last tenth) is not above that of a larger patch of its family "
    f"and seed, since small patches show a model all that larger ones do (or is below {LITTLE_OF_CHANCE:.0%} of "
    f"the loss of guessing), and not above {MOST_OF_CHANCE:.0%} of the loss of guessing by how frequent the "
    "classes are (there is none such for detection's sum of losses); and if its test loss is below that of "
    "guessing, as it has else at most learned by heart. A comparison of test losses with one another plays no "
    "part in this."
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
    # Below that they are rounding, down to zero.
    before, last = (max(mean(part), LEAST_LOSS) for part in (losses[-2 * half : -half], losses[-half:]))
    power = math.log(before / last) / math.log((total - half / 2) / (total - 3 * half / 2))
    return {"train_loss": mean(losses[-total // 10 :]), "gain_of_doubling": 1 - 2**-power}


def expected_gain(run: dict[str, Any]) -> float | None:
    """What `GAIN_NOTE` tells of, as a share of the test loss; None where the run was too short to tell."""
    if run.get("gain_of_doubling") is None or run.get("test_loss") is None:
        return None
    if run["test_loss"] == 0:
        return 0.0
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
        loss, chance = run["train_loss"], run["chance_loss"]
        if loss is None:
            return False
        if chance is not None:
            if loss > MOST_OF_CHANCE * chance or run.get("test_loss", 0.0) >= chance:
                return False
            if loss < LITTLE_OF_CHANCE * chance:
                return True
        coarser = [
            other["train_loss"]
            for other in runs
            if (other["series"], other.get("seed")) == (run["series"], run.get("seed"))
            and other["patch_size"] > run["patch_size"]
        ]
        return all(other is None or loss <= other for other in coarser)

    def judged(run):
        learned, gain = has_learned(run), expected_gain(run)
        is_done = gain is None or gain <= MOST_GAIN or has_little_left(run)
        return {**run, "learned": learned, "converged": learned and is_done}

    return [judged(run) for run in runs]


def axis_of(run: dict[str, Any]) -> str:
    """The number of a run that its curve is drawn over."""
    return run.get("axis", "patch_size")


def by_axis(runs: Sequence[dict[str, Any]]) -> dict[float, list[dict[str, Any]]]:
    """The runs of one curve by their place on the axis, towards more computation; those of one place differ by seed."""
    found: dict[float, list[dict[str, Any]]] = {}
    for run in runs:
        found.setdefault(run[axis_of(run)], []).append(run)
    return dict(sorted(found.items(), reverse=not runs or axis_of(runs[0]) == "patch_size"))


@dataclass(frozen=True)
class Ratio:
    """
    Of test losses to other ones, over seeds that have both.

    Args:
        ratio: Geometric mean over the seeds.
        interval: Of it at `CONFIDENCE`, by paired differences of logarithms: of `intervals` the one that counts most;
            None if there is none.
        intervals: By what they are over.
        seeds, falling: Seeds that have both, and those of them whose ratio is below 1.
    """

    ratio: float
    interval: tuple[float, float] | None
    intervals: Intervals
    seeds: int
    falling: int


@dataclass(frozen=True)
class Fall(Ratio):
    """
    How the test loss changes from one place on the axis to the next.

    Args:
        places: As two patch sizes, the larger one first, or two numbers of tokens.
    """

    places: tuple[float, float]


@dataclass(frozen=True)
class Reach:
    """
    At how much of the computation of another curve's last point a curve has the test loss of that point.

    Args:
        place: Of that point on the axis.
        shares: By seed that has all of the curve's points, of `place`: where a line between two of them has that
            loss, in logarithms; `least` if the first point is below it; None if all are above it.
        least, most: Of the curve's first and last point.
        mean, interval: Geometric mean of the shares and its interval at `CONFIDENCE` over seeds; None if one of
            them is not between two points.
    """

    place: float
    shares: dict[int | None, float | None]
    least: float
    most: float
    mean: float | None
    interval: tuple[float, float] | None


def losses_by_seed(runs: Sequence[dict[str, Any]]) -> dict[int | None, float]:
    """Test losses of runs that differ by their seed."""
    return {run.get("seed"): run["test_loss"] for run in runs}


def has_loss(run: dict[str, Any]) -> bool:
    """Whether the test loss is more than rounding, so that it can fall further, and has a logarithm."""
    return run["test_loss"] > LEAST_LOSS


def has_little_left(run: dict[str, Any]) -> bool:
    """Whether the test loss is so low that hardly anything is left to fall."""
    chance = run.get("chance_loss")
    return chance is not None and run.get("test_loss", math.inf) < LITTLE_OF_CHANCE * chance


def starts_at_the_end(runs: Sequence[dict[str, Any]]) -> bool:
    """Whether of one curve the least computation already leaves hardly anything to fall, so that there is no law."""
    return all(map(has_little_left, next(iter(by_axis(runs).values()))))


def _paired(runs: Sequence[dict[str, Any]], others: Sequence[dict[str, Any]]) -> list[list[dict[str, Any]]]:
    """Of runs, which differ by their seed, and of others those with the same seed, in the same order."""
    of_seed = {other.get("seed"): other for other in others}
    runs = [run for run in runs if run.get("seed") in of_seed]
    return [runs, [of_seed[run.get("seed")] for run in runs]]


def _paired_draws(pairs: list[list[dict[str, Any]]], name: str) -> list[np.ndarray] | None:
    draws = [draws_of(side, name) for side in pairs]
    return None if any(one is None for one in draws) else draws


def difference_of(
    runs: Sequence[dict[str, Any]], others: Sequence[dict[str, Any]], name: str
) -> tuple[float, Intervals] | None:
    """
    By how much a metric of runs, which differ by their seed, is above that of others of the same seeds: the mean and
    its intervals; None if no seed has both, or one of them has no such metric.
    """
    pairs = _paired(runs, others)
    if not pairs[0] or any(run.get(name) is None for side in pairs for run in side):
        return None
    differences = [run[name] - other[name] for run, other in zip(*pairs, strict=True)]
    draws = _paired_draws(pairs, name)
    intervals = intervals_of(differences, None if draws is None else draws[0] - draws[1])
    # Where both are right on the same images there is no width, which tells nothing of other ones.
    return mean(differences), {source: (low, high) for source, (low, high) in intervals.items() if low < high}


def ratio_of(runs: Sequence[dict[str, Any]], others: Sequence[dict[str, Any]]) -> Ratio | None:
    """
    Of the test losses of runs, which differ by their seed, to those of others; None if no seed has both, above zero.
    """
    pairs = _paired(list(filter(has_loss, runs)), list(filter(has_loss, others)))
    if not pairs[0]:
        return None
    logs = [math.log(run["test_loss"] / other["test_loss"]) for run, other in zip(*pairs, strict=True)]
    draws = _paired_draws(pairs, "test_loss")
    draws = None if draws is None else np.log(draws[0] / draws[1])
    intervals = {source: (math.exp(low), math.exp(high)) for source, (low, high) in intervals_of(logs, draws).items()}
    return Ratio(math.exp(mean(logs)), told(intervals), intervals, len(logs), sum(log < 0 for log in logs))


def find_falls(runs: Sequence[dict[str, Any]]) -> list[Fall]:
    """Of the runs of one curve, from each place on the axis to the next."""
    falls = []
    for (place, same), (next_place, following) in itertools.pairwise(by_axis(runs).items()):
        found = ratio_of(following, same)
        if found is not None:
            falls.append(Fall(**vars(found), places=(place, next_place)))
    return falls


def count_falling_runs(runs: Sequence[dict[str, Any]]) -> tuple[int, int]:
    """Of the seeds that have all places of one curve, at least two, those whose loss falls at each step, and all."""
    places = [losses_by_seed(same) for same in by_axis(runs).values()]
    whole = [seed for seed in places[0] if len(places) > 1 and all(seed in losses for losses in places)]
    falling = sum(all(one[seed] > other[seed] for one, other in itertools.pairwise(places)) for seed in whole)
    return falling, len(whole)


def reach_of(runs: Sequence[dict[str, Any]], others: Sequence[dict[str, Any]]) -> Reach | None:
    """Of the runs of a curve over computation, and those of another one; None if no seed has all that it takes."""
    place = max(by_axis(others))
    aims = losses_by_seed(list(filter(has_loss, by_axis(others)[place])))
    points = [(at / place, losses_by_seed(same)) for at, same in sorted(by_axis(runs).items())]
    # Where the first or last run of a seed has failed, less or more is open than for the others.
    seeds = [seed for seed in aims if all(seed in losses for _, losses in points)]
    if not seeds:
        return None
    curves = {seed: [(share, max(losses[seed], LEAST_LOSS)) for share, losses in points] for seed in seeds}
    shares = {seed: _first_at(curve, aims[seed]) for seed, curve in curves.items()}
    least, most = points[0][0], points[-1][0]
    if any(share is None or share == least for share in shares.values()):
        return Reach(place, shares, least, most, None, None)
    logs = [math.log(share) for share in shares.values()]
    around = told(intervals_of(logs))
    interval = None if around is None else (math.exp(around[0]), math.exp(around[1]))
    return Reach(place, shares, least, most, math.exp(mean(logs)), interval)


def _first_at(curve: list[tuple[float, float]], aim: float) -> float | None:
    """Where the losses of a curve, places and losses, are first at an aim."""
    if curve[0][1] <= aim:
        return curve[0][0]
    for (before, above), (after, loss) in itertools.pairwise(curve):
        if loss <= aim:
            return before * (after / before) ** (math.log(above / aim) / math.log(above / loss))
    return None
