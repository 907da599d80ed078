# Copyright 2026 The modeling_pixelvit team. All rights reserved.
# SPDX-License-Identifier: Apache-2.0
"""
What this machine would run a model on, why, and what would make it faster.

    python -m training.doctor                     both families
    python -m training.doctor path/to/checkpoint  one model

Nothing is downloaded but the configuration of a model that is named by its repository on the hub.
"""

import argparse
import sys

import torch
from transformers import AutoConfig, PreTrainedConfig

from .benchmarks.doctor import examine, find_device
from .families.registry import FAMILIES


def parse_arguments(arguments: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m training.doctor", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("model", nargs="?", help="checkpoint folder or repository; both families if not given")
    parser.add_argument("--device", choices=("cpu", "cuda"), help="the GPU if there is one, else the processor")
    return parser.parse_args(arguments)


def load_configs(model: str | None) -> dict[str, PreTrainedConfig]:
    """
    By family: the model's, or one of each.

    Raises:
        ValueError: if there is no such model, or it is of no family.
    """
    if model is None:
        return {name: family.config_class.from_variant("base") for name, family in FAMILIES.items()}
    try:
        config = AutoConfig.from_pretrained(model)
    except OSError as error:
        raise ValueError(f"{model} was given, which has no configuration: {error}") from None
    if config.model_type not in FAMILIES:
        raise ValueError(f"{model} was given, which is a {config.model_type}; known are {', '.join(FAMILIES)}.")
    return {config.model_type: config}


def main(arguments: list[str] | None = None) -> int:
    """Runs the command; returns its exit status."""
    args = parse_arguments(arguments)
    if args.device == "cuda" and not torch.cuda.is_available():
        print("error: --device cuda was given, but torch sees no CUDA device; leave it out.", file=sys.stderr)
        return 2
    device = find_device(args.device or ("cuda" if torch.cuda.is_available() else "cpu"))
    try:
        configs = load_configs(args.model)
    except ValueError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    print(examine(device, configs))
    return 0


if __name__ == "__main__":
    sys.exit(main())
