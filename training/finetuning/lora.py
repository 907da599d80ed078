# Copyright 2026 The modeling_pixelvit team. All rights reserved.
# SPDX-License-Identifier: Apache-2.0
"""LoRA (arXiv 2106.09685) through peft: low-rank changes of linear layers are trained, and the head in full."""

import os

from torch import nn
from transformers import PreTrainedModel, TrainingArguments
from transformers.integrations import is_deepspeed_zero3_enabled

from ..families.registry import FAMILIES
from .arguments import ModelArguments


def check_whole_weights(training: TrainingArguments):
    """
    Raises:
        ValueError: if the processes share out the weights, so that none of them could merge the low-rank changes.
    """
    uses_fsdp = training.fsdp or os.environ.get("ACCELERATE_USE_FSDP", "false").lower() == "true"
    if uses_fsdp or is_deepspeed_zero3_enabled():
        raise ValueError(
            f"--lora_rank was given with {'FSDP' if uses_fsdp else 'DeepSpeed ZeRO-3'}, under which no process has the "
            "whole weights to merge low-rank changes into; train on one device, with DDP or with ZeRO-2."
        )


def add_lora(model: PreTrainedModel, arguments: ModelArguments) -> nn.Module:
    """
    Wraps a model so that only the low-rank changes and what is not part of the encoder can be trained.

    Returns:
        A `peft.PeftModel`; its `save_pretrained` saves an adapter, its `merge_and_unload` gives the model back with the
        changes in its weights.

    Raises:
        ValueError: if peft is not installed, or an option is out of range or names no linear layer.
    """
    try:
        from peft import LoraConfig, get_peft_model
    except ImportError:
        raise ValueError(
            "--lora_rank was given, which needs peft; install it by `pip install peft`, or leave the option out."
        ) from None
    for name, value in (("lora_rank", arguments.lora_rank), ("lora_alpha", arguments.lora_alpha)):
        if value < 1:
            raise ValueError(f"--{name} {value} was given; it must be at least 1.")
    if not 0 <= arguments.lora_dropout < 1:
        raise ValueError(f"--lora_dropout {arguments.lora_dropout:g} was given; it must be at least 0 and below 1.")
    head = [name for name, module in model.named_children() if name != model.base_model_prefix and _trains(module)]
    config = LoraConfig(
        r=arguments.lora_rank,
        lora_alpha=arguments.lora_alpha,
        lora_dropout=arguments.lora_dropout,
        target_modules=_target_modules(model, arguments.lora_target_modules),
        modules_to_save=head,
    )
    return get_peft_model(model, config)


def _target_modules(model: PreTrainedModel, wanted: list[str] | None) -> list[str]:
    """The last parts of the names of the linear layers to change."""
    linear = [name.split(".") for name, module in model.base_model.named_modules() if isinstance(module, nn.Linear)]
    if wanted is None:
        return sorted({path[-1] for path in linear if FAMILIES[model.config.model_type].token_mixer in path})
    found = sorted({path[-1] for path in linear})
    if unknown := [name for name in wanted if name not in found]:
        raise ValueError(
            f"--lora_target_modules {' '.join(unknown)} was given; the linear layers of this model are called "
            f"{', '.join(found)}."
        )
    return wanted


def _trains(module: nn.Module) -> bool:
    return any(parameter.requires_grad for parameter in module.parameters())
