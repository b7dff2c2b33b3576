"""The intra-class term, equation (7): the angle between a face and its class's centre."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from vidface.training.losses.geometry import Geometry, angles
from vidface.training.losses.objective import check_number

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class IntraClass:
    """The mean angle to the own centre, in radians, in [0, π].

    Equation (7): L_Intra = (1/N) Σ_i arccos(W_y·x_i / (‖W_y‖·‖x_i‖)). The slope of the angle is
    unbounded at cos = ±1; within 4 ulp of it the gradient is 0 (`angles`).

    Attributes:
        weight: ≥ 0, times the term in the total. The paper does not print its own.

    Raises:
        VidfaceError: a weight out of its range.

    >>> import torch
    >>> faces, centres = torch.tensor([[1.0, 1.0], [0.0, 2.0]]), torch.eye(2)
    >>> IntraClass()(Geometry.of(faces, centres, torch.tensor([0, 1])))  # (π/4 + 0) / 2
    tensor(0.3927)
    """

    name: ClassVar[str] = "intra"
    role: ClassVar[str] = "term"

    weight: float = 1.0

    def __post_init__(self) -> None:
        check_number("intra: weight", self.weight)

    def __call__(self, geometry: Geometry, step: int = 0) -> Tensor:
        """The unweighted value, a scalar; `step` plays no part."""
        return angles(geometry.cos_own).mean()
