# Copyright 2026 The modeling_pixelvit team. All rights reserved.
# SPDX-License-Identifier: Apache-2.0
"""One image through a model at several patch sizes: its tokens drawn, what is predicted, time and memory."""

import json
import math
import os
import statistics
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch.profiler import ProfilerActivity, profile
from transformers import BaseImageProcessor, PreTrainedModel

from .checkpoints import Checkpoint, ModelStore
from .predictions import summarize
from .settings import MOST_TOKENS


PATCH_SIZES = (64, 32, 16, 8, 4, 2, 1)
# In a drawing of tokens: the least length of its longer side, the gap between patches, and their least side for a gap.
LEAST_SIDE = 384
GAP, LEAST_PATCH_SIDE = 2, 6
TIMED_PASSES, TIMED_SECONDS = 9, 2.0


@dataclass(frozen=True)
class PatchView:
    """
    Args:
        patch_size: Side of a patch in pixels.
        num_tokens: Patch tokens of the image as the model gets it; the class token comes on top.
        tokens: The drawing of `draw_tokens`.
        prediction: In a few words.
        picture: Of the prediction, for dense tasks.
        milliseconds: Of a forward pass, the median of up to nine after one that is not counted.
        memory_bytes: As `forward_memory` says.
        weight_bytes: Of the model's parameters and buffers.
    """

    patch_size: int
    num_tokens: int
    tokens: Image.Image
    prediction: str
    picture: Image.Image | None
    milliseconds: float
    memory_bytes: int
    weight_bytes: int


def views_of_group(
    store: ModelStore, group: list[Checkpoint], image: Image.Image, most_tokens: int = MOST_TOKENS
) -> tuple[list[PatchView], list[int]]:
    """
    One checkpoint for each patch size.

    Returns:
        The views, and the patch sizes left out because the image would be more tokens than `most_tokens`.

    Raises:
        ValueError: if none is left, or a checkpoint cannot be loaded.
    """
    loaders = {one.patch_size: (lambda one=one: store.load(one.name)) for one in group}
    return _views(loaders, image, most_tokens)


def views_of_checkpoint(
    store: ModelStore, checkpoint: Checkpoint, image: Image.Image, most_tokens: int = MOST_TOKENS
) -> tuple[list[PatchView], list[int]]:
    """One checkpoint resampled to each of `PATCH_SIZES` that divides its images; otherwise as `views_of_group`."""
    sides = checkpoint.image_size if isinstance(checkpoint.image_size, tuple) else (checkpoint.image_size,)
    sizes = {size for size in PATCH_SIZES if not any(side % size for side in sides)} | {checkpoint.patch_size}
    own = checkpoint.patch_size
    loaders = {
        size: (lambda size=size: store.load(checkpoint.name, None if size == own else size))
        for size in sorted(sizes, reverse=True)
    }
    return _views(loaders, image, most_tokens)


def _views(
    loaders: dict[int, Callable[[], tuple[PreTrainedModel, BaseImageProcessor]]], image: Image.Image, most_tokens: int
) -> tuple[list[PatchView], list[int]]:
    views, left_out, processor = [], [], None
    for patch_size, load in loaders.items():
        # What a patch size costs at least is known before its model is loaded, once there is an image processor.
        if processor is not None and count_tokens(processor, image, patch_size) > most_tokens:
            left_out.append(patch_size)
            continue
        model, processor = load()
        if count_tokens(processor, image, patch_size, model.config.sequence_extension) > most_tokens:
            left_out.append(patch_size)
            continue
        views.append(view_patches(model, processor, image))
    if not views:
        raise ValueError(
            f"The image is more than {most_tokens:,} tokens at every patch size of this model; start the demo with a "
            "larger --max_tokens."
        )
    return views, left_out


def count_tokens(processor: BaseImageProcessor, image: Image.Image, patch_size: int, tokens_per_patch: int = 1) -> int:
    """Patch tokens of the image as the processor prepares it."""
    height, width = processor(image, return_tensors="pt")["pixel_values"].shape[-2:]
    return tokens_per_patch * math.ceil(height / patch_size) * math.ceil(width / patch_size)


def view_patches(model: PreTrainedModel, processor: BaseImageProcessor, image: Image.Image) -> PatchView:
    """What a model in evaluation mode makes of an image in RGB at its own patch size."""
    inputs = processor(image, return_tensors="pt").to(model.device)
    patch_size = model.config.patch_size
    prediction, picture = summarize(model, processor, image)
    with torch.inference_mode():
        milliseconds = forward_milliseconds(lambda: model(**inputs), model.device)
        memory = forward_memory(lambda: model(**inputs), model.device)
    return PatchView(
        patch_size=patch_size,
        num_tokens=count_tokens(processor, image, patch_size, model.config.sequence_extension),
        tokens=draw_tokens(seen_pixels(inputs["pixel_values"][0], processor), patch_size),
        prediction=prediction,
        picture=picture,
        milliseconds=milliseconds,
        memory_bytes=memory,
        weight_bytes=model.get_memory_footprint(),
    )


# Drawing


def seen_pixels(pixel_values: torch.Tensor, processor: BaseImageProcessor) -> np.ndarray:
    """A prepared image (3, H, W) without its normalisation, as uint8 (H, W, 3)."""
    pixels = pixel_values.cpu().double().permute(1, 2, 0).numpy()
    if processor.do_normalize:
        pixels = pixels * np.array(processor.image_std) + np.array(processor.image_mean)
    if processor.do_rescale:
        pixels = pixels / processor.rescale_factor
    return pixels.round().clip(0, 255).astype(np.uint8)


def draw_tokens(pixels: np.ndarray, patch_size: int) -> Image.Image:
    """
    An image cut into its patches, with white gaps between them; without gaps if patches would be hardly seen for them.

    Args:
        pixels: uint8 (H, W, 3).
        patch_size: Side of a patch in pixels; at the right and lower edge a patch may be smaller.
    """
    height, width = pixels.shape[:2]
    scale = max(1, math.ceil(LEAST_SIDE / max(height, width)))
    gap = GAP if patch_size * scale >= LEAST_PATCH_SIDE else 0

    def places(side: int) -> np.ndarray:
        """Where the enlarged pixels of a side go."""
        pixel = np.arange(side * scale)
        return pixel + gap * (pixel // (patch_size * scale))

    rows, columns = places(height), places(width)
    picture = np.full((rows[-1] + 1, columns[-1] + 1, 3), 255, dtype=np.uint8)
    picture[rows[:, None], columns] = pixels.repeat(scale, axis=0).repeat(scale, axis=1)
    return Image.fromarray(picture)


# Measuring


def prepare_profiler():
    """To be called in the main thread: begun first in another one, PyTorch's profiler complains; quiet from then on."""
    os.environ.setdefault("KINETO_LOG_LEVEL", "99")
    forward_memory(lambda: None, torch.device("cpu"))


def forward_milliseconds(forward: Callable[[], object], device: torch.device) -> float:
    """The median of up to nine passes, fewer if they take more than two seconds, after one that is not counted."""
    times, begun = [], time.perf_counter()
    for _ in range(1 + TIMED_PASSES):
        started = time.perf_counter()
        forward()
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        times.append(1000 * (time.perf_counter() - started))
        if len(times) > 1 and time.perf_counter() - begun > TIMED_SECONDS:
            break
    return statistics.median(times[1:])


def forward_memory(forward: Callable[[], object], device: torch.device) -> int:
    """
    Bytes of tensors that are alive at the same time at the most during a pass, weights and input not counted.

    On a CPU every allocation of PyTorch's is noted by its profiler; what libraries allocate for themselves is not seen.
    """
    if device.type == "cuda":
        torch.cuda.synchronize(device)
        before = torch.cuda.memory_allocated(device)
        torch.cuda.reset_peak_memory_stats(device)
        forward()
        torch.cuda.synchronize(device)
        return torch.cuda.max_memory_allocated(device) - before
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiler:
        forward()
    with tempfile.TemporaryDirectory() as folder:
        trace = Path(folder, "trace.json")
        profiler.export_chrome_trace(str(trace))
        events = json.loads(trace.read_text())["traceEvents"]
    changes = sorted((event for event in events if event["name"] == "[memory]"), key=lambda event: event["ts"])
    allocated = np.cumsum([event["args"]["Bytes"] for event in changes])
    return int(allocated.max(initial=0))
