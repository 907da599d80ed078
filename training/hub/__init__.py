# Copyright 2026 The modeling_pixelvit team. All rights reserved.
# SPDX-License-Identifier: Apache-2.0
"""Publishing: the folder of a checkpoint, its checks, and the push. May import all but `demo` and `benchmarks`."""
