# Copyright 2026 The modeling_pixelvit team. All rights reserved.
# SPDX-License-Identifier: Apache-2.0
"""Which runs had converged, and the power law of test loss in patch size through those that had."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any


# What twice the training would take off a converged run's training loss, at most, as a share of its test loss.
MOST_TO_GAIN = 0.25
# The training loss of a converged run, at most, as a share of the loss of guessing.
MOST_OF_CHANCE = 0.5
FEWEST_POINTS = 3
CONVERGENCE_RULE = (
    f"A run counts as converged if its training loss has come below {MOST_OF_CHANCE:.0%} of that of guessing and if, "
    "going on as in the last two fifths of its training (loss in proportion to a power of the images seen), twice the "
    f"images would lower it by less than {MOST_TO_GAIN:.0%} of the test loss."
)


def judge_convergence(losses: Sequence[float], test_loss: float, num_classes: int) -> dict[str, Any]:
    """
    Applies `CONVERGENCE_RULE` to a run by its own losses alone; no other run's result plays a part.

    The last two fifths of the training are compared: their mean losses, at their mean positions (0.7 and 0.9), give the
    power of the images seen that the loss falls with. What this says is still to gain on the training images is about
    the most that longer training could take off the test loss. A run that has not begun to learn does not fall either,
    hence the comparison with guessing.

    Args:
        losses: Training losses, one a step.
        test_loss: The test loss in the end.
        num_classes: Classes, all equally frequent as far as guessing goes.

    Returns:
        `train_loss` (mean of the last fifth), `gain_of_doubling` (what twice the images would take off it, as a share
        of the test loss; negative if it would rise) and `converged`.
    """
    fifth = len(losses) // 5
    if fifth == 0:
        return {"train_loss": _mean(losses), "gain_of_doubling": None, "converged": False}
    before, last = _mean(losses[-2 * fifth : -fifth]), _mean(losses[-fifth:])
    power = math.log(before / last) / math.log(0.9 / 0.7)
    gain = last * (1 - 2**-power) / test_loss
    converged = gain < MOST_TO_GAIN and last < MOST_OF_CHANCE * math.log(num_classes)
    return {"train_loss": last, "gain_of_doubling": gain, "converged": converged}


def _mean(losses: Sequence[float]) -> float | None:
    return math.fsum(losses) / len(losses) if losses else None


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
    Least squares on (log patch size, log test loss) of the converged runs among `runs` (of one family).

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
