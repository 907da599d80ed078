# Copyright 2026 The modeling_pixelvit team. All rights reserved.
# SPDX-License-Identifier: Apache-2.0
"""
Gradio, told before it is imported to report to nobody and to keep uploads in a folder of this process alone, and what
the page needs of it in a stricter form: images that it does not open, and errors as sentences.
"""

import html
import os
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch


# Gone when the process ends.
UPLOADS = tempfile.TemporaryDirectory(prefix="pixelvit-demo-")
os.environ["GRADIO_TEMP_DIR"] = UPLOADS.name
os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"
try:
    import gradio as gr
    from gradio import component_meta
except ImportError:
    raise ValueError('The demo needs gradio; install it by pip install "gradio>=6,<7".') from None

# For a subclass of a component Gradio writes a .pyi file beside the module; nobody needs it here.
component_meta.create_or_modify_pyi = lambda *arguments: None


class ImageUpload(gr.Image):
    """An image as the path of the uploaded file, which Gradio itself neither opens nor fetches from an address."""

    is_template = True  # to the page it is Gradio's image component

    def preprocess(self, payload: Any) -> str | None:
        return None if payload is None else payload.path

    async def async_move_resource_to_block_cache(self, url_or_file_path: str | Path | None) -> str | None:
        if str(url_or_file_path).startswith(("http:", "https:")):
            raise gr.Error("Images are not fetched from addresses; upload the file.", print_exception=False)
        return await super().async_move_resource_to_block_cache(url_or_file_path)


def shown_as_sentence(answer: Callable) -> Callable:
    """A handler whose ValueErrors, and want of memory, are shown on the page."""

    def handler(*arguments: Any) -> Any:
        try:
            return answer(*arguments)
        except ValueError as error:
            # The page shows a message as HTML, and names of files and checkpoints in it come from visitors.
            raise gr.Error(html.escape(str(error)), print_exception=False) from None
        except (MemoryError, RuntimeError) as error:
            if not is_want_of_memory(error):
                raise
            raise gr.Error(
                "There is not enough memory for this; give a smaller image or choose a larger patch size.",
                print_exception=False,
            ) from None

    return handler


def is_want_of_memory(error: Exception) -> bool:
    """On a CPU PyTorch has no type for it."""
    return isinstance(error, (MemoryError, torch.OutOfMemoryError)) or "DefaultCPUAllocator" in str(error)
