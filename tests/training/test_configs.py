# Copyright 2026 The modeling_pixelvit team. All rights reserved.
# SPDX-License-Identifier: Apache-2.0
"""The shipped configurations: `accelerate launch` takes them, and they leave to the recipe what is the recipe's."""

from pathlib import Path

import pytest
from accelerate.commands.config.config_args import load_config_from_file


CONFIGS = sorted((Path(__file__).parents[2] / "training" / "configs").glob("*.yaml"))


def test_there_are_some():
    assert len(CONFIGS) == 9


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_is_what_accelerate_reads(path):
    config = load_config_from_file(str(path))  # refuses unknown keys
    assert config.num_processes == (
        1 if path.stem == "cpu" else 2 if path.stem.startswith("cpu") else 8 * config.num_machines
    )
    assert path.read_text().startswith("# ")
    kept = {"gradient_accumulation_steps", "gradient_clipping", "train_micro_batch_size_per_gpu"}
    assert not kept & (getattr(config, "deepspeed_config", None) or {}).keys()
    if "zero" in path.stem:
        assert config.deepspeed_config["zero_stage"] == int(path.stem[-1])
