# Copyright 2026 The modeling_pixelvit team. All rights reserved.
# SPDX-License-Identifier: Apache-2.0
"""The image processor of PixelViT and Adventurer, on Pillow and numpy."""

from typing import Any

import numpy as np
from PIL import Image
from transformers.feature_extraction_utils import BatchFeature
from transformers.image_processing_backends import PilBackend
from transformers.image_utils import PILImageResampling, SizeDict

from .image_geometry import centered_window, resized_size
from .image_processing_base import PixelViTImageProcessorBase
from .image_reading import value_bounds
from .image_settings import PixelViTImageProcessorKwargs


class PixelViTImageProcessorPil(PixelViTImageProcessorBase, PilBackend):
    r"""
    `PixelViTImageProcessor` with Pillow's resize: the same arguments, inputs, errors and output, and pixel for pixel
    what the released evaluation computes (torchvision's transforms on PIL images). It runs without torchvision.

    The two back ends' 8-bit bicubic resizes differ by at most 2 of 255 grey levels.
    """

    valid_kwargs = PixelViTImageProcessorKwargs

    def process_image(self, image: Any, *args: Any, **kwargs: Any) -> np.ndarray:
        """Reads one image as `PixelViTImageProcessorBase.process_image` does, as a numpy array."""
        return super().process_image(image, *args, **kwargs).detach().cpu().numpy()

    def resize(self, image: np.ndarray, size: SizeDict, resample: Any = None, **kwargs: Any) -> np.ndarray:
        """Resizes an image of shape (channels, height, width), uint8 or float32, to `size.height` by `size.width`."""
        resample = PILImageResampling.BILINEAR if resample is None else resample
        # Channel by channel: Pillow would weight the colours of four channels by the last, and has no mode for RGB
        # in floating point.
        channels = [Image.fromarray(channel).resize((size.width, size.height), resample) for channel in image]
        resized = np.stack([np.asarray(channel) for channel in channels])
        if not np.issubdtype(image.dtype, np.floating):
            return resized
        return resized.clip(*value_bounds(image.min().item(), image.max().item()))

    def center_crop(self, image: np.ndarray, size: SizeDict, **kwargs: Any) -> np.ndarray:
        """Crops an image of shape (channels, height, width) to `size`, zeros around a smaller one."""
        above, below, top = centered_window(image.shape[-2], size.height)
        before, after, left = centered_window(image.shape[-1], size.width)
        image = np.pad(image, ((0, 0), (above, below), (before, after)))
        return image[:, top : top + size.height, left : left + size.width]

    def _preprocess(
        self,
        images: list[np.ndarray],
        do_resize: bool | None,
        size: SizeDict,
        resample: Any,
        crop_pct: float,
        do_center_crop: bool | None,
        do_rescale: bool | None,
        rescale_factor: float,
        do_normalize: bool | None,
        image_mean: float | tuple[float, ...],
        image_std: float | tuple[float, ...],
        do_pad: bool | None,
        pad_size: SizeDict | None,
        return_tensors: Any,
        **kwargs: Any,
    ) -> BatchFeature:
        processed = []
        for image in images:
            if do_resize:
                height, width = resized_size(image.shape[-2:], size, crop_pct, do_center_crop)
                image = self.resize(image, SizeDict(height=height, width=width), resample=resample)
            if do_center_crop:
                image = self.center_crop(image, size)
            if do_rescale:
                image = self.rescale(image, rescale_factor)
            if do_normalize:
                image = self.normalize(image, image_mean, image_std)
            processed.append(image.astype(np.float32))
        return self._as_batch(processed, do_pad, size, pad_size, return_tensors)


__all__ = ["PixelViTImageProcessorPil"]
