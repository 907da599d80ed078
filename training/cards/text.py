# Copyright 2026 The modeling_pixelvit team. All rights reserved.
# SPDX-License-Identifier: Apache-2.0
"""The sentences of a model card that depend on what the model is, what it costs, and where its weights come from."""

import re
from pathlib import PurePath, PureWindowsPath
from typing import Any

from transformers import BaseImageProcessor, PreTrainedConfig

from modeling_pixelvit.configuration_base import as_pair

from ..checkpoints.cost import ModelCost, readable_flops
from ..families.base import is_multi_label
from ..families.registry import FAMILIES, variant_of
from .results import Row


MAX_NAME_LENGTH = 60
MAX_CLASSES_NAMED = 20
# What is known of the data sets of the paper's checkpoints.
DATASET_LIMITS = {
    "imagenet-1k": (
        "It gives one of ImageNet-1k's 1,000 labels to any image, of whatever it is. Those photographs come from the "
        "web, with label errors and an uneven choice of places and people that a model learns too; do not decide about "
        "people by it."
    ),
    "ade20k": (
        "It gives one of ADE20k's 150 classes to every pixel; photographs of other kinds than its indoor and outdoor "
        "scenes, and rare classes, are where it will be wrong first."
    ),
    "coco": (
        "It finds COCO's 80 kinds of everyday objects only. Photographs and boxes are people's choices of places and "
        "of what counts as an object; do not use it to watch or to judge people."
    ),
}
DATASET_LIMITS["digits"] = DATASET_LIMITS["digit-scenes"] = (
    "A model to try the code and the method with: it knows scikit-learn's handwritten digits of 8 by 8 pixels and "
    "nothing else."
)
PROTOCOL_LIMITS = {
    "classification": (
        "Top-1 accuracy of the paper is with bicubic resizing and, after the released code, a crop ratio of 0.875 "
        "(patch 16 at 224 pixels, and inputs of 64) or 1.0 (all others)."
    ),
    "segmentation": (
        "The paper's tables do not say at which size it was trained and measured; 512 pixels is our reading. Its "
        "counts of parameters for small patches are below ours, which include the whole position table."
    ),
    "detection": (
        "The paper's table does not name the detector or the image size; Cascade Mask R-CNN over a simple feature "
        "pyramid at 1024 pixels, as ViTDet has it, is our reading."
    ),
}
PAPER_CITATION = """\
@inproceedings{wang2025scaling,
  title     = {Scaling Laws in Patchification: An Image Is Worth 50,176 Tokens And More},
  author    = {Wang, Feng and Yu, Yaodong and Wei, Guoyizhe and Shao, Wei and Zhou, Yuyin and Yuille, Alan and
               Xie, Cihang},
  booktitle = {International Conference on Machine Learning},
  year      = {2025}
}"""


def plain(text: Any) -> str:
    """One line without what Markdown, a table or HTML would take for its own, cut to a readable length."""
    line = " ".join(str(text).split())
    line = line if len(line) <= MAX_NAME_LENGTH else line[: MAX_NAME_LENGTH - 1] + "…"
    return re.sub(r"([\\`*|<>\[\]])", r"\\\1", line)


def without_folders(value: Any) -> Any:
    """The same, but of absolute paths only the last name: where a file lay on a machine is nobody's business."""
    if isinstance(value, dict):
        return {key: without_folders(entry) for key, entry in value.items()}
    if isinstance(value, (list, tuple)):
        return [without_folders(entry) for entry in value]
    if isinstance(value, str) and (PurePath(value).is_absolute() or PureWindowsPath(value).is_absolute()):
        return PureWindowsPath(value).name if "\\" in value else PurePath(value).name
    return value


# What the model is


def model_name(config: PreTrainedConfig) -> str:
    """As the paper writes it where it is one of Table 7's sizes: DeiT-Base, Adventurer-Tiny."""
    family, variant = FAMILIES[config.model_type], variant_of(config)
    if variant is not None:
        return f"{family.paper_title}-{variant.capitalize()}"
    return f"{family.title} of {config.num_hidden_layers} blocks and width {config.hidden_size}"


def purpose_of(config: PreTrainedConfig, task: str) -> str:
    if task == "segmentation":
        decoder = "UperNet" if config.decoder_type == "upernet" else "one linear layer over the tokens as the decoder"
        return f"semantic segmentation with {decoder}"
    if task == "detection":
        head = "Cascade " if config.use_cascade else ""
        head += "Mask R-CNN" if config.use_masks else "R-CNN without masks" if head else "Faster R-CNN"
        what = "object detection and instance segmentation" if config.use_masks else "object detection"
        return f"{what} with {head} over a simple feature pyramid"
    if is_multi_label(config):
        return "multi-label image classification"
    return {"classification": "image classification", "features": "image features"}[task]


def class_names(config: PreTrainedConfig) -> str:
    """The classes, if they are few and have names of their own."""
    names = list(config.id2label.values())
    if len(names) > MAX_CLASSES_NAMED or all(re.fullmatch(r"LABEL_\d+", str(name)) for name in names):
        return ""
    return ", ".join(plain(name) for name in names)


# What it costs


def counted_rows(config: PreTrainedConfig, task: str, cost: ModelCost) -> list[Row]:
    """Tokens, parameters and operations."""
    side = " by ".join(str(pixels) for pixels in as_pair(config.image_size))
    mixing = FAMILIES[config.model_type].mixing(config)
    encoder = f"{readable_flops(cost.encoder_flops)}, {cost.mixing_flops / cost.encoder_flops:.1%} of it {mixing}"
    rows = [
        Row(f"patch tokens of {side} pixels", f"{cost.tokens:,}", "counted"),
        Row("parameters", f"{cost.parameters:,}, of them {cost.position_parameters:,} positions", "counted"),
    ]
    if task in ("classification", "features"):
        return [*rows, Row("forward pass", encoder, "counted")]
    heads = "decoder" if task == "segmentation" else "pyramid and heads, at most"
    return [
        *rows,
        Row("forward pass, encoder", encoder, "counted"),
        Row(f"forward pass, {heads}", readable_flops(cost.head_flops), "counted"),
    ]


def describe_cost(config: PreTrainedConfig) -> str:
    """How the encoder's cost grows when the patch shrinks, and what the other family costs at this length."""
    text, variant = FAMILIES[config.model_type].cost_of_half_the_patch, variant_of(config)
    other = next(family for family in FAMILIES.values() if family.name != config.model_type)
    if variant is None:
        return f"{text}."
    sizes = {name: getattr(config, name) for name in ("patch_size", "image_size", "sequence_extension")}
    flops, _ = other.encoder_flops(other.config_class.from_variant(variant, **sizes), config.num_patches)
    name = f"{other.paper_title}-{variant.capitalize()}"
    return f"{text}. {name}'s encoder costs {readable_flops(flops)} on the same tokens."


# What it cannot do


def limits_of(
    config: PreTrainedConfig,
    task: str,
    entry: dict[str, Any] | None,
    dataset: str | None,
    processor: BaseImageProcessor | None,
) -> list[str]:
    """
    What to know before using the model.

    Args:
        config: The model's.
        task: One of the four tasks.
        entry: The checkpoint of the paper with this configuration, if there is one.
        dataset: What the weights at hand were measured on, by the name in `results.yaml` or any other.
        processor: The image processor saved beside the model.
    """
    limits = []
    if dataset in DATASET_LIMITS:
        limits.append(DATASET_LIMITS[dataset])
    elif task != "features":
        limits.append("It knows the classes of its training data only, and answers with them for any image.")
    if entry is not None and task in PROTOCOL_LIMITS:
        limits.append(PROTOCOL_LIMITS[task])
    if processor is not None:
        limits.append(processor_text(processor))
    cost = FAMILIES[config.model_type].growth
    limits.append(
        f"Time and memory grow {cost} the number of tokens; at this patch size look at the costs above before you "
        "raise the image size."
        if config.patch_size < 16
        else f"Time and memory grow {cost} the number of tokens, at other image and patch sizes too."
    )
    limits.append("Nothing in this card was measured on a GPU by us.")
    return limits


def processor_text(processor: BaseImageProcessor) -> str:
    """How the image processor changes an image before the model sees it."""
    size = {name: value for name, value in dict(processor.size).items() if value is not None}
    if not processor.do_resize:
        return "The image processor does not resize images; give them in the model's size."
    if set(size) == {"height", "width"}:
        target = f"{size['height']} by {size['width']} pixels"
        if not processor.do_center_crop:
            return f"The image processor resizes every image to {target}; finer details are lost."
        return (
            f"The image processor keeps the middle of every image, {100 * processor.crop_pct:.3g}% of its shorter "
            f"edge, and resizes that to {target}; what is outside, and finer details, are lost."
        )
    named = ", ".join(f"{name.replace('_', ' ')} {value}" for name, value in size.items())
    return f"The image processor resizes whole images ({named} pixels); finer details are lost."
