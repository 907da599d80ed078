# Copyright 2026 The modeling_pixelvit team. All rights reserved.
# SPDX-License-Identifier: Apache-2.0
"""What is said of images of which there is no law to tell: nothing to learn in them, or nothing left to learn."""

import math

import pytest
from helpers import write_image_folder
from PIL import Image
from tiny_experiments import write_experiment

from training import experiment
from training.data.splits import Splits
from training.experiments.fits import fit_forms
from training.experiments.law import LEAST_LOSS, find_falls, judge_convergence, ratio_of, summarize_curve
from training.experiments.report import draw, fit_series, format_falls, format_preview, format_report
from training.settings.recipe import load_recipe
from training.tasks.classification import ClassificationTask


LOG_3 = math.log(3)  # the loss of guessing one of three classes


def runs_of(losses, train_losses=None, chance=LOG_3, seeds=(0,), gain=0.1):
    """One family's, by patch size."""
    return judge_convergence(
        [
            {
                "task": "classification",
                "family": "pixelvit",
                "series": "PixelViT",
                "patch_size": size,
                "tokens": (16 // size) ** 2,
                "seed": seed,
                "chance_loss": chance,
                "train_loss": loss if train_losses is None else train_losses[size],
                "test_loss": loss * (1 + seed / 1000),
                "test_accuracy": 50.0,
                "gain_of_doubling": gain,
                "seconds": 1.0,
                "peak_memory_mib": 1.0,
            }
            for size, loss in losses.items()
            for seed in seeds
        ]
    )


def test_labels_that_are_learned_by_heart_are_no_law():
    """Of random labels training losses fall, the faster the smaller the patch, and test losses do not."""
    by_heart = {16: 0.9, 8: 0.6, 4: 0.3, 2: 0.1, 1: 0.05}
    runs = runs_of({16: 1.2, 8: 1.19, 4: 1.15, 2: 1.13, 1: 1.11}, by_heart)
    assert not any(run["learned"] or run["converged"] for run in runs)
    text = format_report(runs, fit_series(runs))
    assert "; but no run counts as having learned" in text
    assert "no power law fitted: it takes at least 3 values of patch with runs that learned, and there are 0" in text


def test_what_only_knows_which_classes_are_frequent_has_learned_nothing():
    """Nine of ten images are of one class: the loss of guessing is far below that of equally many of each."""
    images = [(Image.new("RGB", (16, 16)), int(index % 10 == 0)) for index in range(50)]
    recipe = load_recipe("pixelvit-sweep", digit_distortion=0.0)
    task = ClassificationTask(recipe, Splits("few", ["often", "rare"], images, images))
    expected = -(0.9 * math.log(0.9) + 0.1 * math.log(0.1))
    assert task.chance_loss() == pytest.approx(expected) and expected < 0.9 * math.log(2)
    assert not any(run["learned"] for run in runs_of({16: 0.324, 8: 0.323, 4: 0.322}, chance=task.chance_loss()))


def test_why_nothing_counts_as_learned_of_test_images_of_one_class_is_told():
    runs = runs_of({16: 0.4, 8: 0.3, 4: 0.2}, chance=0.0)
    assert not any(run["learned"] for run in runs)
    assert "; but no run counts as having learned, as test images of one class are guessed" in format_report(
        runs, fit_series(runs)
    )


def test_where_the_largest_patch_has_learned_it_all_nothing_is_told_of_a_law():
    losses = {16: 4e-4, 8: 5e-4, 4: 3e-4, 2: 5e-4, 1: 4e-4}
    runs = runs_of(losses, gain=0.7)
    assert all(run["learned"] and run["converged"] for run in runs)  # although patch 16 is a hair better than patch 8
    text = format_report(runs, fit_series(runs))
    assert "no power law fitted: already at patch 16 the test loss is below 1% of guessing's" in text
    assert "test loss does not fall from patch 16 to 8" in text and " 4.0e-04 " in text and "0.000" not in text


def test_no_score_is_drawn_below_zero_or_above_all(tmp_path, monkeypatch):
    """Two seeds of 10 and 90% have Student's interval from -458 to 558%."""
    scores = {0: 10.0, 1: 90.0}
    runs = [
        {**run, "task": "segmentation", "test_mean_iou": scores[run["seed"]]}
        for run in runs_of({8: 0.4, 4: 0.3, 2: 0.2}, seeds=scores)
    ]
    panels = []
    monkeypatch.setattr("matplotlib.pyplot.close", lambda figure: panels.extend(figure.axes))
    draw(runs, fit_series(runs), "scores", tmp_path / "scores.png")
    low, high = next(panel for panel in panels if panel.get_ylabel() == "mIoU (%)").get_ylim()
    assert -10 < low < 0 and 100 < high < 110


def test_losses_of_zero_are_compared_with_nothing(tmp_path):
    runs = runs_of({16: 0.0, 8: 1e-9, 4: 0.0, 2: 2e-4, 1: 1e-4})
    assert [fall.places for fall in find_falls(runs)] == [(2, 1)] and ratio_of(runs[:1], runs[1:2]) is None
    text = format_report(runs, fits := fit_series(runs))
    assert "already at patch 16 the test loss is below 1% of guessing's" in text and "test loss = " not in text
    assert "patch 16" in format_preview(runs)
    draw(runs, fits, "zero", tmp_path / "zero.png")
    assert (tmp_path / "zero.png").stat().st_size > 10_000
    runs = runs_of({16: 0.0, 8: 0.0})
    assert format_falls(runs).count("\n") == 0 and fit_series(runs)["PixelViT"].power is None
    assert summarize_curve([1.0] * 20 + [0.0] * 80) == {"train_loss": 0.0, "gain_of_doubling": 0.0}
    assert 0 < summarize_curve([1.0] * 80 + [0.0] * 20)["gain_of_doubling"] <= 1 and LEAST_LOSS < 1e-6


def test_a_preview_of_many_places_is_told_line_by_line():
    runs = [
        {
            **run,
            "axis": "training_flops",
            "training_flops": 1e9 * width * (32 - run["patch_size"]),
            "series": f"{width}",
        }
        for width in (32, 48)
        for run in runs_of({16: 1.0, 8: 0.5, 4: 0.25, 2: 0.125, 1: 0.1}, seeds=(0, 1))
    ]
    assert format_preview(runs[:10]).count("FLOP") == 5  # a column each
    assert format_preview(runs).splitlines() == [
        "test loss so far",
        "32: 1.000 at 5.12e+11, 0.500 at 7.68e+11, 0.250 at 8.96e+11, 0.125 at 9.60e+11, 0.100 at 9.92e+11 FLOP",
        "48: 1.000 at 7.68e+11, 0.500 at 1.15e+12, 0.250 at 1.34e+12, 0.125 at 1.44e+12, 0.100 at 1.49e+12 FLOP",
    ]


def test_a_fall_that_may_be_chance_is_told_as_such():
    runs = runs_of({16: 0.5, 8: 0.3, 4: 0.2999}, seeds=(0, 1, 2))
    runs = [
        {**run, "test_loss": run["test_loss"] * (1 + 0.05 * (run["seed"] == run["patch_size"] % 3))} for run in runs
    ]
    told = format_falls(runs)
    assert "falls at every step from patch 16 to 4, but from 8 to 4 by no more than may be chance" in told


def test_an_exponent_of_either_sign_is_no_law():
    flat = fit_forms([1, 2, 4, 8], [0.50, 0.52, 0.49, 0.51], axis="patch")
    assert "this shows no law: the exponent's sign is open" in str(flat)
    assert "shows no law" not in str(fit_forms([1, 2, 4, 8], [0.1, 0.2, 0.41, 0.8], axis="patch"))


def test_images_of_all_kinds_are_taken_and_a_damaged_one_is_named_before_anything_starts(tmp_path, capsys):
    folder = write_image_folder(tmp_path / "images", images_per_class=12)
    Image.new("L", (17, 40), 30).save(folder / "dark" / "0.png")
    Image.new("RGBA", (33, 19), (250, 250, 250, 200)).save(folder / "light" / "0.png")
    words = [write_experiment(tmp_path), "--dataset", str(folder), "--image_size", "16", "--plan"]
    assert experiment.main(words) == 0
    assert "tiny at images-" in capsys.readouterr().out
    damaged = folder / "light" / "3.png"
    damaged.write_bytes(damaged.read_bytes()[:-30])
    assert experiment.main(words) == 2
    error = capsys.readouterr().err
    assert f"error: {damaged} cannot be decoded" in error
