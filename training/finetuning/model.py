# Copyright 2026 The modeling_pixelvit team. All rights reserved.
# SPDX-License-Identifier: Apache-2.0
"""The model and the image processor that fine-tuning starts from."""

import inspect
import json
import logging
import os
from typing import Any

from huggingface_hub.errors import StrictDataclassError
from transformers import AutoConfig, AutoImageProcessor, BaseImageProcessor, PreTrainedConfig, PreTrainedModel

from modeling_pixelvit.configuration_base import as_pair
from modeling_pixelvit.configuration_detection import DetectionHeadConfig
from modeling_pixelvit.configuration_segmentation import SegmentationHeadConfig
from modeling_pixelvit.image_processing_base import PixelViTImageProcessorBase

from ..checkpoints.loading import first_line, load_weights
from ..families.base import BASE_MODEL, CLASSIFIER, DETECTOR, SEGMENTER, Architecture
from ..families.registry import FAMILIES, architecture_of, model_classes
from ..tasks.base import Task, normalization
from ..tasks.initial_model import adopt_weights, resize
from .arguments import ModelArguments


logger = logging.getLogger(__name__)

# By what a model does, the fields of the configuration that its head alone reads, but for those with an option of their
# own.
HEAD_FIELDS = {
    SEGMENTER: [name for name in inspect.get_annotations(SegmentationHeadConfig) if name != "decoder_type"],
    DETECTOR: [name for name in inspect.get_annotations(DetectionHeadConfig) if name != "use_masks"],
}
NEW_WEIGHTS_SHOWN = 4


def load_config(architecture: Architecture, arguments: ModelArguments) -> PreTrainedConfig:
    """
    The checkpoint's configuration with what the options change.

    Args:
        architecture: Of the model to train.
        arguments: The options.

    Raises:
        ValueError: if there is no such checkpoint, it is of another family, the patch does not fit the image, or a
            field of the head is unknown or out of range.
    """
    name, revision = arguments.model_name_or_path, arguments.model_revision
    try:
        stored, _ = PreTrainedConfig.get_config_dict(name, revision=revision)
    except (OSError, ValueError) as error:
        raise ValueError(
            f"--model_name_or_path {name} is neither a checkpoint folder nor a checkpoint that could be loaded from "
            f"the hub ({first_line(error)}); check the name."
        ) from None
    family = stored.get("model_type")
    if family not in [*FAMILIES]:  # it may be anything, lists too
        raise ValueError(
            f"--model_name_or_path {name} holds a model of type {family!r}; this script trains "
            f"{' and '.join(sorted(FAMILIES))} (a ViT or DeiT becomes a pixelvit by training.convert_checkpoint)."
        )
    config = AutoConfig.from_pretrained(name, revision=revision)
    patch_size = config.patch_size if arguments.patch_size is None else arguments.patch_size
    height, width = as_pair(config.image_size if arguments.image_size is None else arguments.image_size)
    if height != width:
        raise ValueError(
            f"--model_name_or_path {name} is for images of {height} by {width} pixels, but training images are cut out "
            "as squares; give --image_size."
        )
    for name, value in (("image_size", height), ("patch_size", patch_size)):
        if value < 1:
            raise ValueError(f"--{name} {value} was given; it must be at least 1.")
    if height % patch_size:
        divisors = ", ".join(str(size) for size in range(1, height + 1) if height % size == 0)
        raise ValueError(
            f"--patch_size {patch_size} does not divide images of {height} pixels; choose from {divisors}, or "
            "change --image_size."
        )
    config.patch_size, config.image_size = patch_size, height
    if arguments.drop_path_rate is not None:
        config.drop_path_rate = arguments.drop_path_rate
    for name, value in head_fields(architecture, arguments).items():
        try:
            setattr(config, name, value)
        except StrictDataclassError as error:
            raise ValueError(f"{name}={value!r} was given: {error.__cause__ or error}.") from None
    config.validate_architecture()
    return config


def head_fields(architecture: Architecture, arguments: ModelArguments) -> dict[str, Any]:
    """
    The fields of the configuration that `--head`, `--decoder` and `--use_masks` set.

    Raises:
        ValueError: if `--head` is no mapping in JSON, or a name in it is no field of the head.
    """
    try:
        fields = json.loads(arguments.head or "{}")
    except json.JSONDecodeError as error:
        raise ValueError(f"--head {arguments.head} was given, which is no JSON ({error}).") from None
    if not isinstance(fields, dict):
        raise ValueError(f"--head {arguments.head} was given; give names and values, as {{...}} in JSON.")
    for name in fields:
        if name not in HEAD_FIELDS[architecture]:
            known = ", ".join(HEAD_FIELDS[architecture])
            raise ValueError(f"--head sets {name}; for {architecture.does} there are {known}.")
    given = {"decoder_type": arguments.decoder, "use_masks": arguments.use_masks}
    return {**fields, **{name: value for name, value in given.items() if value is not None}}


def wants_masks(arguments: ModelArguments, config: PreTrainedConfig) -> bool | None:
    """What `--use_masks` says, or else that a detector without masks is to stay so; None: as the data have them."""
    if arguments.use_masks is not None:
        return arguments.use_masks
    return False if stored_architecture(config) == DETECTOR and not config.use_masks else None


def stored_architecture(config: PreTrainedConfig) -> Architecture:
    """What a checkpoint is for; classification if it is an encoder alone."""
    model_class = model_classes().get((config.architectures or [""])[0])
    found = None if model_class is None else architecture_of(model_class)
    return CLASSIFIER if found in (None, BASE_MODEL) else found


def build_model(task: Task, arguments: ModelArguments, config: PreTrainedConfig, do_train: bool) -> PreTrainedModel:
    """
    The model in float32: the checkpoint's weights, resampled to the patch and image size of `config`, with a new head
    where the checkpoint has none for these labels; or new weights alone.

    Raises:
        ValueError: if the checkpoint is damaged, lacks weights or is not to be trusted, or the head would be new and
            not be trained.
    """
    num_stored_labels = config.num_labels
    config.problem_type = None  # what the checkpoint was trained for
    for field, value in task.config_fields().items():
        setattr(config, field, value)
    model_class, name = task.model_class, arguments.model_name_or_path
    if arguments.from_scratch:
        config.name_or_path = os.curdir  # no checkpoint, for the model card
        vars(config).pop("weights_origin", None)  # nor its licence
        return model_class(config)
    try:
        source = load_weights(name, arguments.model_revision)
    except ValueError as error:
        raise ValueError(f"--model_name_or_path {name} cannot be loaded: {error}") from None
    resize(source, config.patch_size, config.image_size)
    config.patch_kernel_size = source.config.patch_kernel_size
    model = model_class(config)
    new = adopt_weights(model, source)
    if new and not do_train:
        raise ValueError(
            f"--model_name_or_path {name} has no head for the {config.num_labels} classes of {task.images.name} "
            f"(--task {task.name}); train one, or evaluate on the data set that it was trained on."
        )
    if new:
        logger.info(
            "The head (%s) is new: the checkpoint has none, or one for %d classes, and %s has %d.",
            ", ".join(new) if len(new) <= NEW_WEIGHTS_SHOWN else _summary(new),
            num_stored_labels,
            task.images.name,
            config.num_labels,
        )
    return model


def _summary(names: list[str]) -> str:
    return f"{len(names)} weights in {', '.join(sorted({name.split('.')[0] for name in names}))}"


def load_processor(task: Task, arguments: ModelArguments, config: PreTrainedConfig) -> BaseImageProcessor:
    """
    The checkpoint's own image processor at the image size of `config`. From a checkpoint for another task only its
    normalization is taken; without one, it is the paper's for the data.
    """
    try:
        stored = AutoImageProcessor.from_pretrained(arguments.model_name_or_path, revision=arguments.model_revision)
    except OSError:
        logger.info("The checkpoint has no image processor; it gets the one of the paper's evaluation.")
        return task.processor
    is_ours, is_classifier = isinstance(stored, PixelViTImageProcessorBase), task.architecture == CLASSIFIER
    if stored_architecture(config) != task.architecture or not (is_ours or is_classifier):
        mean, std = normalization(stored)
        return task.build_processor(image_mean=mean, image_std=std)
    if not is_classifier and arguments.image_size is None:
        return stored
    settings = task.processor.to_dict()
    sizes = {name: settings[name] for name in ("size", "pad_size") if settings.get(name) is not None}
    return AutoImageProcessor.from_pretrained(arguments.model_name_or_path, revision=arguments.model_revision, **sizes)
