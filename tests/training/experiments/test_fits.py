# Copyright 2026 The modeling_pixelvit team. All rights reserved.
# SPDX-License-Identifier: Apache-2.0
"""The two forms of the law: what is fitted, its intervals, the comparison, and the paper's rows."""

import dataclasses
import json
import math

import numpy as np
import pytest
from scipy import stats

from training.cards.results import load_results
from training.experiments.fits import LEAST_SIGMA, fit_forms, fit_paper_rows, tabulate_fits
from training.experiments.intervals import draw_images
from training.experiments.known import KEPT_RESULTS


PATCHES = (1, 2, 4, 8, 16)
FEW = {"resamples": 20}  # where intervals are not looked at


def draw_runs(law, num_seeds, sigma, generator, patches=PATCHES):
    """Columns of x, losses and seeds, with independent scatter of the logarithms."""
    x, seeds = np.tile(patches, num_seeds), np.repeat(np.arange(num_seeds), len(patches))
    return x, law(x) * np.exp(generator.normal(0, sigma, len(x))), seeds


def falling(x):
    return 0.05 * x**0.6


def levelling(x):
    return 0.1 + 0.05 * x**1.2


def squares(losses, curve):
    return np.sum((np.log(losses) - np.log(curve)) ** 2)


def half_width(interval):
    return (interval[1] - interval[0]) / 2


class TestPowerLaw:
    def test_it_is_least_squares_on_logarithms(self):
        x, losses, _ = draw_runs(falling, 1, 0.2, np.random.default_rng(0))
        fit = fit_forms(x, losses).power
        line = stats.linregress(np.log(x), np.log(losses))
        assert fit.exponent == pytest.approx(line.slope) and fit.coefficient == pytest.approx(math.exp(line.intercept))
        assert fit.r_squared == pytest.approx(line.rvalue**2) and fit.offset == 0 and fit.lack_of_fit is None
        residuals = np.log(losses) - line.intercept - line.slope * np.log(x)
        sigma = np.sqrt(np.mean(residuals**2))
        assert fit.sigma == pytest.approx(sigma) and fit.points == 5 and fit.x == list(PATCHES)
        assert fit.log_likelihood == pytest.approx(stats.norm.logpdf(residuals, scale=sigma).sum())
        assert fit.aic == pytest.approx(6 - 2 * fit.log_likelihood) and fit.aicc == pytest.approx(fit.aic + 24)
        assert set(fit.intervals) == {"residuals"} and fit.source == "residuals"
        low, high = fit.intervals["residuals"]["exponent"]
        assert (low + high) / 2 == pytest.approx(line.slope, abs=0.1 * line.stderr)
        assert (high - low) / 2 == pytest.approx(line.stderr * stats.t.ppf(0.975, 3), rel=0.1)

    def test_its_interval_over_whole_seeds_is_students_over_their_exponents(self):
        """Whatever runs of one seed have in common, here their exponent."""
        generator = np.random.default_rng(1)
        x, losses, seeds = draw_runs(falling, 4, 0.05, generator)
        losses *= x ** generator.normal(0, 0.2, 4)[seeds]
        fit = fit_forms(x, losses, seeds=[f"seed {seed}" for seed in seeds]).power
        slopes = [stats.linregress(np.log(x[seeds == s]), np.log(losses[seeds == s])).slope for s in range(4)]
        assert fit.exponent == pytest.approx(np.mean(slopes))
        half = stats.sem(slopes) * stats.t.ppf(0.975, 3)
        assert half_width(fit.intervals["seeds"]["exponent"]) == pytest.approx(half, rel=0.1)
        assert half > 2 * half_width(fit.intervals["residuals"]["exponent"])

    def test_where_a_seed_lacks_an_x_the_scatter_of_all_is_pooled(self):
        x, losses, seeds = draw_runs(falling, 3, 0.1, np.random.default_rng(2))
        learned = [not (seed == 1 and value == 1) for seed, value in zip(seeds, x, strict=True)]
        fits = fit_forms(x, losses, seeds=seeds, learned=learned)
        x, logs = x[learned], np.log(losses[learned])
        within = sum(np.sum((logs[x == value] - logs[x == value].mean()) ** 2) for value in PATCHES) / 9
        steps = np.log(x) - np.log(x).mean()
        half = math.sqrt(within / np.sum(steps**2)) * stats.t.ppf(0.975, 9)
        assert half_width(fits.power.intervals["seeds"]["exponent"]) == pytest.approx(half, rel=0.1)
        assert fits.power.points == 14 and fits.left_out == 1

    def test_lack_of_fit_is_the_f_test_of_the_means(self):
        x, losses, seeds = draw_runs(falling, 3, 0.1, np.random.default_rng(3))
        fit = fit_forms(x, losses, seeds=seeds, **FEW).power
        groups = [np.log(losses[x == value]) for value in PATCHES]
        within = sum(np.sum((group - group.mean()) ** 2) for group in groups)
        distance = 3 * squares([math.exp(group.mean()) for group in groups], fit(np.array(PATCHES)))
        assert fit.lack_of_fit == pytest.approx(stats.f.sf(distance / 3 / (within / 10), 3, 10))

    @pytest.mark.parametrize("axis", [(1, 4, 16, 64, 256), (1e9, 3e10, 2e12, 5e13)])
    def test_any_axis_and_either_direction(self, axis):
        x = np.array(axis)
        for exponent in (-0.3, 0.3):
            power = fit_forms(x, 2 * x**exponent, **FEW).power
            assert power.exponent == pytest.approx(exponent) and power.coefficient == pytest.approx(2)
            curve = 0.5 + 3 * (x / x[1]) ** exponent
            offset = fit_forms(x, curve, **FEW).offset
            assert offset.exponent == pytest.approx(exponent, rel=1e-3)
            assert offset.offset == pytest.approx(0.5, rel=1e-2) and offset(x) == pytest.approx(curve, rel=1e-6)


class TestOffset:
    @pytest.mark.parametrize("kind", ["noise", "power", "offset", "steepening"])
    def test_no_curve_of_a_grid_is_more_likely(self, kind):
        """Nor the power law, which is one of its curves."""
        generator = np.random.default_rng(4)
        x = np.array(PATCHES)
        logs = {"noise": 0 * x, "power": 0.5 * np.log(x), "offset": np.log(1 + x**1.2 / 4), "steepening": -1 / x}[kind]
        exponents, crossings = np.linspace(-9.9, 9.9, 199), np.geomspace(1 / 16, 256, 97)
        shapes = np.log(crossings[:, None] ** exponents + x[:, None, None] ** exponents).reshape(5, -1)
        for _ in range(10):
            losses = np.exp(logs + generator.normal(0, 0.15, 5))
            fits = fit_forms(x, losses, **FEW)
            differences = np.log(losses)[:, None] - shapes
            best = np.min(np.sum((differences - differences.mean(0)) ** 2, 0))
            found = squares(losses, fits.offset(x))
            assert found <= best * (1 + 1e-3) and 5 * fits.offset.sigma**2 == pytest.approx(found)
            assert fits.offset.log_likelihood >= fits.power.log_likelihood
            assert fits.comparison.likelihood_ratio >= 0 and fits.offset.offset >= 0

    def test_at_its_bound_it_is_the_power_law(self):
        losses = [0.1, 0.3, 0.7, 1.1, 1.3]  # steeper towards small patches, which no offset is
        fits = fit_forms(PATCHES, losses, **FEW)
        power, offset = fits.power, fits.offset
        assert offset.offset == 0 and offset.exponent == power.exponent and offset.coefficient == power.coefficient
        assert offset.log_likelihood == power.log_likelihood and offset.aic == pytest.approx(power.aic + 2)
        assert fits.comparison.p_value == 1 and fits.comparison.aic_difference == 2

    def test_five_points_have_no_aicc(self):
        x, losses, seeds = draw_runs(levelling, 3, 0.1, np.random.default_rng(5))
        single = fit_forms(x[:5], losses[:5], **FEW)
        assert single.offset.aicc is None and single.comparison.aicc_difference is None
        several = fit_forms(x, losses, seeds=seeds, **FEW)
        assert several.offset.aicc == pytest.approx(several.offset.aic + 40 / 10)
        assert several.comparison.aicc_difference == pytest.approx(several.offset.aicc - several.power.aicc)

    def test_interval_ends_keep_their_order_and_hold_the_curve(self):
        x, losses, seeds = draw_runs(levelling, 5, 0.05, np.random.default_rng(6))
        fit = fit_forms(x, losses, seeds=seeds, resamples=200).offset
        for interval in fit.intervals.values():
            for name, (low, high) in interval.items():
                assert low <= getattr(fit, name) <= high
        assert fit.intervals["seeds"]["offset"][0] > 0.08 and fit.intervals["seeds"]["exponent"][1] < 1.6


class TestEdges:
    def test_more_operations_than_numpys_whole_numbers(self):
        """As the paper's trainings take: 2^63 is 9.2e18."""
        x = [10**18, 2 * 10**19, 5 * 10**20, 10**22]
        fit = fit_forms(x, [1e9 * one**-0.5 for one in x], **FEW)
        assert fit.power.exponent == pytest.approx(-0.5) and fit.power.x == x

    def test_exact_data_have_a_likelihood(self):
        x = np.array(PATCHES)
        for law, preferred in ((falling, "power"), (levelling, "offset")):
            fits = fit_forms(np.tile(x, 2), np.tile(law(x), 2), seeds=np.repeat([0, 1], 5), resamples=100)
            right = getattr(fits, preferred)
            assert right(x) == pytest.approx(law(x)) and right.sigma == pytest.approx(LEAST_SIGMA, rel=10)
            assert fits.comparison.preferred == preferred and not right.misses
            json.dumps(dataclasses.asdict(fits), allow_nan=False)

    def test_equal_losses(self):
        fits = fit_forms(PATCHES, [0.7] * 5)
        assert fits.power.exponent == pytest.approx(0) and fits.power.coefficient == pytest.approx(0.7)
        assert fits.power.r_squared == 1 and fits.offset.offset == 0
        json.dumps(dataclasses.asdict(fits), allow_nan=False)

    @pytest.mark.parametrize(
        ("x", "values"), [([], 0), ([4], 1), ([4, 4, 4], 1), ([8, 4], 2), ([8, 4, 8, 4, 8], 2)], ids=str
    )
    def test_too_few_x_make_no_law(self, x, values):
        fits = fit_forms(x, [0.1 * value for value in x], axis="patch")
        assert fits.power is None and fits.offset is None and fits.comparison is None
        assert str(fits) == (
            f"no power law fitted: it takes at least 3 values of patch with runs that learned, and there are {values}"
        )

    def test_three_x_make_no_offset(self):
        fits = fit_forms([8, 4, 2, 2], [0.8, 0.4, 0.2, 0.2], **FEW)
        assert fits.power.exponent == pytest.approx(1) and fits.offset is None and fits.comparison is None
        assert str(fits).endswith(
            "no offset fitted: it takes at least 4 values of x with runs that learned, and there are 3"
        )

    def test_runs_that_have_not_learned_are_left_out_and_others_counted(self):
        losses, learned = [1.6, 0.8, 0.4, 0.2, math.nan], [True] * 4 + [False]
        fits = fit_forms([16, 8, 4, 2, 1], losses, learned=learned, converged=[True, True, False, False, False], **FEW)
        assert fits.power.exponent == pytest.approx(1) and fits.power.x == [2, 4, 8, 16]
        assert (fits.left_out, fits.not_converged) == (1, 2)

    @pytest.mark.parametrize(
        ("x", "losses", "more", "message"),
        [
            (
                [1, 2, 4],
                [0.1, 0.0, 0.2],
                {},
                "a loss of 0.0 was given; a power law takes what is finite and above zero",
            ),
            ([1, 2, 4], [0.1, -0.3, 0.2], {}, "a loss of -0.3"),
            ([1, 2, 4], [0.1, math.nan, 0.2], {}, "a loss of nan"),
            ([0, 2, 4], [0.1, 0.2, 0.3], {}, "a x of 0.0"),
            ([1, 2, 4], [0.1, 0.2], {}, "losses has 2 entries and x 3"),
            ([1, 2, 4], [0.1, 0.2, 0.3], {"seeds": [0]}, "seeds has 1 entries and x 3"),
            ([1, 2, 4], [0.1, 0.2, 0.3], {"draws": np.full((9, 3), 0.2)}, "that are not about the losses"),
        ],
    )
    def test_wrong_input_gets_a_sentence(self, x, losses, more, message):
        with pytest.raises(ValueError, match=message):
            fit_forms(x, losses, **more)

    def test_a_seed_gives_the_same_intervals(self):
        x, losses, seeds = draw_runs(levelling, 3, 0.1, np.random.default_rng(7))
        first, again, other = (fit_forms(x, losses, seeds=seeds, resamples=50, seed=seed) for seed in (0, 0, 1))
        assert first == again and first.offset.intervals != other.offset.intervals


class TestImages:
    @pytest.fixture(scope="class")
    def image_losses(self):
        """(5, 4000); an image that is hard is so for every patch."""
        generator = np.random.default_rng(8)
        hard = generator.gamma(0.5, 2, 4000)
        own = generator.gamma(0.5, 2, (5, 4000))
        return falling(np.array(PATCHES))[:, None] * (hard + own) / 2

    def test_the_interval_is_that_of_the_influence_of_single_images(self, image_losses):
        losses = image_losses.mean(1)
        fit = fit_forms(PATCHES, losses, draws=draw_images(image_losses)).power
        steps = np.log(PATCHES) - np.log(PATCHES).mean()
        influence = steps / np.sum(steps**2) @ (image_losses / losses[:, None])
        expected = 1.96 * influence.std() / math.sqrt(4000)
        assert half_width(fit.intervals["images"]["exponent"]) == pytest.approx(expected, rel=0.1)

    def test_runs_share_the_images(self, image_losses):
        """What is as hard for all moves the curve up and down, and not its exponent."""
        alike = falling(np.array(PATCHES))[:, None] * image_losses[:1]
        draws = draw_images(alike, resamples=100)
        intervals = fit_forms(PATCHES, alike.mean(1), draws=draws, resamples=100).power.intervals["images"]
        assert half_width(intervals["exponent"]) < 1e-9 and half_width(intervals["coefficient"]) > 1e-5

    def test_seeds_and_images_add_up(self, image_losses):
        generator = np.random.default_rng(9)
        factors = np.exp(generator.normal(0, 0.01, (3, 5))).reshape(15, 1)
        x, all_losses = np.tile(PATCHES, 3), np.tile(image_losses, (3, 1)) * factors
        fit = fit_forms(x, all_losses.mean(1), seeds=np.repeat(range(3), 5), draws=draw_images(all_losses)).power
        widths = {source: half_width(interval["exponent"]) for source, interval in fit.intervals.items()}
        seeds, images, both = (widths[source] for source in ("seeds", "images", "seeds and images"))
        assert max(seeds, images) < both < seeds + images


class TestComparison:
    def test_an_offset_that_is_there_is_found(self):
        x, losses, seeds = draw_runs(levelling, 3, 0.05, np.random.default_rng(10))
        fits = fit_forms(x, losses, seeds=seeds, quantity="test loss", axis="patch", resamples=100)
        compared = fits.comparison
        assert compared.preferred == "offset" and compared.p_value < 1e-4 and compared.aic_difference < -10
        assert compared.likelihood_ratio == pytest.approx(2 * (fits.offset.log_likelihood - fits.power.log_likelihood))
        ratio = (fits.power.sigma / fits.offset.sigma) ** 2
        assert compared.p_value == pytest.approx(stats.f.sf((ratio - 1) * 12, 1, 12) / 2)
        assert compared.points == 15 and "the data support the offset" in str(fits) and "over seeds" in str(fits)

    def test_scatter_leaves_it_open(self):
        x, losses, seeds = draw_runs(falling, 3, 0.3, np.random.default_rng(11))
        compared = fit_forms(x, losses, seeds=seeds, resamples=100).comparison
        assert compared.preferred is None and compared.sentence.startswith("the data do not tell")

    def test_little_scatter_rules_one_out(self):
        x, losses, seeds = draw_runs(falling, 5, 0.01, np.random.default_rng(12))
        compared = fit_forms(x, losses, seeds=seeds, resamples=100).comparison
        assert compared.preferred == "power" and "support the power law" in compared.sentence

    def test_runs_that_miss_together_count_once(self):
        """Or five seeds of a curve that is of neither form would make a pattern of chance a finding."""
        generator = np.random.default_rng(13)
        x, losses, seeds = draw_runs(lambda x: falling(x) * 2 ** np.sin(3 * np.log(x)), 5, 0.02, generator)
        fits = fit_forms(x, losses, seeds=seeds, axis="patch", resamples=100)
        assert fits.power.misses and fits.offset.misses and fits.offset.source == "residuals"
        assert fits.comparison.points == 5 and fits.comparison.sentence.endswith("each patch counts once")
        widths = {source: half_width(interval["exponent"]) for source, interval in fits.power.intervals.items()}
        assert widths["residuals"] > 5 * widths["seeds"]


class TestKeptResults:
    @pytest.mark.parametrize("path", sorted(KEPT_RESULTS.glob("*.json")), ids=lambda path: path.stem)
    def test_they_have_the_power_laws_that_were_written(self, path):
        content = json.loads(path.read_text())
        runs = {run["key"]: run for run in content["runs"]}
        rows = [{**runs[point["run"]], **point} for point in content["points"]]
        for series, written in content["fits"].items():
            points = [row for row in rows if row["series"] == series]
            columns = ([point[name] for point in points] for name in (content["experiment"]["x"], "test_loss"))
            seeds, learned = ([point[name] for point in points] for name in ("seed", "learned"))
            fit = fit_forms(*columns, seeds=seeds, learned=learned, **FEW).power
            assert (fit is None) == (written["power"] is None)
            for name in ("coefficient", "exponent", "r_squared") if fit else ():
                assert getattr(fit, name) == pytest.approx(written["power"][name])

    @pytest.fixture(scope="class")
    def rows(self):
        return fit_paper_rows(resamples=20)

    def test_rows_of_the_paper(self, rows):
        """Tables 1 and 4 have twelve rows, of which two are in both."""
        assert len(rows) == 10 and all(fits.comparison is not None for fits in rows.values())
        assert [len(fits.power.x) for fits in rows.values()].count(5) == 9
        assert rows["DeiT-Base, 128 pixels"].power.x == [2, 4, 8, 16]
        checkpoints = load_results()["checkpoints"]
        errors = [100 - checkpoints[f"adventurer-tiny-patch{p}-128"]["results"][0]["value"] for p in PATCHES]
        fits = rows["Adventurer-Tiny, 128 pixels"]
        assert fits.quantity == "top-1 error (%)"
        assert fits.power.exponent == pytest.approx(stats.linregress(np.log(PATCHES), np.log(errors)).slope)
        assert 0 < fits.offset.offset < min(errors)
        assert fits.offset(np.array(PATCHES)) == pytest.approx(np.array(errors), rel=0.02)

    def test_their_table(self, rows):
        table = tabulate_fits({**rows, "too few": fit_forms([1, 2], [0.1, 0.2])})
        assert len(table) == 11 and len({len(line) for line in table}) == 1
        assert table[1][:2] == ("DeiT-Base, 64 pixels", "1, 2, 4, 8, 16") and table[1][2].startswith("0.180 (")


@pytest.mark.slow
@pytest.mark.parametrize(("law", "form", "exponent"), [(falling, "power", 0.6), (levelling, "offset", 1.2)])
def test_intervals_hold_a_known_exponent(law, form, exponent):
    """Three seeds of five patches, in about 95% of 200 simulations."""
    generator, held = np.random.default_rng(14), {"seeds": 0, "residuals": 0}
    for _ in range(200):
        x, losses, seeds = draw_runs(law, 3, 0.05, generator)
        fit = getattr(fit_forms(x, losses, seeds=seeds, resamples=200), form)
        for source in held:
            low, high = fit.intervals[source]["exponent"]
            held[source] += low < exponent < high
    assert all(0.9 <= number / 200 <= 0.99 for number in held.values()), held
