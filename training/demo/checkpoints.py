# Copyright 2026 The modeling_pixelvit team. All rights reserved.
# SPDX-License-Identifier: Apache-2.0
"""The demo's checkpoints: what they are for, and a cache of the models that were used last."""

import copy
import threading
from collections import OrderedDict
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import torch
from transformers import BaseImageProcessor, PreTrainedModel

from ..checkpoints.loading import load_checkpoint
from ..families.base import BASE_MODEL
from ..families.registry import FAMILIES, architecture_of


MOST_MODELS = 12
MOST_WEIGHT_BYTES = 4 * 2**30


@dataclass(frozen=True)
class Checkpoint:
    """
    What the page shows of a checkpoint.

    Args:
        name: Folder, or name on the hub.
        task: What it does, one of `ARCHITECTURES` with a head.
        family: Of `families.registry`.
        patch_size, image_size: Pixels a side; (height, width) if they differ.
        label_names: By class index.
    """

    name: str
    task: str
    family: str
    patch_size: int
    image_size: int | tuple[int, int]
    label_names: tuple[str, ...]

    @property
    def title(self) -> str:
        size = self.image_size if isinstance(self.image_size, int) else "x".join(map(str, self.image_size))
        return f"{FAMILIES[self.family].title}, patch {self.patch_size}, {size} px ({Path(self.name).name})"


def task_of(model: PreTrainedModel) -> str | None:
    """What a model does; None for one without a head."""
    architecture = architecture_of(model)
    return None if architecture in (None, BASE_MODEL) else architecture.does


def describe(name: str, model: PreTrainedModel) -> Checkpoint:
    """
    Raises:
        ValueError: for a model without a head.
    """
    config, task = model.config, task_of(model)
    if task is None:
        raise ValueError(
            f"{name} holds {type(model).__name__}, which has no head; give a checkpoint for classification, "
            "segmentation or detection."
        )
    size = config.image_size
    size = size if isinstance(size, int) else size[0] if len(set(size)) == 1 else tuple(size)
    names = tuple(config.id2label[index] for index in sorted(config.id2label))
    return Checkpoint(name, task, config.model_type, config.patch_size, size, names)


class ModelStore:
    """
    Models by checkpoint and patch size, at most so many and of so many bytes, the last used ones; safe between threads.

    Args:
        most_models: Models kept, at least 1.
        most_bytes: Bytes of their weights; one model that is larger is kept alone.
    """

    def __init__(self, most_models: int = MOST_MODELS, most_bytes: int = MOST_WEIGHT_BYTES):
        self.most_models, self.most_bytes = most_models, most_bytes
        self.device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        self.kept: OrderedDict[tuple[str, int | None], tuple[PreTrainedModel, BaseImageProcessor]] = OrderedDict()
        self.lock = threading.Lock()

    def load(self, name: str, patch_size: int | None = None) -> tuple[PreTrainedModel, BaseImageProcessor]:
        """
        A model in evaluation mode and its image processor.

        Args:
            name: Folder, or name on the hub; no code in it is run.
            patch_size: In pixels, to which a copy of the model is resampled; its own if not given.

        Raises:
            ValueError: in one sentence, if it cannot be loaded or resampled.
        """
        with self.lock:
            if (name, patch_size) not in self.kept:
                if (name, None) not in self.kept:
                    model, processor = load_checkpoint(name)
                    self._keep(name, None, model.to(self.device), processor)
                model, processor = self.kept[name, None]
                if patch_size is not None:
                    model = copy.deepcopy(model)
                    model.resize_patches(patch_size=patch_size)
                    self._keep(name, patch_size, model, processor)
                return model, processor
            self.kept.move_to_end((name, patch_size))
            return self.kept[name, patch_size]

    def _keep(self, name: str, patch_size: int | None, model: PreTrainedModel, processor: BaseImageProcessor):
        self.kept[name, patch_size] = (model, processor)
        while len(self.kept) > 1 and (len(self.kept) > self.most_models or self.num_bytes > self.most_bytes):
            self.kept.popitem(last=False)

    @property
    def num_bytes(self) -> int:
        """Of the weights that are kept."""
        return sum(model.get_memory_footprint() for model, _ in self.kept.values())

    def describe(self, name: str) -> Checkpoint:
        """Loads a checkpoint to say what it is for; raises as `load` does, and for a model without a head."""
        return describe(name, self.load(name)[0])


def same_but_for_patches(checkpoints: Iterable[Checkpoint]) -> list[list[Checkpoint]]:
    """Groups of checkpoints that differ in nothing but the patch size (and their name), largest patch first."""
    groups: dict[tuple, dict[int, Checkpoint]] = {}
    for one in checkpoints:
        group = groups.setdefault((one.task, one.family, one.image_size, one.label_names), {})
        group.setdefault(one.patch_size, one)
    return [[group[size] for size in sorted(group, reverse=True)] for group in groups.values() if len(group) > 1]
