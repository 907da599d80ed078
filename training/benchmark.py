# Copyright 2026 The modeling_pixelvit team. All rights reserved.
# SPDX-License-Identifier: Apache-2.0
"""
Speed and memory, side by side in one run, as ratios.

    python -m training.benchmark                     on the CPU: everything the README quotes
    python -m training.benchmark --device cuda       on a GPU: both families at 224 pixels and one-pixel patches
    python -m training.benchmark --only mixer vit    some of the measurements

Two things that are compared run in turn (A B A B ...), so that a machine whose speed drifts slows both, and the ratio
is the median over the pairs. Memory on the CPU is the peak resident size of a fresh process. Results go to a JSON file
with device, versions and date.
"""

import argparse
import json
import os
import sys
from pathlib import Path

import torch

from modeling_pixelvit import AdventurerConfig

from .benchmarks.cpu import CPU_MEASUREMENTS
from .benchmarks.cuda import measure_gpu
from .benchmarks.measuring import RESULTS_DIR, Rows, environment, print_rows


def parse_arguments(arguments: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cpu")
    parser.add_argument("--only", nargs="+", choices=list(CPU_MEASUREMENTS), help="CPU measurements to make (all)")
    parser.add_argument("--rounds", type=int, default=5, help="timed calls of each side")
    parser.add_argument("--threads", type=int, default=2, help="CPU threads")
    parser.add_argument("--size", default="base", choices=list(AdventurerConfig.variants), help="model size on a GPU")
    parser.add_argument("--patch_size", type=int, default=1, help="patch size on a GPU")
    parser.add_argument("--batch_size", type=int, default=1, help="images at a time on a GPU")
    parser.add_argument("--output", type=Path, help="JSON file (training/benchmarks/cpu.json or cuda.json)")
    return parser.parse_args(arguments)


def main(arguments: list[str] | None = None):
    args = parse_arguments(arguments)
    if args.device == "cuda" and not torch.cuda.is_available():
        sys.exit("--device cuda was given, but torch sees no CUDA device; run it on a machine that has one.")
    # Through the environment as well, for the measurements in fresh processes.
    os.environ["OMP_NUM_THREADS"] = str(args.threads)
    torch.set_num_threads(args.threads)
    rows: Rows = {}
    if args.device == "cuda":
        rows = measure_gpu(args)
        print_rows(rows)
    else:
        for name in args.only or CPU_MEASUREMENTS:
            found = CPU_MEASUREMENTS[name](args.rounds)
            print_rows(found)
            rows |= found
    output = args.output or RESULTS_DIR / f"{args.device}.json"
    output.parent.mkdir(parents=True, exist_ok=True)
    output.write_text(json.dumps({"environment": environment(args.device), "results": rows}, indent=2) + "\n")
    print(f"Written to {output}")


if __name__ == "__main__":
    main()
