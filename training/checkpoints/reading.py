# Copyright 2026 The modeling_pixelvit team. All rights reserved.
# SPDX-License-Identifier: Apache-2.0
"""
Other people's checkpoint files, read without running anything that they contain.

A `.pth` file is a pickle, and a pickle can call any function. Here PyTorch's restricted unpickler reads it: tensors,
plain values and, because the released training code stores its arguments so, `argparse.Namespace`. Whatever else a file
asks for is refused before it happens.
"""

import argparse
import contextlib
import json
import re
import struct
import warnings
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import safetensors.torch
import torch

from modeling_pixelvit.configuration_checks import shown_value


# A value from a file for a message: whatever its length, a part of it.
shown = shown_value.repr
# In the order in which transformers looks for them.
FOLDER_WEIGHTS = (
    "model.safetensors",
    "model.safetensors.index.json",
    "pytorch_model.bin",
    "pytorch_model.bin.index.json",
)
# Entry with the weights -> entry with their running average: the released code and DeiT's, and timm's.
CONTAINERS = {"model": "model_ema", "state_dict": "state_dict_ema"}
# Put in front of every name by DistributedDataParallel, torch.compile and transformers' wrapper of timm models.
WRAPPER_PREFIXES = ("module.", "_orig_mod.", "timm_model.")
# A config with a million class names is half of it.
LARGEST_JSON_BYTES = 64 << 20
LONGEST_NAME = 200  # file systems end at 255
# What PyTorch's restricted unpickler says when it meets something to import or to call.
FORBIDDEN = re.compile(
    r"GLOBAL (?P<imported>\S+)|unrecognized function (?P<called>[^\n]+)|Can only (?:create|build).*got (?P<made>[^\n]+)"
)


class CheckpointError(ValueError):
    """A checkpoint that cannot be converted; the message says what was given, what is expected and what to do."""


def read_checkpoint(path: str | Path) -> dict[str, Any]:
    """
    Reads a checkpoint file, or the weights of a folder saved by transformers or timm, without executing any of it.

    Args:
        path: A `.pth`, `.pt`, `.bin` or `.safetensors` file, or a folder with one of `FOLDER_WEIGHTS`.

    Returns:
        What the file holds: names to tensors, or entries such as `model`, `model_ema`, `optimizer`, `args`. Tensors of
        a zipped `.pth` are mapped, not read, until they are used.

    Raises:
        CheckpointError: if there is no such file, if it is no checkpoint, if it is damaged, or if reading it would mean
            running code from it.
    """
    path = Path(path)
    if path.is_dir():
        return _read_folder(path)
    if not path.is_file():
        raise CheckpointError(f"{path} does not exist; give the path of a checkpoint file or folder.")
    try:
        contents = _read_safetensors(path) if _is_safetensors(path) else _read_pickle(path)
    except OSError as error:
        raise CheckpointError(f"{path} cannot be opened ({error.strerror}); check its permissions.") from None
    if not isinstance(contents, dict):
        raise CheckpointError(
            f"{path} holds a {type(contents).__name__}; a checkpoint is a dict of names and tensors, or of entries "
            "such as 'model'. Save the model's state_dict() instead."
        )
    if not contents:
        raise CheckpointError(f"{path} holds an empty dict; give a checkpoint with weights.")
    return contents


def read_settings(path: str | Path, name: str) -> dict[str, Any] | None:
    """
    The JSON object `name` that belongs to a checkpoint: in the folder, or beside a weights file as saved in a folder.

    Raises:
        CheckpointError: if it is there but is not a JSON object.
    """
    path = Path(path)
    if not path.is_dir() and not path.name.startswith(("model", "pytorch_model")):
        return None  # a file under a name of its own may lie beside somebody else's config.json
    file = (path if path.is_dir() else path.parent) / name
    return read_json_object(file) if file.is_file() else None


def is_own_name(name: str) -> bool:
    """Whether this is a plain name of a file, which cannot lead out of a folder or fill a screen."""
    return Path(name).name == name and name.isprintable() and len(name.encode()) <= LONGEST_NAME


def own_file(folder: Path, name: str) -> Path:
    """
    The path of a file of a folder.

    Raises:
        CheckpointError: if the name leads out of it, or no such file is there.
    """
    path = folder / name
    if not is_own_name(name):
        raise CheckpointError(
            f"{folder} names a file {shown(name)}, which is not in the folder itself; no other file is "
            "read. Get the folder again."
        )
    if not path.is_file():
        raise CheckpointError(f"{folder} lacks a part that can be read, {name}; give a complete checkpoint.")
    target, home = path.resolve(), folder.resolve()
    # The hub's cache keeps a repository's files in blobs/, and links to them in snapshots/REVISION/.
    homes = [home, home.parents[1] / "blobs"] if home.parent.name == "snapshots" else [home]
    if target.parent not in homes:
        raise CheckpointError(
            f"{path} is a link to {target}, outside the checkpoint; copy the file there if it is meant to be."
        )
    return path


def select_weights(contents: dict[str, Any], ema: bool, path: str | Path) -> tuple[dict[str, torch.Tensor], str, list]:
    """
    Picks the weights from what a checkpoint holds.

    Args:
        contents: What `read_checkpoint` returned.
        ema: Whether to take the running average of the weights.
        path: Where it comes from, for messages.

    Returns:
        Names to tensors without the prefixes of wrappers; the entry that they come from ("" if there is none); and the
        names of the entries left behind.

    Raises:
        CheckpointError: if there are no such weights, or there is something else among them.
    """
    container = next((name for name in CONTAINERS if isinstance(contents.get(name), dict)), None)
    if container is None:
        if ema:
            raise CheckpointError(
                f"{path} holds one set of weights and no entry 'model_ema'; convert it without --ema."
            )
        return _checked_weights(contents, path, ""), "", []
    entry = CONTAINERS[container] if ema else container
    if not isinstance(contents.get(entry), dict):
        raise CheckpointError(
            f"{path} has no averaged weights: its entries are {', '.join(map(shown, contents))}, and --ema needs "
            f"'{entry}'. Convert it without --ema."
        )
    return _checked_weights(contents[entry], path, entry), entry, [str(name) for name in contents if name != entry]


def _read_folder(path: Path) -> dict[str, Any]:
    name = next((name for name in FOLDER_WEIGHTS if (path / name).is_file()), None)
    if name is None:
        raise CheckpointError(
            f"The folder {path} has none of {', '.join(FOLDER_WEIGHTS)}; give a folder saved by save_pretrained, or a "
            "checkpoint file."
        )
    if not name.endswith(".index.json"):
        return read_checkpoint(path / name)
    weight_map = read_json_object(path / name).get("weight_map")
    shards = set(map(str, weight_map.values())) if isinstance(weight_map, dict) else set()
    # Only files of this very folder: the index is somebody else's text.
    if not shards or not all(map(is_own_name, shards)):
        raise CheckpointError(f"{path / name} names no shards in its 'weight_map'; get the folder again.")
    contents = {}
    for shard in sorted(shards):
        contents.update(read_checkpoint(own_file(path, shard)))
    return contents


def read_json_object(path: Path) -> dict[str, Any]:
    """
    The object in a JSON file.

    Raises:
        CheckpointError: if it cannot be opened, is longer than settings are, or holds anything else.
    """
    try:
        with path.open("rb") as file:
            content = file.read(LARGEST_JSON_BYTES + 1)
        if len(content) > LARGEST_JSON_BYTES:
            raise CheckpointError(
                f"{path} has more than {LARGEST_JSON_BYTES} bytes, and no settings of a model are so long; get the "
                "file again."
            )
        settings = json.loads(content.decode("utf-8"))
    except OSError as error:
        raise CheckpointError(f"{path} cannot be opened ({error.strerror}); check its permissions.") from None
    except (ValueError, RecursionError) as error:
        if isinstance(error, CheckpointError):
            raise
        raise CheckpointError(f"{path} is not valid JSON ({_first_line(error)}); get the file again.") from None
    if not isinstance(settings, dict):
        raise CheckpointError(f"{path} holds a {type(settings).__name__} and not a JSON object; get the file again.")
    return settings


def _is_safetensors(path: Path) -> bool:
    """By content: eight bytes of length, then a JSON object. The name decides only where the content is neither."""
    with path.open("rb") as file:
        start = file.read(9)
    return start[8:] == b"{" or (path.suffix == ".safetensors" and not start.startswith(b"\x80"))


def _read_safetensors(path: Path) -> dict[str, torch.Tensor]:
    try:
        return safetensors.torch.load_file(path)
    except Exception as error:  # a parser in another language, given arbitrary bytes
        raise CheckpointError(
            f"{path} is not a readable safetensors file ({_first_line(error)}); it is damaged, cut short or something "
            "else. Get the file again."
        ) from None


def _read_pickle(path: Path) -> Any:
    with path.open("rb") as file:
        zipped = file.read(4) == b"PK\x03\x04"
    if zipped:
        _check_zip(path)
    try:
        with _only_namespace_allowed(), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # what PyTorch remarks on odd files; if one cannot be read, that is said
            # An open file for the old format, because by name torch.load might hand a file to another reader.
            if zipped:
                return torch.load(path, map_location="cpu", weights_only=True, mmap=True)
            with path.open("rb") as file:
                return torch.load(file, map_location="cpu", weights_only=True)
    except Exception as error:  # arbitrary bytes make the unpickler fail in arbitrary ways
        raise CheckpointError(_refusal(path, error)) from None


def _check_zip(path: Path):
    """Refuses what torch.save does not write: compressed entries, which may become any size, and ones of one name."""
    try:
        with zipfile.ZipFile(path) as archive:
            entries = archive.infolist()
    except (zipfile.BadZipFile, ValueError, NotImplementedError, OverflowError, struct.error) as error:
        raise CheckpointError(_refusal(path, error)) from None
    names = {entry.filename for entry in entries}
    stored = all(
        entry.compress_type == zipfile.ZIP_STORED and entry.file_size == entry.compress_size for entry in entries
    )
    if not stored or len(names) != len(entries) or sum(entry.file_size for entry in entries) > path.stat().st_size:
        raise CheckpointError(
            f"{path} is a zip file, but not as torch.save writes one: its entries must be stored as they are, each "
            "under a name of its own. Nothing was executed; save the weights again."
        )


@contextlib.contextmanager
def _only_namespace_allowed() -> Iterator[None]:
    """Allows `argparse.Namespace` and nothing that other libraries have allowed in this process."""
    allowed_elsewhere = torch.serialization.get_safe_globals()
    torch.serialization.clear_safe_globals()
    try:
        torch.serialization.add_safe_globals([argparse.Namespace])
        yield
    finally:
        torch.serialization.clear_safe_globals()
        torch.serialization.add_safe_globals(allowed_elsewhere)


def _refusal(path: Path, error: Exception) -> str:
    forbidden = FORBIDDEN.search(str(error))
    if forbidden:
        wanted = next(name for name in forbidden.groups() if name)[:80]
        return (
            f"{path} is refused: reading it would mean running {wanted} from the file, and a checkpoint may hold only "
            "tensors, plain values and argparse.Namespace. Nothing was executed; ask whoever made the file for its "
            "weights as safetensors."
        )
    return (
        f"{path} is not a checkpoint that can be read safely ({_first_line(error)}); it is damaged, cut short or "
        "something else. Nothing was executed; give a file written by torch.save or safetensors."
    )


def _first_line(error: Exception) -> str:
    text = str(error).split("WeightsUnpickler error: ")[-1].strip()
    return f"{type(error).__name__}: {text.splitlines()[0].rstrip('.')[:160]}" if text else type(error).__name__


def _checked_weights(weights: dict[str, Any], path: str | Path, entry: str) -> dict[str, torch.Tensor]:
    where = f"the entry '{entry}' of {path}" if entry else f"{path}"
    if not weights:
        raise CheckpointError(f"{where} is empty; give a checkpoint with weights.")
    for name, tensor in weights.items():
        if not isinstance(name, str) or not isinstance(tensor, torch.Tensor):
            raise CheckpointError(
                f"{where} holds a {type(tensor).__name__} under {shown(name)}; expected are names and tensors only, or "
                "the weights under 'model' or 'state_dict'. Give a state_dict."
            )
    needed, there = sum(tensor.numel() * tensor.itemsize for tensor in weights.values()), _size_on_disk(path)
    if needed > there:
        raise CheckpointError(
            f"{where} declares tensors of {needed} bytes in all, but the file has {there}: they overlap or repeat "
            "themselves. Save the weights as tensors of their own."
        )
    return _without_wrappers({name: tensor.detach() for name, tensor in weights.items()})


def _size_on_disk(path: str | Path) -> int:
    """Bytes of a file, or of those of a folder."""
    path = Path(path)
    return (
        sum(file.stat().st_size for file in path.iterdir() if file.is_file()) if path.is_dir() else path.stat().st_size
    )


def _without_wrappers(weights: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    for prefix in WRAPPER_PREFIXES * 2:  # one may be inside the other
        if all(name.startswith(prefix) for name in weights):
            weights = {name.removeprefix(prefix): tensor for name, tensor in weights.items()}
    return weights
