# Copyright 2026 The modeling_pixelvit team. All rights reserved.
# SPDX-License-Identifier: Apache-2.0
"""
What a block of Adventurer moves and multiplies on the Triton kernels, counted from its configuration: bytes between a
device and its memory, each tensor once for each kernel that reads or writes it, and operations of matrix products, two
for a multiply-add. Weights, which many tokens share, and a head's numbers are left out.

From these follows the least time that a device can take, its floor: no kernel is measured here.
"""

from dataclasses import dataclass

from modeling_pixelvit import AdventurerConfig
from modeling_pixelvit.ops_triton_ssd import TILES, check_sizes

from ..families.adventurer import scan_flops


PRODUCT_BYTES = 2  # of an element of what products are made of, bfloat16


@dataclass(frozen=True)
class KernelCost:
    """Bytes that a kernel reads and writes, and operations of its matrix products."""

    name: str
    read: float
    written: float
    flops: float = 0

    def seconds(self, bandwidth: float, rate: float) -> float:
        """Its floor on a device that moves `bandwidth` bytes and does `rate` operations a second."""
        return max((self.read + self.written) / bandwidth, self.flops / rate)


@dataclass(frozen=True)
class BlockCost:
    """The kernels of one block for a batch, in the order in which they run."""

    forward: tuple[KernelCost, ...]
    backward: tuple[KernelCost, ...]
    model_flops: float  # of a forward pass, as `cost.model_cost` counts them; the gradients' are twice that

    def forward_seconds(self, bandwidth: float, rate: float) -> float:
        """The floor of the forward pass."""
        return sum(kernel.seconds(bandwidth, rate) for kernel in self.forward)

    def seconds(self, bandwidth: float, rate: float) -> float:
        """The floor of forward and backward pass."""
        backward = sum(kernel.seconds(bandwidth, rate) for kernel in self.backward)
        return self.forward_seconds(bandwidth, rate) + backward

    def utilization(self, bandwidth: float, rate: float) -> float:
        """MFU at the floor: the time that the model's own operations take at `rate` over that of all kernels."""
        return 3 * self.model_flops / rate / self.seconds(bandwidth, rate)


def block_cost(
    config: AdventurerConfig,
    batch_size: int,
    stream_bytes: int = 2,
    capability: tuple[int, int] = (9, 0),
) -> BlockCost:
    """
    Args:
        config: Of the model, whose `image_size` and `patch_size` say how many tokens an image has.
        batch_size: Images.
        stream_bytes: Of an element of the residual stream: 2 in a bfloat16 model, 4 under autocast.
        capability: That of the device, by which kernels have their chunk.

    Raises:
        ValueError: for sizes that the kernels do not do.
    """
    e, r = PRODUCT_BYTES, stream_bytes
    length = config.num_patch_tokens + 1
    check_sizes(length, config.num_heads, config.head_dim, config.n_groups, config.state_size)
    n = batch_size * length
    tile = TILES[max(key for key in TILES if key <= capability)][e]
    hidden, inner, mlp, heads = config.hidden_size, config.inner_size, config.intermediate_size, config.num_heads
    p, s = config.head_dim, config.state_size
    maps = config.n_groups * s
    channels = inner + 2 * maps
    q, chunks = tile.chunk, batch_size * -(-length // tile.chunk)
    # Kept as `ops_triton_ssd` keeps them, which is in bfloat16 where that is what products are made of.
    states = e * chunks * heads * s * p
    of_chunks = chunks * q * heads  # a token of a head, padding included

    def product(name: str, columns_in: int, columns_out: int) -> KernelCost:
        return KernelCost(name, e * n * columns_in, e * n * columns_out, 2 * n * columns_in * columns_out)

    def gradients(name: str, columns_in: int, columns_out: int) -> KernelCost:
        """Of input and weight, the gradient of the output being read for both."""
        read, flops = e * n * (2 * columns_out + columns_in), 4 * n * columns_in * columns_out
        return KernelCost(name, read, e * n * columns_in, flops)

    def kernel(name: str, read: float, written: float, flops: float = 0) -> KernelCost:
        """Bytes a token."""
        return KernelCost(name, n * read, n * written, flops)

    projected = inner + channels + heads
    products = [("in_proj", hidden, projected), ("out_proj", inner, hidden)]
    products += [("gate_proj", hidden, mlp), ("up_proj", hidden, mlp), ("down_proj", mlp, hidden)]
    sizes = {name: columns for name, *columns in products}
    scanned = e * (inner + 2 * maps + heads)  # x, B, C and dt
    forward = (
        kernel("norm", r * hidden, e * hidden),
        product("in_proj", *sizes["in_proj"]),
        kernel("convolution", e * channels, e * channels),
        kernel("scan", scanned, e * inner, of_chunks * (2 * q * (s + p) + 4 * s * p)),
        kernel("gated norm", 2 * e * inner, e * inner),
        product("out_proj", *sizes["out_proj"]),
        kernel("residual and norm", (r + e) * hidden, (r + e) * hidden),
        product("gate_proj", *sizes["gate_proj"]),
        product("up_proj", *sizes["up_proj"]),
        kernel("gate", 2 * e * mlp, e * mlp),
        product("down_proj", *sizes["down_proj"]),
        kernel("residual", (r + e) * hidden, r * hidden),
    )
    # Where stream and branches differ in dtype, a branch's gradient is the stream's, rounded.
    rounded = 0 if r == e else e * hidden
    read_again = KernelCost("states before chunks", n * e * (inner + maps + heads), states, of_chunks * 2 * s * p)
    by_group = 4 * chunks * q * config.n_groups * q * s
    backward = (
        kernel("residual", r * hidden if rounded else 0, rounded),
        gradients("down_proj", *sizes["down_proj"]),
        kernel("gate", 3 * e * mlp, 2 * e * mlp),
        gradients("up_proj", *sizes["up_proj"]),
        gradients("gate_proj", *sizes["gate_proj"]),
        kernel("sum of two gradients", 2 * e * hidden, e * hidden),
        kernel("residual and norm", (2 * r + e) * hidden, r * hidden + rounded),
        gradients("out_proj", *sizes["out_proj"]),
        kernel("gated norm", 3 * e * inner, 2 * e * inner),
        kernel("convolution anew", e * channels, e * channels),
        read_again,
        KernelCost("gradients of states", read_again.read, states, read_again.flops),
        KernelCost(
            "gradients of B and C",
            n * (scanned + e * inner) + 2 * states,
            n * (2 * e * maps + 4 * heads),
            of_chunks * (2 * q * p + 4 * p * s) + by_group,
        ),
        KernelCost(
            "gradients of x and dt",
            n * (scanned + e * inner + 4 * heads) + states,
            n * e * (inner + heads),
            of_chunks * (2 * q * (s + 2 * p + q) + 2 * s * p),
        ),
        kernel("convolution", 2 * e * channels, e * channels),
        gradients("in_proj", *sizes["in_proj"]),
        kernel("norm", (e + 2 * r) * hidden, r * hidden),
    )
    scan = batch_size * scan_flops(config, length) / config.num_hidden_layers
    return BlockCost(forward, backward, scan + sum(kernel.flops for kernel in forward if kernel.name in sizes))
