# Copyright 2026 The modeling_pixelvit team. All rights reserved.
# SPDX-License-Identifier: Apache-2.0
"""Files and folders that are whole under their names, whatever comes in between."""

import multiprocessing
import os

import pytest

from training.common.files import whole_folder, write_text


def test_an_interruption_leaves_the_folder_that_was_there(tmp_path, monkeypatch):
    path = tmp_path / "folder"
    path.mkdir()
    (path / "old").write_text("kept")
    rename = os.rename

    def interrupted(source, target):
        if os.fspath(source).endswith("new"):
            raise KeyboardInterrupt
        rename(source, target)

    monkeypatch.setattr(os, "rename", interrupted)
    with pytest.raises(KeyboardInterrupt), whole_folder(path) as folder:
        (folder / "new").write_text("lost")
    assert [entry.name for entry in tmp_path.iterdir()] == ["folder"] and (path / "old").read_text() == "kept"


def test_two_processes_may_write_the_same_file_at_once(tmp_path):
    path = tmp_path / "results.json"
    with multiprocessing.get_context("spawn").Pool(2) as pool:
        pool.starmap(write_text, [(path, "whole")] * 400, chunksize=1)
    assert path.read_text() == "whole" and list(tmp_path.iterdir()) == [path]
