# Copyright 2026 The modeling_pixelvit team. All rights reserved.
# SPDX-License-Identifier: Apache-2.0
"""What a run tells while it goes on: metrics.jsonl, Accelerate's trackers, and a progress bar or lines."""

import json
import sys
from pathlib import Path
from typing import Any

from accelerate import Accelerator
from tqdm import tqdm

from ..common.files import write_text


METRICS_FILE = "metrics.jsonl"
# Order and form on the progress bar.
SHOWN = {
    "loss": "loss {:.4f}",
    "learning_rate": "lr {:.2e}",
    "images_per_second": "{:.4g} images/s",
    "tokens_per_second": "{:.3g} tokens/s",
    "mfu": "MFU {:.1%}",
    "memory_mib": "{:.0f} MiB",
    "skipped_steps": "{:.0f} skipped",
}


class RunLog:
    """
    On the main process; elsewhere its methods do nothing.

    Args:
        folder: Of the run. Its metrics file loses what lies after `first_step`: steps that are now done again.
        accelerator: Its trackers are given all numbers too.
        first_step, num_steps: Steps done, and in all.
        quiet: No progress bar, for a caller that has its own.
    """

    def __init__(self, folder: Path, accelerator: Accelerator, first_step: int, num_steps: int, quiet: bool = False):
        self.accelerator, self.num_steps = accelerator, num_steps
        self.active = accelerator.is_main_process
        if not self.active:
            return
        self.path = folder / METRICS_FILE
        kept = [record for record in read_metrics(folder) if record["step"] <= first_step]
        write_text(self.path, "".join(json.dumps(record) + "\n" for record in kept))
        self.file = self.path.open("a", encoding="utf-8")
        self.has_bar = not quiet and sys.stderr.isatty()
        self.has_lines = not quiet and not self.has_bar
        self.bar = tqdm(
            total=num_steps, initial=first_step, unit="step", dynamic_ncols=True, disable=not self.has_bar, leave=True
        )

    def step_done(self):
        if self.active:
            self.bar.update()

    def record(self, step: int, values: dict[str, Any], seconds_left: float = 0.0):
        """
        Appends the numbers of a step to the metrics file, gives them to the trackers and shows them, with the time
        left.
        """
        if not self.active:
            return
        self.file.write(json.dumps({"step": step, **values}) + "\n")
        self.file.flush()
        self.accelerator.log(values, step=step)
        shown = ", ".join(form.format(values[name]) for name, form in SHOWN.items() if values.get(name))
        self.bar.set_postfix_str(shown, refresh=False)
        if self.has_lines and shown:
            print(f"step {step} of {self.num_steps}: {shown}, {_as_clock(seconds_left)} left", file=sys.stderr)

    def say(self, text: str):
        """A line above the bar."""
        if self.active and (self.has_bar or self.has_lines):
            self.bar.write(text, file=sys.stderr)

    def close(self):
        if self.active:
            self.bar.close()
            self.file.close()


def format_metrics(metrics: dict[str, float]) -> str:
    return ", ".join(f"{name} {value:.4g}" for name, value in metrics.items())


def _as_clock(seconds: float) -> str:
    seconds = round(seconds)
    return f"{seconds // 3600}:{seconds // 60 % 60:02d}:{seconds % 60:02d}"


def read_metrics(folder: Path) -> list[dict[str, Any]]:
    """The records of a run's metrics file; a last line that was cut off is left out."""
    path = folder / METRICS_FILE
    if not path.exists():
        return []
    lines = path.read_text(encoding="utf-8").split("\n")
    # What follows the last line break was being written when the run was killed.
    return [json.loads(line) for line in lines[:-1]]
