# Copyright 2026 The modeling_pixelvit team. All rights reserved.
# SPDX-License-Identifier: Apache-2.0
"""Configurations: the paper's variants, and one sentence for every wrong value."""

import copy

import pytest
import torch
from accelerate import big_modeling
from helpers import tiny_config, tiny_model
from huggingface_hub.errors import StrictDataclassFieldValidationError

from modeling_pixelvit import (
    AdventurerConfig,
    AdventurerForImageClassification,
    AdventurerModel,
    PixelViTConfig,
    PixelViTForImageClassification,
)


CONFIGS = [AdventurerConfig, PixelViTConfig]

# Parameters of the released Adventurer with 1,000 classes at image size / patch size (counted on its definition).
ADVENTURER_PARAMETERS = {
    "tiny": {(224, 16): 11_608_840, (224, 1): 24_207_880, (128, 1): 15_557_128, (64, 1): 12_411_400},
    "small": {(224, 16): 44_491_816, (224, 1): 69_689_896, (128, 1): 52_388_392, (64, 1): 46_096_936},
    "base": {(224, 16): 98_657_608, (224, 1): 136_454_728, (128, 1): 110_502_472, (64, 1): 101_065_288},
    "large": {(224, 16): 346_196_200, (224, 1): 396_592_360, (128, 1): 361_989_352, (64, 1): 349_406_440},
}
# Millions of parameters in Table 7. Its 759 for Adventurer-Huge does not follow from the sizes in its own row, which
# give 718; the other nine do.
TABLE_7_MILLIONS = {
    AdventurerConfig: {"tiny": 12, "small": 44, "base": 99, "large": 346},
    PixelViTConfig: {"tiny": 5, "small": 22, "base": 86, "large": 304, "huge": 631},
}


def count_parameters(model_class, config):
    with torch.device("meta"):
        return sum(parameter.numel() for parameter in model_class(config).parameters())


@pytest.mark.parametrize("size", ADVENTURER_PARAMETERS)
def test_adventurer_parameter_counts(size):
    for (image_size, patch_size), expected in ADVENTURER_PARAMETERS[size].items():
        config = AdventurerConfig.from_variant(size, image_size=image_size, patch_size=patch_size, num_labels=1000)
        assert count_parameters(AdventurerForImageClassification, config) == expected


@pytest.mark.parametrize(("config_class", "size"), [(c, size) for c in CONFIGS for size in TABLE_7_MILLIONS[c]])
def test_table_7(config_class, size):
    model_class = {AdventurerConfig: AdventurerForImageClassification, PixelViTConfig: PixelViTForImageClassification}
    count = count_parameters(model_class[config_class], config_class.from_variant(size, num_labels=1000))
    # The paper rounds, some down, and leaves out the head for some.
    head = 1000 * (config_class.from_variant(size).hidden_size + 1)
    assert int((count - head) / 1e6) <= TABLE_7_MILLIONS[config_class][size] <= round(count / 1e6)


@pytest.mark.parametrize("size", ["tiny", "small", "base"])
def test_pixelvit_counts_are_timms(size):
    timm = pytest.importorskip("timm")
    with torch.device("meta"):
        reference = timm.create_model(f"deit_{size}_patch16_224")
    expected = sum(parameter.numel() for parameter in reference.parameters())
    assert (
        count_parameters(PixelViTForImageClassification, PixelViTConfig.from_variant(size, num_labels=1000)) == expected
    )


@pytest.mark.parametrize("config_class", CONFIGS)
def test_all_variants_and_fields(config_class):
    assert list(config_class.variants) == ["tiny", "small", "base", "large", "huge"]
    config = config_class.from_variant("large", patch_size=1, image_size=(64, 32), num_labels=7)
    assert (config.hidden_size, config.num_hidden_layers, config.num_labels) == (1024, 24, 7)
    assert (config.grid_size, config.num_patches) == ((64, 32), 2048)
    with pytest.raises(ValueError, match="has no variant 'giant'; choose one of tiny, small, base, large, huge"):
        config_class.from_variant("giant")


WRONG_VALUES = [
    ("patch_size", 0, "at least 1"),
    ("hidden_size", -32, "at least 1"),
    ("num_hidden_layers", 0, "at least 1"),
    ("num_channels", 0, "at least 1"),
    ("image_size", 100, "multiples of patch_size=16"),
    ("image_size", (224, 100), "multiples of patch_size=16"),
    ("image_size", [224, 224, 224], "a pair"),
    ("image_size", 0, "at least 1"),
    ("drop_path_rate", 1.0, "at least 0 and below 1"),
    ("drop_path_rate", -0.1, "at least 0 and below 1"),
    ("drop_path_rate", float("nan"), "at least 0 and below 1"),
    ("initializer_range", 0, "above 0"),
    ("sequence_extension", 0, "at least 1"),
    ("sequence_extension", 65_537, "at most 65536"),
]
WRONG_PIXELVIT_VALUES = [
    ("num_attention_heads", 5, "must divide hidden_size=768"),
    ("intermediate_size", 0, "at least 1"),
    ("hidden_act", "gelo", "choose one of"),
    ("hidden_dropout_prob", 1.5, "below 1"),
    ("attention_probs_dropout_prob", -1, "at least 0"),
    ("layer_norm_eps", 0.0, "above 0"),
    ("layer_scale_init_value", float("inf"), "finite"),
]
WRONG_ADVENTURER_VALUES = [
    ("head_dim", 100, "must divide expand \\* hidden_size = 2 \\* 768 = 1536"),
    ("state_size", 0, "at least 1"),
    ("n_groups", 5, "must divide the number of scan heads.* = 24"),
    ("conv_kernel", 0, "at least 1"),
    ("chunk_size", 0, "at least 1"),
    ("rms_norm_eps", float("nan"), "above 0"),
    ("time_step_min", 0.2, "at most time_step_max=0.1"),
    ("flip_blocks", [3, 3], "different block indices from 0 to 11"),
    ("flip_blocks", [12], "different block indices from 0 to 11"),
    ("flip_blocks", [-1], "different block indices from 0 to 11"),
    ("scan_order", [12], "different block indices from 0 to 11"),
]


@pytest.mark.parametrize(
    ("config_class", "field", "value", "allowed"),
    [(config_class, *case) for config_class in CONFIGS for case in WRONG_VALUES]
    + [(PixelViTConfig, *case) for case in WRONG_PIXELVIT_VALUES]
    + [(AdventurerConfig, *case) for case in WRONG_ADVENTURER_VALUES],
)
def test_wrong_values(config_class, field, value, allowed):
    with pytest.raises(ValueError, match=rf"{config_class.__name__}: {field}=.* was given; .*{allowed}"):
        config_class(**{field: value})


@pytest.mark.parametrize(
    ("config_class", "field", "value"),
    [
        (PixelViTConfig, "hidden_size", 64.0),
        (PixelViTConfig, "patch_size", "16"),
        (PixelViTConfig, "pooling", "max"),
        (AdventurerConfig, "pooling", "last"),
        (AdventurerConfig, "hidden_size", True),
        (AdventurerConfig, "sequence_extension", True),
        (PixelViTConfig, "sequence_extension", 2.0),
        (AdventurerConfig, "flip_blocks", "odd"),
        (AdventurerConfig, "mixer_implementation", "cuda"),
    ],
)
def test_wrong_types(config_class, field, value):
    with pytest.raises(StrictDataclassFieldValidationError, match=f"'{field}'"):
        config_class(**{field: value})
    config = config_class()
    with pytest.raises(StrictDataclassFieldValidationError, match=f"'{field}'"):
        setattr(config, field, value)


@pytest.mark.parametrize("config_class", CONFIGS)
def test_an_extended_sequence_is_told_from_its_patches(config_class):
    config = config_class(image_size=(64, 32), sequence_extension=4)
    assert (config.grid_size, config.num_patches, config.num_patch_tokens) == ((4, 2), 8, 32)
    assert config_class().sequence_extension == 1 and config_class().num_patch_tokens == config_class().num_patches
    with pytest.raises(ValueError, match=r"sequence_extension=335 was given; the tokens of 50176 patches must be at"):
        config_class(patch_size=1, sequence_extension=335)
    config_class(patch_size=1, sequence_extension=334)


def test_copies_of_a_patch_need_a_position_table():
    sentence = r"PixelViTConfig: sequence_extension=2 was given; without a position table .* set it to 1\.$"
    with pytest.raises(ValueError, match=sentence):
        PixelViTConfig(sequence_extension=2, position_embedding_type="rotary")
    PixelViTConfig(sequence_extension=2, position_embedding_type="absolute_rotary")


def test_a_value_set_later_is_checked_when_a_model_is_built():
    config = PixelViTConfig()
    config.num_attention_heads = 5
    with pytest.raises(ValueError, match="num_attention_heads=5"):
        PixelViTForImageClassification(config)


@pytest.mark.parametrize("config_class", CONFIGS)
def test_round_trip(config_class, tmp_path):
    config = config_class(image_size=(64, 32), patch_size=4, drop_path_rate=0.1, out_indices=[2, 5])
    config.save_pretrained(tmp_path)
    assert config_class.from_pretrained(tmp_path).to_dict() == config.to_dict()


def test_drop_path_rates_rise_from_zero_to_the_full_rate():
    rates = AdventurerConfig(num_hidden_layers=5, drop_path_rate=0.4).drop_path_rates
    assert rates == pytest.approx([0.0, 0.1, 0.2, 0.3, 0.4])
    assert PixelViTConfig(num_hidden_layers=1, drop_path_rate=0.4).drop_path_rates == [0.0]


def test_guards_of_context_parallelism_see_a_recurrent_model():
    config = tiny_config("adventurer")
    assert config.layer_types == ["linear_attention"] * 4 and "layer_types" not in config.to_dict()
    config.num_hidden_layers = 3
    assert config.layer_types == ["linear_attention"] * 3
    config.validate()
    model = tiny_model(AdventurerModel)
    for name in ("_attach_context_parallel_hooks", "_refuse_recurrent_layers_under_sequence_parallelism"):
        if guard := getattr(big_modeling, name, None):  # not in every version
            with pytest.raises(ValueError, match=r"does not support attention layers of type \['linear_attention'\]"):
                guard(model)
    with pytest.raises(AttributeError, match="layer_types"):
        AdventurerConfig(layer_types=["full_attention"] * 12)


def test_flipped_blocks():
    assert AdventurerConfig(num_hidden_layers=6).flipped_blocks == {1, 3, 5}
    assert AdventurerConfig(num_hidden_layers=6, flip_blocks=[2, 3]).flipped_blocks == {2, 3}
    assert AdventurerConfig(flip_blocks=[]).flipped_blocks == set()
    assert AdventurerConfig(num_hidden_layers=6, scan_order="rows_and_columns").column_blocks == {2, 3}
    assert AdventurerConfig(scan_order=[0, 11]).column_blocks == {0, 11}


@pytest.mark.parametrize("config_class", [PixelViTConfig, AdventurerConfig])
def test_what_transformers_gives_every_config_is_kept(config_class):
    """The arguments that its own tests give every configuration."""
    common = {
        "return_dict": False,
        "output_hidden_states": True,
        "output_attentions": True,
        "chunk_size_feed_forward": 5,
        "architectures": ["BertModel"],
        "id2label": {0: "label"},
        "label2id": {"label": "0"},
        "problem_type": "regression",
    }
    config = config_class(**copy.deepcopy(common), dtype="float16")
    assert {name: getattr(config, name) for name in common} == common and config.dtype == torch.float16
