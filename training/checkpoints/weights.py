# Copyright 2026 The modeling_pixelvit team. All rights reserved.
# SPDX-License-Identifier: Apache-2.0
"""
The safetensors of a checkpoint folder that somebody else may have written, into a model of known shapes.

The files' headers are compared with what the model needs before anything is allocated, and only files of the folder
itself are opened.
"""

from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from transformers import PreTrainedConfig, PreTrainedModel

from .reading import CheckpointError, own_file, read_settings, shown


WEIGHTS_FILE = "model.safetensors"
INDEX_FILE = "model.safetensors.index.json"
FLOATS = ("F16", "BF16", "F32", "F64")
INTEGERS = ("I64",)  # batches that a BatchNorm has seen
# A header has some 100 bytes for each tensor; what is longer is no header.
LARGEST_HEADER_BYTES = 16 << 20
# The last two: of files that are too large to be mapped.
FILE_ERRORS = (SafetensorError, OSError, MemoryError, RuntimeError)

Header = tuple[tuple[int, ...], str]  # shape and dtype of a weight, as a file declares them


def weight_names(folder: Path) -> list[str]:
    """
    Names of the safetensors files of a checkpoint folder.

    Raises:
        CheckpointError: if there are none, or the index names something else.
    """
    if (folder / WEIGHTS_FILE).exists():
        return [WEIGHTS_FILE]
    if not (folder / INDEX_FILE).exists():
        pickled = sorted(path.name for path in folder.glob("pytorch_model*.bin*"))
        found = f" ({pickled[0]} is a pickle, which is not read)" if pickled else ""
        raise CheckpointError(f"{folder} lacks a part that can be read, {WEIGHTS_FILE}{found}; give safetensors.")
    own_file(folder, INDEX_FILE)
    weight_map = (read_settings(folder, INDEX_FILE) or {}).get("weight_map")
    names = set(map(str, weight_map.values())) if isinstance(weight_map, dict) else set()
    if not names or not all(name.endswith(".safetensors") for name in names):
        raise CheckpointError(f"{folder / INDEX_FILE} names no safetensors in its 'weight_map'; get the folder again.")
    return sorted(names)


def load_model(model_class: type[PreTrainedModel], config: PreTrainedConfig, folder: Path) -> PreTrainedModel:
    """
    A model in float32 on the CPU, in evaluation mode, with the weights of a checkpoint folder.

    Args:
        model_class: The class whose weights the checkpoint holds.
        config: Its configuration.
        folder: With one safetensors file, or several and their index.

    Raises:
        CheckpointError: if a file is missing or damaged, a weight is missing, has another shape, is not one of this
            model or not a number.
    """
    files = {name: own_file(folder, name) for name in weight_names(folder)}
    headers = _read_headers(files)
    _compare_block_counts(headers, config, folder)
    try:
        with torch.device("meta"):  # shapes without memory
            expected = model_class(config).state_dict()
    except ValueError as error:
        raise CheckpointError(f"{folder} does not fit: {error}") from None
    _compare(headers, expected, model_class.__name__, folder)
    tensors = {}
    for path in files.values():
        tensors |= _read_tensors(path)
    model = model_class.from_pretrained(None, config=config, state_dict=tensors, dtype=torch.float32).eval()
    broken = nonfinite_weights(model)
    if broken:
        raise CheckpointError(
            f"{folder} has NaN or infinite values in {len(broken)} weights ({broken[0]}); the file is damaged or the "
            "training went wrong. Get the checkpoint again."
        )
    return model


def nonfinite_weights(model: PreTrainedModel) -> list[str]:
    """Names of the weights that have NaN or infinite values."""
    return [name for name, tensor in model.state_dict().items() if not tensor.isfinite().all()]


def _read_headers(files: Mapping[str, Path]) -> dict[str, Header]:
    headers = {}
    for path in files.values():
        _check_header_length(path)
        try:
            with safe_open(path, framework="pt") as file:
                for name in file.keys():  # noqa: SIM118 (not a dict)
                    part = file.get_slice(name)
                    if name in headers:
                        raise CheckpointError(f"{path} holds {shown(name)} once more; get the folder again.")
                    headers[name] = tuple(part.get_shape()), part.get_dtype()
        except FILE_ERRORS as error:
            raise _damaged(path, error) from None
    return headers


def _check_header_length(path: Path):
    with path.open("rb") as file:
        length = int.from_bytes(file.read(8), "little")
    if length > min(LARGEST_HEADER_BYTES, path.stat().st_size):
        raise CheckpointError(
            f"{path} lacks a part that can be read: its header should be {length} bytes long, of at most "
            f"{LARGEST_HEADER_BYTES} and the file's {path.stat().st_size}; it is damaged. Get it again."
        )


def _read_tensors(path: Path) -> dict[str, torch.Tensor]:
    try:
        with safe_open(path, framework="pt") as file:
            return {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except FILE_ERRORS as error:
        raise _damaged(path, error) from None


def _damaged(path: Path, error: Exception) -> CheckpointError:
    reason = " ".join(str(error).split())[:200]
    return CheckpointError(
        f"{path} lacks a part that can be read ({reason}): it is damaged, cut short, too large or no safetensors "
        "file; get it again."
    )


def _compare_block_counts(headers: Mapping[str, Header], config: PreTrainedConfig, folder: Path):
    """Before the model is built, which takes time for each block."""
    blocks = {name.split("layers.")[1].split(".")[0] for name in headers if "layers." in name}
    if len(blocks) != config.num_hidden_layers:
        raise CheckpointError(
            f"{folder} holds weights of {len(blocks)} blocks, but its config.json says num_hidden_layers="
            f"{config.num_hidden_layers}; give a complete checkpoint."
        )


def _compare(found: Mapping[str, Header], expected: Mapping[str, torch.Tensor], name: str, folder: Path):
    missing, unexpected = sorted(expected.keys() - found.keys()), sorted(found.keys() - expected.keys())
    if missing:
        raise CheckpointError(
            f"{folder} lacks {len(missing)} weights of {name} ({missing[0]}); give a complete checkpoint."
        )
    if unexpected:
        raise CheckpointError(
            f"{folder} holds {len(unexpected)} weights that {name} does not have ({shown(unexpected[0])}); "
            "its config.json is of another model. Get the folder again."
        )
    for weight, tensor in expected.items():
        shape, dtype = found[weight]
        if shape != tuple(tensor.shape):
            raise CheckpointError(
                f"{folder} holds {weight} of shape {shown(shape)}, but by its config.json it is {tuple(tensor.shape)}; "
                "get the folder again."
            )
        allowed = FLOATS if tensor.is_floating_point() else INTEGERS
        if dtype not in allowed:
            raise CheckpointError(
                f"{folder} holds {weight} as {dtype}; expected is {' or '.join(allowed)}. Give a checkpoint that is "
                "not quantized."
            )
