# Copyright 2026 The modeling_pixelvit team. All rights reserved.
# SPDX-License-Identifier: Apache-2.0
"""Fine-tuning with the Trainer: what comes in, what is trained, what is saved, and what is refused."""

import json
import pickle
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from finetuning_runs import refusal_of, run_finetune, same_tensors, save_classifiers
from launching import run_command
from PIL import Image
from transformers import AutoImageProcessor, AutoModelForImageClassification, pipeline

from training import finetune
from training.data.unreadable import TooManyUnreadable, UnreadableImage
from training.finetuning.arguments import FinetuneArguments
from training.finetuning.trainer import ReadableExamples
from training.settings.recipe import Recipe
from training.tasks.base import SourceOptions
from training.tasks.classification import ClassificationTask


pytestmark = pytest.mark.usefixtures("one_thread")

REPOSITORY = Path(__file__).parents[3]
FAMILIES = ["adventurer", "pixelvit"]
FEW_STEPS = [
    *("--max_train_samples", "24", "--max_eval_samples", "20", "--per_device_train_batch_size", "8"),
    *("--max_steps", "3", "--disable_tqdm", "True", "--use_cpu", "True", "--dataloader_pin_memory", "False"),
]
UNAUGMENTED = ["--min_crop_scale", "1", "--horizontal_flip", "0"]


@pytest.fixture(scope="module")
def checkpoints(tmp_path_factory):
    """A checkpoint of each family for images of 16 pixels in one patch, with the digits' classes."""
    return save_classifiers(tmp_path_factory.mktemp("checkpoints"), patch_size=16)


def run(checkpoint, output_dir, *options, dataset="digits"):
    """The exit status of a short run."""
    return run_finetune(checkpoint, dataset, output_dir, *FEW_STEPS, *options)


def saved_tensors(folder):
    return AutoModelForImageClassification.from_pretrained(folder).state_dict()


def refusal(capsys, *command, **options):
    return refusal_of(run(*command, **options), capsys)


class TestFinetuning:
    @pytest.mark.parametrize("family", FAMILIES)
    def test_another_patch_and_image_size(self, checkpoints, tmp_path, family):
        assert run(checkpoints / family, tmp_path, "--patch_size", "8", "--image_size", "24") == 0
        model = AutoModelForImageClassification.from_pretrained(tmp_path)
        assert (model.config.patch_size, model.config.image_size) == (8, 24)
        assert model.config.id2label == {index: str(index) for index in range(10)}
        processor = AutoImageProcessor.from_pretrained(tmp_path)
        assert dict(processor.size)["height"] == dict(processor.size)["width"] == 24
        assert (processor.crop_pct, tuple(processor.image_mean)) == (0.9, (0.1, 0.1, 0.1))
        answer = pipeline("image-classification", str(tmp_path))(Image.new("RGB", (20, 30)))
        assert len(answer) == 5 and {entry["label"] for entry in answer} <= set(model.config.label2id)

    def test_says_nothing_of_packages_that_it_does_not_use(self, checkpoints, tmp_path):
        """In a process of its own, where packages are imported for the first time."""
        words = ["--model_name_or_path", str(checkpoints / "pixelvit"), "--dataset", "digits", "--disable_tqdm", "True"]
        words += ["--max_steps", "1", "--max_eval_samples", "8", "--output_dir", str(tmp_path), "--report_to", "none"]
        command = [sys.executable, "-m", "training.finetune", *words]
        run = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True)
        assert (run.returncode, run.stderr) == (0, "")

    def test_results_and_card(self, checkpoints, tmp_path):
        assert run(checkpoints / "pixelvit", tmp_path) == 0
        results = json.loads((tmp_path / "all_results.json").read_text())
        for name in ("train", "eval"):
            assert json.loads((tmp_path / f"{name}_results.json").read_text()).items() <= results.items()
        assert results["train_samples"] == 24 and results["eval_samples"] == 20
        assert "use_cache" not in json.loads((tmp_path / "config.json").read_text())  # which is no field of ours
        assert results["eval_accuracy"] <= results["eval_accuracy_top5"] <= 100
        card = (tmp_path / "README.md").read_text()
        assert "fine-tuned version of the checkpoint pixelvit on the scikit-learn digits" in card

    def test_evaluation_alone(self, checkpoints, tmp_path):
        assert run(checkpoints / "pixelvit", tmp_path, "--no_do_train") == 0
        assert {path.name for path in tmp_path.iterdir()} == {"eval_results.json", "all_results.json"}

    def test_another_number_of_classes_by_the_command(self, checkpoints, tmp_path, image_folder):
        out = tmp_path / "out"
        words = ["--model_name_or_path", checkpoints / "pixelvit", "--dataset", image_folder, "--output_dir", out]
        done = run_command("finetune", [*words, *FEW_STEPS])
        assert done.returncode == 0, done.stderr
        assert done.stderr.count("The head (classifier.bias, classifier.weight) is new") == 1
        assert "LOAD REPORT" not in done.stderr
        config = AutoModelForImageClassification.from_pretrained(out).config
        assert config.id2label == {0: "dark", 1: "light"} and config.label2id == {"dark": 0, "light": 1}
        assert "eval_accuracy_top5" not in json.loads((out / "all_results.json").read_text())

    def test_checkpoint_without_image_processor_gets_the_papers(self, checkpoints, tmp_path, image_folder):
        model = AutoModelForImageClassification.from_pretrained(checkpoints / "pixelvit")
        model.save_pretrained(tmp_path / "bare")
        assert run(tmp_path / "bare", tmp_path / "out", dataset=image_folder) == 0
        processor = AutoImageProcessor.from_pretrained(tmp_path / "out")
        assert processor.crop_pct == 0.875 and processor.image_mean[0] == pytest.approx(0.485)

    def test_new_weights(self, checkpoints, tmp_path):
        still = ["--learning_rate", "0", "--weight_decay", "0"]
        assert run(checkpoints / "pixelvit", tmp_path / "tuned", *still) == 0
        assert run(checkpoints / "pixelvit", tmp_path / "new", *still, "--from_scratch") == 0
        before = saved_tensors(checkpoints / "pixelvit")
        assert same_tensors(saved_tensors(tmp_path / "tuned"), before)
        weight = "pixelvit.layers.0.attention.q_proj.weight"
        assert not torch.equal(saved_tensors(tmp_path / "new")[weight], before[weight])
        assert "trained from scratch" in (tmp_path / "new" / "README.md").read_text()

    @pytest.mark.parametrize("options", [["--mixup_alpha", "0.8", "--cutmix_alpha", "1"], []])
    def test_soft_labels_with_every_augmentation(self, checkpoints, tmp_path, options):
        augmentation = ["--auto_augment", "rand-m9-mstd0.5-inc1", "--random_erasing", "0.25", "--color_jitter", "0.3"]
        smoothing = ["--label_smoothing_factor", "0.1", "--per_device_train_batch_size", "7"]
        assert run(checkpoints / "pixelvit", tmp_path, *augmentation, *smoothing, *options) == 0
        # Of guessing; ten times that if every class counted as an image.
        assert json.loads((tmp_path / "train_results.json").read_text())["train_loss"] < 3

    def test_the_batches_of_a_step_count_as_one(self, checkpoints, tmp_path):
        still = [*UNAUGMENTED, "--max_steps", "1", "--save_strategy", "no", "--lr_scheduler_type", "constant"]
        for name, batch_size, batches in (("one", "8", "1"), ("two", "4", "2")):
            sizes = ["--per_device_train_batch_size", batch_size, "--gradient_accumulation_steps", batches]
            options = [*still, *sizes, "--label_smoothing_factor", "0.1"]
            assert run(checkpoints / "pixelvit", tmp_path / name, *options) == 0
        one, two = (json.loads((tmp_path / name / "train_results.json").read_text()) for name in ("one", "two"))
        assert one["train_loss"] == pytest.approx(two["train_loss"], rel=1e-5)
        tensors = saved_tensors(tmp_path / "two")
        for name, tensor in saved_tensors(tmp_path / "one").items():
            torch.testing.assert_close(tensor, tensors[name], atol=2e-6, rtol=1e-3)

    def test_workers_can_be_sent_all_that_they_need(self, checkpoints, tmp_path):
        """Where they are not forked, as on macOS."""
        model = AutoModelForImageClassification.from_pretrained(checkpoints / "pixelvit")
        recipe = Recipe(family="pixelvit", image_size=16, patch_size=16, auto_augment=None)
        task = ClassificationTask.from_options(recipe, SourceOptions())
        trainer = finetune.FinetuneTrainer(task, model, FinetuneArguments(output_dir=str(tmp_path), use_cpu=True))
        examples, collate = pickle.loads(pickle.dumps((trainer.eval_dataset, trainer.data_collator)))
        batch, expected = collate([examples[3], examples[5]]), trainer.data_collator([trainer.eval_dataset[3]])
        assert batch["indices"] == [3, 5] and torch.equal(batch["pixel_values"][:1], expected["pixel_values"])
        examples, collate = pickle.loads(pickle.dumps((trainer.train_dataset, task.collate)))
        assert collate([examples[0]])["pixel_values"].shape == (1, 3, 16, 16)

    def test_the_rate_of_a_block_and_who_decays(self, checkpoints, tmp_path):
        model = AutoModelForImageClassification.from_pretrained(checkpoints / "adventurer")
        arguments = FinetuneArguments(
            output_dir=str(tmp_path), use_cpu=True, learning_rate=1.0, weight_decay=0.1, layer_decay=0.5
        )
        off = {"mixup_probability": 0.0, "auto_augment": None}
        recipe = Recipe(family="adventurer", image_size=16, patch_size=16, **off)
        task = ClassificationTask.from_options(recipe, SourceOptions())
        trainer = finetune.FinetuneTrainer(task, model, arguments)
        groups = trainer.create_optimizer().param_groups
        found = {
            name: (group["lr"], group["weight_decay"])
            for name, parameter in model.named_parameters()
            for group in groups
            if any(parameter is other for other in group["params"])
        }
        assert len(found) == len(list(model.parameters()))
        assert groups[0]["lr"] == 1.0  # what the Trainer logs
        assert found["classifier.weight"] == (1.0, 0.1) and found["classifier.bias"] == (1.0, 0.0)
        assert found["adventurer.layers.3.mixer.in_proj.weight"] == (0.5, 0.1)
        assert found["adventurer.layers.0.mixer.A_log"] == (0.5**4, 0.0)
        for name in ("cls_token", "position_embeddings"):
            assert found[f"adventurer.embeddings.{name}"] == (0.5**5, 0.0)


class TestLora:
    @pytest.mark.parametrize("family", FAMILIES)
    def test_adapter_and_merged_model(self, checkpoints, tmp_path, family):
        peft = pytest.importorskip("peft")
        options = ["--patch_size", "8", "--lora_rank", "2", "--learning_rate", "0.01", "--save_steps", "2"]
        assert run(checkpoints / family, tmp_path, *options, "--gradient_checkpointing", "True") == 0
        merged = AutoModelForImageClassification.from_pretrained(tmp_path).eval()
        base = AutoModelForImageClassification.from_pretrained(checkpoints / family, patch_size=8)
        before = {name: tensor.clone() for name, tensor in base.state_dict().items()}
        adapted = peft.PeftModel.from_pretrained(base, tmp_path / finetune.ADAPTER_FOLDER).eval()
        pixels = torch.randn(2, 3, 16, 16)
        torch.testing.assert_close(merged(pixels).logits, adapted(pixels).logits, atol=1e-5, rtol=1e-4)
        changed = {name for name, tensor in merged.state_dict().items() if not torch.equal(tensor, before[name])}
        mixers = {
            "pixelvit": {f"attention.{name}.weight" for name in ("q_proj", "k_proj", "v_proj", "o_proj")},
            "adventurer": {f"mixer.{name}.weight" for name in ("in_proj", "out_proj")},
        }[family]
        expected = {f"{family}.layers.{index}.{name}" for index in range(4) for name in mixers}
        assert changed == expected | {"classifier.weight", "classifier.bias"}
        assert pipeline("image-classification", str(tmp_path))(Image.new("RGB", (16, 16)))

    def test_processes_with_parts_of_the_weights(self, checkpoints, tmp_path, capsys, monkeypatch):
        command = checkpoints / "pixelvit", tmp_path, "--lora_rank", "2"
        monkeypatch.setattr("training.finetuning.lora.is_deepspeed_zero3_enabled", lambda: True)
        assert "--lora_rank was given with DeepSpeed ZeRO-3, under which no process has" in refusal(capsys, *command)
        monkeypatch.setenv("ACCELERATE_USE_FSDP", "true")  # as `accelerate launch --use_fsdp` does
        assert "--lora_rank was given with FSDP, under which" in refusal(capsys, *command)

    def test_wrong_options(self, checkpoints, tmp_path, capsys, monkeypatch):
        pytest.importorskip("peft")
        command = checkpoints / "pixelvit", tmp_path, "--lora_rank"
        assert "must be at least 1" in refusal(capsys, *command, "0")
        error = refusal(capsys, *command, "2", "--lora_target_modules", "query")
        assert "query was given; the linear layers of this model are called fc1, fc2, k_proj" in error
        monkeypatch.setitem(sys.modules, "peft", None)
        assert "pip install peft" in refusal(capsys, *command, "2")


class TestResuming:
    @pytest.mark.parametrize(("family", "lora"), [("adventurer", []), ("pixelvit", ["--lora_rank", "2"])])
    def test_the_last_checkpoint_leads_to_the_same_weights(
        self, checkpoints, tmp_path, image_folder, caplog, family, lora
    ):
        if lora:
            pytest.importorskip("peft")
        # Two steps an epoch, and nothing drawn for an image, which would not be repeated: at a checkpoint the Trainer
        # has already read the next batch. Of a square picture the crop of all its area is always the same.
        for picture in image_folder.glob("*/*.png"):
            Image.open(picture).resize((20, 20)).save(picture)
        options = ["--save_steps", "1", "--learning_rate", "0.01", *UNAUGMENTED, *lora]
        whole, interrupted = tmp_path / "whole", tmp_path / "interrupted"
        assert run(checkpoints / family, whole, *options, dataset=image_folder) == 0
        shutil.copytree(whole / "checkpoint-1", interrupted / "checkpoint-1")
        shutil.copy(whole / finetune.SETTINGS_FILE, interrupted)
        left_out = shutil.ignore_patterns(finetune.TRAINER_STATE_FILE)  # killed while it was written
        shutil.copytree(whole / "checkpoint-2", interrupted / "checkpoint-2", ignore=left_out)
        assert run(checkpoints / family, interrupted, *options, dataset=image_folder) == 0
        assert f"Going on from {interrupted / 'checkpoint-1'}" in caplog.text
        assert same_tensors(saved_tensors(whole), saved_tensors(interrupted))

    def test_results_of_a_finished_run_stay(self, checkpoints, tmp_path, capsys):
        assert run(checkpoints / "pixelvit", tmp_path) == 0
        results = (tmp_path / "train_results.json").read_text()
        assert run(checkpoints / "pixelvit", tmp_path) == 0  # in which no step is left to do
        assert (tmp_path / "train_results.json").read_text() == results
        error = refusal(capsys, checkpoints / "pixelvit", tmp_path, "--no_do_train")
        assert "holds a fine-tuned model, whose results those of this evaluation would replace" in error

    def test_what_a_run_does_not_go_on_from(self, checkpoints, tmp_path, capsys):
        out = tmp_path / "out"
        assert run(checkpoints / "pixelvit", out, "--patch_size", "8") == 0
        error = refusal(capsys, checkpoints / "pixelvit", out, "--patch_size", "4")
        assert "checkpoint-3 is of a run with other options (patch_size 8 there, 4 now)" in error
        anew = ["--overwrite_output_dir", "--save_strategy", "no"]
        error = refusal(capsys, out / "checkpoint-3", out, *anew)
        assert "is in the folder that --overwrite_output_dir would overwrite" in error
        assert run(checkpoints / "pixelvit", out, "--patch_size", "4", *anew) == 0
        assert not (out / "checkpoint-3").exists()
        error = refusal(capsys, checkpoints / "pixelvit", checkpoints)
        assert "is not empty and holds no checkpoint" in error
        error = refusal(capsys, checkpoints / "pixelvit", out, "--resume_from_checkpoint", str(checkpoints))
        assert "no folder with a state of the Trainer" in error


class TestUnreadableImages:
    def test_the_next_image_takes_the_place(self, checkpoints, tmp_path, image_folder, caplog):
        broken = image_folder / "dark" / "3.png"
        broken.write_bytes(broken.read_bytes()[:100])
        assert run(checkpoints / "pixelvit", tmp_path / "out", dataset=image_folder) == 0
        warnings = [line for line in caplog.messages if line.startswith("Left out")]
        assert len(warnings) == 1 and "dark/3.png" in warnings[0]

    def test_it_is_not_counted_in_the_evaluation(self, checkpoints, tmp_path, image_folder):
        folder = tmp_path / "both"
        for split in ("train", "test"):
            shutil.copytree(image_folder, folder / split)
        (folder / "test" / "dark" / "3.png").write_bytes(b"no image")
        out = tmp_path / "out"
        assert run(checkpoints / "pixelvit", out, dataset=folder) == 0
        assert json.loads((out / "eval_results.json").read_text())["eval_samples"] == 19

    @pytest.mark.parametrize("workers", ["0", "1"])
    def test_too_many_end_the_run(self, checkpoints, tmp_path, image_folder, capsys, workers):
        for path in (image_folder / "dark").iterdir():
            path.write_bytes(b"no image")
        options = ["--max_unreadable_images", "2", "--dataloader_num_workers", workers]
        error = refusal(capsys, checkpoints / "pixelvit", tmp_path / "out", *options, dataset=image_folder)
        assert error.startswith("error: 3 images cannot be decoded, the last one ")
        assert error.endswith("allow more than 2 by --max_unreadable_images.")

    def test_each_image_counts_once(self):
        def example(index):
            if index in (1, 2):
                raise UnreadableImage(f"{index}.png", "broken")
            return 10 * index

        examples = ReadableExamples(example, 4, max_unreadable=2)
        for _ in range(3):
            assert [examples[index] for index in range(4)] == [0, 30, 30, 30]
        with pytest.raises(TooManyUnreadable, match=r"2 images .* 2\.png: broken"):
            ReadableExamples(example, 4, max_unreadable=1)[1]


class TestRefusals:
    @pytest.mark.parametrize(
        ("options", "message"),
        [
            (["--patch_size", "3"], "--patch_size 3 does not divide images of 16 pixels; choose from 1, 2, 4, 8, 16"),
            (["--image_size", "0"], "--image_size 0 was given; it must be at least 1"),
            (["--auto_augment", "best"], "auto_augment=best was given, which timm does not know"),
            (["--min_crop_scale", "2"], "min_crop_scale=2 was given; it must be at least 0 and at most 1"),
            (["--per_device_train_batch_size", "0"], "_batch_size 0 was given; it must be at least 1"),
            (["--learning_rate", "-1"], "--learning_rate -1 was given; it must be at least 0"),
            (["--layer_decay", "0"], "--layer_decay 0 was given; it must be above 0 and at most 1"),
            (["--max_eval_samples", "0"], "--max_eval_samples 0 was given; it must be at least 1"),
            (["--drop_path_rate", "1"], "drop_path_rate=1.0 was given"),
            (["--load_best_model_at_end"], "--load_best_model_at_end requires the save and eval strategy to match"),
            (
                ["--metric_for_best_model", "acuracy"],
                "--metric_for_best_model acuracy was given; classification has loss, accuracy, accuracy_top5, so give "
                "one of these. Did you mean 'accuracy'?",
            ),
            (["--speed", "2"], "--speed 2 was given, which is no option"),
        ],
    )
    def test_options(self, checkpoints, tmp_path, capsys, options, message):
        assert message in refusal(capsys, checkpoints / "pixelvit", tmp_path, *options)

    def test_checkpoints(self, checkpoints, tmp_path, capsys, image_folder):
        out = tmp_path / "out"
        missing = tmp_path / "nothing"
        assert f"{missing} is neither a checkpoint folder nor" in refusal(capsys, missing, out)
        other = tmp_path / "other"
        other.mkdir()
        (other / "config.json").write_text(json.dumps({"model_type": "vit", "hidden_size": 32}))
        assert "holds a model of type 'vit'; this script trains adventurer and pixelvit" in refusal(capsys, other, out)
        (other / "config.json").write_text(json.dumps({"model_type": ["vit"]}))
        assert "holds a model of type ['vit']" in refusal(capsys, other, out)
        error = refusal(capsys, checkpoints / "pixelvit", out, "--no_do_train", dataset=image_folder)
        assert "has no head for the 2 classes" in error

    def test_incomplete_encoder(self, checkpoints, tmp_path, capsys):
        model = AutoModelForImageClassification.from_pretrained(checkpoints / "pixelvit")
        tensors = {name: tensor for name, tensor in model.state_dict().items() if "layers.2.mlp" not in name}
        model.save_pretrained(tmp_path / "part", state_dict=tensors)
        error = refusal(capsys, tmp_path / "part", tmp_path / "out")
        assert (
            "cannot be loaded" in error
            and "lacks 4 weights of PixelViTForImageClassification" in error
            and "pixelvit.layers.2.mlp.fc1.bias" in error
        )

    @pytest.mark.parametrize(
        ("options", "found"),
        [
            (["--max_steps", "1"], "Weights are no finite numbers, at step 1,"),
            (["--save_strategy", "no"], "The training loss is nan, at step 3,"),  # by the mean over all steps
            (["--logging_steps", "1"], "The training loss is nan, at step 2,"),
            (["--save_steps", "2"], "Weights are no finite numbers, at step 2,"),
        ],
    )
    def test_a_loss_that_is_no_number(self, checkpoints, tmp_path, capsys, options, found):
        options = ["--learning_rate", "1e38", "--lr_scheduler_type", "constant", *options]
        assert run(checkpoints / "pixelvit", tmp_path / "out", *options) == 1
        error = capsys.readouterr().err
        assert found in error and "a lower --learning_rate than 1e+38" in error
        assert not list((tmp_path / "out").rglob("*.safetensors"))

    def test_an_output_folder_that_is_a_file(self, checkpoints, tmp_path, capsys):
        (tmp_path / "out").write_text("")
        assert f"File exists: '{tmp_path / 'out'}'" in refusal(capsys, checkpoints / "pixelvit", tmp_path / "out")

    def test_images_without_labels(self, checkpoints, tmp_path, capsys):
        (tmp_path / "images").mkdir()
        for index in range(3):
            Image.new("RGB", (8, 8)).save(tmp_path / "images" / f"{index}.png")
        error = refusal(capsys, checkpoints / "pixelvit", tmp_path / "out", dataset=tmp_path / "images")
        assert "no class labels" in error


@pytest.mark.slow
@pytest.mark.parametrize("family", FAMILIES)
def test_finetuning_to_patch_2_beats_training_from_scratch(tmp_path, family):
    """With a checkpoint of the sweep at patch 4 and 200 steps for both."""
    python = [sys.executable, "-m"]
    sweep = ["training.sweep", "--families", family, "--patch_sizes", "4", "--train_images", "20000"]
    subprocess.run([*python, *sweep, "--output_dir", str(tmp_path / "sweep")], cwd=REPOSITORY, check=True)
    command = [
        *("training.finetune", "--model_name_or_path", str(tmp_path / "sweep" / f"{family}-patch4")),
        *("--dataset", "digits", "--patch_size", "2", *UNAUGMENTED, "--max_steps", "200", "--learning_rate", "1e-3"),
        *("--warmup_steps", "0.1", "--lr_scheduler_type", "cosine", "--weight_decay", "0.05"),
        *("--per_device_train_batch_size", "32", "--save_strategy", "no", "--use_cpu"),
    ]
    results = {}
    for name, options in (("tuned", []), ("new", ["--from_scratch"])):
        out = tmp_path / name
        subprocess.run([*python, *command, "--output_dir", str(out), *options], cwd=REPOSITORY, check=True)
        results[name] = json.loads((out / "eval_results.json").read_text())
    assert results["tuned"]["eval_loss"] < 0.8 * results["new"]["eval_loss"]
    assert results["tuned"]["eval_accuracy"] > results["new"]["eval_accuracy"] + 20
