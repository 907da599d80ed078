# Copyright 2026 The modeling_pixelvit team. All rights reserved.
# SPDX-License-Identifier: Apache-2.0
"""How many processes read images, if nobody says."""

import pytest

from training.engine import options
from training.engine.options import LoopOptions


@pytest.mark.parametrize(
    ("given", "device", "processes", "cores", "expected"),
    [
        (None, "cpu", 1, 64, 0),
        (3, "cpu", 1, 64, 3),
        (None, "cuda", 1, 12, 12),
        (None, "cuda", 8, 96, 12),
        (None, "cuda", 1, 64, 16),
        (None, "cuda", 8, 4, 1),
        (0, "cuda", 1, 64, 0),
    ],
)
def test_workers(given, device, processes, cores, expected, monkeypatch):
    monkeypatch.setattr(options, "num_cores", lambda: cores)
    assert LoopOptions(num_workers=given).workers_for(device, processes) == expected


def test_below_zero_is_refused():
    with pytest.raises(ValueError, match="--num_workers -1 was given; it must be at least 0"):
        LoopOptions(num_workers=-1).check()
