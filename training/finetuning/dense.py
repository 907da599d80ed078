# Copyright 2026 The modeling_pixelvit team. All rights reserved.
# SPDX-License-Identifier: Apache-2.0
"""
What fine-tuning for segmentation and for detection has in common: the data, the augmentation and the metrics are those
of the training loop's tasks, over which the Trainer goes in its own way.
"""

from dataclasses import replace
from functools import partial
from typing import Any

import torch
from accelerate.utils import gather_object, send_to_device
from torch.utils.data import Dataset
from transformers import BaseImageProcessor
from transformers.trainer_utils import EvalLoopOutput

from ..data.unreadable import UnusableData
from ..settings.recipe import Recipe
from ..tasks.base import Batch, DataOptions
from ..tasks.dense import DenseTask
from .arguments import DataArguments
from .task import FinetuneTask, ReadableExamples, normalization
from .trainer import FinetuneTrainer


INDICES = "indices"  # the key of an evaluation batch for its images' places in the data set


class DenseTrainer(FinetuneTrainer):
    """
    The Trainer with an evaluation that keeps of each image what the metrics need of it, and neither maps nor logits.

    Each image counts once, however many processes there are; one that cannot be read does not count.

    Args:
        dense_task: Gives the results of the images and the metrics over them.

    Raises:
        ValueError: if the process has several GPUs.
    """

    def __init__(self, *args, dense_task: DenseTask, **kwargs):
        super().__init__(*args, **kwargs)
        self.dense_task = dense_task
        self.results: dict[int, Any] = {}
        if self.args.n_gpu > 1:
            raise ValueError(
                f"One process was started for {self.args.n_gpu} GPUs, to which annotations cannot be dealt out; start "
                "one for each by accelerate launch, or choose a GPU by CUDA_VISIBLE_DEVICES."
            )

    def _prepare_inputs(self, inputs: Batch) -> Batch:
        """Leaves boxes in float32, also where DeepSpeed has the Trainer turn all numbers into half precision."""
        images = super()._prepare_inputs({"pixel_values": inputs["pixel_values"]})
        return {**send_to_device(inputs, self.args.device), **images}

    def prediction_step(
        self, model: torch.nn.Module, inputs: Batch, prediction_loss_only: bool, ignore_keys: list[str] | None = None
    ) -> tuple[None, None, None]:
        inputs = self._prepare_inputs(inputs)
        with torch.no_grad(), self.compute_loss_context_manager():
            results = self.dense_task.results(model, inputs)
        self.results.update(zip(inputs[INDICES], results, strict=True))
        return None, None, None

    def evaluation_loop(self, *args, metric_key_prefix: str = "eval", **kwargs) -> EvalLoopOutput:
        """
        Raises:
            UnusableData: if there is nothing to measure by in the evaluation images.
        """
        if self.args.world_size > 1 and self.state.global_step > 0:
            # Each process has seen its own images only, and what the main process has is what will be saved.
            for buffer in self.model.buffers():
                torch.distributed.broadcast(buffer, src=0)
        self.results = {}
        output = super().evaluation_loop(*args, metric_key_prefix=metric_key_prefix, **kwargs)
        together = dict(gather_object(list(self.results.items())))
        self.results = {}
        try:
            metrics = self.dense_task.metrics([together[index] for index in sorted(together)])
        except ValueError as error:
            raise UnusableData(str(error)) from error
        output.metrics.update({f"{metric_key_prefix}_{name}": value for name, value in metrics.items()})
        return output


class DenseFinetuneTask(FinetuneTask):
    """See [`FinetuneTask`]."""

    trainer_class = DenseTrainer
    training_arguments = {"remove_unused_columns": False}
    dense_task_class: type[DenseTask]  # of the training loop

    def __init__(self, data: DataArguments, recipe: Recipe):
        self.data = data
        options = DataOptions(
            dataset=data.dataset,
            train_split=data.train_split,
            eval_split=data.eval_split,
            image_column=data.image_column,
            label_column=data.label_column,
            on_invalid=data.on_invalid,
            reduce_labels=data.reduce_labels,
            num_labels=data.num_labels,
        )
        self.dense_task = self.dense_task_class.from_options(recipe, options)
        images = self.dense_task.images
        self.name, self.label_names = images.name, list(images.label_names)
        self.image_mean, self.image_std = list(images.image_mean), list(images.image_std)

    def config_fields(self) -> dict[str, Any]:
        return self.dense_task.config_fields()

    def trainer_options(self, processor: BaseImageProcessor) -> dict[str, Any]:
        images, data = self.dense_task.images, self.data
        mean, std = normalization(processor)
        images = replace(
            images,
            train=_first(images.train, data.max_train_samples),
            evaluation=_first(images.evaluation, data.max_eval_samples),
            image_mean=mean,
            image_std=std,
        )
        task = self.dense_task_class(self.dense_task.recipe, images)
        task.processor = processor
        evaluation = EvaluationExamples(task)
        return {
            "dense_task": task,
            "train_dataset": ReadableExamples(images.train, task.train_transform, data.max_unreadable_images),
            "eval_dataset": ReadableExamples(evaluation, _with_index, data.max_unreadable_images),
            "data_collator": partial(_collate_with_indices, task),
            "train_collator": task.collate,
        }


class EvaluationExamples(Dataset):
    """A task's evaluation examples, each with its place in the data set."""

    def __init__(self, task: DenseTask):
        self.task = task

    def __len__(self) -> int:
        return self.task.num_eval

    def __getitem__(self, index: int) -> tuple[Any, int]:
        return self.task.eval_example(index), index


def _first(images: Any, most: int | None) -> Any:
    return images if most is None or most >= len(images) else images.select(range(most))


def _with_index(example: Any, index: int) -> tuple[Any, int]:
    return example, index


def _collate_with_indices(task: DenseTask, pairs: list[tuple[Any, int]]) -> Batch:
    examples, indices = zip(*pairs, strict=True)
    return {**task.collate(list(examples)), INDICES: list(indices)}
