# Copyright 2026 The modeling_pixelvit team. All rights reserved.
# SPDX-License-Identifier: Apache-2.0
"""What a demo offers and what it allows."""

from dataclasses import dataclass, field
from pathlib import Path

from .checkpoints import Checkpoint, ModelStore


MAX_PIXELS, MAX_FILE_MIB, MOST_TOKENS = 40_000_000, 20, 4096


@dataclass
class Demo:
    """
    Args:
        checkpoints: To choose from.
        examples: Example images by task.
        listed_only: Whether visitors can load no other checkpoints by path or hub name.
        max_pixels: Of an upload, height times width.
        max_file_mib: Of an upload.
        most_tokens: Of an image in the tab of patch sizes.
        store: Of loaded models.
    """

    checkpoints: list[Checkpoint]
    examples: dict[str, list[Path]]
    listed_only: bool = False
    max_pixels: int = MAX_PIXELS
    max_file_mib: int = MAX_FILE_MIB
    most_tokens: int = MOST_TOKENS
    store: ModelStore = field(default_factory=ModelStore)

    def of_task(self, task: str) -> list[Checkpoint]:
        return [one for one in self.checkpoints if one.task == task]

    def chosen(self, name: str | None, task: str | None = None) -> Checkpoint:
        """
        The checkpoint of a name.

        Args:
            name: Of one of the list or, unless `listed_only`, any folder or hub name; None if none was chosen.
            task: What it must be for; anything if not given.

        Raises:
            ValueError: if there was no choice, or the checkpoint is for another task or cannot be loaded.
        """
        if not name:
            raise ValueError("No checkpoint is chosen; choose one, or load one by its folder or hub name.")
        listed = {one.name: one for one in self.checkpoints}
        if self.listed_only and name not in listed:
            raise ValueError("This checkpoint is not one of those on offer; choose one of the list.")
        found = listed.get(name) or self.store.describe(name)
        if task not in (None, found.task):
            raise ValueError(f"{name} is for {found.task}; choose a checkpoint for {task}.")
        return found
