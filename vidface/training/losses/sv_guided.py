"""Support-vector-guided softmax, equations (5) and (6): hard negatives count for more."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from vidface.core.settings import setting
from vidface.training.losses.base import Negatives

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class SVGuided(Negatives):
    """Raises the logit of every other class that beats the own one, margin included.

    Equations (5), (6): L3 = (1/N) Σ_i −log(Z1 / (Z1 + Σ_{j≠y} Z3)), Z3 = e^{s·(t−1)·(cos θ_j +
    1)·I_j} · e^{s·cos θ_j}. The paper's print has I_j as a factor, which would delete every easy
    negative; it stands in the exponent, as in the cited loss. I_j = 1 where the own margin logit <
    cos θ_j, else 0 (equality is 0); it is a mask, without gradient.

    Source: Wang et al., "Support Vector Guided Softmax Loss for Face Recognition", 2018.

    >>> import torch
    >>> cosines, own = torch.tensor([[0.5, 0.25, 0.0]]), torch.tensor([0.125])
    >>> SVGuided(t=2.0).other_logits(cosines, own, torch.tensor([0]), scale=4.0)
    tensor([[2., 6., 0.]])
    """

    name = "sv-guided"

    t: float = setting(1.2, bounds="[1, inf)", help="How much hard negatives count; 1: no more.")

    def other_logits(
        self, cosines: Tensor, own_logit: Tensor, labels: Tensor, scale: float
    ) -> Tensor:
        """(n, c) s·(cos θ_j + (t − 1)·(cos θ_j + 1)·I_j), see `Negatives`."""
        import torch

        hard = cosines.detach() > own_logit.detach()[:, None]
        hard.scatter_(1, labels[:, None], False)
        return torch.where(hard, self.t * cosines + (self.t - 1), cosines) * scale
