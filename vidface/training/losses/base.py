"""What a loss is: settings that check themselves, a role in the objective, and one verb."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from vidface.core.settings import check_settings, setting
from vidface.training.losses.geometry import Geometry

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class Loss(ABC):
    """A part of an objective by its name in recipes.

    Raises:
        VidfaceError: a setting of another type or out of its bounds.
    """

    name: ClassVar[str]
    role: ClassVar[str]

    def __post_init__(self) -> None:
        check_settings(self, self.name)


class Margin(Loss):
    """Makes the own class's logit harder to reach."""

    role = "margin"

    @abstractmethod
    def own_logit(self, cos_own: Tensor) -> Tensor:
        """(n,) cosines to the own centres → (n,) logits, before the scale."""


class Negatives(Loss):
    """Makes logits of other classes harder."""

    role = "negatives"

    @abstractmethod
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
            (n, c), a new tensor; the own column is the plain s·cos θ_y, without the margin, which
            the caller puts there.
        """


class Balance(Loss):
    """Weighs samples by the size of their class."""

    role = "balance"

    @abstractmethod
    def weights(self, counts: Tensor) -> Tensor:
        """(n,) images of each sample's class, integers ≥ 1 → (n,) weights, float64."""


@dataclass(frozen=True)
class Term(Loss):
    """Is added to the softmax, times its weight. The paper does not print its own weights."""

    role = "term"

    weight: float = setting(1.0, bounds="[0, inf)", help="Weight of the term in the total.")

    @abstractmethod
    def __call__(self, geometry: Geometry, step: int = 0) -> Tensor:
        """The unweighted value, a scalar; `step` is for terms that draw."""
