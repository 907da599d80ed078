# Copyright 2026 The modeling_pixelvit team. All rights reserved.
# SPDX-License-Identifier: Apache-2.0
"""The layout of timm's vision transformer, which is also that of DeiT, DeiT III, MAE and DINO."""

import math
import re
from typing import Any

import torch

from modeling_pixelvit import PixelViTConfig

from ..checkpoints.reading import CheckpointError, shown
from .source import Source, Translation, heads_for, make_config, refuse_foreign_parts, rename, square_assumption


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
        *square_assumption(source, config),
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
