# Copyright 2026 The modeling_pixelvit team. All rights reserved.
# SPDX-License-Identifier: Apache-2.0
"""Where a checkpoint lies that is to be published, and what the run that made it has measured and noted down."""

import dataclasses
import math
from pathlib import Path
from typing import Any

import yaml

from ..checkpoints.reading import read_json_object
from ..engine.checkpoints import BEST_LINK, EVALUATION_FILE, find_checkpoint
from ..engine.log import METRICS_FILE as LOG_FILE
from ..engine.log import read_metrics
from ..engine.loop import AVERAGE, CURRENT
from ..engine.state import AVERAGE_FOLDER, PROGRESS_FILE, RECIPE_FILE
from ..experiments.run import METRICS_FILE as SWEEP_FILE
from ..finetuning.arguments import SETTINGS_FILE as FINETUNE_FILE


# What the Trainer puts among the metrics.
NOT_METRICS = ("runtime", "samples_per_second", "steps_per_second", "samples", "epoch")
# transformers' Trainer writes it beside the weights of a whole training, and its state beside those of a checkpoint.
TRAINER_RESULTS = "eval_results.json"


@dataclasses.dataclass
class Source:
    """
    A checkpoint and its origin.

    Args:
        folder: For `from_pretrained`.
        metrics: Measured by us, shares from 0 to 1 by their names, with "dataset" and "source"; None: not known.
        training: The recipe or the settings that it was trained by; None: not known.
    """

    folder: Path
    metrics: dict[str, Any] | None = None
    training: dict[str, Any] | None = None


def find_source(checkpoint: str, average: bool = False, dataset: str | None = None) -> Source:
    """
    Finds weights, metrics and recipe of a checkpoint.

    Args:
        checkpoint: Folder of a model, of a training run (its last complete checkpoint is taken) or of a sweep's run.
        average: The averaged weights instead of those of the last step.
        dataset: What the metrics were measured on, where the run does not tell.

    Raises:
        ValueError: in one sentence, if there is no such checkpoint.
    """
    given = Path(checkpoint)
    if not given.is_dir():
        raise ValueError(f"There is no folder {checkpoint}; give the folder of a checkpoint or of a run.")
    # The name of a link such as `best` says what it is for; files beside it are found from where it lies.
    found = given if (given / "config.json").is_file() else find_checkpoint(given)
    folder = found / AVERAGE_FOLDER if average else found
    if not (folder / "config.json").is_file():
        raise ValueError(f"{found} has no averaged weights; publish it without --average.")
    training = read_training(found)
    metrics = _sweep_metrics(found) or _loop_metrics(found, average) or _trainer_metrics(found)
    if metrics is not None:
        metrics["dataset"] = dataset or metrics.get("dataset") or (training or {}).get("dataset")
    return Source(folder, metrics, training)


def read_training(folder: Path) -> dict[str, Any] | None:
    """The recipe or the Trainer script's settings beside a checkpoint; paths are cut down to their last names."""
    if (folder / RECIPE_FILE).is_file():
        settings = yaml.safe_load((folder / RECIPE_FILE).read_text(encoding="utf-8"))
    elif (folder / FINETUNE_FILE).is_file():
        settings = read_json_object(folder / FINETUNE_FILE)
    elif (folder.parent / FINETUNE_FILE).is_file():
        settings = read_json_object(folder.parent / FINETUNE_FILE)
    else:
        return None
    return {name: without_folders(value) for name, value in settings.items()} if isinstance(settings, dict) else None


def without_folders(value: Any) -> Any:
    """The last name of a path on this machine; anything else as it is, the id of a hub repository too."""
    if not isinstance(value, str) or "/" not in value:
        return value
    is_path = value.startswith(("/", ".", "~")) or value.count("/") > 1 or Path(value).exists()
    return Path(value).name if is_path else value


def _sweep_metrics(folder: Path) -> dict[str, Any] | None:
    if not (folder / SWEEP_FILE).is_file():
        return None
    content = read_json_object(folder / SWEEP_FILE)
    metrics = _shares(content, "test_")
    data = content.get("data") or {}
    return {**metrics, "dataset": data.get("source"), "split": "test", "source": "training.sweep"} if metrics else None


def _loop_metrics(folder: Path, average: bool) -> dict[str, Any] | None:
    """Of a checkpoint what its `progress.json` tells, if it was evaluated there; of `best` what the run's log tells."""
    prefix = (AVERAGE if average else CURRENT) + "_"
    if (folder / PROGRESS_FILE).is_file():
        progress = read_json_object(folder / PROGRESS_FILE).get("progress", {})
        evaluated = progress.get("metrics", {}) if progress.get("evaluated_step") == progress.get("step") else {}
    elif (folder / EVALUATION_FILE).is_file():
        content = read_json_object(folder / EVALUATION_FILE)
        evaluated = {prefix + name: value for name, value in content.get("metrics", {}).items()}
    elif folder.resolve().name.startswith(f"{BEST_LINK}-"):
        run, step = folder.resolve().parent, int(folder.resolve().name.rsplit("-", 1)[1])
        log = read_metrics(run) if (run / LOG_FILE).is_file() else []
        evaluated = next((record for record in reversed(log) if record["step"] == step and "eval_loss" in record), {})
        # Of weights and their average the better one was kept, and a folder without evaluation does not say which.
        if any(name.startswith(f"{AVERAGE}_") for name in evaluated):
            return None
    else:
        return None
    averages = {name: value for name, value in evaluated.items() if name.startswith(f"{AVERAGE}_")}
    metrics = _shares(averages if average else {k: v for k, v in evaluated.items() if k not in averages}, prefix)
    return {**metrics, "split": "evaluation", "source": "training.train"} if metrics else None


def _trainer_metrics(folder: Path) -> dict[str, Any] | None:
    if not (folder / TRAINER_RESULTS).is_file():
        return None
    metrics = _shares(read_json_object(folder / TRAINER_RESULTS), "eval_")
    return {**metrics, "split": "evaluation", "source": "training.finetune"} if metrics else None


def _shares(content: dict[str, Any], prefix: str) -> dict[str, float]:
    """The finite metrics of a prefix, without it; percentages as shares."""
    metrics = {}
    for name, value in content.items():
        short = name.removeprefix(prefix)
        is_number = isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)
        # COCO's numbers are -1 where there is no object of their kind.
        if name.startswith(prefix) and is_number and value >= 0 and short not in NOT_METRICS:
            metrics[short] = value if short == "loss" else value / 100
    return metrics
