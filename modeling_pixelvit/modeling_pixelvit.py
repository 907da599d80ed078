# Copyright 2026 The modeling_pixelvit team. All rights reserved.
# SPDX-License-Identifier: Apache-2.0
"""PixelViT: the plain vision transformer of DeiT (arXiv 2012.12877) with patches from 64 pixels down to one."""

import torch
from torch import nn
from torchvision.ops import StochasticDepth
from transformers import initialization as init
from transformers.modeling_layers import GradientCheckpointingLayer
from transformers.modeling_outputs import BaseModelOutputWithPooling
from transformers.processing_utils import Unpack
from transformers.utils import TransformersKwargs
from transformers.utils.generic import merge_with_config_defaults
from transformers.utils.output_capturing import capture_outputs

from .configuration_pixelvit import PixelViTConfig
from .layers_attention import Attention
from .layers_embeddings import PixelEmbeddings
from .layers_mlp import MLP
from .layers_norm import LayerScale, RMSNorm
from .layers_padding import by_image_size
from .layers_rotary import rotary_angles
from .modeling_base import ImageClassificationMixin, PixelBackboneMixin, PixelPreTrainedModel, check_keywords


class PixelViTLayer(GradientCheckpointingLayer):
    """Pre-norm block: attention and MLP, each a residual branch with LayerScale, dropout and stochastic depth."""

    def __init__(self, config: PixelViTConfig, layer_idx: int):
        super().__init__()
        self.layernorm_before = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)
        self.attention = Attention(config, layer_idx)
        self.layernorm_after = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)
        self.mlp = MLP(config)
        scaled = config.layer_scale_init_value is not None
        self.layer_scale1, self.layer_scale2 = (
            LayerScale(config.hidden_size, config.layer_scale_init_value) if scaled else nn.Identity() for _ in range(2)
        )
        self.dropout = nn.Dropout(config.hidden_dropout_prob)
        self.drop_path = StochasticDepth(config.drop_path_rates[layer_idx], mode="row")

    def forward(self, hidden_states: torch.Tensor, **kwargs: Unpack[TransformersKwargs]) -> torch.Tensor:
        attended, _ = self.attention(self.layernorm_before(hidden_states), **kwargs)
        hidden_states = hidden_states + self.drop_path(self.layer_scale1(self.dropout(attended)))
        mixed = self.mlp(self.layernorm_after(hidden_states))
        return hidden_states + self.drop_path(self.layer_scale2(self.dropout(mixed)))


class PixelViTPreTrainedModel(PixelPreTrainedModel):
    config: PixelViTConfig
    base_model_prefix = "pixelvit"
    family_auto_map = {
        "AutoConfig": "configuration_pixelvit.PixelViTConfig",
        "AutoModel": "modeling_pixelvit.PixelViTModel",
        "AutoBackbone": "modeling_pixelvit.PixelViTBackbone",
        "AutoModelForImageClassification": "modeling_pixelvit.PixelViTForImageClassification",
    }
    _no_split_modules = ["PixelEmbeddings", "PixelViTLayer"]
    _supports_sdpa = True
    _supports_flash_attn = True
    _supports_flex_attn = True
    _supports_attention_backend = True
    _can_compile_fullgraph = True
    _can_record_outputs = {"hidden_states": PixelViTLayer, "attentions": Attention}

    @property
    def final_norm(self) -> nn.Module:
        """The norm after the last block."""
        return self.base_model.layernorm

    @torch.no_grad()
    def _init_weights(self, module: nn.Module):
        super()._init_weights(module)
        if isinstance(module, nn.Linear):
            init.trunc_normal_(module.weight, std=self.config.initializer_range)
            if hasattr(module, "initial_bias"):
                init.copy_(module.bias, module.initial_bias())
        elif isinstance(module, RMSNorm):
            init.ones_(module.weight)
        elif isinstance(module, LayerScale):
            init.constant_(module.lambda1, module.init_value)


class PixelViTModel(PixelViTPreTrainedModel):
    """The encoder: images to tokens after the final norm, and a pooled vector."""

    def __init__(self, config: PixelViTConfig):
        super().__init__(config)
        self.embeddings = PixelEmbeddings(config, class_token_last=False, dropout=config.hidden_dropout_prob)
        self.layers = nn.ModuleList([PixelViTLayer(config, index) for index in range(config.num_hidden_layers)])
        self.layernorm = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)
        self.post_init()

    @by_image_size
    @merge_with_config_defaults
    @capture_outputs(tie_last_hidden_states=False)
    def forward(
        self,
        pixel_values: torch.Tensor,
        interpolate_pos_encoding: bool | None = None,
        patch_size: int | None = None,
        pixel_mask: torch.Tensor | None = None,
        **kwargs: Unpack[TransformersKwargs],
    ) -> BaseModelOutputWithPooling:
        """
        Args:
            pixel_values (`torch.Tensor` of shape `(batch_size, num_channels, height, width)`): Normalized images.
            interpolate_pos_encoding (`bool`, *optional*): Whether to take images of any size; see `PixelEmbeddings`.
            patch_size (`int`, *optional*):
                Side of the patches in pixels to read the images by, the config's if not given: to the same bits as
                after `resize_patches(patch_size)`, and trainable.
            pixel_mask (`torch.Tensor` of shape `(batch_size, height, width)`, *optional*):
                1 where the image is and 0 where it is padded, at the bottom and on the right. Each image is
                then read without its padding, for which there are zeros in the sequences.

        Returns:
            [`BaseModelOutputWithPooling`]: `last_hidden_state` of shape `(batch_size, 1 + num_patch_tokens,
            hidden_size)`, class token first, after the final norm (in training with `config.patch_dropout`, of fewer
            patches); `pooler_output` of shape `(batch_size, hidden_size)`, the class token or the mean of the patch
            tokens, as `config.pooling` says. `hidden_states` are the input of the first block and the output of each
            one, before the final norm.

        Raises:
            ValueError: if the input's shape or the patch size does not fit the model.
            TypeError: for a keyword that is none, but looks like one that was meant.
        """
        check_keywords(self, kwargs)
        kept_patches = self.embeddings.draw_kept_patches(pixel_values, patch_size)
        hidden_states = self.embeddings(pixel_values, interpolate_pos_encoding, patch_size, kept_patches)
        positions = self._rotary_positions(pixel_values, patch_size, kept_patches)
        for layer in self.layers:
            hidden_states = layer(hidden_states, position_embeddings=positions, **kwargs)
        hidden_states = self.layernorm(hidden_states)
        return BaseModelOutputWithPooling(last_hidden_state=hidden_states, pooler_output=self._pool(hidden_states))

    def _rotary_positions(
        self, pixel_values: torch.Tensor, patch_size: int | None, kept_patches: torch.Tensor | None
    ) -> tuple[torch.Tensor, torch.Tensor] | None:
        """Cosine and sine of each token's angles, once for all blocks; None without rotary positions."""
        config, embeddings = self.config, self.embeddings
        if not config.has_rotary_positions:
            return None
        patch_size = embeddings.resolve_patch_size(patch_size)
        angles = rotary_angles(
            embeddings.grid_of(pixel_values, patch_size),
            patch_size,
            config.hidden_size // config.num_attention_heads,
            tuple(config.rotary_wavelengths),
            pixel_values.device,
        )
        if kept_patches is not None:
            class_token = kept_patches.new_zeros(kept_patches.shape[0], 1)
            angles = angles[torch.cat([class_token, kept_patches + 1], dim=1)][:, None]
        if config.sequence_extension > 1:  # the copies of a patch are all at its place
            copies = angles[..., 1:, :].repeat_interleave(config.sequence_extension, dim=-2)
            angles = torch.cat([angles[..., :1, :], copies], dim=-2)
        return angles.cos(), angles.sin()


class PixelViTForImageClassification(ImageClassificationMixin, PixelViTPreTrainedModel):
    """PixelViT with a linear classifier on the pooled vector."""

    def __init__(self, config: PixelViTConfig):
        super().__init__(config)
        self.pixelvit = PixelViTModel(config)
        self.make_classifier(config)
        self.post_init()


class PixelViTBackbone(PixelBackboneMixin, PixelViTPreTrainedModel):
    """PixelViT as a source of feature maps."""

    def __init__(self, config: PixelViTConfig):
        super().__init__(config)
        self.pixelvit = PixelViTModel(config)
        self.post_init()


# Saved checkpoints carry this file and what it imports.
PixelViTModel.register_for_auto_class("AutoModel")
PixelViTBackbone.register_for_auto_class("AutoBackbone")
PixelViTForImageClassification.register_for_auto_class("AutoModelForImageClassification")


__all__ = ["PixelViTBackbone", "PixelViTForImageClassification", "PixelViTModel", "PixelViTPreTrainedModel"]
