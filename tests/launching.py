# Copyright 2026 The modeling_pixelvit team. All rights reserved.
# SPDX-License-Identifier: Apache-2.0
"""
Starts commands in processes of their own, as users do on a CPU.

These are forked from a server that has imported what they need, which takes each of them ten seconds otherwise.
Accelerate reads its configurations and torchrun's agent watches over several processes, as behind `accelerate launch`
and `torchrun`, which test_stages.py and, by an experiment, test_experiment.py call themselves.
"""

import importlib
import multiprocessing
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import torch
from accelerate.commands.launch import _validate_launch_command, launch_command_parser
from accelerate.state import PartialState
from accelerate.utils import DistributedType
from accelerate.utils.launch import prepare_deepspeed_cmd_env, prepare_multi_gpu_env, prepare_simple_launcher_cmd_env
from torch.distributed.launcher.api import LaunchConfig, elastic_launch


REPOSITORY = Path(__file__).parents[1]
CONFIGS = REPOSITORY / "training" / "configs"
ONE_PROCESS, DDP, ZERO2, ZERO3, FSDP2 = "cpu", "torchrun", "cpux2_zero2", "cpux2_zero3", "a100x8_fsdp2"
CONTEXT = multiprocessing.get_context("forkserver")
COMMANDS = ("train", "train_stages", "finetune", "convert_checkpoint", "experiment")
# What they import only when they run.
LATER = ("deepspeed", "sklearn.datasets")
CONTEXT.set_forkserver_preload(["launching", *(f"training.{name}" for name in COMMANDS), *LATER])
os.environ["DS_ACCELERATOR"] = "cpu"


class Started:
    """A process with the methods of `subprocess.Popen` that tests need; it leads a session of its own."""

    def __init__(self, target, *arguments):
        self.process = CONTEXT.Process(target=target, args=arguments)
        self.process.start()
        self.pid = self.process.pid

    @property
    def returncode(self):
        return self.process.exitcode

    def poll(self):
        return self.process.exitcode

    def wait(self, timeout=None):
        self.process.join(timeout)
        if self.process.exitcode is None:
            raise subprocess.TimeoutExpired(str(self.process), timeout)
        return self.process.exitcode

    def kill(self):
        self.process.kill()


def launch(config, launch_options, options, folder, command="train"):
    """
    Starts `training.train`, or another command, in a session of its own, so that all its processes can be killed at
    once.

    What it says goes to a file beside `folder`, named after it. Its options are a mapping, or the words themselves.
    """
    log = folder.parent / f"{folder.name}.log"
    words = options if isinstance(options, list) else words_of(options)
    return Started(_lead, config, launch_options, command, words, folder.parent, log)


def launch_on_a_gpu(config, options, folder):
    """`training.train` in a session of its own on one GPU, by a configuration for several, as `launch` otherwise."""
    launcher = ["accelerate.commands.launch", "--config_file", str(CONFIGS / f"{config}.yaml"), "--num_processes", "1"]
    words = [sys.executable, "-m", *launcher, "-m", "training.train", *words_of(options)]
    environment = {name: value for name, value in os.environ.items() if name != "DS_ACCELERATOR"}
    environment["PYTHONPATH"] = str(REPOSITORY)
    with open(folder.parent / f"{folder.name}.log", "a") as log:
        place = {"cwd": folder.parent, "env": environment, "stdout": log, "stderr": log}
        return subprocess.Popen(words, **place, start_new_session=True)


def words_of(options):
    """Options by their names as a command line has them."""
    words = []
    for name, value in options.items():
        words += [f"--{name}", *(value if isinstance(value, list) else [str(value)])]
    return words


def run_command(command, words, folder=REPOSITORY):
    """Runs a command of `training/` to its end: what `subprocess.run` returns, with what it said as text."""
    with tempfile.TemporaryDirectory() as said:
        paths = [Path(said, name) for name in ("stdout", "stderr")]
        code = Started(_run_alone, command, list(map(str, words)), folder, *paths).wait(300)
        return subprocess.CompletedProcess([command, *words], code, *(path.read_text() for path in paths))


def _run_alone(command, words, folder, stdout, stderr):
    _settle(folder, stdout, stderr)
    _run(command, words)


def _lead(config, launch_options, command, words, folder, log):
    _settle(folder, log, log)
    num_processes = 1 if config == ONE_PROCESS else 2
    torch.set_num_threads(1)
    if config != DDP:  # of which accelerate launch would start one process if there is no MPI
        given = ["--config_file", str(CONFIGS / f"{config}.yaml"), *launch_options, "-"]
        arguments, settings, _ = _validate_launch_command(launch_command_parser().parse_args(given))
        arguments.deepspeed_fields_from_accelerate_config = ",".join(settings.deepspeed_config)
        if config == FSDP2:
            os.environ.update(prepare_multi_gpu_env(arguments))
            _pass_for_gpus()
        else:
            prepare = prepare_deepspeed_cmd_env if arguments.use_deepspeed else prepare_simple_launcher_cmd_env
            os.environ.update(prepare(arguments)[1])
        if arguments.use_deepspeed:
            _allow_any_processor()
    if num_processes == 1:
        _run(command, words)
    agent = LaunchConfig(
        min_nodes=1,
        max_nodes=1,
        nproc_per_node=num_processes,
        rdzv_backend="c10d",
        rdzv_endpoint="localhost:0",
        max_restarts=0,
        start_method="fork",
    )
    elastic_launch(agent, _run)(command, words)


def _settle(folder, stdout, stderr):
    multiprocessing.set_start_method(None, force=True)  # the platform's, where a forked process has its parent's
    os.setsid()
    os.chdir(folder)
    for path, number in ((stdout, 1), (stderr, 2)):
        os.dup2(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND), number)


def _allow_any_processor():
    """
    PyTorch computes half precision on every CPU; DeepSpeed refuses it where that is slow. Its own shared-memory
    communication takes a minute to compile, and gloo does the same.
    """
    import deepspeed
    from deepspeed.accelerator.cpu_accelerator import CPU_Accelerator

    CPU_Accelerator.is_fp16_supported = lambda self: True
    deepspeed.ops.__compatible_ops__["deepspeed_shm_comm"] = False


def _pass_for_gpus():
    """Accelerate shares weights out among GPUs only, by what works on CPUs as well."""
    start = PartialState.__init__

    def start_as_gpu(self, *arguments, **options):
        start(self, *arguments, **options)
        if self.distributed_type == DistributedType.MULTI_CPU:
            self.distributed_type = DistributedType.MULTI_GPU

    PartialState.__init__ = start_as_gpu


def _run(command, words):
    sys.argv = [command, *words]
    sys.exit(importlib.import_module(f"training.{command}").main(words))
