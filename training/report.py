# Copyright 2026 The modeling_pixelvit team. All rights reserved.
# SPDX-License-Identifier: Apache-2.0
"""
Results of experiments as one page for a browser, and as Markdown for a model card.

    python -m training.report runs/experiments/table1-digits runs/experiments/table5-digits --output_dir runs/report

The page, `report.html`, needs no other file: the paper's tables stand beside ours, with the fits, test images that
patch sizes disagree on, what the models' last blocks do with them, cost and commands. `report.md` is for a card, with
its pictures beside it.
"""

import argparse
import shutil
import sys
import tempfile
from pathlib import Path

from transformers.utils import logging

from .common.files import write_text
from .experiments.page import build_report
from .experiments.report import PICTURE_FILE


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m training.report", description="Writes what experiments found as a page, and as Markdown."
    )
    parser.add_argument("runs", nargs="+", help="folders of results, as training.experiment writes them")
    parser.add_argument("--points_dir", default="runs/points", help="folder of the runs (default: %(default)s)")
    parser.add_argument("--output_dir", type=Path, default=Path("runs/report"), help="default: %(default)s")
    options = parser.parse_args(arguments)
    logging.disable_progress_bar()  # of every file that transformers reads
    folders = [Path(folder).resolve() for folder in dict.fromkeys(options.runs)]
    try:
        if len({folder.name for folder in folders}) < len(folders):
            raise ValueError("Two folders of the same name were given, and their pictures would have one; rename one.")
        with tempfile.TemporaryDirectory(prefix="report-") as images_folder:
            page, markdown = build_report(folders, options.points_dir, Path(images_folder))
        options.output_dir.mkdir(parents=True, exist_ok=True)
        write_text(options.output_dir / "report.html", page)
        write_text(options.output_dir / "report.md", markdown)
        for folder in folders:
            shutil.copyfile(folder / PICTURE_FILE, options.output_dir / f"{folder.name}.png")
    except (ValueError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    print(f"{options.output_dir / 'report.html'}\n{options.output_dir / 'report.md'}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
