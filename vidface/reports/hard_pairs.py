"""The pairs of clips that a recogniser confuses most, of two people and of one."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vidface.core.errors import VidfaceError

MOST_CLIPS = 30_000
"""Of more clips as many, evenly spaced, are compared: that takes a core some ten seconds."""

_BLOCK_BYTES = 8 * 2**20


@dataclass(frozen=True)
class HardPair:
    """Two rows of the descriptors, and their inner product in [−1, 1]."""

    a: int
    b: int
    score: float


@dataclass(frozen=True)
class HardPairs:
    """The most similar pairs of two people, and the least similar ones of one person."""

    impostor: tuple[HardPair, ...]  # scores falling
    genuine: tuple[HardPair, ...]  # scores rising
    compared: int  # clips that were compared
    of: int  # clips with a descriptor


def hardest_pairs(
    descriptors: NDArray[np.float32],
    identities: Sequence[str],
    count: int,
    most_clips: int = MOST_CLIPS,
    among: Sequence[int] | None = None,
) -> HardPairs:
    """The `count` hardest pairs of each kind.

    A distractor (identity "") with a labelled clip is an impostor pair; two distractors may be one
    person and are left out, as in verification. Equal scores: the earlier rows first. The matrix is
    gone through in blocks and never held.

    Args:
        descriptors: (n, d) float32, unit rows; a zero row has no descriptor and is left out.
        identities: (n,) names.
        count: of pairs, 0 or more.
        most_clips: of more, this many, evenly spaced, are compared.
        among: the rows that are compared, rising; None for all.

    Raises:
        VidfaceError: lengths that differ.

    >>> rows = np.array([[1, 0], [0, 1], [0.6, 0.8]], np.float32)
    >>> found = hardest_pairs(rows, ["a", "b", "a"], 1)
    >>> found.impostor[0].a, found.impostor[0].b, round(found.genuine[0].score, 2)
    (1, 2, 0.6)
    """
    if len(descriptors) != len(identities):
        raise VidfaceError(
            f"{len(identities)} identities for {len(descriptors)} descriptors; give one a row"
        )
    usable = np.logical_and(np.isfinite(descriptors).all(1), descriptors.any(1))  # (n,) bool
    rows = np.flatnonzero(usable) if among is None else np.array(among, np.int64)[usable[among]]
    of = len(rows)
    if of > most_clips:
        rows = rows[np.linspace(0, of - 1, most_clips).round().astype(np.int64)]
    vectors = np.ascontiguousarray(descriptors[rows], np.float32)
    codes = _number_identities([identities[row] for row in rows.tolist()])
    impostor, genuine = _Top(count), _Top(count)
    step = max(1, _BLOCK_BYTES // (4 * max(1, len(rows))))
    for start in range(0, len(rows), step):
        stop = min(len(rows), start + step)
        scores = vectors[start:stop] @ vectors[start:].T  # (b, n − start)
        # Each pair once: of rows a < b. Two rows of −1 are of nobody, who is not one person.
        later = np.arange(start, len(rows))[None, :] > np.arange(start, stop)[:, None]
        mine, theirs = codes[start:stop, None], codes[None, start:]
        same = (mine == theirs) & (mine >= 0)
        nobody = (mine < 0) & (theirs < 0)
        impostor.add(scores, later & ~same & ~nobody, start)
        genuine.add(-scores, later & same, start)
    return HardPairs(
        tuple(HardPair(int(rows[a]), int(rows[b]), s) for s, a, b in impostor.pairs),
        tuple(HardPair(int(rows[a]), int(rows[b]), -s) for s, a, b in genuine.pairs),
        len(rows),
        of,
    )


def _number_identities(identities: Sequence[str]) -> NDArray[np.int64]:
    """A number an identity; −1 for nobody."""
    known: dict[str, int] = {"": -1}
    return np.array([known.setdefault(i, len(known) - 1) for i in identities], np.int64)


class _Top:
    """The `count` highest of all scores seen."""

    def __init__(self, count: int) -> None:
        self.count = count
        self.pairs: list[tuple[float, int, int]] = []

    def add(self, scores: NDArray[Any], wanted: NDArray[np.bool_], start: int) -> None:
        if not self.count:
            return
        if len(self.pairs) == self.count:
            wanted = wanted & (scores > self.pairs[-1][0])
        # Equal scores: the earlier rows first, so of those that tie with the last all are sorted.
        a, b = np.nonzero(wanted)
        values = scores[a, b]
        if len(values) > self.count:
            lowest = np.partition(values, -self.count)[-self.count]
            chosen = np.flatnonzero(values >= lowest)
            a, b, values = a[chosen], b[chosen], values[chosen]
        order = np.lexsort((b, a, -values))[: self.count]
        block = [(float(values[i]), int(a[i]) + start, int(b[i]) + start) for i in order]
        merged = sorted([*self.pairs, *block], key=lambda entry: (-entry[0], *entry[1:]))
        self.pairs = merged[: self.count]
