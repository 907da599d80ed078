# Copyright 2026 The modeling_pixelvit team. All rights reserved.
# SPDX-License-Identifier: Apache-2.0
"""The patch-size sweep: its runs, the law fitted to them, and its report. May import `engine` and below."""
