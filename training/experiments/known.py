# Copyright 2026 The modeling_pixelvit team. All rights reserved.
# SPDX-License-Identifier: Apache-2.0
"""What is known of runs."""

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from .run import Run, key_of


KEPT_RESULTS = Path(__file__).parent / "results"


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
                runs = json.loads(Path(file).read_text())["runs"]
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
