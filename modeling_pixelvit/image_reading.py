# Copyright 2026 The modeling_pixelvit team. All rights reserved.
# SPDX-License-Identifier: Apache-2.0
"""Reading images of any kind, from files and arrays, as pixels of shape (3, height, width)."""

import base64
import binascii
import contextlib
import os
from collections.abc import Iterator
from io import BytesIO
from typing import Any

import numpy as np
import torch
from huggingface_hub.utils import get_session
from PIL import ExifTags, Image, ImageOps, UnidentifiedImageError
from transformers.image_utils import ChannelDimension, infer_channel_dimension_format


RGB_CHANNELS = (1, 3, 4)
ORIENTATION_UPRIGHT = 1
DOWNLOAD_SECONDS = 60

# Errors are sentences with what was given, what is accepted and what to do; `name` is the image's place in the batch
# and, where there is one, its file.


def shortened(text: str, limit: int = 120) -> str:
    return text if len(text) <= limit else text[: limit - 3] + "..."


def image_name(index: int, image: Any) -> str:
    """Names an image for errors: "image 3", or "image 3 ('cat.jpg')" where the source is known."""
    source = image if isinstance(image, (str, os.PathLike)) else getattr(image, "filename", "")
    source = os.fspath(source) if isinstance(source, (str, os.PathLike)) else ""
    return f"image {index} ({shortened(source)!r})" if source else f"image {index}"


def flatten_images(images: Any, expected_ndims: int = 3) -> Iterator[Any]:
    """Yields the single images in any nesting of lists, tuples and arrays with one dimension more than an image."""
    if isinstance(images, (list, tuple)):
        for item in images:
            yield from flatten_images(item, expected_ndims)
    elif isinstance(images, (np.ndarray, torch.Tensor)) and images.ndim == expected_ndims + 1:
        yield from images
    else:
        yield images


def check_not_empty(shape: tuple[int, ...], name: str) -> None:
    if 0 in shape:
        raise ValueError(
            f"{name} has shape {tuple(shape)} and so no pixels: pass an image of at least 1 x 1, or leave it out."
        )


def check_pixel_count(size: tuple[int, int], max_pixels: int | None, name: str, what: str = "has") -> None:
    height, width = size
    if max_pixels is not None and height * width > max_pixels:
        raise ValueError(
            f"{name} {what} {height:,} x {width:,} = {height * width:,} pixels, more than max_pixels={max_pixels:,}: "
            "shrink or crop it beforehand, or pass a larger max_pixels (None for no limit) if you trust its origin."
        )


def open_image(source: str | os.PathLike, name: str) -> Image.Image:
    """Opens a path, an http(s) URL, a data URL or base64 text with PIL, without decoding the pixels.

    Unlike transformers' `load_image` this keeps the image's mode, so that transparency, palettes and 16 bits reach
    the conversion to RGB.

    Raises:
        ValueError: if nothing can be read there, or if what is there is no image.
    """
    source = os.fspath(source)
    is_base64 = False
    if source.startswith(("http://", "https://")):
        try:
            response = get_session().get(source, follow_redirects=True, timeout=DOWNLOAD_SECONDS)
            response.raise_for_status()
        except Exception as error:  # the HTTP library behind huggingface_hub, and so its errors, changed over time
            raise ValueError(
                f"{name} could not be downloaded ({error}): check the address and the connection, or give a local file."
            ) from error
        file = BytesIO(response.content)
    elif os.path.isfile(source):
        file = source
    else:
        is_base64 = not source.startswith("data:image/")
        try:
            file = BytesIO(base64.b64decode("".join(source.split(",")[-1].split()), validate=True))
        except (binascii.Error, ValueError) as error:
            raise ValueError(_nothing_there(name)) from error
    try:
        return Image.open(file)
    except Image.DecompressionBombError as error:
        raise ValueError(
            f"{name} is larger than Pillow opens ({error}): shrink it, or raise both PIL.Image.MAX_IMAGE_PIXELS and "
            "max_pixels if you trust its origin."
        ) from error
    except UnidentifiedImageError as error:
        # A mistyped path can look like base64.
        sentence = (
            _nothing_there(name)
            if is_base64
            else (f"{name} is not an image that Pillow can read: give a JPEG, PNG, WebP or other image file.")
        )
        raise ValueError(sentence) from error
    except OSError as error:
        raise ValueError(f"{name} could not be opened ({error}): give an image file that can be read.") from error


def _nothing_there(name: str) -> str:
    return (
        f"{name} is neither an existing file, an http(s) URL nor base64 image data: check the spelling and the working "
        "directory, or pass the image itself."
    )


def upright_image(image: Image.Image, name: str, max_pixels: int | None) -> Image.Image:
    """Decodes a PIL image and turns it as its EXIF orientation says; its size is checked before decoding."""
    width, height = image.size
    check_pixel_count((height, width), max_pixels, name)
    try:
        image.load()
        if image.getexif().get(ExifTags.Base.Orientation, ORIENTATION_UPRIGHT) != ORIENTATION_UPRIGHT:
            image = ImageOps.exif_transpose(image)
    except MemoryError:
        raise
    except Exception as error:  # Pillow's decoders raise many types for damaged files
        raise ValueError(
            f"{name} could not be decoded ({error}): the file is truncated or damaged, so get a complete copy of it or "
            "leave it out."
        ) from error
    return image


def pil_pixels(image: Image.Image, do_convert_rgb: bool | None, name: str) -> torch.Tensor:
    """The pixels of a decoded PIL image as uint8: (height, width, 3), or 4 with alpha, or (height, width) when grey.

    Modes I;16 and I (16 bits) and F (values up to 1, 255 or 65535, by the largest) become 8-bit grey. With
    `do_convert_rgb` off other modes keep their bands.
    """
    if image.mode.startswith("I") or image.mode == "F":
        pixels = torch.from_numpy(np.array(image, dtype=np.float32 if image.mode == "F" else np.int64))
        if image.mode == "F":
            levels = float_grey_levels(finite(pixels, name), name)
        else:
            levels = integer_levels(pixels, name, is_16_bit=image.mode.startswith("I;16"))
        if do_convert_rgb and isinstance(image.info.get("transparency"), int):
            levels[pixels == image.info["transparency"]] = 255
        return levels
    if do_convert_rgb:
        if image.mode == "La":
            image = image.convert("LA")
        has_alpha = "A" in image.mode.upper() and image.mode != "LAB"
        has_alpha = has_alpha or image.info.get("transparency") is not None
        image = image.convert("RGBA" if has_alpha else "RGB")
    return integer_levels(torch.from_numpy(np.array(image)), name)


def array_pixels(image: np.ndarray | torch.Tensor, name: str) -> torch.Tensor:
    """The pixels of an array: uint8, or float32 when they are floating point. The shape stays.

    Booleans become 0 and 255. uint16 is reduced to 8 bits; other integers are 8-bit levels if none exceeds 255, and
    are reduced like uint16 if none exceeds 65535.
    """
    is_array = isinstance(image, np.ndarray)
    if image.dtype.kind not in "biuf" if is_array else image.is_complex():
        raise ValueError(
            f"{name} is {'an array' if is_array else 'a tensor'} of dtype {image.dtype}: pass booleans, integers from "
            "0 to 65535 or real floats."
        )
    if is_array:
        # PyTorch takes neither long doubles, foreign byte orders, negative strides nor read-only memory.
        dtype = np.float32 if image.dtype.kind == "f" else image.dtype.newbyteorder("=")
        image = torch.from_numpy(np.require(image, dtype, ["C", "W"]))
    if image.is_floating_point():
        return finite(image.to(torch.float32), name)
    return integer_levels(image, name, is_16_bit=image.dtype == torch.uint16)


def finite(pixels: torch.Tensor, name: str) -> torch.Tensor:
    if not torch.isfinite(pixels).all():
        raise ValueError(
            f"{name} has NaN or infinite pixel values, which would spread over the whole output: replace them by "
            "finite ones or leave the image out."
        )
    return pixels


def integer_levels(pixels: torch.Tensor, name: str, is_16_bit: bool = False) -> torch.Tensor:
    """Boolean or integer pixels as uint8."""
    if pixels.dtype == torch.uint8 or pixels.numel() == 0:
        return pixels.to(torch.uint8)
    if pixels.dtype == torch.bool:
        return pixels.to(torch.uint8) * 255
    pixels = pixels.to(torch.int64)  # PyTorch has hardly any operation on wider unsigned integers
    low, high = pixels.min().item(), pixels.max().item()
    if low < 0 or high > 65535:
        raise ValueError(
            f"{name} has integer pixel values from {low} to {high}: bring them into 0 to 255 (8 bits) or 0 to 65535 "
            "(16 bits)."
        )
    # 65535 = 255 * 257, so this rounds to the nearest level.
    return ((pixels + 128) // 257 if is_16_bit or high > 255 else pixels).to(torch.uint8)


def float_grey_levels(pixels: torch.Tensor, name: str) -> torch.Tensor:
    """Floating-point grey pixels as uint8, scaled by the largest of them."""
    low, high = pixels.min().item(), pixels.max().item()
    if low < 0 or high > 65535:
        raise ValueError(
            f"{name} is of PIL mode F with values from {low:g} to {high:g}: bring them into 0 to 1, 0 to 255 or 0 to "
            "65535."
        )
    scale = 255 if high <= 1 else 1 if high <= 255 else 1 / 257
    return (pixels * scale).round().to(torch.uint8)


def channels_first(
    pixels: torch.Tensor, input_data_format: str | ChannelDimension | None, do_convert_rgb: bool | None, name: str
) -> torch.Tensor:
    """Pixels of shape (height, width), (channels, height, width) or (height, width, channels), channels first.

    Where the layout is not given, the dimension of 1, 3 or 4 is the channels; if both could be, transformers' rule is
    the first, with a warning.
    """
    shape = tuple(pixels.shape)
    if len(shape) == 2:
        return pixels[None]
    if len(shape) == 3 and input_data_format is None:
        with contextlib.suppress(ValueError):
            input_data_format = infer_channel_dimension_format(pixels, num_channels=RGB_CHANNELS)
    if len(shape) != 3 or input_data_format is None:
        raise ValueError(
            f"{name} has shape {shape}: pass (height, width), (channels, height, width) or (height, width, channels) "
            "with 1 (grey), 3 (RGB) or 4 (RGBA) channels."
        )
    if ChannelDimension(input_data_format) == ChannelDimension.LAST:
        pixels = pixels.permute(2, 0, 1)
    if do_convert_rgb and len(pixels) not in RGB_CHANNELS:
        raise ValueError(
            f"{name} has {len(pixels)} channels (shape {shape}, {ChannelDimension(input_data_format).value}): pass 1 "
            "(grey), 3 (RGB) or 4 (RGBA) channels, or correct input_data_format."
        )
    return pixels


def rgb_pixels(pixels: torch.Tensor, name: str) -> torch.Tensor:
    """Pixels of shape (1, 3 or 4, height, width) as RGB, alpha composited over white."""
    if len(pixels) == 1:
        return pixels.expand(3, -1, -1)
    if len(pixels) == 3:
        return pixels
    if not pixels.is_floating_point():
        pixels = pixels.to(torch.int32)
        alpha = pixels[3:]
        return ((pixels[:3] * alpha + 255 * (255 - alpha) + 127) // 255).to(torch.uint8)
    low, white = value_bounds(pixels.min().item(), pixels.max().item())
    if low < 0:
        raise ValueError(
            f"{name} has an alpha channel and values outside 0 to 255, so white is not known: bring them into 0 to 1 "
            "or 0 to 255, or drop the fourth channel."
        )
    alpha = pixels[3:] / white
    return pixels[:3] * alpha + white * (1 - alpha)


def value_bounds(low: float, high: float) -> tuple[float, float]:
    """The range, [0, 1] or [0, 255], that floating-point pixels from `low` to `high` are kept in after resizing, as
    8-bit pixels are in theirs: bicubic overshoots at edges. Values outside both have no known range."""
    if low < 0 or high > 255:
        return float("-inf"), float("inf")
    return 0.0, 1.0 if high <= 1 else 255.0


def read_pixels(
    image: Any,
    do_convert_rgb: bool | None = True,
    input_data_format: str | ChannelDimension | None = None,
    max_pixels: int | None = None,
    name: str = "the image",
) -> torch.Tensor:
    """Reads one image: a PIL image, a path, a URL, base64 text, a numpy array or a torch tensor.

    Args:
        do_convert_rgb: whether to convert to RGB, alpha composited over white.
        input_data_format: "channels_first" or "channels_last" for an array whose shape does not tell.
        max_pixels: largest height times width, checked before a file is decoded; `None` for no limit.
        name: what errors call the image.

    Returns:
        Pixels of shape (channels, height, width), 3 channels with `do_convert_rgb`; uint8, or float32 with the values
        of a floating-point array.

    Raises:
        ValueError: if the image cannot be read, is empty or too large, or has other channels or values than pixels.
        TypeError: if it is no image.
    """
    if isinstance(image, (str, os.PathLike)):
        # Turned upright before the file is closed: some formats go back to the file for their orientation.
        with open_image(image, name) as opened:
            return read_pixels(opened, do_convert_rgb, None, max_pixels, name)
    if isinstance(image, Image.Image):
        check_not_empty(image.size[::-1], name)
        pixels = pil_pixels(upright_image(image, name, max_pixels), do_convert_rgb, name)
        input_data_format = ChannelDimension.LAST
    elif isinstance(image, (np.ndarray, torch.Tensor)):
        check_not_empty(image.shape, name)
        pixels = array_pixels(image, name)
    else:
        raise TypeError(
            f"{name} is of type {type(image).__name__}: pass a PIL image, a numpy array, a torch tensor, a path or a "
            "URL."
        )
    pixels = channels_first(pixels, input_data_format, do_convert_rgb, name)
    check_pixel_count(tuple(pixels.shape[1:]), max_pixels, name)
    return rgb_pixels(pixels, name).contiguous() if do_convert_rgb else pixels.contiguous()
