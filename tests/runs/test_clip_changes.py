"""A run that is extended: what came, went or changed is done, the rest is taken over as it is."""

from __future__ import annotations

import os
import random
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from tests.conftest import write_colour_clips, write_colour_pipeline, write_crop
from tests.runs.test_extraction import content
from vidface.core.digests import digest_path
from vidface.core.errors import VidfaceError
from vidface.core.rules import NEW_RULES
from vidface.runs import artefacts
from vidface.runs.checking import check_files
from vidface.runs.clip_changes import ClipChanges
from vidface.runs.columns import CLIPS_ADDED
from vidface.runs.extraction import extract
from vidface.runs.noise_removal import cluster
from vidface.runs.run import Run, open_run
from vidface.runs.scoring import score
from vidface.settings.manifests import Manifest
from vidface.settings.pipeline import load_pipeline

SHARD_CLIPS = 3


class Project:
    """Clips, a manifest to be edited, and a run of them."""

    def __init__(self, folder: Path, network: Path) -> None:
        self.folder = folder
        self.manifest = folder / "set" / "manifest.csv"
        if not folder.is_dir():
            write_colour_clips(folder / "set")
        self.pipeline = write_colour_pipeline(folder / "colours.toml", self.manifest, network)
        self.header, *self.lines = self.manifest.read_text().splitlines()
        self.said: list[str] = []

    def open(self, run: str = "run") -> Run:
        self.manifest.write_text("\n".join([self.header, *self.lines]) + "\n")
        how = {("run", "dir"): str(self.folder / run), ("run", "shard_clips"): SHARD_CLIPS}
        return open_run(load_pipeline(self.pipeline, how))

    def extract(self, run: str = "run", **how: bool) -> int:
        """Extract, and return how many clips were decoded."""
        self.said.clear()
        frames: list[int] = []
        extract(
            self.open(run),
            notify=self.said.append,
            progress=lambda n, n_frames, faces: frames.append(n_frames),
            **how,
        )
        return sum(n > 0 for n in frames)

    def add(self, name: str, colour: str = "yellow", place: int = 0, seed: int = 40) -> None:
        for k in range(2):
            write_crop(self.folder / "set" / name / f"{k}.png", colour, seed=seed + k)
        self.lines.insert(place, f"{name},{name},{colour},val")

    def change(self, line: int, seed: int) -> None:
        path = self.folder / "set" / self.lines[line].split(",")[1]
        write_crop(path / "0.png", "green", seed=seed)

    def is_as_fresh(self) -> bool:
        """Whether the run has, to the last bit, what a fresh one of the same manifest has."""
        fresh = f"fresh-{len(list(self.folder.glob('fresh-*')))}"
        extract(self.open(fresh))
        runs = [self.open("run"), self.open(fresh)]
        contents = [content(run.folder) for run in runs]
        same = contents[0] == contents[1]
        shards = [[shard.embeddings for shard in run.shards()] for run in runs]
        same &= all(map(np.array_equal, *shards)) and len(shards[0]) == len(shards[1])
        shutil.rmtree(runs[1].folder.folder)
        return same and check_files(runs[0].folder.folder).damaged == ()


@pytest.fixture(scope="module")
def extracted(tmp_path_factory: pytest.TempPathFactory, colour_network: Path) -> Path:
    made = Project(tmp_path_factory.mktemp("edited") / "project", colour_network)
    made.extract()
    return made.folder


@pytest.fixture
def project(extracted: Path, tmp_path: Path, colour_network: Path) -> Project:
    """A finished run; copied, with the times of its files."""
    shutil.copytree(extracted, tmp_path / "project")
    return Project(tmp_path / "project", colour_network)


def test_what_is_new_or_changed_costs_its_clips_alone(project: Project) -> None:
    run = project.open()
    cluster(run, 0.5)
    score(run)
    project.add("new")
    for stage in (score, lambda opened: cluster(opened, 0.5)):
        with pytest.raises(
            VidfaceError, match=r"1 clip\(s\) of the manifest are not extracted yet"
        ):
            stage(project.open())
    project.change(2, seed=77)
    assert project.extract() == 2
    assert "extraction: 1 added, 1 changed, 6 reused" in project.said
    assert "clusterings and scores made before are gone" in project.said[-1]
    assert project.is_as_fresh()
    assert project.extract() == 0
    assert "already done" in project.said[0]


@pytest.mark.slow
def test_a_clip_at_the_end_leaves_whole_shards_alone(project: Project) -> None:
    before = [path.stat().st_ino for path in project.open().folder.shard_paths]
    project.add("new", place=7)
    project.extract()
    after = [path.stat().st_ino for path in project.open().folder.shard_paths]
    assert after[:2] == before[:2]
    assert after[2] != before[2]
    assert project.is_as_fresh()


def test_removed_and_reordered_clips_need_no_recogniser(
    project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    from vidface.runs import clip_extraction

    del project.lines[1]
    project.lines.reverse()
    with monkeypatch.context() as patch:
        patch.setattr(clip_extraction, "open_backbone", None)
        assert project.extract() == 0
    assert "extraction: 1 removed, 6 reused, in another order" in project.said
    assert project.is_as_fresh()


@pytest.mark.slow
def test_another_id_for_the_same_file_is_taken_over(project: Project) -> None:
    project.lines[0] = project.lines[0].replace("red.t,", "rot,", 1)
    project.lines[2], project.lines[3] = (  # two that change their names
        project.lines[2].replace("green.t,", "green.v,"),
        project.lines[3].replace("green.v,", "green.t,"),
    )
    assert project.extract() == 0
    assert "extraction: 3 renamed, 4 reused" in project.said
    assert project.is_as_fresh()


@pytest.mark.slow
def test_an_edited_identity_or_split_changes_nothing(project: Project) -> None:
    cluster(project.open(), 0.5)
    project.lines[1] = project.lines[1].replace(",red,val", ",green,test")
    assert project.extract() == 0
    assert "already done" in project.said[0]
    assert project.open().folder.clusterings()


def test_a_time_alone_costs_a_digest_once(project: Project) -> None:
    run = project.open()
    cluster(run, 0.5)
    for path in (project.folder / "set").rglob("*.png"):
        os.utime(path, ns=(1, 10**18))
    times = run.folder.read_clips()[0]["modified_ns"].to_pylist()
    assert project.extract() == 0
    assert "already done" in project.said[0]
    assert project.open().folder.clusterings()  # kept, for nothing changed
    assert run.folder.read_clips()[0]["modified_ns"].to_pylist() != times


def change_in_secret(project: Project) -> Path:
    """Another content of the same size, at the same time."""
    path = project.folder / "set" / "red" / "val" / "0.png"
    status, size = path.stat(), path.stat().st_size
    content_now = path.read_bytes()
    path.write_bytes(content_now[:-1] + bytes([content_now[-1] ^ 1]))
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))
    assert path.stat().st_size == size
    return path


@pytest.mark.slow
def test_contents_are_compared_on_demand(project: Project) -> None:
    assert project.extract(verify=True) == 0
    change_in_secret(project)
    assert project.extract() == 0
    project.extract(verify=True)
    assert "extraction: 1 changed, 6 reused" in project.said
    assert project.is_as_fresh()


@pytest.mark.slow
def test_files_that_are_gone_keep_what_was_extracted(project: Project) -> None:
    before = content(project.open().folder)
    shutil.rmtree(project.folder / "set" / "red")
    text = project.pipeline.read_text().replace("[manifest]", "[manifest]\nallow_missing = true")
    project.pipeline.write_text(text)
    assert project.extract() == 0
    assert "2 clip(s) are gone from where they were" in project.said[0]
    assert content(project.open().folder) == before


def forget_columns(run: Run, made_by: Callable[[dict], dict] = lambda made: made) -> None:
    """Make clips.parquet what an older vidface wrote."""
    table, made = artefacts.read_parquet(run.folder.clips_path)
    artefacts.write_parquet(
        run.folder.clips_path, table.drop_columns(CLIPS_ADDED), made_by(dict(made))
    )


@pytest.mark.slow
def test_an_older_run_is_read_and_extended(project: Project) -> None:
    def without_shard_clips(made: dict) -> dict:
        return {key: value for key, value in made.items() if key != "shard_clips"}

    for number, made_by in enumerate((lambda made: made, without_shard_clips)):
        run = project.open()
        forget_columns(run, made_by)
        assert project.extract() == 0
        assert "already done" in project.said[0]
        cluster(project.open(), 0.5)
        os.utime(project.folder / "set" / "red" / "val")  # which is not known of it
        project.add(f"new{number}", place=2)
        del project.lines[0]
        assert project.extract() == 1
        assert f"extraction: 1 added, 1 removed, {len(project.lines) - 1} reused" in project.said
    cluster(project.open(), 0.5)
    score(project.open())
    extract(project.open(), force=True)
    assert project.is_as_fresh()


def test_an_older_run_whose_times_are_not_known_is_refused(project: Project) -> None:
    run = project.open()
    forget_columns(
        run,
        lambda made: {
            **made, "settings": {**made["settings"], "manifest.clips_sha256": "0" * 64}
        },
    )  # fmt: skip
    with pytest.raises(VidfaceError, match="did not record its clips' times"):
        extract(project.open())


@pytest.mark.slow
def test_a_shard_that_is_lost_is_one_of_the_changes(project: Project) -> None:
    [first, *_] = project.open().folder.shard_paths
    first.unlink()
    digest_path(first).unlink()
    project.add("new", place=7)
    assert project.extract() == 1 + SHARD_CLIPS
    assert project.is_as_fresh()


@pytest.mark.parametrize("seed", [pytest.param(n, marks=pytest.mark.slow) for n in range(3)])
def test_any_sequence_of_edits_is_as_a_fresh_run(project: Project, seed: int) -> None:
    draw = random.Random(seed)
    for step in range(5):
        for _ in range(draw.randint(1, 3)):
            what, place = (
                draw.choice(["add", "remove", "change", "order", "name"]),
                len(project.lines),
            )
            place = draw.randrange(len(project.lines))
            if what == "add" or len(project.lines) < 3:
                project.add(f"n{step}{draw.random()}", place=place, seed=draw.randrange(999))
            elif what == "remove":
                del project.lines[place]
            elif what == "change":
                project.change(place, draw.randrange(999))
            elif what == "order":
                draw.shuffle(project.lines)
            else:
                _, rest = project.lines[place].split(",", 1)
                project.lines[place] = f"m{step}{draw.random()},{rest}"
        project.extract()
        assert project.is_as_fresh()


def test_urls_are_asked_on_demand(tmp_path: Path) -> None:
    """A file, a folder of pictures, and one that is gone; tags tell of equal sizes."""
    fsspec = pytest.importorskip("fsspec")
    from vidface.core.clips import Clip
    from vidface.runs.clip_changes import compare_files
    from vidface.storage.urls import Address

    bucket = fsspec.filesystem("memory")
    for name in ("same.mp4", "other.mp4", "p/0.jpg", "gone.mp4"):
        bucket.pipe(f"/changes/{name}", b"1234")
    paths = ("same.mp4", "other.mp4", "p", "gone.mp4")

    def ask(extracted: pa.Table | None, **how: bool) -> dict[str, list[bool]]:
        manifest = Manifest(
            tuple(Clip(path, path, "", "val") for path in paths),
            tmp_path / "m.csv", Address("memory://changes"), "0",
        )  # fmt: skip
        if extracted is None:
            states = [manifest.root.state(path) for path in paths]
            columns = {name: [getattr(s, name) for s in states]
                       for name in ("bytes", "content")}  # fmt: skip
            columns["modified_ns"] = pa.nulls(len(paths), pa.int64())
            return {"extracted": pa.table(columns)}
        compared = compare_files(manifest, np.arange(len(paths)), extracted, NEW_RULES, **how)
        return {name: getattr(compared, name).tolist() for name in ("changed", "gone")}

    extracted = ask(None)["extracted"]
    nothing = {"changed": [False] * 4, "gone": [False] * 4}
    assert ask(extracted, verify=True) == nothing
    bucket.rm("/changes/gone.mp4")
    bucket.pipe("/changes/other.mp4", b"4321")
    bucket.pipe("/changes/p/0.jpg", b"4321")
    assert ask(extracted) == nothing
    assert ask(extracted, verify=True) == {
        "changed": [False, True, True, False], "gone": [False, False, False, True]
    }  # fmt: skip


def test_columns_are_joined(tmp_path: Path) -> None:
    """A million clips are compared by Arrow: this is about the result, at n = 0, 1 and ties."""
    from vidface.core.clips import Clip
    from vidface.runs.clip_changes import compare_clips, match_clips

    def table_of(*clips: tuple[str, str]) -> tuple[Manifest, pa.Table]:
        made = Manifest(
            tuple(Clip(clip_id, path, "", "val") for clip_id, path in clips),
            tmp_path / "m.csv", tmp_path, "0",
        )  # fmt: skip
        ids = pa.array([clip_id for clip_id, _ in clips], pa.string())
        return made, pa.table({"clip_id": ids, "key": made.clip_keys})

    one, two = table_of(("a", "x")), table_of(("b", "x"), ("a", "x"))
    none = table_of()
    assert match_clips(one[0], two[1]).tolist() == [1]  # by its id, of two that fit
    assert match_clips(two[0], one[1]).tolist() == [0, 0]
    assert match_clips(two[0], one[1], by_file=False).tolist() == [-1, 0]
    assert match_clips(one[0], none[1]).tolist() == [-1]
    assert str(compare_clips(one[0], none[1])) == "1 added"
    assert str(compare_clips(none[0], two[1])) == "2 removed"
    assert compare_clips(two[0], two[1]) == ClipChanges(reused=2)
    assert str(compare_clips(table_of(("a", "y"))[0], one[1])) == "1 changed"
