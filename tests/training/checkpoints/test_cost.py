# Copyright 2026 The modeling_pixelvit team. All rights reserved.
# SPDX-License-Identifier: Apache-2.0
"""Counted costs against PyTorch's own counter on models that run, and against what is known of the paper's models."""

import pytest
import torch
from helpers import tiny_config
from torch.utils.flop_counter import FlopCounterMode

from modeling_pixelvit import AdventurerConfig, PixelViTConfig
from training.checkpoints.cost import model_cost, readable_flops
from training.families.registry import model_classes


PREFIXES = {"adventurer": "Adventurer", "pixelvit": "PixelViT"}
# Such that every proposal and every detection that the configuration allows is made.
ALL_BOXES = {
    "pyramid_channels": 16,
    "rpn_num_convs": 1,
    "rpn_post_nms_top_n_test": 12,
    "rpn_nms_threshold": 1.0,
    "box_head_num_convs": 1,
    "box_head_hidden_size": 32,
    "box_score_threshold": 0.0,
    "box_nms_threshold": 1.0,
    "max_detections": 7,
    "mask_head_num_convs": 1,
    "mask_head_channels": 16,
}


def counted_flops(architecture, config, device="cpu"):
    with torch.device(device):
        # In float64, since float32 products may go to oneDNN, and with attention written out, since it may go to a
        # fused operator: what the counter sees of those differs between PyTorch's versions.
        model = model_classes()[architecture](config).eval().double()
        if config.model_type == "pixelvit":
            model.set_attn_implementation("eager")
        images = torch.zeros(1, 3, config.image_size, config.image_size, dtype=torch.float64)
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        model(images)
    return counter.get_total_flops()


@pytest.mark.parametrize("family", PREFIXES)
@pytest.mark.parametrize("image_size, patch_size", [(8, 2), (24, 1), (16, 16)])  # 16, 576 and 1 tokens; chunks of 64
@pytest.mark.parametrize("task", ["Model", "ForImageClassification", "ForSemanticSegmentation"])
def test_operations_are_those_of_a_forward_pass(family, image_size, patch_size, task):
    config = tiny_config(family, image_size=image_size, patch_size=patch_size)
    architecture = PREFIXES[family] + task
    assert model_cost(config, architecture).flops == counted_flops(architecture, config)


@pytest.mark.parametrize("family", PREFIXES)
@pytest.mark.parametrize("image_size, patch_size", [(8, 2), (16, 1)])  # 48 and 768 tokens
@pytest.mark.parametrize("task", ["Model", "ForImageClassification", "ForSemanticSegmentation"])
def test_operations_of_an_extended_sequence(family, image_size, patch_size, task):
    config = tiny_config(family, image_size=image_size, patch_size=patch_size, sequence_extension=3)
    architecture = PREFIXES[family] + task
    cost = model_cost(config, architecture)
    assert cost.flops == counted_flops(architecture, config)
    tokens = 3 * (image_size // patch_size) ** 2
    assert (cost.tokens, cost.position_parameters) == (tokens, (tokens + 1) * 32)


@pytest.mark.parametrize(
    "fields", [{"num_labels": 5}, {"n_groups": 2, "state_size": 4, "expand": 4}, {"chunk_size": 7}]
)
def test_operations_of_other_scans(fields):
    config = tiny_config("adventurer", **fields)
    name = "AdventurerForImageClassification"
    assert model_cost(config, name).flops == counted_flops(name, config)


def test_operations_of_a_sequence_that_is_worked_through_in_segments():
    config = tiny_config("adventurer", image_size=48, patch_size=1, num_hidden_layers=1)
    # Each segment has chunks of its own, a little shorter or longer than those of the whole.
    expected = counted_flops("AdventurerModel", config)
    assert model_cost(config, "AdventurerModel").flops == pytest.approx(expected, rel=0.005)


@pytest.mark.parametrize(
    "architecture, fields",
    [
        ("AdventurerForSemanticSegmentation", {"decoder": "upernet", "decoder_hidden_size": 8}),
        ("PixelViTForSemanticSegmentation", {"decoder": "upernet", "decoder_hidden_size": 8, "patch_size": 8}),
        ("PixelViTForObjectDetection", {**ALL_BOXES, "patch_size": 8}),
        ("AdventurerForObjectDetection", {**ALL_BOXES, "use_cascade": False, "use_masks": False}),
        ("AdventurerForObjectDetection", {**ALL_BOXES, "sequence_extension": 2}),
    ],
)
def test_operations_of_decoders_and_detection_heads(architecture, fields):
    family = "pixelvit" if architecture.startswith("PixelViT") else "adventurer"
    config = tiny_config(family, **{"image_size": 32, "patch_size": 4, **fields})
    assert model_cost(config, architecture).flops == counted_flops(architecture, config)


def test_parameters_are_those_of_the_model():
    for architecture, model_class in model_classes().items():
        config = tiny_config("pixelvit" if architecture.startswith("PixelViT") else "adventurer", **ALL_BOXES)
        model, cost = model_class(config), model_cost(config, architecture)
        assert cost.parameters == sum(parameter.numel() for parameter in model.parameters())
        assert (cost.tokens, cost.position_parameters) == (16, 17 * 32)


def test_the_papers_largest_models():
    sizes = {"patch_size": 1, "image_size": 224, "num_labels": 1000}
    vit = model_cost(PixelViTConfig.from_variant("base", **sizes), "PixelViTForImageClassification")
    assert vit.flops == pytest.approx(101e12, rel=0.01)
    assert vit.mixing_flops / vit.flops == pytest.approx(0.92, abs=0.005)
    # The compiled kernels' chunks of 256 tokens, with which 10.5 TFLOP were counted; ours are of 64.
    adventurer = AdventurerConfig.from_variant("base", **sizes, chunk_size=256)
    cost = model_cost(adventurer, "AdventurerForImageClassification")
    assert cost.flops == pytest.approx(10.5e12, rel=0.01)
    assert cost.mixing_flops / cost.flops == pytest.approx(0.07, abs=0.005)
    assert (cost.tokens, cost.parameters) == (50176, 136_454_728)


def test_the_full_size_vision_transformer_without_data():
    config = PixelViTConfig.from_variant("base", patch_size=1, image_size=224, num_labels=1000)
    name = "PixelViTForImageClassification"
    assert model_cost(config, name).flops == counted_flops(name, config, device="meta")


def test_both_families_cost_the_same_at_patch_8():
    def ratio(patch_size):
        sizes = {"patch_size": patch_size, "image_size": 224}
        adventurer, vit = (
            model_cost(config.from_variant("base", **sizes), name).flops
            for config, name in ((AdventurerConfig, "AdventurerModel"), (PixelViTConfig, "PixelViTModel"))
        )
        return adventurer / vit

    assert ratio(16) > 1.1 and ratio(8) == pytest.approx(1, abs=0.05) and ratio(4) < 0.8


def test_a_class_without_costs_is_refused():
    with pytest.raises(ValueError, match=r"PixelViTBackbone was given; costs are known of .*PixelViTForObjectDet"):
        model_cost(tiny_config("pixelvit"), "PixelViTBackbone")


@pytest.mark.parametrize(
    "flops, text",
    [
        (101_337_412_927_488, "101 TFLOP"),
        (10_090_405_490_688, "10.1 TFLOP"),
        (207_370_200_576, "207 GFLOP"),
        (1_500_000, "1.5 MFLOP"),
        (999, "999 FLOP"),
        (5_400_000_000_000_000, "5,400 TFLOP"),
    ],
)
def test_operations_in_words(flops, text):
    assert readable_flops(flops) == text
