# Copyright 2026 The modeling_pixelvit team. All rights reserved.
# SPDX-License-Identifier: Apache-2.0
"""
The order in which a causal block reads the patches of an image: by rows or by columns, forwards or backwards.

The class token ends the sequence in every order. Of several tokens for each patch, those of one stay together.
"""

from dataclasses import dataclass

import torch


@dataclass(frozen=True)
class ScanOrder:
    """
    Args:
        by_columns: Down one column after the other, or else along one row after the other.
        backwards: From the last patch to the first.
    """

    by_columns: bool = False
    backwards: bool = False

    def apply(
        self, tokens: torch.Tensor, grid: tuple[int, int], kept_patches: torch.Tensor | None = None
    ) -> torch.Tensor:
        """
        Tokens in the order of this block.

        Args:
            tokens: (B, k n + 1, D), patches in raster order, each with its k tokens, and then the class token.
            grid: Patches of the whole image as (rows, columns).
            kept_patches: (B, n) raster indices, rising, of the patches that there are; all if not given.
        """
        if not (self.by_columns or self.backwards):
            return tokens
        patches = tokens[:, :-1]
        if self.by_columns and kept_patches is None:
            patches = patches.unflatten(1, (*grid, -1)).transpose(1, 2).flatten(1, 3)
        elif self.by_columns:
            patches = _select(patches, _column_order(kept_patches, grid))
        if self.backwards:
            patches = patches.flip(1)
        return torch.cat([patches, tokens[:, -1:]], dim=1)

    def places(
        self, tokens: torch.Tensor, grid: tuple[int, int], kept_patches: torch.Tensor | None = None
    ) -> torch.Tensor | None:
        """
        Where the tokens stand that `apply` puts first, second and so on: (k n + 1,) or, if that depends on the image,
        (B, k n + 1), int32; None if in their own order.
        """
        if not (self.by_columns or self.backwards):
            return None
        by_image = self.by_columns and kept_patches is not None
        places = torch.arange(tokens.shape[1], dtype=torch.int32, device=tokens.device)
        places = places[None, :, None].expand(tokens.shape[0] if by_image else 1, -1, 1)
        places = self.apply(places, grid, kept_patches).squeeze(2)
        return places if by_image else places[0]

    def undo(
        self, tokens: torch.Tensor, grid: tuple[int, int], kept_patches: torch.Tensor | None = None
    ) -> torch.Tensor:
        """What `apply` was given, from what it returned."""
        if not (self.by_columns or self.backwards):
            return tokens
        patches = tokens[:, :-1]
        if self.backwards:
            patches = patches.flip(1)
        if self.by_columns and kept_patches is None:
            patches = patches.unflatten(1, (grid[1], grid[0], -1)).transpose(1, 2).flatten(1, 3)
        elif self.by_columns:
            patches = _select(patches, _column_order(kept_patches, grid).argsort(dim=1))
        return torch.cat([patches, tokens[:, -1:]], dim=1)


def _column_order(kept_patches: torch.Tensor, grid: tuple[int, int]) -> torch.Tensor:
    """Places (B, n) in `kept_patches` by columns."""
    rows, columns = grid
    return (kept_patches % columns * rows + kept_patches // columns).argsort(dim=1)


def _select(patches: torch.Tensor, places: torch.Tensor) -> torch.Tensor:
    """The tokens (B, k n, D) in the order of their patches' places (B, n)."""
    return patches.unflatten(1, (places.shape[1], -1)).take_along_dim(places[..., None, None], dim=1).flatten(1, 2)
