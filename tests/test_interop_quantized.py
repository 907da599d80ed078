# Copyright 2026 The modeling_pixelvit team. All rights reserved.
# SPDX-License-Identifier: Apache-2.0
"""
Interoperability: weights of 8 and 4 bits, as transformers' `quantization_config` loads them, on a CPU.

bitsandbytes and optimum-quanto exchange the linear layers for their own, torchao their weights; each is skipped where
it is not installed. The scan's own parameters, convolutions and norms stay as they are, and heads, whose widths are
numbers of classes, are named to be left alone.
"""

import pytest
import torch
from helpers import relative_difference
from interop_models import FAMILIES, interop_model, pixels_for
from torch import nn
from transformers import BitsAndBytesConfig, QuantoConfig, TorchAoConfig

from modeling_pixelvit.layers_linear import Linear


# Inputs that are multiples of the 32 or 64 values that share a scale. Outputs are multiples of 32 because bitsandbytes
# asks for it, in 4 bits on processors with AVX-512 BF16 only. (`in_proj` of the paper's Adventurers has none.)
WIDTHS = {
    "adventurer": {"hidden_size": 64, "head_dim": 32, "state_size": 30, "intermediate_size": 64},
    "pixelvit": {"hidden_size": 64, "intermediate_size": 128},
}
MIXERS = {
    "adventurer": ("mixer.in_proj", "mixer.out_proj", "mlp.gate_proj", "mlp.up_proj", "mlp.down_proj"),
    "pixelvit": ("attention.q_proj", "attention.k_proj", "attention.v_proj", "attention.o_proj", "mlp.fc1", "mlp.fc2"),
}
# What an 8-bit and a 4-bit grid of so many values cost at random weights, with room.
LARGEST_DIFFERENCE = {8: 0.06, 4: 0.5}


def bitsandbytes_int8(heads):
    pytest.importorskip("bitsandbytes")
    return BitsAndBytesConfig(load_in_8bit=True, llm_int8_skip_modules=heads)


def bitsandbytes_nf4(heads):
    pytest.importorskip("bitsandbytes")
    return BitsAndBytesConfig(load_in_4bit=True, bnb_4bit_quant_type="nf4", llm_int8_skip_modules=heads)


def quanto_int8(heads):
    pytest.importorskip("optimum.quanto")
    return QuantoConfig(weights="int8", modules_to_not_convert=heads)


def quanto_int4(heads):
    pytest.importorskip("optimum.quanto")
    return QuantoConfig(weights="int4", modules_to_not_convert=heads)


def torchao_int8(heads):
    quantization = pytest.importorskip("torchao.quantization")
    return TorchAoConfig(quantization.Int8WeightOnlyConfig(), modules_to_not_convert=heads)


def torchao_int8_dynamic(heads):
    quantization = pytest.importorskip("torchao.quantization")
    return TorchAoConfig(quantization.Int8DynamicActivationInt8WeightConfig(), modules_to_not_convert=heads)


def torchao_int4(heads):
    quantization = pytest.importorskip("torchao.quantization")
    granularity = pytest.importorskip("torchao.quantization.granularity").PerGroup(32)
    method = quantization.IntxWeightOnlyConfig(weight_dtype=torch.int4, granularity=granularity)
    return TorchAoConfig(method, modules_to_not_convert=heads)


METHODS = {
    bitsandbytes_int8: 8,
    bitsandbytes_nf4: 4,
    quanto_int8: 8,
    quanto_int4: 4,
    torchao_int8: 8,
    torchao_int8_dynamic: 8,
    torchao_int4: 4,
}


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("task", ["classification", "segmentation", "detection"])
@pytest.mark.parametrize(
    "method",
    # Its kernels are compiled first, a minute or more.
    [pytest.param(method, marks=pytest.mark.slow) if method is quanto_int4 else method for method in METHODS],
)
def test_quantized_loading(task, family, method, tmp_path):
    model = interop_model(task, family, **WIDTHS[family])
    heads = [name for name, _ in model.named_children() if name != model.base_model_prefix]
    quantization_config = method(heads)
    model.save_pretrained(tmp_path)
    quantized = type(model).from_pretrained(tmp_path, quantization_config=quantization_config)
    layers = dict(quantized.named_modules())
    for index in range(model.config.num_hidden_layers):
        for name in MIXERS[family]:
            layer = layers[f"{model.base_model_prefix}.layers.{index}.{name}"]
            is_exchanged = type(layer) not in (Linear, nn.Linear)
            assert is_exchanged or type(layer.weight) is not nn.Parameter, name
    for name, parameter in quantized.named_parameters():
        if name.rsplit(".", 1)[-1] in ("A_log", "D", "dt_bias"):
            assert parameter.dtype == torch.float32, name
    pixels = pixels_for(model)
    with torch.no_grad():
        expected, actual = (
            one.base_model(pixels, interpolate_pos_encoding=True).last_hidden_state for one in (model, quantized)
        )
        difference = relative_difference(actual.float(), expected)
        # Quantized weights have been at work: they differ, but not by much.
        assert 1e-5 < difference < LARGEST_DIFFERENCE[METHODS[method]]
        outputs = quantized(pixels)
    assert all(tensor.isfinite().all() for tensor in outputs.values() if isinstance(tensor, torch.Tensor))


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("method", [name for name in METHODS if name not in (quanto_int8, quanto_int4)])
def test_quantized_saving(family, method, tmp_path):
    """Before the first forward pass, in which bitsandbytes reorders 4-bit weights on some processors; quanto cannot."""
    model = interop_model("classification", family, **WIDTHS[family])
    quantization_config = method(["classifier"])
    model.save_pretrained(tmp_path / "full")
    quantized = type(model).from_pretrained(tmp_path / "full", quantization_config=quantization_config)
    quantized.save_pretrained(tmp_path / "quantized")
    loaded = type(model).from_pretrained(tmp_path / "quantized")
    pixels = pixels_for(model)
    with torch.no_grad():
        torch.testing.assert_close(loaded(pixels).logits, quantized(pixels).logits, rtol=0, atol=0)
    sizes = [
        sum(path.stat().st_size for path in (tmp_path / name).glob("*.safetensors")) for name in ("full", "quantized")
    ]
    assert sizes[1] < 0.8 * sizes[0]


@pytest.mark.parametrize(("family", "layers"), [("adventurer", ["in_proj", "out_proj"]), ("pixelvit", ["q_proj"])])
def test_lora_over_4_bits(family, layers, tmp_path):
    peft = pytest.importorskip("peft")
    model = interop_model("classification", family, **WIDTHS[family])
    quantization_config = bitsandbytes_nf4(["classifier"])
    model.save_pretrained(tmp_path)
    quantized = type(model).from_pretrained(tmp_path, quantization_config=quantization_config)
    adapted = peft.get_peft_model(quantized, peft.LoraConfig(r=2, target_modules=layers)).train()
    adapted(pixels_for(model), labels=torch.tensor([0, 1])).loss.backward()
    gradients = {name: one.grad for name, one in adapted.named_parameters() if one.requires_grad}
    assert len(gradients) == 2 * 2 * len(layers) and all(grad.isfinite().all() for grad in gradients.values())
    assert any(grad.abs().max() > 0 for grad in gradients.values())
