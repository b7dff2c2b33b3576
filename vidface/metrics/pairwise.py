"""All pairs of a split in one pass: a histogram of every score, and the highest scores themselves.

The pass goes over blocks of the matrix of scores, which is never held. Of each block remain

- how many scores fall into each bin of a fine histogram, all pairs and genuine pairs apart;
- every genuine score, with the identity it is of;
- every impostor score above a floor, with the two units (people) it is of.

These are `PairCounts`. Those of different blocks make one (`joined`): counts add up, lists are
joined, and the highest floor holds for all, since above it all lists are complete. All of that
is exact and neither order nor grouping matters, so blocks can be counted anywhere (`part`).

The floor is guessed from a sample so that somewhat more than the wanted number of impostor scores
lie above it; a guess that was too high is noticed, and the pass repeated with a lower one. Where it
was too low, the `most_listed` highest scores stay, however many workers counted: which scores are
listed, and so which figures are exact, follows from the pairs and the targets alone.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vidface.core.errors import VidfaceError
from vidface.metrics.blocks import BlockOps, bin_of, falling_order, sort_falling
from vidface.metrics.passes import Passes, over_parts

NO_DESCRIPTOR_SCORE = -1.0
"""The score of a clip without a descriptor against every other clip."""

HISTOGRAM_BINS = 2**16
ACCELERATOR_BINS = 2**13
"""Bins of the histogram. An accelerator counts into 2¹³ three times as fast as into 2¹⁶."""

KEEP_AT_LEAST = 2**22
"""Impostor pairs up to which all their scores are kept: then every figure is exact."""

GENUINE_LIMIT = 2**26
"""Genuine scores that are kept; a split with more of them has their counts only."""

KEEP_ALL = -1.5  # a floor below every score
_MARGIN = 1.5  # of the floor's guess: how many more scores than wanted should lie above it
_SAMPLE = 2048  # clips a side
_WAITING = 2**20  # scores that wait to be joined to those kept, so that joining is rare


def most_listed(keep: int) -> int:
    """How many impostor scores are listed at most, where `keep` are wanted."""
    return 2 * keep + _WAITING


def _has_too_many(n: int, keep: int) -> bool:
    """Whether a list is so long that cutting it back pays."""
    most = most_listed(keep)
    return n > most + most // 4


@dataclass(frozen=True, eq=False)
class PairCounts:
    """What was counted in some blocks; of all blocks together, what figures are made of.

    All but the histogram leaves out the pairs that score −1 for want of a descriptor.
    """

    histogram: NDArray[np.int64]  # (2, bins): all pairs, genuine pairs
    genuine: NDArray[np.float32]  # scores, highest first
    genuine_units: NDArray[np.int32]  # (n,) whose pair; of listed pairs (2, n), of both rows
    genuine_complete: bool
    impostor: NDArray[np.float32]  # scores above `floor`, highest first
    impostor_units: NDArray[np.int32]  # (2, n) of the two clips
    floor: float  # KEEP_ALL: all impostor scores are there

    def __post_init__(self) -> None:
        if self.impostor_units.shape != (2, len(self.impostor)):
            raise VidfaceError("impostor_units must be two rows, an entry a score")

    def __str__(self) -> str:
        return (
            f"PairCounts(histogram {self.histogram.shape}, genuine {self.genuine.shape} float32, "
            f"impostor {self.impostor.shape} float32 above {self.floor:.6g})"
        )

    @property
    def bins(self) -> int:
        return self.histogram.shape[1]

    @property
    def complete(self) -> bool:
        """Whether every score is in the lists."""
        return self.floor <= KEEP_ALL and self.genuine_complete

    def coarser(self, bins: int) -> NDArray[np.int64]:
        """The histogram in fewer bins; each is the union of some."""
        return self.histogram.reshape(2, bins, -1).sum(axis=2)

    def highest(self, keep: int) -> PairCounts:
        """With the impostor scores above the `keep + 1`-th highest alone, which is the floor."""
        if len(self.impostor) <= keep:
            return self
        floor = float(self.impostor[keep])
        n = count_above(self.impostor, floor)
        return replace(
            self,
            impostor=self.impostor[:n].copy(),  # so that the rest is let go
            impostor_units=self.impostor_units[:, :n].copy(),
            floor=floor,
        )

    @staticmethod
    def joined(parts: Sequence[PairCounts]) -> PairCounts:
        """What was counted in the blocks of all parts, which must not overlap.

        Exact: bins of histograms nest, so that counts add up in the coarsest one's; above the
        highest of the floors all lists of impostors hold every score.
        """
        bins = min(p.bins for p in parts)
        floor = max(p.floor for p in parts)
        complete = all(p.genuine_complete for p in parts)
        genuine = np.concatenate([p.genuine if complete else p.genuine[:0] for p in parts])
        genuine_units = np.concatenate(
            [p.genuine_units if complete else p.genuine_units[..., :0] for p in parts], axis=-1
        )
        by_genuine = falling_order(genuine)
        above = [slice(count_above(p.impostor, floor)) for p in parts]
        impostor, *units = sort_falling(
            (p.impostor[n], *p.impostor_units[:, n]) for p, n in zip(parts, above, strict=True)
        )
        return PairCounts(
            np.sum([p.coarser(bins) for p in parts], axis=0, dtype=np.int64),
            genuine[by_genuine],
            genuine_units[..., by_genuine],
            complete,
            impostor,
            np.stack(units),
            floor,
        )


def gathered(parts: Iterable[PairCounts], keep: int) -> PairCounts:
    """`PairCounts.joined`, of parts as they come in; of the impostors no more than `most_listed`.

    Where the floor was guessed too low, all parts together have many more.
    """
    parts_so_far: list[PairCounts] = []
    for part in parts:
        parts_so_far.append(part)
        if _has_too_many(sum(len(p.impostor) for p in parts_so_far), keep):
            parts_so_far = [PairCounts.joined(parts_so_far).highest(most_listed(keep))]
    return PairCounts.joined(parts_so_far).highest(most_listed(keep))


class _Collector:
    """What one worker has counted so far."""

    def __init__(self, ops: BlockOps, bins: int, keep: int, floor: float, genuine: bool) -> None:
        self.ops, self.keep, self.floor = ops, keep, floor
        self.histogram = np.zeros((2, bins), dtype=np.int64)
        self.genuine: list[tuple[Any, Any]] | None = [] if genuine else None
        self.impostor: list[tuple[Any, ...]] = []
        self.n_impostor = 0

    def add_impostors(self, scores: Any, rows: slice, columns: slice) -> None:
        if self.floor >= 1:  # nothing scores higher
            return
        values, index = self.ops.above(scores, self.floor)
        if not len(values):
            return
        width = columns.stop - columns.start
        self.impostor.append(
            (
                values,
                self.ops.units(0, rows.start, index // width),
                self.ops.units(1, columns.start, index % width),
            )
        )
        self.n_impostor += len(values)
        if _has_too_many(self.n_impostor, self.keep):
            # The score after the `most_listed` highest of some pairs is no higher than that of all:
            # whatever came to this worker, what `highest` leaves of all lists is still here.
            kept, floor = self.ops.highest(self.impostor, most_listed(self.keep) + 1)
            self.floor = max(self.floor, floor)
            self.impostor, self.n_impostor = [kept], len(kept[0])

    @staticmethod
    def joined(collectors: Sequence[_Collector]) -> PairCounts:
        """What all workers have counted together, sorted once."""
        floor = max(collector.floor for collector in collectors)
        complete = all(collector.genuine is not None for collector in collectors)
        none = np.zeros(0, np.float32), np.zeros(0, np.int32)
        genuine = [part for collector in collectors for part in collector.genuine or ()]
        scores, units = sort_falling([none, *genuine] if complete else [none])
        impostor, a, b = *none, none[1]
        parts = [part for collector in collectors for part in collector.impostor]
        for collector in collectors:
            collector.impostor = []  # so that they are not held twice
        if parts:
            impostor, a, b = collectors[0].ops.sorted(parts)
            n = count_above(impostor, floor)
            impostor, a, b = impostor[:n], a[:n], b[:n]
        return PairCounts(
            np.sum([collector.histogram for collector in collectors], axis=0, dtype=np.int64),
            scores,
            units,
            complete,
            impostor,
            np.stack([a, b]),
            floor,
        )


def count_above(falling: NDArray[np.float32], floor: float | np.float32) -> int:
    """How many of a falling list are above the floor."""
    return len(falling) - int(np.searchsorted(falling[::-1], np.float32(floor), side="right"))


def count_pairs(
    passes: Passes,
    keep: int,
    *,
    bins: int | None = None,
    floor: float | None = None,
    part: tuple[int, int] = (0, 1),
) -> PairCounts:
    """One pass over all pairs, or over one part of them.

    Args:
        keep: how many of the highest impostor scores are wanted, of all parts together. More are
            kept, up to `most_listed`; fewer come back where the floor was guessed too high, or
            where many scores tie.
        bins: of the histogram, a power of two from 2 to 2¹⁶ (default: by device).
        floor: above which impostor scores are kept (default: guessed from a sample).
        part: (i, n): each n-th strip of rows, from the i-th on. All n parts, merged, are the whole,
            wherever each was counted.
    """
    if bins is None:
        bins = ACCELERATOR_BINS if passes.on_accelerator else HISTOGRAM_BINS
    if not (2 <= bins <= HISTOGRAM_BINS and bins & (bins - 1) == 0):
        raise VidfaceError(f"bins must be a power of two from 2 to {HISTOGRAM_BINS}, got {bins}")
    if floor is None:
        floor = guess_floor(passes, keep)
    if passes.spread:
        return gathered(over_parts(passes, _count_pairs, keep, bins, floor), keep)
    return _count_pairs(passes, keep, bins, floor, part=part)


def _count_pairs(
    passes: Passes, keep: int, bins: int, floor: float, *, part: tuple[int, int]
) -> PairCounts:
    pairs = passes.pairs
    keeps_genuine = pairs.genuine <= GENUINE_LIMIT

    def state(ops: BlockOps) -> _Collector:
        return _Collector(ops, bins, keep, floor, keeps_genuine)

    def work(collector: _Collector, ops: BlockOps, rows: slice, columns: slice) -> None:
        scores, excluded = passes.scores(ops, rows, columns)
        collector.histogram[0] += ops.histogram(scores, bins, excluded)
        index, units = pairs.genuine_of(rows, columns)
        if len(index):
            genuine = ops.take(scores, index)
            collector.histogram[1] += np.bincount(bin_of(genuine, bins), minlength=bins)
            if collector.genuine is not None:
                collector.genuine.append((genuine, units))
            ops.exclude(scores, index)
        collector.add_impostors(scores, rows, columns)

    counts = _Collector.joined(passes.each_block(work, state, part))
    return counts.highest(most_listed(keep))


def guess_floor(passes: Passes, keep: int, margin: float = _MARGIN) -> float:
    """A score above which about `margin · keep` impostor scores lie, from a sample of the pairs."""
    pairs = passes.pairs
    _, impostor = pairs.measured()
    if impostor <= max(margin * keep, KEEP_AT_LEAST):
        return KEEP_ALL
    generator = np.random.default_rng(0)  # which sample it is does not touch any figure
    a, b = (
        np.sort(generator.permutation(n)[: _SAMPLE // 2 if passes.on_accelerator else _SAMPLE])
        for n in (pairs.first.n_labelled, len(pairs.columns.rows))
    )
    strangers = pairs.first.units[a][:, None] != pairs.columns.units[b]
    scores = (pairs.first.rows[a] @ pairs.columns.rows[b].T)[strangers]
    above = int(len(scores) * margin * keep / impostor)
    if above >= len(scores):
        return KEEP_ALL
    nth = len(scores) - 1 - above
    scores.partition(nth)
    floor = float(scores[nth])
    # Below −1 lie scores that are clipped to it: a floor among them would part equal ones.
    return KEEP_ALL if floor < NO_DESCRIPTOR_SCORE else min(floor, 1 - 1e-6)


def collect(
    passes: Passes, intervals: Sequence[tuple[float, float]], part: tuple[int, int] = (0, 1)
) -> list[tuple[NDArray[np.float32], NDArray[np.int64]]]:
    """A second pass: all distinct scores in some intervals [low, high), rising, and their counts.

    Returns:
        For each interval the scores, (n,), and (2, n) counts: all pairs, genuine pairs. As
        everywhere, pairs that score −1 for want of a descriptor are not among them.
    """
    if passes.spread:
        parts = list(over_parts(passes, collect, intervals))
        return [_Distinct.of([part[i] for part in parts]) for i in range(len(intervals))]
    pairs = passes.pairs

    def state(ops: BlockOps) -> list[_Distinct]:
        return [_Distinct() for _ in intervals]

    def work(counted: list[_Distinct], ops: BlockOps, rows: slice, columns: slice) -> None:
        scores, _ = passes.scores(ops, rows, columns)
        index, _ = pairs.genuine_of(rows, columns)
        genuine = ops.take(scores, index) if len(index) else np.zeros(0, np.float32)
        for distinct, (low, high) in zip(counted, intervals, strict=True):
            inside = ops.between(scores, low, high)
            distinct.add(inside, genuine[(genuine >= low) & (genuine < high)])

    workers = passes.each_block(work, state, part)
    return [_Distinct.joined([counted[i] for counted in workers]) for i in range(len(intervals))]


class _Distinct:
    """Distinct scores and how often each came, all pairs and genuine ones."""

    def __init__(self) -> None:
        self.parts: list[tuple[NDArray[np.float32], NDArray[np.int64]]] = []
        self.waiting = 0

    def add(self, scores: NDArray[np.float32], genuine: NDArray[np.float32]) -> None:
        if not len(scores):
            return
        values, inverse = np.unique(scores, return_inverse=True)
        counts = np.zeros((2, len(values)), dtype=np.int64)
        counts[0] = np.bincount(inverse, minlength=len(values))
        np.add.at(counts[1], np.searchsorted(values, genuine), 1)
        self.parts.append((values, counts))
        self.waiting += len(values)
        if len(self.parts) > 1 and self.waiting > _WAITING + 2 * len(self.parts[0][0]):
            self.parts = [self.joined([self])]
            self.waiting = len(self.parts[0][0])

    @staticmethod
    def joined(many: Sequence[_Distinct]) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
        return _Distinct.of([part for distinct in many for part in distinct.parts])

    @staticmethod
    def of(
        parts: Sequence[tuple[NDArray[np.float32], NDArray[np.int64]]],
    ) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
        """Distinct scores and counts of several, as one."""
        if not parts:
            return np.zeros(0, np.float32), np.zeros((2, 0), np.int64)
        values, inverse = np.unique(np.concatenate([p[0] for p in parts]), return_inverse=True)
        counts = np.zeros((2, len(values)), dtype=np.int64)
        for kind in (0, 1):
            added = np.concatenate([p[1][kind] for p in parts])
            np.add.at(counts[kind], inverse, added)
        return values + np.float32(0), counts


def impostors_below(
    passes: Passes, genuine: NDArray[np.float32], part: tuple[int, int] = (0, 1)
) -> NDArray[np.int64]:
    """A second pass: how many impostor scores are < and ≤ each distinct genuine score.

    Args:
        genuine: (n,) distinct scores, rising.

    Returns:
        (2, n) counts. They are of whole pairs, so those of parts add up.
    """
    if passes.spread:
        return sum(
            over_parts(passes, impostors_below, genuine), np.zeros((2, len(genuine)), np.int64)
        )
    least = 8 * len(genuine)  # so that sorting scores costs more than searching for each genuine

    def state(ops: BlockOps) -> NDArray[np.int64]:
        return np.zeros((2, len(genuine)), dtype=np.int64)

    def work(counts: NDArray[np.int64], ops: BlockOps, rows: slice, columns: slice) -> None:
        scores, excluded = passes.scores(ops, rows, columns)
        index, _ = passes.pairs.genuine_of(rows, columns)
        if len(index):
            ops.exclude(scores, index)
        counts -= excluded + len(index)  # which are ranked with the others, below every one
        rank(counts, ops, scores)

    def rank(counts: NDArray[np.int64], ops: BlockOps, scores: Any) -> None:
        waiting = ops.gathered(scores, least)
        if waiting is not None:
            counts += ops.ranked(waiting, genuine)

    workers = passes.each_block(work, state, part, lambda counts, ops: rank(counts, ops, None))
    return np.sum(workers, axis=0, dtype=np.int64)
