# Copyright 2026 The modeling_pixelvit team. All rights reserved.
# SPDX-License-Identifier: Apache-2.0
"""Adventurer: causal Mamba-2 blocks."""

import math

import torch
from transformers import PreTrainedConfig, PreTrainedModel

from modeling_pixelvit import (
    AdventurerConfig,
    AdventurerForImageClassification,
    AdventurerForObjectDetection,
    AdventurerForSemanticSegmentation,
    AdventurerModel,
)
from modeling_pixelvit.ops_conv1d import causal_conv1d
from modeling_pixelvit.ops_ssd import ssd_sequential

from .base import BASE_MODEL, CLASSIFIER, DETECTOR, SEGMENTER, Family


CITATION = """\
@inproceedings{wang2025causal,
  title     = {Causal Image Modeling for Efficient Visual Understanding},
  author    = {Wang, Feng and Yang, Timing and Yu, Yaodong and Ren, Sucheng and Wei, Guoyizhe and Wang, Angtian and
               Shao, Wei and Zhou, Yuyin and Yuille, Alan and Xie, Cihang},
  booktitle = {Conference on Computer Vision and Pattern Recognition},
  year      = {2025}
}"""


def scan_flops(config: PreTrainedConfig, length: int) -> int:
    """
    The state-space scan of all blocks, as matrix products in chunks, for a sequence of `length` tokens.

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
    """See [`Family`]."""
    width, length = config.hidden_size, config.sequence_extension * num_patches + 1
    embedding = 2 * num_patches * config.num_channels * config.patch_size**2 * width
    mixed_length = length + 1  # with the average that goes first
    mixing = scan_flops(config, mixed_length)
    into_mixer = 2 * config.inner_size + 2 * config.n_groups * config.state_size + config.num_heads
    projections = 2 * mixed_length * width * (into_mixer + config.inner_size)
    mlp = 2 * length * 3 * width * config.intermediate_size
    return embedding + mixing + config.num_hidden_layers * (projections + mlp), mixing


@torch.no_grad()
def state_map(model: PreTrainedModel, pixel_values: torch.Tensor) -> torch.Tensor:
    """
    The norm of the scan's state in the last block after each patch, in the order in which the block reads them.
    (B, channels, height, width) to (B, rows, columns).
    """
    base, seen = model.base_model, []
    layer = base.layers[-1]
    handle = layer.mixer_norm.register_forward_pre_hook(lambda norm, arguments: seen.append(arguments[0]))
    try:
        base(pixel_values, interpolate_pos_encoding=True)
    finally:
        handle.remove()
    mixer, grid = layer.mixer, base.embeddings.grid_of(pixel_values)
    tokens = layer.read(layer.mixer_norm(seen[0]), grid)
    _, convolved, dt = mixer.in_proj(tokens).split(mixer.projection_sizes, dim=-1)
    convolved, _ = mixer.conv1d(causal_conv1d, convolved)
    x, B, C = convolved.split(mixer.conv_sizes, dim=-1)
    x, B, C = (
        part.unflatten(-1, shape)
        for part, shape in ((x, (-1, mixer.head_dim)), *((p, (mixer.n_groups, -1)) for p in (B, C)))
    )
    state, norms = None, []
    for step in range(x.shape[1]):
        now = slice(step, step + 1)
        _, state = ssd_sequential(
            x[:, now], dt[:, now], mixer.A_log, B[:, now], C[:, now], mixer.D, mixer.dt_bias, initial_state=state
        )
        norms.append(state.flatten(1).norm(dim=1))
    norms = torch.stack(norms, dim=1)[:, 1:, None]  # without the heading average
    return layer.scan_order.undo(norms, grid)[:, :-1, 0].unflatten(1, (*grid, -1)).mean(-1)


ADVENTURER = Family(
    config_class=AdventurerConfig,
    model_classes={
        BASE_MODEL: AdventurerModel,
        CLASSIFIER: AdventurerForImageClassification,
        SEGMENTER: AdventurerForSemanticSegmentation,
        DETECTOR: AdventurerForObjectDetection,
    },
    title="Adventurer",
    paper_title="Adventurer",
    description="a causal image model of Mamba-2 blocks ([Adventurer](https://arxiv.org/abs/2410.07599))",
    tags=("adventurer", "mamba-2", "arxiv:2502.03738", "arxiv:2410.07599"),
    citation=CITATION,
    size_fields=("hidden_size", "num_hidden_layers", "intermediate_size", "head_dim", "state_size", "expand"),
    token_mixer="mixer",
    class_token_place="last",
    mixing=lambda config: f"the scan in chunks of {config.chunk_size}",
    growth="in proportion to",
    cost_of_half_the_patch="All of it grows in proportion to the tokens: half the patch costs four times as much",
    encoder_flops=encoder_flops,
    token_map=state_map,
    token_map_title="size of the scan's state after each patch in the last block",
    relative_work=lambda tokens: 6 + tokens,
    colours=("#0b6e99", "#65b5d8"),
    markers=("o", "^"),
)
