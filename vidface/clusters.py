"""Clusters: which faces of a clip are the same person, and which are noise.

The method of the paper: within a clip, two faces are joined where the cosine of their embeddings
is above a threshold; the connected components of that graph (Union-Find) are the clusters; the
largest one is kept, everything outside it is noise.
"""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vidface.errors import VidfaceError

NO_CLUSTERING = None
"""The threshold that means "no clustering"; so does any value of −1 or less."""

UNUSABLE = -1
"""The label of an embedding that has no direction (NaN, infinite or zero): never a member."""

MEMORY_BYTES = 2**31
"""The default budget of `cluster_frames` for its working arrays."""

# Batches stay far below the budget: from 8 to 512 MiB the speed is the same (2 cores, 20,000 clips
# of 30 faces), so the peak may as well be low.
_BATCH_BYTES = 2**25
_FLOAT32_SAFE_SQUARES = (1e-24, 1e24)  # squared norms that float32 holds without loss


def cluster_frames(
    embeddings: NDArray[np.floating[Any]],
    offsets: NDArray[np.integer[Any]],
    threshold: float | None,
    *,
    memory_bytes: int = MEMORY_BYTES,
) -> NDArray[np.int32]:
    """Label every face with its cluster within its clip; 0 is the dominant cluster.

    Two faces of a clip are joined where ``cosine > threshold``, strictly; a cluster is a connected
    component of that graph. Label 0 is the largest cluster (the kept frames), 1, 2, … the others
    by falling size; clusters of equal size rank by the earliest row they hold. −1 is an unusable
    embedding (NaN, infinite, or zero norm), which joins nothing and is never kept.

    Products and threshold are compared as float32. A product rounds by the shape of the matrix it
    is part of, so labels are certain, and the same for every batch size and budget, wherever no
    cosine lies within 2e-6 of the threshold; nearer than that, a pair may fall on either side.
    Rows whose unit vectors and products float32 holds exactly are exact here: a cosine of 0.5 does
    not join at threshold 0.5.

    Clips of equal length are taken together in batches: one batched matrix product, then min-label
    hooking and pointer jumping on all clips of the batch at once, a handful of rounds (proven
    bounds for this family are O(log² n): Liu and Tarjan, "Simple Concurrent Labeling Algorithms
    for Connected Components", SOSA 2019). A clip too long for that (more than about 2,000 faces)
    goes through in blocks of rows: each block's edges are joined into the forest and forgotten, so
    that no n × n array exists and each product is computed once.

    Args:
        embeddings: (n_rows, d) float32, float16 or float64; raw, any norm; the rows of a clip
            stand together in time order (frame_index, then face_index). Not changed.
        offsets: (n_clips + 1,) integers; clip c owns rows [offsets[c], offsets[c + 1]), the first
            offset is 0, the last is n_rows. A clip may have no rows.
        threshold: cosine threshold, in (−1, 1). None or −1 and less: no clustering, every usable
            row gets label 0. 1 and more: nothing joins.
        memory_bytes: upper bound for the working arrays beside input and labels.

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
    embeddings = check_embeddings(embeddings)
    n_rows, d = embeddings.shape
    offsets = check_offsets(offsets, n_rows)
    cosine_threshold = _float32_threshold(threshold)
    if memory_bytes < 1:
        raise VidfaceError(f"memory_bytes must be positive, got {memory_bytes}")

    labels = np.empty(n_rows, dtype=np.int32)
    # At −1 all joins and at 1 nothing does, by definition and not by what rounding makes of it.
    if cosine_threshold is None:
        step = max(1, min(_BATCH_BYTES, memory_bytes) // _bytes_per_row(d, embeddings.itemsize))
        for start in range(0, n_rows, step):
            usable = unit_rows(embeddings[start : start + step])[1]
            labels[start : start + step] = np.where(usable, 0, UNUSABLE)
        return labels

    n_faces = np.diff(offsets)  # (n_clips,)
    by_length = np.argsort(n_faces, kind="stable")
    lengths, firsts = np.unique(n_faces[by_length], return_index=True)
    bounds = [*firsts.tolist(), len(by_length)]
    for n, (first, last) in zip(lengths.tolist(), pairwise(bounds), strict=True):
        if n == 0:
            continue
        batch, rows_per_block = _plan(n, d, embeddings.itemsize, memory_bytes)
        for start in range(first, last, batch):
            clips = by_length[start : min(start + batch, last)]
            rows = offsets[clips][:, None] + np.arange(n)  # (b, n)
            labels[rows] = _cluster_batch(embeddings[rows], cosine_threshold, rows_per_block)
    return labels


def unit_rows(rows: NDArray[np.floating[Any]]) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
    """Scale each row to length one, in float32; rows without a direction become zero.

    Args:
        rows: (n, d) floats. Not changed.

    Returns:
        unit: (n, d) float32, rows of norm 1 or 0.
        usable: (n,) bool, False where a row holds NaN or infinity, or is all zero.

    >>> import numpy as np
    >>> unit_rows(np.array([[3.0, 4.0], [np.nan, 1.0], [3e200, 4e200]]))[0].tolist()
    [[0.6000000238418579, 0.800000011920929], [0.0, 0.0], [0.6000000238418579, 0.800000011920929]]
    """
    low, high = _FLOAT32_SAFE_SQUARES
    with np.errstate(all="ignore"):  # NaN, infinity and overflow are sorted out below
        unit = rows.astype(np.float32)
        squares = np.einsum("ij,ij->i", unit, unit)
        safe = (squares > low) & (squares < high)  # False for NaN
        unit *= (1 / np.sqrt(squares, dtype=np.float64)).astype(np.float32)[:, None]
    usable = np.ones(len(rows), dtype=bool)
    if not safe.all():
        exact, usable[~safe] = unit_rows_float64(rows[~safe])
        unit[~safe] = exact
    return unit, usable


def unit_rows_float64(
    rows: NDArray[np.floating[Any]],
) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
    """`unit_rows` in float64, for rows of any magnitude that float64 holds."""
    unit = rows.astype(np.float64)
    peaks = np.abs(unit).max(axis=1, initial=0.0)
    usable = np.isfinite(peaks) & (peaks > 0)  # a maximum hands NaN and infinity on
    unit[~usable] = 0
    # Dividing by the largest entry first keeps the squares from overflowing and from vanishing.
    unit /= np.where(usable, peaks, 1.0)[:, None]
    norms = np.sqrt(np.einsum("ij,ij->i", unit, unit))
    unit /= np.where(usable, norms, 1.0)[:, None]
    return unit, usable


def check_embeddings(embeddings: NDArray[np.floating[Any]]) -> NDArray[np.floating[Any]]:
    """Refuse what is not a (n_rows, d) array of float16, float32 or float64."""
    array = np.asarray(embeddings)
    if array.ndim != 2:
        raise VidfaceError(f"embeddings must be (n_rows, d), got the shape {array.shape}")
    if array.dtype not in (np.float16, np.float32, np.float64):
        raise VidfaceError(
            f"embeddings must be float16, float32 or float64, got {array.dtype}; "
            "convert them with .astype(np.float32)"
        )
    if len(array) and array.shape[1] == 0:
        raise VidfaceError(f"embeddings have no columns: the shape is {array.shape}")
    return array


def check_offsets(offsets: NDArray[np.integer[Any]], n_rows: int) -> NDArray[np.int64]:
    """Refuse offsets that do not cut [0, n_rows) into consecutive clips; return them as int64."""
    array = np.asarray(offsets)
    if array.ndim != 1 or len(array) == 0 or array.dtype.kind not in "iu":
        raise VidfaceError(
            "offsets must be (n_clips + 1,) integers, "
            f"got the shape {array.shape} of {array.dtype}; no clips at all is [0]"
        )
    array = array.astype(np.int64)
    if array[0] != 0 or array[-1] != n_rows:
        raise VidfaceError(
            f"offsets must start at 0 and end at the number of rows, {n_rows}; "
            f"they start at {array[0]} and end at {array[-1]}"
        )
    falling = np.flatnonzero(np.diff(array) < 0)
    if len(falling):
        c = int(falling[0])
        raise VidfaceError(
            f"offsets must not fall: clip {c} would own rows [{array[c]}, {array[c + 1]})"
        )
    return array


def _float32_threshold(threshold: float | None) -> np.float32 | None:
    if threshold is None:
        return None
    if np.isnan(threshold):
        raise VidfaceError("the threshold is NaN; give a cosine, or None for no clustering")
    with np.errstate(over="ignore"):
        cosine_threshold = np.float32(threshold)
    return None if cosine_threshold <= -1 else cosine_threshold


def _bytes_per_row(d: int, itemsize: int) -> int:
    # gathered row, float32 row, two float64 copies of odd rows; a few index arrays
    return d * (itemsize + 4 + 16) + 96


def _plan(n: int, d: int, itemsize: int, memory_bytes: int) -> tuple[int, int]:
    """How many clips of n faces make a batch, and how many rows of each are compared at a time."""
    # A pair takes its float32 product, its bool, its mask and a masked label.
    block_row_bytes = n * (4 + 1 + 2 * _label_dtype(n).itemsize)
    fixed = n * _bytes_per_row(d, itemsize)
    clip_bytes = fixed + n * block_row_bytes
    target = min(_BATCH_BYTES, memory_bytes)
    if clip_bytes <= target:
        return target // clip_bytes, n
    spare = memory_bytes - fixed
    if spare < block_row_bytes:
        raise VidfaceError(
            f"a clip with {n} faces of {d} dimensions needs {fixed + block_row_bytes} bytes to "
            f"cluster, memory_bytes is {memory_bytes}; raise it"
        )
    return 1, min(n, max(1, min(spare, _BATCH_BYTES) // block_row_bytes))


def _label_dtype(n: int) -> np.dtype[np.unsignedinteger[Any]]:
    # The largest value of the type stands for "no edge", so it must lie above every row number.
    return np.min_scalar_type(n)


def _cluster_batch(
    embeddings: NDArray[np.floating[Any]],  # (b, n, d)
    cosine_threshold: np.float32,
    rows_per_block: int,
) -> NDArray[np.int32]:
    """Labels, (b, n), of b clips of n faces each."""
    b, n, d = embeddings.shape
    flat_unit, flat_usable = unit_rows(embeddings.reshape(b * n, d))
    roots = np.arange(b * n)  # a forest over all rows of the batch; a root is its tree's first row
    # Of one face twice the product may round to 1.0000001, which is not above a threshold of 1.
    if cosine_threshold < 1:
        unit = flat_unit.reshape(b, n, d)
        usable = flat_usable.reshape(b, n)
        for start in range(0, n, rows_per_block):
            stop = min(start + rows_per_block, n)
            # Columns before `start` met these rows in an earlier block.
            products = unit[:, start:stop] @ unit[:, start:].swapaxes(1, 2)
            edges = products > cosine_threshold  # (b, stop - start, n - start)
            del products
            if not flat_usable.all():  # a zero row has cosine 0, above a negative threshold
                edges &= usable[:, start:stop, None]
                edges &= usable[:, None, start:]
            _join(roots, n, edges, start)
    return _rank(roots, flat_usable, n).reshape(b, n)


def _join(roots: NDArray[np.int64], n: int, edges: NDArray[np.bool_], start: int) -> None:
    """Union-Find of a batch, all clips at once: join the trees that `edges` connects, in `roots`.

    `roots` (b · n,) holds stars before and after: roots[roots] == roots, and a root is the lowest
    row of its tree. `edges` (b, r, c) stands for the rows [start, start + r) and the columns
    [start, start + c) of each clip; an edge counts in both directions.
    """
    b, r, _ = edges.shape
    dtype = _label_dtype(n)
    no_edge = edges.astype(dtype)
    no_edge -= 1  # edge: 1 → 0; none: 0 → the type's largest value, which no label reaches
    clips = np.arange(b)
    forest = roots.reshape(b, n)
    while True:
        bases = clips[:, None] * n
        labels = (forest[clips, start:] - bases).astype(dtype)  # (clips, c)
        lowest = np.bitwise_or(no_edge, labels[:, :r, None]).min(axis=1)  # over a column's rows
        across = np.bitwise_or(no_edge, labels[:, None, :]).min(axis=2)  # over a row's columns
        np.minimum(lowest[:, :r], across, out=lowest[:, :r])
        hooks = lowest < labels
        active = hooks.any(axis=1)
        if not active.any():
            return
        # Hook each tree's root under the lowest root that any of its rows touches …
        olds = (labels + bases)[hooks]
        np.minimum.at(roots, olds, (lowest + bases)[hooks])
        # … and jump pointers until every tree is a star again.
        while True:
            jumped = roots[roots]
            if np.array_equal(jumped, roots):
                break
            roots[:] = jumped
        if 2 * np.count_nonzero(active) < len(clips):
            clips, no_edge = clips[active], no_edge[active]


def _rank(roots: NDArray[np.int64], usable: NDArray[np.bool_], n: int) -> NDArray[np.int32]:
    """Number the trees of each clip of n rows by falling size, then by their first row."""
    sizes = np.bincount(roots[usable], minlength=len(roots))
    trees = np.flatnonzero(sizes)  # ascending, so by clip, then by first row
    clips = trees // n
    order = np.lexsort((trees, -sizes[trees], clips))
    firsts = np.searchsorted(clips, clips)  # where each tree's clip starts in `clips`
    ranks = np.full(len(roots), UNUSABLE, dtype=np.int32)
    ranks[trees[order]] = np.arange(len(trees)) - firsts
    return np.where(usable, ranks[roots], np.int32(UNUSABLE))
