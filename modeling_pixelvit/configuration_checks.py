# Copyright 2026 The modeling_pixelvit team. All rights reserved.
# SPDX-License-Identifier: Apache-2.0
"""Checks of fields that refuse a value in one sentence: the class, what was given, and what is allowed."""

from transformers.configuration_utils import PreTrainedConfig


class CheckedConfig(PreTrainedConfig):
    """Base of the configurations and of their parts; each part checks its fields in `validate_architecture`."""

    def validate_architecture(self):
        """
        Raises:
            ValueError: for a value out of range, naming the field, what was given and what is allowed.
        """

    def _require(self, condition: bool, field: str, allowed: str):
        if not condition:
            raise ValueError(f"{type(self).__name__}: {field}={getattr(self, field)!r} was given; {allowed}.")

    def _require_positive_integers(self, *fields: str):
        for field in fields:
            self._require(getattr(self, field) >= 1, field, "it must be an integer of at least 1")

    def _require_counts(self, *fields: str):
        for field in fields:
            self._require(getattr(self, field) >= 0, field, "it must be an integer of at least 0")

    def _require_positive(self, *fields: str):
        for field in fields:
            self._require(0 < getattr(self, field) < float("inf"), field, "it must be a finite number above 0")

    def _require_rates(self, *fields: str):
        for field in fields:
            self._require(0 <= getattr(self, field) < 1, field, "a rate must be at least 0 and below 1")

    def _require_shares(self, *fields: str):
        for field in fields:
            self._require(0 <= getattr(self, field) <= 1, field, "it must be at least 0 and at most 1")

    def _require_rising_integers(self, field: str, least: int = 1, most: float = float("inf")):
        values = list(getattr(self, field))
        upper = "" if most == float("inf") else f" and at most {most}"
        self._require(
            bool(values) and values == sorted(set(values)) and least <= values[0] and values[-1] <= most,
            field,
            f"it must be a list of at least one integer, each greater than the one before, from {least} on{upper}",
        )
