"""A run from aligned crops to a score, solvable by eye (see conftest.colour_clips)."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from datetime import datetime, tzinfo
from pathlib import Path

import numpy as np
import pytest

from vidface.backbones.loading import load_backbone
from vidface.backbones.preprocessing import Preprocessing
from vidface.cli import score_tables
from vidface.core.digests import digest_path
from vidface.core.errors import UsageError, VidfaceError
from vidface.reports.gather import gather_run
from vidface.runs.clusterings import read_clustering
from vidface.runs.extraction import extract
from vidface.runs.noise_removal import cluster, cluster_once
from vidface.runs.opening import choose_pipeline, choose_whole
from vidface.runs.run import Run, open_run, open_run_folder
from vidface.runs.scoring import LATEST, score
from vidface.runs.sweeps import sweep
from vidface.settings.pipeline import load_pipeline


@pytest.fixture
def run(colour_pipeline: Path) -> Run:
    opened = open_run(load_pipeline(colour_pipeline))
    extract(opened)
    return opened


def test_noise_removal_drops_the_intruders(run: Run) -> None:
    done = cluster(run, 0.5)
    kept = dict(zip(done.clip_ids, done.kept.tolist(), strict=True))
    assert kept == {
        "red.t": 3,
        "red.v": 3,  # of five: two are of green
        "green.t": 3,
        "green.v": 3,
        "blue.t": 3,
        "blue.v": 3,
        "stranger": 2,
    }
    assert done.clusters.tolist() == [1, 2, 1, 2, 1, 2, 1]
    assert done.summary()["dropped"] == 6
    assert np.allclose(np.linalg.norm(done.descriptors, axis=1), 1, atol=1e-6)
    table = run.folder.clustering("threshold_0.5")
    import pyarrow.parquet as pq

    labels = pq.read_table(table / "faces.parquet").to_pylist()
    assert [r["cluster"] for r in labels if r["clip_id"] == "red.v"] == [0, 1, 0, 1, 0]


def test_artefact_and_memory_agree(run: Run) -> None:
    made = cluster(run, 0.5)
    read = read_clustering(run, 0.5)
    assert read is not None
    assert (read.descriptors == made.descriptors).all()
    for name in ("frames", "faces", "clusters", "kept", "unusable"):
        assert (getattr(read, name) == getattr(made, name)).all(), name
    assert (read.clip_ids, read.states) == (made.clip_ids, made.states)
    assert read_clustering(run, 0.6) is None
    assert (cluster_once(run, 0.5).descriptors == made.descriptors).all()


def test_scores_by_eye(run: Run) -> None:
    """Clean, each person's val clip is first for its identity, and all three are apart.

    Unclean, red's clip (3 red, 2 green) is still first for red and green's for green: mAP stays 1;
    what falls is the similarity, which the descriptors show.
    """
    cluster(run, 0.5)
    result = score(run)
    assert result.threshold == 0.5
    assert result.retrieval.map_at_k == 1.0
    assert result.retrieval.identities == 3
    assert result.counts == {
        "clips": 4,
        "no_descriptor": 0,
        "states": {"ok": 4},
        "frames": 17,
        "faces": 17,
        "kept": 11,
        "unusable": 0,
    }
    # 4 val clips: 6 pairs, none genuine (one val clip a person), all with a labelled clip
    assert result.verification.genuine_pairs == 0
    assert result.verification.impostor_pairs == 6
    written = run.folder.folder / "scores" / "val_against_train_threshold_0.5.json"
    assert json.loads(written.read_text()) == json.loads(json.dumps(result.to_dict()))


def test_no_clustering_keeps_everything(run: Run) -> None:
    result = score(run, None)
    assert result.threshold is None
    assert result.counts["kept"] == 17


def test_latest_is_the_last_one_clustered_whatever_the_clock_says(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    for threshold, year in ((0.5, 2030), (0.3, 2029)):  # the clock is set back in between

        class Clock(datetime):
            @classmethod
            def now(cls, tz: tzinfo | None = None, year: int = year) -> datetime:
                return datetime(year, 1, 1, tzinfo=tz)

        with monkeypatch.context() as patch:
            patch.setattr("vidface.runs.artefacts.datetime.datetime", Clock)
            cluster(run, threshold)
        assert run.folder.clusterings()[-1]["threshold"] == threshold
        assert str(threshold) in gather_run(run.folder.folder).denoising
    assert [made["threshold"] for made in run.folder.clusterings()] == [0.5, 0.3]


def test_latest_is_the_last_one_clustered(run: Run) -> None:
    with pytest.raises(VidfaceError, match="no clustering; run `vidface cluster` first"):
        score(run, LATEST)
    cluster(run, 0.3)
    cluster(run, 0.6)
    assert score(run).threshold == 0.6
    cluster(run, 0.3)
    assert score(run).threshold == 0.3
    score(run, None)  # a look at another threshold does not change what is latest
    assert score(run).threshold == 0.3
    cluster(run, None)
    assert score(run).threshold is None


def test_identities_may_be_corrected_without_a_new_extraction(run: Run, colour_pipeline) -> None:
    cluster(run, 0.5)
    path = run.manifest.path
    path.write_text(path.read_text().replace("red.v,red/val,red,", "red.v,red/val,green,"))
    again = open_run(load_pipeline(colour_pipeline))
    result = score(again)
    assert result.retrieval.map_at_k is not None
    assert result.retrieval.map_at_k < 1
    assert result.provenance["manifest_sha256"] != run.manifest.sha256


@pytest.mark.parametrize(
    ("table", "key", "value", "message"),
    [
        ("backbone", "mean", 0.0, "backbone.preprocessing: "),
        ("backbone", "color", "bgr", "backbone.preprocessing: "),
    ],
)
def test_a_stage_refuses_what_does_not_fit(
    run: Run, colour_pipeline: Path, table: str, key: str, value, message: str
) -> None:
    other = open_run(load_pipeline(colour_pipeline, {(table, key): value}))
    for stage in (lambda: cluster(other, 0.5), lambda: score(other, None), lambda: extract(other)):
        with pytest.raises(VidfaceError, match=message):
            stage()


def test_damaged_embeddings_are_refused(run: Run) -> None:
    [path] = run.folder.shard_paths
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(VidfaceError, match=r"shard-00000\.arrow: damaged"):
        cluster(run, 0.5)
    digest_path(path).unlink()  # as of an older run
    with pytest.raises(VidfaceError, match=r"shard-00000\.arrow: unreadable artefact"):
        cluster(run, 0.5)


def test_a_clustering_of_the_extraction_before_is_outdated(run: Run) -> None:
    cluster(run, 0.5)
    path = run.folder.clustering("threshold_0.5") / "descriptors.parquet"
    content = path.read_bytes()
    extract(run, force=True)
    path.write_bytes(content)  # the same settings, but of other embeddings
    assert read_clustering(run, 0.5) is None


def test_a_replacement_that_breaks_off_leaves_no_mixture(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    replace = Path.replace

    def broken(path: Path, target: Path) -> Path:
        if ".extracting" in path.parts and path.suffix != ".part":
            raise OSError(28, "No space left on device")
        return replace(path, target)

    with monkeypatch.context() as patch:
        patch.setattr(Path, "replace", broken)
        with pytest.raises(VidfaceError, match=r"run directory .*: No space left on device"):
            extract(run, force=True)
    with pytest.raises(VidfaceError, match="no finished extraction"):
        cluster(run, 0.5)
    extract(run)
    assert cluster(run, 0.5).summary()["dropped"] == 6


def test_a_failed_new_extraction_leaves_the_old_one(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = cluster(run, 0.5)
    from vidface.runs.staging import Staging

    def interrupted(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(Staging, "write", interrupted)
        with pytest.raises(KeyboardInterrupt):
            extract(run, force=True)
    read = read_clustering(run, 0.5)
    assert read is not None
    assert (read.descriptors == before.descriptors).all()
    extract(run, force=True)
    assert not (run.folder.folder / ".extracting").exists()


def test_lost_or_foreign_shards_are_noticed(run: Run, tmp_path: Path) -> None:
    [path] = run.folder.shard_paths
    contents = {each: each.read_bytes() for each in (path, digest_path(path))}
    path.unlink()
    with pytest.raises(VidfaceError, match=r"the faces are not those of clips\.parquet"):
        cluster(run, 0.5)
    extract(run, force=True)
    for each, content in contents.items():
        each.write_bytes(content)  # the same settings, but of the extraction before
    with pytest.raises(VidfaceError, match="of another extraction"):
        cluster(run, 0.5)


def test_crops_may_be_asked_for_later(run: Run) -> None:
    shutil.rmtree(run.folder.crops_path(0).parent)
    cluster(run, 0.5)
    with pytest.raises(VidfaceError, match=r"made without crops; .* or --no-keep-crops"):
        extract(run)
    assert run.folder.clips_path.is_file()  # nothing was removed
    extract(run, force=True)
    assert run.folder.crops_path(0).is_file()


def test_what_a_killed_run_was_writing_goes(run: Run) -> None:
    left = run.folder.folder / "embeddings" / ".shard-00001.arrow.x1.part"
    left.write_bytes(b"half")
    extract(run, force=True)
    assert not left.exists()


def test_an_extraction_is_kept_or_made_again(run: Run) -> None:
    notes: list[str] = []
    before = run.folder.shard_paths[0].stat().st_mtime_ns
    extract(run, notify=notes.append)
    assert run.folder.shard_paths[0].stat().st_mtime_ns == before
    assert "already done" in notes[0]
    cluster(run, 0.5)
    extract(run, force=True)
    assert run.folder.shard_paths[0].stat().st_mtime_ns != before
    assert read_clustering(run, 0.5) is None


def test_an_unfinished_extraction_is_no_extraction(run: Run) -> None:
    run.folder.clips_path.unlink()  # it is written last
    with pytest.raises(VidfaceError, match="no finished extraction"):
        cluster(run, 0.5)
    extract(run)
    cluster(run, 0.5)


def test_splits_are_checked(run: Run) -> None:
    cluster(run, 0.5)
    with pytest.raises(VidfaceError, match=r"--split test: no clip .* \(there: train, val\)"):
        score(run, split="test")
    with pytest.raises(VidfaceError, match="--split train is its own gallery"):
        score(run, split="train")
    swapped = score(run, split="train", gallery="val")
    assert (swapped.counts["clips"], swapped.retrieval.identities) == (3, 3)


def test_sweep_has_the_row_none_and_agrees_with_score(run: Run) -> None:
    done = sweep(run, [0.5, 0.5, None, 1.0])
    thresholds = [scored.threshold for scored, _ in done.rows]
    assert thresholds == [None, 0.5, 1.0]
    shares = [summary["dropped_share"] for _, summary in done.rows]
    assert shares[0] == 0
    assert shares[1] == pytest.approx(6 / 26)
    assert shares[2] > shares[1]
    cluster(run, 0.5)
    again = score(run, settings=replace(run.pipeline.score, bootstrap=0)).to_dict()
    row = done.to_dict()["rows"][1]
    assert row["retrieval"] == again["retrieval"]
    assert row["verification"] == again["verification"]
    assert row["counts"] == again["counts"]
    written = json.loads((run.folder.folder / "sweeps" / "val_against_train.json").read_text())
    assert [r["threshold"] for r in written["rows"]] == thresholds


def test_a_clip_without_a_face_stays_in_every_denominator(run: Run, colour_pipeline: Path) -> None:
    path = run.manifest.path
    (path.parent / "nothing").mkdir()
    path.write_text(path.read_text() + "red.none,nothing,red,val\n")
    again = open_run(load_pipeline(colour_pipeline, {("run", "dir"): str(path.parent / "r2")}))
    summary = extract(again)
    assert summary.failed[0][:2] == ("red.none", "no_video_stream")
    done = cluster(again, 0.5)
    assert done.summary()["no_descriptor"] == 1
    assert read_clustering(again, 0.5) is not None
    result = score(again)
    # red now has two positives of which one can never be found: AP = 1/2
    assert result.retrieval.average_precision["red"] == 0.5
    assert result.verification.genuine_pairs == 1
    assert result.counts["no_descriptor"] == 1
    assert result.counts["states"] == {"ok": 4, "no_video_stream": 1}


def test_a_clip_that_came_back_is_noticed(run: Run, colour_pipeline: Path) -> None:
    folder = run.manifest.path.parent
    (folder / "red").rename(folder / "away")
    settings = {("manifest", "allow_missing"): True, ("run", "dir"): str(folder / "r2")}
    pipeline = load_pipeline(colour_pipeline, settings)
    assert extract(open_run(pipeline)).states == {"ok": 5, "missing": 2}
    notes: list[str] = []
    extract(open_run(pipeline), notify=notes.append)
    assert "2 clips failed then (--force makes it again, --retry-failed those)" in notes[0]
    (folder / "away").rename(folder / "red")
    assert extract(open_run(pipeline), notify=notes.append).states == {"ok": 7}
    assert notes[1] == "extraction: 2 changed, 5 reused"


def test_many_shards_are_one_run(run: Run) -> None:
    expected = cluster(run, 0.5)
    settings = replace(run.pipeline.run, shard_clips=2)
    run = replace(run, pipeline=replace(run.pipeline, run=settings))
    extract(run, force=True)
    assert len(run.folder.shard_paths) == 4  # 3 + 5, 3 + 5, 3 + 5, 2 faces
    again = cluster(run, 0.5)
    assert again.clip_ids == expected.clip_ids
    assert (again.kept == expected.kept).all()
    assert np.abs(again.descriptors - expected.descriptors).max() < 1e-6
    run.folder.shard_paths[1].unlink()
    with pytest.raises(VidfaceError, match=r"not those of clips\.parquet"):
        cluster(run, 0.5)


def test_unusable_embeddings_are_noise(colour_pipeline: Path, tmp_path: Path) -> None:
    """A network that gives NaN for green and zero for blue: those clips have no descriptor."""
    import torch

    class Moody(torch.nn.Module):
        def forward(self, x):
            mean = x.mean(dim=(2, 3))
            mean = torch.where(mean[:, 1:2] > 0.4, torch.nan, mean)
            return torch.where(mean[:, 2:3] > 0.4, 0.0, mean)

    backbone = load_backbone(Moody(), Preprocessing("rgb", 127.5, 127.5), force=True)
    opened = open_run(load_pipeline(colour_pipeline), backbone=backbone)
    extract(opened)
    done = cluster(opened, 0.5)
    kept = dict(zip(done.clip_ids, done.kept.tolist(), strict=True))
    unusable = dict(zip(done.clip_ids, done.unusable.tolist(), strict=True))
    assert (kept["red.v"], unusable["red.v"]) == (3, 2)  # the two frames of green
    assert (kept["green.v"], unusable["green.v"]) == (0, 5)
    result = score(opened)
    assert result.counts["unusable"] == 5 + 2 + 3 + 2
    assert "12 embeddings are unusable" in score_tables.score(result, opened)
    assert result.counts["no_descriptor"] == 2  # green.v and stranger; blue.v has red frames
    assert result.retrieval.average_precision["green"] == 0.0
    # of blue.v only its two frames of red are left, and they tie with red.v: first by clip id
    assert result.retrieval.average_precision["red"] == 0.5


def test_unknown_preparer(colour_pipeline: Path, tmp_path: Path) -> None:
    settings = {("manifest", "prepare"): "demmo", ("manifest", "path"): str(tmp_path / "no.csv")}
    with pytest.raises(VidfaceError, match=r"unknown value 'demmo' \(known: demo, "):
        open_run(load_pipeline(colour_pipeline, settings))


def test_a_strangers_run_makes_no_manifest_where_it_says(tmp_path: Path) -> None:
    """`prepare` in a pipeline is the user's word; in a run.json it may be anybody's."""
    place = tmp_path / "elsewhere" / "manifest.csv"
    settings = {"path": str(place), "prepare": "demo"}
    (tmp_path / "run.json").write_text(json.dumps({"manifest": settings}))
    with pytest.raises(VidfaceError, match=r"elsewhere/manifest.csv: No such file"):
        open_run_folder(tmp_path)
    assert not place.parent.exists()


def test_an_empty_name_is_not_the_working_directory() -> None:
    for choose in (choose_pipeline, choose_whole):
        with pytest.raises(UsageError, match="an empty name is no run directory"):
            choose("")


def test_a_project_that_was_moved_as_a_whole(tmp_path: Path) -> None:
    """run.json has the old places; another one's file there, or none here, stays what it says."""
    old, new = tmp_path / "old", tmp_path / "a new place"
    (new / "runs" / "x").mkdir(parents=True)
    (new / "set").mkdir()
    (new / "set" / "m.csv").write_text("clip_id,path,identity,split\na,a,ann,val\n")
    settings = {
        "manifest": {"path": str(old / "set" / "m.csv"), "root": str(tmp_path)},
        "backbone": {"weights": str(old / "net.onnx")},
        "run": {"dir": str(old / "runs" / "x")},
    }
    (new / "runs" / "x" / "run.json").write_text(json.dumps(settings))
    run = open_run_folder(new / "runs" / "x")
    assert [clip.clip_id for clip in run.manifest.clips] == ["a"]
    assert run.manifest.path == new / "set" / "m.csv"
    assert run.manifest.root_location == tmp_path
    assert run.pipeline.backbone.weights == str(old / "net.onnx")
    (old / "set").mkdir(parents=True)
    (old / "set" / "m.csv").write_text("clip_id,path,identity,split\nb,b,bob,val\n")
    assert open_run_folder(new / "runs" / "x").manifest.path == old / "set" / "m.csv"
