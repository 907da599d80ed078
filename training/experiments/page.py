# Copyright 2026 The modeling_pixelvit team. All rights reserved.
# SPDX-License-Identifier: Apache-2.0
"""
Results of experiments as a page that needs nothing beside it, and as Markdown for a model card.

The paper's numbers stand beside ours, with the fits, what the checkpoints make of some test images, what their last
blocks do with them, what it cost and the commands.
"""

import base64
import dataclasses
import html
import io
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from transformers import BaseImageProcessor, PreTrainedModel

from ..cards.results import load_results
from ..checkpoints.loading import load_checkpoint
from ..families.registry import FAMILIES
from ..settings.recipe import Recipe, build_recipe
from ..tasks.classification import ClassificationTask
from ..tasks.drawing import class_probabilities, visualize
from ..tasks.registry import TASKS
from .fits import fit_paper_rows, tabulate_fits
from .images import load_run_images
from .intervals import with_draws
from .law import axis_of, by_axis
from .report import (
    PICTURE_FILE,
    RESULTS_FILE,
    TABLE_FILE,
    by_series,
    format_mean,
    format_rows,
    readable,
    tabulate_comparisons,
)


FITTED_TABLES = {"table1", "table4"}  # of the paper's, of whose rows there are fits
SEARCHED_IMAGES = 200  # for those that patch sizes disagree on
SHOWN_IMAGES = 6
MAPPED_IMAGES = 3
PICTURE_SIDE = 96  # pixels of an image on the page
DRAWN_SIDE = 224  # of one with a legend
STYLE = """
body { font: 16px/1.5 system-ui, sans-serif; color: #1c1917; max-width: 70rem; margin: 2rem auto; padding: 0 1rem }
h1, h2, h3 { line-height: 1.2; margin: 2rem 0 .6rem }
h2 { border-top: 1px solid #d6d3d1; padding-top: 1.5rem }
table { border-collapse: collapse; font-size: .85rem; font-variant-numeric: tabular-nums; margin: .6rem 0 }
th, td { padding: .25rem .6rem; text-align: right; vertical-align: top; border-bottom: 1px solid #e7e5e4 }
th:first-child, td:first-child { text-align: left }
figure { margin: 1rem 0 }
img { max-width: 100%; height: auto; vertical-align: middle }
img.pixel { image-rendering: pixelated }
figcaption, .note { color: #57534e; font-size: .85rem }
pre { background: #f5f5f4; padding: .8rem; overflow-x: auto; font-size: .85rem }
.right { color: #15803d }
.wrong { color: #b91c1c }
.wide { overflow-x: auto }
.side { display: flex; flex-wrap: wrap; gap: 2rem }
.side > * { flex: 1 1 24rem; overflow-x: auto }
"""


@dataclasses.dataclass
class Finished:
    """
    An experiment's results as they lie in a folder.

    Args:
        folder: Of them.
        content: Of `results.json`.
        rows: One for each point and patch size, as `experiment.rows_of` gives them.
        runs_folder: Folder of the runs, as far as they are here.
    """

    folder: Path
    content: dict[str, Any]
    rows: list[dict[str, Any]]
    runs_folder: Path

    @property
    def title(self) -> str:
        return f"{self.content['experiment']['title']} ({self.content['scale']})"


def load_finished(folder: str | Path, points_dir: str | Path) -> Finished:
    """
    Args:
        folder: Of the results.
        points_dir: Folder of the runs, if they do not lie with the results as a sweep's do; of them the values of
            single test images are taken.

    Raises:
        ValueError: if the folder has no results of an experiment.
    """
    path = Path(folder) / RESULTS_FILE
    try:
        content = json.loads(path.read_text())
        runs = {run["key"]: run for run in content["runs"]}
        rows = [{**runs[point["run"]], **point, "axis": content["experiment"]["x"]} for point in content["points"]]
        if not rows or "comparisons" not in content:
            raise ValueError("no points" if not rows else "no comparisons")
        for name in (TABLE_FILE, PICTURE_FILE):
            if not (path.parent / name).exists():
                raise ValueError(f"no {name}")
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ValueError(
            f"{folder} was given, which has no results of training.experiment ({type(error).__name__}: {error}); give "
            "folders like runs/experiments/table1-digits."
        ) from None
    runs_folder = path.parent if (path.parent / rows[0]["name"]).exists() else Path(points_dir)
    return Finished(path.parent, content, with_draws(rows, runs_folder), runs_folder)


def build_report(folders: Sequence[str | Path], points_dir: str, images_folder: Path) -> tuple[str, str]:
    """
    The page and the Markdown of some experiments.

    Args:
        folders: Of their results.
        points_dir: Folder of their runs, of whose checkpoints those that are there are shown at work.
        images_folder: Where images are stored meanwhile.

    Raises:
        ValueError: if a folder has no results.
    """
    finished = [load_finished(folder, points_dir) for folder in folders]
    sections = [_section(one, images_folder) for one in finished]
    title, contents = finished[0].title, ""
    if len(finished) > 1:
        title = f"{len(finished)} experiments"
        entries = "".join(f'<li><a href="#{_anchor(one)}">{html.escape(one.title)}</a></li>' for one in finished)
        contents = f"<ul>{entries}</ul>\n"
        headings = [f'<h2 id="{_anchor(one)}">{html.escape(one.title)}</h2>' for one in finished]
        sections = [f"{heading}\n{section}" for heading, section in zip(headings, sections, strict=True)]
    page = (
        f'<!doctype html>\n<html lang="en"><head><meta charset="utf-8"><title>{html.escape(title)}</title>\n'
        f'<meta name="viewport" content="width=device-width, initial-scale=1"><style>{STYLE}</style></head>\n<body>'
        f"<h1>{html.escape(title)}</h1>\n{contents}" + "\n".join(sections) + "\n</body></html>\n"
    )
    return page, "\n".join(_markdown(one) for one in finished)


def _anchor(finished: Finished) -> str:
    words = f"{finished.content['experiment']['name']}-{finished.content['scale']}"
    return "".join(letter if letter.isalnum() or letter in "-_" else "-" for letter in words)


def _section(finished: Finished, images_folder: Path) -> str:
    content, folder = finished.content, finished.folder
    experiment = content["experiment"]
    ours = _table(_means(finished.rows))
    against = _against(finished)
    paper = "".join(
        f"<h3>The paper's Table {number}, as published</h3>{_table(rows)}"
        for name in experiment["paper"]
        if (number := name.removeprefix("table")).isdigit() and (rows := paper_rows(int(number)))
    )
    fitted = _table(tabulate_fits(fit_paper_rows())) if FITTED_TABLES & set(experiment["paper"]) else ""
    parts = [
        f"<p>{html.escape(experiment['question'])}</p>",
        _figure(
            (folder / PICTURE_FILE).read_bytes(), "Means of the seeds with intervals at 95%; hollow: not converged."
        ),
        f'<div class="side"><div><h3>Measured here</h3>{ours}</div><div>{paper}</div></div>',
        f'<h3>Compared</h3><div class="wide">{_table(against)}</div>' if against else "",
        "<h3>What it says</h3>" + "".join(f"<p>{html.escape(line)}</p>" for line in _sentences(folder)),
        fitted
        and f"<h3>The same two forms through the paper's errors, 100 - top-1 in percent</h3>"
        f'<div class="wide">{fitted}</div>',
        *_checkpoints_at_work(finished, images_folder),
        f"<h3>What it cost</h3>{_table(_costs(finished.rows))}",
        f"<h3>Again</h3><pre>{html.escape(content['command'])}</pre>",
        f'<p class="note">{html.escape(_made_with(finished))}</p>',
    ]
    return "\n".join(parts)


def _against(finished: Finished) -> list[tuple[str, ...]]:
    """The comparisons with the reference, of experiments that have one."""
    experiment = finished.content["experiment"]
    return tabulate_comparisons(finished.content["comparisons"], experiment.get("reference"), experiment["x"])


def _markdown(finished: Finished) -> str:
    """The same for a card, in which a picture is a file beside it and checkpoints are not shown at work."""
    experiment = finished.content["experiment"]
    parts = [
        f"## {finished.title}",
        experiment["question"],
        f"![{experiment['title']}]({finished.folder.name}.png)",
        format_rows(_means(finished.rows)),
        *([format_rows(against)] if (against := _against(finished)) else []),
        *_sentences(finished.folder),
        f"```bash\n{finished.content['command']}\n```",
        _made_with(finished),
    ]
    return "\n\n".join(parts) + "\n"


def paper_rows(table: int) -> list[tuple[str, ...]]:
    """One of the paper's tables of results, from `model_cards/results.yaml`: a title, and a row for each model."""
    found: dict[str, dict[str, str]] = {}
    for entry in load_results()["checkpoints"].values():
        for number in [*entry.get("results", ()), *(entry.get("costs", ()) if table == 6 else ())]:
            if table not in number["source"].get("tables", ()):
                continue
            if number.get("metric", number.get("quantity")) == "parameters":
                continue
            words = [FAMILIES[entry["family"]].paper_title, entry["variant"], f"{entry['image_size']} px"]
            words += [entry["decoder"]] if "decoder" in entry else []
            column = f"patch {entry['patch_size']}"
            if "sequence_extended_to" in number:
                words.append("repeated tokens")
                column = f"{number['sequence_extended_to']:,} tokens"
            words.append((number.get("metric") or number["quantity"]).replace("_", " "))
            found.setdefault(", ".join(words), {})[column] = f"{number['value']:,}"
    columns = sorted(
        {column for row in found.values() for column in row},
        key=lambda column: (column.endswith("tokens"), -int("".join(filter(str.isdigit, column)))),
    )
    rows = [(name, *(row.get(column, "-") for column in columns)) for name, row in found.items()]
    return [("model", *columns), *rows] if rows else []


def _means(rows: list[dict[str, Any]]) -> list[tuple[str, ...]]:
    """Test losses and first scores of each curve over its axis."""
    axis = axis_of(rows[0])
    score, title = next((name, score.title) for name, score in TASKS[rows[0]["task"]].scores.items() if score.title)
    table = [("model", axis.replace("_", " "), "seeds", "test loss", title)]
    for series, members in by_series(rows).items():
        for place, same in by_axis(members).items():
            table.append(
                (
                    series,
                    readable(place),
                    str(len(same)),
                    format_mean(same, "test_loss", ".3f"),
                    format_mean(same, f"test_{score}", ".1f", "%"),
                )
            )
    return table


def _costs(rows: list[dict[str, Any]]) -> list[tuple[str, ...]]:
    """Of each curve and patch size what a run takes, means of the seeds."""
    table = [("model", "patch", "tokens", "parameters", "training FLOPs", "seconds", "memory")]
    for series, members in by_series(rows).items():
        for same in by_axis(members).values():
            run, seconds = same[0], [run["seconds"] for run in same]
            table.append(
                (
                    series,
                    str(run["patch_size"]),
                    f"{run['tokens']:,}",
                    f"{run['parameters']:,}",
                    f"{run['training_flops']:.2e}",
                    f"{sum(seconds) / len(seconds):,.0f}",
                    f"{max(run['peak_memory_mib'] for run in same):,.0f} MiB",
                )
            )
    return table


def _sentences(folder: Path) -> list[str]:
    """Of the report beside the results, what is neither a table nor about its columns."""
    paragraphs = (folder / TABLE_FILE).read_text(encoding="utf-8").split("\n\n")[2:]
    plain = [one for one in paragraphs if not one.startswith(("|", "After ±", "test loss: ", "A run counts", "Laws: "))]
    # What is indented belongs to the line before, and would be code in Markdown.
    return [line for one in plain for line in one.replace("\n    ", "; ").splitlines() if line.strip()]


def _made_with(finished: Finished) -> str:
    """Devices, packages and revisions of the runs, each once."""
    origins = [run["made_with"] for run in finished.content["runs"] if "made_with" in run]
    if not origins:  # of sweeps from before there was a note of them
        return f"{len(finished.content['runs'])} runs, of which none says with what it was made."
    devices = dict.fromkeys(f"{origin['processes']} x {origin['device']}" for origin in origins)
    packages = dict.fromkeys(
        ", ".join(f"{name} {version}" for name, version in origin["versions"].items()) for origin in origins
    )
    revisions = dict.fromkeys(str(origin["revision"])[:12] for origin in origins)
    dates = sorted(origin["date"][:10] for origin in origins)
    return (
        f"{len(finished.content['runs'])} runs, {dates[0]} to {dates[-1]}, on {', '.join(devices)}; "
        f"{'; '.join(packages)}; revision {', '.join(revisions)}."
    )


def _checkpoints_at_work(finished: Finished, images_folder: Path) -> list[str]:
    """For each group what the checkpoints of its first curve with several patch sizes make of test images."""
    parts, runs_folder = [], finished.runs_folder
    groups: dict[str, list[dict[str, Any]]] = {}
    for members in by_series(finished.rows).values():
        seed = min(run["seed"] for run in members)
        one_seed = [run for run in members if run["seed"] == seed and (runs_folder / run["name"]).exists()]
        if len({run["patch_size"] for run in one_seed}) > 1 and len({run["run"] for run in one_seed}) > 1:
            groups.setdefault(members[0]["group"], one_seed)
    for runs in groups.values():
        runs = sorted({run["patch_size"]: run for run in runs}.values(), key=lambda run: -run["patch_size"])
        recipe = build_recipe({**dataclasses.asdict(Recipe()), **runs[0]["recipe"]}, "the run")
        try:
            images = load_run_images(recipe, **runs[0]["data"], folder=images_folder)
        except ValueError as error:
            parts.append(f'<p class="note">Not shown at work: {html.escape(str(error))}</p>')
            continue
        loaded = {run["patch_size"]: load_checkpoint(str(runs_folder / run["name"])) for run in runs}
        is_classifier = recipe.task == ClassificationTask.name
        parts.append(f"<h3>{html.escape(runs[0]['series'])}, seed {runs[0]['seed']}, on test images</h3>")
        parts.append(
            _disagreements(loaded, images) if is_classifier else _predictions(loaded, images, TASKS[recipe.task])
        )
        parts.append(_maps(loaded, images, FAMILIES[runs[0]["family"]]))
    return parts or ['<p class="note">The checkpoints of these runs are not here, so none is shown at work.</p>']


Loaded = dict[int, tuple[PreTrainedModel, BaseImageProcessor]]


def _disagreements(loaded: Loaded, images: Any) -> str:
    """Test images of which some patch sizes know the class and others do not, first those that the smallest knows."""
    number = min(SEARCHED_IMAGES, len(images.evaluation))
    examples = [images.evaluation[index] for index in range(number)]
    found = {
        size: [class_probabilities(model, processor, image) for image, _ in examples]
        for size, (model, processor) in loaded.items()
    }
    right = np.array(
        [[row.argmax() == label for row, (_, label) in zip(rows, examples, strict=True)] for rows in found.values()]
    )
    split = [index for index in range(number) if 0 < right[:, index].sum() < len(right)]
    split.sort(key=lambda index: (not right[-1, index], right[:, index].sum()))
    if not split:
        return f'<p class="note">All patch sizes agree on the first {number} test images.</p>'
    head = "".join(f"<th>patch {size}</th>" for size in found)
    rows = []
    for index in split[:SHOWN_IMAGES]:
        image, label = examples[index]
        cells = []
        for size in found:
            probability, guess = found[size][index].max(0)
            kind = "right" if int(guess) == label else "wrong"
            cells.append(f'<td class="{kind}">{html.escape(images.label_names[int(guess)])} {probability:.0%}</td>')
        picture = _picture(image.convert("RGB"))
        rows.append(f"<tr><td>{picture} {html.escape(images.label_names[label])}</td>{''.join(cells)}</tr>")
    return (
        f"<p>Of the first {number} test images patch sizes disagree on {len(split)}; here are {len(rows)} of them.</p>"
        f"<table><tr><th>image and class</th>{head}</tr>{''.join(rows)}</table>"
    )


def _predictions(loaded: Loaded, images: Any, task: Any) -> str:
    """What is there in some test images, and what is predicted at each patch size."""
    head = "".join(f"<th>patch {size}</th>" for size in loaded)
    rows = []
    for index in range(min(MAPPED_IMAGES, len(images.evaluation))):
        image, truth = images.evaluation[index]
        drawn = [visualize(model, processor, image) for model, processor in loaded.values()]
        pictures = [task.draw_truth(image, truth, images.label_names) or image, *drawn]
        rows.append("<tr>" + "".join(f"<td>{_picture(picture, DRAWN_SIDE)}</td>" for picture in pictures) + "</tr>")
    return f'<div class="wide"><table><tr><th>truth</th>{head}</tr>{"".join(rows)}</table></div>'


def _maps(loaded: Loaded, images: Any, family: Any) -> str:
    """What the last block does at each patch size with some test images, as bright as it is large in the image."""
    head = "".join(f"<th>patch {size}</th>" for size in loaded)
    rows = []
    for index in range(min(MAPPED_IMAGES, len(images.evaluation))):
        image = images.evaluation[index][0].convert("RGB")
        cells = [f"<td>{_picture(image)}</td>"]
        for model, processor in loaded.values():
            pixel_values = processor(image, return_tensors="pt").pixel_values
            values = family.token_map(model, pixel_values)[0].float()
            span = (values.max() - values.min()).clamp(min=1e-12)
            scaled = ((values - values.min()) / span * 255).round().to(torch.uint8).numpy()
            cells.append(f"<td>{_picture(Image.fromarray(scaled))}</td>")
        rows.append(f"<tr>{''.join(cells)}</tr>")
    caption = f"{family.token_map_title}, from least (black) to most (white) of the image".capitalize()
    return f'<table><tr><th>image</th>{head}</tr>{"".join(rows)}</table><p class="note">{html.escape(caption)}.</p>'


def _picture(image: Image.Image, side: int = PICTURE_SIDE) -> str:
    buffer = io.BytesIO()
    image.save(buffer, format="PNG")
    content = base64.b64encode(buffer.getvalue()).decode()
    return f'<img class="pixel" width="{side}" alt="" src="data:image/png;base64,{content}">'


def _figure(content: bytes, caption: str) -> str:
    data = base64.b64encode(content).decode()
    return (
        f'<figure><img alt="{html.escape(caption)}" src="data:image/png;base64,{data}">'
        f"<figcaption>{html.escape(caption)}</figcaption></figure>"
    )


def _table(rows: list[tuple[str, ...]]) -> str:
    title, *others = rows
    head = "".join(f"<th>{html.escape(cell)}</th>" for cell in title)
    body = "".join("<tr>" + "".join(f"<td>{html.escape(cell)}</td>" for cell in row) + "</tr>" for row in others)
    return f"<table><tr>{head}</tr>{body}</table>"
