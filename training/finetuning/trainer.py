# Copyright 2026 The modeling_pixelvit team. All rights reserved.
# SPDX-License-Identifier: Apache-2.0
"""transformers' Trainer with what fine-tuning adds to it, whatever the task."""

from pathlib import Path
from typing import Any

import torch
from transformers import Trainer
from transformers.trainer_optimizer import is_optimizer_factory

from ..engine.optimizers import parameter_groups


class FinetuneTrainer(Trainer):
    """
    The Trainer with the parameter groups of `optim.parameter_groups` and a collator for training alone.

    Args:
        train_collator: Makes the training batches; `data_collator` makes those of the evaluation.
    """

    def __init__(self, *args, train_collator: Any, **kwargs):
        super().__init__(*args, **kwargs)
        self.train_collator = train_collator

    def get_train_dataloader(self) -> torch.utils.data.DataLoader:
        eval_collator, self.data_collator = self.data_collator, self.train_collator
        try:
            return super().get_train_dataloader()
        finally:
            self.data_collator = eval_collator

    def create_optimizer(self, model: torch.nn.Module | None = None) -> torch.optim.Optimizer:
        if self.optimizer is None:
            model = self.model if model is None else model
            optimizer_class, options = self.get_optimizer_cls_and_kwargs(self.args, model)
            # Some optimizers choose their parameters themselves.
            if not is_optimizer_factory(optimizer_class) and not {"model", "optimizer_dict"} & set(options):
                options.setdefault("params", self.parameter_groups(model))
            self.optimizer_cls_and_kwargs = optimizer_class, options
        return super().create_optimizer(model)

    def parameter_groups(self, model: torch.nn.Module) -> list[dict[str, Any]]:
        """From the head down, because the Trainer logs the rate of the first group."""
        groups = parameter_groups(model, self.args.weight_decay, self.args.layer_decay)
        return [
            {
                "params": group["params"],
                "weight_decay": group["weight_decay"],
                "lr": self.args.learning_rate * group["lr_scale"],
            }
            for group in reversed(groups)
        ]

    def create_model_card(self, *args, **kwargs):
        super().create_model_card(*args, **kwargs)
        folder = Path(getattr(self.model.config, "_name_or_path", ""))
        if self.is_world_process_zero() and folder.name and folder.is_dir():
            # transformers takes whatever does not come from the hub for new.
            card = Path(self.args.output_dir, "README.md")
            text = card.read_text(encoding="utf-8")
            origin = f"is a fine-tuned version of the checkpoint {folder.name}"
            card.write_text(text.replace("was trained from scratch", origin), encoding="utf-8")

    def merge_adapter(self):
        """From here on the model is an ordinary one, with the low-rank changes in its weights."""
        self.model = self.model_wrapped = self.model.merge_and_unload()
