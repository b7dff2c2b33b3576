"""Documents from strangers: numbers without end and nesting without end are one clear line."""

from __future__ import annotations

from pathlib import Path

import pytest

from vidface.core.errors import VidfaceError
from vidface.core.files import MOST_JSON_BYTES, read_json_object
from vidface.runs.artefacts import METADATA_KEY, read_provenance
from vidface.settings.pipeline import load_pipeline

DEEP = "[" * 3000 + "]" * 3000
LONG = "9" * 5000


@pytest.mark.parametrize(
    ("content", "why"),
    [
        ('{"a": ' + "[" * 100_000, "nested too deeply"),
        ('{"a": ' + LONG + "}", "limit"),
        ('{"a": NaN}', "NaN in it"),
        ("[1]", "not a JSON object"),
        ('{"a": 1', "no JSON"),
        ("\udcff", "no JSON"),
        ("", "no JSON"),
    ],
)
def test_a_document_that_vidface_did_not_write(tmp_path: Path, content: str, why: str) -> None:
    path = tmp_path / "profile.json"
    path.write_bytes(content.encode("utf-8", "surrogateescape"))
    with pytest.raises(VidfaceError, match=why) as caught:
        read_json_object(path)
    assert str(path) in str(caught.value)


def test_the_largest_document(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    path.write_bytes(b"{}" + b" " * (MOST_JSON_BYTES - 2))
    assert read_json_object(path) == {}
    with path.open("ab") as file:
        file.write(b" ")
    with pytest.raises(VidfaceError, match="larger than 64 MiB"):
        read_json_object(path)
    with pytest.raises(VidfaceError, match="cannot be read"):
        read_json_object(tmp_path / "none.json")


@pytest.mark.parametrize(
    "line",
    [f"fps = {LONG}", f"fps = {DEEP}", 'fps = "${BIG}"', 'fps = "${DEEP}"', f"fps = 1e{LONG}"],
)
def test_a_pipeline_with_endless_values(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, line: str
) -> None:
    monkeypatch.setenv("BIG", LONG)
    monkeypatch.setenv("DEEP", DEEP)
    path = tmp_path / "a.toml"
    path.write_text(f'[manifest]\npath = "m.csv"\n[frames]\n{line}\n')
    with pytest.raises(VidfaceError, match=r"not TOML|must be a number|fps"):
        load_pipeline(path)


def test_a_provenance_nested_without_end_is_none(tmp_path: Path) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    path = tmp_path / "clips.parquet"
    schema = pa.schema([("a", pa.int32())], metadata={METADATA_KEY: '{"settings":' + "[" * 100_000})
    pq.write_table(pa.table({"a": [1]}, schema=schema), path)
    with pytest.raises(VidfaceError, match="no vidface provenance"):
        read_provenance(path)
