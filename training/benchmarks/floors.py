# Copyright 2026 The modeling_pixelvit team. All rights reserved.
# SPDX-License-Identifier: Apache-2.0
"""
The least time that Adventurer's blocks can take on a graphics card, by the bytes and operations of their kernels
(`checkpoints.kernel_cost`) and the card's data sheet (`common.gpus`).
"""

from modeling_pixelvit import AdventurerConfig

from ..checkpoints.kernel_cost import BlockCost, KernelCost, block_cost
from ..common.gpus import GPUS, Gpu, find_gpu
from ..experiments.report import format_rows


STREAM_BYTES = {True: 4, False: 2}  # under autocast, as in training, and in a model in half precision


def known_gpu(name: str) -> Gpu:
    """
    Raises:
        ValueError: if its rate or its bandwidth is not known.
    """
    gpu = find_gpu(name)
    if gpu is None or gpu.bandwidth is None:
        known = ", ".join(key for key, one in GPUS.items() if one.bandwidth is not None)
        raise ValueError(f"Of {name} matrix rate and memory bandwidth are not known here, but only of {known}.")
    return gpu


def step_floor(config: AdventurerConfig, gpu: Gpu, batch_size: int, trains: bool, checkpoints: bool = False) -> float:
    """
    Seconds that the blocks of a model take at least for a step in half precision; patch embedding, head and optimizer
    are left out.

    Args:
        trains: A training step under autocast, or else a forward pass of a model in half precision.
        checkpoints: Whether blocks are computed again in the backward pass.
    """
    cost = block_cost(config, batch_size, stream_bytes=STREAM_BYTES[trains], capability=gpu.capability)
    seconds = cost.seconds(gpu.bandwidth, gpu.rate) if trains else 0.0
    if checkpoints or not trains:
        seconds += cost.forward_seconds(gpu.bandwidth, gpu.rate)
    return config.num_hidden_layers * seconds


def format_floors(config: AdventurerConfig, name: str, batch_size: int) -> str:
    """
    The floor of each kernel of a block in a training step, and the MFU that they leave.

    Args:
        name: Of the card.

    Raises:
        ValueError: if the card is not known, or the kernels do not do the model's sizes.
    """
    gpu = known_gpu(name)
    cost = block_cost(config, batch_size, stream_bytes=STREAM_BYTES[True], capability=gpu.capability)
    rows = [("kernel", "GB", "TFLOP", "ms at least", "bound by")]
    for title, kernels in (("forward", cost.forward), ("backward", cost.backward)):
        rows += [(f"{title}: {kernel.name}", *_figures(kernel, gpu)) for kernel in kernels]
    rows.append(("all", *_sums(cost, gpu), ""))
    size = config.image_size if isinstance(config.image_size, int) else " by ".join(map(str, config.image_size))
    return "\n\n".join(
        (
            "Not measured: computed from bytes and operations of the kernels of a block, and from the data sheet of "
            f"{name}, {gpu.bandwidth / 1e12:.4g} TB/s and {gpu.rate / 1e12:.4g} TFLOP/s in half precision.",
            f"A training step of {batch_size} images of {size} pixels at patch {config.patch_size}, "
            f"{config.hidden_size} channels, autocast in half precision:",
            format_rows(rows),
            f"MFU of a block whose kernels all are at their floors: {cost.utilization(gpu.bandwidth, gpu.rate):.0%}",
        )
    )


def _figures(kernel: KernelCost, gpu: Gpu) -> tuple[str, ...]:
    moved = kernel.read + kernel.written
    bound = "memory" if moved / gpu.bandwidth > kernel.flops / gpu.rate else "products"
    return (
        f"{moved / 1e9:.2f}",
        f"{kernel.flops / 1e12:.2f}",
        f"{1e3 * kernel.seconds(gpu.bandwidth, gpu.rate):.2f}",
        bound,
    )


def _sums(cost: BlockCost, gpu: Gpu) -> tuple[str, ...]:
    kernels = (*cost.forward, *cost.backward)
    moved, flops = sum(one.read + one.written for one in kernels), sum(one.flops for one in kernels)
    return f"{moved / 1e9:.2f}", f"{flops / 1e12:.2f}", f"{1e3 * cost.seconds(gpu.bandwidth, gpu.rate):.2f}"
