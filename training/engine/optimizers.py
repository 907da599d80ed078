# Copyright 2026 The modeling_pixelvit team. All rights reserved.
# SPDX-License-Identifier: Apache-2.0
"""The optimizer of a recipe: which parameters decay, how fast each block learns, and the learning rate's course."""

import re
from collections.abc import Callable
from typing import Any

import torch
from timm.scheduler import CosineLRScheduler, MultiStepLRScheduler, PolyLRScheduler
from timm.scheduler.scheduler import Scheduler
from transformers import PreTrainedModel

from ..families.registry import FAMILIES
from ..settings.recipe import Recipe
from .muon import Muon, Together


NEVER_DECAYED = ("cls_token", "position_embeddings")


def parameter_groups(
    model: PreTrainedModel,
    weight_decay: float,
    layer_decay: float = 1.0,
    belongs: Callable[[str, torch.nn.Parameter], bool] = lambda name, parameter: True,
) -> list[dict[str, Any]]:
    """
    The trainable parameters by depth and by whether they decay.

    Vectors (biases, norms, and of the scan A_log, D and dt_bias), the class token and the position table do not decay,
    as in the released training code. With L blocks a parameter of block i learns at `layer_decay ** (L - i)` of the
    rate, the embeddings at `layer_decay ** (L + 1)`, the final norm and the head at the whole rate. `belongs` leaves
    parameters to another optimizer.

    Returns:
        Groups with `params`, `names`, `weight_decay` and `lr_scale`, which timm's schedulers multiply the rate by.
    """
    depth = model.config.num_hidden_layers + 1
    groups: dict[tuple[float, bool], dict[str, Any]] = {}
    for name, parameter in model.named_parameters():
        if not parameter.requires_grad or not belongs(name, parameter):
            continue
        decays = parameter.dim() > 1 and not name.endswith(NEVER_DECAYED)
        # One group for all depths that learn alike, since each group is a round of small operations.
        scale = layer_decay ** (depth - _level(name, depth))
        group = groups.setdefault(
            (scale, decays),
            {
                "params": [],
                "names": [],
                "weight_decay": weight_decay if decays else 0.0,
                "lr_scale": scale,
            },
        )
        group["params"].append(parameter)
        group["names"].append(name)
    return [groups[key] for key in sorted(groups)]


def _encoder_part(name: str) -> re.Match | None:
    """Which block, if it is one, a parameter of the encoder is in; a decoder may have layers of its own."""
    encoder = rf"(?:.*\b(?:{'|'.join(FAMILIES)})\.)?"
    return re.match(rf"{encoder}(?:layers\.(?P<block>\d+)|embeddings)\.", name)


def _level(name: str, depth: int) -> int:
    """0 for the embeddings, i + 1 for block i, `depth` for what comes after the last block."""
    part = _encoder_part(name)
    if part is None:
        return depth
    return 0 if part["block"] is None else int(part["block"]) + 1


def build_optimizer(model: PreTrainedModel, recipe: Recipe, fused: bool = False) -> torch.optim.Optimizer:
    """
    AdamW of a recipe over `parameter_groups`, with Muon for the matrices of the blocks if the recipe says so.

    Args:
        fused: Take PyTorch's one kernel for AdamW rather than one for each of its operations. Not beside fp16's loss
            scaling, which it takes over, so that Accelerate does not see which steps were skipped.
    """
    decays = {"weight_decay": recipe.weight_decay, "layer_decay": recipe.layer_decay}
    adamw = {"lr": recipe.learning_rate, "betas": (recipe.adam_beta1, recipe.adam_beta2)}
    # On a CPU one operation for all parameters takes a third of the time of one parameter after the other.
    adamw["fused" if fused else "foreach"] = True
    if recipe.muon_learning_rate is None:
        return torch.optim.AdamW(parameter_groups(model, **decays), **adamw)
    others = parameter_groups(model, **decays, belongs=lambda *parameter: not _is_for_muon(*parameter))
    matrices = parameter_groups(model, **decays, belongs=_is_for_muon)
    return Together([Muon(matrices, lr=recipe.muon_learning_rate), torch.optim.AdamW(others, **adamw)])


def _is_for_muon(name: str, parameter: torch.nn.Parameter) -> bool:
    """
    Adventurer's input projection stays with AdamW: it is five maps in one, of which the step's has a row per head, and
    learns badly when Muon gives all of them the same share of a step.
    """
    part = _encoder_part(name)
    is_in_block = part is not None and part["block"] is not None
    return is_in_block and parameter.dim() == 2 and not name.endswith("in_proj.weight")


class WarmupStableDecayScheduler(PolyLRScheduler):
    """
    After the warmup the peak rate, and then a line down to the lowest, as transformers' schedule of this name.

    Args:
        decay_t: Over how many of the `t_initial` epochs or updates the rate falls, at the end.
    """

    def __init__(self, optimizer: torch.optim.Optimizer, decay_t: float, **falling: Any):
        super().__init__(optimizer, power=1.0, **falling)
        self.decay_t = decay_t

    def _get_lr(self, t: int) -> list[float]:
        if t < self.warmup_t:
            return super()._get_lr(t)
        share = min(1.0, max(0.0, (self.t_initial - t) / self.decay_t))
        return [self.lr_min + share * (peak - self.lr_min) for peak in self.base_values]


def build_scheduler(optimizer: torch.optim.Optimizer, recipe: Recipe, steps_per_epoch: int) -> Scheduler:
    """
    Linear warmup, then half a cosine, a line, or drops to a tenth, read at the time counted from the training's start.

    Without state of its own: `scheduler.step(epoch)` sets the rate of an epoch if the recipe changes it by epoch,
    `scheduler.step_update(step)` that of a step if it does so by step; the other call has no effect.
    """
    by_epoch = recipe.learning_rate_changes == "epoch"
    units = 1 if by_epoch else steps_per_epoch
    num_units = max(1, round(recipe.num_train_epochs * units))
    warmup = {
        "warmup_t": round(recipe.warmup_epochs * units),
        "warmup_lr_init": recipe.warmup_learning_rate,
        "warmup_prefix": False,
        "t_in_epochs": by_epoch,
    }
    if recipe.learning_rate_schedule == "steps":
        # timm counts a drop at t from t - 1 on.
        drops = [round(share * num_units) + 1 for share in recipe.learning_rate_drops]
        return MultiStepLRScheduler(optimizer, decay_t=drops, decay_rate=0.1, **warmup)
    falling = {"t_initial": num_units, "lr_min": recipe.min_learning_rate, **warmup}
    if recipe.learning_rate_schedule == "linear":
        return PolyLRScheduler(optimizer, power=1.0, **falling)
    if recipe.learning_rate_schedule == "warmup_stable_decay":
        return WarmupStableDecayScheduler(optimizer, recipe.decay_share * num_units, **falling)
    return CosineLRScheduler(optimizer, **falling)
