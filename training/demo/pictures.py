# Copyright 2026 The modeling_pixelvit team. All rights reserved.
# SPDX-License-Identifier: Apache-2.0
"""The demo in a headless Chromium, and pictures of its tabs."""

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from .pages import TABS


try:
    from playwright.sync_api import Browser, Page, sync_playwright
except ImportError:
    raise ValueError("Pictures of the demo need playwright; install it by pip install playwright.") from None


FOLDER = Path(__file__).parent / "screenshots"
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
