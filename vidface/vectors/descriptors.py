"""Descriptors: one unit vector a clip, the sum of its kept faces or another pooling of them.

A clip without a kept face has no direction: its row is zero, and the scores know what that means
(−1 against everything, never retrieved, still in every denominator).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from vidface.core.errors import VidfaceError
from vidface.vectors.poolings import POOLINGS, find_pooling
from vidface.vectors.rows import check_embeddings, check_labels, check_offsets, unit_rows_float64

if TYPE_CHECKING:
    import pyarrow as pa

UNIT_TOLERANCE = 1e-3
"""How far the norm of a descriptor may lie from one."""

_BLOCK_BYTES = 2**26


@dataclass(frozen=True)
class Pooled:
    """One descriptor a clip, and where weights could not be used as they were."""

    descriptors: NDArray[np.float32]  # (n_clips, d), rows of norm 1 or 0
    weights_ignored: int = 0  # kept faces whose weight was negative or not finite, so counts as 0
    clips_fallen_back: int = 0  # clips with kept faces, all of weight 0: pooled by the mean

    def __str__(self) -> str:
        return (
            f"Pooled({len(self.descriptors)} clips, {self.weights_ignored} weights ignored, "
            f"{self.clips_fallen_back} clips fallen back to the mean)"
        )


def pool_descriptors(
    embeddings: NDArray[np.floating[Any]],
    offsets: NDArray[np.integer[Any]],
    labels: NDArray[np.integer[Any]],
    *,
    pooling: str = "mean",
    weights: NDArray[Any] | None = None,
) -> NDArray[np.float32]:
    """One descriptor a clip: each kept embedding normalised, summed, the sum normalised.

    ``f = s / |s|``, ``s = Σ e_i / |e_i|`` over the rows labelled 0, computed in float64. Where the
    kept rows cancel (the mean of the unit rows is shorter than 1e-6) only rounding would be left
    to normalise, so the clip gets the zero row, as a clip without a kept row does.

    Args:
        embeddings: (n_rows, d) float32, float16 or float64, raw. Not changed.
        offsets: (n_clips + 1,) integers; clip c owns rows [offsets[c], offsets[c + 1]).
        labels: (n_rows,) integers, as `vidface.noise.clusters.cluster_frames` gives them; 0 is
            kept.
        pooling: another way to pool, as in `pool_faces`.
        weights: of the faces, as in `pool_faces`.

    Returns:
        (n_clips, d) float32; every row has norm 1 (to float32 rounding) or is all zero.

    Raises:
        VidfaceError: shapes that disagree, or a kept row without a direction (NaN, infinite, zero).

    Source: the video baseline of the Lightweight Face Recognition Challenge
    (deepinsight/insightface, gen_video_feature.py), which sums over all frames of a clip.

    >>> import numpy as np
    >>> frames = np.array([[2, 0], [0, 5], [-1, 0], [-3, -4]], dtype=np.float32)
    >>> pool_descriptors(frames, np.array([0, 3, 3, 4]), np.array([0, 0, 1, 0]))
    array([[ 0.70710677,  0.70710677],
           [ 0.        ,  0.        ],
           [-0.6       , -0.8       ]], dtype=float32)
    """
    return pool_faces(embeddings, offsets, labels, pooling=pooling, weights=weights).descriptors


def pool_faces(
    embeddings: NDArray[np.floating[Any]],
    offsets: NDArray[np.integer[Any]],
    labels: NDArray[np.integer[Any]],
    *,
    pooling: str = "mean",
    weights: NDArray[Any] | None = None,
) -> Pooled:
    """One descriptor a clip from its kept faces, by one of `vidface.vectors.poolings.POOLINGS`.

    "mean" is `pool_descriptors`. "medoid" takes the kept face with the largest sum of cosines to
    the clip's kept faces, the earliest of those whose mean cosine is within 1e-9 of the best. The
    others are ``s = Σ w_i · e_i / |e_i|``, normalised: the weights of a clip are divided by their
    largest first, so that neither 1e-300 nor 1e300 is lost. "norm" so sums raw embeddings.

    A weight that is negative, NaN or infinite counts as 0. A clip whose kept faces all have weight
    0 falls back to the mean. A clip whose weighted mean is shorter than 1e-6 gets the zero row.

    Args:
        embeddings: (n_rows, d) float32, float16 or float64, raw. Not changed.
        offsets: (n_clips + 1,) integers; clip c owns rows [offsets[c], offsets[c + 1]).
        labels: (n_rows,) integers, as `vidface.noise.clusters.cluster_frames` gives them; 0 is
            kept.
        pooling: a name of `vidface.vectors.poolings.POOLINGS`.
        weights: (n_rows,) numbers, as `pooling_weights` gives them; for the poolings that have a
            column, and for them alone. Not changed.

    Returns:
        The descriptors, (n_clips, d) float32 of norm 1 or 0, and how many faces' weights were
        ignored and how many clips fell back to the mean.

    Raises:
        VidfaceError: shapes that disagree, an unknown pooling, weights missing or not wanted, or a
            kept row without a direction (NaN, infinite, zero).

    >>> import numpy as np
    >>> frames = np.array([[2, 0], [0, 5], [0, 1]], dtype=np.float32)
    >>> offsets, kept = np.array([0, 2, 3]), np.zeros(3, dtype=np.int32)
    >>> pooled = pool_faces(frames, offsets, kept, pooling="quality", weights=np.array([4, 3, -1]))
    >>> pooled.descriptors
    array([[0.8, 0.6],
           [0. , 1. ]], dtype=float32)
    >>> print(pooled)
    Pooled(2 clips, 1 weights ignored, 1 clips fallen back to the mean)
    """
    embeddings = check_embeddings(embeddings)
    n_rows, d = embeddings.shape
    offsets = check_offsets(offsets, n_rows)
    labels = check_labels(labels, n_rows)
    method = find_pooling(pooling)
    weights = _check_weights(weights, pooling, method.column, n_rows)
    kept = np.flatnonzero(labels == 0)
    clips_of_kept = np.searchsorted(offsets, kept, side="right") - 1
    clips, firsts, counts = np.unique(clips_of_kept, return_index=True, return_counts=True)
    ignored = fallen_back = 0
    if weights is not None:
        weights, ignored, fallen_back = _scaled_weights(weights[kept], firsts, counts)

    descriptors = np.zeros((len(offsets) - 1, d), dtype=np.float32)
    rows_per_block = max(1, _BLOCK_BYTES // (16 * d + 1))
    start = 0
    while start < len(clips):  # whole clips, one at least, so that blocks don't change a sum
        limit = firsts[start] + rows_per_block
        stop = max(start + 1, int(np.searchsorted(firsts + counts, limit, side="right")))
        first, last = firsts[start], firsts[stop - 1] + counts[stop - 1]
        unit, usable = unit_rows_float64(embeddings[kept[first:last]])
        if not usable.all():
            bad = first + int(np.flatnonzero(~usable)[0])
            raise VidfaceError(
                f"row {kept[bad]} (clip {clips_of_kept[bad]}) is labelled 0, kept, but its "
                "embedding is NaN, infinite or zero; label it −1, as cluster_frames does"
            )
        block_weights = None if weights is None else weights[first:last]
        pooled = method.pool(unit, firsts[start:stop] - first, block_weights)
        descriptors[clips[start:stop]] = pooled
        start = stop
    return Pooled(descriptors, ignored, fallen_back)


def pooling_weights(table: pa.Table, pooling: str) -> NDArray[np.float64] | None:
    """What a pooling weighs the faces of an embeddings artefact by.

    Args:
        table: rows of embeddings, `vidface.runs.columns.embeddings_schema`.
        pooling: a name of `vidface.vectors.poolings.POOLINGS`.

    Returns:
        (n_rows,) float64, NaN where the column is null; None for a pooling without weights.

    Raises:
        VidfaceError: an unknown pooling, or an artefact without its column, or with nothing but
            nulls in it; the message names the poolings that this artefact allows.

    >>> import pyarrow as pa
    >>> pooling_weights(pa.table({"norm": pa.array([2.0, None], pa.float32())}), "norm")
    array([ 2., nan])
    """
    column = find_pooling(pooling).column
    if column is None:
        return None
    if _has_numbers(table, column):
        return table.column(column).cast("float64").to_numpy()
    possible = [
        name
        for name, other in POOLINGS.items()
        if other.column is None or _has_numbers(table, other.column)
    ]
    if column not in table.column_names:
        reason = f"the embeddings have no column '{column}'"
    elif column == "det_score":
        reason = (
            "det_score is null throughout: it needs detected faces, and aligned crops were never "
            'detected ([faces] source = "detect" for whole frames)'
        )
    else:
        reason = f"the column '{column}' holds no numbers"
    raise VidfaceError(f"pooling '{pooling}': {reason}; this artefact allows {', '.join(possible)}")


def _has_numbers(table: pa.Table, column: str) -> bool:
    """Whether a column can weigh; one of no rows at all can, too."""
    import pyarrow as pa

    if column not in table.column_names:
        return False
    values = table.column(column)
    numeric = pa.types.is_floating(values.type) or pa.types.is_integer(values.type)
    return numeric and (len(values) == 0 or values.null_count < len(values))


def _check_weights(
    weights: NDArray[Any] | None, pooling: str, column: str | None, n_rows: int
) -> NDArray[np.float64] | None:
    if weights is None:
        if column is not None:
            raise VidfaceError(f"pooling '{pooling}' needs weights: the column '{column}'")
        return None
    if column is None:
        raise VidfaceError(f"pooling '{pooling}' takes no weights; leave them out")
    array = np.asarray(weights)
    if array.shape != (n_rows,) or array.dtype.kind not in "fiu":
        raise VidfaceError(
            f"weights must be ({n_rows},) numbers, one an embedding, "
            f"got the shape {array.shape} of {array.dtype}"
        )
    return array.astype(np.float64)


def _scaled_weights(
    weights: NDArray[np.float64], firsts: NDArray[np.int64], counts: NDArray[np.int64]
) -> tuple[NDArray[np.float64], int, int]:
    """The weights of the kept faces in [0, 1], the largest of each clip 1; how many were mended."""
    fit = np.isfinite(weights) & (weights >= 0)
    weights = np.where(fit, weights, 0.0)
    peaks = np.maximum.reduceat(weights, firsts) if len(firsts) else np.zeros(0)
    nothing = peaks == 0
    weights = np.where(np.repeat(nothing, counts), 1.0, weights)
    with np.errstate(under="ignore"):  # 1e-300 of 1e300 is nothing, rightly
        weights /= np.repeat(np.where(nothing, 1.0, peaks), counts)
    return weights, int(np.count_nonzero(~fit)), int(np.count_nonzero(nothing))


def check_descriptors(
    descriptors: NDArray[np.floating[Any]], name: str = "descriptors"
) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
    """Refuse what is not (n, d) rows of norm 1 (within 1e-3) or 0.

    Returns:
        descriptors: (n, d) float32.
        has_direction: (n,) bool, False for the zero rows.
    """
    array = np.asarray(descriptors)
    if array.ndim != 2 or array.dtype.kind != "f":
        raise VidfaceError(
            f"{name} must be (n, d) floats, got the shape {array.shape} of {array.dtype}"
        )
    with np.errstate(over="ignore", invalid="ignore"):
        array = array.astype(np.float32, copy=False)
        norms = np.sqrt(np.einsum("ij,ij->i", array, array))
        is_unit = np.abs(norms - 1) <= UNIT_TOLERANCE
    others = np.flatnonzero(~is_unit)
    bad = others[(array[others] != 0).any(axis=1)]  # NaN != 0
    if len(bad):
        row = int(bad[0])
        what = "is not finite" if not np.isfinite(array[row]).all() else f"has norm {norms[row]:g}"
        raise VidfaceError(
            f"row {row} of {name} {what} ({len(bad)} such rows); rows must have norm 1, or be "
            "all zero where a clip has no descriptor: pool_descriptors makes them so"
        )
    return array, is_unit
