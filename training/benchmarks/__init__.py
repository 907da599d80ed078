# Copyright 2026 The modeling_pixelvit team. All rights reserved.
# SPDX-License-Identifier: Apache-2.0
"""Measurements of speed and memory, and the results that are kept. May import everything but `hub` and `demo`."""
