# Copyright 2026 The modeling_pixelvit team. All rights reserved.
# SPDX-License-Identifier: Apache-2.0
"""
The checkpoint folders of a run: never torn, found again, and no more of them than wanted.

A checkpoint is written as `step-00001234.partial`, its files are flushed to the disk, a list of them with their sizes
is added, and only then the folder gets its name. What has not both, name and all files of its list, is no checkpoint.
"""

import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path

from accelerate import Accelerator

from ..common.files import flush_to_disk, point_to, remove_folder, write_json


# In the folder of a run.
CHECKPOINTS_FOLDER = "checkpoints"
BEST_LINK = "best"
EVALUATION_FILE = "evaluation.json"  # beside the best weights: whether they are the average, and their metrics
# Of a checkpoint.
COMPLETE_FILE = "complete.json"
PARTIAL, ABANDONED = ".partial", ".abandoned"
NAME = re.compile(r"step-(\d{8,})")


class RunCheckpoints:
    """
    Args:
        folder: Of all checkpoints of a run, on a disk that all processes share.
        accelerator: The processes that write together; all of them must make the same calls.
        keep: Newest checkpoints to keep.
    """

    def __init__(self, folder: Path, accelerator: Accelerator, keep: int):
        self.folder, self.accelerator, self.keep = folder, accelerator, keep

    def save(self, step: int, write: Callable[[Path], None]) -> Path:
        """
        Makes the checkpoint of a step, which stays untouched if it is there already.

        Args:
            step: Steps done.
            write: Called on every process with the folder to write its files to.
        """
        final = self.folder / f"step-{step:08d}"
        partial = final.with_name(final.name + PARTIAL)
        if not is_complete(final):
            if self.accelerator.is_main_process:
                clear(final, partial)
                partial.mkdir(parents=True)
            self.accelerator.wait_for_everyone()
            write(partial)
            self.accelerator.wait_for_everyone()
            if self.accelerator.is_main_process:
                publish(partial, final)
        if self.accelerator.is_main_process:
            point_to(self.folder / "last", final)
            self._retire()
        self.accelerator.wait_for_everyone()
        return final

    def abandon_after(self, step: int) -> list[Path]:
        """
        Sets checkpoints of more steps aside, for a run that goes on from an earlier one.

        `find_last` does not find them any more, and the next `save` removes them.

        Returns:
            What they are called now, on the main process.
        """
        abandoned = []
        if self.accelerator.is_main_process:
            for path in sorted(find_checkpoints(self.folder)):
                if step_of(path) > step:
                    aside = path.with_name(path.name + ABANDONED)
                    clear(aside)
                    abandoned.append(path.rename(aside))
        self.accelerator.wait_for_everyone()
        return abandoned

    def find_last(self) -> Path | None:
        """The complete checkpoint of the most steps."""
        return max(find_checkpoints(self.folder), key=step_of, default=None)

    def _retire(self):
        """Removes old checkpoints, and what interrupted runs have left of others."""
        checkpoints = sorted(find_checkpoints(self.folder), key=step_of)
        for path in checkpoints[: -self.keep]:
            remove_folder(path)
        for path in self.folder.iterdir():
            if path.is_dir() and not path.is_symlink() and not NAME.fullmatch(path.name):
                shutil.rmtree(path)


def clear(*folders: Path):
    """Removes those that are there."""
    for folder in folders:
        if folder.exists():
            shutil.rmtree(folder)


def publish(partial: Path, final: Path):
    """Marks a folder that has been written as complete and gives it its name."""
    files = sorted(path for path in partial.rglob("*") if path.is_file())
    for path in files:
        flush_to_disk(path)
    write_json(partial / COMPLETE_FILE, {str(path.relative_to(partial)): path.stat().st_size for path in files})
    for path in {path.parent for path in files} | {partial}:
        flush_to_disk(path)
    partial.rename(final)
    flush_to_disk(final.parent)


def is_complete(path: Path) -> bool:
    """Whether a folder has a list of its files and all of them in full."""
    try:
        sizes = json.loads((path / COMPLETE_FILE).read_text())
        return all((path / name).stat().st_size == size for name, size in sizes.items())
    except (OSError, ValueError):
        return False


def find_checkpoints(folder: Path) -> list[Path]:
    """The complete checkpoints in a folder."""
    return [path for path in folder.glob("step-*") if NAME.fullmatch(path.name) and is_complete(path)]


def step_of(path: Path) -> int:
    """Steps done at a checkpoint."""
    return int(NAME.fullmatch(path.name)[1])


def find_checkpoint(source: Path) -> Path:
    """
    The source itself if it is a complete checkpoint, or the last complete one of a run.

    Raises:
        ValueError: if it is neither.
    """
    if is_complete(source):
        return source
    checkpoints = find_checkpoints(source / CHECKPOINTS_FOLDER)
    if not checkpoints:
        raise ValueError(f"{source} is no complete checkpoint and no run that has one; give either.")
    return max(checkpoints, key=step_of)
