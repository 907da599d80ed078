# Copyright 2026 The modeling_pixelvit team. All rights reserved.
# SPDX-License-Identifier: Apache-2.0
"""Semantic segmentation through the training loop: learning, going on, and metrics by an independent computation."""

import dataclasses
import json
import math
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from dense_runs import (
    TINY,
    check_going_on,
    evaluate_model,
    evaluation_of_best,
    evaluations,
    make_loop,
    make_recipe,
    tensors,
    train_losses,
)
from helpers import tiny_model
from PIL import Image
from transformers import AutoImageProcessor, AutoModelForSemanticSegmentation

from modeling_pixelvit import PixelViTForImageClassification
from training import train
from training.data.digit_scenes import write_digit_scenes
from training.data.segmentation import load_segmentation_splits
from training.data.splits import Splits
from training.tasks.base import DataOptions
from training.tasks.segmentation import SegmentationTask


HEADS = {
    "segmentation": {},
    "segmentation-upernet": {"decoder_hidden_size": 16, "auxiliary_channels": 8, "pool_scales": [1, 2]},
}
NUM_CLASSES = 11
# Of the test images with more than one size: (height, width), the first two without a resize.
SIZES = [(32, 32), (32, 45), (24, 30), (50, 32), (64, 64), (17, 61)]


@pytest.fixture(scope="module")
def scenes(scenes_folder):
    return load_segmentation_splits(scenes_folder)


def recipe_for(ending="segmentation", family="pixelvit", **fields):
    return make_recipe(f"{family}-{ending}", HEADS[ending], **{"photometric_distortion": False, **fields})


class Coloured:
    """
    Images whose pixels say their class: a class's grey level is 20 times its index, and a class map has a share of
    pixels without class.
    """

    def __init__(self, sizes):
        generator = np.random.default_rng(0)
        self.pairs = []
        for height, width in sizes:
            classes = generator.integers(0, NUM_CLASSES, (height, width)).astype(np.uint8)
            image = Image.fromarray(np.repeat(20 * classes[..., None], 3, axis=2))
            self.pairs.append((image, np.where(generator.random((height, width)) < 0.1, 255, classes).astype(np.uint8)))

    def __len__(self):
        return len(self.pairs)

    def __getitem__(self, index):
        return self.pairs[index]


def with_evaluation(scenes, images):
    return dataclasses.replace(scenes, evaluation=images)


class Reader(torch.nn.Module):
    """Reads the class of a pixel of `Coloured` from its colour, and says for some of the classes another one."""

    def __init__(self, scenes, says=None):
        super().__init__()
        self.mean, self.std = scenes.image_mean[0], scenes.image_std[0]
        self.says = torch.arange(NUM_CLASSES) if says is None else torch.tensor(says)

    def forward(self, pixel_values):
        levels = (pixel_values[:, 0] * self.std + self.mean) * 255 / 20
        classes = self.says[levels.round().long().clamp(0, NUM_CLASSES - 1)]
        logits = torch.nn.functional.one_hot(classes, NUM_CLASSES).permute(0, 3, 1, 2).float()
        return SimpleNamespace(logits=20 * logits)


class TestRuns:
    @pytest.mark.parametrize(
        ("family", "ending"), [("adventurer", "segmentation"), ("pixelvit", "segmentation-upernet")]
    )
    def test_learns_evaluates_and_loads(self, family, ending, tmp_path, scenes):
        recipe = recipe_for(ending, family, num_train_epochs=15.0, base_learning_rate=5e-3, ema_decay=0.8)
        outcome = make_loop(recipe, scenes, tmp_path, eval_epochs=7.5).run()
        losses = [record["loss"] for record in train_losses(tmp_path)]
        assert len(losses) == 45 and sum(losses[-5:]) < 0.6 * sum(losses[:5])
        measures = {"loss", "mean_iou", "mean_accuracy", "pixel_accuracy"}
        names = {f"{model}_{measure}" for model in ("eval", "eval_average") for measure in measures}
        assert outcome.metrics.keys() == names
        assert outcome.metrics["eval_pixel_accuracy"] > 50  # most is background
        assert [record["step"] for record in evaluations(tmp_path)] == [22, 44, 45]
        best = AutoModelForSemanticSegmentation.from_pretrained(tmp_path / "best")
        assert type(best).__name__.endswith("ForSemanticSegmentation") and best.config.id2label[10] == "background"
        assert (best.config.decoder_type, best.config.num_labels) == (recipe.model["decoder_type"], NUM_CLASSES)
        processor = AutoImageProcessor.from_pretrained(tmp_path / "best")
        image, class_map = scenes.evaluation[0]
        with torch.no_grad():
            outputs = best(**processor(image, return_tensors="pt"))
        (found,) = processor.post_process_semantic_segmentation(outputs, target_sizes=[class_map.shape])
        assert (found.numpy() == class_map).mean() > 0.5
        # The kept checkpoint is the one that was measured.
        record = evaluation_of_best(tmp_path)
        measured = max(record["eval_mean_iou"], record["eval_average_mean_iou"])
        metrics = evaluate_model(SegmentationTask(recipe, scenes), best, batch_size=4)
        assert metrics["mean_iou"] == pytest.approx(measured, rel=1e-4)

    def test_goes_on_bit_for_bit(self, tmp_path, scenes):
        """With all that is random on, batch norm's statistics, the auxiliary head, and the weights' average."""
        recipe = recipe_for(
            "segmentation-upernet",
            **{"ema_decay": 0.8, "drop_path_rate": 0.5, "photometric_distortion": True, "horizontal_flip": 0.5},
            **{"min_resize_scale": 0.5, "max_resize_scale": 2.0, "max_grad_norm": 1.0},
        )
        check_going_on(recipe, scenes, tmp_path, 1, 4)
        # The comparison has to have compared them.
        statistics = {name: value for name, value in tensors(tmp_path / "whole").items() if "running_mean" in name[1]}
        files = {file for file, _ in statistics}
        assert files == {"model.safetensors", "average/model.safetensors"} and len(statistics) >= 2 * 5
        assert all(value.any() for value in statistics.values())

    def test_starts_from_a_classifier(self, tmp_path, scenes):
        """At another patch and image size, its encoder resampled and a new decoder on it; evaluated as it comes."""
        tiny_model(PixelViTForImageClassification, **TINY["pixelvit"], image_size=16).save_pretrained(
            tmp_path / "first"
        )
        recipe = recipe_for(initial_checkpoint=str(tmp_path / "first"), num_train_epochs=1.0)
        loop = make_loop(recipe, scenes, tmp_path / "run")
        encoder = loop.model.pixelvit.state_dict()
        for name, value in (
            PixelViTForImageClassification.from_pretrained(tmp_path / "first").pixelvit.state_dict().items()
        ):
            if "embeddings" not in name:
                assert torch.equal(encoder[name], value), name
        assert encoder["embeddings.position_embeddings"].shape[1] == 8 * 8 + 1
        loop.run()
        assert [record["step"] for record in evaluations(tmp_path / "run")] == [0, 3]


class TestMetrics:
    @pytest.mark.parametrize("window", [None, 32, 15])
    @pytest.mark.parametrize("sizes", [[(32, 32)] * 3, [(32, 32), (32, 45), (50, 32)]])
    def test_of_one_who_knows_the_answer(self, sizes, window, scenes):
        """Images of the processor's size are not resized, so that their pixels can be read."""
        task = SegmentationTask(recipe_for(eval_window=window), with_evaluation(scenes, Coloured(sizes)))
        metrics = evaluate_model(task, Reader(scenes), batch_size=2)
        assert metrics.pop("loss") < 1e-6
        assert metrics == {"mean_iou": 100, "mean_accuracy": 100, "pixel_accuracy": 100}

    def test_of_mistakes(self, scenes):
        """Class 3 taken for 4, 7 for 0; counted pixel by pixel, over all images at once."""
        images = Coloured([(32, 32), (32, 45), (50, 32)])
        says = [0, 1, 2, 4, 4, 5, 6, 0, 8, 9, 10]
        task = SegmentationTask(recipe_for(), with_evaluation(scenes, images))
        metrics = evaluate_model(task, Reader(scenes, says), batch_size=3)
        truth = np.concatenate([class_map.ravel() for _, class_map in images.pairs])
        colours = np.concatenate([np.asarray(image)[..., 0].ravel() for image, _ in images.pairs])
        found, truth = np.array(says)[colours // 20][truth != 255], truth[truth != 255]
        of_class = [(found == k, truth == k) for k in range(NUM_CLASSES)]
        iou = [(one & other).sum() / (one | other).sum() for one, other in of_class]
        assert iou[3] == iou[7] == 0 and iou[1] == 1 and 0 < iou[4] < 1
        assert metrics["mean_iou"] == pytest.approx(100 * np.mean(iou))
        accuracy = [(one & other).sum() / other.sum() for one, other in of_class]
        assert metrics["mean_accuracy"] == pytest.approx(100 * np.mean(accuracy))
        assert metrics["pixel_accuracy"] == pytest.approx(100 * (found == truth).mean())
        wrong = (found != truth).mean()
        assert metrics["loss"] == pytest.approx(20 * wrong, abs=1e-4)

    def test_in_the_images_own_pixels(self, scenes):
        """Of a real model on images that are resized: its logits, resampled to each image, against a plain loop."""
        images = Coloured(SIZES)
        task = SegmentationTask(recipe_for(), with_evaluation(scenes, images))
        model = task.build_model().eval()
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.add_(0.1 * torch.randn_like(parameter))
            losses, hits = [], []
            for image, class_map in images.pairs:
                shorter = min(image.size)
                inputs = task.processor(image, return_tensors="pt").pixel_values
                assert min(inputs.shape[-2:]) == 32 and inputs.shape[-1] == round(32 / shorter * image.width)
                logits = model(pixel_values=inputs).logits
                logits = torch.nn.functional.interpolate(logits, size=class_map.shape, mode="bilinear")[0]
                logs = logits.log_softmax(0).permute(1, 2, 0).numpy()[class_map != 255]
                truth = class_map[class_map != 255].astype(int)
                losses += (-logs[np.arange(len(truth)), truth]).tolist()
                hits += (logs.argmax(1) == truth).tolist()
        metrics = evaluate_model(task, model, batch_size=6)
        assert metrics["loss"] == pytest.approx(np.mean(losses), rel=1e-5)
        assert metrics["pixel_accuracy"] == pytest.approx(100 * np.mean(hits), rel=1e-6)

    @pytest.mark.parametrize("window", [None, 16])
    @pytest.mark.parametrize("ending", HEADS)
    def test_do_not_depend_on_the_batch(self, ending, window, scenes):
        recipe = recipe_for(ending, "adventurer", eval_window=window)
        task = SegmentationTask(recipe, with_evaluation(scenes, Coloured(SIZES)))
        model = task.build_model()
        expected = evaluate_model(task, model, batch_size=1)
        for batch_size in (2, 4, 6):
            metrics = evaluate_model(task, model, batch_size)
            assert metrics.pop("loss") == pytest.approx(expected["loss"], rel=1e-6)
            assert metrics == {name: value for name, value in expected.items() if name != "loss"}

    def test_a_window_sees_no_more_than_its_part(self, scenes):
        """Windows of 32 pixels on an image of 32 by 45 start at columns 0 and 13, two thirds of 32 being 21."""
        seen = []

        class Noting(Reader):
            def forward(self, pixel_values):
                seen.append(tuple(pixel_values.shape))
                return super().forward(pixel_values)

        task = SegmentationTask(recipe_for(eval_window=32), with_evaluation(scenes, Coloured([(32, 45)])))
        evaluate_model(task, Noting(scenes), batch_size=1)
        assert seen == [(1, 3, 32, 32)] * 2


class TestRefusals:
    @pytest.fixture
    def damaged(self, tmp_path):
        """A mask has the value 11, and another one has the size of no image."""
        write_digit_scenes(tmp_path / "data", num_train=9, num_test=2, canvas_size=32)
        masks = tmp_path / "data" / "annotations" / "train"
        Image.fromarray(np.full((32, 32), 11, np.uint8)).save(masks / "000003.png")
        Image.fromarray(np.zeros((32, 30), np.uint8)).save(masks / "000005.png")
        return tmp_path / "data"

    WORDS = ["--recipe", "pixelvit-segmentation", "--variant", "tiny", "--patch_size", "8", "--image_size", "32"]
    WORDS += ["--total_batch_size", "8", "--num_train_epochs", "2", "--warmup_epochs", "0", "--report_to", "none"]
    WORDS += ["--model", json.dumps(TINY["pixelvit"])]

    def test_masks_that_cannot_be_right_are_named(self, damaged, tmp_path, capsys):
        words = [*self.WORDS, "--dataset", str(damaged), "--output_dir", str(tmp_path / "run")]
        assert train.main(words) == 2
        shown = capsys.readouterr().err
        assert "Traceback" not in shown and "by --on_invalid skip" in shown
        assert ("000003.png cannot be used (the mask has the value 11, but 0 to 10 are" in shown) or (
            "000005.png cannot be used (the mask has 32 x 30 pixels, but its image 32 x 32" in shown
        )

    def test_or_passed_over(self, damaged, tmp_path):
        words = [*self.WORDS, "--dataset", str(damaged), "--output_dir", str(tmp_path / "run"), "--on_invalid", "skip"]
        assert train.main(words) == 0
        progress = json.loads((tmp_path / "run" / "checkpoints" / "last" / "progress.json").read_text())["progress"]
        assert sorted(entry.split(":")[0].rsplit("/", 1)[1] for entry in progress["unreadable"]) == [
            "000003.png",
            "000005.png",
        ]

    def test_a_mask_that_is_not_there(self, damaged):
        (damaged / "annotations" / "train" / "000001.png").unlink()
        with pytest.raises(ValueError, match=r"000001\.png"):
            SegmentationTask.from_options(recipe_for(), DataOptions(dataset=str(damaged)))


def test_classes_that_count_from_one(scenes_folder):
    """As in ADE20k, where 0 is no class: the digit 0 here."""
    data = DataOptions(dataset=str(scenes_folder), reduce_labels=True, num_labels=10)
    task = SegmentationTask.from_options(recipe_for(), data)
    plain = SegmentationTask.from_options(recipe_for(), DataOptions(dataset=str(scenes_folder)))
    assert task.build_model().config.num_labels == 10
    for index in range(len(task.images.evaluation)):
        reduced, whole = (one.eval_example(index)["class_map"] for one in (task, plain))
        assert torch.equal(reduced, torch.where(whole == 0, 255, whole - 1))


def test_what_guessing_costs():
    maps = [(None, np.array([[0, 0], [0, 255]])), (None, np.array([[1, 255]]))]
    images = Splits("maps", ["a", "b", "c"], train=[], evaluation=maps)
    expected = -(0.75 * math.log(0.75) + 0.25 * math.log(0.25))
    assert SegmentationTask(recipe_for(), images).chance_loss() == pytest.approx(expected)
