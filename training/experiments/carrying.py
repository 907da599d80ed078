# Copyright 2026 The modeling_pixelvit team. All rights reserved.
# SPDX-License-Identifier: Apache-2.0
"""How experiments and sweeps are carried out, and what their commands tell when something goes wrong."""

import dataclasses
import shlex
import signal
import sys
from collections.abc import Callable
from typing import Any

from transformers.utils import logging

from .workers import Resources


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
