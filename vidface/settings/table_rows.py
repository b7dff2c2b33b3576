"""Tables that a program hands in: rows as dicts, or whatever gives Arrow its columns."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any

from vidface.core.errors import VidfaceError, first_line
from vidface.core.values import cell_text


def read_table_rows(table: Any, used: Collection[str]) -> tuple[list[str], list[list[str]]]:
    """The names of a table's columns, and of each row its cells as the texts of a CSV.

    Args:
        table: a list of dicts (a key that one lacks is an empty cell), or a data frame, an Arrow
            table or the like, which is read through `__arrow_c_stream__`.
        used: the columns that are wanted; the cells of others are left empty.

    Raises:
        VidfaceError: something else.
    """
    import pyarrow as pa

    rows: Iterable[Sequence[Any]]
    if isinstance(table, Sequence) and all(isinstance(row, Mapping) for row in table):
        keys = list(dict.fromkeys(key for row in table for key in row))
        header, rows = [str(key) for key in keys], ([row.get(key) for key in keys] for row in table)
    else:
        try:
            columns = pa.table(table)
        except (TypeError, ValueError, AttributeError, pa.ArrowException) as error:
            raise VidfaceError(
                "manifest: want a path, a list of dicts or a DataFrame (whatever has "
                f"__arrow_c_stream__), not this {type(table).__name__} ({first_line(error)})"
            ) from None
        # A data frame's own numbering of its rows is no column of the user's.
        names = columns.column_names
        kept = [i for i, name in enumerate(names) if not name.startswith("__index_level_")]
        header, unused = [names[i] for i in kept], [None] * len(columns)
        lists = [columns[i].to_pylist() if names[i] in used else unused for i in kept]
        rows = zip(*lists, strict=True)
    return header, [[cell_text(cell) for cell in row] for row in rows]
