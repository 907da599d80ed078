# Copyright 2026 The modeling_pixelvit team. All rights reserved.
# SPDX-License-Identifier: Apache-2.0
"""The layout of the released Adventurer code."""

from modeling_pixelvit import AdventurerConfig

from ..checkpoints.reading import CheckpointError
from .source import Source, Translation, make_config, rename, square_assumption


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
        *square_assumption(source, config),
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
