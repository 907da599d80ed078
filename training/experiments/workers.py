# Copyright 2026 The modeling_pixelvit team. All rights reserved.
# SPDX-License-Identifier: Apache-2.0
"""
Runs of the sweep side by side, each in a process of its own, under one progress bar.

A process per run makes its peak memory its own. On Linux they are forked from a server that has imported what they
need, which takes each of a sweep's ten runs seconds otherwise. One thread each uses the cores better than one process
with many threads does at the sweep's sizes.
"""

import multiprocessing
import os
import signal
import sys
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass, field
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from pathlib import Path

import torch
from tqdm import tqdm
from transformers.utils import logging

from ..families.registry import FAMILIES
from .images import load_sweep_images
from .report import format_first_score
from .run import Interrupted, Run, execute


SECONDS_BETWEEN_REPORTS = 0.5
SECONDS_TO_WAIT = 0.5
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


def run_in_worker(run: Run, images_folder: str, threads: int, messages: Connection):
    """The body of a worker: `execute`, with messages ("progress", steps, loss), ("done",) or ("error", traceback)."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C goes to every process; the parent ends its workers
    parent = os.getppid()
    torch.set_num_threads(threads)
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
        images = load_sweep_images(run.recipe.task, run.data["source"], run.data["image_size"], Path(images_folder))
        execute(run, images, report)
    except Interrupted:
        raise SystemExit(128 + signal.SIGTERM) from None
    except Exception:
        messages.send(("error", traceback.format_exc()))
    else:
        messages.send(("done",))


@dataclass
class _Active:
    """A run in progress, as far as its parent knows."""

    run: Run
    process: BaseProcess
    messages: Connection
    started: float = field(default_factory=time.monotonic)
    first_share: float | None = None  # the share done at the first report, above zero if the run was resumed
    share: float = 0.0
    loss: float | None = None

    def seconds_per_work(self) -> float | None:
        done = self.share - (self.first_share or 0.0)
        return (time.monotonic() - self.started) / (done * work_of(self.run)) if done > 0 else None


class WorkerPool:
    """
    Executes runs in up to `workers` processes: the longest first, so that all processes end together, but on one of
    them the shortest first until there is something to look at.

    Args:
        runs: What to do.
        images_folder: Where their images are stored.
        workers: Processes at a time.
        threads: PyTorch's threads in each.
        finished: Called with each run that is done, and what writes a text above the progress bar.
        short_runs: So many of the shortest runs are not left to the end.
    """

    def __init__(
        self,
        runs: list[Run],
        images_folder: str,
        workers: int,
        threads: int,
        finished: Callable[[Run, Callable[[str], None]], None] = lambda run, write: None,
        short_runs: int = 0,
    ):
        self.images_folder, self.finished, self.short_runs = images_folder, finished, short_runs
        self.waiting = sorted(runs, key=work_of, reverse=True)
        self.workers, self.threads = workers, threads
        self.active: dict[str, _Active] = {}
        self.errors: dict[str, str] = {}
        self.context = multiprocessing.get_context("forkserver" if sys.platform == "linux" else "spawn")
        if sys.platform == "linux":
            self.context.set_forkserver_preload([__name__])
        self.total_work = sum(map(work_of, runs))
        self.finished_work = 0.0
        self.speed: float | None = None  # seconds per unit of work, of one process
        self.bar = tqdm(total=100, bar_format="{desc}|{bar:20}| {percentage:3.0f}%{postfix}", dynamic_ncols=True)
        self.shown = 0.0

    def execute(self) -> dict[str, str]:
        """
        Returns when all runs are done: the traceback of each run that failed, by its name. An exception, as Ctrl-C
        raises it, ends the workers; what they were doing can be continued.
        """
        for name, value in ALLOCATOR_SETTINGS.items():
            os.environ.setdefault(name, value)  # the workers inherit it
        try:
            while self.waiting or self.active:
                while self.waiting and len(self.active) < self.workers:
                    self._start(self._next())
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

    def _next(self) -> Run:
        # The last free process, or the only one, takes the short ones.
        if self.short_runs and len(self.active) == self.workers - 1:
            self.short_runs -= 1
            return self.waiting.pop()
        return self.waiting.pop(0)

    def _start(self, run: Run):
        messages, sender = self.context.Pipe(duplex=False)
        arguments = (run, self.images_folder, self.threads, sender)
        process = self.context.Process(target=run_in_worker, args=arguments, daemon=True)
        # Inherited, so that Ctrl-C does not reach a worker that is still importing.
        handler = signal.signal(signal.SIGINT, signal.SIG_IGN)
        try:
            process.start()
        finally:
            signal.signal(signal.SIGINT, handler)
        sender.close()  # the worker's end of the pipe is then the only one, so its death ends the messages
        self.active[run.name] = _Active(run, process, messages)

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
        self.speed = active.seconds_per_work() or self.speed

    def _finish(self, name: str, error: str | None = None):
        active = self.active.pop(name)
        active.process.join()
        self.finished_work += work_of(active.run)
        if error is None:
            metrics = active.run.finished_metrics()
            text = f"test loss {metrics['test_loss']:.3f}, {format_first_score(metrics)}"
            self.bar.write(f"{name}: {text}, {metrics['seconds']:.0f} s")
            self.finished(active.run, self.bar.write)
        else:
            self.errors[name] = error
            self.bar.write(f"{name}: failed: {error.strip().splitlines()[-1]}")

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
        self.bar.set_description_str("sweep", refresh=False)
        waiting = f", {len(self.waiting)} waiting" if self.waiting else ""
        self.bar.set_postfix_str(f"{self._time_left()} | {', '.join(running)}{waiting}", refresh=False)
        self.bar.refresh()

    def _time_left(self) -> str:
        """Handing the waiting runs, at the speeds seen, to whichever process is free first."""
        if self.speed is None:
            return "starting"
        ends = [
            (active.seconds_per_work() or self.speed) * (1 - active.share) * work_of(active.run)
            for active in self.active.values()
        ]
        ends += [0.0] * (self.workers - len(ends))
        for run in self.waiting:
            first = ends.index(min(ends))
            ends[first] += self.speed * work_of(run)
        minutes, seconds = divmod(round(max(ends)), 60)
        return f"{minutes}:{seconds:02d} left"
