"""Rows of embeddings: what may be one, and their directions."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from vidface.core.errors import VidfaceError

_FLOAT32_SAFE_SQUARES = (1e-24, 1e24)  # squared norms that float32 holds without loss


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
    with np.errstate(all="ignore"):  # what overflows here is done in float64
        unit = rows.astype(np.float32)
    scales, usable = compute_scales(unit, rows)
    unit *= scales[:, None]
    return unit, usable


def compute_scales(
    copies: NDArray[np.float32], rows: NDArray[np.floating[Any]]
) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
    """Compute one over the length of each row, and which rows are usable.

    `copies` is a float32 copy of `rows`, made to be changed here: where float32 does not hold a
    row's squares, its unit row, or zero, takes its place.
    """
    low, high = _FLOAT32_SAFE_SQUARES
    with np.errstate(all="ignore"):  # NaN, infinity and overflow are sorted out below
        squares = np.einsum("ij,ij->i", copies, copies)
        safe = (squares > low) & (squares < high)  # False for NaN
        usable = np.ones(len(copies), dtype=bool)
        if not safe.all():
            exact, usable[~safe] = unit_rows_float64(rows[~safe])
            copies[~safe] = exact
            squares[~safe] = 1
        return (1 / np.sqrt(squares, dtype=np.float64)).astype(np.float32), usable


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


def check_labels(
    labels: NDArray[np.integer[Any]], n_rows: int, name: str = "labels"
) -> NDArray[np.integer[Any]]:
    """Refuse what is not (n_rows,) integers, the labels or the frames of faces."""
    array = np.asarray(labels)
    # A mask of bools would read as labels with the kept rows at 1.
    if array.shape != (n_rows,) or array.dtype.kind not in "iu":
        raise VidfaceError(
            f"{name} must be ({n_rows},) integers, one an embedding, "
            f"got the shape {array.shape} of {array.dtype}"
        )
    return array


def float32_threshold(threshold: float | None) -> np.float32 | None:
    """Round a cosine threshold to float32, as cosines are compared; None: all faces join."""
    if threshold is None:
        return None
    if np.isnan(threshold):
        raise VidfaceError("the threshold is NaN; give a cosine, or None for no clustering")
    with np.errstate(over="ignore"):
        cosine_threshold = np.float32(threshold)
    return None if cosine_threshold <= -1 else cosine_threshold
