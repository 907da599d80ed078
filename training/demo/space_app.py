# Copyright 2026 The modeling_pixelvit team. All rights reserved.
# SPDX-License-Identifier: Apache-2.0
"""The demo as a Space serves it: what is on offer stands in a file, and visitors can load nothing else."""

import json
import signal
import sys
import threading
from pathlib import Path

from transformers.utils import logging

from .checkpoints import ModelStore
from .pages import build_page, serve
from .settings import Demo


CONTENT_FILE = "demo.json"
LIMITS = ("max_pixels", "max_file_mib", "most_tokens")


def read_space(folder: Path) -> Demo:
    """The demo that `CONTENT_FILE` tells of; its checkpoints are folders beside it, or names on the hub."""
    content = json.loads((folder / CONTENT_FILE).read_text(encoding="utf-8"))
    store = ModelStore()
    names = [str(folder / name) if (folder / name).is_dir() else name for name in content["checkpoints"]]
    return Demo(
        checkpoints=[store.describe(name) for name in names],
        examples={task: [folder / path for path in paths] for task, paths in content["examples"].items()},
        listed_only=True,
        store=store,
        **{name: content[name] for name in LIMITS},
    )


def serve_space(folder: Path):
    """Serves the demo of a folder for good, at `GRADIO_SERVER_NAME` and `GRADIO_SERVER_PORT` of the environment."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit())  # and not without clearing up
    logging.disable_progress_bar()
    demo = read_space(folder)
    print(f"The demo is at {serve(build_page(demo), demo)}", flush=True)
    threading.Event().wait()
