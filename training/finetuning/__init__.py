# Copyright 2026 The modeling_pixelvit team. All rights reserved.
# SPDX-License-Identifier: Apache-2.0
"""Fine-tuning by transformers' Trainer. May import `engine` and below."""
