# Copyright 2026 The modeling_pixelvit team. All rights reserved.
# SPDX-License-Identifier: Apache-2.0
"""
Experiments: the paper's tables and figures and the questions that it leaves open, each with one command.

    python -m training.experiment                                   # what there is
    python -m training.experiment table5 --scale digits --plan      # what it takes
    python -m training.experiment table5 --scale digits
    python -m training.experiment my_experiment.yaml --scale photos16 --dataset path/to/images

Each point is a run that goes on after an interruption and is never repeated, in whichever experiment it stands. In the
end come a table, a picture and `results.json`.
"""

import argparse
import math
import os
import shlex
import signal
import sys
import tempfile
from pathlib import Path
from typing import Any

import torch

from .engine.options import LoopOptions
from .engine.run import build_accelerator
from .experiments.arguments import MOST_WORKERS, dataset_named
from .experiments.carrying import Carrying, resumable_command
from .experiments.definition import Experiment, ExperimentError, find_experiments, load_experiment, load_scales
from .experiments.experiment import run_experiment
from .experiments.images import load_run_images
from .experiments.points import Choices
from .experiments.run import Interrupted, execute, read_run
from .experiments.workers import Resources
from .families.registry import FAMILIES


# Options of the training loop that a run may be given.
LOOP_OPTIONS = (
    "gradient_accumulation_steps",
    "gradient_checkpointing",
    "compile",
    "num_workers",
    "eval_batch_size",
    "save_minutes",
)


def build_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m training.experiment", description="Runs an experiment, or tells which there are."
    )
    add = parser.add_argument
    scales = load_scales()
    add("experiment", nargs="?", help="name of an experiment, or a YAML file; without it all are listed")
    add("--scale", default="digits", choices=list(scales), help="on what (default: %(default)s)")
    add("--plan", action="store_true", help="print the points, their tokens, operations and hours, and stop")
    add("--fast", action="store_true", help="a few batches of a few points: shows that all works, gives no result")
    add("--dataset", type=dataset_named, help="images instead of the scale's, as for training.sweep")
    add("--start_dataset", type=dataset_named, help="images instead of the scale's for what the points start from")
    add("--image_size", type=int, help="side in pixels instead of the scale's")
    add("--epochs", type=float, help="instead of the scale's or the recipes'")
    add("--seeds", nargs="+", type=int, default=[], help="instead of the experiment's")
    add("--families", nargs="+", default=[], choices=list(FAMILIES), help="of those of the experiment")
    add("--points_dir", default="runs/points", help="folder of all runs (default: %(default)s)")
    add(
        "--output_dir", default="runs/experiments", help="folder of tables, pictures and numbers (default: %(default)s)"
    )
    add("--known", nargs="+", default=[], metavar="FILE", help="results.json of the same runs, which are not repeated")
    how = parser.add_argument_group("how it is carried out")
    add = how.add_argument
    add("--device", choices=("cpu", "cuda"), help="default: all GPUs, a run on each, if there are any")
    add("--precision", default="no", choices=("no", "fp16", "bf16"), help="of products on a GPU (default: %(default)s)")
    cores = os.cpu_count() or 1
    add("--workers", type=int, help=f"runs at a time (default: the GPUs, or {min(cores, MOST_WORKERS)} on this CPU)")
    add("--threads", type=int, default=1, help="PyTorch's threads in each; results depend on it")
    add(
        "--launch",
        default="",
        metavar="WORDS",
        help="carry out one run after the other by WORDS -m training.experiment …",
    )
    add(
        "--slurm",
        nargs="*",
        metavar="NAME=VALUE",
        help="carry out the runs as an array of Slurm jobs with these parameters of submitit's: timeout_min=2880 "
        "gpus_per_node=8 slurm_partition=gpu, for one",
    )
    add(
        "--slurm_cluster",
        default="slurm",
        choices=("slurm", "local"),
        help="local: the jobs are processes of this machine",
    )
    fields = LoopOptions.__dataclass_fields__
    for name in LOOP_OPTIONS:
        default, text = fields[name].default, fields[name].metadata["help"]
        if isinstance(default, bool):
            add(f"--{name}", action="store_true", default=None, help=text)
        else:
            add(f"--{name}", type=float if isinstance(default, float) else int, help=text)
    text = fields["cost_file"].metadata["help"]
    add("--cost_file", metavar="FILE", help=text)
    add("--point", metavar="FILE", help=argparse.SUPPRESS)  # one run that another call has written down
    return parser


def main(arguments: list[str] | None = None) -> int:
    options = build_parser().parse_args(arguments)

    def body(command: str) -> int:
        if options.point is not None:
            return carry_out_point(options.point)
        if options.experiment is None:
            print(list_experiments())
            return 0
        status = 0
        for experiment in parts_of(load_experiment(options.experiment)):
            status |= run_experiment(
                experiment, load_scales()[options.scale], choices(options), carrying(options), command, options.plan
            )
        return status

    return resumable_command("training.experiment", arguments, body)


def parts_of(experiment: Experiment) -> list[Experiment]:
    """
    The experiment, or those that it is made of.

    Raises:
        ExperimentError: for a part that has parts itself.
    """
    parts = [load_experiment(name) for name in experiment.parts]
    for part in parts:
        if part.parts:
            raise ExperimentError(
                f"{experiment.name} has the part {part.name}, which is made of {', '.join(part.parts)}; name these."
            )
    return parts or [experiment]


def list_experiments() -> str:
    experiments = {name: load_experiment(name) for name in find_experiments()}
    width = max(map(len, experiments))
    lines = [f"{name:<{width}}  {experiment.question}" for name, experiment in experiments.items()]
    scales = [f"{name:<{width}}  {scale.about}" for name, scale in load_scales().items()]
    return "\n".join(["Experiments:", *lines, "", "Scales:", *scales])


def choices(options: argparse.Namespace) -> Choices:
    """
    Raises:
        ValueError: for a value out of range.
    """
    for name in ("image_size", "epochs", "workers", "threads"):
        value = getattr(options, name)
        if value is not None and not 0 < value < math.inf:
            raise ValueError(f"--{name} {value} was given; it must be finite and above zero.")
    how = {name: value for name in LOOP_OPTIONS if (value := getattr(options, name)) is not None}
    LoopOptions(**how).check()
    return Choices(
        points_dir=options.points_dir,
        dataset=options.dataset,
        start_dataset=options.start_dataset,
        image_size=options.image_size,
        epochs=options.epochs,
        seeds=tuple(options.seeds),
        families=tuple(options.families),
        fast=options.fast,
        how=how,
    )


def carrying(options: argparse.Namespace) -> Carrying:
    """
    Raises:
        ValueError: for a GPU that is not there, or a parameter that is none.
    """
    if options.device == "cuda" and not torch.cuda.is_available():
        raise ValueError("--device cuda was given, but PyTorch sees no GPU here.")
    by_others = bool(options.launch) or options.slurm is not None
    uses_gpus = options.device != "cpu" and torch.cuda.is_available() and not by_others
    gpus = tuple(map(str, range(torch.cuda.device_count()))) if uses_gpus else ()
    if (visible := os.environ.get("CUDA_VISIBLE_DEVICES")) and gpus:
        gpus = tuple(visible.split(","))
    workers = options.workers or len(gpus) or min(os.cpu_count() or 1, MOST_WORKERS)
    if gpus and workers > len(gpus):
        raise ValueError(
            f"--workers {workers} was given, but there are {len(gpus)} GPUs, and a run has one of its own."
        )
    launcher = tuple(shlex.split(options.launch))
    return Carrying(
        output_dir=options.output_dir,
        resources=Resources(workers, options.threads, gpus, options.precision, launcher),
        slurm=None if options.slurm is None else parse_parameters(options.slurm),
        cluster=options.slurm_cluster,
        known=tuple(options.known),
        cost_file=options.cost_file,
    )


def parse_parameters(words: list[str]) -> dict[str, Any]:
    """NAME=VALUE, of which whole numbers are numbers."""
    parameters = {}
    for word in words:
        name, equals, value = word.partition("=")
        if not equals or not name:
            raise ValueError(f"--slurm {word} was given; give parameters as NAME=VALUE, like timeout_min=2880.")
        parameters[name] = int(value) if value.isdigit() else value
    return parameters


def carry_out_point(path: str) -> int:
    """One run that another call has written down, on the devices that this process was started with."""
    run = read_run(path)
    accelerator = build_accelerator(LoopOptions(**run.how, output_dir=run.folder, report_to="none"))
    with tempfile.TemporaryDirectory(prefix="experiment-") as images_folder:
        images = load_run_images(run.recipe, **run.data, folder=Path(images_folder))
        try:
            execute(run, images, accelerator=accelerator)
        except Interrupted as error:
            print(error, file=sys.stderr)
            return 128 + signal.SIGTERM
    return 0


if __name__ == "__main__":
    sys.exit(main())
