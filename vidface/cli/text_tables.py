"""Tables of text for the terminal: aligned, coloured there, plain where piped.

A table fits the terminal, or 80 columns where it is piped: columns that it can spare are left out,
then names are cut in the middle. What people copy is never cut: it stands last in its row.
"""

from __future__ import annotations

import os
import shutil
import sys
import textwrap
from collections.abc import Iterable, Sequence
from typing import Any

from vidface.core.values import printable

_PIPED_WIDTH = 80  # columns
_LEAST_NAME = 8  # columns that a name keeps when it is cut
_FAIR_NAME = 16  # columns that a name keeps rather than a column that can be spared
_UNLIMITED = 10_000  # rich never cuts: grid has fitted a table, and no figure is cut short


def table_width() -> int:
    """Columns that a table may take: the terminal's, or 80 where it is piped."""
    if not sys.stdout.isatty():
        return _PIPED_WIDTH
    return shutil.get_terminal_size((_PIPED_WIDTH, 24)).columns


def wrap_lines(text: str) -> str:
    """Long lines broken between words on a terminal; one line stays one where it is piped."""
    if not sys.stdout.isatty():
        return text
    width = table_width()
    return "\n".join(
        textwrap.fill(line, width, subsequent_indent="  ", break_long_words=False,
                      break_on_hyphens=False)
        if len(line) > width else line
        for line in text.split("\n")
    )  # fmt: skip


def render(*parts: Any) -> str:
    """Rich renderables and texts, printable, as text; escape codes only on a terminal."""
    from rich.console import Console

    terminal = sys.stdout.isatty()
    console = Console(
        width=_UNLIMITED,
        force_terminal=terminal,
        no_color=not terminal or bool(os.environ.get("NO_COLOR")),  # https://no-color.org
        highlight=False,
        markup=False,
        soft_wrap=True,
    )
    with console.capture() as capture:
        for part in parts:
            console.print(wrap_lines(printable(part)) if isinstance(part, str) else part)
    return "\n".join(line.rstrip() for line in capture.get().rstrip("\n").splitlines())


def grid(
    columns: Sequence[str],
    rows: Iterable[Sequence[str]],
    *,
    best: int | None = None,
    text: Sequence[str] = (),
    styles: Sequence[str | None] = (),
    spare: Sequence[str] = (),
    whole: Sequence[str] = (),
) -> Any:
    """A plain table: the first column and `text` to the left, numbers to the right.

    The row `best` is emphasised; `styles` are the rows' colours. Both are seen on a terminal only.
    Where it is too wide, columns of `spare` go, in this order; then the first column and those of
    `text` are cut in the middle, but for those of `whole`.
    """
    from rich import box
    from rich.table import Table

    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, padding=(0, 1, 0, 0), header_style="bold")
    cells = [[printable(" ".join(cell.splitlines())) for cell in row] for row in rows]
    is_name = [number == 0 or column in text for number, column in enumerate(columns)]
    may_cut = [name and column not in whole for name, column in zip(is_name, columns, strict=True)]
    widths, left_out = _fit_columns(columns, cells, spare, may_cut)
    for column, name in zip(columns, is_name, strict=True):
        if column not in left_out:
            table.add_column(column, justify="left" if name else "right", no_wrap=True)
    for number, row in enumerate(cells):
        shown = [
            shorten_middle(cell, width) if cut else cell
            for cell, column, width, cut in zip(row, columns, widths, may_cut, strict=True)
            if column not in left_out
        ]
        style = styles[number] if number < len(styles) else None
        table.add_row(*shown, style="bold green" if number == best else style)
    if left_out:
        table.caption = f"left out: {', '.join(left_out)} (--json has all)"
        table.caption_justify, table.caption_style = "left", ""
    return table


def _fit_columns(
    columns: Sequence[str],
    cells: Sequence[Sequence[str]],
    spare: Sequence[str],
    may_cut: Sequence[bool],
) -> tuple[list[int], list[str]]:
    """How wide each column is to be, and the names of those that are left out."""
    from rich.cells import cell_len

    least = [cell_len(column) for column in columns]
    widths = [
        max([width, *(cell_len(row[number]) for row in cells)])
        for number, width in enumerate(least)
    ]
    # A column takes its cells and two blanks but for the last, the table a blank before them.
    excess = sum(widths) + 2 * len(widths) - 1 - table_width()
    cuttable = [number for number, cut in enumerate(may_cut) if cut]
    fair_cut = sum(max(0, widths[number] - max(_FAIR_NAME, least[number])) for number in cuttable)
    left_out: list[str] = []
    for name in spare:
        if excess <= fair_cut:
            break
        excess -= widths[columns.index(name)] + 2
        left_out.append(name)
    cuttable = [number for number in cuttable if columns[number] not in left_out]
    while excess > 0 and cuttable:
        widest = max(cuttable, key=lambda number: widths[number])
        if widths[widest] <= max(_LEAST_NAME, least[widest]):
            cuttable.remove(widest)
            continue
        widths[widest] -= 1
        excess -= 1
    return widths, left_out


def shorten_middle(text: str, width: int) -> str:
    """A text in at most `width` columns of a terminal: the middle of a longer one becomes `…`.

    >>> shorten_middle("a_long_name_0012", 9), shorten_middle("short", 9)
    ('a_lo…0012', 'short')
    """
    from rich.cells import cell_len

    if cell_len(text) <= width:
        return text
    head, tail = "", ""
    for number in range(len(text)):
        longer = (
            (head + text[len(head)], tail)
            if number % 2 == 0
            else (head, text[-len(tail) - 1] + tail)
        )
        if cell_len("".join(longer)) > width - 1:
            break
        head, tail = longer
    return f"{head}…{tail}"
