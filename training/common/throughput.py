# Copyright 2026 The modeling_pixelvit team. All rights reserved.
# SPDX-License-Identifier: Apache-2.0
"""How fast a run is, of how much the device could do, and how much memory it takes."""

import sys
import time
from pathlib import Path

import torch

from .gpus import find_gpu


# Of products, by the name that a precision has in options.
DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
# A forward pass and, for each of its products, one for either factor's gradient.
PASSES_PER_STEP = 3


def peak_flops(device: torch.device, mixed_precision: str) -> float | None:
    """The device's operations per second in half precision; None if not known, or in fp32."""
    if device.type != "cuda" or mixed_precision not in ("fp16", "bf16"):
        return None
    gpu = find_gpu(torch.cuda.get_device_name(device))
    return None if gpu is None else gpu.rate


def status_bytes(name: str) -> int:
    """
    Bytes by the name of a line of Linux's status of this process.

    Raises:
        OSError or IndexError: elsewhere.
    """
    return 1024 * int(Path("/proc/self/status").read_text().split(f"{name}:")[1].split()[0])


def peak_memory_mib(device: torch.device | None = None) -> float:
    """
    The most memory that this process has had, in MiB: on a GPU that of its tensors, otherwise what was resident,
    libraries included.

    Linux counts into `ru_maxrss` what the parent had when it started the process, so there its own peak is read.
    """
    if device is not None and device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 2**20
    try:
        return status_bytes("VmHWM") / 2**20
    except (OSError, IndexError):
        import resource  # not on Windows

        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        return peak / 2**20 if sys.platform == "darwin" else peak / 2**10


class Throughput:
    """
    Counts images and tokens of all processes against the time between logs, pauses taken out.

    Args:
        image_flops: Of one image's forward pass by patch size; empty where that is not known.
        device_flops: Peak of one device a second, or None.
        num_devices: Of the run.
    """

    def __init__(self, image_flops: dict[int, int], device_flops: float | None, num_devices: int):
        self.image_flops, self.device_flops, self.num_devices = image_flops, device_flops, num_devices
        self._restart()

    def add(self, images: int, tokens: int, patch_size: int):
        self.images += images
        self.tokens += tokens
        self.flops += images * (self.image_flops.get(patch_size, 0))

    def pause(self):
        """Stops the clock for what is no training: evaluation and saving."""
        self.paused_at = time.monotonic()

    def go_on(self):
        self.started += time.monotonic() - self.paused_at

    def rates(self) -> dict[str, float]:
        """`images_per_second`, `tokens_per_second` and, where the peak is known, `mfu` (0 to 1) since the last call."""
        seconds = max(time.monotonic() - self.started, 1e-9)
        rates = {"images_per_second": self.images / seconds, "tokens_per_second": self.tokens / seconds}
        if self.flops and self.device_flops:
            rates["mfu"] = PASSES_PER_STEP * self.flops / seconds / (self.device_flops * self.num_devices)
        self._restart()
        return rates

    def _restart(self):
        self.images = self.tokens = self.flops = 0
        self.started = time.monotonic()
