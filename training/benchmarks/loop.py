# Copyright 2026 The modeling_pixelvit team. All rights reserved.
# SPDX-License-Identifier: Apache-2.0
"""The training loop and a bare step beside each other, for `training.benchmark_loop`."""

import copy
import dataclasses
import statistics
import time

import torch
from accelerate import Accelerator
from torch.utils.data import Subset

from ..data.batches import TrainingBatches
from ..data.sources import load_images
from ..engine.loop import TrainingLoop
from ..engine.optimizers import build_optimizer
from ..engine.options import LoopOptions
from ..settings.recipe import Recipe, load_recipe
from ..tasks.classification import ClassificationTask
from .measuring import Rows


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
        fused = loop.optimizer.optimizer.defaults.get("fused", False)
        self.optimizer = build_optimizer(self.model, loop.recipe, fused=fused)
        examples = [loop.task.train_example(index) for index in range(loop.recipe.total_batch_size)]
        self.batch = loop.to_device(loop.task.prepare_batch(loop.to_device(loop.task.collate(examples))))

    def __call__(self):
        with self.loop.accelerator.autocast():
            loss = self.loop.task.losses(self.model, self.batch)["loss"]
        loss.backward()
        self.optimizer.step()
        self.optimizer.zero_grad()


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
