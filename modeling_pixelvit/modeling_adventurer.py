# Copyright 2026 The modeling_pixelvit team. All rights reserved.
# SPDX-License-Identifier: Apache-2.0
"""Adventurer: the causal Mamba-2 image model (arXiv 2410.07599) with patches from 64 pixels down to one."""

import math
from functools import partial

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

from .configuration_adventurer import AdventurerConfig
from .layers_embeddings import PixelEmbeddings
from .layers_mamba2 import Mamba2Mixer
from .layers_mlp import GatedMLP
from .layers_norm import RMSNorm, RMSNormGated
from .layers_padding import by_image_size
from .layers_scan_order import ScanOrder
from .modeling_base import ImageClassificationMixin, PixelBackboneMixin, PixelPreTrainedModel, check_keywords
from .ops_backend import check_mixer_implementation
from .ops_segments import map_segments


class AdventurerLayer(GradientCheckpointingLayer):
    """Pre-norm block: causal token mixing and gated MLP, each a residual branch with stochastic depth."""

    def __init__(self, config: AdventurerConfig, layer_idx: int):
        super().__init__()
        self.scan_order = ScanOrder(layer_idx in config.column_blocks, layer_idx in config.flipped_blocks)
        self.mixer_norm = RMSNorm(config.hidden_size, config.rms_norm_eps)
        self.mixer = Mamba2Mixer(config)
        self.mlp_norm = RMSNorm(config.hidden_size, config.rms_norm_eps)
        self.mlp = GatedMLP(config)
        self.drop_path = StochasticDepth(config.drop_path_rates[layer_idx], mode="row")

    def forward(
        self,
        hidden_states: torch.Tensor,
        grid: tuple[int, int] | None = None,
        kept_patches: torch.Tensor | None = None,
        **kwargs: Unpack[TransformersKwargs],
    ) -> torch.Tensor:
        """
        Args:
            hidden_states: (B, k n + 1, D), patches in raster order, each with its k tokens, and then the class token.
            grid: Patches of the whole image as (rows, columns); needed where blocks read by columns.
            kept_patches: (B, n) raster indices of the patches that there are; all if not given.
        """
        ops = self.mixer.select_backend(hidden_states).block
        if ops is None:
            mixed = self.mix_tokens(hidden_states, grid, kept_patches)
            hidden_states = hidden_states + self.drop_path(mixed)
            del mixed  # each would be as long as the stream
            return hidden_states + self.drop_path(map_segments(self._mix_channels, hidden_states))
        hidden_states, normed, average = self.mixer_norm(hidden_states, ops.rms_norm)
        mixed = self.mixer(normed, average, self.scan_order.places(normed, grid, kept_patches))
        scale = None
        if self.training and self.drop_path.p > 0:
            scale = self.drop_path(hidden_states.new_ones(hidden_states.shape[0], 1, 1)).flatten()
        add_and_normalize = partial(ops.add_rms_norm, branch=mixed, scale=scale)
        hidden_states, normed = self.mlp_norm(hidden_states, add_and_normalize)
        return hidden_states + self.drop_path(self.mlp(normed, ops.swiglu))

    def _mix_channels(self, tokens: torch.Tensor) -> torch.Tensor:
        return self.mlp(self.mlp_norm(tokens))

    def mix_tokens(
        self, tokens: torch.Tensor, grid: tuple[int, int] | None = None, kept_patches: torch.Tensor | None = None
    ) -> torch.Tensor:
        """
        The mixer's branch under a heading average: (B, k n + 1, D) to that shape, class token last.

        A causal model's first tokens see nothing of the image, so the mean of all tokens goes first ("heading
        average").
        """
        # By one name, and normed here, since Python holds the arguments of a call until its end where a compiler looks
        # at every frame: so that of the sequence there is no more while the mixer runs than what it reads.
        tokens = self.read(self.mixer_norm(tokens), grid, kept_patches)
        tokens = self.mixer(tokens)[:, 1:]
        return self.scan_order.undo(tokens, grid, kept_patches)

    def read(
        self, tokens: torch.Tensor, grid: tuple[int, int] | None = None, kept_patches: torch.Tensor | None = None
    ) -> torch.Tensor:
        """Tokens (B, k n + 1, D) in the order in which the mixer reads them, after their mean: (B, k n + 2, D)."""
        average = tokens.mean(dim=1, keepdim=True)
        return torch.cat([average, self.scan_order.apply(tokens, grid, kept_patches)], dim=1)


class AdventurerPreTrainedModel(PixelPreTrainedModel):
    config: AdventurerConfig
    base_model_prefix = "adventurer"
    family_auto_map = {
        "AutoConfig": "configuration_adventurer.AdventurerConfig",
        "AutoModel": "modeling_adventurer.AdventurerModel",
        "AutoBackbone": "modeling_adventurer.AdventurerBackbone",
        "AutoModelForImageClassification": "modeling_adventurer.AdventurerForImageClassification",
    }
    _no_split_modules = ["PixelEmbeddings", "AdventurerLayer"]
    _keep_in_fp32_modules_strict = ["A_log", "D", "dt_bias"]
    _can_compile_fullgraph = True
    _can_record_outputs = {"hidden_states": AdventurerLayer}

    @classmethod
    def from_pretrained(cls, *args, mixer_implementation: str | None = None, **kwargs):
        """
        [`PixelPreTrainedModel.from_pretrained`], and with `mixer_implementation` a call of
        [`~AdventurerPreTrainedModel.set_mixer_implementation`], which raises before anything is loaded.
        """
        if mixer_implementation is None:
            return super().from_pretrained(*args, **kwargs)
        check_mixer_implementation(mixer_implementation)
        loaded = super().from_pretrained(*args, **kwargs)
        model = loaded[0] if isinstance(loaded, tuple) else loaded  # with output_loading_info=True
        model.set_mixer_implementation(mixer_implementation)
        return loaded

    @classmethod
    def _from_config(cls, config: AdventurerConfig, mixer_implementation: str | None = None, **kwargs):
        model = super()._from_config(config, **kwargs)
        if mixer_implementation is not None:
            model.set_mixer_implementation(mixer_implementation)
        return model

    def set_mixer_implementation(self, name: str):
        """
        What the blocks' mixers run on from now on.

        Args:
            name (`str`): `"auto"`, `"torch"`, `"triton"` or `"mamba_ssm"`; see [`AdventurerConfig`].

        Raises:
            ValueError: for another name.
            ImportError: if the package of the one that is named is not installed. (That it cannot run for another
                reason, as on a CPU, is said at the first forward pass.)
        """
        check_mixer_implementation(name)
        self.config.mixer_implementation = name
        for module in self.modules():
            if isinstance(module, Mamba2Mixer):
                module.implementation = name

    @property
    def final_norm(self) -> nn.Module:
        """The norm after the last block."""
        return self.base_model.norm

    @torch.no_grad()
    def _init_weights(self, module: nn.Module):
        super()._init_weights(module)
        if isinstance(module, (nn.Linear, nn.Conv1d)):
            if module is getattr(self, "classifier", None):
                init.trunc_normal_(module.weight, std=self.config.initializer_range)
            else:
                self._init_uniform(module.weight, scale=1.0)  # PyTorch's default
            if module.bias is not None:
                init.zeros_(module.bias)
        elif isinstance(module, (RMSNorm, RMSNormGated)):
            init.ones_(module.weight)
        elif isinstance(module, Mamba2Mixer):
            self._init_mixer(module)

    @staticmethod
    def _init_uniform(weight: torch.Tensor, scale: float):
        bound = scale / math.sqrt(weight[0].numel())
        init.uniform_(weight, -bound, bound)

    def _init_mixer(self, mixer: Mamba2Mixer):
        config = self.config
        # Log-uniform steps, stored so that softplus gives them back.
        draw = torch.rand(mixer.dt_bias.shape, dtype=torch.float32, device=mixer.dt_bias.device)
        low, high = math.log(config.time_step_min), math.log(config.time_step_max)
        step = torch.exp(low + draw * (high - low)).clamp(min=config.time_step_floor)
        init.copy_(mixer.dt_bias, step + torch.log(-torch.expm1(-step)))
        draw = torch.rand(mixer.A_log.shape, dtype=torch.float32, device=mixer.A_log.device)
        init.copy_(mixer.A_log, torch.log(1 + 15 * draw))
        init.ones_(mixer.D)
        # Each of the L residual branches of a kind adds its share.
        self._init_uniform(mixer.out_proj.weight, scale=config.num_hidden_layers**-0.5)


class AdventurerModel(AdventurerPreTrainedModel):
    """The encoder: images to tokens after the final norm, and a pooled vector."""

    def __init__(self, config: AdventurerConfig):
        super().__init__(config)
        self.embeddings = PixelEmbeddings(config, class_token_last=True)
        self.layers = nn.ModuleList([AdventurerLayer(config, index) for index in range(config.num_hidden_layers)])
        self.norm = RMSNorm(config.hidden_size, config.rms_norm_eps)
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
            [`BaseModelOutputWithPooling`]: `last_hidden_state` of shape `(batch_size, num_patch_tokens + 1,
            hidden_size)`, class token last, after the final norm (in training with `config.patch_dropout`, of fewer
            patches); `pooler_output` of shape `(batch_size, hidden_size)`, the class token or the mean of the patch
            tokens, as `config.pooling` says. `hidden_states` are the input of the first block and the output of each
            one, before the final norm.

        Raises:
            ValueError: if the input's shape does not fit the model.
        """
        check_keywords(self, kwargs)
        kept_patches = self.embeddings.draw_kept_patches(pixel_values, patch_size)
        hidden_states = self.embeddings(pixel_values, interpolate_pos_encoding, patch_size, kept_patches)
        grid = self.embeddings.grid_of(pixel_values, patch_size)
        for layer in self.layers:
            hidden_states = layer(hidden_states, grid=grid, kept_patches=kept_patches, **kwargs)
        hidden_states = self.norm(hidden_states)
        return BaseModelOutputWithPooling(last_hidden_state=hidden_states, pooler_output=self._pool(hidden_states))


class AdventurerForImageClassification(ImageClassificationMixin, AdventurerPreTrainedModel):
    """Adventurer with a linear classifier on the pooled vector."""

    def __init__(self, config: AdventurerConfig):
        super().__init__(config)
        self.adventurer = AdventurerModel(config)
        self.make_classifier(config)
        self.post_init()


class AdventurerBackbone(PixelBackboneMixin, AdventurerPreTrainedModel):
    """Adventurer as a source of feature maps."""

    has_attentions = False

    def __init__(self, config: AdventurerConfig):
        super().__init__(config)
        self.adventurer = AdventurerModel(config)
        self.post_init()


# Saved checkpoints carry this file and what it imports.
AdventurerModel.register_for_auto_class("AutoModel")
AdventurerBackbone.register_for_auto_class("AutoBackbone")
AdventurerForImageClassification.register_for_auto_class("AutoModelForImageClassification")


__all__ = [
    "AdventurerBackbone",
    "AdventurerForImageClassification",
    "AdventurerModel",
    "AdventurerPreTrainedModel",
]
