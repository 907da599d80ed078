# Copyright 2026 The modeling_pixelvit team. All rights reserved.
# SPDX-License-Identifier: Apache-2.0
"""What a sweep leaves behind beside its checkpoints: table, picture and `results.json`."""

import dataclasses
import datetime
import os
import platform
from importlib import metadata
from pathlib import Path
from typing import Any

from .files import write_json
from .sweep_law import CONVERGENCE_RULE, FEWEST_POINTS, GAIN_NOTE, PowerLaw, fit_power_law


TABLE_FILE = "table.md"
PICTURE_FILE = "scaling.png"
RESULTS_FILE = "results.json"
FAMILY_NAMES = {"adventurer": "Adventurer", "pixelvit": "PixelViT"}
FAMILY_STYLES = {"adventurer": ("#0b6e99", "o"), "pixelvit": ("#c2410c", "s")}
COLUMNS = (
    "model",
    "patch",
    "tokens",
    "test loss",
    "accuracy",
    "train loss",
    "x2 gains",
    "converged",
    "seconds",
    "memory",
)
COLUMN_NOTES = (
    "test loss: mean cross-entropy on the test images; train loss: its mean over the last tenth of the training; "
    "tokens: patches of an image, without the class token; seconds: training, by the clock, beside the other workers; "
    "memory: most that the run's process had resident, libraries included."
)


def by_family(runs: list[dict[str, Any]]) -> dict[str, list[dict[str, Any]]]:
    """The metrics of the runs by family, largest patch first."""
    families = {run["family"]: [] for run in runs}
    for run in sorted(runs, key=lambda run: -run["patch_size"]):
        families[run["family"]].append(run)
    return families


def fit_families(runs: list[dict[str, Any]]) -> dict[str, PowerLaw | None]:
    return {family: fit_power_law(members) for family, members in by_family(runs).items()}


def format_table(runs: list[dict[str, Any]]) -> str:
    """The runs as a Markdown table that is also aligned in a terminal."""
    rows = [COLUMNS]
    for members in by_family(runs).values():
        rows += [_table_row(run) for run in members]
    widths = [max(len(row[column]) for row in rows) for column in range(len(COLUMNS))]
    lines = ["| " + " | ".join(_align(row, widths)) + " |" for row in rows]
    rule = ["-" * widths[0]] + ["-" * (width - 1) + ":" for width in widths[1:]]
    return "\n".join([lines[0], "| " + " | ".join(rule) + " |", *lines[1:]])


def _table_row(run: dict[str, Any]) -> tuple[str, ...]:
    return (
        FAMILY_NAMES[run["family"]],
        str(run["patch_size"]),
        str(run["tokens"]),
        f"{run['test_loss']:.3f}",
        f"{run['test_accuracy']:.1f}%",
        _format_optional(run["train_loss"], ".3f"),
        _format_optional(run["gain_of_doubling"], ".0%"),
        "yes" if run["converged"] else "no",
        f"{run['seconds']:.0f}",
        f"{run['peak_memory_mib']:.0f} MiB",
    )


def _format_optional(value: float | None, style: str) -> str:
    return "-" if value is None else format(value, style)


def _align(row: tuple[str, ...], widths: list[int]) -> list[str]:
    return [row[0].ljust(widths[0])] + [cell.rjust(width) for cell, width in zip(row[1:], widths[1:], strict=True)]


def format_fits(fits: dict[str, PowerLaw | None]) -> str:
    """A line for each family: the fitted law, or why there is none."""
    missing = f"no power law fitted, because fewer than {FEWEST_POINTS} runs had converged"
    return "\n".join(f"{FAMILY_NAMES[family]}: {fit or missing}" for family, fit in fits.items())


def format_report(runs: list[dict[str, Any]]) -> str:
    fits = format_fits(fit_families(runs))
    return f"{format_table(runs)}\n\n{fits}\n\n{CONVERGENCE_RULE}\n\n{COLUMN_NOTES}\n{GAIN_NOTE}\n"


def draw(runs: list[dict[str, Any]], title: str, path: Path):
    """
    Test loss against patch size, both logarithmic, with the fitted laws: PNG. Runs that had not converged are hollow.
    """
    import matplotlib

    matplotlib.use("Agg")  # a picture for a file needs no display
    from matplotlib import pyplot as plt

    figure, axes = plt.subplots(figsize=(6.4, 4.4), layout="constrained")
    fits = fit_families(runs)
    for family, members in by_family(runs).items():
        _draw_family(axes, family, members, fits[family])
    if any(not run["converged"] for run in runs):
        axes.plot([], [], "o", color="0.4", markerfacecolor="white", label="not converged (not in the fit)")
    _label_axes(axes, runs)
    axes.set_title(title, fontsize=10)
    axes.legend(frameon=False, fontsize=9)
    figure.savefig(path, dpi=160)
    plt.close(figure)


def _draw_family(axes, family: str, members: list[dict[str, Any]], fit: PowerLaw | None):
    color, marker = FAMILY_STYLES[family]
    name = FAMILY_NAMES[family]
    axes.plot(
        [run["patch_size"] for run in members],
        [run["test_loss"] for run in members],
        color=color,
        linewidth=0.8,
        linestyle=":",
    )
    for run in members:
        axes.plot(
            run["patch_size"],
            run["test_loss"],
            marker,
            color=color,
            markersize=7,
            markeredgewidth=1.5,
            markerfacecolor=color if run["converged"] else "white",
        )
    label = f"{name} (no fit)"
    if fit is not None:
        label = f"{name}: $L = {fit.coefficient:.2f}\\,p^{{\\,{fit.exponent:.2f}}}$, $R^2 = {fit.r_squared:.2f}$"
        ends = [min(fit.patch_sizes), max(fit.patch_sizes)]
        axes.plot(ends, [fit(patch_size) for patch_size in ends], color=color, linewidth=1.6)
    axes.plot([], [], marker, linestyle="-" if fit else "none", color=color, label=label)


def _label_axes(axes, runs: list[dict[str, Any]]):
    tokens = {run["patch_size"]: run["tokens"] for run in runs}
    patch_sizes = sorted(tokens)
    axes.set_xscale("log", base=2)
    axes.set_yscale("log", base=2)
    axes.invert_xaxis()  # towards more computation, as the paper draws it
    axes.set_xticks(patch_sizes, [str(patch_size) for patch_size in patch_sizes])
    axes.minorticks_off()
    axes.yaxis.set_major_formatter(lambda value, position: f"{value:.3g}")
    axes.set_xlabel("patch size (pixels)")
    axes.set_ylabel("test loss")
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


def write_results(runs: list[dict[str, Any]], folder: Path, command: str, workers: int, threads: int):
    """`results.json`: all runs and fits, and what they came from."""
    content = {
        "command": command,
        "date": datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds"),
        "machine": describe_machine(),
        "workers": workers,
        "threads_per_worker": threads,
        "versions": describe_versions(),
        "data": runs[0]["data"],
        "recipes": {run["family"]: run["recipe"] for run in runs},
        "convergence_rule": CONVERGENCE_RULE,
        "fits": {
            family: None if fit is None else dataclasses.asdict(fit) for family, fit in fit_families(runs).items()
        },
        "runs": [
            {name: value for name, value in run.items() if name not in ("data", "recipe")}
            for members in by_family(runs).values()
            for run in members
        ],
    }
    write_json(folder / RESULTS_FILE, content)
