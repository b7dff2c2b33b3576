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
import threading
from bisect import bisect_left
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from fractions import Fraction
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from vidface.core.values import available_cores
from vidface.metrics.blocks import bin_of
from vidface.metrics.operating_points import OperatingPoint
from vidface.metrics.pairwise import NO_DESCRIPTOR_SCORE, count_above
from vidface.metrics.rates import Rates
from vidface.metrics.uncertainty import Bootstrap, Replicates

RESAMPLED_PAIRS = 2**22
"""Impostor pairs that are weighed in each resample."""

DEEPER = 1.2
"""How many times the allowed impostors must be listed for a threshold to be estimated anew."""

SUMS_BYTES = 2**30
"""For the running sums of all threads together; one thread works in any case."""

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

    with ThreadPoolExecutor(draws.workers) as pool:
        rows = np.array(list(pool.map(one, range(bootstrap.resamples))), dtype=np.float64)
    n = len(targets)
    anew, held, (eer, auc) = rows[:, :n].T, rows[:, n : 2 * n].T, rows[:, 2 * n :].T
    tar = {}
    for i, text in enumerate(targets):
        # One resample whose threshold lies deeper than the list would bias the interval.
        fixed = text not in draws.anew or bool(np.isinf(anew[i]).any())
        tar[text] = Replicates(held[i], HELD) if fixed else Replicates(anew[i])
    note = "" if draws.all_impostors else IMPOSTORS_HELD
    return Resampled(tar, Replicates(eer, note), Replicates(auc, note))


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
    threads: threading.local = field(default_factory=threading.local)

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
            return _Draws(rates, targets, held, anew, n_weighed, True, positions, np.zeros(0))
        positions = rates.above_edge[:, rates.used_bins[::-1]]
        impostor = rates.above_edge[1]
        bins = bin_of(counts.genuine, counts.bins)
        below = (n_impostor - (impostor[bins] + impostor[bins + 1]) / 2) / n_impostor
        return _Draws(rates, targets, held, anew, n_weighed, False, positions, below)

    def figures(self, weights: NDArray[np.intp]) -> list[float]:
        """TAR at each target, EER and AUC."""
        source = self.rates.source
        total_genuine, total_impostor = source.totals(weights)
        if not (total_genuine and total_impostor):
            return [math.nan] * (2 * len(self.targets) + 2)
        genuine, impostor = self._running()
        genuine.weigh(weights, total_genuine)
        impostor.weigh(weights, total_impostor)
        tars = [self._tar(text, far, genuine, impostor) for text, far in self.targets.items()]
        held = [self._held(text, genuine) for text in self.targets]
        eer = self._eer(genuine, impostor)
        return [*tars, *held, eer, self._auc(weights, genuine, impostor)]

    @property
    def workers(self) -> int:
        """Threads whose sums together stay within `SUMS_BYTES`."""
        counts = self.rates.counts
        bytes_each = 8 * (2 * len(counts.genuine) + 3 * self.n_weighed) + 1
        return max(1, min(available_cores(), SUMS_BYTES // bytes_each))

    def _held(self, text: str, genuine: _Running) -> float:
        """TAR at the whole split's threshold."""
        if text not in self.held:
            return math.nan
        if self.held[text] > genuine.n:  # with those that score −1: all of them
            return 1.0
        return genuine.first(self.held[text]) / genuine.of_all

    def _running(self) -> tuple[_Running, _Running]:
        """The thread's own sums, whose memory every resample uses again."""
        local = self.threads
        if not hasattr(local, "sums"):
            counts = self.rates.counts
            pairs = counts.impostor_units[:, : self.n_weighed]
            local.sums = (self._sums_over(counts.genuine_units), self._sums_over(pairs))
        genuine, impostor = local.sums
        return genuine, impostor

    def _sums_over(self, units: NDArray[np.int32]) -> _Running:
        """Of pairs with one unit each, (n,), or two, (2, n)."""
        if units.ndim == 1:
            return _Running((units,))
        # Only a list can name any two rows: also two of one unit.
        within = units[0] == units[1] if self.rates.passes is None else None
        return _Running((units[0], units[1]), within)

    def _tar(self, text: str, far: Fraction, genuine: _Running, impostor: _Running) -> float:
        counts = self.rates.counts
        if text not in self.anew or far * impostor.of_all < 1:
            return math.nan
        allowed = math.floor(far * impostor.of_all)
        if allowed >= impostor.of_all:
            return 1.0
        # The first listed impostor too many; what scores higher is accepted.
        i = impostor.exceeding(allowed)
        if i < self.n_weighed:
            beyond = counts.impostor[i]
        elif self.all_impostors:
            beyond = np.float32(NO_DESCRIPTOR_SCORE)
        else:
            return math.inf  # deeper than the list
        return genuine.first(count_above(counts.genuine, beyond)) / genuine.of_all

    def _eer(self, genuine: _Running, impostor: _Running) -> float:
        n = self.positions.shape[1]
        total_genuine = genuine.of_all
        total_impostor = impostor.of_all if self.all_impostors else self.rates.source.impostor

        def errors_at(i: int) -> tuple[int, int]:
            """FAR and FRR times both totals: whole numbers, so that a tie is one."""
            if not 0 <= i < n:
                everything = total_impostor * total_genuine
                return (0, everything) if i < 0 else (everything, 0)
            accepted, wrong = self.positions[:, i].tolist()
            # More than are listed: with those that score −1, so all of them.
            right = genuine.first(accepted) if accepted <= genuine.n else total_genuine
            if self.all_impostors:
                wrong = impostor.first(wrong)
            return wrong * total_genuine, (total_genuine - right) * total_impostor

        def far_reaches_frr(i: int) -> bool:
            far, frr = errors_at(i)
            return far >= frr

        i = bisect_left(range(n), True, key=far_reaches_frr)
        errors = min((errors_at(i - 1), errors_at(i)), key=lambda pair: abs(pair[0] - pair[1]))
        return sum(errors) / (2 * total_impostor * total_genuine)

    def _auc(self, weights: NDArray[np.intp], genuine: _Running, impostor: _Running) -> float:
        listed = impostor.total
        lost_genuine = genuine.of_all - genuine.total  # those that score −1 without a descriptor
        lost_impostor = impostor.of_all - listed
        if not self.all_impostors:
            if self.rates.counts.genuine_units.ndim == 1:
                below = float(weights @ self._below)
            else:  # of a list, whose pairs may be of two units
                below = float(genuine.values @ self.below)
            return (below + lost_genuine * self._tied_at_bottom) / genuine.of_all
        higher, at_least = self._around
        firsts = impostor.firsts()
        twice = 2.0 * listed - firsts[higher] - firsts[at_least]
        real = self.rates.counts.genuine > NO_DESCRIPTOR_SCORE
        twice += np.where(real, 2.0, 1.0) * lost_impostor
        at_bottom = listed - impostor.first(self._impostors_above_bottom) + lost_impostor
        total = float(genuine.values @ twice) + lost_genuine * at_bottom
        return total / (2 * genuine.of_all * impostor.of_all)

    @cached_property
    def _below(self) -> NDArray[np.float64]:
        """For each unit, the sum of its genuine scores' shares of impostors below."""
        units, n = self.rates.counts.genuine_units, self.rates.source.n_units
        sums = np.zeros(n)
        np.add.at(sums, units, self.below)
        return sums

    @cached_property
    def _tied_at_bottom(self) -> float:
        """Half the share of impostors in the lowest bin, where the genuine pairs at −1 are, too."""
        at_least = self.rates.above_edge[1]
        return int(at_least[0] - at_least[1]) / self.rates.source.impostor / 2

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
        return count_above(self.rates.counts.impostor, NO_DESCRIPTOR_SCORE)


class _Running:
    """Running sums of how often listed pairs count, highest scores first.

    Sums are of blocks, and within the one block that is asked for: a resample wants a few of them.
    """

    def __init__(
        self, units: tuple[NDArray[np.int32], ...], within: NDArray[np.bool_] | None = None
    ) -> None:
        self.n = len(units[0])
        self._units, self._within = units, within
        padded = -(-self.n // _BLOCK) * _BLOCK
        self._values = np.zeros((len(units), padded), dtype=np.float64)
        self._firsts = np.zeros(self.n + 1, dtype=np.float64)
        self._whole = False
        self.of_all = 0

    @property
    def values(self) -> NDArray[np.float64]:
        """(n,) how often each pair counts."""
        return self._values[0, : self.n]

    def weigh(self, weights: NDArray[np.intp], of_all: int) -> None:
        """Take the units' weights of another resample. Sums stay whole numbers, exactly.

        Args:
            of_all: how often all pairs of the kind count together, also those that aren't listed.
        """
        self.of_all = of_all
        table = weights.astype(np.float64)
        for units, row in zip(self._units, self._values, strict=True):
            np.take(table, units, out=row[: self.n], mode="clip")
        if len(self._units) == 2:
            if self._within is not None:
                self._values[1, : self.n][self._within] = 1
            np.multiply(self._values[0], self._values[1], out=self._values[0])
        sums = self._values[0].reshape(-1, _BLOCK).sum(axis=1)
        self._blocks = np.concatenate([[0], np.cumsum(sums)])
        self._whole = False

    @property
    def total(self) -> int:
        return int(self._blocks[-1])

    def first(self, k: int) -> int:
        """The sum of the first k."""
        block = k // _BLOCK
        return int(self._blocks[block] + self._values[0, block * _BLOCK : k].sum())

    def firsts(self) -> NDArray[np.float64]:
        """(n + 1,) `first` of 0 to n."""
        if not self._whole:
            np.cumsum(self.values, out=self._firsts[1:])
            self._whole = True
        return self._firsts

    def exceeding(self, limit: int) -> int:
        """The index of the first whose sum up to it is above the limit; n where none is."""
        block = int(np.searchsorted(self._blocks, limit, side="right")) - 1
        if block == len(self._blocks) - 1:
            return self.n
        part = self._values[0, block * _BLOCK : (block + 1) * _BLOCK]
        inside = np.cumsum(part)
        rest = limit - self._blocks[block]
        return block * _BLOCK + int(np.searchsorted(inside, rest, side="right"))


_BLOCK = 2**12
