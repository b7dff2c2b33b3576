"""From counted pairs to figures: TAR at FAR by the step rule, EER, AUC and the ROC."""

from __future__ import annotations

import math
from bisect import bisect_left
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vidface.core.errors import VidfaceError
from vidface.metrics.blocks import bin_edges, bin_of
from vidface.metrics.listed_pairs import ListedPairs
from vidface.metrics.operating_points import OperatingPoint
from vidface.metrics.pair_sets import Pairs
from vidface.metrics.pairwise import (
    KEEP_ALL,
    KEEP_AT_LEAST,
    NO_DESCRIPTOR_SCORE,
    PairCounts,
    collect,
    count_above,
    count_pairs,
    guess_floor,
    impostors_below,
)
from vidface.metrics.passes import Passes
from vidface.metrics.roc import BoundedFigure, Curve, Steps, count_twice_above, sum_products

EXACT_FAR = Fraction(1, 1000)
"""Up to here TAR at FAR is exact in any case."""

LONG_LIST = 2**22
"""Distinct genuine scores that an exact AUC ranks in one pass."""


def count_for(passes: Passes, targets: Mapping[str, Fraction]) -> PairCounts:
    """Count all pairs so that the targets up to `EXACT_FAR` need no second pass.

    Up to `KEEP_AT_LEAST` impostor pairs all their scores are listed. That is decided here, by the
    number of pairs: what workers find on the way differs with how many of them there are.
    """
    pairs = passes.pairs
    impostor = pairs.impostor
    wanted = [math.floor(far * impostor) for far in targets.values() if far <= EXACT_FAR]
    keep = max(max(wanted, default=0) + 1, min(KEEP_AT_LEAST, 2**16))
    measured = pairs.measured()[1]
    if measured <= KEEP_AT_LEAST:
        keep = max(keep, measured)
    margin = 1.5
    while True:
        floor = guess_floor(passes, keep, margin)
        counts = count_pairs(passes, keep, floor=floor)
        # The floor rises with what lies above it; only the guess itself can have been too high.
        if counts.floor > floor or floor <= KEEP_ALL or len(counts.impostor) >= keep:
            return counts
        margin *= 8


@dataclass(frozen=True, eq=False)
class Rates:
    """Figures of counted pairs. Without `passes` nothing can be counted again."""

    counts: PairCounts
    source: Pairs | ListedPairs
    passes: Passes | None = None
    exact: bool = False
    _collected: dict[int, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        counted = self.counts.histogram.sum(axis=1).tolist()
        genuine, impostor = self.source.measured()
        if counted != [genuine + impostor, genuine]:
            raise VidfaceError(
                f"{counted[0]} pairs were counted, {counted[1]} of them genuine, where there are "
                f"{genuine + impostor} and {genuine}: parts are missing, or overlap"
            )

    @cached_property
    def unscored(self) -> tuple[int, int]:
        """Genuine and impostor pairs that score −1 for want of a descriptor."""
        genuine, impostor = self.source.measured()
        return self.source.genuine - genuine, self.source.impostor - impostor

    @cached_property
    def edges(self) -> NDArray[np.float32]:
        return bin_edges(self.counts.bins)

    @cached_property
    def above_edge(self) -> NDArray[np.int64]:
        """(2, bins + 1): genuine and impostor pairs that score at least each bin's lower edge."""
        everything, genuine = self.counts.histogram
        binned = np.stack([genuine, everything - genuine])
        binned[:, 0] += self.unscored
        return np.concatenate(
            [np.cumsum(binned[:, ::-1], axis=1)[:, ::-1], np.zeros((2, 1), np.int64)], axis=1
        )

    @cached_property
    def steps(self) -> Steps:
        """All observed scores down to where the lists are complete."""
        counts = self.counts
        genuine = counts.genuine[counts.genuine > counts.floor]
        values, parts = [genuine, counts.impostor], []
        whole = counts.complete
        if whole and any(self.unscored):
            values.append(np.array([NO_DESCRIPTOR_SCORE], np.float32))
        scores = np.unique(np.concatenate(values))[::-1] + np.float32(0)
        for kind, listed in enumerate((genuine, counts.impostor)):
            accepted = np.searchsorted(-listed, -scores, side="right")
            if whole:
                accepted[scores <= NO_DESCRIPTOR_SCORE] += self.unscored[kind]
            parts.append(accepted)
        return Steps(scores.astype(np.float64), parts[0], parts[1], (0, 0), whole)

    @cached_property
    def used_bins(self) -> NDArray[np.intp]:
        """The bins that hold a pair, rising."""
        return np.flatnonzero(np.diff(self.above_edge).any(axis=0))

    def accepted_at(self, score: float) -> tuple[int, int]:
        """Genuine and impostor pairs whose score is at least this one, exactly."""
        value, counts = np.float32(score), self.counts
        if value <= NO_DESCRIPTOR_SCORE:
            return self.source.genuine, self.source.impostor
        if counts.genuine_complete and value > counts.floor:
            below = np.nextafter(value, np.float32(-2))
            return count_above(counts.genuine, below), count_above(counts.impostor, below)
        b = int(bin_of(np.array([value], np.float32), counts.bins)[0])
        self._collect({b})
        steps = self._collected[b]
        at_least = int(np.searchsorted(-steps.scores, -float(value), side="right"))
        return steps.at(at_least - 1)[1:]

    def curve(self) -> Curve:
        """The ROC: at each observed score, or at each bin's edge where there are more of them."""
        genuine, impostor = self.source.genuine, self.source.impostor
        if self.counts.complete and len(self.steps) <= self.counts.bins:
            steps = self.steps
            return Curve(steps.scores, steps.genuine, steps.impostor, genuine, impostor)
        used = self.used_bins[::-1]
        thresholds = self.edges[used].astype(np.float64)
        accepted = self.above_edge[:, used]
        return Curve(thresholds, accepted[0], accepted[1], genuine, impostor)

    def points(self, targets: Mapping[str, Fraction], convention: str) -> list[OperatingPoint]:
        """The operating points, in the order of the targets."""
        n_impostor = self.source.impostor
        resolved = {t: f for t, f in targets.items() if self.source.genuine and f * n_impostor >= 1}
        self._collect(
            {
                b
                for far in resolved.values()
                if self._needs_pass(far, convention)
                for b in self._bins_at(math.floor(far * n_impostor), convention)
            }
        )
        find = self._step if convention == "step" else self._nearest
        return [
            find(text, far)
            if text in resolved
            else OperatingPoint.unresolved(text, far, self.source.genuine, self.source.impostor)
            for text, far in targets.items()
        ]

    def _point(
        self,
        text: str,
        accepted: tuple[float | None, int, int],
        bounds: tuple[float, float] | None = None,
    ) -> OperatingPoint:
        genuine, impostor = self.source.genuine, self.source.impostor
        return OperatingPoint.of_counts(text, accepted, genuine, impostor, bounds)

    def _in_lists(self, allowed: int) -> bool:
        """Whether the score where the target is exceeded is listed, and all genuine above it."""
        counts = self.counts
        return counts.genuine_complete and (counts.complete or allowed < len(counts.impostor))

    def _in_order(self, allowed: int) -> tuple[float | None, int, int]:
        """What the lists say: all that scores higher than the first impostor too many."""
        counts = self.counts
        if allowed >= self.source.impostor:  # nothing is too many: the lowest score of all
            return self.steps.at(len(self.steps) - 1)
        listed = allowed < len(counts.impostor)
        beyond = counts.impostor[allowed] if listed else np.float32(NO_DESCRIPTOR_SCORE)
        accepted = [count_above(list_, beyond) for list_ in (counts.genuine, counts.impostor)]
        lowest = [
            float(list_[n - 1])
            for list_, n in zip((counts.genuine, counts.impostor), accepted, strict=True)
            if n
        ]
        return (min(lowest) + 0.0 if lowest else None), accepted[0], accepted[1]

    def _needs_pass(self, far: Fraction, convention: str) -> bool:
        if self._in_lists(math.floor(far * self.source.impostor)):
            return False
        return self.exact or far <= EXACT_FAR or convention == "nearest"

    def _step(self, text: str, far: Fraction) -> OperatingPoint:
        """The lowest observed score that accepts at most the allowed impostors."""
        allowed = math.floor(far * self.source.impostor)
        if self._in_lists(allowed):
            return self._point(text, self._in_order(allowed))
        crossing = self._crossing(allowed)
        if self._needs_pass(far, "step"):
            # In the bin of the crossing, or the lowest score of the next one above.
            for b in self._bins_at(allowed, "step"):
                steps = self._collected[b]
                i = steps.accepting_at_most(allowed)
                if i >= 0:
                    return self._point(text, steps.at(i))
            return self._point(text, (None, 0, 0))
        genuine = self.source.genuine
        low, high = (int(self.above_edge[0, b]) for b in (crossing + 1, max(crossing, 0)))
        above = self.used_bins[self.used_bins > crossing]
        edge = float(self.edges[above[0]]) if len(above) else None
        accepted = (edge, low, int(self.above_edge[1, crossing + 1]))
        return self._point(text, accepted, (low / genuine, high / genuine))

    def _crossing(self, allowed: int) -> int:
        """The highest bin with which the impostors exceed the allowance; −1 where none does."""
        exceeding = np.flatnonzero(self.above_edge[1, :-1] > allowed)
        return int(exceeding[-1]) if len(exceeding) else -1

    def _bins_at(self, allowed: int, convention: str) -> list[int]:
        """The bins where a target falls: of the crossing and the next occupied one above it.

        The nearest point may also lie in the next one below.
        """
        crossing = self._crossing(allowed)
        used = self.used_bins
        bins = [b for b in (crossing, *used[used > crossing][:1].tolist()) if b >= 0]
        if convention == "nearest":
            bins += used[used < crossing][-1:].tolist()
        return bins

    def _collect(self, bins: set[int]) -> None:
        """Work out the steps of some bins in another pass."""
        wanted = sorted(bins - set(self._collected))
        if not wanted:
            return
        if self.passes is None:
            raise VidfaceError("these pairs cannot be counted again")
        intervals = [(float(self.edges[b]), float(self.edges[b + 1])) for b in wanted]
        for b, (scores, counts) in zip(wanted, collect(self.passes, intervals), strict=True):
            if not np.array_equal(counts.sum(axis=1), self.counts.histogram[:, b]):
                raise VidfaceError(
                    "the matrix product gave other scores the second time, so counts would not be "
                    "exact; set OPENBLAS_NUM_THREADS=1 (or your BLAS library's equal) and repeat"
                )
            genuine, impostor = counts[1], counts[0] - counts[1]
            if b == 0 and any(self.unscored):
                if not len(scores) or scores[0] != NO_DESCRIPTOR_SCORE:
                    scores = np.concatenate([[np.float32(NO_DESCRIPTOR_SCORE)], scores])
                    genuine, impostor = (np.concatenate([[0], c]) for c in (genuine, impostor))
                genuine[0] += self.unscored[0]
                impostor[0] += self.unscored[1]
            above = (int(self.above_edge[0, b + 1]), int(self.above_edge[1, b + 1]))
            self._collected[b] = Steps(
                scores[::-1].astype(np.float64),
                above[0] + np.cumsum(genuine[::-1]),
                above[1] + np.cumsum(impostor[::-1]),
                above,
                b == 0 or not self.above_edge[:, 0].sum() > self.above_edge[:, b].sum(),
            )

    def _nearest(self, text: str, far: Fraction) -> OperatingPoint:
        """The corner of the ROC whose FAR is nearest to the target."""
        allowed = math.floor(far * self.source.impostor)
        corner = self._nearest_of([self.steps], far) if self._in_lists(allowed) else None
        used = self.used_bins
        bins = sorted(self._bins_at(allowed, "nearest"))
        while corner is None:  # rarely: each round is another pass
            self._collect(set(bins))
            corner = self._nearest_of([self._collected[b] for b in reversed(bins)], far)
            first, last = np.searchsorted(used, (bins[0], bins[-1])).tolist()
            bins = used[max(0, first - len(bins)) : last + 1 + len(bins)].tolist()
        return self._point(text, corner)

    def _nearest_of(
        self, runs: Sequence[Steps], far: Fraction
    ) -> tuple[float | None, int, int] | None:
        """The corner in neighbouring steps; None where a nearer one may lie beyond them."""
        scores = np.concatenate([r.scores for r in runs])
        genuine = np.concatenate([r.genuine for r in runs])
        impostor = np.concatenate([r.impostor for r in runs])
        corner = np.zeros(len(scores), dtype=bool)
        corner[1:-1] = np.diff(genuine, 2).astype(bool) | np.diff(impostor, 2).astype(bool)
        corner[:1] = runs[0].above == (0, 0)
        corner[-1:] |= runs[-1].whole
        chosen = np.flatnonzero(corner)
        target = float(far)
        rates = impostor[chosen] / self.source.impostor
        over = chosen[rates > target][:1]
        # The lowest of those with the first FAR above the target is known where one lies below it.
        if not runs[-1].whole and not (len(over) and impostor[-1] > impostor[over[0]]):
            return None
        if runs[0].above != (0, 0) and not (rates <= target).any():
            return None
        distances = np.abs(rates - target)
        best = chosen[len(chosen) - 1 - int(np.argmin(distances[::-1]))]
        if runs[0].above == (0, 0) and target < distances.min():  # the ROC's origin is nearer
            return None, 0, 0
        return float(scores[best]), int(genuine[best]), int(impostor[best])

    def eer(self) -> BoundedFigure:
        """(FAR + FRR) / 2 where they differ least."""
        if self.counts.complete:
            value, threshold = self._eer_of(self.steps)
            return BoundedFigure(value, None, threshold)
        b = self._equal_bin()
        if self.exact:
            above = self.used_bins[self.used_bins > b][:1]
            self._collect({b, *above.tolist()})
            value, threshold = self._eer_of(self._collected[b])
            if threshold is None and len(above):  # the lowest score above the bin
                threshold = float(self._collected[int(above[0])].scores[-1])
            return BoundedFigure(value, None, threshold)
        high, low = (self._rates(*self.above_edge[:, e].tolist()) for e in (b + 1, b))
        nearest = min((high, low), key=lambda rates: abs(rates[0] - rates[1]))
        edge = b + 1 if nearest is high else b
        threshold = float(self.edges[edge]) if edge < self.counts.bins else None
        return BoundedFigure(
            sum(nearest) / 2, ((high[0] + low[1]) / 2, (low[0] + high[1]) / 2), threshold
        )

    def _equal_bin(self) -> int:
        """The bin where FAR and FRR cross: downwards the one rises, the other falls."""
        inner_edges = range(1, self.counts.bins)
        return bisect_left(
            inner_edges, True, key=lambda e: self._excess(*self.above_edge[:, e].tolist()) < 0
        )

    def _excess(self, genuine: int, impostor: int) -> int:
        """FAR − FRR, times both totals: exact whole numbers."""
        total_genuine, total_impostor = self.source.genuine, self.source.impostor
        return impostor * total_genuine - (total_genuine - genuine) * total_impostor

    def _rates(self, genuine: int, impostor: int) -> tuple[float, float]:
        """FAR and FRR."""
        return impostor / self.source.impostor, 1 - genuine / self.source.genuine

    def _eer_of(self, steps: Steps) -> tuple[float, float | None]:
        # The excess is < 0 just before the crossing (as far as known), ≥ 0 at it.
        crossing = bisect_left(
            range(len(steps) - 1), True, key=lambda i: self._excess(*steps.at(i)[1:]) >= 0
        )
        threshold, genuine, impostor = min(
            (steps.at(crossing - 1), steps.at(crossing)), key=lambda at: abs(self._excess(*at[1:]))
        )
        far, frr = self._rates(genuine, impostor)
        return (far + frr) / 2, threshold

    def auc(self) -> BoundedFigure:
        """P(genuine > impostor) + ½ P(genuine = impostor)."""
        source, counts = self.source, self.counts
        pairs = source.genuine * source.impostor
        if counts.complete:
            return BoundedFigure(self.steps.auc())
        genuine, impostor = -np.diff(self.above_edge)
        if self.exact and counts.genuine_complete:
            values, times = np.unique(counts.genuine, return_counts=True)
            if self.passes is not None:
                missing, lost = self.unscored
                if missing and not (len(values) and values[0] <= NO_DESCRIPTOR_SCORE):
                    values = np.append(np.float32(NO_DESCRIPTOR_SCORE), values)
                    times = np.append(0, times)
                if missing:
                    times[0] += missing
                parts = [values[i : i + LONG_LIST] for i in range(0, len(values), LONG_LIST)]
                counts_below = [impostors_below(self.passes, part) for part in parts or [values]]
                below = np.concatenate(counts_below, axis=1)  # < and ≤
                below = below + np.where(values > NO_DESCRIPTOR_SCORE, lost, [[0], [lost]])
                twice = sum_products(times, below.sum(axis=0))
                return BoundedFigure(twice / (2 * pairs))
        twice = count_twice_above(genuine[::-1], impostor[::-1])
        tied = sum_products(genuine, impostor)
        return BoundedFigure(
            twice / (2 * pairs), ((twice - tied) / (2 * pairs), (twice + tied) / (2 * pairs))
        )
