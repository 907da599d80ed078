# Copyright 2026 The modeling_pixelvit team. All rights reserved.
# SPDX-License-Identifier: Apache-2.0
"""Fixtures of several test files."""

import pytest
import torch


@pytest.fixture(scope="module")
def one_thread():
    """One thread for a module that trains small models: more would only wait for each other at these sizes."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)
