# Copyright 2026 The modeling_pixelvit team. All rights reserved.
# SPDX-License-Identifier: Apache-2.0
"""transformers' Trainer over any task of the training loop: its data, its losses and its metrics."""

import logging
import math
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import torch
from accelerate.utils import gather_object, send_to_device
from torch.utils.data import Dataset
from transformers import PreTrainedModel, Trainer
from transformers.trainer_optimizer import is_optimizer_factory
from transformers.trainer_utils import EvalLoopOutput

from ..data.unreadable import TooManyUnreadable, UnreadableImage, UnusableData, readable_example
from ..engine.optimizers import parameter_groups
from ..engine.options import TrainingStopped
from ..engine.sharding import share_by_blocks
from ..settings.recipe import suggestion
from ..tasks.base import Batch, Task
from .arguments import FinetuneArguments


INDICES = "indices"  # the key of an evaluation batch for its images' places in the data set

logger = logging.getLogger(__name__)


class FinetuneTrainer(Trainer):
    """
    The Trainer with a task's data, losses and metrics, and the parameter groups of `engine.optimizers`.

    Its evaluation keeps of each image what the metrics need of it, and neither logits nor maps. Each image counts once,
    however many processes there are; one that cannot be read does not count.

    Args:
        task: What is learned, on what, with the processor of the model to train.
        model, arguments: As the Trainer takes them.
        max_unreadable: So many different images of either split may be skipped because they cannot be read.

    Raises:
        ValueError: if the process has several GPUs, or the metric to compare checkpoints by is none of the task's.
        TrainingStopped: in training, if a loss that is logged or a weight that would be saved is not a finite number;
            nothing is saved from then on.
    """

    def __init__(self, task: Task, model: PreTrainedModel, arguments: FinetuneArguments, max_unreadable: int = 0):
        if arguments.n_gpu > 1:
            raise ValueError(
                f"One process was started for {arguments.n_gpu} GPUs, to which annotations cannot be dealt out; start "
                "one for each by accelerate launch, or choose a GPU by CUDA_VISIBLE_DEVICES."
            )
        best, known = arguments.metric_for_best_model, ("loss", *task.scores)
        if best is not None and best.removeprefix("eval_") not in known:
            raise ValueError(
                f"--metric_for_best_model {best} was given; {task.name} has {', '.join(known)}, so give one of these."
                f"{suggestion(best, known)}"
            )
        arguments.remove_unused_columns = False  # of which examples have none
        super().__init__(
            model,
            arguments,
            train_dataset=ReadableExamples(task.train_example, task.num_train, max_unreadable),
            eval_dataset=ReadableExamples(partial(_indexed_example, task), task.num_eval, max_unreadable),
            data_collator=partial(_collate_indexed, task),
            processing_class=task.processor,
        )
        vars(model.config).pop("use_cache", None)  # the Trainer sets it for whatever model, and would save it
        if (plugin := getattr(self.accelerator.state, "fsdp_plugin", None)) is not None:
            share_by_blocks(plugin, model)
        self.task = task
        self.results: dict[int, Any] = {}
        self.num_evaluated = 0  # images of the last evaluation, without those that could not be read
        # Losses are means over a batch, which the Trainer is to divide by the batches of a step and by nothing else.
        self.model_accepts_loss_kwargs = False

    def get_train_dataloader(self) -> torch.utils.data.DataLoader:
        eval_collator, self.data_collator = self.data_collator, self.task.collate
        try:
            return super().get_train_dataloader()
        finally:
            self.data_collator = eval_collator

    def _prepare_inputs(self, inputs: Batch) -> Batch:
        """Leaves all but the pixels in float32; with DeepSpeed the Trainer would halve the precision of all."""
        images = super()._prepare_inputs({"pixel_values": inputs["pixel_values"]})
        return {**send_to_device(inputs, self.args.device), **images}

    def compute_loss(self, model: torch.nn.Module, inputs: Batch, *args: Any, **kwargs: Any) -> torch.Tensor:
        return self.task.losses(model, self.task.prepare_batch(inputs))["loss"]

    def log(self, logs: dict[str, float], *args: Any, **kwargs: Any):
        # Not at every step, which would have to wait for the device. At the end comes the mean over all steps.
        loss = logs.get("loss", logs.get("train_loss", 0.0))
        # In fp16 such a loss may be of a step that is skipped, and changes nothing.
        if not (self.args.fp16 or math.isfinite(loss)):
            raise self._stopped(f"The training loss is {loss}")
        super().log(logs, *args, **kwargs)

    def _stopped(self, what: str) -> TrainingStopped:
        return TrainingStopped(
            f"{what}, at step {self.state.global_step}, and nothing is saved of it; a lower --learning_rate than "
            f"{self.args.learning_rate:g}, or a longer warmup, may get further."
        )

    def check_weights(self):
        """
        Raises:
            TrainingStopped: if a weight is not a finite number.
        """
        if not all(torch.isfinite(weight).all() for weight in self.model.parameters()):
            raise self._stopped("Weights are no finite numbers")

    def _save_checkpoint(self, *args: Any, **kwargs: Any):
        self.check_weights()
        super()._save_checkpoint(*args, **kwargs)

    def prediction_step(
        self, model: torch.nn.Module, inputs: Batch, prediction_loss_only: bool, ignore_keys: list[str] | None = None
    ) -> tuple[None, None, None]:
        inputs = self._prepare_inputs(inputs)
        with torch.no_grad(), self.compute_loss_context_manager():
            results = self.task.results(model, inputs)
        self.results.update(zip(inputs[INDICES], results, strict=True))
        return None, None, None

    def evaluation_loop(self, *args, metric_key_prefix: str = "eval", **kwargs) -> EvalLoopOutput:
        """
        Raises:
            UnusableData: if there is nothing to measure by in the evaluation images, or not that by which checkpoints
                are compared.
            TrainingStopped: if a model that was trained has a loss that is not a finite number.
        """
        if self.args.world_size > 1 and self.state.global_step > 0:
            # Each process has seen its own images only, and what the main process has is what will be saved.
            for buffer in self.model.buffers():
                torch.distributed.broadcast(buffer, src=0)
        self.results = {}
        output = super().evaluation_loop(*args, metric_key_prefix=metric_key_prefix, **kwargs)
        together = dict(gather_object(list(self.results.items())))
        self.results, self.num_evaluated = {}, len(together)
        try:
            metrics = self.task.metrics([together[index] for index in sorted(together)])
        except ValueError as error:
            raise UnusableData(str(error)) from error
        best = self.args.metric_for_best_model
        if best is not None and best.removeprefix("eval_") not in metrics:
            raise UnusableData(f"--metric_for_best_model {best} was given, but these images give {', '.join(metrics)}.")
        if self.args.do_train and not math.isfinite(metrics["loss"]):
            raise self._stopped(f"The evaluation loss is {metrics['loss']}")
        output.metrics.update({f"{metric_key_prefix}_{name}": value for name, value in metrics.items()})
        return output

    def create_optimizer(self, model: torch.nn.Module | None = None) -> torch.optim.Optimizer:
        if self.optimizer is None:
            model = self.model if model is None else model
            optimizer_class, options = self.get_optimizer_cls_and_kwargs(self.args, model)
            # Some optimizers choose their parameters themselves.
            if not is_optimizer_factory(optimizer_class) and not {"model", "optimizer_dict"} & set(options):
                options.setdefault("params", self.parameter_groups(model))
            self.optimizer_cls_and_kwargs = optimizer_class, options
        return super().create_optimizer(model)

    def parameter_groups(self, model: torch.nn.Module) -> list[dict[str, Any]]:
        """From the head down, because the Trainer logs the rate of the first group."""
        groups = parameter_groups(model, self.args.weight_decay, self.args.layer_decay)
        return [
            {
                "params": group["params"],
                "weight_decay": group["weight_decay"],
                "lr": self.args.learning_rate * group["lr_scale"],
            }
            for group in reversed(groups)
        ]

    def create_model_card(self, *args, **kwargs):
        super().create_model_card(*args, **kwargs)
        folder = Path(getattr(self.model.config, "_name_or_path", ""))
        if self.is_world_process_zero() and folder.name and folder.is_dir():
            # transformers takes whatever does not come from the hub for new.
            card = Path(self.args.output_dir, "README.md")
            text = card.read_text(encoding="utf-8")
            origin = f"is a fine-tuned version of the checkpoint {folder.name}"
            card.write_text(text.replace("was trained from scratch", origin), encoding="utf-8")

    def merge_adapter(self):
        """From here on the model is an ordinary one, with the low-rank changes in its weights."""
        self.model = self.model_wrapped = self.model.merge_and_unload()


# Of the module, since workers that are not forked are sent them, and a Trainer cannot be sent.


def _indexed_example(task: Task, index: int) -> tuple[Any, int]:
    return task.eval_example(index), index


def _collate_indexed(task: Task, pairs: list[tuple[Any, int]]) -> Batch:
    examples, indices = zip(*pairs, strict=True)
    return {**task.collate(list(examples)), INDICES: list(indices)}


class ReadableExamples(Dataset):
    """
    Examples, of which one that raises `UnreadableImage` gives way to the next, with a warning.

    Args:
        example: Makes the example of an image by its index.
        num_images: Their number.
        max_unreadable: So many different images may be skipped, over all epochs and all processes of a data loader.

    Raises:
        TooManyUnreadable: when reading, if there are more.
        UnusableData: when reading, for an example that the source refuses.
    """

    def __init__(self, example: Callable[[int], Any], num_images: int, max_unreadable: int):
        self.example, self.max_unreadable = example, max_unreadable
        # Shared, so that the processes of a data loader count together.
        self.unreadable = torch.zeros(num_images, dtype=torch.bool).share_memory_()

    def __len__(self) -> int:
        return len(self.unreadable)

    def __getitem__(self, index: int) -> Any:
        def noted(index: int) -> Any:
            try:
                return self.example(index)
            except UnreadableImage as error:
                self._note(index, error)
                raise

        try:
            return readable_example(noted, index, len(self))[0]
        except UnusableData:
            raise
        except ValueError as error:
            raise UnusableData(str(error)) from error

    def _note(self, index: int, error: UnreadableImage):
        if self.unreadable[index]:
            return
        self.unreadable[index] = True
        count = int(self.unreadable.sum())
        if count > self.max_unreadable:
            raise TooManyUnreadable(
                f"{count} images cannot be decoded, the last one {error.entry}; repair or remove these files, or allow "
                f"more than {self.max_unreadable} by --max_unreadable_images."
            )
        logger.warning("Left out, and replaced by the next image: %s", error.entry)
