# Copyright 2026 The modeling_pixelvit team. All rights reserved.
# SPDX-License-Identifier: Apache-2.0
"""
Speed, memory and cost.

    python -m training.benchmark                     on the CPU: everything the README quotes, as ratios
    python -m training.benchmark --only mixer vit    some of these measurements
    python -m training.benchmark cost --price 2.50   the paper's Table 6 for this machine, at so many euros an hour
    python -m training.benchmark gpu                 on a GPU, in ten minutes: do kernels agree, and how fast are they

Two things that are compared run in turn (A B A B ...), so that a machine whose speed drifts slows both, and the ratio
is the median over the pairs. Memory on the CPU is the peak resident size of a fresh process. Results go to a JSON file
with device, versions and date.
"""

import argparse
import dataclasses
import os
import re
import sys
from pathlib import Path
from typing import Any

import torch

from modeling_pixelvit import AdventurerConfig

from .benchmarks.cost import PATCH_SIZES, CostSettings, draw_costs, format_costs, measure_costs, paper_columns
from .benchmarks.cost_cell import matrix_rate
from .benchmarks.cpu import CPU_MEASUREMENTS
from .benchmarks.gpu import PARTS, GpuSettings, compare_on_gpu
from .benchmarks.measuring import RESULTS_DIR, Rows, environment, print_rows, write_results
from .common.gpus import find_gpu
from .common.throughput import DTYPES
from .families.registry import FAMILIES


def parse_arguments(arguments: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    kinds = parser.add_subparsers(dest="kind", required=True)
    of_cpu = kinds.add_parser("cpu", help="ratios on the CPU (if nothing is named)")
    of_cpu.add_argument("--only", nargs="+", choices=list(CPU_MEASUREMENTS), help="CPU measurements to make (all)")
    of_cpu.add_argument("--rounds", type=int, default=5, help="timed calls of each side")
    of_cpu.add_argument("--threads", type=int, default=2, help="CPU threads")
    of_cpu.add_argument("--output", type=Path, help="JSON file (training/benchmarks/cpu.json)")
    add_gpu_arguments(kinds.add_parser("gpu", help="all implementations on a GPU: correctness, speed, training"))
    add_cost_arguments(kinds.add_parser("cost", help="the paper's Table 6 for this machine"))
    words = sys.argv[1:] if arguments is None else arguments
    if not words or (words[0].startswith("-") and words[0] not in ("-h", "--help")):
        words = ["cpu", *words]
    return parser.parse_args(words)


def add_gpu_arguments(parser: argparse.ArgumentParser):
    add = parser.add_argument
    add("--device", choices=["cpu", "cuda"], default="cuda", help="cpu: to try the command (default: %(default)s)")
    add("--parts", nargs="+", choices=list(PARTS), default=list(PARTS), help="in this order (default: all)")
    add("--variant", default="base", choices=list(AdventurerConfig.variants), help="(default: %(default)s)")
    add("--image_size", type=int, default=224, help="in pixels (default: %(default)s)")
    add("--patch_size", type=int, default=1, help="in pixels (default: %(default)s)")
    add("--batch_size", type=int, default=16, help="images a step, halved until they fit (default: %(default)s)")
    add("--rounds", type=int, default=5, help="timed calls (default: %(default)s)")
    add("--max_seconds", type=float, default=570.0, help="for everything (default: %(default)s)")
    add("--curve_steps", type=int, default=100, help="steps of the short trainings (default: %(default)s)")
    add("--curve_side", type=int, default=64, help="side of their images, at patch 1 (default: %(default)s)")
    add("--threads", type=int, default=torch.get_num_threads(), help="CPU threads (default: %(default)s)")
    add("--output", type=Path, help="JSON file (training/benchmarks/gpu_DEVICE.json)")


def add_cost_arguments(parser: argparse.ArgumentParser):
    add = parser.add_argument
    has_gpu = torch.cuda.is_available()
    add("--device", choices=["cpu", "cuda"], default="cuda" if has_gpu else "cpu", help="(default: %(default)s)")
    add("--precision", choices=list(DTYPES), help="(default: bf16 on a GPU, fp32 on a CPU)")
    add("--families", nargs="+", default=list(FAMILIES), choices=list(FAMILIES), help="(default: both)")
    add("--variant", default="base", choices=list(AdventurerConfig.variants), help="(default: %(default)s)")
    add("--image_size", type=int, default=224, help="in pixels (default: %(default)s)")
    add("--patch_sizes", type=int, nargs="+", default=list(PATCH_SIZES), help="in pixels (default: %(default)s)")
    add("--price", type=float, help="euros for an hour of the device; without it no euros are told")
    add("--max_seconds", type=float, default=120.0, help="of a cell; a longer one is extrapolated (%(default)s)")
    add("--tokens_per_step", type=int, help="images a step are so many tokens or one (GPU 65,536, CPU 1,024)")
    add("--rounds", type=int, default=5, help="timed steps of a cell, fewer where they are slow (%(default)s)")
    add("--gradient_checkpointing", action="store_true", help="compute blocks again in the backward pass")
    add("--mixer_implementation", help="of Adventurer (default: the one that it would take)")
    add("--attn_implementation", help="of PixelViT, as transformers calls it (default: sdpa)")
    add("--threads", type=int, default=torch.get_num_threads(), help="CPU threads (default: %(default)s)")
    add("--output", type=Path, help="JSON file, beside which .md and .png go (training/benchmarks/cost_DEVICE.json)")


def main(arguments: list[str] | None = None):
    args = parse_arguments(arguments)
    if getattr(args, "device", "cpu") == "cuda" and not torch.cuda.is_available():
        sys.exit("--device cuda was given, but torch sees no CUDA device; run it on a machine that has one.")
    for name, value in vars(args).items():
        if isinstance(value, (int, float)) and not isinstance(value, bool) and not value > 0:
            sys.exit(f"error: --{name} {value} was given; it must be above zero.")
    # Through the environment as well, for the measurements in fresh processes.
    os.environ["OMP_NUM_THREADS"] = str(args.threads)
    torch.set_num_threads(args.threads)
    try:
        {"cpu": write_ratios, "gpu": write_gpu, "cost": write_costs}[args.kind](args)
    except ValueError as error:
        sys.exit(f"error: {error}")


def write_ratios(args: argparse.Namespace):
    rows: Rows = {}
    for name in args.only or CPU_MEASUREMENTS:
        found = CPU_MEASUREMENTS[name](args.rounds)
        print_rows(found)
        rows |= found
    output = args.output or RESULTS_DIR / "cpu.json"
    write_results(output, {"environment": environment("cpu"), "results": rows})
    print(f"Written to {output}")


def write_gpu(args: argparse.Namespace):
    names = {field.name for field in dataclasses.fields(GpuSettings)}
    settings = GpuSettings(**{name: value for name, value in vars(args).items() if name in names})
    content = {"environment": environment(args.device), "settings": dataclasses.asdict(settings), "results": {}}
    output = args.output or RESULTS_DIR / f"gpu_{slug_of(content)}.json"

    def show(rows: Rows):
        print_rows(dict([list(rows.items())[-1]]))
        content["results"] = rows
        write_results(output, content)  # after each row, since the time of a lent card may be over

    content["results"] = compare_on_gpu(settings, args.parts, show)
    write_results(output, content)
    print(f"Written to {output}")


def write_costs(args: argparse.Namespace):
    on_gpu = args.device == "cuda"
    chosen = {"adventurer": args.mixer_implementation, "pixelvit": args.attn_implementation}
    settings = CostSettings(
        variant=args.variant,
        image_size=args.image_size,
        patch_sizes=tuple(dict.fromkeys(args.patch_sizes)),
        device=args.device,
        precision=args.precision or ("bf16" if on_gpu else "fp32"),
        tokens_per_step=args.tokens_per_step or (2**16 if on_gpu else 2**10),
        threads=args.threads,
        max_seconds=args.max_seconds,
        rounds=args.rounds,
        gradient_checkpointing=args.gradient_checkpointing,
        implementations={family: name for family, name in chosen.items() if name is not None},
        price=args.price,
    )
    settings.check()
    rate = matrix_rate(args.device, settings.precision)
    found = environment(args.device)
    gpu = find_gpu(found["device"]) if on_gpu else None
    rows, fits = measure_costs(settings, rate, args.families, gpu, show=lambda line: print(line, flush=True))
    hours = "GPU hours" if on_gpu else f"CPU hours ({args.threads} threads)"
    content = {
        "environment": found,
        "settings": {**dataclasses.asdict(settings), "device_hours": hours},
        "matrix_rate": rate,
        "rows": rows,
        "fits": {family: {mode: dataclasses.asdict(fit) for mode, fit in of.items()} for family, of in fits.items()},
        "paper": paper_columns(settings),
    }
    output = args.output or RESULTS_DIR / f"cost_{slug_of(content)}.json"
    text = format_costs(content)
    print(text)
    write_results(output, content)
    output.with_suffix(".md").write_text(text)
    draw_costs(content, output.with_suffix(".png"))
    print(f"Written to {output}")


def slug_of(content: dict[str, Any]) -> str:
    """The device's name as a part of a file's."""
    return re.sub(r"[^a-z0-9]+", "-", content["environment"]["device"].lower()).strip("-")


if __name__ == "__main__":
    main()
