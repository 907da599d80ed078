# Copyright 2026 The modeling_pixelvit team. All rights reserved.
# SPDX-License-Identifier: Apache-2.0
"""
What this machine would run a model on, why, and what would make it faster.

    python -m training.doctor                     both families
    python -m training.doctor path/to/checkpoint  one model
    python -m training.doctor --card "H100 SXM" --patch_size 1 --batch_size 16
                                                  how fast the kernels can be at best on a card, by its data sheet

Nothing is downloaded but the configuration of a model that is named by its repository on the hub.
"""

import argparse
import sys

import torch
from transformers import AutoConfig, PreTrainedConfig

from .benchmarks.doctor import examine, find_device
from .benchmarks.floors import format_floors
from .families.registry import FAMILIES


def parse_arguments(arguments: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m training.doctor", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("model", nargs="?", help="checkpoint folder or repository; both families if not given")
    parser.add_argument("--device", choices=("cpu", "cuda"), help="the GPU if there is one, else the processor")
    parser.add_argument("--card", metavar="NAME", help="tell the kernels' floors on this graphics card, and no more")
    parser.add_argument("--image_size", type=int, help="in pixels, for the floors (the model's)")
    parser.add_argument("--patch_size", type=int, help="in pixels, for the floors (the model's)")
    parser.add_argument("--batch_size", type=int, default=16, help="images a step, for the floors (%(default)s)")
    return parser.parse_args(arguments)


def load_configs(model: str | None, **sizes: int) -> dict[str, PreTrainedConfig]:
    """
    By family: the model's, or one of each, with `image_size` and `patch_size` if they are given.

    Raises:
        ValueError: if there is no such model, or it is of no family, or sizes do not fit.
    """
    if model is None:
        return {name: family.config_class.from_variant("base", **sizes) for name, family in FAMILIES.items()}
    try:
        config = AutoConfig.from_pretrained(model)
    except OSError as error:
        raise ValueError(f"{model} was given, which has no configuration: {error}") from None
    if config.model_type not in FAMILIES:
        raise ValueError(f"{model} was given, which is a {config.model_type}; known are {', '.join(FAMILIES)}.")
    return {config.model_type: type(config)(**{**config.to_dict(), **sizes}) if sizes else config}


def main(arguments: list[str] | None = None) -> int:
    """Runs the command; returns its exit status."""
    args = parse_arguments(arguments)
    if args.device == "cuda" and not torch.cuda.is_available():
        print("error: --device cuda was given, but torch sees no CUDA device; leave it out.", file=sys.stderr)
        return 2
    sizes = {name: getattr(args, name) for name in ("image_size", "patch_size") if getattr(args, name) is not None}
    try:
        if args.batch_size < 1:
            raise ValueError(f"--batch_size {args.batch_size} was given; it must be above zero.")
        configs = load_configs(args.model, **sizes)
        if args.card is None:
            device = find_device(args.device or ("cuda" if torch.cuda.is_available() else "cpu"))
            print(examine(device, configs, args.batch_size))
        elif "adventurer" not in configs:
            raise ValueError(
                f"--card was given with {args.model}; floors are of Adventurer's kernels, give such a model."
            )
        else:
            print(format_floors(configs["adventurer"], args.card, args.batch_size))
    except ValueError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
