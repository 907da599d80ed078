# Copyright 2026 The modeling_pixelvit team. All rights reserved.
# SPDX-License-Identifier: Apache-2.0
"""
Metrics that `evaluate.load("training/metrics/<name>")` takes from this folder, without a network.

`evaluate` copies a metric's file and those beside it that it imports, so each folder is whole by itself, and its
arithmetic lies in files of their own where the training loop needs it too.
"""
