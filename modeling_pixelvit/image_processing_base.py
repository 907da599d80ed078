# Copyright 2026 The modeling_pixelvit team. All rights reserved.
# SPDX-License-Identifier: Apache-2.0
"""What the two image processors share: settings, reading, targets that follow the images, saving with their code."""

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
from transformers.processing_utils import Unpack
from transformers.utils import logging

from .image_annotations import detection_targets, segmentation_labels
from .image_geometry import (
    Placement,
    centered_window,
    checked_size,
    is_padded,
    keeps_aspect_ratio,
    padded_size,
    resized_size,
)
from .image_post_processing import PostProcessing
from .image_reading import (
    check_pixel_count,
    flatten_images,
    image_name,
    open_image,
    read_pixels,
    shortened,
    upright_image,
)
from .image_settings import (
    PixelViTImageProcessorKwargs,
    check_crop_size,
    check_max_pixels,
    checked_crop_pct,
    task_settings,
)


logger = logging.get_logger(__name__)

# The back ends by transformers' names for them, and the file that has both.
BACKEND_CLASSES = {"torchvision": "PixelViTImageProcessor", "pil": "PixelViTImageProcessorPil"}
BACKENDS_FILE = "image_processing_pixelvit"


class PixelViTImageProcessorBase(PostProcessing, BaseImageProcessor):
    """Settings, reading, targets and saving; a back end adds `_transformed` and `resize`.

    `_prepare_image_like_inputs` reads: images of any kind become a list of pixels of shape (channels, height, width).
    `_preprocess` then transforms and pads them. Targets that were given with them follow by each image's `Placement`.
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
    do_reduce_labels = False
    # Twice Pillow's MAX_IMAGE_PIXELS, where Pillow itself refuses a file: by default nothing it opens is refused here,
    # and arrays meet the same limit.
    max_pixels = 178_956_970

    def __init__(self, **kwargs: Unpack[PixelViTImageProcessorKwargs]):
        # Written anew by `to_dict`: a copy read from a file could name another repository's code.
        kwargs.pop("auto_map", None)
        super().__init__(**kwargs)

    @classmethod
    def for_config(cls, config: Any, task: str = "classification", **overrides: Any) -> "PixelViTImageProcessorBase":
        """Makes the processor that evaluates a model.

        Args:
            config: anything with `image_size`, int or (height, width), and `patch_size`: a model's configuration.
            task: "classification" is the paper's evaluation: images of `image_size`, cropped by the ratio that
                `crop_ratio` tells. "segmentation" resizes whole images so that their shorter edge is that of
                `image_size`, but the longer one at most four times that. "detection" makes whole images as large as
                fits into `image_size`, and pads them to it.
            overrides: settings that differ from these, for instance `crop_pct=1.0`.
        """
        size = checked_size(config.image_size, "image_size")
        return cls(**{**task_settings((size.height, size.width), config.patch_size, task), **overrides})

    def preprocess(
        self,
        images: ImageInput,
        segmentation_maps: Any = None,
        annotations: Any = None,
        return_segmentation_masks: bool | None = None,
        **kwargs: Unpack[PixelViTImageProcessorKwargs],
    ) -> BatchFeature:
        """Turns images, and with them labels of their pixels or objects, into the model's input.

        Args:
            images: one image or any nesting of lists of images. An image is a PIL image of any mode, a path, an
                http(s) or data URL, base64 text, or a numpy array or torch tensor of shape (height, width), (channels,
                height, width) or (height, width, channels) with 1, 3 or 4 channels; an array with one more dimension
                is a batch. Arrays hold booleans, integers (0 to 255, or 16 bits) or finite floats.
            segmentation_maps: as many maps of class indices, of their images' sizes: PIL images of one band (of
                palette images the indices count), paths, or integer arrays of shape (height, width). 255 is no class.
            annotations: for each image {"image_id": int, "annotations": [COCO annotations]}; see `check_annotation`
                for what these are. `category_id` is taken as the class index.
            return_segmentation_masks: whether to make masks of the annotations' segmentations; by default if any
                annotation of the batch has one.
            kwargs: any setting of the processor, for this call; also `input_data_format` ("channels_first" or
                "channels_last", for arrays), `return_tensors` ("pt" or "np") and `device` (torchvision only).

        Returns:
            A `BatchFeature` with

            - `pixel_values`, float32 of shape (batch, 3, height, width) if `return_tensors` is given and otherwise a
              list of (3, height, width);
            - where images are padded `pixel_mask`, int64 of shape (batch, height, width), 1 where the image is;
            - `labels` of segmentation maps: int64 of shape (batch, height, width), by the nearest pixel, and 255
              outside the image; or of annotations: for each image a dict as `detection_target` describes it.

        Raises:
            ValueError: for an image that cannot be read, is empty, has more than `max_pixels` pixels (before it is
                decoded), another number of channels, or values that are no pixels; for settings out of range; for maps
                or annotations that do not fit their image. The message says which image of the batch it was.
            TypeError: for something that is no image at all.
        """
        # Before the type check in transformers, whose messages do not say what to do.
        names = ("size", "crop_size", "pad_size", "crop_pct", "max_pixels", "do_center_crop")
        self._standardize_kwargs(**{name: kwargs.get(name, getattr(self, name)) for name in names})
        return super().preprocess(images, segmentation_maps, annotations, return_segmentation_masks, **kwargs)

    def _standardize_kwargs(
        self,
        size: Any = None,
        crop_size: Any = None,
        pad_size: Any = None,
        crop_pct: Any = None,
        max_pixels: Any = None,
        do_center_crop: bool | None = None,
        **kwargs: Any,
    ) -> dict[str, Any]:
        size = checked_size(size, may_limit_edges=not do_center_crop)
        check_crop_size(crop_size, size)
        pad_size = None if pad_size is None else checked_size(pad_size, "pad_size")
        check_max_pixels(max_pixels)
        kwargs = super()._standardize_kwargs(size=size, pad_size=pad_size, **kwargs)
        # `crop_size` is not kept, so that it follows `size` when a call gives another one.
        return {
            **kwargs,
            "crop_size": None,
            "crop_pct": checked_crop_pct(crop_pct),
            "max_pixels": max_pixels,
            "do_center_crop": do_center_crop,
        }

    def _validate_preprocess_kwargs(self, size: Any = None, crop_size: Any = None, **kwargs: Any) -> None:
        super()._validate_preprocess_kwargs(size=size, crop_size=size, **kwargs)

    def _preprocess_image_like_inputs(
        self,
        images: Any,
        segmentation_maps: Any = None,
        annotations: Any = None,
        return_segmentation_masks: bool | None = None,
        **kwargs: Any,
    ) -> BatchFeature:
        if segmentation_maps is not None and annotations is not None:
            raise ValueError(
                "Both segmentation_maps and annotations were given, and each is to become the labels: pass the one "
                "that the model learns from."
            )
        pixels = self._prepare_image_like_inputs(images, **kwargs)
        geometry = {name: kwargs[name] for name in ("size", "crop_pct", "do_resize", "do_center_crop")}
        placements = [Placement.of(image.shape[-2:], **geometry) for image in pixels]
        features = self._preprocess(pixels, **kwargs)
        frames = [tuple(image.shape[-2:]) for image in features["pixel_values"]]
        if segmentation_maps is not None:
            labels = segmentation_labels(
                segmentation_maps, placements, frames, kwargs["do_reduce_labels"], kwargs["max_pixels"]
            )
            features["labels"] = [self._as_array(label, **kwargs) for label in labels]
            features.convert_to_tensors(kwargs["return_tensors"])
        if annotations is not None:
            targets = detection_targets(annotations, placements, frames, return_segmentation_masks)
            features["labels"] = [
                {name: self._as_array(values, **kwargs) for name, values in target.items()} for target in targets
            ]
        return features

    def _as_array(
        self, values: np.ndarray, return_tensors: Any = None, device: Any = None, **kwargs: Any
    ) -> torch.Tensor | np.ndarray:
        """An array of a target as what the back end and `return_tensors` make of pixels."""
        kind = return_tensors or ("pt" if self.backend == "torchvision" else "np")
        return torch.from_numpy(values).to(device) if kind == "pt" else values

    def _fitted(
        self,
        pixels: Any,
        do_resize: bool | None,
        size: SizeDict,
        resample: Any,
        crop_pct: float,
        do_center_crop: bool | None,
        **kwargs: Any,
    ) -> Any:
        """Pixels (..., height, width) of the back end's kind, resized and cropped by its means."""
        if do_resize:
            height, width = resized_size(tuple(pixels.shape[-2:]), size, crop_pct, do_center_crop)
            pixels = self.resize(pixels, SizeDict(height=height, width=width), resample=resample)
        return self.center_crop(pixels, size) if do_center_crop else pixels

    def center_crop(self, image: torch.Tensor | np.ndarray, size: SizeDict, **kwargs: Any) -> torch.Tensor | np.ndarray:
        """Crops images of shape (..., channels, height, width) to `size`, zeros around smaller ones."""
        above, below, top = centered_window(image.shape[-2], size.height)
        before, after, left = centered_window(image.shape[-1], size.width)
        if isinstance(image, torch.Tensor):
            image = torch.nn.functional.pad(image, (before, after, above, below))
        else:
            image = np.pad(image, [(0, 0)] * (image.ndim - 2) + [(above, below), (before, after)])
        return image[..., top : top + size.height, left : left + size.width]

    def _preprocess(
        self,
        images: list,
        do_pad: bool | None,
        size: SizeDict,
        pad_size: SizeDict | None,
        return_tensors: Any,
        **kwargs: Any,
    ) -> BatchFeature:
        """The `BatchFeature` of transformed images, padded with zeros below and on the right if they are to be."""
        images = self._transformed(images, size=size, **kwargs)
        sizes = [tuple(image.shape[-2:]) for image in images]
        data = {"pixel_values": images}
        if is_padded(do_pad, size):
            height, width = padded_size(sizes, pad_size)
            frame = SizeDict(height=height, width=width)
            data["pixel_values"], data["pixel_mask"] = self.pad(images, pad_size=frame, return_mask=True)
        elif return_tensors is not None and len(set(sizes)) > 1:
            raise ValueError(
                f"The images of the batch come out with different sizes, such as {sizes[0]} and "
                f"{next(other for other in sizes if other != sizes[0])}: set do_pad=True to pad them, or leave "
                "return_tensors out to get a list."
            )
        return BatchFeature(data=data, tensor_type=return_tensors)

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
        if do_resize and (do_center_crop or keeps_aspect_ratio(size)):
            # A picture of one row by many columns grows by the same factor in both directions.
            resized = resized_size(tuple(pixels.shape[1:]), size, crop_pct, do_center_crop)
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
        # A subclass under another name is somebody else's, who says where its code is.
        if type(self).__name__ in BACKEND_CLASSES.values():
            code = {backend: f"{BACKENDS_FILE}.{name}" for backend, name in BACKEND_CLASSES.items()}
            settings["auto_map"] = {"AutoImageProcessor": code}
        return settings

    def save_pretrained(self, save_directory: str | os.PathLike, push_to_hub: bool = False, **kwargs: Any) -> list[str]:
        """Saves the settings, and beside them the code of both back ends, so that
        `AutoImageProcessor.from_pretrained(folder, trust_remote_code=True)` needs no installed package."""
        if not os.path.isfile(save_directory):
            os.makedirs(save_directory, exist_ok=True)
            # Of a subclass elsewhere, the class here that it is derived from.
            own = next(one for one in type(self).__mro__ if one.__name__ in BACKEND_CLASSES.values())
            custom_object_save(own, save_directory)
        return super().save_pretrained(save_directory, push_to_hub=push_to_hub, **kwargs)
