# Copyright 2026 The modeling_pixelvit team. All rights reserved.
# SPDX-License-Identifier: Apache-2.0
"""The checkpoints that others have released: the table of them, and getting their files."""

import functools
import re
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import yaml
from huggingface_hub import get_hf_file_metadata, hf_hub_download, hf_hub_url
from huggingface_hub.errors import HTTPError

from ..checkpoints.checksums import file_checksum
from ..checkpoints.loading import first_line
from ..checkpoints.reading import CheckpointError


TABLE_FILE = Path(__file__).with_name("released_checkpoints.yaml")


@dataclass(frozen=True)
class ReleasedCheckpoint:
    """
    A line of `released_checkpoints.yaml`.

    Attributes:
        name: Ours, such as `adventurer-base-patch1-224`.
        repo_id, filename: Where the weights are on the hub.
        license: What that repository states; None: nothing.
        family, variant: Type of the model, and its size in Table 7 or None.
        patch_size, image_size: In pixels, both square.
        parameters: Of our model, exactly.
        crop_pct: Crop ratio of the evaluation; None: the paper's.
    """

    name: str
    repo_id: str
    filename: str
    license: str | None
    family: str
    variant: str | None
    patch_size: int
    image_size: int
    parameters: int
    crop_pct: float | None = None


@functools.cache
def released_checkpoints() -> dict[str, ReleasedCheckpoint]:
    """All that are known, by name."""
    entries = yaml.safe_load(TABLE_FILE.read_text(encoding="utf-8"))
    return {entry["name"]: ReleasedCheckpoint(**entry) for entry in entries}


def select(names: list[str]) -> list[ReleasedCheckpoint]:
    """
    The checkpoints of some names, each once, in the order of the table.

    Args:
        names: Of checkpoints, or `released` (the paper's authors' Adventurer), `deit` (timm's DeiT), `all`.

    Raises:
        CheckpointError: for a name that is neither.
    """
    known = released_checkpoints()
    groups = {"all": set(known), "released": {name for name, entry in known.items() if entry.family == "adventurer"}}
    groups["deit"] = groups["all"] - groups["released"]
    for name in names:
        if name not in known and name not in groups:
            raise CheckpointError(
                f"{name!r} is no released checkpoint; give {', '.join(groups)} or a name that --list shows, such as "
                f"{next(iter(known))}."
            )
    chosen = set().union(*(groups.get(name, {name}) for name in names))
    return [entry for entry in known.values() if entry.name in chosen]


def find_file(entry: ReleasedCheckpoint, folder: Path) -> Path:
    """
    The file of a checkpoint in a folder of files that were downloaded before.

    A file whose name another checkpoint's has too lies in a folder named as its repository, with or without the user.

    Raises:
        CheckpointError: if it is not there.
    """
    user, repository = entry.repo_id.split("/")
    paths = [folder / repository / entry.filename, folder / user / repository / entry.filename]
    if Counter(other.filename for other in released_checkpoints().values())[entry.filename] == 1:
        paths.insert(0, folder / entry.filename)
    for path in paths:
        if path.is_file():
            return path
    raise CheckpointError(f"{folder} has no {paths[0].relative_to(folder)}; put it there, or leave out --from.")


def download(entry: ReleasedCheckpoint, report: Callable[[str], None]) -> tuple[Path, str]:
    """
    The file of a checkpoint from the hub, from where an interrupted download stopped, and its SHA-256.

    Args:
        entry: The checkpoint.
        report: Gets a line of text where something is worth knowing.

    Raises:
        CheckpointError: if the hub cannot be reached or lacks it, or what came is not what the hub says it has.
    """
    try:
        listed = get_hf_file_metadata(hf_hub_url(entry.repo_id, entry.filename))
        if not re.fullmatch("[0-9a-f]{64}", listed.etag or ""):
            raise CheckpointError(
                f"The hub tells no SHA-256 of {entry.filename} of {entry.repo_id}, so it cannot be verified; download "
                "it yourself and give its folder with --from."
            )
        for again in (False, True):
            path = Path(
                hf_hub_download(entry.repo_id, entry.filename, revision=listed.commit_hash, force_download=again)
            )
            found = file_checksum(path)
            if found == listed.etag:
                return path, found
            if not again:
                report(f"{entry.name}: the copy of {entry.filename} is damaged; downloading it again")
    except (OSError, HTTPError) as error:
        raise CheckpointError(
            f"{entry.filename} cannot be downloaded from {entry.repo_id} ({first_line(error)}); check the "
            "connection, or give the folder of a file that you have with --from. Given again, the command goes "
            "on where it stopped."
        ) from None
    raise CheckpointError(
        f"{entry.filename} of {entry.repo_id} was downloaded twice with SHA-256 {found[:12]}..., but the hub lists "
        f"{listed.etag[:12]}...; it was not used. Try another connection."
    )
