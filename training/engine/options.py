# Copyright 2026 The modeling_pixelvit team. All rights reserved.
# SPDX-License-Identifier: Apache-2.0
"""How a run is carried out, and how it ends."""

import dataclasses
import os
import re

import torch
from accelerate import Accelerator
from transformers.hf_argparser import HfArg


MOST_WORKERS = 16
UNITS = {"B": 1, "KB": 10**3, "MB": 10**6, "GB": 10**9, "TB": 10**12, "KIB": 2**10, "MIB": 2**20, "GIB": 2**30}


@dataclasses.dataclass(kw_only=True)
class LoopOptions:
    """
    How a run is carried out, which does not change its result but for rounding, and for what Mixup draws, which it does
    for each batch of a process. The help is the command line's.
    """

    output_dir: str = HfArg(default="runs/train", help="folder of the run, on a disk that all processes share")
    resume: str = HfArg(
        default="never",
        help="auto goes on from the last complete checkpoint in output_dir if there is one; never; a path",
    )
    gradient_accumulation_steps: int = HfArg(
        default=1, help="batches a process computes one after the other for a step"
    )
    gradient_checkpointing: bool = HfArg(default=False, help="compute blocks again in the backward pass to save memory")
    memory_budget: str | None = HfArg(
        default=None,
        help="most memory of a device that a step may take, like 70GiB: as many blocks are computed again in "
        "the backward pass as it takes, and the run says how many",
    )
    offload_activations: bool = HfArg(
        default=False, help="keep what the backward pass needs in the processor's memory, at the cost of copying it"
    )
    compile: bool = HfArg(default=False, help="compile the model by torch.compile, for each patch size anew")
    profile: int = HfArg(default=0, help="steps, after the first three, to measure operation by operation; 0: none")
    plan: bool = HfArg(default=False, help="tell what the run would do and cost, and stop before its first step")
    cost_file: str | None = HfArg(
        default=None, help="with --plan: what `training.benchmark cost` measured on such a device, for hours and memory"
    )
    num_workers: int | None = HfArg(
        default=None,
        help="processes that read images, for each process; if not given, with a GPU its share of the cores, 16 "
        "at the most, and none without",
    )
    eval_batch_size: int = HfArg(default=64, help="images a process evaluates at a time")
    eval_epochs: float = HfArg(default=1.0, help="epochs between evaluations; 0: at the end")
    logging_steps: int = HfArg(default=50, help="steps between logged numbers")
    save_steps: int = HfArg(default=0, help="steps between checkpoints; 0: by the clock only")
    save_minutes: float = HfArg(default=15.0, help="minutes between checkpoints; 0: by steps only")
    eval_patch_sizes: list[int] = HfArg(
        default_factory=list,
        help="patch sizes in pixels to evaluate beside the recipe's own; those of patch_draws if not given",
    )
    keep_checkpoints: int = HfArg(default=2, help="newest checkpoints to keep; the best one is kept beside them")
    report_to: str = HfArg(
        default="tensorboard", help="any tracker of Accelerate, several with commas between, or none"
    )
    max_unreadable_images: int = HfArg(default=100, help="different damaged images to skip before the run stops")
    max_loss_ratio: float = HfArg(
        default=5.0, help="the run stops if its logged loss is more than so many times the first one"
    )
    max_skipped_in_row: int = HfArg(
        default=100, help="the run stops if fp16 skips so many steps without one that succeeds"
    )

    def check(self):
        """
        Raises:
            ValueError: for a value out of range.
        """
        for name, least in (
            ("gradient_accumulation_steps", 1),
            ("profile", 0),
            ("num_workers", 0),
            ("eval_batch_size", 1),
            ("eval_epochs", 0),
            ("logging_steps", 1),
            ("save_steps", 0),
            ("save_minutes", 0),
            ("keep_checkpoints", 1),
            ("max_unreadable_images", 0),
            ("max_loss_ratio", 1),
            ("max_skipped_in_row", 1),
        ):
            if getattr(self, name) is not None and getattr(self, name) < least:
                raise ValueError(f"--{name} {getattr(self, name):g} was given; it must be at least {least}.")
        if self.memory_budget is not None:
            parse_bytes(self.memory_budget)
            for other in ("gradient_checkpointing", "offload_activations"):
                if getattr(self, other):
                    raise ValueError(f"--memory_budget and --{other} were given; give one of them.")

    def workers_for(self, device_type: str, num_processes: int) -> int:
        """
        Processes that read images.

        Args:
            device_type: "cuda", "cpu" or another of PyTorch's.
            num_processes: Of the run on this machine, which share its cores.
        """
        if self.num_workers is not None:
            return self.num_workers
        if device_type == "cpu":  # whose cores compute the model
            return 0
        return max(1, min(MOST_WORKERS, num_cores() // num_processes))


def parse_bytes(words: str) -> int:
    """
    Bytes of "70GiB", "80 GB" and the like.

    Raises:
        ValueError: for what is no amount of memory.
    """
    found = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*([A-Za-z]+)\s*", words)
    if found is None or found[2].upper() not in UNITS or float(found[1]) == 0:
        raise ValueError(f"--memory_budget {words} was given; give an amount like 70GiB or 80GB.")
    return int(float(found[1]) * UNITS[found[2].upper()])


def processes_here(accelerator: Accelerator) -> int:
    """Of a run on this machine: as the launcher says, or else one for each GPU."""
    if "LOCAL_WORLD_SIZE" in os.environ:
        return int(os.environ["LOCAL_WORLD_SIZE"])
    return max(1, min(accelerator.num_processes, torch.cuda.device_count()))


def num_cores() -> int:
    """Those that this process may use, where the system tells; else all."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


@dataclasses.dataclass(frozen=True)
class Outcome:
    """
    How a run ended.

    Args:
        step: Steps done.
        signal: That ended it before its last step, or 0.
        metrics: Of the last evaluation, if the run is finished.
    """

    step: int
    signal: int
    metrics: dict[str, float]


class TrainingStopped(RuntimeError):
    """A run that must not go on; the message says why and which checkpoint is the last good one."""
