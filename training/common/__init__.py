# Copyright 2026 The modeling_pixelvit team. All rights reserved.
# SPDX-License-Identifier: Apache-2.0
"""What everything stands on: files that are written whole, speed and memory of the machine. Imports nothing here."""
