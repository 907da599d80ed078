# Copyright 2026 The modeling_pixelvit team. All rights reserved.
# SPDX-License-Identifier: Apache-2.0
"""The pictures of what a model's last block does, against its definition."""

import pytest
import torch
from torch.nn import functional as F

from modeling_pixelvit import (
    AdventurerConfig,
    AdventurerForImageClassification,
    PixelViTConfig,
    PixelViTForImageClassification,
)
from training.families.registry import FAMILIES


SIZES = {"hidden_size": 32, "num_hidden_layers": 4, "image_size": (12, 16), "patch_size": 4, "num_labels": 3}


@pytest.mark.parametrize("copies", [1, 2])
@pytest.mark.parametrize("pooling", ["cls", "mean"])
def test_attention_is_that_of_the_class_token_or_the_mean_of_the_patches(pooling, copies):
    torch.manual_seed(0)
    config = PixelViTConfig(
        **SIZES, num_attention_heads=4, intermediate_size=64, pooling=pooling, sequence_extension=copies
    )
    model = PixelViTForImageClassification(config).eval()
    pixel_values = torch.randn(2, 3, 12, 16)
    found = FAMILIES["pixelvit"].token_map(model, pixel_values)
    assert model.config._attn_implementation == "sdpa"  # as before
    seen = []
    attention = model.pixelvit.layers[-1].attention
    attention.register_forward_pre_hook(
        lambda module, args, kwargs: seen.append((*args, *kwargs.values())[0]), with_kwargs=True
    )
    with torch.no_grad():
        model(pixel_values)
        heads = [projection(seen[0]).unflatten(-1, (4, 8)) for projection in (attention.q_proj, attention.k_proj)]
        weights = torch.einsum("bqhd,bkhd->bhqk", *heads).mul(8**-0.5).softmax(-1).mean(1)
    rows = weights[:, :1] if pooling == "cls" else weights[:, 1:]
    expected = rows.mean(1)[:, 1:].reshape(2, 3, 4, copies).mean(-1)
    torch.testing.assert_close(found, expected, atol=1e-6, rtol=1e-4)


@pytest.mark.parametrize(
    ("scan_order", "flip_blocks"), [("rows", []), ("rows", [3]), ("rows_and_columns", "alternate")]
)
def test_states_are_those_of_the_recurrence_in_the_order_of_the_block(scan_order, flip_blocks):
    torch.manual_seed(0)
    config = AdventurerConfig(**SIZES, head_dim=16, state_size=8, scan_order=scan_order, flip_blocks=flip_blocks)
    model = AdventurerForImageClassification(config).eval()
    pixel_values = torch.randn(2, 3, 12, 16)
    found = FAMILIES["adventurer"].token_map(model, pixel_values)
    layer = model.adventurer.layers[-1]
    mixer, seen = layer.mixer, []
    mixer.register_forward_pre_hook(lambda module, arguments: seen.append(arguments[0]))
    with torch.no_grad():
        model(pixel_values)
        _, convolved, dt = mixer.in_proj(seen[0]).double().split(mixer.projection_sizes, dim=-1)
        padded = F.pad(convolved.transpose(1, 2), (config.conv_kernel - 1, 0))
        convolved = F.silu(
            F.conv1d(padded, mixer.conv1d.weight.double(), mixer.conv1d.bias.double(), groups=padded.shape[1])
        )
        x, B, _ = convolved.transpose(1, 2).split(mixer.conv_sizes, dim=-1)
        x = x.unflatten(-1, (-1, 16))
        step = F.softplus(dt + mixer.dt_bias.double())
        decay = torch.exp(-step * mixer.A_log.double().exp())
        state, norms = torch.zeros(*x.shape[:1], *x.shape[2:], 8, dtype=torch.float64), []
        for t in range(x.shape[1]):
            new = step[:, t, :, None, None] * x[:, t, ..., None] * B[:, t, None, None, :]
            state = decay[:, t, :, None, None] * state + new
            norms.append(state.square().sum((1, 2, 3)).sqrt())
    by_place = torch.stack(norms[1:-1], dim=1)  # without the heading average and the class token
    places = torch.arange(12).reshape(3, 4)
    order = (places.t() if layer.scan_order.by_columns else places).flatten()
    order = order.flip(0) if layer.scan_order.backwards else order
    expected = torch.empty(2, 12, dtype=torch.float64)
    expected[:, order] = by_place
    torch.testing.assert_close(found.double(), expected.reshape(2, 3, 4), atol=1e-5, rtol=1e-4)
