# Copyright 2026 The modeling_pixelvit team. All rights reserved.
# SPDX-License-Identifier: Apache-2.0
"""Experiments and the sweep: their runs, the law fitted to them, and reports. May import `engine` and below."""
