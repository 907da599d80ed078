# Copyright 2026 The modeling_pixelvit team. All rights reserved.
# SPDX-License-Identifier: Apache-2.0
"""The list of all cards of the paper's checkpoints: `model_cards/README.md`."""

from typing import Any

from ..families.registry import FAMILIES
from .results import load_results, paper_checkpoints


INTRODUCTION = """\
# Model cards of the paper's checkpoints

The checkpoints of "Scaling Laws in Patchification" (arXiv 2502.03738), with a card for each of which somebody has the
weights; `python -m training.model_card NAME` prints that of any other, such as `deit-base-patch1-64`. **We have
published no repository of these names**: `USER` in the cards stands for whoever does, and `python -m training.publish`
writes a card of its own for every checkpoint.

Numbers below are percent **as the paper publishes them, not measured here**: top-1 accuracy on ImageNet-1k, mean IoU on
ADE20k, AP of boxes on COCO. Where a number is a link, to the card, weights can be had by
`python -m training.import_released NAME`; the authors of Adventurer's gave no licence with them. A dash is a model of
which the paper measures the cost alone.

`results.yaml` has all numbers, the paper's and those of our sweeps, each with where it came from. It and `template.md`
are what to edit; `python -m training.model_card` renders the cards and this page, and `--check` says what is out of
date.
"""
TITLES = {
    "classification": "Classification (ImageNet-1k)",
    "segmentation": "Segmentation (ADE20k, 512 pixels)",
    "detection": "Detection and instance segmentation (COCO, 1024 pixels)",
}


def row_title(entry: dict[str, Any]) -> str:
    """What the cards of a row have in common."""
    family = FAMILIES[entry["family"]].paper_title
    model = f"{family}-{entry['variant'].capitalize()}"
    if entry["task"] == "classification":
        return f"{model}, {entry['image_size']} pixels"
    return {"upernet": f"{model}, UperNet", "none": f"{model}, no decoder"}.get(entry.get("decoder"), model)


def link_to_card(name: str, entry: dict[str, Any]) -> str:
    """The checkpoint's first number, as a link to its card if there are weights."""
    text = f"{entry['results'][0]['value']:.1f}" if entry.get("results") else "-"
    return f"[{text}]({name}.md)" if "weights" in entry else text


def render_index() -> str:
    """The text of `model_cards/README.md`."""
    parts = [INTRODUCTION]
    for task, title in TITLES.items():
        entries = {name: entry for name, entry in paper_checkpoints().items() if entry["task"] == task}
        patches = sorted({entry["patch_size"] for entry in entries.values()}, reverse=True)
        rows: dict[str, dict[int, str]] = {}
        for name, entry in entries.items():
            rows.setdefault(row_title(entry), {})[entry["patch_size"]] = link_to_card(name, entry)
        lines = [f"| model | {' | '.join(f'p{patch}' for patch in patches)} |", "|---" * (len(patches) + 1) + "|"]
        lines += [f"| {row} | {' | '.join(cells.get(patch, '') for patch in patches)} |" for row, cells in rows.items()]
        parts.append(f"## {title}\n\n" + "\n".join(lines) + "\n")
    measured = ", ".join(f"`{entry['file']}`" for entry in load_results()["measurements"].values())
    parts.append(f"Our own measurements are from {measured}.\n")
    return "\n".join(parts)
