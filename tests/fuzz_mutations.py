# Copyright 2026 The modeling_pixelvit team. All rights reserved.
# SPDX-License-Identifier: Apache-2.0
"""
Seeded damage and malice for checkpoint folders and files.

A mutation takes a `random.Random` and the folder of a checkpoint (or the path of a file), changes it in place and says
what may come of it, as one of the names below.
"""

import io
import json
import os
import pickle
import pickletools
import random
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any


# What may come of a mutation besides a refusal in a sentence.
ANYTHING = "any outputs"  # weights changed without checksums to tell
FINITE = "any finite outputs"  # another model of the same shapes
SAME = "the same outputs"
NOTHING = "nothing: it must be refused"

Mutation = Callable[[random.Random, Path], str]

HUGE = (10**6, 10**9, 10**12, 2**31, 2**63, 2**64, 10**30, 10**300)
NAMES = (
    "evil/repo--x.Y",
    "../../x",
    "/etc/passwd",
    "kernels-community/x",
    "__class__",
    "",
    "a\nb",
    "\0",
    "é" * 300,
    "\ud800",
)
# Keys on which transformers, or Python, might act.
ACTING_KEYS = (
    *("auto_map", "quantization_config", "_attn_implementation", "attn_implementation", "configuration_files"),
    *("model_type", "architectures", "dtype", "torch_dtype", "id2label", "label2id", "num_labels", "problem_type"),
    *("return_dict", "output_hidden_states", "name_or_path", "_name_or_path", "per_layer_config", "rope_scaling"),
    *("custom_pipelines", "text_config", "backbone_config", "sub_configs", "attribute_map", "to_dict", "__class__"),
    *("validate_architecture", "grid_size", "num_patches", "stage_names", "out_features", "out_indices", "decoder"),
    *("image_processor_type", "feature_extractor_type", "processor_class", "weights_origin", "tie_word_embeddings"),
    *("adapter_config", "_out_features", "image_size", "patch_size", "hidden_size", "num_hidden_layers"),
)


def nested(depth: int) -> list:
    value: list = []
    for _ in range(depth):
        value = [value]
    return value


def hostile_value(rng: random.Random, like: Any = None) -> Any:
    """A value that is wrong in type, sign, size or spirit; sometimes one near the value that is there."""
    makers = (
        lambda: rng.choice(HUGE),
        lambda: -rng.choice((1, 7, *HUGE)),
        lambda: rng.choice((0, 1, 2, 3, 4, 5, 8, 16, 17, 64, 1000, 65_536, 65_537)),
        lambda: rng.choice((0.0, -0.0, 0.5, 1.0, 1e-300, 1e300, float("nan"), float("inf"), -float("inf"))),
        lambda: rng.choice((None, True, False)),
        lambda: rng.choice(NAMES),
        lambda: rng.choice(([], {}, [None], [[]], {"": {}}, nested(rng.choice((5, 80, 400))))),
        lambda: [rng.choice((-1, 0, 1, 2, 4, 8, 10**9, 1.5, "x", None, True)) for _ in range(rng.randrange(1, 7))],
        lambda: {rng.choice(NAMES): rng.choice(NAMES)},
        lambda: {"AutoModel": rng.choice(NAMES), "AutoConfig": "configuration_pixelvit.PixelViTConfig"},
        lambda: {str(index): rng.choice((f"c{index}", index, None)) for index in range(rng.randrange(6))},
        lambda: "x" * rng.choice((1, 1000, 100_000)),
        lambda: [0] * rng.choice((65, 10_000)),
        lambda: rng.choice(("float16", "bfloat16", "float64", "int8", "uint8", "float8_e4m3fn", "load", "cuda")),
        lambda: rng.choice(("gelu", "relu", "none", "upernet", "alternate", "torch", "mamba_ssm", "cls", "mean")),
    )
    if type(like) is int and rng.random() < 0.4:
        return like + rng.choice((-1, 1, like, 2 * like, 10**9 * like + 1, -2 * like))
    if isinstance(like, float) and rng.random() < 0.4:
        return like * rng.choice((-1, 0.5, 2, 1e9, 1e-9))
    if isinstance(like, list) and like and rng.random() < 0.4:
        return rng.choice((like + like, like[:-1], like[::-1], [hostile_value(rng, like[0]), *like[1:]]))
    return rng.choice(makers)()


# JSON


def _mutate_settings(rng: random.Random, path: Path):
    settings = json.loads(path.read_text())
    for _ in range(rng.choice((1, 1, 1, 2, 4))):
        key = rng.choice((*settings, *ACTING_KEYS)) if rng.random() < 0.8 else rng.choice(sorted(settings) or ["x"])
        action = rng.random()
        if action < 0.1:
            settings.pop(key, None)
        elif action < 0.15 and key in settings:
            settings[rng.choice((*NAMES, *ACTING_KEYS))] = settings.pop(key)
        else:
            settings[key] = hostile_value(rng, settings.get(key))
    path.write_text(json.dumps(settings))


def config_values(rng: random.Random, folder: Path) -> str:
    _mutate_settings(rng, folder / "config.json")
    return FINITE


def processor_values(rng: random.Random, folder: Path) -> str:
    _mutate_settings(rng, folder / "preprocessor_config.json")
    return FINITE


def _json_file(rng: random.Random, folder: Path) -> Path:
    return rng.choice(sorted(folder.glob("*.json")))


def json_bytes(rng: random.Random, folder: Path) -> str:
    """Characters changed, left out and put in anywhere in a JSON file."""
    path = _json_file(rng, folder)
    content = bytearray(path.read_bytes())
    for _ in range(rng.choice((1, 2, 8))):
        place = rng.randrange(len(content))
        action = rng.randrange(3)
        if action == 0:
            content[place] ^= 1 << rng.randrange(8)
        elif action == 1:
            del content[place : place + rng.choice((1, 1, 30))]
        else:
            content[place:place] = rng.choice((b"0", b"9" * 5000, b"-", b"{", b"[" * 30, b'"', b"\xff", b"e99", b"\n"))
    path.write_bytes(content)
    return FINITE


def json_forms(rng: random.Random, folder: Path) -> str:
    """Something else than an object."""
    path = _json_file(rng, folder)
    text = path.read_text()
    forms = (
        *(b"", b"[]", b"null", b"3", b'"x"', b"NaN", b"{", b"\x00" * 100, b"\xff\xfe{", text.encode("utf-16")),
        *(b"[" * 100_000, b'{"a":' * 100_000, b'{"a":' * 900 + b"1" + b"}" * 900, text.encode()[:-2]),
        *(b"9" * 100_000, b"[" + text.encode() + b"]", b"\x80\x04N."),
    )
    path.write_bytes(rng.choice(forms))
    return FINITE if path.name.startswith("checksums") else NOTHING


# safetensors


def split_safetensors(content: bytes) -> tuple[bytes, bytes]:
    length = int.from_bytes(content[:8], "little")
    return content[8 : 8 + length], content[8 + length :]


def join_safetensors(header: bytes, payload: bytes) -> bytes:
    return len(header).to_bytes(8, "little") + header + payload


def _weights(rng: random.Random, folder: Path) -> Path:
    return rng.choice(sorted(folder.glob("*.safetensors"))) if folder.is_dir() else folder


def weights_header(rng: random.Random, folder: Path) -> str:
    """Names, dtypes, shapes and offsets of the header."""
    path = _weights(rng, folder)
    header, payload = split_safetensors(path.read_bytes())
    entries = json.loads(header)
    names = [name for name in entries if name != "__metadata__"]
    name, other = rng.choice(names), rng.choice(names)
    entry = entries[name]
    action = rng.randrange(9)
    if action == 0:
        entry["shape"] = hostile_value(rng, entry["shape"])
    elif action == 1:
        entry["dtype"] = rng.choice(("F16", "F64", "I64", "F8_E4M3", "BOOL", "U8", "C64", "F4", "X", "", None, 3))
    elif action == 2:
        entry["data_offsets"] = hostile_value(rng, entry["data_offsets"])
    elif action == 3:
        entry["data_offsets"] = entries[other]["data_offsets"]
    elif action == 4:
        entries[rng.choice((*NAMES, "layers." + "9" * 5000 + ".x", "layers.999.x", other + "x"))] = entries.pop(name)
    elif action == 5:
        entries.pop(name)
    elif action == 6:
        entries["extra"] = {"dtype": "F32", "shape": [0, 10**18], "data_offsets": [0, 0]}
    elif action == 7:
        entries["__metadata__"] = hostile_value(rng)
    else:
        entries[name], entries[other] = entries[other], entries[name]
    text = json.dumps(entries).encode()
    if rng.random() < 0.1:  # one name twice
        text = text[:-1] + b"," + json.dumps({name: entries.get(name, entry)}).encode()[1:]
    path.write_bytes(join_safetensors(text, payload))
    return ANYTHING


def weights_length(rng: random.Random, folder: Path) -> str:
    """The length of the header."""
    path = _weights(rng, folder)
    content = path.read_bytes()
    length = int.from_bytes(content[:8], "little")
    wrong = rng.choice(
        (0, 1, length - 1, length + 1, 2 * length, len(content), 2**31, 2**32 + length, 2**63, 2**64 - 1)
    )
    path.write_bytes(wrong.to_bytes(8, "little") + content[8:])
    return NOTHING


def weights_bits(rng: random.Random, folder: Path) -> str:
    """Bits anywhere in the file, most of them in the header or beside it."""
    path = _weights(rng, folder)
    content = bytearray(path.read_bytes())
    end = len(content) if rng.random() < 0.5 else 8 + int.from_bytes(content[:8], "little")
    for _ in range(rng.choice((1, 1, 3, 20))):
        content[rng.randrange(end)] ^= 1 << rng.randrange(8)
    path.write_bytes(content)
    return ANYTHING


def weights_cut(rng: random.Random, folder: Path) -> str:
    """Cut short, or longer than it was."""
    path = _weights(rng, folder)
    content = path.read_bytes()
    if rng.random() < 0.7:
        content = content[: rng.choice((0, 1, 7, 8, 9, rng.randrange(len(content)), len(content) - 1))]
    else:
        content += bytes(rng.choice((1, 8, 4096)))
    path.write_bytes(content)
    return NOTHING


# Names and links


def index_names(rng: random.Random, folder: Path) -> str:
    """An index that names other files; `outside` beside the folder has weights that would load."""
    index = folder / "model.safetensors.index.json"
    shards = sorted(path.name for path in folder.glob("*.safetensors"))
    weight_map = dict.fromkeys([f"x{number}" for number in range(3)], shards[0])
    if index.exists():
        weight_map = json.loads(index.read_text())["weight_map"]
    elif shards == ["model.safetensors"]:
        (folder / "model.safetensors").rename(folder / "kept.safetensors")
    wrong = rng.choice(
        (
            *("../outside/model.safetensors", str(folder.parent / "outside" / "model.safetensors"), "./x.safetensors"),
            *(".", "..", "", "config.json", "pytorch_model.bin", "missing.safetensors", "sub/model.safetensors", None),
            *(3, [], {}, "x" * 5000, "a\nb.safetensors", "\0.safetensors", "~/x.safetensors"),
            *("x" * 5000 + ".safetensors", "\ud800.safetensors", "sub", "model-00001-of-00099.safetensors"),
        )
    )
    if rng.random() < 0.3:
        wrong = "link.safetensors"
        (folder / wrong).symlink_to(folder.parent / "outside" / "model.safetensors")
    for name in rng.sample(sorted(weight_map), rng.choice((1, len(weight_map)))):
        weight_map[name] = wrong
    contents = {"metadata": {}, "weight_map": rng.choice((weight_map, weight_map, weight_map, [], None, 3))}
    index.write_text(json.dumps(contents))
    return NOTHING


def files(rng: random.Random, folder: Path) -> str:
    """A file that is missing, empty, a folder, a pipe, or a link to somewhere else."""
    path = rng.choice(sorted(path for path in folder.iterdir() if path.suffix in (".json", ".safetensors")))
    path.unlink()
    action = rng.randrange(6)
    if action == 1:
        path.touch()
    elif action == 2:
        path.mkdir()
    elif action == 3:
        os.mkfifo(path)
    elif action == 4:
        path.symlink_to(folder.parent / "outside" / path.name)
    elif action == 5:
        path.symlink_to(rng.choice(("/dev/zero", path.name, "/nonexistent", "..", "/proc/self/mem")))
    return FINITE if path.name == "checksums.json" else NOTHING


# Pickles


class Payload:
    """Unpickled in the ordinary way, it makes the file `marker`."""

    def __init__(self, marker: Path):
        self.marker = marker

    def __reduce__(self):
        return os.system, (f"touch {self.marker}",)


def _random_pickle(rng: random.Random, marker: Path) -> bytes:
    """Opcodes in a random order, with names to import and to call among them."""
    imports = ("os system", "builtins eval", "builtins getattr", "torch load", "posix system", "argparse Namespace")
    imports += (
        "torch._utils _rebuild_tensor_v2",
        "collections OrderedDict",
        "torch FloatStorage",
        "builtins bytearray",
    )
    parts = [b"\x80" + bytes([rng.randrange(6)])]
    for _ in range(rng.randrange(1, 40)):
        kind = rng.randrange(8)
        if kind == 0:
            module, name = rng.choice(imports).split()
            parts.append(b"c" + module.encode() + b"\n" + name.encode() + b"\n")
        elif kind == 1:
            text = rng.choice((f"touch {marker}", "x", "storage", "0", "cpu")).encode()
            parts.append(b"X" + len(text).to_bytes(4, "little") + text)
        elif kind == 2:
            parts.append(b"J" + rng.choice((0, 1, 3, 2**31 - 1)).to_bytes(4, "little"))
        elif kind == 3:
            parts.append(b"\x8a" + bytes([8]) + rng.randbytes(8))
        elif kind == 4:
            parts.append(b"\x8b" + rng.choice((1, 2**31 - 1)).to_bytes(4, "little") + b"\xff")
        else:
            parts.append(rng.choice(b"(tR}]subaeNQ0.\x85\x86\x87\x81\x94").to_bytes(1, "little"))
    return b"".join((*parts, b"."))


def _wrong_names(rng: random.Random, content: bytes, marker: Path) -> bytes:
    """A pickle with another one of what it imports, calls or counts."""
    places = [
        (place, code) for code, _, place in pickletools.genops(content) if code.name in ("GLOBAL", "BININT1", "BININT2")
    ]
    place, code = rng.choice([(place, code) for place, code in places if place is not None])
    content = bytearray(content)
    if code == "GLOBAL" or chr(content[place]) == "c":
        end = content.index(b"\n", content.index(b"\n", place) + 1) + 1
        content[place:end] = rng.choice((b"cos\nsystem\n", b"cbuiltins\neval\n", b"ctorch\nload\n", b"cx\ny\n"))
    else:
        content[place + 1] = rng.randrange(256)
    return bytes(content)


def folder_pickle(rng: random.Random, folder: Path) -> str:
    """A pickle in the place of the weights, or beside nothing."""
    marker = folder.parent / "marker"
    for path in folder.glob("*.safetensors*"):
        path.unlink()
    name = rng.choice(("pytorch_model.bin", "model.safetensors", "model.pth", "model-00001-of-00001.safetensors"))
    contents = (pickle.dumps(Payload(marker), rng.randrange(5)), _random_pickle(rng, marker))
    (folder / name).write_bytes(rng.choice(contents))
    return NOTHING


def pth_bits(rng: random.Random, path: Path) -> str:
    """Bits of a file of torch.save, half of them in its directory."""
    content = bytearray(path.read_bytes())
    start = rng.choice((0, 0, len(content) - 4000, content.find(b"data.pkl")))
    for _ in range(rng.choice((1, 1, 3, 30))):
        content[
            rng.randrange(max(start, 0), min(len(content), max(start, 0) + rng.choice((200, 4000, len(content)))))
        ] ^= 1 << rng.randrange(8)
    path.write_bytes(content)
    return ANYTHING


def pth_pickle(rng: random.Random, path: Path) -> str:
    """Another pickle in the zip file of torch.save, or instead of it."""
    marker = path.parent / "marker"
    with zipfile.ZipFile(path) as archive:
        entries = {name: archive.read(name) for name in archive.namelist()}
    (name,) = (name for name in entries if name.endswith("data.pkl"))
    changed = bytearray(entries[name])
    for _ in range(rng.choice((1, 3, 10))):
        changed[rng.randrange(len(changed))] = rng.randrange(256)
    contents = (
        *(bytes(changed), _wrong_names(rng, entries[name], marker), _wrong_names(rng, entries[name], marker)),
        *(_random_pickle(rng, marker), pickle.dumps(Payload(marker), rng.randrange(2, 5))),
    )
    entries[name] = rng.choice(contents)
    if rng.random() < 0.1:
        path.write_bytes(entries[name])
        return ANYTHING
    stream = io.BytesIO()
    compression = zipfile.ZIP_DEFLATED if rng.random() < 0.1 else zipfile.ZIP_STORED
    with zipfile.ZipFile(stream, "w", compression) as archive:
        for entry, content in entries.items():
            if rng.random() > 0.01:
                archive.writestr(entry, content)
    path.write_bytes(stream.getvalue())
    return ANYTHING


def file_cut(rng: random.Random, path: Path) -> str:
    content = path.read_bytes()
    path.write_bytes(content[: rng.choice((0, 1, 4, 100, rng.randrange(len(content)), len(content) - 1))])
    return NOTHING


FOLDER_MUTATIONS: dict[str, tuple[Mutation, int]] = {  # with their shares of the cases
    "config values": (config_values, 30),
    "processor values": (processor_values, 12),
    "JSON bytes": (json_bytes, 12),
    "JSON forms": (json_forms, 5),
    "weights: header": (weights_header, 14),
    "weights: length": (weights_length, 3),
    "weights: bits": (weights_bits, 8),
    "weights: cut": (weights_cut, 4),
    "index": (index_names, 6),
    "files": (files, 4),
    "pickle": (folder_pickle, 3),
}
