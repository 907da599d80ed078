# Copyright 2026 The modeling_pixelvit team. All rights reserved.
# SPDX-License-Identifier: Apache-2.0
"""
What other codebases call their weights, and what we call them.

Three layouts are known: the released Adventurer code's, timm's vision transformer (which is also DeiT's, DeiT III's,
MAE's and DINO's own) and transformers' ViT under its present and its old names. Each becomes a `Translation`: a config
worked out from shapes, and tensors under our names.

Letters: D hidden size, N patches, p patch side, M inner width of Adventurer's mixer, G groups, S state size.
"""

import dataclasses
import math
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from transformers import ViTConfig

from modeling_pixelvit import AdventurerConfig, PixelViTConfig
from modeling_pixelvit.configuration_base import MOST_LABELS

from ..checkpoints.reading import CheckpointError, shown


@dataclass
class Translation:
    """
    A checkpoint under our names.

    Attributes:
        layout: What was recognised.
        config: Configuration worked out from it.
        tensors: Our names, without the base model's prefix, to tensors; the head is `classifier.{weight,bias}`.
        sources: Our names to the source's.
        assumptions: What shapes and names do not tell, and what was taken instead.
        dropped: Source names left behind on purpose.
    """

    layout: str
    config: AdventurerConfig | PixelViTConfig
    tensors: dict[str, torch.Tensor] = field(default_factory=dict)
    sources: dict[str, str] = field(default_factory=dict)
    assumptions: list[str] = field(default_factory=list)
    dropped: list[str] = field(default_factory=list)

    def add(self, name: str, tensor: torch.Tensor, source: str):
        """Files a tensor under our name; two sources of one name are an error."""
        if name in self.tensors:
            raise CheckpointError(
                f"The checkpoint holds both {self.sources[name]!r} and {source!r}, which are the same weight; give a "
                "checkpoint with one of them."
            )
        self.tensors[name], self.sources[name] = tensor, source


@dataclass
class Source:
    """A checkpoint under its own names, and what the user and the files beside it say about it."""

    path: Path
    weights: Mapping[str, torch.Tensor]
    settings: dict[str, Any] | None = None
    image_size: tuple[int, int] | None = None
    num_attention_heads: int | None = None

    def shape(self, name: str, dims: int) -> tuple[int, ...]:
        """Shape of the weight `name`, which must be there and have `dims` dimensions, none of them empty."""
        if name not in self.weights:
            raise CheckpointError(
                f"{self.path} lacks {name!r}, which tells the model's size; get the whole checkpoint."
            )
        shape = tuple(self.weights[name].shape)
        if len(shape) != dims or 0 in shape:
            raise CheckpointError(
                f"{self.path}: {name!r} has shape {shape}; expected are {dims} dimensions, none empty. Get the file "
                "again."
            )
        return shape

    def num_blocks(self, pattern: str) -> int:
        """Number of blocks, whose index is the pattern's first group; the indices must be 0, 1, 2, ... ."""
        # No more digits than a block's index can have.
        indices = {int(match[1][:9]) for name in self.weights if (match := re.match(pattern, name))}
        if indices != set(range(len(indices))):
            missing = next(index for index in range(len(indices)) if index not in indices)
            raise CheckpointError(
                f"{self.path} holds blocks up to {max(indices)} but not block {missing}; get the whole checkpoint."
            )
        return len(indices)

    def patches(self, kernel: str) -> dict[str, int]:
        """`hidden_size`, `num_channels` and `patch_size` from the shape of the patch embedding's kernel."""
        hidden_size, channels, rows, columns = self.shape(kernel, 4)
        if rows != columns:
            raise CheckpointError(
                f"{self.path} has patches of {rows} by {columns} pixels; the models here take square patches only."
            )
        return {"hidden_size": hidden_size, "num_channels": channels, "patch_size": rows}

    def grid_of_image(self, patch_size: int) -> tuple[int, int] | None:
        """Patches as (rows, columns) of the image size that was given, if one was."""
        if self.image_size is None:
            return None
        if any(side < patch_size or side % patch_size for side in self.image_size):
            raise CheckpointError(
                f"The image size {self.image_size[0]} by {self.image_size[1]} was given; {self.path} has "
                f"{patch_size}-pixel patches, so height and width must be multiples of {patch_size}."
            )
        return self.image_size[0] // patch_size, self.image_size[1] // patch_size

    def image_size_for(self, num_patches: int, patch_size: int) -> int | list[int]:
        """The image size of N patches: what was given if it fits, otherwise a square."""
        grid = self.grid_of_image(patch_size)
        if grid is not None and math.prod(grid) != num_patches:
            raise CheckpointError(
                f"The image size {self.image_size[0]} by {self.image_size[1]} was given, {math.prod(grid)} patches of "
                f"{patch_size} pixels, but {self.path} has positions for {num_patches}; give the size that it was "
                "trained at, and change it after conversion with from_pretrained(..., image_size=...)."
            )
        side = math.isqrt(num_patches)
        if grid is None and (side * side != num_patches or side == 0):
            raise CheckpointError(
                f"{self.path} has positions for {num_patches} patches, which is no square; give the image size in "
                "pixels with --image_size HEIGHT WIDTH."
            )
        rows, columns = grid or (side, side)
        return rows * patch_size if rows == columns else [rows * patch_size, columns * patch_size]


def translate(source: Source) -> Translation:
    """
    Recognises the layout of a checkpoint by its names and brings it under ours.

    Raises:
        CheckpointError: if it is none of the known layouts, or a model that is not one of ours in other clothes.
    """
    names = source.weights.keys()
    if any(name.startswith(("adventurer.", "pixelvit.")) for name in names):
        raise CheckpointError(f"{source.path} already has this package's names; load its folder with from_pretrained.")
    for recognise, translator in LAYOUTS:
        if any(re.search(recognise, name) for name in names):
            return translator(source)
    first = ", ".join(map(shown, list(names)[:3]))
    raise CheckpointError(
        f"{source.path} holds {len(names)} tensors ({first}, ...) that are not named as in a released Adventurer "
        "checkpoint, timm's vit_* and deit_* models, or transformers' ViT; give one of these."
    )


# Released Adventurer

ADVENTURER_NAMES = (
    (r"patch_embed\.proj\.", "embeddings.patch_embeddings.projection."),
    (r"cls_token$", "embeddings.cls_token"),
    (r"pos_embed$", "embeddings.position_embeddings"),
    (r"layers\.(\d+)\.norm\.", r"layers.\1.mixer_norm."),
    (r"layers\.(\d+)\.norm_mlp\.", r"layers.\1.mlp_norm."),
    (r"layers\.(\d+)\.mlp\.w1\.", r"layers.\1.mlp.gate_proj."),
    (r"layers\.(\d+)\.mlp\.w2\.", r"layers.\1.mlp.up_proj."),
    (r"layers\.(\d+)\.mlp\.w3\.", r"layers.\1.mlp.down_proj."),
    (r"norm_f\.", "norm."),
    (r"head\.", "classifier."),
)


def translate_adventurer(source: Source) -> Translation:
    """A checkpoint of the released Adventurer code. Its class token is last, as ours is."""
    sizes = {**source.patches("patch_embed.proj.weight"), **_mixer_sizes(source)}
    sizes["num_hidden_layers"] = source.num_blocks(r"layers\.(\d+)\.")
    sizes["intermediate_size"] = source.shape("layers.0.mlp.w1.weight", 2)[0]
    sizes["image_size"] = source.image_size_for(source.shape("pos_embed", 3)[1] - 1, sizes["patch_size"])
    # The released code flips these two only, whatever the paper says.
    sizes["flip_blocks"] = [block for block in (2, 3) if block < sizes["num_hidden_layers"]]
    config = make_config(AdventurerConfig, source, sizes)
    translation = Translation("a released Adventurer checkpoint", config)
    translation.assumptions += [
        f"n_groups=1 and, from it, state_size={config.state_size}: shapes tell only their product",
        f"flip_blocks={config.flip_blocks}, as the released code has it: no weight tells",
        f"rms_norm_eps={config.rms_norm_eps}",
        *_square_assumption(source, config),
    ]
    for name, tensor in source.weights.items():
        translation.add(rename(name, ADVENTURER_NAMES), tensor, name)
    return translation


def _mixer_sizes(source: Source) -> dict[str, int]:
    hidden_size = source.shape("patch_embed.proj.weight", 4)[0]
    (inner_size,) = source.shape("layers.0.mixer.norm.weight", 1)
    (num_heads,) = source.shape("layers.0.mixer.A_log", 1)
    channels, _, taps = source.shape("layers.0.mixer.conv1d.weight", 3)  # M + 2 G S
    states = channels - inner_size
    if inner_size % hidden_size or inner_size % num_heads or states < 2 or states % 2:
        raise CheckpointError(
            f"{source.path}: a mixer of inner width {inner_size}, {num_heads} heads and {channels} convolved channels "
            f"does not fit a hidden size of {hidden_size}; the width must be a multiple of hidden size and heads, and "
            "the channels the width plus twice the states."
        )
    return {
        "expand": inner_size // hidden_size,
        "head_dim": inner_size // num_heads,
        "state_size": states // 2,
        "conv_kernel": taps,
    }


# timm's vision transformer

TIMM_NAMES = (
    (r"patch_embed\.proj\.", "embeddings.patch_embeddings.projection."),
    (r"cls_token$", "embeddings.cls_token"),
    (r"pos_embed$", "embeddings.position_embeddings"),
    (r"blocks\.(\d+)\.norm1\.", r"layers.\1.layernorm_before."),
    (r"blocks\.(\d+)\.norm2\.", r"layers.\1.layernorm_after."),
    (r"blocks\.(\d+)\.attn\.proj\.", r"layers.\1.attention.o_proj."),
    (r"blocks\.(\d+)\.mlp\.(fc1|fc2)\.", r"layers.\1.mlp.\2."),
    # The second way is that of DeiT III's own files.
    (r"blocks\.(\d+)\.ls([12])\.gamma$", r"layers.\1.layer_scale\2.lambda1"),
    (r"blocks\.(\d+)\.gamma_([12])$", r"layers.\1.layer_scale\2.lambda1"),
    (r"norm\.", "layernorm."),
    (r"head\.", "classifier."),
)
# Parts that a plain vision transformer does not have: name -> what it is.
FOREIGN_PARTS = (
    (r"rel_pos|relative_position", "relative positions"),
    (r"dist_token$|distillation_token$|head_dist\.|distillation_classifier\.", "a distillation token"),
    (r"fc_norm\.", "a norm after pooling the patches"),
    (r"reg_token$|register_tokens$", "register tokens"),
    (r"\.q_norm\.|\.k_norm\.", "normalised queries and keys"),
    (r"norm_pre\.|patch_embed\.norm\.", "a norm before the blocks"),
    (r"\.attn\.norm\.|\.mlp\.norm\.", "a norm inside a branch"),
    (r"\.mlp\.(fc1_g|fc1_x|w12|w3)\.", "a gated MLP"),
    (r"attn_pool\.", "attention pooling"),
    (r"pre_logits\.", "a layer between the final norm and the head"),
    (r"patch_embed\.(backbone|grid_sampling)", "a convolutional stem"),
)
# Attention heads of timm's ViT and DeiT models with a class token, by width; no two of them disagree.
TIMM_HEADS = {192: 3, 384: 6, 512: 8, 768: 12, 896: 14, 1024: 16, 1280: 16, 1408: 16, 1664: 16}
# What DeiT III starts its scales from; once trained they no longer tell.
LAYER_SCALE_INIT = 1e-6


def translate_timm(source: Source) -> Translation:
    """A checkpoint of timm's `VisionTransformer`, or of one of the projects that share its names."""
    refuse_foreign_parts(source)
    model_args = _check_timm_settings(source)
    hidden_size = source.shape("cls_token", 3)[2]
    sizes = {
        **source.patches("patch_embed.proj.weight"),
        "num_hidden_layers": source.num_blocks(r"blocks\.(\d+)\."),
        "intermediate_size": source.shape("blocks.0.mlp.fc1.weight", 2)[0],
        "num_attention_heads": heads_for(source, hidden_size, model_args.get("num_heads")),
        "qkv_bias": "blocks.0.attn.qkv.bias" in source.weights,
        "layer_norm_eps": 1e-6,
        **_timm_labels(source),
    }
    if any(re.search(r"\.ls1\.gamma$|\.gamma_1$", name) for name in source.weights):
        sizes["layer_scale_init_value"] = LAYER_SCALE_INIT
    num_patches, has_class_position = _timm_positions(source, sizes["patch_size"])
    sizes["image_size"] = source.image_size_for(num_patches, sizes["patch_size"])
    config = make_config(PixelViTConfig, source, sizes)
    translation = Translation("timm's vision transformer", config)
    translation.assumptions += [
        f"num_attention_heads={config.num_attention_heads}, "
        + ("as told" if source.num_attention_heads or "num_heads" in model_args else "as timm has at this width"),
        "layer_norm_eps=1e-06 and GELU, as timm's vit_* and deit_* models have",
        *(["the head reads the class token"] if "head.weight" in source.weights else []),
        *_square_assumption(source, config),
    ]
    for name, tensor in source.weights.items():
        _add_timm_tensor(translation, name, tensor)
    if not has_class_position:
        _prepend_class_position(translation)
    return translation


def _timm_positions(source: Source, patch_size: int) -> tuple[int, bool]:
    """N, and whether the position table has a row for the class token (DeiT III's has none)."""
    rows = source.shape("pos_embed", 3)[1]
    grid = source.grid_of_image(patch_size)
    without_class = math.prod(grid) == rows if grid else math.isqrt(rows) ** 2 == rows
    return (rows, False) if without_class else (rows - 1, True)


def _add_timm_tensor(translation: Translation, name: str, tensor: torch.Tensor):
    fused = re.fullmatch(r"blocks\.(\d+)\.attn\.qkv\.(weight|bias)", name)
    if name == "mask_token":
        translation.dropped.append(name)  # of masked pre-training; the encoder of a whole image never reads it
    elif fused and tensor.dim() and tensor.shape[0] % 3 == 0:
        for part, rows in zip("qkv", tensor.chunk(3), strict=True):
            translation.add(f"layers.{fused[1]}.attention.{part}_proj.{fused[2]}", rows, name)
    else:
        translation.add(rename(name, TIMM_NAMES), tensor, name)


def _prepend_class_position(translation: Translation):
    table = translation.tensors["embeddings.position_embeddings"]
    translation.tensors["embeddings.position_embeddings"] = torch.cat([torch.zeros_like(table[:, :1]), table], dim=1)
    translation.assumptions.append(
        "a class position of zeros: the source adds none to the class token, so this is exact"
    )


def _check_timm_settings(source: Source) -> dict[str, Any]:
    """The `model_args` of a timm folder's config.json, if this is one; refuses what its weights would not show."""
    settings = source.settings or {}
    if settings.get("global_pool", "token") != "token":
        raise CheckpointError(
            f"{source.path} pools by {shown(settings['global_pool'])} according to its config.json; only the class "
            "token ('token') is read as timm reads it. Give a checkpoint with a class-token head."
        )
    model_args = settings.get("model_args") or {}
    return model_args if isinstance(model_args, dict) else {}


def _timm_labels(source: Source) -> dict[str, Any]:
    names = (source.settings or {}).get("label_names")
    if not isinstance(names, list) or (len(names),) != getattr(source.weights.get("head.bias"), "shape", None):
        return {}
    return {"id2label": {index: str(name) for index, name in enumerate(names)}}


# transformers' ViT

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
            *_square_assumption(source, config),
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


# Shared

LAYOUTS: tuple[tuple[str, Callable[[Source], Translation]], ...] = (
    (r"^layers\.\d+\.mixer\.A_log$", translate_adventurer),
    (r"^blocks\.\d+\.", translate_timm),
    (r"(^|\.)embeddings\.patch_embeddings\.projection\.weight$", translate_transformers),
)


def rename(name: str, rules: tuple[tuple[str, str], ...], repeatedly: bool = False) -> str:
    """`name` after the first rule that matches its beginning, or after each one; unchanged if none does."""
    for pattern, replacement in rules:
        renamed, count = re.subn(rf"\A(?:{pattern})", replacement, name)
        if count and not repeatedly:
            return renamed
        name = renamed
    return name


def refuse_foreign_parts(source: Source):
    """Refuses a vision transformer with parts that PixelViT lacks, naming one weight and what it belongs to."""
    for pattern, part in FOREIGN_PARTS:
        found = next((name for name in source.weights if re.search(pattern, name)), None)
        if found is not None:
            raise CheckpointError(
                f"{source.path} has {part} ({found!r}), which PixelViT does not have; give a plain vision transformer "
                "with a class token, such as timm's deit_base_patch16_224."
            )
    if "cls_token" not in source.weights:
        raise CheckpointError(
            f"{source.path} has no class token ('cls_token'), which PixelViT needs; give a vision transformer with one."
        )


def heads_for(source: Source, hidden_size: int, told: int | None = None) -> int:
    """Attention heads: the user's word, else what the checkpoint says, else what is usual at this width."""
    heads = source.num_attention_heads
    if heads is None:
        heads = told or TIMM_HEADS.get(hidden_size)
    if heads is None:
        known = ", ".join(map(str, TIMM_HEADS))
        raise CheckpointError(
            f"{source.path} is {hidden_size} wide, and shapes do not tell the number of attention heads (known for "
            f"widths {known}); give it with --num_attention_heads."
        )
    return heads


def make_config(config_class: type, source: Source, fields: dict[str, Any]) -> AdventurerConfig | PixelViTConfig:
    """A config of these fields; what it finds wrong with them is the checkpoint's fault and said so."""
    try:
        return config_class(**fields)
    except Exception as error:  # ValueError, or what the strict dataclass wraps it in
        reason = " ".join(str(error).split())[:400]
        raise CheckpointError(f"{source.path} does not fit: {reason}") from None


def _square_assumption(source: Source, config: AdventurerConfig | PixelViTConfig) -> list[str]:
    if source.image_size is not None:
        return []
    return [f"square images, so image_size={config.image_size}: the position table tells only the number of patches"]
