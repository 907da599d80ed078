# Copyright 2026 The modeling_pixelvit team. All rights reserved.
# SPDX-License-Identifier: Apache-2.0
"""
Which part of every parameter, and of its optimizer's averages, this process holds.

    one process, DDP    the whole parameter
    FSDP2               some of its rows
    ZeRO-1, -2, -3      a run of its elements, in fp32, within a buffer that holds many parameters

A `Shard` describes all of them alike, so that checkpoints, resuming and the weight average are written once, and a
checkpoint knows nothing of how many processes wrote it.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from math import prod
from typing import Any

import torch
from accelerate import Accelerator
from accelerate.utils import DistributedType, FullyShardedDataParallelPlugin
from torch import nn
from torch.distributed.tensor import DTensor
from transformers.modeling_layers import GradientCheckpointingLayer


# Of an optimizer's state, what is one number for all parameters, since every step updates all of them.
STEP = "step"
ADAM_STATE = "exp_avg"  # what an optimizer that counts steps has beside it


def share_by_blocks(plugin: FullyShardedDataParallelPlugin, model: nn.Module):
    """
    Lets FSDP share out a model block by block, unless its configuration names other modules. What transformers' models
    say must not be split among devices is more: the embedding, of which Accelerate shares out a part by itself, and
    modules that not every model has.
    """
    if plugin.transformer_cls_names_to_wrap is None:
        blocks = {type(module).__name__ for module in model.modules() if isinstance(module, GradientCheckpointingLayer)}
        plugin.transformer_cls_names_to_wrap = sorted(blocks)


@dataclass(frozen=True)
class Shard:
    """
    A process's part of one parameter.

    Args:
        name: Of the parameter, as in the model's state dict.
        parameter: What the model computes with, possibly in half precision and possibly a part only.
        shape: Of the whole parameter.
        owner: The tensor that the optimizer steps, in fp32; None if nothing of the parameter is here.
        offset: Of the part's first element in the flattened `owner`.
        start: Of the part's first element in the flattened parameter.
        length: Elements in the part.
    """

    name: str
    parameter: nn.Parameter
    shape: tuple[int, ...]
    owner: torch.Tensor | None
    offset: int
    start: int
    length: int

    def part_of(self, tensor: torch.Tensor) -> torch.Tensor:
        """The part's elements (length,) of a tensor laid out as `owner`, as a view of it."""
        local = tensor.to_local() if isinstance(tensor, DTensor) else tensor
        return local.detach().view(-1).narrow(0, self.offset, self.length)

    @property
    def weights(self) -> torch.Tensor | None:
        """The fp32 weights of the part, (length,), to be read and written."""
        return None if self.owner is None else self.part_of(self.owner)


class ShardedModel:
    """
    The shards of a model that was prepared by Accelerate, with its optimizer.

    Args:
        accelerator: That prepared them.
        model, optimizer: As they came from `Accelerator.prepare`.
    """

    def __init__(self, accelerator: Accelerator, model: nn.Module, optimizer: Any):
        self.accelerator = accelerator
        self.module = accelerator.unwrap_model(model)
        self.is_split = accelerator.distributed_type in (DistributedType.DEEPSPEED, DistributedType.FSDP)
        # Whether this process computes with weights that it has a part of only: FSDP2 and ZeRO-3.
        self.splits_weights = accelerator.distributed_type == DistributedType.FSDP
        if accelerator.distributed_type == DistributedType.DEEPSPEED:
            zero = model.optimizer
            self.splits_weights = hasattr(zero, "fp32_partitioned_groups_flat")
            locate = partial(_locate_zero3 if self.splits_weights else _locate_zero12, zero)
            self.optimizer = zero.optimizer
        else:
            locate = _locate_whole_or_rows
            self.optimizer = optimizer.optimizer
        parameters = self.module.named_parameters()
        self.shards = [locate(name, parameter) for name, parameter in parameters if parameter.requires_grad]

    def gather(self, shard: Shard, part: torch.Tensor | None) -> torch.Tensor:
        """A whole tensor of a parameter's shape from the parts of all processes, on each of them, in fp32."""
        if not self.is_split:
            return part.view(shard.shape)
        whole = torch.zeros(prod(shard.shape), device=self.accelerator.device)
        if part is not None:
            whole[shard.start : shard.start + shard.length] = part
        # All but one process contribute zeros to an element, so the sum is exact.
        torch.distributed.all_reduce(whole)
        return whole.view(shard.shape)

    @property
    def buffers(self) -> dict[str, torch.Tensor]:
        """What the model saves beside its parameters, as the running statistics of a batch norm; whole everywhere."""
        saved = self.module.state_dict().keys()
        return {name: buffer for name, buffer in self.module.named_buffers() if name in saved}

    def share_buffers(self):
        """Gives all processes the main process's buffers, of which each has seen its own images only."""
        if self.accelerator.num_processes > 1:
            for buffer in self.buffers.values():
                torch.distributed.broadcast(buffer, src=0)

    def part_from_whole(self, shard: Shard, whole: torch.Tensor) -> torch.Tensor:
        """This process's part (length,) of a whole tensor."""
        return whole.reshape(-1)[shard.start : shard.start + shard.length]

    @torch.no_grad()
    def set_weights(self, shard: Shard, whole: torch.Tensor):
        """Gives a parameter other weights: the fp32 ones that are stepped, and those that the model computes with."""
        part = self.part_from_whole(shard, whole)
        if shard.weights is not None:
            shard.weights.copy_(part)
        if hasattr(shard.parameter, "ds_tensor"):  # ZeRO-3
            shard.parameter.ds_tensor.narrow(0, 0, shard.length).copy_(part)
        elif not isinstance(shard.parameter, DTensor):
            shard.parameter.copy_(whole)

    def state_tensors(self) -> Iterator[tuple[Shard, str, torch.Tensor | None]]:
        """
        The optimizer's state by parameter: (shard, key, this process's part), in an order that all processes share.

        Before the first step there is none.
        """
        keys = sorted({key for state in self.optimizer.state.values() for key in state})
        for shard in self.shards:
            state = self._state(shard)
            for key in keys:
                if key == STEP:
                    continue
                # A process that holds nothing of a parameter cannot tell its keys; with ZeRO one optimizer has all.
                if shard.owner is None or key in state:
                    yield shard, key, None if shard.owner is None else shard.part_of(state[key])

    @torch.no_grad()
    def set_state(self, shard: Shard, key: str, whole: torch.Tensor):
        """Sets one of `state_tensors`."""
        if shard.owner is None:
            return
        state = self._state(shard)
        if key not in state:
            state[key] = torch.zeros_like(shard.owner)
        shard.part_of(state[key]).copy_(self.part_from_whole(shard, whole))

    @property
    def steps(self) -> int:
        """Steps that the optimizer has counted, those skipped by fp16 not among them; 0 if it counts none."""
        counts = [state[STEP] for state in self.optimizer.state.values() if STEP in state]
        return int(counts[0]) if counts else 0

    def set_steps(self, steps: int):
        """Sets the count in every state that is there; call it after `set_state`."""
        # By the states: between steps ZeRO-3 leaves no parameters in the groups. A fused step counts on the device.
        is_fused = any(group.get("fused") for group in self.optimizer.param_groups)
        for state in self.optimizer.state.values():
            if ADAM_STATE in state:
                state[STEP] = torch.tensor(float(steps), device=state[ADAM_STATE].device if is_fused else None)

    def _state(self, shard: Shard) -> dict[str, torch.Tensor]:
        return {} if shard.owner is None else self.optimizer.state[shard.owner]


def _locate_whole_or_rows(name: str, parameter: nn.Parameter) -> Shard:
    shape = tuple(parameter.shape)
    if not isinstance(parameter, DTensor):
        return Shard(name, parameter, shape, parameter, 0, 0, parameter.numel())
    # FSDP2 deals out rows as torch.chunk does: equal shares, the last ones smaller or empty.
    mesh = parameter.device_mesh
    rows_each = -(-shape[0] // mesh.size())
    start = min(mesh.get_local_rank() * rows_each, shape[0]) * prod(shape[1:])
    return Shard(name, parameter, shape, parameter, 0, start, parameter.to_local().numel())


def _locate_zero12(zero, name: str, parameter: nn.Parameter) -> Shard:
    place = parameter._hp_mapping
    if place is None:
        return Shard(name, parameter, tuple(parameter.shape), None, 0, 0, 0)
    owner = zero.single_partition_of_fp32_groups[place.param_group_index]
    inside, outside = place.hp_fragment_address, place.lp_fragment_address
    return Shard(name, parameter, tuple(parameter.shape), owner, inside.start, outside.start, inside.numel)


def _locate_zero3(zero, name: str, parameter: nn.Parameter) -> Shard:
    group, offset, padded_length = zero.grad_position[zero.get_param_id(parameter)]
    shape = tuple(parameter.ds_shape)
    start = min(torch.distributed.get_rank() * padded_length, prod(shape))
    length = min(padded_length, prod(shape) - start)
    return Shard(name, parameter, shape, zero.fp32_partitioned_groups_flat[group], offset, start, length)
