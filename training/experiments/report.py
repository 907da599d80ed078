# Copyright 2026 The modeling_pixelvit team. All rights reserved.
# SPDX-License-Identifier: Apache-2.0
"""What an experiment leaves behind beside its checkpoints: table, picture and `results.json`."""

import dataclasses
import datetime
import itertools
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ..common.machine import describe_machine, describe_versions
from ..families.registry import FAMILIES
from ..tasks.registry import TASKS
from .fits import NEGLIGIBLE, Fits, fit_forms, readable
from .intervals import CONFIDENCE, DRAWS, IMAGES, SEEDS, SEEDS_AND_IMAGES, SOURCES, draws_of, interval_of
from .law import (
    CONVERGENCE_RULE,
    GAIN_NOTE,
    LITTLE_OF_CHANCE,
    Fall,
    axis_of,
    by_axis,
    count_falling_runs,
    expected_gain,
    find_falls,
    has_loss,
    starts_at_the_end,
)


# Axes of pictures, each with its title, and how a place on it is called; larger is more computation, but for patches.
AXES = {
    "patch_size": "patch size (pixels)",
    "tokens": "tokens per image",
    "training_flops": "operations of the training (FLOP)",
    "images_seen": "images seen in training",
    "parameters": "parameters",
}
AXIS_WORDS = {
    "patch_size": "patch",
    "tokens": "tokens",
    "training_flops": "FLOPs",
    "images_seen": "images",
    "parameters": "parameters",
}
AXIS_UNITS = {
    "patch_size": "patch {}",
    "tokens": "{} tokens",
    "training_flops": "{} FLOP",
    "images_seen": "{} images",
    "parameters": "{} parameters",
}
MOST_INSIDE, LEGEND_LINE = 3, 0.2  # entries of a legend among the points, and inches of one below them
MOST_PLACES = 8  # on the axis, as columns
LEAST_PLAIN = 0.01  # of losses that are written without a power of ten
TABLE_FILE = "table.md"
PICTURE_FILE = "scaling.png"
RESULTS_FILE = "results.json"
COLUMN_NOTES = (
    "test loss: {loss}; train loss: its mean over the last tenth of the training; "
    "tokens: patches of an image, without the class token; seconds: training, by the clock, beside the other workers; "
    "memory: most that the run's process had resident, libraries included."
)
FITS_NOTE = (
    f"Laws: by maximum likelihood of log test loss, with intervals at {CONFIDENCE:.0%}. Over seeds, or test images: "
    "what other ones, as many, would give at these patch sizes. By the distances from the curve: what these would give "
    "if they were chance, which says more of other patch sizes. The data support an offset if p is below "
    f"{1 - CONFIDENCE:.2f}, and the power law if the offset's interval ends below {NEGLIGIBLE:.0%} of the lowest loss."
)


# Of further curves of a family than the two that it has colours for; families share them, so that no two look alike.
COLOURS = ("#4d7c0f", "#7e22ce", "#0f766e", "#be123c", "#a16207", "#475569")
MARKERS = ("D", "^", "P", "*", "X", "h")


def by_series(runs: list[dict[str, Any]]) -> dict[str, list[dict[str, Any]]]:
    """The metrics of the runs by their curve's name, towards more computation."""
    series = {run["series"]: [] for run in runs}
    for run in runs:
        series[run["series"]].append(run)
    return {name: [run for same in by_axis(members).values() for run in same] for name, members in series.items()}


def styles_of(runs: list[dict[str, Any]]) -> dict[str, tuple[str, str]]:
    """Colour and marker of each curve: its family's, for a family's second curve its second ones."""
    styles: dict[str, tuple[str, str]] = {}
    of_family: dict[str, int] = {}
    further = itertools.cycle(zip(COLOURS, MARKERS, strict=True))
    for series, members in by_series(runs).items():
        family = FAMILIES[members[0]["family"]]
        place = of_family.get(family.name, 0)
        of_family[family.name] = place + 1
        own = list(zip(family.colours, family.markers, strict=True))
        styles[series] = own[place] if place < len(own) else next(further)
    return styles


def fit_series(runs: list[dict[str, Any]]) -> dict[str, Fits]:
    """Both forms of the law through the runs of each series that have learned."""

    def fit(members):
        axis, places = axis_of(members[0]), list(by_axis(members))
        if starts_at_the_end(members):
            place = AXIS_UNITS[axis].format(readable(places[0]))
            left = f"already at {place} the test loss is below {LITTLE_OF_CHANCE:.0%} of guessing's, so little can fall"
            return Fits(None, None, None, {"power": left, "offset": left})
        members = list(filter(has_loss, members))
        columns = {name: [run[name] for run in members] for name in ("learned", "converged")}
        places, losses = ([run[name] for run in members] for name in (axis, "test_loss"))
        seeds = [run.get("seed") for run in members]
        texts = {"quantity": "test loss", "axis": AXIS_WORDS[axis]}
        return fit_forms(places, losses, seeds=seeds, draws=draws_of(members, "test_loss"), **texts, **columns)

    return {series: fit(members) for series, members in by_series(runs).items()}


def columns_of(run: dict[str, Any]) -> dict[str, str]:
    """The titles of the scores that the run's task has a column for, by their names."""
    return {name: score.title for name, score in TASKS[run["task"]].scores.items() if score.title is not None}


def score_of(run: dict[str, Any], name: str) -> float | None:
    """A score of the run in percent; None where the data do not define it, as AP of masks without masks."""
    return run.get(f"test_{name}")


def format_result(run: dict[str, Any]) -> str:
    """Test loss and first score of a finished run."""
    return f"test loss {run['test_loss']:.3f}, {format_first_score(run)}"


def format_first_score(run: dict[str, Any]) -> str:
    """The score that says most, with its title."""
    name, title = next(iter(columns_of(run).items()))
    return f"{title} {format_mean([run], f'test_{name}', '.1f', '%')}"


def format_table(runs: list[dict[str, Any]]) -> str:
    """The runs as a Markdown table that is also aligned in a terminal; of several seeds their means and intervals."""
    scores = columns_of(runs[0]).values()
    seeds = max(len(same) for members in by_series(runs).values() for same in by_axis(members).values())
    with_flops = axis_of(runs[0]) != "patch_size"
    title = ("model", "patch", "tokens", *(["FLOPs"] if with_flops else []), *(["seeds"] if seeds > 1 else []))
    rows = [(*title, "test loss", *scores, "train loss", "x2 gains", "converged", "seconds", "memory")]
    for members in by_series(runs).values():
        rows += [_table_row(same, seeds > 1, with_flops) for same in by_axis(members).values()]
    return format_rows(rows)


def format_rows(rows: list[tuple[str, ...]]) -> str:
    """A Markdown table of a title and rows, the first column on the left."""
    rows = [tuple(cell.replace("|", "\\|") for cell in row) for row in rows]
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    lines = ["| " + " | ".join(_align(row, widths)) + " |" for row in rows]
    rule = ["-" * widths[0]] + ["-" * (width - 1) + ":" for width in widths[1:]]
    return "\n".join([lines[0], "| " + " | ".join(rule) + " |", *lines[1:]])


def _table_row(same: list[dict[str, Any]], several: bool, with_flops: bool) -> tuple[str, ...]:
    """Of the runs that differ by their seed alone."""
    run, converged = same[0], sum(run["converged"] for run in same)
    return (
        run["series"],
        str(run["patch_size"]),
        str(run["tokens"]),
        *([f"{run['training_flops']:.2e}"] if with_flops else []),
        *([str(len(same))] if several else []),
        format_mean(same, "test_loss", ".3f"),
        *(format_mean(same, f"test_{name}", ".1f", "%") for name in columns_of(run)),
        format_plain_mean([run["train_loss"] for run in same], ".3f"),
        format_plain_mean([expected_gain(run) for run in same], ".0%"),
        f"{converged} of {len(same)}" if several else "yes" if converged else "no",
        format_plain_mean([run["seconds"] for run in same], ".0f"),
        f"{max(run['peak_memory_mib'] for run in same):.0f} MiB",
    )


def format_mean(runs: Sequence[dict[str, Any]], name: str, style: str, unit: str = "") -> str:
    """
    The mean of a metric of runs that differ by their seed, with half the width of its interval if there is one, or with
    its ends, where that would go below 0 or above 100%.
    """
    values = [run.get(name) for run in runs]
    if None in values:
        return "-"
    interval, style = interval_of(runs, name), _style_of(values, style)
    text = format_plain_mean(values, style)
    if interval is None:
        return text + unit
    half = (interval[1] - interval[0]) / 2
    if unit and not half <= sum(values) / len(values) <= 100 - half:
        low, high = (min(max(end, 0.0), 100.0) for end in interval)
        return f"{text} [{low:{style}}, {high:{style}}]{unit}"
    return f"{text} ± {half:{style}}{unit}"


def format_plain_mean(values: Sequence[float | None], style: str) -> str:
    """The mean; a dash where a value is missing."""
    return "-" if None in values else f"{sum(values) / len(values):{_style_of(values, style)}}"


def _style_of(values: Sequence[float], style: str) -> str:
    """Numbers of three digits, if they are positive and small, by a power of ten."""
    return ".1e" if style == ".3f" and 0 < max(values) < LEAST_PLAIN else style


def _align(row: tuple[str, ...], widths: list[int]) -> list[str]:
    return [row[0].ljust(widths[0])] + [cell.rjust(width) for cell, width in zip(row[1:], widths[1:], strict=True)]


def format_preview(runs: list[dict[str, Any]], places: Iterable[float] = ()) -> str:
    """
    Test losses over the axis of what has ended so far, a line for each series: means, where there are seeds. Where the
    series have many places, hardly any in common, as of operations, each tells its own.

    Args:
        places: On the axis, of further runs.
    """
    axis = axis_of(runs[0])
    all_places = sorted({*places, *(run[axis] for run in runs)}, reverse=axis == "patch_size")
    found = {
        series: {
            place: format_plain_mean([run["test_loss"] for run in same], ".3f")
            for place, same in by_axis(members).items()
        }
        for series, members in by_series(runs).items()
    }
    if axis != "patch_size" and len(all_places) > MOST_PLACES:
        lines = ["test loss so far"]
        for series, losses in found.items():
            at = (f"{loss} at {readable(place)}" for place, loss in sorted(losses.items()))
            lines.append(f"{series}: {', '.join(at)} {AXIS_UNITS[axis].format('').strip()}")
        return "\n".join(lines)
    rows = [("test loss so far", *(AXIS_UNITS[axis].format(readable(place)) for place in all_places))]
    rows += [(series, *(losses.get(place, "...") for place in all_places)) for series, losses in found.items()]
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    return "\n".join("  ".join(_align(row, widths)) for row in rows)


def format_falls(runs: list[dict[str, Any]]) -> str:
    """A line for each series: whether its test loss falls towards more computation, in the mean and in single runs."""
    lines = []
    for series, members in by_series(runs).items():
        falls, unit = find_falls(members), AXIS_UNITS[axis_of(members[0])]
        if not falls:
            continue
        first, last = falls[0].places[0], falls[-1].places[1]
        steps = ", ".join(_format_step(fall) for fall in falls if fall.ratio >= 1)
        verdict = f"falls at every step from {unit.format(readable(first))} to {readable(last)}"
        unsure = ", ".join(_format_step(fall) for fall in falls if fall.interval and fall.interval[1] >= 1)
        if steps:
            verdict = f"does not fall from {unit.format(steps)}"
        elif unsure:
            verdict += f", but from {unsure} by no more than may be chance"
        falling, whole = count_falling_runs(members)
        single = f"; at every step in {falling} of {whole} single runs" if whole > 1 else ""
        ratios = ", ".join(f"{_format_step(fall)}: {format_ratio(fall.ratio, fall.interval)}" for fall in falls)
        guessing = "" if any(run["learned"] for run in members) else "; but no run counts as having learned"
        if guessing and all(run.get("chance_loss") == 0 for run in members):
            guessing += ", as test images of one class are guessed without a loss"
        lines.append(f"{series}: test loss {verdict}{single} ({ratios}){guessing}")
    return "\n".join(lines)


def _format_step(fall: Fall) -> str:
    return " to ".join(map(readable, fall.places))


def format_ratio(ratio: float, interval: tuple[float, float] | None) -> str:
    return f"x {ratio:.2f}" + ("" if interval is None else f" [{interval[0]:.2f}, {interval[1]:.2f}]")


def compared_title(one: dict[str, Any]) -> str:
    """The curve that was compared with its group's reference."""
    return ", ".join(part for part in (one["group"], one["variant"]) if part)


def tabulate_comparisons(compared: Sequence[dict[str, Any]], reference: str | None, axis: str) -> list[tuple[str, ...]]:
    """What `experiment.compare` finds, as cells of a table, its title first; none if it has found nothing."""
    if not compared:
        return []
    over = f"test loss over that of: {reference or 'the reference'}"
    rows = [("model", AXIS_WORDS[axis], "seeds", over, f"{compared[0]['score']} higher by")]
    for one in compared:
        gain, interval = one["score_gain"], one.get("score_interval")
        around = "" if interval is None else f" [{interval[0]:+.1f}, {interval[1]:+.1f}]"
        cells = readable(one["place"]), str(one["seeds"]), format_ratio(one["ratio"], one["interval"])
        rows.append((compared_title(one), *cells, "-" if gain is None else f"{gain:+.1f}{around}"))
    return rows


def format_report(runs: list[dict[str, Any]], fits: dict[str, Fits], further: str = "") -> str:
    """Table, falls, fits and what else there is to say, and what the columns mean."""
    laws = "\n".join(f"{series}: {fit}" for series, fit in fits.items())
    parts = [format_table(runs), format_falls(runs), laws, further]
    notes = COLUMN_NOTES.format(loss=TASKS[runs[0]["task"]].loss_name)
    parts += [CONVERGENCE_RULE, f"{_interval_note(runs)}{notes}\n{GAIN_NOTE}\n{FITS_NOTE}"]
    return "\n\n".join(part for part in parts if part) + "\n"


def _interval_note(runs: list[dict[str, Any]]) -> str:
    """What the intervals of the table and of ratios are over."""
    with_images = [DRAWS in run for run in runs]
    if len({run.get("seed") for run in runs}) == 1:
        found = SOURCES[IMAGES] if any(with_images) else ""
    elif any(with_images):
        found = f"{SOURCES[SEEDS_AND_IMAGES]}, of scores that are no means over images over seeds"
    else:
        found = f"{SOURCES[SEEDS]}, by Student's t"
    if any(with_images) and not all(with_images):
        found += ", and so where losses of single test images are not kept"
    return f"After ±, and in brackets, intervals at {CONFIDENCE:.0%} {found}. " if found else ""


def draw(
    runs: list[dict[str, Any]],
    fits: dict[str, Fits],
    title: str,
    path: Path,
    front: Sequence[dict[str, Any]] = (),
):
    """
    Test loss against patch size or another axis, both logarithmic, with the fitted laws, and the task's scores beside
    it: PNG. Runs that had not converged are hollow; the points of a front are joined.
    """
    import matplotlib

    matplotlib.use("Agg")  # a picture for a file needs no display
    from matplotlib import pyplot as plt

    names = TASKS[runs[0]["task"]].drawn_scores
    names = [name for name in names if all(score_of(run, name) is not None for run in runs)]
    panels = 1 + len(names)
    figure, axes = plt.subplots(1, panels, figsize=(6.4 if panels == 1 else 4.4 * panels, 4.4), layout="constrained")
    loss_axes, *score_axes = [axes] if panels == 1 else axes
    styles = styles_of(runs)
    for series, members in by_series(runs).items():
        _draw_losses(loss_axes, series, members, fits[series], styles[series])
    if front:
        places, losses = zip(*((row[axis_of(row)], row["test_loss"]) for row in front), strict=True)
        loss_axes.plot(places, losses, color="0.6", linewidth=4, alpha=0.5, zorder=0, label="best at its computation")
    if any(not run["converged"] for run in runs):
        loss_axes.plot([], [], "o", color="0.4", markerfacecolor="white", label="not converged")
    _scale_losses(loss_axes, [run["test_loss"] for run in runs])
    _label_axes(loss_axes, runs, "test loss")
    for panel, name in zip(score_axes, names, strict=True):
        for series, members in by_series(runs).items():
            color, marker = styles[series]
            _draw_points(panel, members, f"test_{name}", color, marker)
            panel.plot([], [], marker, color=color, label=series)
        _label_axes(panel, runs, f"{columns_of(runs[0])[name]} (%)")
    figure.suptitle(title, fontsize=10)
    entries = loss_axes.get_legend_handles_labels()
    if len(entries[0]) > MOST_INSIDE:  # which would cover the points
        figure.set_figheight(figure.get_figheight() + LEGEND_LINE * len(entries[0]))
        figure.legend(*entries, loc="outside lower center", frameon=False, fontsize=9)
    else:
        for panel in (loss_axes, *score_axes):
            panel.legend(frameon=False, fontsize=9 if panels == 1 else 8)
    figure.savefig(path, dpi=160)
    plt.close(figure)


def _draw_points(axes, members: list[dict[str, Any]], name: str, color: str, marker: str):
    """The means of a metric over the seeds with their intervals, joined, and the single runs behind, if several."""
    means = {}
    for place, same in by_axis(members).items():
        values = [run[name] for run in same]
        means[place] = sum(values) / len(values)
        interval = interval_of(same, name)
        if interval is not None and name != "test_loss":
            interval = tuple(np.clip(interval, 0, 100))  # of percent
        face = color if all(run["converged"] for run in same) else "white"
        if len(values) > 1:
            axes.plot([place] * len(values), values, ".", color=color, alpha=0.4, markersize=5)
        axes.errorbar(
            place,
            means[place],
            yerr=None if interval is None else np.abs(np.subtract(interval, means[place]))[:, None],
            fmt=marker,
            color=color,
            markersize=7,
            markeredgewidth=1.5,
            markerfacecolor=face,
            capsize=3,
            elinewidth=1,
        )
        if axis_of(same[0]) == "training_flops":
            label = f"p{same[0]['patch_size']}"
            axes.annotate(label, (place, means[place]), (5, 4), textcoords="offset points", fontsize=7, color=color)
    axes.plot(list(means), list(means.values()), color=color, linewidth=0.8, linestyle=":")


def _draw_losses(axes, series: str, members: list[dict[str, Any]], fits: Fits, style: tuple[str, str]):
    """The points with the power law, and with an offset where the points support one (dashed)."""
    color, marker = style
    _draw_points(axes, members, "test_loss", color, marker)
    fit, label = fits.power, f"{series} (no fit)"
    if fit is not None:
        letter = "p" if axis_of(members[0]) == "patch_size" else "N" if axis_of(members[0]) == "tokens" else "C"
        law = f"$L = {_in_mathtext(fit.coefficient)}\\,{letter}^{{\\,{fit.exponent:.2f}}}$, $R^2 = {fit.r_squared:.2f}$"
        label = f"{series}: {law}" + ("" if fit.shows_sign else " (sign open)")
        ends = [min(fit.x), max(fit.x)]
        axes.plot(ends, [fit(patch_size) for patch_size in ends], color=color, linewidth=1.6)
    if fits.comparison is not None and fits.comparison.preferred == "offset":
        sizes = np.geomspace(*map(float, ends))
        axes.plot(sizes, fits.offset(sizes), color=color, linewidth=1.2, linestyle="--")
    axes.plot([], [], marker, linestyle="-" if fit else "none", color=color, label=label)


def _in_mathtext(number: float) -> str:
    digits, _, power = f"{number:.2g}".partition("e")
    return f"{digits}\\cdot 10^{{{int(power)}}}" if power else digits


def _scale_losses(axes, losses: list[float]):
    """A logarithmic axis, with more numbers on it than powers of two where these are few."""
    from matplotlib.ticker import LogLocator

    axes.set_yscale("log", base=2)
    if max(losses) < 4 * min(losses):
        axes.yaxis.set_major_locator(LogLocator(base=2, subs=(1, 1.25, 1.5, 1.75)))
    axes.yaxis.set_major_formatter(lambda value, position: f"{value:.3g}")


def _label_axes(axes, runs: list[dict[str, Any]], value: str):
    axis = axis_of(runs[0])
    places = sorted({run[axis] for run in runs})
    axes.set_xscale("log", base=2 if axis in ("patch_size", "tokens") else 10)
    axes.set_xlabel(AXES[axis])
    axes.set_ylabel(value)
    axes.grid(True, color="0.9", linewidth=0.8)
    axes.spines["right"].set_visible(False)
    if axis in ("patch_size", "tokens"):
        axes.set_xticks(places, [f"{place:,}" for place in places])
        axes.minorticks_off()
    if axis == "patch_size":
        axes.invert_xaxis()  # towards more computation, as the paper draws it
        tokens = {run["patch_size"]: run["tokens"] for run in runs}
        upper = axes.secondary_xaxis("top")
        upper.set_xticks(places, [f"{tokens[place]:,}" for place in places])
        upper.minorticks_off()
        upper.set_xlabel("tokens per image")


def describe_source(runs: list[dict[str, Any]], fits: dict[str, Fits]) -> dict[str, Any]:
    """When and from what the results of runs were put together, and what they say."""
    return {
        "date": datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds"),
        "machine": describe_machine(),
        "versions": describe_versions(),
        "convergence_rule": CONVERGENCE_RULE,
        "falls": {
            series: [dataclasses.asdict(fall) for fall in find_falls(members)]
            for series, members in by_series(runs).items()
        },
        "fits": {series: dataclasses.asdict(fit) for series, fit in fits.items()},
    }
