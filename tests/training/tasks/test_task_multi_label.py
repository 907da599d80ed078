# Copyright 2026 The modeling_pixelvit team. All rights reserved.
# SPDX-License-Identifier: Apache-2.0
"""Images of several classes: what is read, the loss and mean AP by their definitions, and the way to a pipeline."""

import json
import math
from types import SimpleNamespace

import datasets
import numpy as np
import pytest
import torch
from dense_runs import TINY
from helpers import tiny_config
from PIL import Image
from transformers import AutoModelForImageClassification, pipeline

from modeling_pixelvit import PixelViTForImageClassification
from training import finetune, publish, train
from training.data.splits import Splits
from training.hub import publishing
from training.settings.recipe import Recipe
from training.tasks.base import SourceOptions
from training.tasks.multi_label import LabelSets, MultiLabelTask


pytestmark = pytest.mark.usefixtures("one_thread")


def load(folder, **options):
    return MultiLabelTask.load_images(SourceOptions(dataset=str(folder), **options))


def write_table(folder, labels, split="train"):
    """A folder of images with `metadata.jsonl`."""
    (folder / split).mkdir(parents=True)
    with open(folder / split / "metadata.jsonl", "w") as file:
        for index, names in enumerate(labels):
            Image.new("RGB", (9, 7), (index, 0, 0)).save(folder / split / f"{index}.png")
            file.write(json.dumps({"file_name": f"{index}.png", "labels": names}) + "\n")
    return folder


def make_task(num_labels=5, evaluation=()):
    """Over annotations alone."""
    names = [f"class {index}" for index in range(num_labels)]
    images = Splits("sets", names, [], LabelSets(lambda index: None, list(evaluation), num_labels))
    off = {"mixup_probability": 0.0, "label_smoothing": 0.0}
    return MultiLabelTask(Recipe(family="pixelvit", image_size=16, patch_size=16, **off), images)


class TestData:
    def test_classes_of_annotated_objects(self, scenes_folder):
        images = load(scenes_folder)
        annotations = json.loads((scenes_folder / "annotations" / "instances_train.json").read_text())
        assert (len(images.train), len(images.evaluation)) == (24, 6) and len(images.label_names) == 10
        names = {category["id"]: category["name"] for category in annotations["categories"]}
        for index, record in enumerate(annotations["images"]):
            image, truth = images.train[index]
            there = {names[one["category_id"]] for one in annotations["annotations"] if one["image_id"] == record["id"]}
            assert {images.label_names[label] for label in MultiLabelTask.classes_in(truth, 10)} == there
            assert image.size == (32, 32) and truth.dtype == torch.float32 and truth.shape == (10,)

    def test_lists_of_names(self, tmp_path):
        folder = write_table(tmp_path, [["sea", "dog"], [], ["cat"]])
        write_table(folder, [["dog"], None], "test")
        images = load(folder)
        assert images.label_names == ["cat", "dog", "sea"]
        found = {image.getpixel((0, 0))[0]: truth.tolist() for image, truth in images.train}
        assert found == {0: [0, 1, 1], 1: [0, 0, 0], 2: [1, 0, 0]}
        assert [truth.tolist() for _, truth in images.evaluation] == [[0, 1, 0], [0, 0, 0]]

    @pytest.mark.parametrize("declared", [True, False])
    def test_lists_of_numbers_with_a_fifth_held_out(self, tmp_path, declared):
        labels = [[0], [2, 1], [], [1], [2]]
        feature = datasets.ClassLabel(names=["a", "b", "c"]) if declared else datasets.Value("int64")
        features = datasets.Features({"img": datasets.Image(), "tags": datasets.List(feature)})
        pictures = [Image.new("RGB", (4, 4), (index, 0, 0)) for index in range(5)]
        table = datasets.Dataset.from_dict({"img": pictures, "tags": labels}, features=features)
        table.to_parquet(tmp_path / "train.parquet")
        images = load(tmp_path)
        assert images.label_names == (["a", "b", "c"] if declared else ["0", "1", "2"])
        assert (len(images.train), len(images.evaluation)) == (4, 1)
        for image, truth in [*images.train, *images.evaluation]:
            assert MultiLabelTask.classes_in(truth, 3) == sorted(labels[image.getpixel((0, 0))[0]])

    def test_what_cannot_be_read(self, tmp_path):
        folder = write_table(tmp_path / "a", [["sea"], ["dog"]])
        write_table(folder, [["bird"]], "test")
        with pytest.raises(ValueError, match=r"test\[0\] of .* has the label 'bird', which is none of the 2 classes"):
            load(folder)
        with pytest.raises(ValueError, match="holds no lists of labels; give each image a list"):
            load(write_table(tmp_path / "b", ["sea", "dog"]))
        with pytest.raises(ValueError, match="--label_column=kind was given"):
            load(tmp_path / "b", label_column="kind")
        with pytest.raises(ValueError, match=r"mixup_probability=1\.0 was given, which multi_label has no use for"):
            MultiLabelTask.check_recipe(Recipe(mixup_probability=1.0))


class TestLossAndMetrics:
    def test_the_loss_is_that_of_transformers(self):
        model = PixelViTForImageClassification(
            tiny_config("pixelvit", num_labels=5, problem_type="multi_label_classification")
        )
        pixels, labels = torch.randn(4, 3, 8, 8), torch.randint(2, (4, 5)).float()
        loss = make_task().losses(model, {"pixel_values": pixels, "labels": labels})["loss"]
        torch.testing.assert_close(loss, model(pixels, labels=labels).loss)
        loss.backward()
        assert all(parameter.grad is not None for parameter in model.classifier.parameters())

    def test_mean_average_precision_by_its_definition(self):
        generator = np.random.default_rng(0)
        logits, labels = generator.normal(size=(40, 5)).astype(np.float32), generator.random((40, 5)) < 0.3
        labels[:, 2] = False  # a class that does not occur has no average precision
        expected = []
        for scores, truth in zip(logits.T, labels.T, strict=True):
            hits = truth[np.argsort(-scores)]
            precision = np.cumsum(hits) / np.arange(1, len(hits) + 1)
            expected += [precision[hits].mean()] if hits.any() else []
        task = make_task()

        def model(**inputs):
            return SimpleNamespace(logits=torch.from_numpy(logits))

        batch = {"pixel_values": torch.zeros(40, 3, 16, 16), "labels": torch.from_numpy(labels).float()}
        results = task.results(model, batch)
        found = task.metrics(results)
        assert found["mean_ap"] == pytest.approx(100 * np.mean(expected))
        assert found["loss"] == pytest.approx(task.losses(model, batch)["loss"].item())
        worst = [(loss, np.where(truth, np.nan, scores), truth) for loss, scores, truth in results]
        best = [(loss, np.where(truth, 9.0, scores), truth) for loss, scores, truth in results]
        assert task.metrics(worst)["mean_ap"] < found["mean_ap"] < task.metrics(best)["mean_ap"] == 100
        with pytest.raises(ValueError, match="None of the 40 images has a class"):
            task.metrics([(loss, scores, np.zeros(5, dtype=bool)) for loss, scores, _ in results])

    def test_what_guessing_costs(self):
        task = make_task(3, [[0, 1], [1], [1], []])
        expected = -(0.25 * math.log(0.25) + 0.75 * math.log(0.75)) * 2 / 3  # and nothing for the class never seen
        assert task.chance_loss() == pytest.approx(expected)


def test_from_training_to_a_pipeline(scenes_folder, tmp_path, monkeypatch, capsys):
    """With the commands alone: a run, its best model fine-tuned at another patch size, published and used."""
    learned = ["--task", "multi_label", "--dataset", str(scenes_folder)]
    words = [*learned, "--recipe", "pixelvit-sweep", "--patch_size", "16"]
    words += ["--image_size", "32", "--digit_distortion", "0", "--total_batch_size", "8", "--num_train_epochs", "2"]
    words += ["--warmup_epochs", "0", "--report_to", "none", "--model", json.dumps(TINY["pixelvit"])]
    assert train.main([*words, "--output_dir", str(tmp_path / "run")]) == 0
    results = json.loads((tmp_path / "run" / "results.json").read_text())["metrics"]
    assert 0 < results["eval_mean_ap"] <= 100 and results["eval_loss"] < 2

    tuned = tmp_path / "tuned"
    words = [*learned, "--model_name_or_path", str(tmp_path / "run" / "best")]
    words += ["--patch_size", "8", "--max_steps", "2", "--per_device_train_batch_size", "8", "--use_cpu", "True"]
    assert finetune.main([*words, "--report_to", "none", "--output_dir", str(tuned)]) == 0
    config = AutoModelForImageClassification.from_pretrained(tuned).config
    assert (config.problem_type, config.patch_size, config.num_labels) == ("multi_label_classification", 8, 10)
    found = json.loads((tuned / "eval_results.json").read_text())
    assert 0 < found["eval_mean_ap"] <= 100

    monkeypatch.setattr(publishing, "check_folder", lambda job: [])  # in a process of its own, for a minute
    out = tmp_path / "out"
    assert publish.main([str(tuned), "--repo-id", "USER/scenes", "--output_dir", str(out)]) == 0
    card = (out / "README.md").read_text()
    assert "multi-label image classification" in card and "outputs.logits[0].sigmoid()" in card
    assert f"mean over the classes of average precision, scenes (evaluation) | {found['eval_mean_ap']:.1f}%" in card
    answer = pipeline("image-classification", str(out), top_k=10)(str(scenes_folder / "images" / "test" / "000000.png"))
    model = AutoModelForImageClassification.from_pretrained(out)
    assert len(answer) == 10 and model.config.problem_type == "multi_label_classification"
    assert abs(sum(entry["score"] for entry in answer) - 1) > 0.1  # each class is asked for by itself
    refused = [*learned, "--model_name_or_path", str(tuned)]
    capsys.readouterr()
    assert finetune.main([*refused, "--mixup_alpha", "0.8", "--output_dir", str(tmp_path / "other")]) == 2
    assert "--mixup_alpha 0.8 was given, which is for classification; leave it out" in capsys.readouterr().err
