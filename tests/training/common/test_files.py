# Copyright 2026 The modeling_pixelvit team. All rights reserved.
# SPDX-License-Identifier: Apache-2.0
"""Files and folders that are whole under their names, whatever comes in between."""

import os

import pytest

from training.common.files import whole_folder


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
