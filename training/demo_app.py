# Copyright 2026 The modeling_pixelvit team. All rights reserved.
# SPDX-License-Identifier: Apache-2.0
"""
A page to try models in a browser: labels, masks, boxes, and one image at several patch sizes.

    python -m training.demo_app                      # trains the sweep's small models first if they are not there
    python -m training.demo_app CHECKPOINT ...       # folders or hub names of any of our models
    python -m training.demo_app CHECKPOINT ... --export_space FOLDER

Checkpoints are loaded by this package's own classes; code and pickles in them, and in uploads, are never run.
"""

import argparse
import signal
import sys
import threading

from transformers.utils import logging

from .demo.start import check_arguments, find_port, make_demo, parse_arguments


def run(options: argparse.Namespace):
    check_arguments(options)
    if options.export_space is not None:
        from .demo.space import export_space

        export_space(make_demo(options), options.export_space)
        print(
            f"{options.export_space} is a Space. To try it: python {options.export_space}/app.py\nTo publish it: "
            f"hf upload USER/NAME {options.export_space} . --repo-type space"
        )
        return
    from .demo.pages import build_page, serve

    port = find_port(options.host, options.port)
    demo = make_demo(options)
    address = serve(build_page(demo), demo, server_name=options.host, server_port=port)
    print(f"The demo is at {address} (Ctrl-C ends it).", flush=True)
    threading.Event().wait()


def main(arguments: list[str] | None = None) -> int:
    """Runs the command; returns its exit status, 2 after one sentence on stderr."""
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    options = parse_arguments(arguments)
    logging.disable_progress_bar()
    logging.set_verbosity_error()
    try:
        run(options)
    except (OSError, ValueError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("\nEnded. What was trained is kept; the same command goes on from there.", file=sys.stderr)
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
