# Copyright 2026 The modeling_pixelvit team. All rights reserved.
# SPDX-License-Identifier: Apache-2.0
"""
Model cards: the README.md of a checkpoint folder, and those of the paper's checkpoints in `model_cards/`.

Tokens, parameters and operations are counted from the configuration. Every other number says who measured it, and the
paper's are those of the weights at hand only where these are the released ones.
"""

import dataclasses
import difflib
import functools
import re
from pathlib import Path
from typing import Any

import jinja2
from huggingface_hub import EvalResult
from transformers import BaseImageProcessor, PreTrainedConfig

from modeling_pixelvit.configuration_base import as_pair

from ..checkpoints.cost import model_cost
from ..families.base import ARCHITECTURES, is_multi_label
from ..families.registry import FAMILIES
from .checks import LICENSES, validate_card
from .index import render_index
from .metadata import card_metadata, dataset_key, measured, paper_evaluations
from .origin import (
    check_repo_id,
    checked_origin,
    paper_training,
    recipe_text,
    weights_of_origin,
    weights_of_paper,
)
from .results import (
    CARDS_FOLDER,
    Row,
    architecture_for,
    cost_rows,
    dataset_of,
    paper_checkpoints,
    paper_config,
    paper_name_of,
    result_rows,
    task_of,
)
from .text import (
    PAPER_CITATION,
    class_names,
    counted_rows,
    describe_cost,
    limits_of,
    model_name,
    purpose_of,
)


# Stands in the cards of `model_cards/` where a repository's name will have its user.
PLACEHOLDER_USER = "USER"
TEMPLATE_FILE = CARDS_FOLDER / "template.md"
NOT_THESE_WEIGHTS = "The paper's numbers are those of its own weights of this configuration, not of the weights here."


@dataclasses.dataclass
class Card:
    """
    What a card is rendered from.

    Args:
        config: The model's.
        task: What it does, one of `ARCHITECTURES`.
        repo_id: USER/NAME.
        license: The hub's id; None: the weights have none.
        training: The text on how the weights were trained.
        origin: From where the weights come, if they are someone else's.
        weights: The text on that.
        entry: The checkpoint of the paper that has the same configuration.
        dataset: What the weights were trained and measured on, by the name in `results.yaml` or any other.
        rows: Results, whoever measured them.
        note: A remark below them.
        evaluations: The results that are those of the card's own weights.
        processor: The image processor saved beside the model.
    """

    config: PreTrainedConfig
    task: str
    repo_id: str
    license: str | None
    training: str
    origin: dict[str, Any] | None = None
    weights: str = ""
    entry: dict[str, Any] | None = None
    dataset: str | None = None
    rows: list[Row] = dataclasses.field(default_factory=list)
    note: str = ""
    evaluations: list[EvalResult] = dataclasses.field(default_factory=list)
    processor: BaseImageProcessor | None = None


def render_checkpoint_card(
    config: PreTrainedConfig,
    processor: BaseImageProcessor | None,
    repo_id: str,
    license: str | None = "apache-2.0",
    metrics: dict[str, Any] | None = None,
    training: dict[str, Any] | None = None,
    *,
    architecture: str | None = None,
    released: bool = False,
) -> str:
    """
    The README.md of a checkpoint folder.

    Args:
        config: The model's, as it is after saving: `architectures` says what it is. `weights_origin`, if it has that,
            says from where the weights come; without a licence there the card has none, whatever `license` says.
        processor: The image processor saved beside the model, of which the card tells the size; None: it does not.
        repo_id: Name of the repository, USER/NAME.
        license: The hub's id of the weights' licence; None: there is none.
        metrics: What was measured of these weights: shares from 0 to 1 by the names of tasks' scores ("accuracy",
            "mean_iou", "box_ap", ...), and "loss"; other numbers are left out. With "dataset" (what on), and optionally
            "split", "source" (by what) and "source_url".
        training: The recipe that the weights were trained by, told as it is; of absolute paths only the last name.
        architecture: The class, if `config.architectures` does not say it.
        released: Whether these are the weights of `weights_origin` just as they were released, ImageNet-1k classifiers
            all: then the paper's numbers of that name are theirs, and part of the metadata.

    Raises:
        ValueError: in one sentence, for a name, licence, class or metric that a card cannot have.
    """
    check_repo_id(repo_id)
    architecture = architecture or (getattr(config, "architectures", None) or ["a model without architectures"])[0]
    task = task_of(architecture)
    if license not in (None, *LICENSES):
        raise ValueError(f"{license!r} was given as the licence; give one of the hub's ids, such as 'apache-2.0'.")
    origin = getattr(config, "weights_origin", None)
    if origin is not None:
        origin = checked_origin(origin)
        license = (license or origin["license"]) if origin["license"] else None
    card = Card(config, task, repo_id, license, recipe_text(training, origin, released), processor=processor)
    if origin is not None:
        card.origin, card.weights = origin, weights_of_origin(origin, released)
        card.dataset = "imagenet-1k" if released else None
    if metrics is not None:
        card.rows, card.evaluations = measured(metrics, task)
        card.dataset = dataset_key(metrics["dataset"])
    name = paper_name_of(config, architecture)
    if name is not None:
        card.entry = paper_checkpoints()[name]
        card.rows = [*card.rows, *result_rows(card.entry)]
        if released and origin is not None and origin["name"] == name:
            card.evaluations = [*card.evaluations, *paper_evaluations(card.entry)]
        elif card.entry.get("results"):
            card.note = NOT_THESE_WEIGHTS
    return render(card)


def render_paper_card(name: str) -> str:
    """
    The card of a checkpoint of the paper, by its name in `results.yaml`, to go with weights of it.

    Raises:
        ValueError: for another name.
    """
    known = paper_checkpoints()
    if name not in known:
        nearest = difflib.get_close_matches(name, known, n=1)
        hint = f"did you mean {nearest[0]}?" if nearest else "model_cards/results.yaml has them all."
        raise ValueError(f"{name} was given, which is no checkpoint of the paper; {hint}")
    entry = known[name]
    weights = entry.get("weights")
    return render(
        Card(
            paper_config(entry),
            entry["task"],
            f"{PLACEHOLDER_USER}/{name}",
            license=weights["license"] if weights else "apache-2.0",
            training=paper_training(entry),
            origin=weights,
            weights=weights_of_paper(name, weights, has_results=bool(entry.get("results"))),
            entry=entry,
            dataset=dataset_of(entry),
            rows=result_rows(entry),
            evaluations=paper_evaluations(entry),
        )
    )


def render(card: Card) -> str:
    """The text of a card: `template.md` with everything filled in."""
    config, task = card.config, card.task
    name, family = card.repo_id.split("/")[-1], config.model_type
    cost = model_cost(config, architecture_for(family, task))
    height, width = as_pair(config.image_size)
    other_patch = other_patch_size(config)
    text = template().render(
        metadata=card_metadata(task, family, name, card.license, card.origin, card.evaluations, card.dataset).to_yaml(),
        name=name,
        repo_id=card.repo_id,
        task=task,
        auto_class=ARCHITECTURES[task].auto_class,
        model_name=model_name(config),
        purpose=purpose_of(config, task),
        family_text=FAMILIES[family].description,
        height=height,
        width=width,
        patch=config.patch_size,
        cost=cost,
        hidden_size=config.hidden_size,
        num_labels=config.num_labels,
        class_names=class_names(config) if task != "features" else "",
        weights=card.weights,
        is_multi_label=is_multi_label(config),
        with_masks=config.use_masks,
        tokens_shape=f"(1, {cost.tokens + 1}, {config.hidden_size})",
        class_token_place=FAMILIES[family].class_token_place,
        resamples_pyramid=task == "detection" or (task == "segmentation" and config.decoder_type == "upernet"),
        other_patch=other_patch,
        other_tokens=height * width // other_patch**2,
        cost_rows=[*counted_rows(config, task, cost), *(cost_rows(card.entry) if card.entry else [])],
        cost_comparison=describe_cost(config),
        result_rows=card.rows,
        results_note=card.note,
        training=card.training,
        limits=limits_of(config, task, card.entry, card.dataset, card.processor),
        citation=f"{PAPER_CITATION}\n\n{FAMILIES[family].citation}",
    )
    return re.sub(r"\n{3,}", "\n\n", text).rstrip() + "\n"


def other_patch_size(config: PreTrainedConfig) -> int:
    """The patch size of the example that loads with another one: twice as large from a small one, half else."""
    patch = config.patch_size
    sizes = (2 * patch, patch // 2) if patch <= 4 else (patch // 2, 2 * patch)
    sides = as_pair(config.image_size)
    return next((size for size in sizes if size and all(side % size == 0 for side in sides)), 1)


@functools.cache
def template() -> jinja2.Template:
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(CARDS_FOLDER),
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        autoescape=False,  # it is Markdown; `plain` has been over what comes from outside
    )
    return environment.get_template(TEMPLATE_FILE.name)


def rendered_files() -> dict[Path, str]:
    """The files of `model_cards/` and what they hold: the cards of weights that somebody has, and the list of all."""
    with_weights = [name for name, entry in paper_checkpoints().items() if "weights" in entry]
    cards = {CARDS_FOLDER / f"{name}.md": render_paper_card(name) for name in with_weights}
    for text in cards.values():
        validate_card(text)
    return {**cards, CARDS_FOLDER / "README.md": render_index()}


def out_of_date(files: dict[Path, str]) -> list[Path]:
    """Files that are missing or other than rendered."""
    return [path for path, text in files.items() if not path.is_file() or path.read_text(encoding="utf-8") != text]
