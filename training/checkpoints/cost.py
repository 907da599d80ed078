# Copyright 2026 The modeling_pixelvit team. All rights reserved.
# SPDX-License-Identifier: Apache-2.0
"""
Tokens, parameters and floating-point operations of a model, from its configuration alone: nothing is computed, and no
weight is allocated.

Counted are matrix products and convolutions, two operations for a multiply-add, of one image of the configuration's
`image_size` in a forward pass. Activations, norms, softmax and the four-tap convolution of Adventurer's mixer, which
together are below a hundredth of the paper's models, are not.
"""

import math
from dataclasses import dataclass

import torch
from torch.utils.flop_counter import FlopCounterMode
from transformers import PreTrainedConfig

from modeling_pixelvit.configuration_base import as_pair

from .loading import BASE_MODELS, CLASSIFIERS, MODEL_CLASSES, SEGMENTERS


# Cells on a side of what is pooled from a box for the box and the mask head.
BOX_POOLED_SIZE, MASK_POOLED_SIZE = 7, 14


@dataclass(frozen=True)
class ModelCost:
    """
    What a model costs.

    Args:
        tokens: Patch tokens N of an image, the class token not counted.
        parameters: All of them.
        position_parameters: Those of the position table, which grows with the tokens.
        encoder_flops: Of patch embedding and blocks.
        mixing_flops: Those of `encoder_flops` in which tokens meet each other: attention's two products, or the scan.
        head_flops: Of classifier, decoder, or pyramid and heads; of a detector the most that an image can cost.
    """

    tokens: int
    parameters: int
    position_parameters: int
    encoder_flops: int
    mixing_flops: int
    head_flops: int

    @property
    def flops(self) -> int:
        """Operations of a whole forward pass."""
        return self.encoder_flops + self.head_flops


def attention_flops(config: PreTrainedConfig, length: int) -> int:
    """Scores and their product with the values, all blocks of PixelViT, for a sequence of `length` tokens."""
    return config.num_hidden_layers * 4 * length**2 * config.hidden_size


def scan_flops(config: PreTrainedConfig, length: int) -> int:
    """
    The state-space scan of all blocks of Adventurer, as matrix products in chunks, for a sequence of `length` tokens.

    For each token of a chunk of Q: its scores with the chunk's others (Q S for each group), their product with the
    inputs (Q M), what it adds to the state and what it reads from it (S M each). Q is `config.chunk_size`, that of the
    plain PyTorch scan; the kernels of mamba-ssm take 256, and so about twice as many operations for the same result.
    """
    chunks = math.ceil(length / config.chunk_size)
    chunk = math.ceil(length / chunks)
    inner, state = config.inner_size, config.state_size
    per_token = chunk * (config.n_groups * state + inner) + 2 * state * inner
    return config.num_hidden_layers * 2 * chunks * chunk * per_token


def encoder_flops(config: PreTrainedConfig, num_patches: int) -> tuple[int, int]:
    """
    Operations of patch embedding and blocks for an image of `num_patches` patches, and those of them in which tokens
    meet each other.
    """
    width, inner_mlp, length = config.hidden_size, config.intermediate_size, num_patches + 1
    embedding = 2 * num_patches * config.num_channels * config.patch_size**2 * width
    if config.model_type == "adventurer":
        mixed_length = length + 1  # with the average that goes first
        mixing = scan_flops(config, mixed_length)
        into_mixer = 2 * config.inner_size + 2 * config.n_groups * config.state_size + config.num_heads
        projections = 2 * mixed_length * width * (into_mixer + config.inner_size)
        mlp = 2 * length * 3 * width * inner_mlp
    else:
        mixing = attention_flops(config, length)
        projections = 2 * length * 4 * width**2
        mlp = 2 * length * 2 * width * inner_mlp
    return embedding + mixing + config.num_hidden_layers * (projections + mlp), mixing


def model_cost(config: PreTrainedConfig, architecture: str) -> ModelCost:
    """
    Args:
        config: A configuration of either family.
        architecture: Name of one of the classes in `loading.MODEL_CLASSES`.

    Raises:
        ValueError: for another class.
    """
    if architecture not in MODEL_CLASSES:
        raise ValueError(f"{architecture} was given; costs are known of {', '.join(MODEL_CLASSES)}.")
    model_class = MODEL_CLASSES[architecture]
    with torch.device("meta"):
        model = model_class(config).eval()
    encoder, mixing = encoder_flops(config, config.num_patches)
    table = model.base_model.embeddings.position_embeddings
    return ModelCost(
        tokens=config.num_patches,
        parameters=sum(parameter.numel() for parameter in model.parameters()),
        position_parameters=0 if table is None else table.numel(),
        encoder_flops=encoder,
        mixing_flops=mixing,
        head_flops=0 if model_class in BASE_MODELS else head_flops(model),
    )


@torch.no_grad()
def head_flops(model: torch.nn.Module) -> int:
    """
    Operations of what comes after the encoder, for an image of `model.config.image_size`: counted by running the heads
    on tensors without data, with as many boxes as the configuration allows.
    """
    config = model.config
    if isinstance(model, CLASSIFIERS):
        return 2 * config.hidden_size * config.num_labels
    size = as_pair(config.image_size)
    with torch.device("meta"), FlopCounterMode(display=False) as counter:
        if not isinstance(model, SEGMENTERS):
            run_detection_heads(model, torch.empty(1, config.hidden_size, *config.grid_size), size)
        elif model.pyramid is None:
            model.decode_head(torch.empty(1, config.num_patches, config.hidden_size))
        else:
            maps = [torch.empty(1, config.hidden_size, *config.grid_size) for _ in config.pyramid_layers]
            model.decode_head(model.pyramid(maps, size))
    return counter.get_total_flops()


def run_detection_heads(model: torch.nn.Module, features: torch.Tensor, size: tuple[int, int]):
    """Everything after the encoder of a detector that is a product, for its map of patches and an image's size."""
    config = model.config
    pyramid = model.pyramid(features, size)
    model.proposals.head(pyramid)
    channels = config.pyramid_channels
    for stage in model.box_stages.stages:
        stage(features.new_empty(config.rpn_post_nms_top_n_test, channels, BOX_POOLED_SIZE, BOX_POOLED_SIZE))
    if model.mask_head is not None:
        pooled = features.new_empty(config.max_detections, channels, MASK_POOLED_SIZE, MASK_POOLED_SIZE)
        model.mask_head.mask_predictor(model.mask_head.mask_head(pooled))


def readable_flops(flops: int) -> str:
    """`flops` in three digits, in TFLOP, GFLOP or MFLOP."""
    for unit, size in (("TFLOP", 10**12), ("GFLOP", 10**9), ("MFLOP", 10**6)):
        if flops >= size:
            value = flops / size
            return f"{value:,.0f} {unit}" if value >= 100 else f"{value:.3g} {unit}"
    return f"{flops:,} FLOP"
