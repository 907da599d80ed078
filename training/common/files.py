# Copyright 2026 The modeling_pixelvit team. All rights reserved.
# SPDX-License-Identifier: Apache-2.0
"""Writing files so that what is there under its name is whole, also after a crash."""

import contextlib
import json
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any


def flush_to_disk(path: Path):
    """Returns once the content of a file, or the names in a folder, are on the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def write_bytes(path: Path, content: bytes):
    """Writes the whole file or, if interrupted, nothing."""
    partial = path.with_name(f"{path.name}.{os.getpid()}.partial")  # another process may write the same
    partial.write_bytes(content)
    flush_to_disk(partial)
    os.replace(partial, path)
    flush_to_disk(path.parent)


def write_text(path: Path, text: str):
    """The same, in UTF-8."""
    write_bytes(path, text.encode())


def write_json(path: Path, content: Any):
    """Writes the whole file or, if interrupted, nothing."""
    write_text(path, json.dumps(content, indent=2) + "\n")


def point_to(link: Path, target: Path):
    """Makes `link` a symbolic link to `target`, both in one folder, in place of what it pointed to before."""
    partial = link.with_name(link.name + ".partial")
    partial.unlink(missing_ok=True)
    partial.symlink_to(target.name, target_is_directory=True)
    os.replace(partial, link)
    flush_to_disk(link.parent)


def is_free(path: Path) -> bool:
    """Whether a folder can be written there in place of nothing, or of an empty one."""
    return not path.exists() or (path.is_dir() and not any(path.iterdir()))


@contextlib.contextmanager
def whole_folder(path: Path, replace: bool = True) -> Iterator[Path]:
    """
    A folder to write to, which at the end becomes `path`, or goes away if anything fails before.

    Args:
        replace: Takes the place of a folder that is there; if not, one that another process has made meanwhile stays.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f".{path.name}-", dir=path.parent) as work:
        folder, previous = Path(work, "new"), Path(work, "previous")
        folder.mkdir()
        yield folder
        try:
            if replace and path.exists():
                os.rename(path, previous)
            os.rename(folder, path)
        except BaseException as error:  # an interruption too, after which `previous` would be removed
            if previous.exists() and not path.exists():
                os.rename(previous, path)
            if replace or not path.is_dir() or not isinstance(error, OSError):
                raise


def remove_folder(path: Path):
    """Removes a folder; interrupted in between, it leaves none of the name."""
    doomed = path.with_name(path.name + ".removed")
    os.replace(path, doomed)
    shutil.rmtree(doomed)
