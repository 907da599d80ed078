# Copyright 2026 The modeling_pixelvit team. All rights reserved.
# SPDX-License-Identifier: Apache-2.0
"""
Other people's checkpoints as folders that `from_pretrained` loads.

Family, size, patch and image size follow from the tensors' shapes; what does not is reported as assumed. Every tensor
is converted, named as dropped, or the checkpoint is refused. Nothing in a file is executed (see
`checkpoints/reading.py`).
"""

import logging
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from transformers import PreTrainedModel

from modeling_pixelvit.configuration_base import MOST_LABELS
from modeling_pixelvit.image_processing_pixelvit import PixelViTImageProcessor

from ..checkpoints.reading import CheckpointError, read_checkpoint, read_settings, select_weights
from ..checkpoints.weights import nonfinite_weights
from ..common.files import is_free, whole_folder
from ..families.base import BASE_MODEL, CLASSIFIER
from ..families.registry import FAMILIES, variant_of
from .layouts import translate
from .preprocessing import processor_settings
from .source import Source, Translation


logger = logging.getLogger(__name__)

# For messages: enough to recognise, not enough to fill a screen.
SHOWN_NAMES = 4


def convert(
    source: str | Path,
    output_dir: str | Path,
    ema: bool = False,
    image_size: tuple[int, int] | None = None,
    num_attention_heads: int | None = None,
    labels: list[str] | None = None,
    image_mean: list[float] | None = None,
    image_std: list[float] | None = None,
    overwrite: bool = False,
    report: Callable[[str], None] = logger.info,
) -> PreTrainedModel:
    """
    Converts a checkpoint and writes it as a folder with model, image processor and code.

    Args:
        source: A released Adventurer `.pth`; weights of timm's `vit_*` or `deit_*`; a folder or weights file of
            transformers' ViT.
        output_dir: The folder to write. It is written completely or not at all.
        ema: Whether to take the averaged weights (`model_ema`).
        image_size: Height and width in pixels that the position table is made for; needed if they are not equal.
        num_attention_heads: Attention heads, where neither the checkpoint nor its width tells.
        labels: Class names in order; otherwise those that the checkpoint brings along, or `LABEL_0`, `LABEL_1`, ... .
        image_mean: Mean of each channel that the model was trained with; otherwise what lies beside the checkpoint, or
            ImageNet's.
        image_std: Likewise the deviation.
        overwrite: Whether to replace `output_dir` if it already holds a checkpoint.
        report: Gets one line of text for each thing worth knowing.

    Returns:
        The model that was written, in the dtype of the source's weights, in evaluation mode. Without a head in the
        source it is the base model.

    Raises:
        CheckpointError: in one sentence, if this cannot be done. Nothing is written then.
    """
    source, output_dir = Path(source), Path(output_dir).resolve()
    check_output(output_dir, overwrite, source)
    translation, entry = load_translation(source, ema, image_size, num_attention_heads)
    report(f"{source}: {translation.layout}" + (f", entry '{entry}'" if entry else ""))
    model = build_model(translation, source, labels)
    report(describe(model))
    for assumption in translation.assumptions:
        report(f"assumed: {assumption}")
    if translation.dropped:
        report(f"dropped: {', '.join(translation.dropped)}")
    broken = nonfinite_weights(model)
    if broken:
        report(f"warning: there are NaN or infinite values in {shorten(broken)}")
    processor = build_processor(model, source, image_mean, image_std, report)
    with whole_folder(output_dir) as folder:
        model.save_pretrained(folder)
        if processor is not None:
            processor.save_pretrained(folder)
    report(f"wrote {output_dir}")
    return model


def load_translation(
    source: Path, ema: bool = False, image_size: tuple[int, int] | None = None, num_attention_heads: int | None = None
) -> tuple[Translation, str]:
    """Reads a checkpoint and brings it under our names; also says which entry of the file the weights come from."""
    settings = read_settings(source, "config.json")
    if settings is not None and settings.get("model_type") in [*FAMILIES]:  # which may be anything, lists too
        raise CheckpointError(f"{source} is a checkpoint of this package already; load it with from_pretrained.")
    weights, entry, left = select_weights(read_checkpoint(source), ema, source)
    translation = translate(Source(source, weights, settings, image_size, num_attention_heads))
    translation.dropped += left
    return translation, entry


def build_model(translation: Translation, source: Path, labels: list[str] | None = None) -> PreTrainedModel:
    """
    The model of a translated checkpoint: the classifier if there is a head, otherwise the base model.

    Raises:
        CheckpointError: if a weight is missing, has another shape or is not one of this model, or if the number of
            labels is not that of the head.
    """
    classes = FAMILIES[translation.config.model_type].model_classes
    has_head = "classifier.weight" in translation.tensors
    if labels is not None and not has_head:
        raise CheckpointError(f"Labels were given, but {source} has no classifier; convert it without them.")
    if has_head:
        set_labels(translation, source, labels)
    # On the meta device: every weight is about to be assigned, so none needs memory or a random value.
    with torch.device("meta"):
        model = classes[CLASSIFIER if has_head else BASE_MODEL](translation.config)
    prefix = f"{model.base_model_prefix}." if has_head else ""
    names = {name: name if name.startswith("classifier.") else prefix + name for name in translation.tensors}
    check_weights(translation, {ours: model.state_dict().get(name) for ours, name in names.items()}, source)
    missing = model.state_dict().keys() - names.values()
    if missing:
        raise CheckpointError(
            f"{source} lacks weights for {shorten(sorted(missing))} of this model; get the whole checkpoint."
        )
    tensors = as_one_dtype(translation.tensors, model._keep_in_fp32_modules_strict or ())
    model.load_state_dict({names[ours]: tensor for ours, tensor in tensors.items()}, strict=True, assign=True)
    return model.eval()


def set_labels(translation: Translation, source: Path, labels: list[str] | None):
    """Gives the config the head's number of classes, and their names: given, from the source, or numbered."""
    config, shape = translation.config, translation.tensors["classifier.weight"].shape
    if len(shape) != 2 or not 1 <= shape[0] <= MOST_LABELS:
        raise CheckpointError(
            f"{source} has a head, {translation.sources['classifier.weight']!r}, of shape {tuple(shape)}; expected are "
            f"1 to {MOST_LABELS} classes by the hidden size. Get the file again."
        )
    num_labels = shape[0]
    if labels is not None and len(labels) != num_labels:
        raise CheckpointError(
            f"{len(labels)} labels were given, but {source} has {num_labels} classes; give one name for each."
        )
    if labels is not None:
        config.id2label = dict(enumerate(labels))
    elif config.num_labels != num_labels:
        config.num_labels = num_labels
    config.label2id = {}
    for index, label in config.id2label.items():
        config.label2id.setdefault(label, index)  # ImageNet's short names are not all different


def check_weights(translation: Translation, targets: dict[str, torch.Tensor | None], source: Path):
    """Compares the translated tensors with those of the model that they are for (None: it has no such one)."""
    unexpected = [translation.sources[name] for name, target in targets.items() if target is None]
    if unexpected:
        raise CheckpointError(
            f"{source} looks like {translation.layout}, but holds {shorten(unexpected)}, which such a model does not "
            "have; if the model has parts of its own, it cannot be converted."
        )
    for name, target in targets.items():
        tensor, original = translation.tensors[name], translation.sources[name]
        if tensor.shape != target.shape:
            raise CheckpointError(
                f"{source}: {original!r} makes {name!r} of shape {tuple(tensor.shape)}, but by the other shapes it is "
                f"{tuple(target.shape)}; get the file again."
            )
        supported = tensor.dtype in (torch.float16, torch.bfloat16, torch.float32, torch.float64)
        if not supported or tensor.layout != torch.strided or tensor.is_meta:
            raise CheckpointError(
                f"{source} holds {original!r} as {tensor.dtype}, {tensor.layout} on {tensor.device}; expected are "
                "dense tensors of float16, bfloat16, float32 or float64. Give a checkpoint that is not quantized."
            )


def as_one_dtype(tensors: dict[str, torch.Tensor], kept: tuple[str, ...] | list[str]) -> dict[str, torch.Tensor]:
    """
    Copies of the tensors, bit for bit, in memory of their own.

    A model is loaded in one dtype, but for the parameters `kept` in float32; so where a source mixes dtypes, all others
    are raised to the widest, which changes no value.
    """
    dtypes = {tensor.dtype for name, tensor in tensors.items() if name.split(".")[-1] not in kept}
    widest = max(dtypes, key=lambda dtype: dtype.itemsize)
    for dtype in dtypes:
        widest = torch.promote_types(widest, dtype)
    copies = {}
    for name, tensor in tensors.items():
        dtype = tensor.dtype if name.split(".")[-1] in kept else widest
        copies[name] = tensor.to(dtype, copy=True, memory_format=torch.contiguous_format)
    return copies


def build_processor(
    model: PreTrainedModel,
    source: Path,
    image_mean: list[float] | None,
    image_std: list[float] | None,
    report: Callable[[str], None],
) -> PixelViTImageProcessor | None:
    """The image processor of the paper's evaluation, with what the source's own one does differently."""
    config = model.config
    given = {"image_mean": image_mean, "image_std": image_std}
    given = {name: values for name, values in given.items() if values is not None}
    for name, values in given.items():
        if len(values) != config.num_channels or not all(map(math.isfinite, values)):
            raise CheckpointError(
                f"{name} {values} was given; give {config.num_channels} finite numbers, one a channel."
            )
    if config.num_channels != 3:
        report(f"no image processor: the model takes {config.num_channels} channels, and a processor makes RGB")
        return None
    settings, origin = processor_settings(source)
    if settings:
        report(f"image processor: as in {origin}: {', '.join(f'{name}={value}' for name, value in settings.items())}")
    elif not given:
        report("assumed: images normalised by ImageNet's mean and deviation (else give --image_mean and --image_std)")
    try:
        return PixelViTImageProcessor.for_config(config, **{**settings, **given})
    except (TypeError, ValueError) as error:
        raise CheckpointError(f"The image processor's settings beside {source} do not fit: {error}") from None


def describe(model: PreTrainedModel) -> str:
    """One line on what a checkpoint became."""
    config = model.config
    rows, columns = (side * config.patch_size for side in config.grid_size)
    head = f"{config.num_labels} classes" if model.base_model is not model else "no head"
    parameters = sum(parameter.numel() for parameter in model.parameters())
    return (
        f"{type(model).__name__}, {variant_name(config)}: {config.patch_size}-pixel patches at {rows} by {columns} "
        f"pixels, {head}, {parameters:,} parameters, {str(model.dtype).removeprefix('torch.')}"
    )


def variant_name(config: Any) -> str:
    """The model's size by Table 7, such as "size base"; otherwise its numbers."""
    variant = variant_of(config)
    return f"size {variant}" if variant else f"{config.num_hidden_layers} blocks of width {config.hidden_size}"


def shorten(names: list[str]) -> str:
    """The first few names, and how many more there are."""
    more = len(names) - SHOWN_NAMES
    shown = ", ".join(repr(name) for name in names[:SHOWN_NAMES])
    return f"{shown} and {more} more" if more > 0 else shown


# The folder


def check_output(output_dir: Path, overwrite: bool, source: Path):
    """Refuses to write over anything but an empty folder, or with `overwrite` a checkpoint other than the source."""
    if is_free(output_dir):
        return
    if not output_dir.is_dir():
        raise CheckpointError(f"{output_dir} is a file; give the path of a folder to write.")
    if not overwrite:
        raise CheckpointError(f"{output_dir} is not empty; give another folder, or --overwrite to replace it.")
    if not (output_dir / "config.json").is_file():
        raise CheckpointError(f"{output_dir} holds something other than a checkpoint; give another folder.")
    if source.resolve().is_relative_to(output_dir):
        raise CheckpointError(f"{output_dir} holds the checkpoint to convert, {source}; give another folder.")
