# Copyright 2026 The modeling_pixelvit team. All rights reserved.
# SPDX-License-Identifier: Apache-2.0
"""
What a recipe does to the training images of a classification: timm's transforms, Mixup and CutMix.
"""

from collections.abc import Callable

import torch
from PIL import Image
from timm.data import Mixup, create_transform
from timm.data.mixup import mixup_target
from torchvision.transforms import Compose, InterpolationMode, RandomCrop, Resize

from ..settings.recipe import Recipe


Examples = list[tuple[torch.Tensor, int]]


def build_train_transform(
    recipe: Recipe, image_mean: list[float], image_std: list[float]
) -> Callable[[Image.Image], torch.Tensor]:
    """
    Random resized crop (bicubic), or with `crop_padding` a crop of the padded image, mirroring, the recipe's policy and
    colour jitter, normalization, random erasing.

    Returns:
        A function of an RGB image, to float32 of shape (3, image_size, image_size). Its randomness comes from Python's,
        NumPy's and PyTorch's global generators.

    Raises:
        ValueError: for a policy that timm does not know.
    """
    try:
        return _create_transform(recipe, image_mean, image_std)
    except (AssertionError, KeyError, ValueError) as error:  # as timm's parsing of the name happens to fail
        raise ValueError(
            f"auto_augment={recipe.auto_augment} was given, which timm does not know ({error}); give for instance 3a, "
            "rand-m9-mstd0.5-inc1 or none."
        ) from None


def _create_transform(recipe: Recipe, image_mean: list[float], image_std: list[float]) -> Callable:
    transform = create_transform(
        recipe.image_size,
        is_training=True,
        scale=(recipe.min_crop_scale, 1.0),
        hflip=recipe.horizontal_flip,
        # None leaves it out, where 0.0 would be a jitter that changes nothing. Beside a RandAugment timm drops it.
        color_jitter=recipe.color_jitter or None,
        auto_augment=recipe.auto_augment,
        interpolation="bicubic",
        re_prob=recipe.random_erasing,
        re_mode="pixel",
        mean=tuple(image_mean),
        std=tuple(image_std),
    )
    if recipe.crop_padding:
        # In the place of the random resized crop, which is timm's first.
        fit = Resize((recipe.image_size, recipe.image_size), interpolation=InterpolationMode.BICUBIC)
        transform.transforms[0] = Compose([fit, RandomCrop(recipe.image_size, padding=recipe.crop_padding)])
    elif recipe.min_crop_scale == 1:
        transform.transforms[0] = _UnlessItFits(recipe.image_size, transform.transforms[0])
    return transform


class _UnlessItFits:
    """
    A crop of the whole image for all images but squares of the wanted size, which it would leave as they are: ten draws
    in vain and a resampling that changes nothing take most of the time that a small image takes.
    """

    def __init__(self, size: int, crop: Callable[[Image.Image], Image.Image]):
        self.size, self.crop = size, crop

    def __call__(self, image: Image.Image) -> Image.Image:
        return image if image.size == (self.size, self.size) else self.crop(image)


def stack(examples: Examples) -> dict[str, torch.Tensor]:
    """Collates pairs of pixels (3, H, W) and class: `pixel_values` (B, 3, H, W) and `labels` (B,)."""
    pixels, labels = zip(*examples, strict=True)
    return {"pixel_values": torch.stack(pixels), "labels": torch.tensor(labels)}


class MixupOfAnyNumber(Mixup):
    """timm's, which of an odd number of images leaves the last one as it is."""

    def __call__(self, x: torch.Tensor, target: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        even = len(x) // 2 * 2
        if even == len(x):
            return super().__call__(x, target)
        soft = mixup_target(target, self.num_classes, smoothing=self.label_smoothing)
        if even:
            _, soft[:even] = super().__call__(x[:even], target[:even])  # the images in place
        return x, soft


def build_mixup(recipe: Recipe, num_classes: int) -> Mixup | None:
    """
    Mixup and CutMix of a batch, with the recipe's label smoothing; None if the recipe has neither.

    The result takes images (B, 3, H, W) and labels (B,) and returns mixed images, in place, and soft labels
    (B, num_classes). Its randomness comes from NumPy's global generator.
    """
    if recipe.mixup_probability == 0 or (recipe.mixup_alpha == 0 and recipe.cutmix_alpha == 0):
        return None
    return MixupOfAnyNumber(
        mixup_alpha=recipe.mixup_alpha,
        cutmix_alpha=recipe.cutmix_alpha,
        prob=recipe.mixup_probability,
        switch_prob=recipe.mixup_switch_probability,
        label_smoothing=recipe.label_smoothing,
        num_classes=num_classes,
    )
