"""Descriptors: one unit vector a clip, the sum of its kept faces.

A clip without a kept face has no direction: its row is zero, and the scores know what that means
(−1 against everything, never retrieved, still in every denominator).
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from vidface.clusters import check_embeddings, check_offsets, unit_rows_float64
from vidface.errors import VidfaceError

VANISHING_MEAN = 1e-6
"""A clip whose kept unit rows have a mean shorter than this has no direction."""

UNIT_TOLERANCE = 1e-3
"""How far the norm of a descriptor may lie from one."""

_BLOCK_BYTES = 2**26


def pool_descriptors(
    embeddings: NDArray[np.floating[Any]],
    offsets: NDArray[np.integer[Any]],
    labels: NDArray[np.integer[Any]],
) -> NDArray[np.float32]:
    """One descriptor a clip: each kept embedding normalised, summed, the sum normalised.

    ``f = s / |s|``, ``s = Σ e_i / |e_i|`` over the rows labelled 0, computed in float64. Where the
    kept rows cancel (the mean of the unit rows is shorter than 1e-6) only rounding would be left
    to normalise, so the clip gets the zero row, as a clip without a kept row does.

    Args:
        embeddings: (n_rows, d) float32, float16 or float64, raw. Not changed.
        offsets: (n_clips + 1,) integers; clip c owns rows [offsets[c], offsets[c + 1]).
        labels: (n_rows,) integers, as `vidface.clusters.cluster_frames` gives them; 0 is kept.

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
    embeddings = check_embeddings(embeddings)
    n_rows, d = embeddings.shape
    offsets = check_offsets(offsets, n_rows)
    labels = np.asarray(labels)
    # A mask of bools would read as labels with the kept rows at 1.
    if labels.shape != (n_rows,) or labels.dtype.kind not in "iu":
        raise VidfaceError(
            f"labels must be ({n_rows},) integers, one an embedding, "
            f"got the shape {labels.shape} of {labels.dtype}"
        )
    kept = np.flatnonzero(labels == 0)
    clips_of_kept = np.searchsorted(offsets, kept, side="right") - 1
    clips, firsts, counts = np.unique(clips_of_kept, return_index=True, return_counts=True)

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
        sums = np.add.reduceat(unit, firsts[start:stop] - first, axis=0)
        norms = np.sqrt(np.einsum("ij,ij->i", sums, sums))
        clear = norms >= VANISHING_MEAN * counts[start:stop]
        descriptors[clips[start:stop][clear]] = sums[clear] / norms[clear, None]
        start = stop
    return descriptors


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
