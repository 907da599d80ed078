# Copyright 2026 The modeling_pixelvit team. All rights reserved.
# SPDX-License-Identifier: Apache-2.0
"""PixelViT: DeiT's plain vision transformer."""

import torch
from transformers import PreTrainedConfig, PreTrainedModel

from modeling_pixelvit import (
    PixelViTConfig,
    PixelViTForImageClassification,
    PixelViTForObjectDetection,
    PixelViTForSemanticSegmentation,
    PixelViTModel,
)

from .base import BASE_MODEL, CLASSIFIER, DETECTOR, SEGMENTER, Family


CITATION = """\
@inproceedings{touvron2021training,
  title     = {Training data-efficient image transformers \\& distillation through attention},
  author    = {Touvron, Hugo and Cord, Matthieu and Douze, Matthijs and Massa, Francisco and Sablayrolles, Alexandre and
               J{\\'e}gou, Herv{\\'e}},
  booktitle = {International Conference on Machine Learning},
  year      = {2021}
}"""


def attention_flops(config: PreTrainedConfig, length: int) -> int:
    """Scores and their product with the values, all blocks, for a sequence of `length` tokens."""
    return config.num_hidden_layers * 4 * length**2 * config.hidden_size


def encoder_flops(config: PreTrainedConfig, num_patches: int) -> tuple[int, int]:
    """See [`Family`]."""
    width, length = config.hidden_size, config.sequence_extension * num_patches + 1
    embedding = 2 * num_patches * config.num_channels * config.patch_size**2 * width
    mixing = attention_flops(config, length)
    projections = 2 * length * 4 * width**2
    mlp = 2 * length * 2 * width * config.intermediate_size
    return embedding + mixing + config.num_hidden_layers * (projections + mlp), mixing


@torch.no_grad()
def attention_map(model: PreTrainedModel, pixel_values: torch.Tensor) -> torch.Tensor:
    """
    How much each patch is attended to in the last block, mean over the heads: by the class token, or, where the mean of
    the patches is classified, by all patches. (B, channels, height, width) to (B, rows, columns).
    """
    base = model.base_model
    implementation = base.config._attn_implementation
    base.set_attn_implementation("eager")  # which alone has the weights
    try:
        weights = base(pixel_values, interpolate_pos_encoding=True, output_attentions=True).attentions[-1].mean(1)
    finally:
        base.set_attn_implementation(implementation)
    queries = weights[:, :1] if base.config.pooling == "cls" else weights[:, 1:]
    return queries.mean(1)[:, 1:].unflatten(1, (*base.embeddings.grid_of(pixel_values), -1)).mean(-1)


PIXELVIT = Family(
    config_class=PixelViTConfig,
    model_classes={
        BASE_MODEL: PixelViTModel,
        CLASSIFIER: PixelViTForImageClassification,
        SEGMENTER: PixelViTForSemanticSegmentation,
        DETECTOR: PixelViTForObjectDetection,
    },
    title="PixelViT",
    paper_title="DeiT",
    description="a plain vision transformer ([DeiT](https://arxiv.org/abs/2012.12877))",
    tags=("pixelvit", "vision-transformer", "arxiv:2502.03738", "arxiv:2012.12877"),
    citation=CITATION,
    size_fields=("hidden_size", "num_hidden_layers", "intermediate_size", "num_attention_heads"),
    token_mixer="attention",
    class_token_place="first",
    mixing=lambda config: "attention between tokens",
    growth="with the square of",
    cost_of_half_the_patch="Half the patch is four times the tokens and sixteen times the attention",
    encoder_flops=encoder_flops,
    token_map=attention_map,
    token_map_title="attention to each patch in the last block",
    relative_work=lambda tokens: 3 + 0.4 * tokens + 0.0012 * tokens**2,
    colours=("#c2410c", "#f2a074"),
    markers=("s", "v"),
)
