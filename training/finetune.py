# Copyright 2026 The modeling_pixelvit team. All rights reserved.
# SPDX-License-Identifier: Apache-2.0
"""
Fine-tunes a checkpoint of either family with transformers' Trainer.

    python -m training.finetune --model_name_or_path CHECKPOINT --dataset SOURCE --output_dir OUT
    python -m training.finetune ... --patch_size 8          # at another patch size
    python -m training.finetune ... --lora_rank 8           # low-rank changes only
    python -m training.finetune ... --task segmentation     # or detection, of any checkpoint
    accelerate launch -m training.finetune ...              # on several devices

It takes every option of transformers' TrainingArguments. The output folder loads by `from_pretrained` and by
`pipeline`, and the same command given again goes on from the last checkpoint in it.
"""

import dataclasses
import json
import logging
import os
import shutil
import sys
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from transformers import HfArgumentParser, TrainerState, set_seed
from transformers.trainer_utils import get_last_checkpoint
from transformers.utils import logging as transformers_logging

from .common.files import write_json
from .data.unreadable import UnusableData
from .engine.options import TrainingStopped
from .finetuning.arguments import SETTINGS_FILE, DataArguments, FinetuneArguments, ModelArguments
from .finetuning.lora import add_lora, check_whole_weights
from .finetuning.model import build_model, load_config, load_processor, wants_masks
from .finetuning.trainer import FinetuneTrainer
from .tasks.registry import TASKS, check_options


ADAPTER_FOLDER = "adapter"
TRAINER_STATE_FILE = "trainer_state.json"  # of transformers

logger = logging.getLogger("training.finetune")  # not by __name__, which is __main__ when this is the command


def find_checkpoint(training: FinetuneArguments, model_name_or_path: str) -> str | None:
    """
    The Trainer's checkpoint to go on from: the given one, else the last complete one in the output folder, if it has
    any.

    Raises:
        ValueError: if the given one is none, or the output folder holds something else, or the model to start from.
            In evaluation alone, if it holds a fine-tuned model, whose own results are what is published with it.
    """
    folder, given = training.output_dir, training.resume_from_checkpoint
    if not training.do_train:
        if Path(folder, SETTINGS_FILE).is_file():
            raise ValueError(
                f"--output_dir {folder} holds a fine-tuned model, whose results those of this evaluation would "
                "replace; give another --output_dir."
            )
        return None
    if given is not None:
        if not Path(given, TRAINER_STATE_FILE).is_file():
            raise ValueError(
                f"--resume_from_checkpoint {given} was given, which is no folder with a state of the Trainer; give one "
                "called checkpoint-<step>."
            )
        return given
    if training.overwrite_output_dir and Path(folder).resolve() in Path(model_name_or_path).resolve().parents:
        raise ValueError(
            f"--model_name_or_path {model_name_or_path} is in the folder that --overwrite_output_dir would overwrite; "
            "give another --output_dir."
        )
    if training.overwrite_output_dir or not os.path.isdir(folder) or set(os.listdir(folder)) <= {SETTINGS_FILE}:
        return None
    # The Trainer writes its state last: without it a checkpoint is of a run that was killed while it saved.
    complete = [path.parent.name for path in Path(folder).glob(f"checkpoint-*/{TRAINER_STATE_FILE}")]
    steps = [name.removeprefix("checkpoint-") for name in complete]
    last_step = max((int(step) for step in steps if step.isdecimal()), default=None)
    if last_step is None:
        raise ValueError(
            f"--output_dir {folder} is not empty and holds no checkpoint to go on from; give another folder, or "
            "--overwrite_output_dir to write into this one."
        )
    last = os.path.join(folder, f"checkpoint-{last_step}")
    logger.info("Going on from %s; to start anew, give --overwrite_output_dir or another --output_dir.", last)
    return last


def remove_checkpoints(folder: str):
    """Removes the Trainer's checkpoints of an earlier run, which would pass for those of a run that starts anew."""
    while os.path.isdir(folder) and (checkpoint := get_last_checkpoint(folder)) is not None:
        shutil.rmtree(checkpoint)


def check_resumed(checkpoint: str, settings: dict[str, Any]):
    """
    Raises:
        ValueError: if the Trainer's checkpoint is of a run with other settings.
    """
    try:
        found = json.loads(Path(checkpoint).with_name(SETTINGS_FILE).read_text(encoding="utf-8"))
    except FileNotFoundError:  # copied from elsewhere; whether the weights fit is then up to the Trainer
        return
    differences = [
        f"{name} {found.get(name)} there, {value} now" for name, value in settings.items() if found.get(name) != value
    ]
    if differences:
        raise ValueError(
            f"{checkpoint} is of a run with other options ({'; '.join(differences)}); give those, another "
            "--output_dir, or --overwrite_output_dir."
        )


def prepare(
    name: str, arguments: ModelArguments, data: DataArguments, training: FinetuneArguments
) -> tuple[FinetuneTrainer, str | None]:
    """
    Everything up to the training.

    Args:
        name: Of the task.
        arguments, data, training: The options.

    Returns:
        The Trainer, and its checkpoint to go on from, if any.

    Raises:
        ValueError: for whatever the options ask for and cannot be had, in one sentence.
    """
    check_options(name, arguments, data, training)
    if arguments.lora_rank is not None:
        check_whole_weights(training)
    checkpoint = find_checkpoint(training, arguments.model_name_or_path)
    if training.should_save:
        Path(training.output_dir).mkdir(parents=True, exist_ok=True)  # before all that takes time
    settings = {"task": name, "dataset": data.dataset, **dataclasses.asdict(arguments)}
    if checkpoint is not None:
        check_resumed(checkpoint, settings)
    config = load_config(TASKS[name].architecture, arguments)
    recipe = data.build_recipe(name, config, training.label_smoothing_factor, wants_masks(arguments, config))
    with training.main_process_first(desc="loading the data"):
        task = TASKS[name].from_options(recipe, data)
    task.use_processor(load_processor(task, arguments, config))
    task.num_train = min(task.num_train, data.max_train_samples or task.num_train)
    task.num_eval = min(task.num_eval, data.max_eval_samples or task.num_eval)
    set_seed(training.seed)
    model = build_model(task, arguments, config, training.do_train)
    if arguments.lora_rank is not None and training.do_train:
        model = add_lora(model, arguments)
    trainer = FinetuneTrainer(task, model, training, data.max_unreadable_images)
    if training.do_train and training.should_save:
        if checkpoint is None:
            remove_checkpoints(training.output_dir)
        write_json(Path(training.output_dir, SETTINGS_FILE), settings)
    return trainer, checkpoint


def train(trainer: FinetuneTrainer, checkpoint: str | None):
    """Trains and saves; of a model with LoRA the adapter, and the model with the adapter merged into it."""
    steps_before = 0
    if checkpoint is not None:
        steps_before = TrainerState.load_from_json(str(Path(checkpoint, TRAINER_STATE_FILE))).global_step
    result = trainer.train(resume_from_checkpoint=checkpoint)
    trainer.check_weights()
    if hasattr(trainer.model, "merge_and_unload"):
        if trainer.args.should_save:
            trainer.model.save_pretrained(Path(trainer.args.output_dir, ADAPTER_FOLDER))
        trainer.merge_adapter()
    trainer.save_model()
    if result.global_step > steps_before:  # else they are of no step
        metrics = {**result.metrics, "train_samples": len(trainer.train_dataset)}
        trainer.log_metrics("train", metrics)
        trainer.save_metrics("train", metrics)
    trainer.save_state()


def evaluate(trainer: FinetuneTrainer):
    metrics = {**trainer.evaluate(), "eval_samples": trainer.num_evaluated}
    trainer.log_metrics("eval", metrics)
    trainer.save_metrics("eval", metrics)


def publish(trainer: FinetuneTrainer):
    """Writes the model card, and with --push_to_hub sends the folder there."""
    source, hub_task = trainer.task.images.name, trainer.task.architecture.hub_task
    name = Path(source).name if os.path.exists(source) else source
    card = {"tasks": hub_task, "dataset": name, "tags": [hub_task, "vision"]}
    if trainer.args.push_to_hub:
        trainer.push_to_hub(**card)
    else:
        trainer.create_model_card(**card)


def build_parser() -> HfArgumentParser:
    parser = HfArgumentParser(
        (ModelArguments, DataArguments, FinetuneArguments),
        prog="python -m training.finetune",
        description="Fine-tunes a PixelViT or Adventurer checkpoint with transformers' Trainer.",
    )
    parser.add_argument("--task", choices=list(TASKS), default="classification", help="what is learned")
    return parser


def report_error(sentence: str) -> int:
    print(f"error: {' '.join(sentence.split())}", file=sys.stderr)
    return 2


def main(arguments: list[str] | None = None) -> int:
    logging.basicConfig(format="%(message)s")
    transformers_logging.disable_progress_bar()  # of every file that transformers writes or reads
    try:
        *groups, others, unknown = build_parser().parse_args_into_dataclasses(
            arguments, return_remaining_strings=True, look_for_args_file=False
        )
        if unknown:
            raise ValueError(f"{' '.join(unknown)} was given, which is no option; see --help.")
        training = groups[-1]
        logging.getLogger("training").setLevel(logging.INFO if training.should_log else logging.ERROR)
        trainer, checkpoint = prepare(others.task, *groups)
    except (ValueError, OSError) as error:
        return report_error(str(error))
    # From here on only the data can be the user's mistake; anything else is worth its traceback.
    try:
        if training.do_train:
            train(trainer, checkpoint)
        if training.do_eval:
            evaluate(trainer)
        if training.do_train:
            publish(trainer)
    except UnusableData as error:
        # From a process of a data loader the sentence comes below its traceback.
        return report_error(str(error).rsplit(f"{type(error).__name__}: ", 1)[-1])
    except TrainingStopped as error:
        report_error(str(error))
        return 1
    except (OSError, SafetensorError) as error:  # a disk may be full
        report_error(f"In the run of --output_dir {training.output_dir}: {error}")
        return 1
    trainer.accelerator.end_training()
    return 0


if __name__ == "__main__":
    sys.exit(main())
