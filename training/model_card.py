# Copyright 2026 The modeling_pixelvit team. All rights reserved.
# SPDX-License-Identifier: Apache-2.0
"""
Model cards: the README.md of a checkpoint folder, and those of the paper's checkpoints in `model_cards/`.

    python -m training.model_card             # renders model_cards/*.md from results.yaml and template.md
    python -m training.model_card --check     # names those that are out of date; exit status 1 if there are any
    python -m training.model_card NAME        # prints the card of any checkpoint of the paper

Tokens, parameters and operations are counted from the configuration. Every other number says who measured it, and the
paper's are those of the weights at hand only where these are the released ones.
"""

import argparse
import sys

from .cards.card import TEMPLATE_FILE, out_of_date, render_paper_card, rendered_files
from .cards.results import CARDS_FOLDER
from .common.files import write_text


def main(arguments: list[str] | None = None) -> int:
    """Runs the command; returns its exit status."""
    parser = argparse.ArgumentParser(
        prog="python -m training.model_card", description="Renders the cards of the paper's checkpoints."
    )
    parser.add_argument("--check", action="store_true", help="name the cards that are out of date, and write nothing")
    parser.add_argument("name", nargs="?", metavar="NAME", help="print the card of this checkpoint in results.yaml")
    options = parser.parse_args(arguments)
    if options.name is not None:
        try:
            print(render_paper_card(options.name), end="")
        except ValueError as error:
            print(f"error: {error}", file=sys.stderr)
            return 2
        return 0
    files = rendered_files()
    for path in (differing := out_of_date(files)):
        print(path.relative_to(CARDS_FOLDER.parent))
        if not options.check:
            write_text(path, files[path])
    strays = [path.name for path in sorted(CARDS_FOLDER.glob("*.md")) if path not in {*files, TEMPLATE_FILE}]
    if strays:
        print(
            f"error: no checkpoint in results.yaml has these cards: {', '.join(strays)}; remove them.", file=sys.stderr
        )
    if options.check and differing:
        print(f"error: {len(differing)} files are out of date; run python -m training.model_card.", file=sys.stderr)
    return 1 if strays or (options.check and differing) else 0


if __name__ == "__main__":
    sys.exit(main())
