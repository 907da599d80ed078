# Copyright 2026 The modeling_pixelvit team. All rights reserved.
# SPDX-License-Identifier: Apache-2.0
"""The cost table: its fit against made-up numbers, what is left unmeasured, and the whole of it at toy size."""

import dataclasses
import json
from functools import partial

import pytest

from training import benchmark, experiment, train
from training.benchmarks import cost, cost_cell
from training.checkpoints.measured_cost import Point, fit_cost, load_measured_cost


TINY = cost.CostSettings(
    variant="tiny",
    image_size=32,
    patch_sizes=(2, 16, 4, 8),
    device="cpu",
    precision="fp32",
    tokens_per_step=16,
    threads=1,
    max_seconds=100.0,
)


def made_up(cell, step=lambda work, batch_size: 0.5, memory=lambda work, batch_size: 1.0):
    work, _ = TINY.model(cell.family, cell.patch_size)
    return {
        "batch_size": cell.batch_size,
        "seconds": step(work, cell.batch_size),
        "bytes": memory(work, cell.batch_size),
    }


def by_law(cell):
    """Seconds and bytes that the fit can have exactly, with mixing at half of the rate where it has one of its own."""
    slower = 2 if cell.family == "pixelvit" else 1
    return made_up(
        cell,
        lambda work, batch_size: 0.01 + batch_size * (work.flops + slower * work.mixing_flops) * 1e-9,
        lambda work, batch_size: 1e6 + batch_size * work.channels * 40,
    )


@pytest.mark.parametrize("family", ["adventurer", "pixelvit"])
def test_the_fit_finds_the_law_that_points_follow(family):
    rows, fit = cost.measure_mode(TINY, family, "training", by_law)
    assert [row["patch_size"] for row in rows] == [16, 8, 4, 2] and all(row["measured"] for row in rows)
    assert [row["batch_size"] for row in rows] == [4, 1, 1, 1]
    assert fit.overhead_seconds == pytest.approx(0.01) and fit.seconds_per_flop == pytest.approx(1e-9)
    assert fit.seconds_per_mixing_flop == pytest.approx(2e-9 if family == "pixelvit" else 1e-9)
    assert fit.overhead_bytes == pytest.approx(1e6) and fit.bytes_per_channel == pytest.approx(40)
    assert fit.seconds_error < 1e-6 and fit.bytes_error < 1e-6


def test_its_error_is_that_of_a_point_left_out():
    points = []
    for patch_size, factor in ((16, 1.0), (8, 1.0), (4, 1.0), (2, 1.5)):
        cell = TINY.cell("adventurer", "training", patch_size)
        found = by_law(cell)
        work, _ = TINY.model("adventurer", patch_size)
        points.append(Point(work, cell.batch_size, factor * found["seconds"], None))
    fit = fit_cost("adventurer", points)
    exact = fit_cost("adventurer", points[:3])
    of_last = abs(exact.seconds(points[3].work, 1) / points[3].seconds - 1)
    assert of_last == pytest.approx(1 / 3, abs=1e-6) and fit.seconds_error >= of_last - 1e-6
    assert fit.bytes_per_channel is None and fit.bytes(points[0].work, 1) is None
    assert fit_cost("adventurer", points[:2]).seconds_error is None
    assert fit_cost("adventurer", points[:1]) is None and fit_cost("pixelvit", points[:2]) is None


def test_what_takes_too_long_is_not_started_and_what_does_not_fit_ends_it():
    asked = []

    def slow(cell):
        asked.append(cell.patch_size)
        return made_up(cell, lambda work, batch_size: batch_size * (work.flops + work.mixing_flops) * 2e-8)

    rows, fit = cost.measure_mode(TINY, "adventurer", "training", slow)
    assert asked == [16, 8, 4] and [row["measured"] for row in rows] == [True, True, True, False]
    assert "longer than 100 s by the fit" in rows[3]["unmeasured"]
    work, _ = TINY.model("adventurer", 2)
    assert rows[3]["seconds"] == pytest.approx(fit.seconds(work, 1)) and rows[3]["seconds"] > 50

    def full(cell):
        return by_law(cell) if cell.patch_size > 4 else {"unmeasured": "one image does not fit into the memory"}

    rows, fit = cost.measure_mode(TINY, "pixelvit", "training", full)
    assert [row.get("unmeasured") for row in rows[2:]] == [
        "one image does not fit into the memory",
        "one image does not fit into the memory at patch 4",
    ]
    assert fit is None and "seconds" not in rows[3]  # two points do not make three terms
    assert cost.add_costs(rows[3], TINY, 1e12) == rows[3]


def test_hours_money_and_share_of_the_matrix_rate():
    settings = dataclasses.replace(TINY, price=2.0)
    row = {"mode": "training", "batch_size": 2, "seconds": 0.5, "flops": 10**9, "bytes": 6e6}
    found = cost.add_costs(row, settings, rate=1e11)
    assert found["images_per_second"] == 4 and found["megabytes_per_image"] == 3
    assert found["hours_per_epoch"] == pytest.approx(1281167 / 4 / 3600)
    assert found["euros_per_epoch"] == pytest.approx(2 * found["hours_per_epoch"])
    assert found["mfu"] == pytest.approx(3 * 4e9 / 1e11)
    assert cost.add_costs({**row, "mode": "inference"}, settings, 1e11)["mfu"] == pytest.approx(4e9 / 1e11)


def test_the_papers_column_is_for_the_papers_models_alone():
    assert cost.paper_columns(TINY) is None
    paper = cost.paper_columns(dataclasses.replace(TINY, variant="base", image_size=224))
    assert paper["hours"]["adventurer"]["1"] == 115.08 and "not measured here" in paper["source"]


@pytest.fixture(scope="module")
def measured(tmp_path_factory):
    """A small table of the whole command, whose cells are measured in this process."""
    path = tmp_path_factory.mktemp("cost") / "cost.json"
    words = "cost --device cpu --variant tiny --image_size 16 --patch_sizes 16 8 4 2 --tokens_per_step 4 --rounds 1"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(cost, "measure_in_process", cost_cell.measure_cell)
        patch.setattr(benchmark, "matrix_rate", partial(cost_cell.matrix_rate, seconds=0.01))
        benchmark.main([*words.split(), "--price", "0.5", "--threads", "1", "--output", str(path)])
    return path


def test_a_cell_in_a_process_of_its_own():
    cell = dataclasses.replace(TINY.cell("pixelvit", "training", 16), rounds=1, max_seconds=300)
    found = cost_cell.measure_in_process(cell)
    assert found["batch_size"] == 4 and found["seconds"] > 0
    found = cost_cell.measure_in_process(dataclasses.replace(cell, max_seconds=0.01))
    assert found == {"unmeasured": "longer than 0.01 s"}


def test_the_command_on_a_cpu(measured):
    content = json.loads(measured.read_text())
    rows, fits = content["rows"], content["fits"]
    assert len(rows) == 16 and all(row["measured"] and row["seconds"] > 0 and row["mfu"] > 0 for row in rows)
    assert content["matrix_rate"] > 1e9 and content["settings"]["device_hours"] == "CPU hours (1 threads)"
    assert {(family, mode) for family, modes in fits.items() for mode in modes} == {
        (family, mode) for family in ("adventurer", "pixelvit") for mode in ("training", "inference")
    }
    text = measured.with_suffix(".md").read_text()
    assert "CPU hours" in text and "GPU" not in text and "A100" not in text and "euros an epoch" in text
    assert measured.with_suffix(".png").read_bytes().startswith(b"\x89PNG")


def test_a_model_that_cannot_run_says_why():
    settings = dataclasses.replace(TINY, implementations={"pixelvit": "flash_attention_2"})
    rows, _ = cost.measure_mode(settings, "pixelvit", "inference", cost_cell.measure_cell)
    assert rows[0]["unmeasured"].startswith("ImportError") and not any(row["measured"] for row in rows)


def test_plans_take_hours_and_memory_from_it(measured, tmp_path, capsys):
    words = ["--recipe", "pixelvit-sweep", "--patch_size", "4", "--num_train_epochs", "2", "--plan"]
    words += ["--warmup_epochs", "0", "--report_to", "none", "--output_dir", str(tmp_path / "run")]
    assert train.main([*words, "--cost_file", str(measured)]) == 0
    told = capsys.readouterr().out
    assert "on the device, as fitted to 4 points of pixelvit-tiny at 16 pixels" in told and "TFLOP/s" not in told
    assert "for 32 images in a process, by the same fit (error" in told
    assert train.main([*words, "--cost_file", str(measured), "--gradient_checkpointing"]) == 0
    assert "not told: those that were measured were with gradient checkpointing" in capsys.readouterr().out
    (tmp_path / "other.json").write_text("{}")
    assert train.main([*words, "--cost_file", str(tmp_path / "other.json")]) == 2
    assert "which has no measured costs" in capsys.readouterr().err

    points = ["--points_dir", str(tmp_path / "points"), "--families", "pixelvit", "--fast"]
    assert experiment.main(["pooling", "--scale", "digits", "--plan", "--cost_file", str(measured), *points]) == 0
    assert "(on one device, as fitted to 4 points of pixelvit-tiny" in capsys.readouterr().out


def test_a_plan_is_the_sum_of_its_steps(measured):
    cost_of = load_measured_cost(measured)
    fit = cost_of.of_training("pixelvit")
    work, _ = TINY.model("pixelvit", 4)
    assert fit.seconds(work, 3) == pytest.approx(
        fit.overhead_seconds + 3 * (work.flops * fit.seconds_per_flop + work.mixing_flops * fit.seconds_per_mixing_flop)
    )
    with pytest.raises(ValueError, match="have no fit of other's training"):
        cost_of.of_training("other")


def test_options_out_of_range():
    with pytest.raises(SystemExit, match="must divide --image_size 32"):
        benchmark.main(["cost", "--device", "cpu", "--image_size", "32", "--patch_sizes", "5"])
    with pytest.raises(SystemExit, match=r"price -1\.0 was given"):
        benchmark.main(["cost", "--device", "cpu", "--price", "-1"])


@pytest.mark.parametrize(
    ("kind", "name", "value"),
    [("cost", "threads", "0"), ("cost", "tokens_per_step", "0"), ("gpu", "batch_size", "0"), ("cpu", "rounds", "-1")],
)
def test_no_number_is_taken_for_another(kind, name, value):
    device = [] if kind == "cpu" else ["--device", "cpu"]
    with pytest.raises(SystemExit, match=f"--{name} {value} was given; it must be above zero"):
        benchmark.main([kind, *device, f"--{name}", value])


def test_a_picture_of_what_could_not_be_measured(tmp_path):
    """Training took too long, or there is a system that does not tell memory: a panel is empty then."""
    settings = dataclasses.replace(TINY, patch_sizes=(16, 8))
    rows, _ = cost.measure_mode(settings, "adventurer", "training", lambda cell: {"unmeasured": "too long"})
    sized, _ = cost.measure_mode(settings, "pixelvit", "training", partial(made_up, memory=lambda *_: None))
    for index, some in enumerate((rows, [cost.add_costs(row, settings, 1e9) for row in sized])):
        content = {
            "environment": {"device": "a device"},
            "settings": {**dataclasses.asdict(settings), "device_hours": "hours"},
            "rows": some,
            "paper": None,
        }
        cost.draw_costs(content, tmp_path / f"{index}.png")
        assert (tmp_path / f"{index}.png").stat().st_size > 10_000
