# Copyright 2026 The modeling_pixelvit team. All rights reserved.
# SPDX-License-Identifier: Apache-2.0
"""A run's exit status."""

import signal

from training.engine import run


def test_an_interruption_before_the_first_step_is_told_in_a_line(tmp_path, monkeypatch, capsys):
    def interrupted(*arguments):
        raise KeyboardInterrupt

    monkeypatch.setattr(run, "prepare", interrupted)
    assert run.run_commands([["--dataset", "digits", "--output_dir", str(tmp_path)]]) == 128 + signal.SIGINT
    assert capsys.readouterr().err == "\nInterrupted before the first step.\n"
