# Copyright 2026 The modeling_pixelvit team. All rights reserved.
# SPDX-License-Identifier: Apache-2.0
"""The order of the images and the randomness of their augmentation: a function of the step alone."""

import random

import numpy as np
import pytest
import torch

from training.data.batches import TrainingBatches, build_train_loader
from training.data.unreadable import TooManyUnreadable, UnreadableImage, UnreadableImages
from training.settings.recipe import Recipe


def make_recipe(**fields):
    return Recipe(num_train_epochs=3.0, warmup_epochs=0.0, **{"total_batch_size": 12, **fields})


@pytest.mark.parametrize("repeats", [1, 3])
@pytest.mark.parametrize("first_step", [1, 7, 8, 9, 23])
def test_starts_at_any_step(repeats, first_step):
    recipe = make_recipe(augmentation_repeats=repeats)
    whole = list(TrainingBatches(recipe, 100, rank=1, num_ranks=2, accumulation=3))
    rest = TrainingBatches(recipe, 100, rank=1, num_ranks=2, accumulation=3, first_step=first_step)
    assert list(rest) == whole[3 * first_step :] and len(rest) == len(whole) - 3 * first_step


def test_epochs_and_ranks_share_the_images():
    batches = [TrainingBatches(make_recipe(), 100, rank=rank, num_ranks=2) for rank in (0, 1)]
    assert batches[0].steps_per_epoch == 8 and batches[0].num_steps == 24 and batches[0].batch_size == 6
    keys = [[key for batch in share for key in batch] for share in batches]
    for epoch in range(3):
        seen = [index for share in keys for index, _ in share[48 * epoch : 48 * (epoch + 1)]]
        assert len(seen) == len(set(seen)) == 96  # the last four of a hundred make no batch
    seeds = [seed for share in keys for _, seed in share]
    assert len(set(seeds)) == len(seeds)
    other_seed = TrainingBatches(make_recipe(seed=1), 100, rank=0, num_ranks=2)
    assert next(iter(other_seed)) != next(iter(batches[0]))


def test_repeats_of_an_image_are_augmented_differently():
    recipe = make_recipe(augmentation_repeats=3, total_batch_size=3)
    (index, first), (same, second), (also_same, third) = next(iter(TrainingBatches(recipe, 100)))
    assert index == same == also_same and len({first, second, third}) == 3


@pytest.mark.parametrize("fields", [{"num_ranks": 5}, {"accumulation": 8}])
def test_batch_that_cannot_be_shared(fields):
    with pytest.raises(ValueError, match="multiple of their product"):
        TrainingBatches(make_recipe(), 100, **fields)


def test_too_few_images():
    with pytest.raises(ValueError, match="only 10 images"):
        TrainingBatches(make_recipe(), 10)


class Draws:
    """Examples that tell all three generators' next numbers."""

    def example(self, index):
        return torch.tensor([index, random.random(), np.random.rand(), torch.rand(()).item()], dtype=torch.float64)


@pytest.mark.parametrize("num_workers", [1, 2])
def test_workers_change_nothing(num_workers):
    def load(workers, first_step=0):
        batches = TrainingBatches(make_recipe(), 100, first_step=first_step)
        return list(build_train_loader(Draws().example, batches, torch.stack, workers))

    alone, together = load(0), load(num_workers)
    assert all(torch.equal(one, other) for one, other in zip(alone, together, strict=True))
    assert len({row[1].item() for batch in alone for row in batch}) == 288
    assert all(torch.equal(one, other) for one, other in zip(load(num_workers, 20), alone[20:], strict=True))


def readable_but(*unreadable):
    """Examples of which some cannot be decoded; they tell their index and the next random number."""

    def example(index):
        if index in unreadable:
            raise UnreadableImage(f"{index}.jpg", "truncated")
        return index, random.random()

    return example


def as_lists(pairs):
    return {"index": [index for index, _ in pairs], "draw": [draw for _, draw in pairs]}


@pytest.mark.parametrize("num_workers", [0, 2])
def test_an_unreadable_image_is_replaced_by_the_next(num_workers):
    def load(unreadable, first_step=0):
        batches = TrainingBatches(make_recipe(), 24, first_step=first_step)
        return list(build_train_loader(readable_but(*unreadable), batches, as_lists, num_workers))

    whole, damaged = load([]), load([5, 6, 23])
    replacement = {5: 7, 6: 7, 23: 0}
    for complete, batch in zip(whole, damaged, strict=True):
        assert batch["index"] == [replacement.get(index, index) for index in complete["index"]]
        assert batch["draw"] == complete["draw"]  # the seed is that of the place
        names = {f"{index}.jpg: truncated" for index in complete["index"] if index in replacement}
        names |= {"6.jpg: truncated"} if 5 in complete["index"] else set()
        assert set(batch.get("unreadable", [])) == names and ("unreadable" in batch) == bool(names)
        assert "unreadable" not in complete
    assert load([5, 6, 23], first_step=3) == damaged[3:]


def test_no_readable_image_in_a_row():
    batches = TrainingBatches(make_recipe(), 200)
    with pytest.raises(TooManyUnreadable, match="100 images in a row could not be decoded, the last of them"):
        next(iter(build_train_loader(readable_but(*range(200)), batches, as_lists)))


def test_unreadable_images_are_counted_once_and_limited():
    images = UnreadableImages(limit=2)
    images.add(["a.jpg: truncated", "b.jpg: empty"])
    images.add(["a.jpg: truncated"])
    assert len(images) == 2 and images.names == ["a.jpg: truncated", "b.jpg: empty"]
    with pytest.raises(TooManyUnreadable, match=r"3 images .* more than the 2 allowed, the last of them c\.jpg: empty"):
        images.add(["c.jpg: empty"])
