from __future__ import annotations

import tarfile
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from vidface.core.clips import Clip
from vidface.core.errors import VidfaceError
from vidface.settings.doubles import warn_of_doubles
from vidface.settings.manifests import read_manifest, write_manifest

HEADER = "clip_id,path,identity,split\n"


def manifest_of(folder: Path, text: str, name: str = "m.csv") -> Path:
    path = folder / name
    path.write_text(text, encoding="utf-8", newline="")
    return path


@pytest.fixture
def clips(tmp_path: Path) -> Path:
    for name in ("a.mp4", "b.mp4", "c.mp4"):
        (tmp_path / name).write_bytes(b"x")
    (tmp_path / "images").mkdir()
    return tmp_path


def test_reads_what_it_says(clips: Path) -> None:
    text = HEADER.strip() + ",start_seconds,end_seconds,note\n"
    text += "one,a.mp4,ann,train,,,x\n\ntwo,b.mp4,,val,0.5,2,\n"
    manifest = read_manifest(manifest_of(clips, text))
    assert manifest.clips == (
        Clip("one", "a.mp4", "ann", "train", None, None, 2),
        Clip("two", "b.mp4", "", "val", 0.5, 2.0, 4),
    )
    assert manifest.splits == ("train", "val")
    assert [c.clip_id for c in manifest.of_split("val")] == ["two"]
    assert manifest.unused_columns == ("note",)
    assert str(manifest) == "Manifest(m.csv: 2 clips; train 1, val 1)"


def test_excel_and_quotes(clips: Path) -> None:
    path = clips / "m.csv"
    path.write_bytes(b"\xef\xbb\xbf" + HEADER.encode() + b'"a, ""b""",a.mp4,Zo\xc3\xab,val\r\n')
    [clip] = read_manifest(path).clips
    assert (clip.clip_id, clip.identity) == ('a, "b"', "Zoë")


@pytest.mark.parametrize("control", ["\x1b[31m", "\x07", "\x7f", "\x9b"])
@pytest.mark.parametrize("line", ["a{}b,a.mp4,ann,val", "one,a.mp4,a{}nn,val"])
def test_control_characters_are_refused(clips: Path, control: str, line: str) -> None:
    path = manifest_of(clips, HEADER + line.format(control) + "\n")
    with pytest.raises(VidfaceError, match=r"line 2: .* holds control characters") as caught:
        read_manifest(path)
    assert control not in str(caught.value)
    joined = line.format("\u200c")  # between letters of a Persian name
    assert read_manifest(manifest_of(clips, HEADER + joined + "\n")).clips


def test_lists_every_bad_line_at_once(clips: Path) -> None:
    text = HEADER
    text += "one,a.mp4,ann,train\n"  # line 2: fine
    text += "one,b.mp4,ann,val\n"  # 3: duplicated id
    text += ",c.mp4,ann,val\n"  # 4: no id
    text += "four,,ann,val\n"  # 5: no path
    text += "five,a.mp4,ann,Validation\n"  # 6: unknown split
    text += "six,a.mp4,ann\n"  # 7: too few fields
    with pytest.raises(VidfaceError) as caught:
        read_manifest(manifest_of(clips, text))
    message = str(caught.value)
    assert "5 problem(s)" in message
    for part in (
        "line 3: clip_id 'one' stands on line 2 already",
        "line 4: empty clip_id",
        "line 5: empty path",
        "line 6: unknown split 'Validation' (known: train, val, test, gallery, probe)",
        "line 7: 3 fields where the header has 4",
    ):
        assert part in message
    assert "line 2:" not in message


def test_missing_files_are_listed_or_kept(clips: Path) -> None:
    text = HEADER + "one,a.mp4,ann,train\ntwo,no.mp4,ann,val\nthree,gone/far,bob,val\n"
    path = manifest_of(clips, text)
    with pytest.raises(VidfaceError, match=r"line 3: .*'no.mp4'; line 4: .*--allow-missing"):
        read_manifest(path)
    manifest = read_manifest(path, allow_missing=True)
    assert manifest.missing == {"two", "three"}
    assert len(manifest.clips) == 3


def test_missing_files_and_other_problems_in_one_error(clips: Path) -> None:
    text = HEADER + "one,no.mp4,ann,train\none,a.mp4,ann,dev\none,b.mp4,ann,val\n"
    with pytest.raises(VidfaceError) as caught:
        read_manifest(manifest_of(clips, text))
    for part in (
        "line 2: no file",
        "line 3: unknown split 'dev'",
        "line 3: clip_id 'one'",
        "line 4:",
    ):
        assert part in str(caught.value)


def test_files_are_looked_for_only_where_they_are_needed(clips: Path) -> None:
    path = manifest_of(clips, HEADER + "one,no.mp4,ann,train\n")
    assert read_manifest(path, clips / "no.tar", check_files=False).splits == ("train",)


def test_long_lists_are_cut(clips: Path) -> None:
    text = HEADER + "".join(f"c{i},no{i}.mp4,,val\n" for i in range(30))
    with pytest.raises(VidfaceError, match=r"30 problem.*; and more on lines 22–31"):
        read_manifest(manifest_of(clips, text))


@pytest.mark.parametrize(
    ("times", "message"),
    [
        ("soon,", "line 2: start_seconds 'soon'"),
        ("-1,", "line 2: start_seconds '-1'"),
        (",nan", "line 2: end_seconds 'nan'"),
        ("2,2", "line 2: end_seconds must lie after start_seconds"),
        (",0", "line 2: end_seconds must lie after"),
    ],
)
def test_wrong_times(clips: Path, times: str, message: str) -> None:
    text = HEADER.strip() + ",start_seconds,end_seconds\n" + f"one,a.mp4,,val,{times}\n"
    with pytest.raises(VidfaceError, match=message):
        read_manifest(manifest_of(clips, text))


def test_times_are_for_videos(clips: Path) -> None:
    text = HEADER.strip() + ",start_seconds\none,images,,val,1\n"
    with pytest.raises(VidfaceError, match="line 2: start_seconds and end_seconds are for videos"):
        read_manifest(manifest_of(clips, text))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "line 1: missing columns clip_id, path, identity, split"),
        (b"clip_id,path,split\na,a.mp4,val\n", "missing columns identity"),
        (b"clip_id;path;identity;split\n", "use commas"),
        (HEADER.encode(), "no clips"),
        (b"clip_id,clip_id,path,identity,split\n", "column clip_id stands twice"),
        (HEADER.encode() + b"a,\xff\xfe,x,val\n", "line 2: not UTF-8"),
        (HEADER.encode() + b'a,"a.mp4,x,val\n', "line 2: unexpected end of data"),
        (HEADER.encode() + b"a," + b"x" * 200_000 + b",x,val\n", "line 2: field larger"),
    ],
)
def test_unreadable(tmp_path: Path, content: bytes, message: str) -> None:
    path = tmp_path / "m.csv"
    path.write_bytes(content)
    with pytest.raises(VidfaceError, match=message):
        read_manifest(path)


def test_absent_manifest_or_root(tmp_path: Path) -> None:
    with pytest.raises(VidfaceError, match="No such file"):
        read_manifest(tmp_path / "no.csv")
    with pytest.raises(VidfaceError, match="is a folder; `vidface init"):
        read_manifest(tmp_path)
    path = manifest_of(tmp_path, HEADER + "a,a.mp4,,val\n")
    with pytest.raises(VidfaceError, match="no such folder or tar"):
        read_manifest(path, tmp_path / "nowhere")


def test_hash_of_clips_ignores_names_and_splits(clips: Path) -> None:
    def hashed(line: str) -> str:
        return read_manifest(manifest_of(clips, HEADER + line)).clips_sha256

    same = hashed("one,a.mp4,ann,train\n")
    assert hashed("one,a.mp4,bob,val\n") == same
    assert hashed("one,b.mp4,ann,train\n") != same
    assert hashed("eins,a.mp4,ann,train\n") != same


def test_root_may_be_a_tar(clips: Path) -> None:
    archive = clips / "all.tar"
    with tarfile.open(archive, "w") as file:
        file.add(clips / "a.mp4", "deep/a.mp4")
    path = manifest_of(clips, HEADER + "one,deep/a.mp4,,val\ntwo,deep/b.mp4,,val\n")
    with pytest.raises(VidfaceError, match=r"line 3: no file or folder 'deep/b.mp4'"):
        read_manifest(path, archive)


def touch(folder: Path, *names: str) -> None:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(b"x")


def test_a_name_that_is_not_utf8(tmp_path: Path) -> None:
    bad = Clip("a", "caf\udce9.mp4", "", "val")
    with pytest.raises(VidfaceError, match=r"caf\\udce9\.mp4'?: a file name that is not UTF-8"):
        write_manifest([bad], tmp_path / "m.csv")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", ["a\x1b[31m/1.mp4", " 1.mp4", "a/1.jpg "])
def test_a_name_that_no_manifest_holds_is_not_written(name: str, tmp_path: Path) -> None:
    clip = Clip(name.strip().replace("/", "."), name, name.strip().partition("/")[0], "val")
    with pytest.raises(VidfaceError, match=r"(control characters|white space).*; rename it"):
        write_manifest([clip], tmp_path / "m.csv")
    assert not (tmp_path / "m.csv").exists()


def test_written_manifest_is_read_back(tmp_path: Path) -> None:
    touch(tmp_path, "ann, jr/a.mp4", 'q"/b.mp4')
    clips = [
        Clip("a", "ann, jr/a.mp4", "ann, jr", "train", line=2),
        Clip('q"', 'q"/b.mp4', 'q"', "val", line=3),
    ]
    write_manifest(clips, tmp_path / "m.csv")
    assert list(read_manifest(tmp_path / "m.csv").clips) == clips


ROWS: list[dict[str, Any]] = [
    {"clip_id": "one", "path": "a.mp4", "identity": "ann", "split": "train", "note": 1},
    {"clip_id": 2, "path": Path("b.mp4"), "identity": None, "split": "val", "end_seconds": 2.5},
]


class DataFrame:
    """All that vidface knows of pandas' and Polars' tables."""

    def __init__(self, **columns: Any) -> None:
        self._table = pa.table(columns)

    def __arrow_c_stream__(self, requested_schema: object = None) -> object:
        return self._table.__arrow_c_stream__(requested_schema)


FRAME = {
    "clip_id": pa.array(["one", "2"]).dictionary_encode(),  # a categorical column
    "path": ["a.mp4", "b.mp4"],
    "identity": ["ann", None],
    "split": ["train", "val"],
    "end_seconds": [float("nan"), 2.5],
    "note": [1, None],
    "__index_level_0__": [8, 9],  # what pandas makes of an index
}


@pytest.mark.parametrize(
    "table", [ROWS, pa.table(FRAME), DataFrame(**FRAME), pa.table(FRAME).to_reader(), FRAME]
)
def test_a_table_is_a_manifest(clips: Path, monkeypatch: pytest.MonkeyPatch, table: object) -> None:
    monkeypatch.chdir(clips)
    manifest = read_manifest(table)
    assert manifest.clips == (
        Clip("one", "a.mp4", "ann", "train", None, None, 0),
        Clip("2", "b.mp4", "", "val", None, 2.5, 1),
    )
    assert manifest.unused_columns == ("note",)
    assert (manifest.root_location, manifest.in_memory) == (clips, True)
    assert len(manifest.sha256) == 64
    assert str(manifest) == "Manifest(in memory: 2 clips; train 1, val 1)"
    csv = read_manifest(manifest_of(clips, HEADER + "one,a.mp4,ann,train\n2,b.mp4,,val\n"))
    assert not csv.in_memory


def test_rows_are_named_by_their_number(clips: Path) -> None:
    rows = [{**ROWS[0], "clip_id": str(k)} for k in range(4)]
    rows[3] |= {"clip_id": "1", "split": "dev", "end_seconds": -1}
    rows[2]["path"] = "z.mp4"
    del rows[0]["path"]
    with pytest.raises(VidfaceError) as caught:
        read_manifest(rows, clips)
    said = str(caught.value)
    assert said.startswith("manifest in memory (paths start at ")
    assert "): 5 problem(s): row 0: empty path; row 2: " in said
    assert "row 3: unknown split 'dev'" in said
    assert "row 3: clip_id '1' stands in row 1 already" in said
    assert "row 3: end_seconds '-1' is not a number" in said
    assert "; rows are counted from 0" in said
    same = [ROWS[0], {**ROWS[0], "clip_id": "x", "split": "val"}]
    [warning] = warn_of_doubles(read_manifest(same, clips))
    assert "(row 0: train, 'ann') and 'a.mp4' (row 1: val, 'ann')" in warning


@pytest.mark.parametrize(
    ("table", "message"),
    [
        ([], "no rows; each needs clip_id,path,identity,split"),
        (pa.table(FRAME).slice(0, 0), "manifest in memory: no clips$"),
        (pa.table(FRAME).drop(["split"]), "in memory: missing columns split"),
        (pa.table([["a"]] * 5, names=[*HEADER.strip().split(","), "path"]), "path stands twice"),
        (3, "want a path, a list of dicts or a DataFrame .*, not this int"),
        ([("one", "a.mp4")], "not this list"),
        (None, "not this NoneType"),
    ],
)
def test_what_is_no_table(table: object, message: str) -> None:
    with pytest.raises(VidfaceError, match=message):
        read_manifest(table)
