# Copyright 2026 The modeling_pixelvit team. All rights reserved.
# SPDX-License-Identifier: Apache-2.0
"""
Which blocks keep their activations for the backward pass and which compute them again, so that a step fits into a
budget.

What a block keeps grows in proportion to its tokens, also in attention, of which no implementation but "eager" keeps
the matrix of scores. So it is counted on the run's device, in its precision and with its kernels, on a few hundred
tokens: at two lengths, of which the difference is taken.
"""

import contextlib
import copy
import dataclasses

import torch
from accelerate import Accelerator
from transformers import PreTrainedModel

from ..common.throughput import DTYPES
from ..settings.course import Course, batches_per_step
from ..settings.recipe import Recipe
from ..tasks.base import Share
from .options import LoopOptions, parse_bytes
from .plan import FP32_BYTES, state_bytes


COUNTED_BLOCKS = 4  # Adventurer's read in up to four orders
GRIDS = ((8, 16), (8, 32))  # of patches that are counted on


class KeptTensors(torch.autograd.graph.saved_tensors_hooks):
    """Counts the bytes that autograd keeps within it, each storage once and none of the `excluded`."""

    def __init__(self, excluded: set[int]):
        self.storages: dict[int, torch.UntypedStorage] = {}  # held, so that no address comes twice

        def keep(tensor: torch.Tensor) -> torch.Tensor:
            storage = tensor.untyped_storage()
            if storage.data_ptr() not in excluded:
                self.storages[storage.data_ptr()] = storage
            return tensor

        super().__init__(keep, lambda tensor: tensor)

    @property
    def bytes(self) -> int:
        return sum(storage.nbytes() for storage in self.storages.values())


def kept_bytes(model: PreTrainedModel, device: torch.device, dtype: torch.dtype) -> float:
    """
    Bytes that a block keeps for a patch token of a training step, the mean of the first blocks.

    Args:
        dtype: Of autocast; float32 is without.
    """
    base = copy.copy(model.base_model)
    base._modules = dict(base._modules)
    base.layers = torch.nn.ModuleList(base.layers[:COUNTED_BLOCKS])
    base = copy.deepcopy(base).to(device).train()
    for layer in base.layers:
        layer.gradient_checkpointing = False
    parameters = {parameter.untyped_storage().data_ptr() for parameter in base.parameters()}
    config, counts = base.config, []
    for grid in GRIDS:
        rows, columns = (config.patch_size * cells for cells in grid)
        images = torch.zeros(1, config.num_channels, rows, columns, device=device)
        total = 0
        with torch.autocast(device.type, dtype=dtype, enabled=dtype != torch.float32), contextlib.ExitStack() as hooks:
            for layer in base.layers:
                counters: list[KeptTensors] = []

                def enter(*_, counters=counters):
                    counters.append(KeptTensors(parameters))
                    counters[-1].__enter__()

                def leave(*_, counters=counters):
                    nonlocal total
                    counters[-1].__exit__(None, None, None)
                    total += counters.pop().bytes

                hooks.callback(layer.register_forward_pre_hook(enter).remove)
                hooks.callback(layer.register_forward_hook(leave).remove)
            base(images, interpolate_pos_encoding=True)
        counts.append(total / len(base.layers))
    fewer, more = (config.sequence_extension * rows * columns for rows, columns in GRIDS)
    return (counts[1] - counts[0]) / (more - fewer)


@dataclasses.dataclass(frozen=True)
class MemoryPlan:
    """
    How a step is to fit.

    Args:
        budget: Bytes of a device that may be in use.
        blocks: Of the model.
        checkpointed: Blocks, the first ones, that are computed again in the backward pass. The last ones keep what they
            need: it is gone again before the first of the others is computed again.
        block_bytes: That a block keeps in a step.
        input_bytes: That it keeps where it is computed again: its input.
        state_bytes: Of weights, gradients, optimizer and average.
        images, tokens: Of a step in a process, and of an image.
    """

    budget: int
    blocks: int
    checkpointed: int
    block_bytes: float
    input_bytes: float
    state_bytes: int
    images: int
    tokens: int

    @property
    def expected_bytes(self) -> float:
        """
        Peak of a step: what all blocks keep, or at least one that is being computed again, as much again for the
        gradients of one, and the tokens before the first block and after the last.
        """
        whole = max(self.blocks - self.checkpointed, 1)
        kept = self.checkpointed * self.input_bytes + (whole + 1) * self.block_bytes
        return self.state_bytes + kept + 2 * self.input_bytes

    def __str__(self) -> str:
        gib = {name: value / 2**30 for name, value in dataclasses.asdict(self).items() if "bytes" in name}
        return (
            f"memory: {self.checkpointed} of {self.blocks} blocks are computed again in the backward pass; of "
            f"{self.images} images of {self.tokens:,} tokens a block keeps {gib['block_bytes']:.3g} GiB, or "
            f"{gib['input_bytes']:.3g} GiB if it is computed again; with {gib['state_bytes']:.3g} GiB of weights, "
            f"gradients, optimizer and average {self.expected_bytes / 2**30:.3g} of {self.budget / 2**30:.3g} GiB are "
            "expected, heads not counted"
        )


def plan_memory(
    model: PreTrainedModel,
    budget: int,
    device: torch.device,
    dtype: torch.dtype,
    state_bytes: int,
    images: int,
    tokens: int,
) -> MemoryPlan:
    """
    As few blocks computed again as the budget allows.

    Args:
        images: Of a step in a process.
        tokens: Patch tokens of one of them.
        state_bytes: Of weights, gradients, optimizer and average in a process.

    Raises:
        ValueError: if not even all of them are enough.
    """
    blocks = len(model.base_model.layers)
    block = kept_bytes(model, device, dtype) * images * tokens
    own_input = images * (tokens + 1) * model.config.hidden_size * FP32_BYTES
    for checkpointed in range(blocks + 1):
        plan = MemoryPlan(budget, blocks, checkpointed, block, own_input, state_bytes, images, tokens)
        if plan.expected_bytes <= budget:
            return plan
    raise ValueError(
        f"--memory_budget of {budget / 2**30:.3g} GiB was given, but a step of {images} images takes about "
        f"{plan.expected_bytes / 2**30:.3g} GiB with every block computed again; give more, or fewer images at a time "
        "by --gradient_accumulation_steps or more processes."
    )


def choose_checkpointed(
    model: PreTrainedModel,
    recipe: Recipe,
    options: LoopOptions,
    accelerator: Accelerator,
    course: Course,
    share: Share,
) -> MemoryPlan | None:
    """
    Sets which blocks of a run's model are computed again: none, all or as the budget says. The plan, if there is one.

    Raises:
        ValueError: if the budget is too small.
    """
    if options.memory_budget is None:
        if options.gradient_checkpointing:
            checkpoint_blocks(model)
        return None
    batch_size = recipe.total_batch_size // (share.num_ranks * share.accumulation)
    steps = [
        (batch_size * batches_per_step(recipe, size), recipe.tokens_per_image(size)) for size in course.patch_sizes
    ]
    images, tokens = max(steps, key=lambda step: step[0] * step[1])
    plan = plan_memory(
        model,
        parse_bytes(options.memory_budget),
        accelerator.device,
        DTYPES.get(accelerator.mixed_precision, torch.float32),
        state_bytes(model, recipe),
        images,
        tokens,
    )
    apply_plan(model, plan)
    return plan


def apply_plan(model: PreTrainedModel, plan: MemoryPlan):
    """Sets which blocks of the model are computed again."""
    checkpoint_blocks(model)
    for layer in model.base_model.layers[plan.checkpointed :]:
        layer.gradient_checkpointing = False


def checkpoint_blocks(model: PreTrainedModel):
    """All blocks of the model are computed again, by the name that this version of transformers has for it."""
    (getattr(model, "activation_checkpointing_enable", None) or model.gradient_checkpointing_enable)()


def keeping(options: LoopOptions, device: torch.device) -> contextlib.AbstractContextManager:
    """
    Where a forward pass is to be: if activations are offloaded, autograd keeps what it needs in the processor's memory,
    pinned, and gets it back when it needs it.
    """
    if not options.offload_activations:
        return contextlib.nullcontext()
    return torch.autograd.graph.save_on_cpu(pin_memory=device.type == "cuda")
