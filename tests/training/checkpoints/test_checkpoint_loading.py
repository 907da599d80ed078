# Copyright 2026 The modeling_pixelvit team. All rights reserved.
# SPDX-License-Identifier: Apache-2.0
"""Checkpoints load as from_pretrained has them, from folders and a hub, and keep the word on where they come from."""

import json
import shutil
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from helpers import tiny_config, tiny_model
from hub_server import Hub
from transformers import AutoImageProcessor, AutoModelForImageClassification

from modeling_pixelvit import (
    AdventurerForImageClassification,
    PixelViTForImageClassification,
    PixelViTForObjectDetection,
    PixelViTImageProcessor,
)
from training.checkpoints.checksums import file_checksum, verify_checksums, write_checksums
from training.checkpoints.loading import (
    class_name_of,
    load_checkpoint,
)
from training.checkpoints.reading import CheckpointError
from training.consolidate import consolidate
from training.engine.checkpoints import COMPLETE_FILE
from training.families.base import CLASSIFIER, DETECTOR, SEGMENTER
from training.families.registry import FAMILIES, architecture_of, model_classes
from training.finetuning.arguments import ModelArguments
from training.finetuning.model import build_model, load_config
from training.foreign.released import download, released_checkpoints
from training.tasks.initial_model import build_initial_model


pytestmark = pytest.mark.usefixtures("one_thread")

HEAD_FIELDS = {"pyramid_channels": 8, "box_head_hidden_size": 16, "mask_head_channels": 8, "decoder_hidden_size": 8}
REPO = "tester/model"
ORIGIN = {
    "name": "adventurer-tiny-patch1-64",
    "repo_id": "Wangf3014/Patch_Scaling",
    "filename": "adventurer_tiny_patch1_64.pth",
    "sha256": "0" * 64,
    "license": None,
    "entry": "model",
}


def task_of(model_class) -> str:
    architecture = architecture_of(model_class)
    return architecture.does if architecture in (DETECTOR, SEGMENTER) else "classification"


def save(model_class, folder: Path, origin: dict | None = None, **fields) -> Path:
    model = tiny_model(model_class, **{**HEAD_FIELDS, **fields})
    if origin is not None:
        model.config.weights_origin = origin
    model.save_pretrained(folder)
    PixelViTImageProcessor.for_config(model.config, task=task_of(model_class)).save_pretrained(folder)
    return folder


def same_weights(one: torch.nn.Module, other: torch.nn.Module) -> bool:
    one, other = one.state_dict(), other.state_dict()
    return one.keys() == other.keys() and all(
        torch.equal(tensor, other[name]) and tensor.dtype == other[name].dtype for name, tensor in one.items()
    )


@pytest.mark.parametrize("name", model_classes())
def test_as_from_pretrained(name, tmp_path):
    folder = save(model_classes()[name], tmp_path / "checkpoint")
    model, processor = load_checkpoint(str(folder))
    expected = model_classes()[name].from_pretrained(folder, dtype=torch.float32)
    assert class_name_of(str(folder)) == name and type(model) is model_classes()[name] and not model.training
    assert same_weights(model, expected)
    assert model.config.to_diff_dict() == {
        key: value for key, value in expected.config.to_diff_dict().items() if key != "auto_map"
    }
    assert processor.to_dict() == AutoImageProcessor.from_pretrained(folder).to_dict()
    assert type(processor) is type(AutoImageProcessor.from_pretrained(folder))
    # What comes of saving it again is the same but for nothing.
    model.save_pretrained(tmp_path / "again")
    assert (tmp_path / "again" / "config.json").read_text() == (folder / "config.json").read_text()


def test_shards_half_precision_and_odd_sizes(tmp_path):
    model = tiny_model(AdventurerForImageClassification, image_size=[4, 8], num_labels=3).half()
    model.config.id2label, model.config.label2id = {0: "a", 1: "a", 2: "c"}, {"a": 0, "c": 2}
    model.save_pretrained(tmp_path, max_shard_size="30KB")
    PixelViTImageProcessor.for_config(model.config).save_pretrained(tmp_path)
    assert not (tmp_path / "model.safetensors").exists()
    write_checksums(tmp_path)
    loaded, _ = load_checkpoint(str(tmp_path))
    assert loaded.dtype == torch.float32 and same_weights(loaded, model.float())
    assert loaded.config.id2label == {0: "a", 1: "a", 2: "c"} and loaded.config.image_size == [4, 8]


def test_links_within_a_checkpoint_and_to_one(tmp_path):
    folder = save(PixelViTForImageClassification, tmp_path / "step-1")
    (tmp_path / "best").symlink_to("step-1", target_is_directory=True)
    (folder / "model.safetensors").rename(folder / "weights.safetensors")
    (folder / "model.safetensors").symlink_to("weights.safetensors")
    assert load_checkpoint(str(tmp_path / "best"))[0].config.num_labels == 5


# From a hub


def put(hub: Hub, repo_id: str, folder: Path):
    files = {}
    for path in folder.iterdir():
        content = path.read_bytes()
        if path.suffix in (".safetensors", ".pth"):
            hub.objects[file_checksum(path)] = content
            content = file_checksum(path)
        files[path.name] = content
    hub.make(repo_id).add("main", "weights", files)


@pytest.mark.parametrize("shard_size", ["1GB", "30KB"])
def test_a_name_on_the_hub(shard_size, hub, tmp_path):
    folder = save(PixelViTForObjectDetection, tmp_path / "folder")
    shutil.rmtree(folder)
    model = tiny_model(PixelViTForObjectDetection, **HEAD_FIELDS)
    model.save_pretrained(folder, max_shard_size=shard_size)
    PixelViTImageProcessor.for_config(model.config, task="detection").save_pretrained(folder)
    (folder / "pytorch_model.bin").write_bytes(b"a pickle")
    (folder / "more.safetensors").write_bytes(b"not asked for")
    write_checksums(folder)
    put(hub, REPO, folder)
    assert class_name_of(REPO) == "PixelViTForObjectDetection"
    loaded, _ = load_checkpoint(REPO)
    assert same_weights(loaded, model) and loaded.name_or_path == REPO
    fetched = {path.rsplit("/", 1)[1] for method, path in hub.requests if method == "GET" and "/resolve/" in path}
    assert not {name for name in fetched if name.endswith((".py", ".bin"))} and "more.safetensors" not in fetched


def test_a_hub_that_sends_other_weights(hub, tmp_path):
    folder = save(PixelViTForImageClassification, tmp_path / "folder")
    write_checksums(folder)
    content = bytearray((folder / "model.safetensors").read_bytes())
    content[-2] ^= 1
    (folder / "model.safetensors").write_bytes(content)
    put(hub, REPO, folder)
    with pytest.raises(CheckpointError, match="is not the file that checksums"):
        load_checkpoint(REPO)


@pytest.mark.parametrize("shard", ["*.safetensors", "../../x.safetensors", "sub/x.safetensors"])
def test_an_index_on_a_hub_that_asks_for_other_files(shard, hub, tmp_path):
    folder = save(PixelViTForImageClassification, tmp_path / "folder")
    (folder / "model.safetensors").rename(folder / "other.safetensors")
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": {"classifier.bias": shard}}))
    put(hub, REPO, folder)
    with pytest.raises(CheckpointError, match="names a file"):
        load_checkpoint(REPO)
    assert not [path for method, path in hub.requests if path.endswith("other.safetensors")]


@pytest.mark.parametrize("name", ["tester/missing", "no/such/name", "..", "", "https://example.org/x", "a b"])
def test_names_that_lead_nowhere(name, hub):
    with pytest.raises(CheckpointError, match="neither a checkpoint folder nor") as caught:
        load_checkpoint(name)
    assert "\n" not in str(caught.value)


def test_a_released_file_from_a_hub(hub, tmp_path):
    entry = released_checkpoints()["adventurer-tiny-patch1-64"]
    (tmp_path / "files").mkdir()
    (tmp_path / "files" / entry.filename).write_bytes(b"weights" * 1000)
    put(hub, entry.repo_id, tmp_path / "files")
    path, checksum = download(entry, print)
    assert path.read_bytes() == b"weights" * 1000 and checksum == file_checksum(path)
    # Damage in the cache is found, and mended from the hub.
    path.resolve().write_bytes(b"Weights" * 1000)
    lines = []
    assert download(entry, lines.append)[1] == checksum and "damaged" in lines[0]
    # A hub whose file is not what it lists.
    hub.objects[checksum] = b"wights!" * 1000
    path.resolve().write_bytes(b"Weights" * 1000)
    with pytest.raises(CheckpointError, match="it was not used"):
        download(entry, lines.append)
    with pytest.raises(CheckpointError, match="cannot be downloaded"):
        download(released_checkpoints()["deit-tiny-patch16-224"], lines.append)


# Checksums


def test_checksums(tmp_path):
    for name in ("a.safetensors", "b.json", "README.md", ".gitattributes"):
        (tmp_path / name).write_text(name)
    verify_checksums(tmp_path)  # nothing to compare with
    assert write_checksums(tmp_path).keys() == {"a.safetensors", "b.json"}
    (tmp_path / "README.md").write_text("edited")
    (tmp_path / "new").write_text("not listed")
    verify_checksums(tmp_path)
    (tmp_path / "b.json").write_text("B.json")
    with pytest.raises(CheckpointError, match=r"b\.json is not the file"):
        verify_checksums(tmp_path)
    (tmp_path / "b.json").unlink()
    with pytest.raises(CheckpointError, match=r"lacks b\.json"):
        verify_checksums(tmp_path)
    verify_checksums(tmp_path, complete=False)
    for entry in ({"../a": "0" * 64}, {"a.safetensors": "0" * 63}, {"a.safetensors": None}, {"..": "0" * 64}):
        (tmp_path / "checksums.json").write_text(json.dumps(entry))
        with pytest.raises(CheckpointError, match=r"has an entry|lacks \.\."):
            verify_checksums(tmp_path)


# Where weights come from


@pytest.fixture(
    params=[family.model_classes[CLASSIFIER] for family in FAMILIES.values()],
    ids=lambda model_class: model_class.__name__,
)
def imported(request, tmp_path) -> Path:
    return save(request.param, tmp_path / "imported", ORIGIN)


def origin_of(folder: Path) -> dict | None:
    return json.loads((folder / "config.json").read_text()).get("weights_origin")


def test_the_origin_stays_when_a_checkpoint_is_loaded_and_saved(imported, tmp_path):
    for number, model in enumerate(
        (
            AutoModelForImageClassification.from_pretrained(imported),
            AutoModelForImageClassification.from_pretrained(
                imported, patch_size=4, num_labels=3, ignore_mismatched_sizes=True
            ),
            load_checkpoint(str(imported))[0],
        )
    ):
        model.save_pretrained(tmp_path / str(number))
        assert origin_of(tmp_path / str(number)) == ORIGIN


def test_the_origin_stays_in_training(imported, tmp_path):
    config = AutoModelForImageClassification.from_pretrained(imported).config
    model_class = model_classes()[config.architectures[0]]
    recipe = SimpleNamespace(
        build_config=lambda **fields: tiny_config(config.model_type, **fields),
        seed=0,
        initial_checkpoint=str(imported),
        patch_size=4,
        image_size=8,
        drop_path_rate=0.1,
        model={},
    )
    build_initial_model(recipe, model_class, num_labels=7).save_pretrained(tmp_path / "checkpoint")
    assert origin_of(tmp_path / "checkpoint") == ORIGIN
    recipe.initial_checkpoint = None
    recipe.position_scale = 0
    build_initial_model(recipe, model_class, num_labels=7).save_pretrained(tmp_path / "new")
    assert origin_of(tmp_path / "new") is None
    sizes = {path.name: path.stat().st_size for path in (tmp_path / "checkpoint").iterdir()}
    (tmp_path / "checkpoint" / COMPLETE_FILE).write_text(json.dumps(sizes))
    consolidate(tmp_path / "checkpoint", tmp_path / "plain")
    assert origin_of(tmp_path / "plain") == ORIGIN


@pytest.mark.parametrize("from_scratch", [False, True])
def test_the_origin_stays_in_fine_tuning_but_not_without_the_weights(from_scratch, imported, tmp_path):
    arguments = ModelArguments(model_name_or_path=str(imported), from_scratch=from_scratch, patch_size=4)
    config = load_config(CLASSIFIER, arguments)
    names = dict(enumerate("abc"))
    task = SimpleNamespace(
        model_class=FAMILIES[config.model_type].model_classes[CLASSIFIER],
        config_fields=lambda: {"id2label": names, "label2id": {name: index for index, name in names.items()}},
        images=SimpleNamespace(name="letters"),
        name="classification",
    )
    build_model(task, arguments, config, do_train=True).save_pretrained(tmp_path / "tuned")
    assert origin_of(tmp_path / "tuned") == (None if from_scratch else ORIGIN)
