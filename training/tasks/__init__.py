# Copyright 2026 The modeling_pixelvit team. All rights reserved.
# SPDX-License-Identifier: Apache-2.0
"""The tasks: data, model, loss, metric and picture of each, and the table of them. May import `metrics` and below."""
