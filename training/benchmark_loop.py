# Copyright 2026 The modeling_pixelvit team. All rights reserved.
# SPDX-License-Identifier: Apache-2.0
"""
What the training loop costs on top of the bare forward, backward and optimizer step.

    python -m training.benchmark_loop                    on the CPU: Tiny at 128 pixels, patch 8, in fp32
    python -m training.benchmark_loop --device cuda      on a GPU: Base at 224 pixels, patch 16, in bf16

Both families train by their recipe of stage 1 with all that it asks for (random crops, ThreeAugment, Mixup, CutMix,
the average of the weights), reading images in worker processes. After each step of the loop a copy of its model takes
a bare step with the same optimizer on one batch that stays, so that a machine whose speed drifts slows both. The share
is the bare step's time over the loop's, from one step to the next: its median over the pairs. Results go to a JSON file
with device, versions and date.
"""

import argparse
import tempfile
from pathlib import Path

import torch
from transformers.utils import logging

from .benchmarks.loop import SIZES, measure
from .benchmarks.measuring import RESULTS_DIR, Rows, environment, print_rows, write_results
from .families.registry import FAMILIES


def parse_arguments(arguments: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", choices=list(SIZES), default="cpu")
    parser.add_argument("--steps", type=int, default=40, help="timed steps")
    parser.add_argument("--num_workers", type=int, default=1, help="processes that read images")
    parser.add_argument("--threads", type=int, default=1, help="CPU threads of the model")
    parser.add_argument("--output", type=Path, help="JSON file (training/benchmarks/loop.json or loop_cuda.json)")
    return parser.parse_args(arguments)


def main(arguments: list[str] | None = None):
    args = parse_arguments(arguments)
    torch.set_num_threads(args.threads)
    logging.disable_progress_bar()  # of every file that transformers writes
    rows: Rows = {}
    for family in FAMILIES:
        with tempfile.TemporaryDirectory() as folder:
            rows |= measure(family, args.device, args.steps, args.num_workers, folder)
    print_rows(rows)
    settings = {"steps": args.steps, "num_workers": args.num_workers, **SIZES[args.device]}
    output = args.output or RESULTS_DIR / ("loop.json" if args.device == "cpu" else f"loop_{args.device}.json")
    content = {"environment": environment(args.device), "settings": settings, "results": rows}
    write_results(output, content)
    print(f"Written to {output}")


if __name__ == "__main__":
    main()
