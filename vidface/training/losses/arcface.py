"""ArcFace, equations (1) and (2): an additive angular margin."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from vidface.core.settings import setting
from vidface.training.losses.base import Margin
from vidface.training.losses.combined import check_radians, margin_logit

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class ArcFace(Margin):
    """The own logit cos(θ + m): the combined margin with m1 = 1, m3 = 0.

    Equation (1): L1 = (1/N) Σ_i −log(e^{s·cos(θ_y + m)} / (e^{s·cos(θ_y + m)} + Σ_{j≠y} e^{s·cos
    θ_j})). Where θ + m > π it is cos θ − m·sin m, as InsightFace and pytorch-metric-learning do
    (whose own margin is in degrees).

    Source: Deng et al., "ArcFace: Additive Angular Margin Loss for Deep Face Recognition", CVPR
    2019.

    >>> import torch
    >>> ArcFace(margin_radians=0.5).own_logit(torch.tensor([1.0, 0.5, -1.0]))
    tensor([ 0.8776,  0.0236, -1.2397])
    """

    name = "arcface"

    margin_radians: float = setting(
        0.5, bounds="[0, inf)", unit="radians", help="Margin m added to the angle, below π/2."
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        check_radians("arcface margin_radians", self.margin_radians)

    def own_logit(self, cos_own: Tensor) -> Tensor:
        return margin_logit(cos_own, 1.0, self.margin_radians, 0.0)
