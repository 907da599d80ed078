# Copyright 2026 The modeling_pixelvit team. All rights reserved.
# SPDX-License-Identifier: Apache-2.0
"""
How fast images are read for training, beside timm's loader with the same transforms.

    python -m training.benchmark_loading

Makes a temporary folder of JPEG files, of 500 x 375 pixels as ImageNet's often are, and reads all of them once per
round, ours and timm's in turn, each time with new worker processes. Rates are medians over the rounds, and ratios of
times medians over the pairs, ours over timm's: "per_core" by the clock, divided by the number of workers, and
"per_cpu_second" by the processor time of all processes, which tells more on a machine that others use as well. Results
go to a JSON file with device, versions and date.
"""

import argparse
import tempfile
from pathlib import Path

import datasets
import PIL
import timm
import torch

from .benchmarks.loading import measure
from .benchmarks.measuring import RESULTS_DIR, environment, print_rows, write_results


def parse_arguments(arguments: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--num_images", type=int, default=400, help="files")
    parser.add_argument("--batch_size", type=int, default=40, help="images in a batch")
    parser.add_argument("--num_workers", type=int, nargs="+", default=[0, 1, 2], help="processes that read")
    parser.add_argument("--rounds", type=int, default=5, help="timed passes of each side")
    parser.add_argument("--output", type=Path, default=RESULTS_DIR / "loading.json", help="JSON file")
    return parser.parse_args(arguments)


def main(arguments: list[str] | None = None):
    args = parse_arguments(arguments)
    torch.set_num_threads(1)  # as in worker processes
    with tempfile.TemporaryDirectory() as folder:
        rows = measure(Path(folder), args.num_images, args.batch_size, args.num_workers, args.rounds)
    print_rows(rows)
    versions = {"timm": timm.__version__, "datasets": datasets.__version__, "pillow": PIL.__version__}
    settings = {"num_images": args.num_images, "batch_size": args.batch_size, "rounds": args.rounds}
    content = {"environment": environment("cpu") | versions, "settings": settings, "results": rows}
    write_results(args.output, content)
    print(f"Written to {args.output}")


if __name__ == "__main__":
    main()
