# Copyright 2026 The modeling_pixelvit team. All rights reserved.
# SPDX-License-Identifier: Apache-2.0
"""Fixtures of several test files."""

import dataclasses
import os

import datasets
import huggingface_hub.constants
import pytest
import torch
from demo_models import photograph
from helpers import write_image_folder
from hub_server import TOKEN, Hub, serve
from torch.utils.data import Subset

from training.data.digit_scenes import write_digit_scenes
from training.data.digits import load_digits_images


def pytest_configure(config):
    """Other tests are for CPUs, and would find devices in what the first of them started, where there is a GPU."""
    if "not gpu" in config.option.markexpr:
        os.environ["CUDA_VISIBLE_DEVICES"] = ""


@pytest.fixture(scope="module")
def one_thread():
    """One thread for a module that trains small models: more would only wait for each other at these sizes."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def with_few_test_images(images):
    return dataclasses.replace(images, evaluation=Subset(images.evaluation, range(50)))


@pytest.fixture(scope="session")
def digits():
    """The embedded digits, with few images to evaluate on."""
    return with_few_test_images(load_digits_images())


@pytest.fixture
def few_test_digits(monkeypatch):
    """The same for commands that run in this process."""
    monkeypatch.setattr(
        "training.data.digits.load_digits_images", lambda size: with_few_test_images(load_digits_images(size))
    )


@pytest.fixture(scope="session")
def pictures(tmp_path_factory):
    """A folder of 256 training images and 20 test images of two classes."""
    folder = tmp_path_factory.mktemp("pictures")
    for split, images_per_class in (("train", 128), ("test", 10)):
        write_image_folder(folder / split, images_per_class)
    return folder


@pytest.fixture
def image_folder(tmp_path):
    """Twenty pictures of two classes that a mean tells apart."""
    return write_image_folder(tmp_path / "images", images_per_class=10)


@pytest.fixture
def own_cache(tmp_path, monkeypatch):
    """What `datasets` converts stays out of the user's cache."""
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")


@pytest.fixture
def photo(tmp_path):
    """A file of noise in RGB."""
    photograph().save(tmp_path / "photo.png")
    return tmp_path / "photo.png"


@pytest.fixture(scope="session")
def scenes_folder(tmp_path_factory):
    """Written scenes of digits, 24 to train on and 6 to evaluate on, of 32 by 32 pixels."""
    folder = tmp_path_factory.mktemp("data") / "scenes"
    write_digit_scenes(folder, num_train=24, num_test=6, canvas_size=32)
    return folder


@pytest.fixture
def hub(monkeypatch, tmp_path_factory):
    """A hub on this machine, to which this process is logged in, and a cache of what is downloaded from it."""
    with serve(Hub()) as hub:
        values = {
            "ENDPOINT": hub.url,
            "HUGGINGFACE_CO_URL_TEMPLATE": hub.url + "/{repo_id}/resolve/{revision}/{filename}",
            "HF_HUB_CACHE": str(tmp_path_factory.mktemp("cache")),
            "HF_HUB_OFFLINE": False,
            # Xet has servers of its own; this one has git's large file storage.
            "HF_HUB_DISABLE_XET": True,
        }
        for name, value in values.items():
            monkeypatch.setattr(huggingface_hub.constants, name, value)
        monkeypatch.setenv("HF_TOKEN", TOKEN)
        yield hub
