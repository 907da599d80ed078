# Copyright 2026 The modeling_pixelvit team. All rights reserved.
# SPDX-License-Identifier: Apache-2.0
"""
Rows of a parameter on each process, as FSDP2 deals them out: whole tensors from them and back.

Accelerate takes FSDP2 on GPUs only, so PyTorch's own `fully_shard` stands in for it here, on two CPU processes.
"""

from types import SimpleNamespace

import pytest
import torch
from accelerate.utils import DistributedType
from helpers import tiny_config
from packaging import version

from modeling_pixelvit import AdventurerForImageClassification, PixelViTForImageClassification
from training.engine.sharding import ShardedModel


CLASSES = {"adventurer": AdventurerForImageClassification, "pixelvit": PixelViTForImageClassification}


def build(family):
    torch.manual_seed(0)
    return CLASSES[family](tiny_config(family, num_labels=5))  # five rows, which two processes cannot share equally


def take_steps(model, optimizer):
    generator = torch.Generator().manual_seed(1)
    for _ in range(2):
        pixels = torch.randn(4, 3, 8, 8, generator=generator)
        model(pixels, labels=torch.tensor([0, 1, 2, 3])).loss.backward()
        optimizer.step()
        optimizer.zero_grad()


def as_sharded(model, optimizer, distributed_type):
    accelerator = SimpleNamespace(
        distributed_type=distributed_type,
        device=torch.device("cpu"),
        unwrap_model=lambda prepared: prepared,
        num_processes=2,
    )
    return ShardedModel(accelerator, model, SimpleNamespace(optimizer=optimizer))


def check_rank(rank, folder):
    torch.distributed.init_process_group("gloo", init_method=f"file://{folder}/group", rank=rank, world_size=2)
    for family in CLASSES:
        check_family(rank, family)
    torch.distributed.destroy_process_group()


def check_family(rank, family):
    whole_model = build(family)
    # With an epsilon that keeps AdamW from making a whole step of what rounding leaves of a gradient next to nothing.
    settings = {"lr": 1e-2, "eps": 1e-3}
    whole_optimizer = torch.optim.AdamW(whole_model.parameters(), **settings)
    model = build(family)
    mesh = torch.distributed.init_device_mesh("cpu", (2,))
    for layer in model.base_model.layers:
        torch.distributed.fsdp.fully_shard(layer, mesh=mesh)
    torch.distributed.fsdp.fully_shard(model, mesh=mesh)
    optimizer = torch.optim.AdamW(model.parameters(), **settings)
    take_steps(whole_model, whole_optimizer)
    take_steps(model, optimizer)

    sharded = as_sharded(model, optimizer, DistributedType.FSDP)
    wanted = as_sharded(whole_model, whole_optimizer, DistributedType.NO)
    expected = {shard.name: shard.weights.view(shard.shape) for shard in wanted.shards}
    assert [shard.name for shard in sharded.shards] == list(expected)
    lengths = [shard.length for shard in sharded.shards if shard.name == "classifier.weight"]
    assert lengths == [(3 if rank == 0 else 2) * 32]
    for shard in sharded.shards:
        torch.testing.assert_close(sharded.gather(shard, shard.weights), expected[shard.name])
    averages = {(shard.name, key): part.view(shard.shape) for shard, key, part in wanted.state_tensors()}
    parts = list(sharded.state_tensors())
    assert len(parts) == len(averages) == 2 * len(expected)
    for shard, key, part in parts:
        torch.testing.assert_close(sharded.gather(shard, part), averages[shard.name, key])
    # And back: other whole tensors go to the rows of both processes.
    for shard in sharded.shards:
        sharded.set_weights(shard, expected[shard.name] + 1)
        sharded.set_state(shard, "exp_avg", torch.full(shard.shape, 2.0))
        assert (sharded.gather(shard, shard.weights) == expected[shard.name] + 1).all()
    for shard, key, part in sharded.state_tensors():
        assert key != "exp_avg" or (sharded.gather(shard, part) == 2).all()
    assert sharded.steps == 2


@pytest.mark.skipif(
    version.parse(torch.__version__) < version.parse("2.11"), reason="over gloo, FSDP 2 of torch 2.8 sums gradients"
)
def test_rows_of_two_processes(tmp_path):
    torch.multiprocessing.start_processes(check_rank, (tmp_path,), nprocs=2, start_method="forkserver")
