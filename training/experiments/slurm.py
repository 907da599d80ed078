# Copyright 2026 The modeling_pixelvit team. All rights reserved.
# SPDX-License-Identifier: Apache-2.0
"""Runs of an experiment as arrays of Slurm jobs, by submitit: one job a run; an array for what starts from others."""

import json
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from ..common.files import write_json
from .report import format_result
from .run import Run, read_run, write_run


try:
    import submitit
except ImportError:  # which only Slurm's users need
    submitit = None

JOB_FILE = "job.json"
LOGS_FOLDER = "slurm"
SECONDS_TO_WAIT = 5.0
GOING_ON = ("PENDING", "CONFIGURING", "RUNNING", "COMPLETING", "REQUEUED", "REQUEUE_HOLD", "SUSPENDED")


class RunJob:
    """
    Carries out a run by a command, and again after the scheduler has stopped it.

    Args:
        launcher: Words before `-m` of the command.
    """

    def __init__(self, launcher: Sequence[str]):
        self.launcher = list(launcher) or [sys.executable]
        self.process: subprocess.Popen | None = None

    def __call__(self, path: str):
        words, run = [*self.launcher, "-m", "training.experiment", "--point", path], read_run(path)
        with run.alone():
            if run.finished_metrics() is not None:
                return  # by the job or process that this one has waited for
            # The scheduler's warning is for this process, which then ends the command in its own way.
            self.process = subprocess.Popen(words, preexec_fn=lambda: signal.signal(signal.SIGUSR2, signal.SIG_IGN))
            if code := self.process.wait():
                raise RuntimeError(f"{shlex.join(words)} ended with exit code {code}.")

    def checkpoint(self, path: str) -> Any:
        """Called by submitit before time is over: the run saves itself, and its job goes back to the queue."""
        if self.process is not None:
            self.process.terminate()
            self.process.wait()
        return submitit.helpers.DelayedSubmission(RunJob(self.launcher), path)


class SlurmPool:
    """
    Submits runs and waits for them. Stopped meanwhile, the jobs go on, and another call finds them.

    Args:
        runs: What to do.
        folder: On a disk that all nodes share; logs go below it.
        launcher: Words before `-m` of the command that carries out a run; Python if there are none.
        parameters: Of the jobs, as submitit has them: `timeout_min`, `gpus_per_node`, `slurm_partition` and others.
        cluster: "slurm", or "local" for processes of this machine.
        finished: Called with each run that is done, and what writes a text.

    Raises:
        ValueError: if submitit is not there, or does not take the parameters.
    """

    def __init__(
        self,
        runs: list[Run],
        folder: Path,
        launcher: Sequence[str],
        parameters: dict[str, Any],
        cluster: str = "slurm",
        finished: Callable[[Run, Callable[[str], None]], None] = lambda run, write: None,
    ):
        if submitit is None:
            raise ValueError("Slurm jobs need the package submitit: pip install submitit.")
        self.runs, self.launcher, self.finished = runs, launcher, finished
        self.cluster, self.folder = cluster, folder / LOGS_FOLDER
        try:
            self.executor = submitit.AutoExecutor(folder=self.folder / "%j", cluster=cluster)
            self.executor.update_parameters(name="training.experiment", **parameters)
        except (RuntimeError, TypeError, NameError, ValueError) as error:
            raise ValueError(f"Jobs cannot be submitted: {' '.join(str(error).split())}") from None

    def execute(self) -> dict[str, str]:
        """Returns when all runs are done: what went wrong with those that failed, by name."""
        errors: dict[str, str] = {}
        waiting = list(self.runs)
        while waiting:
            unfinished = {run.folder for run in waiting}
            ready = [run for run in waiting if run.start is None or run.start.folder not in unfinished]
            for run in [run for run in ready if run.start is not None and run.start.name in errors]:
                errors[run.name] = f"{run.start.name}, from which it starts, failed."
                ready.remove(run)
                waiting.remove(run)
            errors |= self._execute_array(ready)
            waiting = [run for run in waiting if run not in ready]
        return errors

    def _execute_array(self, runs: list[Run]) -> dict[str, str]:
        jobs = {run.name: job for run in runs if (job := self._find_job(run)) is not None}
        new = [run for run in runs if run.name not in jobs]
        if new:
            submitted = self.executor.map_array(RunJob(self.launcher), [str(write_run(run)) for run in new])
            for run, job in zip(new, submitted, strict=True):
                write_json(Path(run.folder, JOB_FILE), {"id": str(job.job_id)})
                jobs[run.name] = job
        print(f"{len(new)} jobs submitted, {len(runs) - len(new)} were going on; logs in {self.folder}", flush=True)
        errors: dict[str, str] = {}
        active = list(runs)
        while active:
            for run in list(active):
                job = jobs[run.name]
                if run.finished_metrics() is None and (not job.done() and job.state in GOING_ON):
                    continue
                active.remove(run)
                if (metrics := run.finished_metrics()) is None:
                    errors[run.name] = "\n".join((job.stderr() or f"job {job.job_id} ended").splitlines()[-20:])
                    print(f"{run.name}: failed, job {job.job_id}", flush=True)
                else:
                    print(f"{run.name}: {format_result(metrics)}", flush=True)
                    self.finished(run, print)
            time.sleep(SECONDS_TO_WAIT if active and self.cluster == "slurm" else 0.2 * bool(active))
        return errors

    def _find_job(self, run: Run) -> Any | None:
        """The job of an earlier call that is still at this run."""
        path = Path(run.folder, JOB_FILE)
        if self.cluster != "slurm" or not path.exists():
            return None
        job = submitit.SlurmJob(folder=self.executor.folder, job_id=json.loads(path.read_text())["id"])
        return job if job.state in GOING_ON else None
