# Copyright 2026 The modeling_pixelvit team. All rights reserved.
# SPDX-License-Identifier: Apache-2.0
"""
Interoperability: what users of transformers expect of a model, a test for each row of the README's table.

Rows with a file of their own: test_interop_compilers.py (torch.compile, torch.export), training/test_export_onnx.py,
test_interop_quantized.py and test_interop_versions.py. Fine-tuning with the Trainer, LoRA included, for every task:
training/test_finetune.py and test_finetune_dense.py. Half precision of models cast after loading, autocast and gradient
checkpointing: test_modeling.py, test_modeling_segmentation.py and test_modeling_detection.py.
"""

import json
import os
import subprocess
import sys
from pathlib import Path

import interop_remote
import pytest
import torch
from fuzz_mutations import Payload
from helpers import relative_difference, tiny_config
from interop_models import (
    CLASSES,
    FAMILIES,
    assert_same_outputs,
    interop_model,
    pixels_for,
    save_checkpoint,
    save_checkpoints,
    save_processor,
    tensors_of,
)
from interop_remote import AUTO_CLASSES
from transformers import (
    AutoBackbone,
    AutoConfig,
    AutoImageProcessor,
    AutoModelForImageClassification,
    DetrConfig,
    DetrForObjectDetection,
    Mask2FormerConfig,
    Mask2FormerForUniversalSegmentation,
    Trainer,
    TrainingArguments,
    UperNetConfig,
    UperNetForSemanticSegmentation,
    pipeline,
)

from modeling_pixelvit import (
    AdventurerBackbone,
    AdventurerConfig,
    PixelViTBackbone,
    PixelViTConfig,
    PixelViTImageProcessor,
    PixelViTImageProcessorPil,
)


TASKS = ("features", "classification", "segmentation", "detection")
CONFIGS = {"adventurer": AdventurerConfig, "pixelvit": PixelViTConfig}
BACKBONES = {"adventurer": AdventurerBackbone, "pixelvit": PixelViTBackbone}
both_families = pytest.mark.parametrize("family", FAMILIES)


@pytest.fixture(scope="module")
def folders(tmp_path_factory) -> dict[tuple[str, str], Path]:
    """A checkpoint with an image processor for each task and family."""
    return save_checkpoints(tmp_path_factory.mktemp("checkpoints"))


# Auto classes and backbones


@both_families
@pytest.mark.parametrize("task", TASKS)
def test_auto_classes(folders, task, family):
    folder = folders[task, family]
    assert type(AutoConfig.from_pretrained(folder)) is CONFIGS[family]
    for auto_class in AUTO_CLASSES[task]:
        assert type(auto_class.from_pretrained(folder)) is CLASSES[task][family]
    assert type(AutoImageProcessor.from_pretrained(folder)) is PixelViTImageProcessor
    assert type(AutoImageProcessor.from_pretrained(folder, backend="pil")) is PixelViTImageProcessorPil


@both_families
def test_auto_backbone(folders, family, monkeypatch):
    """By a config, and by a name on the hub; whatever is not there, folders too, AutoBackbone takes for timm's."""
    folder = folders["classification", family]
    config = AutoConfig.from_pretrained(folder, out_indices=[1, 2])
    assert type(AutoBackbone.from_config(config)) is BACKBONES[family]

    class Hub:
        def repo_exists(self, name):
            return True

    monkeypatch.setattr("transformers.models.auto.auto_factory.hf_api", Hub, raising=False)
    monkeypatch.setattr("transformers.models.auto.auto_factory.repo_exists", Hub().repo_exists, raising=False)
    backbone = AutoBackbone.from_pretrained(folder, out_indices=[1, 2])
    expected = BACKBONES[family].from_pretrained(folder, out_indices=[1, 2])
    maps = backbone(torch.randn(1, 3, 8, 12)).feature_maps
    assert [tuple(one.shape) for one in maps] == [(1, 32, 4, 6)] * 2
    torch.testing.assert_close(backbone.state_dict(), expected.state_dict(), rtol=0, atol=0)


def upernet(backbone_config):
    config = UperNetConfig(backbone_config=backbone_config, hidden_size=16, auxiliary_in_channels=32)
    return UperNetForSemanticSegmentation(config)


def detr(backbone_config):
    backbone_config.set_output_features_output_indices(out_indices=[4], out_features=None)
    sizes = {"d_model": 16, "encoder_ffn_dim": 16, "decoder_ffn_dim": 16, "num_queries": 5}
    layers = {f"{part}_{name}": 1 for part in ("encoder", "decoder") for name in ("layers", "attention_heads")}
    config = DetrConfig(use_timm_backbone=False, backbone=None, backbone_config=backbone_config, **sizes, **layers)
    return DetrForObjectDetection(config)


def mask2former(backbone_config):
    sizes = dict.fromkeys(("feature_size", "mask_feature_size", "hidden_dim"), 32)
    layers = {"encoder_layers": 1, "decoder_layers": 2, "num_attention_heads": 2, "num_queries": 5}
    config = Mask2FormerConfig(backbone_config=backbone_config, **sizes, **layers, dim_feedforward=16)
    return Mask2FormerForUniversalSegmentation(config)


LOSES_OUT_PROJ = pytest.mark.xfail(
    strict=True, reason="loading a DETR, transformers renames every out_proj to o_proj, those of its backbone too"
)


@pytest.mark.parametrize(
    ("build", "family"),
    [
        (upernet, "adventurer"),
        (upernet, "pixelvit"),
        pytest.param(detr, "adventurer", marks=LOSES_OUT_PROJ),
        (detr, "pixelvit"),
        (mask2former, "adventurer"),
        (mask2former, "pixelvit"),
    ],
)
def test_backbone_of_other_models(build, family, tmp_path):
    model = build(tiny_config(family, out_indices=[1, 2, 3, 4])).eval()
    model.save_pretrained(tmp_path)
    loaded = type(model).from_pretrained(tmp_path).eval()
    pixels = torch.randn(1, 3, 32, 32)
    outputs = model(pixels)
    with torch.no_grad():
        assert_same_outputs(loaded(pixels), outputs)
    sum(tensor.sum() for tensor in outputs.values() if isinstance(tensor, torch.Tensor)).backward()
    (backbone,) = (module for module in model.modules() if type(module) is BACKBONES[family])
    assert all(parameter.grad.isfinite().all() for parameter in backbone.parameters())


# Pipelines, by the package and by remote code


def expected_answers(task, folder, pictures):
    """What a task's pipeline is to say, by hand."""
    processor = AutoImageProcessor.from_pretrained(folder)
    model = AUTO_CLASSES[task][0].from_pretrained(folder)
    answers = []
    for picture in pictures:
        with torch.no_grad():
            outputs = model(**processor(picture, return_tensors="pt"))
        size = [(picture.height, picture.width)]
        if task == "features":
            answers.append(outputs.last_hidden_state.tolist())
        elif task == "classification":
            scores, labels = outputs.logits.softmax(-1)[0].sort(descending=True)
            pairs = zip(scores.tolist(), labels.tolist(), strict=True)
            answers.append([(model.config.id2label[label], pytest.approx(score, abs=1e-5)) for score, label in pairs])
        elif task == "segmentation":
            found = processor.post_process_semantic_segmentation(outputs, size)[0]
            answers.append({model.config.id2label[label]: (found == label) for label in found.unique().tolist()})
        else:
            found = processor.post_process_object_detection(outputs, 0.0, size)[0]
            boxes = found["boxes"].int().tolist()
            pairs = zip(found["labels"].tolist(), found["scores"].tolist(), boxes, strict=True)
            answers.append(
                [(model.config.id2label[one], pytest.approx(score, abs=1e-5), box) for one, score, box in pairs]
            )
    return answers


@both_families
@pytest.mark.parametrize("task", TASKS)
def test_pipelines(folders, task, family):
    folder = folders[task, family]
    pictures = interop_remote.images()
    expected = expected_answers(task, folder, pictures)
    name = interop_remote.PIPELINES[task][0]
    for batch_size in (1, 2):
        settings = {"threshold": 0.0} if task == "detection" else {}
        answers = pipeline(name, str(folder))(pictures, batch_size=batch_size, **settings)
        for answer, wanted in zip(answers, expected, strict=True):
            if task == "features":
                torch.testing.assert_close(torch.tensor(answer), torch.tensor(wanted), rtol=1e-4, atol=1e-5)
            elif task == "classification":
                assert [(one["label"], one["score"]) for one in answer] == wanted
            elif task == "segmentation":
                found = {one["label"]: torch.tensor(list(one["mask"].get_flattened_data())) for one in answer}
                assert found.keys() == wanted.keys()
                assert all(torch.equal(found[label] > 0, mask.flatten()) for label, mask in wanted.items())
            else:
                found = [(one["label"], one["score"], list(one["box"].values())) for one in answer]
                assert found == wanted and len(found) > 1


def test_instances_by_pipeline(folders):
    """The pipeline that gives a segmenter's classes gives a detector's objects."""
    pictures = interop_remote.images()
    for family in FAMILIES:
        answers = pipeline("image-segmentation", str(folders["detection", family]))(pictures, threshold=0.0)
        for picture, answer in zip(pictures, answers, strict=True):
            assert answer and all(one["mask"].size == picture.size and 0 < one["score"] <= 1 for one in answer)


ALL_BY_REMOTE_CODE = f"""{interop_remote.BY_REMOTE_CODE}
output, *pairs = sys.argv[1:]
for folder in [pair.split("=")[1] for pair in pairs if pair.startswith("classification")]:
    interop_remote.check_saved_again(folder, folder + "-again")
interop_remote.check_processors(output + "-processor", output + "-again", with_torchvision=True)
"""


def run_remote_code(code, folder, *arguments):
    environment = {
        **os.environ,
        "HF_HUB_OFFLINE": "1",
        "HF_MODULES_CACHE": str(folder / "modules"),
        "PYTHONPATH": str(Path(interop_remote.__file__).parent),
    }
    command = [sys.executable, "-c", code, *map(str, arguments)]
    return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True)


def test_remote_code_in_a_fresh_process(folders, tmp_path):
    """All tasks of both families where neither this package nor kernels can be imported: the same, bit for bit."""
    pairs = [f"{task}={folder}" for (task, _), folder in folders.items()]
    for family in FAMILIES:
        save_checkpoint(tmp_path / f"upernet-{family}", "upernet", family)
        pairs.append(f"segmentation={tmp_path}/upernet-{family}")
    save_processor(tmp_path / "found-processor")
    done = run_remote_code(ALL_BY_REMOTE_CODE, tmp_path, tmp_path / "found", *pairs)
    assert done.returncode == 0, done.stderr
    interop_remote.assert_same_as(str(tmp_path / "found"), *pairs)
    for family in FAMILIES:
        folder = folders["classification", family]
        auto_map = json.loads((folder / "config.json").read_text())["auto_map"]
        assert {"AutoConfig", "AutoModel", "AutoBackbone", "AutoModelForImageClassification"} <= set(auto_map)
        copied = {path.name for path in Path(f"{folder}-again").glob("*.py")}
        assert {f"modeling_{family}.py", "modeling_base.py", "layers_embeddings.py"} <= copied
        if family == "adventurer":  # kernels travel along, though nothing asks for them on a CPU
            assert {"ops_triton_check.py", "ops_triton_mixer.py", "ops_triton_ssd_kernels.py"} <= copied


@pytest.mark.slow
def test_processors_by_remote_code_without_torchvision(tmp_path):
    save_processor(tmp_path / "saved")
    arguments = [tmp_path / "saved", tmp_path / "again", "torchvision"]
    done = run_remote_code(interop_remote.PROCESSORS_BY_REMOTE_CODE, tmp_path, *arguments)
    if "AutoImageProcessor requires the Torchvision library" in done.stderr:
        pytest.skip("this transformers has no AutoImageProcessor without torchvision")
    assert done.returncode == 0, done.stderr


# Trainer and peft


@both_families
def test_a_plain_trainer(folders, family, tmp_path):
    """transformers' Trainer with a class from AutoModel and nothing of ours: the loss falls, the result loads."""
    model = AutoModelForImageClassification.from_pretrained(folders["classification", family])
    pixels = pixels_for(model, 8)
    images = [{"pixel_values": one, "labels": index % 2} for index, one in enumerate(pixels)]
    arguments = TrainingArguments(
        str(tmp_path / "run"),
        max_steps=8,
        per_device_train_batch_size=4,
        learning_rate=1e-2,
        logging_steps=1,
        save_steps=8,
        report_to="none",
        use_cpu=True,
    )
    trainer = Trainer(model, arguments, train_dataset=images, eval_dataset=images)
    before = trainer.evaluate()["eval_loss"]
    trainer.train()
    after = trainer.evaluate()["eval_loss"]
    assert after < 0.8 * before
    trainer.save_model(str(tmp_path / "best"))
    loaded = AutoModelForImageClassification.from_pretrained(tmp_path / "best").eval()
    with torch.no_grad():
        torch.testing.assert_close(loaded(pixels).logits, model.eval()(pixels).logits)


@both_families
@pytest.mark.parametrize("problem_type", ["single_label_classification", "multi_label_classification", "regression"])
def test_accumulated_gradients_are_those_of_the_whole_batch(folders, family, problem_type, tmp_path):
    found = []
    for accumulated in (1, 4):
        model = AutoModelForImageClassification.from_pretrained(folders["classification", family])
        model.config.problem_type = problem_type
        whole = problem_type == "single_label_classification"
        labels = [index % 2 if whole else (torch.arange(model.num_labels) == index).float() for index in range(4)]
        pairs = zip(pixels_for(model, 4), labels, strict=True)
        images = [{"pixel_values": one, "labels": label} for one, label in pairs]
        arguments = TrainingArguments(
            str(tmp_path / "run"),
            max_steps=1,
            per_device_train_batch_size=4 // accumulated,
            gradient_accumulation_steps=accumulated,
            optim="sgd",
            learning_rate=0.1,
            max_grad_norm=0,
            save_strategy="no",
            report_to="none",
            use_cpu=True,
        )
        Trainer(model, arguments, train_dataset=images).train()
        found.append(dict(model.named_parameters()))
    torch.testing.assert_close(*found, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("task", ["classification", "segmentation", "detection"])
@pytest.mark.parametrize(
    ("family", "layers"),
    [("adventurer", ["in_proj", "out_proj"]), ("pixelvit", ["q_proj", "k_proj", "v_proj", "o_proj"])],
)
def test_lora(folders, task, family, layers, tmp_path):
    peft = pytest.importorskip("peft")
    base = AUTO_CLASSES[task][0].from_pretrained(folders[task, family])
    before = {name: tensor.clone() for name, tensor in base.state_dict().items()}
    pixels = pixels_for(base)
    with torch.no_grad():
        plain = tensors_of(base(pixels))
    config = peft.LoraConfig(r=2, target_modules=layers, init_lora_weights=False)
    model = peft.get_peft_model(base, config).eval()
    trained = {name for name, parameter in model.named_parameters() if parameter.requires_grad}
    assert len(trained) == 2 * len(layers) * base.config.num_hidden_layers
    with torch.no_grad():
        adapted = tensors_of(model(pixels))
    assert any((adapted[name] - plain[name]).abs().max() > 1e-3 for name in plain)
    model.save_pretrained(tmp_path)
    again = peft.PeftModel.from_pretrained(AUTO_CLASSES[task][0].from_pretrained(folders[task, family]), tmp_path)
    with torch.no_grad():
        assert_same_outputs(again.eval()(pixels), adapted, rtol=0, atol=0)
        unmerged = model.unload()
        torch.testing.assert_close(dict(unmerged.state_dict()), before, rtol=0, atol=0)
        assert_same_outputs(again.merge_and_unload()(pixels), adapted)


# Precision, memory and files


@both_families
@pytest.mark.parametrize("task", TASKS)
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_loading_in_half_precision(folders, task, family, dtype):
    full = AUTO_CLASSES[task][0].from_pretrained(folders[task, family])
    half = AUTO_CLASSES[task][0].from_pretrained(folders[task, family], dtype=dtype)
    wide = {name.rsplit(".", 1)[-1] for name, one in half.named_parameters() if one.dtype == torch.float32}
    assert wide == ({"A_log", "D", "dt_bias"} if family == "adventurer" else set())
    assert {one.dtype for one in half.parameters()} == {dtype, torch.float32} if wide else {dtype}
    pixels = pixels_for(full)
    with torch.no_grad():
        expected, outputs = full(pixels), half(pixels.to(dtype))
    assert all(tensor.isfinite().all() for tensor in tensors_of(outputs).values())
    name = {"features": "last_hidden_state", "detection": "last_hidden_state"}.get(task, "logits")
    assert relative_difference(outputs[name].float(), expected[name]) < 16 * torch.finfo(dtype).eps
    if task == "detection":
        torch.testing.assert_close(outputs.scores, expected.scores, rtol=0.1, atol=0.02)


@both_families
@pytest.mark.parametrize("task", TASKS)
def test_offloading(folders, task, family, tmp_path):
    """Blocks that stay on the disk and come into memory one after the other."""
    prefix = "" if task == "features" else f"{family}."
    model = AUTO_CLASSES[task][0].from_pretrained(folders[task, family])
    places = {name: "cpu" for name, _ in model.named_children()}
    if prefix:
        del places[family]
        places |= {f"{prefix}{name}": "cpu" for name, _ in getattr(model, family).named_children()}
    places[f"{prefix}layers"] = "disk"
    offloaded = AUTO_CLASSES[task][0].from_pretrained(
        folders[task, family], device_map=places, offload_folder=str(tmp_path)
    )
    assert next(offloaded.base_model.layers.parameters()).is_meta
    pixels = pixels_for(model)
    with torch.no_grad():
        assert_same_outputs(offloaded(pixels), model(pixels))


@both_families
@pytest.mark.parametrize("task", TASKS)
def test_safetensors_only(folders, task, family):
    names = {path.suffix for path in folders[task, family].iterdir()}
    assert names == {".json", ".safetensors", ".py"}


@both_families
def test_pickles_are_refused(family, tmp_path):
    model = interop_model("classification", family)
    model.save_pretrained(tmp_path)
    (tmp_path / "model.safetensors").unlink()
    torch.save(model.state_dict(), tmp_path / "pytorch_model.bin")
    for load in (type(model).from_pretrained, AutoModelForImageClassification.from_pretrained):
        with pytest.raises(ValueError, match=r"weights in pytorch_model.bin, a pickle, .* only safetensors are loaded"):
            load(tmp_path)
    with pytest.raises(OSError, match="safetensors"):
        type(model).from_pretrained(tmp_path, use_safetensors=True)
    by_request = type(model).from_pretrained(tmp_path, use_safetensors=False)
    torch.testing.assert_close(dict(by_request.state_dict()), dict(model.state_dict()), rtol=0, atol=0)
    # Not even then does code in it run: transformers reads tensors only.
    torch.save({"classifier.weight": Payload(str(tmp_path / "has-run"))}, tmp_path / "pytorch_model.bin")
    with pytest.raises(Exception, match="Weights only load failed"):
        type(model).from_pretrained(tmp_path, use_safetensors=False)
    assert not (tmp_path / "has-run").exists()
