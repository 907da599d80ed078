# Copyright 2026 The modeling_pixelvit team. All rights reserved.
# SPDX-License-Identifier: Apache-2.0
"""Which patch size and which images each step has, and that a loop trains by it."""

import dataclasses
import json
from collections import Counter

import pytest
import torch
from accelerate import Accelerator
from torch.utils.data import Subset

from training.data.batches import TrainingBatches, derive_seed
from training.engine.log import read_metrics
from training.engine.loop import TrainingLoop
from training.engine.optimizers import build_optimizer
from training.engine.options import LoopOptions
from training.settings.course import Course, batches_per_step
from training.settings.recipe import RecipeError, load_recipe
from training.tasks.classification import ClassificationTask


TINY = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 64}


def make_recipe(**fields):
    values = {"patch_size": 2, "image_size": 16, "num_train_epochs": 2.0, "warmup_epochs": 0.2, "model": TINY}
    plain = {"total_batch_size": 16, "learning_rate_restarts": False, "digit_distortion": 0.0}
    return load_recipe("pixelvit-sweep", **{**values, **plain, **fields})


def patches(course):
    return [course.patch_size(step) for step in range(course.num_steps)]


def test_without_a_schedule_every_step_is_a_batch_of_the_recipes_patch_size():
    course = Course(make_recipe(), 10)
    assert course.num_steps == course.num_batches == 20 and set(patches(course)) == {2}
    assert [list(course.batches(step)) for step in range(20)] == [[step] for step in range(20)]
    assert [course.epochs_before(step) for step in (0, 5, 20)] == [0.0, 0.5, 2.0]
    assert [step for step in range(21) if course.is_multiple(step, 10)] == [0, 10, 20]
    assert not any(course.is_multiple(step, 0) for step in range(21)) and course.last_change == 0


def test_a_schedule_goes_from_coarse_to_fine_by_shares_of_the_images():
    course = Course(make_recipe(patch_schedule=["8:0.2", "4:0.3", "2:0.5"]), 10)
    assert patches(course) == [8] * 4 + [4] * 6 + [2] * 10
    assert course.patch_sizes == [8, 4, 2] and course.last_change == 10
    assert course.batches_by_patch_size() == {8: 4, 4: 6, 2: 10}
    assert course.batches_by_patch_size(5) == {8: 4, 4: 1, 2: 0}
    # Shares that are no whole steps are rounded where a part ends, and all steps are there.
    odd = Course(make_recipe(patch_schedule=["8:0.13", "4:0.13", "2:0.74"], num_train_epochs=1.0), 7)
    assert len(patches(odd)) == 7 and patches(odd) == sorted(patches(odd), reverse=True)


@pytest.mark.parametrize(
    ("patch_size", "expected"), [(1, {4: 0.3, 2: 0.2, 1: 0.5}), (2, {4: 0.3, 2: 0.7}), (4, {4: 1.0}), (16, {16: 1.0})]
)
def test_a_schedule_ends_at_the_recipes_own_patch_size(patch_size, expected):
    """And a patch that does not divide the image leaves its share to the next one."""
    recipe = make_recipe(patch_size=patch_size, patch_schedule=["5:0.1", "4:0.2", "2:0.2", "1:0.5"])
    assert recipe.patch_shares == pytest.approx(expected)
    assert make_recipe(patch_size=patch_size).patch_shares == {patch_size: 1.0}


def test_restarts_give_each_patch_size_the_whole_course_of_the_learning_rate():
    schedule = {"patch_schedule": ["8:0.2", "4:0.3", "2:0.5"], "num_train_epochs": 10.0}
    plain = Course(make_recipe(**schedule), 10)
    assert [plain.learning_rate_batches(step) for step in range(101)] == list(range(101))
    course = Course(make_recipe(**schedule, learning_rate_restarts=True), 10)
    done = [course.learning_rate_batches(step) for step in range(101)]
    parts = [(0, 20), (20, 50), (50, 100)]
    expected = [100 * (step - start) / (end - start) for start, end in parts for step in range(start, end)]
    assert done[:100] == pytest.approx(expected) and done[100] == 100
    # Steps of several batches, of which the coarse patches have more.
    grown = Course(make_recipe(**schedule, learning_rate_restarts=True, tokens_per_step=16 * 64), 10)
    firsts = [grown.batches_before(step) for step in range(grown.num_steps)]
    assert [grown.learning_rate_batches(step) for step in range(grown.num_steps)] == [done[first] for first in firsts]
    assert any(len(grown.batches(step)) > 1 for step in range(grown.num_steps))
    # Draws have one course, as a training at one patch size has.
    drawn = Course(make_recipe(patch_draws=["4:1", "2:1"], learning_rate_restarts=True), 10)
    assert [drawn.learning_rate_batches(step) for step in range(21)] == list(range(21))


def test_draws_have_the_weights_and_are_a_function_of_the_seed():
    recipe = make_recipe(patch_draws=["16:1", "8:1", "2:2"], num_train_epochs=400.0)
    course = Course(recipe, 10)
    drawn = Counter(patches(course))
    assert course.num_steps == 4000 and course.last_change == 0
    assert drawn[16] == pytest.approx(1000, abs=90) and drawn[8] == pytest.approx(1000, abs=90)
    assert drawn[2] == pytest.approx(2000, abs=110)
    assert patches(Course(recipe, 10)) == patches(course)
    longer = Course(dataclasses.replace(recipe, num_train_epochs=500.0), 10)
    assert patches(longer)[:4000] == patches(course)
    other = Course(dataclasses.replace(recipe, seed=1), 10)
    assert patches(other) != patches(course)


def test_tokens_of_a_step_are_those_of_an_extended_sequence():
    plain, extended = (
        make_recipe(tokens_per_step=1024, model={**TINY, **fields}) for fields in ({}, {"sequence_extension": 4})
    )
    assert [plain.tokens_per_image(size) for size in (8, 2)] == [4, 64]
    assert [extended.tokens_per_image(size) for size in (8, 2)] == [16, 256]
    for size, batches in ((16, 16), (8, 4), (4, 1), (2, 1)):
        assert batches_per_step(extended, size) == batches
        assert batches_per_step(plain, size) == min(4 * batches, 1024 // (16 * plain.tokens_per_image(size)))


@pytest.mark.parametrize("fields", [{"patch_schedule": ["8:0.5", "2:0.5"]}, {"patch_draws": ["8:1", "4:1", "2:1"]}])
def test_steps_of_large_patches_have_more_images_in_the_same_order(fields):
    """Of 64, 16 and 4 tokens an image; at most 1,024 tokens a step, which is a batch at the finest patch."""
    grown = TrainingBatches(make_recipe(**fields, tokens_per_step=1024), 160)
    plain = TrainingBatches(make_recipe(**fields), 160)
    course = grown.course
    assert course.num_batches == 20 == plain.course.num_steps > course.num_steps
    together = [list(course.batches(step)) for step in range(course.num_steps)]
    assert [batch for batches in together for batch in batches] == list(range(20))
    most = {2: 1, 4: 4, 8: 16}
    assert all(len(batches) <= most[course.patch_size(step)] for step, batches in enumerate(together))
    assert any(len(batches) > 1 for batches in together)
    assert [key for keys in grown for key in keys] == [key for keys in plain for key in keys]
    # From any step on, and shared among processes and accumulated batches: the same images for a step.
    for first in range(course.num_steps):
        rest = TrainingBatches(grown.recipe, 160, first_step=first)
        assert list(rest) == list(grown)[first:] and len(rest) == course.num_steps - first
    parts = [list(TrainingBatches(grown.recipe, 160, rank, 2, accumulation=2)) for rank in range(2)]
    for step in range(course.num_steps):
        shared = [key for part in parts for keys in part[2 * step : 2 * step + 2] for key in keys]
        assert Counter(index for index, _ in shared) == Counter(index for index, _ in list(grown)[step])
        assert len({len(keys) for part in parts for keys in part[2 * step : 2 * step + 2]}) == 1
    assert len({seed for keys in grown for _, seed in keys}) == 320


@pytest.mark.parametrize(
    ("fields", "sentence"),
    [
        ({"patch_schedule": ["4:0.2", "1:0.7"]}, "its shares must add up to 1"),
        ({"patch_schedule": ["1:0.2", "4:0.8"]}, "its patch sizes must fall, down to patch_size or further"),
        ({"patch_schedule": ["8:0.2", "4:0.8"]}, "its patch sizes must fall, down to patch_size or further"),
        ({"patch_schedule": ["4:0.5", "4:0.2", "1:0.3"]}, "give different patch sizes"),
        ({"patch_schedule": ["half:0.5", "1:0.5"]}, "give different patch sizes in pixels, each with .*:SHARE"),
        ({"patch_draws": ["2:0", "1:1"]}, "above 0, as PATCH:WEIGHT"),
        ({"patch_draws": ["2.5:1"]}, "give different patch sizes"),
        ({"patch_draws": ["3:1", "2:1"]}, "3 does not divide image_size=16; leave it out"),
        ({"patch_draws": ["1:1"], "patch_schedule": ["1:1"]}, "a training has one of the two"),
        ({"tokens_per_step": 0}, "tokens_per_step=0 was given"),
        ({"crop_padding": 2, "min_crop_scale": 0.5}, "either of the padded image or resized"),
    ],
)
def test_what_cannot_be_is_refused_in_a_sentence(fields, sentence):
    with pytest.raises(RecipeError, match=sentence):
        make_recipe(**fields)


def run_loop(recipe, digits, folder, **options):
    options = LoopOptions(output_dir=str(folder), logging_steps=1, save_minutes=0.0, report_to="none", **options)
    loop = TrainingLoop(Accelerator(cpu=True), recipe, ClassificationTask(recipe, digits), options, quiet=True)
    loop.run()
    return loop, read_metrics(folder)


class TestLoop:
    SHORT = {"num_train_epochs": 0.1, "warmup_epochs": 0.01, "total_batch_size": 16}

    def test_each_step_is_read_at_its_patch_size(self, tmp_path, digits):
        """Against a loop written out, over a change of the patch."""
        recipe = make_recipe(**self.SHORT, patch_schedule=["8:0.5", "2:0.5"], muon_learning_rate=None)
        loop, records = run_loop(recipe, digits, tmp_path)
        task = ClassificationTask(recipe, digits)
        model = task.build_model()
        optimizer = build_optimizer(model, recipe)
        seen = []
        for step, batch in enumerate(task.train_loader(loop.share)[0]):
            rate = [record for record in records if "loss" in record][step]["learning_rate"]
            for group in optimizer.param_groups:
                group["lr"] = rate
            patch_size = 8 if step < round(0.5 * loop.num_steps) else 2
            torch.manual_seed(derive_seed(recipe.seed, step, 0, 0))
            batch = task.prepare_batch(batch)
            loss = task.train_loss(model(batch["pixel_values"], patch_size=patch_size).logits, batch["labels"])
            loss.backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), recipe.max_grad_norm)
            optimizer.step()
            optimizer.zero_grad()
            seen.append((patch_size, loss.item()))
        logged = [(record["patch_size"], record["loss"]) for record in records if "loss" in record]
        assert len(logged) == loop.num_steps == 9
        assert [size for size, _ in logged] == [size for size, _ in seen]
        assert [loss for _, loss in logged] == pytest.approx([loss for _, loss in seen], rel=1e-4)

    def test_the_time_left_counts_tokens(self, tmp_path, digits):
        loop, _ = run_loop(make_recipe(**self.SHORT, patch_schedule=["8:0.5", "2:0.5"]), digits, tmp_path)
        assert loop._batches_left() == 0
        loop.progress.step = 2
        assert loop._batches_left() == 2 + 5 * 16
        loop.progress.step = 5
        assert loop._batches_left() == 4

    def test_the_learning_rate_has_one_course_over_all_patch_sizes(self, tmp_path, digits):
        """By the images seen, whatever their patches and however many a step has."""
        plain = make_recipe(**self.SHORT)
        rates = {}
        for name, fields in (("plain", {}), ("grown", {"patch_schedule": ["8:0.5", "2:0.5"], "tokens_per_step": 1024})):
            loop, records = run_loop(dataclasses.replace(plain, **fields), digits, tmp_path / name)
            steps = [record for record in records if "loss" in record]
            rates[name] = {loop.course.batches_before(record["step"] - 1): record["learning_rate"] for record in steps}
        assert len(rates["grown"]) == 6 < len(rates["plain"]) == 9
        assert all(rates["plain"][batch] == pytest.approx(rate) for batch, rate in rates["grown"].items())

    def test_one_model_is_evaluated_at_every_patch_size_drawn_from_or_asked_for(self, tmp_path, digits):
        model = {**TINY, "patch_kernel_size": 8}
        recipe = make_recipe(**self.SHORT, patch_draws=["8:1", "4:1", "2:1"], model=model)
        loop, records = run_loop(recipe, digits, tmp_path / "drawn")
        assert {"eval_loss", "eval_patch8_loss", "eval_patch4_accuracy"} < records[-1].keys()
        stored = json.loads((tmp_path / "drawn" / "best" / "config.json").read_text())
        assert (stored["patch_size"], stored["patch_kernel_size"]) == (2, 8)
        best = type(loop.template).from_pretrained(tmp_path / "drawn" / "best").eval()
        pictures, labels = zip(*[digits.evaluation[index] for index in range(50)], strict=True)
        pixels = loop.task.processor(list(pictures), return_tensors="pt").pixel_values
        for patch_size, name in ((2, "eval_loss"), (4, "eval_patch4_loss"), (8, "eval_patch8_loss")):
            with torch.no_grad():
                logits = best(pixels, patch_size=patch_size).logits
            loss = torch.nn.functional.cross_entropy(logits, torch.tensor(labels)).item()
            assert loss == pytest.approx(records[-1][name], rel=1e-4)
        _, records = run_loop(make_recipe(**self.SHORT), digits, tmp_path / "asked", eval_patch_sizes=[2, 16])
        assert {"eval_loss", "eval_patch16_loss"} < records[-1].keys() and "eval_patch2_loss" not in records[-1]
        with pytest.raises(ValueError, match="--eval_patch_sizes 3 was given; it must divide image_size=16"):
            run_loop(make_recipe(**self.SHORT), digits, tmp_path / "wrong", eval_patch_sizes=[3])

    def test_digits_are_distorted_and_others_are_refused(self, digits):
        recipe = make_recipe(digit_distortion=0.5)
        task = ClassificationTask(recipe, digits)
        torch.manual_seed(3)
        distorted, _ = task.train_example(5)
        torch.manual_seed(3)
        plain, _ = ClassificationTask(make_recipe(), digits).train_example(5)
        assert not torch.equal(distorted, plain) and (distorted - plain).abs().mean() < 0.5
        others = dataclasses.replace(digits, train=Subset(digits.train, range(9)))
        with pytest.raises(ValueError, match=r"digit_distortion=0\.5 was given, but .* are not the embedded digits"):
            ClassificationTask(recipe, others)


def test_multi_word_options_of_the_command_line():
    from training.engine.arguments import parse_arguments

    words = ["--recipe", "pixelvit-sweep", "--patch_size", "1", "--patch_schedule", "4:0.4", "1:0.6"]
    recipe, _, options = parse_arguments([*words, "--eval_patch_sizes", "2", "4"])
    assert recipe.patch_shares == {4: 0.4, 1: 0.6} and options.eval_patch_sizes == [2, 4]
    recipe, _, _ = parse_arguments([*words[:4], "--patch_schedule", "none"])
    assert recipe.patch_shares == {1: 1.0}
