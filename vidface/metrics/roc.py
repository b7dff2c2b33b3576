"""The ROC of counted pairs: accepted pairs at thresholds, and exact sums over them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vidface.metrics.figures import figure_dict, format_rate, with_interval
from vidface.metrics.uncertainty import Replicates


@dataclass(frozen=True)
class BoundedFigure:
    """A figure, its bounds where it is read off a histogram, and how it varies."""

    value: float
    bounds: tuple[float, float] | None = None  # None: exact
    threshold: float | None = None
    replicates: Replicates | None = None

    def to_dict(self) -> dict[str, Any]:
        return {
            **figure_dict(self.value, self.replicates),
            **({"bounds": list(self.bounds)} if self.bounds else {}),
            **({"threshold": self.threshold} if self.threshold is not None else {}),
        }

    def describe(self) -> str:
        """The figure with its interval, and the exact bounds where they show."""
        text = with_interval(self.value, self.replicates)
        low, high = (format_rate(bound) for bound in self.bounds or (None, None))
        return text if low == high else f"{text} (exact: {low} to {high})"


@dataclass(frozen=True, eq=False)
class Curve:
    """Exact counts at many thresholds, falling: accept = score ≥ threshold. Rows are ROC points."""

    thresholds: NDArray[np.float64]  # (n,)
    accepted_genuine: NDArray[np.int64]  # (n,)
    accepted_impostor: NDArray[np.int64]
    genuine: int
    impostor: int

    def __str__(self) -> str:
        return f"Curve(thresholds ({len(self.thresholds)},) float64)"

    @property
    def tar(self) -> NDArray[np.float64]:
        return self.accepted_genuine / self.genuine

    @property
    def far(self) -> NDArray[np.float64]:
        return self.accepted_impostor / self.impostor

    def rows(self) -> list[Sequence[Any]]:
        """The ROC as a table, the header first."""
        columns = {
            "threshold": self.thresholds,
            "far": self.far,
            "tar": self.tar,
            "accepted_impostor": self.accepted_impostor,
            "accepted_genuine": self.accepted_genuine,
        }
        values = (column.tolist() for column in columns.values())
        return [tuple(columns), *zip(*values, strict=True)]


@dataclass(frozen=True, eq=False)
class Steps:
    """Counts at neighbouring observed scores, falling: accept = score ≥ scores[i].

    `above` are the counts where only what is higher than scores[0] is accepted; `whole` says that
    no score lies below the last.
    """

    scores: NDArray[np.float64]  # (n,) distinct
    genuine: NDArray[np.int64]  # (n,) accepted
    impostor: NDArray[np.int64]  # (n,) accepted
    above: tuple[int, int]
    whole: bool

    @staticmethod
    def of(scores: NDArray[np.float64], same: NDArray[np.bool_]) -> Steps:
        """The counts at every score of some pairs."""
        # Of −scores rising, scores fall: accepted[i] counts all pairs that score ≥ scores[i].
        distinct, which = np.unique(-scores, return_inverse=True)
        accepted = [
            np.cumsum(np.bincount(which[k], minlength=len(distinct))) for k in (same, ~same)
        ]
        return Steps(-distinct, accepted[0], accepted[1], (0, 0), True)

    def __len__(self) -> int:
        return len(self.scores)

    def at(self, i: int) -> tuple[float | None, int, int]:
        """Threshold and accepted counts; −1 is `above`, whose threshold is not known."""
        if i < 0:
            return None, *self.above
        return float(self.scores[i]), int(self.genuine[i]), int(self.impostor[i])

    def accepting_at_most(self, allowed: int) -> int:
        """The index of the lowest score that accepts no more impostors; −1 where none does."""
        return int(np.searchsorted(self.impostor, allowed, side="right")) - 1

    def auc(self) -> float:
        """P(genuine > impostor) + ½ P(genuine = impostor); of whole steps, with both kinds."""
        genuine, impostor = (np.diff(a, prepend=0) for a in (self.genuine, self.impostor))
        twice = count_twice_above(genuine, impostor)
        return twice / (2 * int(self.genuine[-1]) * int(self.impostor[-1]))


def count_twice_above(genuine: NDArray[np.int64], impostor: NDArray[np.int64]) -> int:
    """2 · |{(g, i): g > i}| + |{(g, i): g = i}| from counts at falling scores."""
    total = int(impostor.sum())
    below = total - np.cumsum(impostor)
    twice = 2 * below + impostor
    return sum_products(genuine, twice)


def sum_products(a: NDArray[np.int64], b: NDArray[np.int64]) -> int:
    """Σ a · b of counts, exactly, also beyond 64 bits."""
    if int(a.sum()) * int(b.max(initial=0)) < 2**62:
        return int(a @ b)
    used = np.flatnonzero(a)
    return sum(int(x) * int(y) for x, y in zip(a[used], b[used], strict=True))
