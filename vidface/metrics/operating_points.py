"""Operating points: target FARs, and what a split says at one of them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

from vidface.core.errors import VidfaceError
from vidface.core.values import check_name, exact_rate
from vidface.metrics.conventions import CONVENTIONS
from vidface.metrics.figures import interval_dict
from vidface.metrics.uncertainty import Replicates


@dataclass(frozen=True)
class OperatingPoint:
    """TAR at one target FAR. All rates are fractions in [0, 1].

    `tar` is None, and threshold, far and the accepted counts with it, where the split can't tell:
    it has fewer than 1/FAR impostor pairs (then `needs_impostor_pairs` says how many it takes), or
    enough of those but no genuine pair (then `needs_impostor_pairs` is None).

    Where the figure is read off a histogram, `tar_bounds` holds the lowest and the highest TAR that
    the exact counts can give; None means that it is exact.
    """

    target_far: str
    tar: float | None
    threshold: float | None  # accept = score ≥ threshold; None: nothing is accepted
    far: float | None  # achieved: accepted impostor pairs / impostor pairs
    genuine: int  # genuine pairs, the denominator of TAR
    impostor: int  # impostor pairs, the denominator of FAR
    needs_impostor_pairs: int | None
    accepted_genuine: int | None = None
    accepted_impostor: int | None = None
    tar_bounds: tuple[float, float] | None = None
    replicates: Replicates | None = None

    @staticmethod
    def unresolved(text: str, far: Fraction, genuine: int, impostor: int) -> OperatingPoint:
        """The point of a target for which these pairs are too few."""
        needed = math.ceil(1 / far)
        needs = needed if impostor < needed else None
        return OperatingPoint(text, None, None, None, genuine, impostor, needs)

    @staticmethod
    def of_counts(
        text: str,
        at: tuple[float | None, int, int],
        genuine: int,
        impostor: int,
        bounds: tuple[float, float] | None = None,
    ) -> OperatingPoint:
        """The point at a threshold and the genuine and impostor pairs that it accepts."""
        threshold, right, wrong = at
        tar, far = right / genuine, wrong / impostor
        return OperatingPoint(
            text, tar, threshold, far, genuine, impostor, None, right, wrong, bounds
        )

    @property
    def shortage(self) -> tuple[int, int] | None:
        """Impostor pairs that it takes and that there are; None where they are enough."""
        needed = self.needs_impostor_pairs
        return None if needed is None else (needed, self.impostor)

    @property
    def note(self) -> str:
        """Why there is no figure, for a table; empty where there is one."""
        if self.needs_impostor_pairs is not None:
            return f"n/a: needs ≥ {self.needs_impostor_pairs} pairs"
        return "n/a: no genuine pair" if self.tar is None else ""

    def to_dict(self) -> dict[str, Any]:
        """The JSON form."""
        if self.tar is None:
            return {"tar": None, "needs_impostor_pairs": self.needs_impostor_pairs}
        return {
            "tar": self.tar,
            **interval_dict(self.replicates),
            **({"tar_bounds": list(self.tar_bounds)} if self.tar_bounds else {}),
            "threshold": self.threshold,
            "far": self.far,
            "genuine": self.genuine,
            "impostor": self.impostor,
        }


def check_targets(fars: Sequence[str], convention: str = "step") -> dict[str, Fraction]:
    """The exact value of each target FAR, by its text.

    Raises:
        VidfaceError: a bad target, one that is listed twice, or an unknown convention.
    """
    targets: dict[str, Fraction] = {}
    if isinstance(fars, str):
        raise VidfaceError(f"fars must be a list of decimal texts, got the text {fars!r}")
    for text in fars:
        # A float is not accepted: 0.1 is not a tenth, and the count of allowed errors is exact.
        far = exact_rate(text) if isinstance(text, str) else None
        if far is None:
            raise VidfaceError(f"a target FAR must be decimal text in (0, 1], '1e-4', got {text!r}")
        if text in targets:
            raise VidfaceError(f"the target FAR {text!r} is listed twice")
        targets[text] = far
    check_name("convention", convention, CONVENTIONS)
    return targets
