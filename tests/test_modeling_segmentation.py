# Copyright 2026 The modeling_pixelvit team. All rights reserved.
# SPDX-License-Identifier: Apache-2.0
"""Semantic segmentation over both families: definition, loss, changing patches, and what transformers' users expect."""

import copy

import pytest
import torch
from helpers import (
    check_compiled_training,
    check_gradient_checkpointing,
    relative_difference,
    tiny_config,
    tiny_model,
)
from torch import nn
from torch.nn import functional as F
from transformers import UperNetConfig, UperNetForSemanticSegmentation

from modeling_pixelvit import (
    AdventurerBackbone,
    AdventurerConfig,
    AdventurerForImageClassification,
    PixelViTBackbone,
    PixelViTForImageClassification,
)
from modeling_pixelvit.layers_pyramid import FeaturePyramid
from modeling_pixelvit.modeling_segmentation import (
    AdventurerForSemanticSegmentation,
    PixelViTForSemanticSegmentation,
    semantic_loss,
)


SEGMENTERS = [AdventurerForSemanticSegmentation, PixelViTForSemanticSegmentation]
BACKBONES = {"adventurer": AdventurerBackbone, "pixelvit": PixelViTBackbone}
CLASSIFIERS = {"adventurer": AdventurerForImageClassification, "pixelvit": PixelViTForImageClassification}
DECODERS = {
    "none": {"decoder_type": "none"},
    "upernet": {
        "decoder_type": "upernet",
        "decoder_hidden_size": 8,
        "use_auxiliary_head": True,
        "auxiliary_channels": 8,
    },
}

of_both_families = pytest.mark.parametrize("model_class", SEGMENTERS)
with_both_decoders = pytest.mark.parametrize("decoder", DECODERS)
# A decoder is the same over either family, whose own graphs are those of its classifier.
in_a_graph = pytest.mark.parametrize(("model_class", "decoder"), list(zip(SEGMENTERS, DECODERS, strict=True)))


def segmenter(model_class, decoder: str, **fields):
    return tiny_model(model_class, **DECODERS[decoder], **fields)


def random_labels(*shape: int) -> torch.Tensor:
    """Labels of 5 classes, a quarter of the pixels without one."""
    generator = torch.Generator().manual_seed(1)
    labels = torch.randint(0, 5, shape, generator=generator)
    return torch.where(torch.rand(shape, generator=generator) < 0.25, 255, labels)


def loss_by_hand(logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    upsampled = F.interpolate(logits, size=labels.shape[-2:], mode="bilinear", align_corners=False)
    return F.cross_entropy(upsampled, labels, ignore_index=255)


# Definition


def test_parameter_names_are_anchored():
    """A rename would break every published checkpoint."""
    config = tiny_config("adventurer", patch_size=8, image_size=32, **DECODERS["none"])
    model = AdventurerForSemanticSegmentation(config)
    names = set(model.state_dict())
    assert names - {f"adventurer.{name}" for name in model.adventurer.state_dict()} == {
        "decode_head.weight",
        "decode_head.bias",
    }
    assert model.decode_head.weight.shape == (5, 32)

    model = PixelViTForSemanticSegmentation(
        tiny_config("pixelvit", patch_size=16, image_size=32, **DECODERS["upernet"])
    )
    names = set(model.state_dict()) - {f"pixelvit.{name}" for name in model.pixelvit.state_dict()}
    assert {name.split(".")[0] for name in names} == {"pyramid", "decode_head", "auxiliary_head"}
    assert {name for name in names if "pyramid" in name and "batches" not in name} == {
        *(f"pyramid.levels.0.resample.{index}.{kind}" for index in (0, 1, 3) for kind in ("weight", "bias")),
        *(f"pyramid.levels.0.resample.1.running_{kind}" for kind in ("mean", "var")),
        *(f"pyramid.levels.1.resample.0.{kind}" for kind in ("weight", "bias")),
    }
    # As transformers' own UperNet calls the rest.
    config = UperNetConfig(backbone_config=tiny_config("pixelvit", out_indices=[1, 2, 3, 4]), auxiliary_in_channels=32)
    theirs = {name for name in UperNetForSemanticSegmentation(config).state_dict() if not name.startswith("backbone.")}
    assert {name for name in names if not name.startswith("pyramid.")} == theirs


@pytest.mark.parametrize(
    ("size", "decoder", "millions"),
    [("base", "none", 99), ("base", "upernet", 112), ("tiny", "none", 12), ("tiny", "upernet", 17)],
)
def test_parameter_counts_of_table_2(size, decoder, millions):
    config = AdventurerConfig.from_variant(size, image_size=512, patch_size=16, num_labels=150, decoder_type=decoder)
    with torch.device("meta"):
        model = AdventurerForSemanticSegmentation(config)
    assert round(model.num_parameters() / 1e6) == millions


@of_both_families
@pytest.mark.parametrize("patch_size", [1, 2, 4])
def test_decoder_none_is_one_linear_map_of_each_token(model_class, patch_size):
    model = segmenter(model_class, "none", patch_size=patch_size, image_size=4 * patch_size)
    pixels = torch.randn(2, 3, 3 * patch_size, 5 * patch_size)
    logits = model(pixels).logits
    assert logits.shape == (2, 5, 3, 5) and logits.is_contiguous()
    tokens = model.base_model(pixels, interpolate_pos_encoding=True).last_hidden_state
    first = 0 if model_class is AdventurerForSemanticSegmentation else 1  # the class token is last, or first
    for row, column in ((0, 0), (1, 3), (2, 4)):
        token = tokens[:, first + 5 * row + column]
        expected = token @ model.decode_head.weight.t() + model.decode_head.bias
        torch.testing.assert_close(logits[:, :, row, column], expected, rtol=1e-4, atol=1e-5)


@of_both_families
@pytest.mark.parametrize("decoder_layers", [None, [2, 3, 4], [4]])
def test_upernet_stands_on_the_normed_outputs_of_its_blocks(model_class, decoder_layers):
    fields = {"use_auxiliary_head": decoder_layers is None, "decoder_layers": decoder_layers}
    model = tiny_model(model_class, patch_size=8, image_size=32, **{**DECODERS["upernet"], **fields})
    pixels = torch.randn(2, 3, 32, 64)
    family, stages = model.base_model_prefix, decoder_layers or [1, 2, 3, 4]
    backbone = BACKBONES[family](tiny_config(family, patch_size=8, image_size=32, out_indices=stages))
    backbone.base_model.load_state_dict(model.base_model.state_dict())
    maps = model.pyramid(backbone.eval()(pixels).feature_maps, (32, 64), 8, model.config.pyramid_strides)
    torch.testing.assert_close(model(pixels).logits, model.decode_head(maps), rtol=1e-4, atol=1e-5)
    assert model(pixels).logits.shape == (2, 5, 8, 16)


@of_both_families
@with_both_decoders
@pytest.mark.parametrize("patch_size", [1, 2, 4, 8, 16, 32])
@pytest.mark.parametrize("size", [(32, 32), (33, 19), (2, 40), (1, 1)])
def test_any_patch_size_and_image_size(model_class, decoder, patch_size, size):
    model = segmenter(model_class, decoder, hidden_size=16, patch_size=patch_size, image_size=32).train()
    output = model(torch.randn(1, 3, *size), labels=torch.randint(0, 5, (1, *size)))
    stride = patch_size if decoder == "none" else min(4, patch_size)
    assert output.logits.shape == (1, 5, *(-(-side // stride) for side in size))
    output.loss.backward()
    assert output.loss.isfinite()
    assert all(parameter.grad.isfinite().all() for parameter in model.parameters())


@of_both_families
@with_both_decoders
def test_logits_cover_exactly_the_image(model_class, decoder):
    """An image that no patch ends with has the logits of its padded self, resampled to end where the image ends."""
    model = segmenter(model_class, decoder, patch_size=8, image_size=32)
    pixels = torch.randn(1, 3, 27, 46)
    padded = F.pad(pixels, (0, 2, 0, 5))
    stride = 8 if decoder == "none" else 4
    expected = model(padded).logits
    if decoder == "upernet":  # the levels of both cover 32 by 64 pixels
        expected = expected[:, :, :7, :12]
    rows, columns = (
        (torch.arange(count) + 0.5) * side / count / (stride * count) * 2 - 1
        for count, side in zip(expected.shape[-2:], (27, 46), strict=True)
    )
    places = torch.stack(torch.meshgrid(rows, columns, indexing="ij")[::-1], dim=-1)[None]
    expected = F.grid_sample(expected, places, padding_mode="border", align_corners=False)
    torch.testing.assert_close(model(pixels).logits, expected, rtol=1e-4, atol=1e-5)


@of_both_families
@with_both_decoders
def test_images_of_a_batch_do_not_see_each_other(model_class, decoder):
    model = segmenter(model_class, decoder)
    pixels = torch.randn(3, 3, 8, 6)
    for index, logits in enumerate(model(pixels).logits):
        torch.testing.assert_close(model(pixels[index : index + 1]).logits[0], logits, rtol=1e-4, atol=1e-5)


@of_both_families
def test_initial_weights(model_class):
    torch.manual_seed(0)
    config = tiny_config(model_class.base_model_prefix, num_labels=200, hidden_size=64, **DECODERS["none"])
    model = model_class(config)
    assert model.decode_head.weight.std().item() == pytest.approx(0.02, rel=0.1)
    assert (model.decode_head.bias == 0).all()
    config = tiny_config(model_class.base_model_prefix, patch_size=16, image_size=32, **DECODERS["upernet"])
    model = model_class(config)
    heads = [model.pyramid, model.decode_head, model.auxiliary_head]
    for module in (module for head in heads for module in head.modules()):
        if isinstance(module, (nn.Conv2d, nn.ConvTranspose2d)):
            assert module.weight.std().item() == pytest.approx(0.02, rel=0.3)
            assert module.bias is None or (module.bias == 0).all()


@of_both_families
@with_both_decoders
def test_every_tensor_is_initialized_by_init_weights(model_class, decoder):
    """What a checkpoint lacks, `_init_weights` fills in: nothing may be left to constructors."""
    model = segmenter(model_class, decoder, patch_size=16, image_size=32)
    with torch.no_grad():
        for tensor in model.state_dict().values():
            tensor.fill_(1234)
    model.apply(model._init_weights)
    for name, tensor in model.state_dict().items():
        assert (tensor != 1234).all(), name
        if name.endswith(("running_var", "batch_norm.weight")):
            assert (tensor == 1).all(), name


# Loss


@pytest.mark.parametrize(("grid", "size"), [((4, 4), (8, 8)), ((3, 5), (7, 16)), ((6, 6), (6, 6)), ((8, 8), (5, 3))])
def test_loss_and_gradient_are_cross_entropys(grid, size):
    logits = torch.randn(2, 5, *grid, requires_grad=True)
    labels = random_labels(2, *size)
    expected = loss_by_hand(logits, labels)
    actual = semantic_loss(logits, labels, 255)
    torch.testing.assert_close(actual, expected)
    torch.testing.assert_close(
        torch.autograd.grad(actual, logits)[0], torch.autograd.grad(expected, logits)[0], rtol=1e-4, atol=1e-7
    )


def test_the_loss_keeps_the_pixels_of_no_image():
    """Of a batch autograd keeps the logits on the grid; those of one image alone are at no other cost of memory."""

    def kept(images):
        sizes = []
        with torch.autograd.graph.saved_tensors_hooks(lambda one: sizes.append(one.numel()) or one, lambda one: one):
            semantic_loss(torch.randn(images, 5, 4, 4, requires_grad=True), random_labels(images, 64, 64), 255)
        return sizes

    assert max(kept(1)) == 5 * 64 * 64
    assert max(kept(3)) < 5 * 64 * 64


@of_both_families
@with_both_decoders
@pytest.mark.parametrize("size", [(8, 8), (7, 11)])
def test_loss_of_the_model(model_class, decoder, size):
    model = segmenter(model_class, decoder)
    model.auxiliary_head = None
    pixels, labels = torch.randn(2, 3, *size), random_labels(2, *size)
    output = model(pixels, labels=labels)
    torch.testing.assert_close(output.loss, loss_by_hand(output.logits, labels))


@of_both_families
def test_auxiliary_loss_comes_with_its_weight(model_class):
    model = segmenter(model_class, "upernet", auxiliary_loss_weight=0.7)
    seen = []
    model.auxiliary_head.register_forward_hook(lambda module, arguments, logits: seen.append(logits))
    pixels, labels = torch.randn(2, 3, 16, 32), random_labels(2, 16, 32)
    model(pixels)
    assert not seen  # nobody asked for a loss
    output = model(pixels, labels=labels)
    assert seen[0].shape == (2, 5, 2, 4)  # the third level, of stride 8
    torch.testing.assert_close(output.loss, loss_by_hand(output.logits, labels) + 0.7 * loss_by_hand(seen[0], labels))


@of_both_families
@with_both_decoders
def test_labels_of_another_size_and_dtype(model_class, decoder):
    model = segmenter(model_class, decoder)
    pixels, labels = torch.randn(2, 3, 8, 8), random_labels(2, 20, 10)
    expected = model(pixels, labels=labels).loss
    torch.testing.assert_close(model(pixels, labels=labels.to(torch.uint8)).loss, expected, rtol=0, atol=0)
    torch.testing.assert_close(model(pixels, labels=labels.int()).loss, expected, rtol=0, atol=0)


@of_both_families
@with_both_decoders
def test_a_batch_without_a_labelled_pixel_has_no_loss(model_class, decoder):
    model = segmenter(model_class, decoder)
    output = model(torch.randn(2, 3, 8, 8), labels=torch.full((2, 8, 8), 255))
    output.loss.backward()
    assert output.loss == 0
    assert all((parameter.grad == 0).all() for parameter in model.parameters())


@of_both_families
def test_wrong_labels_are_refused(model_class):
    model = segmenter(model_class, "none")
    pixels, labels = torch.randn(2, 3, 8, 8), torch.zeros(2, 8, 8, dtype=torch.int64)
    for shape in ((2, 1, 8, 8), (1, 8, 8), (2, 8)):
        with pytest.raises(ValueError, match=r"labels of shape .* must have the shape \(2, height, width\)"):
            model(pixels, labels=torch.zeros(shape, dtype=torch.int64))
    for wrong in (5, -1, -100, 254):
        labels[1, 2, 3] = wrong
        with pytest.raises(ValueError, match=rf"labels hold \[{wrong}\]; they must be from 0 to 4, or 255"):
            model(pixels, labels=labels)
    for dtype in (torch.float32, torch.bool):
        with pytest.raises(ValueError, match="must be class indices, int64"):
            model(pixels, labels=torch.zeros(2, 8, 8, dtype=dtype))
    labels[1, 2, 3] = 0
    model.config.semantic_loss_ignore_index = 4
    with pytest.raises(ValueError, match="semantic_loss_ignore_index=4 is also one of the 5 classes"):
        model(pixels, labels=labels)
    model.config.semantic_loss_ignore_index = -100
    labels[0] = -100
    assert model(pixels, labels=labels).loss.isfinite()


@of_both_families
def test_one_class_is_refused(model_class):
    with pytest.raises(ValueError, match="num_labels=1 was given; segmentation tells at least 2 classes apart"):
        model_class(tiny_config(model_class.base_model_prefix, num_labels=1))


@pytest.mark.parametrize("family", BACKBONES)
def test_a_pyramid_that_leaves_blocks_out_is_refused(family):
    with pytest.raises(ValueError, match="must end with the last block, 4"):
        tiny_config(family, decoder_layers=[1, 3])


# Training


@of_both_families
@pytest.mark.parametrize("size", [(8, 8), (32, 32)])
def test_upernet_trains_on_one_image_at_a_time(model_class, size):
    """Its coarsest pooled branch, and at 8 pixels its coarsest level, then have one value per channel."""
    model = segmenter(model_class, "upernet", patch_size=4).train()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    for _ in range(2):
        loss = model(torch.randn(1, 3, *size), labels=random_labels(1, *size)).loss
        loss.backward()
        optimizer.step()
        assert loss.isfinite()


@of_both_families
@with_both_decoders
def test_two_images_are_learned(model_class, decoder):
    torch.manual_seed(0)
    fields = {**DECODERS[decoder], "decoder_hidden_size": 16}
    model = model_class(tiny_config(model_class.base_model_prefix, image_size=16, num_labels=3, **fields)).train()
    labels = torch.zeros(2, 16, 16, dtype=torch.int64)
    labels[0, 2:8, 3:12], labels[0, 9:14, 6:15], labels[1, 4:12, 1:7], labels[1, 3:14, 10:13] = 1, 2, 2, 1
    pixels = torch.randn(2, 3, 16, 16) + 2 * F.one_hot(labels, 3).permute(0, 3, 1, 2)
    labels[:, 0] = 255
    optimizer = torch.optim.AdamW(model.parameters(), lr=5e-3)
    for _ in range(80):
        optimizer.zero_grad()
        model(pixels, labels=labels).loss.backward()
        optimizer.step()
    with torch.no_grad():
        logits = model(pixels).logits
    predicted = F.interpolate(logits, size=(16, 16), mode="bilinear", align_corners=False).argmax(1)
    counted = labels != 255
    overlaps = [
        ((predicted == label) & (labels == label)).sum() / (((predicted == label) & counted) | (labels == label)).sum()
        for label in range(3)
    ]
    assert sum(overlaps) / 3 > 0.95, overlaps


@of_both_families
@with_both_decoders
@pytest.mark.parametrize("use_reentrant", [True, False])
def test_gradient_checkpointing_changes_nothing(model_class, decoder, use_reentrant):
    pixels, labels = torch.randn(2, 3, 8, 8), random_labels(2, 8, 8)
    check_gradient_checkpointing(segmenter(model_class, decoder), pixels, labels, use_reentrant=use_reentrant)


# What transformers' users expect


@of_both_families
@with_both_decoders
def test_outputs(model_class, decoder):
    model = segmenter(model_class, decoder, attn_implementation="eager")
    pixels, labels = torch.randn(2, 3, 8, 8), random_labels(2, 8, 8)
    output = model(pixels)
    assert set(output) == {"logits"}
    full = model(pixels, labels=labels, output_hidden_states=True)
    torch.testing.assert_close(full.logits, output.logits)
    expected = model.base_model(pixels, output_hidden_states=True)
    torch.testing.assert_close(full.hidden_states, expected.hidden_states)
    as_tuple = model(pixels, labels=labels, return_dict=False)
    assert isinstance(as_tuple, tuple) and len(as_tuple) == 2
    torch.testing.assert_close(as_tuple[0], full.loss)
    torch.testing.assert_close(as_tuple[1], output.logits)
    if model_class is PixelViTForSemanticSegmentation:
        assert len(model(pixels, output_attentions=True).attentions) == 4
    model.config.output_hidden_states = True
    assert len(model(pixels).hidden_states) == 5
    assert model_class.accepts_loss_kwargs is False and model_class.main_input_name == "pixel_values"


@of_both_families
@with_both_decoders
def test_hidden_states_by_number(model_class, decoder):
    """One number selects a state as a list of it does, whatever states the decoder itself needs."""
    model, pixels = segmenter(model_class, decoder), torch.randn(1, 3, 8, 8)
    for one, several in ((0, [0]), (3, [3]), ((1, 3), [1, 3])):
        found, expected = (model(pixels, output_hidden_states=wanted).hidden_states for wanted in (one, several))
        assert [state is not None for state in found] == [state is not None for state in expected]
        assert sum(state is not None for state in found) == len(several)
    assert model(pixels, output_hidden_states=[]).hidden_states is None


@of_both_families
def test_upernet_keeps_no_more_states_than_its_levels_need(model_class):
    fields = {**DECODERS["upernet"], "use_auxiliary_head": False, "decoder_layers": [2, 4]}
    model = tiny_model(model_class, **fields)
    seen = []
    model.base_model.register_forward_hook(lambda module, arguments, output: seen.append(output.hidden_states))
    model(torch.randn(1, 3, 8, 8))
    assert sum(state is not None for state in seen[0]) == 1


@of_both_families
def test_the_mask_that_an_image_processor_adds_is_taken(model_class):
    model, pixels = segmenter(model_class, "none"), torch.randn(1, 3, 8, 8)
    output = model(pixels, pixel_mask=torch.ones(1, 8, 8, dtype=torch.int64))
    torch.testing.assert_close(output.logits, model(pixels).logits, rtol=0, atol=0)


@of_both_families
def test_size_is_checked_if_asked_for(model_class):
    model = segmenter(model_class, "none")
    with pytest.raises(ValueError, match="16 by 8 pixels"):
        model(torch.randn(1, 3, 16, 8), interpolate_pos_encoding=False)


@of_both_families
@with_both_decoders
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision(model_class, decoder, dtype):
    model = segmenter(model_class, decoder, patch_size=8, image_size=32)
    pixels, labels = torch.randn(2, 3, 27, 40), random_labels(2, 27, 40)
    expected = model(pixels).logits.detach()
    half = copy.deepcopy(model).to(dtype)
    output = half(pixels.to(dtype), labels=labels)
    output.loss.backward()
    assert output.logits.dtype == dtype and output.loss.dtype == torch.float32
    assert relative_difference(output.logits.detach().float(), expected) < 16 * torch.finfo(dtype).eps
    assert all(parameter.grad.isfinite().all() for parameter in half.parameters())


@of_both_families
@with_both_decoders
def test_autocast(model_class, decoder):
    model = segmenter(model_class, decoder).train()
    pixels, labels = torch.randn(2, 3, 7, 8), random_labels(2, 7, 8)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        output = model(pixels, labels=labels)
    output.loss.backward()
    assert output.loss.dtype == torch.float32
    assert all(parameter.grad.isfinite().all() for parameter in model.parameters())


@in_a_graph
def test_compiles_to_one_graph(model_class, decoder):
    model = segmenter(model_class, decoder, num_hidden_layers=2)
    check_compiled_training(model, torch.randn(2, 2, 3, 8, 8), random_labels(2, 8, 8))


@in_a_graph
def test_exports(model_class, decoder):
    model, pixels = segmenter(model_class, decoder), torch.randn(2, 3, 8, 8)
    with torch.no_grad():
        program = torch.export.export(model, (pixels,), strict=False)
        torch.testing.assert_close(program.module()(pixels)["logits"], model(pixels).logits, rtol=1e-5, atol=1e-5)


# Saving, loading, and changing the patches


@of_both_families
@with_both_decoders
def test_save_and_load(model_class, decoder, tmp_path):
    model = segmenter(model_class, decoder, patch_size=8, image_size=32)
    model.save_pretrained(tmp_path)
    loaded, report = model_class.from_pretrained(tmp_path, output_loading_info=True)
    assert not report["missing_keys"] and not report["unexpected_keys"]
    torch.testing.assert_close(loaded.state_dict(), model.state_dict(), rtol=0, atol=0)
    pixels = torch.randn(1, 3, 20, 32)
    torch.testing.assert_close(loaded(pixels).logits, model(pixels).logits)


@of_both_families
@with_both_decoders
def test_a_classifier_becomes_a_segmenter(model_class, decoder, tmp_path):
    """Encoder weights come from the checkpoint, heads are new, whatever the number of classes was and is."""
    classifier = tiny_model(CLASSIFIERS[model_class.base_model_prefix], patch_size=8, image_size=32)
    classifier.save_pretrained(tmp_path)
    model, report = model_class.from_pretrained(
        tmp_path, patch_size=4, image_size=64, num_labels=7, output_loading_info=True, **DECODERS[decoder]
    )
    assert not any(name.startswith(model.base_model_prefix) for name in report["missing_keys"])
    classifier.resize_patches(patch_size=4, image_size=64)
    torch.testing.assert_close(model.base_model.state_dict(), classifier.base_model.state_dict(), rtol=0, atol=0)
    assert model(torch.randn(1, 3, 64, 32)).logits.shape == (1, 7, 16, 8)
    model.save_pretrained(tmp_path / "segmenter")
    again = model_class.from_pretrained(tmp_path / "segmenter")
    torch.testing.assert_close(again.state_dict(), model.state_dict(), rtol=0, atol=0)


@of_both_families
def test_resized_patches_keep_the_strides_of_the_pyramid(model_class, tmp_path):
    model = segmenter(model_class, "upernet", patch_size=16, image_size=32)
    head = model.decode_head.bfloat16().state_dict()
    model.pyramid.bfloat16()
    for patch_size in (8, 4, 1, 32):
        model.resize_patches(patch_size=patch_size)
        expected = {name: tensor.shape for name, tensor in FeaturePyramid(model.config).state_dict().items()}
        assert {name: tensor.shape for name, tensor in model.pyramid.state_dict().items()} == expected
        assert all(parameter.dtype == torch.bfloat16 for parameter in model.pyramid.parameters())
    torch.testing.assert_close(model.decode_head.state_dict(), head, rtol=0, atol=0)
    model.float()
    assert model(torch.randn(1, 3, 32, 64)).logits.shape == (1, 5, 8, 16)
    # The resized model is a model like any other: it can be saved and loaded.
    model.save_pretrained(tmp_path)
    loaded = model_class.from_pretrained(tmp_path)
    torch.testing.assert_close(loaded.state_dict(), model.state_dict(), rtol=0, atol=0)


@of_both_families
def test_levels_that_stay_keep_their_weights(model_class):
    model = segmenter(model_class, "upernet", patch_size=14, image_size=56, decoder_strides=[4, 7, 14, 28])
    before = copy.deepcopy(model.pyramid.state_dict())
    model.resize_patches(image_size=28)
    torch.testing.assert_close(model.pyramid.state_dict(), before, rtol=0, atol=0)
    model.resize_patches(patch_size=16, image_size=32)
    torch.testing.assert_close(model.pyramid.state_dict(), before, rtol=0, atol=0)
