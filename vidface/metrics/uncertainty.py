"""Uncertainty: how far a figure would move with other people in the split.

Pairs and queries are not independent: all those of one person succeed or fail together. So people
are resampled, not pairs: each resample draws as many identities as the split has, with replacement,
and every figure is worked out again with each identity counting as often as it was drawn.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache
from statistics import NormalDist
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from vidface.core.errors import VidfaceError

LEVEL = 0.95
"""Of the intervals: their ends are the 2.5 % and the 97.5 % quantile of the resamples' figures."""

LEAST_SHARE = 0.9
"""Of the resamples that must have a figure (a genuine pair, say) for there to be an interval."""


FEW_PEOPLE = 100
"""Fewer people than this, and intervals that say 95 % are shown with a word of caution."""


def few_people_note(n: int, what: str = "people") -> str:
    """What is to be said of 95 % intervals over so many people; "" where they are enough.

    >>> few_people_note(60)
    '60 people are few: intervals called 95 % cover the truth less often (with 60: in 90 to 94 %)'
    >>> few_people_note(1)[:20]
    '1 person is few: int'
    """
    if n >= FEW_PEOPLE:
        return ""
    who = "1 person is" if (n, what) == (1, "people") else f"{n} {what} are"
    return f"{who} few: intervals called 95 % cover the truth less often (with 60: in 90 to 94 %)"


@dataclass(frozen=True)
class Bootstrap:
    """How often, and from which seed, the people of a split are drawn again.

    A resample's draw depends on seed, its number and the number of people alone, so two figures of
    one split, or one figure of two recognisers, see the same draws: their difference is paired.

    >>> Bootstrap(resamples=2, seed=1).weights(0, 4)  # one was never drawn
    array([0, 1, 1, 2])
    """

    resamples: int = 1000
    seed: int = 0

    def __post_init__(self) -> None:
        if self.resamples < 2:
            raise VidfaceError(
                f"a bootstrap needs 2 resamples or more, got {self.resamples}; 1000 is usual"
            )
        if self.seed < 0:
            raise VidfaceError(f"the seed must be 0 or more, got {self.seed}")

    def weights(self, resample: int, n_identities: int, n_distractors: int = 0) -> NDArray[np.intp]:
        """How often each unit was drawn: the identities, then the distractors.

        A distractor may be anybody, so each is a unit of its own. Identities and distractors are
        drawn apart: every resample has n_identities of the ones and n_distractors of the others.

        Returns:
            (n_identities + n_distractors,) whole numbers ≥ 0.
        """
        return np.concatenate(
            [
                (_draw_again if n <= _FEW_UNITS else _draw)(self.seed, resample, kind, n)
                for kind, n in enumerate((n_identities, n_distractors))
            ]
        )


def _draw(seed: int, resample: int, kind: int, n: int) -> NDArray[np.intp]:
    if n == 0:
        return np.zeros(0, dtype=np.intp)
    return np.bincount(np.random.default_rng([seed, resample, kind]).integers(0, n, n), minlength=n)


# Every figure of a score asks for the same draws. Of so few people the generator's making takes
# nearly all of the time; what is kept takes 32 MB at the most.
_FEW_UNITS = 512
_draw_again = lru_cache(maxsize=8192)(_draw)


@dataclass(frozen=True, eq=False, repr=False)
class Replicates:
    """A figure in every resample; NaN where a resample has none."""

    values: NDArray[np.float64]  # (resamples,)
    note: str = ""  # what was not worked out again, if anything

    def __repr__(self) -> str:
        low, high = self.ci95 or (float("nan"), float("nan"))
        return f"Replicates(({len(self.values)},) float64, 95 % in [{low:.6g}, {high:.6g}])"

    @property
    def ci95(self) -> tuple[float, float] | None:
        """The percentile interval; None where fewer than 90 % of the resamples have a figure.

        >>> [round(end, 6) for end in Replicates(np.arange(201.0)).ci95]
        [5.0, 195.0]
        """
        present = self.values[~np.isnan(self.values)]
        if len(present) == 0 or len(present) < LEAST_SHARE * len(self.values):
            return None
        low, high = np.quantile(present, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
        return float(low), float(high)

    def to_dict(self) -> dict[str, Any]:
        """{"ci95": [low, high] or None}, and "ci95_note" where something was held fixed."""
        document: dict[str, Any] = {"ci95": None if self.ci95 is None else list(self.ci95)}
        note = self.note if self.ci95 is not None else self.why_none
        return {**document, **({"ci95_note": note} if note else {})}

    @property
    def why_none(self) -> str:
        """Why there is no interval, where there is none."""
        missing = np.count_nonzero(np.isnan(self.values)) / max(1, len(self.values))
        reason = f"{missing:.0%} of the resamples have no figure"
        return f"{self.note}; {reason}" if self.note else reason


def ratio_replicates(
    numerators: ArrayLike, denominators: ArrayLike, bootstrap: Bootstrap, note: str = ""
) -> Replicates:
    """Replicates of Σ numerators / Σ denominators, a row an identity.

    With denominators of 1 it is the mean over identities; with an identity's counts of queries, the
    mean over queries, resampled by identity.

    Args:
        numerators, denominators: (n_identities,) numbers, in the order of the identities' names.

    >>> r = ratio_replicates([1, 1, 0], [2, 2, 0], Bootstrap(200))
    >>> np.nanmax(r.values)  # the third adds nothing to either
    np.float64(0.5)
    """
    parts = np.stack([np.asarray(numerators, np.float64), np.asarray(denominators, np.float64)], 1)
    values = np.empty(bootstrap.resamples)
    for resample in range(bootstrap.resamples):
        top, bottom = bootstrap.weights(resample, len(parts)) @ parts
        values[resample] = top / bottom if bottom else np.nan
    return Replicates(values, note)


def expected_width(pairs_of_people: ArrayLike, rate: float = LEVEL) -> tuple[float, float]:
    """How wide the 95 % interval of a TAR will be, before there is a score: at best, and at worst.

    2 z √(p (1 − p) / n), the width that resampled people give on average, with n = Σ g pairs where
    the g pairs of a person succeed or fail independently, and with n = (Σ g)² / Σ g² where all of
    them do so together (Kish, Survey Sampling, 1965: the effective size of a sample of clusters).
    The threshold counts as known: with few impostor pairs it moves, too, and intervals are wider.

    Args:
        pairs_of_people: (n_identities,) genuine pairs of each.
        rate: p, the TAR.

    Returns:
        (at best, at worst), fractions; (inf, inf) without a pair.

    >>> [round(width, 3) for width in expected_width([3] * 100)]  # 300 pairs, or 100 people
    [0.049, 0.085]
    """
    pairs = np.asarray(pairs_of_people, np.float64)
    total = float(pairs.sum())
    if total == 0:
        return math.inf, math.inf
    spread = 2 * NormalDist().inv_cdf((1 + LEVEL) / 2) * math.sqrt(rate * (1 - rate))
    return spread / math.sqrt(total), spread * math.sqrt(float(pairs @ pairs)) / total


@dataclass(frozen=True)
class Difference:
    """A figure of run B minus that of run A, with both seen by the same resamples."""

    a: float
    b: float
    ci95: tuple[float, float] | None
    p_value: float | None  # two-sided: how often resamples lie on the other side of zero
    note: str = ""

    @property
    def value(self) -> float:
        return self.b - self.a

    @property
    def real(self) -> bool | None:
        """Whether zero lies outside of the interval; None without one."""
        if self.ci95 is None:
            return None
        return not self.ci95[0] <= 0 <= self.ci95[1]

    def to_dict(self) -> dict[str, Any]:
        return {
            "a": self.a,
            "b": self.b,
            "difference": self.value,
            "ci95": None if self.ci95 is None else list(self.ci95),
            "p_value": self.p_value,
            "real": self.real,
            **({"ci95_note": self.note} if self.note else {}),
        }


def paired_difference(a: float, b: float, of_a: Replicates, of_b: Replicates) -> Difference:
    """How sure the difference between two runs on the same clips is.

    Each resample gives both figures; their differences have a spread of their own, narrower than
    the two figures' where the runs find the same people hard. The p-value is the usual one of a
    bootstrap, 2 · min(1 + #{≤ 0}, 1 + #{≥ 0}) / (1 + n), at most 1.

    Raises:
        VidfaceError: replicates of other numbers of resamples.

    >>> values = np.array([0.1, 0.5, 0.9])
    >>> d = paired_difference(0.5, 0.6, Replicates(values), Replicates(values + 0.1))
    >>> d.real, round(d.value, 3), d.p_value
    (True, 0.1, 0.5)
    """
    if len(of_a.values) != len(of_b.values):
        raise VidfaceError(
            f"{len(of_a.values)} resamples against {len(of_b.values)}: use the same --bootstrap"
        )
    note = (
        of_a.note if of_a.note == of_b.note else "; ".join(n for n in (of_a.note, of_b.note) if n)
    )
    differences = Replicates(of_b.values - of_a.values)
    interval = differences.ci95
    p_value = None
    if interval is not None:
        present = differences.values[~np.isnan(differences.values)]
        sides = (np.count_nonzero(present <= 0), np.count_nonzero(present >= 0))
        p_value = min(1.0, 2 * (1 + int(min(sides))) / (1 + len(present)))
    return Difference(a, b, interval, p_value, note)
