"""The combined margin, equations (3) and (4): SphereFace's, ArcFace's and CosFace's in one."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

from vidface.core.errors import VidfaceError
from vidface.core.settings import setting
from vidface.training.losses.base import Margin
from vidface.training.losses.geometry import angles

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class CombinedMargin(Margin):
    """The own logit cos(m1·θ + m2) − m3, times the scale in the softmax.

    Equations (3), (4): L2 = (1/N) Σ_i −log(Z1 / (Z1 + Σ_{j≠y} Z2)), Z1 = e^{s·(cos(m1·θ + m2) −
    m3)}, Z2 = e^{s·cos θ_j}. The paper prints −m3 outside of s·(…); it belongs inside, as equation
    (6)'s indicator and the cited losses say. m1 = 1, m3 = 0 is ArcFace; m1 = 1, m2 = 0 is CosFace.

    Where m1·θ + m2 > π the cosine would rise again: see `margin_logit`.

    Source: Deng et al., "ArcFace: Additive Angular Margin Loss for Deep Face Recognition", CVPR
    2019, section 2.2; (1, 0.3, 0.2) is InsightFace's usual setting.

    >>> import torch
    >>> CombinedMargin(m1=1.0, m2_radians=0.3, m3=0.2).own_logit(torch.tensor([1.0, 0.5, -0.5]))
    tensor([ 0.7553,  0.0217, -0.9336])
    """

    name = "combined"

    m1: float = setting(1.0, bounds="(0, inf)", help="Factor of the angle.")
    m2_radians: float = setting(
        0.3, bounds="[0, inf)", unit="radians", help="Margin added to the angle, below π/2."
    )
    m3: float = setting(0.2, bounds="[0, 2]", help="Margin taken off the cosine.")

    def __post_init__(self) -> None:
        super().__post_init__()
        check_radians("combined m2_radians", self.m2_radians)

    def own_logit(self, cos_own: Tensor) -> Tensor:
        return margin_logit(cos_own, self.m1, self.m2_radians, self.m3)


def margin_logit(cos_own: Tensor, m1: float, m2_radians: float, m3: float) -> Tensor:
    """cos(m1·θ + m2) − m3, continued where m1·θ + m2 > π so that it goes on falling with θ.

    Beyond θ0 = (π − m2)/m1 it is cos θ − k − m3 with k = (π − θ0)·sin θ0. For m1 = 1 this is
    cos θ − m2·sin m2, what InsightFace (`recognition/arcface_torch/losses.py`) and
    pytorch-metric-learning do; they leave m1 ≠ 1 open. k is at least 1 + cos θ0: less would be a
    step up at θ0 (for m2 < π/2 and m1 = 1 it never is less).

    Args:
        cos_own: (n,) cosines; beyond ±1 by rounding is taken as ±1.
        m1, m2_radians, m3: as in `CombinedMargin`.

    Returns:
        (n,) logits before the scale. The gradient is finite everywhere (`angles`).
    """
    import torch

    if m1 == 1 and m2_radians == 0:  # the angle would only cost precision
        return cos_own - m3
    turned = m1 * angles(cos_own) + m2_radians
    start = (math.pi - m2_radians) / m1
    if start >= math.pi:
        return torch.cos(turned) - m3
    step = max((math.pi - start) * math.sin(start), 1 + math.cos(start))
    return torch.where(turned <= math.pi, torch.cos(turned), cos_own - step) - m3


def check_radians(key: str, value: float) -> None:
    """Raise VidfaceError "key: …" for a margin that is π/2 or more; it may be in degrees.

    >>> check_radians("m", 28.6)
    Traceback (most recent call last):
    vidface.core.errors.VidfaceError: m: must be radians below π/2, not 28.6 (if these are degrees,
    say 0.499)
    """
    if value >= math.pi / 2:
        raise VidfaceError(
            f"{key}: must be radians below π/2, not {value:g} (if these are degrees, say "
            f"{math.radians(value):.3f})"
        )
