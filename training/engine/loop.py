# Copyright 2026 The modeling_pixelvit team. All rights reserved.
# SPDX-License-Identifier: Apache-2.0
"""
The training loop of all tasks, on Accelerate: one process or many, DDP, FSDP2 or DeepSpeed, fp32, bf16 or fp16.

What a step does depends on its number, on the state that checkpoints hold, and on nothing else: batches and all random
numbers are functions of the step. So a run that was killed anywhere goes on from its last checkpoint to the same
weights, bit for bit.
"""

import dataclasses
import math
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import torch
from accelerate import Accelerator
from accelerate.utils import DistributedType, send_to_device
from torch.distributed.tensor import DTensor

from ..common.files import point_to, write_json
from ..common.throughput import Throughput, peak_flops, peak_memory_mib
from ..data.batches import UNREADABLE, derive_seed, seed_cpu
from ..data.unreadable import TooManyUnreadable, UnreadableImages
from ..settings.course import Course
from ..settings.recipe import Recipe
from ..tasks.base import PATCH_SIZE, Batch, Share, Task
from .average import WeightAverage
from .checkpoints import BEST_LINK, CHECKPOINTS_FOLDER, EVALUATION_FILE, PARTIAL, RunCheckpoints, clear, publish
from .coordination import Coordination, StopRequest
from .evaluation import evaluate, write_image_values
from .log import RunLog, format_metrics
from .memory import choose_checkpointed, keeping
from .optimizers import build_optimizer, build_scheduler
from .options import LoopOptions, Outcome, TrainingStopped, processes_here
from .profiling import profile_of_steps
from .sharding import ShardedModel, share_by_blocks
from .state import RECIPE_FILE, Progress, RunState, check_same_run


RESULTS_FILE = "results.json"
# Tells the seeds of steps from those of images, which are derived from fewer numbers.
OF_STEP = 0x73746570
# Names of the two models that are evaluated, and the prefix of their metrics.
CURRENT, AVERAGE = "eval", "eval_average"
GRADIENT_NORM = "gradient_norm"


class TrainingLoop:
    """
    One run.

    Args:
        accelerator: With `gradient_accumulation_steps` as in the options.
        recipe, task, options: What to train, on what, and how.
        quiet: No progress bar.

    Raises:
        ValueError: if the options or the batch size do not fit, or the output folder holds another run.
    """

    def __init__(self, accelerator: Accelerator, recipe: Recipe, task: Task, options: LoopOptions, quiet: bool = False):
        options.check()
        self.accelerator, self.recipe, self.task, self.options = accelerator, recipe, task, options
        self.quiet = quiet
        self.folder = Path(options.output_dir)
        self.checkpoints = RunCheckpoints(self.folder / CHECKPOINTS_FOLDER, accelerator, options.keep_checkpoints)
        self.start_from = self._find_start()
        self.share = Share(
            accelerator.process_index,
            accelerator.num_processes,
            options.gradient_accumulation_steps,
            num_workers=options.workers_for(accelerator.device.type, processes_here(accelerator)),
        )
        _, steps_per_epoch, self.num_steps = task.train_loader(self.share)
        if self.num_steps == 0:
            raise ValueError(f"num_train_epochs={recipe.num_train_epochs:g} was given, which is less than one step.")
        self.course = Course(recipe, steps_per_epoch)
        self.eval_batches = round(options.eval_epochs * steps_per_epoch)
        # The model's own first, which is None for it.
        self.eval_patch_sizes = [None, *self._further_patch_sizes()]
        self._prepare()

    def _further_patch_sizes(self) -> list[int]:
        """
        Patch sizes that are evaluated beside the recipe's own, coarse to fine: those asked for, or those drawn from.

        Raises:
            ValueError: for one that does not divide the image.
        """
        recipe, asked = self.recipe, self.options.eval_patch_sizes
        for patch_size in asked:
            if patch_size < 1 or recipe.image_size % patch_size:
                raise ValueError(
                    f"--eval_patch_sizes {patch_size} was given; it must divide image_size={recipe.image_size}."
                )
        return sorted({*(asked or recipe.patch_weights)} - {recipe.patch_size}, reverse=True)

    def _find_start(self) -> Path | None:
        """The checkpoint to go on from."""
        resume, last = self.options.resume, self.checkpoints.find_last()
        if resume == "never":
            if last is not None:
                raise ValueError(
                    f"--output_dir {self.folder} holds a run, up to {last.name}; give --resume auto to go on with it, "
                    "or another --output_dir."
                )
            return None
        if resume != "auto":
            last = Path(resume)
            if not (last / RECIPE_FILE).is_file():
                raise ValueError(
                    f"--resume {resume} was given, which is no checkpoint; give auto, never or its folder."
                )
        if last is not None:
            check_same_run(last, self.recipe, self.task.images.identity())
        return last

    def _prepare(self):
        """Model, optimizer and everything around them, as Accelerate shares them among the processes."""
        recipe, accelerator = self.recipe, self.accelerator
        model = self.task.build_model()
        self.memory_plan = choose_checkpointed(model, recipe, self.options, accelerator, self.course, self.share)
        with torch.device("meta"):
            self.template = type(model)(model.config)
        if self.options.compile:
            model.compile()  # in place: neither the names of the weights nor what is saved change
        has_fused = accelerator.device.type == "cuda" and accelerator.mixed_precision != "fp16"
        shares_by_itself = accelerator.distributed_type == DistributedType.DEEPSPEED
        optimizer = build_optimizer(model, recipe, fused=has_fused and not shares_by_itself)
        self.scheduler = build_scheduler(optimizer, recipe, self.course.batches_per_epoch)
        if accelerator.distributed_type == DistributedType.DEEPSPEED:
            self._configure_deepspeed()
        if accelerator.distributed_type == DistributedType.FSDP:
            share_by_blocks(accelerator.state.fsdp_plugin, model)
        self.model, self.optimizer = accelerator.prepare(model, optimizer)
        self.sharded = ShardedModel(accelerator, self.model, self.optimizer)
        self.average = None if recipe.ema_decay is None else WeightAverage(self.sharded, recipe.ema_decay)
        self.state = RunState(accelerator, self.model, self.sharded, self.average, self.template, self.task, recipe)
        self.whole_models: dict[str, torch.nn.Module] = {}
        self.progress = Progress()
        if self.start_from is not None:
            self.progress = self.state.read(self.start_from)
        self.unreadable = UnreadableImages(self.options.max_unreadable_images)
        self.unreadable.add(self.progress.unreadable)
        self.throughput = Throughput(
            {size: self.task.forward_flops(self.template, size) for size in self.course.patch_sizes}
            if accelerator.device.type == "cuda"
            else {},
            peak_flops(accelerator.device, accelerator.mixed_precision),
            accelerator.num_processes,
        )

    def _configure_deepspeed(self):
        """What the recipe decides, in DeepSpeed's own configuration; the files in `configs/` leave it out."""
        if self.recipe.muon_learning_rate is not None:
            raise ValueError("DeepSpeed flattens the matrices that Muon is for; use DDP or FSDP, or AdamW alone.")
        config = self.accelerator.state.deepspeed_plugin.deepspeed_config
        batch_size = self.recipe.total_batch_size // (self.share.num_ranks * self.share.accumulation)
        config["train_batch_size"] = self.recipe.total_batch_size
        config["train_micro_batch_size_per_gpu"] = batch_size
        config["gradient_accumulation_steps"] = self.share.accumulation
        config["gradient_clipping"] = self.recipe.max_grad_norm or 0.0

    @property
    def compute_dtype(self) -> torch.dtype:
        """Of the weights that the model computes with; under autocast they stay fp32."""
        return next(self.sharded.module.parameters()).dtype

    def to_device(self, batch: Batch) -> Batch:
        """
        Moves a batch to the device, its tensors of floating point in the precision of the model's weights. Those inside
        of lists and dictionaries, the boxes of a label for one, stay exact.
        """
        dtype = self.compute_dtype
        return {
            name: value.to(dtype) if isinstance(value, torch.Tensor) and value.is_floating_point() else value
            for name, value in send_to_device(batch, self.accelerator.device, non_blocking=True).items()
        }

    def run(self, report: Callable[[int, float], None] | None = None) -> Outcome:
        """
        Trains to the end, or until SIGINT or SIGTERM, which end the run after a step and a checkpoint.

        Args:
            report: Called after each step with the steps done and the training loss.

        Raises:
            TrainingStopped: if the loss is not a number or runs away, or fp16 skips too many steps.
            TooManyUnreadable: if more images could not be read than the options allow.
        """
        options, progress = self.options, self.progress
        if progress.step == self.num_steps and (self.folder / RESULTS_FILE).exists():
            return Outcome(progress.step, 0, progress.metrics)
        self.folder.mkdir(parents=True, exist_ok=True)
        save_seconds = 60 * options.save_minutes if options.save_minutes else None
        with StopRequest() as stop:
            self.coordination = Coordination(stop, save_seconds)
            self.log = RunLog(self.folder, self.accelerator, progress.step, self.num_steps, self.quiet)
            self.clock = (time.monotonic(), time.process_time())
            if self.memory_plan is not None:
                self.log.say(str(self.memory_plan))
            if options.resume not in ("auto", "never"):
                for path in self.checkpoints.abandon_after(progress.step):
                    self.log.say(f"set aside until the next checkpoint, which removes it: {path}")
            try:
                wanted = options.profile if self.accelerator.is_main_process else 0
                with profile_of_steps(wanted, self.folder, self.accelerator.device.type, self.log.say) as self.profile:
                    return self._run(report)
            finally:
                self.log.close()

    def _run(self, report: Callable[[int, float], None] | None) -> Outcome:
        progress = self.progress
        self.window: dict[str, list] = {name: list(values) for name, values in progress.window.items()}
        if self._evaluation_due():
            self._evaluate()
        batches = self._batches()
        self.model.train()
        while progress.step < self.num_steps:
            losses, unreadable = self._train_step(batches)
            if report is not None:
                report(progress.step, losses["loss"].item())
            if self.profile is not None:
                self.profile.step()
            if progress.step % self.options.logging_steps == 0 or progress.step == self.num_steps:
                self._log()
            signal, save, unreadable = self.coordination.after_step(unreadable)
            self._note_unreadable(unreadable)
            if signal:
                self._save()
                return Outcome(progress.step, signal, {})
            if self._evaluation_due():
                self._evaluate()
            if save or self._save_due():
                self._save()
        self._save()
        if self.accelerator.is_main_process:
            write_json(self.folder / RESULTS_FILE, {"step": progress.step, "metrics": progress.metrics})
        self.accelerator.wait_for_everyone()
        return Outcome(progress.step, 0, progress.metrics)

    def _batches(self) -> Iterator[Batch]:
        share = dataclasses.replace(self.share, first_step=self.progress.step)
        loader, _, _ = self.task.train_loader(share)
        return iter(loader)

    def _train_step(self, batches: Iterator[Batch]) -> tuple[dict[str, torch.Tensor], list[str]]:
        """One optimizer step: the losses' means over this process's batches, and the images that it could not read."""
        recipe, progress = self.recipe, self.progress
        patch_size = self.course.patch_size(progress.step)
        done = self.course.learning_rate_batches(progress.step)
        self.scheduler.step(int(done / self.course.batches_per_epoch))
        self.scheduler.step_update(done)
        sums: dict[str, torch.Tensor] = {}
        unreadable: list[str] = []
        norm = None
        for index in range(self.share.accumulation):
            batch = next(batches)
            unreadable += batch.pop(UNREADABLE, [])
            # After the batch has been read, which may have happened in this process.
            self._seed(derive_seed(recipe.seed, OF_STEP, progress.step, index, self.share.rank))
            batch = self.to_device(self.task.prepare_batch(self.to_device(batch)))
            if patch_size != recipe.patch_size:
                batch[PATCH_SIZE] = patch_size
            with self.accelerator.accumulate(self.model):
                with self.accelerator.autocast(), keeping(self.options, self.accelerator.device):
                    losses = self.task.losses(self.model, batch)
                self.accelerator.backward(losses["loss"])
                if self.accelerator.sync_gradients:
                    most = math.inf if recipe.max_grad_norm is None else recipe.max_grad_norm
                    norm = self.accelerator.clip_grad_norm_(self.model.parameters(), most)
                    norm = norm.full_tensor() if isinstance(norm, DTensor) else norm  # of all processes' rows
                self.optimizer.step()
                self.optimizer.zero_grad()
            for name, value in losses.items():
                sums[name] = sums.get(name, 0.0) + value.detach() / self.share.accumulation
            self.throughput.add(
                self.share.num_ranks * batch["pixel_values"].shape[0],
                self.share.num_ranks * self.task.num_tokens(batch),
                patch_size,
            )
        if norm is not None:  # DeepSpeed has none of a step that it skips
            sums[GRADIENT_NORM] = torch.as_tensor(norm)
        self._after_optimizer_step(sums)
        return sums, unreadable

    def _seed(self, seed: int):
        seed_cpu(seed)
        if self.accelerator.device.type == "cuda":
            torch.cuda.manual_seed(seed)

    def _after_optimizer_step(self, losses: dict[str, torch.Tensor]):
        progress = self.progress
        progress.step += 1
        if self._was_skipped():
            progress.skipped_steps += 1
            progress.skipped_in_row += 1
            if progress.skipped_in_row >= self.options.max_skipped_in_row:
                raise self._stopped(f"fp16 has skipped {progress.skipped_in_row} steps in a row")
        else:
            progress.skipped_in_row = 0
            if self.average is not None:
                self.average.update()
            # What a step that was skipped computed may well be infinite, and has changed nothing.
            for name, value in losses.items():
                self.window.setdefault(name, []).append(value)
        self.log.step_done()

    def _was_skipped(self) -> bool:
        if self.accelerator.distributed_type == DistributedType.DEEPSPEED:
            return not self.model.was_step_applied()
        return self.optimizer.step_was_skipped

    def _window_means(self) -> dict[str, float]:
        """
        The means of the losses since the last log over all processes. Checks them, and turns the window into numbers.
        """
        for name, values in self.window.items():
            fresh = torch.stack([torch.as_tensor(value, device=self.accelerator.device).float() for value in values])
            shares = self.coordination.gather(fresh.tolist())
            # What came from a checkpoint is the mean already, and the same on all processes.
            self.window[name] = [
                value if isinstance(value, float) else sum(share[index] for share in shares) / len(shares)
                for index, value in enumerate(values)
            ]
        means = {name: sum(values) / len(values) for name, values in self.window.items() if values}
        if "loss" in means:
            self._check_loss(means["loss"])
        # Whose step has made the weights useless, though no loss has told of it yet.
        if not math.isfinite(means.get(GRADIENT_NORM, 0.0)):
            raise self._stopped(f"The norm of the gradients is {means[GRADIENT_NORM]}")
        return means

    def _log(self):
        progress, means = self.progress, self._window_means()
        rates = self.throughput.rates()  # after what has waited for the device
        self.window = {}
        if progress.first_loss is None:
            progress.first_loss = means.get("loss")
        group = self.sharded.optimizer.param_groups[-1]
        images_per_step = self.recipe.total_batch_size * len(self.course.batches(progress.step - 1))
        self.log.record(
            progress.step,
            {
                "epoch": self.course.epochs_before(progress.step),
                **(
                    {"patch_size": self.course.patch_size(progress.step - 1)}
                    if len(self.course.patch_sizes) > 1
                    else {}
                ),
                **means,
                "learning_rate": group["lr"],
                **rates,
                "seconds_per_step": images_per_step / rates["images_per_second"],
                "memory_mib": peak_memory_mib(self.accelerator.device),
                "skipped_steps": progress.skipped_steps,
            },
            seconds_left=self.recipe.total_batch_size / rates["images_per_second"] * self._batches_left(),
        )

    def _batches_left(self) -> float:
        """Batches still to come, in those of the last step: one of patches half as large counts four times."""
        step, course = self.progress.step, self.course
        all_batches, done = course.batches_by_patch_size(), course.batches_by_patch_size(step)
        last = course.patch_size(step - 1)
        return sum((all_batches[size] - done[size]) * (last / size) ** 2 for size in all_batches)

    def _check_loss(self, loss: float):
        first = self.progress.first_loss
        if not math.isfinite(loss):
            raise self._stopped(f"The training loss is {loss}")
        ratio = self.options.max_loss_ratio
        if first is not None and loss > ratio * max(first, 0):
            raise self._stopped(f"The training loss is {loss:.4g}, more than {ratio:g} times the first, {first:.4g}")

    def _stopped(self, what: str) -> TrainingStopped:
        last = self.checkpoints.find_last()
        where = f"the last good checkpoint is {last}" if last else "there is no checkpoint yet"
        start = f" that starts from it (--initial_checkpoint {last})" if last else ""
        return TrainingStopped(
            f"{what}, at step {self.progress.step}; {where}. A run of its own{start} with a lower base_learning_rate "
            "(--peak_rate of a sweep) may get further."
        )

    def _evaluation_due(self) -> bool:
        step = self.progress.step
        # A model that was trained before is also evaluated as it comes: what did its new patch or image size cost?
        comes_trained = self.recipe.initial_checkpoint is not None
        is_multiple = self.course.is_multiple(step, self.eval_batches) and (step > 0 or comes_trained)
        return (step == self.num_steps or is_multiple) and self.progress.evaluated_step != step

    def _evaluate(self):
        """Evaluates the weights and their average, and keeps the better of them if it is the best so far."""
        progress = self.progress
        self.throughput.pause()
        self.sharded.share_buffers()
        # Without DDP or DeepSpeed around it: their passes need all processes, which may have different numbers of them
        # where images differ in size. A model of which no process has all is put together.
        is_whole = not self.sharded.splits_weights
        models = {CURRENT: self.sharded.module if is_whole else self._whole_model(CURRENT, self.state.whole_weights())}
        average = None if self.average is None else self.state.whole_average()
        if average is not None:
            models[AVERAGE] = self._whole_model(AVERAGE, average)
        with self.accelerator.autocast():
            evaluation = evaluate(
                self.task,
                models,
                self.to_device,
                self.coordination,
                self.share.rank,
                self.share.num_ranks,
                self.options.eval_batch_size,
                self.share.num_workers,
                self.eval_patch_sizes,
            )
        self.model.train()
        self._note_unreadable(evaluation.unreadable)
        metrics, of_images = evaluation.metrics, evaluation.image_values[CURRENT]
        if of_images and self.accelerator.is_main_process:
            write_image_values(self.folder, of_images)
        progress.evaluated_step = progress.step
        progress.metrics = {f"{model}_{name}": value for model, part in metrics.items() for name, value in part.items()}
        self.log.record(progress.step, progress.metrics)
        self.log.say(f"step {progress.step}: {format_metrics(progress.metrics)}")
        self._keep_best(metrics, average)
        self.throughput.go_on()

    def _whole_model(self, name: str, weights: dict[str, torch.Tensor]) -> torch.nn.Module:
        """A model with these weights, whole on every process."""
        if name not in self.whole_models:
            with torch.device(self.accelerator.device):
                self.whole_models[name] = type(self.template)(self.template.config).to(self.compute_dtype)
        self.whole_models[name].load_state_dict(weights, strict=False)
        return self.whole_models[name]

    def _keep_best(self, metrics: dict[str, dict[str, float]], average: dict[str, torch.Tensor] | None):
        progress = self.progress
        values = {model: part[self.task.main_metric()] for model, part in metrics.items()}
        best_model = max(values, key=values.get)
        if progress.best_metric is not None and values[best_model] <= progress.best_metric:
            return
        progress.best_metric, progress.best_step = values[best_model], progress.step
        weights = average if best_model == AVERAGE else self.state.whole_weights()
        if self.accelerator.is_main_process:
            name = f"{BEST_LINK}-{progress.step:08d}"
            final, partial = self.folder / name, self.folder / (name + PARTIAL)
            clear(*self.folder.glob(f"{BEST_LINK}-*{PARTIAL}"), final)
            self.state.write_model(partial, weights)
            evaluation = {"step": progress.step, "model": best_model, "metrics": metrics[best_model]}
            write_json(partial / EVALUATION_FILE, evaluation)
            publish(partial, final)
            point_to(self.folder / BEST_LINK, final)
            clear(*(path for path in self.folder.glob(f"{BEST_LINK}-*") if path != final))
        self.accelerator.wait_for_everyone()

    def _note_unreadable(self, entries: list[str]):
        new = [entry for entry in dict.fromkeys(entries) if entry not in self.unreadable.names]
        for entry in new:
            self.log.say(f"skipped an image that cannot be read: {entry}")
        self.progress.unreadable += new
        try:
            self.unreadable.add(new)
        except TooManyUnreadable:
            self._save()
            raise

    def _save_due(self) -> bool:
        return bool(self.options.save_steps) and self.progress.step % self.options.save_steps == 0

    def _save(self):
        """A checkpoint of now; never one after a loss or gradients that are not numbers."""
        self.throughput.pause()
        self._window_means()
        progress = self.progress
        progress.window = self.window
        progress.seconds += time.monotonic() - self.clock[0]
        progress.cpu_seconds += time.process_time() - self.clock[1]
        self.clock = (time.monotonic(), time.process_time())
        self.checkpoints.save(progress.step, lambda folder: self.state.write(folder, progress))
        self.coordination.saved()
        self.throughput.go_on()
