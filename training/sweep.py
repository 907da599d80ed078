# Copyright 2026 The modeling_pixelvit team. All rights reserved.
# SPDX-License-Identifier: Apache-2.0
"""
The patch-size sweep: each family at every patch size, under one recipe, on real images that need no download.

    python -m training.sweep                                       # 9 minutes on two cores
    python -m training.sweep --task segmentation --decoder none,upernet
    python -m training.sweep --task detection
    python -m training.sweep --dataset path/to/folder --image_size 64 --patch_sizes 16 8 4
    python -m training.sweep --help

It ends with a table, a picture of test loss against patch size with the fitted power law (and of mean IoU or AP),
`results.json` and a checkpoint folder for every run. An interrupted sweep goes on where it stopped when the same
command is given again; what is finished is not repeated.
"""

import shlex
import signal
import sys

from transformers.utils import logging

from .experiments.arguments import parse_arguments
from .experiments.sweep import sweep


def main(arguments: list[str] | None = None) -> int:
    # A job scheduler's way to say Ctrl-C, which a shell's background jobs do not get.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    logging.disable_progress_bar()  # of every file that transformers reads
    options = parse_arguments(arguments)
    command = shlex.join(["python", "-m", "training.sweep", *(sys.argv[1:] if arguments is None else arguments)])
    try:
        return sweep(options, command)
    except ValueError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print(
            "\nInterrupted. Finished runs are kept and the others go on from their last saved state (at most half a "
            f"minute old) with the same command:\n    {command}",
            file=sys.stderr,
        )
        return 130


if __name__ == "__main__":
    sys.exit(main())
