"""Tables of text for the terminal: aligned, coloured there, plain where piped."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable, Sequence
from typing import Any

from vidface.core.values import printable

WIDTH = 200  # columns; in a narrow terminal a line may wrap, but no figure is ever cut short


def render(*parts: Any) -> str:
    """Rich renderables and texts, printable, as text; escape codes only on a terminal."""
    from rich.console import Console

    terminal = sys.stdout.isatty()
    console = Console(
        width=WIDTH,
        force_terminal=terminal,
        no_color=not terminal or bool(os.environ.get("NO_COLOR")),  # https://no-color.org
        highlight=False,
        markup=False,
        soft_wrap=True,
    )
    with console.capture() as capture:
        for part in parts:
            console.print(printable(part) if isinstance(part, str) else part)
    return "\n".join(line.rstrip() for line in capture.get().rstrip("\n").splitlines())


def grid(
    columns: Sequence[str],
    rows: Iterable[Sequence[str]],
    *,
    best: int | None = None,
    text: Sequence[str] = (),
    styles: Sequence[str | None] = (),
) -> Any:
    """A plain table: the first column and `text` to the left, numbers to the right.

    The row `best` is emphasised; `styles` are the rows' colours. Both are seen on a terminal only.
    """
    from rich import box
    from rich.table import Table

    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, padding=(0, 1, 0, 0), header_style="bold")
    for number, column in enumerate(columns):
        table.add_column(
            column, justify="left" if number == 0 or column in text else "right", no_wrap=True
        )
    for number, row in enumerate(rows):
        cells = [printable(" ".join(cell.splitlines())) for cell in row]
        own = styles[number] if number < len(styles) else None
        table.add_row(*cells, style="bold green" if number == best else own)
    return table
