"""Clusters: which faces of a clip are the same person, and which are noise.

The method of the paper: within a clip, two faces are joined where the cosine of their embeddings
is above a threshold; the connected components of that graph (Union-Find) are the clusters; the
largest one is kept, everything outside it is noise. One threshold: `cluster_frames`. All of them:
`linkage_tree` once, then `cut`.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vidface.core.errors import VidfaceError
from vidface.core.values import UNUSABLE
from vidface.noise import kernels
from vidface.vectors.batches import ClipBatch, gather_rows, run_batches, run_on_device
from vidface.vectors.rows import check_embeddings, check_offsets, float32_threshold, unit_rows

MEMORY_BYTES = 2**31
"""The default budget of `cluster_frames` for its working arrays."""

# Counts all arrays at their worst, so a batch's own rows are a sixth of it: they stay in a core's
# cache, and their memory is used again and again. Fresh pages would cost more than the arithmetic.
_BATCH_BYTES = 2**25
_ALONE = -2  # a cluster of one, before it is ranked


def cluster_frames(
    embeddings: NDArray[np.floating[Any]],
    offsets: NDArray[np.integer[Any]],
    threshold: float | None,
    *,
    memory_bytes: int = MEMORY_BYTES,
    device: str | None = None,
) -> NDArray[np.int32]:
    """Label every face with its cluster within its clip; 0 is the dominant cluster.

    Two faces of a clip are joined where ``cosine > threshold``, strictly; a cluster is a connected
    component of that graph. Label 0 is the largest cluster (the kept frames), 1, 2, … the others
    by falling size; clusters of equal size rank by the earliest row they hold. −1 is an unusable
    embedding (NaN, infinite, or zero norm), which joins nothing and is never kept.

    Products and threshold are compared as float32. A product rounds by the shape of the matrix it
    is part of, so labels are certain, and the same for every batch size, budget and device,
    wherever no cosine lies within 2e-6 of the threshold; nearer than that, a pair may fall on
    either side. Rows whose lengths are powers of two and whose products float32 holds exactly are
    exact here: (1, 1, 1, 1) and (2, 0, 0, 0) have a cosine of 0.5 and do not join at 0.5.

    Clips of about equal length are taken together in batches: batched matrix products, then
    min-label hooking and pointer jumping on all clips of the batch at once, a handful of rounds
    (proven bounds for this family are O(log² n): Liu and Tarjan, "Simple Concurrent Labeling
    Algorithms for Connected Components", SOSA 2019). Of clips with 24 rows or more most products
    are never computed: see `vidface.noise.kernels.components_by_pivot`. A clip too long for a
    batch goes through in blocks of rows, so that no n × n array exists.

    Args:
        embeddings: (n_rows, d) float32, float16 or float64; raw, any norm; the rows of a clip
            stand together in time order (frame_index, then face_index). Not changed.
        offsets: (n_clips + 1,) integers; clip c owns rows [offsets[c], offsets[c + 1]), the first
            offset is 0, the last is n_rows. A clip may have no rows.
        threshold: cosine threshold, in (−1, 1). None or −1 and less: no clustering, every usable
            row gets label 0. 1 and more: nothing joins.
        memory_bytes: upper bound for the working arrays beside input, labels and a few integers a
            row.
        device: None for NumPy on all cores; else PyTorch's name of where to work: "cpu", "cuda".

    Returns:
        (n_rows,) int32 labels.

    Raises:
        VidfaceError: shapes or offsets that disagree, a NaN threshold, or a budget in which the
            longest clip does not fit.

    Source: Chai et al., "A Progressive Learning Framework for Unconstrained Face Recognition",
    section 4.2, Figure 4 and Table 5 (best at 0.4). The paper does not say how it breaks ties.

    >>> import numpy as np
    >>> frames = np.array([[1, 0], [4, 3], [0, 0], [0, 1], [3, 4], [9, 1]], dtype=np.float32)
    >>> cluster_frames(frames, np.array([0, 3, 6]), threshold=0.75)
    array([ 0,  0, -1,  0,  0,  1], dtype=int32)
    >>> cluster_frames(frames, np.array([0, 3, 6]), threshold=None)
    array([ 0,  0, -1,  0,  0,  0], dtype=int32)
    """

    embeddings, offsets = _check_arguments(embeddings, offsets, memory_bytes)
    cosine_threshold = float32_threshold(threshold)
    n_rows = len(embeddings)
    usable = np.zeros(n_rows, dtype=bool)
    firsts = np.arange(n_rows)
    # At −1 all joins and at 1 nothing does, by definition and not by what rounding makes of it.
    # (Of one face twice the product may round to 1.0000001.)
    if cosine_threshold is None or cosine_threshold >= 1:
        usable = _find_usable(embeddings, memory_bytes)
        if cosine_threshold is None:
            firsts = np.repeat(offsets[:-1], np.diff(offsets))
        return _rank_components(firsts, usable, offsets)

    def work(batch: ClipBatch, block_bytes: int) -> None:
        gathered = gather_rows(embeddings, batch)
        is_usable, inside = gathered[2], batch.inside
        enough = batch.n >= kernels.PIVOT_FROM
        kernel = kernels.components_by_pivot if enough else kernels.components
        roots = run_on_device(device, kernel, *gathered, float(cosine_threshold), block_bytes)
        usable[batch.rows[inside]] = is_usable[inside]
        firsts[batch.rows[inside]] = (batch.starts[:, None] + roots)[inside]

    run_batches(work, embeddings, offsets, _BATCH_BYTES, memory_bytes, device)
    return _rank_components(firsts, usable, offsets)


@dataclass(frozen=True)
class LinkageTree:
    """Each clip's maximum spanning tree (single linkage), as Prim's algorithm walks it.

    In this order every cluster of every threshold is a run of neighbours: a run ends where the
    next row's `similarities` is not above the threshold. (Prim leaves a cluster only when nothing
    above the threshold leads on.) So a cut is a pass over the rows, whatever the threshold.
    """

    offsets: NDArray[np.int64]  # (n_clips + 1,)
    order: NDArray[np.int32]  # (n_rows,) row within its clip; usable rows first
    similarities: NDArray[np.float32]  # (n_rows,) cosine of the tree's edge to order[i], which
    # comes from a row before it; −inf: the first; NaN: unusable

    def __post_init__(self) -> None:
        n_rows = int(self.offsets[-1])
        for name in ("order", "similarities"):
            if getattr(self, name).shape != (n_rows,):
                raise VidfaceError(f"a linkage tree's {name} must be ({n_rows},); compute it again")
        lengths = np.diff(self.offsets)
        inside = (self.order >= 0) & (self.order < np.repeat(lengths, lengths))
        filled = self.offsets[:-1][lengths > 0]
        if (
            not inside.all()
            or (np.bincount(self._rows, minlength=n_rows) != 1).any()
            or (self.similarities[filled] > -np.inf).any()
            or (~self._usable[:-1] & (self.similarities[1:] > -np.inf)).any()
        ):
            raise VidfaceError("a linkage tree whose order is no order; compute it again")

    def __str__(self) -> str:
        return f"LinkageTree({len(self.offsets) - 1} clips, {len(self.order)} rows)"

    # What every cut needs, worked out once.

    @cached_property
    def _clips(self) -> NDArray[np.int64]:
        lengths = np.diff(self.offsets)
        return np.repeat(np.arange(len(lengths)), lengths)

    @cached_property
    def _rows(self) -> NDArray[np.int64]:
        return self.offsets[self._clips] + self.order

    @cached_property
    def _places(self) -> NDArray[np.int64]:
        places = np.empty(len(self.order), np.int64)
        places[self._rows] = np.arange(len(places))
        return places

    @cached_property
    def _usable(self) -> NDArray[np.bool_]:
        return ~np.isnan(self.similarities)

    @cached_property
    def _all_usable(self) -> bool:
        return bool(self._usable.all())


def linkage_tree(
    embeddings: NDArray[np.floating[Any]],
    offsets: NDArray[np.integer[Any]],
    *,
    memory_bytes: int = MEMORY_BYTES,
    device: str | None = None,
) -> LinkageTree:
    """Each clip's maximum spanning tree over its usable rows' cosines: all thresholds at once.

    Prim's algorithm (Prim 1957), a step for all clips of a batch at once. Every similarity is
    computed once and forgotten; a clip whose similarities do not fit into the budget computes them
    row by row instead.

    Args, raises: as `cluster_frames`.

    >>> import numpy as np
    >>> frames = np.array([[1, 0], [0, 1], [4, 3]], dtype=np.float32)
    >>> tree = linkage_tree(frames, np.array([0, 3]))
    >>> tree.order, tree.similarities
    (array([0, 2, 1], dtype=int32), array([-inf,  0.8,  0.6], dtype=float32))
    >>> cut(tree, 0.7), cut(tree, 0.5)
    (array([0, 1, 0], dtype=int32), array([0, 0, 0], dtype=int32))
    """

    embeddings, offsets = _check_arguments(embeddings, offsets, memory_bytes)
    n_rows = len(embeddings)
    order = np.zeros(n_rows, np.int32)
    similarities = np.full(n_rows, np.nan, np.float32)

    def work(batch: ClipBatch, block_bytes: int) -> None:
        gathered = gather_rows(embeddings, batch)
        steps, links = run_on_device(device, kernels.spanning_trees, *gathered, block_bytes)
        # Behind a clip's usable rows, which Prim found, stand the others, in order.
        is_usable, n = gathered[2], np.arange(batch.n)
        n_usable = is_usable.sum(axis=1)[:, None]
        others = np.argsort(is_usable, axis=1, kind="stable")
        behind = np.take_along_axis(others, (n - n_usable) % batch.n, axis=1)
        inside = batch.inside
        rows = batch.rows[inside]
        order[rows] = np.where(n < n_usable, steps, behind)[inside]
        similarities[rows] = np.where(n < n_usable, links, np.float32(np.nan))[inside]

    run_batches(work, embeddings, offsets, _BATCH_BYTES, memory_bytes, device)
    return LinkageTree(offsets, order, similarities)


def cut(tree: LinkageTree, threshold: float | None) -> NDArray[np.int32]:
    """The labels of `cluster_frames` at any threshold, from the tree, in time linear in rows.

    No similarity is computed. Equal to `cluster_frames` wherever no cosine lies within 2e-6 of the
    threshold (float32 products round by shape).

    Args:
        tree: of `linkage_tree`.
        threshold: as in `cluster_frames`.

    Returns:
        (n_rows,) int32 labels.
    """
    cosine_threshold = float32_threshold(threshold)
    if cosine_threshold is None:
        joined = tree.similarities > -np.inf
    elif cosine_threshold >= 1:
        joined = np.zeros(len(tree.similarities), bool)
    else:
        joined = tree.similarities > cosine_threshold  # False for NaN
    return _rank_runs(tree, ~joined)


def _check_arguments(
    embeddings: NDArray[np.floating[Any]], offsets: NDArray[np.integer[Any]], memory_bytes: int
) -> tuple[NDArray[np.floating[Any]], NDArray[np.int64]]:
    embeddings = check_embeddings(embeddings)
    if memory_bytes < 1:
        raise VidfaceError(f"memory_bytes must be positive, got {memory_bytes}")
    return embeddings, check_offsets(offsets, len(embeddings))


def _find_usable(embeddings: NDArray[np.floating[Any]], memory_bytes: int) -> NDArray[np.bool_]:
    """(n_rows,) bool: rows that have a direction."""
    n_rows, d = embeddings.shape
    step = max(1, min(_BATCH_BYTES, memory_bytes) // (d * (embeddings.itemsize + 20) + 96))
    usable = np.zeros(n_rows, dtype=bool)
    for start in range(0, n_rows, step):
        usable[start : start + step] = unit_rows(embeddings[start : start + step])[1]
    return usable


def _rank_components(
    firsts: NDArray[np.int64], usable: NDArray[np.bool_], offsets: NDArray[np.int64]
) -> NDArray[np.int32]:
    """Number each clip's components by falling size, then by their first row (`firsts`)."""
    sizes = np.bincount(firsts[usable], minlength=len(firsts))
    trees = np.flatnonzero(sizes)  # ascending, so by clip, then by first row
    clips = np.searchsorted(offsets, trees, side="right") - 1
    ranks = np.full(len(firsts), UNUSABLE, dtype=np.int32)
    ranks[trees] = _rank_by_size(sizes[trees], trees - offsets[clips], clips, offsets)
    labels = ranks[firsts]
    labels[~usable] = UNUSABLE
    return labels


def _rank_by_size(
    sizes: NDArray[np.int64],
    firsts: NDArray[np.int64],
    clips: NDArray[np.int64],
    offsets: NDArray[np.int64],
) -> NDArray[np.int32]:
    """The rank in its clip of each component, by falling size, then by its first row in the clip.

    The components of a clip stand together, clips in order.
    """
    longest = int(np.diff(offsets).max(initial=0)) + 1
    # One integer orders by clip, size and row: below 2^63 wherever the rows fit into memory.
    keys = (clips * longest + (longest - sizes)) * longest + firsts
    order = np.argsort(keys)
    per_clip = np.bincount(clips, minlength=len(offsets) - 1)
    ranks = np.empty(len(keys), dtype=np.int32)
    ranks[order] = np.arange(len(keys)) - np.repeat(np.cumsum(per_clip) - per_clip, per_clip)
    return ranks


def _rank_runs(tree: LinkageTree, begins: NDArray[np.bool_]) -> NDArray[np.int32]:
    """Labels of a tree's rows, where a cluster begins at every `begins` of Prim's order."""
    n_rows = len(begins)
    if not n_rows:
        return np.empty(0, np.int32)
    starts = np.flatnonzero(begins)
    sizes = np.diff(starts, append=n_rows)
    of_runs = np.full(len(starts), _ALONE, np.int32)
    if not tree._all_usable:
        of_runs[~tree._usable[starts]] = UNUSABLE
    many = np.flatnonzero(sizes > 1)
    clips = tree._clips[starts[many]]
    several = np.bincount(clips, minlength=len(tree.offsets) - 1)
    of_runs[many] = 0
    # Where a clip has more than one of them, they rank by size, then by their first row.
    rivals = np.flatnonzero(several[clips] > 1)
    if len(rivals):
        runs = many[rivals]
        ends = np.cumsum(sizes[runs])
        begin = ends - sizes[runs]
        members = np.arange(ends[-1]) + np.repeat(starts[runs] - begin, sizes[runs])
        firsts = np.minimum.reduceat(tree.order[members], begin).astype(np.int64)
        of_runs[runs] = _rank_by_size(sizes[runs], firsts, clips[rivals], tree.offsets)
    labels = np.repeat(of_runs, sizes)[tree._places]
    # Clusters of one rank last, by their rows: to count is enough, and most clusters are such.
    rows = np.flatnonzero(labels == _ALONE)
    clips = tree._clips[rows]
    alone = np.bincount(clips, minlength=len(several))
    first_rank = several - (np.cumsum(alone) - alone)
    labels[rows] = first_rank[clips] + np.arange(len(rows))
    return labels
