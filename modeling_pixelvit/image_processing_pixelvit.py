# Copyright 2026 The modeling_pixelvit team. All rights reserved.
# SPDX-License-Identifier: Apache-2.0
"""
The image processor of PixelViT and Adventurer, on torchvision and on Pillow.

Both are in one file: whichever of them is loaded from the code of a checkpoint, the other comes along and can be saved
again.
"""

from typing import Any

import numpy as np
import torch
from PIL import Image
from transformers.image_processing_backends import PilBackend, TorchvisionBackend
from transformers.image_transforms import group_images_by_shape, reorder_images
from transformers.image_utils import PILImageResampling, SizeDict

from .image_processing_base import PixelViTImageProcessorBase
from .image_reading import value_bounds


class PixelViTImageProcessor(PixelViTImageProcessorBase, TorchvisionBackend):
    r"""
    Prepares images for PixelViT and Adventurer: RGB, bicubic resize, centre crop, rescale, normalize.

    `PixelViTImageProcessorPil` does the same with Pillow, bit for bit as the released evaluation. Both read images by
    the same code and crop the same window. Their bicubic resizes differ by at most 2 of 255 grey levels, measured on
    noise, smooth pictures and black-and-white patterns of odd and tiny sizes; in floating point, where neither rounds
    between the two directions, by less than 1e-4 of the range.

    Args:
        size (`dict`, *optional*, defaults to `{"height": 224, "width": 224}`):
            The size that comes out; also an int (square) or (height, width). With `do_center_crop=False` also limits
            of the edges, up to which the whole image is resized with its aspect ratio kept, to the nearest pixel:
            `{"shortest_edge": 512}`, `{"longest_edge": 1024}`, both (the first, unless the second would be exceeded)
            or `{"max_height": 768, "max_width": 1024}`.
        crop_pct (`float`, *optional*, defaults to 0.875):
            Crop ratio in (0, 1]. The image is resized, its aspect ratio kept, to cover `int(size / crop_pct)` and its
            centre is cropped; for a square `size` exactly as torchvision's `Resize(int(size / crop_pct))` and
            `CenterCrop(size)`.
        do_center_crop (`bool`, *optional*, defaults to `True`):
            Whether to crop the centre. If off, the image is resized to a `size` of height and width without keeping
            its aspect ratio.
        crop_size (`dict`, *optional*):
            Always `size`: accepted if equal to it, refused otherwise, never saved.
        do_resize (`bool`, *optional*, defaults to `True`):
            Whether to resize. If off, the crop adds zeros around images smaller than `size`.
        resample (`PILImageResampling`, *optional*, defaults to bicubic):
            Interpolation.
        do_pad (`bool`, *optional*):
            Whether to pad the images of a batch with zeros, below and on the right, and to return a `pixel_mask`. By
            default where `size` limits edges, so that images can have different sizes.
        pad_size (`dict`, *optional*):
            The size to pad to; that of the batch's largest height and largest width if not given.
        do_reduce_labels (`bool`, *optional*, defaults to `False`):
            Whether segmentation maps count classes from 1, with 0 for no class: 0 becomes 255 and k becomes k - 1.
        do_rescale, rescale_factor (*optional*, default to `True` and 1/255):
            Whether to multiply pixels, and by what.
        do_normalize, image_mean, image_std (*optional*, default to `True` and ImageNet's):
            Whether to subtract a mean and divide by a deviation, one for each channel.
        do_convert_rgb (`bool`, *optional*, defaults to `True`):
            Whether to convert to RGB, alpha over white.
        max_pixels (`int`, *optional*, defaults to 178,956,970):
            Largest height times width accepted, checked before decoding; `None` for no limit. The default is where
            Pillow itself refuses a file.

    Images turn upright by their EXIF orientation. Pixels of more than 8 bits are reduced to 8. Floating-point arrays
    are resized as they are and, if all within [0, 1] or [0, 255], kept there. The output is float32.
    """

    def process_image(
        self, image: Any, *args: Any, device: str | torch.device | None = None, **kwargs: Any
    ) -> torch.Tensor:
        """Reads one image as `PixelViTImageProcessorBase.process_image` does, and moves it to `device`."""
        pixels = super().process_image(image, *args, **kwargs)
        return pixels if device is None else pixels.to(device)

    def resize(self, image: torch.Tensor, size: SizeDict, resample: Any = None, **kwargs: Any) -> torch.Tensor:
        """Resizes images of shape (..., channels, height, width) to `size.height` by `size.width`."""
        resized = super().resize(image, size, resample=resample, **kwargs)
        if not image.is_floating_point():
            return resized
        # By image, so that what comes out does not depend on what else is in the batch.
        pairs = zip(image.flatten(0, -4), resized.flatten(0, -4), strict=True) if image.ndim > 3 else [(image, resized)]
        clamped = [after.clamp(*value_bounds(before.min().item(), before.max().item())) for before, after in pairs]
        return torch.stack(clamped).reshape(resized.shape)

    def _transformed(
        self,
        images: list[torch.Tensor],
        do_rescale: bool | None,
        rescale_factor: float,
        do_normalize: bool | None,
        image_mean: float | tuple[float, ...],
        image_std: float | tuple[float, ...],
        disable_grouping: bool | None,
        **kwargs: Any,
    ) -> list[torch.Tensor]:
        # In one tensor with floating-point pixels 8-bit ones would be resized as such.
        disable_grouping = True if len({image.dtype for image in images}) > 1 else disable_grouping
        grouped, index = group_images_by_shape(images, disable_grouping=disable_grouping)
        for key, stack in grouped.items():
            stack = self._fitted(stack, **kwargs)
            stack = self.rescale_and_normalize(stack, do_rescale, rescale_factor, do_normalize, image_mean, image_std)
            grouped[key] = stack.to(torch.float32)
        return reorder_images(grouped, index)


class PixelViTImageProcessorPil(PixelViTImageProcessorBase, PilBackend):
    r"""
    `PixelViTImageProcessor` with Pillow's resize: the same arguments, inputs, errors and output, and pixel for pixel
    what the released evaluation computes (torchvision's transforms on PIL images). It runs without torchvision.

    The two back ends' 8-bit bicubic resizes differ by at most 2 of 255 grey levels.
    """

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

    def _transformed(
        self,
        images: list[np.ndarray],
        do_rescale: bool | None,
        rescale_factor: float,
        do_normalize: bool | None,
        image_mean: float | tuple[float, ...],
        image_std: float | tuple[float, ...],
        **kwargs: Any,
    ) -> list[np.ndarray]:
        transformed = []
        for image in images:
            image = self._fitted(image, **kwargs)
            if do_rescale:
                image = self.rescale(image, rescale_factor)
            if do_normalize:
                image = self.normalize(image, image_mean, image_std)
            transformed.append(image.astype(np.float32))
        return transformed


__all__ = ["PixelViTImageProcessor", "PixelViTImageProcessorPil"]
