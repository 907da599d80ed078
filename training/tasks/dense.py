# Copyright 2026 The modeling_pixelvit team. All rights reserved.
# SPDX-License-Identifier: Apache-2.0
"""What the tasks with an answer for every place have in common: their data, processor and model."""

from typing import Any

from transformers import PreTrainedModel

from modeling_pixelvit.image_processing_pixelvit import PixelViTImageProcessor

from ..data.coco import load_detection_splits
from ..data.digit_scenes import digit_scenes_canvas, load_digit_scenes
from ..data.segmentation import load_segmentation_splits
from ..settings.recipe import Recipe
from .base import DataOptions, Task
from .initial_model import build_initial_model


# Of a recipe, what only classification does to its images and labels, and the value that says no.
CLASSIFICATION_ONLY = {
    "mixup_probability": 0.0,
    "color_jitter": 0.0,
    "auto_augment": None,
    "random_erasing": 0.0,
    "label_smoothing": 0.0,
    "crop_padding": 0,
    "digit_distortion": 0.0,
}


def check_dense_recipe(recipe: Recipe):
    """
    Raises:
        ValueError: for a recipe that asks for what only classification does.
    """
    for name, off in CLASSIFICATION_ONLY.items():
        if getattr(recipe, name) != off:
            raise ValueError(
                f"{name}={getattr(recipe, name)} was given, which {recipe.task} has no use for; set it to "
                f"{'none' if off is None else off}."
            )


def load_dense_images(task: str, data: DataOptions, **options: Any) -> Any:
    """
    The splits that a command line names: scenes of digits by their name, or what the task's loader finds.

    Raises:
        ValueError: if they cannot be loaded, or streaming is asked for.
    """
    if data.streaming:
        raise ValueError(f"--streaming was given; {task} reads its data by index, so leave it out.")
    canvas_size = digit_scenes_canvas(data.dataset)
    if canvas_size is not None:
        return load_digit_scenes(task, canvas_size)
    load = load_segmentation_splits if task == "segmentation" else load_detection_splits
    return load(
        data.dataset,
        on_invalid=data.on_invalid,
        train_split=data.train_split,
        eval_split=data.eval_split,
        image_column=data.image_column,
        **options,
    )


class DenseTask(Task):
    """
    Args:
        recipe: What to train and how.
        images: Splits with `train` and `evaluation`, each giving (PIL image, annotation) by an index.
    """

    def __init__(self, recipe: Recipe, images: Any):
        check_dense_recipe(recipe)
        self.recipe, self.images = recipe, images
        self.num_train, self.num_eval = len(images.train), len(images.evaluation)
        config = recipe.build_config()
        config.image_size = recipe.eval_image_size or recipe.image_size
        self.processor = PixelViTImageProcessor.for_config(
            config, task=recipe.task, image_mean=list(images.image_mean), image_std=list(images.image_std)
        )

    def config_fields(self) -> dict[str, Any]:
        """Fields of the model's configuration that the data decide."""
        names = self.images.label_names
        return {
            "id2label": dict(enumerate(names)),
            "label2id": {name: index for index, name in enumerate(names)},
        }

    def build_model(self) -> PreTrainedModel:
        return build_initial_model(self.recipe, self.model_class, **self.config_fields())
