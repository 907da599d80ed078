# Copyright 2026 The modeling_pixelvit team. All rights reserved.
# SPDX-License-Identifier: Apache-2.0
"""ONNX graphs of every task and family against PyTorch, and what the command says and writes."""

import builtins
import json
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from interop_models import FAMILIES, FIELDS, OPTIONS, interop_model, slow_but
from packaging import version
from PIL import Image

from modeling_pixelvit import PixelViTImageProcessor
from training.checkpoints import onnx_export
from training.export_onnx import main


onnx = pytest.importorskip("onnx")
onnxruntime = pytest.importorskip("onnxruntime")
pytest.importorskip("onnxscript")

OUTPUTS = {
    "features": {"last_hidden_state": (17, 32), "pooler_output": (32,)},
    "classification": {"logits": (5,)},
    "segmentation": {"logits": (5, 4, 4)},
    "upernet": {"logits": (5, 4, 4)},
    "detection": {
        "scores": (20,),
        "pred_classes": (20,),
        "pred_boxes": (20, 4),
        "pred_masks": (20, 28, 28),
        "last_hidden_state": (17, 32),
    },
}


@pytest.fixture
def checkpoint(tmp_path):
    """Saves a model and its image processor."""

    def save(task, family, **fields):
        model = interop_model(task, family, **fields)
        kind = {"features": "classification", "upernet": "segmentation"}.get(task, task)
        model.save_pretrained(tmp_path / "checkpoint")
        PixelViTImageProcessor.for_config(model.config, task=kind).save_pretrained(tmp_path / "checkpoint")
        return model

    return SimpleNamespace(save=save, folder=tmp_path / "checkpoint", graph=tmp_path / "onnx" / "model.onnx")


def export(checkpoint, *options):
    return main([str(checkpoint.folder), str(checkpoint.graph), *options])


@pytest.mark.parametrize(("task", "family"), slow_but(("classification", "adventurer"), ("detection", "pixelvit")))
def test_any_number_of_images(checkpoint, capsys, task, family):
    if task == "detection" and version.parse(torch.__version__) < version.parse("2.11"):
        pytest.skip("older exporters take it that a detector's batch has less than 2^63 - 1 images for a restriction")
    # A classifier's options are part of its graph, the resampling of its kernel too.
    model = checkpoint.save(task, family, **(OPTIONS[family] if task == "classification" else {}))
    assert export(checkpoint) == 0
    told = capsys.readouterr().out
    assert "any number of images" in told and all(f"{name}: differs by" in told for name in OUTPUTS[task])
    assert {path.name for path in checkpoint.graph.parent.iterdir()} == {
        "model.onnx",
        "config.json",
        "preprocessor_config.json",
    }
    onnx.checker.check_model(checkpoint.graph)
    # By hand, as one would use it: the image processor's arrays, and outputs by name.
    processor = PixelViTImageProcessor.from_pretrained(checkpoint.graph.parent)
    images = [Image.effect_noise((30, 20), 80).convert("RGB"), Image.effect_noise((9, 31), 80).convert("RGB")]
    inputs = processor(images, return_tensors="np")
    session = onnxruntime.InferenceSession(checkpoint.graph)
    names = [one.name for one in session.get_inputs()]
    assert names == (["pixel_values", "pixel_mask"] if task == "detection" else ["pixel_values"])
    found = session.run(None, {name: inputs[name] for name in names})
    with torch.no_grad():
        expected = model(**{name: torch.from_numpy(inputs[name]) for name in names})
    for output, values in zip(session.get_outputs(), found, strict=True):
        assert values.shape == (2, *OUTPUTS[task][output.name])
        np.testing.assert_allclose(values, expected[output.name].numpy(), rtol=1e-4, atol=1e-4)
    assert json.loads((checkpoint.graph.parent / "config.json").read_text())["id2label"]["1"] == "LABEL_1"


def test_one_pixel_patches_and_chunks_that_do_not_divide_the_sequence(checkpoint):
    """6 by 7 pixels, of which each is a token: 44 with class token and average, in chunks of 16."""
    checkpoint.save("classification", "adventurer", patch_size=1, chunk_size=16, num_hidden_layers=1)
    assert export(checkpoint, "--image_size", "6", "7", "--batch_size", "2") == 0
    graph = onnx.load(checkpoint.graph).graph
    assert [dim.dim_value for dim in graph.input[0].type.tensor_type.shape.dim] == [2, 3, 6, 7]
    assert {node.op_type for node in graph.node}.isdisjoint({"Resize", "Loop", "If"})
    config = json.loads((checkpoint.graph.parent / "config.json").read_text())
    assert config["image_size"] == [6, 7] and "auto_map" not in config
    settings = json.loads((checkpoint.graph.parent / "preprocessor_config.json").read_text())
    assert settings["size"] == {"height": 6, "width": 7}


@pytest.mark.slow
@pytest.mark.parametrize(("task", "family"), [(task, family) for task in FIELDS for family in FAMILIES])
def test_sizes_that_patches_do_not_divide(checkpoint, task, family):
    model = checkpoint.save(task, family)
    height, width = (29, 43) if task == "detection" else (7, 13)
    assert export(checkpoint, "--image_size", str(height), str(width), "--batch_size", "2") == 0
    shapes = [one.shape for one in onnxruntime.InferenceSession(checkpoint.graph).get_inputs()]
    assert shapes[0] == [2, 3, height, width]
    settings = json.loads((checkpoint.graph.parent / "preprocessor_config.json").read_text())
    images = [Image.new("RGB", (64, 20)), Image.new("RGB", (20, 64))]
    pixels = PixelViTImageProcessor.from_dict(settings)(images, return_tensors="pt").pixel_values
    assert pixels.shape == (2, 3, height, width)
    assert model.config.image_size in (8, 32)


@pytest.mark.slow
@pytest.mark.parametrize("family", FAMILIES)
def test_a_cascade_of_five_levels(checkpoint, family):
    checkpoint.save(
        "detection", family, use_cascade=True, detection_strides=(4, 8, 16, 32, 64), anchor_sizes=(8, 16, 32, 48, 64)
    )
    assert export(checkpoint) == 0


def test_a_graph_that_differs_is_not_kept(checkpoint, capsys, monkeypatch):
    checkpoint.save("classification", "pixelvit", num_hidden_layers=1)
    run = onnx_export.scaled_difference
    monkeypatch.setattr(onnx_export, "scaled_difference", lambda actual, expected: run(actual * 1.01, expected))
    assert export(checkpoint, "--batch_size", "1") == 2
    assert "onnxruntime's logits of 1 images differs from PyTorch's by" in capsys.readouterr().err
    assert list(checkpoint.graph.parent.iterdir()) == []
    assert export(checkpoint, "--batch_size", "1", "--no-check") == 0 and checkpoint.graph.exists()


@pytest.mark.slow
def test_what_onnx_cannot_express(tmp_path):
    model = interop_model("classification", "pixelvit", num_hidden_layers=1)
    model.set_attn_implementation("flex_attention")
    with pytest.raises(ValueError, match=r"PixelViTForImageClassification cannot be expressed in ONNX \(.*\); run it"):
        onnx_export.export_onnx(model, tmp_path / "model.onnx")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--batch_size", "0"], "A batch of 0 was given; it must have at least 1 image."),
        (["--image_size", "8", "0"], "An image_size of 8 by 0 was given; sides are at least 1 pixel."),
    ],
)
def test_options(checkpoint, capsys, options, message):
    checkpoint.save("classification", "pixelvit")
    assert export(checkpoint, *options) == 2
    assert f"error: {message}" in capsys.readouterr().err


def test_outputs_that_cannot_be_taken(checkpoint, capsys):
    checkpoint.save("classification", "pixelvit")
    before = (checkpoint.folder / "config.json").read_text()
    assert main([str(checkpoint.folder), str(checkpoint.folder / "model.onnx")]) == 2
    assert "holds a checkpoint, whose config.json would be replaced; name a file in" in capsys.readouterr().err
    assert (checkpoint.folder / "config.json").read_text() == before
    assert main([str(checkpoint.folder), str(checkpoint.folder.parent)]) == 2
    assert "is a folder; name a file in it, such as" in capsys.readouterr().err


def test_a_checkpoint_that_is_none(tmp_path, capsys):
    (tmp_path / "empty").mkdir()
    assert main([str(tmp_path / "empty"), str(tmp_path / "model.onnx")]) == 2
    assert capsys.readouterr().err.startswith("error: ")


def test_a_missing_package(checkpoint, capsys, monkeypatch):
    checkpoint.save("classification", "pixelvit")
    imported = builtins.__import__

    def without_onnxscript(name, *arguments, **options):
        if name == "onnxscript":
            raise ImportError(name)
        return imported(name, *arguments, **options)

    monkeypatch.setattr(builtins, "__import__", without_onnxscript)
    assert export(checkpoint) == 2
    assert "needs the package onnxscript, which is not installed; install it by `pip install" in capsys.readouterr().err


def test_other_models_and_dtypes_are_refused(tmp_path):
    with pytest.raises(ValueError, match="Linear was given; expected is one of"):
        onnx_export.export_onnx(torch.nn.Linear(1, 1), tmp_path / "model.onnx")
    model = interop_model("classification", "pixelvit").half()
    with pytest.raises(ValueError, match=r"The model is torch.float16 on cpu; export it in float32 on the CPU"):
        onnx_export.export_onnx(model, tmp_path / "model.onnx")


def test_large_weights_go_into_a_file_beside(checkpoint, capsys, monkeypatch):
    """And with the options of the other family."""
    monkeypatch.setattr(onnx_export, "MOST_BYTES_IN_ONE_FILE", 10_000)
    checkpoint.save("classification", "pixelvit", num_hidden_layers=1, **OPTIONS["pixelvit"])
    assert export(checkpoint, "--batch_size", "1") == 0 and "logits: differs by" in capsys.readouterr().out
    assert {"model.onnx", "model.onnx.data"} <= {path.name for path in checkpoint.graph.parent.iterdir()}
    onnxruntime.InferenceSession(checkpoint.graph)
