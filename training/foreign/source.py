# Copyright 2026 The modeling_pixelvit team. All rights reserved.
# SPDX-License-Identifier: Apache-2.0
"""
A checkpoint of another codebase as its names, shapes and settings, and what becomes of it: a configuration, and tensors
under our names.
"""

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from modeling_pixelvit import AdventurerConfig, PixelViTConfig

from ..checkpoints.reading import CheckpointError


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


def square_assumption(source: Source, config: AdventurerConfig | PixelViTConfig) -> list[str]:
    if source.image_size is not None:
        return []
    return [f"square images, so image_size={config.image_size}: the position table tells only the number of patches"]
