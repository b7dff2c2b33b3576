"""Muon: momentum made orthogonal, for weights that are matrices; AdamW for all others.

Jordan et al., Muon: an optimizer for hidden layers in neural networks (2024), with the scale of Liu
et al., Muon is scalable for LLM training (2025): a step's root mean square is 0.2 times the
learning rate, about as AdamW's, so that one learning rate serves both. Matrices are linear layers
and 1x1 convolutions, (out, in) of at least 8 by 8.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor

_ITERATIONS = 5  # of Newton and Schulz; (a, b, c) as published
_A, _B, _C = 3.4445, -4.7750, 2.0315
_SMALLEST_SIDE = 8  # of a matrix
_RMS = 0.2  # of a step at learning rate 1
_BETAS = (0.9, 0.999)
_EPS = 1e-8


def make_orthogonal(matrix: Tensor) -> Tensor:
    """Bring all singular values of a matrix U Σ Vᵀ near 1: about U Vᵀ.

    Args:
        matrix: (m, n) float.
    """
    wide = matrix if matrix.shape[0] <= matrix.shape[1] else matrix.T
    x = wide / (wide.norm() + 1e-7)
    for _ in range(_ITERATIONS):
        square = x @ x.T
        x = _A * x + (_B * square + _C * square @ square) @ x
    return x if matrix.shape[0] <= matrix.shape[1] else x.T


def is_matrix(parameter: Tensor) -> bool:
    """Whether Muon's rule is for a parameter."""
    flat = parameter.ndim == 2 or (parameter.ndim == 4 and parameter.shape[2:] == (1, 1))
    return flat and min(parameter.shape[:2]) >= _SMALLEST_SIDE


class Muon(torch.optim.Optimizer):
    """Both rules in one optimiser; `momentum` is of matrices, AdamW's are the usual ones.

    Args:
        groups: as every optimiser's, each with its `weight_decay`.
        lr: learning rate of both.
        momentum: in [0, 1).
    """

    def __init__(self, groups: Iterable[dict[str, Any]], lr: float, momentum: float) -> None:
        super().__init__(list(groups), {"lr": lr, "momentum": momentum, "weight_decay": 0.0})

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> None:  # type: ignore[override]
        if closure is not None:
            raise NotImplementedError("Muon takes no closure")
        for group in self.param_groups:
            for parameter in group["params"]:
                if parameter.grad is None:
                    continue
                parameter.mul_(1 - group["lr"] * group["weight_decay"])
                state = self.state[parameter]
                if is_matrix(parameter):
                    _step_matrix(parameter, parameter.grad, state, group["lr"], group["momentum"])
                else:
                    _step_adamw(parameter, parameter.grad, state, group["lr"])


def _step_matrix(
    parameter: Tensor, gradient: Tensor, state: dict[str, Tensor], lr: float, momentum: float
) -> None:
    if "momentum" not in state:
        state["momentum"] = torch.zeros_like(parameter)
    state["momentum"].lerp_(gradient, 1 - momentum)
    ahead = gradient.lerp(state["momentum"], momentum).flatten(1)  # Nesterov
    move = make_orthogonal(ahead).reshape(parameter.shape)
    parameter.add_(move, alpha=-lr * _RMS * max(ahead.shape) ** 0.5)


def _step_adamw(parameter: Tensor, gradient: Tensor, state: dict[str, Tensor], lr: float) -> None:
    if "step" not in state:
        state["step"] = torch.zeros(())
        state["mean"] = torch.zeros_like(parameter)
        state["square"] = torch.zeros_like(parameter)
    state["step"] += 1
    state["mean"].lerp_(gradient, 1 - _BETAS[0])
    state["square"].lerp_(gradient.square(), 1 - _BETAS[1])
    count = float(state["step"])
    mean = state["mean"] / (1 - _BETAS[0] ** count)
    root = (state["square"] / (1 - _BETAS[1] ** count)).sqrt_().add_(_EPS)
    parameter.addcdiv_(mean, root, value=-lr)
