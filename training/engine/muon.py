# Copyright 2026 The modeling_pixelvit team. All rights reserved.
# SPDX-License-Identifier: Apache-2.0
"""
The Muon optimizer for the weight matrices of a model's blocks, and how another steps beside it.

Each matrix moves along its momentum with all singular values set to about one, so that rare directions are learned as
fast as frequent ones. (K. Jordan et al., "Muon: An optimizer for hidden layers in neural networks", 2024, which also
gives the coefficients below.) PyTorch 2.9 and timm have one too, which iterate in bfloat16, one matrix at a time: on a
processor without instructions for that it takes the sweep's PixelViT 68 ms a step, this one 5 ms.
"""

from collections import defaultdict
from collections.abc import Iterable

import torch


# Of the odd polynomial a x + b x^3 + c x^5, which takes any singular value in (0, 1] to about one when iterated.
COEFFICIENTS = (3.4445, -4.7750, 2.0315)
ITERATIONS = 5


def orthogonalize(matrices: torch.Tensor) -> torch.Tensor:
    """
    The nearest semi-orthogonal matrix to each of `matrices` (n, rows, columns), to about 30% in each singular value, by
    Newton-Schulz iteration.
    """
    a, b, c = COEFFICIENTS
    wide = matrices if matrices.shape[1] <= matrices.shape[2] else matrices.mT
    x = wide / (torch.linalg.matrix_norm(wide, keepdim=True) + 1e-7)  # no singular value above one
    for _ in range(ITERATIONS):
        gram = x @ x.mT
        x = a * x + torch.baddbmm(gram, gram, gram, beta=b, alpha=c) @ x
    return x if wide is matrices else x.mT


class Muon(torch.optim.Optimizer):
    """
    Args:
        params: Matrices, or groups of them; no vectors, no embeddings, no classifier.
        lr (`float`): The root mean square of a step, up to the matrix's shape, in units of an orthogonal matrix.
        momentum (`float`, *optional*, defaults to 0.95): Of Nesterov's kind.
        weight_decay (`float`, *optional*, defaults to 0.0): Decoupled, as AdamW's.

    Raises:
        ValueError: if a parameter is not a matrix.
    """

    def __init__(self, params: Iterable, lr: float, momentum: float = 0.95, weight_decay: float = 0.0):
        super().__init__(params, {"lr": lr, "momentum": momentum, "weight_decay": weight_decay})
        shapes = [tuple(parameter.shape) for group in self.param_groups for parameter in group["params"]]
        others = [shape for shape in shapes if len(shape) != 2]
        if others:
            raise ValueError(f"Muon got a parameter of shape {others[0]}; it takes matrices, AdamW takes the others.")

    @torch.no_grad()
    def step(self, closure=None):
        if closure is not None:
            raise ValueError("Muon.step takes no closure; compute the gradients before.")
        for group in self.param_groups:
            by_shape = defaultdict(list)
            for parameter in group["params"]:
                if parameter.grad is not None:
                    by_shape[parameter.shape].append(parameter)
            for parameters in by_shape.values():
                self._step_matrices(parameters, group["lr"], group["momentum"], group["weight_decay"])

    def _step_matrices(self, parameters: list[torch.Tensor], lr: float, momentum: float, weight_decay: float):
        """Matrices of one shape, in one batched iteration."""
        directions = []
        for parameter in parameters:
            state = self.state[parameter]
            average = state.setdefault("momentum", torch.zeros_like(parameter))
            average.lerp_(parameter.grad, 1 - momentum)
            directions.append(parameter.grad.lerp(average, momentum))
        rows, columns = parameters[0].shape
        scale = max(1.0, rows / columns) ** 0.5
        for parameter, direction in zip(parameters, orthogonalize(torch.stack(directions)), strict=True):
            parameter.mul_(1 - lr * weight_decay).sub_(direction, alpha=lr * scale)


class Together(torch.optim.Optimizer):
    """
    Optimizers of different parameters as one, so that fp16's loss scaling, which skips an optimizer's step if any of
    its gradients overflows, skips the step of all.

    Args:
        optimizers: Their groups, in order, are those of the whole, and there is one state for all.
    """

    def __init__(self, optimizers: list[torch.optim.Optimizer]):
        super().__init__([group for optimizer in optimizers for group in optimizer.param_groups], {})
        self.optimizers = optimizers

    @torch.no_grad()
    def step(self, closure=None):
        if closure is not None:
            raise ValueError("Together.step takes no closure; compute the gradients before.")
        groups = list(self.param_groups)
        for optimizer in self.optimizers:
            # Anew each time: whoever loads a state, as Accelerate does at once, makes new groups and a new state.
            optimizer.param_groups = [groups.pop(0) for _ in optimizer.param_groups]
            optimizer.state = self.state
            optimizer.step()
