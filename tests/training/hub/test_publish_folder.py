# Copyright 2026 The modeling_pixelvit team. All rights reserved.
# SPDX-License-Identifier: Apache-2.0
"""Where published checkpoints come from, their example images, and what may not lie in their folders."""

import json
import os
import shutil
from pathlib import Path

import numpy as np
import pytest
from helpers import tiny_config, tiny_model
from PIL import Image

from modeling_pixelvit import AdventurerForImageClassification, PixelViTImageProcessor
from training.checkpoints.checksums import CHECKSUMS_FILE, write_checksums
from training.common.files import write_json
from training.engine.checkpoints import COMPLETE_FILE
from training.hub.example import example_image
from training.hub.folder import FolderOptions, build_folder, endpoint_requirements
from training.hub.scan import scan_folder
from training.hub.source import Source, find_source, read_training


@pytest.fixture(scope="module")
def published(tmp_path_factory):
    work = tmp_path_factory.mktemp("folder")
    model = tiny_model(AdventurerForImageClassification)
    model.save_pretrained(work / "source")
    PixelViTImageProcessor.for_config(model.config).save_pretrained(work / "source")
    folder = work / "published"
    folder.mkdir()
    build_folder(Source(work / "source"), folder, FolderOptions("tester/model"))
    return folder


@pytest.fixture
def folder(published, tmp_path):
    return shutil.copytree(published, tmp_path / "folder")


# Sources


def make_model_folder(folder, **files):
    folder.mkdir(parents=True)
    (folder / "config.json").write_text("{}")
    for name, content in files.items():
        write_json(folder / name, content)
    return folder


def make_checkpoint(run, step, evaluated, metrics):
    progress = {"progress": {"step": step, "evaluated_step": evaluated, "metrics": metrics}}
    folder = make_model_folder(run / "checkpoints" / f"step-{step:08d}")
    write_json(folder / "progress.json", progress)
    make_model_folder(folder / "average")
    (folder / "recipe.yaml").write_text(
        "family: adventurer\ninitial_checkpoint: /home/somebody/runs/stage1/best\nlearning_rate: 0.1\n"
    )
    sizes = {str(path.relative_to(folder)): path.stat().st_size for path in folder.rglob("*") if path.is_file()}
    write_json(folder / COMPLETE_FILE, sizes)
    return folder


def test_run_gives_its_last_checkpoint_with_the_metrics_of_that_step(tmp_path):
    metrics = {"eval_loss": 0.5, "eval_accuracy": 80.0, "eval_average_loss": 0.4, "eval_average_accuracy": 90.0}
    make_checkpoint(tmp_path, 10, 10, metrics)
    last = make_checkpoint(tmp_path, 20, 20, metrics)
    source = find_source(str(tmp_path), dataset="digits")
    assert source.folder == last
    assert source.metrics.items() >= {"loss": 0.5, "accuracy": 0.8, "dataset": "digits"}.items()
    assert source.training == {"family": "adventurer", "initial_checkpoint": "best", "learning_rate": 0.1}
    average = find_source(str(tmp_path), average=True)
    assert average.folder == last / "average" and average.metrics["accuracy"] == 0.9
    assert average.metrics["dataset"] is None


def test_metrics_of_another_step_are_not_taken(tmp_path):
    make_checkpoint(tmp_path, 20, 10, {"eval_loss": 0.5, "eval_accuracy": 80.0})
    assert find_source(str(tmp_path)).metrics is None


def test_best_weights_have_the_metrics_of_their_step(tmp_path):
    best = make_model_folder(tmp_path / "best-00000010")
    (tmp_path / "best").symlink_to(best.name)
    records = [{"step": 10, "loss": 1.0}, {"step": 10, "eval_loss": 0.5, "eval_mean_iou": 40.0}]
    records.append({"step": 20, "eval_loss": 0.6, "eval_mean_iou": 30.0})
    (tmp_path / "metrics.jsonl").write_text("".join(json.dumps(record) + "\n" for record in records))
    assert find_source(str(tmp_path / "best")).metrics.items() >= {"loss": 0.5, "mean_iou": 0.4}.items()
    # Of weights and average one was kept, and nobody knows which.
    records[1]["eval_average_loss"] = 0.1
    (tmp_path / "metrics.jsonl").write_text("".join(json.dumps(record) + "\n" for record in records))
    assert find_source(str(tmp_path / "best")).metrics is None


def test_sweep_and_trainer_tell_their_data(tmp_path):
    sweep = {"test_loss": 0.2, "test_box_ap": 50.0, "test_box_ap_large": -1.0, "data": {"source": "digit scenes"}}
    found = find_source(str(make_model_folder(tmp_path / "sweep", **{"metrics.json": {**sweep, "seconds": 5}}))).metrics
    assert found == {
        "loss": 0.2,
        "box_ap": 0.5,
        "dataset": "digit scenes",
        "split": "test",
        "source": "training.sweep",
    }
    results = {"eval_accuracy": 75.0, "eval_loss": 0.3, "eval_runtime": 9.0, "eval_samples": 10, "epoch": 2.0}
    settings = {"task": "classification", "dataset": "/data/photos", "model_name_or_path": "user/name"}
    files = {"eval_results.json": results, "finetune_settings.json": settings}
    source = find_source(str(make_model_folder(tmp_path / "trainer", **files)))
    assert source.metrics.items() >= {"accuracy": 0.75, "loss": 0.3, "dataset": "photos"}.items()
    assert set(source.metrics) == {"accuracy", "loss", "dataset", "split", "source"}
    assert source.training["model_name_or_path"] == "user/name"


@pytest.mark.parametrize("content", ["[]", "{", "[" * 100_000])
def test_broken_metrics_are_one_sentence(tmp_path, content):
    folder = make_model_folder(tmp_path / "sweep")
    (folder / "metrics.json").write_text(content)
    with pytest.raises(ValueError, match=r"metrics\.json"):
        find_source(str(folder))
    assert read_training(folder) is None


# Example images


def test_example_images():
    digits = {str(digit): digit for digit in range(10)}
    names = {"id2label": {index: name for name, index in digits.items()}, "label2id": digits}
    config = tiny_config("pixelvit", image_size=16, num_labels=10, **names)
    config.architectures = ["PixelViTForImageClassification"]
    digit = np.asarray(example_image(config))
    assert digit.shape == (16, 16, 3) and (digit[0] == 0).all() and digit.max() > 200
    config.architectures = ["PixelViTForSemanticSegmentation"]
    assert np.asarray(example_image(config)).std(axis=(0, 1)).min() > 10  # a scene, in colours
    for size, expected in ((8, 16), ([64, 96], 64), (4096, 1024)):
        assert example_image(tiny_config("pixelvit", image_size=size)).size == (expected, expected)
    assert example_image(config).tobytes() == example_image(config).tobytes()


def test_own_example_image_tells_nothing_but_its_pixels(tmp_path):
    photo = Image.new("RGB", (2048, 100), "red")
    exif = Image.Exif()
    exif[0x010E] = "taken at home"
    photo.save(tmp_path / "photo.jpg", exif=exif, comment=b"by me")
    image = example_image(tiny_config("pixelvit"), str(tmp_path / "photo.jpg"))
    image.save(tmp_path / "example.png")
    assert image.size == (1024, 50) and b"home" not in (tmp_path / "example.png").read_bytes()
    assert not Image.open(tmp_path / "example.png").info


def test_requirements_are_those_of_the_package():
    assert [line.split(">")[0].split("<")[0] for line in endpoint_requirements().split()] == [
        "pillow",
        "torchvision",
        "transformers",
    ]


# What may not lie in a folder


def test_folder_as_built_passes(folder):
    scan_folder(folder, private=["somewhere/else"])


@pytest.mark.parametrize(
    "name, content, words",
    [
        ("pytorch_model.bin", b"PK\x03\x04", "pickle or an archive"),
        ("evil.txt", b"\x80\x04\x95", "pickle or an archive"),
        ("example.png", b"\x80\x02}", "pickle or an archive"),
        ("weights.npy", b"\x93NUMPY", "pickle or an archive"),
        ("old.pkl", b"cos\nsystem\n", "does not belong"),
        ("optimizer.safetensors", b"", "does not belong"),
        ("model-1.safetensors", b"", "does not belong"),
        ("__init__.py", b"import os", "not the code of this package"),
        ("modeling_base.py", b"import os", "not the code of this package"),
        ("evil.py", b"import os", "does not belong"),
        ("model-00001-of-00002.safetensors", b"\x08\0\0\0\0\0\0\0{}      ", "weights files"),
        ("model.safetensors", b"\xff" * 100, "no whole safetensors file"),
        ("README.md", b"\xff\xfe", "no UTF-8"),
        ("README.md", b"trained from /home/somebody/stage1", "/home/somebody"),
        ("README.md", b"see file:///secret", "file://"),
        ("README.md", b"at C:\\Users\\me", "C:"),
        ("config.json", b"[]", "not a JSON object"),
        ("config.json", b"{", "not valid JSON"),
        ("config.json", b"{}", "no auto_map"),
        ("config.json", b'{"auto_map": {"AutoModel": "evil/repo--modeling_base.X"}}', "no class of the folder"),
        ("config.json", b'{"auto_map": {"AutoModel": "evil.X"}}', "no class of the folder"),
        ("config.json", b'{"auto_map": {"AutoModel": "../modeling_base.X"}}', "no class of the folder"),
        ("config.json", b'{"auto_map": {"AutoModel": 1}}', "no class of the folder"),
    ],
)
def test_files_that_may_not_lie_there(folder, name, content, words):
    (folder / name).write_bytes(content)
    write_checksums(folder)
    with pytest.raises(ValueError) as caught:
        scan_folder(folder)
    assert words in str(caught.value) and "\n" not in str(caught.value)


@pytest.mark.parametrize("name", ["config.json", "handler.py", "README.md", "example.png", CHECKSUMS_FILE])
def test_files_that_must_lie_there(folder, name):
    (folder / name).unlink()
    with pytest.raises(ValueError, match=name):
        scan_folder(folder)


def test_links_and_folders(folder):
    (folder / "evil").mkdir()
    with pytest.raises(ValueError, match="evil is a link or a folder"):
        scan_folder(folder)
    (folder / "evil").rmdir()
    (folder / "LICENSE").unlink()
    (folder / "LICENSE").symlink_to("/etc/hostname")
    with pytest.raises(ValueError, match="LICENSE is a link or a folder"):
        scan_folder(folder)


def test_folders_of_this_machine(folder, monkeypatch):
    monkeypatch.setattr(Path, "cwd", lambda: Path("/lustre/project7"))
    with (folder / "README.md").open("a") as file:
        file.write("trained on /lustre/project7\n")
    with pytest.raises(ValueError, match="/lustre/project7"):
        scan_folder(folder)
    with pytest.raises(ValueError, match="trained on"):
        scan_folder(folder, private=["trained on"])


def test_changed_file(folder):
    (folder / "requirements.txt").write_text("transformers\n")
    with pytest.raises(ValueError, match=r"requirements\.txt"):
        scan_folder(folder)
    assert os.listdir(folder)
