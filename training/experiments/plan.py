# Copyright 2026 The modeling_pixelvit team. All rights reserved.
# SPDX-License-Identifier: Apache-2.0
"""What is to be trained, and what it takes, told before anything starts."""

import itertools
import json
from typing import Any

from ..checkpoints.measured_cost import MeasuredCost
from .definition import Experiment
from .intervals import mean
from .known import KEPT_RESULTS, Results
from .points import Planner
from .report import format_rows
from .run import Run, training_cost, training_seconds


# A run of more than so many times the operations of another one is not for the same machine: the paper's trainings
# come to 10,000 times those of digits and more, photographs of 32 pixels to a few hundred times.
MOST_TIMES = 10_000


def format_plan(
    experiment: Experiment,
    place: str,
    runs: list[Run],
    to_do: list[Run],
    results: Results,
    planner: Planner,
    measured: MeasuredCost | None = None,
) -> str:
    """What is to be trained, and what it takes, as far as measured costs or finished runs tell."""
    rows = [("run", "patch", "tokens", "images", "FLOPs", "minutes", "")]
    total = {"flops": 0.0, "minutes": 0.0}
    speeds = Speeds(runs, results, measured)
    for run in runs:
        num_labels = planner.images_of(run).num_labels
        flops = training_cost(run, num_labels)
        minutes = speeds.seconds(run, num_labels) / 60
        if run in to_do:
            total["flops"] += flops
            total["minutes"] += minutes
        images = run.num_batches * run.recipe.total_batch_size
        numbers = (str(run.recipe.patch_size), f"{run.num_tokens:,}", f"{images:,}", f"{flops:.2e}", f"{minutes:,.1f}")
        rows.append((run.name, *numbers, "to do" if run in to_do else "done"))
    return (
        f"{experiment.name} at {place}: {experiment.question}\n\n{format_rows(rows)}\n\n"
        f"{len(to_do)} of {len(runs)} runs to do: {total['flops']:.2e} FLOP, {total['minutes'] / 60:,.1f} hours one "
        f"after the other ({'; '.join(speeds.bases)})"
    )


class Speeds:
    """
    Operations a second to expect of a run: those of runs of its family with the nearest number of tokens, finished ones
    before kept results of other machines, its task before others. Costs that were measured come before all of these.
    """

    def __init__(self, runs: list[Run], results: Results, measured: MeasuredCost | None = None):
        self.measured = measured
        self.bases: dict[str, None] = {}
        finished = [metrics for run in runs if (metrics := results.of(run)) is not None]
        finished += results.elsewhere.values()
        self.finished = [(run, "as fast as finished runs of the family") for run in finished]
        self.kept = []
        for file in sorted(KEPT_RESULTS.glob("*.json")):
            kept = json.loads(file.read_text())
            self.kept += [(run, f"as on one core of {kept['machine']['processor']}") for run in kept["runs"]]

    def seconds(self, run: Run, num_labels: int) -> float:
        """Of the whole run."""
        if self.measured is None:
            flops = training_cost(run, num_labels)
            return flops / self.of(run, flops)
        self.bases[f"on one device, {self.measured.describe(run.recipe.family)}"] = None
        return training_seconds(run, num_labels, self.measured)

    def of(self, run: Run, flops: float) -> float:
        """Of a run that takes so many."""
        known = self._alike(run, flops)
        if not known:
            self.bases["if the devices keep up 1 TFLOP/s, and less in proportion"] = None
            return 1e12
        nearest = min(abs(other["tokens"] - run.num_tokens) for other, _ in known)
        alike = [(other, basis) for other, basis in known if abs(other["tokens"] - run.num_tokens) == nearest]
        self.bases[alike[0][1]] = None
        return mean([other["training_flops"] / max(other["seconds"], 1e-3) for other, _ in alike])

    def _alike(self, run: Run, flops: float) -> list[tuple[dict[str, Any], str]]:
        """Runs to tell its speed by, each with what to say of them."""
        for same_task, runs in itertools.product((True, False), (self.finished, self.kept)):
            alike = [
                (other, basis if same_task else f"{basis} in {other['task']}")
                for other, basis in runs
                if flops <= MOST_TIMES * other.get("training_flops", 0)
                and other["family"] == run.recipe.family
                and (other["task"] == run.recipe.task or not same_task)
            ]
            if alike:
                return alike
        return []
