# Copyright 2026 The modeling_pixelvit team. All rights reserved.
# SPDX-License-Identifier: Apache-2.0
"""The numbers of `model_cards/results.yaml`: complete, each with a source, and ours as the benchmarks have them."""

import json

from training.cards.results import ROOT, load_results, numbers_of, paper_checkpoints
from training.tasks.registry import known_scores


def test_all_numbers_have_a_source_and_name_what_is_known():
    contents = load_results()
    known = {"dataset": contents["datasets"], "metric": known_scores(), "quantity": contents["quantities"]}
    for name, entry in contents["checkpoints"].items():
        assert numbers_of(entry), name
        for number in numbers_of(entry):
            for field, names in known.items():
                assert field not in number or number[field] in names, (name, number)
            source = number["source"]
            if source["kind"] == "paper":
                assert ("tables" in source) != ("release" in source), (name, number)
            else:
                assert source["kind"] == "measured" and source["measurement"] in contents["measurements"], (
                    name,
                    number,
                )


def test_the_papers_numbers_are_complete():
    """Cells of Tables 1 to 6 that belong to a checkpoint, and the seven of the release that no table has."""
    numbers = [number for entry in paper_checkpoints().values() for number in numbers_of(entry)]
    cells = dict.fromkeys(range(1, 7), 0)
    for number in numbers:
        for table in number["source"].get("tables", ()):
            cells[table] += 1
    # Table 2: mIoU and parameters of 10 models. Table 5: 7 rows of two models, the first row of each the same twice.
    assert cells == {1: 24, 2: 20, 3: 60, 4: 35, 5: 12, 6: 15}
    assert sum("release" in number["source"] for number in numbers) == 6
    assert sum("weights" in entry for entry in paper_checkpoints().values()) == 18  # and DeiT's own at patch 16


def test_smaller_patches_are_better_in_every_row_of_the_paper():
    rows = {}
    for entry in paper_checkpoints().values():
        for result in entry.get("results", ()):
            if "sequence_extended_to" not in result and "release" not in result["source"]:
                fields = ("family", "variant", "image_size", "decoder")
                row = (*(entry.get(field) for field in fields), result["metric"])
                rows.setdefault(row, {})[entry["patch_size"]] = result["value"]
    for row, values in rows.items():
        by_patch = [values[patch] for patch in sorted(values, reverse=True)]
        assert by_patch == sorted(by_patch), row


def test_our_numbers_are_those_of_the_benchmarks():
    contents, compared = load_results(), 0
    for name, entry in contents["checkpoints"].items():
        for number in numbers_of(entry):
            source = number["source"]
            if source["kind"] != "measured":
                continue
            measurement = contents["measurements"][source["measurement"]]
            benchmark = json.loads((ROOT / measurement["file"]).read_text())
            date = benchmark.get("date") or benchmark["environment"]["date"]
            assert date.startswith(str(measurement["date"])), name
            if "entry" in source:
                key = {"seconds": "seconds", "peak_memory": "peak_gigabytes"}[number["quantity"]]
                assert number["value"] == float(f"{benchmark['results'][source['entry']][key]:.3g}"), (name, number)
            else:
                family, patch_size = entry["family"], entry["patch_size"]
                runs = {run.get("key", run["name"]): run for run in benchmark["runs"]}
                run = runs[source["run"]]
                assert (run["family"], run["patch_size"], run.get("decoder")) == (
                    family,
                    patch_size,
                    entry.get("decoder"),
                )
                assert number["value"] == round(run[f"test_{number['metric']}"], 2), (name, number)
            compared += 1
    assert compared == 8 + 10 + 12 + 6 * 6
