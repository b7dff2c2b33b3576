"""Directions of groups of unit rows: of their sum, and of their medoid."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

COSINE_TIE = 1e-9
"""Cosines that differ by less are equal: two faces are each other's medoid, but for rounding."""


VANISHING_MEAN = 1e-6
"""A clip whose kept unit rows have a mean shorter than this has no direction."""


def sum_directions(
    unit: NDArray[np.float64],
    starts: NDArray[np.integer[Any]],
    weights: NDArray[np.float64] | None,
) -> NDArray[np.float64]:
    """The direction of the sum of each run of unit rows, as `Pooling.pool` wants it."""
    if weights is not None:
        unit *= weights[:, None]
        totals = np.add.reduceat(weights, starts)
    else:
        totals = np.diff(starts, append=len(unit))
    sums = np.add.reduceat(unit, starts, axis=0)
    norms = np.sqrt(np.einsum("ij,ij->i", sums, sums))
    is_clear = norms >= VANISHING_MEAN * totals
    return np.where(is_clear[:, None], sums, 0) / np.where(is_clear, norms, 1)[:, None]


def find_medoids(unit: NDArray[np.float64], firsts: NDArray[np.integer[Any]]) -> NDArray[np.int64]:
    """The medoid of each group of unit rows: the row with the largest sum of cosines to the others.

    The sum of a row's cosines is its product with the sum of all rows: there is no n × n array.
    Rows whose mean cosine is within 1e-9 of the best are equally good; the earliest wins.

    Args:
        unit: (n, d) float64 rows of norm 1. Not changed.
        firsts: (n_groups,) rising integers, the first row of each group; a group ends where the
            next begins and has one row at least.

    Returns:
        (n_groups,) row numbers.

    >>> import numpy as np
    >>> find_medoids(np.array([[1.0, 0.0], [0.6, 0.8], [0.0, 1.0], [0.0, -1.0]]), np.array([0, 3]))
    array([1, 3])
    """
    best = np.empty(len(firsts), dtype=np.int64)
    ends = [*firsts[1:].tolist(), len(unit)]
    for group, (a, b) in enumerate(zip(firsts.tolist(), ends, strict=True)):
        rows = unit[a:b]
        sums = rows @ rows.sum(axis=0)  # with itself, which adds 1 to all
        best[group] = a + int(np.argmax(sums >= sums.max() - COSINE_TIE * len(rows)))
    return best
