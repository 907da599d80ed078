# Copyright 2026 The modeling_pixelvit team. All rights reserved.
# SPDX-License-Identifier: Apache-2.0
"""
Tokens, parameters and floating-point operations of a model, from its configuration alone: nothing is computed, and no
weight is allocated.

Counted are matrix products and convolutions, two operations for a multiply-add, of one image of the configuration's
`image_size` in a forward pass. Activations, norms, softmax and the four-tap convolution of Adventurer's mixer, which
together are below a hundredth of the paper's models, are not.
"""

from dataclasses import dataclass

import torch
from torch.utils.flop_counter import FlopCounterMode
from transformers import PreTrainedConfig

from modeling_pixelvit.configuration_base import as_pair

from ..families.base import BASE_MODEL, CLASSIFIER, SEGMENTER
from ..families.registry import FAMILIES, architecture_of, model_classes


# Cells on a side of what is pooled from a box for the box and the mask head.
BOX_POOLED_SIZE, MASK_POOLED_SIZE = 7, 14


@dataclass(frozen=True)
class ModelCost:
    """
    What a model costs.

    Args:
        tokens: Patch tokens of an image, the class token not counted.
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


def model_cost(config: PreTrainedConfig, architecture: str) -> ModelCost:
    """
    Args:
        config: A configuration of either family.
        architecture: Name of one of the classes of `families.registry.model_classes`.

    Raises:
        ValueError: for another class.
    """
    known = model_classes()
    if architecture not in known:
        raise ValueError(f"{architecture} was given; costs are known of {', '.join(known)}.")
    model_class = known[architecture]
    with torch.device("meta"):
        model = model_class(config).eval()
    encoder, mixing = FAMILIES[config.model_type].encoder_flops(config, config.num_patches)
    table = model.base_model.embeddings.position_embeddings
    return ModelCost(
        tokens=config.num_patch_tokens,
        parameters=sum(parameter.numel() for parameter in model.parameters()),
        position_parameters=0 if table is None else table.numel(),
        encoder_flops=encoder,
        mixing_flops=mixing,
        head_flops=0 if architecture_of(model_class) == BASE_MODEL else head_flops(model),
    )


@torch.no_grad()
def head_flops(model: torch.nn.Module) -> int:
    """
    Operations of what comes after the encoder, for an image of `model.config.image_size`: counted by running the heads
    on tensors without data, with as many boxes as the configuration allows.
    """
    config = model.config
    if architecture_of(model) == CLASSIFIER:
        return 2 * config.hidden_size * config.num_labels
    size = as_pair(config.image_size)
    with torch.device("meta"), FlopCounterMode(display=False) as counter:
        if architecture_of(model) != SEGMENTER:
            run_detection_heads(model, torch.empty(1, config.hidden_size, *config.grid_size), size)
        elif model.pyramid is None:
            model.decode_head(torch.empty(1, config.num_patches, config.hidden_size))
        else:
            maps = [torch.empty(1, config.hidden_size, *config.grid_size) for _ in config.pyramid_layers]
            model.decode_head(model.pyramid(maps, size, config.patch_size, config.pyramid_strides))
    return counter.get_total_flops()


def run_detection_heads(model: torch.nn.Module, features: torch.Tensor, size: tuple[int, int]):
    """Everything after the encoder of a detector that is a product, for its map of patches and an image's size."""
    config = model.config
    pyramid = model.pyramid(features, size, config.patch_size)
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
