# Copyright 2026 The modeling_pixelvit team. All rights reserved.
# SPDX-License-Identifier: Apache-2.0
"""Both families as models: definition, patch resizing, loading and saving, and what transformers' users expect."""

import copy
import hashlib

import pytest
import torch
from helpers import (
    MODEL_CLASSES,
    SMALL_HEADS,
    check_compiled_training,
    check_gradient_checkpointing,
    first_output,
    relative_difference,
    tiny_config,
    tiny_model,
)
from transformers import AutoModel, AutoModelForImageClassification

from modeling_pixelvit import (
    AdventurerBackbone,
    AdventurerForImageClassification,
    AdventurerModel,
    PixelViTBackbone,
    PixelViTForImageClassification,
    PixelViTForObjectDetection,
    PixelViTForSemanticSegmentation,
    PixelViTModel,
)
from modeling_pixelvit.modeling_adventurer import AdventurerLayer


CLASSIFIERS = [AdventurerForImageClassification, PixelViTForImageClassification]
BACKBONES = [AdventurerBackbone, PixelViTBackbone]


def hash_weights(model) -> dict[str, str]:
    """A digest of the bytes, dtype and shape of every tensor."""
    return {
        name: hashlib.sha256(
            repr((tensor.dtype, tuple(tensor.shape))).encode()
            + tensor.contiguous().view(-1).view(torch.uint8).numpy().tobytes()
        ).hexdigest()
        for name, tensor in model.state_dict().items()
    }


# Definition


def test_parameter_names_are_anchored():
    """A rename would break every published checkpoint."""
    adventurer = AdventurerForImageClassification(tiny_config("adventurer", num_hidden_layers=1))
    mixer = (
        "A_log",
        "D",
        "conv1d.bias",
        "conv1d.weight",
        "dt_bias",
        "in_proj.weight",
        "norm.weight",
        "out_proj.weight",
    )
    mlp = [f"mlp.{name}.{kind}" for name in ("gate_proj", "up_proj", "down_proj") for kind in ("weight", "bias")]
    layer = [f"mixer.{name}" for name in mixer] + mlp + ["mixer_norm.weight", "mlp_norm.weight"]
    embeddings = (
        "cls_token",
        "position_embeddings",
        "patch_embeddings.projection.weight",
        "patch_embeddings.projection.bias",
    )
    expected = [f"adventurer.embeddings.{name}" for name in embeddings] + [
        f"adventurer.layers.0.{name}" for name in layer
    ]
    assert set(adventurer.state_dict()) == {*expected, "adventurer.norm.weight", "classifier.weight", "classifier.bias"}

    pixelvit = PixelViTForImageClassification(tiny_config("pixelvit", num_hidden_layers=1, layer_scale_init_value=0.1))
    linear = ("attention.q_proj", "attention.k_proj", "attention.v_proj", "attention.o_proj", "mlp.fc1", "mlp.fc2")
    both = [
        f"{name}.{kind}" for name in (*linear, "layernorm_before", "layernorm_after") for kind in ("weight", "bias")
    ]
    layer = [*both, "layer_scale1.lambda1", "layer_scale2.lambda1"]
    expected = [f"pixelvit.embeddings.{name}" for name in embeddings] + [f"pixelvit.layers.0.{name}" for name in layer]
    heads = ["pixelvit.layernorm.weight", "pixelvit.layernorm.bias", "classifier.weight", "classifier.bias"]
    assert set(pixelvit.state_dict()) == {*expected, *heads}


def test_a_flipped_block_is_a_block_over_reversed_patches():
    config = tiny_config("adventurer")
    torch.manual_seed(0)
    plain, flipped = AdventurerLayer(config, 0), AdventurerLayer(config, 1)
    assert (plain.scan_order.backwards, flipped.scan_order.backwards) == (False, True)
    flipped.load_state_dict(AdventurerModel(config).layers[0].state_dict())
    plain.load_state_dict(flipped.state_dict())
    tokens = torch.randn(2, 17, 32)
    reverse = torch.cat([tokens[:, :16].flip(1), tokens[:, 16:]], dim=1)
    actual, expected = flipped(tokens), plain(reverse)
    torch.testing.assert_close(actual, torch.cat([expected[:, :16].flip(1), expected[:, 16:]], dim=1))


def test_a_block_is_causal_but_for_the_heading_average():
    layer = AdventurerModel(tiny_config("adventurer")).layers[0]
    tokens = torch.randn(1, 17, 32)
    changed = tokens.clone()
    changed[:, 9] += 1
    average = tokens.mean(1, keepdim=True)
    difference = layer.mixer(torch.cat([average, tokens], 1)) - layer.mixer(torch.cat([average, changed], 1))
    assert difference[:, :10].abs().max() == 0 and difference[:, 10].abs().max() > 0
    # The block itself lets the change through to every token, by the average.
    assert (layer.mix_tokens(tokens) - layer.mix_tokens(changed)).abs().amax(dim=(0, 2)).min() > 0


@pytest.mark.parametrize("length", [100, 2050, 5000])
def test_segments_do_not_change_the_mixer(length):
    """Without gradients the mixer works in segments, with them in one go."""
    mixer = tiny_model(AdventurerModel).layers[0].mixer
    tokens = torch.randn(2, length, 32)
    with torch.no_grad():
        in_segments = mixer(tokens)
    assert relative_difference(in_segments, mixer(tokens).detach()) < 1e-6


def test_initial_weights():
    config = tiny_config("adventurer", hidden_size=128, head_dim=16, num_hidden_layers=4)
    torch.manual_seed(0)
    model = AdventurerForImageClassification(config)
    mixers = [layer.mixer for layer in model.adventurer.layers]
    steps = torch.nn.functional.softplus(torch.cat([mixer.dt_bias for mixer in mixers]))
    assert 1e-3 * 0.999 <= steps.min() < 3e-3 and 0.03 < steps.max() <= 0.1001
    rates = torch.cat([mixer.A_log for mixer in mixers]).exp()
    assert 1 <= rates.min() < 4 and 13 < rates.max() <= 16.001
    assert all((mixer.D == 1).all() for mixer in mixers)
    bound = 256**-0.5 / 4**0.5  # PyTorch's default, over the square root of the number of blocks
    assert 0.98 * bound < mixers[0].out_proj.weight.abs().max() <= bound
    assert 0.98 * 128**-0.5 < mixers[0].in_proj.weight.abs().max() <= 128**-0.5
    for name, parameter in model.named_parameters():
        if name.endswith("bias") and "dt_bias" not in name:
            assert (parameter == 0).all(), name
    for name in ("cls_token", "position_embeddings"):
        assert 0.015 < getattr(model.adventurer.embeddings, name).std() < 0.025
    kernel = model.adventurer.embeddings.patch_embeddings.projection.weight
    assert kernel.std().item() == pytest.approx(12**-0.5, rel=0.1)


@pytest.mark.parametrize(
    ("model_class", "patches", "class_token"),
    [(PixelViTModel, slice(1, None), 0), (AdventurerModel, slice(None, -1), -1)],
)
def test_pooling(model_class, patches, class_token):
    images = torch.randn(2, 3, 8, 8)
    output = tiny_model(model_class, pooling="mean")(images)
    torch.testing.assert_close(output.pooler_output, output.last_hidden_state[:, patches].mean(1))
    output = tiny_model(model_class)(images)
    torch.testing.assert_close(output.pooler_output, output.last_hidden_state[:, class_token], rtol=0, atol=0)


def test_layer_scale_starts_where_the_config_says():
    fresh = PixelViTModel(tiny_config("pixelvit", layer_scale_init_value=1e-6))
    assert (fresh.layers[2].layer_scale2.lambda1 == 1e-6).all()


@pytest.mark.parametrize("model_class", CLASSIFIERS)
def test_stochastic_depth_drops_whole_branches_in_training_only(model_class):
    model = tiny_model(model_class, drop_path_rate=0.9)
    pixels = torch.randn(4, 3, 8, 8)
    torch.testing.assert_close(model(pixels).logits, model(pixels).logits, rtol=0, atol=0)
    model.train()
    torch.manual_seed(0)
    assert (model(pixels).logits - model(pixels).logits).abs().max() > 1e-3


# What transformers' users expect


@pytest.mark.parametrize("model_class", CLASSIFIERS)
def test_outputs(model_class):
    model = tiny_model(model_class, attn_implementation="eager")
    pixels, labels = torch.randn(2, 3, 8, 8), torch.tensor([0, 4])
    output = model(pixels, labels=labels, output_hidden_states=True)
    assert output.logits.shape == (2, 5) and len(output.hidden_states) == 5
    torch.testing.assert_close(output.loss, torch.nn.functional.cross_entropy(output.logits, labels))
    assert all(state.shape == (2, 17, 32) for state in output.hidden_states)
    if model_class is PixelViTForImageClassification:
        attentions = model(pixels, output_attentions=True).attentions
        assert len(attentions) == 4 and attentions[0].shape == (2, 4, 17, 17)
        torch.testing.assert_close(attentions[0].sum(-1), torch.ones(2, 4, 17))
    torch.testing.assert_close(model(pixels, return_dict=False)[0], output.logits)


@pytest.mark.parametrize("dtype", [torch.uint8, torch.int32, torch.int64, torch.bool])
@pytest.mark.parametrize("problem_type", [None, "single_label_classification", "multi_label_classification"])
def test_labels_are_whole_numbers_of_any_dtype(problem_type, dtype):
    model = tiny_model(PixelViTForImageClassification, problem_type=problem_type)
    pixels, classes, several = torch.randn(2, 3, 8, 8), torch.tensor([0, 1]), torch.tensor([[1, 0, 1, 0, 0], [0] * 5])
    if problem_type != "multi_label_classification":
        for shape in ((2,), (2, 1)):
            output = model(pixels, labels=classes.to(dtype).view(shape))
            torch.testing.assert_close(output.loss, torch.nn.functional.cross_entropy(output.logits, classes))
    if problem_type != "single_label_classification":
        model.config.problem_type = problem_type
        output = model(pixels, labels=several.to(dtype))
        expected = torch.nn.functional.binary_cross_entropy_with_logits(output.logits, several.float())
        torch.testing.assert_close(output.loss, expected)


@pytest.mark.parametrize("model_class", [*MODEL_CLASSES, PixelViTForSemanticSegmentation, PixelViTForObjectDetection])
def test_tuples_by_call_and_by_config(model_class):
    """A call decides, and where it gives nothing or None the config; the same with images that are padded."""
    model = tiny_model(model_class, **(SMALL_HEADS if model_class is PixelViTForObjectDetection else {}))
    padded = torch.ones(2, 8, 8, dtype=torch.int64)
    padded[0, 4:] = 0
    for of_config in (True, False):
        model.config.return_dict = of_config
        for of_call in ({}, {"return_dict": None}, {"return_dict": True}, {"return_dict": False}):
            wanted = of_call.get("return_dict")
            wanted = of_config if wanted is None else wanted
            for pixel_mask in (None, padded):
                with torch.no_grad():
                    output = model(torch.randn(2, 3, 8, 8), pixel_mask=pixel_mask, **of_call)
                assert isinstance(output, tuple) != wanted


@pytest.mark.parametrize("implementation", ["sdpa", "flex_attention"])
def test_attention_implementations_agree(implementation):
    model = tiny_model(PixelViTForImageClassification, hidden_size=64, num_attention_heads=4)
    pixels = torch.randn(2, 3, 8, 8)
    model.set_attn_implementation("eager")
    expected = model(pixels).logits
    model.set_attn_implementation(implementation)
    with torch.no_grad():
        assert relative_difference(model(pixels).logits, expected.detach()) < 1e-5


@pytest.mark.parametrize("model_class", CLASSIFIERS)
@pytest.mark.parametrize("use_reentrant", [True, False])
def test_gradient_checkpointing_changes_nothing(model_class, use_reentrant):
    pixels, labels = torch.randn(2, 3, 8, 8), torch.tensor([0, 4])
    check_gradient_checkpointing(tiny_model(model_class), pixels, labels, use_reentrant=use_reentrant)


@pytest.mark.parametrize("model_class", CLASSIFIERS)
@pytest.mark.parametrize("size", [(8, 8), (8, 16), (5, 9), (2, 2), (1, 1), (30, 7)])
def test_any_image_size(model_class, size):
    model = tiny_model(model_class)
    output = model(torch.randn(2, 3, *size), interpolate_pos_encoding=True)
    output.logits.sum().backward()
    assert output.logits.isfinite().all()
    assert all(parameter.grad is not None for parameter in model.parameters())


@pytest.mark.parametrize("model_class", BACKBONES)
def test_backbone(model_class):
    model = tiny_model(model_class, out_indices=[0, 2, 4])
    feature_maps = model(torch.randn(2, 3, 7, 12)).feature_maps
    assert [tuple(feature_map.shape) for feature_map in feature_maps] == [(2, 32, 4, 6)] * 3
    assert model.channels == [32, 32, 32]
    # Raster order: the map at a place belongs to the patch at that place.
    tokens = model.base_model(torch.ones(1, 3, 8, 8)).last_hidden_state
    patches = tokens[:, :-1] if model_class is AdventurerBackbone else tokens[:, 1:]
    torch.testing.assert_close(model(torch.ones(1, 3, 8, 8)).feature_maps[-1][0, :, 1, 2], patches[0, 1 * 4 + 2])
    model.config.reshape_hidden_states = False
    assert model(torch.randn(2, 3, 8, 8)).feature_maps[0].shape == (2, 17, 32)


@pytest.mark.parametrize("model_class", BACKBONES)
def test_backbone_of_the_stem_alone(model_class):
    pixels = torch.randn(2, 3, 8, 8)
    (found,) = tiny_model(model_class, out_indices=[0])(pixels).feature_maps
    assert torch.equal(found, tiny_model(model_class, out_indices=[0, 1])(pixels).feature_maps[0])


@pytest.mark.parametrize("model_class", BACKBONES)
def test_backbone_has_no_blocks_in_vain(model_class, tmp_path, caplog):
    """What comes after the last feature map would be computed for nothing, and wait for gradients under DDP."""
    whole = tiny_model(model_class)
    whole.save_pretrained(tmp_path / "whole")
    with caplog.at_level("WARNING", "transformers"):
        backbone = model_class.from_pretrained(tmp_path / "whole", out_indices=[1, 3])
    assert not caplog.records
    pixels = torch.randn(2, 3, 8, 8)
    outputs = backbone(pixels, output_hidden_states=True)
    assert len(backbone.base_model.layers) == 3 and len(outputs.hidden_states) == 4
    whole.out_indices = [1, 3]
    for found, wanted in zip(outputs.feature_maps, whole(pixels).feature_maps, strict=True):
        assert torch.equal(found, wanted)
    sum(feature_map.sum() for feature_map in outputs.feature_maps).backward()
    assert all(parameter.grad is not None for parameter in backbone.parameters())
    backbone.save_pretrained(tmp_path / "part")
    again = model_class.from_pretrained(tmp_path / "part")
    assert torch.equal(again(pixels).feature_maps[1], outputs.feature_maps[1])
    backbone.out_indices = [4]
    with pytest.raises(
        ValueError, match=r"asks for stage4, but this backbone was made without the blocks after stage3"
    ):
        backbone(pixels)


@pytest.mark.parametrize("model_class", CLASSIFIERS)
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_is_close_and_bounded(model_class, dtype):
    """`model.half()` casts A_log, D and dt_bias too; the scan raises them again before exp and softplus."""
    model = tiny_model(model_class)
    pixels = torch.randn(2, 3, 8, 8)
    expected = model(pixels).logits.detach()
    half = copy.deepcopy(model).to(dtype)
    output = half(pixels.to(dtype), labels=torch.tensor([0, 1]))
    output.loss.backward()
    assert relative_difference(output.logits.detach().float(), expected) < 8 * torch.finfo(dtype).eps
    assert all(parameter.grad.isfinite().all() for parameter in half.parameters())


@pytest.mark.parametrize("model_class", CLASSIFIERS)
def test_autocast(model_class):
    model = tiny_model(model_class)
    pixels = torch.randn(2, 3, 8, 8)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        output = model(pixels, labels=torch.tensor([0, 1]))
    output.loss.backward()
    assert relative_difference(output.logits.detach().float(), model(pixels).logits.detach()) < 0.05
    assert all(parameter.grad.isfinite().all() for parameter in model.parameters())


@pytest.mark.parametrize("model_class", CLASSIFIERS)
def test_compiles_to_one_graph_and_only_once(model_class):
    # Given from the start, because transformers' loss writes it into the config at its first call.
    model = tiny_model(model_class, problem_type="single_label_classification")
    check_compiled_training(model, torch.randn(3, 2, 3, 8, 8), torch.tensor([0, 1]))


# Changing the patch grid


@pytest.mark.parametrize("model_class", MODEL_CLASSES)
@pytest.mark.parametrize(("patch_size", "image_size"), [(4, None), (1, None), (None, 16), (4, (16, 24))])
def test_resize_patches(model_class, patch_size, image_size, tmp_path):
    model = tiny_model(model_class)
    model.save_pretrained(tmp_path)
    loaded = model_class.from_pretrained(tmp_path, patch_size=patch_size, image_size=image_size)
    from_config = copy.deepcopy(model.config)
    from_config.patch_size = patch_size or from_config.patch_size
    from_config.image_size = list(image_size) if isinstance(image_size, tuple) else image_size or from_config.image_size
    by_config = model_class.from_pretrained(tmp_path, config=from_config)
    embedding = model.resize_patches(patch_size=patch_size, image_size=image_size)
    assert embedding is model.get_input_embeddings()
    assert hash_weights(model) == hash_weights(loaded) == hash_weights(by_config)
    height, width = image_size if isinstance(image_size, tuple) else (image_size or 8,) * 2
    assert model.config.grid_size == (height // (patch_size or 2), width // (patch_size or 2))
    assert first_output(model(torch.randn(1, 3, height, width))).isfinite().all()
    # The resized model is a model like any other: it can be saved and loaded.
    model.save_pretrained(tmp_path / "resized")
    assert hash_weights(model_class.from_pretrained(tmp_path / "resized")) == hash_weights(model)


@pytest.mark.parametrize("model_class", CLASSIFIERS)
def test_auto_class_resizes_too(model_class, tmp_path):
    model = tiny_model(model_class)
    model.save_pretrained(tmp_path)
    loaded = AutoModelForImageClassification.from_pretrained(tmp_path, patch_size=4)
    model.resize_patches(patch_size=4)
    assert loaded.config.patch_size == 4 and hash_weights(loaded) == hash_weights(model)


@pytest.mark.parametrize("model_class", CLASSIFIERS)
def test_a_larger_patch_of_a_larger_image_keeps_the_logits(model_class):
    """Patch 2 at 8 pixels and patch 4 at 16 pixels have the same grid, so only the patch kernel changes."""
    model = tiny_model(model_class)
    blocks = torch.randn(2, 3, 4, 4).repeat_interleave(2, -1).repeat_interleave(2, -2)
    expected = model(blocks).logits
    model.resize_patches(patch_size=4, image_size=16)
    # A patch of one colour stays one when it is resized, at least in its sum over the kernel.
    actual = model(blocks.repeat_interleave(2, -1).repeat_interleave(2, -2)).logits
    assert relative_difference(actual, expected) < 1e-4


@pytest.mark.parametrize("model_class", CLASSIFIERS)
def test_a_resize_that_cannot_be_leaves_the_model_as_it_was(model_class):
    model = tiny_model(model_class)
    before, config = hash_weights(model), model.config.to_dict()
    with pytest.raises(ValueError, match=r"image_size=8 was given; height and width must be multiples of patch_size=3"):
        model.resize_patches(patch_size=3)
    assert hash_weights(model) == before and model.config.to_dict() == config
    with torch.device("meta"):
        empty = model_class(tiny_config(model_class.base_model_prefix))
    with pytest.raises(ValueError, match="not in memory"):
        empty.resize_patches(patch_size=4)
    model.base_model.embeddings.cls_token.data = torch.empty(0)  # as ZeRO-3 leaves a parameter
    with pytest.raises(ValueError, match="split among processes by ZeRO-3"):
        model.resize_patches(patch_size=4)


@pytest.mark.parametrize("model_class", CLASSIFIERS)
def test_a_forward_pass_without_data(model_class):
    """On the meta device, which PyTorch's autocast does not know."""
    with torch.device("meta"):
        model = model_class(tiny_config(model_class.base_model_prefix))
        assert model(torch.empty(2, 3, 8, 8)).logits.shape == (2, 5)


def test_frozen_parameters_stay_frozen():
    model = tiny_model(AdventurerForImageClassification)
    model.requires_grad_(False)
    model.resize_patches(patch_size=4)
    assert not any(parameter.requires_grad for parameter in model.parameters())


# Saving and loading


WAYS_TO_LOAD = [{}, {"device_map": "cpu"}, {"device_map": "auto"}]


@pytest.mark.parametrize("model_class", MODEL_CLASSES)
@pytest.mark.parametrize("way", range(len(WAYS_TO_LOAD)))
def test_weights_survive_bit_for_bit(model_class, way, tmp_path):
    """In each dtype each way to load, by one class of either family."""
    dtype = (torch.float32, torch.bfloat16, torch.float16)[(MODEL_CLASSES.index(model_class) + way) % 3]
    arguments = WAYS_TO_LOAD[way]
    source, second = tmp_path / "first", tmp_path / "second"
    tiny_model(model_class).save_pretrained(source)
    model = model_class.from_pretrained(source, dtype=dtype)
    model.save_pretrained(second)
    loaded, report = model_class.from_pretrained(second, dtype=dtype, output_loading_info=True, **arguments)
    assert not report["missing_keys"] and not report["unexpected_keys"]
    assert hash_weights(loaded) == hash_weights(model)
    kept = {name for name, tensor in loaded.state_dict().items() if tensor.dtype == torch.float32}
    expected = {name for name in kept if name.rsplit(".", 1)[-1] in ("A_log", "D", "dt_bias")}
    assert kept == (expected if dtype != torch.float32 else set(loaded.state_dict()))
    assert bool(expected) == (loaded.base_model_prefix == "adventurer")


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("model_class", [AdventurerModel, AdventurerForImageClassification, AdventurerBackbone])
def test_a_new_model_keeps_in_float32_what_a_loaded_one_does(model_class, dtype, tmp_path):
    model = model_class._from_config(tiny_config("adventurer"), dtype=dtype)
    dtypes = {name: tensor.dtype for name, tensor in model.state_dict().items()}
    kept = {name for name in dtypes if name.rsplit(".", 1)[-1] in ("A_log", "D", "dt_bias")}
    assert kept and all(dtypes[name] == (torch.float32 if name in kept else dtype) for name in dtypes)
    model.save_pretrained(tmp_path)
    loaded = model_class.from_pretrained(tmp_path, dtype=dtype)
    assert hash_weights(loaded) == hash_weights(model)


@pytest.mark.parametrize("model_class", CLASSIFIERS)
def test_a_checkpoint_serves_all_classes_of_its_family(model_class, tmp_path):
    model = tiny_model(model_class)
    model.save_pretrained(tmp_path)
    tensors = hash_weights(model.base_model)
    base = AutoModel.from_pretrained(tmp_path)
    assert hash_weights(base) == tensors
    base.save_pretrained(tmp_path / "base")
    backbone_class = {c.base_model_prefix: c for c in BACKBONES}[model.base_model_prefix]
    for folder in (tmp_path, tmp_path / "base"):
        assert hash_weights(backbone_class.from_pretrained(folder).base_model) == tensors
    assert hash_weights(model_class.from_pretrained(tmp_path / "base").base_model) == tensors


@pytest.mark.parametrize("base_class", [AdventurerModel, PixelViTModel])
def test_a_new_head_starts_small(base_class, tmp_path):
    tiny_model(base_class).save_pretrained(tmp_path)
    model = AutoModelForImageClassification.from_pretrained(tmp_path, id2label={i: str(i) for i in range(300)})
    assert model.classifier.weight.std().item() == pytest.approx(0.02, rel=0.1)
    assert (model.classifier.bias == 0).all()
