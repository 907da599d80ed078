# Copyright 2026 The modeling_pixelvit team. All rights reserved.
# SPDX-License-Identifier: Apache-2.0
"""Whether the installed Triton can interpret the kernels."""

import pytest

from training.hub.kernel_folder import interpreter_fault


interpreted = pytest.mark.skipif(bool(interpreter_fault()), reason=interpreter_fault() or "it runs")
