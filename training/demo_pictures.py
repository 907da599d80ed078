# Copyright 2026 The modeling_pixelvit team. All rights reserved.
# SPDX-License-Identifier: Apache-2.0
"""
Pictures of the demo's tabs, taken from the running page in a headless Chromium.

    python -m training.demo_pictures [CHECKPOINT ...]    # writes training/demo/screenshots/*.png

It takes the options of `training.demo_app`, and needs playwright and a Chromium.
"""

import sys
from typing import Any

from transformers.utils import logging

from .demo.pages import build_page, serve
from .demo.pictures import FOLDER, take_pictures
from .demo.start import check_arguments, find_port, make_demo, parse_arguments


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
