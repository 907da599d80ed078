# Copyright 2026 The modeling_pixelvit team. All rights reserved.
# SPDX-License-Identifier: Apache-2.0
"""Other people's checkpoints: layouts, conversion, and a table of released ones. May import `cards` and below."""
