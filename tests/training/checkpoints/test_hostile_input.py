# Copyright 2026 The modeling_pixelvit team. All rights reserved.
# SPDX-License-Identifier: Apache-2.0
"""
Checkpoints made to do harm are refused in a sentence that says what was found, before code, memory or other files.

Each known way has a case here; `test_fuzz_checkpoints.py` looks for the ones that nobody thought of.
"""

import json
import os
import pickle
import shutil
import zipfile
from pathlib import Path

import pytest
import torch
from fuzz_mutations import Payload, join_safetensors, nested, split_safetensors
from fuzz_running import bounded_memory, bounded_time
from helpers import tiny_model
from safetensors.torch import save_file
from transformers import AutoConfig

from modeling_pixelvit import (
    AdventurerConfig,
    AdventurerForSemanticSegmentation,
    PixelViTConfig,
    PixelViTForImageClassification,
    PixelViTImageProcessor,
)
from training import visualize
from training.checkpoints.loading import load_checkpoint
from training.checkpoints.reading import CheckpointError
from training.foreign.conversion import convert


@pytest.fixture(scope="module")
def saved(tmp_path_factory) -> Path:
    """Two small checkpoints without their code files: `one` in a single file, `many` in shards."""
    folder = tmp_path_factory.mktemp("saved")
    for name, model_class, size in (
        ("one", PixelViTForImageClassification, "1GB"),
        ("many", AdventurerForSemanticSegmentation, "40KB"),
    ):
        model = tiny_model(model_class)
        model.save_pretrained(folder / name, max_shard_size=size)
        task = "classification" if name == "one" else "segmentation"
        PixelViTImageProcessor.for_config(model.config, task=task).save_pretrained(folder / name)
        for path in (folder / name).glob("*.py"):
            path.unlink()
    return folder


@pytest.fixture
def one(saved, tmp_path) -> Path:
    return Path(shutil.copytree(saved / "one", tmp_path / "one"))


@pytest.fixture
def many(saved, tmp_path) -> Path:
    return Path(shutil.copytree(saved / "many", tmp_path / "many"))


def refused(folder: Path) -> str:
    """The sentence in which a checkpoint is refused, within seconds and in little memory."""
    with bounded_memory(1 << 30), bounded_time(20), pytest.raises(CheckpointError) as caught:
        load_checkpoint(str(folder))
    assert "\n" not in str(caught.value) and len(str(caught.value)) < 1000
    return str(caught.value)


def change(path: Path, **values):
    path.write_text(json.dumps({**json.loads(path.read_text()), **values}))


# config.json


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ({"hidden_size": 10**12}, "hidden_size=1000000000000 was given; it must be an integer of at most 65536"),
        ({"num_hidden_layers": 10**9}, "num_hidden_layers=1000000000 was given; it must be an integer of at most"),
        ({"num_hidden_layers": 1000}, "holds weights of 4 blocks, but its config.json says num_hidden_layers=1000"),
        ({"num_labels": 10**9, "id2label": None}, "num_labels=1000000000 was given; it must be an integer from 0 to"),
        ({"num_labels": 100_000, "id2label": None}, "classifier"),
        ({"image_size": 10**9, "patch_size": 1}, "image_size=1000000000 was given; height and width must be"),
        ({"image_size": 65536, "patch_size": 1}, "image_size=65536 was given; patches of patch_size=1 must be at most"),
        ({"image_size": 4096, "patch_size": 1}, "makes images of 8 by 8 pixels, but the model takes 4096 by 4096"),
        ({"patch_size": 65536, "image_size": 65536}, "a patch of num_channels=3 must have at most"),
        ({"max_detections": 10**10}, "max_detections=10000000000 was given"),
        ({"roi_sampling_ratio": 60000}, "roi_sampling_ratio=60000 was given"),
        ({"pool_scales": list(range(1, 10**5))}, "pool_scales=[1, 2, 3"),
        ({"anchor_ratios": [0.5, float("nan")]}, "anchor_ratios=[0.5, nan] was given"),
        ({"layer_norm_eps": 10**400}, "layer_norm_eps=1000"),
        ({"hidden_size": "x" * 10**6}, "hidden_size"),
        ({"hidden_size": 32.0}, "hidden_size"),
        ({"hidden_size": nested(500)}, "hidden_size"),
        ({"drop_path_rate": float("nan")}, "drop_path_rate=nan"),
        ({"intermediate_size": 49}, "of shape (48, 32), but by its config.json it is (49, 32)"),
        ({"num_hidden_layers": 3, "out_features": None, "out_indices": None}, "holds weights of 4 blocks"),
        ({"num_hidden_layers": 3}, "does not fit: out_features must be"),
        ({"qkv_bias": False}, "holds 12 weights that PixelViTForImageClassification does not have"),
        ({"layer_scale_init_value": 0.1}, "lacks 8 weights of PixelViTForImageClassification"),
        ({"model_type": "adventurer"}, "has model_type='adventurer', but PixelViTForImageClassification is of type"),
        ({"model_type": ["pixelvit"]}, "has model_type=['pixelvit']"),
        ({"architectures": "PixelViTForImageClassification"}, "which is no list of class names"),
        ({"architectures": [["x"]]}, "which is no list of class names"),
        ({"architectures": ["GPT2LMHeadModel"]}, "holds GPT2LMHeadModel; expected is one of"),
        ({"architectures": []}, "holds a model without architectures"),
        ({"dtype": "load"}, "has dtype='load'; expected is one of"),
        ({"torch_dtype": {"x": 1}}, "has torch_dtype={'x': 1}"),
        ({"quantization_config": {"quant_method": "bitsandbytes"}}, "has quantization_config"),
        ({"_attn_implementation": "evil/kernels"}, "has _attn_implementation"),
        ({"configuration_files": ["config.9.9.9.json"]}, "has configuration_files"),
        ({"auto_map": {"AutoModel": "evil/repo--x.Y"}}, "'AutoModel': 'evil/repo--x.Y', which is not code of this"),
        ({"auto_map": {"AutoModel": "other_file.PixelViTModel"}}, "which is not code of this package"),
        ({"auto_map": {"AutoModel": "modeling_pixelvit.Other"}}, "which is not code of this package"),
        ({"auto_map": {"AutoModel": "modeling_adventurer.AdventurerModel"}}, "which is not code of this package"),
        ({"auto_map": {"AutoTokenizer": ["evil--x.Y", None]}}, "which is not code of this package"),
        ({"auto_map": "evil"}, "which is no JSON object"),
        ({"id2label": {str(index): "x" for index in range(4)}}, "classifier"),
        ({"id2label": {"0": 1, "1": 2}}, "has id2label={'0': 1, '1': 2}; expected is a name for each index"),
        ({"id2label": {"x": "y"}}, "expected is a name for each index"),
        ({"id2label": [1, 2]}, "expected is a name for each index"),
        ({"label2id": {"x": {}}}, "expected is an index for each name"),
        ({"num_labels": "5", "id2label": None}, "has num_labels='5'"),
        ({"out_features": [["stem"]]}, "has out_features=[['stem']]"),
        ({"out_indices": [10**9]}, "does not fit"),
        ({"weights_origin": {"license": "mit"}}, "has weights_origin={'license': 'mit'}"),
    ],
)
def test_configs(values, expected, one):
    change(one / "config.json", **values)
    assert expected in refused(one)


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (b"[]", "holds a list and not a JSON object"),
        (b"", "is not valid JSON"),
        (b"[" * 200_000, "is not valid JSON (RecursionError"),
        (b'{"hidden_size": ' + b"9" * 10_000 + b"}", "is not valid JSON"),
        (b"\xff\xfe{}", "is not valid JSON (UnicodeDecodeError"),
        (b" " * (65 << 20), "bytes, and no settings of a model are so long"),
    ],
)
@pytest.mark.parametrize("name", ["config.json", "preprocessor_config.json"])
def test_settings_that_are_no_settings(content, expected, name, one):
    (one / name).write_bytes(content)
    assert expected in refused(one)


def test_settings_that_transformers_would_act_upon_have_no_effect(one, tmp_path):
    """What is no setting of ours is left out: no method of the config is replaced, and no output becomes a tuple."""
    expected = load_checkpoint(str(one))[0]
    keys = {
        **{
            "return_dict": False,
            "output_hidden_states": True,
            "to_dict": 3,
            "validate_architecture": 3,
            "grid_size": 3,
        },
        **{"per_layer_config": {"0": {"hidden_size": 3}}, "name_or_path": "/etc", "tie_word_embeddings": True},
        **{"decoder": "upernet", "__class__": "x", "rope_scaling": {}, "rope_theta": 3, "pruned_heads": {"0": [1]}},
        **{"image_processor_type": "evil", "adapter_config": {"base_model_name_or_path": "evil/repo"}},
    }
    change(one / "config.json", **keys)
    (one / "adapter_config.json").write_text('{"peft_type": "LORA", "base_model_name_or_path": "evil/repo"}')
    (one / "modeling_pixelvit.py").write_text(f"open({str(tmp_path / 'marker')!r}, 'w')")
    model = load_checkpoint(str(one))[0]
    pixels = torch.ones(1, 3, 8, 8)
    with torch.no_grad():
        assert torch.equal(model(pixels).logits, expected(pixels).logits)
    assert model.config.decoder_type == "none" and not (tmp_path / "marker").exists()


@pytest.mark.parametrize("config_class", [PixelViTConfig, AdventurerConfig])
@pytest.mark.parametrize(
    "values",
    [
        *({"num_hidden_layers": 10**9}, {"num_labels": 10**9}, {"hidden_size": 10**400}, {"image_size": 10**12}),
        *(
            {"patch_size": 1, "image_size": 60_000},
            {"num_labels": -1},
            {"num_labels": "many"},
            {"max_detections": 10**9},
        ),
    ],
    ids=str,
)
def test_auto_config_answers_absurd_sizes_in_a_sentence(config_class, values, tmp_path):
    values = {"model_type": config_class.model_type, **values}
    (tmp_path / "config.json").write_text(json.dumps(values, default=str))
    with bounded_memory(1 << 29), bounded_time(20), pytest.raises(ValueError, match=r"was given; .*must") as caught:
        AutoConfig.from_pretrained(tmp_path)
    assert "\n" not in str(caught.value) and len(str(caught.value)) < 500


# preprocessor_config.json


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ({"image_processor_type": "ViTImageProcessor"}, "has image_processor_type='ViTImageProcessor'"),
        ({"image_processor_type": ["x"]}, "has image_processor_type=['x']"),
        ({"auto_map": {"AutoImageProcessor": "evil/repo--x.Y"}}, "which is not code of this package"),
        ({"auto_map": {"AutoImageProcessor": {"pil": "x.Y"}}}, "which is not code of this package"),
        ({"max_pixels": 10**18}, "has max_pixels=1000000000000000000; expected is an integer from 1 to"),
        ({"size": {"height": 10**6, "width": 10**6}}, "has size="),
        ({"size": {"height": 16, "width": 16}}, "makes images of 16 by 16 pixels, but the model takes 8 by 8"),
        ({"size": "large"}, "has size='large'"),
        ({"size": {"depth": 8, "width": 8}}, "does not fit: size="),
        ({"crop_pct": 1e-9}, "has crop_pct=1e-09; expected is a number from 0.05 to 1"),
        ({"crop_pct": float("nan")}, "has crop_pct=nan"),
        ({"image_mean": [0.5, float("nan"), 0.5]}, "has image_mean=[0.5, nan, 0.5]"),
        ({"image_std": [0.0, 0.0, 0.0]}, "has image_std=[0.0, 0.0, 0.0]"),
        ({"rescale_factor": float("inf")}, "has rescale_factor=inf"),
        ({"resample": 99}, "has resample=99"),
        ({"do_resize": "yes"}, "has do_resize='yes'"),
    ],
)
def test_image_processors(values, expected, one):
    change(one / "preprocessor_config.json", **values)
    assert expected in refused(one)


# Weights


@pytest.mark.parametrize("name", ["pytorch_model.bin", "model.safetensors", "model.pth"])
def test_pickles_are_not_read(name, one, tmp_path):
    (one / "model.safetensors").unlink()
    (one / name).write_bytes(pickle.dumps(Payload(tmp_path / "marker")))
    message = refused(one)
    assert "lacks a part that can be read" in message and ("is a pickle" in message) == (name == "pytorch_model.bin")
    assert not (tmp_path / "marker").exists()


def header_with(change_header):
    def change_file(content: bytes) -> bytes:
        header, payload = split_safetensors(content)
        entries = json.loads(header)
        return join_safetensors(change_header(entries), payload)

    return change_file


def of_weight(**values):
    def change_header(entries: dict) -> bytes:
        entries["classifier.weight"].update(values)
        return json.dumps(entries).encode()

    return header_with(change_header)


def named_twice(entries: dict) -> bytes:
    again = json.dumps({"classifier.weight": {"dtype": "F32", "shape": [0], "data_offsets": [0, 0]}}).encode()
    return json.dumps(entries).encode()[:-1] + b"," + again[1:]


@pytest.mark.parametrize(
    "change_file",
    [
        lambda content: content[:-100],
        lambda content: content[:100],
        lambda content: b"",
        lambda content: content + b"more",
        lambda content: (2**63).to_bytes(8, "little") + content[8:],
        lambda content: (99 << 20).to_bytes(8, "little") + content[8:],
        lambda content: content[:8] + b"\0" + content[9:],
        of_weight(data_offsets=[0, 640]),
        of_weight(data_offsets=[-1, 639]),
        of_weight(data_offsets=[2**62, 2**62 + 640]),
        of_weight(shape=[2**40, 2**40]),
        of_weight(dtype="F8_E4M3"),
        header_with(named_twice),
        header_with(lambda entries: b"[" * 100_000),
    ],
    ids=range(14),
)
def test_damaged_safetensors(change_file, one):
    path = one / "model.safetensors"
    path.write_bytes(change_file(path.read_bytes()))
    assert str(one) in refused(one)


def test_another_dtype(one):
    tensors = {name: tensor.to(torch.int8) for name, tensor in load_checkpoint(str(one))[0].state_dict().items()}
    save_file(tensors, one / "model.safetensors")
    assert "as I8; expected is F16 or BF16 or F32 or F64" in refused(one)


def test_weights_that_are_no_numbers_are_named(one):
    tensors = load_checkpoint(str(one))[0].state_dict()
    tensors["classifier.bias"][2] = float("inf")
    save_file({name: tensor.clone() for name, tensor in tensors.items()}, one / "model.safetensors")
    assert "NaN or infinite values in 1 weights (classifier.bias)" in refused(one)


def test_a_header_of_other_sizes_is_refused_before_memory_is_taken(one):
    """The file agrees with itself and is 256 GiB long, most of it a hole."""
    shape, size = [2**16, 2**20], 2**38
    header = json.dumps({"classifier.weight": {"dtype": "F32", "shape": shape, "data_offsets": [0, size]}}).encode()
    with (one / "model.safetensors").open("wb") as file:
        file.write(join_safetensors(header, b""))
        file.truncate(8 + len(header) + size)
    assert "too large" in refused(one)


# Names and links


@pytest.mark.parametrize(
    ("shard", "expected"),
    [
        ("../one/model.safetensors", "which is not in the folder itself"),
        ("{outside}/model.safetensors", "which is not in the folder itself"),
        ("sub/../model.safetensors", "which is not in the folder itself"),
        ("a\nb.safetensors", "names a file 'a\\nb.safetensors', which is not in the folder itself"),
        ("x" * 5000 + ".safetensors", "which is not in the folder itself"),
        ("missing.safetensors", "lacks a part that can be read, missing.safetensors"),
        ("pytorch_model.bin", "names no safetensors"),
        ("link.safetensors", "outside the checkpoint"),
        ("pipe.safetensors", "lacks a part that can be read, pipe.safetensors"),
        ("zero.safetensors", "lacks a part that can be read, zero.safetensors"),
    ],
)
def test_an_index_that_leads_elsewhere(shard, expected, many, one):
    index = many / "model.safetensors.index.json"
    contents = json.loads(index.read_text())
    for name in contents["weight_map"]:
        contents["weight_map"][name] = shard.format(outside=one)
    index.write_text(json.dumps(contents))
    (many / "link.safetensors").symlink_to(one / "model.safetensors")
    (many / "zero.safetensors").symlink_to("/dev/zero")
    os.mkfifo(many / "pipe.safetensors")
    assert expected in refused(many)


def test_a_shard_that_is_missing_or_there_twice(many):
    shards = sorted(many.glob("*.safetensors"))
    content = shards[0].read_bytes()
    shards[0].unlink()
    assert "lacks a part that can be read, model-00001" in refused(many)
    shards[0].write_bytes(shards[1].read_bytes())
    assert "once more" in refused(many)
    shards[0].write_bytes(content)
    load_checkpoint(str(many))


@pytest.mark.parametrize("name", ["config.json", "preprocessor_config.json", "model.safetensors", "checksums.json"])
def test_links_that_lead_out(name, one, saved):
    (one / name).unlink(missing_ok=True)
    target = saved / "one" / ("config.json" if name == "checksums.json" else name)
    (one / name).symlink_to(target)
    assert "outside the checkpoint" in refused(one)


# Other people's files, for the converter


def test_a_compressed_file_is_refused(tmp_path):
    """A few bytes that would become a thousand times as many."""
    with zipfile.ZipFile(tmp_path / "bomb.pth", "w", zipfile.ZIP_DEFLATED) as archive:
        with archive.open("archive/data.pkl", "w", force_zip64=True) as file:
            for _ in range(1 << 7):
                file.write(bytes(1 << 20))
        archive.writestr("archive/version", "3\n")
    assert (tmp_path / "bomb.pth").stat().st_size < 1 << 18
    with bounded_memory(1 << 26), pytest.raises(CheckpointError, match=r"not as torch\.save writes one"):
        convert(tmp_path / "bomb.pth", tmp_path / "out")


def test_tensors_that_repeat_one_number_are_refused(tmp_path):
    """A small file whose tensors would be terabytes once they are copied."""
    row = torch.ones(1)
    weights = {
        "patch_embed.proj.weight": row.expand(65536, 3, 16, 16),
        "layers.0.mixer.A_log": row.expand(2048),
        "layers.0.mixer.in_proj.weight": row.expand(270464, 65536),
    }
    torch.save(weights, tmp_path / "small.pth")
    assert (tmp_path / "small.pth").stat().st_size < 10_000
    with bounded_memory(1 << 29), pytest.raises(CheckpointError, match="they overlap or repeat themselves"):
        convert(tmp_path / "small.pth", tmp_path / "out")


# Commands


def test_a_command_says_so_in_one_line(one, tmp_path, capsys):
    change(one / "config.json", auto_map={"AutoModel": "evil/repo--x.Y"})
    (tmp_path / "image.png").write_bytes(b"")
    assert visualize.main([str(one), str(tmp_path / "image.png")]) == 2
    errors = capsys.readouterr().err
    assert errors.startswith("error: ") and errors.count("\n") == 1
