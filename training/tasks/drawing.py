# Copyright 2026 The modeling_pixelvit team. All rights reserved.
# SPDX-License-Identifier: Apache-2.0
"""
Pictures of what a model finds in an image: class names, a tinted class map, or boxes and masks.

Images of few pixels are magnified, so that text fits.
"""

import colorsys
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
import torch
from PIL import Image, ImageDraw, ImageFont
from transformers import BaseImageProcessor, PreTrainedModel

from modeling_pixelvit.image_post_processing import paste_mask

from ..families.base import CLASSIFIER, DETECTOR, SEGMENTER, is_multi_label
from ..families.registry import architecture_of


LabelNames = Sequence[str] | Mapping[int, str] | None
Colour = tuple[int, int, int]
Place = tuple[int, int, int, int]

DRAWABLE = (CLASSIFIER, SEGMENTER, DETECTOR)

# Pixels that the longer side of a picture has at least.
MIN_SIDE = 384
MIN_FONT_SIZE = 14
# The longer side of a picture over the size of its text.
SIDE_PER_FONT_SIZE = 48
MAX_NAME_LENGTH = 40
TINT = 0.5
MASK_THRESHOLD = 0.5
NUM_CLASSES_LISTED = 5
WHITE, BLACK, BAR = (255, 255, 255), (0, 0, 0), (186, 213, 240)


# Drawing


def draw_detections(
    image: Image.Image,
    boxes: Any,
    labels: Any,
    scores: Any,
    masks: Any = None,
    label_names: LabelNames = None,
) -> Image.Image:
    """
    Boxes with name and score, each object in a colour of its own.

    Args:
        image: Any PIL image.
        boxes: (n, 4), x0, y0, x1, y1 in the image's pixels.
        labels: (n,) class indices.
        scores: (n,), in any order.
        masks: (n, H, W) of the image's size, not 0 where the object is; None without masks.
        label_names: Names by class index; the index itself where there is none.

    Returns:
        The picture in RGB, a whole number of times as large as the image.

    Raises:
        ValueError: if shapes do not fit.
    """
    boxes, labels, scores = as_array(boxes).reshape(-1, 4), as_array(labels), as_array(scores)
    if not len(boxes) == len(labels) == len(scores):
        raise ValueError(
            f"{len(boxes)} boxes, {len(labels)} labels and {len(scores)} scores were given; give as many of each."
        )
    masks = None if masks is None else as_array(masks) != 0
    if masks is not None and len(boxes) and masks.shape != (len(boxes), image.height, image.width):
        raise ValueError(
            f"Masks of shape {masks.shape} were given for {len(boxes)} boxes in an image of {image.height} by "
            f"{image.width} pixels; they must be ({len(boxes)}, {image.height}, {image.width})."
        )
    picture, scale = magnified(image)
    best_first = np.argsort(-scores, kind="stable")
    colours = {index: distinct_colour(rank) for rank, index in enumerate(best_first)}
    if masks is not None:
        pixels = np.array(picture)
        for index in reversed(best_first):
            tint(pixels, enlarged(masks[index], scale), colours[index])
        picture = Image.fromarray(pixels)
    draw, font = ImageDraw.Draw(picture), font_for(picture)
    corners = np.clip(np.round(boxes * scale), 0, np.tile(picture.size, 2)).astype(int)
    for index in reversed(best_first):
        x0, y0, x1, y1 = corners[index]
        outline = (x0, y0, max(x0, x1 - 1), max(y0, y1 - 1))
        draw.rectangle(outline, outline=colours[index], width=max(2, font.size // 7))
    texts: list[Place] = []
    for index in best_first:
        text, pad = f"{name_of(labels[index], label_names)} {scores[index]:.2f}", font.size // 5
        size = math.ceil(font.getlength(text)) + 2 * pad, line_height(font)
        place = free_place(size, picture.size, corners[index], texts, corners)
        draw.rectangle((place[0], place[1], place[2] - 1, place[3] - 1), fill=colours[index])
        middle = (place[0] + pad, place[1] + size[1] // 2)
        draw.text(middle, text, fill=readable_on(colours[index]), font=font, anchor="lm")
        texts.append(place)
    return picture


def free_place(
    size: tuple[int, int], picture_size: tuple[int, int], box: Sequence[int], texts: list[Place], boxes: Any
) -> Place:
    """
    Where a text goes at a corner of its box: so that it covers least of the texts there already, then of all boxes.

    Args:
        size, picture_size: Width and height of the text and of the picture.
        box, texts, boxes: x0, y0, x1, y1 of the box, of the texts and of all boxes.
    """
    (width, height), (x0, y0, x1, y1) = size, (int(side) for side in box)
    places = []
    for x, y in ((x, y) for x in (x0, x1 - width) for y in (y0 - height, y1, y0, y1 - height)):
        x, y = max(0, min(x, picture_size[0] - width)), max(0, min(y, picture_size[1] - height))
        places.append((x, y, x + width, y + height))
    return min(
        places, key=lambda place: tuple(sum(common_area(place, other) for other in others) for others in (texts, boxes))
    )


def draw_segmentation(
    image: Image.Image, class_map: Any, label_names: LabelNames = None, ignore_index: int = 255
) -> Image.Image:
    """
    The image tinted by class, and below it the names of the classes that occur with their shares of its pixels.

    Args:
        image: Any PIL image.
        class_map: (H, W) class indices of the image's pixels.
        label_names: Names by class index; the index itself where there is none.
        ignore_index: Pixels that are not tinted and not listed.

    Returns:
        The picture in RGB; the image in it is a whole number of times as large as given. A class has the same colour
        in all pictures.

    Raises:
        ValueError: if the map is not of the image's size.
    """
    class_map = as_array(class_map)
    if class_map.shape != (image.height, image.width):
        raise ValueError(
            f"A class map of shape {class_map.shape} was given for an image of {image.height} by {image.width} pixels; "
            "it must be of the image's size."
        )
    picture, scale = magnified(image)
    pixels = np.array(picture)
    found = [(int(label), np.mean(class_map == label)) for label in np.unique(class_map) if label != ignore_index]
    for label, _ in found:
        tint(pixels, enlarged(class_map == label, scale), distinct_colour(label))
    picture = Image.fromarray(pixels)
    found.sort(key=lambda pair: -pair[1])
    entries = [(distinct_colour(label), f"{name_of(label, label_names)} {share:.1%}") for label, share in found]
    return _with_legend(picture, entries) if entries else picture


def _with_legend(picture: Image.Image, entries: list[tuple[Colour, str]]) -> Image.Image:
    """The picture above a white panel of colours and texts, in as many columns as fit."""
    font = font_for(picture)
    step, pad = line_height(font), font.size // 2
    entry_width = step + pad + max(math.ceil(font.getlength(text)) for _, text in entries) + 2 * pad
    columns = max(1, min(len(entries), (picture.width - pad) // entry_width))
    rows = -(-len(entries) // columns)
    draw, panel_top, canvas = _with_panel(picture, pad + entry_width, rows * step + 2 * pad)
    for index, (colour, text) in enumerate(entries):
        x, y = pad + index // rows * entry_width, panel_top + pad + index % rows * step
        side = step - max(2, step // 6)
        draw.rectangle((x, y, x + side - 1, y + side - 1), fill=colour, outline=BLACK)
        draw.text((x + step + pad // 2, y + side // 2), text, fill=BLACK, font=font, anchor="lm")
    return canvas


def draw_classification(image: Image.Image, probabilities: Any, label_names: LabelNames = None) -> Image.Image:
    """
    The image, and below it the five most likely classes with their probabilities.

    Args:
        image: Any PIL image.
        probabilities: (C,) of all classes, from 0 to 1.
        label_names: Names by class index; the index itself where there is none.

    Returns:
        The picture in RGB; the image in it is a whole number of times as large as given.
    """
    probabilities = as_array(probabilities)
    picture, _ = magnified(image)
    font = font_for(picture)
    best = np.argsort(-probabilities, kind="stable")[:NUM_CLASSES_LISTED]
    texts = [f"{probabilities[label]:.1%} {name_of(label, label_names)}" for label in best]
    step, pad = line_height(font), font.size // 2
    width = max(math.ceil(font.getlength(text)) for text in texts) + 4 * pad
    draw, y, canvas = _with_panel(picture, width, len(best) * step + 2 * pad)
    y += pad
    for label, text in zip(best, texts, strict=True):
        bar_end = pad + float(probabilities[label]) * (canvas.width - 2 * pad)
        draw.rectangle((pad, y, bar_end, y + step - 3), fill=BAR)
        draw.text((2 * pad, y + (step - 2) // 2), text, fill=BLACK, font=font, anchor="lm")
        y += step
    return canvas


def _with_panel(picture: Image.Image, least_width: int, height: int) -> tuple[ImageDraw.ImageDraw, int, Image.Image]:
    """White space below a picture, made wider if need be: how to draw there, from which row on, and the canvas."""
    canvas = Image.new("RGB", (max(picture.width, least_width), picture.height + height), WHITE)
    canvas.paste(picture)
    return ImageDraw.Draw(canvas), picture.height, canvas


# Parts of the drawings


def as_array(values: Any) -> np.ndarray:
    return values.detach().cpu().numpy() if isinstance(values, torch.Tensor) else np.asarray(values)


def magnified(image: Image.Image) -> tuple[Image.Image, int]:
    """The image in RGB, every pixel of which becomes a square of so many, if it is small."""
    scale = max(1, math.ceil(MIN_SIDE / max(image.size)))
    size = (image.width * scale, image.height * scale)
    return image.convert("RGB").resize(size, Image.Resampling.NEAREST), scale


def enlarged(mask: np.ndarray, scale: int) -> np.ndarray:
    return mask.repeat(scale, axis=0).repeat(scale, axis=1)


def tint(pixels: np.ndarray, mask: np.ndarray, colour: Colour):
    """Mixes a colour into the pixels (H, W, 3), uint8, of a mask (H, W), in place."""
    pixels[mask] = np.round((1 - TINT) * pixels[mask] + TINT * np.array(colour)).astype(np.uint8)


def distinct_colour(index: int) -> Colour:
    """A bright colour for each number from 0 on, neighbours far apart: hues by the golden ratio, in three shades."""
    saturation, value = ((0.9, 0.95), (0.55, 1.0), (0.95, 0.6))[index % 3]
    shares = colorsys.hsv_to_rgb(index * 0.618034 % 1, saturation, value)
    return tuple(round(255 * share) for share in shares)


def readable_on(colour: Colour) -> Colour:
    """Black or white, whichever stands out more."""
    red, green, blue = colour
    return BLACK if 0.299 * red + 0.587 * green + 0.114 * blue > 130 else WHITE


def font_for(picture: Image.Image) -> ImageFont.FreeTypeFont:
    """A font of many scripts, which comes with matplotlib, in a size that fits the picture's."""
    path = Path(matplotlib.get_data_path(), "fonts", "ttf", "DejaVuSans.ttf")
    return ImageFont.truetype(path, max(MIN_FONT_SIZE, max(picture.size) // SIDE_PER_FONT_SIZE))


def line_height(font: ImageFont.FreeTypeFont) -> int:
    return sum(font.getmetrics()) + 2


def name_of(label: int, label_names: LabelNames) -> str:
    label = int(label)
    names = label_names if isinstance(label_names, Mapping) else dict(enumerate(label_names or ()))
    name = names.get(label, str(label))
    return name if len(name) <= MAX_NAME_LENGTH else name[: MAX_NAME_LENGTH - 1] + "…"


def common_area(place: Place, other: Place) -> int:
    width = min(place[2], other[2]) - max(place[0], other[0])
    height = min(place[3], other[3]) - max(place[1], other[1])
    return max(0, width) * max(0, height)


# What a model finds


def visualize(
    model: PreTrainedModel, processor: BaseImageProcessor, image: Image.Image, threshold: float = 0.5
) -> Image.Image:
    """
    The image with what a model for one of `DRAWABLE` finds in it.

    Args:
        model: In evaluation mode.
        processor: What it was trained with.
        image: In RGB.
        threshold: Least score of the detections that are drawn.
    """
    names = model.config.id2label
    if architecture_of(model) == CLASSIFIER:
        return draw_classification(image, class_probabilities(model, processor, image), names)
    if architecture_of(model) == SEGMENTER:
        class_map = predicted_class_map(model, processor, image)
        return draw_segmentation(image, class_map, names, model.config.semantic_loss_ignore_index)
    found, masks = detected_objects(model, processor, image, threshold)
    return draw_detections(image, found["boxes"], found["labels"], found["scores"], masks, names)


@torch.no_grad()
def class_probabilities(model: PreTrainedModel, processor: BaseImageProcessor, image: Image.Image) -> torch.Tensor:
    """Of a classifier: (C,), from 0 to 1; each of its own where an image may be of several classes."""
    inputs = processor(image, return_tensors="pt").to(model.device)
    logits = model(**inputs, interpolate_pos_encoding=True).logits[0]
    return logits.sigmoid() if is_multi_label(model.config) else logits.softmax(dim=-1)


@torch.no_grad()
def predicted_class_map(model: PreTrainedModel, processor: BaseImageProcessor, image: Image.Image) -> torch.Tensor:
    """Of a segmentation model: class indices (H, W) of the image's pixels."""
    inputs = processor(image, return_tensors="pt").to(model.device)
    size, pixel_mask = (image.height, image.width), inputs.get("pixel_mask")
    return processor.post_process_semantic_segmentation(model(**inputs), [size], pixel_mask=pixel_mask)[0]


@torch.no_grad()
def detected_objects(
    model: PreTrainedModel, processor: BaseImageProcessor, image: Image.Image, threshold: float
) -> tuple[dict[str, torch.Tensor], list[np.ndarray] | None]:
    """
    Of a detection model: `scores` (n,), at least the threshold and best first, `labels` (n,) and `boxes` (n, 4) in the
    image's pixels, and n masks (H, W), or None if the model has none.
    """
    size = (image.height, image.width)
    outputs = model(**processor(image, return_tensors="pt").to(model.device))
    (found,) = processor.post_process_object_detection(outputs, threshold, [size])
    if outputs.pred_masks is None:
        return found, None
    # Both are best first, and what is below the threshold comes last.
    pairs = zip(outputs.pred_masks[0], found["boxes"], strict=False)
    return found, [as_array(paste_mask(mask, box, size) > MASK_THRESHOLD) for mask, box in pairs]
