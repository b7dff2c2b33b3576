"""Support-vector-guided softmax, equations (5) and (6): hard negatives count for more."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from vidface.training.losses.objective import check_number

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class SVGuided:
    """Raises the logit of every other class that beats the own one, margin included.

    Equations (5), (6): L3 = (1/N) Σ_i −log(Z1 / (Z1 + Σ_{j≠y} Z3)), Z3 = e^{s·(t−1)·(cos θ_j +
    1)·I_j} · e^{s·cos θ_j}. The paper's print has I_j as a factor, which would delete every easy
    negative; it stands in the exponent, as in the cited loss. I_j = 1 where the own margin logit <
    cos θ_j, else 0 (equality is 0); it is a mask, without gradient.

    Attributes:
        t: ≥ 1; 1 turns it off, 1.2 is usual.

    Raises:
        VidfaceError: t less than 1 or not finite.

    Source: Wang et al., "Support Vector Guided Softmax Loss for Face Recognition", 2018.

    >>> import torch
    >>> cosines, own = torch.tensor([[0.5, 0.25, 0.0]]), torch.tensor([0.125])
    >>> SVGuided(t=2.0).other_logits(cosines, own, torch.tensor([0]), scale=4.0)
    tensor([[2., 6., 0.]])
    """

    name: ClassVar[str] = "sv-guided"
    role: ClassVar[str] = "negatives"

    t: float = 1.2

    def __post_init__(self) -> None:
        check_number("sv-guided: t", self.t, low=1)

    def other_logits(
        self, cosines: Tensor, own_logit: Tensor, labels: Tensor, scale: float
    ) -> Tensor:
        """The scaled logits of all classes but the own one.

        Args:
            cosines: (n, c) cos θ_j.
            own_logit: (n,), the margin's logit before the scale.
            labels: (n,) int64, the own column of each row.
            scale: s.

        Returns:
            (n, c) s·(cos θ_j + (t − 1)·(cos θ_j + 1)·I_j); the own column is s·cos θ_y, without
            the margin, which the caller puts there. A new tensor.
        """
        import torch

        hard = cosines.detach() > own_logit.detach()[:, None]
        hard.scatter_(1, labels[:, None], False)
        return torch.where(hard, self.t * cosines + (self.t - 1), cosines) * scale
