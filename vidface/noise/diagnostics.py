"""Diagnostics: which clips noise removal may have got wrong, told from its own numbers.

The paper keeps the largest cluster and says nothing of when that is the wrong one. No ground truth
is needed to see where to look: a cluster whose members are less alike than strangers are, a second
cluster nearly as large as the first, a clip of which hardly anything is left.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vidface.core.errors import VidfaceError
from vidface.core.values import UNUSABLE
from vidface.noise.repeats import check_repeats, find_repeats, share_of_still
from vidface.vectors.descriptors import check_descriptors
from vidface.vectors.directions import VANISHING_MEAN
from vidface.vectors.rows import check_embeddings, check_labels, check_offsets, unit_rows

FLAGS = ("chained", "contested", "thin", "still", "twice")
"""The names of the flags, in the order in which they are reported."""

_BATCH_BYTES = 2**25  # of unit rows and of products; more is not faster


BOUNDS = {"chained_below": 0.1, "contested_from": 0.5, "thin_below": 3, "still_from": 0.3}
"""Where a clip becomes worth a look.

- chained_below: cosine. Recognisers put strangers around 0 (random pairs of noisy YTF crops under
  MobileFaceNet: median 0.02, standard deviation 0.12); under 0.1 two faces may as well be
  strangers, and yet a chain of others joined them. Of those 665 clips 3 are under it.
- contested_from: share of the first cluster's size that the second must reach.
- thin_below: number of kept faces.
- still_from: share of a clip's samples that show one picture. A half always wins where every sample
  votes, a third against a person in two clusters. Of 665 YTF clips 4 reach it; each has the same
  frame twice or more. Of 56 WLASL clips none does.
"""


@dataclass(frozen=True)
class Diagnostics:
    """What `diagnose` found, an entry a clip; `similarity` has an entry a face.

    A clip without a kept face raises no flag: it has no descriptor, which says more.
    """

    clusters: NDArray[np.int64]  # (n_clips,) components, without unusable faces
    kept: NDArray[np.int64]  # (n_clips,) faces in cluster 0
    dropped: NDArray[np.int64]  # (n_clips,) all other faces, the unusable among them
    unusable: NDArray[np.int64]  # (n_clips,) faces labelled −1
    lowest_similarity: NDArray[np.float32]  # (n_clips,) [−1, 1]; NaN: fewer than two kept
    second_size: NDArray[np.int64]  # (n_clips,) faces in cluster 1
    second_share: NDArray[np.float64]  # (n_clips,) second_size / kept; NaN: none kept
    second_cosine: NDArray[np.float32]  # (n_clips,) [−1, 1]; NaN: a mean is missing
    still_share: NDArray[np.float64]  # (n_clips,) [0, 1]: samples of one picture; 0: none repeats
    chained: NDArray[np.bool_]  # (n_clips,) below BOUNDS["chained_below"]
    contested: NDArray[np.bool_]  # (n_clips,) second_share ≥ BOUNDS["contested_from"], if any
    thin: NDArray[np.bool_]  # (n_clips,) 0 < kept < BOUNDS["thin_below"]
    still: NDArray[np.bool_]  # (n_clips,) still_share ≥ BOUNDS["still_from"], if any
    twice: NDArray[np.bool_]  # (n_clips,) some frame shows two kept faces
    similarity: NDArray[np.float32]  # (n_rows,) [−1, 1]; NaN: unusable, or no descriptor

    def __str__(self) -> str:
        flags = ", ".join(f"{np.count_nonzero(getattr(self, flag))} {flag}" for flag in FLAGS)
        return f"Diagnostics({len(self.kept)} clips, {len(self.similarity)} faces: {flags})"

    def summary(self) -> dict[str, Any]:
        """Counts over all clips, ready for JSON; None where there is nothing to take it of."""
        flagged = np.zeros(len(self.kept), dtype=bool)
        for flag in FLAGS:
            flagged |= getattr(self, flag)
        lowest = self.lowest_similarity[~np.isnan(self.lowest_similarity)]
        return {
            "clips": len(self.kept),
            "faces": int(self.kept.sum() + self.dropped.sum()),
            "kept": int(self.kept.sum()),
            "dropped": int(self.dropped.sum()),
            "unusable": int(self.unusable.sum()),
            "none_kept": int(np.count_nonzero(self.kept == 0)),
            "several_clusters": int(np.count_nonzero(self.clusters > 1)),
            **{flag: int(np.count_nonzero(getattr(self, flag))) for flag in FLAGS},
            "flagged": int(np.count_nonzero(flagged)),
            "lowest_similarity": float(lowest.min()) if len(lowest) else None,
            "median_lowest_similarity": float(np.median(lowest)) if len(lowest) else None,
            "largest_second_share": (
                float(np.nanmax(self.second_share)) if (self.kept > 0).any() else None
            ),
            "bounds": dict(BOUNDS),
        }


CLIP_COLUMNS = tuple(field.name for field in fields(Diagnostics) if field.name != "similarity")
"""The fields of `Diagnostics` with an entry a clip, as artefacts have them for columns."""


def diagnose(
    embeddings: NDArray[np.floating[Any]],
    offsets: NDArray[np.integer[Any]],
    labels: NDArray[np.integer[Any]],
    descriptors: NDArray[np.floating[Any]],
    *,
    clustered: bool = True,
    frames: NDArray[np.integer[Any]] | None = None,
    repeats: str = "count",
) -> Diagnostics:
    """Measure every clip's clusters, and flag the clips that are worth a look.

    `lowest_similarity` is the lowest cosine between any two kept faces. Single linkage needs only
    a path of similar faces, so a cluster may chain two people; its two most unlike members show it.
    `second_cosine` is the cosine between the means of the unit rows of clusters 0 and 1: near the
    threshold the second may be the same person in another pose, near 0 it is another one.
    `contested`, a second cluster at least half as large as the first, is probably two people.
    `still_share` is the share of a clip's frames that show the picture which comes most often
    (`vidface.noise.repeats.find_repeats`): a pause or an end card that may outvote the person.

    Rows are read once, in order, about 32 MiB of whole clips at a time. Products are float32, so a
    cosine is exact to about 1e-6, and one that lies nearer than that to a bound may fall on either
    side. A clip of several thousand kept faces is compared in blocks of rows: no n × n array
    exists.

    Args:
        embeddings: (n_rows, d) float32, float16 or float64, raw, any norm. Not changed.
        offsets: (n_clips + 1,) integers; clip c owns rows [offsets[c], offsets[c + 1]).
        labels: (n_rows,) integers as `vidface.noise.clusters.cluster_frames` gives them: 0 is kept,
            1, 2, … the other clusters by falling size, −1 is unusable.
        descriptors: (n_clips, d) floats as `vidface.vectors.descriptors.pool_descriptors` gives
        them: rows     of norm 1 (within 1e-3), or zero where a clip has none.
        clustered: False where labels above 0 only say that a face was dropped: then there is no
            second cluster, and no clip is contested.
        frames: (n_rows,) the frame that each row is of; None: each of another. A clip is `twice`
            where a frame shows two kept faces: a mirror, a picture in the picture, or two people
            taken for one.
        repeats: as noise removal had it. With "once" the rows of one picture are one face for
            everything but `kept`, `dropped` and `unusable`, which count rows.

    Raises:
        VidfaceError: shapes that disagree, a label under −1 or beyond its clip's faces, a face
            that is labelled 0 or more and has no direction (NaN, infinite, zero).

    >>> import numpy as np
    >>> faces = np.array([[1, 0], [4, 3], [0, 2], [-1, 0], [-1, 0]], dtype=np.float32)
    >>> labels = np.array([0, 0, 0, 1, 1])
    >>> descriptor = np.array([[0.8, 0.6]], dtype=np.float32)
    >>> found = diagnose(faces, np.array([0, 5]), labels, descriptor)
    >>> found.lowest_similarity, found.second_share.round(2)
    (array([0.], dtype=float32), array([0.67]))
    >>> found.chained, found.contested, found.thin
    (array([ True]), array([ True]), array([False]))
    >>> found.similarity
    array([ 0.8,  1. ,  0.6, -0.8, -0.8], dtype=float32)
    """
    check_repeats(repeats)
    embeddings = check_embeddings(embeddings)
    n_rows, d = embeddings.shape
    offsets = check_offsets(offsets, n_rows)
    n_clips = len(offsets) - 1
    labels = _check_labels(labels, offsets, n_rows)
    frames = None if frames is None else check_labels(frames, n_rows, "frames")
    descriptors, _ = check_descriptors(descriptors)
    if descriptors.shape != (n_clips, d):
        raise VidfaceError(
            f"descriptors must be ({n_clips}, {d}), a row a clip and a column a dimension of the "
            f"embeddings, got the shape {descriptors.shape}"
        )

    clips_of_rows = np.repeat(np.arange(n_clips), np.diff(offsets))
    counts = {
        label: np.bincount(clips_of_rows[labels == label], minlength=n_clips)
        for label in (UNUSABLE, 0)
    }
    firsts = find_repeats(embeddings, offsets)
    votes = np.ones(n_rows, dtype=bool) if repeats == "count" else firsts == np.arange(n_rows)
    voted = {
        label: np.bincount(clips_of_rows[(labels == label) & votes], minlength=n_clips)
        for label in (0, 1)
    }
    kept = counts[0]
    second_size = voted[1] if clustered else np.zeros(n_clips, dtype=np.int64)
    clusters = np.zeros(n_clips, dtype=np.int64)
    filled = np.flatnonzero(np.diff(offsets))  # an empty clip would take its neighbour's label
    if len(filled):
        clusters[filled] = np.maximum.reduceat(labels, offsets[filled]) + 1
    if not clustered:
        clusters = (kept > 0).astype(np.int64)

    lowest = np.full(n_clips, np.nan, dtype=np.float32)
    second_cosine = np.full(n_clips, np.nan, dtype=np.float32)
    similarity = np.full(n_rows, np.nan, dtype=np.float32)
    rows_at_once = max(1, _BATCH_BYTES // max(1, 4 * d))
    start = 0
    while start < n_clips:  # whole clips, one at least
        limit = int(np.searchsorted(offsets, offsets[start] + rows_at_once, side="right")) - 1
        stop = min(max(start + 1, limit), start + rows_at_once)
        rows = slice(int(offsets[start]), int(offsets[stop]))
        clips = slice(start, stop)
        unit, usable = unit_rows(embeddings[rows])
        _check_usable(usable, labels[rows], clips_of_rows[rows], rows.start)
        places = clips_of_rows[rows] - start
        similarity[rows] = _similarities(unit, descriptors[clips], places, rows_at_once)
        similarity[rows][labels[rows] == UNUSABLE] = np.nan

        first = unit[(labels[rows] == 0) & votes[rows]]
        lowest[clips] = _lowest(first, voted[0][clips])
        second = unit[(labels[rows] == 1) & votes[rows] & clustered]
        second_cosine[clips] = _mean_cosines(first, voted[0][clips], second, second_size[clips])
        start = stop

    second_share = np.full(n_clips, np.nan)
    np.divide(second_size, voted[0], out=second_share, where=voted[0] > 0)
    still_share = share_of_still(firsts, offsets, frames)
    return Diagnostics(
        clusters=clusters,
        kept=kept,
        dropped=np.diff(offsets) - kept,
        unusable=counts[UNUSABLE],
        lowest_similarity=lowest,
        second_size=second_size,
        second_share=second_share,
        second_cosine=second_cosine,
        still_share=still_share,
        chained=lowest < BOUNDS["chained_below"],
        contested=(second_size > 0) & (second_share >= BOUNDS["contested_from"]),
        thin=(voted[0] > 0) & (voted[0] < BOUNDS["thin_below"]),
        still=(voted[0] > 0) & (still_share > 0) & (still_share >= BOUNDS["still_from"]),
        twice=_find_twice(clips_of_rows, labels, n_clips, frames),
        similarity=similarity,
    )


def combine_diagnostics(
    parts: Sequence[Diagnostics], places: Sequence[NDArray[np.integer[Any]]], n_clips: int
) -> Diagnostics:
    """Diagnostics of several shards as one, in the order of a manifest.

    Args:
        parts: one a shard.
        places: for each part, the rows (of n_clips) that its clips get.
        n_clips: of the whole; a clip that no part holds has no faces.

    Returns:
        The clips by place; `similarity` as the parts have it, one after the other.

    Raises:
        VidfaceError: places that do not fit.

    >>> import numpy as np
    >>> one = np.ones((1, 1), dtype=np.float32)
    >>> part = diagnose(one, np.array([0, 1]), np.array([0]), one)
    >>> whole = combine_diagnostics([part], [np.array([2])], 3)
    >>> whole.kept, whole.thin
    (array([0, 0, 1]), array([False, False,  True]))
    """
    if [len(part.kept) for part in parts] != [len(rows) for rows in places]:
        raise VidfaceError("combine_diagnostics needs a place for every clip of every part")
    rows = np.concatenate([np.empty(0, np.int64), *places])
    outside = len(rows) and (rows.min() < 0 or rows.max() >= n_clips)
    if outside or len(np.unique(rows)) != len(rows):
        raise VidfaceError(f"places must be rows of [0, {n_clips}), each at most once")
    none = diagnose(
        np.empty((0, 1), np.float32),
        np.zeros(n_clips + 1, np.int64),
        np.empty(0, np.int64),
        np.zeros((n_clips, 1), np.float32),
    )
    columns = {name: getattr(none, name) for name in CLIP_COLUMNS}
    for name, column in columns.items():
        for part, rows_of_part in zip(parts, places, strict=True):
            column[rows_of_part] = getattr(part, name)
    similarity = np.concatenate([none.similarity, *(part.similarity for part in parts)])
    return Diagnostics(**columns, similarity=similarity)


def _check_labels(
    labels: NDArray[np.integer[Any]], offsets: NDArray[np.int64], n_rows: int
) -> NDArray[np.int64]:
    array = check_labels(labels, n_rows)
    n_faces = np.diff(offsets)
    bad = np.flatnonzero((array < UNUSABLE) | (array >= np.repeat(n_faces, n_faces)))
    if len(bad):
        raise VidfaceError(
            f"row {bad[0]} has the label {array[bad[0]]}; labels are −1, unusable, or a cluster "
            "from 0 up to the number of the clip's faces, as cluster_frames gives them"
        )
    return array.astype(np.int64)


def _find_twice(
    clips: NDArray[np.int64],
    labels: NDArray[np.int64],
    n_clips: int,
    frames: NDArray[np.integer[Any]] | None,
) -> NDArray[np.bool_]:
    """(n_clips,) whether any frame has two kept faces."""
    twice = np.zeros(n_clips, dtype=bool)
    if frames is not None:
        kept = np.flatnonzero(labels == 0)
        shown = np.stack([clips[kept], frames[kept]], axis=1)
        pairs, counts = np.unique(shown, axis=0, return_counts=True)
        twice[pairs[counts > 1, 0]] = True
    return twice


def _check_usable(
    usable: NDArray[np.bool_],
    labels: NDArray[np.int64],
    clips: NDArray[np.int64],
    first_row: int,
) -> None:
    bad = np.flatnonzero(~usable & (labels != UNUSABLE))
    if len(bad):
        row = int(bad[0])
        raise VidfaceError(
            f"row {first_row + row} (clip {clips[row]}) is labelled {labels[row]}, but its "
            "embedding is NaN, infinite or zero; label it −1, as cluster_frames does"
        )


def _similarities(
    unit: NDArray[np.float32],  # (r, d) rows of norm 1 or 0
    descriptors: NDArray[np.float32],  # (c, d)
    places: NDArray[np.int64],  # (r,) rows of `descriptors`
    step: int,
) -> NDArray[np.float32]:
    """(r,) cosines; NaN where the descriptor is zero."""
    directions, present = unit_rows(descriptors)  # exact length: theirs may be off by 1e-3
    cosines = np.empty(len(unit), dtype=np.float32)
    for start in range(0, len(unit), step):  # of a long clip the descriptor is not copied n times
        rows = slice(start, start + step)
        cosines[rows] = np.einsum("ij,ij->i", unit[rows], directions[places[rows]])
    np.clip(cosines, -1, 1, out=cosines)
    cosines[~present[places]] = np.nan
    return cosines


def _lowest(unit: NDArray[np.float32], sizes: NDArray[np.int64]) -> NDArray[np.float32]:
    """(c,) lowest cosine between two rows of each run; `sizes` (c,) are the runs' lengths."""
    lowest = np.full(len(sizes), np.nan, dtype=np.float32)
    starts = np.cumsum(sizes) - sizes
    d = unit.shape[1]
    by_size = np.argsort(sizes, kind="stable")
    lengths, firsts = np.unique(sizes[by_size], return_index=True)
    ends = [*firsts.tolist(), len(by_size)]
    for n, (first, last) in zip(lengths.tolist(), pairwise(ends), strict=True):
        if n < 2:
            continue
        batch = _BATCH_BYTES // (4 * n * (n + d))
        if batch == 0:
            for run in by_size[first:last].tolist():
                lowest[run] = _lowest_of_long(unit[starts[run] : starts[run] + n])
            continue
        for start in range(first, last, batch):
            runs = by_size[start : min(start + batch, last)]
            members = unit[starts[runs][:, None] + np.arange(n)]  # (b, n, d)
            # A row with itself is 1, to rounding, and never lowers the minimum by more than that.
            products = members @ members.swapaxes(1, 2)  # (b, n, n)
            lowest[runs] = products.min(axis=(1, 2))
    return np.clip(lowest, -1, 1)


def _lowest_of_long(unit: NDArray[np.float32]) -> np.float32:
    """`_lowest` of one run, a block of rows at a time."""
    n = len(unit)
    step = max(1, _BATCH_BYTES // (4 * n))
    lowest = np.float32(np.inf)
    for start in range(0, n, step):
        # Columns before `start` met these rows in an earlier block.
        products = unit[start : start + step] @ unit[start:].T
        lowest = min(lowest, products.min())
    return lowest


def _mean_cosines(
    first: NDArray[np.float32],
    first_sizes: NDArray[np.int64],
    second: NDArray[np.float32],
    second_sizes: NDArray[np.int64],
) -> NDArray[np.float32]:
    """(c,) cosine between the means of the c-th runs; NaN where one is empty or vanishes."""
    both = np.flatnonzero((first_sizes > 0) & (second_sizes > 0))
    cosines = np.full(len(first_sizes), np.nan, dtype=np.float32)
    if not len(both):
        return cosines
    directions = []
    for unit, sizes in ((first, first_sizes), (second, second_sizes)):
        filled = np.flatnonzero(sizes)
        starts = (np.cumsum(sizes) - sizes)[filled]
        # float64 sums: the float32 rounding of thousands of rows would add up
        sums = np.add.reduceat(unit, starts, axis=0, dtype=np.float64)
        sums = sums[np.searchsorted(filled, both)]
        norms = np.sqrt(np.einsum("ij,ij->i", sums, sums))
        clear = norms >= VANISHING_MEAN * sizes[both]
        directions.append(sums / np.where(clear, norms, np.nan)[:, None])
    cosines[both] = np.clip(np.einsum("ij,ij->i", *directions), -1, 1)
    return cosines
