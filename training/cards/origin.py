# Copyright 2026 The modeling_pixelvit team. All rights reserved.
# SPDX-License-Identifier: Apache-2.0
"""What a model card says of where the weights come from, under which licence, and how they were trained."""

import re
from typing import Any

import yaml
from huggingface_hub.utils import HFValidationError, validate_repo_id

from .checks import LICENSES
from .text import plain, without_folders


LAUNCH = "accelerate launch --config_file training/configs/a100x8.yaml -m"


def check_repo_id(repo_id: str):
    """
    Raises:
        ValueError: if it is not USER/NAME as the hub takes it.
    """
    try:
        validate_repo_id(repo_id)
    except HFValidationError:
        raise ValueError(
            f"{repo_id!r} was given as the repository's name; give USER/NAME as the hub takes it."
        ) from None
    if "/" not in repo_id:
        raise ValueError(f"{repo_id!r} was given as the repository's name; give USER/NAME, the user too.")


def is_name(value: Any) -> bool:
    """Whether a value is a name of letters, digits, dots, hyphens and slashes: nothing that Markdown would read."""
    return isinstance(value, str) and re.fullmatch(r"[\w.-]+(/[\w.-]+)*", value) is not None


def checked_origin(origin: Any) -> dict[str, str | None]:
    """
    `config.weights_origin`, its entries fit to be written into a card.

    Raises:
        ValueError: if it is not what the import writes.
    """
    fields = ("name", "repo_id", "filename")
    if not isinstance(origin, dict) or not all(is_name(origin.get(field)) for field in fields):
        raise ValueError(
            "weights_origin in the config is not as the import writes it (name, repo_id, filename, sha256, license, "
            "entry); import the checkpoint anew."
        )
    check_repo_id(origin["repo_id"])
    license = origin.get("license")
    if license is not None and (not isinstance(license, str) or license not in LICENSES):
        raise ValueError(f"weights_origin in the config has the licence {plain(license)}; it must be an id or null.")
    checksum = str(origin.get("sha256") or "")
    return {
        **{field: origin[field] for field in fields},
        "license": license,
        "sha256": checksum if re.fullmatch(r"[0-9a-f]{64}", checksum) else None,
        "entry": plain(origin.get("entry") or "model"),
    }


def link_to(repo_id: str) -> str:
    return f"[{repo_id}](https://huggingface.co/{repo_id})"


def weights_of_origin(origin: dict[str, str | None], released: bool) -> str:
    """What is said of weights that were converted from a released file, or trained on from there."""
    checksum = f", SHA-256 `{origin['sha256']}`" if origin["sha256"] else ""
    averaged = ", the running average" if origin["entry"] == "model_ema" else ""
    file = f"`{origin['filename']}` ({origin['name']}{averaged}{checksum}) in {link_to(origin['repo_id'])}"
    text = f"**Weights:** converted from {file}." if released else f"**Weights:** they come from {file}; see Training."
    return f"{text} {license_text(origin['license'])}"


def license_text(license: str | None) -> str:
    if license is not None:
        return f"That repository's licence is {license}."
    return (
        "**That repository has no licence:** nobody but its authors may pass the weights on, so ask them before you "
        "publish them. (The code beside them is Apache-2.0.)"
    )


def weights_of_paper(name: str, weights: dict[str, Any] | None, has_results: bool) -> str:
    """Whether there are weights for one of the paper's checkpoints, and how to get them."""
    if weights is None and has_results:
        return (
            "**Weights: not released.** The paper reports this model; its authors have published no weights of it. "
            "This card is for those who train it."
        )
    if weights is None:
        return (
            "**Weights: none.** The paper measures what this model costs and reports no accuracy of it. This card is "
            "for those who train it."
        )
    command = f"`python -m training.import_released {name}`"
    text = (
        f"**Weights:** `{weights['filename']}` in {link_to(weights['repo_id'])}; {command} downloads and converts it."
    )
    return f"{text} {license_text(weights['license'])}"


# How it was trained


def recipe_text(training: dict[str, Any] | None, origin: dict[str, Any] | None, released: bool) -> str:
    """
    The recipe that a checkpoint was trained by, as far as it is known; of released weights their repository tells.

    Raises:
        ValueError: if the recipe holds something other than plain values, lists and dicts.
    """
    if origin and released:
        return (
            f"By those who released the weights; see {link_to(origin['repo_id'])}. Converting them changed no number."
        )
    start = f"It began with the weights of {origin['name']}. " if origin else ""
    if not training:
        return f"{start}What the weights were trained on, and how, is not recorded with them."
    try:
        text = yaml.safe_dump(without_folders(training), sort_keys=False, allow_unicode=True, width=100)
    except yaml.YAMLError:
        raise ValueError(
            "training holds something other than numbers, strings, lists and dicts; leave it out."
        ) from None
    text = text.replace("```", "'''")
    return (
        f"{start}By the training code of modeling_pixelvit, with this recipe:\n\n"
        f"<details>\n<summary>Recipe</summary>\n\n```yaml\n{text}```\n\n</details>"
    )


def paper_training(entry: dict[str, Any]) -> str:
    """How to train one of the paper's checkpoints."""
    task, variant, patch, side = (entry[field] for field in ("task", "variant", "patch_size", "image_size"))
    family, large = entry["family"], "-large" if variant in ("large", "huge") else ""
    sizes = f"--variant {variant} --patch_size {patch}"
    if task == "classification" and side > 224:
        return (
            f"The release does not say how it was trained at {side} pixels; "
            f"`training/recipes/{family}-stage3{large}.yaml` is the paper's fine-tuning at 224 (Table 9)."
        )
    if task == "classification" and side == 224:
        stages = [f"{family}-stage{stage}{large}" for stage in (1, 2, 3)]
        tables = "the paper's three stages (Tables 8, 10 and 9)"
        command = (
            f"{LAUNCH} training.train_stages {sizes} \\\n    --recipes {' '.join(stages)} --image_size 128 224 224"
        )
    elif task == "classification":
        tables = "the paper's first stage (Table 8)"
        command = f"{LAUNCH} training.train --recipe {family}-stage1{large} \\\n    {sizes} --image_size {side}"
    else:
        decoder = "-upernet" if entry.get("decoder") == "upernet" else ""
        tables = "a usual schedule for plain vision transformers, since the paper's tables do not give its own"
        command = f"{LAUNCH} training.train --recipe {family}-{task}{decoder} \\\n    {sizes}"
        command += " --initial_checkpoint path/or/name"
    data = {"segmentation": "path/to/ADEChallengeData2016 --reduce_labels", "detection": "path/to/coco"}
    command += f" \\\n    --dataset {data.get(task, 'path/to/imagenet')} --output_dir runs/{variant}-patch{patch}"
    return (
        f"With the training code of modeling_pixelvit, by {tables}; we have not run it at this size:\n\n"
        f"```bash\n{command}\n```"
    )
