# Copyright 2026 The modeling_pixelvit team. All rights reserved.
# SPDX-License-Identifier: Apache-2.0
"""What the Space starts: the demo of the checkpoints beside this file."""

from pathlib import Path

from training.demo.space_app import serve_space


if __name__ == "__main__":
    serve_space(Path(__file__).resolve().parent)
