# Copyright 2026 The modeling_pixelvit team. All rights reserved.
# SPDX-License-Identifier: Apache-2.0
"""Fixtures of several test files."""

import huggingface_hub.constants
import pytest
import torch
from hub_server import TOKEN, Hub, serve


@pytest.fixture(scope="module")
def one_thread():
    """One thread for a module that trains small models: more would only wait for each other at these sizes."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture
def hub(monkeypatch):
    """A hub on this machine, to which this process is logged in."""
    with serve(Hub()) as hub:
        monkeypatch.setattr(huggingface_hub.constants, "ENDPOINT", hub.url)
        monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", False)
        # Xet has servers of its own; this one has git's large file storage.
        monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_DISABLE_XET", True)
        monkeypatch.setenv("HF_TOKEN", TOKEN)
        yield hub
