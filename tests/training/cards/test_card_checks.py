# Copyright 2026 The modeling_pixelvit team. All rights reserved.
# SPDX-License-Identifier: Apache-2.0
"""Metadata that the hub would refuse is refused before, each time in a sentence of one line."""

import pytest
import yaml

from training.cards.checks import split_card, validate_card
from training.cards.results import CARDS_FOLDER


@pytest.fixture
def text():
    return (CARDS_FOLDER / "adventurer-base-patch1-224.md").read_text(encoding="utf-8")


def changed(text, change):
    metadata, body = split_card(text)
    change(metadata)
    return f"---\n{yaml.safe_dump(metadata)}---\n{body}"


@pytest.mark.parametrize(
    "change, message",
    [
        (lambda data: data.pop("pipeline_tag"), "pipeline_tag is None in the card"),
        (lambda data: data.update(pipeline_tag="image-guessing"), "pipeline_tag is 'image-guessing'"),
        (lambda data: data.pop("license"), "license is None"),
        (lambda data: data.update(license="Apache-2.0"), "license is 'Apache-2.0'"),
        (lambda data: data.update(license=["mit", "apache-2.0"]), r"license is \['mit'"),
        (lambda data: data.update(license="other"), "license is 'other'"),
        (lambda data: data.update(tags=["vision", "images", "vision"]), "tags name one of them twice"),
        (lambda data: data.update(tags=[1]), r"tags is \[1\]"),
        (lambda data: data.update(datasets=["ImageNet 1k"]), "datasets names 'ImageNet 1k'"),
        (lambda data: data.update(base_model="a/b/c"), "base_model names 'a/b/c'"),
        (lambda data: data.update(metrics=["top 1"]), "metrics names 'top 1'"),
        (lambda data: data["model-index"][0].pop("results"), "model-index in the card is not as the hub wants it"),
        (lambda data: data["model-index"].append(data["model-index"][0]), "no list of one model"),
        (lambda data: data.update({"model-index": {}}), "no list of one model"),
        (lambda data: data.update({"model-index": []}), "no list of one model"),
        (lambda data: data["model-index"][0].update(name=" "), "lacks the name of the model"),
        (lambda data: data["model-index"][0]["results"][0]["dataset"].update(name=""), "lacks the name of the model"),
        (lambda data: data["model-index"][0]["results"][0].update(extra=1), "entries that the hub does not know"),
        (lambda data: data["model-index"][0]["results"][0]["metrics"][0].update(value="high"), "gives 'high'"),
        (lambda data: data["model-index"][0]["results"][0]["task"].update(type="x"), "pipeline_tag is 'x'"),
        (lambda data: data["model-index"][0]["results"][0]["source"].update(url="x"), "names the source 'x'"),
        (lambda data: data["model-index"][0]["results"][0]["dataset"].pop("type"), "not as the hub wants it"),
    ],
)
def test_metadata_that_the_hub_would_refuse_is_refused(change, message, text):
    with pytest.raises(ValueError, match=message) as error:
        validate_card(changed(text, change))
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    "card, message",
    [
        ("# A model\n", "has no metadata"),
        ("---\nlicense: [\n---\n# A model\n", "is no YAML"),
        ("---\n- license\n---\n# A model\n", "no YAML mapping"),
        ("---\n!!python/object:os.system {}\n---\n# A model\n", "is no YAML"),
    ],
)
def test_what_is_no_card_is_refused(card, message):
    with pytest.raises(ValueError, match=message):
        validate_card(card)


def test_good_changes_are_taken(text):
    validate_card(text)
    validate_card(changed(text, lambda data: data.pop("model-index")))
    with pytest.raises(ValueError, match="no text"):
        validate_card(f"---\n{yaml.safe_dump(split_card(text)[0])}---\n\n")
