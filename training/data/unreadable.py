# Copyright 2026 The modeling_pixelvit team. All rights reserved.
# SPDX-License-Identifier: Apache-2.0
"""Image files that cannot be decoded: one of them must not end a training of days, many of them must."""

import re
from collections.abc import Callable, Iterable
from typing import Any


MAX_TRIES = 100
# Pillow names bytes by their place in memory, another one each time, by which one image would count as many.
PLACE_IN_MEMORY = re.compile(r" ?<_io\.BytesIO object at \w+>")


class UnreadableImage(ValueError):
    """
    An image that cannot be decoded.

    Args:
        name: The file, or the image's place in the data set where it has none of its own.
        reason: What the decoder says.
    """

    def __init__(self, name: str, reason: str):
        super().__init__(name, reason)  # both, so that it can be pickled on its way out of a worker
        self.name, self.reason = name, PLACE_IN_MEMORY.sub("", reason)

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


def readable_example(example: Callable[[int], Any], index: int, num_images: int) -> tuple[Any, list[UnreadableImage]]:
    """
    The example of an image or, if it cannot be decoded, of the next one that can; and the errors on the way to it.

    Args:
        example: Makes the example of an image; it may raise `UnreadableImage`.
        index: Of the image.
        num_images: After the last of them comes the first.

    Raises:
        TooManyUnreadable: if there are `MAX_TRIES` such images in a row, or no others.
    """
    errors: list[UnreadableImage] = []
    for tries in range(min(MAX_TRIES, num_images)):
        try:
            return example((index + tries) % num_images), errors
        except UnreadableImage as error:
            errors.append(error)
    raise TooManyUnreadable(
        f"{len(errors)} images in a row could not be decoded, the last of them {errors[-1].entry}; repair or remove "
        "these files."
    )


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
