# Copyright 2026 The modeling_pixelvit team. All rights reserved.
# SPDX-License-Identifier: Apache-2.0
"""Experiments that take seconds."""

import dataclasses
from pathlib import Path

import yaml

from training.experiments import workers
from training.experiments.run import execute
from training.experiments.workers import WorkerPool


TINY = {"hidden_size": 32, "num_hidden_layers": 1, "total_batch_size": 16}


def write_experiment(folder, **fields):
    """An experiment of tiny models in a file."""
    own = {
        "title": "A title",
        "question": "A question?",
        "families": ["pixelvit"],
        "seeds": [0],
        "base": TINY,
        "grids": [{"patch_size": [16, 8]}],
    }
    path = folder / "tiny.yaml"
    path.write_text(yaml.safe_dump({**own, **fields}))
    return str(path)


def evaluate_few_images(monkeypatch):
    """A test set that takes no time, in runs that this process carries out itself."""

    def execute_all(pool):
        errors = {}
        while (run := pool._next()) is not None:
            pool.carry_out_here(run, errors)
        pool.bar.close()
        return errors

    def carry_out_here(pool, run, errors):
        images = workers.load_run_images(run.recipe, **run.data, folder=Path(pool.images_folder))
        evaluation = [images.evaluation[index] for index in range(20)]
        try:
            execute(run, dataclasses.replace(images, evaluation=evaluation))
        except ValueError as error:
            pool.errors = errors
            pool._fail(run, str(error))
        else:
            pool.finished(run, print)

    monkeypatch.setattr(WorkerPool, "execute", execute_all)
    monkeypatch.setattr(WorkerPool, "carry_out_here", carry_out_here, raising=False)
