"""Single linkage under a rule: two faces of one frame are two people, unless they are alike.

All pairs of a clip's faces are taken, the strongest cosine first, equal ones by their rows; a pair
joins the clusters of its two faces, unless the merged cluster would hold two faces of one frame
whose own cosine is not above a second threshold. Whether a pair joins depends on stronger pairs
alone, so the clusters at any threshold are made by a prefix of one sequence of joins, and a
`LinkageTree` holds it. The maximum spanning tree does not: an edge that is left out of it may be
the strongest that is allowed where one of its own is refused.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vidface.core.errors import VidfaceError
from vidface.noise.clusters import LinkageTree, linkage_tree
from vidface.vectors.rows import unit_rows_float64

_NEVER = -2.0  # a tree's similarity below every threshold; −1 and less are "no clustering"
_FIRST_PAIRS = 2**16  # that are taken at once, where a clip has more
_ROWS_AT_ONCE = 64  # that are compared with all, where the budget allows: fewer are slow
_AT_ONCE = 2**14  # pairs whose clusters are looked up together
_PAIR_BYTES = 128  # peak of `_Pairs` over the pairs that it keeps, measured, and some air


def link_apart(
    embeddings: NDArray[np.floating[Any]],
    offsets: NDArray[np.int64],
    frames: NDArray[np.integer[Any]],
    same_person: float,
    memory_bytes: int,
) -> LinkageTree:
    """The linkage tree of many clips where faces of one frame stay apart.

    A clip that has no two faces in one frame gets the tree of `linkage_tree`. In the others cosines
    are products of float64 rows rounded to float32, so that equal faces have equal cosines. No
    n × n array exists: of a clip's pairs only so many as the budget holds are kept at a time, the
    strongest between clusters that may still join, and products are computed again for the next.

    Args:
        embeddings, offsets: as of `linkage_tree`, checked.
        frames: (n_rows,) which frame of its clip each face is in.
        same_person: cosine above which, strictly, two faces of one frame may be one person.
        memory_bytes: upper bound for the working arrays.
    """
    lengths = np.diff(offsets)
    clips = np.repeat(np.arange(len(lengths)), lengths)
    by_frame = np.lexsort((frames, clips))
    is_again = np.diff(frames[by_frame]) == 0
    is_again &= np.diff(clips[by_frame]) == 0
    is_crowded = np.bincount(clips[by_frame[1:]][is_again], minlength=len(lengths)) > 0
    if not is_crowded.any():
        return linkage_tree(embeddings, offsets, memory_bytes=memory_bytes)

    in_crowded = is_crowded[clips]
    single_offsets = np.concatenate([[0], np.cumsum(lengths[~is_crowded])])
    single = linkage_tree(embeddings[~in_crowded], single_offsets, memory_bytes=memory_bytes)
    order = np.zeros(len(clips), np.int32)
    similarities = np.full(len(clips), np.nan, np.float32)
    order[~in_crowded], similarities[~in_crowded] = single.order, single.similarities
    # Threads inside of small products cost more than they give.
    from threadpoolctl import threadpool_limits

    with threadpool_limits(1, user_api="blas"):
        for clip in np.flatnonzero(is_crowded).tolist():
            rows = slice(int(offsets[clip]), int(offsets[clip + 1]))
            order[rows], similarities[rows] = _link_clip(
                embeddings[rows], frames[rows], np.float32(same_person), memory_bytes
            )
    return LinkageTree(offsets, order, similarities)


def _link_clip(
    embeddings: NDArray[np.floating[Any]],  # (n, d)
    frames: NDArray[np.integer[Any]],  # (n,)
    same_person: np.float32,
    memory_bytes: int,
) -> tuple[NDArray[np.int32], NDArray[np.float32]]:
    """(n,) order and (n,) similarities of one clip, as `LinkageTree` has them."""
    unit, usable = unit_rows_float64(embeddings)
    rows = np.flatnonzero(usable)
    capacity = (memory_bytes - 3 * unit.nbytes) // _PAIR_BYTES
    if capacity < len(unit):
        raise VidfaceError(
            f"a clip with {len(unit)} faces of {unit.shape[1]} dimensions needs "
            f"{3 * unit.nbytes + _PAIR_BYTES * len(unit)} bytes to cluster, memory_bytes is "
            f"{memory_bytes}; raise it (--memory)"
        )
    clusters = _Clusters(unit[rows], frames[rows], same_person)
    pairs = _Pairs(clusters, capacity)
    while not pairs.all_taken:
        for i, j, cosines in pairs.take_strongest():
            clusters.join_pairs(i, j, cosines)
    order, similarities = clusters.to_sequence()
    filled = np.full(len(unit), np.nan, np.float32)
    filled[: len(rows)] = similarities
    return np.concatenate([rows[order], np.flatnonzero(~usable)]).astype(np.int32), filled


class _Clusters:
    """A clip's clusters as they grow; each is named by one of its rows, its root.

    Attributes:
        roots: (n,) the root of each row's cluster.
        refused: (r,) pairs of roots that must not join, low · n + high, rising.
    """

    def __init__(
        self,
        unit: NDArray[np.float64],  # (n, d)
        frames: NDArray[np.integer[Any]],  # (n,)
        same_person: np.float32,
    ) -> None:
        self.unit, self.frames, self.same_person = unit, frames, same_person
        n = len(unit)
        self.roots = np.arange(n)
        self.refused = np.empty(0, np.int64)
        # Of each root: its rows in an order in which the clusters of every threshold stand
        # together, the similarity with which each row's cluster joined what stands before it, and
        # the rows that it has in each frame.
        self._rows = [[row] for row in range(n)]
        self._similarities = [[_NEVER] for _ in range(n)]
        self._in_frames = [{frame: [row]} for row, frame in enumerate(frames.tolist())]

    def number_pairs(
        self, i: NDArray[np.int64], j: NDArray[np.int64]
    ) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
        """(p,) numbers of the pairs' pairs of clusters, and which of these may still join."""
        a, b = self.roots[i], self.roots[j]
        numbers = np.minimum(a, b) * len(self.roots) + np.maximum(a, b)
        return numbers, (a != b) & ~np.isin(numbers, self.refused)

    def join_pairs(
        self, i: NDArray[np.int64], j: NDArray[np.int64], cosines: NDArray[np.float32]
    ) -> None:
        """Join the clusters of pairs (i, j), in order, where that is allowed."""
        numbers, may_join = self.number_pairs(i, j)
        open_pairs = np.flatnonzero(may_join)
        # Only the first pair of two clusters counts: joined or refused, they stay so.
        firsts = np.unique(numbers[open_pairs], return_index=True)[1]
        refused = []
        for pair in open_pairs[np.sort(firsts)].tolist():
            a, b = int(self.roots[i[pair]]), int(self.roots[j[pair]])
            if a == b:
                continue
            if len(self._rows[a]) < len(self._rows[b]):
                a, b = b, a
            if self._may_join(a, b):
                self._join(a, b, float(cosines[pair]))
            else:
                refused.append((a, b))
        # Names of the refused are those of the clusters that hold them now.
        n = len(self.roots)
        ends = np.stack([self.refused // max(1, n), self.refused % max(1, n)], axis=1)
        ends = self.roots[np.concatenate([ends, np.array(refused, np.int64).reshape(-1, 2)])]
        self.refused = np.unique(ends.min(axis=1) * n + ends.max(axis=1))

    def _may_join(self, a: int, b: int) -> bool:
        """Whether no frame shows two people of the clusters a and b, of which b is smaller."""
        in_a, in_b = self._in_frames[a], self._in_frames[b]
        few, many = (in_b, in_a) if len(in_b) < len(in_a) else (in_a, in_b)
        for frame, rows in few.items():
            for i in rows:
                for j in many.get(frame, ()):
                    if not np.float32(self.unit[i] @ self.unit[j]) > self.same_person:
                        return False
        return True

    def _join(self, a: int, b: int, similarity: float) -> None:
        """Put the cluster b behind the larger one, a."""
        self.roots[self._rows[b]] = a
        self._similarities[b][0] = similarity
        self._rows[a] += self._rows[b]
        self._similarities[a] += self._similarities[b]
        for frame, rows in self._in_frames[b].items():
            self._in_frames[a].setdefault(frame, []).extend(rows)
        self._rows[b], self._similarities[b], self._in_frames[b] = [], [], {}

    def to_sequence(self) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
        """(n,) rows, cluster by cluster, and (n,) the similarity of each to what stands before."""
        rows = np.array([row for rows in self._rows for row in rows], np.int64)
        similarities = np.array([s for part in self._similarities for s in part], np.float32)
        similarities[:1] = -np.inf
        return rows, similarities


class _Pairs:
    """A clip's pairs by falling cosine, so many at a time as the budget holds."""

    def __init__(self, clusters: _Clusters, most: int) -> None:
        n = len(clusters.roots)
        self._clusters, self._most = clusters, most
        # The first few pairs join most of a clip, and leave few clusters to compare. Twice as many
        # each time: there are few rounds, however many pairs are refused.
        self._at_once = max(_FIRST_PAIRS, _ROWS_AT_ONCE * n) // 2
        self._last = np.float32(np.inf), -1  # cosine and number of the last pair that was taken
        self.all_taken = n < 2

    def take_strongest(
        self,
    ) -> Iterator[tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.float32]]]:
        """Yield the next strongest pairs whose clusters may join: their rows and cosines."""
        n = len(self._clusters.roots)
        self._at_once = min(self._most, 2 * self._at_once)
        cosines, numbers = np.empty(0, np.float32), np.empty(0, np.int64)
        floor, self.all_taken = np.float32(-np.inf), True
        table, lines = self._find_open()
        for start in range(0, n, max(1, self._at_once // n)):
            block_cosines, block_numbers = self._compare_rows(start, floor, table, lines)
            cosines = np.concatenate([cosines, block_cosines])
            numbers = np.concatenate([numbers, block_numbers])
            if len(cosines) > self._at_once:
                floor, self.all_taken = np.partition(cosines, -self._at_once)[-self._at_once], False
                kept = cosines > floor
                equal = np.flatnonzero(cosines == floor)  # of equal ones the first
                kept[equal[: self._at_once - np.count_nonzero(kept)]] = True
                cosines, numbers = cosines[kept], numbers[kept]
        order = np.argsort(-cosines, kind="stable")  # numbers rise
        cosines, numbers = cosines[order], numbers[order]
        if not self.all_taken:
            self._last = cosines[-1], int(numbers[-1])
        start, size = 0, n
        while start < len(cosines):  # few at first: they join most, and leave little to look up
            part = slice(start, start + size)
            yield numbers[part] // n, numbers[part] % n, cosines[part]
            start, size = start + size, min(2 * size, _AT_ONCE)

    def _find_open(self) -> tuple[NDArray[np.bool_], NDArray[np.int64]]:
        """Which rows may still join the largest clusters: (k, n) bool and (n,) a row's line in it.

        The first line is that of all other clusters: for them the answer is yes.
        """
        clusters = self._clusters
        n = len(clusters.roots)
        sizes = np.bincount(clusters.roots, minlength=n)
        large = np.argsort(-sizes, kind="stable")[: max(1, self._at_once // n)]
        large = large[sizes[large] > 1]
        line_of_root = np.zeros(n, np.int64)
        line_of_root[large] = 1 + np.arange(len(large))
        may_join = np.ones((1 + len(large), 1 + len(large)), bool)
        a, b = line_of_root[clusters.refused // n], line_of_root[clusters.refused % n]
        both = (a > 0) & (b > 0)
        may_join[a[both], b[both]] = may_join[b[both], a[both]] = False
        np.fill_diagonal(may_join[1:, 1:], False)
        lines = line_of_root[clusters.roots]
        return may_join[:, lines], lines

    def _compare_rows(
        self, start: int, floor: np.float32, table: NDArray[np.bool_], lines: NDArray[np.int64]
    ) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
        """Cosines and numbers, rising, of pairs of a block of rows with rows behind."""
        clusters = self._clusters
        unit, frames = clusters.unit, clusters.frames
        n = len(unit)
        stop = min(n, start + max(1, self._at_once // n))
        products = (unit[start:stop] @ unit[start:].T).astype(np.float32)  # (r, n - start)
        wanted = table[lines[start:stop], start:]
        wanted &= products >= floor
        wanted &= products <= self._last[0]
        i, j = np.nonzero(wanted)
        cosines = products[i, j]
        i += start
        j += start
        numbers = i * n + j
        wanted = i < j
        wanted &= (cosines < self._last[0]) | (numbers > self._last[1])
        wanted &= (frames[i] != frames[j]) | (cosines > clusters.same_person)
        return cosines[wanted], numbers[wanted]
