# Copyright 2026 The modeling_pixelvit team. All rights reserved.
# SPDX-License-Identifier: Apache-2.0
"""A demo as the options of `training.demo_app` ask for it."""

import argparse
import ipaddress
import socket
from pathlib import Path

from .checkpoints import ModelStore
from .settings import MAX_FILE_MIB, MAX_PIXELS, MOST_TOKENS, Demo


# Gradio, and what only some ways of starting need, is imported where it is used: the processes that train import this
# module too.
DEFAULT_FOLDER = "runs/demo"
EXAMPLES_FOLDER = "examples"


def parse_arguments(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m training.demo_app",
        description="Serves a page to try classification, segmentation and detection.",
    )
    add = parser.add_argument
    add("checkpoints", nargs="*", metavar="CHECKPOINT", help="folder or hub name; if none, the sweep's small models")
    add("--port", type=int, default=7860, help="0 for any that is free (default: %(default)s)")
    add("--host", default="127.0.0.1", help="address to listen on (default: %(default)s, this machine only)")
    add("--checkpoints_dir", default=DEFAULT_FOLDER, help="for the small models and examples (default: %(default)s)")
    add("--examples", type=Path, help="folder of images to show as examples instead of the built-in ones")
    add("--max_pixels", type=int, default=MAX_PIXELS, help="of an upload, height times width (default: %(default)s)")
    add("--max_file_mib", type=int, default=MAX_FILE_MIB, help="of an upload (default: %(default)s)")
    add(
        "--max_tokens",
        type=int,
        default=MOST_TOKENS,
        help="of an image in the last tab (default: %(default)s)",
    )
    add(
        "--listed_only",
        action="store_true",
        help="visitors cannot load checkpoints by path or hub name; always so unless --host is this machine",
    )
    add("--export_space", type=Path, metavar="FOLDER", help="write a folder for a Space instead of serving")
    return parser.parse_args(arguments)


def check_arguments(options: argparse.Namespace):
    """
    Raises:
        ValueError: for an option out of range, in one sentence.
    """
    if not 0 <= options.port <= 65535:
        raise ValueError(f"--port {options.port} was given; it must be from 0 to 65535.")
    for name in ("max_pixels", "max_file_mib", "max_tokens"):
        if getattr(options, name) < 1:
            raise ValueError(f"--{name} {getattr(options, name)} was given; it must be above zero.")
    if options.examples is not None and not options.examples.is_dir():
        raise ValueError(f"--examples {options.examples} was given; it must be a folder of images.")


def is_this_machine(host: str) -> bool:
    """Whether an address can be reached from this machine only."""
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def find_port(host: str, port: int) -> int:
    """
    The port, or for 0 any that is free.

    Raises:
        ValueError: if it cannot be listened on.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError as error:
            raise ValueError(
                f"{host} port {port} cannot be listened on ({error.strerror or error}); give another --port, or 0 for "
                "any that is free."
            ) from None
        return probe.getsockname()[1]


def make_demo(options: argparse.Namespace) -> Demo:
    """
    Trains what is needed, loads every checkpoint once and writes the examples.

    Raises:
        ValueError: in one sentence, if a checkpoint cannot be shown.
    """
    from .examples import write_examples

    own_examples = read_examples(options.examples, options.max_pixels) if options.examples is not None else []
    names = options.checkpoints
    if not names:
        from .runs import train_or_reuse

        names = [str(folder) for folder in train_or_reuse(Path(options.checkpoints_dir))]
    store = ModelStore()
    checkpoints = [store.describe(name) for name in dict.fromkeys(names)]
    examples: dict[str, list[Path]] = {}
    for checkpoint in checkpoints:
        paths = own_examples or write_examples(checkpoint, Path(options.checkpoints_dir) / EXAMPLES_FOLDER)
        known = examples.setdefault(checkpoint.task, [])
        known.extend(path for path in paths if path not in known)
    return Demo(
        checkpoints,
        examples,
        listed_only=options.listed_only or not is_this_machine(options.host),
        max_pixels=options.max_pixels,
        max_file_mib=options.max_file_mib,
        most_tokens=options.max_tokens,
        store=store,
    )


def read_examples(folder: Path, max_pixels: int) -> list[Path]:
    """
    The images of a folder.

    Raises:
        ValueError: if there is none, or a file is not an image that a visitor could upload.
    """
    from .predictions import read_upload

    paths = sorted(path for path in folder.iterdir() if path.is_file())
    if not paths:
        raise ValueError(f"--examples {folder} was given, which has no files; give a folder of images.")
    for path in paths:
        try:
            read_upload(path, max_pixels)
        except ValueError as error:
            raise ValueError(f"--examples {folder} was given, and of its {path.name}: {error}") from None
    return paths
