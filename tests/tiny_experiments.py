# Copyright 2026 The modeling_pixelvit team. All rights reserved.
# SPDX-License-Identifier: Apache-2.0
"""Experiments that take seconds."""

import yaml


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
