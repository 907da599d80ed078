# Copyright 2026 The modeling_pixelvit team. All rights reserved.
# SPDX-License-Identifier: Apache-2.0
"""
Makes a hub repository of a checkpoint: builds its folder, proves that it works, and pushes it when told to.

    python -m training.publish runs/train --repo-id USER/NAME              # builds and checks runs/hub/NAME
    python -m training.publish runs/train --repo-id USER/NAME --push       # and pushes it, in one commit
    python -m training.publish kernels --repo-id USER/NAME                 # the same of the Triton kernels

The checkpoint is any folder for `from_pretrained` of one of this package's models, a training run, of which the last
complete checkpoint is taken, or a run of the sweep. The check loads the folder in a fresh process that has nothing of
this project, and compares what it gives with the source bit for bit; what fails is neither kept nor pushed. Who pushes
is who is logged in (`hf auth login` or HF_TOKEN). A checkpoint in a folder named kernels is ./kernels.
"""

import argparse
import sys
from pathlib import Path

import huggingface_hub.constants
from transformers.utils import logging as transformers_logging

from .cards.origin import check_repo_id
from .hub.folder import DTYPES, FolderOptions
from .hub.kernel_folder import VERSION, build_kernels, check_can_push_kernels
from .hub.publishing import build_and_check, check_may_be_pushed
from .hub.source import find_source
from .hub.upload import Target, push


DEFAULT_PARENT = Path("runs", "hub")
KERNELS = "kernels"  # instead of a checkpoint
NOTHING_SENT = "nothing was sent; the same command with --push sends it"


def build_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m training.publish",
        description="Builds a hub folder of a checkpoint, checks it in a fresh process, and pushes it with --push.",
    )
    parser.add_argument("checkpoint", metavar="CHECKPOINT", help="folder of a checkpoint, of a run or of a sweep's run")
    add_target(parser)
    parser.add_argument("--overwrite", action="store_true", help="replace another checkpoint in that folder")
    parser.add_argument("--average", action="store_true", help="take the averaged weights of a run")
    parser.add_argument("--dtype", choices=list(DTYPES), default="float32", help="of the weights (default: float32)")
    parser.add_argument("--max_shard_size", default="2GB", help="largest weights file (default: 2GB)")
    parser.add_argument("--license", help="the hub's id of the licence; apache-2.0 if not given, for own weights")
    parser.add_argument("--dataset", help="what the run was measured on, for the card; needed where it does not tell")
    parser.add_argument("--example_image", metavar="FILE", help="image for the hub's widget; digits if not given")
    parser.add_argument("--revision", default="main", metavar="BRANCH", help="branch to push to (default: main)")
    parser.add_argument(
        "--redistribute_unlicensed", action="store_true", help="push weights that came without a licence"
    )
    return parser


def build_kernels_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m training.publish kernels",
        description="Builds a kernel repository of the Triton kernels, checks it, and pushes it with --push.",
    )
    add_target(parser)
    return parser


def add_target(parser: argparse.ArgumentParser):
    parser.add_argument("--repo-id", "--repo_id", required=True, metavar="USER/NAME", help="repository on the hub")
    parser.add_argument("--output_dir", type=Path, help="folder to write; runs/hub/NAME if not given")
    parser.add_argument("--push", action="store_true", help="push; without it nothing leaves this machine")
    parser.add_argument("--private", action="store_true", help="make the repository private, if it is new")
    parser.add_argument("--commit_message", help="of the commit")


def publish(options: argparse.Namespace):
    """What the command does, with its options checked first and the network last."""
    check_repo_id(options.repo_id)
    source = find_source(options.checkpoint, options.average, options.dataset)
    if options.push and not options.redistribute_unlicensed:
        check_may_be_pushed(source)
    if source.metrics is None:
        print("nothing was found that was measured of these weights, so the card has no numbers of them")
    elif not source.metrics["dataset"]:
        print("numbers were found, but not what they were measured on: give --dataset to have them in the card")
    folder_options = FolderOptions(
        options.repo_id, options.dtype, options.max_shard_size, options.license, options.example_image
    )
    output_dir = output_dir_of(options)
    name = build_and_check(source, output_dir, folder_options, options.overwrite)
    if not options.push:
        print(NOTHING_SENT)
        return
    message = options.commit_message or f"Publish {name}"
    commit = push(output_dir, Target(options.repo_id, options.revision, options.private, message))
    print(f"pushed {huggingface_hub.constants.ENDPOINT}/{options.repo_id}, commit {commit} on {options.revision}")


def publish_kernels(options: argparse.Namespace):
    """The same for kernels; the branch of their version is what is loaded, and the main one what the hub shows."""
    check_repo_id(options.repo_id)
    if options.push:
        check_can_push_kernels()
    output_dir = output_dir_of(options)
    build_kernels(options.repo_id, output_dir)
    if not options.push:
        print(NOTHING_SENT)
        return
    message = options.commit_message or "Publish kernels"
    for branch in (f"v{VERSION}", "main"):
        commit = push(output_dir, Target(options.repo_id, branch, options.private, message, "kernel"))
        address = f"{huggingface_hub.constants.ENDPOINT}/kernels/{options.repo_id}"
        print(f"pushed {address}, commit {commit} on {branch}")


def output_dir_of(options: argparse.Namespace) -> Path:
    return options.output_dir or DEFAULT_PARENT / options.repo_id.split("/")[1]


def main(arguments: list[str] | None = None) -> int:
    """Runs the command; returns its exit status, 2 after one sentence on stderr."""
    words = sys.argv[1:] if arguments is None else arguments
    of_kernels = words[:1] == [KERNELS]
    options = build_kernels_parser().parse_args(words[1:]) if of_kernels else build_parser().parse_args(words)
    transformers_logging.disable_progress_bar()
    # Pipelines say at the level of errors that they do not know models from outside of transformers.
    transformers_logging.set_verbosity(transformers_logging.CRITICAL)
    try:
        (publish_kernels if of_kernels else publish)(options)
    except (OSError, ValueError) as error:
        print(f"error: {' '.join(str(error).split())}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print(
            "error: interrupted; the same command starts again, and sends only what has not arrived.", file=sys.stderr
        )
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
