# Copyright 2026 The modeling_pixelvit team. All rights reserved.
# SPDX-License-Identifier: Apache-2.0
"""Detection through the training loop: learning, going on, and metrics by an independent computation."""

import dataclasses
import json
import math

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
from PIL import Image
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval
from torch.nn import functional as F
from torchvision.ops import box_convert
from transformers import AutoImageProcessor, AutoModelForObjectDetection

from modeling_pixelvit import AdventurerForObjectDetection
from modeling_pixelvit.modeling_detection import PixelDetectionOutput
from training import train
from training.data.coco import load_detection_splits
from training.data.digit_scenes import write_digit_scenes
from training.tasks.detection import DetectionTask


HEADS = {
    "pyramid_channels": 16,
    "detection_strides": [4, 8],
    "anchor_sizes": [8, 16],
    "rpn_num_convs": 1,
    "rpn_batch_size_per_image": 32,
    "rpn_pre_nms_top_n_train": 50,
    "rpn_pre_nms_top_n_test": 50,
    "rpn_post_nms_top_n_train": 20,
    "rpn_post_nms_top_n_test": 20,
    "box_head_num_convs": 0,
    "box_head_hidden_size": 32,
    "box_batch_size_per_image": 16,
    "mask_head_num_convs": 1,
    "mask_head_channels": 8,
    "max_detections": 10,
}
LOSSES = {"loss", "loss_objectness", "loss_rpn_box", "loss_mask"}
LOSSES |= {f"loss_{part}_stage{stage}" for part in ("classifier", "box") for stage in (1, 2, 3)}


@pytest.fixture(scope="module")
def scenes(scenes_folder):
    return load_detection_splits(scenes_folder)


@pytest.fixture(scope="module")
def cut_scenes(scenes):
    """The test scenes cut to several sizes, of which most are resized and padded for evaluation."""
    sizes = [(32, 32), (32, 20), (24, 32), (28, 28), (20, 31), (32, 26)]
    return dataclasses.replace(scenes, evaluation=Cut(scenes.evaluation, sizes))


class Cut:
    """Images without their lower and right ends, and of objects what is left."""

    has_masks = True

    def __init__(self, images, sizes):
        self.pairs = [self._cut(*images[index], *size) for index, size in enumerate(sizes)]

    def _cut(self, image, target, height, width):
        masks = target["masks"][:, :height, :width]
        kept = masks.flatten(1).any(1)
        limits = torch.tensor([width, height, width, height])
        cut = {name: target[name][kept] for name in ("class_labels", "iscrowd")}
        cut["boxes"] = torch.minimum(target["boxes"][kept], limits)
        cut["area"] = masks[kept].sum((1, 2)).float()
        cut |= {"masks": masks[kept], "image_id": target["image_id"]}
        return image.crop((0, 0, width, height)), cut

    def __len__(self):
        return len(self.pairs)

    def __getitem__(self, index):
        return self.pairs[index]


def recipe_for(family="pixelvit", **fields):
    return make_recipe(f"{family}-detection", HEADS, **fields)


def build_noisy_model(task, scale=0.05):
    """Whose detections are many, different and wrong."""
    model = task.build_model().eval()
    torch.manual_seed(1)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(scale * torch.randn_like(parameter))
    return model


class Answering(torch.nn.Module):
    """Says the labels that it is given, some of them changed by `change(n)`: scores (n,) and which classes to say."""

    def __init__(self, change=None):
        super().__init__()
        self.change = change or (lambda classes: (torch.ones(len(classes)), classes))

    def forward(self, pixel_values, pixel_mask, labels):
        answers = {"scores": [], "pred_classes": [], "pred_boxes": [], "pred_masks": []}
        for label, mask in zip(labels, pixel_mask, strict=True):
            scores, classes = self.change(label["class_labels"])
            order = scores.argsort(descending=True, stable=True)
            free = 10 - len(order)
            answers["scores"].append(F.pad(scores[order], (0, free)))
            answers["pred_classes"].append(F.pad(classes[order], (0, free)))
            answers["pred_boxes"].append(F.pad(label["boxes"][order], (0, 0, 0, free)))
            cells = self._cells(label, mask)[order]
            answers["pred_masks"].append(F.pad(cells, (0, 0, 0, 0, 0, free)))
        answers = {name: torch.stack(values) for name, values in answers.items()}
        return PixelDetectionOutput(loss=torch.tensor(0.5), **answers)

    def _cells(self, label, pixel_mask):
        """The labels' masks in 28 by 28 cells of their boxes, from 8 times as many pixels."""
        height, width = pixel_mask.any(1).sum(), pixel_mask.any(0).sum()
        cells = []
        for mask, box in zip(label["masks"], label["boxes"], strict=True):
            x0, y0, x1, y1 = box_convert(box, "cxcywh", "xyxy") * torch.tensor([width, height, width, height])
            columns = (x0 + (torch.arange(28) + 0.5) / 28 * (x1 - x0)).long().clamp(max=mask.shape[1] - 1)
            rows = (y0 + (torch.arange(28) + 0.5) / 28 * (y1 - y0)).long().clamp(max=mask.shape[0] - 1)
            cells.append(mask[rows][:, columns].float())
        return torch.stack(cells)


class TestRuns:
    @pytest.mark.parametrize("family", TINY)
    def test_learns_evaluates_and_loads(self, family, tmp_path, scenes):
        recipe = recipe_for(family, num_train_epochs=10.0, base_learning_rate=3e-3, ema_decay=0.8)
        outcome = make_loop(recipe, scenes, tmp_path, eval_epochs=5.0).run()
        losses = train_losses(tmp_path)
        assert len(losses) == 30 and all(record.keys() - {"step"} == LOSSES for record in losses)
        assert all(
            sum(record[name] for name in LOSSES - {"loss"}) == pytest.approx(record["loss"]) for record in losses
        )
        totals = [record["loss"] for record in losses]
        assert sum(totals[-5:]) < 0.75 * sum(totals[:5])
        wanted = {f"{model}_{kind}_ap" for model in ("eval", "eval_average") for kind in ("box", "mask")}
        assert wanted < outcome.metrics.keys() and {"eval_loss", "eval_box_ap50"} < outcome.metrics.keys()
        assert [record["step"] for record in evaluations(tmp_path)] == [15, 30]
        best = AutoModelForObjectDetection.from_pretrained(tmp_path / "best")
        assert type(best).__name__.endswith("ForObjectDetection") and best.config.use_masks
        assert best.config.id2label == {index: str(index) for index in range(10)}
        processor = AutoImageProcessor.from_pretrained(tmp_path / "best")
        with torch.no_grad():
            outputs = best(**processor(scenes.evaluation[0][0], return_tensors="pt"))
        (found,) = processor.post_process_object_detection(outputs, threshold=0.0, target_sizes=[(32, 32)])
        assert found["boxes"].shape == (len(found["scores"]), 4)
        record = evaluation_of_best(tmp_path)
        metrics = evaluate_model(DetectionTask(recipe, scenes), best, batch_size=4)
        assert metrics["box_ap"] == pytest.approx(max(record["eval_box_ap"], record["eval_average_box_ap"]), rel=1e-4)

    @pytest.mark.parametrize("family, step", [("adventurer", 1), ("pixelvit", 4)])
    def test_goes_on_bit_for_bit(self, family, step, tmp_path, scenes):
        """With all that is random on, and the weights' average; the losses sample anchors and proposals as well."""
        recipe = recipe_for(
            family,
            **{"ema_decay": 0.8, "drop_path_rate": 0.5, "horizontal_flip": 0.5, "photometric_distortion": True},
            **{"min_resize_scale": 0.5, "max_resize_scale": 2.0, "max_grad_norm": 1.0, "layer_decay": 0.7},
        )
        check_going_on(recipe, scenes, tmp_path, step)
        files = {file for file, _ in tensors(tmp_path / "whole")}
        assert {"model.safetensors", "average/model.safetensors"} < files

    def test_without_masks_and_cascade(self, tmp_path, scenes):
        recipe = recipe_for(model={"use_masks": False, "use_cascade": False}, num_train_epochs=0.7)
        outcome = make_loop(recipe, scenes, tmp_path).run()
        (losses, _) = train_losses(tmp_path)
        parts = {"loss_objectness", "loss_rpn_box", "loss_classifier_stage1", "loss_box_stage1"}
        assert losses.keys() - {"loss", "step"} == parts
        assert not any("mask" in name for name in outcome.metrics)


class TestMetrics:
    def test_of_one_who_knows_the_answer(self, scenes, cut_scenes):
        for images in (scenes, cut_scenes):
            task = DetectionTask(recipe_for(), images)
            metrics = evaluate_model(task, Answering(), batch_size=4)
            assert metrics["loss"] == 0.5
            assert metrics["box_ap"] == metrics["box_ap50"] == metrics["box_ap75"] == pytest.approx(100)
            assert metrics["mask_ap50"] == pytest.approx(100) and metrics["mask_ap"] > 80  # cells are no pixels

    def test_against_pycocotools_on_the_files(self, scenes_folder, scenes):
        """What COCO's own code says of the same answers, written as COCO's results, against the annotation file."""

        def some_wrong(classes):
            scores = torch.linspace(0.3, 0.9, len(classes))
            return scores, torch.where(torch.arange(len(classes)) == 1, (classes + 1) % 10, classes)

        metrics = evaluate_model(DetectionTask(recipe_for(), scenes), Answering(some_wrong), batch_size=6)
        file = scenes_folder / "annotations" / "instances_test.json"
        truth = COCO(str(file))
        answers = []
        for image_id in truth.getImgIds():
            annotations = truth.loadAnns(truth.getAnnIds(image_id))
            scores, classes = some_wrong(torch.tensor([entry["category_id"] - 1 for entry in annotations]))
            for entry, score, label in zip(annotations, scores.tolist(), classes.tolist(), strict=True):
                answer = {"image_id": image_id, "category_id": label + 1, "score": score}
                answers.append({**answer, "bbox": [float(value) for value in entry["bbox"]]})
        evaluation = COCOeval(truth, truth.loadRes(answers), "bbox")
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
        assert 0 < evaluation.stats[0] < 1
        names = ("box_ap", "box_ap50", "box_ap75", "box_ap_small")
        assert [metrics[name] for name in names] == pytest.approx((100 * evaluation.stats[:4]).tolist(), rel=1e-5)

    @pytest.mark.parametrize("family", TINY)
    def test_do_not_depend_on_the_batch(self, family, cut_scenes):
        """Nor does the loss, though in training it samples and divides by what is in a whole batch."""
        task = DetectionTask(recipe_for(family, model={"box_score_threshold": 0.0}), cut_scenes)
        model = build_noisy_model(task)
        examples = [task.eval_example(index) for index in range(6)]
        with torch.no_grad():
            together = task.results(model, task.collate(examples))
            batches = [task.collate([example]) for example in examples]
            alone = [task.results(model, batch)[0] for batch in batches]
            losses = [task.losses(model, batch)["loss"].item() for batch in batches]
        assert [one.loss for one in alone] == pytest.approx(losses, rel=1e-5)
        for one, other in zip(alone, together, strict=True):
            assert one.loss == pytest.approx(other.loss, rel=1e-4)
            assert one.reference == other.reference and one.prediction["labels"] == other.prediction["labels"]
            assert len(one.prediction["labels"]) == 10
            for name in ("scores", "boxes"):
                np.testing.assert_allclose(one.prediction[name], other.prediction[name], rtol=1e-4, atol=1e-4)

    def test_an_image_without_objects(self, cut_scenes):
        """As COCO's images for evaluation are in part; data with masks."""
        task = DetectionTask(recipe_for(), cut_scenes)
        image, target = cut_scenes.evaluation[0]
        empty = {name: value[:0] if isinstance(value, torch.Tensor) else value for name, value in target.items()}
        task.images = dataclasses.replace(cut_scenes, evaluation=[(image, empty)])
        example = task.eval_example(0)
        assert example["labels"]["masks"].shape == (0, *example["pixel_mask"].shape)
        with torch.no_grad():
            (result,) = task.results(build_noisy_model(task).eval(), task.collate([example]))
        assert result.reference["labels"] == [] and math.isfinite(result.loss)

    def test_boxes_and_masks_in_the_images_own_pixels(self, cut_scenes):
        """Of images that are enlarged and padded: an object's box and mask are where they were."""
        task = DetectionTask(recipe_for(image_size=64), cut_scenes)
        examples = [task.eval_example(index) for index in range(len(cut_scenes.evaluation))]
        batch = task.collate(examples)
        assert batch["pixel_values"].shape == (6, 3, 64, 64) and len({mask.sum() for mask in batch["pixel_mask"]}) > 2
        for result, (image, target) in zip(task.results(Answering(), batch), cut_scenes.evaluation.pairs, strict=True):
            np.testing.assert_allclose(result.prediction["boxes"], target["boxes"], atol=1e-3)
            assert result.prediction["labels"] == target["class_labels"].tolist()
            assert result.reference["image_id"] == target["image_id"]
            assert (image.height, image.width) == target["masks"].shape[1:]

    def test_labels_are_those_of_training(self, cut_scenes):
        """Evaluation's labels are what training's transform makes of the whole image, where nothing is random."""
        task = DetectionTask(recipe_for(), cut_scenes)
        for index, (image, target) in enumerate(cut_scenes.evaluation.pairs):
            evaluated, trained = task.eval_example(index), task.train_transform(image, target)
            assert torch.equal(evaluated["pixel_mask"].bool(), trained["pixel_mask"].bool())
            for name in ("class_labels", "iscrowd"):
                assert torch.equal(evaluated["labels"][name], trained["labels"][name])
            torch.testing.assert_close(evaluated["labels"]["boxes"], trained["labels"]["boxes"], rtol=0, atol=1e-5)
            assert torch.equal(evaluated["labels"]["masks"], trained["labels"]["masks"])


class TestRefusals:
    def test_masks_that_the_data_lack(self, scenes_folder):
        boxes = load_detection_splits(scenes_folder, with_masks=False)
        with pytest.raises(ValueError, match=r"use_masks was set, but .* has objects without masks; leave it out"):
            DetectionTask(recipe_for(model={"use_masks": True}), boxes)
        task = DetectionTask(recipe_for(), boxes)
        assert task.config_fields()["use_masks"] is False and task.chance_loss() is None

    @pytest.fixture
    def damaged(self, tmp_path):
        """One box is empty, one is of an unknown image, and an image has another size than annotated."""
        write_digit_scenes(tmp_path / "data", num_train=9, num_test=2, canvas_size=32)
        file = tmp_path / "data" / "annotations" / "instances_train.json"
        content = json.loads(file.read_text())
        content["annotations"][0]["bbox"][2] = 0
        content["annotations"][1]["image_id"] = 77
        file.write_text(json.dumps(content))
        Image.new("RGB", (30, 32)).save(tmp_path / "data" / "images" / "train" / "000004.png")
        return tmp_path / "data"

    WORDS = ["--recipe", "adventurer-detection", "--variant", "tiny", "--patch_size", "8", "--image_size", "32"]
    WORDS += ["--total_batch_size", "8", "--num_train_epochs", "1", "--warmup_epochs", "0", "--report_to", "none"]
    WORDS += ["--model", json.dumps({**TINY["adventurer"], **HEADS})]

    def test_annotations_that_cannot_be_right_are_named(self, damaged, tmp_path, capsys):
        words = [*self.WORDS, "--dataset", str(damaged), "--output_dir", str(tmp_path / "run")]
        assert train.main(words) == 2
        shown = capsys.readouterr().err
        assert "Traceback" not in shown and "instances_train.json has 2 invalid entries" in shown
        assert "annotation 1 of" in shown and "annotation 2: its image 77 is not among the images" in shown

    def test_or_passed_over(self, damaged, tmp_path):
        words = [*self.WORDS, "--dataset", str(damaged), "--output_dir", str(tmp_path / "run"), "--on_invalid", "skip"]
        assert train.main(words) == 0
        progress = json.loads((tmp_path / "run" / "checkpoints" / "last" / "progress.json").read_text())["progress"]
        (entry,) = progress["unreadable"]
        assert "000004.png" in entry and "32 x 30" in entry


def test_starts_from_a_detector_with_other_patches(tmp_path, scenes):
    """Of a run before: encoder and heads go on, the kernel and the pyramid fit the new patch size."""
    make_loop(recipe_for("adventurer", num_train_epochs=0.7), scenes, tmp_path / "first").run()
    recipe = recipe_for("adventurer", initial_checkpoint=str(tmp_path / "first" / "best"), patch_size=2)
    model = DetectionTask(recipe, scenes).build_model()
    first = AdventurerForObjectDetection.from_pretrained(tmp_path / "first" / "best")
    assert model.config.patch_size == 2 and first.config.patch_size == 4
    state, before = model.state_dict(), first.state_dict()
    for name in before:
        if name.startswith(("adventurer.layers", "proposals", "box_stages", "mask_head")):
            assert torch.equal(state[name], before[name]), name
