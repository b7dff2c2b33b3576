"""Rows over their norms, with a backward pass of two products instead of six passes.

At 93,431 class centres a training step spends more time on the gradient of the division than on any
other thing beside the matrix products; written out it is (g − u (u·g)) / ‖x‖ for u = x / ‖x‖.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable


class OverNorms(torch.autograd.Function):
    """(n, d) rows and their (n, 1) norms → rows / norms; the norms follow from the rows."""

    @staticmethod
    def forward(ctx: Any, rows: Tensor, norms: Tensor) -> Tensor:
        unit = rows / norms
        ctx.save_for_backward(unit, norms)
        return unit

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        unit, norms = ctx.saved_tensors
        along = torch.linalg.vecdot(gradient, unit, dim=1)[:, None]
        return torch.addcmul(gradient, unit, along, value=-1).div_(norms), None
