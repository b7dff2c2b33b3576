"""Steps of the backbone's weights: the optimisers, and the learning rate along a stage.

Both are registries, name → verb; a row here is known to recipes and to docs/training.md at once.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch
    from torch import nn

    from vidface.training.settings import OptimiserSettings


def build_optimiser(module: nn.Module, settings: OptimiserSettings) -> torch.optim.Optimizer:
    """Build an optimiser of the module's parameters.

    Weight decay is for weights of convolutions and products alone, unless `decay_all`: on PReLU's
    slopes and batch norm it has no use.
    """
    decayed: list[nn.Parameter] = []
    spared: list[nn.Parameter] = []
    for parameter in module.parameters():
        (decayed if parameter.ndim > 1 or settings.decay_all else spared).append(parameter)
    groups = [
        {"params": decayed, "weight_decay": settings.weight_decay},
        {"params": spared, "weight_decay": 0.0},
    ]
    return OPTIMISERS[settings.name](groups, settings.learning_rate, settings.momentum)


def _build_sgd(groups: Any, learning_rate: float, momentum: float) -> torch.optim.Optimizer:
    import torch

    return torch.optim.SGD(groups, lr=learning_rate, momentum=momentum)


def _build_adamw(groups: Any, learning_rate: float, momentum: float) -> torch.optim.Optimizer:
    import torch

    return torch.optim.AdamW(groups, lr=learning_rate)  # its momenta are the usual ones


def _build_muon(groups: Any, learning_rate: float, momentum: float) -> torch.optim.Optimizer:
    from vidface.training.muon import Muon

    return Muon(groups, learning_rate, momentum)


OPTIMISERS: dict[str, Callable[[Any, float, float], torch.optim.Optimizer]] = {
    "sgd": _build_sgd,
    "adamw": _build_adamw,
    "muon": _build_muon,
}
"""Name → what builds it from groups of parameters, the learning rate and the momentum."""

SCHEDULES: dict[str, Callable[[float], float]] = {
    "cosine": lambda progress: 0.5 * (1 + math.cos(math.pi * progress)),
    "constant": lambda progress: 1.0,
}
"""Name → the learning rate's share, by the share in [0, 1) of the steps after warming up."""


def learning_rate_share(step: int, steps: int, warmup_steps: int, schedule: str) -> float:
    """The share of the learning rate that a step of `steps` takes, in (0, 1].

    >>> [round(learning_rate_share(step, 8, 2, "cosine"), 3) for step in (0, 1, 2, 5, 7)]
    [0.5, 1.0, 1.0, 0.5, 0.067]
    >>> learning_rate_share(7, 8, 0, "constant")
    1.0
    """
    if step < warmup_steps:
        return (step + 1) / warmup_steps
    return SCHEDULES[schedule]((step - warmup_steps) / max(1, steps - warmup_steps))
