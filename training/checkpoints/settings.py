# Copyright 2026 The modeling_pixelvit team. All rights reserved.
# SPDX-License-Identifier: Apache-2.0
"""
Configuration and image processor of a checkpoint folder that somebody else may have written.

Only the settings that these models have are taken from its JSON files. What transformers would act upon (code to
import, other files to read, kernels to fetch) is refused unless it is what our own `save_pretrained` writes, and
everything else is left out, so nothing in a file reaches transformers unchecked.
"""

import dataclasses
import logging
import math
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from huggingface_hub.errors import StrictDataclassError
from transformers import PreTrainedConfig, PreTrainedModel

from modeling_pixelvit import PixelViTImageProcessor, PixelViTImageProcessorPil
from modeling_pixelvit.configuration_base import MOST_LABELS, as_pair

from .reading import CheckpointError, read_settings, shown


logger = logging.getLogger(__name__)

CONFIG_FILE = "config.json"
PROCESSOR_FILE = "preprocessor_config.json"
DTYPES = ("float16", "bfloat16", "float32", "float64")
LABEL_FIELDS = ("id2label", "label2id", "num_labels", "problem_type")
STAGE_FIELDS = ("out_features", "out_indices")
# What our own folders hold besides; none of it changes the model that is loaded.
KNOWN_KEYS = {"model_type", "architectures", "auto_map", "dtype", "torch_dtype", "transformers_version", "stage_names"}
# What makes transformers read other files, fetch code or change the weights: name -> why it is refused.
ACTING_KEYS = {
    "quantization_config": "the weights are quantized; give the checkpoint that they were made from",
    "compression_config": "the weights are compressed; give the checkpoint that they were made from",
    "configuration_files": "it sends the reader to other files; give a folder that save_pretrained wrote",
    "custom_pipelines": "it names code to run; give a folder that save_pretrained wrote",
    "attn_implementation": "it may name code to fetch; choose the attention when loading, by attn_implementation=...",
    "_attn_implementation": "it may name code to fetch; choose the attention when loading, by attn_implementation=...",
}
ORIGIN_FIELDS = {"name", "repo_id", "filename", "sha256", "license", "entry"}
PROCESSOR_TYPES = (PixelViTImageProcessor.__name__, PixelViTImageProcessorPil.__name__)
SWITCHES = (
    "do_resize",
    "do_center_crop",
    "do_rescale",
    "do_normalize",
    "do_convert_rgb",
    "do_pad",
    "do_reduce_labels",
)
RESAMPLING = range(6)  # Pillow's filters
LEAST_CROP_PCT = 0.05  # an image is resized to `size / crop_pct`, of which this keeps 1 in 400 pixels
MOST_PIXELS = PixelViTImageProcessor.max_pixels


def read_config_settings(folder: Path) -> dict[str, Any]:
    """
    The settings in a checkpoint's config.json, those of them checked that decide which class and file is read.

    Raises:
        CheckpointError: if there is none, or it asks for something that a checkpoint of ours does not need.
    """
    settings = read_settings(folder, CONFIG_FILE)
    if settings is None:
        raise CheckpointError(f"{folder} is neither a checkpoint folder nor a checkpoint of the hub: no {CONFIG_FILE}.")
    where = f"The {CONFIG_FILE} of {folder}"
    for key, reason in ACTING_KEYS.items():
        if settings.get(key) is not None:
            raise CheckpointError(f"{where} has {key}: {reason}.")
    architectures = settings.get("architectures")
    if architectures is not None and not _is_list_of(architectures, str):
        raise CheckpointError(
            f"{where} has architectures={shown(architectures)}, which is no list of class names; get the file again."
        )
    for key in ("dtype", "torch_dtype"):
        if settings.get(key) is not None and settings[key] not in DTYPES:
            raise CheckpointError(f"{where} has {key}={shown(settings[key])}; expected is one of {', '.join(DTYPES)}.")
    return settings


def build_config(
    settings: dict[str, Any],
    model_class: type[PreTrainedModel],
    classes: Iterable[type[PreTrainedModel]],
    folder: Path,
) -> PreTrainedConfig:
    """
    The configuration of a class of ours from the settings of a checkpoint.

    Args:
        settings: What `read_config_settings` returned.
        model_class: The class whose weights the checkpoint holds.
        classes: All of our classes; of those of its family the checkpoint may bring code along.
        folder: Where they come from, for messages.

    Raises:
        CheckpointError: if a value is of a wrong type or out of range, or another family's.
    """
    config_class = model_class.config_class
    where = f"The {CONFIG_FILE} of {folder}"
    if settings.get("model_type") != config_class.model_type:
        raise CheckpointError(
            f"{where} has model_type={shown(settings.get('model_type'))}, but {model_class.__name__} is of type "
            f"{config_class.model_type!r}; get the file again."
        )
    family = [model for model in classes if model.config_class is config_class]
    _check_auto_map(settings, _processor_code().union(*(model.family_auto_map.values() for model in family)), where)
    _check_labels(settings, where)
    for name, kind in zip(STAGE_FIELDS, (str, int), strict=True):
        if settings.get(name) is not None and not _is_list_of(settings[name], kind):
            raise CheckpointError(f"{where} has {name}={shown(settings[name])}; expected is a list of {kind.__name__}.")
    own_fields = {field.name for field in dataclasses.fields(config_class)}
    own_fields -= {field.name for field in dataclasses.fields(PreTrainedConfig)} | {"_out_features", "_out_indices"}
    taken = own_fields.union(LABEL_FIELDS, STAGE_FIELDS)
    fields = {name: value for name, value in settings.items() if name in taken}
    left_out = [name for name in settings if name not in taken | KNOWN_KEYS | {"weights_origin"}]
    if left_out:
        logger.info("%s: left out %s.", where, shown(left_out))
    try:
        config = config_class(**fields, architectures=[model_class.__name__])
    except (ValueError, StrictDataclassError) as error:
        raise CheckpointError(f"{where} does not fit: {_reason(error)}") from None
    if settings.get("weights_origin") is not None:
        config.weights_origin = _checked_origin(settings["weights_origin"], where)
    return config


def read_processor(folder: Path, config: PreTrainedConfig, is_classifier: bool) -> PixelViTImageProcessor:
    """
    The image processor saved in a checkpoint folder.

    Args:
        folder: The checkpoint.
        config: The model's.
        is_classifier: Whether images must come out at the model's size.

    Raises:
        CheckpointError: if there is none, it is not ours, or a setting is of a wrong type or out of range.
    """
    settings = read_settings(folder, PROCESSOR_FILE)
    if settings is None:
        raise CheckpointError(
            f"{folder} lacks a part that can be read, the image processor ({PROCESSOR_FILE}); give a complete "
            "checkpoint."
        )
    where = f"The {PROCESSOR_FILE} of {folder}"
    if settings.get("image_processor_type") not in PROCESSOR_TYPES:
        raise CheckpointError(
            f"{where} has image_processor_type={shown(settings.get('image_processor_type'))}; expected is "
            f"{PROCESSOR_TYPES[0]}, which PixelViTImageProcessor.for_config(config).save_pretrained(folder) writes."
        )
    _check_auto_map(settings, _processor_code(), where)
    taken = {name: settings[name] for name in _PROCESSOR_CHECKS if settings.get(name) is not None}
    for name, value in taken.items():
        is_allowed, allowed = _PROCESSOR_CHECKS[name]
        if not is_allowed(value):
            raise CheckpointError(f"{where} has {name}={shown(value)}; expected is {allowed}.")
    try:
        processor = PixelViTImageProcessor(**taken)
        # The checks of every call, once: so a file that does not fit is found when it is loaded.
        processor._standardize_kwargs(
            **{name: getattr(processor, name, None) for name in ("size", "crop_size", "pad_size", "crop_pct")},
            max_pixels=processor.max_pixels,
            do_center_crop=processor.do_center_crop,
        )
    except (TypeError, ValueError) as error:
        raise CheckpointError(f"{where} does not fit: {_reason(error)}") from None
    size = (processor.size.get("height"), processor.size.get("width"))
    if is_classifier and processor.do_resize and None not in size and size != as_pair(config.image_size):
        height, width = as_pair(config.image_size)
        raise CheckpointError(
            f"{where} makes images of {size[0]} by {size[1]} pixels, but the model takes {height} by {width}; save one "
            "as PixelViTImageProcessor.for_config(config) makes it."
        )
    return processor


# Parts of config.json


def _check_auto_map(settings: dict[str, Any], ours: set[str], where: str):
    """Refuses entries that name code other than the files that go with our checkpoints."""
    auto_map = settings.get("auto_map") or {}
    if not isinstance(auto_map, dict):
        raise CheckpointError(f"{where} has auto_map={shown(auto_map)}, which is no JSON object; get the file again.")
    for key, value in auto_map.items():
        names = value.values() if isinstance(value, dict) else value if isinstance(value, list) else [value]
        for name in names:
            if name is not None and (not isinstance(name, str) or name not in ours):
                raise CheckpointError(
                    f"{where} has the auto_map entry {shown(key)}: {shown(name)}, which is not code of this package, "
                    "and no other is run; get the folder from whoever made it."
                )


def _processor_code() -> set[str]:
    return {
        f"{processor.__module__.split('.')[-1]}.{processor.__name__}"
        for processor in (PixelViTImageProcessor, PixelViTImageProcessorPil)
    }


def _check_labels(settings: dict[str, Any], where: str):
    """Refuses class names that are not one for each index from 0 on, before a config is made of them."""
    names, indices, count = (settings.get(name) for name in ("id2label", "label2id", "num_labels"))
    if names is not None:
        is_map = isinstance(names, dict) and all(isinstance(name, str) for name in names.values())
        if not is_map or len(names) > MOST_LABELS or set(names) != {str(index) for index in range(len(names))}:
            raise CheckpointError(
                f"{where} has id2label={shown(names)}; expected is a name for each index from 0 on. Get the file again."
            )
    if indices is not None:
        is_map = isinstance(indices, dict) and all(type(index) is int for index in indices.values())
        if not is_map or len(indices) > MOST_LABELS:
            raise CheckpointError(
                f"{where} has label2id={shown(indices)}; expected is an index for each name. Get the file again."
            )
    if count is not None and type(count) is not int:
        raise CheckpointError(f"{where} has num_labels={shown(count)}; expected is an integer.")


def _checked_origin(origin: Any, where: str) -> dict[str, str | None]:
    is_origin = isinstance(origin, dict) and set(origin) == ORIGIN_FIELDS
    if not is_origin or not all(value is None or isinstance(value, str) for value in origin.values()):
        raise CheckpointError(
            f"{where} has weights_origin={shown(origin)}; expected are {', '.join(sorted(ORIGIN_FIELDS))}, as "
            "training.import_released writes them. Import the checkpoint again."
        )
    return dict(origin)


# Parts of preprocessor_config.json


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and abs(value) <= 1e9


def _is_switch(value: Any) -> bool:
    return isinstance(value, bool)


def _is_statistic(value: Any) -> bool:
    values = value if isinstance(value, list) else [value]
    return len(values) in (1, 3) and all(map(_is_number, values))


def _is_deviation(value: Any) -> bool:
    return _is_statistic(value) and all(abs(part) >= 1e-6 for part in (value if isinstance(value, list) else [value]))


def _is_size(value: Any) -> bool:
    sides = value.values() if isinstance(value, dict) else value if isinstance(value, list) else [value]
    if not 1 <= len(sides) <= 2 or not all(type(side) is int and side >= 1 for side in sides):
        return False
    return max(sides) <= MOST_PIXELS and math.prod(sides) <= MOST_PIXELS


_PROCESSOR_CHECKS = {
    **dict.fromkeys(SWITCHES, (_is_switch, "true or false")),
    **dict.fromkeys(("size", "crop_size", "pad_size"), (_is_size, f"a size of at most {MOST_PIXELS} pixels")),
    "crop_pct": (
        lambda value: _is_number(value) and LEAST_CROP_PCT <= value <= 1,
        f"a number from {LEAST_CROP_PCT} to 1",
    ),
    "resample": (lambda value: type(value) is int and value in RESAMPLING, "one of Pillow's filters, 0 to 5"),
    "rescale_factor": (lambda value: _is_number(value) and abs(value) >= 1e-9, "a number other than 0"),
    "image_mean": (_is_statistic, "three numbers, one a channel"),
    "image_std": (_is_deviation, "three numbers other than 0, one a channel"),
    "max_pixels": (
        lambda value: type(value) is int and 1 <= value <= MOST_PIXELS,
        f"an integer from 1 to {MOST_PIXELS}; set a larger one on the loaded processor",
    ),
}


def _is_list_of(values: Any, kind: type) -> bool:
    return isinstance(values, list) and all(type(value) is kind for value in values)


def _reason(error: Exception) -> str:
    """What was wrong, in a line: the cause that a strict dataclass wraps, without the name of its checker."""
    cause = error.__cause__ if isinstance(error, StrictDataclassError) and error.__cause__ else error
    return re.sub(r"\s+", " ", str(cause))[:400]
