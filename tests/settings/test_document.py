"""The table of settings in pipelines/README.md, and the words of every setting."""

from __future__ import annotations

from pathlib import Path

import pytest

from vidface.core.settings import table_settings
from vidface.settings.document import pipeline_markdown, replace_table
from vidface.settings.pipeline import load_pipeline
from vidface.settings.tables import TABLES, flag_keys

README = Path(__file__).parents[2] / "pipelines" / "README.md"


def test_the_table_is_that_of_the_settings() -> None:
    text = README.read_text(encoding="utf-8")
    how = "write it anew: python -m vidface.settings.document pipelines/README.md"
    assert replace_table(text, pipeline_markdown()) == text, how


@pytest.mark.parametrize("table", TABLES)
def test_every_key_has_a_sentence(table: str) -> None:
    for field in table_settings(TABLES[table]):
        assert field.help[0].isupper(), field.name
        assert field.help.endswith("."), field.name
        assert field.group, field.name


def test_no_two_keys_share_a_flag() -> None:
    fields = [field for kind in TABLES.values() for field in table_settings(kind)]
    assert len(flag_keys()) == sum(field.flag is not None for field in fields)


def test_every_default_is_read_from_a_file(tmp_path: Path) -> None:
    """What the documentation calls the default is the default, where it is a value."""
    lines = []
    for table, kind in TABLES.items():
        lines.append(f"[{table}]")
        for field in table_settings(kind):
            if field.default_text is None and field.shown_default:
                text = field.shown_default
                value = f'"{text}"' if isinstance(field.default, str) else text
                lines.append(f"{field.name} = {value}")
            elif field.name == "path":
                lines.append('path = "clips.csv"')
    file = tmp_path / "all.toml"
    file.write_text("\n".join(lines), encoding="utf-8")
    minimal = tmp_path / "minimal.toml"
    minimal.write_text('[manifest]\npath = "clips.csv"\n', encoding="utf-8")
    said, default = load_pipeline(file), load_pipeline(minimal)
    for table in TABLES:
        if table != "run":  # its directory is named after the file
            assert getattr(said, table) == getattr(default, table)
