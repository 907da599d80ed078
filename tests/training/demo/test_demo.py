# Copyright 2026 The modeling_pixelvit team. All rights reserved.
# SPDX-License-Identifier: Apache-2.0
"""The demo without its page: what it answers, what it reads, what it keeps, and what it trains or finds trained."""

import dataclasses
import json
import os
import pickle
import struct
import sys
import zlib
from pathlib import Path

import numpy as np
import pytest
import torch
from demo_models import IMAGE_SIZE, NAMES, photograph, save_tiny
from PIL import Image

from modeling_pixelvit import PixelViTForImageClassification, PixelViTModel
from training.checkpoints.loading import load_checkpoint
from training.demo.checkpoints import Checkpoint, ModelStore, same_but_for_patches
from training.demo.examples import write_examples
from training.demo.patches import (
    draw_tokens,
    forward_memory,
    forward_milliseconds,
    seen_pixels,
    views_of_checkpoint,
    views_of_group,
)
from training.demo.predictions import classify, detect, read_upload, segment, summarize
from training.demo.runs import DEMO_RUNS, plan_demo_runs, train_or_reuse
from training.demo.settings import Demo
from training.demo.start import find_port, is_this_machine
from training.demo_app import main
from training.tasks.drawing import visualize


CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """A checkpoint for each task, and classifiers of one family at three patch sizes."""
    root = tmp_path_factory.mktemp("checkpoints")
    for patch_size in (16, 8, 4):
        save_tiny(root / f"patch{patch_size}", "classification", patch_size=patch_size)
    save_tiny(root / "segmentation", "segmentation", "adventurer")
    save_tiny(root / "detection", "detection", "adventurer")
    return root


def load(folders, name):
    return load_checkpoint(str(folders / name))


# Answers


def test_labels_are_the_models_own(folders):
    model, processor = load(folders, "patch8")
    found = classify(model, processor, photograph())
    with torch.no_grad():
        logits = model(**processor(photograph(), return_tensors="pt")).logits[0]
    expected = {NAMES[index]: logits.softmax(-1)[index].item() for index in logits.argsort(descending=True)}
    assert list(found) == list(expected) and found == pytest.approx(expected)


def test_equal_names_are_told_apart(folders):
    model, processor = load(folders, "patch8")
    model.config.id2label = {0: "crane", 1: "crane", 2: "cat", 3: "crane", 4: "eel"}
    assert set(classify(model, processor, photograph())) == {"crane (0)", "crane (1)", "cat", "crane (3)", "eel"}


def test_segments_cover_the_image(folders):
    model, processor = load(folders, "segmentation")
    picture, rows = segment(model, processor, photograph())
    assert np.array_equal(picture, visualize(model, processor, photograph()))
    shares = [share for _, share in rows]
    assert sum(shares) == pytest.approx(100, abs=0.3) and shares == sorted(shares, reverse=True)
    with torch.no_grad():
        logits = model(**processor(photograph(), return_tensors="pt")).logits
    assert {name for name, _ in rows} <= {NAMES[index] for index in logits.argmax(1).unique()}


def test_objects_are_those_above_the_threshold(folders):
    model, processor = load(folders, "detection")
    _, everything = detect(model, processor, photograph(), 0.0)
    scores = [row[1] for row in everything]
    assert len(scores) > 2 and scores == sorted(scores, reverse=True)
    threshold = (scores[0] + scores[-1]) / 2
    picture, rows = detect(model, processor, photograph(), threshold)
    assert rows == [row for row in everything if row[1] >= threshold] and 0 < len(rows) < len(everything)
    assert np.array_equal(picture, visualize(model, processor, photograph(), threshold))
    for _, _, left, top, right, bottom in everything:
        assert 0 <= left <= right <= 57 and 0 <= top <= bottom <= 40
    assert detect(model, processor, photograph(), 1.0).rows == []


def test_photographs_are_shrunk_for_masks(folders):
    """And boxes are told in the pixels of the photograph."""
    large = photograph(300, 300).resize((3000, 1500))
    small = large.resize((1024, 512))
    model, processor = load(folders, "segmentation")
    assert np.array_equal(segment(model, processor, large).image, segment(model, processor, small).image)
    model, processor = load(folders, "detection")
    picture, rows = detect(model, processor, large, 0.0)
    expected, rows_of_small = detect(model, processor, small, 0.0)
    assert np.array_equal(picture, expected) and len(rows) > 2
    for row, of_small in zip(rows, rows_of_small, strict=True):
        assert row[2:] == pytest.approx([side * 3000 / 1024 for side in of_small[2:]], abs=0.3)


@pytest.mark.parametrize(("name", "has_picture"), [("patch8", False), ("segmentation", True), ("detection", True)])
def test_summary(folders, name, has_picture):
    text, picture = summarize(*load(folders, name), photograph())
    assert (picture is not None) == has_picture and (any(label in text for label in NAMES) or "nothing" in text)


# Uploads


def png_claiming(width, height):
    """A small PNG file that says it has so many pixels."""
    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    chunks = ((b"IHDR", header), (b"IDAT", zlib.compress(bytes(1000))), (b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body)) for kind, body in chunks
    )


class Unpickled:
    """Says so when it is unpickled."""

    def __reduce__(self):
        return pytest.fail, ("an upload was unpickled",)


def test_uploads_that_are_no_images(tmp_path):
    good = tmp_path / "good.png"
    photograph().save(good)
    vector = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n(/etc/passwd) run\n%%EOF\n"
    no_image, too_large = "not an image that is read here", "more than"
    contents = {
        "text.png": (b"not an image", no_image),
        "empty.png": (b"", no_image),
        "pickle.png": (pickle.dumps(Unpickled()), no_image),
        "short.png": (good.read_bytes()[:200], "truncated or damaged"),
        "huge.png": (png_claiming(40_000, 40_000), too_large),
        "large.png": (png_claiming(8000, 8000), too_large),
        # Pillow would hand it to Ghostscript.
        "vector.png": (vector, no_image),
        "drawing.svg": (b"<svg xmlns='http://www.w3.org/2000/svg'><script>alert(1)</script></svg>", no_image),
    }
    for name, (content, sentence) in contents.items():
        (tmp_path / name).write_bytes(content)
        with pytest.raises(ValueError, match=sentence) as error:
            read_upload(tmp_path / name, 1_000_000)
        assert str(error.value).endswith(".") and str(tmp_path) not in str(error.value), name
    for path in (None, tmp_path, tmp_path / "missing.png", "http://localhost/image.png"):
        with pytest.raises(ValueError, match="no image yet"):
            read_upload(path, 1_000_000)
    with pytest.raises(ValueError, match="more than max_pixels=2,279"):
        read_upload(good, 40 * 57 - 1)
    assert np.array_equal(read_upload(good, 40 * 57), photograph())


@pytest.mark.parametrize("kind", ["JPEG", "WEBP", "BMP", "GIF", "TIFF"])
def test_uploads_of_other_formats(tmp_path, kind):
    photograph().save(tmp_path / "upload", format=kind)
    image = read_upload(tmp_path / "upload", 10_000)
    assert image.mode == "RGB" and image.size == (57, 40)


@pytest.mark.parametrize("size", [(1, 1), (1, 3000), (3000, 1)])
@pytest.mark.parametrize("name", ["patch8", "segmentation", "detection"])
def test_odd_shapes_get_an_answer(folders, name, size):
    text, _ = summarize(*load(folders, name), photograph(*size))
    assert text


# Checkpoints


def test_store_keeps_the_models_used_last(folders):
    store = ModelStore(most_models=2)
    names = [str(folders / f"patch{size}") for size in (16, 8, 4)]
    first, _ = store.load(names[0])
    store.load(names[1])
    assert store.load(names[0])[0] is first
    store.load(names[2])
    assert [name for name, _ in store.kept] == [names[0], names[2]]
    small = ModelStore(most_bytes=first.get_memory_footprint())
    for name in names[:2]:
        small.load(name)
    assert [name for name, _ in small.kept] == [names[1]]


def test_resampled_copy_leaves_the_model(folders):
    store, name = ModelStore(), str(folders / "patch8")
    own, _ = store.load(name)
    resampled, processor = store.load(name, 4)
    expected = PixelViTForImageClassification.from_pretrained(name, patch_size=4).eval()
    inputs = processor(photograph(), return_tensors="pt")
    with torch.no_grad():
        torch.testing.assert_close(resampled(**inputs).logits, expected(**inputs).logits)
    assert (own.config.patch_size, resampled.config.patch_size) == (8, 4) and store.load(name)[0] is own
    with pytest.raises(ValueError, match="5"):
        store.load(name, 5)


def test_what_cannot_be_shown_is_said(folders, tmp_path):
    PixelViTModel(load(folders, "patch8")[0].config).save_pretrained(tmp_path / "headless")
    load(folders, "patch8")[1].save_pretrained(tmp_path / "headless")
    store = ModelStore()
    with pytest.raises(ValueError, match="no head"):
        store.describe(str(tmp_path / "headless"))
    demo = Demo([store.describe(str(folders / "patch8"))], {}, listed_only=True, store=store)
    assert demo.chosen(str(folders / "patch8"), "classification").patch_size == 8
    with pytest.raises(ValueError, match="not one of those on offer"):
        demo.chosen(str(folders / "patch4"))
    with pytest.raises(ValueError, match="is for classification"):
        demo.chosen(str(folders / "patch8"), "detection")
    with pytest.raises(ValueError, match="No checkpoint is chosen"):
        demo.chosen(None)
    open_demo = dataclasses.replace(demo, listed_only=False)
    assert open_demo.chosen(str(folders / "patch4")).patch_size == 4


def checkpoint(name, **changes):
    return dataclasses.replace(Checkpoint(name, "classification", "pixelvit", 8, 32, tuple(NAMES)), **changes)


def test_groups_differ_in_patch_size_only():
    small, large, again = (checkpoint(str(index), patch_size=size) for index, size in enumerate((4, 16, 4)))
    others = [checkpoint("a", image_size=64), checkpoint("b", family="adventurer"), checkpoint("c", label_names=("x",))]
    assert same_but_for_patches([small, *others, large, again]) == [[large, small]]


# Patch sizes


def test_views_of_trained_and_of_resampled(folders):
    store = ModelStore()
    group = [store.describe(str(folders / f"patch{size}")) for size in (16, 8, 4)]
    views, left_out = views_of_group(store, group, photograph())
    assert [(view.patch_size, view.num_tokens) for view in views] == [(16, 4), (8, 16), (4, 64)] and not left_out
    for view, one in zip(views, group, strict=True):
        name, probability = next(iter(classify(*load_checkpoint(one.name), photograph()).items()))
        assert view.prediction == f"{name} ({probability:.1%})" and view.picture is None
        assert view.milliseconds > 0 and view.weight_bytes == store.load(one.name)[0].get_memory_footprint()
    # Each of four times as many tokens has its own place.
    assert views[0].memory_bytes < views[1].memory_bytes < views[2].memory_bytes
    resampled, left_out = views_of_checkpoint(store, group[1], photograph(), most_tokens=256)
    assert [view.patch_size for view in resampled] == [32, 16, 8, 4, 2] and left_out == [1]
    assert resampled[2].prediction == views[1].prediction
    with pytest.raises(ValueError, match="--max_tokens"):
        views_of_group(store, group, photograph(), most_tokens=3)


def test_views_of_dense_models(folders):
    store = ModelStore()
    described = store.describe(str(folders / "segmentation"))
    views, _ = views_of_checkpoint(store, described, photograph(64, 32), most_tokens=100)
    # Whole images are kept: 64 by 32 pixels stay so.
    assert [(view.patch_size, view.num_tokens) for view in views] == [(32, 2), (16, 8), (8, 32)]
    assert all(view.picture is not None for view in views)


def test_tokens_of_an_extended_sequence(folders, tmp_path):
    save_tiny(tmp_path / "extended", "classification", patch_size=8, sequence_extension=3)
    store = ModelStore()
    described = store.describe(str(tmp_path / "extended"))
    views, left_out = views_of_checkpoint(store, described, photograph(), most_tokens=48)
    assert [(view.patch_size, view.num_tokens) for view in views] == [(32, 3), (16, 12), (8, 48)]
    assert left_out == [4, 2, 1]


def test_tokens_are_drawn_apart():
    pixels = np.arange(6 * 4 * 3, dtype=np.uint8).reshape(6, 4, 3)
    drawn = np.asarray(draw_tokens(pixels, 2))
    scale, gap = 64, 2
    assert drawn.shape == (6 * scale + 2 * gap, 4 * scale + gap, 3)
    assert (drawn[2 * scale : 2 * scale + gap] == 255).all() and (drawn[:, 2 * scale : 2 * scale + gap] == 255).all()
    for row in range(6):
        for column in range(4):
            place = row * scale + row // 2 * gap, column * scale + column // 2 * gap
            assert (drawn[place] == pixels[row, column]).all()
    # Patches of one pixel of a large image stand side by side, as gaps would take more room than they.
    assert np.array_equal(draw_tokens(np.full((400, 400, 3), 7, np.uint8), 1), np.full((400, 400, 3), 7))


def test_seen_pixels_undo_the_normalisation(folders):
    _, processor = load(folders, "segmentation")
    image = photograph(IMAGE_SIZE, IMAGE_SIZE)
    assert np.array_equal(seen_pixels(processor(image, return_tensors="pt")["pixel_values"][0], processor), image)


def test_memory_is_what_is_alive_at_once():
    def forward():
        first = torch.empty(1000, dtype=torch.float64)
        del first
        return torch.empty(3000, dtype=torch.float32), torch.empty(500, dtype=torch.float32)

    kept = torch.zeros(10_000)
    assert forward_memory(forward, CPU) == 14_000 and forward_memory(lambda: kept, CPU) == 0


def test_time_is_the_median_of_some_passes():
    calls = []
    assert 0 <= forward_milliseconds(lambda: calls.append(1), CPU) < 100 and len(calls) == 10


# Examples and training


def test_examples_follow_the_labels(tmp_path):
    digits = tuple(map(str, range(10)))
    paths = write_examples(checkpoint("a", image_size=16, label_names=digits), tmp_path)
    assert len(paths) == 10 and {Image.open(path).size for path in paths} == {(16, 16)}
    before = {path: path.stat().st_mtime_ns for path in paths}
    assert write_examples(checkpoint("b", image_size=16, label_names=digits), tmp_path) == paths
    assert before == {path: path.stat().st_mtime_ns for path in paths}
    scenes = write_examples(checkpoint("c", task="segmentation", label_names=(*digits, "background")), tmp_path)
    assert len(scenes) == 10 and {Image.open(path).size for path in scenes} == {(32, 32)}
    photographs = write_examples(checkpoint("d"), tmp_path)
    assert len(photographs) == 2 and min(Image.open(photographs[0]).size) > 400


def test_demo_runs_are_those_of_the_sweep(tmp_path):
    runs = plan_demo_runs(tmp_path / "demo")
    assert [(run.recipe.task, run.recipe.patch_size) for run in runs] == [
        (task, size) for task, (_, sizes) in DEMO_RUNS.items() for size in sizes
    ]
    assert len({run.name for run in runs}) == len({run.folder for run in runs}) == len(runs)
    assert all(run.folder.startswith(str(tmp_path / "demo")) for run in runs)


class NotedPool:
    """In place of the processes that train: notes the runs, and leaves of each what says that it is finished."""

    trained: list[str] = []

    def __init__(self, runs, resources, images_folder):
        self.runs = runs

    def execute(self):
        for run in self.runs:
            self.trained.append(run.name)
            finish(run)
        return {}


def finish(run):
    Path(run.folder).mkdir(parents=True, exist_ok=True)
    Path(run.folder, "metrics.json").write_text(json.dumps(run.settings))


def test_finished_runs_are_taken_and_others_trained(tmp_path, monkeypatch, capsys):
    """A sweep's run beside the demo's folder is reused, and one of other settings is not."""
    monkeypatch.setattr("training.demo.runs.WorkerPool", NotedPool)
    monkeypatch.setattr(NotedPool, "trained", [])
    monkeypatch.setattr("training.demo.runs.DEMO_RUNS", {"classification": ("pixelvit", (16, 8))})
    own = plan_demo_runs(tmp_path / "demo")
    beside = tmp_path / "sweep" / "pixelvit-patch16"
    finish(dataclasses.replace(own[0], folder=str(beside)))
    assert train_or_reuse(tmp_path / "demo") == [beside, Path(own[1].folder)]
    assert NotedPool.trained == [own[1].name] and "1 of the demo's 2 models" in capsys.readouterr().out
    assert train_or_reuse(tmp_path / "demo") == [beside, Path(own[1].folder)]
    assert NotedPool.trained == [own[1].name] and capsys.readouterr().out == ""
    of_another_seed = dataclasses.replace(own[0].recipe, seed=own[0].recipe.seed + 1)
    finish(dataclasses.replace(own[0], recipe=of_another_seed, folder=str(beside)))
    assert train_or_reuse(tmp_path / "demo") == [Path(run.folder) for run in own]


@pytest.mark.slow
def test_training_for_the_demo(tmp_path, monkeypatch):
    monkeypatch.setattr("training.demo.runs.DEMO_RUNS", {"classification": ("pixelvit", (16, 8))})
    options = ("--train_images", "64", "--batch_size", "32", "--width", "16", "--num_blocks", "1")
    folders = train_or_reuse(tmp_path / "demo", options)
    assert [load_checkpoint(str(folder))[0].config.patch_size for folder in folders] == [16, 8]


# The command


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--port", "70000"], "--port 70000 was given; it must be from 0 to 65535."),
        (["--max_pixels", "0"], "--max_pixels 0 was given; it must be above zero."),
        (["--examples", "nowhere"], "--examples nowhere was given; it must be a folder of images."),
        (["--examples", str(Path(__file__).parent), "--port", "0"], "--examples "),
        (["./nowhere", "--port", "0"], "./nowhere is neither a checkpoint folder nor"),
        (["--host", "203.0.113.1"], "203.0.113.1 port 7860 cannot be listened on"),
    ],
)
def test_errors_of_the_command_are_sentences(arguments, message, capsys):
    assert main(arguments) == 2
    said = capsys.readouterr().err
    assert said.startswith(f"error: {message}") and said.count("\n") == 1


def test_without_gradio_the_command_says_what_to_install(monkeypatch, capsys):
    monkeypatch.setenv("GRADIO_TEMP_DIR", os.environ.get("GRADIO_TEMP_DIR", ""))  # what the import sets is undone
    monkeypatch.setitem(sys.modules, "gradio", None)
    for name in [name for name in sys.modules if name.startswith("training.demo.")]:
        monkeypatch.delitem(sys.modules, name)
    assert main(["--port", "0"]) == 2
    assert capsys.readouterr().err.startswith("error: The demo needs gradio; install it by pip install")


def test_other_machines_are_told_apart():
    assert all(map(is_this_machine, ["127.0.0.1", "localhost", "::1"]))
    assert not any(map(is_this_machine, ["0.0.0.0", "192.168.1.5", "::", "example.org"]))
    port = find_port("127.0.0.1", 0)
    assert 1024 <= port <= 65535
