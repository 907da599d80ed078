# Copyright 2026 The modeling_pixelvit team. All rights reserved.
# SPDX-License-Identifier: Apache-2.0
"""
What the models of both families share: they change their patch grid, load with another one and take their code along,
classify images, and serve as backbones.
"""

import copy
import difflib
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import nn
from transformers import initialization as init
from transformers.backbone_utils import BackboneMixin, filter_output_hidden_states
from transformers.configuration_utils import PreTrainedConfig
from transformers.modeling_outputs import BackboneOutput, ImageClassifierOutput
from transformers.modeling_utils import PreTrainedModel
from transformers.processing_utils import Unpack
from transformers.utils import TransformersKwargs
from transformers.utils.generic import can_return_tuple

from .configuration_base import PixelPreTrainedConfig, as_pair
from .layers_embeddings import PixelEmbeddings


# Where a checkpoint's config and weights may be looked up: passed on when only the config is read.
HUB_ARGUMENTS = ("cache_dir", "force_download", "local_files_only", "proxies", "revision", "subfolder", "token")

# What the forward passes of these models take, and what callers of other models may think that they take.
MEANT_KEYWORDS = ("pixel_values", "pixel_mask", "labels", "patch_size", "image_size", "interpolate_pos_encoding")


def check_keywords(model: nn.Module, keywords: dict[str, Any]):
    """
    Keywords that a forward pass does not know are left to the attention implementations, as everywhere in transformers.
    One that was meant for the model itself must not vanish there.

    Raises:
        TypeError: for one that is nearly a keyword of these models, or that only other models have.
    """
    unknown = [name for name in keywords if name not in TransformersKwargs.__annotations__]
    for name in unknown:
        meant = difflib.get_close_matches(name, MEANT_KEYWORDS, n=1, cutoff=0.75)
        if meant == ["image_size"]:
            raise TypeError(
                f"{type(model).__name__}: {name} was given to the forward pass, which takes it from pixel_values; pass "
                "interpolate_pos_encoding=True for images of another size."
            )
        if meant:
            told = "which does not take it" if meant == [name] else f"which has no such keyword; {meant[0]} is meant?"
            raise TypeError(f"{type(model).__name__}: {name} was given to the forward pass, {told}")


def refuse_pickles(folder: Path):
    """
    Raises:
        ValueError: if the folder has weights in PyTorch's pickles and none in safetensors.
    """
    pickles = [path.name for path in folder.glob("pytorch_model*.bin")]
    if pickles and not any(folder.glob("*.safetensors")):
        raise ValueError(
            f"{folder} has its weights in {min(pickles)}, a pickle, which could run code when it is read; only "
            "safetensors are loaded. Pass use_safetensors=False if you trust the file, and save the model again."
        )


class PixelPreTrainedModel(PreTrainedModel):
    """Base of all models; see `PixelViTPreTrainedModel` and `AdventurerPreTrainedModel`."""

    main_input_name = "pixel_values"
    input_modalities = ("image",)
    _input_embed_layer = "patch_embeddings"
    supports_gradient_checkpointing = True

    # Auto class -> "file.Class" of this family, written to each checkpoint's config.
    family_auto_map: ClassVar[dict[str, str]] = {}

    def __init__(self, config: PixelPreTrainedConfig, *args, **kwargs):
        # Fields may have been set after construction, by from_pretrained's keyword arguments for one.
        config.validate_architecture()
        super().__init__(config, *args, **kwargs)

    @torch.no_grad()
    def _init_weights(self, module: nn.Module):
        super()._init_weights(module)
        if isinstance(module, PixelEmbeddings):
            init.trunc_normal_(module.cls_token, std=self.config.initializer_range)
            if module.position_embeddings is not None:
                init.trunc_normal_(module.position_embeddings, std=self.config.initializer_range)
            projection = module.patch_embeddings.projection
            # LeCun normal: variance 1 / fan-in, of which truncation at two standard deviations leaves 0.8796^2.
            # (transformers' own lecun_normal_ truncates at an absolute 2, which is to say not at all.)
            std = projection.weight[0].numel() ** -0.5 / 0.87962566103423978
            init.trunc_normal_(projection.weight, std=std, a=-2 * std, b=2 * std)
            init.zeros_(projection.bias)

    def _pool(self, hidden_states: torch.Tensor) -> torch.Tensor:
        """Tokens after the final norm to what the classifier sees of them, `(batch_size, hidden_size)`."""
        if self.config.pooling == "mean":
            return self.embeddings.patch_features(hidden_states).mean(dim=1)
        return self.embeddings.class_token(hidden_states)

    def resize_patches(
        self,
        patch_size: int | None = None,
        image_size: int | tuple[int, int] | None = None,
        patch_kernel_size: int | None = None,
    ) -> nn.Module:
        """
        Changes the patch size, the image size or both, in place, keeping what the model has learned as far as that can
        be: positions are resampled as a picture, the patch-embedding kernel by FlexiViT's pseudo-inverse rule. The
        levels of a feature pyramid keep their strides in pixels; layers that they did not have begin anew, with a
        warning.

        Args:
            patch_size (`int`, *optional*):
                New side of a patch in pixels, at which the kernel is stored from now on; unchanged if not given.
            image_size (`int` or pair of `int`, *optional*): New height and width in pixels; unchanged if not given.
            patch_kernel_size (`int`, *optional*):
                Another side at which to store the kernel. Of a larger one the model's own patches see nearly, but not
                exactly, what they saw before.

        Returns:
            `nn.Module`: the patch embedding.

        Raises:
            ValueError: if the patch does not divide the image, or the weights are not in memory. The model is then as
                it was before.
        """
        config = copy.deepcopy(self.config)
        if patch_size is not None:
            config.patch_size, config.patch_kernel_size = patch_size, None
        if patch_kernel_size is not None:
            config.patch_kernel_size = patch_kernel_size
        if image_size is not None:
            config.image_size = list(image_size) if hasattr(image_size, "__iter__") else image_size
        config.validate_architecture()
        embeddings = self.base_model.embeddings
        if embeddings.cls_token.is_meta or embeddings.cls_token.numel() == 0:
            raise ValueError(
                "resize_patches was called on a model whose embeddings are not in memory (offloaded, on the meta "
                "device, or split among processes by ZeRO-3); load it whole, resize, and save it first."
            )
        embeddings.resize(config)
        for name in ("patch_size", "patch_kernel_size", "image_size"):
            setattr(self.config, name, getattr(config, name))
        self._fit_pyramid()
        return embeddings.patch_embeddings

    def _fit_pyramid(self):
        """What the models of the dense tasks do after `resize_patches`."""

    @classmethod
    def from_pretrained(
        cls,
        pretrained_model_name_or_path,
        *model_args,
        config=None,
        patch_size: int | None = None,
        image_size: int | tuple[int, int] | None = None,
        patch_kernel_size: int | None = None,
        sequence_extension: int | None = None,
        **kwargs,
    ):
        """
        `PreTrainedModel.from_pretrained`, and with `patch_size`, `image_size` or `patch_kernel_size` (or a `config`
        that has others than the checkpoint's) a call of [`~PixelPreTrainedModel.resize_patches`] on what was loaded.

        Weights are read from safetensors only, unless `use_safetensors=False` is given.

        Raises:
            ValueError: if a folder has its weights in a pickle, or `sequence_extension`, given or that of `config`, is
                not the checkpoint's.
        """
        if pretrained_model_name_or_path is not None and kwargs.get("use_safetensors") is None:
            kwargs["use_safetensors"] = True
            refuse_pickles(Path(pretrained_model_name_or_path) / kwargs.get("subfolder", ""))
        # Not isinstance of our config class: in remote code, config and model come from different modules.
        if pretrained_model_name_or_path is not None and isinstance(config, PreTrainedConfig):
            patch_size = config.patch_size if patch_size is None else patch_size
            image_size = config.image_size if image_size is None else image_size
            sequence_extension = config.sequence_extension if sequence_extension is None else sequence_extension
            hub_arguments = {name: kwargs[name] for name in HUB_ARGUMENTS if name in kwargs}
            stored, _ = cls.config_class.get_config_dict(pretrained_model_name_or_path, **hub_arguments)
            # The checkpoint's own is no wish: it is in a config that was loaded for another patch size, too.
            if patch_kernel_size is None and config.patch_kernel_size != stored.get("patch_kernel_size"):
                patch_kernel_size = config.patch_kernel_size
            config = copy.deepcopy(config)
            for name in ("patch_size", "patch_kernel_size", "image_size", "sequence_extension"):
                setattr(config, name, stored.get(name, getattr(type(config), name)))
        loaded = super().from_pretrained(pretrained_model_name_or_path, *model_args, config=config, **kwargs)
        model = loaded[0] if isinstance(loaded, tuple) else loaded  # with output_loading_info=True
        if sequence_extension not in (None, model.config.sequence_extension):
            raise ValueError(
                f"{cls.__name__}: sequence_extension={sequence_extension!r} was given for a checkpoint with "
                f"{model.config.sequence_extension}, which has no positions for other copies of its patches; leave it "
                "out, or train a new model."
            )
        if patch_size == model.config.patch_size:
            patch_size = None
        if image_size is not None and as_pair(image_size) == as_pair(model.config.image_size):
            image_size = None
        if (patch_size, image_size, patch_kernel_size) != (None, None, None):
            model.resize_patches(patch_size, image_size, patch_kernel_size)
        return loaded

    def save_pretrained(self, save_directory, *args, **kwargs):
        """
        `PreTrainedModel.save_pretrained`. The folder also gets the code of the model, and its config an `auto_map` for
        every Auto class of the family, so that it loads with `trust_remote_code=True` where this package is missing.
        """
        self.config.auto_map = dict(self.family_auto_map)
        super().save_pretrained(save_directory, *args, **kwargs)


class ImageClassificationMixin:
    """The encoder with a linear classifier on the pooled vector."""

    # A forward pass that takes keyword arguments would else get from the Trainer a number of labels to divide by, which
    # transformers' losses do for one class per image only: multi-label batches whose gradients accumulate would be
    # added up, not averaged.
    accepts_loss_kwargs = False

    def make_classifier(self, config: PixelPreTrainedConfig):
        """Adds the classifier to a model that has its encoder."""
        self.num_labels = config.num_labels
        self.classifier = nn.Linear(config.hidden_size, config.num_labels) if config.num_labels > 0 else nn.Identity()

    @can_return_tuple
    def forward(
        self,
        pixel_values: torch.Tensor,
        labels: torch.Tensor | None = None,
        interpolate_pos_encoding: bool | None = None,
        patch_size: int | None = None,
        pixel_mask: torch.Tensor | None = None,
        **kwargs: Unpack[TransformersKwargs],
    ) -> ImageClassifierOutput:
        """
        Args:
            pixel_values (`torch.Tensor` of shape `(batch_size, num_channels, height, width)`): Normalized images.
            labels (`torch.Tensor` of shape `(batch_size,)`, *optional*):
                Class indices in `[0, num_labels)`; with them the output has a loss (cross-entropy, or what
                `config.problem_type` asks for). Of shape `(batch_size, num_labels)` 1 for each class of the image and 0
                for the others, or what to regress. Whole numbers may be of any dtype.
            interpolate_pos_encoding (`bool`, *optional*): Whether to take images of any size; see `PixelEmbeddings`.
            patch_size (`int`, *optional*): Side of the patches in pixels, the config's if not given.
            pixel_mask (`torch.Tensor` of shape `(batch_size, height, width)`, *optional*):
                1 where the image is and 0 where it is padded, at the bottom and on the right. Each image is
                then read without its padding.

        Returns:
            [`ImageClassifierOutput`]: `logits` of shape `(batch_size, num_labels)`, and `loss` if labels are given.
        """
        outputs = self.base_model(
            pixel_values, interpolate_pos_encoding, patch_size, pixel_mask, return_dict=True, **kwargs
        )
        logits = self.classifier(outputs.pooler_output)
        if labels is not None and not labels.is_floating_point():
            # transformers' losses take whole numbers as int64 only, and those for class indices.
            has_class = labels.shape != logits.shape or self.config.problem_type == "single_label_classification"
            labels = labels.long() if has_class else labels.float()
        loss = None if labels is None else self.loss_function(labels, logits, self.config, **kwargs)
        return ImageClassifierOutput(
            loss=loss, logits=logits, hidden_states=outputs.hidden_states, attentions=outputs.attentions
        )


class PixelBackboneMixin(BackboneMixin):
    """
    The encoder as a source of feature maps, one for each stage in `config.out_features`, without the blocks after the
    last of these.
    """

    def post_init(self):
        self.num_features = [self.config.hidden_size] * len(self.stage_names)
        # One is left even under the stem's map alone, which is recorded as what that block is given.
        last = max(1, *(self.stage_names.index(stage) for stage in self.out_features))
        layers = self.base_model.layers
        # A checkpoint of the whole encoder is no mistake.
        removed = [rf"\blayers\.{index}\." for index in range(last, len(layers))]
        self._keys_to_ignore_on_load_unexpected = removed
        del layers[last:]
        super().post_init()

    @can_return_tuple
    @filter_output_hidden_states
    def forward(
        self,
        pixel_values: torch.Tensor,
        patch_size: int | None = None,
        pixel_mask: torch.Tensor | None = None,
        **kwargs: Unpack[TransformersKwargs],
    ) -> BackboneOutput:
        """
        Args:
            pixel_values (`torch.Tensor` of shape `(batch_size, num_channels, height, width)`):
                Normalized images of any size.
            patch_size (`int`, *optional*): Side of the patches in pixels, the config's if not given.
            pixel_mask (`torch.Tensor` of shape `(batch_size, height, width)`, *optional*):
                1 where the image is and 0 where it is padded, at the bottom and on the right. Each image is
                then read without its padding, in whose place feature maps hold nothing of use.

        Returns:
            [`BackboneOutput`]: `feature_maps`, each of shape `(batch_size, hidden_size, rows, columns)`, or with
            `config.reshape_hidden_states=False` `(batch_size, num_patch_tokens + 1, hidden_size)`.

        Raises:
            ValueError: if a stage is asked for now that was not when the backbone was made, or in training with
                `config.patch_dropout`, which leaves no map.
        """
        if self.training and self.config.patch_dropout and self.config.reshape_hidden_states:
            raise ValueError(
                f"{type(self).__name__}: patch_dropout={self.config.patch_dropout} was given; in training feature maps "
                "need every patch, so it must be 0, or reshape_hidden_states=False."
            )
        outputs = self.base_model(pixel_values, True, patch_size, pixel_mask, return_dict=True, **kwargs)
        states = dict(zip(self.stage_names, outputs.hidden_states, strict=False))
        if missing := set(self.out_features) - set(states):
            raise ValueError(
                f"out_features asks for {max(missing)}, but this backbone was made without the blocks after "
                f"{self.stage_names[len(states) - 1]}; make or load it with those features."
            )
        feature_maps = []
        for stage, hidden_state in states.items():
            if stage not in self.out_features:
                continue
            if self.config.apply_layernorm:
                hidden_state = self.final_norm(hidden_state)
            if self.config.reshape_hidden_states:
                hidden_state = self.base_model.embeddings.feature_map(hidden_state, pixel_values, patch_size)
                hidden_state = hidden_state.contiguous()
            feature_maps.append(hidden_state)
        return BackboneOutput(
            feature_maps=tuple(feature_maps), hidden_states=outputs.hidden_states, attentions=outputs.attentions
        )
