# Copyright 2026 The modeling_pixelvit team. All rights reserved.
# SPDX-License-Identifier: Apache-2.0
"""
The checkpoints that the demo shows if none are given: runs of the patch-size sweep, taken where they are finished and
trained otherwise.
"""

import dataclasses
import os
from pathlib import Path

from ..experiments.arguments import MOST_WORKERS, parse_arguments
from ..experiments.run import METRICS_FILE, Run
from ..experiments.sweep import describe_differences, load_sweep_images, name_of, plan_sweep
from ..experiments.workers import Resources, WorkerPool


# By task: the family and the patch sizes, which together take two cores five minutes. The first is shown first.
DEMO_RUNS = {
    "classification": ("pixelvit", (2, 4, 8, 16)),
    "segmentation": ("adventurer", (4,)),
    "detection": ("adventurer", (4,)),
}


def plan_demo_runs(folder: Path, sweep_options: tuple[str, ...] = ()) -> list[Run]:
    """
    The runs of `DEMO_RUNS`, with the settings that the sweep gives them.

    Args:
        folder: Under which each has a folder of its own.
        sweep_options: Further options of `python -m training.sweep`, for all of them.
    """
    runs = []
    for task, (family, patch_sizes) in DEMO_RUNS.items():
        sizes = [str(size) for size in patch_sizes]
        options = parse_arguments(["--task", task, "--families", family, "--patch_sizes", *sizes, *sweep_options])
        _, points = plan_sweep(options, load_sweep_images(options, folder))
        # Runs of all tasks lie side by side.
        runs += [dataclasses.replace(one.run, folder=str(folder / f"{task}-{one.run.name}")) for one in points]
    return runs


def finished_run(run: Run, folders: list[Path]) -> Path | None:
    """The first of the folders that holds this run, finished and with the same settings."""
    for folder in folders:
        metrics = dataclasses.replace(run, folder=str(folder)).finished_metrics()
        if metrics is not None and not describe_differences(metrics, run.settings):
            return folder
    return None


def train_or_reuse(folder: Path, sweep_options: tuple[str, ...] = ()) -> list[Path]:
    """
    Checkpoint folders of `DEMO_RUNS`. Runs that are finished in `folder`, or in a sweep's folder beside it, are taken
    as they are; the others are trained in `folder`, where an interrupted one goes on.

    Args:
        folder: For the runs that are trained here.
        sweep_options: Further options of `python -m training.sweep`.

    Raises:
        ValueError: if a run fails, with its traceback.
    """
    runs = plan_demo_runs(folder, sweep_options)
    found, to_do = {}, []
    for run in runs:
        elsewhere = sorted(path.parent for path in folder.parent.glob(f"*/{name_of(run.recipe)}/{METRICS_FILE}"))
        place = finished_run(run, [Path(run.folder), *elsewhere])
        if place is None:
            Path(run.folder, METRICS_FILE).unlink(missing_ok=True)  # of other settings
            to_do.append(run)
        found[run.name] = place or Path(run.folder)
    if to_do:
        print(
            f"{len(to_do)} of the demo's {len(runs)} models are to be trained, once, into {folder}; all take two cores "
            "five minutes. Stopped in between, it goes on from there.",
            flush=True,
        )
        folder.mkdir(parents=True, exist_ok=True)
        workers = min(os.cpu_count() or 1, MOST_WORKERS)
        errors = WorkerPool(to_do, str(folder), Resources(workers)).execute()
        if errors:
            details = "\n".join(f"{name}:\n{error}" for name, error in errors.items())
            raise ValueError(f"{len(errors)} of the demo's models could not be trained; this is why.\n{details}")
    return [found[run.name] for run in runs]
