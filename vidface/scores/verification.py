"""Verification: of two clips, is it the same person? TAR at FAR over all pairs of a split."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vidface.descriptors import check_descriptors
from vidface.errors import VidfaceError

DEFAULT_FARS = ("1e-1", "1e-2", "1e-3", "1e-4", "1e-5", "1e-6")

MEMORY_BYTES = 2**28
"""The default budget of `score_verification` for a block of scores and what is made of it."""

NO_DESCRIPTOR_SCORE = -1.0
"""The score of a clip without a descriptor against every other clip."""

_BYTES_PER_PAIR = 48  # scores, keys, bin numbers (as intp), masks and copies of one block
_LARGEST_BLOCK = 1024  # clips a side; larger is slower: its arrays leave the cache
_BINS = 2**16  # a histogram bin holds the scores that share the upper half of their 32-bit key
_BINS_PER_PASS = 64  # bins whose lower halves are counted in one pass: 64 MiB of counts


@dataclass(frozen=True)
class OperatingPoint:
    """TAR at one target FAR. All rates are fractions in [0, 1].

    `tar` is None, and threshold, far and the accepted counts with it, where the split can't tell:
    it has fewer than 1/FAR impostor pairs (then `needs_impostor_pairs` says how many it takes), or
    enough of those but no genuine pair (then `needs_impostor_pairs` is None).
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

    @property
    def note(self) -> str:
        """Why there is no figure, for a table; empty where there is one."""
        if self.needs_impostor_pairs is not None:
            return f"n/a: needs ≥ {self.needs_impostor_pairs} pairs"
        return "n/a: no genuine pair" if self.tar is None else ""

    def to_dict(self) -> dict[str, float | int | None]:
        """The JSON form."""
        if self.tar is None:
            return {"tar": None, "needs_impostor_pairs": self.needs_impostor_pairs}
        return {
            "tar": self.tar,
            "threshold": self.threshold,
            "far": self.far,
            "genuine": self.genuine,
            "impostor": self.impostor,
        }


@dataclass(frozen=True)
class Verification:
    """All operating points of a split, in the order of the targets, and what was counted."""

    points: tuple[OperatingPoint, ...]
    genuine_pairs: int
    impostor_pairs: int
    distractor_pairs_left_out: int

    def to_dict(self) -> dict[str, Any]:
        """The JSON form: {"tar_at_far": {target: point}, "pairs": counts}."""
        return {
            "tar_at_far": {point.target_far: point.to_dict() for point in self.points},
            "pairs": {
                "genuine": self.genuine_pairs,
                "impostor": self.impostor_pairs,
                "distractor_left_out": self.distractor_pairs_left_out,
            },
        }


def score_verification(
    descriptors: NDArray[np.floating[Any]],
    identities: Sequence[str],
    fars: Sequence[str] = DEFAULT_FARS,
    *,
    memory_bytes: int = MEMORY_BYTES,
) -> Verification:
    """TAR at FAR over all unordered pairs of clips.

    A pair's score is the inner product of its rows in float32, clipped to [−1, 1]. A clip without
    a descriptor (zero row) scores exactly −1 against every other and stays in the denominators. A
    pair is genuine where both clips have the same identity, impostor otherwise; a distractor
    (identity "") against a labelled clip is an impostor pair; two distractors are left out, for
    they may be one person, and are counted.

    A pair is accepted where ``score >= threshold``. Thresholds are observed scores, or nothing is
    accepted (threshold None, TAR 0, FAR 0). The figure for a target is

        TAR = max over thresholds t with FAR(t) <= target of |genuine, score >= t| / |genuine|,

    the target taken as the exact fraction of its text, so that ``floor(target × |impostor|)``
    false accepts are allowed. Of the thresholds that reach it, the lowest observed score that
    honours the target is reported: the loosest. Common scripts differ: they read TAR at the ROC
    point whose FAR is *nearest* to the target, which may exceed it. A target with fewer than 1/FAR
    impostor pairs has no figure (`OperatingPoint.needs_impostor_pairs`).

    Exact to the last tie, at any number of clips, in bounded memory: a first pass over blocks of
    the pair matrix's upper triangle counts the scores by the upper 16 bits of their
    order-preserving 32-bit key; a second pass counts the lower 16 bits in the few bins where the
    targets fall, which tells every float32 score there from the next. Exact means: for the
    products as float32 gives them; a product rounds by the shape of the block it is part of, so
    for another `memory_bytes` or another order of clips a score may move by about 1e-6.

    Args:
        descriptors: (n_clips, d) float32 rows of norm 1 (within 1e-3; scored as they are), or all
            zero for a clip without a descriptor. Not changed.
        identities: n_clips names; "" is a distractor.
        fars: target FARs as decimal text ("1e-4"), each in (0, 1].
        memory_bytes: bound for the working arrays, beside one sorted copy of the descriptors and
            up to 64 MiB of counts.

    Raises:
        VidfaceError: shapes that disagree, rows neither of norm 1 nor zero, NaN, a bad target.

    Source: the Lightweight Face Recognition Challenge, track 3 (TAR at FAR 1e-4 over all pairs of
    videos). How its server treats ties is not public; the step rule above is this project's.

    >>> import numpy as np
    >>> clips = np.array([[1, 0], [0.8, 0.6], [0, 1], [0.6, 0.8]], dtype=np.float32)
    >>> result = score_verification(clips, ["ann", "ann", "bob", ""], fars=["0.2", "0.1"])
    >>> result.genuine_pairs, result.impostor_pairs  # ann–ann scores 0.8
    (1, 5)
    >>> result.points[0].tar, result.points[0].accepted_impostor  # 0.96, then 0.8 twice
    (0.0, 1)
    >>> result.points[1].tar, result.points[1].note
    (None, 'n/a: needs ≥ 10 pairs')
    """
    targets = check_targets(fars)
    descriptors, has_direction = check_descriptors(descriptors)
    codes = identity_codes(identities, len(descriptors), "identities")
    if memory_bytes < _BYTES_PER_PAIR:
        raise VidfaceError(f"memory_bytes must be at least {_BYTES_PER_PAIR}, got {memory_bytes}")

    n = len(codes)
    sizes = np.bincount(codes[codes >= 0]).tolist()  # clips of each identity
    n_labelled = sum(sizes)
    left_out = math.comb(n - n_labelled, 2)
    genuine = sum(math.comb(size, 2) for size in sizes)
    impostor = math.comb(n, 2) - left_out - genuine

    allowed = {
        text: math.floor(far * impostor)
        for text, far in targets.items()
        if genuine and far * impostor >= 1
    }
    found = {}
    if allowed:
        # Sorted by identity, genuine pairs stand near the diagonal; distractors come last.
        order = np.argsort(np.where(codes < 0, len(sizes), codes), kind="stable")
        pairs = _Pairs(
            np.ascontiguousarray(descriptors[order]),
            has_direction[order],
            codes[order],
            n_labelled,
            min(_LARGEST_BLOCK, max(1, math.isqrt(memory_bytes // _BYTES_PER_PAIR))),
        )
        found = _find_thresholds(pairs, allowed)

    points = []
    for text, far in targets.items():
        if text in found:
            threshold, accepted_genuine, accepted_impostor = found[text]
            point = OperatingPoint(
                target_far=text,
                tar=accepted_genuine / genuine,
                threshold=threshold,
                far=accepted_impostor / impostor,
                genuine=genuine,
                impostor=impostor,
                needs_impostor_pairs=None,
                accepted_genuine=accepted_genuine,
                accepted_impostor=accepted_impostor,
            )
        else:
            needed = math.ceil(1 / far)
            point = OperatingPoint(
                target_far=text,
                tar=None,
                threshold=None,
                far=None,
                genuine=genuine,
                impostor=impostor,
                needs_impostor_pairs=needed if impostor < needed else None,
            )
        points.append(point)
    return Verification(tuple(points), genuine, impostor, left_out)


def identity_codes(identities: Sequence[str], n: int, name: str) -> NDArray[np.int64]:
    """Number the identities 0, 1, 2, … in string order; −1 is a distractor ("").

    Raises:
        VidfaceError: not n of them, or one that is not text.
    """
    names = list(identities)
    if len(names) != n:
        raise VidfaceError(f"{name} must have one entry a descriptor: {len(names)} for {n} rows")
    for row, value in enumerate(names):
        if not isinstance(value, str):
            raise VidfaceError(f"{name}[{row}] is {value!r}; it must be text, '' for a distractor")
    numbers = {value: code for code, value in enumerate(sorted(set(names) - {""}))}
    numbers[""] = -1
    return np.array([numbers[value] for value in names], dtype=np.int64)


def check_targets(fars: Sequence[str]) -> dict[str, Fraction]:
    """The exact value of each target FAR, by its text; raises VidfaceError for a bad one."""
    targets: dict[str, Fraction] = {}
    if isinstance(fars, str):
        raise VidfaceError(f"fars must be a list of decimal texts, got the text {fars!r}")
    for text in fars:
        try:
            # A float is not accepted: 0.1 is not a tenth, and the count of allowed errors is exact.
            far = Fraction(text) if isinstance(text, str) else None
        except (ValueError, ZeroDivisionError):
            far = None
        if far is None or not 0 < far <= 1:
            raise VidfaceError(f"a target FAR must be decimal text in (0, 1], '1e-4', got {text!r}")
        if text in targets:
            raise VidfaceError(f"the target FAR {text!r} is listed twice")
        targets[text] = far
    return targets


@dataclass(frozen=True)
class _Pairs:
    """The pairs of a split, sorted by identity, distractors last, walked through in blocks."""

    descriptors: NDArray[np.float32]  # (n, d)
    has_direction: NDArray[np.bool_]  # (n,)
    codes: NDArray[np.int64]  # (n,), rising over the labelled clips, −1 after them
    n_labelled: int
    block: int

    def blocks(self) -> Iterator[tuple[NDArray[np.uint32], NDArray[np.uint32]]]:
        """The keys of each block's scores, and again those of its genuine pairs."""
        n = len(self.codes)
        for top in range(0, self.n_labelled, self.block):  # two distractors are never a pair
            rows = np.arange(top, min(top + self.block, self.n_labelled))
            for left in range(top, n, self.block):
                columns = np.arange(left, min(left + self.block, n))
                scores = self._scores(slice(top, rows[-1] + 1), slice(left, columns[-1] + 1))
                genuine = np.zeros(0, dtype=np.float32)
                if self.codes[columns[0]] == self.codes[rows[-1]] or left == top:
                    same = self.codes[rows][:, None] == self.codes[columns]
                    genuine = scores[same & (rows[:, None] < columns)]
                if left == top:
                    scores = scores[rows[:, None] < columns]
                yield _keys(scores.ravel()), _keys(genuine)

    def _scores(self, rows: slice, columns: slice) -> NDArray[np.float32]:
        scores = self.descriptors[rows] @ self.descriptors[columns].T
        np.clip(scores, -1, 1, out=scores)
        scores[~self.has_direction[rows]] = NO_DESCRIPTOR_SCORE
        scores[:, ~self.has_direction[columns]] = NO_DESCRIPTOR_SCORE
        return scores


def _keys(scores: NDArray[np.float32]) -> NDArray[np.uint32]:
    """Map float32 to uint32 so that keys compare as the scores do; −0 counts as 0."""
    bits = (scores + np.float32(0)).view(np.uint32)
    # Of a negative number all bits are turned over, of the others the sign alone.
    sign = np.uint32(1 << 31)
    return np.where(bits & sign, ~bits, bits | sign)


def _score_of_key(key: int) -> float:
    sign = 1 << 31
    bits = key ^ sign if key & sign else key ^ (2**32 - 1)
    return float(np.array(bits, dtype=np.uint32).view(np.float32))


def _find_thresholds(
    pairs: _Pairs, allowed: dict[str, int]
) -> dict[str, tuple[float | None, int, int]]:
    """For each target: threshold, accepted genuine pairs, accepted impostor pairs."""
    all_counts = np.zeros(_BINS, dtype=np.int64)
    genuine_counts = np.zeros(_BINS, dtype=np.int64)
    for keys, genuine_keys in pairs.blocks():
        all_counts += np.bincount(keys >> 16, minlength=_BINS)
        genuine_counts += np.bincount(genuine_keys >> 16, minlength=_BINS)
    genuine_above = _counts_above(genuine_counts)
    impostor_above = _counts_above(all_counts - genuine_counts)

    # The threshold is in the bin where the impostors exceed the allowance or, if every score of
    # that bin is too low for it, the lowest score of the next occupied bin above.
    occupied = np.flatnonzero(all_counts)
    candidates = {}
    for text, limit in allowed.items():
        exceeding = np.flatnonzero(impostor_above[:-1] > limit)
        crossing = int(exceeding[-1]) if len(exceeding) else -1
        above = occupied[occupied > crossing]
        candidates[text] = [b for b in (crossing, *above[:1].tolist()) if b >= 0]
    fine = _count_within(pairs, sorted({b for bins in candidates.values() for b in bins}))

    found: dict[str, tuple[float | None, int, int]] = {}
    for text, limit in allowed.items():
        found[text] = (None, 0, 0)
        for b in candidates[text]:
            all_fine, genuine_fine = fine[b]
            if all_fine.sum() != all_counts[b] or genuine_fine.sum() != genuine_counts[b]:
                raise VidfaceError(
                    "the matrix product gave other scores the second time, so counts would not be "
                    "exact; set OPENBLAS_NUM_THREADS=1 (or your BLAS library's equal) and repeat"
                )
            genuine_from = genuine_above[b + 1] + _counts_above(genuine_fine)[:-1]
            impostor_from = impostor_above[b + 1] + _counts_above(all_fine - genuine_fine)[:-1]
            honours = np.flatnonzero((all_fine > 0) & (impostor_from <= limit))
            if len(honours):
                low = int(honours[0])
                threshold = _score_of_key((b << 16) | low)
                found[text] = (threshold, int(genuine_from[low]), int(impostor_from[low]))
                break
    return found


def _counts_above(counts: NDArray[np.int64]) -> NDArray[np.int64]:
    """result[i] = counts[i:].sum(), one entry more than counts."""
    return np.append(np.cumsum(counts[::-1])[::-1], 0)


def _count_within(
    pairs: _Pairs, bins: list[int]
) -> dict[int, tuple[NDArray[np.int64], NDArray[np.int64]]]:
    """Counts by the lower 16 bits of the key, of all pairs and of genuine ones, in some bins."""
    fine = {}
    for first in range(0, len(bins), _BINS_PER_PASS):
        chosen = bins[first : first + _BINS_PER_PASS]
        slots = np.full(_BINS, -1, dtype=np.int16)
        slots[chosen] = np.arange(len(chosen))
        counts = np.zeros((2, len(chosen), _BINS), dtype=np.int64)
        for block in pairs.blocks():
            for keys, counts_of in zip(block, counts, strict=True):
                slot = slots[keys >> 16]
                inside = slot >= 0
                np.add.at(counts_of, (slot[inside], keys[inside] & 0xFFFF), 1)
        for i, b in enumerate(chosen):
            fine[b] = (counts[0, i], counts[1, i])
    return fine
