# Copyright 2026 The modeling_pixelvit team. All rights reserved.
# SPDX-License-Identifier: Apache-2.0
"""What training asks of labelled images: batches in a reproducible order, and a test set that never changes."""

from abc import ABC, abstractmethod
from dataclasses import dataclass

import torch


@dataclass
class ImageSet(ABC):
    """
    Labelled images of one size, split into training and test images.

    Args:
        name (`str`): What reports call it.
        image_size (`int`): Height and width in pixels.
        label_names (`list[str]`): The name of each class.
        image_mean, image_std (`list[float]`):
            Normalization per channel, for pixels in [0, 1]; saved with every checkpoint in its image processor.
        test_pixels (`torch.Tensor` of shape `(num_test, 3, image_size, image_size)`): uint8 pixels.
        test_labels (`torch.Tensor` of shape `(num_test,)`): Class indices.
    """

    name: str
    image_size: int
    label_names: list[str]
    image_mean: list[float]
    image_std: list[float]
    test_pixels: torch.Tensor
    test_labels: torch.Tensor

    @property
    @abstractmethod
    def num_train(self) -> int:
        """Number of different training images."""

    @abstractmethod
    def training_order(self, num_images: int, seed: int) -> torch.Tensor:
        """
        What is seen in training, drawn ahead so that a run is reproducible and can go on in the middle: an integer
        tensor with `num_images` rows, slices of which `training_batch` takes.
        """

    @abstractmethod
    def training_batch(self, order: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """uint8 pixels (B, 3, image_size, image_size) and labels (B,) of B rows of `training_order`."""

    def normalize(self, pixels: torch.Tensor) -> torch.Tensor:
        """uint8 pixels (B, 3, H, W) to the model's float32 input, exactly as the saved image processor does it."""
        mean, std = (torch.tensor(values).view(-1, 1, 1) for values in (self.image_mean, self.image_std))
        return (pixels.float() / 255 - mean) / std


def shuffled_epochs(num_train: int, num_images: int, generator: torch.Generator) -> torch.Tensor:
    """Indices of `num_images` training images (num_images,): every image once, in random order, then again."""
    epochs = -(-num_images // num_train)
    order = [torch.randperm(num_train, generator=generator) for _ in range(epochs)]
    return torch.cat(order)[:num_images] if order else torch.empty(0, dtype=torch.long)
