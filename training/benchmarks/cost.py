# Copyright 2026 The modeling_pixelvit team. All rights reserved.
# SPDX-License-Identifier: Apache-2.0
"""
The paper's Table 6 for any machine: what training and inference of both families take at each patch size.

Patch sizes are measured from coarse to fine for as long as time and memory last. The others are extrapolated by the fit
of `checkpoints.measured_cost` to the measured ones, marked as such.
"""

import dataclasses
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from transformers import PreTrainedConfig

from ..checkpoints.cost import model_cost
from ..checkpoints.measured_cost import INFERENCE, TRAINING, CostFit, Point, Work, fit_cost, work_of
from ..common.gpus import Gpu
from ..common.throughput import PASSES_PER_STEP
from ..experiments.report import format_rows
from ..families.base import CLASSIFIER
from ..families.registry import FAMILIES
from .cost_cell import Cell, measure_in_process
from .floors import step_floor


MODES = (TRAINING, INFERENCE)
PATCH_SIZES = (16, 8, 4, 2, 1)
IMAGENET_IMAGES = 1_281_167
FLOOR_FAMILY = "adventurer"  # whose kernels are counted
# Published: Table 6 of arXiv 2502.03738. Base at 224 pixels, fp16, FlashAttention for DeiT, one A100; by patch size,
# MB an image of DeiT, and hours for an epoch of ImageNet.
PAPER_DEVICE = "A100"
PAPER_MEGABYTES = {16: 62, 8: 252, 4: 1024, 2: 4057, 1: 16118}
PAPER_HOURS = {
    "pixelvit": {16: 0.36, 8: 1.86, 4: 9.79, 2: 80.06, 1: 967.99},
    "adventurer": {16: 0.45, 8: 1.76, 4: 6.86, 2: 27.45, 1: 115.08},
}


@dataclasses.dataclass(frozen=True)
class CostSettings:
    """
    What is measured and how.

    Args:
        tokens_per_step: Images a step are so many tokens, or one.
        max_batch_size: Images a step at most.
        max_seconds: Of a cell.
        implementations: By family, `mixer_implementation` or `attn_implementation`; others take the library's choice.
        price: Of an hour of the device, or None.
    """

    variant: str
    image_size: int
    patch_sizes: tuple[int, ...]
    device: str
    precision: str
    tokens_per_step: int
    threads: int
    max_batch_size: int = 256
    max_seconds: float = 60.0
    rounds: int = 5
    gradient_checkpointing: bool = False
    implementations: dict[str, str] = dataclasses.field(default_factory=dict)
    price: float | None = None

    def check(self):
        """
        Raises:
            ValueError: for a patch size that does not divide the image.
        """
        for patch_size in self.patch_sizes:
            if patch_size < 1 or self.image_size % patch_size:
                raise ValueError(
                    f"--patch_sizes {patch_size} was given; it must divide --image_size {self.image_size}."
                )

    def cell(self, family: str, mode: str, patch_size: int) -> Cell:
        tokens = (self.image_size // patch_size) ** 2
        return Cell(
            family=family,
            mode=mode,
            variant=self.variant,
            image_size=self.image_size,
            patch_size=patch_size,
            batch_size=max(1, min(self.tokens_per_step // tokens, self.max_batch_size)),
            precision=self.precision,
            device=self.device,
            threads=self.threads,
            implementation=self.implementations.get(family),
            gradient_checkpointing=self.gradient_checkpointing and mode == TRAINING,
            max_seconds=self.max_seconds,
            rounds=self.rounds,
        )

    def config(self, family: str, patch_size: int) -> PreTrainedConfig:
        """Of a classifier with 1,000 classes."""
        fields = {"patch_size": patch_size, "image_size": self.image_size, "num_labels": 1000}
        return FAMILIES[family].config_class.from_variant(self.variant, **fields)

    def model(self, family: str, patch_size: int) -> tuple[Work, int]:
        """What an image asks of the classifier, and the classifier's parameters."""
        config = self.config(family, patch_size)
        cost = model_cost(config, FAMILIES[family].model_classes[CLASSIFIER].__name__)
        return work_of(config, cost.flops), cost.parameters


Measure = Callable[[Cell], dict[str, Any]]


def measure_mode(
    settings: CostSettings, family: str, mode: str, measure: Measure
) -> tuple[list[dict[str, Any]], CostFit | None]:
    """The rows of one family in training or inference, from the coarsest patch to the finest, and the fit to them."""
    rows, points, skip = [], [], None
    for patch_size in sorted(settings.patch_sizes, reverse=True):
        cell = settings.cell(family, mode, patch_size)
        work, parameters = settings.model(family, patch_size)
        row = {"family": family, "mode": mode, "patch_size": patch_size, "parameters": parameters}
        row |= {"tokens": (settings.image_size // patch_size) ** 2, "flops": work.flops + work.mixing_flops}
        fit = fit_cost(family, points)
        # A step that is not timed, and one that is.
        if skip is None and fit is not None and 2 * fit.seconds(work, 1) > settings.max_seconds:
            skip = f"longer than {settings.max_seconds:g} s by the fit to larger patches"
        found = {"unmeasured": skip} if skip else measure(cell)
        if "unmeasured" not in found:
            points.append(Point(work, found["batch_size"], found["seconds"], found["bytes"]))
        else:
            skip = skip or f"{found['unmeasured']} at patch {patch_size}"  # smaller ones take more
        rows.append({**row, **found, "measured": "unmeasured" not in found, "work": work})
    fit = fit_cost(family, points)
    for row in rows:
        work = row.pop("work")
        if not row["measured"] and fit is not None:
            row |= {"batch_size": 1, "seconds": fit.seconds(work, 1), "bytes": fit.bytes(work, 1)}
    return rows, fit


def measure_costs(
    settings: CostSettings,
    rate: float,
    families: Iterable[str],
    gpu: Gpu | None,
    show: Callable[[str], None] = print,
) -> tuple[list[dict[str, Any]], dict[str, dict[str, CostFit]]]:
    """
    All rows, with what they cost, and the fits by family and mode.

    Args:
        rate: Measured operations a second of matrix products in the precision.
        gpu: The device by its data sheet, if it is a card that is known.
        show: Called with a line when something is done.
    """
    rows, fits = [], {}
    for family in families:
        fits[family] = {}
        for mode in MODES:
            found, fit = measure_mode(settings, family, mode, measure_in_process)
            rows += [add_floor(add_costs(row, settings, rate), settings, gpu) for row in found]
            if fit is not None:
                fits[family][mode] = fit
            measured = sum(row["measured"] for row in found)
            show(f"{family}, {mode}: {measured} of {len(found)} patch sizes measured")
    return rows, fits


def add_costs(row: dict[str, Any], settings: CostSettings, rate: float) -> dict[str, Any]:
    """The row with images a second, the share of the matrix rate, memory of an image, hours and price of an epoch."""
    if "seconds" not in row:
        return row
    images = row["batch_size"] / row["seconds"]
    passes = PASSES_PER_STEP if row["mode"] == TRAINING else 1
    hours = IMAGENET_IMAGES / images / 3600
    return {
        **row,
        "images_per_second": images,
        "mfu": passes * row["flops"] * images / rate,
        "megabytes_per_image": None if row["bytes"] is None else row["bytes"] / row["batch_size"] / 1e6,
        "hours_per_epoch": hours,
        "euros_per_epoch": None if settings.price is None else hours * settings.price,
    }


def add_floor(row: dict[str, Any], settings: CostSettings, gpu: Gpu | None) -> dict[str, Any]:
    """
    A measured row of Adventurer with `over_floor`: its time over that which the kernels of its blocks take at least on
    the card; None where the card, or its rate in the precision, is not known.
    """
    if row["family"] != FLOOR_FAMILY or settings.device != "cuda" or not row["measured"]:
        return row
    if gpu is None or gpu.bandwidth is None or settings.precision == "fp32":
        return {**row, "over_floor": None}
    trains = row["mode"] == TRAINING
    config = settings.config(row["family"], row["patch_size"])
    floor = step_floor(config, gpu, row["batch_size"], trains, settings.gradient_checkpointing and trains)
    return {**row, "over_floor": row["seconds"] / floor}


def is_of_paper(settings: CostSettings) -> bool:
    """Whether the paper's table is of the same models."""
    return settings.variant == "base" and settings.image_size == 224


def format_costs(content: dict[str, Any]) -> str:
    """Tables in Markdown, of what `training.benchmark cost` writes."""
    environment, settings, rows = content["environment"], content["settings"], content["rows"]
    hours = f"{settings['device_hours']} an epoch"
    priced, paper = settings["price"] is not None, content["paper"] is not None
    floors = any("over_floor" in row for row in rows)
    parts = [
        f"# What a pixel costs on {environment['device']}",
        f"{settings['variant'].capitalize()} models at {settings['image_size']} pixels, 1,000 classes, "
        f"{settings['precision']}, {environment['date']}, torch {environment['torch']}"
        + (", blocks computed again in the backward pass" if settings["gradient_checkpointing"] else "")
        + f". An epoch is {IMAGENET_IMAGES:,} images. MFU is of the measured rate of matrix products, "
        f"{content['matrix_rate'] / 1e12:.3g} TFLOP/s. Memory is what a step needs beside weights, gradients and "
        "optimizer, divided by its images.",
    ]
    for mode in dict.fromkeys(row["mode"] for row in rows):
        header = ["model", "patch", "tokens", "batch", "MB an image", "images/s", "MFU", hours]
        header += ["over floor"] if floors else []
        header += ["euros an epoch"] if priced else []
        header += [f"{PAPER_DEVICE}, paper: hours", f"{PAPER_DEVICE}, paper: MB"] if paper and mode == TRAINING else []
        table = [tuple(header)]
        for row in rows:
            if row["mode"] == mode:
                table.append(tuple(_cells_of(row, floors, priced, content["paper"] if mode == TRAINING else None)))
        parts += [f"## {mode.capitalize()}", format_rows(table)]
    if not all(row["measured"] for row in rows):
        parts.append("~: extrapolated by the fit, not measured; -: neither.")
    if any(row.get("over_floor") for row in rows):
        parts.append(
            "Over floor: a step's time over that which the kernels of Adventurer's blocks take at least, computed from "
            "their bytes and operations and from the card's data sheet."
        )
    elif floors:
        parts.append(
            f"No floor is told: memory bandwidth or matrix rate of {environment['device']} in {settings['precision']} "
            "is not known."
        )
    parts += [
        "## The fit",
        "Error on a point left out of the fit, the largest, as a share:",
        _fit_table(content["fits"]),
    ]
    reasons = dict.fromkeys(
        f"- {row['family']}, {row['mode']}, patch {row['patch_size']}: {row['unmeasured']}"
        for row in rows
        if not row["measured"]
    )
    if reasons:
        parts += ["## Not measured", "\n".join(reasons)]
    return "\n\n".join(parts) + "\n"


def _cells_of(row: dict[str, Any], floors: bool, priced: bool, paper: dict[str, Any] | None) -> list[str]:
    mark = "" if row["measured"] else "~"

    def shown(name: str, form: str) -> str:
        return "-" if row.get(name) is None else f"{mark}{row[name]:{form}}"

    cells = [
        FAMILIES[row["family"]].title,
        str(row["patch_size"]),
        f"{row['tokens']:,}",
        str(row.get("batch_size", "-")),
    ]
    cells += [shown("megabytes_per_image", ",.0f"), shown("images_per_second", ",.4g"), shown("mfu", ".0%")]
    cells.append(shown("hours_per_epoch", ",.2f"))
    if floors:
        cells.append(shown("over_floor", ".2f"))
    if priced:
        cells.append(shown("euros_per_epoch", ",.2f"))
    if paper is not None:
        hours = paper["hours"].get(row["family"], {}).get(str(row["patch_size"]))
        memory = paper["megabytes"].get(str(row["patch_size"])) if row["family"] == "pixelvit" else None
        cells += ["-" if value is None else f"{value:,}" for value in (hours, memory)]
    return cells


def _fit_table(fits: dict[str, dict[str, Any]]) -> str:
    def share(value: float | None) -> str:
        return "too few points" if value is None else f"{value:.1%}"

    table = [("family", "", "points", "seconds", "memory")]
    for family, modes in fits.items():
        for mode in MODES:
            fit = modes.get(mode)
            if fit is None:
                table.append((family, mode, "too few", "-", "-"))
            else:
                errors = fit["seconds_error"], fit["bytes_error"]
                table.append((family, mode, str(fit["num_points"]), *map(share, errors)))
    return format_rows(table)


def paper_columns(settings: CostSettings) -> dict[str, Any] | None:
    """The paper's numbers as json holds them; None if they are of other models."""
    if not is_of_paper(settings):
        return None
    by_word = {family: {str(size): hours for size, hours in of.items()} for family, of in PAPER_HOURS.items()}
    return {
        "source": "arXiv 2502.03738, Table 6 (published, not measured here): one A100, fp16, FlashAttention for DeiT",
        "hours": by_word,
        "megabytes": {str(size): value for size, value in PAPER_MEGABYTES.items()},
    }


def draw_costs(content: dict[str, Any], path: Path):
    """Hours of an epoch and memory of an image against tokens, in training; extrapolated points hollow. A PNG."""
    import matplotlib

    matplotlib.use("Agg")  # a picture for a file needs no display
    from matplotlib import pyplot as plt

    settings, paper = content["settings"], content["paper"]
    figure, panels = plt.subplots(1, 2, figsize=(9.6, 4.4), layout="constrained")
    names = ("hours_per_epoch", "megabytes_per_image")
    titles = (f"{settings['device_hours']} an epoch of ImageNet", "MB an image, training")
    for panel, name, title in zip(panels, names, titles, strict=True):
        told = [row for row in content["rows"] if row["mode"] == TRAINING and row.get(name) is not None]
        for family in dict.fromkeys(row["family"] for row in told):  # one without a point would have no logarithm
            known = FAMILIES[family]
            rows = [row for row in told if row["family"] == family]
            tokens = [row["tokens"] for row in rows]
            panel.plot(tokens, [row[name] for row in rows], color=known.colours[0], linewidth=1, label=known.title)
            for row in rows:
                face = known.colours[0] if row["measured"] else "white"
                panel.plot(row["tokens"], row[name], known.markers[0], color=known.colours[0], markerfacecolor=face)
            if paper is not None:
                published = paper["hours"].get(family, {}) if name == names[0] else paper["megabytes"]
                if published and (name == names[0] or family == "pixelvit"):
                    places = [(settings["image_size"] // int(size)) ** 2 for size in published]
                    label = f"{known.paper_title}, {PAPER_DEVICE}, as the paper says"
                    panel.plot(places, list(published.values()), "--", color=known.colours[1], label=label)
        if any(not row["measured"] for row in told):
            panel.plot([], [], "o", color="0.4", markerfacecolor="white", label="extrapolated")
        panel.set(xscale="log", yscale="log", xlabel="tokens", ylabel=title)
        if told:
            panel.legend(frameon=False, fontsize=8)
    figure.suptitle(
        f"{settings['variant'].capitalize()} at {settings['image_size']} pixels, "
        f"{content['environment']['device']}, {settings['precision']}",
        fontsize=10,
    )
    figure.savefig(path, dpi=160)
    plt.close(figure)
