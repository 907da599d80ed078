# Copyright 2026 The modeling_pixelvit team. All rights reserved.
# SPDX-License-Identifier: Apache-2.0
"""What may lie in a published folder, and nothing else: names, kinds of files, and what is in them."""

import re
from pathlib import Path

from safetensors import SafetensorError, safe_open

import modeling_pixelvit

from ..cards.metadata import EXAMPLE_FILE
from ..checkpoints.checksums import CHECKSUMS_FILE, verify_checksums
from ..checkpoints.reading import read_json_object
from ..checkpoints.weights import INDEX_FILE


PACKAGE_FOLDER = Path(modeling_pixelvit.__file__).parent
WEIGHTS = re.compile(r"model(-\d{5}-of-\d{5})?\.safetensors")
REQUIRED = {
    "config.json",
    "preprocessor_config.json",
    "README.md",
    "handler.py",
    "requirements.txt",
    EXAMPLE_FILE,
    CHECKSUMS_FILE,
}
OPTIONAL = {INDEX_FILE, "LICENSE"}
TEXT_SUFFIXES = (".json", ".md", ".txt", ".py")
# The first bytes of zip files (which torch.save and NumPy write), gzip, HDF5, NumPy, and pickles from protocol 2 on.
FORBIDDEN_MAGIC = (
    b"PK\x03\x04",
    b"\x1f\x8b",
    b"\x89HDF",
    b"\x93NUMPY",
    *(b"\x80%c" % version for version in range(2, 6)),
)
CODE = re.compile(r"(\w+)\.(\w+)")
# Folders of users and machines: /home/name, C:\Users\name, file:///...
MACHINE_PATH = re.compile(
    r"(?<![\w./:-])(?:/(?:home|Users|root|mnt|tmp|scratch|data)/[\w.-]+|[A-Za-z]:\\[\w.-]+)|file://"
)
SHORTEST_FOLDER = 5


def scan_folder(folder: Path, private: list[str] | None = None):
    """
    Checks every file of a folder that is to be published.

    Args:
        folder: Flat, as `build_folder` writes it.
        private: Text that must not stand in any of its files, such as where the checkpoint lay.

    Raises:
        ValueError: in one sentence, naming the first file that must not be there or has what it must not have.
    """
    names = set()
    for path in sorted(folder.iterdir()):
        if path.is_symlink() or not path.is_file():
            raise ValueError(f"{path.name} is a link or a folder; a published checkpoint has plain files only.")
        names.add(path.name)
        _check_file(path)
        if path.suffix in TEXT_SUFFIXES:
            _check_text(path, [*(private or []), *_own_folders()])
    missing = REQUIRED - names
    if missing:
        raise ValueError(f"{folder} lacks {min(missing)}; publish the checkpoint again.")
    _check_weights(folder, names)
    for name, key in (("config.json", None), ("preprocessor_config.json", "AutoImageProcessor")):
        _check_auto_map(folder / name, key, names)
    verify_checksums(folder)


def _check_file(path: Path):
    with path.open("rb") as file:
        start = file.read(8)
    if start.startswith(FORBIDDEN_MAGIC):
        raise ValueError(f"{path.name} is a pickle or an archive by its first bytes; only safetensors is published.")
    if path.name in REQUIRED | OPTIONAL or WEIGHTS.fullmatch(path.name):
        return
    original = PACKAGE_FOLDER / path.name
    if path.suffix != ".py" or not original.is_file():
        raise ValueError(f"{path.name} does not belong into a published checkpoint; remove it.")
    if original.read_bytes() != path.read_bytes():
        raise ValueError(f"{path.name} is not the code of this package; publish the checkpoint again.")


def _check_text(path: Path, private: list[str]):
    try:
        text = path.read_text(encoding="utf-8")
    except UnicodeDecodeError:
        raise ValueError(f"{path.name} is no UTF-8 text; publish the checkpoint again.") from None
    found = MACHINE_PATH.search(text)
    # Code is the package's, byte for byte.
    words = (
        []
        if path.suffix == ".py"
        else [word for word in private if re.search(rf"(?<!\w){re.escape(word)}(?!\w)", text)]
    )
    word = found[0] if found else next(iter(words), None)
    if word is not None:
        raise ValueError(f"{path.name} names {word!r}, which is of this machine; take it out of the checkpoint.")


def _own_folders() -> list[str]:
    """What would tell where a folder was built; a short one, such as "/app", may stand in any text."""
    folders = (str(Path.home()), str(Path.cwd()))
    return [folder for folder in folders if len(folder) >= SHORTEST_FOLDER]


def _check_weights(folder: Path, names: set[str]):
    files = {name for name in names if WEIGHTS.fullmatch(name)}
    if INDEX_FILE in names:
        expected = set(read_json_object(folder / INDEX_FILE).get("weight_map", {}).values())
    else:
        expected = {"model.safetensors"}
    if files != expected:
        raise ValueError(f"The weights files are {sorted(files)}, but {sorted(expected)} are expected; publish again.")
    for name in sorted(files):
        try:
            with safe_open(folder / name, framework="pt") as weights:
                weights.keys()
        except SafetensorError as error:
            raise ValueError(f"{name} is no whole safetensors file ({error}); publish the checkpoint again.") from None


def _check_auto_map(path: Path, key: str | None, names: set[str]):
    """Every entry must name a class of a file of this very folder, and not of another repository ("user/name--f.C")."""
    entries = read_json_object(path).get("auto_map")
    if not isinstance(entries, dict):
        raise ValueError(f"{path.name} has no auto_map; publish the checkpoint again.")
    for name in (entries[key] if key else entries).values():
        found = CODE.fullmatch(name) if isinstance(name, str) else None
        if not found or f"{found[1]}.py" not in names:
            raise ValueError(f"{path.name} has an auto_map entry {str(name)[:80]!r} that is no class of the folder.")
