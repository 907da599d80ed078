# Copyright 2026 The modeling_pixelvit team. All rights reserved.
# SPDX-License-Identifier: Apache-2.0
"""
Runs of an experiment side by side, each in a process of its own, under one progress bar.

A process per run makes its peak memory its own. On Linux they are forked from a server that has imported what they
need, which takes each of a sweep's ten runs seconds otherwise. One thread each uses the cores better than one process
with many threads does at the sweep's sizes. On a machine with GPUs each process has one of them, or all together carry
out one run after the other by a launcher, such as `accelerate launch`.
"""

import json
import multiprocessing
import os
import shlex
import signal
import subprocess
import sys
import time
import traceback
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from pathlib import Path

import torch
from accelerate import Accelerator
from tqdm import tqdm
from transformers.utils import logging

from ..data.unreadable import UnusableData
from ..engine.options import TrainingStopped
from ..families.registry import FAMILIES
from .images import load_run_images
from .report import format_result
from .run import LOG_FILE, UNFINISHED_FOLDER, Interrupted, Run, execute, write_run


SECONDS_BETWEEN_REPORTS = 0.5
SECONDS_TO_WAIT = 0.5
OUTPUT_FILE = "output.txt"
VISIBLE_GPUS = "CUDA_VISIBLE_DEVICES"
SECONDS_BETWEEN_LINES = 15.0  # where the progress goes to a file
# For glibc's allocator: to keep what a step frees for the next step. Given back to the system and asked for again, it
# costs a page fault every 4 KiB, about a seventh of a step's time.
ALLOCATOR_SETTINGS = {"MALLOC_MMAP_THRESHOLD_": str(2**25), "MALLOC_TRIM_THRESHOLD_": str(2**34)}


def work_of(run: Run, steps: int | None = None) -> float:
    """
    Rough work of a run, or of its first steps, in arbitrary units: per image, a constant, a share per token and, for
    attention, per pair of tokens. The constants are measured at the default width; they only order the runs and scale
    the progress bar.
    """
    work = 0.0
    for patch_size, batches in run.course.batches_by_patch_size(steps).items():
        of_image = FAMILIES[run.recipe.family].relative_work(run.recipe.tokens_per_image(patch_size))
        work += batches * run.recipe.total_batch_size * of_image
    return work


@dataclass(frozen=True)
class Resources:
    """
    What runs are carried out with.

    Args:
        workers: Processes at a time.
        threads: PyTorch's threads in each.
        gpus: Ids of GPUs, as `CUDA_VISIBLE_DEVICES` has them, of which each process gets one; on the CPU if there are
            none.
        precision: "no", "fp16" or "bf16", of products on a GPU.
        launcher: Words before `-m` of a command that carries out one run; not beside GPUs.
    """

    workers: int = 1
    threads: int = 1
    gpus: tuple[str, ...] = ()
    precision: str = "no"
    launcher: tuple[str, ...] = ()


def run_in_worker(run: Run, images_folder: str, resources: Resources, gpu: str | None, messages: Connection):
    """The body of a worker: `execute`, with messages ("progress", steps, loss), ("done",) or ("error", text)."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C goes to every process; the parent ends its workers
    parent = os.getppid()
    torch.set_num_threads(resources.threads)
    logging.disable_progress_bar()  # there is one already
    reported = 0.0

    def report(steps: int, loss: float):
        nonlocal reported
        if os.getppid() != parent:
            raise SystemExit(1)  # the parent was killed
        if time.monotonic() - reported > SECONDS_BETWEEN_REPORTS:
            reported = time.monotonic()
            messages.send(("progress", steps, loss))

    try:
        with run.alone(is_wanted=lambda: os.getppid() == parent):
            if run.finished_metrics() is not None:
                pass  # by the process that this one has waited for
            elif resources.launcher:
                launch(run, resources.launcher, report)
            else:
                images = load_run_images(run.recipe, **run.data, folder=Path(images_folder))
                accelerator = Accelerator(cpu=gpu is None, mixed_precision=None if gpu is None else resources.precision)
                execute(run, images, report, accelerator)
    except Interrupted:
        raise SystemExit(128 + signal.SIGTERM) from None
    except (TrainingStopped, UnusableData) as error:  # a sentence for whoever gave the command
        messages.send(("error", str(error)))
    except Exception:
        messages.send(("error", traceback.format_exc()))
    else:
        messages.send(("done",))


def launch(run: Run, launcher: Sequence[str], report: Callable[[int, float], None]):
    """
    Carries out a run by a command, whose output goes to `output.txt` in the run's folder.

    Raises:
        Interrupted: after SIGTERM, which the command gets too.
        RuntimeError: if it fails, with the end of its output.
    """
    folder = Path(run.folder)
    words = [*launcher, "-m", "training.experiment", "--point", str(write_run(run))]
    with open(folder / OUTPUT_FILE, "a") as output:
        process = subprocess.Popen(words, stdout=output, stderr=subprocess.STDOUT, start_new_session=True)
    stopped = False

    def stop(number, frame):
        nonlocal stopped
        stopped = True
        process.terminate()

    signal.signal(signal.SIGTERM, stop)
    try:
        while process.poll() is None:
            time.sleep(SECONDS_TO_WAIT)
            if (steps := last_step(folder / UNFINISHED_FOLDER / LOG_FILE)) is not None:
                report(*steps)
    finally:
        if process.poll() is None:  # nobody waits for it any more
            process.terminate()
            process.wait()
    if run.finished_metrics() is None:
        if stopped:
            raise Interrupted(f"{run.name} was stopped; it can go on.")
        lines = (folder / OUTPUT_FILE).read_text(errors="replace").splitlines()[-20:]
        raise RuntimeError("\n".join([f"{shlex.join(words)} ended with exit code {process.returncode}:", *lines]))


def last_step(log: Path) -> tuple[int, float] | None:
    """The last step that a run's log tells of, and its loss."""
    try:
        with open(log, "rb") as file:
            file.seek(max(0, log.stat().st_size - 4096))
            lines = file.read().decode(errors="replace").splitlines()
    except OSError:
        return None
    for line in reversed(lines):
        try:
            record = json.loads(line)
            return record["step"], record["loss"]
        except (ValueError, KeyError, TypeError):
            continue  # half a line, or one of something else
    return None


@dataclass
class _Active:
    """A run in progress, as far as its parent knows."""

    run: Run
    gpu: str | None
    process: BaseProcess
    messages: Connection
    started: float = field(default_factory=time.monotonic)
    first_share: float | None = None  # the share done at the first report, above zero if the run was resumed
    share: float = 0.0
    loss: float | None = None

    def measured(self) -> tuple[Run, float, float]:
        """The run, and how long it has taken for how much work since its first report."""
        return self.run, time.monotonic() - self.started, (self.share - (self.first_share or 0.0)) * work_of(self.run)


class WorkerPool:
    """
    Executes runs in up to `workers` processes: the longest first, so that all processes end together, but on one of
    them the shortest first until there is something to look at.

    A run waits for the one that it starts from, unless that is finished or not among them; if that fails, so does it.

    Args:
        runs: What to do.
        images_folder: Where their images are stored.
        resources: What they are carried out with.
        finished: Called with each run that is done, and what writes a text above the progress bar.
        short_runs: So many of the shortest runs are not left to the end.
        title: Of the progress bar.
    """

    def __init__(
        self,
        runs: list[Run],
        images_folder: str,
        resources: Resources,
        finished: Callable[[Run, Callable[[str], None]], None] = lambda run, write: None,
        short_runs: int = 0,
        title: str = "sweep",
    ):
        self.images_folder, self.resources = images_folder, resources
        self.finished, self.short_runs, self.title = finished, short_runs, title
        self.waiting = sorted(runs, key=work_of, reverse=True)
        self.workers = 1 if resources.launcher else resources.workers
        self.free_gpus = list(resources.gpus)
        self.active: dict[str, _Active] = {}
        self.errors: dict[str, str] = {}
        # What is forked cannot use CUDA where an import, torchao's for one, has asked for devices before.
        forks = sys.platform == "linux" and not resources.gpus
        self.context = multiprocessing.get_context("forkserver" if forks else "spawn")
        if forks:
            self.context.set_forkserver_preload([__name__])
        self.total_work = sum(map(work_of, runs))
        self.finished_work = 0.0
        self.measured: list[tuple[Run, float, float]] = []  # of runs that have ended
        self.bar = tqdm(total=100, bar_format="{desc}|{bar:20}| {percentage:3.0f}%{postfix}", dynamic_ncols=True)
        self.shown = 0.0

    def execute(self) -> dict[str, str]:
        """
        Returns when all runs are done: what went wrong in each run that failed, by its name. An exception, as Ctrl-C
        raises it, ends the workers; what they were doing can be continued.
        """
        for name, value in ALLOCATOR_SETTINGS.items():
            os.environ.setdefault(name, value)  # the workers inherit it
        try:
            while self.waiting or self.active:
                while len(self.active) < self.workers and (run := self._next()) is not None:
                    self._start(run)
                self._receive()
                self._show()
            self.bar.n = self.bar.total
            self.bar.set_postfix_str("all runs done")
        finally:
            for active in self.active.values():
                active.process.terminate()
            for active in self.active.values():
                active.process.join()
            self.bar.close()
        return self.errors

    def _next(self) -> Run | None:
        """The next run, taken from those that wait; None if none of them can begin yet."""
        unfinished = {run.folder for run in [*self.waiting, *(active.run for active in self.active.values())]}
        ready = [run for run in self.waiting if run.start is None or run.start.folder not in unfinished]
        if not ready:
            return None
        # The last free process, or the only one, takes the short ones.
        takes_short = self.short_runs and len(self.active) == self.workers - 1
        self.short_runs -= bool(takes_short)
        run = ready[-1 if takes_short else 0]
        self.waiting.remove(run)
        return run

    def _start(self, run: Run):
        messages, sender = self.context.Pipe(duplex=False)
        gpu = self.free_gpus.pop(0) if self.free_gpus else None
        arguments = (run, self.images_folder, self.resources, gpu, sender)
        process = self.context.Process(target=run_in_worker, args=arguments, daemon=True)
        # Inherited, so that Ctrl-C does not reach a worker that is still importing.
        handler = signal.signal(signal.SIGINT, signal.SIG_IGN)
        visible = os.environ.get(VISIBLE_GPUS)
        try:
            if gpu is not None:
                os.environ[VISIBLE_GPUS] = gpu  # and so is this, before anything there asks for devices
            process.start()
        finally:
            signal.signal(signal.SIGINT, handler)
            if gpu is not None:
                os.environ.pop(VISIBLE_GPUS)
                os.environ |= {} if visible is None else {VISIBLE_GPUS: visible}
        sender.close()  # the worker's end of the pipe is then the only one, so its death ends the messages
        self.active[run.name] = _Active(run, gpu, process, messages)

    def _receive(self):
        names = {active.messages: name for name, active in self.active.items()}
        for messages in wait(list(names), timeout=SECONDS_TO_WAIT):
            name = names[messages]
            try:
                kind, *details = messages.recv()
            except EOFError:  # killed, for one because memory ran out
                self.active[name].process.join()
                code = self.active[name].process.exitcode
                self._finish(name, f"its process ended with exit code {code} (if negative, by that signal)")
                continue
            if kind == "progress":
                self._note_progress(self.active[name], *details)
            else:
                self._finish(name, *details)

    def _note_progress(self, active: _Active, steps: int, loss: float):
        active.share, active.loss = work_of(active.run, steps) / work_of(active.run), loss
        if active.first_share is None:
            active.first_share, active.started = active.share, time.monotonic()

    def _finish(self, name: str, error: str | None = None):
        active = self.active.pop(name)
        active.process.join()
        self.free_gpus += [] if active.gpu is None else [active.gpu]
        self.finished_work += work_of(active.run)
        self.measured.append(active.measured())
        if error is None:
            metrics = active.run.finished_metrics()
            self.bar.write(f"{name}: {format_result(metrics)}, {metrics['seconds']:.0f} s")
            self.finished(active.run, self.bar.write)
        else:
            self._fail(active.run, error)

    def _fail(self, run: Run, error: str):
        """Notes that a run has failed, and so all that start from it."""
        self.errors[run.name] = error
        self.bar.write(f"{run.name}: failed: {error.strip().splitlines()[-1]}")
        for later in [one for one in self.waiting if one.start is not None and one.start.folder == run.folder]:
            self.waiting.remove(later)
            self.finished_work += work_of(later)
            self._fail(later, f"{run.name}, from which it starts, failed.")

    def _show(self):
        pause = SECONDS_TO_WAIT if sys.stderr.isatty() else SECONDS_BETWEEN_LINES
        if time.monotonic() - self.shown < pause:
            return
        self.shown = time.monotonic()
        done = self.finished_work + sum(active.share * work_of(active.run) for active in self.active.values())
        running = [
            f"{name} {active.share:.0%}" + ("" if active.loss is None else f" (loss {active.loss:.2f})")
            for name, active in self.active.items()
        ]
        self.bar.n = min(100.0, 100 * done / self.total_work)
        self.bar.set_description_str(self.title, refresh=False)
        waiting = f", {len(self.waiting)} waiting" if self.waiting else ""
        self.bar.set_postfix_str(f"{self._time_left()} | {', '.join(running)}{waiting}", refresh=False)
        self.bar.refresh()

    def _time_left(self) -> str:
        """Handing the waiting runs, at the speeds seen, to whichever process is free first."""
        measured = [*self.measured, *(active.measured() for active in self.active.values())]
        measured = [one for one in measured if one[2] > 0]
        if not measured:
            return "starting"
        ends = [
            seconds_per_work(active.run, measured) * (1 - active.share) * work_of(active.run)
            for active in self.active.values()
        ]
        ends += [0.0] * (self.workers - len(ends))
        for run in self.waiting:
            ends[ends.index(min(ends))] += seconds_per_work(run, measured) * work_of(run)
        minutes, seconds = divmod(round(max(ends)), 60)
        return f"{minutes}:{seconds:02d} left"


def seconds_per_work(run: Run, measured: list[tuple[Run, float, float]]) -> float:
    """What to expect of a run: what those took, of which seconds and work are known, that are most like it."""

    def likeness(other: Run) -> int:
        return sum(getattr(run.recipe, name) == getattr(other.recipe, name) for name in ("task", "family", "model"))

    most = max(likeness(other) for other, *_ in measured)
    alike = [(seconds, work) for other, seconds, work in measured if likeness(other) == most]
    return sum(seconds for seconds, _ in alike) / sum(work for _, work in alike)
