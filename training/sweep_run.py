# Copyright 2026 The modeling_pixelvit team. All rights reserved.
# SPDX-License-Identifier: Apache-2.0
"""
One run of the sweep: a model, an image set and a recipe in, a checkpoint folder with `metrics.json` out.

`metrics.json` is written last, so its presence says that the run is finished. Until then the folder holds a state from
which the run goes on after an interruption, to the same result as without one.
"""

import dataclasses
import json
import math
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.nn import functional as F

from modeling_pixelvit import (
    AdventurerConfig,
    AdventurerForImageClassification,
    PixelViTConfig,
    PixelViTForImageClassification,
)
from modeling_pixelvit.image_processing_pixelvit import PixelViTImageProcessor

from .image_set import ImageSet
from .muon import Muon
from .sweep_law import summarize_curve


METRICS_FILE = "metrics.json"
STATE_FILE = "unfinished_run.pt"
CURVE_FILE = "loss_curve.json"
SECONDS_BETWEEN_STATES = 20.0
EVALUATION_BATCH = 64


@dataclasses.dataclass(frozen=True)
class Recipe:
    """
    Everything that decides a run's result, and the same for every patch size; `RECIPES` has one for each family.

    Args:
        train_images: Images seen in training; for the digits, placements.
        batch_size: Images per step.
        width: Hidden size of the model.
        num_blocks: Blocks of the model.
        head_dim: Width of a head, in the attention and in the scan.
        state_size: State of Adventurer's scan.
        initializer_range: Standard deviation of the models' truncated normal initialization, which in PixelViT fills
            every matrix: transformers' 0.02 is for widths of hundreds, below them the first signals drown.
        drop_path_rate: Stochastic depth of the last block; at this size it slows learning more than it generalizes.
        position_scale: Amplitude of the 2-D sine-cosine table that the learned positions start from; 0 leaves them
            random.
        muon_rate: Learning rate of Muon after the warmup, for the matrices of the blocks; 0 leaves them to AdamW.
        peak_rate: The same of AdamW, for everything else.
        warmup: Share of the steps in which the rates rise linearly.
        weight_decay: For matrices alone.
        beta2: AdamW's second moment.
        clip_norm: Largest norm of the gradient.
        seed: Of initial weights and of the order and placement of the training images.
    """

    train_images: int = 40_000
    batch_size: int = 32
    width: int = 64
    num_blocks: int = 4
    head_dim: int = 16
    state_size: int = 16
    initializer_range: float = 0.02
    drop_path_rate: float = 0.0
    position_scale: float = 0.0
    muon_rate: float = 0.02
    peak_rate: float = 3e-3
    warmup: float = 0.1
    weight_decay: float = 0.05
    beta2: float = 0.99
    clip_norm: float = 1.0
    seed: int = 0

    @property
    def num_steps(self) -> int:
        return self.train_images // self.batch_size

    def schedule(self, step: int) -> float:
        """Share of the peak rates at a step, counted from 0: linear warmup, then half a cosine down to zero."""
        done = (step + 1) / self.num_steps
        if done < self.warmup:
            return done / self.warmup
        return 0.5 * (1 + math.cos(math.pi * (done - self.warmup) / (1 - self.warmup)))


# What made each family learn small patches within the budget. Attention sees no order but by its position table; the
# scan knows the order, and a strong table only covers up what the pixels show. Attention learns faster from fewer,
# larger batches, the scan from more steps.
RECIPES = {
    "adventurer": Recipe(
        batch_size=16, width=48, initializer_range=0.02, position_scale=0.0, muon_rate=0.01, peak_rate=3e-3
    ),
    "pixelvit": Recipe(
        batch_size=32, width=64, initializer_range=0.1, position_scale=2.0, muon_rate=0.02, peak_rate=1e-3
    ),
}
FAMILIES = tuple(RECIPES)


@dataclasses.dataclass(frozen=True)
class Run:
    """One point of the sweep. `data` is what distinguishes the image set: its source and image size."""

    family: str
    patch_size: int
    recipe: Recipe
    data: dict[str, Any]
    folder: str

    @property
    def name(self) -> str:
        return f"{self.family}-patch{self.patch_size}"

    @property
    def num_tokens(self) -> int:
        """Patches of an image; the class token comes on top."""
        return (self.data["image_size"] // self.patch_size) ** 2

    @property
    def settings(self) -> dict[str, Any]:
        """What a finished run must agree with to count as this one, as it is after a round trip through JSON."""
        return json.loads(json.dumps({"recipe": dataclasses.asdict(self.recipe), "data": self.data}))

    def finished_metrics(self) -> dict[str, Any] | None:
        """The metrics of this run if it is finished."""
        try:
            return json.loads(Path(self.folder, METRICS_FILE).read_text())
        except FileNotFoundError:
            return None


def build_model(run: Run, images: ImageSet) -> nn.Module:
    """The untrained model of a run; weights follow the recipe's seed."""
    recipe = run.recipe
    shared = {
        "hidden_size": recipe.width,
        "num_hidden_layers": recipe.num_blocks,
        "image_size": images.image_size,
        "patch_size": run.patch_size,
        "initializer_range": recipe.initializer_range,
        "drop_path_rate": recipe.drop_path_rate,
        "id2label": dict(enumerate(images.label_names)),
        "label2id": {name: index for index, name in enumerate(images.label_names)},
    }
    torch.manual_seed(recipe.seed)
    if run.family == "adventurer":
        config = AdventurerConfig(head_dim=recipe.head_dim, state_size=recipe.state_size, **shared)
        model = AdventurerForImageClassification(config)
    else:
        heads = recipe.width // recipe.head_dim
        config = PixelViTConfig(num_attention_heads=heads, intermediate_size=4 * recipe.width, **shared)
        model = PixelViTForImageClassification(config)
    if recipe.position_scale:
        start_positions(model, recipe.position_scale)
    return model


@torch.no_grad()
def start_positions(model: nn.Module, scale: float):
    """
    Fills the patch positions with sines and cosines of row and column, of amplitude `scale`.

    Wavelengths go from 4 pixels to four times the image, whatever the patch size. The table is learned from there on.
    """
    embeddings = model.base_model.embeddings
    size, (rows, columns) = embeddings.image_size, embeddings.grid_size
    table = embeddings.patch_tokens(embeddings.position_embeddings)
    waves = table.shape[-1] // 4
    wavelengths = torch.logspace(math.log2(4), math.log2(4 * max(size)), waves, base=2)

    def encode(count):
        centres = (torch.arange(count) + 0.5) * embeddings.patch_size
        angles = 2 * math.pi * centres[:, None] / wavelengths
        return torch.cat([angles.sin(), angles.cos()], dim=1)

    picture = torch.zeros(rows, columns, table.shape[-1])
    picture[..., : 2 * waves] = encode(rows)[:, None]
    picture[..., 2 * waves : 4 * waves] = encode(columns)
    table.copy_(scale * picture.flatten(0, 1))


def build_optimizers(model: nn.Module, recipe: Recipe) -> list[torch.optim.Optimizer]:
    """
    AdamW, and Muon for the matrices of the blocks if the recipe says so; each group keeps its peak rate. As in the
    paper vectors, class token and position table do not decay.

    Adventurer's input projection stays with AdamW: it is five maps in one, of which the step's has a row per head, and
    learns badly when Muon gives all of them the same share of a step.
    """
    matrices, decays, stays = [], [], []
    for name, parameter in model.named_parameters():
        if recipe.muon_rate and ".layers." in name and parameter.dim() == 2 and not name.endswith("in_proj.weight"):
            matrices.append(parameter)
        elif parameter.dim() > 1 and not name.endswith(("cls_token", "position_embeddings")):
            decays.append(parameter)
        else:
            stays.append(parameter)
    groups = [{"params": decays, "weight_decay": recipe.weight_decay}, {"params": stays, "weight_decay": 0.0}]
    optimizers = [torch.optim.AdamW(groups, lr=recipe.peak_rate, betas=(0.9, recipe.beta2))]
    if matrices:
        optimizers.append(Muon(matrices, lr=recipe.muon_rate, weight_decay=recipe.weight_decay))
    for optimizer in optimizers:
        for group in optimizer.param_groups:
            group["peak_rate"] = group["lr"]
    return optimizers


class Trainer:
    """
    The state of a run in progress: model, optimizers, the losses so far (one a step), and the seconds spent, by the
    clock and by the processor (all threads together).
    """

    def __init__(self, run: Run, images: ImageSet):
        self.run, self.images, self.recipe = run, images, run.recipe
        self.model = build_model(run, images)
        self.optimizers = build_optimizers(self.model, self.recipe)
        self.order = images.training_order(self.recipe.num_steps * self.recipe.batch_size, self.recipe.seed)
        self.losses: list[float] = []
        self.seconds = self.cpu_seconds = 0.0

    @property
    def step(self) -> int:
        return len(self.losses)

    def train_step(self):
        started, cpu_started = time.monotonic(), time.process_time()
        recipe, start = self.recipe, self.step * self.recipe.batch_size
        pixels, labels = self.images.training_batch(self.order[start : start + recipe.batch_size])
        loss = F.cross_entropy(self.model(pixel_values=self.images.normalize(pixels)).logits, labels)
        loss.backward()
        nn.utils.clip_grad_norm_(self.model.parameters(), recipe.clip_norm)
        for optimizer in self.optimizers:
            for group in optimizer.param_groups:
                group["lr"] = group["peak_rate"] * recipe.schedule(self.step)
            optimizer.step()
        self.model.zero_grad()
        self.losses.append(loss.item())
        self.seconds += time.monotonic() - started
        self.cpu_seconds += time.process_time() - cpu_started

    def save_state(self, path: Path):
        state = {
            "settings": self.run.settings,
            "model": self.model.state_dict(),
            "optimizers": [optimizer.state_dict() for optimizer in self.optimizers],
            "losses": self.losses,
            "seconds": self.seconds,
            "cpu_seconds": self.cpu_seconds,
            "random_state": torch.get_rng_state(),
        }
        partial = path.with_suffix(".partial")
        torch.save(state, partial)
        os.replace(partial, path)

    def load_state(self, path: Path):
        """Goes on from a saved state, if there is one of a run with the same settings."""
        if not path.exists():
            return
        state = torch.load(path, weights_only=True)
        if state["settings"] != self.run.settings:
            return
        self.model.load_state_dict(state["model"])
        for optimizer, optimizer_state in zip(self.optimizers, state["optimizers"], strict=True):
            optimizer.load_state_dict(optimizer_state)
        self.losses = state["losses"]
        self.seconds, self.cpu_seconds = state["seconds"], state["cpu_seconds"]
        torch.set_rng_state(state["random_state"])


@torch.no_grad()
def evaluate(model: nn.Module, images: ImageSet) -> tuple[float, float]:
    """Mean cross-entropy and accuracy, in percent, on the test images."""
    model.eval()
    batches = images.test_pixels.split(EVALUATION_BATCH)
    logits = torch.cat([model(pixel_values=images.normalize(pixels)).logits for pixels in batches]).double()
    correct = (logits.argmax(-1) == images.test_labels).double().mean()
    return F.cross_entropy(logits, images.test_labels).item(), 100 * correct.item()


def execute(run: Run, images: ImageSet, report: Callable[[int, float], None] = lambda seen, loss: None) -> dict:
    """
    Trains, tests and saves one run, from where it was interrupted if it was.

    Args:
        run: What to do; `run.folder` is made.
        images: The image set that `run.data` tells of.
        report: Called after every step with the images seen so far and the step's training loss.

    Returns:
        What `metrics.json` holds.
    """
    folder = Path(run.folder)
    folder.mkdir(parents=True, exist_ok=True)
    state_file = folder / STATE_FILE
    trainer = Trainer(run, images)
    trainer.load_state(state_file)
    saved = time.monotonic()
    trainer.model.train()
    while trainer.step < run.recipe.num_steps:
        trainer.train_step()
        report(trainer.step * run.recipe.batch_size, trainer.losses[-1])
        if time.monotonic() - saved > SECONDS_BETWEEN_STATES:
            trainer.save_state(state_file)
            saved = time.monotonic()
    test_loss, test_accuracy = evaluate(trainer.model, images)
    metrics = {
        "family": run.family,
        "patch_size": run.patch_size,
        "tokens": run.num_tokens,
        "num_classes": len(images.label_names),
        "parameters": sum(parameter.numel() for parameter in trainer.model.parameters()),
        "test_loss": test_loss,
        "test_accuracy": test_accuracy,
        **summarize_curve(trainer.losses),
        "seconds": trainer.seconds,
        "cpu_seconds": trainer.cpu_seconds,
        "peak_memory_mib": peak_memory_mib(),
        **run.settings,
    }
    save_checkpoint(trainer.model, images, folder)
    write_json(folder / CURVE_FILE, {"batch_size": run.recipe.batch_size, "train_loss": trainer.losses})
    write_json(folder / METRICS_FILE, metrics)
    state_file.unlink(missing_ok=True)
    return metrics


def save_checkpoint(model: nn.Module, images: ImageSet, folder: Path):
    """Model and image processor, so that `pipeline("image-classification", model=folder)` works."""
    model.save_pretrained(folder)
    processor = PixelViTImageProcessor(
        size={"height": images.image_size, "width": images.image_size},
        crop_pct=1.0,
        image_mean=images.image_mean,
        image_std=images.image_std,
    )
    processor.save_pretrained(folder)


def write_json(path: Path, content: Any):
    """Writes the whole file or, if interrupted, nothing."""
    partial = path.with_suffix(".partial")
    partial.write_text(json.dumps(content, indent=2) + "\n")
    os.replace(partial, path)


def peak_memory_mib() -> float:
    """
    The most memory that this process has had resident, libraries included, in MiB.

    Linux counts into `ru_maxrss` what the parent had when it started the process, so there its own peak is read.
    """
    try:
        status = Path("/proc/self/status").read_text()
        return int(status.split("VmHWM:")[1].split()[0]) / 1024
    except (OSError, IndexError):
        import resource  # not on Windows
        import sys

        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        return peak / 2**20 if sys.platform == "darwin" else peak / 2**10
