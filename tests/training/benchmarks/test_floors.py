# Copyright 2026 The modeling_pixelvit team. All rights reserved.
# SPDX-License-Identifier: Apache-2.0
"""Floors of kernels on graphics cards: by definition from bytes, operations and data sheets, and how they are told."""

import dataclasses
import re

import pytest
from helpers import tiny_config, tiny_model

from modeling_pixelvit import AdventurerForImageClassification, PixelViTForImageClassification
from training import doctor
from training.benchmarks import cost
from training.benchmarks.doctor import Device, floors_report
from training.benchmarks.floors import format_floors, known_gpu, step_floor
from training.checkpoints.kernel_cost import block_cost
from training.common.gpus import Gpu, find_gpu


H100 = "NVIDIA H100 80GB HBM3"
KNOWN = find_gpu(H100)


@pytest.fixture
def config():
    return tiny_config("adventurer")


@pytest.mark.parametrize(
    ("name", "bandwidth"),
    [
        (H100, 3.35e12),
        ("H100 SXM", 3.35e12),
        ("NVIDIA H100 PCIe", 2.0e12),
        ("NVIDIA A100-SXM4-80GB", 2.039e12),
        ("NVIDIA A100 80GB PCIe", 1.935e12),
        ("NVIDIA A100-PCIE-40GB", 1.555e12),
        ("NVIDIA H200", 4.8e12),
        ("nvidia l40s", 0.864e12),
        ("NVIDIA L4", 0.3e12),
    ],
)
def test_cards_by_their_names(name, bandwidth):
    assert find_gpu(name).bandwidth == known_gpu(name).bandwidth == bandwidth


def test_a_v100_by_its_slot():
    assert find_gpu("Tesla V100-SXM2-16GB").rate == 125e12 and find_gpu("Tesla V100-PCIE-32GB").rate == 112e12


@pytest.mark.parametrize(
    "name",
    ["NVIDIA H100 NVL", f"{H100} MIG 1g.10gb", "NVIDIA GH200 480GB", "NVIDIA L40", "A100", "Tesla V100-SXM2-16GB"],
)
def test_nothing_is_guessed_of_other_cards(name, config, capsys):
    with pytest.raises(ValueError, match=f"Of {name} matrix rate and memory bandwidth are not known"):
        known_gpu(name)
    (line,) = floors_report(Device("cuda", name, (9, 0), True), config, 1)
    assert line.startswith(f"Of {name} ") and line.endswith(".")
    assert doctor.main(["--card", name]) == 2
    assert line in capsys.readouterr().err


@pytest.mark.parametrize("sizes", [{"state_size": 256}, {"head_dim": 256, "hidden_size": 256}])
def test_no_floor_is_told_of_sizes_that_the_kernels_do_not_do(sizes):
    with pytest.raises(ValueError, match="neither dimension nor state size above 128"):
        format_floors(tiny_config("adventurer", **sizes), H100, 1)


def test_a_step_is_the_sum_of_its_kernels(config):
    gpu = Gpu(rate=2e12, bandwidth=1e12, capability=(9, 0))

    def seconds(kernels):
        return config.num_hidden_layers * sum(max((k.read + k.written) / 1e12, k.flops / 2e12) for k in kernels)

    training, inference = (block_cost(config, 3, stream_bytes=size) for size in (4, 2))
    forward, backward = seconds(training.forward), seconds(training.backward)
    assert step_floor(config, gpu, 3, trains=True) == pytest.approx(forward + backward)
    assert step_floor(config, gpu, 3, trains=True, checkpoints=True) == pytest.approx(2 * forward + backward)
    assert step_floor(config, gpu, 3, trains=False) == pytest.approx(seconds(inference.forward))
    assert seconds(inference.forward) < forward  # a stream in float32 is more to move


def test_the_table_tells_every_kernel_and_what_they_leave(config):
    text = format_floors(config, H100, 16)
    assert text.startswith("Not measured: computed from bytes and operations")
    assert f"data sheet of {H100}, 3.35 TB/s and 989 TFLOP/s" in text and "16 images of 8 pixels" in text
    rows = [[cell.strip() for cell in line.split("|")[1:-1]] for line in text.splitlines() if line.startswith("|")]
    kernels, whole = rows[2:-1], rows[-1]
    found = block_cost(config, 16, stream_bytes=4)
    assert [row[0] for row in kernels] == [
        *(f"forward: {kernel.name}" for kernel in found.forward),
        *(f"backward: {kernel.name}" for kernel in found.backward),
    ]
    assert float(whole[3]) == pytest.approx(sum(float(row[3]) for row in kernels), abs=0.005 * len(kernels))
    assert int(re.search(r"floors: (\d+)%", text)[1]) == round(100 * found.utilization(3.35e12, 989e12))


def test_the_doctor_tells_a_card_that_is_not_there(tmp_path, capsys):
    words = ["--card", "H100 SXM", "--patch_size", "1", "--batch_size", "16"]
    assert doctor.main([*words, "--image_size", "224"]) == 0
    told = capsys.readouterr().out
    assert "16 images of 224 pixels at patch 1, 768 channels" in told and "auto runs" not in told
    found = re.search(r"floors: (\d+)%", told)
    assert 45 < int(found[1]) < 55  # with a stream in float32; in bfloat16 it is more

    tiny_model(AdventurerForImageClassification).save_pretrained(tmp_path / "adventurer")
    assert doctor.main([str(tmp_path / "adventurer"), *words]) == 0
    assert "8 pixels at patch 1" in capsys.readouterr().out
    tiny_model(PixelViTForImageClassification).save_pretrained(tmp_path / "pixelvit")
    assert doctor.main([str(tmp_path / "pixelvit"), *words]) == 2
    assert "floors are of Adventurer's kernels" in capsys.readouterr().err
    assert doctor.main([*words, "--batch_size", "0"]) == 2
    assert "--batch_size 0 was given; it must be above zero" in capsys.readouterr().err


SETTINGS = cost.CostSettings(
    variant="tiny", image_size=32, patch_sizes=(8,), device="cuda", precision="bf16", tokens_per_step=64, threads=1
)


def costed(family, mode, settings=SETTINGS, gpu=KNOWN):
    found = {"batch_size": 4, "seconds": 0.5, "bytes": 1e6}
    ((row,), _) = cost.measure_mode(settings, family, mode, lambda cell: found)
    return cost.add_floor(cost.add_costs(row, settings, 1e12), settings, gpu)


@pytest.mark.parametrize("mode", ["training", "inference"])
def test_a_measured_step_over_its_floor(mode):
    floor = step_floor(SETTINGS.config("adventurer", 8), KNOWN, 4, trains=mode == "training")
    row = costed("adventurer", mode)
    assert row["over_floor"] == pytest.approx(0.5 / floor)
    checkpointed = costed("adventurer", mode, dataclasses.replace(SETTINGS, gradient_checkpointing=True))
    assert (checkpointed["over_floor"] < row["over_floor"]) == (mode == "training")
    assert "over_floor" not in costed("pixelvit", mode)
    assert "over_floor" not in costed("adventurer", mode, dataclasses.replace(SETTINGS, device="cpu"))
    assert costed("adventurer", mode, gpu=None)["over_floor"] is None
    assert costed("adventurer", mode, dataclasses.replace(SETTINGS, precision="fp32"))["over_floor"] is None


def test_the_cost_table_shows_it():
    rows = [costed(family, "training") for family in ("adventurer", "pixelvit")]
    content = {
        "environment": {"device": H100, "date": "today", "torch": "2"},
        "settings": {**dataclasses.asdict(SETTINGS), "device_hours": "GPU hours"},
        "matrix_rate": 8e14,
        "rows": rows,
        "fits": {},
        "paper": None,
    }
    lines = cost.format_costs(content).splitlines()
    (at,) = (index for index, line in enumerate(lines) if line.startswith("| model"))
    table = [[cell.strip() for cell in line.split("|")[1:-1]] for line in lines[at : at + 4]]
    column = table[0].index("over floor")
    assert [line[column] for line in table[2:]] == [f"{rows[0]['over_floor']:.2f}", "-"]
    assert any("computed from their bytes and operations and from the card's data sheet" in line for line in lines)
    unknown = [{**rows[0], "over_floor": None}]
    assert f"No floor is told: memory bandwidth or matrix rate of {H100} in bf16 is not known." in cost.format_costs(
        {**content, "rows": unknown}
    )
