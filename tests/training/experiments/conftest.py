# Copyright 2026 The modeling_pixelvit team. All rights reserved.
# SPDX-License-Identifier: Apache-2.0

import dataclasses
from pathlib import Path

import pytest

from training.experiments import workers
from training.experiments.run import execute
from training.experiments.workers import WorkerPool


@pytest.fixture
def few_images(monkeypatch):
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
