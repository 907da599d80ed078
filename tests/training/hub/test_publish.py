# Copyright 2026 The modeling_pixelvit team. All rights reserved.
# SPDX-License-Identifier: Apache-2.0
"""Folders for the hub: built, proven in a fresh process, pushed to a local server and loaded from there."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from helpers import tiny_model
from PIL import Image
from published import PUBLISHED, build_all, save_checkpoint
from safetensors.torch import load_file, save_file
from transformers import pipeline

from modeling_pixelvit import AdventurerForImageClassification, PixelViTForImageClassification, PixelViTImageProcessor
from training import publish
from training.hub import publishing
from training.hub import remote_check as remote
from training.hub.check import expect, run_fresh
from training.hub.scan import PACKAGE_FOLDER, scan_folder


REPO = "tester/model"


@pytest.fixture(scope="module")
def jobs(tmp_path_factory):
    return build_all(tmp_path_factory.mktemp("published"))


@pytest.fixture(scope="module")
def results(jobs, tmp_path_factory):
    """What the fresh process finds about these folders, and about copies that were tampered with: {name: result}."""
    work = tmp_path_factory.mktemp("check")
    described = {name: expect(job, work / name) for name, job in jobs.items()}
    for name, tamper in TAMPERED.items():
        original = described[tamper.original]
        folder = shutil.copytree(original["folder"], work / f"tampered-{name}")
        tamper(folder)
        described[name] = {**original, "folder": str(folder)}
    return dict(zip(described, run_fresh(list(described.values()), work), strict=True))


def tampers_with(original):
    def mark(function):
        function.original = original
        TAMPERED[function.__name__] = function
        return function

    return mark


TAMPERED = {}


@tampers_with("adventurer-classifier")
def one_bit_of_the_weights(folder):
    tensors = load_file(folder / "model.safetensors")
    tensors["classifier.weight"].view(torch.int32)[0, 0] ^= 1
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})


@tampers_with("pixelvit-classifier")
def one_entry_of_the_processor(folder):
    path = folder / "preprocessor_config.json"
    settings = json.loads(path.read_text())
    path.write_text(json.dumps({**settings, "image_mean": [0.5, 0.5, 0.5]}))


@tampers_with("adventurer-classifier")
def a_label(folder):
    path = folder / "config.json"
    path.write_text(path.read_text().replace("LABEL_0", "cat"))


@tampers_with("pixelvit-detector")
def code_that_needs_the_package(folder):
    path = folder / "modeling_detection.py"
    path.write_text(path.read_text() + "\nfrom modeling_pixelvit import PixelViTModel\n")


@tampers_with("adventurer-encoder")
def the_handler(folder):
    path = folder / "handler.py"
    path.write_text(path.read_text().replace('parameters.setdefault("pool", True)', "pass"))


@pytest.mark.parametrize("name", PUBLISHED)
def test_folder_gives_what_its_source_gives(results, jobs, name):
    found = results[name]
    assert found["differences"] == []
    job_class = type(jobs[name].model).__name__
    auto_class = "AutoModel" if job_class.endswith("Model") else f"AutoModelFor{job_class.split('For')[1]}"
    pipelines = [compared for compared in found["compared"] if compared.startswith("pipeline ")]
    assert {
        "weights",
        "AutoConfig",
        "AutoImageProcessor torchvision",
        "AutoImageProcessor pil",
        "AutoModel",
        auto_class,
    } | {
        "handler.py",
        *pipelines,
    } == set(found["compared"])
    assert len(pipelines) == (2 if name == "adventurer-detector" else 1)


@pytest.mark.parametrize(
    "name, words",
    [
        ("one_bit_of_the_weights", "weights: classifier.weight is not as in the source"),
        ("one_entry_of_the_processor", "AutoImageProcessor torchvision, image.0.pixel_values differs"),
        ("a_label", "AutoConfig: id2label is not as in the source"),
        ("code_that_needs_the_package", "modeling_pixelvit"),
        ("the_handler", "handler.py answers otherwise"),
    ],
)
def test_folder_that_was_tampered_with_is_found_out(results, name, words):
    assert any(words in sentence for sentence in results[name]["differences"]), results[name]["differences"]


@pytest.mark.parametrize("name", PUBLISHED)
def test_folder_has_what_it_should_and_nothing_else(jobs, name):
    folder = jobs[name].folder
    scan_folder(folder)
    names = {path.name for path in folder.iterdir()}
    assert {"README.md", "LICENSE", "handler.py", "requirements.txt", "example.png", "checksums.json"} <= names
    shards = {name for name in names if name.endswith(".safetensors")}
    if name == "pixelvit-classifier":
        assert shards == set(json.loads(read(folder, INDEX))["weight_map"].values()) and len(shards) > 1
    else:
        assert len(shards) == 1
    dtype = PUBLISHED[name][3].get("dtype", "float32")
    assert json.loads(read(folder, "config.json"))["dtype"] == dtype
    assert f"tester/{name}" in read(folder, "README.md")


INDEX = "model.safetensors.index.json"


def read(folder, name):
    return (folder / name).read_text()


@pytest.mark.parametrize("offset", [1, 2, 3])
def test_where_weights_lie_in_memory_changes_nothing(offset):
    model = tiny_model(AdventurerForImageClassification, hidden_size=80)
    inputs = [{"pixel_values": torch.randn(1, 3, 8, 8, generator=torch.Generator().manual_seed(0))}]
    expected = remote.model_tensors(model, inputs, "AutoModelForImageClassification")
    for parameter in model.parameters():
        memory = torch.empty(offset + parameter.numel())[offset:]
        parameter.data = memory.view_as(parameter).copy_(parameter.data)
        assert parameter.data_ptr() % 16 == 4 * offset
    found = remote.model_tensors(model, inputs, "AutoModelForImageClassification")
    assert expected.keys() == found.keys() and all(torch.equal(found[name], expected[name]) for name in expected)
    assert all(parameter.data_ptr() % 16 == 0 for parameter in model.parameters())


@pytest.fixture
def unchecked(monkeypatch):
    """Without the fresh process, for what comes before and after it."""
    monkeypatch.setattr(publishing, "check_folder", lambda job: ["nothing"])


@pytest.fixture
def checkpoint(tmp_path):
    return save_checkpoint(tmp_path / "checkpoint", PixelViTForImageClassification, "classification")


LOAD_FROM_THE_HUB = """
import json, sys
from transformers import pipeline
answer = pipeline("image-classification", model=sys.argv[1], trust_remote_code=True, device="cpu")(sys.argv[2])
assert "modeling_pixelvit" not in sys.modules
print(json.dumps(answer))
"""


def test_published_checkpoint_loads_from_the_hub(hub, checkpoint, tmp_path, capsys):
    out = tmp_path / "out"
    assert publish.main([str(checkpoint), "--repo-id", REPO, "--output_dir", str(out), "--push"]) == 0
    (commit,) = hub.commits(REPO)
    output = capsys.readouterr().out
    assert f"{hub.url}/{REPO}, commit {commit.oid} on main" in output and "made the repository" in output
    image = out / "example.png"
    environment = {**os.environ, "HF_ENDPOINT": hub.url, "HF_HOME": str(tmp_path / "home"), "HF_HUB_DISABLE_XET": "1"}
    environment.pop("HF_HUB_OFFLINE", None)
    loaded = subprocess.run(
        [sys.executable, "-c", LOAD_FROM_THE_HUB, REPO, str(image)],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
    )
    assert loaded.returncode == 0, loaded.stderr
    model = PixelViTForImageClassification.from_pretrained(checkpoint)
    processor = PixelViTImageProcessor.from_pretrained(checkpoint)
    expected = pipeline("image-classification", model=model, image_processor=processor, device="cpu")
    assert json.loads(loaded.stdout.splitlines()[-1]) == expected(Image.open(image))


def test_folder_that_fails_its_check_is_neither_kept_nor_pushed(hub, checkpoint, tmp_path, monkeypatch, capsys):
    def fails(jobs):
        raise ValueError("out does not give what its source gives: AutoModel; it was not published.")

    monkeypatch.setattr(publishing, "check_folder", fails)
    assert publish.main([str(checkpoint), "--repo-id", REPO, "--output_dir", str(tmp_path / "out"), "--push"]) == 2
    assert (
        capsys.readouterr().err == "error: out does not give what its source gives: AutoModel; it was not published.\n"
    )
    assert hub.requests == [] and sorted(path.name for path in tmp_path.iterdir()) == ["checkpoint"]


def test_nothing_leaves_the_machine_without_push(hub, unchecked, checkpoint, tmp_path, capsys):
    assert publish.main([str(checkpoint), "--repo-id", REPO, "--output_dir", str(tmp_path / "out")]) == 0
    assert "nothing was sent" in capsys.readouterr().out and hub.requests == []


def test_code_of_the_checkpoint_is_not_run_and_not_published(unchecked, checkpoint, tmp_path):
    canary = tmp_path / "canary"
    for name in (
        "modeling_pixelvit.py",
        "configuration_pixelvit.py",
        "image_processing_pixelvit.py",
        "handler.py",
        "evil.py",
    ):
        (checkpoint / name).write_text(f"open({str(canary)!r}, 'w')\n")
    (checkpoint / "evil.pkl").write_bytes(b"\x80\x04.")
    out = tmp_path / "out"
    assert publish.main([str(checkpoint), "--repo-id", REPO, "--output_dir", str(out)]) == 0
    assert not canary.exists() and not {"evil.py", "evil.pkl"} & {path.name for path in out.iterdir()}
    for path in out.glob("*.py"):
        original = PACKAGE_FOLDER / path.name
        assert path.name == "handler.py" or path.read_bytes() == original.read_bytes()
    assert str(canary) not in read(out, "handler.py")


def test_entries_of_others_do_not_get_out(unchecked, checkpoint, tmp_path):
    config = json.loads(read(checkpoint, "config.json"))
    entries = {"_name_or_path": "/home/me/secret", "note": "of somebody else"}
    (checkpoint / "config.json").write_text(json.dumps({**config, **entries}))
    words = [str(checkpoint), "--repo-id", REPO, "--output_dir", str(tmp_path / "out")]
    assert publish.main(words) == 0
    published = json.loads(read(tmp_path / "out", "config.json"))
    assert published["auto_map"] == config["auto_map"] and not entries.keys() & published.keys()


@pytest.mark.parametrize("name", ["config.json", "preprocessor_config.json"])
@pytest.mark.parametrize("code", ["evil/repo--evil.Evil", "evil.Evil"])
def test_checkpoint_that_names_other_code_is_refused(unchecked, checkpoint, tmp_path, capsys, name, code):
    settings = json.loads(read(checkpoint, name))
    key = "AutoModel" if name == "config.json" else "AutoImageProcessor"
    (checkpoint / name).write_text(json.dumps({**settings, "auto_map": {key: code}}))
    (checkpoint / "evil.py").write_text(f"open({str(tmp_path / 'canary')!r}, 'w')\nclass Evil: pass\n")
    assert publish.main([str(checkpoint), "--repo-id", REPO, "--output_dir", str(tmp_path / "out")]) == 2
    assert "not code of this package" in capsys.readouterr().err
    assert sorted(path.name for path in tmp_path.iterdir()) == ["checkpoint"]


def test_checkpoint_that_names_a_pipeline_of_its_own_is_refused(unchecked, checkpoint, tmp_path, capsys):
    config = json.loads(read(checkpoint, "config.json"))
    pipelines = {"image-classification": {"impl": "evil.Pipeline", "pt": ["AutoModel"]}}
    (checkpoint / "config.json").write_text(json.dumps({**config, "custom_pipelines": pipelines}))
    assert publish.main([str(checkpoint), "--repo-id", REPO, "--output_dir", str(tmp_path / "out")]) == 2
    assert "custom_pipelines" in capsys.readouterr().err and not (tmp_path / "out").exists()


def test_weights_without_licence_are_built_but_not_pushed(hub, unchecked, checkpoint, tmp_path, capsys):
    config = json.loads(read(checkpoint, "config.json"))
    origin = {
        "name": "adventurer-base-patch1-224",
        "repo_id": "somebody/else",
        "filename": "weights.pth",
        "sha256": "0" * 64,
        "license": None,
        "entry": "model",
    }
    (checkpoint / "config.json").write_text(json.dumps({**config, "weights_origin": origin}))
    words = [str(checkpoint), "--repo-id", REPO, "--output_dir", str(tmp_path / "out")]
    assert publish.main([*words, "--push"]) == 2
    assert "somebody/else, which gives no licence" in capsys.readouterr().err
    assert hub.requests == [] and not (tmp_path / "out").exists()
    assert publish.main(words) == 0
    assert not (tmp_path / "out" / "LICENSE").exists()
    assert json.loads(read(tmp_path / "out", "config.json"))["weights_origin"] == origin
    assert publish.main([*words, "--license", "mit"]) == 2
    assert (
        "--license mit was given, but the weights come from somebody/else, without a licence" in capsys.readouterr().err
    )
    assert publish.main([*words, "--push", "--redistribute_unlicensed"]) == 0
    assert len(hub.commits(REPO)) == 1


def test_weights_that_are_no_numbers_are_refused(unchecked, checkpoint, tmp_path, capsys):
    tensors = load_file(checkpoint / "model.safetensors")
    tensors["classifier.bias"][0] = float("nan")
    save_file(tensors, checkpoint / "model.safetensors", metadata={"format": "pt"})
    assert publish.main([str(checkpoint), "--repo-id", REPO, "--output_dir", str(tmp_path / "out")]) == 2
    assert "classifier.bias" in capsys.readouterr().err and not (tmp_path / "out").exists()
    tensors["classifier.bias"][0] = 1e5
    save_file(tensors, checkpoint / "model.safetensors", metadata={"format": "pt"})
    words = [str(checkpoint), "--repo-id", REPO, "--output_dir", str(tmp_path / "out")]
    assert publish.main([*words, "--dtype", "float16"]) == 2
    assert "classifier.bias has values too large for torch.float16" in capsys.readouterr().err
    assert publish.main([*words, "--dtype", "bfloat16"]) == 0


def test_only_own_folders_are_replaced(unchecked, checkpoint, tmp_path, capsys):
    out = tmp_path / "out"
    words = [str(checkpoint), "--repo-id", REPO, "--output_dir", str(out)]
    other = save_checkpoint(out, AdventurerForImageClassification, "classification")
    assert publish.main(words) == 2
    assert (
        "is not empty" in capsys.readouterr().err
        and json.loads(read(other, "config.json"))["model_type"] == "adventurer"
    )
    assert publish.main([*words, "--overwrite"]) == 0
    assert json.loads(read(out, "config.json"))["model_type"] == "pixelvit"
    assert publish.main(words) == 0
    assert publish.main([str(out), "--repo-id", REPO, "--output_dir", str(out)]) == 2
    shutil.rmtree(out)
    out.mkdir()
    (out / "thesis.txt").write_text("mine")
    assert publish.main([*words, "--overwrite"]) == 2
    assert read(out, "thesis.txt") == "mine"


@pytest.mark.parametrize(
    "words, sentence",
    [
        (["nowhere", "--repo-id", REPO], "There is no folder nowhere"),
        ([".", "--repo-id", REPO], "no complete checkpoint and no run"),
        (["CHECKPOINT", "--repo-id", "model"], "give USER/NAME"),
        (["CHECKPOINT", "--repo-id", REPO, "--average"], "has no averaged weights"),
        (["CHECKPOINT", "--repo-id", REPO, "--example_image", "nowhere.png"], "There is no file nowhere.png"),
        (["CHECKPOINT", "--repo-id", REPO, "--example_image", "CHECKPOINT/config.json"], "config.json"),
        (["CHECKPOINT", "--repo-id", REPO, "--license", "my-own"], "my-own"),
        (["CHECKPOINT", "--repo-id", REPO, "--max_shard_size", "much"], "much"),
    ],
)
def test_mistakes_are_one_sentence(unchecked, checkpoint, tmp_path, monkeypatch, capsys, words, sentence):
    monkeypatch.chdir(tmp_path)
    words = [word.replace("CHECKPOINT", str(checkpoint)) for word in words]
    assert publish.main(words) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: ") and error.count("\n") == 1 and sentence in error
    assert not Path("runs/hub/model").exists()
