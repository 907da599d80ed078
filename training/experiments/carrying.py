# Copyright 2026 The modeling_pixelvit team. All rights reserved.
# SPDX-License-Identifier: Apache-2.0
"""How experiments and sweeps are carried out: what is told meanwhile, in the end, and when something goes wrong."""

import dataclasses
import shlex
import signal
import sys
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from transformers.utils import logging

from .intervals import with_draws
from .law import judge_convergence
from .report import format_preview
from .run import Run
from .slurm import SlurmPool
from .workers import Resources, WorkerPool


@dataclasses.dataclass(frozen=True)
class Carrying:
    """
    How runs are carried out, which does not change their results.

    Args:
        output_dir: Folder of tables, pictures and numbers, below which each experiment has its own.
        resources: Of this machine; of Slurm's jobs its launcher.
        slurm: Parameters of Slurm jobs; None: the runs are carried out here.
        cluster: "slurm", or "local" to try the same in processes of this machine.
        known: Files with results of the same runs, made elsewhere, which are not repeated.
        cost_file: What `training.benchmark cost` measured on such a device, for the plan.
    """

    output_dir: str = "runs/experiments"
    resources: Resources = dataclasses.field(default_factory=Resources)
    slurm: dict[str, Any] | None = None
    cluster: str = "slurm"
    known: tuple[str, ...] = ()
    cost_file: str | None = None


@dataclasses.dataclass(frozen=True)
class SoFar:
    """
    What is known of some points while their runs are carried out.

    Args:
        rows: Of those that are finished.
        missing: How many are not.
        places: Of all of them on the axis, as far as they are known before.
    """

    rows: list[dict[str, Any]]
    missing: int
    places: Iterable[float] = ()


def carry_out(
    to_do: list[Run],
    carrying: Carrying,
    images_folder: str,
    folder: Path,
    look: Callable[[], SoFar],
    report: Callable[[list[dict[str, Any]]], None],
    title: str,
    short_runs: int,
) -> int:
    """
    Trains runs, shows what their points have come to whenever one more has ended, and reports in the end, also if some
    have failed.

    Args:
        to_do: The runs, which may be none.
        images_folder: Where images are stored.
        folder: Of all runs.
        look: At the points.
        report: What to do with the rows in the end, of which convergence has been judged.
        title, short_runs: See [`WorkerPool`].

    Returns:
        The process's exit status: 1 if a run failed, while the others went on.
    """
    missing = look().missing

    def show(run: Run, write: Callable[[str], None]):
        nonlocal missing
        now = look()
        if 0 < now.missing < missing:  # and not of a run that others start from
            write(f"\n{format_preview(now.rows, now.places)}\n")
        missing = now.missing

    started, errors = time.monotonic(), {}
    if to_do and carrying.slurm is not None:
        launcher = carrying.resources.launcher
        errors = SlurmPool(to_do, folder, launcher, carrying.slurm, carrying.cluster, finished=show).execute()
    elif to_do:
        errors = WorkerPool(to_do, images_folder, carrying.resources, show, short_runs, title).execute()
    print(f"{len(to_do) - len(errors)} runs done in {time.monotonic() - started:.0f} s.")
    if rows := look().rows:
        report(with_draws(judge_convergence(rows), folder))
    for name, error in errors.items():
        print(f"{name} failed:\n{error}", file=sys.stderr)
    return 1 if errors else 0


def resumable_command(module: str, arguments: list[str] | None, body: Callable[[str], int]) -> int:
    """
    A command whose runs go on where they were when it is given again.

    Args:
        module: As `python -m` has it.
        arguments: Of the command line if not given.
        body: Called with the whole command; returns the process's exit status.

    Returns:
        That, or 2 after an error of whoever gave the command, or 130 after Ctrl-C; both have been told.
    """
    # A job scheduler's way to say Ctrl-C, which a shell's background jobs do not get.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    logging.disable_progress_bar()  # of every file that transformers reads
    command = shlex.join(["python", "-m", module, *(sys.argv[1:] if arguments is None else arguments)])
    try:
        return body(command)
    except (ValueError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print(
            "\nInterrupted. Finished runs are kept and the others go on from their last saved state (at most half a "
            f"minute old, if nothing else was asked for) with the same command:\n    {command}",
            file=sys.stderr,
        )
        return 130
