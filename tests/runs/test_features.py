"""Feature pickles as an extraction, against what Python's own unpickler says is in them."""

from __future__ import annotations

import hashlib
import pickle
import tracemalloc
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from vidface.core.errors import VidfaceError
from vidface.runs import artefacts, clip_extraction, extraction, features
from vidface.runs import run as run_module
from vidface.runs.columns import embeddings_schema
from vidface.runs.extraction import extract
from vidface.runs.features import extract_features
from vidface.runs.noise_removal import cluster
from vidface.runs.run import Run, open_run
from vidface.runs.scoring import score
from vidface.settings.pipeline import load_pipeline

Video = list[list[Any]]


def face(
    row: Any, frame: Any = b"12", quality: float = 9.5, box: Any = (1.0, 2.0, 30.25, 40.0)
) -> list[Any]:
    # Each face has a box of its own: a constant would be shared between videos.
    return [frame, tuple(map(float, box)), 0.75, quality, np.asarray(row, np.float16)]


def write(path: Path, videos: dict[str, Video]) -> Path:
    content = {name.encode(): video for name, video in videos.items()}
    path.write_bytes(pickle.dumps(content, protocol=2))
    return path


BY_EYE: dict[str, Video] = {
    "b.mp4": [
        face([3, 4], b"8"),
        face([0, 1], b"shot_07.jpg", quality=-5),
        face([5, 12], b"8", box=(0, 0, 9, 9)),
        face([0, 2], b"8"),
    ],
    "a.mp4": [face([1, 0], b"5")],
    "empty": [],
    "stranger": [face([0, 1])],
}
LINES = ("a,x.pickle,ann,train", "empty,x.pickle,ann,val", "b.mp4,x.pickle,bob,val",
         "lost,x.pickle,bob,val")  # fmt: skip


def made_run(folder: Path, *lines: str, more: str = "") -> Run:
    """The run of a manifest of features in `folder`; its artefacts go to `folder / "run"`."""
    text = "\n".join(["clip_id,path,identity,split", *(lines or LINES)])
    (folder / "manifest.csv").write_text(text, encoding="utf-8")
    (folder / "vidface.toml").write_text(
        '[manifest]\npath = "manifest.csv"\n[faces]\nsource = "features"\n[run]\ndir = "run"\n'
        f"[score]\nbootstrap = 0\n{more}",
        encoding="utf-8",
    )
    return open_run(load_pipeline(folder / "vidface.toml"))


@pytest.fixture
def run(tmp_path: Path) -> Run:
    write(tmp_path / "x.pickle", BY_EYE)
    return made_run(tmp_path)


def rows_of(run: Run) -> list[dict[str, Any]]:
    return [row for shard in run.shards() for row in shard.table.to_pylist()]


def test_an_artefact_by_eye(run: Run) -> None:
    done = extract(run)
    assert (done.clips, done.frames, done.faces, done.frames_without_face) == (4, 3, 5, 0)
    assert done.states == {"ok": 2, "no_face": 1, "missing": 1}
    assert done.failed == (("lost", "missing", "x.pickle: no video 'lost' in it"),)
    rows = rows_of(run)
    assert [row["clip_id"] for row in rows] == ["b.mp4"] * 4 + ["a"]  # the file's order
    assert [row["frame_index"] for row in rows] == [8, 7, 8, 8, 5]
    assert [row["face_index"] for row in rows] == [0, 0, 1, 2, 0]
    assert [row["file"] for row in rows] == [None, "shot_07.jpg", None, None, None]
    assert [row["norm"] for row in rows] == [5, 1, 13, 2, 1]
    assert [row["embedding"] for row in rows] == [[3, 4], [0, 1], [5, 12], [0, 2], [1, 0]]
    assert [row["quality"] for row in rows] == [9.5, -5, 9.5, 9.5, 9.5]
    assert [row["det_score"] for row in rows] == [0.75] * 5
    assert rows[0]["box"] == [1, 2, 30.25, 40]
    assert rows[2]["box"] == [0, 0, 9, 9]
    for name in ("time_seconds", "source_time_seconds", "landmarks"):
        assert [row[name] for row in rows] == [None] * 5
    clips = run.clips()
    assert clips["clip_id"].to_pylist() == ["a", "empty", "b.mp4", "lost"]  # the manifest's
    assert clips["state"].to_pylist() == ["ok", "no_face", "ok", "missing"]
    assert clips["faces"].to_pylist() == [1, 0, 4, 0]
    assert clips["frames"].to_pylist() == [1, 0, 2, 0]
    assert clips["message"].to_pylist()[1] == "x.pickle: no face of 'empty' in it"


def test_what_the_artefacts_say_of_the_file(run: Run, tmp_path: Path) -> None:
    extract(run)
    content = (tmp_path / "x.pickle").read_bytes()
    known = {"bytes": len(content), "sha256": hashlib.sha256(content).hexdigest()}
    table, made = run.folder.read_clips()
    assert made["features"] == {"x.pickle": known}
    assert artefacts.read_shard(run.folder.shard_paths[0])[1]["features"] == {"x.pickle": known}
    assert table["bytes"].to_pylist() == [len(content)] * 4
    assert run.weights_name == "x.pickle"
    assert made["settings"]["faces.source"] == "features"
    assert made["settings"]["backbone.weights_sha256"] is None


def test_no_recogniser_and_no_detector(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise AssertionError("features need no network")

    monkeypatch.setattr(clip_extraction, "open_backbone", refuse)
    monkeypatch.setattr(extraction, "weights_path", refuse)
    monkeypatch.setattr(run_module, "weights_sha256", refuse)
    extract(run)
    cluster(run, 0.4)
    result = score(run)
    assert result.retrieval is not None
    assert result.retrieval.identities == 2


def test_noise_removal_and_descriptors_whatever_the_order(tmp_path: Path) -> None:
    """The file's order is not the manifest's, and shards are of two clips."""
    rng = np.random.default_rng(0)
    videos = {f"v{k}": [face(rng.normal(size=8), b"%d" % i) for i in range(k % 4)]
              for k in range(23)}  # fmt: skip
    write(tmp_path / "x.pickle", videos)
    order = rng.permutation(23)
    run = made_run(tmp_path, *(f"v{k},x.pickle,p,val" for k in order))
    whole = extract(run)
    expected = cluster(run, None)
    assert whole.faces == sum(map(len, videos.values()))
    split = extract_features(run.manifest, run.folder, run.extraction_settings, shard_clips=2)
    assert split == whole
    assert len(run.folder.shard_paths) == 9  # 17 clips have faces
    found = cluster(run, None)
    assert np.array_equal(found.descriptors, expected.descriptors)
    for k, row in zip(order, found.descriptors, strict=True):
        faces = [f[4].astype(np.float64) for f in videos[f"v{k}"]]
        total = sum((f / np.linalg.norm(f) for f in faces), np.zeros(8))
        norm = np.linalg.norm(total)
        assert np.allclose(row, total / norm if norm else total, atol=1e-6)


def test_a_shard_ends_with_its_faces_or_its_clips(tmp_path: Path) -> None:
    write(tmp_path / "x.pickle", {f"v{k}": [face([1, k])] * 3 for k in range(8)})
    run = made_run(tmp_path, *(f"v{k},x.pickle,p,val" for k in range(8)))

    def lengths(**limits: int) -> list[int]:
        extract_features(run.manifest, run.folder, run.extraction_settings, **limits)
        return [len(shard.embeddings) for shard in run.shards()]

    assert lengths() == [24]
    assert lengths(shard_faces=6) == [6] * 4
    assert lengths(shard_faces=7) == [9, 9, 6]
    assert lengths(shard_clips=8) == [24]
    assert lengths(shard_clips=5) == [15, 9]
    assert lengths(shard_clips=1) == [3] * 8


def test_two_files_and_progress(tmp_path: Path) -> None:
    write(tmp_path / "x.pickle", {"a": [face([1, 0])], "b": []})
    write(tmp_path / "y.pickle", {"c": [face([0, 1]), face([0, 1])], "d": [face([1, 1])]})
    notes: list[str] = []
    calls: list[tuple[int, int, int]] = []
    lines = ("d,y.pickle,p,val", "a,x.pickle,p,train", "c,y.pickle,,val", "e,x.pickle,,val")
    run = made_run(tmp_path, *lines)
    done = extract(run, notify=notes.append, progress=lambda *call: calls.append(call))
    assert (done.faces, done.states) == (4, {"ok": 3, "missing": 1})
    assert np.array_equal(np.sum(calls, axis=0), [4, 3, 4])
    assert len(calls) == 4
    assert notes == ["x.pickle: 1 videos that the manifest does not name are passed over"]
    assert run.weights_name == "features"
    assert [row["clip_id"] for row in rows_of(run)] == ["c", "c", "d", "a"]


def test_it_is_done_once(run: Run, tmp_path: Path) -> None:
    extract(run)
    before = run.folder.shard_paths[0].stat().st_mtime_ns
    notes: list[str] = []
    extract(run, notify=notes.append)
    assert "already done" in notes[0]
    assert run.folder.shard_paths[0].stat().st_mtime_ns == before
    write(tmp_path / "x.pickle", {**BY_EYE, "new": [face([1, 1])]})
    extract(run, notify=notes.append)
    assert notes[1] == "extraction: 4 changed; feature files are read again as a whole"
    other = made_run(tmp_path, *LINES[:3])
    with pytest.raises(VidfaceError, match=r"not those of the manifest \(1 removed, 3 reused\)"):
        cluster(other, 0.4)
    extract(other, notify=notes.append)
    assert len(other.clips()) == 3
    (tmp_path / "x.pickle").touch()  # the same content
    extract(other, notify=notes.append)
    assert "already done" in notes[-1]


@pytest.mark.parametrize("damage", ["cut", "hostile", "nothing"])
def test_a_damaged_file_replaces_nothing(run: Run, tmp_path: Path, damage: str) -> None:
    extract(run)
    before = cluster(run, 0.4)
    path = tmp_path / "x.pickle"
    content = path.read_bytes()
    hostile = b"\x80\x02cos\nsystem\nU\x04echo\x85R."
    path.write_bytes({"cut": content[:-40], "hostile": hostile, "nothing": b""}[damage])
    with pytest.raises(VidfaceError, match=r"x\.pickle"):
        extract(run, force=True)
    assert not (run.folder.folder / ".extracting").exists()
    assert np.array_equal(cluster(run, 0.4).descriptors, before.descriptors)


def test_no_face_at_all_is_an_error(tmp_path: Path) -> None:
    write(tmp_path / "x.pickle", {"a": [], "b": [face([1, 0])]})
    for lines in (["a,x.pickle,p,val"], ["c,x.pickle,p,val"]):
        run = made_run(tmp_path, *lines)
        with pytest.raises(VidfaceError, match=r"none of the manifest's 1 videos .* x\.pickle"):
            extract(run)
        assert not run.folder.clips_path.exists()
        assert not run.folder.shard_paths


def test_a_run_holds_one_kind_of_features(tmp_path: Path) -> None:
    write(tmp_path / "x.pickle", {"a": [face([1, 0])]})
    write(tmp_path / "y.pickle", {"b": [face([1, 0, 0])]})
    run = made_run(tmp_path, "a,x.pickle,p,val", "b,y.pickle,p,val")
    with pytest.raises(VidfaceError, match="video 'b': features of 3 dimensions, but of 2"):
        extract(run)


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    write(tmp_path / "x.pickle", BY_EYE)
    lines = (*LINES, "z,gone.pickle,p,val")
    with pytest.raises(VidfaceError, match=r"no file or folder 'gone\.pickle'"):
        made_run(tmp_path, *lines)
    text = (tmp_path / "vidface.toml").read_text().replace("csv", 'csv"\nallow_missing = true #')
    (tmp_path / "vidface.toml").write_text(text)
    run = open_run(load_pipeline(tmp_path / "vidface.toml"))
    done = extract(run)
    assert done.failed[1] == ("z", "missing", "gone.pickle: no such file")
    assert run.clips()["bytes"].to_pylist()[-1] == 0
    extract(run)  # and it is still the same


@pytest.mark.parametrize(
    ("header", "line", "message"),
    [
        ("", "a,folder,p,val", "folder: a folder, not a feature file"),
        ("", "a,x.pickle,p,val\na.mp4,x.pickle,p,val", r"line 3: video 'a' stands twice"),
        (",start_seconds", "a,x.pickle,p,val,1.5", r"line 2: features have no times"),
        (",end_seconds", "a,x.pickle,p,val,1.5", r"line 2: features have no times"),
    ],
)
def test_manifests_that_make_no_sense(tmp_path: Path, header: str, line: str, message: str) -> None:
    write(tmp_path / "x.pickle", BY_EYE)
    (tmp_path / "folder").mkdir()
    made_run(tmp_path)
    (tmp_path / "manifest.csv").write_text(f"clip_id,path,identity,split{header}\n{line}\n")
    with pytest.raises(VidfaceError, match=message):
        extract(open_run(load_pipeline(tmp_path / "vidface.toml")))


def test_features_in_a_tar_are_refused(run: Run, tmp_path: Path) -> None:
    import tarfile

    with tarfile.open(tmp_path / "x.tar", "w") as archive:
        archive.add(tmp_path / "x.pickle", "x.pickle")
    overrides = {("manifest", "root"): str(tmp_path / "x.tar")}
    with pytest.raises(VidfaceError, match="from a folder on this machine; unpack"):
        extract(open_run(load_pipeline(tmp_path / "vidface.toml", overrides)))


def test_settings_that_would_mislead(run: Run, tmp_path: Path) -> None:
    path = tmp_path / "vidface.toml"
    with pytest.raises(VidfaceError, match=r"runs no recogniser; leave .* --weights out"):
        load_pipeline(path, {("backbone", "weights"): "sface"})
    with pytest.raises(VidfaceError, match="--keep-crops: features have no pictures to keep"):
        load_pipeline(path, {("faces", "keep_crops"): True})
    assert load_pipeline(path, {("faces", "keep_crops"): False}).faces.source == "features"


def test_pooling_by_quality(tmp_path: Path) -> None:
    """Weights 3 and 1; a negative one counts as 0; a clip without a weight is averaged."""
    videos = {
        "a": [face([2, 0], quality=3), face([0, 5], quality=1), face([-1, 0], quality=-40)],
        "b": [face([1, 0], quality=-1), face([0, 1], quality=-2)],
    }
    write(tmp_path / "x.pickle", videos)
    run = made_run(tmp_path, "a,x.pickle,p,val", "b,x.pickle,p,val", more="[descriptor]\n"
                   'pooling = "quality"\n')  # fmt: skip
    extract(run)
    done = cluster(run, None)
    expected = [np.array([3, 1]) / np.sqrt(10), np.array([1, 1]) / np.sqrt(2)]
    assert np.allclose(done.descriptors, expected, atol=1e-6)
    assert (done.weights_ignored, done.fallen_back) == (3, 1)


def test_features_that_are_no_numbers_are_unusable(tmp_path: Path) -> None:
    videos = {"a": [face([1, 0]), face([np.nan, 0]), face([np.inf, 0]), face([0, 0])]}
    write(tmp_path / "x.pickle", videos)
    run = made_run(tmp_path, "a,x.pickle,p,val")
    extract(run)
    done = cluster(run, 0.4)
    assert (done.unusable.tolist(), done.kept.tolist()) == ([3], [1])
    assert done.descriptors.tolist() == [[1, 0]]


def test_only_features_have_qualities() -> None:
    assert "quality" not in embeddings_schema(4).names
    names = embeddings_schema(4, quality=True).names
    assert [name for name in names if name != "quality"] == embeddings_schema(4).names


@pytest.mark.slow
def test_memory_is_that_of_a_shard(tmp_path: Path) -> None:
    row = np.linspace(-1, 1, 512, dtype=np.float16)
    videos = {f"v{k}": [face(row * (k + 1), b"%d" % i) for i in range(25)] for k in range(400)}
    path = write(tmp_path / "x.pickle", videos)
    assert path.stat().st_size > 10_000_000
    run = made_run(tmp_path, *(f"v{k},x.pickle,p,val" for k in range(400)))
    settings = run.extraction_settings
    extract_features(run.manifest, run.folder, settings, shard_clips=8)  # warm
    tracemalloc.start()
    extract_features(run.manifest, run.folder, settings, shard_clips=8)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 5_000_000  # a shard is 8 x 25 x 512 x 6 = 614,400 bytes


@given(st.lists(st.integers(0, 5), max_size=30))
def test_faces_of_a_frame_are_numbered(frames: list[int]) -> None:
    expected = [frames[:k].count(frame) for k, frame in enumerate(frames)]
    found = features._number_faces(np.array(frames, np.int32))
    assert found.dtype == np.int32
    assert found.tolist() == expected
