# Copyright 2026 The modeling_pixelvit team. All rights reserved.
# SPDX-License-Identifier: Apache-2.0
"""Where the time of a step goes, operation by operation."""

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path

import torch


TRACE_FILE = "trace.json"
STEPS_BEFORE = 3  # the first ones make what the others reuse
ROWS_SHOWN = 20


def profile_of_steps(
    num_steps: int, folder: Path, device_type: str, say: Callable[[str], None]
) -> AbstractContextManager[torch.profiler.profile | None]:
    """
    Measures some steps after the first few; call the result's `step` after each.

    Args:
        num_steps: How many; 0: none, and the result is None.
        folder: Where `trace.json` is written, for a viewer such as ui.perfetto.dev.
        device_type: By whose time the operations are sorted.
        say: Is given a table of those that take longest.
    """
    if num_steps == 0:
        return nullcontext()

    def write(profile: torch.profiler.profile):
        profile.export_chrome_trace(str(folder / TRACE_FILE))
        order = f"self_{device_type}_time_total"
        table = profile.key_averages().table(sort_by=order, row_limit=ROWS_SHOWN, max_name_column_width=40)
        say(f"{table}{num_steps} steps are in {folder / TRACE_FILE}, for ui.perfetto.dev.")

    steps = torch.profiler.schedule(wait=STEPS_BEFORE - 1, warmup=1, active=num_steps, repeat=1)
    return torch.profiler.profile(schedule=steps, on_trace_ready=write)
