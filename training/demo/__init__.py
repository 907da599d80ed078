# Copyright 2026 The modeling_pixelvit team. All rights reserved.
# SPDX-License-Identifier: Apache-2.0
"""The page to try models in a browser, and the Space of it. May import everything but `hub` and `benchmarks`."""
