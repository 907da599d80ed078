# Copyright 2026 The modeling_pixelvit team. All rights reserved.
# SPDX-License-Identifier: Apache-2.0
"""What the sweep does for each task: images that need no download, how many of them, and the scores it reports."""

from dataclasses import dataclass

from ..families.registry import FAMILIES
from ..settings.recipe import Recipe, find_recipes, load_recipe


DECODERS = ("none", "upernet")


@dataclass(frozen=True)
class SweepTask:
    """
    Args:
        source: The embedded images.
        image_size: Their side in pixels.
        patch_sizes: That a sweep has if it is not told.
        scores: Title of a column, and name of the task's metric in it, in percent.
        drawn: Titles of the scores that have a picture beside that of the test loss.
        recipe_ending: Of the recipes' names after the family's.
    """

    source: str
    image_size: int
    patch_sizes: tuple[int, ...]
    scores: dict[str, str]
    drawn: tuple[str, ...]
    recipe_ending: str

    def load_recipes(self) -> dict[str, Recipe]:
        """By family, of those that have one."""
        names, found = {family: f"{family}-{self.recipe_ending}" for family in FAMILIES}, find_recipes()
        return {family: load_recipe(name) for family, name in names.items() if name in found}


SWEEP_TASKS = {
    "classification": SweepTask(
        source="embedded digits",
        image_size=16,
        patch_sizes=(16, 8, 4, 2, 1),
        scores={"accuracy": "accuracy"},
        drawn=(),
        recipe_ending="sweep",
    ),
    "segmentation": SweepTask(
        source="digit scenes",
        image_size=32,
        patch_sizes=(8, 4, 2),
        scores={"mIoU": "mean_iou"},
        drawn=("mIoU",),
        recipe_ending="segmentation-sweep",
    ),
    "detection": SweepTask(
        source="digit scenes",
        image_size=32,
        patch_sizes=(8, 4, 2),
        scores={"AP box": "box_ap", "AP50 box": "box_ap50", "AP mask": "mask_ap", "AP50 mask": "mask_ap50"},
        drawn=("AP box", "AP mask"),
        recipe_ending="detection-sweep",
    ),
}
