"""Submissions from a run whose descriptors are known."""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np
import pytest

from tests.runs.test_features import face, made_run, write
from vidface.challenges.submissions import score_ranked_list
from vidface.core.errors import VidfaceError
from vidface.datasets.iqiyi import GroundTruth
from vidface.datasets.submissions import check_submission, read_ranked_list, read_submission
from vidface.runs.exports import export_iqiyi, export_lfrc
from vidface.runs.extraction import extract
from vidface.runs.noise_removal import cluster
from vidface.runs.run import Run, open_run
from vidface.runs.scoring import score
from vidface.settings.pipeline import load_pipeline

ROWS = {
    "t1": ("ann", "train", [1, 0]),
    "t2": ("bob", "train", [0, 1]),
    "t3": ("cid", "train", None),  # no face: nobody can search for cid
    "t4": ("bob", "train", [1, 0]),
    "t5": ("", "train", [1, 1]),
    "v1": ("ann", "val", [0.6, 0.8]),
    "v2": ("bob", "val", [0, 1]),
    "v3": ("bob", "val", None),
    "v4": ("", "val", [1, 0]),
    "v5": ("ann", "val", [0.8, 0.6]),
}


@pytest.fixture
def run(tmp_path: Path) -> Run:
    videos = {name: [] if row is None else [face(row)] for name, (_, _, row) in ROWS.items()}
    write(tmp_path / "x.pickle", videos)
    lines = [f"{name},x.pickle,{who},{split}" for name, (who, split, _) in reversed(ROWS.items())]
    opened = made_run(tmp_path, *lines)
    extract(opened)
    cluster(opened, 0.4)
    return opened


def unit(name: str) -> list[float]:
    row = np.array(ROWS[name][2] or [0, 0], np.float16).astype(np.float64)
    return (row / (np.linalg.norm(row) or 1)).tolist()


def test_a_row_a_clip_in_the_manifests_order(run: Run, tmp_path: Path) -> None:
    done = export_lfrc(run, tmp_path / "s.bin")
    found = read_submission(tmp_path / "s.bin")
    assert np.allclose(found, [unit(name) for name in reversed(ROWS)], atol=1e-6)
    assert np.array_equal(found, cluster(run, 0.4).descriptors)
    content = (tmp_path / "s.bin").read_bytes()
    assert (done.rows, done.cols, done.zero_rows) == (10, 2, 2)
    assert (done.bytes, done.sha256) == (len(content), hashlib.sha256(content).hexdigest())


def test_only_a_split(run: Run, tmp_path: Path) -> None:
    done = export_lfrc(run, tmp_path / "s.bin", split="val")
    found = read_submission(tmp_path / "s.bin")
    names = ["v5", "v4", "v3", "v2", "v1"]
    assert np.allclose(found, [unit(name) for name in names], atol=1e-6)
    assert (done.rows, done.zero_rows) == (5, 1)
    with pytest.raises(VidfaceError, match=r"--split test: .* \(there: train, val\)"):
        export_lfrc(run, tmp_path / "t.bin", split="test")


def test_a_filelist_says_the_order(run: Run, tmp_path: Path) -> None:
    listing = tmp_path / "filelist.txt"
    listing.write_text("v2 31\nt1 3\nv3 1\nv1 2\n")
    notes: list[str] = []
    done = export_lfrc(run, tmp_path / "s.bin", filelist=listing, notify=notes.append)
    names = ["v2", "t1", "v3", "v1"]
    found = read_submission(tmp_path / "s.bin")
    assert np.allclose(found, [unit(name) for name in names], atol=1e-6)
    assert done == check_submission(tmp_path / "s.bin", listing)
    assert notes == [f"6 clips of the manifest are not in {listing} and are left out"]
    listing.write_text("".join(f"{name}\n" for name in ROWS))  # all, the other way round
    export_lfrc(run, tmp_path / "s.bin", filelist=listing)
    assert np.allclose(read_submission(tmp_path / "s.bin"), [unit(n) for n in ROWS], atol=1e-6)
    listing.write_text("v2\nt1\n")
    with pytest.raises(VidfaceError, match=r"1 clip\(s\) \('t1'\) are not of the split val"):
        export_lfrc(run, tmp_path / "t.bin", filelist=listing, split="val")
    listing.write_text("v2\nv9\n" + "".join(f"u{k}\n" for k in range(5)))
    with pytest.raises(VidfaceError, match=r"6 clip\(s\) \('v9', 'u0', .* …\) are not in the man"):
        export_lfrc(run, tmp_path / "t.bin", filelist=listing)
    assert not (tmp_path / "t.bin").exists()


def test_more_columns_than_the_challenge_takes(tmp_path: Path) -> None:
    write(tmp_path / "x.pickle", {"a": [face(np.eye(1, 513)[0])]})
    run = made_run(tmp_path, "a,x.pickle,p,val")
    extract(run)
    notes: list[str] = []
    assert export_lfrc(run, tmp_path / "s.bin", None, notify=notes.append).cols == 513
    assert notes[-1] == "the challenge takes at most 512 columns; these are 513"
    (tmp_path / "list.txt").write_text("a\n")
    with pytest.raises(VidfaceError, match="at most 512 columns; these are 513"):
        export_lfrc(run, tmp_path / "t.bin", None, filelist=tmp_path / "list.txt")
    assert not (tmp_path / "t.bin").exists()


def test_ranked_lists_by_eye(run: Run, tmp_path: Path) -> None:
    """bob's mean is (1, 1)/√2: v1 and v5 tie at 0.99, then v2 and v4 at 0.71, each by clip_id."""
    done = export_iqiyi(run, tmp_path / "r.txt")
    assert read_ranked_list(tmp_path / "r.txt") == {
        "ann": ("v4", "v5", "v1", "v2"),
        "bob": ("v1", "v5", "v2", "v4"),
        "cid": (),
    }
    content = (tmp_path / "r.txt").read_bytes()
    assert content.decode().splitlines()[0] == "ann v4.mp4 v5.mp4 v1.mp4 v2.mp4"
    assert (done.identities, done.empty, done.clips, done.no_descriptor) == (3, 1, 4, 1)
    assert (done.bytes, done.sha256) == (len(content), hashlib.sha256(content).hexdigest())
    assert (done.split, done.gallery, done.k, done.enrolment) == ("val", "train", 100, "mean")
    assert "1 further clips have no descriptor" in str(done)
    assert "1 identities have no gallery descriptor" in str(done)


def test_ranked_lists_score_as_the_run_does(run: Run, tmp_path: Path) -> None:
    truth = GroundTruth({"ann": ("v1", "v5"), "bob": ("v2", "v3")})
    for enrolment in ("mean", "max"):
        overrides = {("score", "enrolment"): enrolment}
        opened = open_run(load_pipeline(tmp_path / "vidface.toml", overrides))
        export_iqiyi(opened, tmp_path / "r.txt")
        listed = score_ranked_list(read_ranked_list(tmp_path / "r.txt"), truth)
        retrieval = score(opened).retrieval
        assert retrieval is not None
        assert listed.map_at_k == retrieval.map_at_k
        assert listed.average_precision == retrieval.average_precision


def test_the_k_best_and_the_best_match(run: Run, tmp_path: Path) -> None:
    done = export_iqiyi(run, tmp_path / "r.txt", k=2, enrolment="max")
    assert read_ranked_list(tmp_path / "r.txt")["bob"] == ("v2", "v4")  # t2 and t4 themselves
    assert (done.k, done.enrolment) == (2, "max")
    with pytest.raises(VidfaceError, match="at least 1, got 0"):
        export_iqiyi(run, tmp_path / "r.txt", k=0)


def test_more_than_a_hundred_clips(tmp_path: Path) -> None:
    """And a third split, which is neither searched nor searched for."""
    videos = {f"v{k:03d}": [face([np.cos(k / 99), np.sin(k / 99)])] for k in range(120)}
    write(tmp_path / "x.pickle", {**videos, "t": [face([1, 0])], "u": [face([0, 1])]})
    lines = [f"{name},x.pickle,,val" for name in videos]
    run = made_run(tmp_path, "t,x.pickle,ann,train", "u,x.pickle,ann,test", *lines)
    extract(run)
    for k, n in [(110, 110), (130, 120)]:
        export_iqiyi(run, tmp_path / "r.txt", None, k=k)
        assert read_ranked_list(tmp_path / "r.txt") == {"ann": tuple(videos)[:n]}


def test_other_splits(run: Run, tmp_path: Path) -> None:
    done = export_iqiyi(run, tmp_path / "r.txt", split="train", gallery="val")
    found = read_ranked_list(tmp_path / "r.txt")
    assert set(found) == {"ann", "bob"}
    assert found["bob"] == ("t2", "t5", "t1", "t4")  # t1 and t4 tie
    assert (done.clips, done.no_descriptor) == (4, 1)
    with pytest.raises(VidfaceError, match="--split val is its own gallery"):
        export_iqiyi(run, tmp_path / "r.txt", gallery="val")
    with pytest.raises(VidfaceError, match="--gallery test: no clip"):
        export_iqiyi(run, tmp_path / "r.txt", gallery="test")


def test_a_run_for_verification_has_lists_too(run: Run, tmp_path: Path) -> None:
    """Its protocols need no gallery; the lists do."""
    overrides = {("score", "protocols"): "verification"}
    opened = open_run(load_pipeline(tmp_path / "vidface.toml", overrides))
    assert export_iqiyi(opened, tmp_path / "r.txt").identities == 3
    with pytest.raises(VidfaceError, match="--split val is its own gallery"):
        export_iqiyi(opened, tmp_path / "r.txt", gallery="val")


def test_a_gallery_of_distractors(tmp_path: Path) -> None:
    write(tmp_path / "x.pickle", {"a": [face([1, 0])], "b": [face([1, 0])]})
    run = made_run(tmp_path, "a,x.pickle,,train", "b,x.pickle,p,val")
    extract(run)
    with pytest.raises(VidfaceError, match="--gallery train: no clip of it has an identity"):
        export_iqiyi(run, tmp_path / "r.txt", None)


@pytest.mark.parametrize("export", [export_lfrc, export_iqiyi])
def test_the_clustering_that_is_meant(run: Run, tmp_path: Path, export) -> None:
    with pytest.raises(VidfaceError, match="cannot be written"):
        export(run, tmp_path / "x.pickle" / "r")
    notes: list[str] = []
    export(run, tmp_path / "r", 0.9, notify=notes.append)
    assert notes[0] == "no clustering at threshold 0.9 is stored: working it out"
    for path in run.folder.folder.glob("clusters/*/*"):
        path.unlink()
    with pytest.raises(VidfaceError, match="no clustering; run `vidface cluster` first"):
        export(run, tmp_path / "r")
    run.folder.clips_path.unlink()
    with pytest.raises(VidfaceError, match="no finished extraction"):
        export(run, tmp_path / "r")
