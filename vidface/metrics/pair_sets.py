"""Which pairs there are: of a split, or of two sets of clips; how many, and where they lie."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, eq=False)
class Side:
    """Clips of one side, sorted by unit: identities first, then distractors, each its own unit.

    `starts` and `ends` say, for each row, where the clips of its identity lie on the other side;
    a distractor has none.
    """

    rows: NDArray[np.float32]  # (m, d) those with a descriptor
    units: NDArray[np.int32]  # (m,) rising
    n_labelled: int  # rows of identities
    sizes: NDArray[np.int64]  # (n_units,) clips of each unit, with a descriptor
    all_sizes: NDArray[np.int64]  # (n_units,) and without

    def __str__(self) -> str:
        return f"Side(rows {self.rows.shape} float32, {self.n_labelled} labelled)"


@dataclass(frozen=True, eq=False)
class Pairs:
    """The pairs of a split (`second` None: unordered pairs of `first`), or of two sets of clips.

    A pair is genuine where both clips have one identity, impostor otherwise; two distractors are no
    pair. Pairs with a clip that has no descriptor score −1; they are counted, not computed.
    """

    first: Side
    second: Side | None
    n_identities: int

    @property
    def columns(self) -> Side:
        return self.first if self.second is None else self.second

    @cached_property
    def genuine(self) -> int:
        """Genuine pairs, with those that score −1."""
        return self.totals(np.ones(self.n_units, dtype=np.int64))[0]

    @cached_property
    def impostor(self) -> int:
        return self.totals(np.ones(self.n_units, dtype=np.int64))[1]

    @property
    def n_units(self) -> int:
        return len(self.first.sizes)

    def measured(self) -> tuple[int, int]:
        """Genuine and impostor pairs of which both clips have a descriptor."""
        ones = np.ones(self.n_units, dtype=np.int64)
        return self._count(ones, self.first.sizes, self.columns.sizes)

    def totals(self, weights: NDArray[np.integer[Any]]) -> tuple[int, int]:
        """Genuine and impostor pairs where unit u was drawn weights[u] times.

        A genuine pair counts as often as its identity was drawn; copies of an identity are no pair.
        An impostor pair counts as often as both its units were drawn together, the product.
        """
        return self._count(weights, self.first.all_sizes, self.columns.all_sizes)

    def _count(
        self, weights: NDArray[Any], a: NDArray[np.int64], b: NDArray[np.int64]
    ) -> tuple[int, int]:
        # Pairs are counted unit by unit: w_u · own_u within units, Σ (w a)(w b) between them.
        k = self.n_identities
        own = a * (a - 1) // 2 if self.second is None else a * b
        genuine = int(weights[:k] @ own[:k])
        wa, wb = weights * a, weights * b
        labelled = int(wa[:k].sum()) * int(wb[:k].sum()) - int(wa[:k] @ wb[:k])
        mixed = int(wa[:k].sum()) * int(wb[k:].sum())
        if self.second is None:
            return genuine, labelled // 2 + mixed
        return genuine, labelled + mixed + int(wa[k:].sum()) * int(wb[:k].sum())

    @property
    def left_out(self) -> int:
        """Pairs of two distractors."""
        k = self.n_identities
        n, m = (int(side.all_sizes[k:].sum()) for side in (self.first, self.columns))
        return n * (n - 1) // 2 if self.second is None else n * m

    def blocks(self, side: int, height: int | None = None) -> Iterator[tuple[slice, slice]]:
        """(rows, columns) of all blocks; in unordered pairs columns start with the rows.

        Blocks have `side` columns, and as many rows unless `height` says another number.
        """
        height = side if height is None else height
        labelled, m = self.first.n_labelled, len(self.first.rows)
        if self.second is None:
            for top in range(0, labelled, height):
                rows = slice(top, min(top + height, labelled))
                for left in range(top, m, side):
                    yield rows, slice(left, min(left + side, m))
            return
        parts = ((0, labelled, len(self.second.rows)), (labelled, m, self.second.n_labelled))
        for begin, end, width in parts:
            for top in range(begin, end, height):
                for left in range(0, width, side):
                    yield (
                        slice(top, min(top + height, end)),
                        slice(left, min(left + side, width)),
                    )

    @cached_property
    def _ranges(self) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """For each row of `first`, where the columns of its identity begin and end."""
        units = self.first.units
        starts = np.searchsorted(self.columns.units, units, side="left")
        ends = np.searchsorted(self.columns.units, units, side="right")
        if self.second is None:
            starts = np.maximum(starts, np.arange(len(units)) + 1)
        return starts, ends

    def genuine_of(
        self, rows: slice, columns: slice
    ) -> tuple[NDArray[np.int64], NDArray[np.int32]]:
        """The genuine pairs of a block: positions in the flattened block, and their units."""
        # Rows are sorted by unit, so each row's genuine columns are one run: [starts, ends).
        starts, ends = self._ranges
        low = np.maximum(starts[rows], columns.start)
        counts = np.maximum(np.minimum(ends[rows], columns.stop) - low, 0)
        row = np.repeat(np.arange(rows.stop - rows.start), counts)
        nth = np.arange(len(row)) - np.repeat(np.cumsum(counts) - counts, counts)
        column = np.repeat(low, counts) + nth - columns.start
        return row * (columns.stop - columns.start) + column, self.first.units[rows][row]


def make_pairs(
    descriptors: NDArray[np.float32],
    has_direction: NDArray[np.bool_],
    codes: NDArray[np.int64],
    n_identities: int,
    second: tuple[NDArray[np.float32], NDArray[np.bool_], NDArray[np.int64]] | None = None,
) -> Pairs:
    """The pairs of checked descriptors; codes as `identity_codes` gives them, −1 a distractor."""
    sides = [(descriptors, has_direction, codes), *([] if second is None else [second])]
    n_distractors = [int(np.count_nonzero(c < 0)) for _, _, c in sides]
    n_units = n_identities + sum(n_distractors)
    made, number = [], n_identities
    for (rows, directed, code), n in zip(sides, n_distractors, strict=True):
        units = code.copy()
        units[code < 0] = np.arange(number, number + n)
        number += n
        order = np.argsort(units, kind="stable")
        order = order[directed[order]]
        made.append(
            Side(
                np.ascontiguousarray(rows[order]),
                units[order].astype(np.int32),
                int(np.count_nonzero(code[order] >= 0)),
                np.bincount(units[order], minlength=n_units),
                np.bincount(units, minlength=n_units),
            )
        )
    return Pairs(made[0], made[1] if second is not None else None, n_identities)
