# Copyright 2026 The modeling_pixelvit team. All rights reserved.
# SPDX-License-Identifier: Apache-2.0
"""
What Inference Endpoints runs: the file `handler.py` of a published checkpoint, beside its weights and code.

A request is `{"inputs": IMAGE, "parameters": {...}}`. IMAGE is base64 text (also as a data URL), the bytes of an image
file or a PIL image; addresses and paths are refused, so that nobody reads the server's files or network through it. The
answer is that of transformers' pipeline of the model's task, with masks as base64 PNG.
"""

import base64
import binascii
import io
import os
import re
from typing import Any

from PIL import Image
from transformers import AutoConfig, pipeline


MAX_BYTES = 20 * 2**20
MAX_PIXELS = 40_000_000
# Decoders for which damaged files are a matter of course.
FORMATS = ("PNG", "JPEG", "WEBP", "GIF", "BMP")
DATA_URL = re.compile(r"data:image/[\w.+-]{1,40};base64,")
# What a request may set, by the pipeline's task: lowest and highest value, and for switches None.
UNIT = (0.0, 1.0)
PARAMETERS = {
    "image-classification": {"top_k": (1, 1000)},
    "image-segmentation": {"threshold": UNIT, "mask_threshold": UNIT, "overlap_mask_area_threshold": UNIT},
    "object-detection": {"threshold": UNIT},
    "image-feature-extraction": {"pool": None},
}
# The end of a class's name -> the tasks that it answers, the first of them unless `parameters` name another.
TASKS = {
    "ForImageClassification": ("image-classification",),
    "ForSemanticSegmentation": ("image-segmentation",),
    "ForObjectDetection": ("object-detection", "image-segmentation"),
    "Model": ("image-feature-extraction",),
}


class BadRequest(ValueError):
    """A request that cannot be answered; the message tells the sender what to send instead."""


class EndpointHandler:
    """
    Answers requests for one checkpoint.

    Args:
        path: Folder of the checkpoint.
        device: Where the model runs; a GPU if there is one.
    """

    def __init__(self, path: str = "", device: str | None = None):
        path = os.path.abspath(path or os.path.dirname(__file__))
        config = AutoConfig.from_pretrained(path, trust_remote_code=True)
        self.tasks = tasks_of(config)
        options = {} if device is None else {"device": device}
        first = pipeline(self.tasks[0], model=path, trust_remote_code=True, **options)
        shared = {"model": first.model, "image_processor": first.image_processor, "device": first.device}
        self.pipelines = {task: first if task == self.tasks[0] else pipeline(task, **shared) for task in self.tasks}

    def __call__(self, data: dict[str, Any]) -> list | dict:
        """
        Answers one request.

        Args:
            data: `inputs`, the image, and `parameters`: for a classifier `top_k`; for segments and objects `threshold`;
                for a detector with masks `task`, "object-detection" or "image-segmentation"; for features `pool`.

        Returns:
            What can be written as JSON.

        Raises:
            BadRequest: in one sentence, for a request that cannot be answered.
        """
        if not isinstance(data, dict) or "inputs" not in data:
            raise BadRequest('The request has no "inputs"; send {"inputs": "<an image file in base64>"}.')
        image = read_image(data["inputs"])
        task, parameters = self._checked_parameters(data.get("parameters"))
        return as_json(self.pipelines[task](image, **parameters))

    def _checked_parameters(self, given: Any) -> tuple[str, dict[str, Any]]:
        if not isinstance(given or {}, dict):
            raise BadRequest(f'"parameters" is a {type(given).__name__}; send an object such as {{"top_k": 3}}.')
        parameters = dict(given or {})
        task = parameters.pop("task", self.tasks[0])
        if task not in self.tasks:
            raise BadRequest(f'"task" is {str(task)[:80]!r}; this model answers {" and ".join(self.tasks)}.')
        # Every token is thousands of numbers for each image; whoever wants them says so.
        if task == "image-feature-extraction":
            parameters.setdefault("pool", True)
        for name, value in parameters.items():
            check_parameter(task, name, value)
        return task, parameters


def tasks_of(config: Any) -> tuple[str, ...]:
    """
    The pipelines' tasks that a checkpoint's class answers, the main one first.

    Raises:
        ValueError: if the configuration names no class that is known.
    """
    name = (getattr(config, "architectures", None) or [""])[0]
    for ending, tasks in TASKS.items():
        if name.endswith(ending):
            return tasks if getattr(config, "use_masks", True) else tasks[:1]
    raise ValueError(f"config.json names the class {name!r}, which answers no task; publish the checkpoint again.")


def check_parameter(task: str, name: str, value: Any):
    known = PARAMETERS[task]
    if name not in known:
        raise BadRequest(f"There is no parameter {str(name)[:80]!r}; {task} takes {', '.join(known)}.")
    if known[name] is None:
        if not isinstance(value, bool):
            raise BadRequest(f"{name} is {str(value)[:80]!r}; send true or false.")
        return
    lowest, highest = known[name]
    kinds = int if isinstance(lowest, int) else (int, float)
    if isinstance(value, bool) or not isinstance(value, kinds) or not lowest <= value <= highest:
        raise BadRequest(f"{name} is {str(value)[:80]!r}; send a number from {lowest} to {highest}.")


def read_image(source: Any) -> Image.Image:
    """
    The image of a request, decoded.

    Raises:
        BadRequest: if it is no image, of a format that is not read, too large or damaged.
    """
    if isinstance(source, Image.Image):
        if source.width * source.height > MAX_PIXELS:
            raise BadRequest(f"The image has {source.width} x {source.height} pixels; at most {MAX_PIXELS:,} are read.")
        return source
    content = decoded(source) if isinstance(source, str) else source
    if not isinstance(content, (bytes, bytearray)):
        raise BadRequest(f'"inputs" is a {type(source).__name__}; send one image file in base64.')
    if len(content) > MAX_BYTES:
        raise BadRequest(f"The image file has {len(content):,} bytes; at most {MAX_BYTES:,} are read.")
    try:
        image = Image.open(io.BytesIO(content), formats=FORMATS)
        if image.width * image.height > MAX_PIXELS:
            raise BadRequest(f"The image has {image.width} x {image.height} pixels; at most {MAX_PIXELS:,} are read.")
        image.load()
    except BadRequest:
        raise
    except Exception as error:  # Pillow's decoders raise many types for damaged files
        raise BadRequest(
            f'"inputs" holds no image that can be read ({type(error).__name__}); send a whole file, '
            f"{', '.join(FORMATS)}."
        ) from None
    return image


def decoded(text: str) -> bytes:
    """The bytes of base64 text, which may come as a data URL."""
    if len(text) > 2 * MAX_BYTES:
        raise BadRequest(f'"inputs" has {len(text):,} characters; at most {MAX_BYTES:,} bytes of image are read.')
    start = DATA_URL.match(text)
    try:
        return base64.b64decode("".join(text[start.end() if start else 0 :].split()), validate=True)
    except (binascii.Error, ValueError):
        raise BadRequest(
            '"inputs" is text but not base64; send the image file itself in base64, not its address or path.'
        ) from None


def as_json(result: Any) -> Any:
    """Lists, numbers and text of what a pipeline returns; images become base64 PNG."""
    if isinstance(result, Image.Image):
        file = io.BytesIO()
        result.save(file, format="PNG")
        return base64.b64encode(file.getvalue()).decode("ascii")
    if isinstance(result, dict):
        return {name: as_json(value) for name, value in result.items()}
    if isinstance(result, (list, tuple)):
        return [as_json(value) for value in result]
    return result
