"""Two faces of one frame are two people: what a run with all faces of a frame makes of it."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from tests.made_runs import DIMENSION, write_shard
from vidface.core.rules import NEW_RULES
from vidface.executor.shards import Executor
from vidface.noise.clusters import cluster_frames
from vidface.noise.denoisers import UnionFind
from vidface.runs import artefacts
from vidface.runs.clips import list_clips
from vidface.runs.clusterings import find_latest_denoising, read_clustering
from vidface.runs.columns import CLIPS_SCHEMA
from vidface.runs.denoising import Denoising
from vidface.runs.extraction import extract
from vidface.runs.noise_removal import cluster, denoise, denoise_all
from vidface.runs.run import Run, open_run, open_run_folder
from vidface.runs.sweeps import sweep
from vidface.settings.pipeline import load_pipeline

APART = "threshold_0.4.same_frame_apart.same_person_threshold_0.7"


def angles(*degrees):
    rows = np.zeros((len(degrees), DIMENSION))
    rows[:, 0], rows[:, 1] = np.cos(np.radians(degrees)), np.sin(np.radians(degrees))
    return rows


def made_run(folder: Path, *, which: str = "all", rules: bool = True, more: str = "") -> Run:
    """Clips of Ann in the gallery; in val a debate of Ann (0°) and Bob (60°), and a mirror."""
    clips = {
        "ann.1": ([0, 1], angles(0, 2)),
        "bob.1": ([0, 1], angles(60, 62)),
        "debate": ([0, 0, 1, 1, 2], angles(1, 60, 3, 58, 2)),
        "mirror": ([0, 0, 1], angles(0, 10, 1)),
    }
    folder.mkdir(parents=True, exist_ok=True)
    lines = ["clip_id,path,identity,split", "ann.1,a,ann,train", "bob.1,b,bob,train"]
    lines += ["debate,d,ann,val", "mirror,m,ann,val"]
    (folder / "manifest.csv").write_text("\n".join(lines) + "\n", encoding="utf-8")
    (folder / "made.toml").write_text(
        f'[manifest]\npath = "manifest.csv"\n[faces]\nwhich = "{which}"\n'
        f'[backbone]\nweights = "sface"\n[run]\ndir = "run"\n[score]\nbootstrap = 0\n{more}',
        encoding="utf-8",
    )
    run = open_run(load_pipeline(folder / "made.toml"), check_files=False)
    recorded = {"rules": NEW_RULES.to_record()} if rules else {}
    made = artefacts.provenance("extract", run.extraction_settings, shard_clips=256, **recorded)
    rows = [
        (clip_id, frame, row)
        for clip_id, (frames, embeddings) in clips.items()
        for frame, row in zip(frames, embeddings, strict=True)
    ]
    write_shard(run, 0, rows, made)
    counts = [len(frames) for frames, _ in clips.values()]
    n = len(clips)
    states = {
        "clip_id": list(clips), "path": ["a", "b", "d", "m"], "bytes": [0] * n, "state": ["ok"] * n,
        "message": [""] * n, "frames": counts, "frames_without_face": [0] * n, "faces": counts,
    }  # fmt: skip
    schema = CLIPS_SCHEMA
    columns = [
        pa.array(states.get(name, [None] * n), schema.field(name).type) for name in schema.names
    ]
    table = pa.Table.from_arrays(columns, schema=schema)
    artefacts.write_parquet(run.folder.clips_path, table, made)
    return run


def kept_of(run: Run, denoising: Denoising | float | None = 0.4) -> list[int]:
    return denoise(run, denoising).kept.tolist()


def test_a_debate_is_two_people(tmp_path: Path) -> None:
    run = made_run(tmp_path)
    done = cluster(run, 0.4)
    assert done.kept.tolist() == [2, 2, 3, 3]  # of the debate Ann alone
    assert done.clusters.tolist() == [1, 1, 2, 1]
    labels = artefacts.read_parquet(run.folder.clustering(APART) / "faces.parquet")[0]
    assert labels["cluster"].to_pylist() == [0, 0, 0, 0, 0, 1, 0, 1, 0, 0, 0, 0]
    ann = done.descriptors[2] @ angles(2)[0]
    assert ann > 0.9999
    # The mirror shows her twice in a frame: one person (cosine 0.985), and the clip says so.
    assert [line.clip_id for line in list_clips(run, flags=["twice"]).lines] == ["mirror"]
    _, made = artefacts.read_parquet(run.folder.clustering(APART) / "descriptors.parquet")
    assert made["settings"]["cluster.same_frame"] == "apart"
    assert made["settings"]["cluster.same_person_threshold"] == 0.7
    assert find_latest_denoising(run).denoiser == UnionFind(0.4, "apart", 0.7)
    tree, provenance = artefacts.read_arrow(run.folder.linkage_path(0, same_person=0.7))
    assert (provenance["same_frame"], provenance["same_person_threshold"]) == ("apart", 0.7)
    assert tree.num_rows == 12
    assert not run.folder.linkage_path(0).exists()


def test_free_is_as_published(tmp_path: Path) -> None:
    run = made_run(tmp_path, more='[cluster]\nsame_frame = "free"\n')
    done = cluster(run, 0.4)
    assert done.kept.tolist() == [2, 2, 5, 3]
    assert Denoising.of_run(run).name == "threshold_0.4"
    [shard] = run.shards()
    labels = artefacts.read_parquet(run.folder.clustering("threshold_0.4") / "faces.parquet")[0]
    published = cluster_frames(shard.embeddings, shard.offsets, 0.4)
    assert labels["cluster"].to_pylist() == published.tolist()
    flags = {line.clip_id: line.flags for line in list_clips(run).lines}
    assert "twice" in flags["debate"]  # two people taken for one
    assert [path.parent.name for path in run.folder.folder.rglob("linkage/**/*.arrow")] == [
        "linkage"
    ]


def test_the_largest_face_of_each_frame_is_free(tmp_path: Path) -> None:
    run = made_run(tmp_path, which="largest")
    assert Denoising.of_run(run).denoiser == UnionFind(0.4, "free")
    asked = made_run(tmp_path / "b", which="largest", more='[cluster]\nsame_frame = "apart"\n')
    assert Denoising.of_run(asked).denoiser == UnionFind(0.4, "apart")


def test_a_run_made_before_keeps_its_rule(tmp_path: Path) -> None:
    """Its clusterings are read by their old names, new ones are like them; apart is on request."""
    run = made_run(tmp_path, rules=False)
    before = Denoising(UnionFind(0.4))  # as it was recorded then: method, threshold
    cluster(run, before)
    path = run.folder.clustering("threshold_0.4") / "descriptors.parquet"
    table, made = artefacts.read_parquet(path)
    del made["denoiser"]["repeats"]
    assert made["denoiser"] == {"method": "union-find", "threshold": 0.4, "pooling": "mean"}
    assert not [key for key in made["settings"] if "same" in key]
    artefacts.write_parquet(path, table.drop_columns(["twice"]), made)  # no such flag then
    assert find_latest_denoising(run) == before
    assert Denoising.of_run(run).name == "threshold_0.4"
    stored = read_clustering(run, 0.4)
    assert stored is not None
    assert stored.kept.tolist() == kept_of(run) == [2, 2, 5, 3]
    assert not any("twice" in line.flags for line in list_clips(run).lines)
    settings = replace(run.pipeline.cluster, parameters={"same_frame": "apart"})
    asked = replace(run, pipeline=replace(run.pipeline, cluster=settings))
    assert cluster(asked, 0.4).kept.tolist() == [2, 2, 3, 3]
    assert read_clustering(run, 0.4) is not None  # beside it
    assert len(run.folder.clusterings()) == 2


def test_a_sweep_cuts_the_stored_sequence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = made_run(tmp_path)
    kept = {done.threshold: done.kept.tolist() for done in denoise_all(run, [None, 0.4, 0.9999])}
    assert kept == {None: [2, 2, 5, 3], 0.4: [2, 2, 3, 3], 0.9999: [1, 1, 1, 1]}

    def forbidden(*arguments):
        raise AssertionError("computed again")

    monkeypatch.setattr("vidface.noise.removal.link_apart", forbidden)
    assert kept_of(run) == [2, 2, 3, 3]
    rows = sweep(run, [0.4]).to_dict()["provenance"]["settings"]
    assert rows["cluster.same_frame"] == "apart"
    [path] = (run.folder.folder / "sweeps").glob("*.json")
    assert "same_frame_apart" in path.name
    # Another second threshold is another sequence, and another file.
    with pytest.raises(AssertionError, match="computed again"):
        kept_of(run, Denoising(UnionFind(0.4, "apart", 0.8)))


def test_other_processes_give_the_same(tmp_path: Path) -> None:
    run = made_run(tmp_path)
    done = cluster(run, 0.4, executor=Executor("joblib", workers=2))
    assert done.kept.tolist() == [2, 2, 3, 3]
    run.folder.linkage_path(0, same_person=0.7).unlink()
    assert denoise(run, 0.4, Executor("joblib", workers=2)).kept.tolist() == [2, 2, 3, 3]
    path = run.folder.linkage_path(0, same_person=0.7)
    assert path.is_file()
    assert artefacts.remake_remedy(path) == "remove it, and `vidface cluster` makes it again"


def test_run_json_leaves_it_open(tmp_path: Path) -> None:
    """What the rules settle is not written as if somebody had asked for it."""
    run = made_run(tmp_path, rules=False)
    extract(run)  # done already: the settings are remembered
    document = json.loads(run.folder.pipeline_path.read_text(encoding="utf-8"))
    assert "same_frame" not in document["cluster"]
    assert Denoising.of_run(open_run_folder(run.folder.folder)).name == "threshold_0.4"
