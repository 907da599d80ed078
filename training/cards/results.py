# Copyright 2026 The modeling_pixelvit team. All rights reserved.
# SPDX-License-Identifier: Apache-2.0
"""The numbers of `model_cards/results.yaml`: the paper's checkpoints, what is reported of them, and by whom."""

import functools
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from transformers import PreTrainedConfig

from modeling_pixelvit.configuration_base import as_pair

from ..families.base import ARCHITECTURES
from ..families.registry import FAMILIES, architecture_of, model_classes, variant_of
from ..tasks.registry import known_scores


ROOT = Path(__file__).parents[2]
CARDS_FOLDER = ROOT / "model_cards"
RESULTS_FILE = CARDS_FOLDER / "results.yaml"


@dataclass(frozen=True)
class Row:
    """A line of a card's table: what was measured, the number with its unit, and who says so."""

    what: str
    value: str
    source: str


@functools.cache
def load_results() -> dict[str, Any]:
    """The whole of `model_cards/results.yaml`."""
    return yaml.safe_load(RESULTS_FILE.read_text(encoding="utf-8"))


def numbers_of(entry: dict[str, Any]) -> list[dict[str, Any]]:
    """Results and costs of a checkpoint."""
    return [*entry.get("results", ()), *entry.get("costs", ())]


def paper_checkpoints() -> dict[str, dict[str, Any]]:
    """The checkpoints of which the paper, or its authors' release, reports a number."""
    return {
        name: entry
        for name, entry in load_results()["checkpoints"].items()
        if any(number["source"]["kind"] == "paper" for number in numbers_of(entry))
    }


def dataset_of(entry: dict[str, Any]) -> str:
    """The data set that a checkpoint of the paper is made for."""
    return {"classification": "imagenet-1k", "segmentation": "ade20k", "detection": "coco"}[entry["task"]]


def architecture_for(family: str, task: str) -> str:
    """The name of the class of a family and a task."""
    return FAMILIES[family].model_classes[ARCHITECTURES[task]].__name__


def task_of(architecture: str) -> str:
    """
    The task of a class by its name.

    Raises:
        ValueError: for a class that has no card.
    """
    known = model_classes()
    if architecture not in known:
        raise ValueError(f"{architecture} was given; there are cards for {', '.join(known)}.")
    return architecture_of(known[architecture]).does


def paper_config(entry: dict[str, Any]) -> PreTrainedConfig:
    """The configuration of a checkpoint of the paper."""
    num_labels = load_results()["datasets"][dataset_of(entry)]["num_labels"]
    sizes = {field: entry[field] for field in ("patch_size", "image_size")}
    decoder = {"decoder": entry["decoder"]} if "decoder" in entry else {}
    return FAMILIES[entry["family"]].config_class.from_variant(
        entry["variant"], num_labels=num_labels, **sizes, **decoder
    )


def paper_name_of(config: PreTrainedConfig, architecture: str) -> str | None:
    """The paper's checkpoint that has the same configuration, whatever its weights, or None."""
    task, variant = task_of(architecture), variant_of(config)
    for name, entry in paper_checkpoints().items():
        decoder = config.decoder_type if task == "segmentation" else None
        if (entry["family"], entry["task"], entry["variant"], entry.get("decoder")) != (
            *(config.model_type, task, variant),
            decoder,
        ):
            continue
        num_labels = load_results()["datasets"][dataset_of(entry)]["num_labels"]
        if (entry["patch_size"], as_pair(entry["image_size"]), num_labels, 1) == (
            *(config.patch_size, as_pair(config.image_size)),
            config.num_labels,
            config.sequence_extension,
        ):
            return name
    return None


def source_text(source: dict[str, Any]) -> str:
    """Who says a number, for a table's column."""
    if source["kind"] == "measured":
        measured = load_results()["measurements"][source["measurement"]]
        return f"ours: {measured['file']}, {measured['date']}, {measured['hardware']}"
    if "release" in source:
        return f"paper's authors, at [{source['release']}](https://huggingface.co/{source['release']})"
    tables = [str(table) for table in source["tables"]]
    if len(tables) == 1:
        return f"paper, Table {tables[0]}"
    return f"paper, Tables {', '.join(tables[:-1])} and {tables[-1]}"


def result_rows(entry: dict[str, Any]) -> list[Row]:
    """The accuracies of a checkpoint, one line each."""
    results, rows = load_results(), []
    for result in entry.get("results", ()):
        dataset = results["datasets"][result["dataset"]]["name"]
        what = f"{known_scores()[result['metric']].name}, {dataset} ({result['split']})"
        if "sequence_extended_to" in result:
            what += f", another model: the sequence extended to {result['sequence_extended_to']:,} tokens"
        rows.append(Row(what, f"{result['value']:.1f}%", source_text(result["source"])))
    return rows


def cost_rows(entry: dict[str, Any]) -> list[Row]:
    """The costs that are reported or measured of a checkpoint, one line each."""
    quantities, rows = load_results()["quantities"], []
    for cost in entry.get("costs", ()):
        quantity = quantities[cost["quantity"]]
        what = quantity["name"] + (f", {cost['condition']}" if "condition" in cost else "")
        rows.append(Row(what, f"{cost['value']:,} {quantity['unit']}", source_text(cost["source"])))
    return rows
