# Copyright 2026 The modeling_pixelvit team. All rights reserved.
# SPDX-License-Identifier: Apache-2.0
"""The layout of transformers' ViT, under its present and its old names."""

import dataclasses
import re
from typing import Any

from transformers import ViTConfig

from modeling_pixelvit import PixelViTConfig
from modeling_pixelvit.configuration_base import MOST_LABELS

from ..checkpoints.reading import CheckpointError, shown
from .source import Source, Translation, heads_for, make_config, rename, square_assumption


TRANSFORMERS_NAMES = (
    (r"encoder\.layer\.(\d+)\.", r"layers.\1."),
    (r"(layers\.\d+)\.attention\.attention\.query\.", r"\1.attention.q_proj."),
    (r"(layers\.\d+)\.attention\.attention\.key\.", r"\1.attention.k_proj."),
    (r"(layers\.\d+)\.attention\.attention\.value\.", r"\1.attention.v_proj."),
    (r"(layers\.\d+)\.attention\.output\.dense\.", r"\1.attention.o_proj."),
    (r"(layers\.\d+)\.intermediate\.dense\.", r"\1.mlp.fc1."),
    (r"(layers\.\d+)\.output\.dense\.", r"\1.mlp.fc2."),
)
# Of ViTModel and of masked pre-training: nothing that features or a classifier go through.
TRANSFORMERS_DROPPED = r"pooler\.|embeddings\.mask_token$|decoder\."
# Fields of ViTConfig that our config has under the same name and that no shape tells.
TRANSFORMERS_FIELDS = (
    "hidden_act",
    "hidden_dropout_prob",
    "attention_probs_dropout_prob",
    "initializer_range",
    "layer_norm_eps",
    "problem_type",
)


def translate_transformers(source: Source) -> Translation:
    """A checkpoint of transformers' `ViTModel` or `ViTForImageClassification`, under the names of any version."""
    _refuse_other_architectures(source)
    names = {_present_name(name): name for name in source.weights}
    if len(names) != len(source.weights):
        raise CheckpointError(f"{source.path} holds one weight under two names; give a checkpoint of one version.")
    # From here on under the present names.
    weights = {present: source.weights[name] for present, name in names.items()}
    told = _read_vit_config(source)
    source = Source(source.path, weights, source.settings, _told_image_size(source, told), source.num_attention_heads)
    config = make_config(PixelViTConfig, source, _transformers_sizes(source, told))
    translation = Translation("transformers' ViT", config)
    if told is None:
        translation.assumptions += [
            f"num_attention_heads={config.num_attention_heads}, "
            + ("as told" if source.num_attention_heads else "as usual at this width"),
            f"layer_norm_eps={config.layer_norm_eps} and GELU, transformers' defaults: there is no config.json",
            *square_assumption(source, config),
        ]
    elif config.num_attention_heads != told.num_attention_heads:
        translation.assumptions.append(
            f"num_attention_heads={config.num_attention_heads}, as told, not the config's {told.num_attention_heads}"
        )
    for name, tensor in weights.items():
        if re.match(TRANSFORMERS_DROPPED, name):
            translation.dropped.append(names[name])
        else:
            translation.add(name, tensor, names[name])
    return translation


def _refuse_other_architectures(source: Source):
    distilled = [name for name in source.weights if re.search(r"distillation_token$|distillation_classifier\.", name)]
    model_type = (source.settings or {}).get("model_type", "vit")
    if distilled or model_type == "deit":
        raise CheckpointError(
            f"{source.path} is a distilled DeiT"
            + (f" ({distilled[0]!r})" if distilled else " by its config.json")
            + ": in every block its class token attends to a second, distillation token, which PixelViT does not have, "
            "so no exact conversion exists. Give one without it, such as facebook/deit-base-patch16-224, which "
            "transformers loads as ViTForImageClassification."
        )
    if model_type != "vit":
        raise CheckpointError(
            f"{source.path} is a model of type {shown(model_type)} by its config.json; of transformers' models 'vit' "
            "can be converted."
        )


def _present_name(name: str) -> str:
    return rename(re.sub(r"^(vit|deit)\.", "", name), TRANSFORMERS_NAMES, repeatedly=True)


def _read_vit_config(source: Source) -> ViTConfig | None:
    if source.settings is None or "model_type" not in source.settings:
        return None
    labels = source.settings.get("id2label")
    names = {field.name for field in dataclasses.fields(ViTConfig)} - {"num_hidden_layers", "dtype"}
    fields = {name: value for name, value in source.settings.items() if name in names}
    try:
        if labels is not None and not (isinstance(labels, dict) and len(labels) <= MOST_LABELS):
            raise ValueError(f"id2label is {shown(labels)}")
        told = ViTConfig(**fields)
        if not isinstance(told.image_size, int) and len(told.image_size) != 2:
            raise ValueError(f"image_size is {shown(told.image_size)}")
        return told
    except Exception as error:  # of several kinds: the file is somebody else's text
        reason = " ".join(str(error).split())[:400]
        raise CheckpointError(
            f"The config.json of {source.path} is not one of a ViT ({reason}); get it again."
        ) from None


def _told_image_size(source: Source, told: ViTConfig | None) -> tuple[int, int] | None:
    if source.image_size is not None or told is None:
        return source.image_size
    return (told.image_size, told.image_size) if isinstance(told.image_size, int) else tuple(told.image_size)


def _transformers_sizes(source: Source, told: ViTConfig | None) -> dict[str, Any]:
    sizes = source.patches("embeddings.patch_embeddings.projection.weight")
    sizes |= {
        "num_hidden_layers": source.num_blocks(r"layers\.(\d+)\."),
        "intermediate_size": source.shape("layers.0.mlp.fc1.weight", 2)[0],
        "num_attention_heads": heads_for(source, sizes["hidden_size"], told and told.num_attention_heads),
        "qkv_bias": "layers.0.attention.q_proj.bias" in source.weights,
        "layer_norm_eps": 1e-12,
    }
    num_patches = source.shape("embeddings.position_embeddings", 3)[1] - 1
    sizes["image_size"] = source.image_size_for(num_patches, sizes["patch_size"])
    if told is not None:
        sizes |= {name: getattr(told, name) for name in TRANSFORMERS_FIELDS}
        if "classifier.weight" in source.weights and told.num_labels == source.shape("classifier.weight", 2)[0]:
            sizes["id2label"] = told.id2label
    return sizes
