"""Noise removal over a run: every method and pooling, the linkage artefact, what is on disk."""

from __future__ import annotations

import gc
import weakref
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tests.conftest import COLOURS
from vidface.backbones.loading import load_backbone
from vidface.backbones.preprocessing import Preprocessing
from vidface.core.errors import VidfaceError
from vidface.noise import removal
from vidface.noise.denoisers import (
    DENOISERS,
    CompleteLinkage,
    Dbscan,
    Denoiser,
    Hdbscan,
    KeepAll,
    Oracle,
    Trim,
    UnionFind,
    denoiser_record,
    make_denoiser,
    name_of_denoiser,
)
from vidface.noise.diagnostics import FLAGS, diagnose
from vidface.noise.removal import FaceSet, remove_noise
from vidface.runs import artefacts, noise_removal, run_folder, shard_denoising
from vidface.runs.artefacts import EmbeddingShard
from vidface.runs.clips import list_clips
from vidface.runs.clusterings import find_latest_denoising, read_clustering
from vidface.runs.columns import LINKAGE_SCHEMA
from vidface.runs.denoised import ExtractedClips
from vidface.runs.denoising import Denoising
from vidface.runs.extraction import extract
from vidface.runs.noise_removal import cluster, cluster_once, denoise, denoise_all
from vidface.runs.run import Run, open_run
from vidface.runs.scoring import score
from vidface.runs.shard_denoising import DenoisedShard, read_or_make_tree
from vidface.runs.sweeps import sweep
from vidface.settings.pipeline import load_pipeline
from vidface.vectors.descriptors import pool_faces, pooling_weights

PEOPLE = ("red", "green", "blue")
ADDED_COLUMNS = ["twice", "still", "still_share"]  # since descriptors are written


def truth_of_colours(path: Path, *, forget: str = "") -> Path:
    """What is known of `colour_clips`: in the val clips the frames 1 and 3 are intruders."""
    lines = ["clip_id,frame_index,kind"]
    for person in PEOPLE:
        lines += [f"{person}.t,{k},own" for k in range(3)]
        lines += [f"{person}.v,{k},{'own' if k % 2 == 0 else 'other'}" for k in range(5)]
    lines += [f"stranger,{k},own" for k in range(2)]
    kept = [line for line in lines if not forget or not line.startswith(forget)]
    path.write_text("\n".join(kept) + "\n", encoding="utf-8")
    return path


@pytest.fixture
def truth(tmp_path: Path) -> Path:
    return truth_of_colours(tmp_path / "truth.csv")


@pytest.fixture
def run(colour_pipeline: Path) -> Run:
    opened = open_run(load_pipeline(colour_pipeline))
    extract(opened)
    return opened


@pytest.fixture
def mixed(tmp_path: Path, colour_network: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    """Twelve clips of mixed colours in several shards: at every threshold others are kept."""
    from PIL import Image

    rng = np.random.default_rng(7)
    lines = ["clip_id,path,identity,split"]
    for c in range(12):
        for k in range(1 + c):
            one, two = rng.choice(list(COLOURS), 2)
            share = rng.random()
            colour = share * np.array(COLOURS[one]) + (1 - share) * np.array(COLOURS[two])
            folder = tmp_path / "set" / f"c{c}"
            folder.mkdir(parents=True, exist_ok=True)
            pixels = np.broadcast_to(colour.astype(np.uint8), (112, 112, 3))
            Image.fromarray(pixels).save(folder / f"{k:02d}.png")
        lines.append(f"c{c},c{c},p{c % 3},{'train' if c < 6 else 'val'}")
    manifest = tmp_path / "set" / "manifest.csv"
    manifest.write_text("\n".join(lines) + "\n", encoding="utf-8")
    (tmp_path / "mixed.toml").write_text(
        f'[manifest]\npath = "{manifest.as_posix()}"\n[faces]\nsource = "aligned"\n'
        f'[backbone]\nweights = "{colour_network.as_posix()}"\ncolor = "rgb"\nmean = 127.5\n'
        'std = 127.5\n[run]\ndir = "mixed"\nshard_clips = 2\n',
        encoding="utf-8",
    )
    opened = open_run(load_pipeline(tmp_path / "mixed.toml"))
    extract(opened)
    assert len(opened.folder.shard_paths) > 3
    return opened


def faces_of(run: Run, name: str) -> pa.Table:
    return pq.read_table(run.folder.clustering(name) / "faces.parquet", partitioning=None)


def descriptors_of(run: Run, name: str) -> pa.Table:
    return pq.read_table(run.folder.clustering(name) / "descriptors.parquet", partitioning=None)


METHOD_FOLDERS = [
    (UnionFind(0.5), "mean", "threshold_0.5"),
    (UnionFind(None), "mean", "threshold_none"),
    (KeepAll(), "mean", "none"),
    (Dbscan(0.5, min_samples=2), "mean", "dbscan.threshold_0.5.min_samples_2"),
    (Hdbscan(2), "mean", "hdbscan.min_cluster_size_2"),
    (CompleteLinkage(0.5), "mean", "complete-linkage.threshold_0.5"),
    (Trim(0.5), "mean", "trim.trim_share_0.5"),
    (Oracle(), "mean", "oracle"),
    (UnionFind(0.5), "norm", "threshold_0.5.pooling_norm"),
    (Trim(), "medoid", "trim.trim_share_0.25.pooling_medoid"),
]


def test_every_method_is_covered_here() -> None:
    assert {name_of_denoiser(settings) for settings, _, _ in METHOD_FOLDERS} == set(DENOISERS)


@pytest.mark.parametrize(("settings", "pooling", "name"), METHOD_FOLDERS)
def test_every_method_and_pooling(
    mixed: Run, tmp_path: Path, settings: Denoiser, pooling: str, name: str
) -> None:
    lines = ["clip_id,frame_index,noise"]
    lines += [f"c{c},{k},{int(k % 3 == 1)}" for c in range(12) for k in range(1 + c)]
    (tmp_path / "truth.csv").write_text("\n".join(lines), encoding="utf-8")
    wanted = Denoising(settings, pooling, tmp_path / "truth.csv")
    if name_of_denoiser(settings) == "oracle":  # a truth of its own has a folder of its own
        name += f".truth_{wanted.settings['cluster.truth_sha256'][:12]}"
    assert wanted.name == name
    made = cluster(mixed, wanted)
    labels, descriptors = [], []
    for shard in mixed.shards():
        noise = None
        if name_of_denoiser(settings) == "oracle":
            noise = np.array([k % 3 == 1 for k in shard.table.column("frame_index").to_pylist()])
        faces = FaceSet(shard.embeddings, shard.offsets, noise=noise)
        labels.append(remove_noise(faces, settings))
        weights = pooling_weights(shard.table, pooling)
        descriptors.append(
            pool_faces(
                shard.embeddings, shard.offsets, labels[-1], pooling=pooling, weights=weights
            ).descriptors
        )
    whole = np.concatenate(labels)
    assert faces_of(mixed, name).column("cluster").to_pylist() == whole.tolist()
    assert (made.descriptors == np.concatenate(descriptors)).all()
    assert made.kept.sum() == (whole == 0).sum()
    read = read_clustering(mixed, wanted)
    assert read is not None
    assert (read.descriptors == made.descriptors).all()
    assert (read.threshold, made.threshold) == (wanted.threshold, wanted.threshold)
    _, found = artefacts.read_parquet(mixed.folder.clustering(name) / "descriptors.parquet")
    assert found["settings"]["cluster.method"] == name_of_denoiser(settings)
    assert found["settings"]["descriptor.pooling"] == pooling
    for key, value in denoiser_record(settings).items():
        assert found["settings"][f"cluster.{key}"] == value
    assert ("cluster.truth_sha256" in found["settings"]) == (name_of_denoiser(settings) == "oracle")
    named = with_method(mixed, "none", truth=tmp_path / "truth.csv")
    last = find_latest_denoising(replace(mixed, pipeline=named))
    assert (last.denoiser, last.pooling) == (settings, pooling)


def test_latest_follows_the_clustering_made_last(run: Run) -> None:
    by_trim = Denoising(Trim(0.5), "norm")
    cluster(run, 0.5)
    cluster(run, by_trim)
    assert find_latest_denoising(run).denoiser == Trim(0.5)
    done = score(run)
    assert done.threshold is None
    assert done.denoising == "trim, trim share 0.5, pooling norm"
    assert done.provenance["settings"]["cluster.trim_share"] == 0.5
    assert done.provenance["settings"]["descriptor.pooling"] == "norm"
    written = "val_against_train_trim.trim_share_0.5.pooling_norm.json"
    assert (run.folder.folder / "scores" / written).is_file()
    assert done.counts["kept"] == 3 * 3 + 1  # of 5 faces 3 stay, of 2 one
    cluster(run, 0.5)
    assert score(run).denoising == "threshold 0.5"


def test_a_method_without_a_threshold_cannot_be_swept(run: Run) -> None:
    with pytest.raises(VidfaceError, match="no threshold to sweep; `vidface score` scores it"):
        denoise_all(replace(run, pipeline=with_method(run, "trim")), [0.5])
    with pytest.raises(VidfaceError, match="'trim' has no threshold to sweep"):
        sweep(replace(run, pipeline=with_method(run, "trim")), [0.5])


def with_method(run: Run, method: str, **more):
    own = {name: more.pop(name) for name in ("truth",) if name in more}
    settings = replace(run.pipeline.cluster, method=method, parameters=more, **own)
    return replace(run.pipeline, cluster=settings)


def test_the_oracle_drops_what_the_truth_calls_noise(run: Run, truth: Path) -> None:
    pipeline = with_method(run, "oracle", truth=truth)
    done = cluster(replace(run, pipeline=pipeline), None)
    assert dict(zip(done.clip_ids, done.kept.tolist(), strict=True))["red.v"] == 3
    assert done.removal is not None
    assert done.removal.to_dict() == {
        "dropped": 6, "noise": 6, "both": 6, "precision": 1.0, "recall": 1.0,
    }  # fmt: skip
    before = done.denoising.settings["cluster.truth_sha256"] if done.denoising else ""
    lines = truth.read_text().replace("red.v,1,other", "red.v,1,own")
    truth.write_text(lines)
    changed = Denoising.from_pipeline(pipeline)
    assert changed.settings["cluster.truth_sha256"] != before
    assert read_clustering(run, changed) is None  # of another truth: not the same
    again = cluster(run, changed)
    assert again.removal is not None
    assert again.removal.noise == 5
    first = Denoising(Oracle(), truth_path=truth)
    assert read_clustering(run, first) is not None
    with pytest.raises(VidfaceError, match="truth file; name the file \\(--truth\\)"):
        find_latest_denoising(run)  # whose pipeline names no truth


def test_the_truths_order_and_layout_do_not_matter(truth: Path, tmp_path: Path) -> None:
    head, *rest = truth.read_text().splitlines()
    other = tmp_path / "other.csv"
    other.write_text("\n".join([head, "", *reversed(rest)]))
    method = Oracle()
    one, two = (Denoising(method, truth_path=path).settings for path in (truth, other))
    assert one == two


def test_precision_and_recall_by_eye(run: Run, truth: Path) -> None:
    """Trimming half drops of 5 faces 2 and of 3 and 2 one; in the val clips these are the noise."""
    trim = Denoising(Trim(0.5), truth_path=truth)
    done = cluster(run, trim)
    assert done.removal is not None
    found = done.removal.to_dict()
    assert (found["dropped"], found["noise"], found["both"]) == (3 * 2 + 3 * 1 + 1, 6, 6)
    assert found["precision"] == 0.6
    assert done.summary()["noise_removal"] == found
    nothing = cluster(run, Denoising(KeepAll(), truth_path=truth))
    assert nothing.removal is not None
    assert (nothing.removal.precision, nothing.removal.recall) == (None, 0.0)
    assert cluster(run, 0.5).removal is None


def test_a_truth_that_does_not_know_a_clip(run: Run, tmp_path: Path) -> None:
    path = truth_of_colours(tmp_path / "t.csv", forget="blue.v")
    with pytest.raises(VidfaceError, match=r"says nothing of 5 of 26 faces; .* clip 'blue\.v'"):
        cluster(run, Denoising(Oracle(), truth_path=path))
    assert not list(run.folder.folder.glob("clusters/**/*.parquet"))
    path.write_text(truth_of_colours(path).read_text() + "nobody,0,other\n")  # passed over
    done = cluster(run, Denoising(Oracle(), truth_path=path))
    assert done.summary()["dropped"] == 6


def test_many_thresholds_are_each_as_alone(mixed: Run) -> None:
    thresholds = [None, 0.9, -0.5, 0.0, 0.3, 0.31, 0.7, 0.95, 1.0, None]
    several = list(denoise_all(mixed, thresholds))
    assert [one.threshold for one in several] == thresholds
    assert len({tuple(one.kept.tolist()) for one in several}) > 4
    for threshold, found in zip(thresholds, several, strict=True):
        alone = denoise(mixed, threshold)
        assert found.descriptors.tobytes() == alone.descriptors.tobytes()
        for name in ("clusters", "kept", "unusable"):
            assert (getattr(found, name) == getattr(alone, name)).all(), name
        parts = [
            remove_noise(FaceSet(s.embeddings, s.offsets), UnionFind(threshold))
            for s in mixed.shards()
        ]
        assert found.kept.sum() == (np.concatenate(parts) == 0).sum()


@pytest.mark.parametrize("method", ["dbscan", "complete-linkage"])
@pytest.mark.parametrize("pooling", ["mean", "norm", "medoid"])
def test_many_thresholds_of_other_methods(mixed: Run, method: str, pooling: str) -> None:
    pipeline = with_method(mixed, method, min_samples=2)
    pipeline = replace(pipeline, descriptor=replace(pipeline.descriptor, pooling=pooling))
    other = replace(mixed, pipeline=pipeline)
    for threshold, found in zip([0.2, 0.8, 0.9], denoise_all(other, [0.2, 0.8, 0.9]), strict=True):
        settings = make_denoiser(method, {"threshold": threshold, "min_samples": 2})
        expected = []
        for shard in mixed.shards():
            labels = remove_noise(FaceSet(shard.embeddings, shard.offsets), settings)
            weights = pooling_weights(shard.table, pooling)
            expected.append(
                pool_faces(
                    shard.embeddings, shard.offsets, labels, pooling=pooling, weights=weights
                ).descriptors
            )
        assert found.descriptors.tobytes() == np.concatenate(expected).tobytes()


def test_only_clips_that_changed_are_pooled_again(
    mixed: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    pooled: list[int] = []
    original = shard_denoising.pool_faces

    def counting(faces, offsets, *rest, **more):
        pooled.append(len(offsets) - 1)
        return original(faces, offsets, *rest, **more)

    monkeypatch.setattr(shard_denoising, "pool_faces", counting)
    one, two, three = denoise_all(mixed, [0.5, 0.5, 0.95])
    changed = int((one.kept != three.kept).sum())
    assert (one.descriptors == two.descriptors).all()
    assert 0 < changed <= sum(pooled) - 12 < 12


def test_results_of_shards_are_kept_only_for_another_threshold(
    mixed: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    made: list[weakref.ref[DenoisedShard]] = []
    most_alive: list[int] = []

    class Watched(DenoisedShard):
        def __init__(self, *arguments) -> None:
            super().__init__(*arguments)
            made.append(weakref.ref(self))
            most_alive.append(sum(reference() is not None for reference in made))

    monkeypatch.setattr(shard_denoising, "DenoisedShard", Watched)
    n_shards = len(mixed.shards())
    denoise(mixed, 0.5)
    assert len(made) == n_shards > 3
    assert max(most_alive) <= 2  # the one that is being taken in, and the one being made
    made.clear()
    most_alive.clear()
    for _ in denoise_all(mixed, [0.3, 0.8]):
        pass
    assert len(made) == 2 * n_shards
    assert max(most_alive[:n_shards]) == n_shards
    # At the last threshold every result replaces the one before it.
    assert max(most_alive[n_shards:]) <= n_shards + 1
    assert not any(reference() is not None for reference in made[:-1])


class TestLinkage:
    @pytest.fixture
    def calls(self, monkeypatch: pytest.MonkeyPatch) -> list[int]:
        found: list[int] = []
        original = removal.linkage_tree

        def counting(faces, *rest, **more):
            found.append(len(faces))
            return original(faces, *rest, **more)

        monkeypatch.setattr(removal, "linkage_tree", counting)
        return found

    def test_it_is_computed_once_a_shard(self, mixed: Run, calls: list[int]) -> None:
        list(denoise_all(mixed, [0.1, 0.5, 0.9]))
        assert calls == [len(s.embeddings) for s in mixed.shards()]
        assert [mixed.folder.linkage_path(n).is_file() for n, _ in mixed.each_shard()] == (
            [True] * len(calls)
        )
        stamp = mixed.folder.linkage_path(0).stat().st_mtime_ns
        calls.clear()
        cluster(mixed, 0.3)
        denoise(mixed, 0.4)
        assert calls == []
        assert mixed.folder.linkage_path(0).stat().st_mtime_ns == stamp
        extract(mixed, force=True)
        assert not list(mixed.folder.folder.glob("linkage/*"))

    def test_other_methods_need_none(self, mixed: Run, calls: list[int]) -> None:
        cluster(mixed, Denoising(Dbscan()))
        assert calls == []
        assert not mixed.folder.linkage_path(0).exists()

    def test_one_of_another_extraction_is_made_again(self, run: Run, calls: list[int]) -> None:
        cluster(run, 0.5)
        content = run.folder.linkage_path(0).read_bytes()
        extract(run, force=True)
        run.folder.linkage_path(0).write_bytes(content)
        assert cluster(run, 0.5).summary()["dropped"] == 6
        assert calls == [26, 26]
        assert run.folder.linkage_path(0).read_bytes() != content
        cluster(run, 0.5)
        assert calls == [26, 26]

    def test_a_damaged_one_is_refused(self, run: Run) -> None:
        cluster(run, 0.5)
        path = run.folder.linkage_path(0)
        path.write_bytes(path.read_bytes()[:-200])
        with pytest.raises(VidfaceError, match=r"linkage.shard-00000\.arrow: damaged"):
            cluster(run, 0.5)

    def test_one_that_does_not_fit_is_refused(self, run: Run) -> None:
        cluster(run, 0.5)
        path = run.folder.linkage_path(0)
        table, made = artefacts.read_arrow(path)
        rows = table.to_pydict()
        rows["order"][0] = 99
        damaged = pa.table(rows, schema=LINKAGE_SCHEMA)
        artefacts.write_arrow(path, damaged, made)
        with pytest.raises(VidfaceError, match="order is no order"):
            cluster(run, 0.5)

    def test_it_is_the_tree(self, run: Run) -> None:
        [(number, shard)] = run.each_shard()
        source = ExtractedClips(run).source
        path, faces = run.folder.linkage_path(number), FaceSet(shard.embeddings, shard.offsets)
        made = read_or_make_tree(path, source, faces)
        read = read_or_make_tree(path, source, faces)
        assert (made.order == read.order).all()
        assert made.similarities.tobytes() == read.similarities.tobytes()


def moody_run(pipeline: Path) -> Run:
    """A recogniser that gives NaN for green."""
    import torch

    class Moody(torch.nn.Module):
        def forward(self, x):
            mean = x.mean(dim=(2, 3))
            return torch.where(mean[:, 1:2] > 0.4, torch.nan, mean)

    backbone = load_backbone(Moody(), Preprocessing("rgb", 127.5, 127.5), force=True)
    opened = open_run(load_pipeline(pipeline), backbone=backbone)
    extract(opened)
    return opened


def test_unusable_faces_are_named(colour_pipeline: Path) -> None:
    from vidface.cli import run_tables

    run = moody_run(colour_pipeline)
    done = cluster(run, 0.5)
    names = ["red.v, frame 1", "red.v, frame 3", *(f"green.t, frame {k}" for k in range(3))]
    assert list(done.unusable_rows[:5]) == names
    assert done.unusable.sum() == 10  # red.v 2, green.t 3, green.v 3, stranger (yellow) 2
    text = run_tables.format_clustering(done, run)
    said = "red.v, frame 1; red.v, frame 3; green.t, frame 0; and 7 more"
    assert f"10 unusable embeddings (NaN or zero) count as noise: {said}" in text


def test_what_is_read_says_what_was_made(colour_pipeline: Path, truth: Path) -> None:
    from vidface.cli import run_tables

    run = moody_run(colour_pipeline)
    made, read = cluster(run, 0.5), cluster_once(run, 0.5)
    assert read.summary() == made.summary()
    assert read.unusable_rows == made.unusable_rows
    assert run_tables.format_clustering(read, run) == run_tables.format_clustering(made, run)
    with_truth = Denoising(UnionFind(0.5), truth_path=truth)
    again = cluster_once(run, with_truth)  # stored already, but without precision and recall
    assert again.removal is not None
    assert again.removal.recall == 4 / 6  # of green.v only the two intruders are usable


def test_diagnostics_are_those_of_the_whole(mixed: Run) -> None:
    done = cluster(mixed, 0.8)
    table = descriptors_of(mixed, "threshold_0.8")
    shards = mixed.shards()
    lengths = np.concatenate([np.diff(s.offsets) for s in shards])
    whole = np.concatenate([s.embeddings for s in shards])
    offsets = np.concatenate([[0], np.cumsum(lengths)])
    labels = remove_noise(FaceSet(whole, offsets), UnionFind(0.8))
    expected = diagnose(whole, offsets, labels, pool_faces(whole, offsets, labels).descriptors)
    assert table.column("clip_id").to_pylist() == [f"c{c}" for c in range(12)]
    for name in ("clusters", "kept", "dropped", "unusable", "second_size", *FLAGS):
        assert table.column(name).to_pylist() == getattr(expected, name).tolist(), name
    for name in ("lowest_similarity", "second_share", "second_cosine"):
        found = table.column(name).to_numpy(zero_copy_only=False)
        assert np.allclose(found, getattr(expected, name), atol=1e-6, equal_nan=True), name
        assert table.column(name).null_count == np.isnan(getattr(expected, name)).sum()
    similarity = faces_of(mixed, "threshold_0.8").column("similarity").to_numpy()
    assert np.allclose(similarity, expected.similarity, atol=1e-6)
    assert done.diagnostics is not None
    assert len(done.diagnostics.similarity) == 0  # of millions of faces: on disk alone
    assert done.summary()["diagnostics"]["contested"] == int(expected.contested.sum())


class TestRepeatsOnce:
    """Here a person is one flat colour, so a clip such as red, green, red, green, red is two
    pictures, and the red one comes first."""

    ONCE = Denoising(UnionFind(0.5), repeats="once")

    def test_a_picture_votes_and_is_pooled_once(self, run: Run) -> None:
        done = cluster(run, self.ONCE)
        [(_, shard)] = run.each_shard()
        row = done.clip_ids.index("red.v")
        start = shard.offsets[shard.clip_ids.index("red.v")]
        first = shard.embeddings[start] / np.linalg.norm(shard.embeddings[start])
        assert done.descriptors[row] == pytest.approx(first, abs=1e-6)
        labels = faces_of(run, "threshold_0.5.repeats_once").to_pylist()
        assert [face["cluster"] for face in labels if face["clip_id"] == "red.v"] == [0, 1, 0, 1, 0]
        found = done.diagnostics
        assert found is not None
        assert (found.kept[row], found.dropped[row], found.second_size[row]) == (3, 2, 1)
        assert (found.second_share[row], found.still_share[row]) == (1, 3 / 5)
        assert [flag for flag in FLAGS if getattr(found, flag)[row]] == [
            "contested", "thin", "still",
        ]  # fmt: skip
        assert run.folder.linkage_path(0, "once").is_file()
        assert not run.folder.linkage_path(0).exists()

    def test_what_is_on_disk_says_so(self, run: Run) -> None:
        cluster(run, self.ONCE)
        made = artefacts.read_provenance(
            run.folder.clustering("threshold_0.5.repeats_once") / "descriptors.parquet"
        )
        assert made["settings"]["cluster.repeats"] == made["denoiser"]["repeats"] == "once"
        latest = find_latest_denoising(run)
        assert (latest, str(latest)) == (self.ONCE, "threshold 0.5, repeats once")
        assert read_clustering(run, latest) is not None
        assert read_clustering(run, 0.5) is None
        assert "cluster.repeats" not in Denoising().settings  # as those made before

    def test_sweeps_honour_it(self, mixed: Run) -> None:
        asked = replace(mixed.pipeline, cluster=replace(mixed.pipeline.cluster, repeats="once"))
        thresholds = [None, 0.3, 0.6, 0.9, 1.0]
        swept = list(denoise_all(replace(mixed, pipeline=asked), thresholds))
        changed = 0
        for threshold, denoised in zip(thresholds, swept, strict=True):
            alone = denoise(mixed, Denoising(UnionFind(threshold), repeats="once"))
            assert denoised.descriptors.tobytes() == alone.descriptors.tobytes()
            counted = denoise(mixed, threshold)
            changed += int((counted.descriptors != denoised.descriptors).any(axis=1).sum())
        assert changed > 0

    def test_clusterings_without_the_columns_stay_readable(self, run: Run) -> None:
        """As an older vidface made them: no picture is said to stay, counts are what they were."""
        cluster(run, 0.5)
        path = run.folder.clustering("threshold_0.5") / "descriptors.parquet"
        table, made = artefacts.read_parquet(path)
        made["denoiser"].pop("repeats")
        artefacts.write_parquet(path, table.drop_columns(ADDED_COLUMNS), made)
        read = read_clustering(run, find_latest_denoising(run))
        assert read is not None
        assert read.diagnostics is not None
        assert not read.diagnostics.still.any()
        assert read.kept.tolist() == cluster(run, 0.5).kept.tolist()
        artefacts.write_parquet(path, table.drop_columns(ADDED_COLUMNS), made)
        assert [line.flags for line in list_clips(run).lines][:2] == [(), ("contested",)]


@pytest.mark.parametrize(
    ("pooling", "message"),
    [
        ("det-score", r"det_score is null throughout: .* allows mean, norm, medoid"),
        ("quality", r"have no column 'quality'; .* allows mean, norm, medoid"),
    ],
)
def test_poolings_that_aligned_crops_do_not_allow(run: Run, pooling: str, message: str) -> None:
    with pytest.raises(VidfaceError, match=message):
        cluster(run, Denoising(pooling=pooling))
    assert not list(run.folder.folder.glob("clusters/**/*"))[1:]  # an empty folder at most
    with pytest.raises(VidfaceError, match=message):
        denoise(run, Denoising(pooling=pooling))


def test_clustering_that_breaks_off_leaves_none(
    mixed: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    original = noise_removal.denoise_shard

    def broken(work):
        if work.number == 2:
            raise KeyboardInterrupt
        return original(work)

    with monkeypatch.context() as patch:
        patch.setattr(noise_removal, "denoise_shard", broken)
        with pytest.raises(KeyboardInterrupt):
            cluster(mixed, 0.5)
    assert not [p for p in mixed.folder.folder.glob("clusters/**/*") if p.is_file()]
    assert read_clustering(mixed, 0.5) is None
    before = cluster(mixed, 0.5)
    with monkeypatch.context() as patch:
        patch.setattr(noise_removal, "denoise_shard", broken)
        with pytest.raises(KeyboardInterrupt):
            cluster(mixed, 0.5)
    after = read_clustering(mixed, 0.5)
    assert after is not None
    assert (after.descriptors == before.descriptors).all()


def test_more_thresholds_read_no_more_files(mixed: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """The clips' table and the trees are read once a sweep, and not for every threshold."""
    list(denoise_all(mixed, [0.5]))  # the trees are there from here on
    reads: list[Path] = []
    for name in ("read_parquet", "read_arrow", "read_shard"):
        original = getattr(artefacts, name)

        def counting(path, *rest, original=original):
            reads.append(path)
            return original(path, *rest)

        for module in (artefacts, run_folder):  # wherever the name is looked up
            monkeypatch.setattr(module, name, counting, raising=module is artefacts)
    counts = []
    for thresholds in ([0.5], [None, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6]):
        reads.clear()
        list(denoise_all(mixed, thresholds))
        counts.append(len(reads))
    assert counts[0] == counts[1]
    trees = [path for path in reads if path.parent.name == "linkage"]
    assert len(trees) == len(set(trees)) == len(mixed.shards()) > 1


def test_shards_are_mapped_one_after_the_other(mixed: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    alive: list[weakref.ref[EmbeddingShard]] = []
    most = 0
    original = artefacts.read_shard

    def watched(path: Path):
        nonlocal most
        shard, made = original(path)
        alive.append(weakref.ref(shard))
        gc.collect()
        most = max(most, sum(one() is not None for one in alive))
        return shard, made

    monkeypatch.setattr(artefacts, "read_shard", watched)
    monkeypatch.setattr(run_folder, "read_shard", watched)
    cluster(mixed, 0.5)
    assert len(alive) > 3
    assert most <= 2  # this one, and the one before until it is let go


def test_a_clip_without_faces_has_a_row(colour_pipeline: Path, colour_clips: Path) -> None:
    (colour_clips.parent / "nothing").mkdir()
    head, *rest = colour_clips.read_text().splitlines()
    colour_clips.write_text("\n".join([head, "none,nothing,,val", *rest]))  # before all others
    run = open_run(load_pipeline(colour_pipeline))
    extract(run)
    done = cluster(run, 0.5)
    assert done.clip_ids[0] == "none"
    assert (done.faces[0], done.kept[0], done.clusters[0]) == (0, 0, 0)
    assert not done.has_descriptor[0]
    row = descriptors_of(run, "threshold_0.5").to_pylist()[0]
    assert row["descriptor"] is None
    assert row["lowest_similarity"] is None
    assert row["thin"] is False


def test_settings_in_words() -> None:
    assert str(Denoising()) == "threshold 0.4"
    assert str(Denoising().with_threshold(None)) == "threshold none"
    assert str(Denoising(KeepAll(), "norm")) == "none, pooling norm"
    words = "dbscan, threshold 0.3, min samples 2, pooling medoid"
    assert str(Denoising(Dbscan(0.3, min_samples=2), "medoid")) == words
