# Copyright 2026 The modeling_pixelvit team. All rights reserved.
# SPDX-License-Identifier: Apache-2.0
"""
Trains through several stages, each from the best checkpoint of the one before it.

    accelerate launch -m training.train_stages --recipes adventurer-stage1 adventurer-stage2 adventurer-stage3 \\
        --variant base --patch_size 4 --image_size 128 224 224 --dataset path/to/images --output_dir runs/base-patch4

Every option of `training.train` is taken. One value counts for all stages, as many values as stages count in turn. The
stages are runs of their own, in `stage1/`, `stage2/` and so on; with `--resume auto` those that are done stay.
"""

import argparse
import shlex
import sys
from collections.abc import Iterator
from pathlib import Path

from .engine.checkpoints import BEST_LINK
from .engine.run import run_commands


def split_by_stage(words: list[str], num_stages: int) -> list[list[str]]:
    """
    The command lines of the stages.

    Raises:
        ValueError: if an option has neither one value nor one for each stage.
    """
    stages: list[list[str]] = [[] for _ in range(num_stages)]
    position = 0
    while position < len(words):
        option = words[position]
        end = position + 1
        while end < len(words) and not words[end].startswith("--"):
            end += 1
        values = words[position + 1 : end]
        position = end
        if len(values) not in (0, 1, num_stages):
            raise ValueError(
                f"{option} got the {len(values)} values {' '.join(values)}; give one for all stages, or {num_stages}."
            )
        for index, stage in enumerate(stages):
            stage += [option, *(values if len(values) < 2 else values[index : index + 1])]
    return stages


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m training.train_stages",
        description="Trains through several stages. Beside the options here it takes those of training.train, with one "
        "value for all stages or one for each.",
    )
    parser.add_argument("--recipes", nargs="+", required=True, help="the stages' recipes, in order")
    parser.add_argument("--output_dir", type=Path, required=True, help="folder of all stages")
    options, rest = parser.parse_known_args(arguments)
    try:
        command_lines = split_by_stage(rest, len(options.recipes))
    except ValueError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return run_commands(stages(options.recipes, command_lines, options.output_dir))


def stages(recipes: list[str], command_lines: list[list[str]], folder: Path) -> Iterator[list[str]]:
    """The words of `training.train` for each stage, announced as it begins."""
    for index, (recipe, words) in enumerate(zip(recipes, command_lines, strict=True)):
        command = ["--recipe", recipe, "--output_dir", str(folder / f"stage{index + 1}"), *words]
        if index:
            command += ["--initial_checkpoint", str(folder / f"stage{index}" / BEST_LINK)]
        print(f"stage {index + 1}: training.train {shlex.join(command)}", file=sys.stderr)
        yield command


if __name__ == "__main__":
    sys.exit(main())
