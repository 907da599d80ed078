# Copyright 2026 The modeling_pixelvit team. All rights reserved.
# SPDX-License-Identifier: Apache-2.0
"""A cell of the cost table: seconds and memory of a model's steps, in a process of its own that may fail or be slow."""

import ctypes
import dataclasses
import gc
import math
import multiprocessing
import resource
import statistics
import sys
import time
from multiprocessing.connection import Connection
from pathlib import Path

import psutil
import torch

from ..checkpoints.measured_cost import TRAINING
from ..common.throughput import DTYPES, status_bytes
from ..engine.memory import checkpoint_blocks
from ..engine.optimizers import build_optimizer
from ..settings.recipe import load_recipe
from .measuring import build, timed


STARTED, START_SECONDS = "started", 600
RESERVED_BYTES = 2**30  # of a CPU's memory, left to everything else


@dataclasses.dataclass(frozen=True)
class Cell:
    """
    What to measure.

    Args:
        mode: "training", a step with backward pass and AdamW under autocast, or "inference", a forward pass of a model
            that has been converted to the precision.
        batch_size: Images a step; halved until they fit.
        implementation: `mixer_implementation` or `attn_implementation`; the library's own choice if None.
        max_seconds: After which the measurement is ended, the making of the model included.
        rounds: Timed steps after one that is not.
    """

    family: str
    mode: str
    variant: str
    image_size: int
    patch_size: int
    batch_size: int
    precision: str
    device: str
    threads: int
    implementation: str | None = None
    gradient_checkpointing: bool = False
    max_seconds: float = 60.0
    rounds: int = 5


def build_model(cell: Cell) -> torch.nn.Module:
    name = "mixer_implementation" if cell.family == "adventurer" else "attn_implementation"
    fields = {} if cell.implementation is None else {name: cell.implementation}
    return build(cell.family, cell.variant, patch_size=cell.patch_size, image_size=cell.image_size, **fields)


class Step:
    """A call is one step of a cell's model on images that stay on the device."""

    def __init__(self, cell: Cell, batch_size: int):
        self.cell, self.dtype, device = cell, DTYPES[cell.precision], cell.device
        trains = cell.mode == TRAINING
        self.model = build_model(cell).to(device)
        if trains:
            self.model.train()
            recipe = load_recipe(f"{cell.family}-stage1", cell.variant)
            self.optimizer = build_optimizer(self.model, recipe, fused=device == "cuda")
            if cell.gradient_checkpointing:
                checkpoint_blocks(self.model)
        else:
            self.model.to(self.dtype)
        side = cell.image_size
        self.images = torch.randn(batch_size, 3, side, side, device=device, dtype=None if trains else self.dtype)
        self.labels = torch.randint(self.model.config.num_labels, (batch_size,), device=device)

    def __call__(self):
        if self.cell.mode != TRAINING:
            with torch.inference_mode():
                self.model(self.images)
            return
        # Gradients stay where they are, so that memory above what stands is what a step needs.
        self.optimizer.zero_grad(set_to_none=False)
        with torch.autocast(self.cell.device, dtype=self.dtype, enabled=self.dtype != torch.float32):
            loss = self.model(self.images, labels=self.labels).loss
        loss.backward()
        self.optimizer.step()


def peak_of(function, device: str) -> tuple[float, float | None]:
    """Seconds of a call, and the most bytes in use meanwhile beyond those before; None where the system cannot tell."""
    gc.collect()
    if device == "cuda":
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        seconds = timed(function, device)
        return seconds, torch.cuda.max_memory_allocated() - before
    try:
        ctypes.CDLL(None).malloc_trim(0)  # what is free, but still counted as resident
        Path("/proc/self/clear_refs").write_text("5")  # the peak becomes what is resident now
        before = status_bytes("VmRSS")
    except (OSError, AttributeError):
        return timed(function, device), None
    seconds = timed(function, device)
    return seconds, status_bytes("VmHWM") - before


def measure_cell(cell: Cell) -> dict[str, float | int | str | None]:
    """
    `batch_size` that fitted, `seconds` a step and `bytes` of it beside what stands; or `unmeasured` with the reason.
    """
    torch.set_num_threads(cell.threads)
    started, batch_size = time.monotonic(), cell.batch_size
    while True:
        try:
            step = Step(cell, batch_size)
            step()  # makes gradients and the optimizer's state, and finds the kernels
            seconds, memory = peak_of(step, cell.device)
            times = [seconds]
            # The first timed step may be slower than the next; at least two wherever there is the time.
            while len(times) < cell.rounds and time.monotonic() - started + 2 * times[-1] < cell.max_seconds:
                times.append(timed(step, cell.device))
            return {"batch_size": batch_size, "seconds": statistics.median(times), "bytes": memory}
        except torch.OutOfMemoryError:
            pass
        except RuntimeError as error:
            if "can't allocate memory" not in str(error):
                raise
        except (ImportError, ValueError) as error:
            return {"unmeasured": f"{type(error).__name__}: {error}".splitlines()[0]}
        step = None
        gc.collect()
        if cell.device == "cuda":
            torch.cuda.empty_cache()
        if batch_size == 1:
            return {"unmeasured": "one image does not fit into the memory"}
        batch_size = math.ceil(batch_size / 2)


def measure_in_process(cell: Cell) -> dict[str, float | int | str | None]:
    """`measure_cell` in a process of its own, ended when it takes longer than the cell may."""
    # What is forked cannot use CUDA where an import, torchao's for one, has asked for devices before.
    context = multiprocessing.get_context("spawn" if cell.device == "cuda" else "forkserver")
    if cell.device != "cuda":
        # Imported once, before the first process; each then imports the command anew, and finds all of this there.
        context.set_forkserver_preload([name for name in sys.modules if name.startswith("training.")])
    receiver, sender = context.Pipe(duplex=False)
    process = context.Process(target=_send, args=(cell, sender))
    process.start()
    sender.close()
    try:
        if not receiver.poll(START_SECONDS) or receiver.recv() != STARTED:
            raise RuntimeError(f"The process of {cell} did not start within {START_SECONDS} s.")
        if not receiver.poll(cell.max_seconds):
            return {"unmeasured": f"longer than {cell.max_seconds:g} s"}
        return receiver.recv()
    except EOFError:
        process.join()
        return {"unmeasured": f"the process ended by exit code {process.exitcode}"}
    finally:
        process.kill()
        process.join()
        receiver.close()


def _send(cell: Cell, sender: Connection):
    if cell.device == "cpu":
        # Else the system ends some process, and maybe not this one.
        limit = psutil.Process().memory_info().vms + max(psutil.virtual_memory().available - RESERVED_BYTES, 0)
        resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
    sender.send(STARTED)
    sender.send(measure_cell(cell))


def matrix_rate(device: str, precision: str, seconds: float = 1.0) -> float:
    """
    Operations a second of square matrix products: of a few sizes, each repeated for so many seconds, the fastest, since
    what else runs on a machine only makes them slower.
    """
    best = 0.0
    for side in (4096, 8192) if device == "cuda" else (1024, 2048):
        left, right = (torch.randn(side, side, device=device, dtype=DTYPES[precision]) for _ in range(2))
        torch.matmul(left, right)
        started = time.monotonic()
        while True:
            best = max(best, 2 * side**3 / timed(lambda a=left, b=right: torch.matmul(a, b), device))
            if time.monotonic() - started > seconds:
                break
    return best
