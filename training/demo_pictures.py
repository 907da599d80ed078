# Copyright 2026 The modeling_pixelvit team. All rights reserved.
# SPDX-License-Identifier: Apache-2.0
"""
Pictures of the demo's tabs, taken from the running page in a headless Chromium.

    python -m training.demo_pictures [CHECKPOINT ...]    # writes training/demo_screenshots/*.png

It takes the options of `training.demo_app`, and needs playwright and a Chromium.
"""

import shutil
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from transformers.utils import logging

from .demo_app import check_arguments, find_port, make_demo, parse_arguments
from .demo_pages import TABS, build_page, serve


try:
    from playwright.sync_api import Browser, Page, sync_playwright
except ImportError:
    raise ValueError("Pictures of the demo need playwright; install it by pip install playwright.") from None


FOLDER = Path(__file__).parent / "demo_screenshots"
BROWSERS = ("chromium", "chromium-browser", "google-chrome")
BROWSER_ARGUMENTS = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--disable-quic",
)
WIDTH, HEIGHT = 1200, 760
MILLISECONDS_TO_WAIT = 60_000
# The example that is shown in each tab.
EXAMPLES = {"classification": 8, "segmentation": 3, "detection": 3, "patches": 2}
NAMES = {"classification": "classify", "segmentation": "segment", "detection": "detect", "patches": "patch_sizes"}


def find_browser() -> str | None:
    """The program of a Chromium that is installed."""
    return next((found for name in BROWSERS if (found := shutil.which(name))), None)


@contextmanager
def open_browser() -> Iterator[Browser]:
    """
    Raises:
        ValueError: if there is none.
    """
    program = find_browser()
    if program is None:
        raise ValueError(f"There is no Chromium ({', '.join(BROWSERS)}) on the path; install one.")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=program, args=list(BROWSER_ARGUMENTS))
        try:
            yield browser
        finally:
            browser.close()


def open_tab(page: Page, task: str):
    """Shows the tab of a task, or of "patches"."""
    page.get_by_role("tab", name=TABS.get(task, "Patch sizes")).click()
    page.locator(f"#run-{task}").wait_for(state="visible")


def upload(page: Page, task: str, path: str | Path):
    """Gives a tab an image in place of the one it has, and waits until the server has it."""
    remove = page.locator(f"#image-{task}").get_by_role("button", name="Remove Image")
    if remove.count():
        remove.click()
    with page.expect_response(lambda response: "/upload" in response.url):
        page.locator(f"#image-{task} input[type=file]").set_input_files(str(path))
    page.locator(f"#image-{task} img").wait_for(state="attached")


def take_pictures(address: str, examples: dict[str, list[Path]], folder: Path):
    """A picture of each tab after it has answered for an example."""
    folder.mkdir(parents=True, exist_ok=True)
    with open_browser() as browser:
        page = browser.new_page(viewport={"width": WIDTH, "height": HEIGHT})
        page.set_default_timeout(MILLISECONDS_TO_WAIT)
        page.goto(address)
        for task, name in NAMES.items():
            paths = examples.get(task) or next(iter(examples.values()))
            open_tab(page, task)
            upload(page, task, paths[min(EXAMPLES[task], len(paths) - 1)])
            page.locator(f"#run-{task}").click()
            answers = {"classification": "#label h2", "patches": "#gallery img"}
            page.locator(answers.get(task, f"#picture-{task} img")).first.wait_for(state="visible")
            page.wait_for_timeout(1500)  # until nothing fades in any more
            page.screenshot(path=folder / f"{name}.png", full_page=True)
            print(folder / f"{name}.png")


def main(arguments: list[str] | None = None) -> int:
    """Runs the command; returns its exit status, 2 after one sentence on stderr."""
    options: Any = parse_arguments(arguments)
    logging.disable_progress_bar()
    try:
        check_arguments(options)
        demo = make_demo(options)
        page = build_page(demo)
        address = serve(page, demo, server_name="127.0.0.1", server_port=find_port("127.0.0.1", 0))
        take_pictures(address, demo.examples, FOLDER)
        page.close(verbose=False)
    except ValueError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
