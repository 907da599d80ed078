# Copyright 2026 The modeling_pixelvit team. All rights reserved.
# SPDX-License-Identifier: Apache-2.0
"""The options of `training.finetune`: those of the model, those of the data, and transformers' TrainingArguments."""

from dataclasses import dataclass, field

from huggingface_hub.errors import StrictDataclassError
from transformers import TrainingArguments

from .recipe import Recipe


@dataclass
class ModelArguments:
    """What is fine-tuned. Each field's help text is also the command line's."""

    model_name_or_path: str = field(metadata={"help": "checkpoint folder, or name of a checkpoint on the hub"})
    model_revision: str = field(default="main", metadata={"help": "branch, tag or commit of a checkpoint on the hub"})
    from_scratch: bool = field(
        default=False, metadata={"help": "take the checkpoint's configuration alone, with new weights"}
    )
    patch_size: int | None = field(
        default=None, metadata={"help": "side of a patch in pixels; the checkpoint's if not given"}
    )
    image_size: int | None = field(
        default=None, metadata={"help": "side of the images in pixels; the checkpoint's if not given"}
    )
    drop_path_rate: float | None = field(
        default=None, metadata={"help": "stochastic depth of the last block; the checkpoint's if not given"}
    )
    lora_rank: int | None = field(
        default=None, metadata={"help": "train low-rank changes of linear layers, of this rank, and the head"}
    )
    lora_alpha: int = field(default=16, metadata={"help": "the changes are multiplied by lora_alpha / lora_rank"})
    lora_dropout: float = field(default=0.0, metadata={"help": "dropout before the low-rank changes"})
    lora_target_modules: list[str] | None = field(
        default=None, metadata={"help": "names of the linear layers; those that mix tokens if not given"}
    )


@dataclass
class DataArguments:
    """What the model is trained on, and how the training images are varied."""

    dataset: str = field(
        metadata={
            "help": "folder of images by class, name of a hub data set, or digits for the embedded ones (digits-32: "
            "on a canvas of 32 pixels)"
        }
    )
    train_split: str | None = field(default=None, metadata={"help": "name of the training split; found if not given"})
    eval_split: str | None = field(default=None, metadata={"help": "name of the split to evaluate on"})
    image_column: str | None = field(default=None, metadata={"help": "column of the images; found if not given"})
    label_column: str | None = field(default=None, metadata={"help": "column of the labels; found if not given"})
    max_train_samples: int | None = field(default=None, metadata={"help": "train on the first so many images"})
    max_eval_samples: int | None = field(default=None, metadata={"help": "evaluate on the first so many images"})
    max_unreadable_images: int = field(
        default=10, metadata={"help": "images that may be skipped, in either split, because they cannot be read"}
    )
    min_crop_scale: float = field(
        default=0.08, metadata={"help": "smallest share of an image's area that a random crop keeps"}
    )
    horizontal_flip: float = field(default=0.5, metadata={"help": "share of the images that are mirrored"})
    color_jitter: float = field(
        default=0.0, metadata={"help": "strength of the change of brightness, contrast and saturation"}
    )
    auto_augment: str | None = field(
        default=None, metadata={"help": "timm's policy by its name, such as 3a or rand-m9-mstd0.5-inc1"}
    )
    random_erasing: float = field(default=0.0, metadata={"help": "share of the images that lose a rectangle"})
    mixup_alpha: float = field(default=0.0, metadata={"help": "Mixup's beta distribution; 0: no Mixup"})
    cutmix_alpha: float = field(default=0.0, metadata={"help": "CutMix's beta distribution; 0: no CutMix"})

    def __post_init__(self):
        for name, least in (("max_train_samples", 1), ("max_eval_samples", 1), ("max_unreadable_images", 0)):
            value = getattr(self, name)
            if value is not None and value < least:
                raise ValueError(f"--{name} {value} was given; it must be at least {least}.")

    def build_recipe(self, image_size: int, label_smoothing: float) -> Recipe:
        """
        The augmentation, in the form that `training.augmentation` takes; the recipe's other fields mean nothing here.

        Raises:
            ValueError: for an option out of range.
        """
        try:
            return Recipe(
                image_size=image_size,
                min_crop_scale=self.min_crop_scale,
                horizontal_flip=self.horizontal_flip,
                color_jitter=self.color_jitter,
                auto_augment=self.auto_augment,
                random_erasing=self.random_erasing,
                mixup_alpha=self.mixup_alpha,
                cutmix_alpha=self.cutmix_alpha,
                label_smoothing=label_smoothing,
            )
        except StrictDataclassError as error:
            raise ValueError(" ".join(str(error.__cause__ or error).split())) from None


@dataclass
class FinetuneArguments(TrainingArguments):
    """transformers' TrainingArguments, of which training and evaluation are on, and what goes with the optimizer."""

    do_train: bool = field(default=True, metadata={"help": "train the model and save it"})
    do_eval: bool = field(default=True, metadata={"help": "evaluate the model, after the training if there is one"})
    # The tasks make their own examples of what their model takes; there are no other columns.
    remove_unused_columns: bool = field(default=False, metadata={"help": "without effect on labelled images"})
    overwrite_output_dir: bool = field(
        default=False,
        metadata={"help": "start anew in a folder that holds something, and remove the checkpoints in it"},
    )
    layer_decay: float = field(
        default=1.0, metadata={"help": "factor of the learning rate from a block to the one before it"}
    )

    def __post_init__(self):
        super().__post_init__()
        if not 0 < self.layer_decay <= 1:
            raise ValueError(f"--layer_decay {self.layer_decay:g} was given; it must be above 0 and at most 1.")
