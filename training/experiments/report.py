# Copyright 2026 The modeling_pixelvit team. All rights reserved.
# SPDX-License-Identifier: Apache-2.0
"""What a sweep leaves behind beside its checkpoints: table, picture and `results.json`."""

import dataclasses
import datetime
import os
import platform
from collections.abc import Callable, Iterable
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np

from ..common.files import write_json
from ..families.registry import FAMILIES
from ..tasks.registry import TASKS
from .fits import NEGLIGIBLE, Fits, fit_forms
from .law import (
    CONFIDENCE,
    CONVERGENCE_RULE,
    GAIN_NOTE,
    count_falling_runs,
    expected_gain,
    find_falls,
    half_width,
    series_of,
)


TABLE_FILE = "table.md"
PICTURE_FILE = "scaling.png"
RESULTS_FILE = "results.json"
COLUMN_NOTES = (
    "test loss: {loss}; train loss: its mean over the last tenth of the training; "
    "tokens: patches of an image, without the class token; seconds: training, by the clock, beside the other workers; "
    "memory: most that the run's process had resident, libraries included."
)
FITS_NOTE = (
    f"Laws: by maximum likelihood of log test loss, with intervals at {CONFIDENCE:.0%}. Over seeds: what other seeds "
    "would give at these patch sizes. By the distances from the curve: what these would give if they were chance, "
    "which says more of other patch sizes. The data support an offset if p is below "
    f"{1 - CONFIDENCE:.2f}, and the power law if the offset's interval ends below {NEGLIGIBLE:.0%} of the lowest loss."
)


def by_series(runs: list[dict[str, Any]]) -> dict[tuple[str, str | None], list[dict[str, Any]]]:
    """The metrics of the runs by family and decoder, largest patch first."""
    series = {series_of(run): [] for run in runs}
    for run in sorted(runs, key=lambda run: -run["patch_size"]):
        series[series_of(run)].append(run)
    return series


def name_series(series: tuple[str, str | None]) -> str:
    family, decoder = series
    names = {None: "", "none": ", no decoder", "upernet": ", UperNet"}
    return FAMILIES[family].title + names[decoder]


def style_of(series: tuple[str, str | None]) -> tuple[str, str]:
    """Colour and marker."""
    family, second = FAMILIES[series[0]], series[1] == "upernet"
    return family.colours[second], family.markers[second]


def key_of(series: tuple[str, str | None]) -> str:
    """As in the names of the runs' folders, but that no decoder is also told."""
    return "-".join(part for part in series if part is not None)


def fit_series(runs: list[dict[str, Any]]) -> dict[tuple[str, str | None], Fits]:
    """Both forms of the law through the runs of each series that have learned."""

    def fit(members):
        columns = {name: [run[name] for run in members] for name in ("learned", "converged")}
        patch_sizes, losses = ([run[name] for run in members] for name in ("patch_size", "test_loss"))
        seeds = [run.get("seed") for run in members]
        return fit_forms(patch_sizes, losses, seeds=seeds, quantity="test loss", axis="patch", **columns)

    return {series: fit(members) for series, members in by_series(runs).items()}


def columns_of(run: dict[str, Any]) -> dict[str, str]:
    """The titles of the scores that the run's task has a column for, by their names."""
    return {name: score.title for name, score in TASKS[run["task"]].scores.items() if score.title is not None}


def score_of(run: dict[str, Any], name: str) -> float | None:
    """A score of the run in percent; None where the data do not define it, as AP of masks without masks."""
    return run.get(f"test_{name}")


def format_first_score(run: dict[str, Any]) -> str:
    """The score that says most, with its title."""
    name, title = next(iter(columns_of(run).items()))
    return f"{title} {_format_mean([score_of(run, name)], '.1f', '%')}"


def by_patch_size(members: list[dict[str, Any]]) -> dict[int, list[dict[str, Any]]]:
    """The runs of one series by patch size, largest first; those of one patch size differ by their seed."""
    sizes = sorted({run["patch_size"] for run in members}, reverse=True)
    return {size: [run for run in members if run["patch_size"] == size] for size in sizes}


def format_table(runs: list[dict[str, Any]]) -> str:
    """The runs as a Markdown table that is also aligned in a terminal; of several seeds their means and intervals."""
    scores = columns_of(runs[0]).values()
    seeds = max(len(same) for members in by_series(runs).values() for same in by_patch_size(members).values())
    title = ("model", "patch", "tokens", *(["seeds"] if seeds > 1 else []), "test loss", *scores)
    rows = [(*title, "train loss", "x2 gains", "converged", "seconds", "memory")]
    for members in by_series(runs).values():
        rows += [_table_row(same, several=seeds > 1) for same in by_patch_size(members).values()]
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    lines = ["| " + " | ".join(_align(row, widths)) + " |" for row in rows]
    rule = ["-" * widths[0]] + ["-" * (width - 1) + ":" for width in widths[1:]]
    return "\n".join([lines[0], "| " + " | ".join(rule) + " |", *lines[1:]])


def _table_row(same: list[dict[str, Any]], several: bool) -> tuple[str, ...]:
    """Of the runs that differ by their seed alone."""
    run, converged = same[0], sum(run["converged"] for run in same)
    return (
        name_series(series_of(run)),
        str(run["patch_size"]),
        str(run["tokens"]),
        *([str(len(same))] if several else []),
        _format_mean([run["test_loss"] for run in same], ".3f"),
        *(_format_mean([score_of(run, name) for run in same], ".1f", "%") for name in columns_of(run)),
        _format_mean([run["train_loss"] for run in same], ".3f", interval=False),
        _format_mean([expected_gain(run) for run in same], ".0%", interval=False),
        f"{converged} of {len(same)}" if several else "yes" if converged else "no",
        _format_mean([run["seconds"] for run in same], ".0f", interval=False),
        f"{max(run['peak_memory_mib'] for run in same):.0f} MiB",
    )


def _format_mean(values: list[float | None], style: str, unit: str = "", interval: bool = True) -> str:
    """The mean, with half the width of its interval if there are several; a dash where one is missing."""
    if None in values:
        return "-"
    half = half_width(values) if interval else None
    around = "" if half is None else f" ± {half:{style}}"
    return f"{sum(values) / len(values):{style}}{around}{unit}"


def _align(row: tuple[str, ...], widths: list[int]) -> list[str]:
    return [row[0].ljust(widths[0])] + [cell.rjust(width) for cell, width in zip(row[1:], widths[1:], strict=True)]


def format_preview(runs: list[dict[str, Any]], patch_sizes: Iterable[int]) -> str:
    """Test losses by patch size of what has ended so far, a line for each series: means, where there are seeds."""
    sizes = sorted(set(patch_sizes), reverse=True)
    rows = [("test loss so far", *(f"patch {size}" for size in sizes))]
    for series, members in by_series(runs).items():
        found = by_patch_size(members)
        losses = {size: [run["test_loss"] for run in same] for size, same in found.items()}
        rows.append(
            (
                name_series(series),
                *(_format_mean(losses[size], ".3f", interval=False) if size in losses else "..." for size in sizes),
            )
        )
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    return "\n".join("  ".join(_align(row, widths)) for row in rows)


def format_falls(runs: list[dict[str, Any]]) -> str:
    """A line for each series: whether its test loss falls with each smaller patch, in the mean and in single runs."""
    lines = []
    for series, members in by_series(runs).items():
        falls = find_falls(members)
        if not falls:
            continue
        rises = [fall for fall in falls if fall.ratio >= 1]
        first, last = falls[0].patch_sizes[0], falls[-1].patch_sizes[1]
        steps = ", ".join(f"{fall.patch_sizes[0]} to {fall.patch_sizes[1]}" for fall in rises)
        verdict = f"does not fall from patch {steps}" if rises else f"falls at every step from patch {first} to {last}"
        falling, whole = count_falling_runs(members)
        single = f"; at every step in {falling} of {whole} single runs" if whole > 1 else ""
        lines.append(f"{name_series(series)}: test loss {verdict}{single} ({_format_ratios(falls)})")
    return "\n".join(lines)


def _format_ratios(falls: list[Any]) -> str:
    def one(fall):
        around = "" if fall.interval is None else f" [{fall.interval[0]:.2f}, {fall.interval[1]:.2f}]"
        return f"{fall.patch_sizes[0]} to {fall.patch_sizes[1]}: x {fall.ratio:.2f}{around}"

    return ", ".join(map(one, falls))


def format_decoder_gaps(runs: list[dict[str, Any]]) -> str:
    """A line for each family that was trained with both decoders: by how much UperNet's mean IoU is higher."""
    scores = {(*series_of(run), run["patch_size"]): score_of(run, "mean_iou") for run in runs if run["decoder"]}
    lines = []
    for family in dict.fromkeys(run["family"] for run in runs):
        gaps = [
            f"{scores[family, 'upernet', patch_size] - score:+.1f} at patch {patch_size}"
            for (of, decoder, patch_size), score in sorted(scores.items(), key=lambda item: -item[0][2])
            if of == family and decoder == "none" and (family, "upernet", patch_size) in scores
        ]
        if gaps:
            lines.append(f"{FAMILIES[family].title}: mIoU with UperNet less that without a decoder: {', '.join(gaps)}")
    return "\n".join(lines)


def format_report(runs: list[dict[str, Any]], fits: dict[tuple[str, str | None], Fits]) -> str:
    laws = "\n".join(f"{name_series(series)}: {fit}" for series, fit in fits.items())
    parts = [format_table(runs), format_falls(runs), laws, format_decoder_gaps(runs)]
    notes = COLUMN_NOTES.format(loss=TASKS[runs[0]["task"]].loss_name)
    if len({run.get("seed") for run in runs}) > 1:
        notes = f"After ±, and in brackets, what Student's t gives at {CONFIDENCE:.0%} over the seeds. {notes}"
    parts += [CONVERGENCE_RULE, f"{notes}\n{GAIN_NOTE}\n{FITS_NOTE}"]
    return "\n\n".join(part for part in parts if part) + "\n"


def draw(runs: list[dict[str, Any]], fits: dict[tuple[str, str | None], Fits], title: str, path: Path):
    """
    Test loss against patch size, both logarithmic, with the fitted laws, and the task's scores beside it: PNG. Runs
    that had not converged are hollow.
    """
    import matplotlib

    matplotlib.use("Agg")  # a picture for a file needs no display
    from matplotlib import pyplot as plt

    names = TASKS[runs[0]["task"]].drawn_scores
    names = [name for name in names if all(score_of(run, name) is not None for run in runs)]
    panels = 1 + len(names)
    figure, axes = plt.subplots(1, panels, figsize=(6.4 if panels == 1 else 4.4 * panels, 4.4), layout="constrained")
    loss_axes, *score_axes = [axes] if panels == 1 else axes
    for series, members in by_series(runs).items():
        _draw_losses(loss_axes, series, members, fits[series])
    if any(not run["converged"] for run in runs):
        loss_axes.plot([], [], "o", color="0.4", markerfacecolor="white", label="twice the images might halve it")
    _scale_losses(loss_axes, [run["test_loss"] for run in runs])
    _label_axes(loss_axes, runs, "test loss")
    for panel, name in zip(score_axes, names, strict=True):
        for series, members in by_series(runs).items():
            _draw_points(panel, series, members, lambda run, name=name: score_of(run, name))
            color, marker = style_of(series)
            panel.plot([], [], marker, color=color, label=name_series(series))
        _label_axes(panel, runs, f"{columns_of(runs[0])[name]} (%)")
    figure.suptitle(title, fontsize=10)
    for panel in (loss_axes, *score_axes):
        panel.legend(frameon=False, fontsize=9 if panels == 1 else 8)
    figure.savefig(path, dpi=160)
    plt.close(figure)


def _draw_points(
    axes, series: tuple[str, str | None], members: list[dict[str, Any]], value_of: Callable[[dict[str, Any]], float]
):
    """The means of the seeds with their intervals, joined, and the single runs behind them, if there are several."""
    color, marker = style_of(series)
    means = {}
    for patch_size, same in by_patch_size(members).items():
        values = [value_of(run) for run in same]
        means[patch_size] = sum(values) / len(values)
        face = color if all(run["converged"] for run in same) else "white"
        if len(values) > 1:
            axes.plot([patch_size] * len(values), values, ".", color=color, alpha=0.4, markersize=5)
        axes.errorbar(
            patch_size,
            means[patch_size],
            yerr=half_width(values),
            fmt=marker,
            color=color,
            markersize=7,
            markeredgewidth=1.5,
            markerfacecolor=face,
            capsize=3,
            elinewidth=1,
        )
    axes.plot(list(means), list(means.values()), color=color, linewidth=0.8, linestyle=":")


def _draw_losses(axes, series: tuple[str, str | None], members: list[dict[str, Any]], fits: Fits):
    """The points with the power law, and with an offset where the points support one (dashed)."""
    _draw_points(axes, series, members, lambda run: run["test_loss"])
    color, marker = style_of(series)
    fit, label = fits.power, f"{name_series(series)} (no fit)"
    if fit is not None:
        law = f"$L = {fit.coefficient:.2g}\\,p^{{\\,{fit.exponent:.2f}}}$, $R^2 = {fit.r_squared:.2f}$"
        label = f"{name_series(series)}: {law}"
        ends = [min(fit.x), max(fit.x)]
        axes.plot(ends, [fit(patch_size) for patch_size in ends], color=color, linewidth=1.6)
    if fits.comparison is not None and fits.comparison.preferred == "offset":
        sizes = np.geomspace(*ends)
        axes.plot(sizes, fits.offset(sizes), color=color, linewidth=1.2, linestyle="--")
    axes.plot([], [], marker, linestyle="-" if fit else "none", color=color, label=label)


def _scale_losses(axes, losses: list[float]):
    """A logarithmic axis, with more numbers on it than powers of two where these are few."""
    from matplotlib.ticker import LogLocator

    axes.set_yscale("log", base=2)
    if max(losses) < 4 * min(losses):
        axes.yaxis.set_major_locator(LogLocator(base=2, subs=(1, 1.25, 1.5, 1.75)))
    axes.yaxis.set_major_formatter(lambda value, position: f"{value:.3g}")


def _label_axes(axes, runs: list[dict[str, Any]], value: str):
    tokens = {run["patch_size"]: run["tokens"] for run in runs}
    patch_sizes = sorted(tokens)
    axes.set_xscale("log", base=2)
    axes.invert_xaxis()  # towards more computation, as the paper draws it
    axes.set_xticks(patch_sizes, [str(patch_size) for patch_size in patch_sizes])
    axes.minorticks_off()
    axes.set_xlabel("patch size (pixels)")
    axes.set_ylabel(value)
    axes.grid(True, color="0.9", linewidth=0.8)
    axes.spines["right"].set_visible(False)
    upper = axes.secondary_xaxis("top")
    upper.set_xticks(patch_sizes, [f"{tokens[patch_size]:,}" for patch_size in patch_sizes])
    upper.minorticks_off()
    upper.set_xlabel("tokens per image")


def describe_machine() -> dict[str, Any]:
    """What the seconds of a sweep depend on."""
    processor = platform.processor() or platform.machine()
    try:
        with open("/proc/cpuinfo") as file:
            processor = next(line for line in file if line.startswith("model name")).split(":", 1)[1].strip()
    except (OSError, StopIteration):
        pass
    return {"processor": processor, "cores": os.cpu_count(), "system": f"{platform.system()} {platform.machine()}"}


def describe_versions() -> dict[str, str]:
    packages = ("torch", "transformers", "numpy", "scikit-learn", "datasets")
    versions = {"python": platform.python_version()}
    for package in packages:
        try:
            versions[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            continue
    return versions


def write_results(
    runs: list[dict[str, Any]],
    fits: dict[tuple[str, str | None], Fits],
    folder: Path,
    command: str,
    workers: int,
    threads: int,
):
    """`results.json`: all runs and fits, and what they came from."""
    content = {
        "command": command,
        "date": datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds"),
        "machine": describe_machine(),
        "workers": workers,
        "threads_per_worker": threads,
        "versions": describe_versions(),
        "data": runs[0]["data"],
        "recipes": {key_of(series_of(run)): run["recipe"] for run in runs},
        "convergence_rule": CONVERGENCE_RULE,
        "falls": {
            key_of(series): [dataclasses.asdict(fall) for fall in find_falls(members)]
            for series, members in by_series(runs).items()
        },
        "fits": {key_of(series): dataclasses.asdict(fit) for series, fit in fits.items()},
        "runs": [
            {name: value for name, value in run.items() if name not in ("data", "recipe")}
            for members in by_series(runs).values()
            for run in members
        ],
    }
    write_json(folder / RESULTS_FILE, content)
