# Copyright 2026 The modeling_pixelvit team. All rights reserved.
# SPDX-License-Identifier: Apache-2.0
"""What is known of runs."""

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from .run import Run, key_of


KEPT_RESULTS = Path(__file__).parent / "results"


def _with_settings(run: dict[str, Any], content: dict[str, Any]) -> dict[str, Any]:
    """A run of a results file with its recipe and data, of which sweeps once wrote what their runs had in common."""
    if "recipe" in run:
        return run
    recipe = content["recipes"]["-".join(part for part in (run["family"], run["decoder"]) if part is not None)]
    own = {name: run.get(name, recipe[name]) for name in ("patch_size", "seed")}
    return {**run, "recipe": {**recipe, **own}, "data": content["data"]}


class Results:
    """
    What is known of runs: what they left in their folders, and what was made elsewhere.

    Args:
        files: `results.json` of other calls, or of sweeps.

    Raises:
        ValueError: if one of them is something else.
    """

    def __init__(self, files: Iterable[str] = ()):
        self.elsewhere: dict[str, dict[str, Any]] = {}
        for file in files:
            try:
                content = json.loads(Path(file).read_text())
                runs = [_with_settings(run, content) for run in content["runs"]]
                self.elsewhere |= {key_of(run): run for run in runs}
            except (OSError, ValueError, KeyError, TypeError) as error:
                raise ValueError(
                    f"--known {file} was given, which has no results of an experiment ({error})."
                ) from None

    def of(self, run: Run) -> dict[str, Any] | None:
        return run.finished_metrics() or self.elsewhere.get(run.key)

    def to_do(self, runs: list[Run]) -> list[Run]:
        """The runs without results, and those whose checkpoint one of them starts from and which are not here."""
        wanted: dict[str, Run] = {}
        for run in reversed(runs):  # what starts from another one comes after it
            if self.of(run) is None or (run.key in wanted and run.finished_metrics() is None):
                wanted[run.key] = run
                if run.start is not None and run.start.finished_metrics() is None:
                    wanted[run.start.key] = run.start
        return [run for run in runs if run.key in wanted]
