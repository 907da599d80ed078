# Copyright 2026 The modeling_pixelvit team. All rights reserved.
# SPDX-License-Identifier: Apache-2.0
"""Starts a training command in processes of its own, as users do on a CPU."""

import os
import socket
import subprocess
import sys
from pathlib import Path


REPOSITORY = Path(__file__).parents[1]
LAUNCHED = REPOSITORY / "tests" / "training" / "launch_train.py"
CONFIGS = REPOSITORY / "training" / "configs"
ONE_PROCESS, DDP, ZERO2, ZERO3 = "cpu", "torchrun", "cpux2_zero2", "cpux2_zero3"


def launch(config, launch_options, options, folder, command="train"):
    """
    Starts `training.train`, or another command, in a session of its own, so that all its processes can be killed at
    once.

    What it says goes to a file beside `folder`, named after it.
    """
    words = [sys.executable, "-m"]
    if config == DDP:  # of which accelerate launch would start one process if there is no MPI
        words += ["torch.distributed.run", "--nproc_per_node", "2", "--master_port", str(_free_port())]
    else:
        words += ["accelerate.commands.launch", "--config_file", str(CONFIGS / f"{config}.yaml")]
        words += [] if config == ONE_PROCESS else ["--main_process_port", str(_free_port())]
    words += [*launch_options, str(LAUNCHED), command]
    for name, value in options.items():
        words += [f"--{name}", *(value if isinstance(value, list) else [str(value)])]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "DS_ACCELERATOR": "cpu", "PYTHONPATH": str(REPOSITORY)}
    with (folder.parent / f"{folder.name}.log").open("a") as log:
        return subprocess.Popen(
            words, cwd=folder.parent, env=environment, stdout=log, stderr=log, start_new_session=True
        )


def _free_port():
    with socket.socket() as server:
        server.bind(("localhost", 0))
        return server.getsockname()[1]
