# Copyright 2026 The modeling_pixelvit team. All rights reserved.
# SPDX-License-Identifier: Apache-2.0
"""What the processes of a run agree on after every step: whether to stop, whether to save, which images were bad."""

import datetime
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
import torch.distributed as dist
from accelerate import Accelerator


STOPPING = (signal.SIGINT, signal.SIGTERM)
PATIENCE = datetime.timedelta(days=1)


@contextmanager
def main_processes_first(accelerator: Accelerator) -> Iterator[None]:
    """
    The main process of each machine first, the others once it is done, however long that takes.

    A data set may take hours to prepare, and processes that wait for each other elsewhere give up after minutes.
    """
    if accelerator.num_processes == 1:
        yield
        return
    group = dist.new_group(backend="gloo", timeout=PATIENCE)
    if not accelerator.is_local_main_process:
        dist.barrier(group=group)
    yield
    if accelerator.is_local_main_process:
        dist.barrier(group=group)
    dist.destroy_process_group(group)


class StopRequest:
    """
    Takes SIGINT and SIGTERM as a wish to end after the step; a second one of a kind ends the process at once.

    A context manager: outside it the signals do what they did before. Signals reach only a program's main thread, so
    elsewhere nothing is changed.
    """

    def __init__(self):
        self.signal: int | None = None

    def __enter__(self) -> "StopRequest":
        self.in_main_thread = threading.current_thread() is threading.main_thread()
        if self.in_main_thread:
            self.before = {number: signal.signal(number, self._note) for number in STOPPING}
        return self

    def __exit__(self, *exception: Any):
        if self.in_main_thread:
            for number, handler in self.before.items():
                signal.signal(number, handler)

    def _note(self, number: int, frame: Any):
        self.signal = number
        signal.signal(number, self.before[number])


class Coordination:
    """
    Makes the same decisions on all processes, over a gloo group of its own, so that no GPU is waited for.

    Args:
        stop: This process's signals.
        save_seconds: Between checkpoints, by the main process's clock; None: never by the clock.
    """

    def __init__(self, stop: StopRequest, save_seconds: float | None):
        self.stop, self.save_seconds = stop, save_seconds
        self.group = dist.new_group(backend="gloo") if dist.is_available() and dist.is_initialized() else None
        self.is_main = self.group is None or dist.get_rank() == 0
        self.saved()

    def saved(self):
        """Restarts the clock for the next checkpoint."""
        self.last_save = time.monotonic()

    def after_step(self, unreadable: list[str]) -> tuple[int, bool, list[str]]:
        """
        Args:
            unreadable: Images that this process could not read in the step.

        Returns:
            The signal to stop for or 0, whether a checkpoint is due, and the unreadable images of all processes.
        """
        due = self.is_main and self.save_seconds is not None and time.monotonic() - self.last_save > self.save_seconds
        number = self.stop.signal or 0
        if self.group is None:
            return number, due, unreadable
        wishes = torch.tensor([number, int(due), len(unreadable)])
        dist.all_reduce(wishes, op=dist.ReduceOp.MAX, group=self.group)
        number, due, bad = wishes.tolist()
        if bad:
            unreadable = [name for names in self.gather(unreadable) for name in names]
        return number, bool(due), unreadable

    def gather(self, content: Any) -> list[Any]:
        """The picklable objects of all processes, on each of them, by rank."""
        if self.group is None:
            return [content]
        everything = [None] * dist.get_world_size(self.group)
        dist.all_gather_object(everything, content, group=self.group)
        return everything
