# Copyright 2026 The modeling_pixelvit team. All rights reserved.
# SPDX-License-Identifier: Apache-2.0
"""
Files of the form in which Adventurer was released, at any size, and their names in our models.

Shapes are written down here from the definition, and the names once more by hand, so that a mistake in the converter's
tables is not repeated by its tests.
"""

import argparse
from pathlib import Path

import torch


GOLDEN_RENAMES = (
    ("patch_embed.proj", "embeddings.patch_embeddings.projection"),
    ("cls_token", "embeddings.cls_token"),
    ("pos_embed", "embeddings.position_embeddings"),
    (".norm_mlp.", ".mlp_norm."),
    (".mlp.w1.", ".mlp.gate_proj."),
    (".mlp.w2.", ".mlp.up_proj."),
    (".mlp.w3.", ".mlp.down_proj."),
    ("norm_f.", "norm."),
)
WIDTHS = {"tiny": (256, 12), "small": (512, 12), "base": (768, 12), "large": (1024, 24)}


def our_adventurer_name(name: str) -> str:
    """The name in `AdventurerForImageClassification` of a released weight."""
    if name.startswith("head."):
        return name.replace("head.", "classifier.")
    parts = name.split(".")
    if parts[0] == "layers" and parts[2] == "norm":
        name = name.replace(".norm.", ".mixer_norm.")
    for theirs, ours in GOLDEN_RENAMES:
        name = name.replace(theirs, ours)
    return f"adventurer.{name}"


def released_shapes(width: int, blocks: int, patch: int, image: int, classes: int = 1000) -> dict[str, tuple[int, ...]]:
    """The released model's weights by its definition: M = 2 width, S = P = 64, one group."""
    inner, hidden, heads = 2 * width, int(2.5 * width), 2 * width // 64
    shapes = {
        "patch_embed.proj.weight": (width, 3, patch, patch),
        "patch_embed.proj.bias": (width,),
        "cls_token": (1, 1, width),
        "pos_embed": (1, (image // patch) ** 2 + 1, width),
        "norm_f.weight": (width,),
        "head.weight": (classes, width),
        "head.bias": (classes,),
    }
    for block in range(blocks):
        of_block = {
            "norm.weight": (width,),
            "norm_mlp.weight": (width,),
            "mixer.in_proj.weight": (2 * inner + 2 * 64 + heads, width),
            "mixer.conv1d.weight": (inner + 2 * 64, 1, 4),
            "mixer.conv1d.bias": (inner + 2 * 64,),
            **{f"mixer.{name}": (heads,) for name in ("dt_bias", "A_log", "D")},
            "mixer.norm.weight": (inner,),
            "mixer.out_proj.weight": (width, inner),
            **{f"mlp.{name}.weight": (hidden, width) for name in ("w1", "w2")},
            **{f"mlp.{name}.bias": (hidden,) for name in ("w1", "w2")},
            "mlp.w3.weight": (width, hidden),
            "mlp.w3.bias": (width,),
        }
        shapes |= {f"layers.{block}.{name}": shape for name, shape in of_block.items()}
    return shapes


def released_weights(shapes: dict[str, tuple[int, ...]], seed: int = 0) -> dict[str, torch.Tensor]:
    """Random float32 weights of these shapes, none of which is left at a value that would hide a mistake."""
    generator = torch.Generator().manual_seed(seed)
    weights = {}
    for name, shape in shapes.items():
        noise = torch.randn(shape, generator=generator)
        is_scale = name.endswith(("norm.weight", "norm_mlp.weight", "norm_f.weight", ".D", ".A_log"))
        weights[name] = 1 + 0.1 * noise if is_scale else 0.02 * noise
    return weights


def write_released(
    path: Path, variant: str, patch: int, image: int, averaged: bool = True, classes: int = 1000
) -> dict[str, torch.Tensor]:
    """
    Writes a checkpoint as the released training code does: weights, averaged weights, optimizer, arguments.

    Returns:
        The weights of its entry `model`.
    """
    shapes = released_shapes(*WIDTHS[variant], patch, image, classes)
    weights = released_weights(shapes)
    contents = {
        "model": weights,
        "optimizer": {"state": {0: {"step": torch.tensor(3.0), "exp_avg": torch.ones(4)}}, "param_groups": []},
        "lr_scheduler": {"last_epoch": 3},
        "epoch": 3,
        "scaler": {"scale": 65536.0},
        "args": argparse.Namespace(model=f"adventurer_{variant}", input_size=image, output_dir=""),
    }
    if averaged:
        contents["model_ema"] = released_weights(shapes, seed=1)
    torch.save(contents, path)
    return weights
