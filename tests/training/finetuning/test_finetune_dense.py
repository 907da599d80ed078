# Copyright 2026 The modeling_pixelvit team. All rights reserved.
# SPDX-License-Identifier: Apache-2.0
"""Fine-tuning for segmentation and detection: what is trained, measured, saved, gone on from and refused."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from finetuning_runs import refusal_of, run_finetune, same_tensors, save_classifiers
from helpers import SMALL_HEADS
from PIL import Image
from transformers import (
    AutoImageProcessor,
    AutoModelForObjectDetection,
    AutoModelForSemanticSegmentation,
    pipeline,
)

from training import finetune
from training.engine.coordination import Coordination, StopRequest
from training.engine.evaluation import evaluate
from training.finetuning.arguments import FinetuneArguments
from training.finetuning.trainer import FinetuneTrainer
from training.settings.recipe import Recipe
from training.tasks.base import DataOptions
from training.tasks.registry import TASKS


pytestmark = pytest.mark.usefixtures("one_thread")

AUTO_CLASSES = {"segmentation": AutoModelForSemanticSegmentation, "detection": AutoModelForObjectDetection}
NUM_TRAIN, NUM_TEST, CANVAS = 24, 6, 32  # of the written scenes
ALL_IMAGES = ("--max_steps", "6")
FEW_STEPS = [
    *("--image_size", str(CANVAS), "--patch_size", "8", "--max_steps", "2", "--disable_tqdm", "True"),
    *("--per_device_train_batch_size", "4", "--per_device_eval_batch_size", "2", "--report_to", "none"),
    *("--use_cpu", "True", "--dataloader_pin_memory", "False", "--min_resize_scale", "1", "--max_resize_scale", "1"),
]
SMALL_UPERNET = ["--decoder", "upernet", "--head", '{"decoder_hidden_size": 8}']
SMALL_DETECTOR = {
    **SMALL_HEADS,
    "rpn_num_convs": 1,
    "anchor_sizes": [8, 16, 24, 32, 64],
    "max_detections": 20,
    "box_score_threshold": 0.0,
}
HEADS = {"segmentation": [], "detection": ["--head", json.dumps(SMALL_DETECTOR)]}


@pytest.fixture(scope="module")
def checkpoints(tmp_path_factory):
    """A classifier of each family for images of 16 pixels in four patches per side."""
    return save_classifiers(tmp_path_factory.mktemp("checkpoints"), patch_size=4, num_hidden_layers=2)


@pytest.fixture
def scenes(scenes_folder, tmp_path):
    """Scenes that a test may damage."""
    return Path(shutil.copytree(scenes_folder, tmp_path / "scenes"))


@pytest.fixture(scope="module")
def trained(checkpoints, scenes_folder, tmp_path_factory):
    """A short run for each task, from a classifier at another patch and image size, with another decoder."""
    folder = tmp_path_factory.mktemp("trained")
    options = ["--save_strategy", "no"]
    assert run("segmentation", checkpoints / "adventurer", scenes_folder, folder / "segmentation", *options) == 0
    assert run("detection", checkpoints / "pixelvit", scenes_folder, folder / "detection", *options) == 0
    return folder


def run(task, checkpoint, dataset, output_dir, *options):
    """The exit status of a short run."""
    return run_finetune(checkpoint, dataset, output_dir, "--task", task, *FEW_STEPS, *HEADS[task], *options)


def refusal(capsys, *command):
    return refusal_of(run(*command), capsys)


def saved_tensors(task, folder):
    return AUTO_CLASSES[task].from_pretrained(folder).state_dict()


def results(folder):
    return json.loads((folder / "all_results.json").read_text())


def loop_metrics(task, folder, dataset, **fields):
    """The loop's evaluation of the model in a folder."""
    model = AUTO_CLASSES[task].from_pretrained(folder)
    config = model.config
    off = {"mixup_probability": 0.0, "color_jitter": 0.0}
    sizes = {"patch_size": config.patch_size, "image_size": config.image_size}
    recipe = Recipe(family=config.model_type, task=task, **sizes, **off, **fields)
    loop_task = TASKS[task].from_options(recipe, DataOptions(dataset=str(dataset)))
    loop_task.processor = AutoImageProcessor.from_pretrained(folder)
    found = evaluate(loop_task, {"eval": model}, lambda batch: batch, Coordination(StopRequest(), None), batch_size=2)
    return {f"eval_{name}": value for name, value in found.metrics["eval"].items()}


def picture(scenes):
    return Image.open(scenes / "images" / "test" / "000000.png")


class TestFinetuning:
    def test_a_classifier_learns_segmentation(self, trained, scenes_folder):
        folder = trained / "segmentation"
        model = AutoModelForSemanticSegmentation.from_pretrained(folder)
        assert (model.config.patch_size, model.config.image_size, model.config.num_labels) == (8, CANVAS, 11)
        assert model.config.decoder_type == "none" and model.config.id2label[10] == "background"
        processor = AutoImageProcessor.from_pretrained(folder)
        assert not processor.do_center_crop and processor.size.shortest_edge == CANVAS
        assert tuple(processor.image_mean) == (0.1,) * 3  # still the classifier's
        found = results(folder)
        assert found["eval_samples"] == NUM_TEST and found["train_samples"] == NUM_TRAIN
        expected = loop_metrics("segmentation", folder, scenes_folder)
        assert {name: found[name] for name in expected} == pytest.approx(expected)
        answer = pipeline("image-segmentation", str(folder))(picture(scenes_folder).resize((48, 32)))
        assert answer and {entry["label"] for entry in answer} <= set(model.config.label2id)
        assert all(entry["mask"].size == (48, 32) for entry in answer)
        assert "image-segmentation" in (folder / "README.md").read_text()

    def test_a_classifier_learns_detection(self, trained, scenes_folder):
        folder = trained / "detection"
        model = AutoModelForObjectDetection.from_pretrained(folder)
        assert (model.config.patch_size, model.config.image_size, model.config.num_labels) == (8, CANVAS, 10)
        assert model.config.use_masks and list(model.config.anchor_sizes) == SMALL_DETECTOR["anchor_sizes"]
        processor = AutoImageProcessor.from_pretrained(folder)
        assert processor.size.longest_edge == processor.pad_size.height == CANVAS
        found, expected = results(folder), loop_metrics("detection", folder, scenes_folder)
        assert {"eval_box_ap", "eval_mask_ap", "eval_loss"} <= set(expected)
        assert {name: found[name] for name in expected} == pytest.approx(expected)
        answer = pipeline("object-detection", str(folder))(picture(scenes_folder), threshold=0.0)
        assert answer and {entry["label"] for entry in answer} <= set(model.config.label2id)
        masks = pipeline("image-segmentation", str(folder))(picture(scenes_folder), threshold=0.0)
        assert all(entry["mask"].size == (CANVAS, CANVAS) for entry in masks)

    @pytest.mark.parametrize("task", ["segmentation", "detection"])
    def test_a_dense_checkpoint_goes_on(self, trained, scenes_folder, tmp_path, caplog, task):
        still = ["--learning_rate", "0", "--weight_decay", "0", "--save_strategy", "no"]
        assert run(task, trained / task, scenes_folder, tmp_path, *still) == 0
        assert "is new" not in caplog.text
        assert same_tensors(saved_tensors(task, tmp_path), saved_tensors(task, trained / task))
        assert tuple(AutoImageProcessor.from_pretrained(tmp_path).image_mean) == (0.1,) * 3

    def test_a_dense_checkpoint_learns_classification(self, trained, tmp_path):
        sizes = ["--max_train_samples", "4", "--max_eval_samples", "2", "--max_steps", "1", "--use_cpu", "True"]
        command = ["--model_name_or_path", str(trained / "segmentation"), "--dataset", "digits", *sizes]
        assert finetune.main([*command, "--output_dir", str(tmp_path), "--report_to", "none"]) == 0
        processor = AutoImageProcessor.from_pretrained(tmp_path)
        assert processor.do_center_crop and processor.size.height == processor.size.width == CANVAS

    def test_evaluation_alone_in_windows(self, trained, scenes_folder, tmp_path, capsys):
        command = "segmentation", trained / "segmentation", scenes_folder, tmp_path, "--no_do_train"
        assert run(*command, "--eval_window", "24", "--max_eval_samples", str(NUM_TEST)) == 0
        expected = loop_metrics("segmentation", trained / "segmentation", scenes_folder, eval_window=24)
        found = results(tmp_path)
        assert {name: found[name] for name in expected} == pytest.approx(expected)
        assert found["eval_loss"] != results(trained / "segmentation")["eval_loss"]
        error = refusal(capsys, "detection", trained / "segmentation", scenes_folder, tmp_path, "--no_do_train")
        assert "has no head for the 10 classes" in error and "(--task detection)" in error

    def test_upernet_and_the_best_checkpoint(self, checkpoints, scenes_folder, tmp_path, caplog):
        options = [
            *(*SMALL_UPERNET, "--eval_strategy", "steps", "--eval_steps", "1", "--save_steps", "1"),
            *("--load_best_model_at_end", "--metric_for_best_model", "pixel_accuracy", "--learning_rate", "0.02"),
            *("--horizontal_flip", "0", "--photometric_distortion", "--dataloader_num_workers", "1"),
        ]
        assert run("segmentation", checkpoints / "pixelvit", scenes_folder, tmp_path, *options) == 0
        assert "weights in decode_head, pyramid) is new" in caplog.text
        state = json.loads((tmp_path / "trainer_state.json").read_text())
        measured = [entry["eval_pixel_accuracy"] for entry in state["log_history"] if "eval_pixel_accuracy" in entry]
        assert state["best_metric"] == max(measured[:2]) == results(tmp_path)["eval_pixel_accuracy"]
        best = saved_tensors("segmentation", state["best_model_checkpoint"])
        assert same_tensors(best, saved_tensors("segmentation", tmp_path))

    def test_boxes_alone(self, trained, scenes_folder, tmp_path):
        assert run("detection", trained / "detection", scenes_folder, tmp_path / "one", "--use_masks", "False") == 0
        assert not any(name.startswith("eval_mask") for name in results(tmp_path / "one"))
        assert not any(name.startswith("mask_head") for name in saved_tensors("detection", tmp_path / "one"))
        # Which stays without masks unless they are asked for, although the data have them.
        assert run("detection", tmp_path / "one", scenes_folder, tmp_path / "two", "--no_do_train") == 0
        assert not any(name.startswith("eval_mask") for name in results(tmp_path / "two"))
        assert run("detection", tmp_path / "one", scenes_folder, tmp_path / "three", "--use_masks", "True") == 0
        assert "eval_mask_ap" in results(tmp_path / "three")

    @pytest.mark.parametrize(("task", "family"), [("segmentation", "pixelvit"), ("detection", "adventurer")])
    def test_lora(self, checkpoints, scenes_folder, tmp_path, task, family):
        pytest.importorskip("peft")
        lora = ["--lora_rank", "2", "--learning_rate", "0.01", "--save_strategy", "no"]
        more = SMALL_UPERNET if task == "segmentation" else []
        assert run(task, checkpoints / family, scenes_folder, tmp_path, *lora, *more) == 0
        base = (
            AUTO_CLASSES[task]
            .from_pretrained(checkpoints / family, patch_size=8, image_size=CANVAS, ignore_mismatched_sizes=True)
            .state_dict()
        )
        encoder = {name: tensor for name, tensor in saved_tensors(task, tmp_path).items() if name.startswith(family)}
        changed = {name for name, tensor in encoder.items() if not torch.equal(tensor, base[name])}
        mixers = {name for name in encoder if ".attention." in name or ".mixer." in name}
        assert changed == {name for name in mixers if name.endswith("_proj.weight")}
        found = results(tmp_path)
        expected = loop_metrics(task, tmp_path, scenes_folder)
        assert {name: found[name] for name in expected} == pytest.approx(expected, rel=1e-3, abs=1e-3)


class TestResuming:
    @pytest.mark.parametrize("task", ["segmentation", "detection"])
    def test_the_last_checkpoint_leads_to_the_same_weights(self, trained, scenes_folder, tmp_path, caplog, task):
        # Nothing is drawn that changes an image, and no proposal is left out by chance.
        unaugmented = ["--horizontal_flip", "0", "--save_steps", "1", "--learning_rate", "0.01"]
        command = task, trained / task, scenes_folder
        whole, interrupted = tmp_path / "whole", tmp_path / "interrupted"
        if task == "detection":
            head = {**SMALL_DETECTOR, "rpn_batch_size_per_image": 4096, "rpn_positive_fraction": 1.0}
            head |= {"box_batch_size_per_image": 4096, "box_positive_fraction": 1.0}
            unaugmented += ["--head", json.dumps(head)]
        assert run(*command, whole, *unaugmented) == 0
        shutil.copytree(whole / "checkpoint-1", interrupted / "checkpoint-1")
        shutil.copy(whole / finetune.SETTINGS_FILE, interrupted)
        assert run(*command, interrupted, *unaugmented) == 0
        assert f"Going on from {interrupted / 'checkpoint-1'}" in caplog.text
        assert same_tensors(saved_tensors(task, whole), saved_tensors(task, interrupted))
        assert results(whole)["eval_loss"] == results(interrupted)["eval_loss"]

    def test_another_head_is_another_run(self, trained, scenes_folder, tmp_path, capsys):
        command = "segmentation", trained / "segmentation", scenes_folder, tmp_path
        assert run(*command) == 0
        assert "(decoder None there, upernet now" in refusal(capsys, *command, *SMALL_UPERNET)


class TestDamagedData:
    @pytest.mark.parametrize(("task", "split"), [("segmentation", "train"), ("detection", "test")])
    def test_a_damaged_image(self, trained, scenes, tmp_path, caplog, capsys, task, split):
        broken = scenes / "images" / split / "000002.png"
        broken.write_bytes(broken.read_bytes()[:100])
        command = task, trained / task, scenes
        assert run(*command, tmp_path / "out", "--save_strategy", "no") == 0
        assert sum(line.startswith("Left out") and "000002.png" in line for line in caplog.messages) == 1
        error = refusal(capsys, *command, tmp_path / "none", "--max_unreadable_images", "0")
        assert error.startswith("error: 1 images cannot be decoded") and error.endswith("--max_unreadable_images.")

    def test_an_image_that_cannot_be_read_does_not_count(self, trained, scenes, tmp_path):
        command = "segmentation", trained / "segmentation", scenes
        first = scenes / "images" / "test" / "000000.png"
        first.write_bytes(b"no image")
        assert run(*command, tmp_path / "damaged", "--no_do_train") == 0
        for kind in ("images", "annotations"):
            (scenes / kind / "test" / "000000.png").unlink()
        assert run(*command, tmp_path / "without", "--no_do_train") == 0
        damaged, without = results(tmp_path / "damaged"), results(tmp_path / "without")
        for name in ("eval_loss", "eval_mean_iou", "eval_pixel_accuracy"):
            assert damaged[name] == pytest.approx(without[name])

    def test_an_invalid_box(self, trained, scenes, tmp_path, capsys, caplog):
        file = scenes / "annotations" / "instances_train.json"
        content = json.loads(file.read_text())
        content["annotations"][3]["bbox"] = [100, 100, 5, 5]
        file.write_text(json.dumps(content))
        command = "detection", trained / "detection", scenes, tmp_path / "out"
        error = refusal(capsys, *command)
        assert "1 invalid entries (annotation 4 of " in error
        assert run(*command, "--on_invalid", "skip") == 0
        assert "1 invalid entries are left out" in caplog.text

    @pytest.mark.parametrize("workers", ["0", "1"])
    def test_an_invalid_mask(self, trained, scenes, tmp_path, capsys, workers):
        file = scenes / "annotations" / "train" / "000001.png"
        Image.fromarray(np.full((CANVAS, CANVAS), 77, dtype=np.uint8)).save(file)
        command = (
            "segmentation",
            trained / "segmentation",
            scenes,
            tmp_path / "out",
            *("--dataloader_num_workers", workers, *ALL_IMAGES),
        )
        error = refusal(capsys, *command)
        assert error.startswith(f"error: {file} cannot be used (the mask has the value 77")

    def test_an_invalid_mask_left_out(self, trained, scenes, tmp_path, caplog):
        Image.new("L", (CANVAS, CANVAS + 1)).save(scenes / "annotations" / "train" / "000001.png")
        command = "segmentation", trained / "segmentation", scenes, tmp_path / "out"
        assert run(*command, "--on_invalid", "skip", "--save_strategy", "no", *ALL_IMAGES) == 0
        assert "000001.png: the mask has 33 x 32 pixels" in caplog.text

    def test_nothing_to_be_found(self, trained, scenes, tmp_path, capsys):
        file = scenes / "annotations" / "instances_test.json"
        content = json.loads(file.read_text())
        crowds = [{**annotation, "iscrowd": 1} for annotation in content["annotations"]]
        file.write_text(json.dumps({**content, "annotations": crowds}))
        error = refusal(capsys, "detection", trained / "detection", scenes, tmp_path, "--no_do_train")
        assert f"None of the {NUM_TEST} images has an object" in error


class TestRefusals:
    @pytest.mark.parametrize(
        ("task", "options", "message"),
        [
            ("segmentation", ["--mixup_alpha", "0.8"], "--mixup_alpha 0.8 was given, which is for classification;"),
            ("detection", ["--label_smoothing_factor", "0.1"], "--label_smoothing_factor 0.1 was given, which is for"),
            ("detection", ["--decoder", "upernet"], "--decoder upernet was given, which is for segmentation; leave it"),
            ("segmentation", ["--use_masks", "False"], "--use_masks False was given, which is for detection; leave"),
            ("segmentation", ["--min_resize_scale", "3"], "min_resize_scale=3 and max_resize_scale=1 were given"),
            (
                "segmentation",
                ["--head", '{"depth": 3}'],
                "--head sets depth; for segmentation there are decoder_hidden_size, ",
            ),
            ("segmentation", ["--head", "[3]"], "--head [3] was given; give names and values, as {...} in JSON."),
            ("detection", ["--head", "{"], "--head { was given, which is no JSON"),
            ("detection", ["--head", '{"max_detections": 0}'], "max_detections=0 was given; it must be an integer"),
            ("detection", ["--head", '{"max_detections": "all"}'], "max_detections='all' was given: "),
            ("segmentation", ["--num_labels", "0"], "num_labels=0 was given"),
            ("detection", ["--lora_rank", "2", "--fsdp"], "--lora_rank was given with FSDP, under which no"),
        ],
    )
    def test_options(self, checkpoints, scenes_folder, tmp_path, capsys, task, options, message):
        assert message in refusal(capsys, task, checkpoints / "pixelvit", scenes_folder, tmp_path, *options)

    def test_options_of_dense_tasks_in_classification(self, checkpoints, tmp_path, capsys):
        command = ["--model_name_or_path", str(checkpoints / "pixelvit"), "--dataset", "digits"]
        options = (
            ["--reduce_labels"],
            ["--on_invalid", "skip"],
            ["--box_format", "xyxy"],
            ["--photometric_distortion"],
        )
        for option in (*options, ["--head", "{}"]):
            assert finetune.main([*command, "--output_dir", str(tmp_path), *option]) == 2
            assert f"error: {option[0]}" in capsys.readouterr().err

    def test_data_of_another_task(self, checkpoints, scenes, tmp_path, capsys):
        shutil.rmtree(scenes / "annotations")
        for task in ("segmentation", "detection"):
            error = refusal(capsys, task, checkpoints / "pixelvit", scenes, tmp_path / "out")
            assert str(scenes) in error

    def test_several_gpus_in_one_process(self, trained, tmp_path):
        arguments = FinetuneArguments(output_dir=str(tmp_path), use_cpu=True)
        arguments._n_gpu = 2
        model = AutoModelForSemanticSegmentation.from_pretrained(trained / "segmentation")
        with pytest.raises(ValueError, match=r"One process was started for 2 GPUs.*accelerate launch"):
            FinetuneTrainer(None, model, arguments)
