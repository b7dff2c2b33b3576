"""The table of pipelines/README.md, written from the settings' own words.

    python -m vidface.settings.document pipelines/README.md

replaces what stands between the two marks in that file.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from vidface.core.errors import VidfaceError
from vidface.core.settings import SettingField, settings_of, table_settings
from vidface.settings.pipeline import Published
from vidface.settings.tables import TABLES

BEGIN = "<!-- settings: written from their fields by a command, not by hand -->\n"
END = "<!-- end of settings -->\n"


def settings_markdown(tables: Mapping[str, Sequence[SettingField]]) -> str:
    """A Markdown table of settings: a row a key, `[table]` before the first of its keys."""
    lines = ["| table | key | default | meaning | flag |", "|---|---|---|---|---|"]
    for table, fields in tables.items():
        for number, field in enumerate(fields):
            cells = (
                f"`{table}`" if number == 0 else "",
                f"`{field.name}`",
                _default_cell(field),
                field.text + (f" In {field.unit}." if field.unit else ""),
                f"`{field.flag}`" if field.flag else "",
            )
            lines.append("| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |")
    return "\n".join(lines) + "\n"


def pipeline_markdown() -> str:
    """The table of all keys of a pipeline file."""
    tables = {f"[{name}]": table_settings(kind) for name, kind in TABLES.items()}
    published = settings_of(Published)
    return settings_markdown({**tables, "[[published]]": published})


def _default_cell(field: SettingField) -> str:
    """A default as TOML writes it, or the words that stand for it."""
    shown = field.shown_default
    if field.default_text is not None or not shown:
        return shown
    return f'`"{shown}"`' if isinstance(field.default, str) else f"`{shown}`"


def replace_table(text: str, table: str) -> str:
    """A document with another table between its marks.

    Raises:
        VidfaceError: it has no marks.

    >>> replace_table("a\\n" + BEGIN + "old\\n" + END + "b\\n", "new\\n").split("\\n")[2]
    'new'
    """
    before, begin, rest = text.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        raise VidfaceError(f"no place for the table: put it between {BEGIN!r} and {END!r}")
    return before + BEGIN + table + END + after


if __name__ == "__main__":
    document = Path(sys.argv[1])
    text = replace_table(document.read_text(encoding="utf-8"), pipeline_markdown())
    document.write_text(text, encoding="utf-8")
