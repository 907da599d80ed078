# Copyright 2026 The modeling_pixelvit team. All rights reserved.
# SPDX-License-Identifier: Apache-2.0
"""Files of the released form and at the real sizes become folders that say where they come from, or are refused."""

import argparse
import hashlib
import json
import shutil
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from released_files import WIDTHS, our_adventurer_name, released_shapes, write_released
from safetensors.torch import load_file, save_file

from modeling_pixelvit import AdventurerForImageClassification
from modeling_pixelvit.image_settings import crop_ratio
from training.checkpoints.loading import load_checkpoint
from training.checkpoints.reading import CheckpointError
from training.foreign import released
from training.foreign.importing import import_checkpoint, paper_accuracy
from training.foreign.released import download, find_file, released_checkpoints, select
from training.import_released import main


ROOT = Path(__file__).parents[3]


def load_released(path):
    """By PyTorch's own restricted reader, which is told of the one class that such a file holds."""
    with torch.serialization.safe_globals([argparse.Namespace]):
        return torch.load(path, weights_only=True)


# Counted by the paper's authors' code with 1,000 classes.
EXACT_COUNTS = {
    "tiny": {(224, 16): 11_608_840, (224, 1): 24_207_880, (128, 1): 15_557_128, (64, 1): 12_411_400},
    "small": {(224, 16): 44_491_816, (224, 1): 69_689_896, (128, 1): 52_388_392, (64, 1): 46_096_936},
    "base": {(224, 16): 98_657_608, (224, 1): 136_454_728, (128, 1): 110_502_472, (64, 1): 101_065_288},
    "large": {(224, 16): 346_196_200},
}
SMALL_NAMES = ("adventurer-tiny-patch16-224", "adventurer-tiny-patch1-64")


@pytest.fixture(scope="module")
def downloads(tmp_path_factory) -> Path:
    """Tiny's files of the released form, at 224 pixels with patch 16 and at 64 pixels with patch 1."""
    folder = tmp_path_factory.mktemp("downloads")
    for name in SMALL_NAMES:
        entry = released_checkpoints()[name]
        write_released(folder / entry.filename, entry.variant, entry.patch_size, entry.image_size)
    return folder


@pytest.fixture(scope="module")
def imported(downloads, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("imported")
    assert main([*SMALL_NAMES, "--from", str(downloads), "--output_dir", str(folder)]) == 0
    return folder


def run(capsys, *arguments: object) -> tuple[int, str, str]:
    status = main([str(argument) for argument in arguments])
    output = capsys.readouterr()
    assert "Traceback" not in output.err
    return status, output.out, output.err


# The table


def test_the_17_released_checkpoints_and_timms():
    table = released_checkpoints()
    adventurers = [entry for entry in table.values() if entry.family == "adventurer"]
    assert len(adventurers) == 17 and select(["released"]) == adventurers
    assert {entry.license for entry in adventurers} == {None}
    for entry in adventurers:
        assert entry.name == f"adventurer-{entry.variant}-patch{entry.patch_size}-{entry.image_size}"
        assert entry.filename == entry.name.replace("-", "_") + ".pth"
        assert entry.repo_id == "Wangf3014/" + ("Patch_Scaling" if entry.patch_size == 1 else "Adventurer")
        shapes = released_shapes(*WIDTHS[entry.variant], entry.patch_size, entry.image_size)
        assert entry.parameters == sum(torch.Size(shape).numel() for shape in shapes.values())
        known = EXACT_COUNTS[entry.variant].get((entry.image_size, entry.patch_size))
        assert known in (None, entry.parameters) and paper_accuracy(entry.name).endswith(" (paper)")
    assert {entry.license for entry in select(["deit"])} == {"apache-2.0"}
    assert len(select(["all", "deit"])) == len(table) == 17 + len(select(["deit"]))


def test_timms_table_is_timms():
    timm = pytest.importorskip("timm")
    known = {}
    for name in timm.list_pretrained(["deit_*", "deit3_*"]):
        if "distilled" not in name:
            known[f"timm/{name}"] = timm.get_pretrained_cfg(name)
    assert {entry.repo_id for entry in select(["deit"])} == known.keys()
    for entry in select(["deit"]):
        cfg = known[entry.repo_id]
        assert (cfg.input_size[1], cfg.crop_pct, cfg.license) == (entry.image_size, entry.crop_pct, entry.license)
        assert cfg.hf_hub_id and (cfg.mean, cfg.std) == ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))


# Importing


@pytest.mark.parametrize("name", SMALL_NAMES)
def test_every_tensor_is_used_and_none_is_missing(name, downloads, imported):
    entry, folder = released_checkpoints()[name], imported / name
    source = load_released(downloads / entry.filename)["model"]
    written = load_file(folder / "model.safetensors")
    assert {our_adventurer_name(key) for key in source} == written.keys()
    assert all(torch.equal(written[our_adventurer_name(key)], tensor) for key, tensor in source.items())
    model, processor = load_checkpoint(str(folder))
    assert sum(parameter.numel() for parameter in model.parameters()) == entry.parameters
    assert model.config.flip_blocks == [2, 3] and model.config.id2label[0] == "tench, Tinca tinca"
    assert len(model.config.id2label) == 1000 and processor.crop_pct == crop_ratio(entry.image_size, entry.patch_size)
    assert processor.crop_pct == 0.875


@pytest.mark.parametrize("name", SMALL_NAMES)
def test_a_folder_says_where_its_weights_come_from(name, downloads, imported):
    entry, folder = released_checkpoints()[name], imported / name
    checksum = hashlib.sha256((downloads / entry.filename).read_bytes()).hexdigest()
    origin = {
        "name": name,
        "repo_id": entry.repo_id,
        "filename": entry.filename,
        "sha256": checksum,
        "license": None,
        "entry": "model",
    }
    assert json.loads((folder / "config.json").read_text())["weights_origin"] == origin
    card = (folder / "README.md").read_text()
    assert entry.repo_id in card and "license: apache" not in card and "licence" in card
    assert json.loads((folder / "checksums.json").read_text()).keys() == {path.name for path in folder.iterdir()} - {
        "README.md",
        "checksums.json",
    }


def test_what_is_there_is_left_alone(downloads, imported, capsys):
    before = {path: path.stat().st_mtime_ns for path in imported.rglob("*")}
    status, out, _ = run(capsys, SMALL_NAMES[0], "--from", downloads, "--output_dir", imported)
    assert status == 0 and f"{SMALL_NAMES[0]}: there already" in out and "78.2 (paper)" in out
    assert {path: path.stat().st_mtime_ns for path in imported.rglob("*")} == before
    # The averaged weights are others, and do not take the place of what is there unasked.
    status, _, err = run(capsys, SMALL_NAMES[0], "--from", downloads, "--output_dir", imported, "--ema")
    assert status == 1 and "--overwrite" in err


def test_averaged_weights(downloads, imported, tmp_path):
    entry = released_checkpoints()[SMALL_NAMES[1]]
    import_checkpoint(entry, tmp_path, downloads, ema=True)
    model, _ = load_checkpoint(str(tmp_path / entry.name))
    averaged = load_released(downloads / entry.filename)["model_ema"]
    assert torch.equal(model.classifier.weight, averaged["head.weight"])
    assert model.config.weights_origin["entry"] == "model_ema"
    assert import_checkpoint(entry, tmp_path, downloads, ema=True).state == "there already"
    assert import_checkpoint(entry, tmp_path, downloads, overwrite=True).state == "imported"
    assert load_checkpoint(str(tmp_path / entry.name))[0].config.weights_origin["entry"] == "model"


def test_all_goes_on_after_a_failure(downloads, tmp_path, capsys):
    names = ["adventurer-base-patch1-224", SMALL_NAMES[1]]
    status, out, err = run(capsys, *names, "--from", downloads, "--output_dir", tmp_path / "out")
    assert status == 1 and err.count("\n") == 1 and err.startswith("error: adventurer-base-patch1-224: ")
    rows = [line.split() for line in out.splitlines()[-3:]]
    assert rows[0] == ["name", "state", "parameters", "top-1"]
    assert rows[1] == ["adventurer-base-patch1-224", "failed", "136,454,728", "84.6", "(paper)"]
    assert rows[2] == [SMALL_NAMES[1], "imported", "12,411,400", "77.4", "(paper)"]
    assert [path.name for path in (tmp_path / "out").iterdir()] == [SMALL_NAMES[1]]


def without_head(contents):
    del contents["model"]["head.weight"], contents["model"]["head.bias"]


def without_a_weight(contents):
    del contents["model"]["layers.7.mixer.D"]


def with_a_weight(contents):
    contents["model"]["layers.7.mixer.E"] = torch.ones(3)


def with_nan(contents):
    contents["model"]["layers.7.mixer.D"][3] = float("nan")


def with_fewer_classes(contents):
    for key in ("head.weight", "head.bias"):
        contents["model"][key] = contents["model"][key][:10].clone()


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        (without_head, "no classifier"),
        (without_a_weight, "layers.7.mixer.D"),
        (with_a_weight, "layers.7.mixer.E"),
        (with_nan, "layers.7.mixer.D"),
        (with_fewer_classes, "10 classes"),
    ],
)
def test_files_that_are_not_whole_are_refused(change, expected, downloads, tmp_path, capsys):
    entry = released_checkpoints()[SMALL_NAMES[1]]
    contents = load_released(downloads / entry.filename)
    del contents["model_ema"]
    change(contents)
    torch.save(contents, tmp_path / entry.filename)
    status, _, err = run(capsys, entry.name, "--from", tmp_path, "--output_dir", tmp_path / "out")
    assert status == 1 and expected in err and err.count("\n") == 1
    assert not (tmp_path / "out").exists() or not list((tmp_path / "out").iterdir())


def test_another_model_under_the_name_is_refused(downloads, tmp_path, capsys):
    first, second = (released_checkpoints()[name] for name in SMALL_NAMES)
    shutil.copy(downloads / first.filename, tmp_path / second.filename)
    status, _, err = run(capsys, second.name, "--from", tmp_path, "--output_dir", tmp_path / "out")
    assert status == 1 and "patch size is 16, expected is 1" in err


def test_a_damaged_folder_is_not_taken_for_imported(downloads, imported, tmp_path):
    entry = released_checkpoints()[SMALL_NAMES[1]]
    shutil.copytree(imported / entry.name, tmp_path / entry.name)
    weights = tmp_path / entry.name / "model.safetensors"
    content = bytearray(weights.read_bytes())
    content[len(content) // 2] ^= 1
    weights.write_bytes(content)
    with pytest.raises(CheckpointError, match=r"model\.safetensors is not the file"):
        import_checkpoint(entry, tmp_path, downloads)


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ([], "No name was given"),
        (["adventurer-huge-patch1-224"], "no released checkpoint"),
        (["all", "--from", "no/such/folder"], "is no folder"),
    ],
)
def test_wrong_arguments(arguments, expected, capsys):
    status, _, err = run(capsys, *arguments)
    assert status == 2 and err.startswith("error: ") and expected in err and err.count("\n") == 1


def test_list(capsys):
    status, out, _ = run(capsys, "--list")
    assert status == 0 and len(out.splitlines()) == 1 + len(released_checkpoints())
    assert "none stated" in out and "timm/deit3_huge_patch14_224.fb_in1k" in out


def test_files_of_one_name_lie_in_folders_of_their_repositories(tmp_path):
    entry = released_checkpoints()["deit-tiny-patch16-224"]
    (tmp_path / "model.safetensors").write_bytes(b"whose?")
    with pytest.raises(CheckpointError, match=r"no deit_tiny_patch16_224\.fb_in1k/model\.safetensors"):
        find_file(entry, tmp_path)
    (tmp_path / "deit_tiny_patch16_224.fb_in1k").mkdir()
    (tmp_path / "deit_tiny_patch16_224.fb_in1k" / "model.safetensors").write_bytes(b"its own")
    assert find_file(entry, tmp_path).read_bytes() == b"its own"


# Downloads, at the boundary to huggingface_hub


class Hub:
    """A hub with one file, whose first downloads come out damaged."""

    def __init__(self, folder: Path, damaged: int, etag: str | None = None):
        self.folder, self.damaged, self.calls = folder, damaged, []
        self.etag = etag or hashlib.sha256(b"weights").hexdigest()

    def metadata(self, url):
        self.url = url
        return SimpleNamespace(etag=self.etag, commit_hash="c0ffee", size=7)

    def download(self, repo_id, filename, revision, force_download):
        self.calls.append((repo_id, filename, revision, force_download))
        path = self.folder / filename
        path.write_bytes(b"weighty" if len(self.calls) <= self.damaged else b"weights")
        return str(path)


def use(hub: Hub, monkeypatch) -> Hub:
    monkeypatch.setattr(released, "get_hf_file_metadata", hub.metadata)
    monkeypatch.setattr(released, "hf_hub_download", hub.download)
    return hub


def test_a_download_is_of_one_revision_and_verified(tmp_path, monkeypatch):
    entry, hub = released_checkpoints()[SMALL_NAMES[0]], use(Hub(tmp_path, damaged=0), monkeypatch)
    path, checksum = download(entry, print)
    assert path.read_bytes() == b"weights" and checksum == hub.etag
    assert hub.calls == [(entry.repo_id, entry.filename, "c0ffee", False)]
    assert hub.url.endswith(f"/{entry.repo_id}/resolve/main/{entry.filename}")


def test_a_damaged_download_is_repeated_once_and_then_refused(tmp_path, monkeypatch):
    entry, lines = released_checkpoints()[SMALL_NAMES[0]], []
    hub = use(Hub(tmp_path, damaged=1), monkeypatch)
    download(entry, lines.append)
    assert [call[3] for call in hub.calls] == [False, True] and "damaged" in lines[0]
    hub = use(Hub(tmp_path, damaged=9), monkeypatch)
    with pytest.raises(CheckpointError, match="it was not used"):
        download(entry, lines.append)
    assert len(hub.calls) == 2


def test_a_file_without_a_checksum_is_refused(tmp_path, monkeypatch):
    hub = use(Hub(tmp_path, damaged=0, etag="0" * 40), monkeypatch)
    with pytest.raises(CheckpointError, match="no SHA-256"):
        download(released_checkpoints()[SMALL_NAMES[0]], print)
    assert not hub.calls


def test_without_a_connection(tmp_path, monkeypatch, capsys):
    def fail(*args, **kwargs):
        raise ConnectionError("no route to host")

    monkeypatch.setattr(released, "get_hf_file_metadata", fail)
    status, _, err = run(capsys, SMALL_NAMES[0], "--output_dir", tmp_path)
    assert status == 1 and "cannot be downloaded" in err and "--from" in err and err.count("\n") == 1


# All of them, at their real sizes


def check_import(entry, folder: Path, tmp_path: Path):
    assert import_checkpoint(entry, tmp_path / "out", folder).state == "imported"
    written = load_file(tmp_path / "out" / entry.name / "model.safetensors")
    assert sum(tensor.numel() for tensor in written.values()) == entry.parameters
    return written


@pytest.mark.slow
@pytest.mark.parametrize("entry", select(["released"]), ids=lambda entry: entry.name)
def test_real_sizes_of_the_released_form(entry, tmp_path):
    path = tmp_path / entry.filename
    source = write_released(path, entry.variant, entry.patch_size, entry.image_size, averaged=False)
    written = check_import(entry, tmp_path, tmp_path)
    assert {our_adventurer_name(key) for key in source} == written.keys()
    assert all(torch.equal(written[our_adventurer_name(key)], tensor) for key, tensor in source.items())
    shutil.rmtree(tmp_path)  # pytest keeps those of the last runs


@pytest.mark.slow
@pytest.mark.parametrize(
    "entry", [entry for entry in select(["deit"]) if "in22k" not in entry.name], ids=lambda entry: entry.name
)
def test_real_sizes_of_timms_deit(entry, tmp_path):
    """Those that were trained on ImageNet-22k first are the same models."""
    timm = pytest.importorskip("timm")
    torch.manual_seed(0)
    reference = timm.create_model(entry.repo_id.split("/")[1].split(".")[0]).eval()
    with torch.no_grad():
        for parameter in reference.parameters():
            parameter.add_(0.02 * torch.randn_like(parameter))
    folder = tmp_path / entry.repo_id.split("/")[1]
    folder.mkdir()
    save_file(reference.state_dict(), folder / entry.filename)
    check_import(entry, tmp_path, tmp_path)
    model, processor = load_checkpoint(str(tmp_path / "out" / entry.name))
    pixels = torch.randn(1, 3, entry.image_size, entry.image_size)
    with torch.no_grad():
        logits, expected = model(pixels).logits, reference(pixels)
    assert (logits - expected).norm() / expected.norm() < 1e-4 and expected.norm() > 0
    assert processor.crop_pct == entry.crop_pct and type(model) is not AdventurerForImageClassification
    shutil.rmtree(tmp_path)
