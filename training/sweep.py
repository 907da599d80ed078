# Copyright 2026 The modeling_pixelvit team. All rights reserved.
# SPDX-License-Identifier: Apache-2.0
"""
The patch-size sweep: each family at every patch size, under one recipe, on real images that need no download.

    python -m training.sweep                                       # 7 minutes on two cores
    python -m training.sweep --task segmentation --decoder none,upernet
    python -m training.sweep --task detection
    python -m training.sweep --dataset path/to/folder --image_size 64 --patch_sizes 16 8 4
    python -m training.sweep --help

It ends with a table, a picture of test loss against patch size with the fitted power law (and of mean IoU or AP),
`results.json` and a checkpoint folder for every run. An interrupted sweep goes on where it stopped when the same
command is given again; what is finished is not repeated.
"""

import sys

from .experiments.arguments import parse_arguments
from .experiments.carrying import resumable_command
from .experiments.sweep import sweep


def main(arguments: list[str] | None = None) -> int:
    options = parse_arguments(arguments)
    return resumable_command("training.sweep", arguments, lambda command: sweep(options, command))


if __name__ == "__main__":
    sys.exit(main())
