# Copyright 2026 The modeling_pixelvit team. All rights reserved.
# SPDX-License-Identifier: Apache-2.0
"""The biases by which a new model's heads look at neighbors (`locality_init_value`), against what is said of them."""

import copy
import math
import pickle

import pytest
import torch
from helpers import tiny_config

from modeling_pixelvit import PixelViTForImageClassification, PixelViTModel
from modeling_pixelvit.layers_rotary import neighbor_bias, rotary_angles, rotate


ROTARY = {"position_embedding_type": "rotary", "rotary_wavelengths": [4, 64], "locality_init_value": 32.0}


def new_model(model_class, **fields):
    torch.manual_seed(0)
    return model_class(tiny_config("pixelvit", **fields)).eval()


@pytest.mark.parametrize(("num_heads", "head_dim", "distance"), [(4, 16, 1), (3, 64, 2), (1, 4, 0.5)])
def test_scores_are_their_definition(num_heads, head_dim, distance):
    """Of all pairs of places of a grid: the mean cosine over wavelengths and axes, `score` at the neighbor."""
    patch_size, shortest, longest, score = 2, 3.0, 40.0, 7.5
    biases = [
        neighbor_bias(num_heads, head_dim, (shortest, longest), distance, score, of_keys) for of_keys in (False, True)
    ]
    angles = rotary_angles((3, 4), patch_size, head_dim, (shortest, longest), torch.device("cpu"))[1:]
    query, key = (
        rotate(bias.view(1, num_heads, 1, head_dim).expand(1, num_heads, 12, head_dim), angles.cos(), angles.sin())
        for bias in biases
    )
    scores = (query @ key.transpose(2, 3) / math.sqrt(head_dim))[0]
    count = head_dim // 4
    lengths = [shortest * (longest / shortest) ** (index / max(1, count - 1)) for index in range(count)]
    with torch.device("meta"):  # whoever makes models on another device first
        assert neighbor_bias(num_heads, head_dim, (shortest, longest), distance, score, False).equal(biases[0])
    for head in range(num_heads):
        direction = 2 * math.pi * head / num_heads
        neighbor = distance * math.sin(direction), distance * math.cos(direction)
        for place in range(12):
            for other in range(12):
                steps = [patch_size * (other // 4 - place // 4), patch_size * (other % 4 - place % 4)]
                cosines = [
                    math.cos(2 * math.pi * (step - wanted) / length)
                    for step, wanted in zip(steps, neighbor, strict=True)
                    for length in lengths
                ]
                expected = score * sum(cosines) / len(cosines)
                assert scores[head, place, other].item() == pytest.approx(expected, abs=2e-5 * score)


@pytest.mark.parametrize(
    ("patch_size", "distances"), [(1, [1, 2, 4, 1, 2]), (2, [2, 4, 2, 4, 2]), (8, [8, 8, 8, 8, 8])]
)
def test_a_new_model_looks_at_neighbors(patch_size, distances):
    """Right, down, left and up, from a patch to a quarter of the shorter side."""
    model = new_model(
        PixelViTModel,
        image_size=[16, 24],
        patch_size=patch_size,
        hidden_size=64,
        num_hidden_layers=5,
        initializer_range=1e-4,
        attn_implementation="eager",
        **ROTARY,
    )
    rows, columns = model.config.grid_size
    maps = model(torch.randn(1, 3, 16, 24), output_attentions=True).attentions
    for layer_maps, distance in zip(maps, distances, strict=True):
        seen = 0
        for head, (down, right) in enumerate([(0, 1), (1, 0), (0, -1), (-1, 0)]):
            for row in range(rows):
                for column in range(columns):
                    there = row + down * distance // patch_size, column + right * distance // patch_size
                    if 0 <= there[0] < rows and 0 <= there[1] < columns:
                        seen += 1
                        favourite = layer_maps[0, head, 1 + row * columns + column, 1:].argmax().item()
                        assert divmod(favourite, columns) == there
        assert seen > 0


def test_it_is_where_a_model_begins_and_no_more(tmp_path):
    """Weights that are loaded are those that were stored, and a model without the option has no biases at first."""
    plain = new_model(PixelViTForImageClassification, **{**ROTARY, "locality_init_value": None})
    local = new_model(PixelViTForImageClassification, **ROTARY)
    names = [name for name, weight in plain.named_parameters() if not torch.equal(weight, local.get_parameter(name))]
    assert names == [
        f"pixelvit.layers.{index}.attention.{side}_proj.bias"
        for index in range(plain.config.num_hidden_layers)
        for side in ("q", "k")
    ]
    assert not any(plain.get_parameter(name).any() for name in names)
    for name in names:
        torch.nn.init.normal_(local.get_parameter(name))
    local.save_pretrained(tmp_path)
    loaded = PixelViTForImageClassification.from_pretrained(tmp_path)
    for copied in (loaded, copy.deepcopy(local), pickle.loads(pickle.dumps(local))):
        assert all(torch.equal(copied.get_parameter(name), local.get_parameter(name)) for name in names)


def test_the_table_of_positions_has_no_use_for_it():
    for option in (None, 8.0):
        model = new_model(PixelViTModel, position_embedding_type="absolute", locality_init_value=option)
        assert not model.layers[0].attention.q_proj.bias.any()


def test_having_no_use_is_told(monkeypatch):
    told = []
    monkeypatch.setattr("modeling_pixelvit.configuration_pixelvit.logger.warning_once", told.append)
    tiny_config("pixelvit", **ROTARY)
    tiny_config("pixelvit", position_embedding_type="absolute", locality_init_value=None)
    assert told == []
    tiny_config("pixelvit", position_embedding_type="absolute", locality_init_value=8.0)
    assert "locality_init_value=8.0 has no effect without rotary positions; set" in told[0]


@pytest.mark.parametrize(
    ("fields", "sentence"),
    [
        ({"locality_init_value": 0.0}, "locality_init_value=0.0 was given; it must be a finite number above 0"),
        ({"locality_init_value": 8.0, "qkv_bias": False}, "needs qkv_bias=True, or set it to None"),
    ],
)
def test_values_out_of_range_are_refused(fields, sentence):
    with pytest.raises(ValueError, match=sentence):
        tiny_config("pixelvit", position_embedding_type="rotary", **fields)
