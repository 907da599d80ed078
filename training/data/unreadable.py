# Copyright 2026 The modeling_pixelvit team. All rights reserved.
# SPDX-License-Identifier: Apache-2.0
"""Image files that cannot be decoded: one of them must not end a training of days, many of them must."""

from collections.abc import Iterable


class UnreadableImage(ValueError):
    """
    An image that cannot be decoded.

    Args:
        name: The file, or the image's place in the data set where it has none of its own.
        reason: What the decoder says.
    """

    def __init__(self, name: str, reason: str):
        super().__init__(name, reason)  # both, so that it can be pickled on its way out of a worker
        self.name, self.reason = name, reason

    def __str__(self) -> str:
        return f"{self.name} cannot be decoded ({self.reason}); get a complete copy of it or leave it out."

    @property
    def entry(self) -> str:
        """The line that batches and logs have for it."""
        return f"{self.name}: {self.reason}"


class UnusableData(ValueError):
    """Data that a training cannot go on with; the message tells the user what to do."""


class TooManyUnreadable(UnusableData):
    """More images than a training tolerates cannot be decoded."""


class UnreadableImages:
    """
    The different images that a run could not decode.

    Args:
        limit: How many of them a run tolerates.
    """

    def __init__(self, limit: int):
        self.limit = limit
        self.names: list[str] = []
        self._known: set[str] = set()

    def __len__(self) -> int:
        return len(self.names)

    def add(self, names: Iterable[str]):
        """
        Counts images, each by its name and only once however often it comes.

        Raises:
            TooManyUnreadable: once there are more than `limit`.
        """
        for name in names:
            if name not in self._known:
                self._known.add(name)
                self.names.append(name)
        if len(self.names) > self.limit:
            raise TooManyUnreadable(
                f"{len(self.names)} images could not be decoded, more than the {self.limit} allowed, the last of them "
                f"{self.names[-1]}; repair or remove these files, or allow more."
            )
