# Copyright 2026 The modeling_pixelvit team. All rights reserved.
# SPDX-License-Identifier: Apache-2.0
"""
Pixel-tokenized vision models for transformers: PixelViT and Adventurer at any patch size.

Importing the package registers its classes with transformers' Auto classes.
"""

from transformers import (
    AutoBackbone,
    AutoConfig,
    AutoImageProcessor,
    AutoModel,
    AutoModelForImageClassification,
    AutoModelForImageSegmentation,
    AutoModelForInstanceSegmentation,
    AutoModelForObjectDetection,
    AutoModelForSemanticSegmentation,
)

from .configuration_adventurer import AdventurerConfig
from .configuration_pixelvit import PixelViTConfig
from .image_processing_pixelvit import PixelViTImageProcessor, PixelViTImageProcessorPil
from .modeling_adventurer import AdventurerBackbone, AdventurerForImageClassification, AdventurerModel
from .modeling_detection import AdventurerForObjectDetection, PixelViTForObjectDetection
from .modeling_pixelvit import PixelViTBackbone, PixelViTForImageClassification, PixelViTModel
from .modeling_segmentation import AdventurerForSemanticSegmentation, PixelViTForSemanticSegmentation


__version__ = "0.1.0"

AutoConfig.register("pixelvit", PixelViTConfig, exist_ok=True)
AutoModel.register(PixelViTConfig, PixelViTModel, exist_ok=True)
AutoBackbone.register(PixelViTConfig, PixelViTBackbone, exist_ok=True)
AutoModelForImageClassification.register(PixelViTConfig, PixelViTForImageClassification, exist_ok=True)
AutoModelForSemanticSegmentation.register(PixelViTConfig, PixelViTForSemanticSegmentation, exist_ok=True)
AutoModelForObjectDetection.register(PixelViTConfig, PixelViTForObjectDetection, exist_ok=True)
AutoModelForInstanceSegmentation.register(PixelViTConfig, PixelViTForObjectDetection, exist_ok=True)

AutoConfig.register("adventurer", AdventurerConfig, exist_ok=True)
AutoModel.register(AdventurerConfig, AdventurerModel, exist_ok=True)
AutoBackbone.register(AdventurerConfig, AdventurerBackbone, exist_ok=True)
AutoModelForImageClassification.register(AdventurerConfig, AdventurerForImageClassification, exist_ok=True)
AutoModelForSemanticSegmentation.register(AdventurerConfig, AdventurerForSemanticSegmentation, exist_ok=True)
AutoModelForObjectDetection.register(AdventurerConfig, AdventurerForObjectDetection, exist_ok=True)
AutoModelForInstanceSegmentation.register(AdventurerConfig, AdventurerForObjectDetection, exist_ok=True)

# What the image-segmentation pipeline loads: of a pair the class that a checkpoint's `architectures` names.
AutoModelForImageSegmentation.register(
    PixelViTConfig, (PixelViTForSemanticSegmentation, PixelViTForObjectDetection), exist_ok=True
)
AutoModelForImageSegmentation.register(
    AdventurerConfig, (AdventurerForSemanticSegmentation, AdventurerForObjectDetection), exist_ok=True
)
for config_class in (PixelViTConfig, AdventurerConfig):
    AutoImageProcessor.register(
        config_class,
        image_processor_classes={"torchvision": PixelViTImageProcessor, "pil": PixelViTImageProcessorPil},
        exist_ok=True,
    )

__all__ = [
    "AdventurerBackbone",
    "AdventurerConfig",
    "AdventurerForImageClassification",
    "AdventurerForObjectDetection",
    "AdventurerForSemanticSegmentation",
    "AdventurerModel",
    "PixelViTBackbone",
    "PixelViTConfig",
    "PixelViTForImageClassification",
    "PixelViTForObjectDetection",
    "PixelViTForSemanticSegmentation",
    "PixelViTImageProcessor",
    "PixelViTImageProcessorPil",
    "PixelViTModel",
]
