# Copyright 2026 The modeling_pixelvit team. All rights reserved.
# SPDX-License-Identifier: Apache-2.0
"""
The course of a training: which patch size and which images each step has, as a function of the recipe and the step.

A recipe counts in batches of `total_batch_size` images. Most steps are one of them. Where `tokens_per_step` lets a step
of large patches have more images, it is several of them in a row, so images come in the same order whatever the patch,
and learning rate and evaluation follow the images seen.
"""

import bisect

import numpy as np

from .recipe import Recipe


# Tells the draws of patch sizes from all else that the recipe's seed decides.
DRAWS = 0x70617463


class Course:
    """
    Args:
        recipe: Gives the epochs, the patch sizes and the batch.
        batches_per_epoch: Batches of `total_batch_size` images in an epoch.
    """

    def __init__(self, recipe: Recipe, batches_per_epoch: int):
        self.batches_per_epoch = batches_per_epoch
        self.num_batches = round(recipe.num_train_epochs * batches_per_epoch)
        sizes, counts = self._draw(recipe) if recipe.patch_draws else self._follow(recipe)
        # Patch size of each step, and the batch that it begins with; one more for the end.
        self._patch_sizes = np.array(sizes, dtype=np.int32)
        self._first_batches = np.concatenate([[0], np.cumsum(counts, dtype=np.int64)]).astype(np.int64)
        self._changes = np.flatnonzero(np.diff(self._patch_sizes)) + 1  # the steps with another patch size than before
        # The batches with which the learning rate begins anew, and the end.
        self._rate_bounds = [0, self.num_batches]
        if recipe.learning_rate_restarts and recipe.patch_schedule:
            self._rate_bounds[1:1] = self._first_batches[self._changes].tolist()

    def _follow(self, recipe: Recipe) -> tuple[np.ndarray, np.ndarray]:
        """Patch size and number of batches of each step, one patch size after the other."""
        shares = recipe.patch_shares
        # Rounded where a part ends, so that all together are the whole.
        ends = np.round(np.cumsum(list(shares.values())) * self.num_batches).astype(int)
        ends[-1] = self.num_batches
        sizes, counts = [], []
        start = 0
        for patch_size, end in zip(shares, ends.tolist(), strict=True):
            steps, rest = divmod(max(0, end - start), batches_per_step(recipe, patch_size))
            of_part = np.full(steps + bool(rest), batches_per_step(recipe, patch_size))
            if rest:
                of_part[-1] = rest
            sizes.append(np.full(len(of_part), patch_size))
            counts.append(of_part)
            start = max(start, end)
        return np.concatenate(sizes), np.concatenate(counts)

    def _draw(self, recipe: Recipe) -> tuple[list[int], list[int]]:
        """The same, each step's patch size drawn by the recipe's weights."""
        sizes, weights = zip(*recipe.patch_weights.items(), strict=True)
        bounds = np.cumsum(weights) / sum(weights)
        generator = np.random.Generator(np.random.PCG64([recipe.seed, DRAWS]))
        most = {patch_size: batches_per_step(recipe, patch_size) for patch_size in sizes}
        drawn, counts = [], []
        left = self.num_batches
        while left:
            # By its place on the line of cumulated weights, one number a step, so that a longer training begins alike.
            place = np.searchsorted(bounds, generator.random(), side="right")
            drawn.append(sizes[min(place, len(sizes) - 1)])
            counts.append(min(most[drawn[-1]], left))
            left -= counts[-1]
        return drawn, counts

    @property
    def num_steps(self) -> int:
        """Optimizer steps of the whole training."""
        return len(self._patch_sizes)

    @property
    def patch_sizes(self) -> list[int]:
        """All patch sizes of the training in pixels, coarse to fine."""
        return sorted({int(size) for size in np.unique(self._patch_sizes)}, reverse=True)

    def patch_size(self, step: int) -> int:
        """Side of the patches in pixels of a step, counted from 0."""
        return int(self._patch_sizes[step])

    def batches(self, step: int) -> range:
        """The batches of a step, counted over the whole training."""
        return range(int(self._first_batches[step]), int(self._first_batches[step + 1]))

    def batches_before(self, step: int) -> int:
        """Batches that all steps before this one have."""
        return int(self._first_batches[step])

    def batches_by_patch_size(self, steps: int | None = None) -> dict[int, int]:
        """How many batches of each patch size, coarse to fine, the first `steps` steps have; all steps if not given."""
        sizes, counts = self._patch_sizes[:steps], np.diff(self._first_batches)[:steps]
        return {size: int(counts[sizes == size].sum()) for size in self.patch_sizes}

    @property
    def last_change(self) -> int:
        """The step with which the last patch size begins; 0 if there is one only, or they are drawn."""
        is_course = len(self._changes) == len(self.patch_sizes) - 1
        return int(self._changes[-1]) if is_course and len(self._changes) else 0

    def epochs_before(self, step: int) -> float:
        """Epochs that are over before a step begins."""
        return self.batches_before(step) / self.batches_per_epoch

    def learning_rate_batches(self, step: int) -> float:
        """
        The batches after which the learning rate of a training without restarts is that of this step: those before it,
        or with restarts as great a share of all as are before it of its part.
        """
        done = self.batches_before(step)
        part = min(bisect.bisect_right(self._rate_bounds, done), len(self._rate_bounds) - 1)
        start, end = self._rate_bounds[part - 1 : part + 1]
        return (done - start) * self.num_batches / (end - start)

    def is_multiple(self, step: int, batches: int) -> bool:
        """Whether the step before this one reached or passed a multiple of so many batches."""
        if batches <= 0 or step == 0:
            return step == 0 and batches > 0
        return self.batches_before(step) // batches > self.batches_before(step - 1) // batches


def batches_per_step(recipe: Recipe, patch_size: int) -> int:
    """Batches of `total_batch_size` images that a step at this patch size has."""
    if recipe.tokens_per_step is None:
        return 1
    return max(1, recipe.tokens_per_step // (recipe.total_batch_size * recipe.tokens_per_image(patch_size)))
