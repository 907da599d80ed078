# Copyright 2026 The modeling_pixelvit team. All rights reserved.
# SPDX-License-Identifier: Apache-2.0
"""The metadata at the top of a model card: checks of what the hub would refuse, without asking the hub."""

import math
import re
from typing import Any

import yaml
from huggingface_hub import ModelCardData
from huggingface_hub.repocard_data import eval_results_to_model_index, model_index_to_eval_results
from huggingface_hub.utils import HFValidationError, validate_repo_id
from transformers.pipelines import PIPELINE_REGISTRY


FRONT_MATTER = re.compile(r"\A---\r?\n(?P<metadata>.*?)\r?\n---\r?\n(?P<body>.*)\Z", re.DOTALL)
# What huggingface.co/docs/hub/repositories-licenses lists, but for "other", which needs a name that no card here gives.
LICENSE_IDS = """
    afl-3.0 agpl-3.0 apache-2.0 apple-amlr apple-ascl artistic-2.0 bigcode-openrail-m
    bigscience-bloom-rail-1.0 bigscience-openrail-m bsd bsd-2-clause bsd-3-clause bsd-3-clause-clear bsl-1.0
    c-uda cc cc-by-2.0 cc-by-2.5 cc-by-3.0 cc-by-4.0 cc-by-nc-2.0 cc-by-nc-3.0 cc-by-nc-4.0 cc-by-nc-nd-3.0
    cc-by-nc-nd-4.0 cc-by-nc-sa-2.0 cc-by-nc-sa-3.0 cc-by-nc-sa-4.0 cc-by-nd-4.0 cc-by-sa-3.0 cc-by-sa-4.0
    cc0-1.0 cdla-permissive-1.0 cdla-permissive-2.0 cdla-sharing-1.0 creativeml-openrail-m
    deepfloyd-if-license ecl-2.0 epl-1.0 epl-2.0 etalab-2.0 eupl-1.1 eupl-1.2
    fair-noncommercial-research-license gemma gfdl gpl gpl-2.0 gpl-3.0 grok2-community h-research
    intel-research isc lgpl lgpl-2.1 lgpl-3.0 lgpl-lr llama2 llama3 llama3.1 llama3.2 llama3.3 llama4
    lppl-1.3c mit mpl-2.0 ms-pl ncsa odbl odc-by ofl-1.1 openmdw-1.0 openmdw-1.1 openrail openrail++ osl-3.0
    pddl postgresql unknown unlicense wtfpl zlib
"""
LICENSES = frozenset(LICENSE_IDS.split())
METRIC_NAME = re.compile(r"[a-zA-Z0-9][\w.@-]*(/[\w.@-]+)?")


def split_card(text: str) -> tuple[dict[str, Any], str]:
    """
    A card's metadata and its body.

    Raises:
        ValueError: if there is no metadata block, or it is no YAML mapping.
    """
    match = FRONT_MATTER.match(text)
    if match is None:
        raise ValueError("The card has no metadata; it must begin with a line ---, YAML, and another line ---.")
    try:
        metadata = yaml.safe_load(match["metadata"])
    except yaml.YAMLError as error:
        raise ValueError(f"The card's metadata is no YAML ({' '.join(str(error).split())}); mend it.") from None
    if not isinstance(metadata, dict) or not all(isinstance(key, str) for key in metadata):
        raise ValueError("The card's metadata is no YAML mapping of names to values; write `name: value` lines.")
    return metadata, match["body"]


def validate_card(text: str):
    """
    Checks a card's metadata as the hub does when it is pushed, and that what a published model needs is there.

    Args:
        text: The whole README.md.

    Raises:
        ValueError: in one sentence, for the first thing that is wrong.
    """
    metadata, body = split_card(text)
    _check_task(metadata.get("pipeline_tag"))
    _check_license(metadata)
    tags = _strings(metadata, "tags")
    if len(set(tags)) < len(tags):
        raise ValueError("The card's tags name one of them twice; leave it out.")
    for field in ("datasets", "base_model"):
        for name in _strings(metadata, field):
            _check_repo_id(name, field)
    for metric in _strings(metadata, "metrics"):
        if not METRIC_NAME.fullmatch(metric):
            raise ValueError(f"metrics names {metric!r} in the card; give ids such as 'accuracy' or 'mean_iou'.")
    _check_model_index(metadata)
    if not body.strip():
        raise ValueError("The card has metadata but no text; say what the model is.")


def _check_task(task: Any):
    tasks = PIPELINE_REGISTRY.get_supported_tasks()
    if task not in tasks:
        raise ValueError(f"pipeline_tag is {task!r} in the card; it must be a task such as 'image-classification'.")


def _check_license(metadata: dict[str, Any]):
    given = metadata.get("license")
    if not isinstance(given, str) or given not in LICENSES:
        raise ValueError(
            f"license is {given!r} in the card; the hub takes its own lower-case ids, such as 'apache-2.0' or "
            "'unknown'."
        )


def _strings(metadata: dict[str, Any], field: str) -> list[str]:
    """A field that holds a string or a list of strings, as a list; empty if it is not there."""
    values = metadata.get(field, [])
    values = [values] if isinstance(values, str) else values
    if not isinstance(values, list) or not all(isinstance(value, str) and value.strip() for value in values):
        raise ValueError(f"{field} is {values!r} in the card; it must be a list of names.")
    return values


def _check_repo_id(name: str, field: str):
    try:
        validate_repo_id(name)
    except HFValidationError:
        raise ValueError(f"{field} names {name!r} in the card; give the id that it has on the hub.") from None


def _is_url(value: Any) -> bool:
    return isinstance(value, str) and re.fullmatch(r"https?://[^\s/]+\S*", value) is not None


def _check_model_index(metadata: dict[str, Any]):
    """That huggingface_hub reads the results, that nothing is lost on the way, and that they are numbers of a task."""
    index = metadata.get("model-index")
    if index is None:
        return
    if not isinstance(index, list) or len(index) != 1:
        raise ValueError("model-index in the card is no list of one model; write it anew.")
    try:
        data = ModelCardData(**metadata)
        name, results = model_index_to_eval_results(index)
        written = eval_results_to_model_index(name, results)
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise ValueError(f"model-index in the card is not as the hub wants it ({error}); write it anew.") from None
    if written != index or data.eval_results != results:
        raise ValueError(
            "model-index in the card has entries that the hub does not know, or results of one data set in two places; "
            "write it anew."
        )
    for result in results:
        _check_task(result.task_type)
        names = (name, result.dataset_type, result.dataset_name, result.metric_type)
        if not all(isinstance(one, str) and one.strip() for one in names):
            raise ValueError(
                "model-index in the card lacks the name of the model, a data set or a metric; write it anew."
            )
        value = result.metric_value
        if isinstance(value, bool) or not isinstance(value, (int, float)) or not math.isfinite(value):
            raise ValueError(f"model-index gives {value!r} for {result.metric_type} in the card; it must be a number.")
        if result.source_url is not None and not _is_url(result.source_url):
            raise ValueError(f"model-index names the source {result.source_url!r} in the card; it must be a URL.")
