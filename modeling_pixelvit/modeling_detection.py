# Copyright 2026 The modeling_pixelvit team. All rights reserved.
# SPDX-License-Identifier: Apache-2.0
"""
Object detection and instance segmentation over either encoder: ViTDet (arXiv 2203.16527), which is a simple feature
pyramid under a Cascade Mask R-CNN, or under a plain Mask R-CNN or Faster R-CNN if the config says so.
"""

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import nn
from torchvision.ops import box_convert
from transformers.processing_utils import Unpack
from transformers.utils import TransformersKwargs, logging
from transformers.utils.generic import ModelOutput, can_return_tuple

from .configuration_base import as_pair
from .layers_boxes import limits_of, rois_of_places, rows_of
from .layers_cascade import BoxStages
from .layers_detection_targets import prepare_targets
from .layers_mask_head import MaskHead
from .layers_padding import image_sizes_of
from .layers_region_proposals import RegionProposals
from .layers_simple_pyramid import SimpleFeaturePyramid
from .layers_weight_init import init_noted_weights
from .modeling_adventurer import AdventurerModel, AdventurerPreTrainedModel
from .modeling_pixelvit import PixelViTModel, PixelViTPreTrainedModel


logger = logging.get_logger(__name__)


@dataclass
class PixelDetectionOutput(ModelOutput):
    """
    Losses and detections; K is `config.max_detections`, and places without a detection hold zeros.

    Args:
        loss (`torch.Tensor` of shape `()`, *optional*): The sum of `loss_dict`, if labels are given.
        loss_dict (`dict[str, torch.Tensor]`, *optional*):
            `loss_objectness`, `loss_rpn_box`, `loss_classifier_stage1`, `loss_box_stage1` and so on for each stage, and
            `loss_mask` with masks; float32.
        scores (`torch.Tensor` of shape `(batch_size, K)`, *optional*):
            Probability, in [0, 1], of the class, falling; float32. None in training mode with labels, like the next
            three.
        pred_classes (`torch.Tensor` of shape `(batch_size, K)`, *optional*): Classes in `[0, num_labels)`, int64.
        pred_boxes (`torch.Tensor` of shape `(batch_size, K, 4)`, *optional*):
            Centre x, centre y, width, height in shares, from 0 to 1, of the image's own width and height; float32.
        pred_masks (`torch.Tensor` of shape `(batch_size, K, 28, 28)`, *optional*):
            Probability that a cell of the box belongs to the object, float32; None if the model has no masks.
        last_hidden_state (`torch.Tensor` of shape `(batch_size, num_patch_tokens + 1, hidden_size)`, *optional*):
            The encoder's tokens after the final norm.
        hidden_states (`tuple[torch.Tensor]`, *optional*): The encoder's, if asked for.
        attentions (`tuple[torch.Tensor]`, *optional*): PixelViT's, if asked for.
    """

    loss: torch.Tensor | None = None
    loss_dict: dict[str, torch.Tensor] | None = None
    scores: torch.Tensor | None = None
    pred_classes: torch.Tensor | None = None
    pred_boxes: torch.Tensor | None = None
    pred_masks: torch.Tensor | None = None
    last_hidden_state: torch.Tensor | None = None
    hidden_states: tuple[torch.Tensor, ...] | None = None
    attentions: tuple[torch.Tensor, ...] | None = None


@contextlib.contextmanager
def repeatable_draws(device: torch.device) -> Iterator[None]:
    """Inside, random numbers are the same every time; outside, the generators go on as if none had been drawn."""
    # Not by `torch.manual_seed`, which seeds all devices that there are.
    generators = [torch.default_generator, *([] if device.type == "cpu" else [default_generator_of(device)])]
    states = [generator.get_state() for generator in generators]
    try:
        for generator in generators:
            generator.manual_seed(0)
        yield
    finally:
        for generator, state in zip(generators, states, strict=True):
            generator.set_state(state)


def default_generator_of(device: torch.device) -> torch.Generator:
    """What draws the numbers on a device if no generator is given."""
    module = torch.get_device_module(device)
    if device.type == "mps":
        return module._get_default_mps_generator()
    module.init()
    return module.default_generators[module.current_device() if device.index is None else device.index]


class PixelDetectionMixin:
    """What the detectors of both families do; their base model is `self.base_model`."""

    accepts_loss_kwargs = False

    def _build_heads(self, config):
        if config.num_labels < 1:
            raise ValueError(
                f"{type(self).__name__}: num_labels={config.num_labels} was given; a detector needs at least 1 class, "
                "background not counted."
            )
        if config.patch_dropout:
            raise ValueError(
                f"{type(self).__name__}: patch_dropout={config.patch_dropout} was given; detection needs every patch, "
                "so it must be 0."
            )
        self.num_labels = config.num_labels
        self.pyramid = SimpleFeaturePyramid(config)
        self.proposals = RegionProposals(config)
        self.box_stages = BoxStages(config)
        self.mask_head = MaskHead(config) if config.use_masks else None

    @torch.no_grad()
    def _init_weights(self, module: nn.Module):
        super()._init_weights(module)
        init_noted_weights(module)

    def _fit_pyramid(self):
        """
        Weights that have no counterpart of the same shape begin anew. Between patch sizes that divide the finest stride
        (1, 2 and 4 with the default ones) none do.
        """
        if self.pyramid.patch_size != self.config.patch_size:
            self.pyramid = self.pyramid.resized(self.config)

    @can_return_tuple
    def forward(
        self,
        pixel_values: torch.Tensor,
        pixel_mask: torch.Tensor | None = None,
        labels: list[dict[str, torch.Tensor]] | None = None,
        patch_size: int | None = None,
        **kwargs: Unpack[TransformersKwargs],
    ) -> PixelDetectionOutput:
        """
        Args:
            pixel_values (`torch.Tensor` of shape `(batch_size, num_channels, height, width)`):
                Normalized images of any size, padded at the bottom and on the right to the batch's.
            pixel_mask (`torch.Tensor` of shape `(batch_size, height, width)`, *optional*):
                1 where the image is, 0 where it is padded; no padding if not given.
            labels (list of `dict[str, torch.Tensor]`, *optional*):
                For each image `class_labels` (n,) in `[0, num_labels)`, `boxes` (n, 4) as centre x, centre y, width,
                height in shares of the image's own width and height, `masks` (n, height, width) of the batch's or the
                image's own size if the model has masks, and optionally `iscrowd` (n,). Regions that are a crowd are no
                objects, and what lies for the most part in one is no background either.
            patch_size (`int`, *optional*):
                Side of the patches in pixels, the config's if not given; one that needs no other layers of the pyramid.

        Unlike that of other tasks the padding takes part: as ViTDet's, the encoder sees a square frame of `image_size`,
        which the image processor makes of any batch. Other frames are taken, with a warning.

        Returns:
            [`PixelDetectionOutput`]: with labels the losses; in evaluation mode or without labels the detections. The
            losses sample anchors and proposals: in training mode by the global random generator, in evaluation mode
            the same ones every time.

        Raises:
            ValueError: if mask or labels do not fit the images, naming the image.
        """
        size = tuple(pixel_values.shape[-2:])
        frame = as_pair(self.config.image_size)
        if size != frame and not torch.compiler.is_compiling():
            logger.warning_once(
                f"{type(self).__name__} was made for images padded to {frame[0]} by {frame[1]} pixels and got "
                f"{size[0]} by {size[1]}; padding is part of what it knows, so give what its image processor makes, or "
                "set config.image_size if this is meant."
            )
        if labels is not None or not torch.compiler.is_compiling():  # a graph cannot depend on what the mask holds
            image_sizes = image_sizes_of(pixel_values, pixel_mask)
        limits = limits_of(pixel_values, pixel_mask)
        targets = None
        if labels is not None:
            with_masks = self.mask_head is not None
            targets = prepare_targets(labels, image_sizes, size, self.num_labels, with_masks, pixel_values.device)
        outputs = self.base_model(
            pixel_values, interpolate_pos_encoding=True, patch_size=patch_size, return_dict=True, **kwargs
        )
        embeddings = self.base_model.embeddings
        features = embeddings.feature_map(outputs.last_hidden_state, pixel_values, patch_size)
        pyramid = self.pyramid(features, size, embeddings.resolve_patch_size(patch_size))
        samples_again = targets is not None and not self.training
        with repeatable_draws(pixel_values.device) if samples_again else contextlib.nullcontext():
            losses, detections = self._run_heads(pyramid, limits, targets)
        return PixelDetectionOutput(
            loss=sum(losses.values()) if losses else None,
            loss_dict=losses or None,
            **detections,
            last_hidden_state=outputs.last_hidden_state,
            hidden_states=outputs.hidden_states,
            attentions=outputs.attentions,
        )

    def _run_heads(
        self,
        pyramid: list[torch.Tensor],
        limits: torch.Tensor,
        targets: list[dict[str, torch.Tensor]] | None,
    ) -> tuple[dict[str, torch.Tensor], dict[str, torch.Tensor | None]]:
        """Losses and detections as the output names them; one of the two may be empty."""
        dtype = pyramid[0].dtype
        boxes, holds_box, losses = self.proposals(pyramid, limits, targets)
        pyramid = [level.float() for level in pyramid]  # boxes are pooled in float32
        if targets is not None:
            proposals = [boxes_of_image[held] for boxes_of_image, held in zip(boxes, holds_box, strict=True)]
            samples = self.box_stages.sample(proposals, targets)
            losses.update(self.box_stages.losses(pyramid, samples, targets, limits, dtype))
            if self.mask_head is not None:
                losses["loss_mask"] = self.mask_head.loss(pyramid, samples, targets, dtype)
            if self.training:
                return losses, {}
        boxes, scores, classes = self.box_stages.detect(pyramid, boxes, holds_box, limits, dtype)
        found = scores > 0
        masks = None
        if self.mask_head is not None:
            (masks,) = rows_of(
                found.flatten(),
                lambda rois, labels: (self.mask_head(pyramid, rois, labels, dtype).sigmoid(),),
                rois_of_places(boxes),
                classes.flatten() + 1,
            )
            masks = masks.unflatten(0, found.shape) * found[..., None, None]
        shares = box_convert(boxes / limits.unsqueeze(1), "xyxy", "cxcywh")
        return losses, {
            "scores": scores,
            "pred_classes": classes * found,
            "pred_boxes": shares * found[..., None],
            "pred_masks": masks,
        }


class PixelViTForObjectDetection(PixelDetectionMixin, PixelViTPreTrainedModel):
    """The vision transformer under a Cascade Mask R-CNN."""

    family_auto_map = {
        **PixelViTPreTrainedModel.family_auto_map,
        "AutoModelForObjectDetection": "modeling_detection.PixelViTForObjectDetection",
        "AutoModelForInstanceSegmentation": "modeling_detection.PixelViTForObjectDetection",
        "AutoModelForImageSegmentation": "modeling_detection.PixelViTForObjectDetection",
    }

    def __init__(self, config):
        super().__init__(config)
        self.pixelvit = PixelViTModel(config)
        self._build_heads(config)
        self.post_init()


class AdventurerForObjectDetection(PixelDetectionMixin, AdventurerPreTrainedModel):
    """The Mamba-2 encoder under a Cascade Mask R-CNN."""

    family_auto_map = {
        **AdventurerPreTrainedModel.family_auto_map,
        "AutoModelForObjectDetection": "modeling_detection.AdventurerForObjectDetection",
        "AutoModelForInstanceSegmentation": "modeling_detection.AdventurerForObjectDetection",
        "AutoModelForImageSegmentation": "modeling_detection.AdventurerForObjectDetection",
    }

    def __init__(self, config):
        super().__init__(config)
        self.adventurer = AdventurerModel(config)
        self._build_heads(config)
        self.post_init()


# Saved checkpoints carry this file and what it imports.
PixelViTForObjectDetection.register_for_auto_class("AutoModelForObjectDetection")
AdventurerForObjectDetection.register_for_auto_class("AutoModelForObjectDetection")


__all__ = ["AdventurerForObjectDetection", "PixelDetectionOutput", "PixelViTForObjectDetection"]
