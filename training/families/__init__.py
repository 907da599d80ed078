# Copyright 2026 The modeling_pixelvit team. All rights reserved.
# SPDX-License-Identifier: Apache-2.0
"""The model families: one file for each, and the table of them. May import nothing of `training`."""
