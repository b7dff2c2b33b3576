"""The pairs of a list, as `PairCounts`: every score is kept."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from vidface.core.errors import VidfaceError
from vidface.metrics.blocks import bin_of, falling_order
from vidface.metrics.inputs import check_of_pairs, number_units
from vidface.metrics.pairwise import HISTOGRAM_BINS, KEEP_ALL, NO_DESCRIPTOR_SCORE, PairCounts

_BLOCK_ROWS = 2**14


@dataclass(frozen=True, eq=False)
class ListedPairs:
    """Pairs of rows, and whether each is of one person."""

    first: NDArray[np.int64]  # (n_pairs,) row numbers
    second: NDArray[np.int64]
    same: NDArray[np.bool_]
    units: NDArray[np.int32]  # (n_rows,) who a row is of: identities first, then others, each one
    n_identities: int

    def __str__(self) -> str:
        return f"ListedPairs(first, second, same ({len(self.same)},); {len(self.units)} rows)"

    @property
    def genuine(self) -> int:
        return int(np.count_nonzero(self.same))

    @property
    def impostor(self) -> int:
        return int(np.count_nonzero(~self.same))

    left_out = 0

    @property
    def n_units(self) -> int:
        return int(self.units.max(initial=-1)) + 1

    def measured(self) -> tuple[int, int]:
        """All pairs: none is left to be counted without its score."""
        return self.genuine, self.impostor

    def totals(self, weights: NDArray[np.integer[Any]]) -> tuple[int, int]:
        """Genuine and impostor pairs where unit u was drawn weights[u] times."""
        w = weights.astype(np.float64)  # whole numbers, exactly
        genuine, impostor = (
            int(w @ within + w @ (between @ w)) for within, between in self._pairs_of_units
        )
        return genuine, impostor

    @cached_property
    def _pairs_of_units(self) -> tuple[tuple[NDArray[np.float64], Any], ...]:
        """Genuine, then impostor pairs: within each unit, and between each two, as a matrix."""
        from scipy.sparse import coo_array

        n = self.n_units
        a, b = self.units[self.first], self.units[self.second]
        kinds = []
        for kind in (self.same, ~self.same):
            within = kind & (a == b)
            between = kind & (a != b)
            ones = np.ones(np.count_nonzero(between))
            matrix = coo_array((ones, (a[between], b[between])), shape=(n, n)).tocsr()
            kinds.append((np.bincount(a[within], minlength=n).astype(np.float64), matrix))
        return tuple(kinds)


def list_pairs(
    codes: NDArray[np.int64], first: ArrayLike, second: ArrayLike, same: ArrayLike
) -> ListedPairs:
    """Check a list of pairs; codes as `identity_codes` gives them, −1 for a row nobody knows.

    Raises:
        VidfaceError: lengths or types that disagree, rows that are not there.
    """
    n = np.size(same)
    rows: dict[str, NDArray[np.int64]] = {}
    for name, numbers in (("first", first), ("second", second)):
        rows[name] = check_of_pairs(name, numbers, "whole numbers", n).astype(np.int64)
        if rows[name].min() < 0 or rows[name].max() >= len(codes):
            raise VidfaceError(f"{name} names a row beyond the {len(codes)} descriptors")
    return ListedPairs(
        **rows,
        same=check_of_pairs("same", same, "bool", n),
        units=number_units(codes).astype(np.int32),
        n_identities=int(codes.max(initial=-1)) + 1,
    )


def count_listed(
    rows: NDArray[np.float32], has_direction: NDArray[np.bool_], pairs: ListedPairs
) -> PairCounts:
    """The scores of listed pairs; −1 where a row has no direction."""
    scores = np.empty(len(pairs.same), dtype=np.float32)
    for start in range(0, len(scores), _BLOCK_ROWS):
        part = slice(start, start + _BLOCK_ROWS)
        a, b = pairs.first[part], pairs.second[part]
        products = np.einsum("ij,ij->i", rows[a], rows[b])
        usable = has_direction[a] & has_direction[b]
        scores[part] = np.where(usable, np.clip(products, -1, 1), NO_DESCRIPTOR_SCORE)
    # All pairs in the first row of the histogram, the genuine ones among them in the second.
    bins = bin_of(scores, HISTOGRAM_BINS)
    histogram = np.stack(
        [np.bincount(b, minlength=HISTOGRAM_BINS) for b in (bins, bins[pairs.same])]
    )
    order = falling_order(scores)
    genuine, impostor = order[pairs.same[order]], order[~pairs.same[order]]
    return PairCounts(
        histogram,
        scores[genuine],
        np.stack([pairs.units[side[genuine]] for side in (pairs.first, pairs.second)]),
        True,
        scores[impostor],
        np.stack([pairs.units[side[impostor]] for side in (pairs.first, pairs.second)]),
        KEEP_ALL,
    )
