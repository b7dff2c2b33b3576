"""Long lists of pairs whose lines all look alike, read in batches by pyarrow.

`vidface.datasets.pair_lists` defines what a list means; this gives the same or declines.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vidface.datasets.lines import LONGEST_LINE_BYTES, parse_whole_number
from vidface.datasets.pair_layout import PairColumns, PairLayout, parse_same

_BATCH_BYTES = 2**22


def read_alike_lines(
    path: Path, layout: PairLayout, index: dict[str, int] | None
) -> PairColumns | None:
    """What `_read_lines` gives, for a list whose lines all look alike; None for any other.

    A file with a quote or a carriage return is not for this.
    """
    import pyarrow as pa
    import pyarrow.compute as arrow_compute
    from pyarrow import csv as arrow_csv

    numbering = _FastNames(index, words=layout.separator != ",")
    first, second, same, folds = [], [], [], []
    columns = [str(i) for i in range(layout.width)]
    try:
        with path.open("rb") as file:
            file.seek(layout.data_start)
            batches = arrow_csv.open_csv(
                file,
                read_options=arrow_csv.ReadOptions(column_names=columns, block_size=_BATCH_BYTES),
                parse_options=arrow_csv.ParseOptions(
                    delimiter=layout.separator, quote_char=False, double_quote=False
                ),
                convert_options=arrow_csv.ConvertOptions(
                    column_types={column: pa.string() for column in columns},
                    strings_can_be_null=False,
                ),
            )
            for batch in batches:
                lengths = [arrow_compute.binary_length(column) for column in batch.columns]
                longest = sum(arrow_compute.max(length).as_py() or 0 for length in lengths)
                pair = numbering.indices(batch.column(layout.first), batch.column(layout.second))
                is_same = _mapped(batch.column(layout.same), parse_same)
                if longest + layout.width > LONGEST_LINE_BYTES or pair is None or is_same is None:
                    return None
                first.append(pair[0])
                second.append(pair[1])
                same.append(is_same.astype(np.bool_))
                if layout.fold is not None:
                    fold = _mapped(batch.column(layout.fold), parse_whole_number)
                    if fold is None:
                        return None
                    folds.append(fold)
    except (pa.ArrowException, OSError):
        return None
    if not first:
        return None
    return (
        np.concatenate(first, dtype=np.int64),
        np.concatenate(second, dtype=np.int64),
        np.concatenate(same),
        None if layout.fold is None else np.concatenate(folds, dtype=np.int64),
        numbering.names,
    )


class _FastNames:
    """Names → indices for batches of pairs, numbered in order of first appearance."""

    def __init__(self, index: dict[str, int] | None, *, words: bool) -> None:
        self._words = words  # fields are separated by white space
        self._closed = index is not None
        self._index = {name: i for name, i in (index or {}).items() if self._is_plain(name)}
        self.names: list[str] = []

    def _is_plain(self, name: str) -> bool:
        """Whether reading line by line would leave the name as it is."""
        return name.split() == [name] if self._words else name != "" and name == name.strip()

    def indices(
        self, first: Any, second: Any
    ) -> tuple[NDArray[np.int32], NDArray[np.int32]] | None:
        """Of two columns of strings; None where a name is unknown, not plain or against itself."""
        start = len(self.names)
        fresh: list[str] = []

        def number(name: str) -> int | None:
            i = self._index.get(name)
            if i is None and not self._closed and self._is_plain(name):
                i = self._index[name] = start + len(fresh)
                fresh.append(name)
            return i

        a, b = _mapped(first, number), _mapped(second, number)
        if a is None or b is None or (a == b).any():
            return None
        if fresh:
            # The columns were numbered one after the other; lines count, and a comes before b.
            both = np.stack((a, b), axis=1).ravel()
            _, seen_at = np.unique(both[both >= start], return_index=True)
            order = np.argsort(seen_at)
            for new, old in enumerate(order.tolist(), start=start):
                self._index[fresh[old]] = new
                self.names.append(fresh[old])
            renumbered = np.arange(len(self.names), dtype=np.int32)
            renumbered[start + order] = np.arange(start, len(self.names))
            a, b = renumbered[a], renumbered[b]
        return a, b


def _mapped(column: Any, value_of: Any) -> NDArray[np.int32] | None:
    """A function of each string of a column, called once for each; None where it gives None."""
    encoded = column.dictionary_encode()
    values = [value_of(text) for text in encoded.dictionary.to_pylist()]
    if None in values:
        return None
    codes = encoded.indices.to_numpy(zero_copy_only=False)
    return np.array(values, dtype=np.int32)[codes]
