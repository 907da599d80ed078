# Copyright 2026 The modeling_pixelvit team. All rights reserved.
# SPDX-License-Identifier: Apache-2.0
"""What the two image processors share: settings, the arithmetic of resizing and cropping, saving with their code."""

import os
from typing import Any

import numpy as np
import torch
from transformers.dynamic_module_utils import custom_object_save
from transformers.feature_extraction_utils import BatchFeature
from transformers.image_processing_utils import BaseImageProcessor
from transformers.image_utils import (
    IMAGENET_DEFAULT_MEAN,
    IMAGENET_DEFAULT_STD,
    ChannelDimension,
    ImageInput,
    PILImageResampling,
    SizeDict,
)
from transformers.processing_utils import ImagesKwargs, Unpack
from transformers.utils import logging

from .image_reading import (
    check_pixel_count,
    flatten_images,
    image_name,
    open_image,
    read_pixels,
    shortened,
    upright_image,
)


logger = logging.get_logger(__name__)


class PixelViTImageProcessorKwargs(ImagesKwargs, total=False):
    r"""
    crop_pct (`float`, *optional*, defaults to `self.crop_pct`):
        Crop ratio in (0, 1]: the share of the resized image's height and width that the centre crop keeps. Without
        effect when `do_resize` or `do_center_crop` is off.
    max_pixels (`int`, *optional*, defaults to `self.max_pixels`):
        Largest height times width that is accepted, for an image before it is decoded and for what resizing would
        make of it; `None` for no limit.
    """

    crop_pct: int | float | None
    max_pixels: int | None


# Settings


def checked_size(size: Any, name: str = "size") -> SizeDict:
    """Turns an int (square), a pair (height, width) or {"height", "width"} into a `SizeDict` of positive ints."""
    height = width = None
    if isinstance(size, SizeDict):
        size = dict(size)
    if isinstance(size, int):
        height = width = size
    elif isinstance(size, (list, tuple)) and len(size) == 2:
        height, width = size
    elif isinstance(size, dict) and set(size) == {"height", "width"}:
        height, width = size["height"], size["width"]
    if not all(isinstance(side, int) and not isinstance(side, bool) and side > 0 for side in (height, width)):
        raise ValueError(
            f"{name}={size!r} is not accepted: give the size that is to come out, as positive integers, in the form "
            "{'height': 224, 'width': 224}, (height, width) or one integer for a square, and set how much is cropped "
            "away with crop_pct."
        )
    return SizeDict(height=height, width=width)


def check_crop_size(crop_size: Any, size: SizeDict) -> None:
    if crop_size is not None and checked_size(crop_size, "crop_size") != size:
        raise ValueError(
            f"crop_size={crop_size!r} differs from size={dict(size)!r}, but the crop is always of `size`: leave "
            "crop_size out, give the size that is to come out as `size`, and set how much is cropped away with "
            "crop_pct."
        )


def checked_crop_pct(crop_pct: Any) -> float:
    is_number = isinstance(crop_pct, (int, float, np.number)) and not isinstance(crop_pct, bool)
    if not is_number or not 0 < crop_pct <= 1:
        raise ValueError(
            f"crop_pct={crop_pct!r} is out of range: give a number above 0 and at most 1, for instance 0.875, or 1.0 "
            "to keep all of the shorter edge."
        )
    return float(crop_pct)


def check_max_pixels(max_pixels: Any) -> None:
    is_count = isinstance(max_pixels, int) and not isinstance(max_pixels, bool)
    if max_pixels is not None and not (is_count and max_pixels > 0):
        raise ValueError(
            f"max_pixels={max_pixels!r} is not accepted: give the largest number of pixels (height times width) an "
            "image may have as a positive integer, or None for no limit."
        )


def crop_ratio(image_size: int | tuple[int, int], patch_size: int | tuple[int, int]) -> float:
    """The crop ratio of the paper's evaluation: 0.875 for patch 16 at 224 and for inputs of 64 pixels, 1.0 for
    smaller patches or larger inputs.

    Between the sizes the paper names: 0.875 up to 64 pixels whatever the patch, and from 65 to 224 pixels for patches
    of 16 or more; otherwise 1.0. Of a non-square input the longer edge counts, of a non-square patch the shorter.
    """
    longest_edge = image_size if isinstance(image_size, int) else max(image_size)
    shortest_patch = patch_size if isinstance(patch_size, int) else min(patch_size)
    return 0.875 if longest_edge <= 64 or (shortest_patch >= 16 and longest_edge <= 224) else 1.0


# Geometry; sizes are (height, width)


def resized_size(image_size: tuple[int, int], size: SizeDict, crop_pct: float) -> tuple[int, int]:
    """The smallest size of the image's shape that covers `size / crop_pct`.

    For a square `size` this is torchvision's `Resize(int(size / crop_pct))`: the shorter edge has that length and the
    longer one `int(shorter * long / short)`.
    """
    height, width = image_size
    cover_height, cover_width = int(size.height / crop_pct), int(size.width / crop_pct)
    if cover_height * width >= cover_width * height:
        return cover_height, int(cover_height * width / height)
    return int(cover_width * height / width), cover_width


def centered_window(length: int, window: int) -> tuple[int, int, int]:
    """Zeros to add before and after an edge of `length`, and where a window then starts, to centre it.

    Rounds as torchvision's `CenterCrop` does, which for odd differences is neither always down nor always up.
    """
    missing = max(window - length, 0)
    return missing // 2, (missing + 1) // 2, round(max(length - window, 0) / 2)


class PixelViTImageProcessorBase(BaseImageProcessor):
    """Settings, reading and saving; a back end adds `_preprocess`, `resize` and `center_crop`.

    `_prepare_image_like_inputs` reads: images of any kind become a list of pixels of shape (channels, height, width).
    `_preprocess` then transforms them. Targets that follow the images' geometry take it from `resized_size` and
    `centered_window`; they are not read as images are, since labels are no grey levels.
    """

    valid_kwargs = PixelViTImageProcessorKwargs

    resample = PILImageResampling.BICUBIC
    image_mean = IMAGENET_DEFAULT_MEAN
    image_std = IMAGENET_DEFAULT_STD
    size = {"height": 224, "width": 224}
    crop_pct = 0.875
    do_resize = True
    do_center_crop = True
    do_rescale = True
    do_normalize = True
    do_convert_rgb = True
    # Twice Pillow's MAX_IMAGE_PIXELS, where Pillow itself refuses a file: by default nothing it opens is refused here,
    # and arrays meet the same limit.
    max_pixels = 178_956_970

    def __init__(self, **kwargs: Unpack[PixelViTImageProcessorKwargs]):
        # Written anew by `to_dict`: a copy read from a file could name another repository's code.
        kwargs.pop("auto_map", None)
        super().__init__(**kwargs)

    @classmethod
    def for_config(cls, config: Any, **overrides: Any) -> "PixelViTImageProcessorBase":
        """Makes the processor that evaluates a model as the paper does.

        Args:
            config: anything with `image_size`, int or (height, width), and `patch_size`: a model's configuration.
            overrides: settings that differ from the paper's, for instance `crop_pct=1.0`.

        Returns:
            A processor of `config`'s image size, with the crop ratio that `crop_ratio` tells.
        """
        size = dict(checked_size(config.image_size, "image_size"))
        crop_pct = crop_ratio((size["height"], size["width"]), config.patch_size)
        return cls(**{"size": size, "crop_pct": crop_pct, **overrides})

    def preprocess(
        self, images: ImageInput, *args: Any, **kwargs: Unpack[PixelViTImageProcessorKwargs]
    ) -> BatchFeature:
        """Turns images into the model's input.

        Args:
            images: one image or any nesting of lists of images. An image is a PIL image of any mode, a path, an
                http(s) or data URL, base64 text, or a numpy array or torch tensor of shape (height, width), (channels,
                height, width) or (height, width, channels) with 1, 3 or 4 channels; an array with one more dimension
                is a batch. Arrays hold booleans, integers (0 to 255, or 16 bits) or finite floats.
            kwargs: any setting of the processor, for this call; also `input_data_format` ("channels_first" or
                "channels_last", for arrays), `return_tensors` ("pt" or "np") and `device` (torchvision only).

        Returns:
            A `BatchFeature` with `pixel_values`, float32 of shape (batch, 3, height, width) if `return_tensors` is
            given and otherwise a list of (3, height, width).

        Raises:
            ValueError: for an image that cannot be read, is empty, has more than `max_pixels` pixels (before it is
                decoded), another number of channels, or values that are no pixels; and for settings out of range. The
                message says which image of the batch it was.
            TypeError: for something that is no image at all.
        """
        # Before the type check in transformers, whose messages do not say what to do.
        settings = {name: kwargs.get(name, getattr(self, name)) for name in ("size", "crop_size", "crop_pct")}
        self._standardize_kwargs(**settings, max_pixels=kwargs.get("max_pixels", self.max_pixels))
        return super().preprocess(images, *args, **kwargs)

    def _standardize_kwargs(
        self, size: Any = None, crop_size: Any = None, crop_pct: Any = None, max_pixels: Any = None, **kwargs: Any
    ) -> dict[str, Any]:
        size = checked_size(size)
        check_crop_size(crop_size, size)
        check_max_pixels(max_pixels)
        kwargs = super()._standardize_kwargs(size=size, **kwargs)
        # `crop_size` is not kept, so that it follows `size` when a call gives another one.
        return {**kwargs, "crop_size": None, "crop_pct": checked_crop_pct(crop_pct), "max_pixels": max_pixels}

    def _validate_preprocess_kwargs(self, size: Any = None, crop_size: Any = None, **kwargs: Any) -> None:
        super()._validate_preprocess_kwargs(size=size, crop_size=size, **kwargs)

    def fetch_images(self, image_url_or_urls: Any) -> Any:
        """Reads paths and URLs, in any nesting of lists, as upright PIL images of their own mode; images pass through.

        transformers' own torchvision back end would decode to RGB tensors here, without white under transparency.
        """
        if isinstance(image_url_or_urls, (list, tuple)):
            return [self.fetch_images(item) for item in image_url_or_urls]
        if isinstance(image_url_or_urls, (str, os.PathLike)):
            name = f"the image {shortened(os.fspath(image_url_or_urls))!r}"
            return upright_image(open_image(image_url_or_urls, name), name, self.max_pixels)
        return super().fetch_images(image_url_or_urls)

    def _prepare_image_like_inputs(
        self, images: Any, *args: Any, expected_ndims: int = 3, **kwargs: Any
    ) -> list[torch.Tensor] | list[np.ndarray]:
        # Files are read one at a time: opening all of them first, as transformers does, runs out of file handles.
        prepared = [
            self.process_image(image, *args, name=image_name(index, image), **kwargs)
            for index, image in enumerate(flatten_images(images, expected_ndims))
        ]
        if not prepared:
            raise ValueError("No images were given: pass an image or a list of at least one.")
        return prepared

    def process_image(
        self,
        image: Any,
        do_convert_rgb: bool | None = None,
        input_data_format: str | ChannelDimension | None = None,
        max_pixels: int | None = None,
        name: str = "the image",
        **kwargs: Any,
    ) -> torch.Tensor:
        """Reads one image as `read_pixels` does and checks it against the settings in `kwargs`."""
        pixels = read_pixels(image, do_convert_rgb, input_data_format, max_pixels, name)
        self._check_against_settings(pixels, max_pixels=max_pixels, name=name, **kwargs)
        return pixels

    def _check_against_settings(
        self,
        pixels: torch.Tensor,
        max_pixels: int | None,
        name: str,
        size: SizeDict | None = None,
        crop_pct: float | None = None,
        do_resize: bool | None = None,
        do_center_crop: bool | None = None,
        do_rescale: bool | None = None,
        do_normalize: bool | None = None,
        image_mean: float | tuple[float, ...] | None = None,
        image_std: float | tuple[float, ...] | None = None,
        **kwargs: Any,
    ) -> None:
        if do_resize and do_center_crop:
            # A picture of one row by many columns grows by the same factor in both directions.
            resized = resized_size(tuple(pixels.shape[1:]), size, crop_pct)
            check_pixel_count(resized, max_pixels, name, what="is so elongated that resizing it would give")
        for setting, values in (("image_mean", image_mean), ("image_std", image_std)):
            if do_normalize and np.ndim(values) and len(values) != len(pixels):
                raise ValueError(
                    f"{name} has {len(pixels)} channels but {setting} has {len(values)} values: give one value for "
                    "each channel, or leave do_convert_rgb on to have 3 channels."
                )
        if do_rescale and pixels.is_floating_point() and pixels.min() >= 0 and 0 < pixels.max() <= 1:
            logger.warning_once(
                "Floating-point pixel values are already between 0 and 1 and will be rescaled once more: pass "
                "do_rescale=False for such images."
            )

    def to_dict(self) -> dict[str, Any]:
        """The settings, with an `auto_map` that names the code of both back ends."""
        settings = super().to_dict()
        classes = backend_classes()
        # A subclass under another name is somebody else's, who says where its code is.
        if type(self).__name__ in [processor.__name__ for processor in classes.values()]:
            settings["auto_map"] = {
                "AutoImageProcessor": {
                    backend: f"{processor.__module__.split('.')[-1]}.{processor.__name__}"
                    for backend, processor in classes.items()
                }
            }
        return settings

    def save_pretrained(self, save_directory: str | os.PathLike, push_to_hub: bool = False, **kwargs: Any) -> list[str]:
        """Saves the settings, and beside them the code of both back ends, so that
        `AutoImageProcessor.from_pretrained(folder, trust_remote_code=True)` needs no installed package."""
        if not os.path.isfile(save_directory):
            os.makedirs(save_directory, exist_ok=True)
            for processor in backend_classes().values():
                custom_object_save(processor, save_directory)
        return super().save_pretrained(save_directory, push_to_hub=push_to_hub, **kwargs)


def backend_classes() -> dict[str, type[PixelViTImageProcessorBase]]:
    """The two back ends, by transformers' names for them.

    Imported here because both files import this one. The loader of code from checkpoints looks for such lines
    wherever they stand, so whichever back end it loads, the other's file comes along and can be saved again.
    """
    from .image_processing_pil_pixelvit import PixelViTImageProcessorPil
    from .image_processing_pixelvit import PixelViTImageProcessor

    return {"torchvision": PixelViTImageProcessor, "pil": PixelViTImageProcessorPil}
