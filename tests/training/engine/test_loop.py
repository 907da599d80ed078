# Copyright 2026 The modeling_pixelvit team. All rights reserved.
# SPDX-License-Identifier: Apache-2.0
"""The training loop: what it logs, keeps, refuses and stops for, its stored loss traces, and its command line."""

import dataclasses
import json
import os
import signal
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from dense_runs import TINY, make_loop, stop_after
from helpers import write_image_folder
from launching import ONE_PROCESS, launch
from safetensors.torch import load_file
from transformers import AutoModelForImageClassification, pipeline

from training import train, train_stages
from training.consolidate import main as consolidate
from training.data.batches import TrainingBatches
from training.data.unreadable import TooManyUnreadable, UnreadableImage
from training.engine.arguments import parse_arguments
from training.engine.checkpoints import COMPLETE_FILE, find_checkpoints
from training.engine.log import read_metrics
from training.engine.loop import TrainingLoop
from training.engine.options import TrainingStopped
from training.hub.source import find_source
from training.settings.recipe import load_recipe
from training.tasks.classification import ClassificationTask


REPOSITORY = Path(__file__).parents[3]
GOLDEN = REPOSITORY / "tests" / "golden"
TRACES = json.loads((GOLDEN / "loss_traces.json").read_text())
SHORT = {
    "patch_size": 8,
    "image_size": 16,
    "num_train_epochs": 0.5,
    "warmup_epochs": 0.1,
    "learning_rate_changes": "step",
    "total_batch_size": 64,
    "augmentation_repeats": 1,
}


def make_recipe(family="adventurer", **fields):
    return load_recipe(f"{family}-stage1", "tiny", **{**SHORT, "model": TINY[family], **fields})


def train_losses(folder):
    return [record["loss"] for record in read_metrics(folder) if "loss" in record]


def weights(folder):
    return load_file(max(find_checkpoints(folder / "checkpoints")) / "model.safetensors")


class TestSteps:
    @pytest.mark.parametrize("family", TRACES)
    def test_reproduces_the_stored_losses(self, family, tmp_path, digits):
        """What the golden file stores was computed by this loop; a change that alters it changes every training."""
        trace = TRACES[family]

        class StoredStart(ClassificationTask):
            def build_model(self):
                # Which numbers a seed draws differs between PyTorch's versions; what a step does to them does not.
                model = super().build_model()
                model.load_state_dict(load_file(GOLDEN / f"loss_trace_{family}.safetensors"))
                return model

        loop = make_loop(load_recipe(f"{family}-stage1", **trace["recipe"]), digits, tmp_path, task_class=StoredStart)
        loop.run()
        assert train_losses(tmp_path) == pytest.approx(trace["losses"], rel=1e-4)
        assert len(trace["losses"]) >= 24

    def test_is_plain_training(self, tmp_path, digits):
        """Against a loop written out: AdamW on the batches' mean losses, clipped, the rate as the scheduler says."""
        recipe = make_recipe(max_grad_norm=0.5, ema_decay=0.9, drop_path_rate=0.0, mixup_probability=0.0)
        loop = make_loop(recipe, digits, tmp_path)
        task = ClassificationTask(recipe, digits)
        model = task.build_model()
        decays = [
            p for n, p in model.named_parameters() if p.dim() > 1 and "cls_token" not in n and "position" not in n
        ]
        rest = [p for p in model.parameters() if all(p is not other for other in decays)]
        optimizer = torch.optim.AdamW([{"params": decays, "weight_decay": 0.05}, {"params": rest, "weight_decay": 0.0}])
        average = {name: parameter.detach().clone() for name, parameter in model.named_parameters()}
        batches, steps_per_epoch, num_steps = task.train_loader(loop.share)
        expected = []
        for step, batch in enumerate(batches):
            warmup = round(0.1 * steps_per_epoch)
            peak = 5e-4 * 64 / 512
            if step < warmup:
                rate = 1e-6 + step * (peak - 1e-6) / warmup
            else:
                rate = 1e-5 + 0.5 * (peak - 1e-5) * (1 + torch.cos(torch.tensor(torch.pi * step / num_steps)).item())
            for group in optimizer.param_groups:
                group["lr"] = rate
            loss = torch.nn.functional.cross_entropy(model(batch["pixel_values"]).logits, batch["labels"])
            loss.backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), 0.5)
            optimizer.step()
            optimizer.zero_grad()
            expected.append(loss.item())
            for name, parameter in model.named_parameters():
                average[name].mul_(0.9).add_(parameter.detach(), alpha=0.1)
        loop.run()
        assert train_losses(tmp_path) == pytest.approx(expected, rel=1e-5)
        for name, parameter in model.named_parameters():
            torch.testing.assert_close(weights(tmp_path)[name], parameter.detach(), rtol=1e-4, atol=1e-6)
        stored = load_file(tmp_path / "checkpoints" / "last" / "average" / "model.safetensors")
        for name, value in average.items():
            torch.testing.assert_close(stored[name], value, rtol=1e-4, atol=1e-6)

    def test_steps_and_images_have_seeds_of_their_own(self, tmp_path, digits, monkeypatch):
        """The numbers of a step end with the process's, 0 for the first, which must not make them those of an image."""
        recipe, seeds = make_recipe(num_train_epochs=0.2), []
        loop = make_loop(recipe, digits, tmp_path, gradient_accumulation_steps=2)
        monkeypatch.setattr(loop, "_seed", seeds.append)
        loop.run()
        whole_run = TrainingBatches(dataclasses.replace(recipe, num_train_epochs=8.0), len(digits.train))
        assert len(seeds) == 8 and not {*seeds} & {seed for batch in whole_run for _, seed in batch}

    def test_an_odd_batch_is_mixed(self, tmp_path, digits):
        recipe = make_recipe(total_batch_size=42, num_train_epochs=0.1, warmup_epochs=0.0, mixup_probability=1.0)
        loop = make_loop(recipe, digits, tmp_path, gradient_accumulation_steps=2)
        np.random.seed(0)  # one in ten drawn shares hardly mixes
        batch = loop.task.prepare_batch(loop.task.collate([loop.task.train_example(index) for index in range(21)]))
        mixed = (batch["labels"] > 0.5 / 10).sum(1) - (batch["labels"][-1] > 0.5).sum()
        assert (batch["labels"].sum(1) - 1).abs().max() < 1e-5 and batch["labels"][-1].max() > 0.89 and mixed.any()
        assert loop.run().step == 3

    def test_accumulated_batches_make_the_same_step(self, tmp_path, digits):
        recipe = make_recipe(drop_path_rate=0.0, mixup_probability=0.0, num_train_epochs=0.2)
        make_loop(recipe, digits, tmp_path / "one").run()
        make_loop(recipe, digits, tmp_path / "four", gradient_accumulation_steps=4).run()
        assert train_losses(tmp_path / "four") == pytest.approx(train_losses(tmp_path / "one"), rel=1e-4)


class TestWhatARunLeaves:
    @pytest.fixture(scope="class")
    def finished(self, tmp_path_factory, digits):
        folder = tmp_path_factory.mktemp("finished")
        recipe = make_recipe(num_train_epochs=1.0, ema_decay=0.9, base_learning_rate=1e-2)
        loop = make_loop(recipe, digits, folder, save_steps=5, eval_epochs=0.5, keep_checkpoints=2)
        loop.run()
        return folder

    def test_metrics(self, finished):
        records = read_metrics(finished)
        steps = [record for record in records if "loss" in record]
        assert [record["step"] for record in steps] == list(range(1, 22))
        wanted = {
            "epoch",
            "loss",
            "learning_rate",
            "gradient_norm",
            "images_per_second",
            "tokens_per_second",
            "memory_mib",
        }
        assert all(wanted <= record.keys() for record in steps)
        assert steps[0]["tokens_per_second"] == pytest.approx(4 * steps[0]["images_per_second"])
        evaluations = [record for record in records if "eval_loss" in record]
        assert [record["step"] for record in evaluations] == [10, 20, 21]
        assert {"eval_accuracy", "eval_average_accuracy", "eval_average_loss"} <= evaluations[-1].keys()
        results = json.loads((finished / "results.json").read_text())
        assert results["step"] == 21 and results["metrics"]["eval_loss"] == evaluations[-1]["eval_loss"]

    def test_newest_checkpoints_and_the_best(self, finished):
        names = sorted(path.name for path in (finished / "checkpoints").iterdir())
        assert names == ["last", "step-00000020", "step-00000021"]
        evaluations = [record for record in read_metrics(finished) if "eval_loss" in record]
        best = max(evaluations, key=lambda record: max(record["eval_accuracy"], record["eval_average_accuracy"]))
        assert (finished / "best").resolve().name == f"best-{best['step']:08d}"
        assert len(list(finished.glob("best*"))) == 2
        # Which of the two models was kept, and with which metrics, stands beside it; publishing takes them from there.
        prefix = "eval_average" if best["eval_average_accuracy"] > best["eval_accuracy"] else "eval"
        evaluation = json.loads((finished / "best" / "evaluation.json").read_text())
        assert evaluation["step"] == best["step"] and evaluation["model"] == prefix
        assert evaluation["metrics"]["accuracy"] == best[f"{prefix}_accuracy"]
        published = find_source(str(finished / "best")).metrics
        assert published["accuracy"] == best[f"{prefix}_accuracy"] / 100
        assert published["loss"] == best[f"{prefix}_loss"]

    def test_best_and_last_load(self, finished, digits):
        image, _ = digits.evaluation[0]
        for folder in (finished / "best", finished / "checkpoints" / "last", finished / "checkpoints/last/average"):
            model = AutoModelForImageClassification.from_pretrained(folder)
            assert model.dtype == torch.float32 and model.config.id2label[3] == "3"
            answers = pipeline("image-classification", model=str(folder))(image)
            assert {answer["label"] for answer in answers} <= set(digits.label_names)
        assert load_recipe(finished / "best" / "recipe.yaml").model == TINY["adventurer"]

    def test_consolidated(self, finished, tmp_path, capsys):
        for words, kept in (([], "model.safetensors"), (["--average"], "average/model.safetensors")):
            target = tmp_path / f"plain{len(words)}"
            assert consolidate([str(finished), str(target), *words]) == 0
            files = {path.name for path in target.iterdir()}
            assert {"config.json", "model.safetensors", "preprocessor_config.json", "recipe.yaml"} <= files
            assert not files & {"progress.json", "complete.json", "average"} and "optimizer" not in " ".join(files)
            expected = (finished / "checkpoints" / "last" / kept).read_bytes()
            assert (target / "model.safetensors").read_bytes() == expected
            AutoModelForImageClassification.from_pretrained(target)
        assert consolidate([str(finished), str(target)]) == 2
        assert consolidate([str(tmp_path), str(tmp_path / "new")]) == 2
        assert "no complete checkpoint" in capsys.readouterr().err

    def test_a_finished_run_is_not_repeated(self, finished, digits):
        before = (finished / "metrics.jsonl").read_bytes()
        recipe = make_recipe(num_train_epochs=1.0, ema_decay=0.9, base_learning_rate=1e-2)
        outcome = make_loop(recipe, digits, finished, resume="auto").run()
        assert outcome.step == 21 and outcome.metrics["eval_accuracy"] > 0
        assert (finished / "metrics.jsonl").read_bytes() == before

    def test_is_not_overwritten(self, finished, digits):
        with pytest.raises(ValueError, match="holds a run, up to step-00000021; give --resume auto"):
            make_loop(make_recipe(), digits, finished)

    def test_another_recipe_does_not_go_on(self, finished, digits):
        with pytest.raises(ValueError, match=r"another recipe \(.*weight_decay 0.05 there, 0.1 now"):
            make_loop(make_recipe(weight_decay=0.1), digits, finished, resume="auto")

    def test_other_data_do_not_go_on(self, tmp_path, digits):
        recipe, folder = make_recipe(num_train_epochs=0.2), tmp_path / "run"
        make_loop(recipe, digits, folder).run()
        renamed = dataclasses.replace(digits, label_names=[f"a {name}" for name in digits.label_names])
        fewer = dataclasses.replace(digits, train=torch.utils.data.Subset(digits.train, range(1000)))
        sentence = r"other data \(classes 0, 1, 2, 3, 4 ... \(10\) there, a 0, a 1, .* now\); go on with those"
        with pytest.raises(ValueError, match=sentence):
            make_loop(recipe, renamed, folder, resume="auto")
        with pytest.raises(ValueError, match=rf"{len(digits.train)} training images there, 1000 now"):
            make_loop(recipe, fewer, folder, resume="auto")
        file = folder / "checkpoints" / "last" / "progress.json"
        content = json.loads(file.read_text())
        del content["data"]  # as in older checkpoints
        file.write_text(json.dumps(content))
        (file.parent / "complete.json").write_text(
            json.dumps({name.name: name.stat().st_size for name in file.parent.iterdir() if name.is_file()})
        )
        make_loop(recipe, renamed, folder, resume="auto")


def test_an_output_folder_that_is_a_file(tmp_path, capsys):
    (tmp_path / "out").write_text("")
    command = ["--recipe", "pixelvit-sweep", "--dataset", "digits", "--output_dir", str(tmp_path / "out")]
    assert train.main(command) == 2
    assert f"File exists: '{tmp_path / 'out'}'" in capsys.readouterr().err


class TestCheckpoints:
    def test_a_torn_one_is_never_chosen(self, tmp_path, digits):
        recipe = make_recipe(num_train_epochs=0.2)
        make_loop(recipe, digits, tmp_path, save_steps=1, keep_checkpoints=9).run()
        folder = tmp_path / "checkpoints"
        assert len(find_checkpoints(folder)) == 4
        with (folder / "step-00000004" / "model.safetensors").open("r+b") as file:
            file.truncate(1000)
        (folder / "step-00000003" / COMPLETE_FILE).unlink()
        (folder / "step-00000002").rename(folder / "step-00000002.partial")
        assert make_loop(recipe, digits, tmp_path, resume="auto").progress.step == 1

    def test_goes_on_with_other_accumulation(self, tmp_path, digits):
        """Nothing in a checkpoint depends on how the batch was divided; rounding does."""
        recipe = make_recipe(drop_path_rate=0.0, mixup_probability=0.0)
        make_loop(recipe, digits, tmp_path / "whole").run()
        whole = train_losses(tmp_path / "whole")
        for step in (1, 3, 5):
            folder = tmp_path / f"changed{step}"
            stop_after(make_loop(recipe, digits, folder), step)
            make_loop(recipe, digits, folder, resume="auto", gradient_accumulation_steps=2).run()
            changed = train_losses(folder)
            assert changed[:step] == whole[:step] and changed == pytest.approx(whole, rel=1e-4)

    def test_a_chosen_checkpoint(self, tmp_path, digits):
        recipe = make_recipe(num_train_epochs=0.2)
        make_loop(recipe, digits, tmp_path, save_steps=1, keep_checkpoints=9).run()
        chosen = tmp_path / "checkpoints" / "step-00000002"
        assert make_loop(recipe, digits, tmp_path, resume=str(chosen)).progress.step == 2
        with pytest.raises(ValueError, match="nowhere was given, which is no checkpoint"):
            make_loop(recipe, digits, tmp_path, resume="nowhere")

    def test_what_comes_after_a_chosen_checkpoint_is_abandoned(self, tmp_path, digits):
        recipe = make_recipe(num_train_epochs=0.3)
        make_loop(recipe, digits, tmp_path, save_steps=1, keep_checkpoints=9).run()
        whole = tensor_bytes(tmp_path / "checkpoints" / "step-00000004")
        (tmp_path / "checkpoints" / "step-00000004" / "model.safetensors").touch()
        chosen = tmp_path / "checkpoints" / "step-00000002"
        stop_after(make_loop(recipe, digits, tmp_path / "elsewhere", resume=str(chosen)), 4)
        assert tensor_bytes(tmp_path / "elsewhere" / "checkpoints" / "step-00000004") == whole
        stop_after(make_loop(recipe, digits, tmp_path, resume=str(chosen), keep_checkpoints=9), 3)
        names = sorted(path.name for path in (tmp_path / "checkpoints").iterdir() if not path.is_symlink())
        assert names == ["step-00000001", "step-00000002", "step-00000003"]
        make_loop(recipe, digits, tmp_path, resume="auto", save_steps=1, keep_checkpoints=9).run()
        assert tensor_bytes(tmp_path / "checkpoints" / "step-00000004") == whole
        assert read_metrics(tmp_path)[-1]["step"] == 6

    def test_a_chosen_checkpoint_that_is_given_up_again_is_the_last(self, tmp_path, digits):
        """Killed before its first checkpoint, the run goes on from the chosen one."""
        recipe = make_recipe(num_train_epochs=0.3)
        make_loop(recipe, digits, tmp_path, save_steps=1, keep_checkpoints=9).run()
        loop = make_loop(recipe, digits, tmp_path, resume=str(tmp_path / "checkpoints" / "step-00000002"))

        def die(steps, loss):
            raise KeyboardInterrupt

        with pytest.raises(KeyboardInterrupt):
            loop.run(die)
        assert (tmp_path / "checkpoints" / "step-00000006.abandoned" / COMPLETE_FILE).is_file()
        assert make_loop(recipe, digits, tmp_path, resume="auto").progress.step == 2


def tensor_bytes(checkpoint):
    files = sorted(checkpoint.glob("*.safetensors"))
    return [(name, tensor.numpy().tobytes()) for file in files for name, tensor in load_file(file).items()]


class TestStops:
    @pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
    def test_a_signal_finishes_the_step_and_saves(self, tmp_path, digits, number):
        recipe = make_recipe()
        make_loop(recipe, digits, tmp_path / "whole").run()
        handler = signal.getsignal(number)
        loop = make_loop(recipe, digits, tmp_path / "broken")
        outcome = loop.run(lambda steps, loss: os.kill(os.getpid(), number) if steps == 3 else None)
        assert (outcome.step, outcome.signal) == (3, number) and signal.getsignal(number) == handler
        assert [path.name for path in find_checkpoints(tmp_path / "broken" / "checkpoints")] == ["step-00000003"]
        outcome = make_loop(recipe, digits, tmp_path / "broken", resume="auto").run()
        assert outcome.signal == 0 and train_losses(tmp_path / "broken") == train_losses(tmp_path / "whole")
        whole, broken = weights(tmp_path / "whole"), weights(tmp_path / "broken")
        assert all(torch.equal(whole[name], broken[name]) for name in whole)

    def test_a_signal_between_two_logs_loses_no_loss(self, tmp_path, digits):
        recipe = make_recipe()
        make_loop(recipe, digits, tmp_path / "whole", logging_steps=4).run()
        stop_after(make_loop(recipe, digits, tmp_path / "broken", logging_steps=4), 6)
        make_loop(recipe, digits, tmp_path / "broken", resume="auto", logging_steps=4).run()
        assert train_losses(tmp_path / "broken") == train_losses(tmp_path / "whole")

    @pytest.mark.parametrize("factor, what", [(float("nan"), "loss is nan"), (1e3, "times the first")])
    def test_a_loss_that_is_no_use(self, tmp_path, digits, factor, what):
        class Failing(ClassificationTask):
            calls = 0

            def losses(self, model, batch):
                self.calls += 1
                losses = super().losses(model, batch)
                return {name: value * (factor if self.calls == 6 else 1) for name, value in losses.items()}

        loop = make_loop(make_recipe(), digits, tmp_path, Failing, save_steps=2)
        advice = r"starts from it \(--initial_checkpoint .*step-00000004\) with a lower base_learning_rate \(--peak"
        good = "the last good checkpoint is .*step-00000004"
        with pytest.raises(TrainingStopped, match=f"{what}.*step 6; {good}. A run of its own that {advice}"):
            loop.run()

    def test_no_checkpoint_of_a_loss_that_is_not_a_number(self, tmp_path, digits):
        class Failing(ClassificationTask):
            def losses(self, model, batch):
                return {"loss": super().losses(model, batch)["loss"] * float("nan")}

        loop = make_loop(make_recipe(), digits, tmp_path, Failing, save_steps=2, logging_steps=100)
        with pytest.raises(TrainingStopped, match="there is no checkpoint yet"):
            loop.run()
        assert not find_checkpoints(tmp_path / "checkpoints")

    def test_no_checkpoint_of_gradients_that_are_not_numbers(self, tmp_path, digits):
        """Whose loss is one: the root of zero has no slope."""

        class Failing(ClassificationTask):
            calls = 0

            def losses(self, model, batch):
                self.calls += 1
                loss = super().losses(model, batch)["loss"]
                return {"loss": loss if self.calls != 4 else loss + (0 * loss).sqrt()}

        loop = make_loop(make_recipe(), digits, tmp_path, Failing, save_steps=2, logging_steps=100)
        with pytest.raises(TrainingStopped, match=r"norm of the gradients is nan, at step 4; .*step-00000002"):
            loop.run()
        assert [path.name for path in find_checkpoints(tmp_path / "checkpoints")] == ["step-00000002"]

    def test_damaged_images_up_to_a_limit(self, tmp_path, digits):
        class Damaged(ClassificationTask):
            def train_example(self, index):
                if index % 100 == 0:
                    raise UnreadableImage(f"{index}.jpg", "truncated")
                return super().train_example(index)

        recipe = make_recipe(num_train_epochs=1.0)
        loop = make_loop(recipe, digits, tmp_path / "many", Damaged, max_unreadable_images=14)
        loop.run()
        assert 10 < len(loop.progress.unreadable) <= 14 and "truncated" in loop.progress.unreadable[0]
        loop = make_loop(recipe, digits, tmp_path / "few", Damaged, max_unreadable_images=3)
        with pytest.raises(TooManyUnreadable, match=r"4 images could not be decoded.*0.jpg: truncated"):
            loop.run()
        assert find_checkpoints(tmp_path / "few" / "checkpoints")
        with pytest.raises(TooManyUnreadable):
            make_loop(recipe, digits, tmp_path / "few", Damaged, max_unreadable_images=3, resume="auto")
        make_loop(recipe, digits, tmp_path / "few", Damaged, max_unreadable_images=14, resume="auto").run()

    def test_damaged_images_are_not_evaluated(self, tmp_path, digits):
        class Damaged(ClassificationTask):
            def eval_example(self, index):
                if index == 49:
                    raise UnreadableImage("49.jpg", "truncated")
                return super().eval_example(index)

            def metrics(self, results):
                return {**super().metrics(results), "count": len(results)}

        outcome = make_loop(make_recipe(), digits, tmp_path, Damaged).run()
        assert outcome.metrics["eval_count"] == 49


class TestCommandLine:
    WORDS = ["--variant", "tiny", "--model", json.dumps(TINY["pixelvit"]), "--dataset", "digits", "--report_to", "none"]
    WORDS += [word for name, value in SHORT.items() for word in (f"--{name}", str(value))]

    def test_any_field_of_the_recipe(self):
        words = ["--recipe", "pixelvit-stage1", *self.WORDS, "--ema_decay", "none", "--drop_path_rate", "0"]
        recipe, data, options = parse_arguments([*words, "--num_workers", "3"])
        assert recipe.family == "pixelvit" and recipe.ema_decay is None and recipe.drop_path_rate == 0
        assert recipe.model == TINY["pixelvit"] and recipe.weight_decay == 0.05 and recipe.mixup_alpha == 0.8
        assert data.dataset == "digits" and options.num_workers == 3

    @pytest.mark.parametrize(
        "words, message",
        [
            (["--weight_decey", "1"], "unknown option --weight_decey. Did you mean --weight_decay?"),
            (["--recipe", "pixelvit-stag1"], "Did you mean 'pixelvit-stage1'?"),
            (["--patch_size", "0"], "patch_size=0 was given; it must be at least 1."),
            (["--logging_steps", "0"], "--logging_steps 0 was given; it must be at least 1."),
            (["--num_train_epochs", "0.01", "--warmup_epochs", "0"], "less than one step"),
            (["--total_batch_size", "5000"], "has only 1400 images"),
            (["--initial_checkpoint", "nowhere"], "initial_checkpoint=nowhere was given, but no model"),
            (["--auto_augment", "many"], "auto_augment=many was given, which timm does not know"),
            (["--dataset", "digits-4"], "image_size=4 was given, but a digit has 8 by 8 pixels"),
        ],
    )
    def test_says_what_is_wrong(self, words, message, tmp_path, capsys):
        words = ["--recipe", "pixelvit-stage1", *self.WORDS, "--output_dir", str(tmp_path / "run"), *words]
        try:
            status = train.main(words)
        except SystemExit as error:
            status = error.code
        shown = capsys.readouterr().err
        assert status == 2 and message in shown and "Traceback" not in shown

    def test_an_error_after_the_start_has_its_traceback(self, tmp_path, monkeypatch):
        def fails(self, batches):
            raise ValueError("a mistake of ours")

        monkeypatch.setattr(TrainingLoop, "_train_step", fails)
        with pytest.raises(ValueError, match="a mistake of ours"):
            train.main(["--recipe", "pixelvit-stage1", *self.WORDS, "--output_dir", str(tmp_path / "run")])

    def test_trackers_and_exit_status(self, tmp_path):
        """In a process of its own: a wish to stop, its exit status, TensorBoard's file, and the way on."""
        words = ["--recipe", "pixelvit-stage1", *self.WORDS, "--report_to", "tensorboard", "--num_train_epochs", "200"]
        words += ["--logging_steps", "5", "--output_dir", str(tmp_path)]
        process, log = launch(ONE_PROCESS, [], words, tmp_path / "run"), tmp_path / "run.log"
        while "step 10 of" not in (log.read_text() if log.exists() else ""):
            assert process.poll() is None, log.read_text()
            time.sleep(0.02)
        os.kill(process.pid, signal.SIGTERM)
        assert process.wait(60) == 143 and "--resume auto goes on" in log.read_text()
        assert list((tmp_path / "pixelvit").rglob("events.out.tfevents*"))
        assert len(find_checkpoints(tmp_path / "checkpoints")) == 1


class TestStages:
    WORDS = ["--recipes", "pixelvit-stage1", "pixelvit-stage2", "--variant", "tiny", "--dataset", "digits"]
    WORDS += ["--report_to", "none", "--augmentation_repeats", "1", "--total_batch_size", "64"]

    def test_each_starts_from_the_best_of_the_one_before(self, tmp_path, few_test_digits):
        words = [*self.WORDS, "--model", json.dumps(TINY["pixelvit"]), "--output_dir", str(tmp_path)]
        words += ["--patch_size", "4", "8", "--image_size", "16", "32", "--num_train_epochs", "1", "0.5"]
        words += ["--warmup_epochs", "0.2", "--min_crop_scale", "0.8"]
        assert train_stages.main(words) == 0
        metrics = read_metrics(tmp_path / "stage2")
        assert metrics[0]["step"] == 0 and "eval_loss" in metrics[0]
        model = AutoModelForImageClassification.from_pretrained(tmp_path / "stage2" / "best")
        assert model.config.patch_size == 8 and model.config.image_size == 32
        assert load_recipe(tmp_path / "stage2/best/recipe.yaml").initial_checkpoint == str(tmp_path / "stage1/best")
        assert train_stages.main([*words, "--resume", "auto"]) == 0

    @pytest.mark.slow
    @pytest.mark.parametrize("family", ["adventurer", "pixelvit"])
    def test_three_stages_on_digits_start_no_worse_than_the_last_one_ended(self, family, tmp_path):
        """
        Images of 16, 32 and 48 pixels with patches that grow with them, and positions that are resampled with both; by
        rotary positions, in pixels, neighbors would be further and further away.
        """
        words = ["--recipes", *[f"{family}-sweep"] * 3, "--output_dir", str(tmp_path), "--dataset", "digits"]
        if family == "pixelvit":
            words += ["--model", '{"position_embedding_type": "absolute", "locality_init_value": null}']
        words += ["--patch_size", "4", "8", "12", "--image_size", "16", "32", "48", "--report_to", "none"]
        words += ["--num_train_epochs", "12", "2", "2", "--warmup_epochs", "1.2", "0.2", "0.2"]
        assert train_stages.main(words) == 0
        evaluations = [
            [record for record in read_metrics(tmp_path / f"stage{stage}") if "eval_accuracy" in record]
            for stage in (1, 2, 3)
        ]
        # A stage hands on its best checkpoint, so that is what the next one has to keep up with.
        best = [max(records, key=lambda record: record["eval_accuracy"]) for records in evaluations]
        assert best[0]["eval_accuracy"] > 70
        for before, after in zip(best[:-1], evaluations[1:], strict=True):
            start = after[0]
            assert start["step"] == 0
            # The picture is interpolated, so a few of the 1,588 test images may fall on the other side.
            assert start["eval_accuracy"] > before["eval_accuracy"] - 0.5
            assert start["eval_loss"] < 1.02 * before["eval_loss"]

    def test_says_what_is_wrong(self, tmp_path, capsys):
        words = [*self.WORDS, "--output_dir", str(tmp_path), "--patch_size", "4", "8", "2"]
        assert train_stages.main(words) == 2
        assert "--patch_size got the 3 values 4 8 2; give one for all stages, or 2" in capsys.readouterr().err

    def test_another_model_is_refused(self, tmp_path, digits):
        make_loop(make_recipe("pixelvit"), digits, tmp_path / "other").run()
        recipe = make_recipe("adventurer", initial_checkpoint=str(tmp_path / "other" / "best"))
        with pytest.raises(
            ValueError, match=r"another model than the recipe's \(model_type pixelvit there, adventurer"
        ):
            make_loop(recipe, digits, tmp_path / "new")


@pytest.mark.parametrize("streaming", [False, True])
def test_an_image_folder(tmp_path, streaming):
    """From files on disk to a classifier of files."""
    for split, count in (("train", 16), ("test", 4)):
        write_image_folder(tmp_path / "images" / split, count)
    words = ["--recipe", "pixelvit-stage1", *TestCommandLine.WORDS, "--dataset", str(tmp_path / "images")]
    words += ["--total_batch_size", "8", "--num_train_epochs", "6", "--base_learning_rate", "0.1"]
    words += ["--ema_decay", "none"]
    words += ["--mixup_probability", "0", "--output_dir", str(tmp_path / "run")]
    if streaming:
        words += ["--streaming", "--num_train_images", "32"]
    assert train.main(words) == 0
    classifier = pipeline("image-classification", model=str(tmp_path / "run" / "best"))
    assert classifier(str(tmp_path / "images" / "test" / "dark" / "0.png"))[0]["label"] == "dark"
