# Copyright 2026 The modeling_pixelvit team. All rights reserved.
# SPDX-License-Identifier: Apache-2.0
"""Checks of fields that refuse a value in one sentence: the class, what was given, and what is allowed."""

import reprlib

from transformers.configuration_utils import PreTrainedConfig


# Far above any model, and low enough that a file with absurd numbers is refused before they cost memory or time.
LARGEST_INTEGER = 65_536
LONGEST_LIST = 64
LARGEST_NUMBER = 1e30  # float32 ends at 3.4e38

shown_value = reprlib.Repr()
shown_value.maxstring = shown_value.maxother = shown_value.maxlong = 80
shown_value.maxlist = shown_value.maxtuple = 12


class CheckedConfig(PreTrainedConfig):
    """Base of the configurations and of their parts; each part checks its fields in `validate_architecture`."""

    def validate_architecture(self):
        """
        Raises:
            ValueError: for a value out of range, naming the field, what was given and what is allowed.
        """

    def _require(self, condition: bool, field: str, allowed: str):
        if not condition:
            value = shown_value.repr(getattr(self, field))
            raise ValueError(f"{type(self).__name__}: {field}={value} was given; {allowed}.")

    def _require_at_most(self, most: int, *fields: str):
        for field in fields:
            self._require(getattr(self, field) <= most, field, f"it must be an integer of at most {most}")

    def _require_positive_integers(self, *fields: str, most: int = LARGEST_INTEGER):
        for field in fields:
            self._require(getattr(self, field) >= 1, field, "it must be an integer of at least 1")
        self._require_at_most(most, *fields)

    def _require_counts(self, *fields: str):
        for field in fields:
            self._require(getattr(self, field) >= 0, field, "it must be an integer of at least 0")
        self._require_at_most(LARGEST_INTEGER, *fields)

    def _require_positive(self, *fields: str):
        for field in fields:
            self._require(
                0 < getattr(self, field) <= LARGEST_NUMBER,
                field,
                f"it must be a finite number above 0, of at most {LARGEST_NUMBER:.0e}",
            )

    def _require_rates(self, *fields: str):
        for field in fields:
            self._require(0 <= getattr(self, field) < 1, field, "a rate must be at least 0 and below 1")

    def _require_shares(self, *fields: str):
        for field in fields:
            self._require(0 <= getattr(self, field) <= 1, field, "it must be at least 0 and at most 1")

    def _require_list(self, field: str):
        self._require(
            1 <= len(getattr(self, field)) <= LONGEST_LIST, field, f"it must be a list of 1 to {LONGEST_LIST} values"
        )

    def _require_rising_integers(self, field: str, most: int = LARGEST_INTEGER):
        self._require_list(field)
        values = list(getattr(self, field))
        self._require(
            values == sorted(set(values)) and values[0] >= 1 and values[-1] <= most,
            field,
            "it must be a list of at least one integer, each greater than the one before, from 1 on and at "
            f"most {most}",
        )
