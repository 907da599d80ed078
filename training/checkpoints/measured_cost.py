# Copyright 2026 The modeling_pixelvit team. All rights reserved.
# SPDX-License-Identifier: Apache-2.0
"""
What a model takes on a device, in seconds and bytes: a fit to what was measured there, kept in a file by
`python -m training.benchmark cost`, and what it says of other patch sizes, batches and models.

A step of b images takes

    seconds = overhead + b * (flops * a + mixing flops * m)        bytes = overhead + b * channels * c

with operations of one forward pass as `checkpoints.cost` counts them (a and m hold the backward pass too) and channels
the tokens times hidden size times blocks. Where mixing grows with the square of the tokens it has a rate of its own;
where it grows in proportion to them, as all else, points at several lengths cannot tell it apart, and m is a.
Coefficients are not negative and make the squares of relative errors least.
"""

import dataclasses
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from transformers import PreTrainedConfig

from ..families.registry import FAMILIES


TRAINING, INFERENCE = "training", "inference"
SQUARE = "with the square of"  # of `Family.growth`


@dataclasses.dataclass(frozen=True)
class Work:
    """
    What an image asks of a model.

    Args:
        flops: Operations of a forward pass, mixing not counted.
        mixing_flops: Of attention or scan.
        channels: Numbers in the hidden states after each of the blocks.
    """

    flops: int
    mixing_flops: int
    channels: int


def work_of(config: PreTrainedConfig, flops: int) -> Work:
    """
    Args:
        config: Of either family; of it are the tokens and the mixing.
        flops: Of the whole model's forward pass.
    """
    mixing = FAMILIES[config.model_type].encoder_flops(config, config.num_patches)[1]
    channels = (config.num_patch_tokens + 1) * config.hidden_size * config.num_hidden_layers
    return Work(flops - mixing, mixing, channels)


@dataclasses.dataclass(frozen=True)
class Point:
    """A measured step of `batch_size` images: its seconds, and the bytes beside weights, gradients and optimizer."""

    work: Work
    batch_size: int
    seconds: float
    bytes: float | None


@dataclasses.dataclass(frozen=True)
class CostFit:
    """
    The fit of a family, in training or inference, and the largest error, as a share, of what it says of a point that it
    was not fitted to; None where the points are too few to leave one out.

    Args:
        overhead_seconds, seconds_per_flop, seconds_per_mixing_flop: Of a step.
        overhead_bytes, bytes_per_channel: Of its memory; None where that was not measured.
    """

    num_points: int
    overhead_seconds: float
    seconds_per_flop: float
    seconds_per_mixing_flop: float
    overhead_bytes: float | None = None
    bytes_per_channel: float | None = None
    seconds_error: float | None = None
    bytes_error: float | None = None

    def seconds(self, work: Work, batch_size: int) -> float:
        """Of a step."""
        products = work.flops * self.seconds_per_flop + work.mixing_flops * self.seconds_per_mixing_flop
        return self.overhead_seconds + batch_size * products

    def bytes(self, work: Work, batch_size: int) -> float | None:
        """Of a step, beside weights, gradients and optimizer."""
        if self.bytes_per_channel is None:
            return None
        return self.overhead_bytes + batch_size * work.channels * self.bytes_per_channel


def _time_terms(point: Point, square: bool) -> list[float]:
    work, batch_size = point.work, point.batch_size
    if square:
        return [1.0, batch_size * work.flops, batch_size * work.mixing_flops]
    return [1.0, batch_size * (work.flops + work.mixing_flops)]


def _memory_terms(point: Point) -> list[float]:
    return [1.0, point.batch_size * point.work.channels]


def _solve(terms: Sequence[Sequence[float]], values: Sequence[float]) -> np.ndarray:
    """Coefficients that are not negative and make the squares of relative errors least."""
    from scipy.optimize import nnls  # for whom there is a fit to make

    rows = np.asarray(terms) / np.asarray(values)[:, None]
    scale = np.abs(rows).max(axis=0)
    return nnls(rows / scale, np.ones(len(rows)))[0] / scale


def _leave_one_out(terms: list[list[float]], values: list[float]) -> float | None:
    """The largest relative error of a point by the fit to the others."""
    if len(values) <= len(terms[0]):
        return None
    errors = []
    for index, value in enumerate(values):
        others = [place for place in range(len(values)) if place != index]
        solved = _solve([terms[place] for place in others], [values[place] for place in others])
        errors.append(abs(float(np.dot(terms[index], solved)) / value - 1))
    return max(errors)


def fit_cost(family: str, points: Sequence[Point]) -> CostFit | None:
    """The fit of one family to its points in training or in inference; None if they are fewer than its terms."""
    square = FAMILIES[family].growth == SQUARE
    terms, seconds = [_time_terms(point, square) for point in points], [point.seconds for point in points]
    if not points or len(points) < len(terms[0]):
        return None
    overhead, per_flop, *rest = map(float, _solve(terms, seconds))
    fit = CostFit(len(points), overhead, per_flop, rest[0] if square else per_flop)
    fit = dataclasses.replace(fit, seconds_error=_leave_one_out(terms, seconds))
    sized = [point for point in points if point.bytes]
    terms, sizes = [_memory_terms(point) for point in sized], [point.bytes for point in sized]
    if len(sized) < 2:
        return fit
    base, per_channel = map(float, _solve(terms, sizes))
    return dataclasses.replace(
        fit, overhead_bytes=base, bytes_per_channel=per_channel, bytes_error=_leave_one_out(terms, sizes)
    )


@dataclasses.dataclass(frozen=True)
class MeasuredCost:
    """
    A file of `training.benchmark cost`.

    Args:
        environment: Device, versions and date.
        settings: Variant, image size, precision and so on of what was measured.
        fits: By family and then by "training" and "inference", where there were points enough.
    """

    environment: dict[str, Any]
    settings: dict[str, Any]
    fits: dict[str, dict[str, CostFit]]

    def of_training(self, family: str) -> CostFit:
        """
        Raises:
            ValueError: if the family's training was not measured at enough patch sizes.
        """
        if TRAINING not in self.fits.get(family, {}):
            raise ValueError(
                f"The costs that were given, of {self.environment['device']}, have no fit of {family}'s training; "
                "measure it at more patch sizes by `python -m training.benchmark cost`."
            )
        return self.fits[family][TRAINING]

    def describe(self, family: str) -> str:
        """Where a family's figures come from, and how far off they may be."""
        fit, settings = self.of_training(family), self.settings
        error = "unknown" if fit.seconds_error is None else f"up to {fit.seconds_error:.0%}"
        checkpointed = ", blocks computed twice" if settings["gradient_checkpointing"] else ""
        return (
            f"as fitted to {fit.num_points} points of {family}-{settings['variant']} at {settings['image_size']} "
            f"pixels on {self.environment['device']}, {settings['precision']}{checkpointed}; error on a point left "
            f"out: {error}"
        )


def load_measured_cost(path: str | Path) -> MeasuredCost:
    """
    Raises:
        ValueError: if it is not a file of `training.benchmark cost`.
    """
    try:
        content = json.loads(Path(path).read_text())
        fits = {
            family: {mode: CostFit(**fit) for mode, fit in modes.items()} for family, modes in content["fits"].items()
        }
        return MeasuredCost(content["environment"], content["settings"], fits)
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise ValueError(
            f"{path} was given, which has no measured costs ({type(error).__name__}: {error}); give a file that "
            "`python -m training.benchmark cost` has written."
        ) from None
