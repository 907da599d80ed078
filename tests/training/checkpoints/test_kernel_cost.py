# Copyright 2026 The modeling_pixelvit team. All rights reserved.
# SPDX-License-Identifier: Apache-2.0
"""Bytes and operations of a block's kernels, by what a formula says of Adventurer-Base at 224 pixels and patch 1."""

import pytest

from modeling_pixelvit import AdventurerConfig
from training.checkpoints.kernel_cost import KernelCost, block_cost
from training.families.adventurer import encoder_flops, scan_flops


BATCH_SIZE, TOKENS = 16, 16 * (224 * 224 + 1)
# Bytes and bfloat16 operations a second that an H100 is seen to do.
BANDWIDTH, RATE = 3.0e12, 800e12


@pytest.fixture(scope="module")
def config():
    return AdventurerConfig.from_variant("base", patch_size=1)


def by_name(kernels):
    return {kernel.name: kernel for kernel in kernels}


def test_operations_are_those_of_the_model(config):
    cost = block_cost(config, BATCH_SIZE)
    total, mixing = encoder_flops(config, config.num_patches)
    assert cost.model_flops == pytest.approx(BATCH_SIZE * total / config.num_hidden_layers, rel=1e-3)
    products = [sum(k.flops for k in part if k.name.endswith("proj")) for part in (cost.forward, cost.backward)]
    assert products[0] == pytest.approx(BATCH_SIZE * (total - mixing) / config.num_hidden_layers, rel=1e-3)
    assert products[1] == 2 * products[0]
    # The kernel computes each head's scores anew, where plain PyTorch does it for a group.
    scan = by_name(cost.forward)["scan"].flops
    plain = BATCH_SIZE * scan_flops(config, config.num_patches + 1) / config.num_hidden_layers
    scores = 2 * TOKENS * 64 * 64 * (config.num_heads - 1)
    assert scan == pytest.approx(plain + scores, rel=2e-3)


def test_bytes_of_kernels(config):
    forward = by_name(block_cost(config, BATCH_SIZE).forward)
    bytes_of = {name: (kernel.read + kernel.written) / TOKENS for name, kernel in forward.items()}
    assert bytes_of["convolution"] == 2 * 2 * (1536 + 128)
    assert bytes_of["gated norm"] == 2 * 3 * 1536
    assert bytes_of["gate"] == 2 * 3 * 1920
    assert bytes_of["scan"] == 2 * (2 * 1536 + 128 + 24)
    under_autocast = by_name(block_cost(config, BATCH_SIZE, stream_bytes=4).forward)["residual and norm"]
    assert (under_autocast.read, under_autocast.written) == (TOKENS * 768 * 6,) * 2


def test_longer_chunks_take_fewer_states(config):
    short, long = (block_cost(config, 1, capability=capability) for capability in ((8, 0), (9, 0)))
    states = [by_name(cost.backward)["states before chunks"].written for cost in (short, long)]
    assert states[0] == pytest.approx(2 * states[1], rel=1e-3)


def test_most_of_the_time_is_left_to_products(config):
    """What the kernels can reach at best; a stream in float32, as under autocast, is more to move."""
    assert block_cost(config, BATCH_SIZE).utilization(BANDWIDTH, RATE) > 0.55
    assert 0.5 < block_cost(config, BATCH_SIZE, stream_bytes=4).utilization(BANDWIDTH, RATE) < 0.55


def test_a_floor_is_of_what_takes_longer():
    assert KernelCost("", 6.0, 2.0, 10.0).seconds(bandwidth=4.0, rate=10.0) == 2.0
    assert KernelCost("", 6.0, 2.0, 30.0).seconds(bandwidth=4.0, rate=10.0) == 3.0
