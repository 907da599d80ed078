# Copyright 2026 The modeling_pixelvit team. All rights reserved.
# SPDX-License-Identifier: Apache-2.0
"""Timing two things side by side, and what a result says of the machine that it comes from."""

import datetime
import platform
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import transformers

from ..common.files import write_json
from ..common.machine import processor_name
from ..families.base import CLASSIFIER
from ..families.registry import FAMILIES


RESULTS_DIR = Path(__file__).parent
Rows = dict[str, dict[str, float | str]]


def timed(function: Callable, device: str = "cpu") -> float:
    """Seconds of one call."""
    if device == "cuda":
        torch.cuda.synchronize()
    start = time.perf_counter()
    function()
    if device == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter() - start


def compare(ours: Callable, other: Callable, rounds: int) -> dict[str, float]:
    """Median seconds of both, called in turn after a warm-up, and the median ratio of a pair, ours over the other."""
    ours(), other()
    pairs = [(timed(ours), timed(other)) for _ in range(rounds)]
    return {
        "seconds": statistics.median(pair[0] for pair in pairs),
        "other_seconds": statistics.median(pair[1] for pair in pairs),
        "ratio": statistics.median(pair[0] / pair[1] for pair in pairs),
    }


def build(family: str, size: str, **fields) -> torch.nn.Module:
    """A randomly initialized classifier with 1,000 classes, in evaluation mode."""
    known = FAMILIES[family]
    return known.model_classes[CLASSIFIER](known.config_class.from_variant(size, num_labels=1000, **fields)).eval()


def environment(device: str) -> dict[str, str | int]:
    name = torch.cuda.get_device_name() if device == "cuda" else processor_name()
    return {
        "device": name,
        "threads": torch.get_num_threads(),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "transformers": transformers.__version__,
        "date": datetime.date.today().isoformat(),
    }


def write_results(output: Path, content: dict[str, Any]):
    """Into a folder that is made if there is none."""
    output.parent.mkdir(parents=True, exist_ok=True)
    write_json(output, content)


def print_rows(rows: Rows):
    for label, values in rows.items():
        figures = ", ".join(
            f"{key} {value:.4g}" if isinstance(value, float) else str(value) for key, value in values.items()
        )
        print(f"{label}: {figures}", flush=True)
