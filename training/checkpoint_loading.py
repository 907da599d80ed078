# Copyright 2026 The modeling_pixelvit team. All rights reserved.
# SPDX-License-Identifier: Apache-2.0
"""Loading a checkpoint of any task with the image processor saved beside it, by this package's own classes."""

import torch
from safetensors import SafetensorError
from transformers import AutoImageProcessor, BaseImageProcessor, PreTrainedConfig, PreTrainedModel

from modeling_pixelvit import (
    AdventurerForImageClassification,
    AdventurerForObjectDetection,
    AdventurerForSemanticSegmentation,
    AdventurerModel,
    PixelViTForImageClassification,
    PixelViTForObjectDetection,
    PixelViTForSemanticSegmentation,
    PixelViTModel,
)


CLASSIFIERS = (AdventurerForImageClassification, PixelViTForImageClassification)
SEGMENTERS = (AdventurerForSemanticSegmentation, PixelViTForSemanticSegmentation)
DETECTORS = (AdventurerForObjectDetection, PixelViTForObjectDetection)
BASE_MODELS = (AdventurerModel, PixelViTModel)
MODEL_CLASSES = {model.__name__: model for model in (*CLASSIFIERS, *SEGMENTERS, *DETECTORS, *BASE_MODELS)}


def architecture_of(checkpoint: str) -> str:
    """
    The name of the class whose weights a checkpoint holds.

    Raises:
        ValueError: in one sentence, if there is no such checkpoint.
    """
    try:
        stored, _ = PreTrainedConfig.get_config_dict(checkpoint)
    except (OSError, ValueError) as error:
        raise ValueError(
            f"{checkpoint} is neither a checkpoint folder nor a checkpoint that could be loaded from the hub "
            f"({first_line(error)}); check the name."
        ) from None
    return (stored.get("architectures") or ["a model without architectures"])[0]


def load_checkpoint(checkpoint: str) -> tuple[PreTrainedModel, BaseImageProcessor]:
    """
    The model, in evaluation mode and float32, and the image processor saved beside it.

    Raises:
        ValueError: in one sentence, if there is no such checkpoint, or it lacks a part.
    """
    name = architecture_of(checkpoint)
    if name not in MODEL_CLASSES:
        raise ValueError(f"{checkpoint} holds {name}; expected is one of {', '.join(MODEL_CLASSES)}.")
    try:
        model, info = MODEL_CLASSES[name].from_pretrained(checkpoint, dtype=torch.float32, output_loading_info=True)
        processor = AutoImageProcessor.from_pretrained(checkpoint)
    except (OSError, RuntimeError, SafetensorError, ValueError) as error:
        raise ValueError(
            f"{checkpoint} lacks a part that can be read, model or image processor ({first_line(error)}); give a "
            "complete checkpoint."
        ) from None
    if info["missing_keys"]:
        raise ValueError(
            f"{checkpoint} lacks {len(info['missing_keys'])} weights of {name} ({min(info['missing_keys'])}); give a "
            "complete checkpoint."
        )
    if processor.do_center_crop and isinstance(model, (*SEGMENTERS, *DETECTORS)):
        raise ValueError(
            f"The image processor of {checkpoint} crops images (do_center_crop), so what {name} finds has no place in "
            'the whole image; save one as for_config(config, task="segmentation" or "detection") makes it.'
        )
    return model.eval(), processor


def first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]
