# Copyright 2026 The modeling_pixelvit team. All rights reserved.
# SPDX-License-Identifier: Apache-2.0
"""Recipes, and the course of a training that follows from one. May import `common`."""
