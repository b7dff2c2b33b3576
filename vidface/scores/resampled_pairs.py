"""The bootstrap over identities at any number of pairs.

In a resample identity a counts w_a times. A genuine pair of a counts w_a times: the copies of a
form no pairs with each other. An impostor pair of a and b counts w_a · w_b times. So a resample
needs no new scores: the listed scores, highest first, get weights, and running sums of these are
the accepted pairs at every threshold. The totals follow from the sizes of the identities.

Of impostor pairs only the highest scores are listed, and at most `RESAMPLED_PAIRS` are weighed. A
target that lies within them is worked out anew in every resample, threshold included. For the
others the threshold is held where the whole split has it, and only the genuine pairs vary; EER and
AUC then take the impostors' distribution as it is. `Replicates.note` says where that was done. It
leaves out how much the impostors themselves vary, which is little beside the genuine pairs' part
where there are many people.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from fractions import Fraction
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from vidface.batches import cores
from vidface.scores.blocks import bin_of
from vidface.scores.operating_points import OperatingPoint
from vidface.scores.pairwise import NO_DESCRIPTOR_SCORE
from vidface.scores.rates import Rates
from vidface.scores.uncertainty import Bootstrap, Replicates

RESAMPLED_PAIRS = 2**22
"""Impostor pairs that are weighed in each resample."""

DEEPER = 1.2
"""How many times the allowed impostors must be listed for a threshold to be estimated anew."""

HELD = "threshold held fixed"
IMPOSTORS_HELD = "the impostors' distribution held fixed"


@dataclass(frozen=True, eq=False)
class Resampled:
    """Replicates of all figures; None where nothing could be worked out."""

    tar: Mapping[str, Replicates]
    eer: Replicates
    auc: Replicates


def resample(
    rates: Rates,
    targets: Mapping[str, Fraction],
    points: Sequence[OperatingPoint],
    convention: str,
    bootstrap: Bootstrap,
) -> Resampled:
    """All figures of `rates` in every resample of the people.

    Args:
        rates: with a complete list of genuine scores.
        points: the figures of the whole split, with the thresholds that are held where need be.
    """
    draws = _Draws.of(rates, targets, points, convention)

    def one(r: int) -> list[float]:
        n = rates.source.n_identities
        return draws.figures(bootstrap.weights(r, n, rates.source.n_units - n))

    with ThreadPoolExecutor(cores()) as pool:
        rows = np.array(list(pool.map(one, range(bootstrap.resamples))), dtype=np.float64)
    notes = {text: "" if text in draws.anew else HELD for text in targets}
    note = "" if draws.all_impostors else IMPOSTORS_HELD
    columns = rows.T
    return Resampled(
        {t: Replicates(columns[i], notes[t]) for i, t in enumerate(targets)},
        Replicates(columns[-2], note),
        Replicates(columns[-1], note),
    )


@dataclass(frozen=True, eq=False)
class _Draws:
    """What every resample shares."""

    rates: Rates
    targets: Mapping[str, Fraction]
    held: Mapping[str, int]  # genuine pairs accepted by the whole split's threshold
    anew: frozenset[str]
    n_weighed: int
    all_impostors: bool
    positions: NDArray[np.int64]  # (2, n) genuine and impostor pairs accepted at falling scores
    below: NDArray[np.float64]  # (n_genuine,) share of impostors below, where not weighed

    @staticmethod
    def of(
        rates: Rates,
        targets: Mapping[str, Fraction],
        points: Sequence[OperatingPoint],
        convention: str,
    ) -> _Draws:
        counts, n_impostor = rates.counts, rates.source.impostor
        listed = len(counts.impostor)
        all_impostors = counts.complete and listed <= RESAMPLED_PAIRS
        n_weighed = min(listed, RESAMPLED_PAIRS)
        allowed = {t: math.floor(far * n_impostor) for t, far in targets.items()}
        anew = frozenset(
            t
            for t in targets
            if convention == "step" and (all_impostors or DEEPER * allowed[t] < n_weighed)
        )
        held = {p.target_far: p.accepted_genuine or 0 for p in points}
        if all_impostors:
            steps = rates.steps
            real = steps.scores > NO_DESCRIPTOR_SCORE
            positions = np.stack([steps.genuine, steps.impostor])[:, real]
            return _Draws(rates, targets, held, anew, n_weighed, True, positions, _none())
        edges = np.flatnonzero(np.diff(rates.above_edge).any(axis=0))[::-1]
        genuine, impostor = rates.above_edge
        positions = np.stack([genuine[edges], impostor[edges]])
        bins = bin_of(counts.genuine, counts.bins)
        below = (n_impostor - (impostor[bins] + impostor[bins + 1]) / 2) / n_impostor
        return _Draws(
            rates,
            targets,
            held,
            anew,
            n_weighed,
            False,
            positions,
            below,
        )

    def figures(self, weights: NDArray[np.intp]) -> list[float]:
        """TAR at each target, EER and AUC."""
        counts, source = self.rates.counts, self.rates.source
        total_genuine, total_impostor = source.totals(weights)
        if not (total_genuine and total_impostor):
            return [math.nan] * (len(self.targets) + 2)
        small = weights.astype(np.int32)
        own = self._weights(small, counts.genuine_units)
        genuine = np.concatenate([[0], np.cumsum(own, dtype=np.int64)])
        drawn = self._weights(small, counts.impostor_units[:, : self.n_weighed])
        impostor = np.concatenate([[0], np.cumsum(drawn, dtype=np.int64)])
        tars = [
            self._tar(text, far, genuine, impostor, total_genuine, total_impostor)
            for text, far in self.targets.items()
        ]
        eer = self._eer(genuine, impostor, total_genuine, total_impostor)
        auc = self._auc(own, genuine, impostor, total_genuine, total_impostor)
        return [*tars, eer, auc]

    def _weights(self, small: NDArray[np.int32], units: NDArray[np.int32]) -> NDArray[np.int32]:
        """How often pairs count, of (n,) one unit each or (2, n) two."""
        if units.ndim == 1:
            return np.take(small, units)
        a, b = units
        drawn, other = np.take(small, a), np.take(small, b)
        if self.rates.passes is None:  # only a list can name any two rows: also two of one unit
            other[a == b] = 1
        drawn *= other
        return drawn

    def _tar(
        self,
        text: str,
        far: Fraction,
        genuine: NDArray[np.int64],
        impostor: NDArray[np.int64],
        total_genuine: int,
        total_impostor: int,
    ) -> float:
        counts = self.rates.counts
        if text not in self.anew:
            if text not in self.held:
                return math.nan
            if self.held[text] >= len(genuine):  # with those that score −1: all of them
                return 1.0
            return float(genuine[self.held[text]]) / total_genuine
        if far * total_impostor < 1:
            return math.nan
        allowed = math.floor(far * total_impostor)
        if allowed >= total_impostor:
            return 1.0
        # The first listed impostor too many; what scores higher is accepted.
        i = int(np.searchsorted(impostor, allowed, side="right")) - 1
        if i < self.n_weighed:
            beyond = counts.impostor[i]
        elif self.all_impostors:
            beyond = np.float32(NO_DESCRIPTOR_SCORE)
        else:
            return math.nan  # deeper than the list
        falling = counts.genuine
        accepted = len(falling) - int(np.searchsorted(falling[::-1], beyond, side="right"))
        return float(genuine[accepted]) / total_genuine

    def _eer(
        self,
        genuine: NDArray[np.int64],
        impostor: NDArray[np.int64],
        total_genuine: int,
        total_impostor: int,
    ) -> float:
        n = self.positions.shape[1]
        if not self.all_impostors:
            total_impostor = self.rates.source.impostor

        def errors_at(i: int) -> tuple[int, int]:
            """FAR and FRR times both totals: whole numbers, so that a tie is one."""
            if not 0 <= i < n:
                everything = total_impostor * total_genuine
                return (0, everything) if i < 0 else (everything, 0)
            accepted, wrong = self.positions[:, i].tolist()
            # More than are listed: with those that score −1, so all of them.
            right = int(genuine[accepted]) if accepted < len(genuine) else total_genuine
            if self.all_impostors:
                wrong = int(impostor[wrong])
            return wrong * total_genuine, (total_genuine - right) * total_impostor

        low, high = -1, n
        while high - low > 1:
            middle = (low + high) // 2
            far, frr = errors_at(middle)
            low, high = (low, middle) if far >= frr else (middle, high)
        errors = min((errors_at(low), errors_at(high)), key=lambda pair: abs(pair[0] - pair[1]))
        return sum(errors) / (2 * total_impostor * total_genuine)

    def _auc(
        self,
        own: NDArray[np.int32],
        genuine: NDArray[np.int64],
        impostor: NDArray[np.int64],
        total_genuine: int,
        total_impostor: int,
    ) -> float:
        lost_genuine = total_genuine - int(genuine[-1])  # those that score −1 without a descriptor
        lost_impostor = total_impostor - int(impostor[-1])
        if not self.all_impostors:
            share = lost_genuine * self._tied_at_bottom
            return float((own @ self.below + share) / total_genuine)
        higher, at_least = self._around
        listed = int(impostor[-1])
        twice = 2.0 * listed - impostor[higher] - impostor[at_least]
        real = self.rates.counts.genuine > NO_DESCRIPTOR_SCORE
        twice += np.where(real, 2.0, 1.0) * lost_impostor
        at_bottom = listed - int(impostor[self._impostors_above_bottom]) + lost_impostor
        found = float(own @ twice) + lost_genuine * at_bottom
        return found / (2 * total_genuine * total_impostor)

    @cached_property
    def _tied_at_bottom(self) -> float:
        return self.rates.unscored[1] / self.rates.source.impostor / 2

    @cached_property
    def _around(self) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """For each genuine score, the impostors that score higher, and at least as high."""
        counts = self.rates.counts
        rising = counts.impostor[::-1]
        n = len(rising)
        return (
            n - np.searchsorted(rising, counts.genuine, side="right"),
            n - np.searchsorted(rising, counts.genuine, side="left"),
        )

    @cached_property
    def _impostors_above_bottom(self) -> int:
        rising = self.rates.counts.impostor[::-1]
        return len(rising) - int(
            np.searchsorted(rising, np.float32(NO_DESCRIPTOR_SCORE), side="right")
        )


def _none() -> NDArray[np.float64]:
    return np.zeros(0)
