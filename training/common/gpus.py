# Copyright 2026 The modeling_pixelvit team. All rights reserved.
# SPDX-License-Identifier: Apache-2.0
"""What the vendor's data sheets say of graphics cards, by their names: nothing here is measured or estimated."""

import re
from dataclasses import dataclass


@dataclass(frozen=True)
class Gpu:
    """
    Args:
        rate: Operations a second of dense matrix products in half precision.
        bandwidth: Bytes a second between the card and its memory; None where no data sheet was at hand.
        capability: Compute capability, (major, minor).
    """

    rate: float
    bandwidth: float | None
    capability: tuple[int, int]


# By words that its name has, as torch tells it or as people say it. Rates are without sparsity: half of what sheets
# print with it. From NVIDIA's data sheets of A100, H100, H200, HGX B200, L40S, L4, A10, A10G and V100, and the product
# brief PB-11133 of the H100 for PCIe.
GPUS = {
    "A100 SXM 80GB": Gpu(312e12, 2.039e12, (8, 0)),
    "A100 PCIE 80GB": Gpu(312e12, 1.935e12, (8, 0)),
    "A100 SXM 40GB": Gpu(312e12, 1.555e12, (8, 0)),
    "A100 PCIE 40GB": Gpu(312e12, 1.555e12, (8, 0)),
    "A100": Gpu(312e12, None, (8, 0)),
    "H100 HBM3": Gpu(989e12, 3.35e12, (9, 0)),
    "H100 SXM": Gpu(989e12, 3.35e12, (9, 0)),
    "H100 PCIE": Gpu(756e12, 2.0e12, (9, 0)),
    "H200": Gpu(989e12, 4.8e12, (9, 0)),
    "B200": Gpu(2250e12, 7.7e12, (10, 0)),
    "L40S": Gpu(362e12, 0.864e12, (8, 9)),
    "L4": Gpu(121e12, 0.3e12, (8, 9)),
    "A10G": Gpu(70e12, None, (8, 6)),
    "A10": Gpu(125e12, None, (8, 6)),
    "V100 SXM": Gpu(125e12, None, (7, 0)),
    "V100 PCIE": Gpu(112e12, None, (7, 0)),
}
# A part of a card, and another one than its other words say.
OTHERS = {"MIG", "NVL"}


def find_gpu(name: str) -> Gpu | None:
    """The card of which all words are in `name`; None if there is no such card here."""
    words = set(re.sub(r"SXM\d", "SXM", name.upper()).replace("-", " ").split())
    if words & OTHERS:
        return None
    return next((gpu for key, gpu in GPUS.items() if words.issuperset(key.split())), None)
