# Copyright 2026 The modeling_pixelvit team. All rights reserved.
# SPDX-License-Identifier: Apache-2.0
"""
The training command that the first word names, for tests: DeepSpeed computes fp16 on any CPU, and compiles nothing.

PyTorch computes half precision on every CPU; DeepSpeed refuses it where that is slow. Its own shared-memory
communication takes a minute to compile, and gloo does the same.
"""

import os
import sys


if os.environ.get("ACCELERATE_USE_DEEPSPEED") == "true":
    import deepspeed
    from deepspeed.accelerator.cpu_accelerator import CPU_Accelerator

    CPU_Accelerator.is_fp16_supported = lambda self: True
    deepspeed.ops.__compatible_ops__["deepspeed_shm_comm"] = False

from training import train, train_stages


if __name__ == "__main__":
    command = {"train": train, "train_stages": train_stages}[sys.argv[1]]
    sys.exit(command.main(sys.argv[2:]))
