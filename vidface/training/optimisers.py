"""Steps of the backbone's weights: the optimiser, and the learning rate along a stage."""

from __future__ import annotations

import math

import torch
from torch import nn

from vidface.training.muon import Muon
from vidface.training.settings import OptimiserSettings


def build_optimiser(module: nn.Module, settings: OptimiserSettings) -> torch.optim.Optimizer:
    """An optimiser of the module's parameters.

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
    if settings.name == "muon":
        return Muon(groups, settings.learning_rate, settings.momentum)
    if settings.name == "adamw":
        return torch.optim.AdamW(groups, lr=settings.learning_rate)
    return torch.optim.SGD(groups, lr=settings.learning_rate, momentum=settings.momentum)


def rate_at(step: int, steps: int, warmup_steps: int, schedule: str) -> float:
    """The learning rate's share at a step of `steps`, in (0, 1].

    >>> [round(rate_at(step, 8, 2, "cosine"), 3) for step in (0, 1, 2, 5, 7)]
    [0.5, 1.0, 1.0, 0.5, 0.067]
    >>> rate_at(7, 8, 0, "constant")
    1.0
    """
    if step < warmup_steps:
        return (step + 1) / warmup_steps
    if schedule == "constant":
        return 1.0
    part = (step - warmup_steps) / max(1, steps - warmup_steps)
    return 0.5 * (1 + math.cos(math.pi * part))
