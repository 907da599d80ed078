# Copyright 2026 The modeling_pixelvit team. All rights reserved.
# SPDX-License-Identifier: Apache-2.0
"""What the demo answers for an uploaded image: labels, a class map, objects, each with its picture or table."""

from collections import Counter
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image, UnidentifiedImageError
from transformers import BaseImageProcessor, PreTrainedModel

from modeling_pixelvit.image_reading import read_pixels

from ..tasks.drawing import (
    NUM_CLASSES_LISTED,
    class_probabilities,
    detected_objects,
    draw_detections,
    draw_segmentation,
    name_of,
    predicted_class_map,
)
from .checkpoints import task_of


# Formats whose decoders are Pillow's own; of its others some start programs (EPS) or follow links to other files.
FORMATS = ("PNG", "JPEG", "WEBP", "BMP", "GIF", "TIFF")
NUM_CLASSES_SUMMARIZED = 3
# Class maps and masks of a photograph as a camera takes it would be gigabytes.
MOST_SIDE = 1024
THRESHOLD = 0.5


class Picture(NamedTuple):
    """
    Args:
        image: What was found, drawn over the image.
        rows: The same as a table.
    """

    image: Image.Image
    rows: list[list]


def read_upload(path: str | Path | None, max_pixels: int) -> Image.Image:
    """
    An uploaded file as an RGB image, upright; its size is checked before its pixels are decoded.

    Args:
        path: Of a file; None if there was none.
        max_pixels: Height times width, at most.

    Raises:
        ValueError: in one sentence, if it is no image of `FORMATS`, is damaged or too large.
    """
    if path is None or not Path(path).is_file():
        raise ValueError("There is no image yet; upload one or choose an example.")
    listed = f"{', '.join(FORMATS[:-1])} or {FORMATS[-1]}"
    try:
        with Image.open(path, formats=FORMATS) as opened:
            pixels = read_pixels(opened, max_pixels=max_pixels, name="the image")
    except UnidentifiedImageError:
        raise ValueError(f"The file is not an image that is read here; give a {listed} file.") from None
    except Image.DecompressionBombError:
        raise ValueError(f"The image has more than {max_pixels:,} pixels; shrink it first.") from None
    except (OSError, SyntaxError) as error:  # what Pillow raises for a damaged header
        raise ValueError(f"The file could not be read as an image ({error}); give a {listed} file.") from None
    return Image.fromarray(pixels.permute(1, 2, 0).numpy())


def classify(model: PreTrainedModel, processor: BaseImageProcessor, image: Image.Image) -> dict[str, float]:
    """Probabilities of the five most likely classes by name, largest first; equal names are told apart by index."""
    probabilities = class_probabilities(model, processor, image)
    best = probabilities.topk(min(NUM_CLASSES_LISTED, len(probabilities)))
    labels = best.indices.tolist()
    names = [name_of(label, model.config.id2label) for label in labels]
    times = Counter(names)
    unique = [name if times[name] == 1 else f"{name} ({label})" for name, label in zip(names, labels, strict=True)]
    return dict(zip(unique, best.values.tolist(), strict=True))


def shrunk(model: PreTrainedModel, image: Image.Image) -> Image.Image:
    """The image, whose longer side is at most that of the model's images or `MOST_SIDE`, whichever is larger."""
    size = model.config.image_size
    most = max(MOST_SIDE, size if isinstance(size, int) else max(size))
    factor = most / max(image.size)
    return image if factor >= 1 else image.resize([max(1, round(side * factor)) for side in image.size])


def segment(model: PreTrainedModel, processor: BaseImageProcessor, image: Image.Image) -> Picture:
    """The image, shrunk if large, tinted by class with a legend, and rows of class and percent, largest first."""
    image = shrunk(model, image)
    names, ignored = model.config.id2label, model.config.semantic_loss_ignore_index
    class_map = predicted_class_map(model, processor, image).cpu().numpy()
    labels, counts = np.unique(class_map[class_map != ignored], return_counts=True)
    rows = [
        [name_of(labels[place], names), round(100 * float(counts[place]) / class_map.size, 1)]
        for place in np.argsort(-counts, kind="stable")
    ]
    return Picture(draw_segmentation(image, class_map, names, ignored), rows)


def detect(
    model: PreTrainedModel, processor: BaseImageProcessor, image: Image.Image, threshold: float = THRESHOLD
) -> Picture:
    """
    Boxes, and masks if the model has them, over the image, which is shrunk if large, and rows of name, score, left,
    top, right and bottom in pixels of the image as given, best first.

    Args:
        threshold: Least score, from 0 to 1.
    """
    width, height = image.size
    image = shrunk(model, image)
    found, masks = detected_objects(model, processor, image, threshold)
    names, scale = model.config.id2label, np.tile([width / image.width, height / image.height], 2)
    boxes = (found["boxes"].cpu().numpy() * scale).round(1).tolist()
    rows = [
        [name_of(label, names), round(score, 3), *box]
        for label, score, box in zip(found["labels"].tolist(), found["scores"].tolist(), boxes, strict=True)
    ]
    return Picture(draw_detections(image, found["boxes"], found["labels"], found["scores"], masks, names), rows)


def summarize(
    model: PreTrainedModel, processor: BaseImageProcessor, image: Image.Image
) -> tuple[str, Image.Image | None]:
    """What a model finds, in a few words, and for a dense task its picture."""
    task = task_of(model)
    if task == "classification":
        name, probability = next(iter(classify(model, processor, image).items()))
        return f"{name} ({probability:.1%})", None
    if task == "segmentation":
        picture, rows = segment(model, processor, image)
        return ", ".join(f"{name} {share:.1f}%" for name, share in rows[:NUM_CLASSES_SUMMARIZED]), picture
    picture, rows = detect(model, processor, image)
    return ", ".join(f"{row[0]} ({row[1]:.2f})" for row in rows) or f"nothing above {THRESHOLD}", picture
