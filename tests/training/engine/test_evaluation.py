# Copyright 2026 The modeling_pixelvit team. All rights reserved.
# SPDX-License-Identifier: Apache-2.0
"""Evaluation on two processes that need different numbers of forward passes, which must not wait for each other."""

import json

import numpy as np
import pytest
from dense_runs import SHORT, TINY
from launching import DDP, ZERO3, launch
from PIL import Image


HEADS = {"decoder_type": "upernet", "decoder_hidden_size": 8, "auxiliary_channels": 8, "pool_scales": [1, 2]}
# Dealt out in turn: the first process has two images of one size, the second two of different sizes.
SIZES = {"training": [(32, 32)] * 8, "validation": [(32, 32), (32, 32), (32, 32), (48, 32)]}


def write_images(folder):
    generator = np.random.default_rng(0)
    for split, sizes in SIZES.items():
        for kind in ("images", "annotations"):
            (folder / kind / split).mkdir(parents=True)
        for index, size in enumerate(sizes):
            pixels = generator.integers(0, 255, (*size, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(folder / "images" / split / f"{index}.png")
            classes = generator.integers(0, 3, size, dtype=np.uint8)
            Image.fromarray(classes).save(folder / "annotations" / split / f"{index}.png")
    (folder / "classes.txt").write_text("a\nb\nc\n")


# With a window an image has as many passes as windows; batch norms have statistics that DDP shares out.
@pytest.mark.parametrize(
    "config, options", [(ZERO3, {"eval_window": 32}), pytest.param(DDP, {}, marks=pytest.mark.slow)]
)
def test_segmentation_of_mixed_sizes(config, options, tmp_path):
    write_images(tmp_path / "data")
    recipe = {"recipe": "pixelvit-segmentation-upernet", "model": json.dumps({**TINY["pixelvit"], **HEADS}), **SHORT}
    recipe |= {"num_train_epochs": 1.0, "warmup_epochs": 0.0, **options}
    run = {"dataset": tmp_path / "data", "output_dir": tmp_path / "run", "eval_batch_size": 2, "report_to": "none"}
    process = launch(config, [], {**recipe, **run}, tmp_path / "run")
    try:
        assert process.wait(timeout=150) == 0, (tmp_path / "run.log").read_text()[-3000:]
    finally:
        process.kill()
    metrics = json.loads((tmp_path / "run" / "results.json").read_text())["metrics"]
    assert 0 <= metrics["eval_pixel_accuracy"] <= 100
