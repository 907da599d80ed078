# Copyright 2026 The modeling_pixelvit team. All rights reserved.
# SPDX-License-Identifier: Apache-2.0
"""
Two forms of a scaling law, fitted and compared: a power law, L = a x^b, and one with an offset, L = c + a x^b, c >= 0.

`x` is whatever was scaled: patch size, tokens, operations. Fits are by maximum likelihood of the losses' logarithms,
log L = log f(x) + N(0, sigma^2), so that a tenth counts the same at every loss. With c = 0 both forms are one.

Runs of one x miss a curve together where the form is not quite right, and each by itself for its seed. The two are kept
apart: every interval tells what it is over (see [`Fit`]), and an F test tells whether the form misses at all.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from scipy import optimize, special, stats

from ..cards.index import row_title
from ..cards.results import paper_checkpoints
from .intervals import CONFIDENCE, IMAGES, LEVELS, RESAMPLES, SEEDS, SEEDS_AND_IMAGES, student
from .intervals import SOURCES as SOURCES_OF_MEANS


# Of each form, with sigma; a fit takes as many distinct x, one more than its curve has parameters.
NUM_PARAMETERS = {"power": 3, "offset": 4}
# Of a loss's logarithm: below it lies the rounding of the fit, and exact data have a likelihood.
LEAST_SIGMA = 1e-9
# By less than that the power term beside an offset changes between neighbouring x: a steeper one is but a step.
MOST_CHANGE = 1000.0
# An offset that is a smaller share of the lowest loss makes no difference.
NEGLIGIBLE = 0.1
RESIDUALS = "residuals"
SOURCES = {**SOURCES_OF_MEANS, RESIDUALS: "by the distances from the curve"}


def readable(number: float) -> str:
    return f"{number:,}" if number < 1e6 else f"{number:.2e}"


@dataclass(frozen=True)
class Fit:
    """
    L = offset + coefficient * x ** exponent.

    Args:
        form: "power" or "offset".
        coefficient, exponent, offset: a > 0, b, and c >= 0, a and c in units of the loss; c is 0 in the power form.
            Beside an offset b is at most the logarithm of `MOST_CHANGE` over the least step in log x, and an interval
            that ends there is open.
        sigma: Standard deviation of log L about the curve, by maximum likelihood (divided by the number of points).
        r_squared: Share of the variance of log L that the curve explains; 1 for losses that are all equal.
        log_likelihood: Natural, of the logarithms of the losses.
        aic: 2 k - 2 log likelihood, where k counts sigma too: 3 and 4.
        aicc: AIC with Hurvich and Tsai's (1989) term for few points, 2 k (k + 1) / (n - k - 1), the one to look at
            below some 40 points for each parameter. None for n <= k + 1, where it is not defined: five points and an
            offset.
        points: n, the runs in the fit.
        x: Distinct ones, ascending.
        lack_of_fit: P-value of the F test of the distances from the curve to the mean log loss of each x, against the
            scatter of the runs of one x. None without two runs of one x.
        intervals: Of `coefficient`, `exponent` and `offset` at `CONFIDENCE`, by what they are over:

            - "seeds": what other seeds would give at the same x, whether or not the form is right.
            - "images": what other test images, as many, would give with the same weights.
            - "seeds and images": both.
            - "residuals": what other distances of the means from the curve would give, as if these were chance, be they
              due to the seeds or to a form that is not quite right. Of the four the one that says how far a curve
              through other x might differ, and the only one there is for single runs.
    """

    form: str
    coefficient: float
    exponent: float
    offset: float
    sigma: float
    r_squared: float
    log_likelihood: float
    aic: float
    aicc: float | None
    points: int
    x: list[float]
    lack_of_fit: float | None
    intervals: dict[str, dict[str, tuple[float, float]]]

    def __call__(self, x: float) -> float:
        return self.offset + self.coefficient * x**self.exponent

    @property
    def misses(self) -> bool:
        """Whether the means are farther from the curve than the scatter of the runs explains."""
        return self.lack_of_fit is not None and self.lack_of_fit < 1 - CONFIDENCE

    @property
    def source(self) -> str:
        """What the interval is over that is to be told if only one is: seeds, if there are and the form is right."""
        sources = () if self.misses else (SEEDS_AND_IMAGES, SEEDS)
        return next((source for source in sources if source in self.intervals), RESIDUALS)

    @property
    def shows_sign(self) -> bool:
        """Whether the exponent's interval holds numbers of one sign: if not, the runs show no law."""
        low, high = self.intervals[self.source]["exponent"]
        return not low <= 0 <= high

    def format_interval(self, parameter: str, source: str | None = None) -> str:
        return " to ".join(f"{end:#.3g}" for end in self.intervals[source or self.source][parameter])


@dataclass(frozen=True)
class Comparison:
    """
    The form with an offset against the power law.

    Args:
        points: What counts as independent: all runs, or each x once where the form with an offset misses too (see
            [`Fit.misses`]), since the runs of an x then miss together.
        aic_difference: AIC with the offset less AIC without; negative if the offset is worth a parameter.
        aicc_difference: The same of AICc; None where one of them is not defined.
        likelihood_ratio: Twice the difference of the log likelihoods, at least 0.
        p_value: Of as high a ratio where there is no offset. As c is at its bound then, half of what the F test of the
            same sums of squares gives, as exact as the curve is linear in c; chi square would be too small for so few
            points. 1 where the best offset is zero.
        preferred: "offset" if the p-value is below 1 - `CONFIDENCE`; otherwise "power" if the interval of the offset
            ends below `NEGLIGIBLE` of the lowest loss on the curve; None if the data do not tell.
        sentence: That in words.
    """

    points: int
    aic_difference: float
    aicc_difference: float | None
    likelihood_ratio: float
    p_value: float
    preferred: str | None
    sentence: str


@dataclass(frozen=True)
class Fits:
    """
    Both forms through the points of one curve.

    Args:
        power, offset: None where there are too few x.
        comparison: None if one of them is.
        missing: Why, by form.
        quantity, axis: What L and x are called.
        left_out: Runs that had not learned.
        not_converged: Runs in the fits that had not converged.
    """

    power: Fit | None
    offset: Fit | None
    comparison: Comparison | None
    missing: dict[str, str] = field(default_factory=dict)
    quantity: str = "loss"
    axis: str = "x"
    left_out: int = 0
    not_converged: int = 0

    def __str__(self) -> str:
        fit, offset = self.power, self.offset
        if fit is None:
            return f"no power law fitted: {self.missing['power']}"
        intervals = ", ".join(
            f"{fit.format_interval('exponent', one)} {words}" for one, words in SOURCES.items() if one in fit.intervals
        )
        text = (
            f"{self.quantity} = {fit.coefficient:#.3g} * {self.axis}^{fit.exponent:#.3g} (exponent {intervals}), "
            f"R^2 = {fit.r_squared:.2f} ({self.axis} {', '.join(map(readable, fit.x))})"
        )
        if not fit.shows_sign:
            text += "; this shows no law: the exponent's sign is open"
        text += "\n    "
        if offset is None:
            return f"{text}no offset fitted: {self.missing['offset']}"
        curve = f"{offset.offset:#.3g} + {offset.coefficient:#.3g} * {self.axis}^{offset.exponent:#.3g}"
        return f"{text}with an offset: {curve}, R^2 = {offset.r_squared:.2f}; {self.comparison.sentence}"


def fit_forms(
    x: Sequence[float],
    losses: Sequence[float],
    *,
    seeds: Sequence[Any] | None = None,
    learned: Sequence[bool] | None = None,
    converged: Sequence[bool] | None = None,
    draws: np.ndarray | None = None,
    quantity: str = "loss",
    axis: str = "x",
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> Fits:
    """
    Fits both forms to runs, of which each has an entry in every sequence.

    Intervals are bootstrap percentiles. Three seeds have ten resamples that differ, and these scatter too little, so
    what is resampled is drawn as Student's t has it, with the degrees of freedom by which the scatter is known; for the
    power law, which is linear in logarithms, that is exact but for the number of resamples. In simulations of three
    seeds by five x it holds the exponent in 95% of the cases, and beside an offset in 94 to 97%; only the exponent of
    the form with an offset where there is none is held in but 85% (over seeds) and 92% (residuals).

    If every seed has every x once, whole seeds are drawn, as runs of one seed share their order of data: a resample
    adds to the means of each x the seeds' differences from them, all x of a seed at the same random weight. Otherwise
    each x is drawn by itself, with the pooled scatter of runs of one x. Test images are many: they are drawn with
    replacement, the same ones for all runs.

    Args:
        x: Positive.
        losses: Positive, in any unit; those of runs that have not learned are not looked at.
        seeds: Which runs belong together.
        learned: Runs that have not are left out; if not given, all have.
        converged: Runs that have not are in the fit, and counted; if not given, all have.
        draws: (resamples, runs), the losses with other test images, the same ones for the runs of a row, as
            `intervals.draw_images` gives them.
        quantity, axis: What loss and x are called in texts.
        resamples: For each source of an interval.
        seed: Of their random numbers.

    Raises:
        ValueError: for x or losses that are not positive and finite, sequences of several lengths, and draws of other
            losses.
    """
    given = {"losses": losses, "seeds": seeds, "learned": learned, "converged": converged}
    for name, values in {**given, "draws": None if draws is None else draws.T}.items():
        if values is not None and len(values) != len(x):
            raise ValueError(f"{name} has {len(values)} entries and x {len(x)}; each is to have one for every run.")
    used = np.ones(len(x), bool) if learned is None else np.asarray(learned, bool)
    x, losses = np.asarray(x)[used], np.asarray(losses, float)[used]
    for name, values in ((axis, x), (quantity, losses)):
        wrong = [float(value) for value in values if not 0 < value < math.inf]
        if wrong:
            raise ValueError(f"a {name} of {wrong[0]} was given; a power law takes what is finite and above zero.")
    texts = {"quantity": quantity, "axis": axis}
    marked = 0 if converged is None else int(np.sum(~np.asarray(converged, bool)[used]))
    counted = {"left_out": int(np.sum(~used)), "not_converged": marked}
    values = len(set(x.tolist()))
    missing = {
        form: f"it takes at least {least} values of {axis} with runs that learned, and there are {values}"
        for form, least in NUM_PARAMETERS.items()
        if values < least
    }
    if "power" in missing:
        return Fits(None, None, None, missing, **texts, **counted)

    points = _Points.of(x, np.log(losses))
    shifts = {}
    if points.freedom > 0:
        names = None if seeds is None else np.asarray(seeds)[used].tolist()
        shifts[SEEDS] = _draw_seeds(points, names, resamples, seed)
    if draws is not None:
        shifts[IMAGES] = _shifts_of_images(points, losses, draws[:, used])
    if len(shifts) == 2:
        shifts[SEEDS_AND_IMAGES] = shifts[SEEDS] + shifts[IMAGES]
    power = _fit("power", points, shifts, resamples, seed)
    if "offset" in missing:
        return Fits(power, None, None, missing, **texts, **counted)
    offset = _fit("offset", points, shifts, resamples, seed)
    return Fits(power, offset, _compare(points, power, offset, axis), **texts, **counted)


@dataclass(frozen=True)
class _Points:
    """The runs. Least squares looks at those of one x only by their mean and their number."""

    x: np.ndarray  # (m,), distinct, ascending
    steps: np.ndarray  # (m,), log x, less its mean over the runs
    counts: np.ndarray  # (m,), runs
    means: np.ndarray  # (m,), of log loss
    logs: np.ndarray  # (runs,), log loss
    place: np.ndarray  # (runs,), of each run's x in `x`

    @classmethod
    def of(cls, x: np.ndarray, logs: np.ndarray) -> "_Points":
        distinct, place, counts = np.unique(x, return_inverse=True, return_counts=True)
        steps = np.log(distinct.astype(float))  # operations, whole numbers, may be too many for NumPy's
        steps -= steps[place].mean()
        return cls(distinct, steps, counts, np.bincount(place, logs) / counts, logs, place)

    @property
    def differences(self) -> np.ndarray:
        """Of the runs from the mean of their x."""
        return self.logs - self.means[self.place]

    @property
    def within(self) -> float:
        """Their sum of squares."""
        return float(np.sum(self.differences**2))

    @property
    def freedom(self) -> int:
        """Its degrees of freedom."""
        return len(self.logs) - len(self.x)

    def distance(self, curve: np.ndarray) -> float:
        """From the means to a curve (m,) of logarithms, the sum of squares over the runs."""
        return float(self.counts @ (self.means - curve) ** 2)


def _draw_seeds(points: _Points, seeds: list[Any] | None, resamples: int, seed: int) -> np.ndarray:
    """What to add to the means, (resamples, m); how, says [`fit_forms`]."""
    num_values, names = len(points.x), list(dict.fromkeys(seeds or ()))
    whole = np.full((len(names), num_values), np.nan)
    if seeds is not None:
        whole[[names.index(name) for name in seeds], points.place] = points.differences
    if len(names) > 1 and whole.size == len(points.logs) and not np.isnan(whole).any():
        weights = student(len(names) - 1, (resamples, len(names)), seed)
        return weights @ whole / math.sqrt(len(names) * (len(names) - 1))
    scatter = np.sqrt(points.within / points.freedom / points.counts)
    return scatter * student(points.freedom, (resamples, num_values), seed)


def _shifts_of_images(points: _Points, losses: np.ndarray, draws: np.ndarray) -> np.ndarray:
    """The same for test images, of losses with other ones (resamples, runs)."""
    if np.any(losses < draws.min(0)) or np.any(losses > draws.max(0)):
        raise ValueError("draws were given that are not about the losses; are their runs in the same order?")
    return np.log(draws) @ np.eye(len(points.x))[points.place] / points.counts - points.means


def _curves(points: _Points, solved: np.ndarray) -> np.ndarray:
    """Logarithms of the losses at each x, (curves, m), of what `_solve` gives."""
    middle, exponent, floor = solved.T[..., None]
    return np.logaddexp(middle + exponent * points.steps, floor)


def _solve(form: str, points: _Points, means: np.ndarray) -> np.ndarray:
    """
    The most likely curve through each row of means, (curves, m).

    Returns:
        (curves, 3): the logarithm of the power term in the middle of log x, the exponent, and the logarithm of the
        offset, minus infinity for none.
    """
    weights, steps = points.counts, points.steps
    heights = means @ weights / weights.sum()
    slopes = means @ (weights * steps) / (weights @ steps**2)
    power = np.stack([heights, slopes, np.full(len(means), -np.inf)], -1)
    if form == "power":
        return power

    # There may be several optima, so that a grid finds where to start: exponents, and where on the axis of log x both
    # terms are equal.
    most, width = math.log(MOST_CHANGE) / float(np.diff(steps).min()), float(np.ptp(steps))
    places = np.linspace(steps[0] - width, steps[-1] + width, 49)
    exponents, places = (one.ravel() for one in np.meshgrid(np.linspace(-0.99 * most, 0.99 * most, 80), places))
    shapes = np.logaddexp(exponents[:, None] * steps, (exponents * places)[:, None])
    levels = shapes @ weights / weights.sum()
    shapes -= levels[:, None]
    nearest = np.argmin(shapes**2 @ weights - 2 * (means * weights) @ shapes.T, axis=1)
    middles = heights - levels[nearest]
    floors = middles + (exponents * places)[nearest]
    starts = np.stack([middles, np.arctanh(exponents[nearest] / most), floors], -1)

    def residuals(free, target):
        return roots * (np.logaddexp(free[0] + most * np.tanh(free[1]) * steps, free[2]) - target)

    def jacobian(free, target):
        bounded = np.tanh(free[1])
        share = special.expit(free[0] + most * bounded * steps - free[2])  # of the power term in the loss
        return np.stack([roots * share, roots * share * steps * most * (1 - bounded**2), roots * (1 - share)], -1)

    roots, solved = np.sqrt(weights), power.copy()
    spreads = (means - heights[:, None]) ** 2 @ weights
    distances = (means - _curves(points, power)) ** 2 @ weights
    for index, (start, target) in enumerate(zip(starts, means, strict=True)):
        found = optimize.least_squares(residuals, start, jacobian, method="lm", max_nfev=100, args=(target,))
        # Else the offset is at its bound, whose logarithm is never reached.
        if 2 * found.cost < distances[index] - 1e-9 * spreads[index]:
            solved[index] = found.x[0], most * math.tanh(found.x[1]), found.x[2]
    return solved


def _parameters(points: _Points, solved: np.ndarray) -> dict[str, np.ndarray]:
    """The parameters of the curves that `_solve` gives, by name."""
    middle, exponent, floor = solved.T
    centre = math.log(points.x[0]) - points.steps[0]
    coefficient = np.exp(np.clip(middle - exponent * centre, -700, 700))  # finite, however wild a resample is
    return {"coefficient": coefficient, "exponent": exponent, "offset": np.exp(floor)}


def _fit(form: str, points: _Points, shifts: dict[str, np.ndarray], resamples: int, seed: int) -> Fit:
    solved = _solve(form, points, points.means[None])
    (curve,) = _curves(points, solved)
    n, k, freedom = len(points.logs), NUM_PARAMETERS[form], len(points.x) - NUM_PARAMETERS[form] + 1
    distance, least = points.distance(curve), LEAST_SIGMA**2
    variance = max((points.within + distance) / n, least)
    spread = float(np.sum((points.logs - points.logs.mean()) ** 2))
    log_likelihood = -n / 2 * math.log(2 * math.pi * variance) - (points.within + distance) / (2 * variance)
    aic = 2 * k - 2 * log_likelihood
    lack_of_fit = None
    if points.freedom > 0:
        ratio = distance / freedom / max(points.within / points.freedom, least)
        lack_of_fit = float(stats.f.sf(ratio, freedom, points.freedom))

    moved = student(freedom, (resamples, len(points.x)), seed) * np.sqrt(distance / freedom / points.counts)
    intervals = {}
    for source, shift in {**shifts, RESIDUALS: curve - points.means + moved}.items():
        drawn = _parameters(points, _solve(form, points, points.means + shift))
        intervals[source] = {name: tuple(np.quantile(values, LEVELS).tolist()) for name, values in drawn.items()}
    return Fit(
        form=form,
        **{name: float(value) for name, (value,) in _parameters(points, solved).items()},
        sigma=math.sqrt(variance),
        r_squared=1 - (points.within + distance) / spread if spread > n * least else 1.0,
        log_likelihood=log_likelihood,
        aic=aic,
        aicc=_corrected(aic, n, k),
        points=n,
        x=points.x.tolist(),
        lack_of_fit=lack_of_fit,
        intervals=intervals,
    )


def _corrected(aic: float, n: int, k: int) -> float | None:
    """AICc, where it is defined."""
    return aic + 2 * k * (k + 1) / (n - k - 1) if n > k + 1 else None


def _compare(points: _Points, power: Fit, offset: Fit, axis: str) -> Comparison:
    n, shared = (len(points.x), 0.0) if offset.misses else (len(points.logs), points.within)
    simple, full = (
        max(shared + points.distance(np.log([fit(x) for x in fit.x])), n * LEAST_SIGMA**2) for fit in (power, offset)
    )
    ratio, freedom = n * math.log(simple / full), n - NUM_PARAMETERS["offset"] + 1
    p_value = float(stats.f.sf((simple - full) / (full / freedom), 1, freedom)) / 2 if offset.offset > 0 else 1.0
    few, many = NUM_PARAMETERS.values()
    corrected = _corrected(2 * few, n, few), _corrected(2 * many - ratio, n, many)
    around = f"{offset.format_interval('offset')} {SOURCES[offset.source]}"
    most = offset.intervals[offset.source]["offset"][1] / min(offset(x) for x in offset.x)
    aic_difference = 2 * (many - few) - ratio
    told = f"AIC {aic_difference:+.1f} with it, p = {p_value:.2g}"
    if p_value < 1 - CONFIDENCE:
        preferred, sentence = "offset", f"the data support the offset ({around}; {told})"
    elif most < NEGLIGIBLE:
        preferred, sentence = "power", f"the data support the power law, with an offset of {around} ({told})"
    else:
        preferred, sentence = None, f"the data do not tell whether there is one ({around}; {told})"
    if offset.misses:
        each = f"number of {axis}" if axis.endswith("s") else axis
        missed = f"even with it the curve misses the runs' means (p = {offset.lack_of_fit:.0e})"
        sentence += f"; {missed}: each {each} counts once"
    return Comparison(
        points=n,
        aic_difference=aic_difference,
        aicc_difference=None if None in corrected else corrected[1] - corrected[0],
        likelihood_ratio=ratio,
        p_value=p_value,
        preferred=preferred,
        sentence=sentence,
    )


def fit_paper_rows(resamples: int = RESAMPLES) -> dict[str, Fits]:
    """
    Both forms through the error, 100 - top-1 accuracy in percent, of each row of the paper's Tables 1 and 4 (arXiv
    2502.03738), by patch size; rows by the title that the model cards give them.

    These are errors and no losses. Each is of a single run, rounded to 0.1, so that intervals are over the distances
    from the curve alone: seeds, rounding and a form that is not quite right are in them as far as they move one patch
    size against another, and what all patch sizes of a row share, such as the choice of test images, is not.
    """
    rows: dict[str, dict[int, float]] = {}
    for entry in paper_checkpoints().values():
        for result in entry.get("results", ()):
            tables = result["source"].get("tables", ())
            if result["metric"] == "accuracy" and {1, 4} & set(tables) and "sequence_extended_to" not in result:
                rows.setdefault(row_title(entry), {})[entry["patch_size"]] = 100 - result["value"]
    texts = {"quantity": "top-1 error (%)", "axis": "patch"}
    return {
        title: fit_forms(list(errors), list(errors.values()), resamples=resamples, **texts)
        for title, errors in rows.items()
    }


def tabulate_fits(fits: dict[str, Fits]) -> list[tuple[str, ...]]:
    """Both forms for each row that has both, as cells of a table, its title first."""
    title = ("", "x", "exponent", "R²", "exponent with an offset", "offset", "R²", "AIC with it", "p", "supported")
    rows = [title]
    for name, fit in fits.items():
        if fit.comparison is None:
            continue
        cells = [name, ", ".join(map(readable, fit.power.x))]
        for form in (fit.power, fit.offset):
            cells.append(f"{form.exponent:#.3g} ({form.format_interval('exponent')})")
            if form is fit.offset:
                cells.append(f"{form.offset:#.3g} ({form.format_interval('offset')})")
            cells.append(f"{form.r_squared:.3f}")
        compared = fit.comparison
        cells += [f"{compared.aic_difference:+.1f}", f"{compared.p_value:.2g}", compared.preferred or "not told"]
        rows.append(tuple(cells))
    return rows
