# Copyright 2026 The modeling_pixelvit team. All rights reserved.
# SPDX-License-Identifier: Apache-2.0
"""Checkpoint folders: read without trust, loaded, exported, and what a model costs. May import `common`."""
