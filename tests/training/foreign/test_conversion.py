# Copyright 2026 The modeling_pixelvit team. All rights reserved.
# SPDX-License-Identifier: Apache-2.0
"""
Converted checkpoints compute what their sources compute, and files that cannot be converted are refused in a sentence.

Names are mapped here once more, by hand, so that a mistake in the converter's tables is not repeated by its test.
"""

import argparse
import io
import json
import os
import pickle
import zipfile
from pathlib import Path

import pytest
import timm
import torch
from fuzz_mutations import Payload
from launching import run_command
from released_files import our_adventurer_name, released_shapes
from safetensors.torch import load_file, save_file
from transformers import (
    AutoModel,
    AutoModelForImageClassification,
    DeiTConfig,
    DeiTForImageClassification,
    ViTConfig,
    ViTForImageClassification,
    ViTForMaskedImageModeling,
    ViTImageProcessor,
    ViTModel,
)

from modeling_pixelvit import (
    AdventurerConfig,
    AdventurerForImageClassification,
    AdventurerModel,
    PixelViTConfig,
    PixelViTModel,
)
from modeling_pixelvit.image_processing_pixelvit import PixelViTImageProcessor
from training.checkpoints.reading import CheckpointError, read_checkpoint
from training.convert_checkpoint import main
from training.foreign import conversion
from training.foreign.conversion import build_model, convert, variant_name
from training.foreign.layouts import translate
from training.foreign.source import Source


ROOT = Path(__file__).parents[3]
GOLDEN = ROOT / "tests" / "golden"
GOLDEN_NAMES = ("adventurer_patch4_img32", "adventurer_patch1_img16")
TOLERANCE = 1e-4


def difference(actual: torch.Tensor, expected: torch.Tensor) -> float:
    """Norm of the difference over the norm of what is expected."""
    assert actual.shape == expected.shape
    assert expected.norm() > 0  # or nothing is being compared
    return ((actual.double() - expected.double()).norm() / expected.double().norm()).item()


def randomize(model: torch.nn.Module, seed: int = 0) -> torch.nn.Module:
    """Moves every parameter off its initial value: biases, class token, positions and scales too."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.1 * torch.randn(parameter.shape, generator=generator))
    return model.eval()


def images(size: int | tuple[int, int], channels: int = 3) -> torch.Tensor:
    height, width = (size, size) if isinstance(size, int) else size
    return torch.randn(2, channels, height, width, generator=torch.Generator().manual_seed(1))


def saved(weights: object, path: Path, **kwargs) -> Path:
    torch.save(weights, path, **kwargs)
    return path


def refused(capsys, *arguments: object) -> str:
    """Runs the command, which must fail; returns the one sentence that it says."""
    assert main([str(argument) for argument in arguments]) == 1
    message = capsys.readouterr().err
    assert message.count("\n") == 1 and "Traceback" not in message
    return message


# Released Adventurer


@pytest.mark.parametrize("name", GOLDEN_NAMES)
def test_golden_features_logits_loss_and_gradients(name, tmp_path):
    convert(GOLDEN / f"{name}.pth", tmp_path / "out")
    model = AutoModelForImageClassification.from_pretrained(tmp_path / "out")
    golden = load_file(GOLDEN / f"{name}.safetensors")
    assert model.config.flip_blocks == [2, 3] and model.dtype == torch.float32
    with torch.no_grad():
        features = model.adventurer(golden["pixel_values"]).pooler_output
    outputs = model(golden["pixel_values"], labels=golden["labels"])
    outputs.loss.backward()
    assert difference(features, golden["features"]) < TOLERANCE
    assert difference(outputs.logits.detach(), golden["logits"]) < TOLERANCE
    assert difference(outputs.loss.detach().reshape(1), golden["loss"]) < TOLERANCE
    gradients = {key.removeprefix("grad."): value for key, value in golden.items() if key.startswith("grad.")}
    ours = {key: parameter.grad for key, parameter in model.named_parameters()}
    assert {our_adventurer_name(key) for key in gradients} == ours.keys()
    for key, expected in gradients.items():
        assert difference(ours[our_adventurer_name(key)], expected) < TOLERANCE, key


@pytest.mark.parametrize("name", GOLDEN_NAMES)
def test_golden_weights_are_kept_bit_for_bit(name, tmp_path):
    convert(GOLDEN / f"{name}.pth", tmp_path / "out")
    written = load_file(tmp_path / "out" / "model.safetensors")
    source = read_checkpoint(GOLDEN / f"{name}.pth")["model"]
    assert {our_adventurer_name(key) for key in source} == written.keys()
    assert all(torch.equal(written[our_adventurer_name(key)], tensor) for key, tensor in source.items())


def test_half_precision_is_kept_bit_for_bit_and_small_parameters_load_in_float32(tmp_path):
    weights = {key: tensor.half() for key, tensor in golden_weights().items()}
    model = convert(saved({"model": weights}, tmp_path / "half.pth"), tmp_path / "out")
    written = load_file(tmp_path / "out" / "model.safetensors")
    assert model.dtype == torch.float16
    assert all(torch.equal(written[our_adventurer_name(key)], tensor) for key, tensor in weights.items())
    loaded = AutoModelForImageClassification.from_pretrained(tmp_path / "out")
    assert loaded.dtype == torch.float16 and loaded.adventurer.layers[0].mixer.A_log.dtype == torch.float32


def test_mixed_dtypes_are_raised_to_the_widest_without_a_change_of_value(tmp_path):
    weights = {key: tensor.half() for key, tensor in golden_weights().items()}
    weights["norm_f.weight"] = golden_weights()["norm_f.weight"]
    convert(saved(weights, tmp_path / "mixed.pth"), tmp_path / "out")
    written = load_file(tmp_path / "out" / "model.safetensors")
    for key, tensor in weights.items():
        assert torch.equal(written[our_adventurer_name(key)].double(), tensor.double())
    assert written["adventurer.norm.weight"].dtype == written["adventurer.embeddings.cls_token"].dtype == torch.float32


def golden_weights() -> dict[str, torch.Tensor]:
    return dict(read_checkpoint(GOLDEN / "adventurer_patch4_img32.pth")["model"])


@pytest.mark.parametrize(
    ("name", "width", "blocks", "patch", "image", "parameters"),
    [
        ("tiny", 256, 12, 16, 224, 11_608_840),
        ("tiny", 256, 12, 1, 64, 12_411_400),
        ("small", 512, 12, 1, 128, 52_388_392),
        ("base", 768, 12, 1, 224, 136_454_728),
        ("large", 1024, 24, 16, 224, 346_196_200),
        ("large", 1024, 24, 1, 128, 361_989_352),
        ("huge", 1280, 32, 16, 224, None),
    ],
)
def test_released_sizes_follow_from_shapes(name, width, blocks, patch, image, parameters):
    shapes = released_shapes(width, blocks, patch, image)
    source = Source(Path("x.pth"), {key: torch.empty(shape, device="meta") for key, shape in shapes.items()})
    config = translate(source).config
    expected = AdventurerConfig.from_variant(
        name, patch_size=patch, image_size=image, flip_blocks=[2, 3], num_labels=config.num_labels
    )
    assert config.to_dict() == expected.to_dict()
    assert variant_name(config) == f"size {name}"
    config.num_labels = 1000
    with torch.device("meta"):
        model = AdventurerForImageClassification(config)
    count = sum(parameter.numel() for parameter in model.parameters())
    assert count == sum(torch.Size(shape).numel() for shape in shapes.values())
    assert parameters in (None, count)


def test_short_headless_and_wrapped_adventurer(tmp_path):
    weights = {key: value for key, value in golden_weights().items() if not key.startswith("head.")}
    weights = {f"module.{key}": value for key, value in weights.items() if not key.startswith(("layers.2", "layers.3"))}
    save_file(weights, tmp_path / "base.safetensors")
    lines = []
    model = convert(tmp_path / "base.safetensors", tmp_path / "out", report=lines.append)
    assert type(model) is AdventurerModel and model.config.flip_blocks == [] and model.config.num_hidden_layers == 2
    assert type(AutoModel.from_pretrained(tmp_path / "out")) is AdventurerModel
    assert any("no head" in line for line in lines)


def test_an_adventurer_of_other_proportions_is_read_off_its_shapes(tmp_path):
    config = AdventurerConfig(
        hidden_size=48,
        num_hidden_layers=3,
        image_size=[8, 24],
        patch_size=4,
        num_channels=5,
        intermediate_size=100,
        state_size=24,
        head_dim=36,
        expand=3,
        conv_kernel=3,
        flip_blocks=[2],
    )
    model = randomize(AdventurerModel(config))
    names = {our_adventurer_name(key).removeprefix("adventurer."): key for key in released_shapes(64, 3, 4, 8)}
    weights = {names[key]: value for key, value in model.state_dict().items()}
    path = saved(weights, tmp_path / "odd.pth")
    converted = convert(path, tmp_path / "out", image_size=(8, 24))
    assert converted.config.to_diff_dict().keys() - {"auto_map", "architectures"} >= {"state_size", "expand"}
    for field in ("image_size", "num_channels", "intermediate_size", "state_size", "head_dim", "expand", "conv_kernel"):
        assert getattr(converted.config, field) == getattr(config, field)
    pixels = images((8, 24), channels=5)
    with torch.no_grad():
        assert torch.equal(converted(pixels).last_hidden_state, model(pixels).last_hidden_state)
    with pytest.raises(CheckpointError, match="--image_size HEIGHT WIDTH"):
        convert(path, tmp_path / "square")
    with pytest.raises(CheckpointError, match="positions for 12"):
        convert(path, tmp_path / "square", image_size=(8, 8))


# timm

TIMM_MODELS = {
    "deit": ("deit_tiny_patch16_224", {}),
    "vit": ("vit_small_patch16_224", {"patch_size": 8, "qkv_bias": False}),
    "deit3": ("deit3_small_patch16_224", {}),
    "vit with LayerScale": ("vit_tiny_patch16_224", {"init_values": 0.1, "img_size": 48}),
}


def make_timm(name: str) -> torch.nn.Module:
    architecture, changes = TIMM_MODELS[name]
    return randomize(timm.create_model(architecture, **{"img_size": 64, "depth": 2, "num_classes": 11, **changes}))


def timm_view(ours: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Our weights or gradients under timm's names, query, key and value fused."""
    view = {
        "cls_token": ours["pixelvit.embeddings.cls_token"],
        "pos_embed": ours["pixelvit.embeddings.position_embeddings"],
    }
    plain = {
        "patch_embed.proj": "pixelvit.embeddings.patch_embeddings.projection",
        "norm": "pixelvit.layernorm",
        "head": "classifier",
    }
    for block in (0, 1):
        own = f"pixelvit.layers.{block}"
        plain |= {
            f"blocks.{block}.norm1": f"{own}.layernorm_before",
            f"blocks.{block}.norm2": f"{own}.layernorm_after",
            f"blocks.{block}.attn.proj": f"{own}.attention.o_proj",
            f"blocks.{block}.mlp.fc1": f"{own}.mlp.fc1",
            f"blocks.{block}.mlp.fc2": f"{own}.mlp.fc2",
        }
        for kind in ("weight", "bias"):
            parts = [ours.get(f"{own}.attention.{part}_proj.{kind}") for part in "qkv"]
            if parts[0] is not None:
                view[f"blocks.{block}.attn.qkv.{kind}"] = torch.cat(parts)
        for scale in (1, 2):
            if f"{own}.layer_scale{scale}.lambda1" in ours:
                view[f"blocks.{block}.ls{scale}.gamma"] = ours[f"{own}.layer_scale{scale}.lambda1"]
    for theirs, own in plain.items():
        view |= {f"{theirs}.{kind}": ours[f"{own}.{kind}"] for kind in ("weight", "bias")}
    return view


@pytest.mark.parametrize("name", TIMM_MODELS)
def test_timm_models_agree_in_features_logits_and_gradients(name, tmp_path):
    source = make_timm(name)
    convert(saved(source.state_dict(), tmp_path / "timm.pth"), tmp_path / "out")
    model = AutoModelForImageClassification.from_pretrained(tmp_path / "out")
    pixels = images(source.patch_embed.img_size)
    with torch.no_grad():
        features = model.pixelvit(pixels).last_hidden_state
        assert difference(features, source.forward_features(pixels)) < TOLERANCE
    logits, expected = model(pixels).logits, source(pixels)
    assert difference(logits.detach(), expected.detach()) < TOLERANCE
    for output in (logits, expected):
        torch.nn.functional.cross_entropy(output, torch.tensor([3, 7])).backward()
    gradients = timm_view({key: parameter.grad for key, parameter in model.named_parameters()})
    if name == "deit3":  # no position for the class token there
        gradients["pos_embed"] = gradients["pos_embed"][:, 1:]
    theirs = {key: parameter.grad for key, parameter in source.named_parameters()}
    assert gradients.keys() == theirs.keys()
    for key, expected_gradient in theirs.items():
        assert difference(gradients[key], expected_gradient) < TOLERANCE, key


def test_timm_agrees_to_float64_rounding(tmp_path):
    source = make_timm("deit3").double()
    model = convert(saved(source.state_dict(), tmp_path / "timm.pth"), tmp_path / "out")
    assert model.dtype == torch.float64
    pixels = images(64).double()
    with torch.no_grad():
        assert difference(model(pixels).logits, source(pixels)) < 1e-13


@pytest.mark.parametrize("wrapping", ["model", "state_dict", "safetensors", "timm folder", "official DeiT III names"])
def test_timm_wrappings(wrapping, tmp_path):
    source = make_timm("deit3")
    weights, path = source.state_dict(), tmp_path / "x.pth"
    if wrapping in ("model", "state_dict"):
        saved({wrapping: weights, "epoch": 1}, path)
    elif wrapping == "official DeiT III names":
        names = {key: key.replace(".ls", ".gamma_").removesuffix(".gamma") for key in weights}
        saved({"model": {names[key]: value for key, value in weights.items()}}, path)
    else:
        path = tmp_path / "timm"
        path.mkdir()
        save_file(weights, path / "model.safetensors")
        labels = [f"name {index}" for index in range(11)]
        pretrained = {"mean": [0.5] * 3, "std": [0.4] * 3, "crop_pct": 1.0, "interpolation": "bilinear"}
        settings = {"architecture": "x", "global_pool": "token", "label_names": labels, "pretrained_cfg": pretrained}
        (path / "config.json").write_text(json.dumps(settings))
        if wrapping == "safetensors":
            path = path / "model.safetensors"
    model = convert(path, tmp_path / "out")
    with torch.no_grad():
        assert difference(model(images(64)).logits, source(images(64))) < TOLERANCE
    if wrapping == "timm folder":
        processor = PixelViTImageProcessor.from_pretrained(tmp_path / "out")
        assert list(processor.image_mean) == [0.5] * 3 and list(processor.image_std) == [0.4] * 3
        assert processor.crop_pct == 1.0 and processor.resample == 2
        assert model.config.id2label[10] == "name 10"


def test_timm_without_head_becomes_the_base_model(tmp_path):
    source = randomize(timm.create_model("vit_tiny_patch16_224", img_size=32, depth=1, num_classes=0))
    convert(saved(source.state_dict(), tmp_path / "timm.pth"), tmp_path / "out")
    model = AutoModel.from_pretrained(tmp_path / "out")
    assert type(model) is PixelViTModel
    with torch.no_grad():
        assert difference(model(images(32)).pooler_output, source(images(32))) < TOLERANCE


def test_timm_non_square_images(tmp_path):
    source = randomize(timm.create_model("deit3_small_patch16_224", img_size=(32, 128), depth=1, num_classes=3))
    # 16 patches, a square number: only what the user says makes it 2 by 8.
    model = convert(saved(source.state_dict(), tmp_path / "timm.pth"), tmp_path / "out", image_size=(32, 128))
    assert model.config.image_size == [32, 128]
    with torch.no_grad():
        assert difference(model(images((32, 128))).logits, source(images((32, 128)))) < TOLERANCE


@pytest.mark.parametrize(
    ("architecture", "arguments", "named"),
    [
        ("deit_tiny_distilled_patch16_224", {}, "'dist_token'"),
        ("vit_tiny_patch16_224", {"global_pool": "avg"}, "'fc_norm.weight'"),
        ("vit_tiny_patch16_224", {"reg_tokens": 2}, "'reg_token'"),
        ("vit_tiny_patch16_224", {"qk_norm": True}, "'blocks.0.attn.q_norm.weight'"),
        ("vit_tiny_patch16_224", {"pre_norm": True}, "'norm_pre.weight'"),
        ("vit_tiny_patch16_224", {"mlp_layer": timm.layers.SwiGLU}, "gated MLP"),
        ("vit_tiny_patch16_224", {"mlp_layer": timm.layers.GluMlp}, "'blocks.0.mlp.fc2.weight'"),
        ("vit_relpos_small_patch16_224", {}, "relative positions"),
        ("vit_tiny_patch16_224", {"class_token": False, "global_pool": "avg", "fc_norm": False}, "no class token"),
        ("beit_base_patch16_224", {}, "relative positions"),
        ("vit_tiny_patch16_224", {"embed_dim": 160, "num_heads": 5}, "--num_attention_heads"),
    ],
)
def test_other_vision_transformers_are_refused_by_name(architecture, arguments, named, tmp_path, capsys):
    source = timm.create_model(architecture, img_size=32, depth=1, num_classes=2, **arguments)
    message = refused(capsys, saved(source.state_dict(), tmp_path / "x.pth"), tmp_path / "out")
    assert named in message and not (tmp_path / "out").exists()


def test_attention_heads_by_option(tmp_path):
    source = randomize(timm.create_model("vit_tiny_patch16_224", img_size=32, depth=1, embed_dim=160, num_heads=5))
    path = saved(source.state_dict(), tmp_path / "x.pth")
    model = convert(path, tmp_path / "out", num_attention_heads=5)
    with torch.no_grad():
        assert difference(model(images(32)).logits, source(images(32))) < TOLERANCE
    for heads in (0, 7):
        with pytest.raises(CheckpointError, match=f"num_attention_heads={heads}"):
            convert(path, tmp_path / "wrong", num_attention_heads=heads)


# transformers

VIT = {
    "hidden_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 3,
    "intermediate_size": 80,
    "image_size": 32,
    "patch_size": 8,
    "layer_norm_eps": 1e-3,  # far from both defaults, so that it matters
    "hidden_act": "gelu_new",
    "hidden_dropout_prob": 0.125,
}
OLD_NAMES = (
    (".layers.", ".encoder.layer."),
    ("attention.q_proj", "attention.attention.query"),
    ("attention.k_proj", "attention.attention.key"),
    ("attention.v_proj", "attention.attention.value"),
    ("attention.o_proj", "attention.output.dense"),
    ("mlp.fc1", "intermediate.dense"),
    ("mlp.fc2", "output.dense"),
)


def old_name(name: str) -> str:
    """The name of a weight in transformers 4."""
    name = f".{name}"  # a base model's names begin with what stands inside the others'
    for present, old in OLD_NAMES:
        name = name.replace(present, old)
    return name[1:]


def vit_folder(path: Path, model: torch.nn.Module, old: bool, prefix: str = "vit") -> Path:
    """A folder as this version's or an old version's save_pretrained leaves it."""
    model.config.save_pretrained(path)
    weights = {key.replace("vit.", f"{prefix}.", 1): value for key, value in model.state_dict().items()}
    save_file({old_name(key) if old else key: value for key, value in weights.items()}, path / "model.safetensors")
    return path


@pytest.mark.parametrize("form", ["present names", "old names", "old names, DeiT's prefix", "save_pretrained"])
@pytest.mark.parametrize("qkv_bias", [True, False])
def test_transformers_classifiers_agree(form, qkv_bias, tmp_path):
    labels = {0: "cat", 1: "dog", 2: "owl"}
    source = randomize(ViTForImageClassification(ViTConfig(**VIT, qkv_bias=qkv_bias, id2label=labels)))
    if form == "save_pretrained":
        source.save_pretrained(tmp_path / "vit")
    else:
        vit_folder(tmp_path / "vit", source, "old" in form, "deit" if "DeiT" in form else "vit")
    convert(tmp_path / "vit", tmp_path / "out")
    model = AutoModelForImageClassification.from_pretrained(tmp_path / "out")
    assert model.config.id2label == labels and model.config.label2id["owl"] == 2
    assert model.config.hidden_dropout_prob == 0.125
    pixels = images(32)
    with torch.no_grad():
        features = model.pixelvit(pixels).last_hidden_state
        assert difference(features, source.vit(pixels).last_hidden_state) < TOLERANCE
    outputs, expected = (each(pixels, labels=torch.tensor([2, 0])) for each in (model, source))
    assert difference(outputs.logits.detach(), expected.logits.detach()) < TOLERANCE
    outputs.loss.backward()
    expected.loss.backward()
    ours = {key: parameter.grad for key, parameter in model.named_parameters()}
    theirs = {key.replace("vit.", "pixelvit.", 1): parameter.grad for key, parameter in source.named_parameters()}
    assert ours.keys() == theirs.keys()
    # A key's bias shifts all scores of a query alike, so its gradient is rounding around zero.
    compared = [key for key in theirs if not key.endswith("k_proj.bias")]
    for key in compared:
        assert difference(ours[key], theirs[key]) < TOLERANCE, key


@pytest.mark.parametrize("old", [False, True])
def test_transformers_base_model_loses_its_pooler_and_says_so(old, tmp_path):
    source = randomize(ViTModel(ViTConfig(**VIT)))
    lines = []
    convert(vit_folder(tmp_path / "vit", source, old), tmp_path / "out", report=lines.append)
    assert "dropped: pooler.dense.bias, pooler.dense.weight" in lines
    model = AutoModel.from_pretrained(tmp_path / "out")
    with torch.no_grad():
        expected = source(images(32)).last_hidden_state
        assert difference(model(images(32)).last_hidden_state, expected) < TOLERANCE


def test_transformers_masked_pretraining_keeps_the_encoder(tmp_path):
    source = randomize(ViTForMaskedImageModeling(ViTConfig(**{**VIT, "encoder_stride": 8})))
    source.save_pretrained(tmp_path / "vit")
    model = convert(tmp_path / "vit", tmp_path / "out")
    with torch.no_grad():
        expected = source.vit(images(32)).last_hidden_state
        assert difference(model(images(32)).last_hidden_state, expected) < TOLERANCE


def test_transformers_non_square_images_and_shards(tmp_path):
    config = ViTConfig(**{**VIT, "image_size": [16, 48], "num_labels": 4})
    source = randomize(ViTForImageClassification(config))
    source.save_pretrained(tmp_path / "vit", max_shard_size="50KB")
    assert (tmp_path / "vit" / "model.safetensors.index.json").exists()
    model = convert(tmp_path / "vit", tmp_path / "out")
    assert model.config.image_size == [16, 48]
    with torch.no_grad():
        assert difference(model(images((16, 48))).logits, source(images((16, 48))).logits) < TOLERANCE


def test_transformers_weights_alone_take_the_librarys_defaults(tmp_path):
    config = ViTConfig(hidden_size=192, num_attention_heads=3, intermediate_size=64, num_hidden_layers=1, image_size=32)
    source = randomize(ViTForImageClassification(config))
    lines = []
    model = convert(saved(source.state_dict(), tmp_path / "vit.pth"), tmp_path / "out", report=lines.append)
    assert model.config.layer_norm_eps == 1e-12 and any("there is no config.json" in line for line in lines)
    with torch.no_grad():
        assert difference(model(images(32)).logits, source(images(32)).logits) < TOLERANCE


def test_transformers_weights_file_uses_the_config_beside_it(tmp_path):
    source = randomize(ViTForImageClassification(ViTConfig(**VIT)))
    folder = vit_folder(tmp_path / "vit", source, old=True)
    model = convert(folder / "model.safetensors", tmp_path / "out")
    assert model.config.layer_norm_eps == 1e-3 and model.config.num_attention_heads == 3


def test_transformers_image_processor_is_carried_over(tmp_path):
    folder = vit_folder(tmp_path / "vit", ViTForImageClassification(ViTConfig(**VIT)), old=False)
    theirs = ViTImageProcessor(size={"height": 32, "width": 32}, resample=2, image_mean=[0.5] * 3, image_std=[0.5] * 3)
    theirs.save_pretrained(folder)
    convert(folder, tmp_path / "out")
    ours = PixelViTImageProcessor.from_pretrained(tmp_path / "out")
    picture = torch.randint(0, 256, (3, 50, 70), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    expected = theirs(picture, return_tensors="pt").pixel_values
    # One grey level, where two implementations round a resized pixel to different sides.
    assert (ours(picture, return_tensors="pt").pixel_values - expected).abs().max() <= 1.01 / 255 / 0.5


def test_transformers_center_crop_becomes_a_crop_ratio(tmp_path):
    folder = vit_folder(tmp_path / "vit", ViTForImageClassification(ViTConfig(**VIT)), old=False)
    settings = {"size": 40, "crop_size": 32, "do_center_crop": True, "resample": 3, "image_mean": [0.1, 0.2, 0.3]}
    (folder / "preprocessor_config.json").write_text(json.dumps(settings))
    convert(folder, tmp_path / "out", image_std=[0.7] * 3)
    processor = PixelViTImageProcessor.from_pretrained(tmp_path / "out")
    assert processor.crop_pct == 0.8 and processor.do_center_crop
    assert list(processor.image_mean) == [0.1, 0.2, 0.3] and list(processor.image_std) == [0.7] * 3


def test_distilled_deit_is_refused_with_a_way_out(tmp_path, capsys):
    source = DeiTForImageClassification(DeiTConfig(**VIT))
    source.save_pretrained(tmp_path / "deit")
    for given in (tmp_path / "deit", saved(source.state_dict(), tmp_path / "deit.pth")):
        message = refused(capsys, given, tmp_path / "out")
        assert "distillation_token" in message and "facebook/deit-base-patch16-224" in message


# Files that are not what they should be


class BuiltinPayload(Payload):
    def __reduce__(self):
        return exec, (f"open({str(self.marker)!r}, 'w')",)


WRITERS = {
    "zip": torch.save,
    "legacy": lambda value, path: torch.save(value, path, _use_new_zipfile_serialization=False),
    "pickle 0": lambda value, path: path.write_bytes(pickle.dumps(value, protocol=0)),
    "pickle 2": lambda value, path: path.write_bytes(pickle.dumps(value, protocol=2)),
    "pickle 5": lambda value, path: path.write_bytes(pickle.dumps(value, protocol=5)),
}


def unpickle_file(path):
    """What reading a file that one of `WRITERS` wrote, without tensors, unpickles: one object or several in a row."""
    stream = io.BytesIO(path.read_bytes())
    if zipfile.is_zipfile(stream):
        with zipfile.ZipFile(stream) as archive:
            name = next(name for name in archive.namelist() if name.endswith("/data.pkl"))
            stream = io.BytesIO(archive.read(name))
    stream.seek(0)
    while stream.tell() < len(stream.getvalue()):
        pickle.load(stream)


@pytest.mark.parametrize("writer", WRITERS)
@pytest.mark.parametrize("payload", [Payload, BuiltinPayload])
@pytest.mark.parametrize("place", ["top", "args", "model", "name"])
def test_files_that_would_run_something_are_refused_and_do_not(writer, payload, place, tmp_path, capsys):
    marker, path = tmp_path / "marker", tmp_path / "evil.pth"
    evil = payload(marker)
    contents = {
        "top": evil,
        "args": {"model": {"x": 1.0}, "args": argparse.Namespace(lr=1.0, nested={"deep": [evil]})},
        "model": {"model": {"x": evil}},
        "name": {"model": {(1, evil): 1.0}},
    }[place]
    WRITERS[writer](contents, path)
    message = refused(capsys, path, tmp_path / "out")
    assert "Nothing was executed" in message and not marker.exists() and not (tmp_path / "out").exists()
    if "pickle" not in writer:  # in other files than its own PyTorch may stop at something before
        assert "system" in message if payload is Payload else "exec" in message
    # The payload in the file does work: an ordinary unpickling runs it.
    unpickle_file(path)
    assert marker.exists()


def test_a_pickle_under_the_name_of_safetensors_is_not_run(tmp_path, capsys):
    for writer in ("zip", "legacy", "pickle 0"):
        path = tmp_path / "evil.safetensors"
        WRITERS[writer]({"x": Payload(tmp_path / "marker")}, path)
        refused(capsys, path, tmp_path / "out")
        assert not (tmp_path / "marker").exists()


def test_only_the_namespace_is_allowed_whatever_others_allow(tmp_path, capsys):
    path = saved({"model": golden_weights(), "args": Path("x")}, tmp_path / "x.pth")
    with torch.serialization.safe_globals([type(Path("x"))]):
        assert "Path" in refused(capsys, path, tmp_path / "out")
        assert type(Path("x")) in torch.serialization.get_safe_globals()
    assert argparse.Namespace not in torch.serialization.get_safe_globals()


def test_the_environment_cannot_switch_the_safe_reader_off(tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD", "1")
    torch.save(Payload(tmp_path / "marker"), tmp_path / "evil.pth")
    refused(capsys, tmp_path / "evil.pth", tmp_path / "out")
    assert not (tmp_path / "marker").exists()


def damaged(kind: str, path: Path) -> Path:
    whole = (GOLDEN / "adventurer_patch4_img32.pth").read_bytes()
    contents = {
        "text": b"model weights, see the other file\n",
        "JPEG": bytes.fromhex("ffd8ffe000104a46494600010100000100010000") + bytes(200),
        "empty": b"",
        "cut short": whole[: len(whole) // 2],
        "zip of something else": b"PK\x03\x04" + bytes(100),
        "safetensors cut short": (GOLDEN / "adventurer_patch4_img32.safetensors").read_bytes()[:5000],
    }
    path.write_bytes(contents[kind])
    return path


@pytest.mark.parametrize(
    "kind", ["text", "JPEG", "empty", "cut short", "zip of something else", "safetensors cut short"]
)
@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
def test_damaged_files(kind, suffix, tmp_path, capsys):
    path = damaged(kind, tmp_path / f"x{suffix}")
    message = refused(capsys, path, tmp_path / "out")
    assert str(path) in message and "cut short" in message and not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("contents", "expected"),
    [
        ({}, "empty dict"),
        ({"model": {}}, "is empty"),
        ([torch.ones(2)], "holds a list"),
        (torch.ones(2), "holds a Tensor"),
        ({"model": {"x": 1}}, "holds a int under 'x'"),
        ({"step": 3}, "holds a int under 'step'"),
        ({"conv1.weight": torch.ones(2)}, "conv1.weight"),
        ({"adventurer.norm.weight": torch.ones(2)}, "from_pretrained"),
    ],
)
def test_files_without_a_models_weights(contents, expected, tmp_path, capsys):
    assert expected in refused(capsys, saved(contents, tmp_path / "x.pth"), tmp_path / "out")


def without(key: str):
    return lambda weights: weights.pop(key)


def with_tensor(key: str, *shape: int, dtype: torch.dtype = torch.float32):
    return lambda weights: weights.update({key: torch.ones(shape, dtype=dtype)})


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        (without("patch_embed.proj.weight"), "lacks 'patch_embed.proj.weight'"),
        (without("layers.3.mlp.w2.bias"), "lacks weights for 'adventurer.layers.3.mlp.up_proj.bias'"),
        (without("head.bias"), "lacks weights for 'classifier.bias'"),
        (with_tensor("norm_f.bias", 64), "'norm_f.bias'"),
        (with_tensor("extra", 3), "'extra'"),
        (with_tensor("embeddings.cls_token", 1, 1, 64), "'embeddings.cls_token'"),
        (with_tensor("layers.9.norm.weight", 64), "not block 4"),
        (with_tensor("layers.1.mixer.D", 3), "'layers.1.mixer.D'"),
        (with_tensor("cls_token", 64), "'cls_token'"),
        (with_tensor("pos_embed", 1, 66, 64), "65 patches"),
        (with_tensor("pos_embed", 1, 1, 64), "--image_size"),
        (with_tensor("patch_embed.proj.weight", 64, 3, 4, 2), "4 by 2 pixels"),
        (with_tensor("patch_embed.proj.weight", 64, 48), "dimensions"),
        (with_tensor("layers.0.mixer.norm.weight", 100), "100"),
        (with_tensor("layers.2.norm.weight", 64, dtype=torch.int8), "int8"),
        (with_tensor("head.weight", 0, 64), "'head.weight'"),
    ],
)
def test_damaged_weights_are_refused_by_name(change, expected, tmp_path, capsys):
    weights = golden_weights()
    change(weights)
    message = refused(capsys, saved({"model": weights}, tmp_path / "x.pth"), tmp_path / "out")
    assert expected in message
    assert not list(tmp_path.glob("*out*"))


def test_one_weight_under_two_names(tmp_path, capsys):
    weights = make_timm("deit3").state_dict()
    weights["blocks.0.gamma_1"] = weights["blocks.0.ls1.gamma"]
    assert "both" in refused(capsys, saved(weights, tmp_path / "x.pth"), tmp_path / "out")


def test_not_a_number_is_reported(tmp_path):
    weights = golden_weights()
    weights["norm_f.weight"] = weights["norm_f.weight"].clone().index_fill_(0, torch.tensor([5]), float("nan"))
    lines = []
    convert(saved(weights, tmp_path / "x.pth"), tmp_path / "out", report=lines.append)
    assert any("NaN" in line and "adventurer.norm.weight" in line for line in lines)


def test_no_averaged_weights(tmp_path, capsys):
    weights = golden_weights()
    for contents in ({"model": weights, "epoch": 3}, {"model": weights, "model_ema": None}, weights):
        message = refused(capsys, saved(contents, tmp_path / "x.pth"), tmp_path / "out", "--ema")
        assert "model_ema" in message and "without --ema" in message


def test_missing_files_and_folders(tmp_path, capsys):
    assert "does not exist" in refused(capsys, tmp_path / "none.pth", tmp_path / "out")
    (tmp_path / "folder").mkdir()
    assert "model.safetensors" in refused(capsys, tmp_path / "folder", tmp_path / "out")
    (tmp_path / "folder" / "config.json").write_text("{")
    assert "not valid JSON" in refused(capsys, tmp_path / "folder", tmp_path / "out")
    (tmp_path / "folder" / "config.json").write_text('{"model_type": "pixelvit"}')
    assert "from_pretrained" in refused(capsys, tmp_path / "folder", tmp_path / "out")
    (tmp_path / "folder" / "config.json").unlink()
    (tmp_path / "folder" / "model.safetensors.index.json").write_text('{"weight_map": {"x": "../../x.bin"}}')
    assert "no shards" in refused(capsys, tmp_path / "folder", tmp_path / "out")


@pytest.mark.parametrize(
    "settings", [{"model_type": "beit"}, {"model_type": ["vit"]}, {"model_type": "vit", "num_attention_heads": "many"}]
)
def test_configs_that_do_not_fit(settings, tmp_path, capsys):
    folder = vit_folder(tmp_path / "vit", ViTForImageClassification(ViTConfig(**VIT)), old=False)
    (folder / "config.json").write_text(json.dumps(settings))
    message = refused(capsys, folder, tmp_path / "out")
    assert "config.json" in message


# Labels and the folder that is written


def test_labels(tmp_path, capsys):
    source, names = GOLDEN / "adventurer_patch4_img32.pth", [f"name {index}" for index in range(10)]
    names[7] = names[3]
    for text in ("\n".join(names) + "\n", json.dumps(names)):
        (tmp_path / "labels").write_text(text)
        assert main([str(source), str(tmp_path / "out"), "--labels", str(tmp_path / "labels"), "--overwrite"]) == 0
        config = AutoModelForImageClassification.from_pretrained(tmp_path / "out").config
        assert list(config.id2label.values()) == names and config.label2id["name 3"] == 3
    (tmp_path / "labels").write_text("one\ntwo\n")
    assert "2 labels" in refused(capsys, source, tmp_path / "new", "--labels", tmp_path / "labels")
    (tmp_path / "labels").write_text("one\n\ntwo\n")
    assert "empty" in refused(capsys, source, tmp_path / "new", "--labels", tmp_path / "labels")
    assert "cannot be read" in refused(capsys, source, tmp_path / "new", "--labels", tmp_path / "none")


def test_classes_without_names_keep_numbered_ones(tmp_path):
    model = convert(GOLDEN / "adventurer_patch4_img32.pth", tmp_path / "out")
    assert model.config.id2label == {index: f"LABEL_{index}" for index in range(10)}


def test_output_folder_is_not_overwritten_unless_told(tmp_path, capsys):
    source, out = GOLDEN / "adventurer_patch4_img32.pth", tmp_path / "out"
    out.mkdir()
    convert(source, out)  # an empty folder is as good as none
    capsys.readouterr()
    (out / "mine.txt").write_text("x")
    assert "--overwrite" in refused(capsys, source, out)
    assert (out / "mine.txt").exists()
    convert(source, out, ema=True, overwrite=True)
    assert not (out / "mine.txt").exists() and (out / "model.safetensors").exists()
    (out / "config.json").unlink()
    assert "other than a checkpoint" in refused(capsys, source, out, "--overwrite")
    (tmp_path / "file").write_text("x")
    assert "is a file" in refused(capsys, source, tmp_path / "file")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["file", "out"]


def test_the_source_is_never_overwritten(tmp_path, capsys):
    folder = vit_folder(tmp_path / "vit", ViTForImageClassification(ViTConfig(**VIT)), old=False)
    assert "holds the checkpoint" in refused(capsys, folder, folder, "--overwrite")
    assert "holds the checkpoint" in refused(capsys, folder / "model.safetensors", folder, "--overwrite")
    assert (folder / "model.safetensors").exists()


@pytest.mark.parametrize("error", [OSError(28, "No space left on device"), KeyboardInterrupt()])
def test_a_folder_is_written_completely_or_not_at_all(error, tmp_path, monkeypatch):
    source, out = GOLDEN / "adventurer_patch4_img32.pth", tmp_path / "deep" / "out"
    convert(source, out)
    before = {path.name: path.read_bytes() for path in out.iterdir()}

    def fail(*args, **kwargs):
        raise error

    monkeypatch.setattr(conversion.PixelViTImageProcessor, "save_pretrained", fail)
    with pytest.raises(type(error)):
        convert(source, out, ema=True, overwrite=True)
    assert {path.name: path.read_bytes() for path in out.iterdir()} == before
    with pytest.raises(type(error)):
        convert(source, tmp_path / "deep" / "new")
    assert [path.name for path in out.parent.iterdir()] == ["out"]


def test_the_old_folder_comes_back_if_the_new_one_cannot_take_its_place(tmp_path, monkeypatch):
    source, out, rename = GOLDEN / "adventurer_patch4_img32.pth", tmp_path / "out", os.rename
    convert(source, out)

    def fail_for_the_new_one(old, new):
        if Path(old).name == "new":
            raise PermissionError(13, "Permission denied")
        rename(old, new)

    monkeypatch.setattr(os, "rename", fail_for_the_new_one)
    with pytest.raises(PermissionError):
        convert(source, out, ema=True, overwrite=True)
    assert (out / "config.json").exists() and [path.name for path in tmp_path.iterdir()] == ["out"]


def test_image_processor_is_the_papers(tmp_path):
    convert(GOLDEN / "adventurer_patch1_img16.pth", tmp_path / "out")
    processor = PixelViTImageProcessor.from_pretrained(tmp_path / "out")
    model = AutoModelForImageClassification.from_pretrained(tmp_path / "out")
    expected = PixelViTImageProcessor.for_config(model.config)
    assert processor.to_dict() == expected.to_dict()
    assert processor(torch.zeros(3, 20, 30), return_tensors="pt").pixel_values.shape == (1, 3, 16, 16)


def test_normalisation_by_option(tmp_path, capsys):
    source = GOLDEN / "adventurer_patch1_img16.pth"
    arguments = ["--image_mean", "0.5", "0.5", "0.5", "--image_std", "0.25", "0.5", "1"]
    assert main([str(source), str(tmp_path / "out"), *arguments]) == 0
    processor = PixelViTImageProcessor.from_pretrained(tmp_path / "out")
    assert list(processor.image_mean) == [0.5] * 3 and list(processor.image_std) == [0.25, 0.5, 1.0]
    assert "3 finite numbers" in refused(capsys, source, tmp_path / "new", "--image_mean", "0.5")


def test_every_tensor_needs_a_place():
    """The guard itself: a translation with a weight that the model lacks, or without one that it has."""
    config = PixelViTConfig(hidden_size=64, num_hidden_layers=1, num_attention_heads=1, image_size=32)
    weights = PixelViTModel(config).state_dict()
    translation = conversion.Translation("a test", config, dict(weights), {key: key for key in weights})
    build_model(translation, Path("x"))
    removed = translation.tensors.pop("layernorm.weight")
    with pytest.raises(CheckpointError, match=r"layernorm\.weight"):
        build_model(translation, Path("x"))
    translation.add("layernorm.weight2", removed, "theirs")
    with pytest.raises(CheckpointError, match="theirs"):
        build_model(translation, Path("x"))


@pytest.mark.parametrize("name", GOLDEN_NAMES)
def test_the_command_with_averaged_weights(name, tmp_path):
    result = run_command("convert_checkpoint", [GOLDEN / f"{name}.pth", tmp_path / "out", "--ema"])
    assert result.returncode == 0, result.stderr
    assert "released Adventurer" in result.stdout and "model_ema" in result.stdout and "10 classes" in result.stdout
    assert "dropped: model, optimizer, lr_scheduler, epoch, scaler, args" in result.stdout
    golden = load_file(GOLDEN / f"{name}.safetensors")
    model = AutoModelForImageClassification.from_pretrained(tmp_path / "out")
    with torch.no_grad():
        logits = model(golden["pixel_values"]).logits
    assert difference(logits, golden["ema_logits"]) < TOLERANCE
    assert difference(logits, golden["logits"]) > 100 * TOLERANCE  # the two sets of weights are not the same
