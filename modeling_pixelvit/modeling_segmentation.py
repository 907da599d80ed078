# Copyright 2026 The modeling_pixelvit team. All rights reserved.
# SPDX-License-Identifier: Apache-2.0
"""Semantic segmentation over both families, with one linear layer or UperNet (arXiv 1807.10221) as the decoder."""

from dataclasses import dataclass
from types import SimpleNamespace

import torch
from torch import nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint
from transformers import initialization as init
from transformers.modeling_outputs import BaseModelOutputWithPooling, SemanticSegmenterOutput
from transformers.models.upernet.modeling_upernet import UperNetConvModule, UperNetFCNHead, UperNetHead
from transformers.processing_utils import Unpack
from transformers.utils import TransformersKwargs, logging, output_capturing
from transformers.utils.generic import can_return_tuple

from .configuration_adventurer import AdventurerConfig
from .configuration_pixelvit import PixelViTConfig
from .layers_padding import join_maps, split_by_size
from .layers_pyramid import BatchNorm, FeaturePyramid, crop_to_image, extent_of
from .modeling_adventurer import AdventurerModel, AdventurerPreTrainedModel
from .modeling_pixelvit import PixelViTModel, PixelViTPreTrainedModel


logger = logging.get_logger(__name__)

# A list of hidden states to record counts the first block's input as number 0. The oldest transformers that we support
# counts blocks only, so the output of block i is number i - 1 there.
FIRST_BLOCK = 1 if hasattr(output_capturing, "selected_hidden_states") else 0


@dataclass
class PixelSegmenterOutput(SemanticSegmenterOutput):
    """
    [`SemanticSegmenterOutput`], and of a padded batch `logits_mask` (`torch.Tensor` of shape `(batch_size, rows,
    columns)`, bool): where `logits` are those of the image, in the top left corner; elsewhere they are 0.
    """

    logits_mask: torch.Tensor | None = None


def semantic_loss(logits: torch.Tensor, labels: torch.Tensor, ignore_index: int) -> torch.Tensor:
    """
    Cross-entropy of each labelled pixel, averaged over the batch, under logits upsampled to the labels' size.

    Args:
        logits (`torch.Tensor` of shape `(batch_size, num_labels, rows, columns)`):
            Logits of a map of any size that covers the labels' map exactly.
        labels (`torch.Tensor` of shape `(batch_size, height, width)`): Class indices, int64.
        ignore_index (`int`): Label of the pixels that do not count.

    Returns:
        `torch.Tensor`: a float32 scalar; 0, with gradients of 0, if no pixel counts.
    """
    counted = (labels != ignore_index).sum().clamp(min=1)
    keeps = torch.is_grad_enabled() and logits.requires_grad and not torch.compiler.is_compiling()
    if not keeps or logits.shape[0] == 1:
        return _sum_of_losses(logits, labels, ignore_index) / counted
    # Logits of all pixels, several times over, would be the most that a step has in memory: one image at a time.
    losses = [
        checkpoint(_sum_of_losses, *image, ignore_index, use_reentrant=False, preserve_rng_state=False)
        for image in zip(logits.split(1), labels.split(1), strict=True)
    ]
    return torch.stack(losses).sum() / counted


def _sum_of_losses(logits: torch.Tensor, labels: torch.Tensor, ignore_index: int) -> torch.Tensor:
    logits = logits.float()  # before they grow
    if logits.shape[-2:] != labels.shape[-2:]:
        logits = F.interpolate(logits, size=labels.shape[-2:], mode="bilinear", align_corners=False)
    # Not the mean of cross_entropy, which is 0 / 0 without a pixel, and whose sum on CUDA has no deterministic form.
    return F.cross_entropy(logits, labels, ignore_index=ignore_index, reduction="none").sum()


def upernet_head(head_class: type[nn.Module], config) -> nn.Module:
    """transformers' `UperNetHead` or `UperNetFCNHead` for the pyramid of `config`, trainable on one image at a time."""
    fields = SimpleNamespace(
        pool_scales=list(config.pool_scales),
        hidden_size=config.decoder_hidden_size,
        num_labels=config.num_labels,
        auxiliary_in_channels=None,
        auxiliary_channels=config.auxiliary_channels,
        auxiliary_num_convs=1,
        auxiliary_concat_input=False,
    )
    head = head_class(fields, in_channels=[config.hidden_size] * len(config.pyramid_layers))
    for module in head.modules():
        if isinstance(module, UperNetConvModule):
            module.batch_norm = BatchNorm(module.batch_norm.num_features)
    return head


class SemanticSegmentationMixin:
    """
    What both families' models share: decoder, forward pass and loss. A class sets up its encoder, and calls
    `make_decoder` and `post_init`.
    """

    # A forward pass that takes keyword arguments would else get from the Trainer a number of labels to divide by, among
    # which it counts the ignored pixels.
    accepts_loss_kwargs = False

    def make_decoder(self, config):
        """Adds `decode_head`, and with UperNet `pyramid` and, if `config` asks for it, `auxiliary_head`."""
        if config.num_labels < 2:
            raise ValueError(
                f"{type(self).__name__}: num_labels={config.num_labels} was given; segmentation tells at least 2 "
                "classes apart (for one class, make the background another)."
            )
        if config.patch_dropout:
            raise ValueError(
                f"{type(self).__name__}: patch_dropout={config.patch_dropout} was given; segmentation needs every "
                "patch, so it must be 0."
            )
        self.num_labels = config.num_labels
        self.pyramid = self.auxiliary_head = None
        if config.decoder_type == "none":
            self.decode_head = nn.Linear(config.hidden_size, config.num_labels)
            return
        self.pyramid = FeaturePyramid(config)
        self.decode_head = upernet_head(UperNetHead, config)
        if config.use_auxiliary_head:
            self.auxiliary_head = upernet_head(UperNetFCNHead, config)

    def post_init(self):
        super().post_init()
        if self.pyramid is not None:
            # Now, as backbones do, since a hook that the first forward pass adds would break a compiled graph.
            output_capturing.maybe_install_capturing_hooks(self)

    @torch.no_grad()
    def _init_weights(self, module: nn.Module):
        super()._init_weights(module)
        if module is self.decode_head and isinstance(module, nn.Linear):
            init.trunc_normal_(module.weight, std=self.config.initializer_range)
            init.zeros_(module.bias)

    @can_return_tuple
    def forward(
        self,
        pixel_values: torch.Tensor,
        labels: torch.Tensor | None = None,
        interpolate_pos_encoding: bool | None = None,
        patch_size: int | None = None,
        pixel_mask: torch.Tensor | None = None,
        **kwargs: Unpack[TransformersKwargs],
    ) -> PixelSegmenterOutput:
        """
        Args:
            pixel_values (`torch.Tensor` of shape `(batch_size, num_channels, height, width)`): Normalized images.
            labels (`torch.Tensor` of shape `(batch_size, height, width)`, *optional*):
                Class of each pixel in `[0, num_labels)`, or `config.semantic_loss_ignore_index` where it has none; with
                them the output has a loss. Their height and width may be others than the images'.
            interpolate_pos_encoding (`bool`, *optional*, defaults to `True`):
                Whether to take images of any size; see `PixelEmbeddings`.
            patch_size (`int`, *optional*):
                Side of the patches in pixels, the config's if not given; with UperNet one that needs no other layers of
                its pyramid.
            pixel_mask (`torch.Tensor` of shape `(batch_size, height, width)`, *optional*):
                1 where the image is and 0 where it is padded, at the bottom and on the right. Each image is then read
                without its padding: it has the logits that it has alone, in the top left corner of a map for all.

        Returns:
            [`PixelSegmenterOutput`]: `logits` of shape `(batch_size, num_labels, rows, columns)`, on the patch grid
            or, with UperNet, at the stride of the finest level; and `loss` if labels are given: cross-entropy averaged
            over the pixels that have a class, 0 if none has, plus the auxiliary head's with its weight.

            The logits cover exactly the image, also where its sides are no multiples of patch or stride. So
            `interpolate(logits, size=(height, width), mode="bilinear", align_corners=False)` gives those of its pixels;
            of a padded image those that `logits_mask` tells.

        Raises:
            ValueError: if the input's or the labels' shape does not fit the model, or a label is no class; for a padded
                batch also if hidden states or attentions are asked for.
        """
        if labels is not None:
            labels = self._checked_labels(labels, pixel_values.shape[0])
        groups = split_by_size(pixel_values, pixel_mask)
        if groups is not None:
            return self._forward_by_size(pixel_values, groups, labels, interpolate_pos_encoding, patch_size, **kwargs)
        return self._forward_of_one_size(pixel_values, labels, interpolate_pos_encoding, patch_size, **kwargs)

    def _forward_by_size(
        self,
        pixel_values: torch.Tensor,
        groups: list[tuple[torch.Tensor, torch.Tensor]],
        labels: torch.Tensor | None,
        *arguments,
        **kwargs,
    ) -> PixelSegmenterOutput:
        """The images of each size alone, and then together."""
        name, size = type(self).__name__, tuple(pixel_values.shape[-2:])
        if labels is not None and labels.shape[-2:] != size:
            raise ValueError(
                f"{name}: labels of {labels.shape[-2]} by {labels.shape[-1]} pixels were given for a padded batch of "
                f"{size[0]} by {size[1]}; pad them as the images."
            )
        logits, losses, counts = [], [], []
        for index, images in groups:
            own = None if labels is None else labels[index, : images.shape[-2], : images.shape[-1]]
            output = self._forward_of_one_size(images, own, *arguments, **kwargs)
            if output.hidden_states is not None or output.attentions is not None:
                raise ValueError(
                    f"{name}: hidden states or attentions were asked for of images that are padded; give images of one "
                    "size."
                )
            logits.append(output.logits)
            if own is not None:
                losses.append(output.loss)
                counts.append((own != self.config.semantic_loss_ignore_index).sum().to(output.loss.device))
        loss = None
        if losses:
            losses, counts = torch.stack(losses), torch.stack(counts)
            loss = (losses * counts).sum() / counts.sum().clamp(min=1)
        inside = join_maps([torch.ones_like(part[:, :1], dtype=torch.bool) for part in logits], groups)
        return PixelSegmenterOutput(loss=loss, logits=join_maps(logits, groups), logits_mask=inside[:, 0])

    def _forward_of_one_size(
        self,
        pixel_values: torch.Tensor,
        labels: torch.Tensor | None,
        interpolate_pos_encoding: bool | None,
        patch_size: int | None,
        **kwargs,
    ) -> PixelSegmenterOutput:
        if interpolate_pos_encoding is None:
            interpolate_pos_encoding = True
        wanted = kwargs.pop("output_hidden_states", None)
        wanted = self.config.output_hidden_states if wanted is None else wanted
        if not isinstance(wanted, bool):
            wanted = [wanted] if isinstance(wanted, int) else list(wanted)
        outputs = self.base_model(
            pixel_values,
            interpolate_pos_encoding=interpolate_pos_encoding,
            patch_size=patch_size,
            output_hidden_states=self._recorded_states(wanted),
            return_dict=True,
            **kwargs,
        )
        logits, auxiliary_logits = self._decode(pixel_values, patch_size, outputs, with_auxiliary=labels is not None)
        loss = None
        if labels is not None:
            labels = labels.to(logits.device)
            loss = semantic_loss(logits, labels, self.config.semantic_loss_ignore_index)
            if auxiliary_logits is not None:
                auxiliary_loss = semantic_loss(auxiliary_logits, labels, self.config.semantic_loss_ignore_index)
                loss = loss + self.config.auxiliary_loss_weight * auxiliary_loss
        return PixelSegmenterOutput(
            loss=loss,
            logits=logits,
            hidden_states=self._wanted_states(outputs.hidden_states, wanted),
            attentions=outputs.attentions,
        )

    def _recorded_states(self, wanted: bool | list[int]) -> bool | list[int]:
        """What the encoder is to record: what the caller wants, and the inner levels of the pyramid."""
        if self.pyramid is None or wanted is True:
            return wanted
        levels = [layer - 1 + FIRST_BLOCK for layer in self.config.pyramid_layers[:-1]]
        return [*levels, *wanted] if isinstance(wanted, list) else levels

    def _wanted_states(
        self, states: tuple[torch.Tensor | None, ...] | None, wanted: bool | list[int]
    ) -> tuple[torch.Tensor | None, ...] | None:
        """Of what the encoder has recorded, what the caller wants: of a list of indices nothing in the other places."""
        if not wanted or states is None:
            return None
        if not isinstance(wanted, list):
            return states
        kept = {index % len(states) for index in wanted}
        return tuple(state if index in kept else None for index, state in enumerate(states))

    def _decode(
        self,
        pixel_values: torch.Tensor,
        patch_size: int | None,
        outputs: BaseModelOutputWithPooling,
        with_auxiliary: bool,
    ) -> tuple[torch.Tensor, torch.Tensor | None]:
        """Logits for exactly the images, and those of the auxiliary head if there is one and they are asked for."""
        embeddings = self.base_model.embeddings
        patch_size = embeddings.resolve_patch_size(patch_size)
        image_size = pixel_values.shape[-2:]
        if self.pyramid is None:
            logits = self.decode_head(embeddings.patch_features(outputs.last_hidden_state)).transpose(1, 2)
            logits = logits.unflatten(2, embeddings.grid_of(pixel_values, patch_size)).contiguous()
            covered = [cells * patch_size for cells in logits.shape[-2:]]
            return crop_to_image(logits, covered, image_size), None

        # Counted from the end, because the first block's input may or may not be among them.
        states = [
            self.final_norm(outputs.hidden_states[layer - self.config.num_hidden_layers - 1])
            for layer in self.config.pyramid_layers[:-1]
        ]
        states.append(outputs.last_hidden_state)
        feature_maps = [embeddings.feature_map(state, pixel_values, patch_size) for state in states]
        strides = self.config.pyramid_strides_at(patch_size)
        feature_maps = self.pyramid(feature_maps, image_size, patch_size, strides)
        covered = extent_of(image_size, strides)
        logits = crop_to_image(self.decode_head(feature_maps), covered, image_size)
        if self.auxiliary_head is None or not with_auxiliary:
            return logits, None
        return logits, crop_to_image(self.auxiliary_head(feature_maps), covered, image_size)

    def _checked_labels(self, labels: torch.Tensor, batch_size: int) -> torch.Tensor:
        """The labels as int64, or a ValueError; their values are not looked at in a graph that is being traced."""
        name, classes, ignored = type(self).__name__, self.num_labels, self.config.semantic_loss_ignore_index
        if labels.dim() != 3 or labels.shape[0] != batch_size:
            raise ValueError(
                f"{name}: labels of shape {tuple(labels.shape)} were given with {batch_size} images; they must have "
                f"the shape ({batch_size}, height, width), one class for each pixel."
            )
        if labels.is_floating_point() or labels.is_complex() or labels.dtype == torch.bool:
            raise ValueError(f"{name}: labels of dtype {labels.dtype} were given; they must be class indices, int64.")
        if 0 <= ignored < classes:
            raise ValueError(
                f"{name}: semantic_loss_ignore_index={ignored} is also one of the {classes} classes; set it to a "
                "number that is no class, such as -100, or set num_labels to the classes of the data."
            )
        labels = labels.long()
        if not (torch.compiler.is_compiling() or labels.is_meta):
            wrong = ((labels < 0) | (labels >= classes)) & (labels != ignored)
            if wrong.any():
                raise ValueError(
                    f"{name}: labels hold {labels[wrong].unique()[:5].tolist()}; they must be from 0 to {classes - 1}, "
                    f"or {ignored} (semantic_loss_ignore_index) for pixels without a class."
                )
        return labels

    def _fit_pyramid(self):
        """A level whose patches are now halved another number of times gets new weights."""
        if self.pyramid is None:
            return
        old, new = self.pyramid, FeaturePyramid(self.config)
        new.apply(self._init_weights)
        weight = self.decode_head.classifier.weight
        new.to(device=weight.device, dtype=weight.dtype).train(self.training)
        for old_level, level, stride in zip(old.levels, new.levels, self.config.pyramid_strides, strict=True):
            if level.halvings == old_level.halvings > 0:
                level.resample = old_level.resample
            elif level.halvings > 0:
                logger.warning(
                    f"The level of stride {stride} of UperNet's pyramid has new weights for patch_size="
                    f"{self.config.patch_size}; train the model before using it."
                )
        self.pyramid = new


class AdventurerForSemanticSegmentation(SemanticSegmentationMixin, AdventurerPreTrainedModel):
    """Adventurer with a class for each pixel."""

    family_auto_map = {
        **AdventurerPreTrainedModel.family_auto_map,
        "AutoModelForSemanticSegmentation": "modeling_segmentation.AdventurerForSemanticSegmentation",
        "AutoModelForImageSegmentation": "modeling_segmentation.AdventurerForSemanticSegmentation",
    }
    _no_split_modules = [*AdventurerPreTrainedModel._no_split_modules, "UperNetHead", "UperNetFCNHead"]

    def __init__(self, config: AdventurerConfig):
        super().__init__(config)
        self.adventurer = AdventurerModel(config)
        self.make_decoder(config)
        self.post_init()


class PixelViTForSemanticSegmentation(SemanticSegmentationMixin, PixelViTPreTrainedModel):
    """PixelViT with a class for each pixel."""

    family_auto_map = {
        **PixelViTPreTrainedModel.family_auto_map,
        "AutoModelForSemanticSegmentation": "modeling_segmentation.PixelViTForSemanticSegmentation",
        "AutoModelForImageSegmentation": "modeling_segmentation.PixelViTForSemanticSegmentation",
    }
    _no_split_modules = [*PixelViTPreTrainedModel._no_split_modules, "UperNetHead", "UperNetFCNHead"]

    def __init__(self, config: PixelViTConfig):
        super().__init__(config)
        self.pixelvit = PixelViTModel(config)
        self.make_decoder(config)
        self.post_init()


# Saved checkpoints carry this file and what it imports.
AdventurerForSemanticSegmentation.register_for_auto_class("AutoModelForSemanticSegmentation")
PixelViTForSemanticSegmentation.register_for_auto_class("AutoModelForSemanticSegmentation")


__all__ = ["AdventurerForSemanticSegmentation", "PixelViTForSemanticSegmentation"]
