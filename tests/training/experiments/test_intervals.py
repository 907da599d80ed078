# Copyright 2026 The modeling_pixelvit team. All rights reserved.
# SPDX-License-Identifier: Apache-2.0
"""Intervals over seeds and test images: what they hold, and from which files."""

import math

import numpy as np
import pytest
from scipy import stats

from training.engine.evaluation import IMAGES_FILE, write_image_values
from training.experiments.intervals import draw_images, draws_of, interval_of, intervals_of, with_draws
from training.experiments.law import difference_of, ratio_of
from training.experiments.report import format_mean


NUM_IMAGES = 500


def losses_of_images(factor=1.0, seed=0, number=NUM_IMAGES):
    """Some are hard for every model, as in a test set of which most are right."""
    return factor * np.random.default_rng(seed).gamma(0.3, 1.0, number)


def write_run(folder, name, losses, **fields):
    """A finished run's metrics, and its file of test images."""
    (folder / name).mkdir(parents=True)
    right = (losses < 1).astype(float) * 100
    write_image_values(folder / name, {"loss": losses.astype(np.float32), "accuracy": right})
    return {"name": name, "patch_size": 8, "test_loss": losses.mean(), "test_accuracy": right.mean(), **fields}


class TestDraws:
    def test_a_mean_with_weights_is_that_of_all_pixels_of_the_drawn_images(self):
        generator = np.random.default_rng(1)
        losses, pixels = generator.gamma(1, 1, 2000), generator.integers(1, 100, 2000)
        draws = draw_images(losses[None], pixels[None])[:, 0]
        centre = losses @ pixels / pixels.sum()
        error = math.sqrt(np.sum((pixels * (losses - centre)) ** 2)) / pixels.sum()  # of a ratio, linearized
        assert draws.mean() == pytest.approx(centre, abs=error / 5) and draws.std() == pytest.approx(error, rel=0.1)

    def test_over_seeds_it_is_students_and_one_value_has_none(self):
        values = [1.0, 1.2, 1.7]
        half = stats.t.ppf(0.975, 2) * stats.sem(values)
        assert intervals_of(values) == {"seeds": pytest.approx((1.3 - half, 1.3 + half))}
        assert intervals_of([1.0]) == {} and interval_of([{"loss": 1.0}], "loss") is None

    @pytest.mark.parametrize("num_seeds", [1, 3])
    def test_they_hold_what_they_say(self, num_seeds):
        """The loss of all images there are, of which 500 are drawn, and of all seeds."""
        held = {"seeds": 0, "images": 0, "seeds and images": 0}
        generator, times, images_at_fixed_seeds = np.random.default_rng(2), 300, 0.3
        for _ in range(times):
            moved = np.exp(generator.normal(0, 0.05, num_seeds))
            losses = generator.gamma(0.3, 1.0, NUM_IMAGES) * moved[:, None]
            found = intervals_of(losses.mean(1).tolist(), draw_images(losses, resamples=400))
            truths = {"images": images_at_fixed_seeds * moved.mean(), "seeds and images": 0.3 * math.exp(0.05**2 / 2)}
            for source, truth in truths.items():
                held[source] += source in found and found[source][0] < truth < found[source][1]
        assert 0.91 < held["images"] / times < 0.98
        assert held["seeds and images"] / times == 0 if num_seeds == 1 else held["seeds and images"] / times > 0.91

    def test_what_is_hard_for_both_is_no_difference(self, tmp_path):
        hard = losses_of_images()
        noisy = hard * np.exp(np.random.default_rng(3).normal(0, 0.1, NUM_IMAGES))
        names = {"plain": hard, "halved": hard / 2, "noisy": noisy, "other": losses_of_images(seed=4)}
        runs = {name: write_run(tmp_path, name, losses, seed=0) for name, losses in names.items()}
        runs = dict(zip(runs, with_draws(list(runs.values()), tmp_path), strict=True))
        halved, noisy, other = (ratio_of([runs[name]], [runs["plain"]]) for name in ("halved", "noisy", "other"))
        assert halved.interval == pytest.approx((0.5, 0.5), rel=1e-6) and halved.seeds == 1
        assert noisy.intervals.keys() == {"images"} and noisy.interval == noisy.intervals["images"]
        widths = [math.log(one.interval[1] / one.interval[0]) for one in (noisy, other)]
        assert 0 < 5 * widths[0] < widths[1]
        gain, intervals = difference_of([runs["halved"]], [runs["plain"]], "test_accuracy")
        low, high = intervals["images"]
        assert 0 < low < gain < high and gain == pytest.approx(100 * np.mean((hard >= 1) & (hard < 2)))
        assert difference_of([runs["halved"]], [runs["plain"]], "test_mean_iou") is None


class TestScores:
    """Accuracies near their ends, where images that are all alike say that other ones would be so too."""

    @staticmethod
    def runs_with(tmp_path, wrong, seeds=(0,), number=NUM_IMAGES):
        losses = np.where(np.arange(number) < wrong, 2.0, 0.5)
        return with_draws([write_run(tmp_path, f"seed{seed}", losses, seed=seed) for seed in seeds], tmp_path)

    @pytest.mark.parametrize("seeds", [(0,), (0, 1, 2)])
    def test_of_a_run_that_is_always_right_three_more_may_be_wrong(self, tmp_path, seeds):
        runs = self.runs_with(tmp_path, 0, seeds)
        assert interval_of(runs, "test_accuracy") == pytest.approx((100 - 300 / NUM_IMAGES, 100))
        assert format_mean(runs, "test_accuracy", ".1f", "%") == "100.0 [99.4, 100.0]%"
        runs = self.runs_with(tmp_path / "never", NUM_IMAGES, seeds)
        assert format_mean(runs, "test_accuracy", ".1f", "%") == "0.0 [0.0, 0.6]%"

    @pytest.mark.parametrize("wrong", [1, 2, 5, 20, 250, 498])
    def test_the_ends_are_about_those_of_clopper_and_pearson(self, tmp_path, wrong):
        low, high = interval_of(self.runs_with(tmp_path, wrong), "test_accuracy")
        exact = stats.binomtest(NUM_IMAGES - wrong, NUM_IMAGES).proportion_ci(method="exact")
        assert (low, high) == pytest.approx((100 * exact.low, 100 * exact.high), abs=200 / NUM_IMAGES)

    def test_what_does_not_scatter_has_no_interval(self, tmp_path):
        runs = self.runs_with(tmp_path, 5, seeds=(0, 1))
        assert difference_of(runs[:1], [{**runs[1], "seed": 0}], "test_accuracy") == (0.0, {})
        assert intervals_of([98.5, 98.5]) == {}
        (run,) = self.runs_with(tmp_path / "one", 0, number=1)
        assert interval_of([run], "test_loss") is None and ratio_of([run], [run]).interval is None


class TestFiles:
    def test_of_several_seeds_both_are_told(self, tmp_path):
        runs = [write_run(tmp_path, f"seed{seed}", losses_of_images(1 + seed / 10), seed=seed) for seed in range(3)]
        low, high = interval_of(runs, "test_loss")
        runs = with_draws(runs, tmp_path)
        found = intervals_of([run["test_loss"] for run in runs], draws_of(runs, "test_loss"))
        seeds, images, both = ((found[one][1] - found[one][0]) / 2 for one in ("seeds", "images", "seeds and images"))
        assert seeds == pytest.approx((high - low) / 2) and max(seeds, images) < both < seeds + images
        assert interval_of(runs, "test_loss") == found["seeds and images"] and interval_of(runs, "test_accuracy")
        assert (tmp_path / "seed0" / IMAGES_FILE).stat().st_size < 5 * NUM_IMAGES

    def test_of_a_run_without_them_it_is_over_seeds(self, tmp_path):
        runs = [write_run(tmp_path, f"seed{seed}", losses_of_images(1 + seed / 10), seed=seed) for seed in range(3)]
        (tmp_path / "seed1" / IMAGES_FILE).unlink()
        with_some = with_draws(runs, tmp_path)
        assert ["draws" in run for run in with_some] == [True, False, True]
        assert interval_of(with_some, "test_loss") == interval_of(runs, "test_loss")
        others = [{**run, "test_loss": 1 / run["test_loss"]} for run in runs]
        assert ratio_of(with_some, others).intervals.keys() == {"seeds"}

    def test_those_of_another_result_and_of_other_images_are_not_taken(self, tmp_path):
        run = write_run(tmp_path, "one", losses_of_images(), seed=0)
        assert with_draws([{**run, "test_loss": 2 * run["test_loss"]}], tmp_path)[0].keys() == run.keys()
        fewer = write_run(tmp_path, "fewer", losses_of_images(number=400), seed=1)
        assert with_draws([run, fewer], tmp_path) == [run, fewer]
        assert "draws" in with_draws([run], tmp_path)[0]

    def test_images_that_could_not_be_read_do_not_count(self, tmp_path):
        losses = losses_of_images()
        run = write_run(tmp_path, "one", losses, seed=0)
        write_image_values(tmp_path / "one", {"loss": np.append(losses, np.nan).astype(np.float32)})
        (found,) = with_draws([run], tmp_path)
        assert found["draws"]["test_loss"].mean() == pytest.approx(losses.mean(), rel=0.05)

    def test_a_model_of_several_patch_sizes_has_them_for_each(self, tmp_path):
        run = write_run(tmp_path, "all", losses_of_images(), seed=0)
        own, coarse = losses_of_images(), losses_of_images(3.0)
        values = {"loss": own, "accuracy": own, "patch16_loss": coarse, "patch16_accuracy": coarse}
        write_image_values(tmp_path / "all", {name: one.astype(np.float32) for name, one in values.items()})
        run |= {"test_patch16_loss": coarse.mean(), "test_patch16_accuracy": coarse.mean()}
        coarser = {**run, "patch_size": 16, "test_loss": coarse.mean()}
        other = write_run(tmp_path, "other", losses_of_images(), seed=0)
        found = with_draws([run, coarser, other], tmp_path)
        assert ratio_of(found[1:2], found[:1]).interval == pytest.approx((3.0, 3.0), rel=1e-5)
        assert "test_loss" in found[2]["draws"] and with_draws([other, run], tmp_path)[0].keys() == found[2].keys()

    def test_a_damaged_file_gets_a_sentence(self, tmp_path):
        run = write_run(tmp_path, "one", losses_of_images(), seed=0)
        (tmp_path / "one" / IMAGES_FILE).write_bytes(b"PK\x03\x04 half")
        with pytest.raises(ValueError, match="holds no values of test images"):
            with_draws([run], tmp_path)
