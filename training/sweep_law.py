# Copyright 2026 The modeling_pixelvit team. All rights reserved.
# SPDX-License-Identifier: Apache-2.0
"""Which runs had converged, and the power law of test loss in patch size through those that had."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any


FEWEST_POINTS = 3
# The training loss of a converged run, at most, as a share of the loss of guessing.
MOST_OF_CHANCE = 0.5
CONVERGENCE_RULE = (
    "Small patches show a model all that larger ones do, so with enough training they fit the training images at least "
    "as well. A run counts as not converged if its training loss (mean over the last tenth) is above that of a larger "
    f"patch of its family, or above {MOST_OF_CHANCE:.0%} of the loss of guessing by how frequent the classes are "
    "(there is no such number for detection's sum of losses); test losses play no part in this."
)
GAIN_NOTE = (
    "x2 gains: what twice the images would take off the training loss if it went on falling as in the last two fifths "
    "of the run, in proportion to a power of the images seen (an upper bound: the falling learning rate helps there)."
)


def summarize_curve(losses: Sequence[float]) -> dict[str, float | None]:
    """
    What a run's training losses, one a step, say about its convergence.

    Returns:
        `train_loss`, the mean of the last tenth, and `gain_of_doubling`, the share of it that `GAIN_NOTE` tells of
        (negative if the loss rose): the last two fifths have their mean positions at 0.7 and 0.9 of the training. Both
        are None for a run of less than ten steps.
    """
    tenth = len(losses) // 10
    if tenth == 0:
        return {"train_loss": None, "gain_of_doubling": None}
    before, last = _mean(losses[-4 * tenth : -2 * tenth]), _mean(losses[-2 * tenth :])
    power = math.log(before / last) / math.log(0.9 / 0.7)
    return {"train_loss": _mean(losses[-tenth:]), "gain_of_doubling": 1 - 2**-power}


def judge_convergence(runs: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """
    Applies `CONVERGENCE_RULE` to runs of one task, and of one recipe per family and decoder: their metrics, in the same
    order, with `converged`.

    Each has `family`, `decoder`, `patch_size`, `train_loss` and `chance_loss`, the loss of guessing or None.
    """

    def has_converged(run):
        loss = run["train_loss"]
        if loss is None or (run["chance_loss"] is not None and loss > MOST_OF_CHANCE * run["chance_loss"]):
            return False
        coarser = [
            other["train_loss"]
            for other in runs
            if series_of(other) == series_of(run) and other["patch_size"] > run["patch_size"]
        ]
        return all(loss <= other for other in coarser)

    return [{**run, "converged": has_converged(run)} for run in runs]


def series_of(run: dict[str, Any]) -> tuple[str, str | None]:
    """What the points of one curve have in common: family and decoder."""
    return run["family"], run["decoder"]


def _mean(values: Sequence[float]) -> float:
    return math.fsum(values) / len(values)


@dataclass(frozen=True)
class PowerLaw:
    """loss = coefficient * patch_size ** exponent, with R² in log-log coordinates, through `patch_sizes`."""

    coefficient: float
    exponent: float
    r_squared: float
    patch_sizes: list[int]

    def __call__(self, patch_size: float) -> float:
        return self.coefficient * patch_size**self.exponent

    def __str__(self) -> str:
        patch_sizes = ", ".join(map(str, self.patch_sizes))
        return (
            f"test loss = {self.coefficient:.3f} * patch^{self.exponent:.2f}, R^2 = {self.r_squared:.2f} "
            f"(patch {patch_sizes})"
        )


def fit_power_law(runs: Sequence[dict[str, Any]]) -> PowerLaw | None:
    """
    Least squares on (log patch size, log test loss) of the converged runs among `runs` (of one family and decoder).

    Returns:
        The law, or None if fewer than three runs had converged.
    """
    converged = sorted((run for run in runs if run["converged"]), key=lambda run: run["patch_size"])
    if len(converged) < FEWEST_POINTS:
        return None
    x = [math.log(run["patch_size"]) for run in converged]
    y = [math.log(run["test_loss"]) for run in converged]
    x_mean, y_mean = _mean(x), _mean(y)
    x_spread = math.fsum((value - x_mean) ** 2 for value in x)
    y_spread = math.fsum((value - y_mean) ** 2 for value in y)
    exponent = math.fsum((a - x_mean) * (b - y_mean) for a, b in zip(x, y, strict=True)) / x_spread
    intercept = y_mean - exponent * x_mean
    residual = math.fsum((b - intercept - exponent * a) ** 2 for a, b in zip(x, y, strict=True))
    return PowerLaw(
        coefficient=math.exp(intercept),
        exponent=exponent,
        r_squared=1 - residual / y_spread if y_spread else 1.0,
        patch_sizes=[run["patch_size"] for run in converged],
    )
