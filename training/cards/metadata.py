# Copyright 2026 The modeling_pixelvit team. All rights reserved.
# SPDX-License-Identifier: Apache-2.0
"""The metadata at the top of a model card, and the measured numbers that stand there and in its table."""

import math
import re
from typing import Any

from huggingface_hub import EvalResult, ModelCardData

from ..families.base import ARCHITECTURES
from ..families.registry import FAMILIES
from ..tasks.base import Score
from ..tasks.registry import known_scores
from .results import Row, load_results
from .text import plain, without_folders


UNKNOWN_LICENSE = "unknown"  # the hub's id for weights that came without a licence
EXAMPLE_FILE = "example.png"
# What training, sweeps and publishing call the embedded data.
DATASET_ALIASES = {"embedded digits": "digits", "digit scenes": "digit-scenes"}
LOSS = Score(None, "loss", "loss")


def card_metadata(
    task: str,
    family: str,
    name: str,
    license: str | None,
    origin: dict[str, Any] | None,
    evaluations: list[EvalResult],
    dataset: str | None,
) -> ModelCardData:
    """
    What stands at the top of a card.

    Args:
        task, family: What the model does and is.
        name: The model's.
        license: The hub's id; None: there is none.
        origin: The repository that the weights come from, as `repo_id`.
        evaluations: Of the card's own weights.
        dataset: What they were trained on, by the name in `results.yaml`; others are not on the hub.
    """
    hub_dataset = load_results()["datasets"].get(dataset, {}).get("hub")
    tags = [*FAMILIES[family].tags, "pixel-tokens", "vision", "custom_code"]
    if task == "detection":
        tags.append("instance-segmentation")
    return ModelCardData(
        license=license or UNKNOWN_LICENSE,
        library_name="transformers",
        pipeline_tag=ARCHITECTURES[task].hub_task,
        tags=tags,
        datasets=[hub_dataset] if hub_dataset else None,
        metrics=sorted({evaluation.metric_type for evaluation in evaluations} - {LOSS.hub}) or None,
        base_model=origin["repo_id"] if origin else None,
        widget=[{"src": EXAMPLE_FILE, "example_title": "Example"}],
        model_name=name if evaluations else None,
        eval_results=evaluations or None,
    )


def paper_evaluations(entry: dict[str, Any]) -> list[EvalResult]:
    """The paper's numbers of a checkpoint; those of other models in its table are left out."""
    contents, evaluations = load_results(), []
    for result in entry.get("results", ()):
        if "sequence_extended_to" in result:
            continue
        score, dataset = known_scores()[result["metric"]], contents["datasets"][result["dataset"]]
        source = contents["paper"]
        if release := result["source"].get("release"):
            source = {"name": f"{release}, by the paper's authors", "url": f"https://huggingface.co/{release}"}
        evaluations.append(
            EvalResult(
                task_type=ARCHITECTURES[entry["task"]].hub_task,
                dataset_type=dataset["hub"],
                dataset_name=dataset["name"],
                dataset_split=result["split"],
                metric_type=score.hub,
                metric_name=f"{score.name} (percent)",
                metric_value=result["value"],
                source_name=source["name"],
                source_url=source["url"],
                verified=False,
            )
        )
    return evaluations


def measured(metrics: dict[str, Any], task: str) -> tuple[list[Row], list[EvalResult]]:
    """
    What was measured of the weights at hand, for the table and for the metadata, in percent.

    Args:
        metrics: As `render_checkpoint_card` takes it.
        task: What the model does.

    Raises:
        ValueError: if the data set is missing or a metric is no share.
    """
    if not metrics.get("dataset"):
        raise ValueError("metrics has no 'dataset'; a card must say on which data its numbers were measured.")
    rows, evaluations = [], []
    described = describe_dataset(metrics["dataset"])
    split, source = plain(metrics.get("split") or "test"), plain(metrics.get("source") or "")
    for metric, score in {**known_scores(), "loss": LOSS}.items():
        if metric not in metrics:
            continue
        is_share = metric != "loss"
        value = checked_number(metric, metrics[metric], most=1.0 if is_share else math.inf)
        text = f"{value:.1%}" if is_share else f"{value:.3f}"
        rows.append(Row(f"{score.name}, {described['name']} ({split})", text, f"ours: {source}" if source else "ours"))
        evaluations.append(
            EvalResult(
                task_type=ARCHITECTURES[task].hub_task,
                dataset_type=described.get("hub") or described["id"],
                dataset_name=described["name"],
                dataset_split=split,
                metric_type=score.hub,
                metric_name=f"{score.name} (percent)" if is_share else score.name,
                metric_value=round(100 * value, 2) if is_share else round(value, 4),
                source_name=source or None if metrics.get("source_url") else None,
                source_url=metrics.get("source_url"),
                verified=False,
            )
        )
    return rows, evaluations


def dataset_key(dataset: Any) -> str:
    """The name that `results.yaml` has for a data set, or else the one that was given, of a path its last name."""
    name = str(without_folders(str(dataset)))
    return DATASET_ALIASES.get(name, name)


def describe_dataset(dataset: Any) -> dict[str, Any]:
    """Its `name` for readers, `id` and, if it is on the hub, `hub`."""
    key = dataset_key(dataset)
    known = load_results()["datasets"].get(key, {"name": plain(key)})
    return {**known, "id": re.sub(r"[^\w.-]+", "-", key).strip("-") or "data"}


def checked_number(metric: str, value: Any, most: float) -> float:
    """A metric's value, if it is a number from 0 to `most`; a ValueError else."""
    is_number = isinstance(value, (int, float)) and not isinstance(value, bool)
    if not is_number or not 0 <= value <= most or not math.isfinite(value):
        allowed = "a share from 0 to 1 (divide percent by 100)" if most == 1 else "a finite number of at least 0"
        raise ValueError(f"metrics gives {value!r} for {metric}; it must be {allowed}.")
    return float(value)
