# Copyright 2026 The modeling_pixelvit team. All rights reserved.
# SPDX-License-Identifier: Apache-2.0
"""Attention at many tokens: by whichever function is named, without a mask, and without a matrix of all pairs."""

import pytest
import torch
from helpers import tiny_config
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from transformers import AttentionInterface
from transformers.integrations.sdpa_attention import sdpa_attention_forward

from modeling_pixelvit import PixelViTForImageClassification


pytestmark = pytest.mark.usefixtures("one_thread")


class LargestTensor(TorchDispatchMode):
    """Elements of the largest tensor that any op gives back."""

    def __init__(self):
        super().__init__()
        self.elements = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        results = func(*args, **(kwargs or {}))
        sizes = [result.numel() for result in tree_leaves(results) if isinstance(result, torch.Tensor)]
        self.elements = max([self.elements, *sizes])
        return results


def model_of(**fields):
    torch.manual_seed(0)
    return PixelViTForImageClassification(tiny_config("pixelvit", patch_size=1, image_size=24, **fields))


@pytest.mark.parametrize("positions", ["absolute", "rotary"])
def test_no_tensor_has_an_entry_for_each_pair_of_tokens(positions):
    model, tokens = model_of(position_embedding_type=positions), 24**2 + 1
    assert model.config._attn_implementation == "sdpa"
    images, labels = torch.randn(1, 3, 24, 24), torch.zeros(1, dtype=torch.long)
    with LargestTensor() as forward, torch.inference_mode():
        model(images)
    with LargestTensor() as step:
        model.train()(images, labels=labels).loss.backward()
    assert 0 < forward.elements <= step.elements < tokens**2
    model.set_attn_implementation("eager")
    with LargestTensor() as eager, torch.inference_mode():
        model(images)
    assert eager.elements >= tokens**2  # so it would have been seen


def test_a_function_is_found_by_its_name_and_gets_no_mask():
    seen = []

    def of_somebody(module, query, key, value, attention_mask, **kwargs):
        seen.append((attention_mask, tuple(query.shape), kwargs["scaling"], kwargs["dropout"], module.is_causal))
        return sdpa_attention_forward(module, query, key, value, attention_mask, **kwargs)

    AttentionInterface.register("of_somebody", of_somebody)
    model, images = model_of().eval(), torch.randn(2, 3, 24, 24)
    expected = model(images).logits
    model.set_attn_implementation("of_somebody")
    assert torch.equal(model(images).logits, expected)
    config = model.config
    head_size = config.hidden_size // config.num_attention_heads
    shape = (2, config.num_attention_heads, 24**2 + 1, head_size)
    assert seen == [(None, shape, head_size**-0.5, 0.0, False)] * config.num_hidden_layers
    named = PixelViTForImageClassification._from_config(config, attn_implementation="of_somebody")
    named(images)
    assert len(seen) == 2 * config.num_hidden_layers
