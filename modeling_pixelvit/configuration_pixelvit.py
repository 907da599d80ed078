# Copyright 2026 The modeling_pixelvit team. All rights reserved.
# SPDX-License-Identifier: Apache-2.0
"""Configuration of PixelViT, the plain vision transformer of DeiT at any patch size."""

from typing import ClassVar, Literal

from huggingface_hub.dataclasses import strict
from transformers.activations import ACT2FN
from transformers.utils import logging

from .configuration_base import PixelPreTrainedConfig
from .configuration_checks import LARGEST_NUMBER


logger = logging.get_logger(__name__)


@strict
class PixelViTConfig(PixelPreTrainedConfig):
    r"""
    Configuration of a [`PixelViTModel`]. The defaults are DeiT-Base with 16-pixel patches at 224 pixels.

    The fields of [`PixelPreTrainedConfig`], and:

    Args:
        num_attention_heads (`int`, *optional*, defaults to 12): Attention heads; they must divide `hidden_size`.
        intermediate_size (`int`, *optional*, defaults to 3072): Inner width of the MLP.
        hidden_act (`str`, *optional*, defaults to `"gelu"`): Activation of the MLP, by its name in transformers.
        hidden_dropout_prob (`float`, *optional*, defaults to 0.0):
            Dropout rate after the embeddings and after each branch, in [0, 1).
        attention_probs_dropout_prob (`float`, *optional*, defaults to 0.0):
            Dropout rate of the attention weights, in [0, 1).
        layer_norm_eps (`float`, *optional*, defaults to 1e-6): Epsilon of every LayerNorm.
        qkv_bias (`bool`, *optional*, defaults to `True`): Whether query, key and value projections have a bias.
        layer_scale_init_value (`float`, *optional*):
            Initial value of a learned scale per channel at the end of each branch (LayerScale); none if not given.
        position_embedding_type (`str`, *optional*, defaults to `"absolute"`):
            How the model knows where a patch is: `"absolute"` by a learned table that is added to the tokens, as in the
            paper; `"rotary"` by turning queries and keys by row and column in pixels, without a table and so for any
            image and patch size; `"absolute_rotary"` by both.
        rotary_wavelengths (pair of `float`, *optional*, defaults to `[4, 512]`):
            The shortest and the longest full turn of rotary positions, in pixels.
        locality_init_value (`float`, *optional*):
            How strongly each head of a new model looks at one neighbor of its token, by the biases of queries and keys:
            the initial score of that neighbor before the softmax. The heads of a block look in different directions;
            from block to block the distance doubles, from one patch to a quarter of the image's side, and begins anew.
            For rotary positions only, with `qkv_bias`. Without it, as in the paper, a new model looks everywhere alike.
        use_qk_norm (`bool`, *optional*, defaults to `False`):
            Whether queries and keys go through an RMSNorm over each head's channels.

    Example:

    ```python
    >>> from modeling_pixelvit import PixelViTConfig, PixelViTModel

    >>> config = PixelViTConfig.from_variant("tiny", patch_size=4, image_size=64)
    >>> config.num_patches
    256
    >>> model = PixelViTModel(config)
    ```"""

    model_type = "pixelvit"
    # Table 7 of the paper. Large and Huge carry LayerScale, as DeiT III trains them.
    variants: ClassVar = {
        "tiny": {"hidden_size": 192, "intermediate_size": 768, "num_attention_heads": 3},
        "small": {"hidden_size": 384, "intermediate_size": 1536, "num_attention_heads": 6},
        "base": {"hidden_size": 768, "intermediate_size": 3072, "num_attention_heads": 12},
        "large": {
            "hidden_size": 1024,
            "intermediate_size": 4096,
            "num_hidden_layers": 24,
            "num_attention_heads": 16,
            "layer_scale_init_value": 1e-6,
        },
        "huge": {
            "hidden_size": 1280,
            "intermediate_size": 5120,
            "num_hidden_layers": 32,
            "num_attention_heads": 16,
            "layer_scale_init_value": 1e-6,
        },
    }

    num_attention_heads: int = 12
    intermediate_size: int = 3072
    hidden_act: str = "gelu"
    hidden_dropout_prob: float | int = 0.0
    attention_probs_dropout_prob: float | int = 0.0
    layer_norm_eps: float | int = 1e-6
    qkv_bias: bool = True
    layer_scale_init_value: float | int | None = None
    position_embedding_type: Literal["absolute", "rotary", "absolute_rotary"] = "absolute"
    rotary_wavelengths: list[float | int] | tuple[float | int, ...] = (4.0, 512.0)
    locality_init_value: float | int | None = None
    use_qk_norm: bool = False

    @property
    def has_position_table(self) -> bool:
        return self.position_embedding_type != "rotary"

    @property
    def has_rotary_positions(self) -> bool:
        """Whether queries and keys are turned by their positions."""
        return self.position_embedding_type != "absolute"

    def neighbor_distance(self, layer_idx: int) -> int:
        """How far a block's heads look at first with `locality_init_value`, in pixels: 1, 2, 4, ... patches."""
        num_distances = max(1, min(self.grid_size) // 4).bit_length()
        return self.patch_size * 2 ** (layer_idx % num_distances)

    def validate_architecture(self):
        super().validate_architecture()
        self._require_positive_integers("num_attention_heads", "intermediate_size")
        self._require(
            self.hidden_size % self.num_attention_heads == 0,
            "num_attention_heads",
            f"it must divide hidden_size={self.hidden_size}",
        )
        self._require(self.hidden_act in ACT2FN, "hidden_act", f"choose one of {', '.join(sorted(ACT2FN))}")
        self._require_rates("hidden_dropout_prob", "attention_probs_dropout_prob")
        self._require_positive("layer_norm_eps")
        lengths = list(self.rotary_wavelengths)
        self._require(
            len(lengths) == 2 and 0 < lengths[0] <= lengths[1] <= LARGEST_NUMBER,
            "rotary_wavelengths",
            "it must be two numbers of pixels above 0, the shortest wavelength and the longest",
        )
        if self.has_rotary_positions:
            self._require(
                self.hidden_size // self.num_attention_heads % 4 == 0,
                "num_attention_heads",
                f"rotary positions need heads of a multiple of 4 channels, of hidden_size={self.hidden_size}",
            )
        if self.locality_init_value is not None:
            self._require_positive("locality_init_value")
            self._require(self.qkv_bias, "locality_init_value", "it needs qkv_bias=True, or set it to None")
            if not self.has_rotary_positions:  # no error, as there are checkpoints and recipes that only lack the use
                logger.warning_once(
                    f"{type(self).__name__}: locality_init_value={self.locality_init_value} has no effect without "
                    'rotary positions; set position_embedding_type="rotary" or "absolute_rotary", or set it to None.'
                )
        self._require(
            self.has_position_table or self.sequence_extension == 1,
            "sequence_extension",
            "without a position table the copies of a patch would never differ; choose position_embedding_type="
            '"absolute" or "absolute_rotary", or set it to 1',
        )
        if self.layer_scale_init_value is not None:
            self._require_positive("layer_scale_init_value")


PixelViTConfig.register_for_auto_class()  # saved checkpoints carry this file


__all__ = ["PixelViTConfig"]
