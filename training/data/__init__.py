# Copyright 2026 The modeling_pixelvit team. All rights reserved.
# SPDX-License-Identifier: Apache-2.0
"""Images and what is known of them, from any source, and the batches of a step. May import `settings` and below."""
