# Copyright 2026 The modeling_pixelvit team. All rights reserved.
# SPDX-License-Identifier: Apache-2.0
"""Training, measuring and converting; run from a checkout, not installed with the package."""

import logging


# What packages say while they are imported, wherever they are installed and whether a command uses them or not.
GREETINGS = {
    "DeepSpeed": "Setting accelerator to CPU",
    "torch.utils._pytree": "<enum ",
    "bitsandbytes.backends.cpu.ops": "Failed to load CPU gemm_4bit_forward",  # on processors with AVX512_BF16
}


class _NoGreeting(logging.Filter):
    """Lets all through but the package's greeting."""

    def filter(self, record: logging.LogRecord) -> bool:
        return not record.getMessage().startswith(GREETINGS[record.name])


for _name in GREETINGS:
    logging.getLogger(_name).addFilter(_NoGreeting())
