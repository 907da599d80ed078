# Copyright 2026 The modeling_pixelvit team. All rights reserved.
# SPDX-License-Identifier: Apache-2.0
"""
Trains a model by a recipe.

    accelerate launch -m training.train --recipe adventurer-stage1 --variant tiny --patch_size 8 --dataset path/to/data
    python -m training.train --help

Any field of the recipe can be given on the command line. `accelerate launch --config_file training/configs/NAME.yaml`
chooses devices, precision and sharding. The output folder has `checkpoints/`, `best` (for `from_pretrained`),
`metrics.jsonl` and, in the end, `results.json`.

Exit status: 0 when all steps are done, 128 + n after signal n (130: SIGINT, 143: SIGTERM; a checkpoint was written, and
the same command with `--resume auto` goes on), 2 for an error in what was asked, 1 for a run that had to stop.
"""

import sys

from .engine.run import run_commands


def main(arguments: list[str] | None = None) -> int:
    """Runs the command; returns its exit status."""
    return run_commands([arguments])


if __name__ == "__main__":
    sys.exit(main())
