# Copyright 2026 The modeling_pixelvit team. All rights reserved.
# SPDX-License-Identifier: Apache-2.0
"""What everything here needs to know of a model family."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from transformers import PreTrainedConfig, PreTrainedModel


@dataclass(frozen=True)
class Architecture:
    """
    A kind of model that every family may have a class of.

    Args:
        does: What it does, in a word, as cards, the page and the image processors call it.
        hub_task: The same by the hub's id, which is that of a pipeline.
        auto_class: Of transformers, which loads it.
    """

    does: str
    hub_task: str
    auto_class: str


BASE_MODEL = Architecture("features", "image-feature-extraction", "AutoModel")
CLASSIFIER = Architecture("classification", "image-classification", "AutoModelForImageClassification")
SEGMENTER = Architecture("segmentation", "image-segmentation", "AutoModelForSemanticSegmentation")
# With masks too: the hub's widget of this task draws boxes, that of image-segmentation masks alone.
DETECTOR = Architecture("detection", "object-detection", "AutoModelForObjectDetection")
# All of them, by what they do; those with a head first.
ARCHITECTURES = {one.does: one for one in (CLASSIFIER, SEGMENTER, DETECTOR, BASE_MODEL)}


MULTI_LABEL = "multi_label_classification"  # what transformers calls it


def is_multi_label(config: PreTrainedConfig) -> bool:
    """Whether an image may be of several of a classifier's classes, or of none."""
    return config.problem_type == MULTI_LABEL


@dataclass(frozen=True)
class Family:
    """
    A model family.

    Args:
        config_class: Its `model_type` is the family's name.
        model_classes: By what they are for; tasks choose by it.
        title: How its models are called.
        paper_title: How the paper calls them.
        description: What it is, for a model card, in Markdown.
        tags: Of its checkpoints on the hub.
        citation: BibTeX, beside that of the paper.
        size_fields: Fields of the configuration that make a model one of the paper's sizes.
        token_mixer: Name of the module in a block that mixes tokens.
        class_token_place: "first" or "last" in the sequence.
        mixing: What `encoder_flops` counts as mixing tokens, from a configuration.
        growth: How time and memory grow with the tokens: "in proportion to" or "with the square of".
        cost_of_half_the_patch: A sentence on that.
        encoder_flops: Operations of patch embedding and blocks for an image of so many patches, and those of them in
            which tokens meet each other.
        token_map: From a model and normalized images of one size (B, channels, height, width) to a number for each
            patch (B, rows, columns) that shows what its last block does.
        token_map_title: What that is.
        relative_work: Of one training image of so many tokens at the sweep's width, in any unit that families share.
        colours: Of its line in pictures, and of its second line.
        markers: On these.
    """

    config_class: type[PreTrainedConfig]
    model_classes: dict[Architecture, type[PreTrainedModel]]
    title: str
    paper_title: str
    description: str
    tags: tuple[str, ...]
    citation: str
    size_fields: tuple[str, ...]
    token_mixer: str
    class_token_place: str
    mixing: Callable[[Any], str]
    growth: str
    cost_of_half_the_patch: str
    encoder_flops: Callable[[Any, int], tuple[int, int]]
    token_map: Callable[[Any, Any], Any]
    token_map_title: str
    relative_work: Callable[[int], float]
    colours: tuple[str, str]
    markers: tuple[str, str]

    @property
    def name(self) -> str:
        return self.config_class.model_type
