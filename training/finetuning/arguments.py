# Copyright 2026 The modeling_pixelvit team. All rights reserved.
# SPDX-License-Identifier: Apache-2.0
"""The options of `training.finetune`: those of the model, those of the data, and transformers' TrainingArguments."""

from dataclasses import dataclass
from typing import Literal

import torch
from huggingface_hub.errors import StrictDataclassError
from transformers import PreTrainedConfig, TrainingArguments
from transformers.hf_argparser import HfArg

from ..settings.recipe import Recipe
from ..tasks.base import SourceOptions


# What a run must have in common with the one that it goes on from: the model, and what it learns.
SETTINGS_FILE = "finetune_settings.json"


@dataclass
class ModelArguments:
    """What is fine-tuned. Each field's help text is also the command line's."""

    model_name_or_path: str = HfArg(help="checkpoint folder, or name of a checkpoint on the hub")
    model_revision: str = HfArg(default="main", help="branch, tag or commit of a checkpoint on the hub")
    from_scratch: bool = HfArg(default=False, help="take the checkpoint's configuration alone, with new weights")
    patch_size: int | None = HfArg(default=None, help="side of a patch in pixels; the checkpoint's if not given")
    image_size: int | None = HfArg(default=None, help="side of the images in pixels; the checkpoint's if not given")
    drop_path_rate: float | None = HfArg(
        default=None, help="stochastic depth of the last block; the checkpoint's if not given"
    )
    decoder: Literal["none", "upernet"] | None = HfArg(
        default=None,
        help="segmentation: what makes the class map, one linear layer or UperNet; the checkpoint's if not given",
    )
    use_masks: bool | None = HfArg(
        default=None,
        help="detection: whether objects also get masks; if not given, as the data have them, but none for a "
        "detector that has none",
    )
    head: str | None = HfArg(
        default=None,
        help="other fields of the configuration that are about the head of segmentation or detection, as JSON, "
        "such as '{\"anchor_sizes\": [16, 32, 64, 128, 256]}'",
    )
    lora_rank: int | None = HfArg(
        default=None, help="train low-rank changes of linear layers, of this rank, and the head"
    )
    lora_alpha: int = HfArg(default=16, help="the changes are multiplied by lora_alpha / lora_rank")
    lora_dropout: float = HfArg(default=0.0, help="dropout before the low-rank changes")
    lora_target_modules: list[str] | None = HfArg(
        default=None, help="names of the linear layers; those that mix tokens if not given"
    )


@dataclass(kw_only=True)
class DataArguments(SourceOptions):
    """What the model is trained on, and how the training images are varied."""

    dataset: str = HfArg(help=SourceOptions.__dataclass_fields__["dataset"].metadata["help"])
    max_train_samples: int | None = HfArg(default=None, help="train on the first so many images")
    max_eval_samples: int | None = HfArg(default=None, help="evaluate on the first so many images")
    max_unreadable_images: int = HfArg(
        default=10, help="images that may be skipped, in either split, because they cannot be read"
    )
    min_crop_scale: float = HfArg(
        default=0.08, help="classification: smallest share of an image's area that a random crop keeps"
    )
    min_resize_scale: float = HfArg(
        default=0.5,
        help="segmentation, detection: smallest factor of the random resize, where 1 fits the image into image_size",
    )
    max_resize_scale: float = HfArg(default=2.0, help="segmentation, detection: largest factor of the random resize")
    photometric_distortion: bool = HfArg(
        default=False, help="segmentation, detection: random brightness, contrast, saturation and hue, as SSD has them"
    )
    eval_window: int | None = HfArg(
        default=None,
        help="segmentation: side of the window that slides over an image; whole images are evaluated if not given",
    )
    horizontal_flip: float = HfArg(default=0.5, help="share of the images that are mirrored")
    color_jitter: float = HfArg(
        default=0.0, help="classification: strength of the change of brightness, contrast and saturation"
    )
    auto_augment: str | None = HfArg(
        default=None, help="classification: timm's policy by its name, such as 3a or rand-m9-mstd0.5-inc1"
    )
    random_erasing: float = HfArg(default=0.0, help="classification: share of the images that lose a rectangle")
    mixup_alpha: float = HfArg(default=0.0, help="classification: Mixup's beta distribution; 0: no Mixup")
    cutmix_alpha: float = HfArg(default=0.0, help="classification: CutMix's beta distribution; 0: no CutMix")

    def __post_init__(self):
        for name, least in (("max_train_samples", 1), ("max_eval_samples", 1), ("max_unreadable_images", 0)):
            value = getattr(self, name)
            if value is not None and value < least:
                raise ValueError(f"--{name} {value} was given; it must be at least {least}.")

    def build_recipe(
        self, task: str, config: PreTrainedConfig, label_smoothing: float, use_masks: bool | None = None
    ) -> Recipe:
        """
        The task, the sizes and the augmentation as the training loop's tasks take them; the other fields, those of the
        optimizer above all, mean nothing here.

        Args:
            task: Its name.
            config: Of the model.
            label_smoothing: Share of a label spread over all classes.
            use_masks: Whether a detector has masks; None: as the data.

        Raises:
            ValueError: for an option out of range.
        """
        same = {name: value for name, value in vars(self).items() if name in Recipe.__dataclass_fields__}
        try:
            return Recipe(
                family=config.model_type,
                task=task,
                patch_size=config.patch_size,
                image_size=config.image_size,
                model={} if use_masks is None else {"use_masks": use_masks},
                mixup_probability=float(self.mixup_alpha > 0 or self.cutmix_alpha > 0),
                label_smoothing=label_smoothing,
                **same,
            )
        except StrictDataclassError as error:
            raise ValueError(" ".join(str(error.__cause__ or error).split())) from None


@dataclass
class FinetuneArguments(TrainingArguments):
    """transformers' TrainingArguments, of which training and evaluation are on, and what goes with the optimizer."""

    do_train: bool = HfArg(default=True, help="train the model and save it")
    do_eval: bool = HfArg(default=True, help="evaluate the model, after the training if there is one")
    # The tasks make their own examples of what their model takes; there are no other columns.
    remove_unused_columns: bool = HfArg(default=False, help="without effect on labelled images")
    dataloader_pin_memory: bool | None = HfArg(
        default=None, help="pin the memory of batches for faster copies; as there is a GPU if not given"
    )
    # The Trainer would hide a loss that is not a number behind the mean of those before it.
    logging_nan_inf_filter: bool = HfArg(default=False, help="leave losses that are no numbers unlogged")
    overwrite_output_dir: bool = HfArg(
        default=False, help="start anew in a folder that holds something, and remove the checkpoints in it"
    )
    layer_decay: float = HfArg(default=1.0, help="factor of the learning rate from a block to the one before it")

    def __post_init__(self):
        if self.dataloader_pin_memory is None:
            self.dataloader_pin_memory = torch.cuda.is_available()
        super().__post_init__()
        for name, least in (
            ("per_device_train_batch_size", 1),
            ("per_device_eval_batch_size", 1),
            ("gradient_accumulation_steps", 1),
            ("dataloader_num_workers", 0),
            ("learning_rate", 0),
        ):
            if getattr(self, name) < least:
                raise ValueError(f"--{name} {getattr(self, name):g} was given; it must be at least {least}.")
        if not 0 < self.layer_decay <= 1:
            raise ValueError(f"--layer_decay {self.layer_decay:g} was given; it must be above 0 and at most 1.")
