# Copyright 2026 The modeling_pixelvit team. All rights reserved.
# SPDX-License-Identifier: Apache-2.0
"""Training, measuring and converting; run from a checkout, not installed with the package."""
