# Copyright 2026 The modeling_pixelvit team. All rights reserved.
# SPDX-License-Identifier: Apache-2.0
"""The fields of the semantic segmentation models."""

from typing import Literal

from huggingface_hub.dataclasses import strict

from .configuration_checks import LARGEST_INTEGER, LARGEST_NUMBER, CheckedConfig


# A pooled map is resized to the level's size whatever its own, so no weight tells how large it is.
LARGEST_POOL_SCALE = 64


@strict
class SegmentationHeadConfig(CheckedConfig):
    r"""
    Part of [`PixelPreTrainedConfig`] that only the `...ForSemanticSegmentation` models read.

    Args:
        decoder_type (`str`, *optional*, defaults to `"none"`):
            `"none"` is one linear layer over the normed patch tokens (the paper's decoder-free setting, Table 2);
            `"upernet"` is UperNet (arXiv 1807.10221) over a feature pyramid made from blocks of the encoder.
            Construction also takes it by the name `decoder`.
        decoder_hidden_size (`int`, *optional*, defaults to 192):
            Channels inside UperNet. With the default Adventurer has Table 2's parameters at 512 pixels, patch 16 and
            150 classes: 112M for Base and 17M for Tiny.
        decoder_layers (`list[int]`, *optional*):
            Blocks whose outputs become the levels of the pyramid, from the finest to the coarsest level, counted from
            1 and ending with the last one, whose output is the encoder's; four of them at equal distances if not given.
        decoder_strides (`list[int]`, *optional*):
            Strides of the levels in pixels, as many as `decoder_layers`. If not given, the first is 4, or the patch
            size where that is smaller, and each is twice the one before.
        pool_scales (`list[int]`, *optional*, defaults to `[1, 2, 3, 6]`):
            Grid sizes to which UperNet pools the coarsest level, at most 64.
        use_auxiliary_head (`bool`, *optional*, defaults to `False`):
            Whether UperNet trains with a second, convolutional head on the third level.
        auxiliary_channels (`int`, *optional*, defaults to 256): Channels of that head.
        auxiliary_loss_weight (`float`, *optional*, defaults to 0.4): Weight of its loss.
        semantic_loss_ignore_index (`int`, *optional*, defaults to 255): Label of the pixels that have no class.
    """

    decoder_type: Literal["none", "upernet"] = "none"
    decoder_hidden_size: int = 192
    decoder_layers: list[int] | tuple[int, ...] | None = None
    decoder_strides: list[int] | tuple[int, ...] | None = None
    pool_scales: list[int] | tuple[int, ...] = (1, 2, 3, 6)
    use_auxiliary_head: bool = False
    auxiliary_channels: int = 256
    auxiliary_loss_weight: float | int = 0.4
    semantic_loss_ignore_index: int = 255

    @property
    def pyramid_layers(self) -> list[int]:
        """Blocks, counted from 1, whose outputs become the levels of UperNet's pyramid."""
        if self.decoder_layers is not None:
            return list(self.decoder_layers)
        return [max(1, self.num_hidden_layers * quarter // 4) for quarter in (1, 2, 3, 4)]

    @property
    def pyramid_strides(self) -> list[int]:
        """Strides in pixels of the levels of UperNet's pyramid."""
        return self.pyramid_strides_at(self.patch_size)

    def pyramid_strides_at(self, patch_size: int) -> list[int]:
        """The same for patches of another side."""
        if self.decoder_strides is not None:
            return list(self.decoder_strides)
        return [min(4, patch_size) * 2**level for level in range(len(self.pyramid_layers))]

    def validate_architecture(self):
        super().validate_architecture()
        self._require_positive_integers("decoder_hidden_size", "auxiliary_channels")
        self._require_rising_integers("pool_scales", most=LARGEST_POOL_SCALE)
        self._require(
            0 <= self.auxiliary_loss_weight <= LARGEST_NUMBER,
            "auxiliary_loss_weight",
            "it must be at least 0 and finite",
        )
        self._require(
            abs(self.semantic_loss_ignore_index) <= LARGEST_INTEGER,
            "semantic_loss_ignore_index",
            f"it must be an integer from -{LARGEST_INTEGER} to {LARGEST_INTEGER}",
        )
        if self.decoder_layers is not None:
            self._require_rising_integers("decoder_layers", most=self.num_hidden_layers)
            self._require(
                self.decoder_layers[-1] == self.num_hidden_layers,
                "decoder_layers",
                f"it must end with the last block, {self.num_hidden_layers}; for fewer blocks lower num_hidden_layers",
            )
        if self.decoder_strides is not None:
            self._require_rising_integers("decoder_strides")
            self._require(
                len(self.decoder_strides) == len(self.pyramid_layers),
                "decoder_strides",
                f"it must have one stride for each of the {len(self.pyramid_layers)} blocks of the pyramid",
            )
        if self.use_auxiliary_head:
            self._require(
                self.decoder_type == "upernet", "use_auxiliary_head", 'it goes with decoder_type="upernet" only'
            )
            self._require(
                len(self.pyramid_layers) >= 3, "use_auxiliary_head", "it needs a third level; give more decoder_layers"
            )
