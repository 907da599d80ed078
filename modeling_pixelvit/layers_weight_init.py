# Copyright 2026 The modeling_pixelvit team. All rights reserved.
# SPDX-License-Identifier: Apache-2.0
"""
Initial weights of layers that a task's head is made of.

transformers initializes module by module, and in code from outside the library skips a module without weights of its
own. So what a head wants of its layers is noted on each of them when it is built, and `_init_weights` follows.
"""

import functools
import math
from collections.abc import Callable

import torch
from torch import nn
from transformers import initialization as init


# Ways to draw a weight. The names are detectron2's; "default" is PyTorch's own.
DEFAULT = functools.partial(init.kaiming_uniform_, a=math.sqrt(5))
XAVIER = functools.partial(init.kaiming_uniform_, a=1)
MSRA = functools.partial(init.kaiming_normal_, mode="fan_out", nonlinearity="relu")


def normal(std: float) -> Callable[[torch.Tensor], torch.Tensor]:
    """Normally distributed weights with mean 0."""
    return functools.partial(init.normal_, std=std)


def note_weight_init(module: nn.Module, draw: Callable[[torch.Tensor], torch.Tensor]):
    """Notes on every convolution and linear layer in `module` how its weight is drawn; its bias will be zero."""
    for layer in module.modules():
        if isinstance(layer, (nn.Conv2d, nn.ConvTranspose2d, nn.Linear)):
            layer.draw_weight = draw


def init_noted_weights(layer: nn.Module):
    """Draws the weight of a layer with a note; does nothing to other modules, nor to weights that have been loaded."""
    if hasattr(layer, "draw_weight"):
        layer.draw_weight(layer.weight)
        if layer.bias is not None:
            init.zeros_(layer.bias)
