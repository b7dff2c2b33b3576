"""The intra-class term, equation (7): the angle between a face and its class's centre."""

from __future__ import annotations

from typing import TYPE_CHECKING

from vidface.training.losses.base import Term
from vidface.training.losses.geometry import Geometry, angles

if TYPE_CHECKING:
    from torch import Tensor


class IntraClass(Term):
    """The mean angle to the own centre, in radians, in [0, π].

    Equation (7): L_Intra = (1/N) Σ_i arccos(W_y·x_i / (‖W_y‖·‖x_i‖)). The slope of the angle is
    unbounded at cos = ±1; within 4 ulp of it the gradient is 0 (`angles`).

    >>> import torch
    >>> faces, centres = torch.tensor([[1.0, 1.0], [0.0, 2.0]]), torch.eye(2)
    >>> IntraClass()(Geometry.of(faces, centres, torch.tensor([0, 1])))  # (π/4 + 0) / 2
    tensor(0.3927)
    """

    name = "intra"

    def __call__(self, geometry: Geometry, step: int = 0) -> Tensor:
        return angles(geometry.cos_own).mean()
