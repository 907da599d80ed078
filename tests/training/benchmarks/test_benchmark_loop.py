# Copyright 2026 The modeling_pixelvit team. All rights reserved.
# SPDX-License-Identifier: Apache-2.0
"""The comparison of the loop with bare steps runs, and counts what it says; how fast is not tested."""

import pytest

from training.benchmarks import loop as benchmark_loop


@pytest.mark.parametrize("family", ["adventurer", "pixelvit"])
def test_every_step_after_the_warmup_is_paired_with_a_bare_one(family, tmp_path, monkeypatch):
    sizes = {"variant": "tiny", "image_size": 16, "patch_size": 16, "total_batch_size": 4}
    monkeypatch.setitem(benchmark_loop.SIZES, "cpu", sizes)
    stopwatches = []

    class Stopwatch(benchmark_loop.Stopwatch):
        def __init__(self, *arguments):
            super().__init__(*arguments)
            stopwatches.append(self)

    monkeypatch.setattr(benchmark_loop, "Stopwatch", Stopwatch)
    rows = benchmark_loop.measure(family, "cpu", steps=3, num_workers=0, folder=str(tmp_path / "run"))
    row = rows[f"{family}-tiny 16/p16"]
    (stopwatch,) = stopwatches
    assert len(stopwatch.pairs) == 3 and all(ours > 0 and bare > 0 for ours, bare in stopwatch.pairs)
    shares = sorted(bare / ours for ours, bare in stopwatch.pairs)
    assert row["share_of_bare"] == shares[1]
    assert row["images_per_second"] == 4 / sorted(ours for ours, _ in stopwatch.pairs)[1]
