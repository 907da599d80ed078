# Copyright 2026 The modeling_pixelvit team. All rights reserved.
# SPDX-License-Identifier: Apache-2.0
"""
The demo's page in a headless Chromium: what it answers is what the models answer without it, what is no image is
refused with a sentence, and nothing is asked of another host.

Without gradio, playwright or a Chromium these tests are skipped; with PIXELVIT_REQUIRE_BROWSER=1 they fail instead.
"""

import importlib.util
import io
import json
import os
import pickle
import re
from pathlib import Path
from urllib.error import HTTPError
from urllib.request import Request, urlopen

import numpy as np
import pytest
from demo_models import photograph, save_tiny
from PIL import Image

from training.checkpoints.loading import load_checkpoint
from training.demo.checkpoints import ModelStore
from training.demo.patches import draw_tokens, seen_pixels
from training.demo.predictions import classify, detect, segment
from training.demo.settings import Demo
from training.tasks.drawing import visualize


MISSING = [name for name in ("gradio", "playwright") if importlib.util.find_spec(name) is None]
if not MISSING:
    from playwright.sync_api import expect

    from training.demo.gradio_parts import UPLOADS
    from training.demo.pages import build_page, serve
    from training.demo.pictures import find_browser, open_browser, open_tab, upload
    from training.demo.start import find_port
MAX_PIXELS = 200 * 200
SECONDS = 60  # that anything is waited for; a loaded machine is slow
# A slider's value below the scores that random weights give.
LOW = "0.05"


def need(missing):
    """Skips a test for what is missing, if anything is, or fails where nothing may be."""
    if missing:
        (pytest.fail if os.environ.get("PIXELVIT_REQUIRE_BROWSER") == "1" else pytest.skip)(f"missing: {missing}")


@pytest.fixture(scope="module")
def browser():
    need(", ".join(MISSING))
    need("" if find_browser() else "a Chromium")
    expect.set_options(timeout=1000 * SECONDS)
    with open_browser() as opened:
        yield opened


@pytest.fixture(scope="module")
def names(tmp_path_factory):
    """Folders of checkpoints by what they are for."""
    root = tmp_path_factory.mktemp("checkpoints")
    return {
        "classification": str(save_tiny(root / "patch8", "classification")),
        "finer": str(save_tiny(root / "patch4", "classification", patch_size=4)),
        "segmentation": str(save_tiny(root / "segmentation", "segmentation", "adventurer")),
        "detection": str(save_tiny(root / "detection", "detection")),
        "other": str(save_tiny(root / "other", "classification", "adventurer")),
    }


@pytest.fixture(scope="module")
def address(names, tmp_path_factory):
    need(", ".join(MISSING))
    example = tmp_path_factory.mktemp("examples") / "example.png"
    photograph(seed=5).save(example)
    store = ModelStore()
    listed = [store.describe(name) for key, name in names.items() if key != "other"]
    demo = Demo(listed, {"classification": [example]}, max_pixels=MAX_PIXELS, max_file_mib=1, store=store)
    page = build_page(demo)
    yield serve(page, demo, server_name="127.0.0.1", server_port=find_port("127.0.0.1", 0))
    page.close(verbose=False)


@pytest.fixture
def page(browser, address):
    """The page, and after the test the certainty that it had no error and stayed at home."""
    context = browser.new_context()
    opened, errors, elsewhere = context.new_page(), [], []
    opened.set_default_timeout(1000 * SECONDS)
    opened.on("console", lambda message: errors.append(message.text) if message.type == "error" else None)
    opened.on("pageerror", lambda error: errors.append(str(error)))
    opened.on("response", lambda r: print(r.status, r.url) if r.status >= 400 else None)
    opened.on("request", lambda request: None if is_at(request.url, address) else elsewhere.append(request.url))
    opened.goto(address)
    opened.locator("#run-classification").wait_for()
    yield opened
    context.close()
    assert elsewhere == []
    assert errors == []


def is_at(url, address):
    return url.startswith((address, "data:", f"blob:{address}"))


def shown_picture(page, selector):
    """The pixels of a picture on the page."""
    address = page.locator(f"{selector} img").first.get_attribute("src")
    return np.asarray(Image.open(io.BytesIO(urlopen(address).read())).convert("RGB"))


def shown_rows(page, task):
    """The texts of a table."""
    return [row.get_by_role("gridcell").all_inner_texts() for row in table_rows(page, task).all()]


def table_rows(page, task):
    return page.locator(f"#table-{task} .virtual-row")


def cells(rows):
    """Rows as the page writes them: 4.0 as 4."""
    return [[f"{cell:g}" if isinstance(cell, float) else str(cell) for cell in row] for row in rows]


def stripped(rows):
    return [[cell.strip() for cell in row] for row in rows]


def answer(page, task, selector):
    page.locator(f"#run-{task}").click()
    page.locator(selector).first.wait_for(state="visible")


def error_sentence(page):
    """The text of the error on the page, which is then closed."""
    text = page.get_by_test_id("toast-text").inner_text()
    page.get_by_test_id("toast-close").click()
    page.get_by_test_id("toast-body").wait_for(state="detached")
    return text


# What the server hands out


def ask_server(address, path, **content):
    """Text of an answer to a GET, or to a POST of JSON."""
    body = json.dumps(content).encode() if content else None
    request = Request(f"{address}gradio_api/{path}", body, {"Content-Type": "application/json"})
    with urlopen(request, timeout=SECONDS) as response:
        return response.read().decode()


def run_directly(address, *inputs):
    """What the server says to inputs of the first tab's button that no page has sent."""
    functions = json.loads(urlopen(f"{address}config", timeout=SECONDS).read())["dependencies"]
    index = next(one["id"] for one in functions if len(one["inputs"]) == len(inputs) and len(one["outputs"]) == 1)
    ask_server(address, "queue/join", data=list(inputs), fn_index=index, session_hash="alone")
    return ask_server(address, "queue/data?session_hash=alone")


def as_upload(path):
    return {"path": str(path), "meta": {"_type": "gradio.FileData"}}


def test_files_of_the_machine_are_not_handed_out(address, names, tmp_path):
    (tmp_path / "secret.png").write_bytes(b"secret")
    for path in ("/etc/passwd", f"{names['other']}/config.json", tmp_path / "secret.png", f"{UPLOADS.name}/../x"):
        with pytest.raises(HTTPError) as error:
            ask_server(address, f"file={path}")
        assert error.value.code in (403, 404)
    photograph().save(tmp_path / "photo.png")
    said = run_directly(address, as_upload(tmp_path / "photo.png"), names["classification"])
    assert '"success":false' in said and "confidences" not in said


def test_images_are_not_fetched_from_addresses(address, names):
    said = run_directly(address, as_upload(f"{address}static/img/logo.png"), names["classification"])
    assert "Images are not fetched from addresses" in said


def test_one_visitor_is_answered_at_a_time(address, names):
    store = ModelStore()
    page = build_page(Demo([store.describe(names["classification"])], {}, store=store))
    answers = [function for function in page.fns.values() if len(function.inputs) > 1]
    assert len(answers) == 6 and {(one.concurrency_id, one.concurrency_limit) for one in answers} == {("models", 1)}


def test_gradio_writes_nothing_beside_the_code(address):
    assert list(Path(serve.__code__.co_filename).parent.glob("*.pyi")) == []


def test_no_function_is_offered_to_programs(address):
    offered = json.loads(ask_server(address, "info"))
    assert offered["named_endpoints"] == offered["unnamed_endpoints"] == {}


# The page


def test_label(page, photo, names):
    upload(page, "classification", photo)
    answer(page, "classification", "#label h2")
    expected = classify(*load_checkpoint(names["classification"]), photograph())
    assert page.locator("#label h2").inner_text().strip() == next(iter(expected))
    shown = page.locator("#label .confidence-set").all_inner_texts()
    for text, (name, probability) in zip(shown, expected.items(), strict=True):
        assert name in text and f"{round(100 * probability)}%" in text


def test_example_gives_a_label(page, names):
    page.get_by_role("button", name="example.png").or_(page.locator(".gallery-item, .gallery button")).first.click()
    page.locator("#image-classification img").wait_for()
    answer(page, "classification", "#label h2")
    expected = classify(*load_checkpoint(names["classification"]), photograph(seed=5))
    assert page.locator("#label h2").inner_text().strip() == next(iter(expected))


def test_mask(page, photo, names):
    open_tab(page, "segmentation")
    upload(page, "segmentation", photo)
    answer(page, "segmentation", "#picture-segmentation img")
    model, processor = load_checkpoint(names["segmentation"])
    assert np.array_equal(shown_picture(page, "#picture-segmentation"), visualize(model, processor, photograph()))
    assert stripped(shown_rows(page, "segmentation")) == cells(segment(model, processor, photograph()).rows)


def test_boxes(page, photo, names):
    open_tab(page, "detection")
    upload(page, "detection", photo)
    page.get_by_test_id("number-input").fill(LOW)
    page.get_by_test_id("number-input").press("Tab")
    answer(page, "detection", "#picture-detection img")
    model, processor = load_checkpoint(names["detection"])
    expected = detect(model, processor, photograph(), float(LOW))
    assert len(expected.rows) > 0
    expect(table_rows(page, "detection")).to_have_count(len(expected.rows))
    assert np.array_equal(shown_picture(page, "#picture-detection"), expected.image)
    assert stripped(shown_rows(page, "detection")) == cells(expected.rows)


def test_patch_sizes(page, photo, names):
    open_tab(page, "patches")
    upload(page, "patches", photo)
    answer(page, "patches", "#gallery img")
    rows = stripped(shown_rows(page, "patches"))
    assert [row[:2] for row in rows] == [["8", "16"], ["4", "64"]]
    for row, key in zip(rows, ("classification", "finer"), strict=True):
        name, probability = next(iter(classify(*load_checkpoint(names[key]), photograph()).items()))
        assert row[2] == f"{name} ({probability:.1%})"
        assert float(row[3].removesuffix(" ms")) > 0 and row[4].endswith("KiB") and row[5].endswith("KiB")
    _, processor = load_checkpoint(names["classification"])
    pixels = seen_pixels(processor(photograph(), return_tensors="pt")["pixel_values"][0], processor)
    assert np.array_equal(shown_picture(page, "#gallery"), draw_tokens(pixels, 8))
    expect(page.locator("#note")).to_contain_text("For each patch size a model trained at it.")
    page.locator("#checkpoint-patches input").click()
    page.get_by_role("option", name="resampled").first.click()
    page.locator("#run-patches").click()
    expect(table_rows(page, "patches")).to_have_count(6)
    assert [row[0] for row in stripped(shown_rows(page, "patches"))] == ["32", "16", "8", "4", "2", "1"]
    expect(page.locator("#note")).to_contain_text("One model, trained at patch 8 and resampled")


def test_what_is_no_image_is_refused_with_a_sentence(page, photo, tmp_path):
    page.locator("#run-classification").click()
    assert "no image yet" in error_sentence(page)
    photograph(400, 400).resize((240, 240)).save(tmp_path / "large.png")
    (tmp_path / "text.png").write_text("not an image")
    (tmp_path / "pickle.png").write_bytes(pickle.dumps({"weights": 1}))
    for name, sentence in {
        "text.png": "not an image that is read here",
        "pickle.png": "not an image that is read here",
        "large.png": "more than max_pixels=40,000",
    }.items():
        upload(page, "classification", tmp_path / name)
        page.locator("#run-classification").click()
        assert sentence in error_sentence(page)
    upload(page, "classification", photo)
    answer(page, "classification", "#label h2")


def test_files_that_are_too_large_or_no_images_are_not_taken(page, photo, tmp_path):
    (tmp_path / "heavy.png").write_bytes(photo.read_bytes() + bytes(2 * 2**20))
    (tmp_path / "weights.pkl").write_bytes(pickle.dumps({"weights": 1}))
    chooser = page.locator("#image-classification input[type=file]")
    for name, sentence in {"heavy.png": "exceed the maximum allowed size", "weights.pkl": "Invalid file type"}.items():
        chooser.set_input_files(str(tmp_path / name))
        assert sentence in error_sentence(page)
    page.locator("#run-classification").click()
    assert "no image yet" in error_sentence(page)
    upload(page, "classification", photo)
    answer(page, "classification", "#label h2")


def test_another_checkpoint_can_be_loaded(page, photo, names, tmp_path):
    page.locator("#loader").get_by_text("Load another checkpoint").click()
    broken = tmp_path / "<img src=x onerror=console.error('run')>"
    broken.mkdir()
    for text, sentence in {
        "": "No checkpoint is chosen",
        str(broken): "neither a checkpoint folder",
        str(photo): "neither a checkpoint folder",
    }.items():
        page.locator("#loader-name textarea, #loader-name input").fill(text)
        page.locator("#loader-run").click()
        shown = error_sentence(page)
        assert sentence in shown and text in shown
    page.locator("#loader-name textarea, #loader-name input").fill(names["other"])
    page.locator("#loader-run").click()
    expect(page.locator("#loader-status").get_by_role("textbox")).to_have_value(re.compile("Loaded for classification"))
    upload(page, "classification", photo)
    answer(page, "classification", "#label h2")
    expected = classify(*load_checkpoint(names["other"]), photograph())
    assert page.locator("#label h2").inner_text().strip() == next(iter(expected))
    open_tab(page, "patches")
    upload(page, "patches", photo)
    page.locator("#run-patches").click()
    expect(table_rows(page, "patches")).to_have_count(6)
