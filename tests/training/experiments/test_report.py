# Copyright 2026 The modeling_pixelvit team. All rights reserved.
# SPDX-License-Identifier: Apache-2.0
"""The page of results: what stands on it, that it needs nothing beside it, and how a browser shows it."""

import json
import re
import shutil
from pathlib import Path

import pytest
from tiny_experiments import evaluate_few_images, write_experiment

from training import experiment, report
from training.experiments.page import paper_rows
from training.experiments.report import format_rows


KEPT = Path(__file__).parents[3] / "training" / "experiments" / "results"
pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def carried_out(tmp_path_factory):
    """A folder in which an experiment with both families was carried out."""
    folder = tmp_path_factory.mktemp("experiment")
    path = write_experiment(
        folder,
        title="Patches <small> & large",
        families=["adventurer", "pixelvit"],
        grids=[{"patch_size": [16, 4]}],
        paper=["table1"],
    )
    with pytest.MonkeyPatch.context() as monkeypatch:
        monkeypatch.chdir(folder)
        evaluate_few_images(monkeypatch)
        assert experiment.main([path, "--epochs", "0.1"]) == 0
    return folder


@pytest.fixture
def finished(carried_out, tmp_path, monkeypatch):
    """A folder of results, whose runs are in `runs/points` below the working directory."""
    shutil.copytree(carried_out, tmp_path, dirs_exist_ok=True)
    monkeypatch.chdir(tmp_path)
    return Path("runs/experiments/tiny-digits")


def test_the_page_has_it_all_and_needs_nothing(finished, capsys):
    assert report.main([str(finished), "--output_dir", "out"]) == 0
    page = Path("out/report.html").read_text()
    assert not re.search(r'(src|href)="(?!data:|#)', page) and "<script" not in page
    assert "Patches &lt;small&gt; &amp; large (digits)" in page and "A question?" in page
    results = json.loads((finished / "results.json").read_text())
    for point in results["points"]:
        assert f"<td>{point['test_loss']:.3f} ± " in page  # of one seed, over test images
    # The paper's first table, as it was published.
    assert "<td>DeiT, base, 64 px, accuracy</td><td>68.2</td><td>76.9</td><td>80.1</td>" in page
    assert "<td>Adventurer-Large, 128 pixels</td>" in page and "100 - top-1 in percent" in page
    assert "test loss falls at every step" in page or "test loss does not fall" in page
    for title in ("Adventurer, seed 0, on test images", "PixelViT, seed 0, on test images", "What it cost"):
        assert title in page
    assert "Size of the scan&#x27;s state after each patch" in page and "Attention to each patch" in page
    assert "python -m training.experiment" in page and results["runs"][0]["made_with"]["device"] in page
    card = Path("out/report.md").read_text()
    assert "](tiny-digits.png)" in card and Path("out/tiny-digits.png").exists() and "| Adventurer |" in card


def test_without_the_checkpoints_it_has_the_numbers(finished):
    Path("runs/points").rename("elsewhere")
    assert report.main([str(finished), "--output_dir", "out"]) == 0
    page = Path("out/report.html").read_text()
    assert "The checkpoints of these runs are not here" in page and "What it cost" in page
    assert report.main([str(finished), "--output_dir", "out", "--points_dir", "elsewhere"]) == 0
    assert "on test images" in Path("out/report.html").read_text()


def test_kept_results_can_be_shown_with_what_they_compare(tmp_path):
    """From before there were intervals over test images."""
    kept, folder = KEPT / "scan_order-digits", tmp_path / "kept"
    folder.mkdir()
    shutil.copy(kept.with_suffix(".json"), folder / "results.json")
    shutil.copy(kept.with_suffix(".png"), folder / "scaling.png")
    (folder / "table.md").write_text("# A title\n\nA question?\n\nWhat it says.\n    And more.\n")
    assert report.main([str(folder), "--output_dir", str(tmp_path / "out"), "--points_dir", str(tmp_path)]) == 0
    page, card = ((tmp_path / "out" / f"report.{ending}").read_text() for ending in ("html", "md"))
    title, *rows = re.findall("<tr>.*?</tr>", page[page.index("<h3>Compared</h3>") : page.index("What it says")])
    assert "test loss over that of: the reference" in title and len(rows) == 5
    assert "<td>Adventurer, rows and columns</td><td>1</td><td>5</td><td>x 0.10 [" in rows[-1]
    assert "<td>+10.7</td>" in rows[-1] and "x 0.10 [" in card
    assert "<p>What it says.; And more.</p>" in page and "\n    " not in card  # four spaces would make code of it


@pytest.mark.parametrize("content", [None, "{", '{"runs": []}'])
def test_what_is_no_result_gets_a_sentence(tmp_path, capsys, content):
    if content is not None:
        (tmp_path / "results.json").write_text(content)
    assert report.main([str(tmp_path), "--output_dir", str(tmp_path / "out")]) == 2
    error = capsys.readouterr().err
    assert "has no results of training.experiment" in error and len(error.splitlines()) == 1
    assert not (tmp_path / "out").exists()


def test_the_papers_tables():
    def table(number):
        title, *rows = paper_rows(number)
        return {row[0]: dict(zip(title[1:], row[1:], strict=True)) for row in rows}

    assert table(1)["Adventurer, base, 224 px, accuracy"]["patch 1"] == "84.6"
    assert table(2)["Adventurer, tiny, 512 px, upernet, mean iou"]["patch 16"] == "41.3"
    assert table(4)["Adventurer, large, 128 px, accuracy"]["patch 1"] == "83.1"
    extended = table(5)["Adventurer, base, 224 px, repeated tokens, accuracy"]
    assert (extended["784 tokens"], extended["12,544 tokens"]) == ("82.7", "82.8")
    assert table(6)["DeiT, base, 224 px, gpu hours per epoch"]["patch 1"] == "967.99"
    assert paper_rows(7) == []


def test_a_browser_shows_all_pictures(finished):
    pytest.importorskip("playwright")
    from training.demo.pictures import find_browser, open_browser

    if not find_browser():
        pytest.skip("missing: a Chromium")
    assert report.main([str(finished), "--output_dir", "out"]) == 0
    asked = []
    with open_browser() as browser:
        page = browser.new_page(viewport={"width": 1200, "height": 900})
        page.on("request", lambda request: asked.append(request.url))
        page.goto(Path("out/report.html").absolute().as_uri())
        widths = page.eval_on_selector_all("img", "images => images.map(image => image.naturalWidth)")
        assert len(widths) > 10 and min(widths) > 0
        assert page.evaluate("document.documentElement.scrollWidth <= window.innerWidth")
    assert [url for url in asked if not url.startswith(("file:", "data:"))] == []


def test_a_bar_in_a_label_does_not_end_a_cell():
    title, _, row = format_rows([("model", "loss"), ("a|b", "0.1")]).splitlines()
    assert row == "| a\\|b  |  0.1 |" and len(re.findall(r"(?<!\\)\|", row)) == title.count("|")
