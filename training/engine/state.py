# Copyright 2026 The modeling_pixelvit team. All rights reserved.
# SPDX-License-Identifier: Apache-2.0
"""
What is in a checkpoint of a run: everything that the next step depends on, as safetensors and JSON.

    config.json, model*.safetensors, preprocessor_config.json    the weights, for `from_pretrained`
    average/                                                     the same of their average
    optimizer-00001-of-00008.safetensors, ...                    the optimizer's averages, whole parameters a file
    progress.json                                                steps done, loss scale, counters, and of what data
    recipe.yaml                                                  the resolved recipe

All tensors are whole and in fp32, so a run can go on with another number of processes or another way to share a model.
Samplers and random generators have no state: both are functions of the step.
"""

import dataclasses
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from accelerate.utils import DistributedType
from safetensors import safe_open
from safetensors.torch import save_file
from torch import nn
from transformers import PreTrainedModel

from ..settings.recipe import Recipe, load_recipe
from ..tasks.base import Task
from .average import WeightAverage
from .sharding import ShardedModel


AVERAGE_FOLDER = "average"
PROGRESS_FILE = "progress.json"
RECIPE_FILE = "recipe.yaml"
NAMES_SHOWN = 5
DATA = "data"  # the key of PROGRESS_FILE for what `Splits.identity` gives


@dataclasses.dataclass
class Progress:
    """
    What a run remembers beside its tensors.

    Args:
        step: Steps done.
        evaluated_step: The last step after which the model was evaluated.
        first_loss: Mean training loss of the first logged window.
        window: Training losses by name since the last log, one a step.
        skipped_steps: Steps that fp16 gave up because a gradient had overflowed.
        skipped_in_row: The same without a successful step in between, up to now.
        metrics: Of the last evaluation.
        best_metric, best_step: Of the best one.
        unreadable: Images that could not be read, with the reason.
        seconds: Spent in training, evaluation and saving.
        cpu_seconds: The same by the main process's processor time, all threads together.
    """

    step: int = 0
    evaluated_step: int = -1
    first_loss: float | None = None
    window: dict[str, list[float]] = dataclasses.field(default_factory=dict)
    skipped_steps: int = 0
    skipped_in_row: int = 0
    metrics: dict[str, float] = dataclasses.field(default_factory=dict)
    best_metric: float | None = None
    best_step: int | None = None
    unreadable: list[str] = dataclasses.field(default_factory=list)
    seconds: float = 0.0
    cpu_seconds: float = 0.0


def check_same_run(checkpoint: Path, recipe: Recipe, data: dict[str, Any]):
    """
    Args:
        checkpoint: To go on from.
        recipe: That of now.
        data: What `Splits.identity` gives now; older checkpoints do not tell theirs.

    Raises:
        ValueError: if the checkpoint is of another recipe or was trained on other data. Test images may be others.
    """
    found, wanted = dataclasses.asdict(load_recipe(checkpoint / RECIPE_FILE)), dataclasses.asdict(recipe)
    advice = "or begin a run of its own with --initial_checkpoint."
    differences = [f"{name} {found[name]} there, {wanted[name]} now" for name in wanted if found[name] != wanted[name]]
    if differences:
        raise ValueError(
            f"{checkpoint} was trained by another recipe ({'; '.join(differences)}); go on with that one, {advice}"
        )
    found = json.loads((checkpoint / PROGRESS_FILE).read_text()).get(DATA, {})
    if "label_names" in found and found["label_names"] != data["label_names"]:
        differences.append(f"classes {_shortened(found['label_names'])} there, {_shortened(data['label_names'])} now")
    counts = found.get("num_train_images"), data["num_train_images"]
    if None not in counts and counts[0] != counts[1]:
        differences.append(f"{counts[0]} training images there, {counts[1]} now")
    if differences:
        raise ValueError(
            f"{checkpoint} was trained on other data ({'; '.join(differences)}); go on with those, {advice}"
        )


def _shortened(names: list[str]) -> str:
    return ", ".join(names) if len(names) <= NAMES_SHOWN else f"{', '.join(names[:NAMES_SHOWN])} ... ({len(names)})"


class RunState:
    """
    Writes and reads the state of a run that Accelerate has prepared; all processes must make the same calls.

    Args:
        accelerator: That prepared the model and the optimizer.
        model: As prepared.
        sharded: Its shards.
        average: Of its weights, if there is one.
        template: The model without its tensors: what saves configuration and code beside the weights.
        task: Its processor is saved beside the weights, and what tells its data.
        recipe: Saved too.
    """

    def __init__(
        self,
        accelerator: Accelerator,
        model: nn.Module,
        sharded: ShardedModel,
        average: WeightAverage | None,
        template: PreTrainedModel,
        task: Task,
        recipe: Recipe,
    ):
        self.accelerator, self.model, self.sharded = accelerator, model, sharded
        self.average, self.template, self.task, self.recipe = average, template, task, recipe

    @torch.no_grad()
    def write(self, folder: Path, progress: Progress):
        """Writes this process's files, the main process also those that there are once."""
        self.write_model(folder, self.whole_weights())
        if self.average is not None:
            self.write_model(folder / AVERAGE_FOLDER, self.whole_average())
        self._write_optimizer(folder)
        if self.accelerator.is_main_process:
            content = {
                "progress": dataclasses.asdict(progress),
                DATA: self.task.images.identity(),
                "optimizer_steps": self.sharded.steps,
                "loss_scale": self._loss_scale(),
                "processes": self.accelerator.num_processes,
            }
            (folder / PROGRESS_FILE).write_text(json.dumps(content, indent=2) + "\n")

    def whole_weights(self) -> dict[str, torch.Tensor]:
        """The trained weights by name, in fp32, and the model's buffers."""
        weights = {shard.name: self.sharded.gather(shard, shard.weights) for shard in self.sharded.shards}
        return weights | self._buffers()

    def whole_average(self) -> dict[str, torch.Tensor]:
        """The average of the weights by name, in fp32, with the model's buffers as they are now."""
        return self.average.whole() | self._buffers()

    def _buffers(self) -> dict[str, torch.Tensor]:
        return {
            name: buffer.float() if buffer.is_floating_point() else buffer
            for name, buffer in self.sharded.buffers.items()
        }

    def write_model(self, folder: Path, weights: dict[str, torch.Tensor]):
        """Writes a folder for `from_pretrained`, with processor and recipe; on the main process only."""
        if not self.accelerator.is_main_process:
            return
        weights = {name: tensor.cpu().contiguous() for name, tensor in weights.items()}
        self.template.save_pretrained(folder, state_dict=weights)
        self.task.processor.save_pretrained(folder)
        self.recipe.save(folder / RECIPE_FILE)

    @torch.no_grad()
    def read(self, folder: Path) -> Progress:
        """Goes on from what `write` has written, by however many processes."""
        weights = TensorFiles(folder, "model*.safetensors")
        for shard in self.sharded.shards:
            self.sharded.set_weights(shard, weights[shard.name].to(self.accelerator.device))
        for name, buffer in self.sharded.buffers.items():
            buffer.copy_(weights[name])
        if self.average is not None:
            averages = TensorFiles(folder / AVERAGE_FOLDER, "model*.safetensors")
            for shard in self.sharded.shards:
                self.average.set(shard.name, averages[shard.name])
        states = TensorFiles(folder, "optimizer-*.safetensors")
        shards = {shard.name: shard for shard in self.sharded.shards}
        for key in states:
            kind, name = key.split("|")
            self.sharded.set_state(shards[name], kind, states[key])
        content = json.loads((folder / PROGRESS_FILE).read_text())
        self.sharded.set_steps(content["optimizer_steps"])
        self._set_loss_scale(content["loss_scale"])
        return Progress(**content["progress"])

    def _write_optimizer(self, folder: Path):
        """Every process writes whole parameters, dealt out in turn."""
        rank, num_ranks = self.accelerator.process_index, self.accelerator.num_processes
        own = {}
        for index, (shard, key, part) in enumerate(self.sharded.state_tensors()):
            whole = self.sharded.gather(shard, part)
            if index % num_ranks == rank:
                own[f"{key}|{shard.name}"] = whole.cpu().contiguous()
        save_file(own, folder / f"optimizer-{rank + 1:05d}-of-{num_ranks:05d}.safetensors")

    def _scaler(self) -> Any:
        if self.accelerator.distributed_type == DistributedType.DEEPSPEED:
            return self.model.optimizer.loss_scaler
        return self.accelerator.scaler

    def _loss_scale(self) -> dict[str, float]:
        scaler = self._scaler()
        if scaler is None:
            return {}
        if isinstance(scaler, torch.amp.GradScaler):
            return scaler.state_dict()
        return {name: value for name, value in vars(scaler).items() if isinstance(value, (int, float))}

    def _set_loss_scale(self, values: dict[str, float]):
        scaler = self._scaler()
        if scaler is None or not values:
            return
        if isinstance(scaler, torch.amp.GradScaler):
            scaler.load_state_dict(values)
            return
        for name, value in values.items():
            setattr(scaler, name, value)


class TensorFiles:
    """
    The tensors of several safetensors files by name, read when asked for.

    Raises:
        FileNotFoundError: if no file matches.
    """

    def __init__(self, folder: Path, pattern: str):
        files = sorted(folder.glob(pattern))
        if not files:
            raise FileNotFoundError(f"{folder} has no {pattern}; it is no checkpoint of a run.")
        self.places = {}
        for file in files:
            handle = safe_open(file, framework="pt")
            self.places.update(dict.fromkeys(handle.keys(), handle))

    def __iter__(self) -> Iterator[str]:
        return iter(self.places)

    def __getitem__(self, key: str) -> torch.Tensor:
        return self.places[key].get_tensor(key)
