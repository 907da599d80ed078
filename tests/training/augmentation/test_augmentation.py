# Copyright 2026 The modeling_pixelvit team. All rights reserved.
# SPDX-License-Identifier: Apache-2.0
"""Augmentation as the released training code has it: which steps, which images on which rank, which soft labels."""

import dataclasses

import numpy as np
import pytest
import torch
from PIL import Image, ImageFilter, ImageOps
from transformers import set_seed

from training.augmentation.classification import build_mixup, build_train_transform
from training.data.batches import build_sampler
from training.settings.recipe import Recipe, load_recipe


MEAN, STD = [0.485, 0.456, 0.406], [0.229, 0.224, 0.225]


def steps_of(recipe):
    return [type(step).__name__ for step in build_train_transform(recipe, MEAN, STD).transforms]


def test_steps_of_each_stage():
    first = ["RandomResizedCropAndInterpolation", "RandomHorizontalFlip"]
    last = ["MaybeToTensor", "Normalize"]
    assert steps_of(load_recipe("adventurer-stage1")) == [*first, "AutoAugment", "ColorJitter", *last]
    # As in timm, a RandAugment takes the place of the colour jitter.
    assert steps_of(load_recipe("adventurer-stage3")) == [*first, "RandAugment", *last]
    plain = Recipe(color_jitter=0.0, horizontal_flip=0.0, random_erasing=0.5)
    assert steps_of(plain) == [first[0], *last, "RandomErasing"]


def test_crop_and_jitter_have_the_recipes_strength():
    steps = build_train_transform(load_recipe("adventurer-stage1", image_size=64), MEAN, STD).transforms
    assert steps[0].scale == (0.08, 1.0) and tuple(steps[0].size) == (64, 64)
    assert str(steps[0].interpolation).lower().endswith("bicubic")
    assert steps[1].p == 0.5
    assert steps[3].brightness == steps[3].contrast == steps[3].saturation == (0.7, 1.3) and steps[3].hue is None


def test_three_augment_is_one_of_grey_solarized_and_blurred():
    """DeiT III: one of the three with equal chances; solarization at 128, blur with a radius of 0.1 to 2 pixels."""
    policy = build_train_transform(load_recipe("adventurer-stage1"), MEAN, STD).transforms[2]
    image = Image.fromarray(np.random.default_rng(0).integers(0, 256, (24, 24, 3), dtype=np.uint8))
    grey = image.convert("L").convert("RGB")
    counts = {"grey": 0, "solarized": 0, "blurred": 0}
    set_seed(0)
    for _ in range(600):
        result = policy(image)
        if difference(result, grey) <= 1:
            counts["grey"] += 1
        elif difference(result, ImageOps.solarize(image, 128)) == 0:
            counts["solarized"] += 1
        else:
            # A blur between the weakest and the strongest takes away contrast and nothing else.
            assert contrast(result) <= contrast(image)
            assert contrast(result) >= contrast(image.filter(ImageFilter.GaussianBlur(2.0))) - 0.5
            counts["blurred"] += 1
    assert all(150 < count < 250 for count in counts.values()), counts


def difference(one, other):
    return np.abs(np.asarray(one, dtype=int) - np.asarray(other, dtype=int)).max()


def contrast(image):
    return np.asarray(image, dtype=float).std()


def test_output_is_normalized_and_follows_the_global_seeds():
    transform = build_train_transform(load_recipe("adventurer-stage3", image_size=32), MEAN, STD)
    image = Image.new("RGB", (50, 40), (255, 255, 255))
    set_seed(3)
    first = transform(image)
    set_seed(3)
    assert torch.equal(first, transform(image))
    assert first.shape == (3, 32, 32) and first.dtype == torch.float32
    plain = Recipe(image_size=32, color_jitter=0.0, patch_size=4)
    white = build_train_transform(plain, MEAN, STD)(image)
    torch.testing.assert_close(white.amax((1, 2)), (1 - torch.tensor(MEAN)) / torch.tensor(STD))


@pytest.mark.parametrize("num_ranks", [1, 2, 3, 8])
def test_repeated_augmentation_shares_images_like_the_released_sampler(num_ranks):
    """By its definition: the shuffled images, each three times in a row, dealt out to the ranks, cut off."""
    num_images, epoch = 600, 5
    generator = torch.Generator().manual_seed(epoch)
    repeated = [index for index in torch.randperm(num_images, generator=generator).tolist() for _ in range(3)]
    for rank in range(num_ranks):
        sampler = build_sampler(Recipe(augmentation_repeats=3), num_images, rank, num_ranks)
        sampler.set_epoch(epoch)
        share = repeated[rank::num_ranks][: 512 // num_ranks]
        assert list(sampler) == share and len(sampler) == len(share)


def test_without_repeats_every_image_comes_once():
    shares = [list(build_sampler(Recipe(seed=4), 10, rank, 2)) for rank in (0, 1)]
    assert sorted(shares[0] + shares[1]) == list(range(10)) and shares[0] != sorted(shares[0])
    other = build_sampler(Recipe(seed=5), 10, 0, 2)
    assert list(other) != shares[0]


@pytest.mark.parametrize("count", [1, 3])
def test_of_an_odd_number_of_images_the_last_one_is_not_mixed(count):
    mixup = build_mixup(load_recipe("pixelvit-stage1", label_smoothing=0.4), num_classes=4)
    images, labels = torch.arange(float(count)).view(-1, 1, 1, 1).repeat(1, 3, 8, 8), torch.arange(count)
    for seed in range(5):
        np.random.seed(seed)
        mixed, soft = mixup(images.clone(), labels)
        assert (mixed[-1] == count - 1).all() and soft.shape == (count, 4)
        expected = torch.full((4,), 0.1)
        expected[count - 1] = 0.7
        torch.testing.assert_close(soft[-1], expected)
        torch.testing.assert_close(soft.sum(1), torch.ones(count))
        if count == 3:
            assert not torch.equal(mixed[:2], images[:2])


def test_mixup_labels():
    recipe = load_recipe("adventurer-stage3")  # smoothing 0.1
    assert build_mixup(dataclasses.replace(recipe, mixup_alpha=0.0, cutmix_alpha=0.0), 4) is None
    assert build_mixup(dataclasses.replace(recipe, mixup_probability=0.0), 4) is None
    mixup = build_mixup(recipe, num_classes=4)
    off, labels = 0.1 / 4, torch.tensor([0, 1, 2, 3])
    seen = {"mixup": 0, "cutmix": 0}
    for seed in range(200):
        set_seed(seed)
        images = torch.arange(4.0)[:, None, None, None].expand(-1, 3, 8, 8).clone()
        mixed, targets = mixup(images, labels)
        torch.testing.assert_close(targets.sum(1), torch.ones(4))
        # The first image is mixed with the last one.
        share = (targets[0, 0].item() - off) / 0.9
        assert targets[0, 3].item() == pytest.approx(off + 0.9 * (1 - share), abs=1e-6)
        values = mixed[0].unique()
        is_cutmix = bool(((values == 0) | (values == 3)).all())
        seen["cutmix" if is_cutmix else "mixup"] += 1
        assert mixed[0].mean().item() == pytest.approx(3 * (1 - share), abs=1e-5)
    assert 70 < seen["cutmix"] < 130, seen
