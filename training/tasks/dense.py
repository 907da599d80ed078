# Copyright 2026 The modeling_pixelvit team. All rights reserved.
# SPDX-License-Identifier: Apache-2.0
"""What the tasks with an answer for every place have in common: their images and how these are varied."""

from collections.abc import Callable
from typing import Any, ClassVar

from ..data.digit_scenes import digit_scenes_canvas, load_digit_scenes
from .base import EmbeddedImages, SourceOptions, Task


class DenseTask(Task):
    """See [`Task`]."""

    options = frozenset({"head", "on_invalid", "min_resize_scale", "max_resize_scale", "photometric_distortion"})
    embedded_images = EmbeddedImages("digit scenes", "digit-scenes", 32)
    patch_sizes = (8, 4, 2)

    load_splits: ClassVar[Callable[..., Any]]  # reads a source of its data
    train_transform_of: ClassVar[Callable[..., Any]]  # builds what training images and their annotations go through

    @classmethod
    def load_images(cls, data: SourceOptions, **options: Any) -> Any:
        """Scenes of digits by their name, or what `load_splits` finds, which takes the options."""
        canvas_size = digit_scenes_canvas(data.dataset)
        if canvas_size is not None:
            return load_digit_scenes(cls.load_splits, canvas_size)
        return cls.load_splits(
            data.dataset,
            on_invalid=data.on_invalid,
            train_split=data.train_split,
            eval_split=data.eval_split,
            image_column=data.image_column,
            **options,
        )

    def build_train_transform(self, image_mean: list[float], image_std: list[float]) -> Any:
        recipe = self.recipe
        return self.train_transform_of(
            recipe.image_size,
            image_mean=image_mean,
            image_std=image_std,
            scale_range=(recipe.min_resize_scale, recipe.max_resize_scale),
            flip=recipe.horizontal_flip,
            photometric=recipe.photometric_distortion,
        )

    def train_example(self, index: int) -> dict[str, Any]:
        """As the transform makes it."""
        return self.train_transform(*self.images.train[index])
