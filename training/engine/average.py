# Copyright 2026 The modeling_pixelvit team. All rights reserved.
# SPDX-License-Identifier: Apache-2.0
"""The exponential moving average of the weights, kept in fp32, each process its own shards."""

import torch

from .sharding import ShardedModel


class WeightAverage:
    """
    average = decay * average + (1 - decay) * weights, after every step.

    Args:
        sharded: The model; its weights of now are the average's first value.
        decay: In [0, 1]; the paper's runs use 0.99996.
    """

    def __init__(self, sharded: ShardedModel, decay: float):
        self.sharded, self.decay = sharded, decay
        self.parts = {shard.name: shard.weights.clone() for shard in sharded.shards if shard.weights is not None}

    @torch.no_grad()
    def update(self):
        weights = [shard.weights for shard in self.sharded.shards if shard.weights is not None]
        torch._foreach_lerp_(list(self.parts.values()), weights, 1 - self.decay)

    def whole(self) -> dict[str, torch.Tensor]:
        """The averages of all parameters by name, in fp32 on the model's device; every process must call it."""
        return {
            shard.name: self.sharded.gather(shard, self.parts.get(shard.name)).clone() for shard in self.sharded.shards
        }

    @torch.no_grad()
    def set(self, name: str, whole: torch.Tensor):
        """Sets the average of one parameter."""
        if name in self.parts:
            shard = next(shard for shard in self.sharded.shards if shard.name == name)
            self.parts[name].copy_(self.sharded.part_from_whole(shard, whole))
