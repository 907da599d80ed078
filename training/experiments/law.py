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
    before, last = _mean(losses[-2 * half : -half]), _mean(losses[-half:])
    power = math.log(before / last) / math.log((total - half / 2) / (total - 3 * half / 2))
    return {"train_loss": _mean(losses[-total // 10 :]), "gain_of_doubling": 1 - 2**-power}


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


def series_of(run: dict[str, Any]) -> tuple[str, str | None]:
    """What the points of one curve have in common: family and decoder."""
    return run["family"], run["decoder"]


def _mean(values: Sequence[float]) -> float:
    return math.fsum(values) / len(values)


def half_width(values: Sequence[float]) -> float | None:
    """Of the `CONFIDENCE` interval of the values' mean, by Student's t; None for a single value."""
    if len(values) < 2:
        return None
    return float(stats.sem(values) * stats.t.ppf((1 + CONFIDENCE) / 2, len(values) - 1))


@dataclass(frozen=True)
class Fall:
    """
    How the test loss changes from a patch to the next smaller one, over seeds that have both.

    Args:
        patch_sizes: The larger and the smaller one.
        ratio: Test loss at the smaller one over that at the larger one, geometric mean over the seeds.
        interval: Of it at `CONFIDENCE`, by paired differences of logarithms; None for a single seed.
        seeds, falling: Seeds that have both, and those of them whose loss falls.
    """

    patch_sizes: tuple[int, int]
    ratio: float
    interval: tuple[float, float] | None
    seeds: int
    falling: int


def find_falls(runs: Sequence[dict[str, Any]]) -> list[Fall]:
    """Of the runs of one family and decoder, from each patch size to the next, largest first."""
    losses = {(run["patch_size"], run.get("seed")): run["test_loss"] for run in runs}
    sizes = sorted({size for size, _ in losses}, reverse=True)
    falls = []
    for pair in itertools.pairwise(sizes):
        seeds = [seed for size, seed in losses if size == pair[0] and (pair[1], seed) in losses]
        logs = [math.log(losses[pair[1], seed] / losses[pair[0], seed]) for seed in seeds]
        if not logs:
            continue
        mean, half = _mean(logs), half_width(logs)
        interval = None if half is None else (math.exp(mean - half), math.exp(mean + half))
        falls.append(Fall(pair, math.exp(mean), interval, len(logs), sum(log < 0 for log in logs)))
    return falls


def count_falling_runs(runs: Sequence[dict[str, Any]]) -> tuple[int, int]:
    """
    Of the seeds that have all patch sizes of one family and decoder, at least two, those whose loss falls at each step,
    and all.
    """
    sizes = sorted({run["patch_size"] for run in runs}, reverse=True)
    falling = whole = 0
    for seed in dict.fromkeys(run.get("seed") for run in runs):
        losses = {run["patch_size"]: run["test_loss"] for run in runs if run.get("seed") == seed}
        if len(sizes) > 1 and set(losses) == set(sizes):
            whole += 1
            falling += all(losses[a] > losses[b] for a, b in itertools.pairwise(sizes))
    return falling, whole
