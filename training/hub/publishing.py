# Copyright 2026 The modeling_pixelvit team. All rights reserved.
# SPDX-License-Identifier: Apache-2.0
"""A folder for the hub, built and proven, and what may be pushed."""

from pathlib import Path

from ..checkpoints.checksums import CHECKSUMS_FILE
from ..checkpoints.reading import read_settings
from ..common.files import whole_folder
from ..foreign.conversion import check_output
from .check import FolderJob, check_folder
from .folder import FolderOptions, build_folder
from .scan import scan_folder
from .source import Source


def build_and_check(source: Source, output_dir: Path, options: FolderOptions, overwrite: bool) -> str:
    """
    Writes a folder for the hub, whole and proven, or not at all.

    Args:
        source: The checkpoint.
        output_dir: The folder to write; one that this function wrote is replaced.
        options: What the user decides about it.
        overwrite: Whether any other checkpoint there is replaced too.

    Returns:
        The name of the model's class.

    Raises:
        ValueError: in one sentence, if the checkpoint cannot be published, or does not give from the folder what it
            gives here.
    """
    output_dir = output_dir.resolve()
    was_built = all((output_dir / name).is_file() for name in (CHECKSUMS_FILE, "handler.py"))
    check_output(output_dir, overwrite or was_built, source.folder)
    with whole_folder(output_dir) as folder:
        model, processor = build_folder(source, folder, options)
        scan_folder(folder, private=[str(source.folder), str(source.folder.resolve()), str(output_dir)])
        compared = check_folder(FolderJob(folder, model, processor))
        size = sum(path.stat().st_size for path in folder.iterdir())
        count = len(list(folder.iterdir()))
    print(f"same as the source, bit for bit, in a process without this project: {', '.join(compared)}")
    print(f"wrote {output_dir}: {count} files, {size / 1e6:.1f} MB")
    return type(model).__name__


def check_may_be_pushed(source: Source):
    """
    Raises:
        ValueError: for weights that somebody else published without a licence.
    """
    origin = (read_settings(source.folder, "config.json") or {}).get("weights_origin")
    if isinstance(origin, dict) and origin.get("license") is None:
        raise ValueError(
            f"The weights come from {origin.get('repo_id')}, which gives no licence to pass them on, so they are not "
            "pushed; leave out --push to build the folder only, or give --redistribute_unlicensed if you may."
        )
