import io
import json
import tarfile
import time
from dataclasses import FrozenInstanceError
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vidface.core.errors import VidfaceError
from vidface.noise import truth
from vidface.noise.truth import NoiseRemoval, precision_recall, read_truth
from vidface.runs.columns import embeddings_schema

FILES = "clip_id,file,kind\na,0.jpg,own\na,1.jpg,other person\nb,0.jpg,no face\nb,1.jpg,own\n"
FRAMES = "clip_id,frame_index,noise\na,0,0\na,1,1\nb,0,1\nb,1,0\n"


def written(folder, text, name="truth.csv"):
    path = folder / name
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return path


def faces(*rows, column="frame_index"):
    """An embeddings table of (clip_id, frame) rows, with the artefact's own types."""
    schema = embeddings_schema(2)
    values = {"clip_id": [row[0] for row in rows], column: [row[1] for row in rows]}
    columns = [pa.array(values.get(field.name, [None] * len(rows)), field.type) for field in schema]
    return pa.Table.from_arrays(columns, schema=schema)


def refused(folder, text, message):
    path = written(folder, text)
    with pytest.raises(VidfaceError, match=message) as error:
        read_truth(path)
    assert str(path) in str(error.value)


def test_two_clips_by_file(tmp_path):
    known = read_truth(written(tmp_path, FILES))
    assert str(known) == "Truth(truth.csv: 4 frames, 2 of them noise)"
    # Two faces in a/1.jpg, none in b/0.jpg; the order is the table's.
    table = faces(("b", "1.jpg"), ("a", "1.jpg"), ("a", "1.jpg"), ("a", "0.jpg"), column="file")
    noise = known.noise_of(table)
    assert noise.tolist() == [False, True, True, False]
    assert noise.dtype == np.bool_
    # The artefact may know more of the path than the truth does, and the other way round.
    deep = faces(("b", "x/y/1.jpg"), ("a", "a/1.jpg"), column="file")
    assert known.noise_of(deep).tolist() == [False, True]
    deep_truth = read_truth(written(tmp_path, FILES.replace(",0.jpg", ",k/0.jpg")))
    assert deep_truth.noise_of(faces(("b", "0.jpg"), column="file")).tolist() == [True]
    assert known.noise_of(table.slice(0, 0)).shape == (0,)
    chunked = pa.concat_tables([table, table.slice(1, 2)])
    assert known.noise_of(chunked).tolist() == [False, True, True, False, True, True]


def test_two_clips_by_frame(tmp_path):
    known = read_truth(written(tmp_path, FRAMES))
    table = faces(("b", 0), ("b", 1), ("a", 1), ("a", 0))
    assert known.noise_of(table).tolist() == [True, False, True, False]


def test_columns_in_any_order_blank_lines_bom_and_spaces(tmp_path):
    text = '\ufeffkind , frame_index,clip_id\r\n\r\n own,07, a\r\n"no, face",8,a\r\n\r\n'
    known = read_truth(written(tmp_path, text))
    assert known.noise_of(faces(("a", 7), ("a", 8))).tolist() == [False, True]


def test_what_the_truth_does_not_know(tmp_path):
    known = read_truth(written(tmp_path, FILES))
    table = faces(("a", "0.jpg"), ("b", "7.jpg"), ("c", "0.jpg"), column="file")
    with pytest.raises(
        VidfaceError, match=r"nothing of 2 of 3 faces.*clip 'b', file 7\.jpg"
    ) as error:
        known.noise_of(table)
    assert str(tmp_path) in str(error.value)
    frames = read_truth(written(tmp_path, FRAMES))
    with pytest.raises(VidfaceError, match="1 of 2 faces; the first is of clip 'a', frame_index 2"):
        frames.noise_of(faces(("a", 0), ("a", 2)))
    # A video has no files; a frame number is what its truth must go by.
    with pytest.raises(VidfaceError, match=r"clip 'b' has none \(2 of 2 faces\)"):
        known.noise_of(faces(("b", 0), ("b", 1)))
    with pytest.raises(VidfaceError, match="no column 'file'"):
        known.noise_of(faces(("b", 0)).drop_columns(["file"]))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "line 1: the header must name clip_id, one of file .* it names nothing"),
        ("clip_id,file,kind\n\n", "no frames below the header"),
        ("clip_id,file\na,1", "line 1: the header"),
        ("clip_id,kind\na,own", "line 1: the header"),
        ("file,kind\na,own", "line 1: the header"),
        ("clip_id,file,frame_index,kind\na,1,1,own", "line 1: the header"),
        ("clip_id,file,kind,noise\na,1,own,0", "line 1: the header"),
        ("clip_id,file,kind,box\na,1,own,0", "line 1: .* nothing else; it names .*,box"),
        ("clip_id,file,kind,kind\na,1,own,own", "line 1: the header"),
        ("clip_id,clip_id,file,kind\na,a,1,own", "line 1: the header"),
        ("clip_id,file,kind\na,1,own\n\na,2", "line 4: 2 fields where the header has 3"),
        ("clip_id,file,kind\na,1,own,x", "line 2: 4 fields"),
        ("clip_id,file,kind\n,1,own", "line 2: empty clip_id"),
        ("clip_id,file,kind\na,,own", "line 2: file '' names no file"),
        ("clip_id,file,kind\na,x/,own", "line 2: file 'x/' names no file"),
        ("clip_id,file,kind\na,1,", "line 2: kind '': write 'own'"),
        ("clip_id,file,kind\na,1,Own", "line 2: kind 'Own': write 'own'"),
        ("clip_id,file,noise\na,1,2", "line 2: noise '2' is neither 0 nor 1"),
        ("clip_id,file,noise\na,1,", "line 2: noise ''"),
        ("clip_id,file,noise\na,1,True", "line 2: noise 'True'"),
        ("clip_id,frame_index,kind\na,-1,own", "line 2: frame_index '-1' is not a whole"),
        ("clip_id,frame_index,kind\na,1.0,own", "line 2: frame_index"),
        ("clip_id,frame_index,kind\na,,own", "line 2: frame_index"),
        ("clip_id,frame_index,kind\na,²,own", "line 2: frame_index"),
        ("clip_id,frame_index,kind\na,2147483648,own", "line 2: frame_index"),
        (
            "clip_id,file,kind\na,1,own\nb,1,own\na,1,no face",
            "line 4: .*'a', file 1 stands on line 2",
        ),
        ("clip_id,frame_index,kind\na,1,own\na,01,own", "line 3: .*frame_index 1 stands on line 2"),
        ("clip_id,file,kind\na,k/1,own\na,1,own", "line 3: .*stands on line 2 already"),
        ('clip_id,file,kind\na,1,own\na,"2,own', "line 3: unexpected end of data"),
        (b"clip_id,file,kind\na,1,own\na,\xff,own", "line 3: not UTF-8"),
        ('clip_id,file,kind\na,1,"two\nlines"\na,2', "line 4: 2 fields"),
        ('clip_id,file,kind\na,,"two\nlines"\n', "line 2: file ''"),
    ],
)
def test_a_wrong_line_is_named(tmp_path, text, message):
    refused(tmp_path, text, message)


def test_the_largest_frame_index(tmp_path):
    known = read_truth(written(tmp_path, "clip_id,frame_index,noise\na,2147483647,1\n"))
    assert known.noise_of(faces(("a", 2147483647))).tolist() == [True]


@pytest.fixture
def archive(tmp_path):
    path = tmp_path / "clips.tar"
    with tarfile.open(path, "w") as tar:
        for name, data in [("set/truth.csv", FILES), ("set/a/0.jpg", "no picture")]:
            info = tarfile.TarInfo(f"./{name}")
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data.encode()))
        link = tarfile.TarInfo("set/link.csv")
        link.type, link.linkname = tarfile.SYMTYPE, "/etc/passwd"
        tar.addfile(link)
    return path


def test_a_truth_in_a_tar_is_read_in_place(archive, tmp_path):
    before = sorted(tmp_path.rglob("*"))
    known = read_truth(archive / "set" / "truth.csv")
    assert known.noise == read_truth(written(tmp_path, FILES, "plain.csv")).noise
    assert known.path == archive / "set" / "truth.csv"
    assert read_truth(str(archive / "set" / "truth.csv")) == known
    (tmp_path / "plain.csv").unlink()
    assert sorted(tmp_path.rglob("*")) == before


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("set/other.csv", "no file 'set/other.csv' in .*clips.tar"),
        ("set", "no file 'set' in"),
        ("set/link.csv", "no file"),
        ("../truth.csv", "no file"),
        ("set/truth.csv/more", "no file"),
    ],
)
def test_what_the_tar_does_not_hold(archive, name, message):
    with pytest.raises(VidfaceError, match=message):
        read_truth(archive / name)


def test_places_that_hold_no_truth(archive, tmp_path):
    for place, message in [
        (tmp_path / "none.csv", "no such file"),
        (tmp_path, "is a folder"),
        (tmp_path / "a\0b", "null byte|no such file"),
        (tmp_path / ("x" * 5000), "too long"),
    ]:
        with pytest.raises(VidfaceError, match=message):
            read_truth(place)
    packed = tmp_path / "packed.tar"
    packed.write_bytes(b"\x1f\x8b" + bytes(2000))
    with pytest.raises(VidfaceError, match=r"truth .*packed\.tar/t\.csv: .*uncompressed tar"):
        read_truth(packed / "t.csv")
    whole = archive.read_bytes()
    archive.write_bytes(whole[:700])  # it ends inside the truth
    with pytest.raises(VidfaceError, match=r"truth .*truth\.csv: "):
        read_truth(archive / "set" / "truth.csv")


def test_size_is_limited_by_the_byte(archive, tmp_path, monkeypatch):
    path = written(tmp_path, FILES)
    monkeypatch.setattr(truth, "MOST_BYTES", len(FILES))
    assert read_truth(path).noise == read_truth(archive / "set" / "truth.csv").noise
    monkeypatch.setattr(truth, "MOST_BYTES", len(FILES) - 1)
    for place in (path, archive / "set" / "truth.csv"):
        with pytest.raises(VidfaceError, match="more than"):
            read_truth(place)


def test_the_demos_own_truth(tmp_path):
    from vidface.demo.plan import DemoPlan, plan_clips
    from vidface.demo.preparation import _csv, _truth_rows

    clips = plan_clips(DemoPlan(), 0)
    path = tmp_path / "truth.csv"
    path.write_text(_csv(_truth_rows(clips)))
    known = read_truth(path)
    segment = clips[0].segments[0]
    table = faces((clips[0].clip_id, segment.start))
    assert known.noise_of(table).tolist() == [segment.kind != "own"]
    own = sum(s.stop - s.start for c in clips for s in c.segments if s.kind == "own")
    assert list(known.noise.values()).count(False) == own


def test_the_noisy_faces_of_real_clips(data: Path):
    known = read_truth(data / "images" / "ytf_noisy112.tar" / "ytf_noisy112" / "truth.csv")
    assert len(known.noise) == 4664
    assert sum(known.noise.values()) == 386 + 183 + 770  # no face, occluded, other person
    rows = [("Abdullah_Gul.clip1", f"{k:03}.jpg") for k in range(8)]
    expected = [False, False, True, True, True, False, False, False]
    assert known.noise_of(faces(*rows, column="file")).tolist() == expected


def test_a_hundred_thousand_faces_take_no_time(tmp_path):
    lines = [f"clip{i // 100},{i % 100},{i % 7 == 0:d}" for i in range(100_000)]
    known = read_truth(written(tmp_path, "\n".join(["clip_id,frame_index,noise", *lines])))
    table = faces(*((f"clip{i // 100}", i % 100) for i in range(100_000)))
    began = time.perf_counter()
    noise = known.noise_of(table)
    assert time.perf_counter() - began < 5  # 0.1 s; a scan for each face would take hours
    assert (noise == (np.arange(100_000) % 7 == 0)).all()


def test_precision_and_recall_by_eye():
    # Dropped 4, noise 3, both 2.
    dropped = np.array([1, 1, 1, 1, 0, 0, 0], dtype=bool)
    noise = np.array([0, 0, 1, 1, 1, 0, 0], dtype=bool)
    found = precision_recall(dropped, noise)
    assert found == NoiseRemoval(dropped=4, noise=3, both=2)
    assert found.precision == 0.5
    assert found.recall == 2 / 3
    assert json.loads(json.dumps(found.to_dict())) == {
        "dropped": 4,
        "noise": 3,
        "both": 2,
        "precision": 0.5,
        "recall": 2 / 3,
    }
    with pytest.raises(FrozenInstanceError):
        found.both = 3


def test_precision_and_recall_that_do_not_exist():
    yes, no = np.ones(2, dtype=bool), np.zeros(2, dtype=bool)
    assert (precision_recall(no, yes).precision, precision_recall(no, yes).recall) == (None, 0.0)
    assert (precision_recall(yes, no).precision, precision_recall(yes, no).recall) == (0.0, None)
    assert precision_recall(no[:0], no[:0]) == NoiseRemoval(0, 0, 0)
    assert precision_recall(no, no).to_dict()["recall"] is None


def test_precision_and_recall_want_bools():
    yes = np.ones(2, dtype=bool)
    for dropped, noise in [(yes, yes[:1]), (yes.astype(int), yes), (yes, yes.astype(int))]:
        with pytest.raises(VidfaceError, match=r"must be \(n,\) bool"):
            precision_recall(dropped, noise)
    with pytest.raises(VidfaceError, match=r"must be \(n,\) bool"):
        precision_recall(yes[None], yes[None])


@given(st.lists(st.tuples(st.booleans(), st.booleans()), max_size=30))
@settings(deadline=None)
def test_precision_and_recall_equal_scikit_learn(pairs):
    from sklearn.metrics import precision_score, recall_score

    dropped, noise = np.array(pairs, dtype=bool).reshape(-1, 2).T
    found = precision_recall(dropped, noise)
    if dropped.any():
        assert found.precision == precision_score(noise, dropped, zero_division=0)
    if noise.any():
        assert found.recall == recall_score(noise, dropped, zero_division=0)
    assert (found.precision is None, found.recall is None) == (not dropped.any(), not noise.any())
