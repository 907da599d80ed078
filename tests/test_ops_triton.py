# Copyright 2026 The modeling_pixelvit team. All rights reserved.
# SPDX-License-Identifier: Apache-2.0
"""The Triton kernels in processes of their own: interpreted, on a device, and where they cannot run."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from interpreting import interpreted

from modeling_pixelvit.ops_triton_conv1d import causal_conv1d_triton


TESTS = Path(__file__).parent


def run(*arguments, **environment):
    environment = {**os.environ, "PYTHONPATH": str(TESTS.parent), **environment}
    return subprocess.run([sys.executable, *arguments], capture_output=True, text=True, env=environment)


def check_cases(selection, **environment):
    done = run(
        "-m", "pytest", "-q", "-p", "no:cacheprovider", "-m", selection, TESTS / "triton_cases.py", **environment
    )
    assert done.returncode == 0, done.stdout[-8000:] + done.stderr[-2000:]


@interpreted
def test_interpreted():
    check_cases("not slow", TRITON_INTERPRET="1")


@interpreted
@pytest.mark.slow
def test_interpreted_at_length():
    check_cases("slow", TRITON_INTERPRET="1")


@pytest.mark.parametrize("say", ["backends.fp32_precision = 'tf32'", "set_float32_matmul_precision('high')"])
def test_products_are_tf32_where_those_of_torch_are(say):
    """By torch's newer name, of 2.9, and by its older one, in processes of their own as it is for all of torch."""
    if "backends" in say and not hasattr(torch.backends, "fp32_precision"):
        pytest.skip("this torch has the older name alone")
    code = f"""
import torch
from modeling_pixelvit.ops_triton_base import uses_tf32
assert not uses_tf32()
torch.{say}
assert uses_tf32()
"""
    done = run("-c", code)
    assert done.returncode == 0, done.stderr[-2000:]


@pytest.mark.gpu
def test_on_a_device():
    pytest.importorskip("triton")
    check_cases("slow or not slow", TRITON_INTERPRET="0")


WITHOUT_TRITON = """
import sys
sys.modules["triton"] = None  # as if it were not installed
import torch
from modeling_pixelvit.ops_triton_conv1d import causal_conv1d_triton
from modeling_pixelvit.ops_triton_mixer import mix_triton
from modeling_pixelvit.ops_triton_norm import rms_norm_gated_triton
from modeling_pixelvit.ops_triton_rms_norm import add_rms_norm_triton, rms_norm_triton
from modeling_pixelvit.ops_triton_ssd import ssd_triton
from modeling_pixelvit.ops_triton_swiglu import swiglu_triton
x = torch.zeros(1, 2, 3)
calls = [
    lambda: causal_conv1d_triton(x, x[0, 0].view(3, 1, 1), x[0, 0]),
    lambda: rms_norm_gated_triton(x, x, x[0, 0], 1, 1e-5),
    lambda: ssd_triton(x[..., None], x, x[0, 0], x[..., None], x[..., None], x[0, 0], x[0, 0]),
    lambda: mix_triton(x, x, x, x, x, x, x, None, None, None, 1, 1e-5),
    lambda: rms_norm_triton(x, x[0, 0], 1e-5),
    lambda: add_rms_norm_triton(x, x[0, 0], 1e-5, x),
    lambda: swiglu_triton(x, x),
]
for call in calls:
    try:
        call()
    except ImportError as error:
        print(error)
"""


def test_without_triton():
    done = run("-c", WITHOUT_TRITON)
    assert done.stdout.count("is a Triton kernel, but triton cannot be imported") == 7, done.stderr


@pytest.mark.skipif(os.environ.get("TRITON_INTERPRET") == "1", reason="kernels are interpreted")
def test_not_on_a_cpu():
    pytest.importorskip("triton")
    x = torch.zeros(1, 2, 3)
    with pytest.raises(ValueError, match="runs on CUDA devices, but its input is on cpu"):
        causal_conv1d_triton(x, x.view(3, 1, 2), x[0, 0])
