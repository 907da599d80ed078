# Copyright 2026 The modeling_pixelvit team. All rights reserved.
# SPDX-License-Identifier: Apache-2.0
"""Experiments: their definitions and points, how they are carried out and gone on with, and what they say."""

import dataclasses
import itertools
import json
import math
import os
import shutil
import signal
import sys
import threading
import time
from pathlib import Path
from types import SimpleNamespace

import pytest
from launching import ONE_PROCESS, launch
from scipy import stats
from tiny_experiments import TINY, evaluate_few_images, write_experiment

from training import experiment as command
from training.common.files import write_json
from training.data.splits import Splits
from training.experiments import plan as plan_module
from training.experiments.definition import ExperimentError, find_experiments, load_experiment, load_scales
from training.experiments.experiment import (
    Outcome,
    compare,
    find_front,
    find_reached,
    format_reached,
    place_of,
    shortened,
)
from training.experiments.known import KEPT_RESULTS, Results
from training.experiments.plan import Speeds
from training.experiments.points import Choices, Planner, every_run
from training.experiments.report import styles_of
from training.experiments.run import key_of, read_run, training_cost, write_run
from training.experiments.slurm import RunJob


pytestmark = pytest.mark.usefixtures("one_thread")

REPOSITORY = Path(__file__).parents[3]


# What the points of an experiment start from, as short as they are.
START = {"task": "classification", "total_batch_size": 32, "epochs": 0.2}


@pytest.fixture
def few_images(monkeypatch):
    evaluate_few_images(monkeypatch)


def images_of(recipe, source, image_size):
    """In place of a data set, for plans: as large as the embedded digits."""
    return Splits(source, list("0123456789"), train=range(1400), evaluation=range(397))


def plan(name, scale="digits", **choices):
    experiment, scale = load_experiment(name), load_scales()[scale]
    return Planner(experiment.at(scale.name), scale, Choices(**choices), images_of)


class TestDefinitions:
    @pytest.mark.parametrize("name", list(find_experiments()))
    def test_all_of_them_can_be_planned(self, name):
        """On digits, and those of the paper at every scale that has their task."""
        experiment = load_experiment(name)
        if experiment.parts:
            assert all(load_experiment(part).grids for part in experiment.parts)
            return
        scales = [scale for scale in load_scales().values() if scale.has(experiment.task)]
        assert scales[0].name == "digits"
        for scale in scales if experiment.paper else scales[:1]:
            planner = plan(name, scale.name, seeds=(0,))
            points = planner.points()
            runs = every_run(points)
            assert len({run.folder for run in runs}) == len({run.key for run in runs}) == len(runs)
            labels = {point.variant for point in points}
            assert experiment.at(scale.name).reference in {None, *labels}
            # A scale's images are not read to plan what the paper trains.
            assert scale.num_train_images is None or set(planner.known_images.values()) <= {
                images for images in planner.known_images.values() if images.num_train > 20_000
            }

    def test_experiments_share_the_runs_that_they_have_in_common(self):
        names = ("table1", "pooling", "positions", "locality")
        keys = {name: {point.run.key for point in plan(name).points()} for name in names}
        assert keys["table1"] < keys["pooling"] and len(keys["locality"] & keys["positions"]) == 15
        by_rows = {point.run.key for point in plan("scan_order").points() if point.variant == "rows"}
        assert {point.run.key for point in plan("flips").points() if point.variant == "every second block"} < by_rows

    @pytest.mark.parametrize("name", ["table1", "scan_order"])
    def test_kept_results_have_their_runs(self, name):
        """A recipe's new fields and defaults make no other runs of those that were measured."""
        results = Results([str(KEPT_RESULTS / f"{name}-digits.json")])
        assert results.to_do(every_run(plan(name, seeds=(0, 1, 2, 3, 4)).points())) == []

    def test_what_points_start_from_has_their_family_patch_and_seed_and_is_shared(self):
        points = plan("table2").points()
        for point in points:
            start = point.run.start
            assert start.recipe.task == "classification" and "decoder_type" not in start.recipe.model
            assert (start.recipe.family, start.recipe.patch_size, start.recipe.seed) == (
                point.run.recipe.family,
                point.run.recipe.patch_size,
                point.run.recipe.seed,
            )
        assert len({point.run.start.key for point in points}) == len(points) / 2  # both decoders'
        assert {point.run.start.key for point in points} < {point.run.key for point in plan("table1").points()}

    def test_the_time_of_a_task_without_results_is_told_by_those_of_another(self, monkeypatch, tmp_path):
        monkeypatch.setattr(plan_module, "KEPT_RESULTS", tmp_path)
        run = plan("table2", families=("pixelvit",), seeds=(0,)).points()[0].run
        speeds = Speeds([run], Results())
        assert speeds.of(run, 1e12) == 1e12 and list(speeds.bases) == [
            "if the devices keep up 1 TFLOP/s, and less in proportion"
        ]
        told = {"family": "pixelvit", "tokens": 4, "seconds": 2.0, "training_flops": 6e9}
        others = [{**told, "task": "detection"}, {**told, "task": "detection", "family": "adventurer", "seconds": 1.0}]
        kept = {"machine": {"processor": "a processor"}, "runs": others}
        (tmp_path / "table3-digits.json").write_text(json.dumps(kept))
        speeds = Speeds([run], Results())
        assert speeds.of(run, 1e12) == 3e9 and list(speeds.bases) == ["as on one core of a processor in detection"]
        kept["runs"].append({**told, "task": "segmentation", "seconds": 4.0})
        (tmp_path / "table3-digits.json").write_text(json.dumps(kept))
        speeds = Speeds([run], Results())
        assert speeds.of(run, 1e12) == 1.5e9 and list(speeds.bases) == ["as on one core of a processor"]

    @pytest.mark.parametrize(("name", "scale"), [("table1", "imagenet64"), ("table2", "ade20k"), ("table3", "coco")])
    def test_the_time_of_the_papers_trainings_is_not_told_by_small_ones_on_a_core(self, name, scale):
        runs = every_run(plan(name, scale, seeds=(0,), families=("pixelvit",)).points())
        assert {Speeds(runs, Results()).of(run, training_cost(run, 1000)) for run in runs} == {1e12}

    def test_the_time_of_the_papers_trainings_is_told_by_finished_ones(self):
        runs = every_run(plan("table1", "imagenet64", seeds=(0,), families=("pixelvit",)).points())
        (run, other, *_), results = runs, Results()
        flops = training_cost(run, 1000)
        told = {"family": "pixelvit", "task": "classification", "tokens": run.num_tokens, "seconds": flops / 5e12}
        results.elsewhere[run.key] = {**told, "training_flops": flops}
        speeds = Speeds(runs, results)
        assert speeds.of(other, training_cost(other, 1000)) == pytest.approx(5e12)
        assert list(speeds.bases) == ["as fast as finished runs of the family"]

    def test_the_papers_stages_follow_one_another(self):
        (point, *_) = plan("table1", "imagenet224", families=("adventurer",)).points()
        last, middle, first = point.run, point.run.start, point.run.start.start
        assert [run.recipe.image_size for run in (first, middle, last)] == [128, 224, 224]
        assert [run.recipe.num_train_epochs for run in (first, middle, last)] == pytest.approx([300, 100, 20])
        assert first.start is None and last.recipe.warmup_epochs == pytest.approx(5)
        (detector, *_) = plan("table3", "coco", families=("adventurer",)).points()
        assert detector.run.start.recipe.task == "classification" and detector.run.start.recipe.image_size == 224
        assert detector.run.start.data["source"] == "ILSVRC/imagenet-1k"

    def test_compute_is_a_share_of_the_operations_without_a_schedule(self):
        costs = {}
        for point in plan("curriculum", seeds=(0,)).points():
            costs[point.group, point.variant, point.run.recipe.patch_size] = training_cost(point.run, 10)
        for (family, variant, patch_size), cost in costs.items():
            whole = costs[family, "new weights", patch_size]
            if "40%" in variant:
                assert cost == pytest.approx(0.4 * whole, rel=0.01)
            elif variant != "new weights":
                assert cost < whole
        costs = {}
        for point in plan("one_checkpoint", seeds=(0,)).points():
            costs.setdefault((point.group, point.variant), []).append(training_cost(point.run, 10))
        for family in ("Adventurer", "PixelViT"):
            (cost,) = costs[family, "one for all"]
            assert cost == pytest.approx(sum(costs[family, "one for each"]), rel=0.05)

    def test_what_a_run_costs_is_counted_once_for_seeds_of_a_model(self, monkeypatch):
        counted = []

        def count(config, name):
            counted.append(config.patch_size)
            return SimpleNamespace(flops=7)

        monkeypatch.setattr("training.experiments.run.model_cost", count)
        monkeypatch.setattr("training.experiments.run._KNOWN_COSTS", {})
        points = plan("table1", families=("pixelvit",)).points()
        assert len({training_cost(point.run, 10) for point in points}) == 1
        assert sorted(counted) == [1, 2, 4, 8, 16] and len(points) == 15

    def test_the_key_does_not_change_with_fields_that_a_recipe_gets_later(self):
        (point, *_) = plan("table1", seeds=(3,)).points()
        older = json.loads(json.dumps(point.run.settings))
        assert older["recipe"].pop("patch_draws") == []
        assert key_of(older) == point.run.key == key_of(shortened(point.run.settings))
        other = dataclasses.replace(point.run, recipe=dataclasses.replace(point.run.recipe, seed=4))
        assert other.key != point.run.key
        started = dataclasses.replace(point.run, start=other)
        assert len({started.key, point.run.key, other.key}) == 3

    def test_an_option_that_is_taken_back_makes_the_run_that_never_had_it(self, tmp_path):
        models = [point.run.recipe.model for point in plan("locality", seeds=(0,)).points()]
        assert [model.get("locality_init_value", "not there") for model in models] == 5 * ["not there"] + 5 * [32]
        # But a None stays where the variant has something.
        grid, series = {"patch_size": 16, "layer_scale_init_value": [None, 1e-6]}, ["layer_scale_init_value"]
        path = write_experiment(tmp_path, base={"variant": "large"}, grids=[grid], series=series)
        models = [point.run.recipe.model for point in plan(path, "imagenet64").points()]
        assert [model.get("layer_scale_init_value", "not there") for model in models] == [None, "not there"]

    def test_results_of_other_images_have_a_folder_of_their_own(self):
        scales = load_scales()
        assert place_of(scales["digits"], Choices()) == "digits"
        assert place_of(scales["digits"], Choices(dataset="data/my shapes/")) == "my_shapes-digits"
        assert place_of(scales["photos16"], Choices(dataset="somebody/photos")) == "photos-photos16"

    def test_patches_that_do_not_fit_are_left_out_and_told(self):
        planner = plan("curriculum", image_size=18)
        assert {point.run.recipe.patch_size for point in planner.points()} == {2, 1}
        assert planner.left_out == ["patch 4, which does not divide images of 18 pixels"]

    @pytest.mark.parametrize("name", ["curriculum", "one_checkpoint", "options"])
    def test_no_two_curves_look_alike(self, name):
        points = plan(name, seeds=(0,)).points()
        runs = [
            {"series": point.series, "family": point.run.recipe.family, "patch_size": point.run.recipe.patch_size}
            for point in points
        ]
        styles = styles_of(runs)
        assert len(styles) == len({point.series for point in points}) == len(set(styles.values()))

    def test_fast_is_a_few_batches_of_a_few_points(self):
        points = plan("table1", fast=True).points()
        assert {point.run.recipe.patch_size for point in points} == {16, 8}
        assert {point.run.num_batches for point in points} == {12} and len(points) == 4

    @pytest.mark.parametrize(
        ("fields", "sentence"),
        [
            ({"gridz": []}, "sets 'gridz'; an experiment has"),
            ({"grids": []}, "must have either grids or parts; it has none"),
            ({"task": "tracking"}, "sets task: tracking; there are classification"),
            ({"x": "colour"}, "sets x: colour; there are patch_size"),
            ({"seeds": []}, "give one or more from 0 to"),
            ({"title": None}, "has no title"),
            ({"grids": [{"patch_sise": [2]}]}, "varies 'patch_sise', which is no field"),
            ({"grids": [{"patch_sise": [2]}]}, "Did you mean 'patch_size'?"),
            ({"grids": [{"model": {"hidden_size": 16}}]}, "give the fields of models' configurations by their names"),
            ({"grids": [{"seed": [1, 2]}]}, "varies 'seed'; the experiment's seeds stand in its list of seeds"),
            ({"base": {"scan_order": "rows"}}, "no field of a recipe or of a configuration of pixelvit"),
            ({"start": {"taks": "classification"}}, "varies 'taks'"),
            ({"scales": {"digitz": {}}}, "sets scales: digitz; there are digits, "),
            ({"reference": "nobody"}, "sets reference: nobody; its curves are "),
            ({"seeds": 3}, "sets seeds: 3; it must be of the type list[int]."),
            ({"seeds": [-1]}, "sets seeds: [-1]; give one or more from 0 to 2^32 - 1."),
            ({"grids": 5}, "sets grids: 5; it must be of the type list[dict[str, typing.Any]]."),
            ({"base": ["x"]}, "sets base: ['x']; it must be of the type dict[str, typing.Any]."),
            ({"families": None}, "sets families: None; it must be of the type list[str]."),
            ({"x": ["tokens"]}, "sets x: ['tokens']; it must be of the type <class 'str'>."),
            ({"scales": {"digits": 5}}, "sets scales: {'digits': 5}; it must be of the type"),
            ({"grids": [{"patch_size": [0]}]}, "sets patch_size: 0; it must be a whole number above zero, or 'every'."),
            ({"grids": [{"patch_size": "evry"}]}, "sets patch_size: evry; it must be"),
            ({"grids": [{"images": "half", "patch_size": 4}]}, "sets images: half; it must be a number above zero."),
            ({"grids": [{"compute": -1, "patch_size": 4}]}, "sets compute: -1; it must be a number above zero."),
            ({"grids": [{"label": 5, "patch_size": 4}]}, "sets label: 5; it must be a text."),
            ({"start": {"scale": "nope"}}, "starts at the scale 'nope'; there are digits, "),
            ({"name": "../x"}, "sets name: ../x; folders are made of it"),
            ({"base": {"hidden_size": "big"}}, "has a point that cannot be ("),
            ({"base": {"base_learning_rate": "fast"}}, "base_learning_rate: fast was given; it must be a number."),
            ({"grids": [{"patch_size": [3]}]}, "has no points left; left out: patch 3, which does not divide"),
            ({"base": {"hidden_size": 33}}, "hidden_size"),
            ({"grids": [{"patch_size": []}]}, "sets patch_size: []; give one value or more"),
            ({"families": []}, "sets families: []; give one value or more"),
            (
                {"parts": ["figure1"], "grids": []},
                "has the part figure1, which is made of table1,",
            ),
            ({"grids": [{"family": "vit"}]}, "sets family: vit; it must be one of adventurer, pixelvit."),
            ({"base": {"patch_size": "every"}, "grids": [{"pooling": "mean"}]}, "has patch_size=every in its base"),
            ({"base": {"task": "segmentation"}}, "varies 'task'; an experiment has one"),
            ({"base": {"learning_rate": 1e-3}}, "varies 'learning_rate', which is no field"),  # but a property
            ({"base": {"warmup_epochs": 3}}, "sets warmup_epochs of a training which has a warmup of 10%"),
            ({"base": {"images": 0.5, "compute": 0.5}}, "sets images: 0.5 and compute: 0.5 of one point"),
            ({"series": ["family", "poling"]}, "names 'poling' in its series, which none of its points sets"),
            ({"start": {"task": "tracking"}}, "sets task: tracking in its start; it must be one of classification"),
            ({"start": {"epochs": "few"}}, "sets epochs: few in its start; it must be a number above zero."),
            ({"start": {"start": "scratch"}}, "sets start: scratch in its start; it must be a mapping."),
            (
                {"grids": [{"patch_size": 8, "base_learning_rate": [1e-3, 1e-2]}]},
                "has two points at patch 8 of the curve PixelViT (base_learning_rate: 0.001 and 0.01), which would "
                "count as seeds of one; name in its series what differs, or give grids labels.",
            ),
            (
                {"grids": [{"patch_size": 8, "scan_order": ["rows", "rows_and_columns"]}], "families": ["adventurer"]}
                | {"x": "parameters"},
                "parameters of the curve Adventurer (scan_order: rows and rows_and_columns), which would count",
            ),
            (
                {"base": {"patch_size": [8, 4]}, "grids": [{"pooling": "mean"}]},
                "has patch_size=[8, 4] in its base, where a field has one value",
            ),
        ],
    )
    def test_mistakes_get_a_sentence(self, tmp_path, capsys, fields, sentence):
        assert command.main([write_experiment(tmp_path, **fields), "--plan"]) == 2
        error = capsys.readouterr().err
        assert sentence in error and error.startswith("error: ") and len(error.splitlines()) == 1

    def test_numbers_as_yaml_has_them(self, tmp_path):
        """1e-3 is a text to YAML, and 1 is no fraction."""
        numbers = {"base_learning_rate": "1e-3", "muon_learning_rate": "2e-2", "max_grad_norm": 1, "weight_decay": 0}
        recipe = plan(write_experiment(tmp_path, base=numbers)).points()[0].run.recipe
        assert {name: getattr(recipe, name) for name in numbers} == {
            **{"base_learning_rate": 1e-3, "muon_learning_rate": 2e-2, "max_grad_norm": 1.0, "weight_decay": 0.0}
        }

    def test_families_are_chosen_where_grids_name_them_too(self, tmp_path):
        points = plan("curriculum", seeds=(0,), families=("pixelvit",)).points()
        assert {point.run.recipe.family for point in points} == {"pixelvit"} and len(points) == 12
        path = write_experiment(tmp_path, families=["pixelvit", "adventurer"], base={"family": "adventurer"})
        assert {point.run.recipe.family for point in plan(path).points()} == {"adventurer"}

    def test_other_mistakes_get_one_too(self, tmp_path, capsys):
        for words, sentence in (
            (["tabel5"], "Did you mean 'table5'?"),
            (["table3", "--scale", "photos16"], "has no images for detection"),
            (["table1", "--epochs", "-1"], "--epochs -1.0 was given; it must be finite and above zero."),
            (["table1", "--epochs", "inf"], "--epochs inf was given; it must be finite and above zero."),
            (["table1", "--epochs", "nan"], "--epochs nan was given; it must be finite and above zero."),
            (["table1", "--known", str(tmp_path / "none.json")], "no results of an experiment"),
            (["table1", "--slurm", "partition"], "give parameters as NAME=VALUE"),
            (["--point", str(tmp_path / "none.json")], "which is no run that was written down"),
        ):
            assert command.main(words) == 2
            assert sentence in capsys.readouterr().err
        with pytest.raises(ExperimentError, match="cannot be read"):
            load_experiment(str(tmp_path / "none.yaml"))

    def test_all_are_listed(self, capsys):
        assert command.main([]) == 0
        shown = capsys.readouterr().out
        assert all(name in shown for name in (*find_experiments(), *load_scales()))


class TestCarryingOut:
    def test_from_a_file_to_its_results(self, tmp_path, few_images, capsys, monkeypatch):
        monkeypatch.chdir(tmp_path)
        path = write_experiment(tmp_path)
        assert command.main([path, "--epochs", "0.1", "--plan"]) == 0
        planned = capsys.readouterr().out
        assert "2 of 2 runs to do" in planned and "as on one core of" in planned and not Path("runs").exists()
        assert command.main([path, "--epochs", "0.1"]) == 0
        results = json.loads(Path("runs/experiments/tiny-digits/results.json").read_text())
        assert [(point["series"], point["patch_size"]) for point in results["points"]] == [
            ("PixelViT", 16),
            ("PixelViT", 8),
        ]
        assert len(results["runs"]) == 2
        for run in results["runs"]:
            assert {"revision", "versions", "precision"} < run["made_with"].keys()
            assert run["made_with"]["device"] and run["made_with"]["date"]
        assert Path("runs/experiments/tiny-digits/scaling.png").stat().st_size > 10_000
        assert "A question?" in Path("runs/experiments/tiny-digits/table.md").read_text()
        capsys.readouterr()

        # Nothing is repeated, under another name neither, nor what is known from elsewhere.
        assert command.main([path, "--epochs", "0.1"]) == 0
        assert "2 runs, 0 of them to do" in capsys.readouterr().out
        renamed = Path(path).rename(tmp_path / "renamed.yaml")
        kept = str(Path("runs/experiments/tiny-digits/results.json").rename(tmp_path / "kept.json"))
        Path("runs/points").rename(tmp_path / "away")
        assert command.main([str(renamed), "--epochs", "0.1", "--known", kept]) == 0
        assert "2 runs, 0 of them to do" in capsys.readouterr().out
        again = json.loads(Path("runs/experiments/renamed-digits/results.json").read_text())
        assert again["runs"] == results["runs"] and again["points"] == results["points"]

    @pytest.mark.slow
    @pytest.mark.parametrize("name", [name for name in find_experiments() if not load_experiment(name).parts])
    def test_all_of_them_run(self, name, tmp_path, monkeypatch):
        monkeypatch.chdir(tmp_path)
        assert command.main([name, "--fast"]) == 0
        results = json.loads(Path(f"runs/experiments/{name}-digits-fast/results.json").read_text())
        # A model that several patches read has a row for each.
        found = {(row["run"], row["series"]) for row in results["points"]}
        assert found == {(point.run.key, point.series) for point in plan(name, fast=True).points()}

    def test_a_broken_point_does_not_stop_the_others_and_is_named(self, tmp_path, few_images, capsys, monkeypatch):
        monkeypatch.chdir(tmp_path)
        broken = sys.modules["training.experiments.run"].TrainingLoop

        def build(accelerator, recipe, *rest, **options):
            if recipe.patch_size == 16 and recipe.total_batch_size == 32:
                raise ValueError("this one is broken")
            return broken(accelerator, recipe, *rest, **options)

        monkeypatch.setattr("training.experiments.run.TrainingLoop", build)
        path = write_experiment(tmp_path, start=START)
        assert command.main([path, "--epochs", "0.1"]) == 1
        shown = capsys.readouterr()
        assert "this one is broken" in shown.err and shown.err.count("from which it starts, failed.") == 1
        results = json.loads(Path("runs/experiments/tiny-digits/results.json").read_text())
        assert [point["patch_size"] for point in results["points"]] == [8]
        told = Path("runs/experiments/tiny-digits/table.md").read_text()
        assert "Without results, and in nothing of this: PixelViT at patch 16, seed 0.\n" in told

    def test_a_checkpoint_that_is_not_here_is_trained_for_what_starts_from_it(self, tmp_path):
        (point,) = [
            point
            for point in plan("table2", points_dir=str(tmp_path), seeds=(0,), families=("pixelvit",)).points()
            if point.variant == "UperNet" and point.run.recipe.patch_size == 8
        ]
        known = Results()
        known.elsewhere = {point.run.start.key: {}}
        assert known.to_do(every_run([point])) == [point.run.start, point.run]
        known.elsewhere[point.run.key] = {}
        assert known.to_do(every_run([point])) == []

    def test_a_run_that_is_written_down_is_the_same_run(self, tmp_path):
        (point, *_) = plan("table2", points_dir=str(tmp_path), how={"num_workers": 2}).points()
        assert read_run(write_run(point.run)) == point.run

    def test_two_processes_of_an_experiment_carry_a_run_out_once(self, tmp_path, pictures):
        """The second one waits for the first, and takes what that has found."""
        path = write_experiment(tmp_path, grids=[{"patch_size": [16]}])
        words = [path, "--dataset", str(pictures), "--epochs", "6", "--points_dir", str(tmp_path / "points")]
        outputs = [tmp_path / "out1", tmp_path / "out2"]
        started = [launch(ONE_PROCESS, [], [*words, "--output_dir", str(out)], out, "experiment") for out in outputs]
        for out, process in zip(outputs, started, strict=True):
            assert process.wait(timeout=300) == 0, out.with_suffix(".log").read_text()
        (folder,) = (tmp_path / "points").iterdir()
        steps = [json.loads(line).get("step") for line in (folder / "metrics.jsonl").read_text().splitlines()]
        trained = steps[: steps.index(max(steps)) + 1]
        assert trained == list(range(1, len(trained) + 1))
        found = [json.loads(next(out.rglob("results.json")).read_text()) for out in outputs]
        assert found[0]["runs"] == found[1]["runs"]

    def test_results_of_images_that_have_changed_since_are_not_told_for_theirs(self, tmp_path, pictures, capsys):
        images = shutil.copytree(pictures, tmp_path / "images")
        words = [write_experiment(tmp_path, grids=[{"patch_size": [16]}]), "--dataset", str(images)]
        words += ["--epochs", "0.5", "--points_dir", str(tmp_path / "points"), "--output_dir", str(tmp_path)]
        assert command.main(words) == 0
        assert command.main([*words, "--plan"]) == 0
        for split in images.iterdir():
            (split / "dark").rename(split / "night")
        capsys.readouterr()
        assert command.main(words) == 2
        told = capsys.readouterr().err
        assert "was made with 256 training and 20 test images" in told and "now holds 256 and 20 of other" in told
        known = ["--known", str(next(tmp_path.rglob("results.json"))), "--points_dir", str(tmp_path / "none")]
        assert command.main([*words, *known]) == 2
        assert "other classes; put the new ones into a folder of another name, or leave out the file of --known" in (
            capsys.readouterr().err
        )

    def test_a_damaged_file_of_metrics_is_named(self, tmp_path, few_images, capsys):
        words = [write_experiment(tmp_path, grids=[{"patch_size": [16]}]), "--points_dir", str(tmp_path / "points")]
        words += ["--epochs", "0.1", "--output_dir", str(tmp_path)]
        assert command.main(words) == 0
        path = next((tmp_path / "points").glob("*/metrics.json"))
        for content in ("", "{}", "[]"):
            path.write_text(content)
            assert command.main(words) == 2
            assert f"error: {path} is damaged; remove the file" in capsys.readouterr().err

    def test_killed_it_goes_on_to_the_same_result(self, tmp_path, pictures):
        path = write_experiment(tmp_path, grids=[{"patch_size": 4}], base={**TINY, "num_hidden_layers": 2})

        def start(name):
            words = [path, "--dataset", str(pictures), "--epochs", "2", "--workers", "1", "--device", "cpu"]
            words += ["--points_dir", str(tmp_path / name / "points"), "--output_dir", str(tmp_path / name / "out")]
            return launch(ONE_PROCESS, [], words, tmp_path / name, command="experiment")

        whole, killed = start("whole"), start("killed")
        deadline = time.monotonic() + 120
        log = None
        while time.monotonic() < deadline and (log is None or len(log.read_text().splitlines()) < 15):
            log = next(tmp_path.glob("killed/points/*/unfinished_run/metrics.jsonl"), None)
            time.sleep(0.02)
        os.killpg(killed.pid, signal.SIGKILL)
        killed.wait(60)
        assert not list(tmp_path.glob("killed/points/*/metrics.json"))
        again = start("killed")
        assert (whole.wait(240), again.wait(240)) == (0, 0), (tmp_path / "killed.log").read_text()
        paths = [next(tmp_path.glob(f"{name}/points/*/metrics.json")) for name in ("whole", "killed")]
        first, second = (json.loads(path.read_text()) for path in paths)
        assert first["test_loss"] == second["test_loss"] and first["train_loss"] == second["train_loss"]

    def test_a_launcher_carries_out_each_run_and_its_failure_is_told(self, tmp_path, pictures, monkeypatch, capfd):
        monkeypatch.chdir(tmp_path)
        path = write_experiment(tmp_path, grids=[{"patch_size": 16}])
        words = [path, "--dataset", str(pictures), "--epochs", "0.2", "--num_workers", "0"]
        assert command.main([*words, "--launch", f"{sys.executable} -X no_such_option -m no_such_module"]) == 1
        assert "No module named no_such_module" in capfd.readouterr().err
        launcher = f"env PYTHONPATH={REPOSITORY} OMP_NUM_THREADS=1 {sys.executable} -m torch.distributed.run"
        assert command.main([*words, "--launch", f"{launcher} --nproc_per_node 2"]) == 0, capfd.readouterr()
        (metrics,) = (json.loads(path.read_text()) for path in Path("runs/points").glob("*/metrics.json"))
        assert metrics["made_with"]["processes"] == 2

    def test_jobs_of_a_scheduler(self, tmp_path, pictures, monkeypatch, capfd):
        """Submitit's processes of this machine in the place of Slurm's: what starts from a job comes after it."""
        monkeypatch.chdir(tmp_path)
        monkeypatch.setenv("PYTHONPATH", str(REPOSITORY))
        path = write_experiment(tmp_path, grids=[{"patch_size": 16}], start=START)
        words = [path, "--dataset", str(pictures), "--epochs", "0.2", "--slurm", "timeout_min=10"]
        words += ["--slurm_cluster", "local"]
        assert command.main(words) == 0, capfd.readouterr()
        shown = capfd.readouterr().out
        assert shown.count("1 jobs submitted, 0 were going on") == 2
        assert len(list(Path("runs/points").glob("*/metrics.json"))) == 2
        assert command.main(words) == 0 and "0 of them to do" in capfd.readouterr().out
        assert command.main([*words, "--slurm", "timeout_min=10", "no_such_parameter=1", "--seeds", "1"]) == 2
        assert "no_such_parameter" in capfd.readouterr().err

    def test_a_job_waits_for_another_one_at_its_run_and_does_not_repeat_it(self, tmp_path):
        (point,) = plan(write_experiment(tmp_path, grids=[{"patch_size": 16}]), points_dir=str(tmp_path)).points()
        path, errors = str(write_run(point.run)), []

        def carry_out():
            try:
                RunJob(["false"])(path)
            except RuntimeError as error:
                errors.append(error)

        job = threading.Thread(target=carry_out)
        with point.run.alone():
            job.start()
            job.join(0.3)
            assert job.is_alive()
            write_json(Path(point.run.folder, "metrics.json"), point.run.settings)
        job.join(60)
        assert not job.is_alive() and not errors


def row(series, place, loss, seed=0, **fields):
    group, _, variant = series.partition(", ")
    return {
        "series": series,
        "group": group,
        "variant": variant,
        "axis": "training_flops",
        "training_flops": place,
        "task": "classification",
        "patch_size": 1,
        "seed": seed,
        "test_loss": loss,
        "test_accuracy": 100 - 10 * loss,
        **fields,
    }


class TestWhatItSays:
    def test_curves_are_compared_with_the_reference_seed_by_seed(self):
        losses = {("old", 0): 1.0, ("old", 1): 2.0, ("old", 2): 4.0, ("new", 0): 0.5, ("new", 1): 0.8, ("new", 2): 2.4}
        rows = [row(f"A, {variant}", 10, loss, seed) for (variant, seed), loss in losses.items()]
        rows += [row("A, new", 20, 0.1), row("B, new", 10, 0.1)]  # which have nothing to be compared with
        (found,) = compare(rows, "old")
        logs = [math.log(losses["new", seed] / losses["old", seed]) for seed in range(3)]
        mean, half = sum(logs) / 3, stats.t.ppf(0.975, 2) * stats.sem(logs)
        assert (found["group"], found["variant"], found["place"], found["seeds"]) == ("A", "new", 10, 3)
        assert found["ratio"] == pytest.approx(math.exp(mean))
        assert found["interval"] == pytest.approx((math.exp(mean - half), math.exp(mean + half)))
        assert found["score_gain"] == pytest.approx(10 * (7 / 3 - 3.7 / 3))

    def test_where_a_curve_reaches_what_the_reference_ends_with(self):
        """On power laws the share is known: of 1 / x and half of it, (2 / 4) of the places; by chance seeds differ."""
        law = {"old": lambda x, seed: 1 / x, "new": lambda x, seed: 0.5 / x * 1.1**seed, "bad": lambda x, seed: 2 / x}
        rows = [
            row(f"A, {variant}", place, loss(place, seed), seed)
            for variant, loss in law.items()
            for place in (10, 30, 40)
            for seed in (-1, 0, 1)
        ]
        rows += [row("B, new", 10, 0.1)]  # which has nothing to reach
        rows += [row("A, best", 30, 0.001, seed) for seed in (0, 1, 2)]
        new, bad, best = find_reached(rows, "old")
        assert new["place"] == 40
        assert new["shares"] == pytest.approx({seed: 0.5 * 1.1**seed for seed in (-1, 0, 1)})
        half = stats.t.ppf(0.975, 2) * math.log(1.1) / math.sqrt(3)
        assert new["mean"] == pytest.approx(0.5)
        assert new["interval"] == pytest.approx((0.5 * math.exp(-half), 0.5 * math.exp(half)))
        assert bad["shares"] == dict.fromkeys((-1, 0, 1))
        assert best["shares"] == {0: 0.75, 1: 0.75}  # the third seed has no reference
        assert bad["mean"] is bad["interval"] is best["mean"] is None
        told = format_reached([new, bad, best], SimpleNamespace(x="training_flops", reference="old"))
        assert told.splitlines() == [
            "A, new: the test loss of old at 40 FLOP is reached at 50% [39%, 63%] of these",
            "A, bad: the test loss of old at 40 FLOP is reached at more than 100%, more than 100%, more than 100% "
            "of these, seed by seed",
            "A, best: the test loss of old at 40 FLOP is reached at 75% or less, 75% or less of these, seed by seed",
        ]

    def test_a_seed_of_which_a_run_has_failed_reaches_nothing(self):
        """Of seed 0 it is half; of the others it would be told as exactly 75%, and as more than all there is."""
        rows = [row("A, old", 40, 1.0, seed) for seed in range(4)]
        whole = [(10, 4.0), (30, 0.5), (40, 0.4)]
        rows += [row("A, new", place, loss, 0) for place, loss in whole]
        rows += [row("A, new", place, loss, 1) for place, loss in whole[1:]]
        rows += [row("A, new", place, loss, 2) for place, loss in ((10, 4.0), (30, 2.0))]
        rows += [row("A, new", place, loss, 3) for place, loss in ((10, 4.0), (30, 2.0), (40, 0.0))]
        (new,) = find_reached(rows, "old")
        assert list(new["shares"]) == [0, 3] and new["shares"][0] == pytest.approx(0.25 * 3 ** (2 / 3))
        assert 0.75 < new["shares"][3] < 1  # a loss of zero is below it, though it has no logarithm

    def test_the_front_is_what_no_other_point_beats_at_less_computation(self):
        points = [(1, 3.0), (2, 3.5), (3, 2.0), (4, 2.0), (5, 1.0), (6, 1.5), (7, 0.9)]
        rows = [row("A, wide" if place % 2 else "A, narrow", place, loss) for place, loss in points]
        for order in itertools.islice(itertools.permutations(rows), 0, 5040, 500):
            front = [(one["training_flops"], one["test_loss"]) for one in find_front(list(order))]
            beaten = [
                any(
                    other <= place and loss_of <= loss and (other, loss_of) != (place, loss)
                    for other, loss_of in points
                )
                for place, loss in points
            ]
            assert front == [point for point, is_beaten in zip(points, beaten, strict=True) if not is_beaten]

    def test_a_model_of_all_patch_sizes_has_a_row_for_each(self):
        (point, *_) = [p for p in plan("one_checkpoint", seeds=(0,)).points() if p.variant == "one for all"]
        results = Results()
        metrics = {"family": "adventurer", "patch_size": 1, "tokens": 256, "test_loss": 0.1, "test_accuracy": 99.0}
        for patch_size in (16, 8, 4, 2):
            metrics |= {f"test_patch{patch_size}_loss": 0.1 * patch_size, f"test_patch{patch_size}_accuracy": 50.0}
        results.elsewhere = {point.run.key: metrics}
        rows = Outcome(load_experiment("one_checkpoint"), "digits", [point], results, Path(), "").rows()
        assert {(one["patch_size"], one["tokens"], one["test_loss"]) for one in rows} == {
            (1, 256, 0.1),
            *((size, (16 // size) ** 2, 0.1 * size) for size in (16, 8, 4, 2)),
        }
