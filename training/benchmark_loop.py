# Copyright 2026 The modeling_pixelvit team. All rights reserved.
# SPDX-License-Identifier: Apache-2.0
"""
What the training loop costs on top of the bare forward, backward and optimizer step.

    python -m training.benchmark_loop                    on the CPU: Tiny at 128 pixels, patch 8, in fp32
    python -m training.benchmark_loop --device cuda      on a GPU: Base at 224 pixels, patch 16, in bf16

Both families train by their recipe of stage 1 with all that it asks for (random crops, ThreeAugment, Mixup, CutMix,
the average of the weights), reading images in worker processes. After each step of the loop a copy of its model takes
a bare step with the same optimizer on one batch that stays, so that a machine whose speed drifts slows both. The share
is the bare step's time over the loop's, from one step to the next: its median over the pairs. Results go to a JSON file
with device, versions and date.
"""

import argparse
import copy
import dataclasses
import json
import statistics
import tempfile
import time
from pathlib import Path

import torch
from accelerate import Accelerator
from torch.utils.data import Subset
from transformers.utils import logging

from .batches import TrainingBatches
from .benchmark import RESULTS_DIR, Rows, environment, print_rows
from .image_sources import load_images
from .loop import LoopOptions, TrainingLoop
from .optim import build_optimizers
from .recipe import CONFIG_CLASSES, Recipe, load_recipe
from .task_classification import ClassificationTask


SIZES = {
    "cpu": {"variant": "tiny", "image_size": 128, "patch_size": 8, "total_batch_size": 8},
    "cuda": {"variant": "base", "image_size": 224, "patch_size": 16, "total_batch_size": 64},
}
WARMUP_STEPS = 3


class BareStep:
    """Forward, backward and optimizer step of a copy of the loop's model, on a batch that is on the device already."""

    def __init__(self, loop: TrainingLoop):
        self.loop = loop
        self.model = copy.deepcopy(loop.sharded.module).train()
        self.optimizers = build_optimizers(self.model, loop.recipe)
        examples = [loop.task.train_example(index) for index in range(loop.recipe.total_batch_size)]
        self.batch = loop.to_device(loop.task.prepare_batch(loop.to_device(loop.task.collate(examples))))

    def __call__(self):
        with self.loop.accelerator.autocast():
            loss = self.loop.task.losses(self.model, self.batch)["loss"]
        loss.backward()
        for optimizer in self.optimizers:
            optimizer.step()
            optimizer.zero_grad()


class Stopwatch:
    """Called by the loop after each step: times the loop since the last call, then a bare step."""

    def __init__(self, bare: BareStep, device: str):
        self.bare, self.device = bare, device
        self.pairs: list[tuple[float, float]] = []
        self.last: float | None = None

    def now(self) -> float:
        if self.device == "cuda":
            torch.cuda.synchronize()
        return time.perf_counter()

    def __call__(self, step: int, loss: float):
        ended = self.now()
        self.bare()
        bare_ended = self.now()
        if self.last is not None and step > WARMUP_STEPS:
            self.pairs.append((ended - self.last, bare_ended - ended))
        self.last = bare_ended


def build_recipe(family: str, device: str, num_images: int, steps: int) -> Recipe:
    recipe = load_recipe(f"{family}-stage1", warmup_epochs=0.0, **SIZES[device])
    epochs = steps / TrainingBatches(recipe, num_images).steps_per_epoch
    return dataclasses.replace(recipe, num_train_epochs=epochs)


def measure(family: str, device: str, steps: int, num_workers: int, folder: str) -> Rows:
    images = load_images("digits")
    images = dataclasses.replace(images, evaluation=Subset(images.evaluation, range(2)))  # the loop ends with it
    recipe = build_recipe(family, device, len(images.train), steps + WARMUP_STEPS)
    options = LoopOptions(output_dir=folder, num_workers=num_workers, eval_epochs=0, save_minutes=0, report_to="none")
    accelerator = Accelerator(cpu=device == "cpu", mixed_precision="bf16" if device == "cuda" else "no")
    loop = TrainingLoop(accelerator, recipe, ClassificationTask(recipe, images), options, quiet=True)
    stopwatch = Stopwatch(BareStep(loop), device)
    loop.run(stopwatch)
    label = f"{family}-{recipe.variant} {recipe.image_size}/p{recipe.patch_size}"
    batch_size = recipe.total_batch_size
    return {
        label: {
            "images_per_second": batch_size / statistics.median(pair[0] for pair in stopwatch.pairs),
            "bare_images_per_second": batch_size / statistics.median(pair[1] for pair in stopwatch.pairs),
            "share_of_bare": statistics.median(bare / ours for ours, bare in stopwatch.pairs),
        }
    }


def parse_arguments(arguments: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", choices=list(SIZES), default="cpu")
    parser.add_argument("--steps", type=int, default=40, help="timed steps")
    parser.add_argument("--num_workers", type=int, default=1, help="processes that read images")
    parser.add_argument("--threads", type=int, default=1, help="CPU threads of the model")
    parser.add_argument("--output", type=Path, help="JSON file (training/benchmarks/loop.json or loop_cuda.json)")
    return parser.parse_args(arguments)


def main(arguments: list[str] | None = None):
    args = parse_arguments(arguments)
    torch.set_num_threads(args.threads)
    logging.disable_progress_bar()  # of every file that transformers writes
    rows: Rows = {}
    for family in CONFIG_CLASSES:
        with tempfile.TemporaryDirectory() as folder:
            rows |= measure(family, args.device, args.steps, args.num_workers, folder)
    print_rows(rows)
    settings = {"steps": args.steps, "num_workers": args.num_workers, **SIZES[args.device]}
    output = args.output or RESULTS_DIR / ("loop.json" if args.device == "cpu" else f"loop_{args.device}.json")
    content = {"environment": environment(args.device), "settings": settings, "results": rows}
    output.parent.mkdir(parents=True, exist_ok=True)
    output.write_text(json.dumps(content, indent=2) + "\n")
    print(f"Written to {output}")


if __name__ == "__main__":
    main()
