# Copyright 2026 The modeling_pixelvit team. All rights reserved.
# SPDX-License-Identifier: Apache-2.0
"""The patch-size sweep: its data, one run, what is kept and repeated, and the law fitted in the end."""

import dataclasses
import filecmp
import json
import math
import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import huggingface_hub.constants
import numpy as np
import pytest
import torch
from PIL import Image
from torch.utils.data import Subset
from transformers import AutoImageProcessor, AutoModelForImageClassification, pipeline

from training import sweep
from training.data.digit_scenes import write_digit_scenes
from training.data.sources import load_images
from training.data.splits import Splits
from training.engine.checkpoints import find_checkpoints
from training.engine.evaluation import IMAGES_FILE
from training.experiments.arguments import parse_arguments
from training.experiments.images import load_run_images
from training.experiments.law import count_falling_runs, find_falls, judge_convergence, summarize_curve
from training.experiments.page import build_report
from training.experiments.run import METRICS_FILE, UNFINISHED_FOLDER, Interrupted, execute
from training.experiments.sweep import plan_sweep
from training.experiments.workers import Resources, WorkerPool, seconds_per_work, work_of
from training.families.registry import FAMILIES
from training.settings.recipe import load_recipe
from training.tasks.classification import ClassificationTask


pytestmark = pytest.mark.usefixtures("one_thread")

REPOSITORY = Path(__file__).parents[3]
CLASSIFICATION = {"task": "classification", "series": "one", "chance_loss": math.log(10)}
TINY_COMMAND = ["--train_images", "96", "--batch_size", "16", "--width", "32", "--num_blocks", "2"]


@pytest.fixture(scope="module")
def few_digits():
    """With a test set that takes no time."""
    images = load_images("digits-16")
    return dataclasses.replace(images, evaluation=Subset(images.evaluation, range(50)))


def plan(*words):
    """The runs of a sweep of so many images as there are digits."""
    images = Splits("digits", [str(digit) for digit in range(10)], range(1400), range(50))
    return [point.run for point in plan_sweep(parse_arguments(list(words)), images)[1]]


def make_run(folder, family="adventurer", **changes):
    """A run as the command line makes it of `TINY_COMMAND`, at patch 8 or another."""
    (run,) = plan(*TINY_COMMAND, "--families", family, "--patch_sizes", str(changes.pop("patch_size", 8)))
    return dataclasses.replace(run, recipe=dataclasses.replace(run.recipe, **changes), folder=str(folder))


@pytest.fixture(scope="module")
def finished(tmp_path_factory, few_digits):
    """An output folder with one finished run."""
    folder = tmp_path_factory.mktemp("sweep")
    execute(make_run(folder / "adventurer-patch8"), few_digits)
    return folder


def in_process(monkeypatch):
    """Makes the sweep run in this process, without starting others."""

    def execute_all(pool):
        for run in pool.waiting:
            images = load_run_images(run.recipe, **run.data, folder=Path(pool.images_folder))
            if len(images.evaluation) > 4:
                images = dataclasses.replace(images, evaluation=Subset(images.evaluation, range(4)))
            execute(run, images)
        pool.bar.close()
        return {}

    monkeypatch.setattr(WorkerPool, "execute", execute_all)


def stop_at_step(step):
    def report(steps, loss):
        if steps == step:
            os.kill(os.getpid(), signal.SIGTERM)

    return report


class TestRun:
    @pytest.mark.parametrize("family", ["adventurer", "pixelvit"])
    def test_tokens_of_an_extended_sequence(self, tmp_path, family):
        """As many as of patches of half the side: as much work, but for the images' own."""
        half = make_run(tmp_path, family, patch_size=4)
        extended = make_run(tmp_path, family)
        extended.recipe.model["sequence_extension"] = 4
        assert extended.num_tokens == half.num_tokens == 16 and work_of(extended) == work_of(half)

    def test_the_time_of_a_run_is_told_by_those_that_are_most_like_it(self, tmp_path):
        adventurer, pixelvit = (make_run(tmp_path, family) for family in ("adventurer", "pixelvit"))
        wide = make_run(tmp_path, model={**adventurer.recipe.model, "hidden_size": 64})
        measured = [(adventurer, 2.0, 4.0), (adventurer, 1.0, 2.0), (pixelvit, 9.0, 1.0)]
        assert seconds_per_work(adventurer, measured) == seconds_per_work(wide, measured) == 0.5
        assert seconds_per_work(pixelvit, measured[:2]) == 0.5 and seconds_per_work(pixelvit, measured) == 9.0

    def test_a_checkpoint_loads_and_gives_the_logged_test_result(self, finished, few_digits):
        folder = finished / "adventurer-patch8"
        metrics = json.loads((folder / METRICS_FILE).read_text())
        model = AutoModelForImageClassification.from_pretrained(folder).eval()
        processor = AutoImageProcessor.from_pretrained(folder)
        pictures, labels = zip(*[few_digits.evaluation[index] for index in range(50)], strict=True)
        with torch.no_grad():
            logits = model(**processor(list(pictures), return_tensors="pt")).logits
        labels = torch.tensor(labels)
        loss = torch.nn.functional.cross_entropy(logits, labels).item()
        assert loss == pytest.approx(metrics["test_loss"], rel=1e-5)
        assert (logits.argmax(-1) == labels).float().mean() * 100 == pytest.approx(metrics["test_accuracy"])
        assert metrics["tokens"] == 4 and metrics["peak_memory_mib"] > 50 and metrics["images_seen"] == 96
        assert model.config.id2label[7] == "7"
        with np.load(folder / metrics["image_values"]) as values:
            expected = torch.nn.functional.cross_entropy(logits, labels, reduction="none").numpy()
            np.testing.assert_allclose(values["loss"], expected, rtol=1e-4)
            np.testing.assert_array_equal(values["accuracy"] == 100, (logits.argmax(-1) == labels).numpy())

    def test_training_sees_what_the_saved_processor_makes(self, finished, few_digits):
        """No crop, no mirroring, no change of colour: digits are distorted before they are placed."""
        run = make_run(finished)
        task = ClassificationTask(run.recipe, few_digits)
        processor = AutoImageProcessor.from_pretrained(finished / "adventurer-patch8")
        image, _ = few_digits.evaluation[0]
        expected = processor(image, return_tensors="pt").pixel_values[0]
        torch.testing.assert_close(task.train_transform(image), expected, rtol=1e-5, atol=1e-5)

    def test_pipeline(self, finished, few_digits):
        classifier = pipeline("image-classification", model=str(finished / "adventurer-patch8"))
        assert classifier(few_digits.evaluation[0][0])[0]["label"] in few_digits.label_names

    @pytest.mark.parametrize("family", ["adventurer", "pixelvit"])
    def test_an_interrupted_run_goes_on_to_the_same_result(self, tmp_path, few_digits, family):
        expected = execute(make_run(tmp_path / "whole", family), few_digits)
        broken = make_run(tmp_path / "broken", family)
        with pytest.raises(Interrupted):
            execute(broken, few_digits, stop_at_step(4))
        assert find_checkpoints(tmp_path / "broken" / UNFINISHED_FOLDER / "checkpoints")
        assert broken.finished_metrics() is None
        steps = []
        metrics = execute(broken, few_digits, lambda step, loss: steps.append(step))
        assert steps == [5, 6]
        for name in ("test_loss", "test_accuracy", "train_loss"):
            assert metrics[name] == expected[name]
        assert filecmp.cmp(tmp_path / "broken" / IMAGES_FILE, tmp_path / "whole" / IMAGES_FILE, shallow=False)
        assert not (tmp_path / "broken" / UNFINISHED_FOLDER).exists()

    def test_what_was_begun_with_other_settings_is_not_continued(self, tmp_path, few_digits):
        with pytest.raises(Interrupted):
            execute(make_run(tmp_path), few_digits, stop_at_step(4))
        steps = []
        execute(make_run(tmp_path, base_learning_rate=1e-4), few_digits, lambda step, loss: steps.append(step))
        assert steps == [1, 2, 3, 4, 5, 6]


class TestSweep:
    def test_from_the_command_line_to_the_example_that_it_prints(self, tmp_path):
        command = [sys.executable, "-m", "training.sweep", *TINY_COMMAND, "--output_dir", str(tmp_path)]
        command += ["--families", "pixelvit", "--patch_sizes", "16", "8"]
        done = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        results = json.loads((tmp_path / "results.json").read_text())
        assert [run["patch_size"] for run in results["runs"]] == [16, 8]
        assert {run["recipe"]["total_batch_size"] for run in results["runs"]} == {16}
        assert results["fits"]["PixelViT"]["power"] is None
        assert [run["images_seen"] for run in results["runs"]] == [96, 96]
        assert "it takes at least 3 values of patch with runs that learned" in done.stdout
        with Image.open(tmp_path / "scaling.png") as picture:
            assert picture.format == "PNG"
        assert len((tmp_path / "table.md").read_text().splitlines()) > 4
        example = done.stdout[done.stdout.index("import modeling_pixelvit") :]
        answer = subprocess.run([sys.executable, "-c", example], cwd=REPOSITORY, capture_output=True, text=True)
        assert set(json.loads(answer.stdout.replace("'", '"'))) <= {str(digit) for digit in range(10)}, answer.stderr

    def test_finished_runs_are_kept_and_missing_ones_made(self, finished, monkeypatch, capsys):
        in_process(monkeypatch)
        metrics = finished / "adventurer-patch8" / METRICS_FILE
        written = metrics.stat().st_mtime_ns
        arguments = [*TINY_COMMAND, "--output_dir", str(finished), "--families", "adventurer"]
        assert sweep.main([*arguments, "--patch_sizes", "8", "16"]) == 0
        assert metrics.stat().st_mtime_ns == written
        assert "1 of 2 runs to do" in capsys.readouterr().out
        assert (finished / "adventurer-patch16" / METRICS_FILE).exists()
        assert sweep.main([*arguments, "--patch_sizes", "8", "16"]) == 0
        assert "0 of 2 runs to do" in capsys.readouterr().out

    def test_a_changed_recipe_is_refused_or_repeats_the_run(self, finished, monkeypatch, capsys):
        in_process(monkeypatch)
        metrics = finished / "adventurer-patch8" / METRICS_FILE
        before = json.loads(metrics.read_text())
        arguments = [*TINY_COMMAND, "--output_dir", str(finished), "--families", "adventurer", "--patch_sizes", "8"]
        assert sweep.main([*arguments, "--seed", "1"]) == 2
        error = capsys.readouterr().err
        assert "other settings (seed: 0 there, 1 now)" in error and "--overwrite" in error
        assert json.loads(metrics.read_text()) == before
        assert sweep.main([*arguments, "--seed", "1", "--overwrite"]) == 0
        assert json.loads(metrics.read_text())["recipe"]["seed"] == 1
        assert sweep.main([*arguments, "--overwrite"]) == 0  # as the other tests want it

    def test_a_run_from_before_there_was_a_field_is_kept(self, finished, monkeypatch, capsys):
        in_process(monkeypatch)
        metrics = finished / "adventurer-patch8" / METRICS_FILE
        before = metrics.read_text()
        old = json.loads(before)
        for name in ("patch_draws", "tokens_per_step", "crop_padding"):
            del old["recipe"][name]
        metrics.write_text(json.dumps(old))
        arguments = [*TINY_COMMAND, "--output_dir", str(finished), "--families", "adventurer", "--patch_sizes", "8"]
        assert sweep.main(arguments) == 0
        assert "0 of 1 runs to do" in capsys.readouterr().out and json.loads(metrics.read_text()) == old
        assert sweep.main([*arguments, "--crop_padding", "1"]) == 2
        assert "crop_padding: 0 there, 1 now" in capsys.readouterr().err
        metrics.write_text(before)

    def test_ctrl_c_says_how_to_go_on(self, tmp_path, monkeypatch, capsys):
        def interrupt(pool):
            pool.bar.close()
            raise KeyboardInterrupt

        monkeypatch.setattr(WorkerPool, "execute", interrupt)
        assert sweep.main(["--output_dir", str(tmp_path)]) == 130
        error = capsys.readouterr().err
        assert f"python -m training.sweep --output_dir {tmp_path}" in error and "Traceback" not in error

    def test_a_killed_worker_is_reported(self, tmp_path, monkeypatch):
        start = WorkerPool._start

        def start_and_kill(pool, run):
            start(pool, run)
            pool.active[run.name].process.kill()

        monkeypatch.setattr(WorkerPool, "_start", start_and_kill)
        run = make_run(tmp_path / "pixelvit-patch8", "pixelvit")
        errors = WorkerPool([run], str(tmp_path), Resources()).execute()
        assert errors == {"pixelvit-patch8": "its process ended with exit code -9 (if negative, by that signal)"}

    def test_image_folder(self, image_folder, tmp_path, monkeypatch, capsys):
        in_process(monkeypatch)
        arguments = ["--dataset", str(image_folder), "--image_size", "8", "--patch_sizes", "4", "--epochs", "3"]
        arguments += ["--families", "pixelvit", "--width", "32", "--num_blocks", "2", "--batch_size", "4"]
        assert sweep.main([*arguments, "--output_dir", str(tmp_path / "out")]) == 0
        assert "16 training images, 4 test images" in capsys.readouterr().out
        metrics = json.loads((tmp_path / "out" / "pixelvit-patch4" / METRICS_FILE).read_text())
        assert metrics["images_seen"] == 48 and metrics["data"]["source"] == str(image_folder)
        classifier = pipeline("image-classification", model=str(tmp_path / "out" / "pixelvit-patch4"))
        assert {answer["label"] for answer in classifier(str(image_folder / "dark" / "0.png"))} == {"dark", "light"}
        (image_folder / "dark").rename(image_folder / "night")
        assert sweep.main([*arguments, "--output_dir", str(tmp_path / "out")]) == 2
        assert "now holds 16 and 4 of other classes" in capsys.readouterr().err
        assert sweep.main([*arguments, "--output_dir", str(tmp_path / "out"), "--overwrite"]) == 0

    def test_several_seeds(self, tmp_path, monkeypatch, capsys):
        in_process(monkeypatch)
        words = [*TINY_COMMAND, "--families", "pixelvit", "--patch_sizes", "16", "8", "4", "--seeds", "3", "5"]
        assert sweep.main([*words, "--output_dir", str(tmp_path)]) == 0
        results = json.loads((tmp_path / "results.json").read_text())
        names = [f"pixelvit-patch{patch}-seed{seed}" for patch in (16, 8, 4) for seed in (3, 5)]
        assert [run["name"] for run in results["runs"]] == names
        assert all((tmp_path / name / "model.safetensors").exists() for name in names)
        losses = {(run["patch_size"], run["seed"]): run["test_loss"] for run in results["runs"]}
        assert losses[8, 3] != losses[8, 5]
        shown = capsys.readouterr().out
        mean = (losses[16, 3] + losses[16, 5]) / 2
        assert f"|     2 | {mean:.3f} ± " in shown and "at every step in " in shown and "of 2 single runs" in shown
        (first, second) = results["falls"]["PixelViT"]
        assert first["places"] == [16, 8] and first["seeds"] == second["seeds"] == 2
        expected = math.sqrt(losses[8, 3] * losses[8, 5] / losses[16, 3] / losses[16, 5])
        assert first["ratio"] == pytest.approx(expected) and first["interval"][0] < expected < first["interval"][1]
        page, _ = build_report([tmp_path], "nowhere", tmp_path / "images")  # of the checkpoints beside the results
        assert "PixelViT, seed 3, on test images" in page
        with pytest.raises(SystemExit):
            parse_arguments(["--seed", "1", "--seeds", "1", "2"])

    def test_options_of_one_family_leave_the_other_alone(self):
        words = ["--scan_order", "rows", "--position_embedding_type", "absolute", "--patch_sizes", "1", "8"]
        words += ["--patch_schedule", "4:0.5", "1:0.5", "--digit_distortion", "0", "--pooling", "cls"]
        runs = {run.name: run.recipe for run in plan(*words)}
        assert runs["adventurer-patch1"].model["scan_order"] == "rows"
        assert "scan_order" not in runs["pixelvit-patch1"].model
        assert runs["pixelvit-patch1"].model["position_embedding_type"] == "absolute"
        assert "position_embedding_type" not in runs["adventurer-patch1"].model
        assert {recipe.digit_distortion for recipe in runs.values()} == {0.0}
        assert {recipe.model["pooling"] for recipe in runs.values()} == {"cls"}
        assert runs["adventurer-patch1"].patch_shares == {4: 0.5, 1: 0.5}
        assert runs["adventurer-patch8"].patch_shares == {8: 1.0}

    def test_a_family_sees_as_many_images_as_its_recipe_says(self):
        def images_seen(*words):
            runs = plan("--patch_sizes", "4", *words)
            return {run.recipe.family: run.num_batches * run.recipe.total_batch_size for run in runs}

        recipes = {family: load_recipe(f"{family}-sweep") for family in FAMILIES}
        for family, seen in images_seen().items():
            batch = recipes[family].total_batch_size
            assert seen == round(1400 * recipes[family].num_train_epochs) // batch * batch
        assert set(images_seen("--train_images", "960").values()) == {960}
        assert set(images_seen("--epochs", "2").values()) == {2800, 2784}  # whole batches of 16 and 32
        assert set(images_seen("--dataset", "photographs").values()) == {28000}

    def test_photographs_are_mirrored_and_cropped_and_digits_distorted(self):
        def recipes(*words):
            return [run.recipe for run in plan(*words, "--patch_sizes", "4", "--train_images", "64")]

        for recipe in recipes("--dataset", "photographs"):
            assert (recipe.horizontal_flip, recipe.crop_padding, recipe.digit_distortion) == (0.5, 0, 0.0)
        for recipe in recipes("--dataset", "photographs", "--horizontal_flip", "0", "--crop_padding", "1"):
            assert (recipe.horizontal_flip, recipe.crop_padding) == (0.0, 1)
        for recipe in recipes():
            assert (recipe.horizontal_flip, recipe.crop_padding) == (0.0, 0) and recipe.digit_distortion > 0

    def test_what_has_ended_is_shown_before_the_rest_has(self, image_folder, tmp_path, capfd):
        """Both families' shortest runs come first, and the longest one with them."""
        words = [*TINY_COMMAND, "--dataset", str(image_folder), "--image_size", "16", "--patch_sizes", "16", "8", "4"]
        words += ["--workers", "2", "--output_dir", str(tmp_path / "out")]
        assert sweep.main(words) == 0
        shown = "".join(capfd.readouterr())
        table = shown[shown.index("test loss so far") :].splitlines()
        assert any(re.search(r" \d\.\d{3}", row) for row in table[1:3]) and any("..." in row for row in table[1:3])

    def test_a_few_images_are_of_all_classes(self, image_folder, tmp_path):
        images = load_run_images(load_recipe("pixelvit-sweep"), str(image_folder), 8, tmp_path / "stored", most=4)
        assert sorted(label for _, label in images.train) == [0, 0, 1, 1] and len(images.evaluation) == 4

    def test_image_folder_with_a_split_of_its_own(self, image_folder, tmp_path):
        image_folder.rename(tmp_path / "train")
        (tmp_path / "tree").mkdir()
        (tmp_path / "train").rename(tmp_path / "tree" / "train")
        (tmp_path / "tree" / "test" / "light").mkdir(parents=True)
        (tmp_path / "tree" / "train" / "light" / "9.png").rename(tmp_path / "tree" / "test" / "light" / "9.png")
        images = load_run_images(load_recipe("pixelvit-sweep"), str(tmp_path / "tree"), 8, tmp_path / "stored")
        assert len(images.train) == 19 and len(images.evaluation) == 1
        image, label = images.evaluation[0]
        assert label == 1 and image.size == (8, 8) and np.asarray(image).mean() > 155

    @pytest.mark.parametrize(
        ("arguments", "sentence"),
        [
            (["--patch_sizes", "3"], "--patch_sizes 3 was given, which does not divide images of 16 pixels; choose"),
            (["--image_size", "0"], "--image_size 0 was given; it must be finite and above zero."),
            (["--width", "20"], "--width 20 was given; adventurer takes multiples of its head width"),
            (["--train_images", "8"], "8 training images are fewer than one batch of"),
            (["--scan_order", "spirals"], "scan_order"),
            (
                ["--patch_schedule", "8:0.5", "2:0.5"],
                "with patch_size=1; its patch sizes must fall, down to patch_size or",
            ),
            (["--digit_distortion", "2"], "digit_distortion=2 was given; it must be at least 0 and at most 1"),
            (["--image_size", "4", "--patch_sizes", "4"], "image_size=4 was given, but a digit has 8 by 8"),
            (["--dataset", "no/such/folder/anywhere"], "is neither a folder with images nor a data set that could be"),
        ],
    )
    def test_wrong_options_get_a_sentence(self, tmp_path, capsys, monkeypatch, arguments, sentence):
        monkeypatch.setenv("HF_HUB_OFFLINE", "1")
        assert sweep.main([*arguments, "--output_dir", str(tmp_path / "out")]) == 2
        error = capsys.readouterr().err
        assert error.startswith("error: ") and sentence in error and len(error.splitlines()) == 1
        assert not (tmp_path / "out").exists()

    def test_a_loss_that_is_no_number_gets_a_sentence(self, tmp_path, capsys):
        words = [*TINY_COMMAND, "--families", "pixelvit", "--patch_sizes", "16", "--peak_rate", "1e30"]
        assert sweep.main([*words, "--output_dir", str(tmp_path)]) == 1
        error = capsys.readouterr().err
        assert "failed:\nThe training loss is nan, at step" in error and "Traceback" not in error

    def test_fewer_images_than_a_batch_get_a_sentence(self, image_folder, tmp_path, capsys):
        assert sweep.main(["--dataset", str(image_folder), "--patch_sizes", "8", "--output_dir", str(tmp_path)]) == 2
        error = capsys.readouterr().err
        assert "has 16 training images, fewer than the 32 of a batch" in error and "--batch_size" in error

    def test_a_folder_without_classes(self, image_folder, tmp_path):
        (tmp_path / "flat").mkdir()
        (image_folder / "dark" / "0.png").rename(tmp_path / "flat" / "0.png")
        with pytest.raises(ValueError, match=r"has images but no class labels .*subfolder of its own"):
            load_run_images(load_recipe("pixelvit-sweep"), str(tmp_path / "flat"), 8, tmp_path / "stored")

    def test_a_folder_of_one_class(self, image_folder, tmp_path):
        (image_folder / "dark").rename(tmp_path / "dark")
        with pytest.raises(ValueError, match="each of two or more classes into a subfolder"):
            load_run_images(load_recipe("pixelvit-sweep"), str(image_folder), 8, tmp_path / "stored")


class TestDenseTasks:
    WORDS = [*TINY_COMMAND, "--train_images", "16", "--batch_size", "4", "--families", "pixelvit"]

    @pytest.fixture
    def scenes(self, tmp_path):
        write_digit_scenes(tmp_path / "scenes", num_train=8, num_test=3, canvas_size=32)
        return tmp_path / "scenes"

    def check(self, words, scenes, tmp_path):
        words = [*self.WORDS, *words, "--dataset", str(scenes), "--output_dir", str(tmp_path / "out")]
        assert sweep.main(words) == 0
        for name in ("scaling.png", "predictions.png"):
            with Image.open(tmp_path / "out" / name) as picture:
                assert picture.format == "PNG"
        return json.loads((tmp_path / "out" / "results.json").read_text())

    def test_segmentation_with_both_decoders(self, scenes, tmp_path, monkeypatch, capsys):
        words = ["--task", "segmentation", "--decoder", "none,upernet", "--patch_sizes", "16", "8"]
        in_process(monkeypatch)
        results = self.check(words, scenes, tmp_path)
        assert [run["name"] for run in results["runs"]] == [
            "pixelvit-patch16",
            "pixelvit-patch8",
            "pixelvit-upernet-patch16",
            "pixelvit-upernet-patch8",
        ]
        assert all(0 <= run["test_mean_iou"] <= 100 for run in results["runs"])
        assert [(one["variant"], one["place"]) for one in results["comparisons"]] == [("UperNet", 16), ("UperNet", 8)]
        assert "test loss over that of: no decoder" in capsys.readouterr().out
        segmenter = pipeline("image-segmentation", model=str(tmp_path / "out" / "pixelvit-upernet-patch8"))
        assert segmenter(str(tmp_path / "out" / "test_image.png"))[0]["mask"].size == (32, 32)

    def test_detection(self, scenes, tmp_path, capsys):
        """In a worker process."""
        results = self.check(["--task", "detection", "--patch_sizes", "8"], scenes, tmp_path)
        (run,) = results["runs"]
        assert run["name"] == "pixelvit-patch8" and run["decoder"] is None
        assert 0 <= run["test_box_ap50"] <= 100 and 0 <= run["test_mask_ap"] <= 100
        assert "AP50 mask" in capsys.readouterr().out

    @pytest.mark.parametrize(
        ("words", "sentence"),
        [
            (["--decoder", "upernet"], "--task classification has no decoder to choose"),
            (["--task", "segmentation", "--decoder", "fpn"], "choose none, upernet or none,upernet"),
            (["--task", "detection", "--dataset", "nowhere"], "nowhere is no data set that could be loaded"),
        ],
    )
    def test_wrong_options_get_a_sentence(self, words, sentence, tmp_path, capsys, monkeypatch):
        monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)  # else it tries half a minute
        assert sweep.main([*words, "--output_dir", str(tmp_path)]) == 2
        assert sentence in capsys.readouterr().err


class TestLaw:
    def test_falls_are_compared_within_a_seed(self):
        losses = {(4, 0): 1.0, (2, 0): 0.5, (1, 0): 0.6, (4, 1): 2.0, (2, 1): 1.0, (1, 1): 0.5, (4, 2): 9.0}
        runs = [{"patch_size": size, "seed": seed, "test_loss": loss} for (size, seed), loss in losses.items()]
        first, second = find_falls(runs)
        assert (first.places, first.seeds, first.falling) == ((4, 2), 2, 2)
        assert first.ratio == pytest.approx(0.5) and first.interval is None  # seeds that agree tell nothing of others
        assert second.ratio == pytest.approx(0.6**0.5) and second.falling == 1
        low, high = second.interval
        assert low < 0.1 and high > 7 and low * high == pytest.approx(0.6)
        assert count_falling_runs(runs) == (1, 2)

    def test_a_run_that_more_images_would_help_much_has_not_converged(self):
        run = {**CLASSIFICATION, "patch_size": 1, "train_loss": 1.0, "gain_of_doubling": 0.7}
        (judged,) = judge_convergence([{**run, "test_loss": 1.0}])
        assert judged["learned"] and not judged["converged"]
        assert judge_convergence([{**run, "gain_of_doubling": 0.2, "test_loss": 1.0}])[0]["converged"]
        # Distorted training images are harder than the test images, which lose the same share and not the same loss.
        assert judge_convergence([{**run, "gain_of_doubling": 0.4, "test_loss": 0.1}])[0]["converged"]
        # Learned by heart: what more images would take off the training loss is little of the test loss.
        assert judge_convergence([{**run, "train_loss": 0.01, "test_loss": 1.0}])[0]["converged"]

    def test_a_small_patch_must_fit_the_training_images_as_well_as_a_larger_one(self):
        losses = {16: 0.5, 8: 0.4, 4: 0.41, 2: 0.3, 1: 0.45}
        runs = [{**CLASSIFICATION, "patch_size": patch_size, "train_loss": loss} for patch_size, loss in losses.items()]
        runs.append({**CLASSIFICATION, "series": "another", "patch_size": 32, "train_loss": 0.01})
        judged = judge_convergence(runs)
        assert [run["patch_size"] for run in judged if run["learned"]] == [16, 8, 2, 32]
        assert all(run["converged"] == run["learned"] for run in judged)

    @pytest.mark.parametrize("loss", [math.log(10), 2.1, None])
    def test_a_run_that_learned_little_is_not_in_the_fit(self, loss):
        run = {**CLASSIFICATION, "patch_size": 16, "train_loss": loss}
        (judged,) = judge_convergence([run])
        assert not judged["learned"] and not judged["converged"]

    @pytest.mark.parametrize("power", [0.0, 0.1, 1.0])
    def test_the_gain_of_doubling_is_that_of_the_power(self, power):
        summary = summarize_curve([step**-power for step in range(1, 10_001)])
        assert summary["gain_of_doubling"] == pytest.approx(1 - 2**-power, rel=0.03)
        assert summary["train_loss"] == pytest.approx(9500**-power, rel=0.01)

    def test_the_curve_before_the_last_patch_size_does_not_count(self):
        curve = [step**-0.5 for step in range(1, 10_001)]
        changed = [9.0] * 7000 + curve[7000:]
        summary = summarize_curve(changed, final_part=3000)
        assert summary["gain_of_doubling"] == pytest.approx(1 - 2**-0.5, rel=0.03)

    def test_a_run_of_a_few_steps_has_no_curve(self):
        assert summarize_curve([1.0] * 9) == {"train_loss": None, "gain_of_doubling": None}
