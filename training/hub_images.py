# Copyright 2026 The modeling_pixelvit team. All rights reserved.
# SPDX-License-Identifier: Apache-2.0
"""Any image folder, or any image classification data set of the hub, through the `datasets` library."""

import datasets
import torch

from modeling_pixelvit.image_processing_pixelvit import PixelViTImageProcessor

from .image_set import ImageSet, shuffled_epochs
from .labelled_images import LabelledImages, load_labelled_images


class StoredImages(ImageSet):
    """
    The images of a data set, resized (shorter side, then centre crop) and kept in memory.

    Args:
        source (`str`): A folder, a pattern for files, or the name of a data set on the hub, as `load_labelled_images`
            takes it.
        image_size (`int`): Side of the images in pixels.

    Raises:
        ValueError: if there is no such data set, if it has no images or no class labels, or if an
            image cannot be decoded.
    """

    def __init__(self, source: str, image_size: int):
        splits = load_labelled_images(source)
        self.train_pixels, self.train_labels = _read(splits.train, image_size)
        test_pixels, test_labels = _read(splits.evaluation, image_size)
        super().__init__(
            name=source,
            image_size=image_size,
            label_names=splits.label_names,
            image_mean=splits.image_mean,
            image_std=splits.image_std,
            test_pixels=test_pixels,
            test_labels=test_labels,
        )

    @property
    def num_train(self) -> int:
        return len(self.train_pixels)

    def training_order(self, num_images: int, seed: int) -> torch.Tensor:
        """Rows (image,)."""
        return shuffled_epochs(self.num_train, num_images, torch.Generator().manual_seed(seed))[:, None]

    def training_batch(self, order: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        return self.train_pixels[order[:, 0]], self.train_labels[order[:, 0]]


def _read(split: datasets.Dataset, image_size: int) -> tuple[torch.Tensor, torch.Tensor]:
    """uint8 pixels (N, 3, image_size, image_size) and labels (N,)."""
    processor = PixelViTImageProcessor(
        size={"height": image_size, "width": image_size}, crop_pct=1.0, do_rescale=False, do_normalize=False
    )
    pixels = torch.empty(len(split), 3, image_size, image_size, dtype=torch.uint8)
    labels = torch.empty(len(split), dtype=torch.long)
    images = LabelledImages(split)
    for index in range(len(images)):
        image, labels[index] = images[index]
        pixels[index] = processor(image, return_tensors="pt").pixel_values[0].round().clamp(0, 255).to(torch.uint8)
    return pixels, labels
