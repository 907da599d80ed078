# Copyright 2026 The modeling_pixelvit team. All rights reserved.
# SPDX-License-Identifier: Apache-2.0
"""Cards: numbers with their sources, metadata that the hub takes, text that says what is so, snippets that run."""

import ast
import json
import os
import re
import subprocess
import sys

import pytest
from demo_models import DETECTION_FIELDS
from helpers import tiny_config, tiny_model
from huggingface_hub import InferenceClient, ModelCard
from huggingface_hub.repocard import metadata_load
from PIL import Image

from modeling_pixelvit import AdventurerConfig, PixelViTConfig, PixelViTImageProcessor
from training import model_card
from training.cards.card import out_of_date, render_checkpoint_card, render_paper_card, rendered_files
from training.cards.checks import split_card, validate_card
from training.cards.results import CARDS_FOLDER, load_results, numbers_of, paper_checkpoints, task_of
from training.checkpoints.cost import model_cost, readable_flops
from training.families.registry import model_classes
from training.model_card import main
from training.settings.recipe import load_recipe
from training.tasks.registry import known_scores


RELEASED = {
    "name": "adventurer-base-patch16-224",
    "repo_id": "Wangf3014/Adventurer",
    "filename": "adventurer_base_patch16_224.pth",
    "sha256": "0" * 64,
    "license": None,
    "entry": "model",
}
# What the snippets are tried on: every form that the template gives them.
TRIED = {
    "classifier": ("AdventurerForImageClassification", {}),
    "segmenter": ("PixelViTForSemanticSegmentation", {}),
    "upernet": ("AdventurerForSemanticSegmentation", {"decoder": "upernet", "decoder_hidden_size": 8}),
    "masks": ("PixelViTForObjectDetection", DETECTION_FIELDS),
    "boxes": ("AdventurerForObjectDetection", {**DETECTION_FIELDS, "use_masks": False, "use_cascade": False}),
    "features": ("PixelViTModel", {"sequence_extension": 2}),
}
PYTHON_BLOCK = re.compile(r"```python\n(.*?)```", re.DOTALL)
RUN_SNIPPETS = """
import json, sys
for name, code in json.load(open(sys.argv[1])).items():
    print("#", name)
    exec(compile(code, name, "exec"), {"__name__": name})
assert not [module for module in sys.modules if module.startswith(("modeling_pixelvit", "training"))]
"""


def family_of(architecture):
    return "pixelvit" if architecture.startswith("PixelViT") else "adventurer"


def card_of(architecture, **arguments):
    config = arguments.pop("config", None) or tiny_config(family_of(architecture))
    return render_checkpoint_card(
        config, None, arguments.pop("repo_id", "user/name"), architecture=architecture, **arguments
    )


def rows_of(text):
    """The cells of the lines of a card's tables, without their heads."""
    rows = [
        tuple(cell.strip() for cell in line.strip("|").split(" | ")) for line in text.splitlines() if line[:1] == "|"
    ]
    return [row for row in rows if len(row) == 3 and row[0] != "what"]


@pytest.fixture(scope="module")
def rendered():
    return rendered_files()


@pytest.fixture(scope="module")
def cards():
    """Of all checkpoints of the paper, those without weights too."""
    return {name: render_paper_card(name) for name in paper_checkpoints()}


# The cards of the paper's checkpoints


def test_cards_are_up_to_date(rendered, capsys, monkeypatch):
    assert [path.name for path in out_of_date(rendered)] == []
    assert set(CARDS_FOLDER.glob("*.md")) == {*rendered, CARDS_FOLDER / "template.md"}
    with_weights = {name for name, entry in paper_checkpoints().items() if "weights" in entry}
    assert {path.stem for path in rendered} == {*with_weights, "README"} and len(with_weights) == 18

    name = "deit-base-patch16-224"
    changed = {**rendered, CARDS_FOLDER / f"{name}.md": "other", CARDS_FOLDER / "new.md": "card"}
    monkeypatch.setattr(model_card, "rendered_files", lambda: changed)
    assert main(["--check"]) == 1
    printed = capsys.readouterr()
    assert printed.out.split() == [f"model_cards/{name}.md", "model_cards/new.md"]
    assert "2 files are out of date" in printed.err and not (CARDS_FOLDER / "new.md").exists()


def test_rendering_writes_what_differs_and_names_cards_of_nothing(tmp_path, capsys, monkeypatch):
    folder = tmp_path / "model_cards"
    folder.mkdir()
    (folder / "stray.md").write_text("card")
    monkeypatch.setattr(model_card, "CARDS_FOLDER", folder)
    monkeypatch.setattr(model_card, "rendered_files", lambda: {folder / "one.md": "one\n"})
    assert main([]) == 1 and (folder / "one.md").read_text() == "one\n"
    assert capsys.readouterr().err == "error: no checkpoint in results.yaml has these cards: stray.md; remove them.\n"
    (folder / "stray.md").unlink()
    assert main([]) == 0 and main(["--check"]) == 0


def test_a_card_by_its_name(cards, capsys):
    assert main(["deit-base-patch1-64"]) == 0 and capsys.readouterr().out == cards["deit-base-patch1-64"]
    assert main(["deit-base-patch1-63"]) == 2
    assert "no checkpoint of the paper; did you mean deit-base-patch1-64?" in capsys.readouterr().err


def test_the_hub_library_reads_every_card(cards, tmp_path):
    assert len(cards) == 80
    for name, text in cards.items():
        (tmp_path / "README.md").write_text(text, encoding="utf-8")
        card, metadata = ModelCard(text), metadata_load(tmp_path / "README.md")
        validate_card(text)
        assert card.data.to_dict() == metadata, name
        assert hasattr(InferenceClient, metadata["pipeline_tag"].replace("-", "_")), name
        assert {"pixel-tokens", "custom_code", "arxiv:2502.03738"} <= set(metadata["tags"]), name
        assert metadata["widget"] == [{"src": "example.png", "example_title": "Example"}], name
        results, reported = card.data.eval_results or [], paper_checkpoints()[name].get("results", [])
        assert [result.metric_value for result in results] == [
            result["value"] for result in reported if "sequence_extended_to" not in result
        ], name
        assert all(result.source_url.startswith("https://") for result in results), name


def test_every_number_of_the_paper_stands_in_a_row_that_says_so(cards):
    contents, found = load_results(), 0
    for name, entry in paper_checkpoints().items():
        rows = rows_of(cards[name])
        for number in numbers_of(entry):
            value = f"{number['value']:,}" if "quantity" in number else f"{number['value']:.1f}%"
            if "quantity" in number:
                what = contents["quantities"][number["quantity"]]["name"]
            else:
                what = known_scores()[number["metric"]].name
            says = "paper" if number["source"]["kind"] == "paper" else "ours: training/benchmarks/"
            assert any(
                what in row[0] and re.match(rf"{re.escape(value)}( |$)", row[1]) and row[2].startswith(says)
                for row in rows
            ), (name, number)
            found += 1
        # And no row says nothing of its source.
        sources = {row[2] for row in rows}
        assert all(source == "counted" or source.startswith(("paper", "ours: ")) for source in sources), name
    assert found > 150


def test_cards_say_whether_there_are_weights_and_under_which_licence(cards):
    for name, entry in paper_checkpoints().items():
        metadata, body = split_card(cards[name])
        weights = entry.get("weights")
        if weights is None:
            assert metadata["license"] == "apache-2.0" and "base_model" not in metadata, name
            assert "**Weights: not released.**" in body or "**Weights: none.**" in body, name
        else:
            assert metadata["license"] == (weights["license"] or "unknown"), name
            assert metadata["base_model"] == weights["repo_id"], name
            assert f"`python -m training.import_released {name}`" in body, name
            assert ("has no licence" in body) == (weights["license"] is None), name


def test_training_commands_name_recipes_of_the_model(cards):
    for name, entry in paper_checkpoints().items():
        recipes = re.findall(r"\b(?:adventurer|pixelvit)-(?:stage\d|segmentation|detection)[a-z-]*", cards[name])
        assert recipes, name
        for recipe in recipes:
            assert load_recipe(recipe, entry["variant"]).family == entry["family"], (name, recipe)


def test_the_list_has_every_checkpoint_and_links_the_cards_that_are_there(rendered):
    text = rendered[CARDS_FOLDER / "README.md"]
    links = re.findall(r"\[([\d.-]+)\]\((\S+)\.md\)", text)
    assert {f"{name}.md" for _, name in links} == {path.name for path in rendered} - {"README.md"}
    for value, name in links:
        results = paper_checkpoints()[name].get("results")
        assert value == (f"{results[0]['value']:.1f}" if results else "-")
    rows = [line.split(" | ")[1:] for line in text.splitlines() if line.startswith("| ") and "| p" not in line]
    assert sum(bool(cell.strip(" |")) for cells in rows for cell in cells) == len(paper_checkpoints())


# Cards of any checkpoint


@pytest.fixture(scope="module")
def outputs_of_snippets(tmp_path_factory):
    """Each card's rendered text and what its snippets print, run one after the other where the package is missing."""
    folder = tmp_path_factory.mktemp("snippets")
    Image.effect_noise((40, 30), 90).save(folder / "photo.jpg")
    texts, codes = {}, {}
    for name, (architecture, fields) in TRIED.items():
        model = tiny_model(model_classes()[architecture], image_size=16, patch_size=4, **fields)
        task = task_of(architecture)
        processor = PixelViTImageProcessor.for_config(model.config, task if task != "features" else "classification")
        model.save_pretrained(folder / name)
        processor.save_pretrained(folder / name)
        texts[name] = render_checkpoint_card(model.config, processor, f"user/{name}")
        validate_card(texts[name])
        code = "\n".join(PYTHON_BLOCK.findall(texts[name]))
        # Nothing that random weights find is sure to the half.
        for given, here in (
            (f"user/{name}", f"../{name}"),
            ("photo.jpg", "../photo.jpg"),
            ("threshold=0.5", "threshold=0.0"),
        ):
            code = code.replace(given, here)
        codes[name] = code
    (folder / "code.json").write_text(json.dumps(codes))
    (folder / "empty").mkdir()
    environment = {**os.environ, "HF_HUB_OFFLINE": "1", "HF_MODULES_CACHE": str(folder / "modules"), "PYTHONPATH": ""}
    done = subprocess.run(
        [sys.executable, "-c", RUN_SNIPPETS, "../code.json"],
        cwd=folder / "empty",
        env=environment,
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    return texts, dict(part.split("\n", 1) for part in done.stdout[2:].split("\n# "))


def test_snippets_print_what_the_card_says(outputs_of_snippets):
    texts, outputs = outputs_of_snippets
    assert outputs.keys() == TRIED.keys()
    for name, printed in outputs.items():
        lines, text = printed.splitlines(), texts[name]
        assert lines[-1] == re.search(r"num_patches\)  # ([\d,]+)\n", text)[1] == "4", name
        if name == "features":
            assert lines[0] == "torch.Size([1, 32])" and "# (1, 32), the class token" in text
            assert lines[1] == "torch.Size([1, 33, 32])" and "# (1, 33, 32), class token first" in text
            continue
        # In segmentation the image keeps its form, 21 by 16 pixels; otherwise it gets the model's size.
        tokens = 6 * 4 + 1 if name in ("segmenter", "upernet") else 17
        assert lines[-2] == f"torch.Size([1, {tokens}, 32])" and "pixels (1, 17, 32), class token" in text, name
    assert re.fullmatch(r"(\d+\.\d% LABEL_\d\n){5}LABEL_\d\n.*", outputs["classifier"], re.DOTALL)
    assert "(40, 30)\n" in outputs["segmenter"] and "['LABEL_" in outputs["upernet"]
    for name in ("masks", "boxes"):
        found = re.findall(r"^\d+\.\d% LABEL_\d \[[\d., -]+\]$", outputs[name], re.MULTILINE)
        assert 1 <= len(found) <= DETECTION_FIELDS["max_detections"], outputs[name]
        assert len(re.findall(r"LABEL_\d \{'xmin'", outputs[name])) == len(found)
    assert re.search(r"^torch.Size\(\[30, 40\]\) [1-4]$", outputs["masks"], re.MULTILINE)


def test_the_papers_cards_have_the_same_snippets(outputs_of_snippets, cards):
    def form(text, repo_id):
        """Snippets without what differs from model to model."""
        code = "\n".join(PYTHON_BLOCK.findall(text)).replace(repo_id, "")
        return ast.dump(ast.parse(re.sub(r"patch_size=\d+", "patch_size=0", code)))

    tried = {form(text, f"user/{name}") for name, text in outputs_of_snippets[0].items()}
    for name, text in cards.items():
        assert form(text, f"USER/{name}") in tried, name


@pytest.mark.parametrize("architecture", model_classes())
def test_every_class_has_a_card(architecture):
    text = card_of(architecture)
    validate_card(text)
    task = task_of(architecture)
    expected = {
        "classification": "image-classification",
        "segmentation": "image-segmentation",
        "detection": "object-detection",
        "features": "image-feature-extraction",
    }
    metadata, body = split_card(text)
    assert metadata["pipeline_tag"] == expected[task] and "model-index" not in metadata
    assert "4 blocks and width 32" in body and "/tmp" not in text and "Results" not in body
    assert metadata["license"] == "apache-2.0" and "{{" not in text and "None" not in body


def test_measured_metrics_become_rows_and_metadata():
    metrics = {
        "accuracy": 0.9597,
        "loss": 0.1353,
        "box_ar1": 0.5,
        "dataset": "embedded digits",
        "source": "training.sweep",
    }
    text = card_of(
        "AdventurerForImageClassification", metrics=metrics, training={"seed": 0, "dataset": "/home/me/data"}
    )
    validate_card(text)
    assert (
        "| top-1 accuracy, scikit-learn's digits, each at a random place (test) | 96.0% | ours: training.sweep |"
        in text
    )
    accuracy, loss = ModelCard(text).data.eval_results
    assert (accuracy.metric_type, accuracy.metric_value, accuracy.dataset_type) == ("accuracy", 95.97, "digits")
    assert (loss.metric_type, loss.metric_value, loss.verified) == ("loss", 0.1353, False)
    assert "```yaml\nseed: 0\ndataset: data\n```" in text and "/home" not in text

    other = ModelCard(card_of("PixelViTForObjectDetection", metrics={"box_ap": 0.5, "dataset": "/data/my photos"}))
    assert other.data.eval_results[0].dataset_type == "my-photos" and "datasets" not in other.data.to_dict()
    known = ModelCard(card_of("PixelViTForObjectDetection", metrics={"mask_ap": 0, "dataset": "coco"}))
    assert known.data.datasets == ["detection-datasets/coco"] and known.data.eval_results[0].metric_value == 0


@pytest.mark.parametrize("license", [None, "apache-2.0"])
@pytest.mark.parametrize("released", [True, False])
def test_released_weights_without_a_licence_have_none_here(license, released):
    config = AdventurerConfig.from_variant("base", num_labels=1000)
    config.weights_origin = dict(RELEASED)
    config.architectures = ["AdventurerForImageClassification"]
    text = render_checkpoint_card(config, None, "user/name", license=license, released=released)
    validate_card(text)
    metadata, body = split_card(text)
    assert metadata["license"] == "unknown" and metadata["base_model"] == "Wangf3014/Adventurer"
    assert (
        "has no licence" in body
        and "| top-1 accuracy, ImageNet-1k (validation) | 82.6% | paper, Tables 1, 4 and 5 |" in body
    )
    # The paper's number is that of the weights only if these are the ones it was measured with.
    assert ("model-index" in metadata) == released == ("not of the weights here" not in body)
    assert ("Converting them changed no number." in body) == ("datasets" in metadata) == released

    config.weights_origin["license"] = "apache-2.0"
    text = render_checkpoint_card(config, None, "user/name", license=license, released=released)
    assert split_card(text)[0]["license"] == "apache-2.0" and "has no licence" not in text


def test_own_weights_of_the_papers_configuration_do_not_get_its_numbers():
    config = AdventurerConfig.from_variant("tiny", patch_size=2, image_size=512, num_labels=150)
    metadata, body = split_card(card_of("AdventurerForSemanticSegmentation", config=config))
    assert "model-index" not in metadata and "42.5% | paper, Table 2" in body and "not of the weights here" in body
    config.sequence_extension = 4
    assert "42.5%" not in card_of("AdventurerForSemanticSegmentation", config=config)
    config.sequence_extension, config.num_labels = 1, 149
    assert "42.5%" not in card_of("AdventurerForSemanticSegmentation", config=config)


def test_the_other_familys_costs_are_of_as_many_tokens():
    for copies in (1, 4):
        config = AdventurerConfig.from_variant("tiny", sequence_extension=copies)
        other = PixelViTConfig.from_variant("tiny", sequence_extension=copies)
        flops = readable_flops(model_cost(other, "PixelViTModel").encoder_flops)
        text = card_of("AdventurerModel", config=config)
        assert f"DeiT-Tiny's encoder costs {flops} on the same tokens" in text and f"{196 * copies} token" in text


def test_the_image_processor_is_told():
    config = tiny_config("pixelvit")

    def card(task, name):
        processor = PixelViTImageProcessor.for_config(config, task)
        return render_checkpoint_card(config, processor, "user/name", architecture=name)

    assert "87.5% of its shorter edge, and resizes that to 8 by 8" in card("classification", "PixelViTModel")
    assert "(longest edge 32, shortest edge 8 pixels)" in card("segmentation", "PixelViTForSemanticSegmentation")


def test_names_from_outside_cannot_break_out():
    config = tiny_config("pixelvit")
    config.id2label = {0: "a | b\n# <script>", 1: "`x` [y](z)", 2: "---", 3: "{{ 7 * 7 }}", 4: "e" * 1000}
    metrics = {"accuracy": 0.5, "dataset": "x\n---\nlicense: mit", "source": "| <b> | {{ cost }}"}
    training = {"note": "```\n# heading", "paths": ["C:\\Users\\me\\data", "kept/as/it/is"]}
    text = card_of("PixelViTForImageClassification", config=config, metrics=metrics, training=training)
    validate_card(text)
    metadata, body = split_card(text)
    assert (
        metadata["license"] == "apache-2.0"
        and "a \\| b # \\<script\\>, \\`x\\` \\[y\\](z), ---, {{ 7 \\* 7 }}, e" in body
    )
    assert max(len(line) for line in body.splitlines() if "script" in line) < 300
    assert body.count("```") % 2 == 0 and "\n# heading" not in body and "Users" not in body and "kept/as/it/is" in body


@pytest.mark.parametrize(
    "arguments, message",
    [
        ({"repo_id": "name"}, "'name' was given as the repository's name; give USER/NAME, the user too."),
        ({"repo_id": "a/b/c"}, "'a/b/c' was given as the repository's name; give USER/NAME as the hub takes it."),
        (
            {"license": "Apache 2"},
            "'Apache 2' was given as the licence; give one of the hub's ids, such as 'apache-2.0'.",
        ),
        ({"license": "other"}, "'other' was given as the licence; give one of the hub's ids, such as 'apache-2.0'."),
        (
            {"metrics": {"accuracy": 0.5}},
            "metrics has no 'dataset'; a card must say on which data its numbers were measured.",
        ),
        (
            {"metrics": {"accuracy": 96.0, "dataset": "digits"}},
            "metrics gives 96.0 for accuracy; it must be a share from 0 to 1 (divide percent by 100).",
        ),
        (
            {"metrics": {"loss": float("nan"), "dataset": "digits"}},
            "metrics gives nan for loss; it must be a finite number of at least 0.",
        ),
        (
            {"training": {"model": object()}},
            "training holds something other than numbers, strings, lists and dicts; leave it out.",
        ),
    ],
)
def test_what_a_card_cannot_have_is_refused(arguments, message):
    with pytest.raises(ValueError) as error:
        card_of("PixelViTForImageClassification", **arguments)
    assert str(error.value) == message


@pytest.mark.parametrize("change", [{"repo_id": "../x"}, {"filename": "a`b"}, {"name": None}, {"license": "x\ny"}])
def test_a_forged_origin_is_refused(change):
    config = tiny_config("adventurer")
    config.weights_origin = {**RELEASED, **change}
    with pytest.raises(ValueError) as error:
        card_of("AdventurerModel", config=config)
    assert "\n" not in str(error.value)


def test_a_class_without_a_card_is_refused():
    with pytest.raises(ValueError, match=r"PixelViTBackbone was given; there are cards for .*PixelViTForImage"):
        card_of("PixelViTBackbone")
