# Copyright 2026 The modeling_pixelvit team. All rights reserved.
# SPDX-License-Identifier: Apache-2.0
"""
Checksums of a checkpoint's files, in a file beside them.

They find damage that a file does not show by itself: a bit that flips among the weights leaves a file that loads. They
are no signature: whoever can change the weights can write new checksums.
"""

import hashlib
import re
from pathlib import Path

from ..common.files import write_json
from .reading import CheckpointError, is_own_name, own_file, read_settings, shown


CHECKSUMS_FILE = "checksums.json"
# Not listed: the card and the hub's own file are edited after a checkpoint is written, and change no output.
UNLISTED = (CHECKSUMS_FILE, "README.md", ".gitattributes")
CHUNK_BYTES = 1 << 20


def file_checksum(path: Path) -> str:
    """SHA-256 of a file's content, in 64 hexadecimal digits."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while chunk := file.read(CHUNK_BYTES):
            digest.update(chunk)
    return digest.hexdigest()


def write_checksums(folder: Path) -> dict[str, str]:
    """
    Writes `checksums.json` beside the files of a folder.

    Args:
        folder: A flat folder: names in folders below it are not listed.

    Returns:
        Each file's name and SHA-256, as written.
    """
    files = sorted(path for path in folder.iterdir() if path.is_file() and path.name not in UNLISTED)
    checksums = {path.name: file_checksum(path) for path in files}
    write_json(folder / CHECKSUMS_FILE, checksums)
    return checksums


def verify_checksums(folder: Path, complete: bool = True):
    """
    Compares the files of a folder with its `checksums.json`; without one there is nothing to compare.

    Args:
        folder: The folder.
        complete: Whether all files that are listed must be there, or those that are need only be right.

    Raises:
        CheckpointError: if a file that is listed is missing or differs, or the list is none.
    """
    checksums = read_settings(folder, CHECKSUMS_FILE)
    if checksums is None:
        return
    for name, expected in checksums.items():
        # Names of this very folder: the list is somebody else's text.
        if not is_own_name(name) or not isinstance(expected, str) or not re.fullmatch("[0-9a-f]{64}", expected):
            raise CheckpointError(
                f"{folder / CHECKSUMS_FILE} has an entry {shown(name)} that is not a file of the folder with its "
                "SHA-256; get the folder again."
            )
        if not (folder / name).is_file():
            if not complete:
                continue
            raise CheckpointError(f"{folder} lacks {name}, which {CHECKSUMS_FILE} lists; get the folder again.")
        if file_checksum(own_file(folder, name)) != expected:
            raise CheckpointError(
                f"{folder / name} is not the file that {CHECKSUMS_FILE} lists: its content has changed. Get it again, "
                "or write new checksums if the change was yours."
            )
