"""A manifest's clips into a run directory: shards, resuming, retrying, refusing."""

from __future__ import annotations

import copy
import errno
import json
import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from tests.budgets import mostly_slow
from tests.conftest import crop_of, write_crop
from vidface.backbones.loading import load_backbone
from vidface.backbones.preprocessing import Preprocessing
from vidface.core.errors import VidfaceError
from vidface.core.files import write_json
from vidface.core.rules import ReadingRules
from vidface.faces.pool import decode_clips
from vidface.faces.settings import FaceSettings
from vidface.runs import artefacts, clip_extraction
from vidface.runs.checking import check_files
from vidface.runs.clip_extraction import extract_clips
from vidface.runs.clips_before import Redo
from vidface.runs.embedding import ExtractionSummary, encode_jpeg
from vidface.runs.profiles import read_profile
from vidface.runs.run import Run
from vidface.runs.run_folder import STAGING, RunFolder
from vidface.settings.manifests import read_manifest
from vidface.settings.pipeline import ManifestSettings, Pipeline
from vidface.settings.run_settings import RunSettings

ALIGNED = FaceSettings(source="aligned", keep_crops=True)
NAMES = ("red.t", "red.v", "green.t", "green.v", "blue.t", "blue.v", "stranger")


@pytest.fixture
def backbone(colour_network: Path):
    return load_backbone(colour_network, Preprocessing("rgb", 0.0, 1.0))


def extracted(
    manifest_path: Path,
    folder: Path,
    backbone,
    *,
    settings=None,
    shard_clips=256,
    workers=1,
    **more,
) -> tuple[ExtractionSummary, RunFolder]:
    manifest = read_manifest(manifest_path, allow_missing=True)
    how = RunSettings(folder, shard_clips=shard_clips, workers=workers)
    pipeline = Pipeline(ManifestSettings(manifest_path), how, faces=ALIGNED)
    run = Run(pipeline, manifest, RunFolder(folder), backbone)
    vars(run)["extraction_settings"] = {  # what it has computed once, it keeps
        "manifest.clips_sha256": manifest.clips_sha256,
        **(settings or {"a": 1}),
    }
    return extract_clips(run, **more), run.folder


def content(run: RunFolder) -> dict[str, list[dict]]:
    """All rows of a run's tables, whatever they are spread over."""
    shards = [shard.table for _, shard in run.shards(lambda made, path: None)]
    crops = [pq.read_table(path) for path in sorted((run.folder / "crops").glob("shard-*.parquet"))]
    return {
        "clips": run.read_clips()[0].to_pylist(),
        "faces": [row for table in shards for row in table.to_pylist()],
        "crops": [row for table in crops for row in table.to_pylist()],
    }


class Interrupting:
    """Progress that stops the run after some clips, as a user's Ctrl-C does."""

    def __init__(self, after: int) -> None:
        self.left = after

    def __call__(self, clips: int, frames: int, faces: int) -> None:
        self.left -= clips
        if self.left <= 0:
            raise KeyboardInterrupt


def test_rows_are_the_clips_in_the_manifests_order(colour_clips: Path, backbone, tmp_path) -> None:
    calls: list[tuple[int, int, int]] = []
    summary, run = extracted(
        colour_clips, tmp_path / "run", backbone, progress=lambda *n: calls.append(n)
    )
    assert (summary.clips, summary.frames, summary.faces) == (7, 26, 26)
    assert summary.states == {"ok": 7}
    assert [sum(column) for column in zip(*calls, strict=True)] == [7, 26, 26]
    [(_, shard)] = run.shards(lambda made, path: None)
    assert shard.clip_ids == NAMES
    assert np.diff(shard.offsets).tolist() == [3, 5, 3, 5, 3, 5, 2]
    rows = shard.table.to_pylist()
    assert [r["frame_index"] for r in rows[3:8]] == [0, 1, 2, 3, 4]
    assert [r["file"] for r in rows[3:8]] == [f"{k}.png" for k in range(5)]
    for row in rows:
        for column in ("time_seconds", "source_time_seconds", "box", "landmarks", "det_score"):
            assert row[column] is None
    # raw, as the network gave it: the crop's mean colour
    assert np.allclose(shard.embeddings[0], crop_of("red", seed=0).mean(axis=(0, 1)), atol=1e-3)
    crops = pq.read_table(run.crops_path(0))
    assert crops.column("clip_id").to_pylist() == [r["clip_id"] for r in rows]
    assert crops.column("jpeg")[0].as_py() == encode_jpeg(crop_of("red", seed=0))
    assert not (run.folder / STAGING).exists()


def test_every_kind_of_damage_is_a_state(tmp_path: Path, backbone) -> None:
    from PIL import Image

    folder = tmp_path / "set"
    write_crop(folder / "good" / "0.png", "red")
    write_crop(folder / "small" / "0.png", "red")
    write_crop(folder / "small" / "1.png", "red")
    Image.new("RGB", (96, 112)).save(folder / "small" / "1.png")
    (folder / "text").mkdir()
    (folder / "text" / "0.jpg").write_text("no picture")
    (folder / "empty").mkdir()
    (folder / "cut").mkdir()
    jpeg = encode_jpeg(crop_of("blue"))
    (folder / "cut" / "0.jpg").write_bytes(jpeg[: len(jpeg) // 2])
    (folder / "film.mp4").write_bytes(b"text")
    lines = ["clip_id,path,identity,split"]
    lines += [f"{n},{n},,val" for n in ("good", "small", "text", "empty", "cut", "film.mp4", "no")]
    (folder / "m.csv").write_text("\n".join(lines), encoding="utf-8")
    summary, run = extracted(folder / "m.csv", tmp_path / "run", backbone)
    table, made = run.read_clips()
    rows = {r["clip_id"]: r for r in table.to_pylist()}
    assert {k: r["state"] for k, r in rows.items()} == {
        "good": "ok",
        "small": "corrupt",
        "text": "corrupt",
        "empty": "no_video_stream",
        "cut": "corrupt",
        "film.mp4": "corrupt",
        "no": "missing",
    }
    assert "small/1.png: 96x112 pixels, but aligned crops are 112x112" in rows["small"]["message"]
    assert "no images in this folder" in rows["empty"]["message"]
    assert "a video file where aligned crops are expected" in rows["film.mp4"]["message"]
    assert rows["small"]["faces"] == 0  # of a damaged clip nothing is used
    assert rows["good"]["message"] == ""
    assert (summary.faces, len(summary.failed)) == (1, 6)
    assert made["settings"]["a"] == 1
    [(_, shard)] = run.shards(lambda made, path: None)
    assert shard.clip_ids == ("good",)


def test_without_a_single_face(tmp_path: Path, backbone) -> None:
    folder = tmp_path / "set"
    (folder / "empty").mkdir(parents=True)
    (folder / "m.csv").write_text("clip_id,path,identity,split\na,empty,,val\n", encoding="utf-8")
    summary, run = extracted(folder / "m.csv", tmp_path / "run", backbone)
    assert summary.faces == 0
    [(_, shard)] = run.shards(lambda made, path: None)
    assert shard.embeddings.shape == (0, 3)


class TestShards:
    @pytest.mark.parametrize("size", mostly_slow([1, 2, 3, 7, 8], 3))
    def test_do_not_change_rows(self, colour_clips, backbone, tmp_path, size: int) -> None:
        _, whole = extracted(colour_clips, tmp_path / "whole", backbone)
        _, split = extracted(colour_clips, tmp_path / "split", backbone, shard_clips=size)
        assert content(split) == content(whole)
        counts = [len(shard.clip_ids) for _, shard in split.shards(lambda made, path: None)]
        assert counts == [min(size, 7 - start) for start in range(0, 7, size)]


class TestResuming:
    @pytest.fixture
    def whole(self, colour_clips, backbone, tmp_path) -> dict:
        return content(extracted(colour_clips, tmp_path / "whole", backbone, shard_clips=2)[1])

    def interrupted(self, manifest: Path, folder: Path, backbone, after: int = 5, **more) -> None:
        with pytest.raises(KeyboardInterrupt):
            extracted(
                manifest, folder, backbone, shard_clips=2, progress=Interrupting(after), **more
            )

    def test_goes_on_with_the_first_shard_that_is_not_there(
        self, colour_clips, backbone, tmp_path, whole
    ) -> None:
        folder = tmp_path / "run"
        self.interrupted(colour_clips, folder, backbone)
        first = folder / STAGING / "embeddings" / "shard-00000.arrow"
        written = first.stat().st_ino
        assert not (folder / "clips.parquet").exists()
        said: list[str] = []
        calls: list[tuple[int, int, int]] = []
        summary, run = extracted(
            colour_clips,
            folder,
            backbone,
            shard_clips=64,  # what was begun counts
            notify=said.append,
            progress=lambda *n: calls.append(n),
        )
        assert said == ["going on with an extraction that was begun: 2 of 4 shards are done"]
        assert calls[:2] == [(2, 0, 0), (2, 0, 0)]
        assert sum(n for n, _, _ in calls) == 7
        assert run.shard_path(0).stat().st_ino == written  # moved, not made again
        assert content(run) == whole
        assert summary.clips == 7
        made = {run.read_clips()[1]["created"]}
        run_shards = list(run.shards(lambda found, path: made.add(found["created"])))
        assert (len(made), len(run_shards)) == (1, 4)

    @pytest.mark.parametrize(
        "damage", mostly_slow(["states", "faces", "gone", "of another"], "faces")
    )
    def test_a_damaged_shard_is_made_again(
        self, colour_clips, backbone, tmp_path, whole, damage: str
    ) -> None:
        folder = tmp_path / "run"
        self.interrupted(colour_clips, folder, backbone)
        states = folder / STAGING / "clips" / "shard-00001.parquet"
        faces = folder / STAGING / "embeddings" / "shard-00001.arrow"
        if damage == "states":
            states.write_bytes(states.read_bytes()[:-9])
        elif damage == "faces":
            faces.unlink()
        elif damage == "gone":
            states.unlink()
        else:
            states.write_bytes((folder / STAGING / "clips" / "shard-00000.parquet").read_bytes())
        _, run = extracted(colour_clips, folder, backbone)
        assert content(run) == whole

    def test_what_a_killed_run_was_writing_is_not_moved(
        self, colour_clips, backbone, tmp_path
    ) -> None:
        self.interrupted(colour_clips, tmp_path / "run", backbone)
        crops = tmp_path / "run" / STAGING / "crops"
        (crops / ".shard-00001.parquet.0a1b2c3d.part").write_bytes(b"half")
        extracted(colour_clips, tmp_path / "run", backbone)
        assert not list((tmp_path / "run").rglob("*.part"))

    def test_a_clip_that_changed_costs_its_shard(self, colour_clips, backbone, tmp_path) -> None:
        self.interrupted(colour_clips, tmp_path / "run", backbone)
        write_crop(colour_clips.parent / "red" / "train" / "3.png", "red")
        _, run = extracted(colour_clips, tmp_path / "run", backbone)
        assert run.read_clips()[0]["faces"].to_pylist() == [4, 5, 3, 5, 3, 5, 2]

    def test_other_settings_are_refused_and_what_is_done_stays(
        self, colour_clips, backbone, tmp_path, whole
    ) -> None:
        folder = tmp_path / "run"
        self.interrupted(colour_clips, folder, backbone)
        with pytest.raises(VidfaceError, match=r"a: 1 \(there\) ≠ 2 \(asked for\); give those"):
            extracted(colour_clips, folder, backbone, settings={"a": 2})
        _, run = extracted(colour_clips, folder, backbone)
        assert content(run) == whole

    def test_an_edited_manifest_takes_over_what_is_done(
        self, colour_clips, backbone, tmp_path
    ) -> None:
        """Twice, so that clips of two extractions that were set aside are taken over."""
        folder = tmp_path / "run"
        self.interrupted(colour_clips, folder, backbone, after=5)  # four clips are done
        header, *lines = colour_clips.read_text().splitlines()
        # blue.v and the two in front are new; red.v is out; all others move by a place
        edited = [header, lines[5], lines[0], *lines[2:5], lines[6]]
        colour_clips.write_text("\n".join(edited) + "\n")
        self.interrupted(colour_clips, folder, backbone, after=4)  # three taken over, blue.v done
        assert (folder / f"{STAGING}-1").is_dir()
        colour_clips.write_text("\n".join([*edited, lines[1]]) + "\n")
        calls: list[tuple[int, int, int]] = []
        summary, run = extracted(
            colour_clips, folder, backbone, progress=lambda *n: calls.append(n)
        )
        assert sum(n for n, frames, _ in calls if frames) < summary.clips - 3
        assert sum(n for n, _, _ in calls) == summary.clips == 7
        _, fresh = extracted(colour_clips, tmp_path / "fresh", backbone, shard_clips=2)
        assert content(run) == content(fresh)
        assert not list(folder.glob(f"{STAGING}*"))

    def test_force_begins_again(self, colour_clips, backbone, tmp_path) -> None:
        self.interrupted(colour_clips, tmp_path / "run", backbone)
        _, run = extracted(
            colour_clips, tmp_path / "run", backbone, settings={"a": 2}, force=True, shard_clips=4
        )
        assert run.read_clips()[1]["settings"]["a"] == 2
        assert len(run.shard_paths) == 2

    @pytest.mark.parametrize("step", mostly_slow(range(6), 0, 3))
    def test_killed_while_the_shards_are_moved(
        self, colour_clips, backbone, tmp_path, whole, monkeypatch, step: int
    ) -> None:
        """After any of the moves: clips.parquet is not there, and the next call ends the work."""
        folder, left = tmp_path / "run", step
        move: Callable = Path.replace

        def killed(self: Path, target: Path) -> Path:
            nonlocal left
            if self.parent.parent.name == STAGING and target.parent.parent == folder:
                if left == 0:
                    raise KeyboardInterrupt
                left -= 1
            return move(self, target)

        extracted(colour_clips, folder, backbone, settings={"a": 0})  # which is replaced
        monkeypatch.setattr(Path, "replace", killed)
        with pytest.raises(KeyboardInterrupt):
            extracted(colour_clips, folder, backbone, shard_clips=2)
        monkeypatch.undo()
        assert not (folder / "clips.parquet").exists()
        _, run = extracted(colour_clips, folder, backbone)
        assert content(run) == whole
        assert not (folder / STAGING).exists()

    @pytest.mark.parametrize(
        "number", mostly_slow([errno.ENOSPC, errno.EROFS, errno.EDQUOT], errno.ENOSPC)
    )
    def test_a_full_disk_is_one_error_and_what_is_done_stays(
        self, colour_clips, backbone, tmp_path, whole, monkeypatch, number: int
    ) -> None:
        sync, calls = os.fsync, 0

        def full(handle: int) -> None:
            nonlocal calls
            calls += 1
            if calls > 12:  # in the second shard
                raise OSError(number, os.strerror(number))
            sync(handle)

        monkeypatch.setattr(os, "fsync", full)
        with pytest.raises(VidfaceError, match=f"cannot be written: {os.strerror(number)}"):
            extracted(colour_clips, tmp_path / "run", backbone, shard_clips=2)
        monkeypatch.undo()
        said: list[str] = []
        _, run = extracted(colour_clips, tmp_path / "run", backbone, notify=said.append)
        assert "1 of 4 shards" in said[0]
        assert content(run) == whole


class TestRetrying:
    @pytest.fixture
    def broken(self, colour_clips: Path) -> Path:
        (colour_clips.parent / "green" / "val" / "2.png").write_bytes(b"no picture")
        return colour_clips

    def mend(self, manifest: Path) -> None:
        write_crop(manifest.parent / "green" / "val" / "2.png", "green", seed=12)

    def test_only_the_failed_clips_are_done_again(self, broken, backbone, tmp_path) -> None:
        first, run = extracted(broken, tmp_path / "run", backbone, shard_clips=2)
        assert first.failed[0][:2] == ("green.v", "corrupt")
        untouched = run.shard_path(0).stat().st_ino
        write_json(run.folder / "scores" / "x.json", {})
        self.mend(broken)
        calls: list[tuple[int, int, int]] = []
        done, run = extracted(
            broken,
            tmp_path / "run",
            backbone,
            redo=Redo(failed=True),
            progress=lambda *n: calls.append(n),
        )
        assert done.states == {"ok": 7}
        assert [n for n in calls if n[1]] == [(1, 5, 5)]
        assert run.shard_path(0).stat().st_ino == untouched
        assert not (run.folder / "scores" / "x.json").exists()  # made from what was
        _, fresh = extracted(broken, tmp_path / "fresh", backbone, shard_clips=2)
        assert content(run) == content(fresh)

    def test_another_runtime_or_precision_is_refused(self, broken, backbone, tmp_path) -> None:
        _, run = extracted(broken, tmp_path / "run", backbone)
        before = content(run)
        self.mend(broken)
        for change in ({"runtime": "openvino"}, {"precision": "bf16"}):
            other = copy.copy(backbone)
            other.plan = replace(backbone.plan, **change)
            with pytest.raises(
                VidfaceError, match=f"was made with {backbone.plan}, not {other.plan}"
            ):
                extracted(broken, tmp_path / "run", other, redo=Redo(failed=True))
            assert content(run) == before
        done, _ = extracted(broken, tmp_path / "run", backbone, redo=Redo(failed=True))
        assert done.states == {"ok": 7}

    def test_other_versions_are_named(self, broken, backbone, tmp_path, monkeypatch) -> None:
        said: list[str] = []
        with monkeypatch.context() as patch:
            patch.setattr(artefacts, "_versions", lambda: {"python": "3.9", "opencv": "4.1"})
            extracted(broken, tmp_path / "run", backbone)
        monkeypatch.setattr(artefacts, "_versions", lambda: {"python": "3.11", "opencv": "4.2"})
        extracted(broken, tmp_path / "run", backbone, redo=Redo(failed=True), notify=said.append)
        assert said[-1].endswith("may differ: opencv: 4.1 (there) ≠ 4.2 (now)")
        assert not [line for line in said if "python" in line]
        said.clear()
        extracted(broken, tmp_path / "new", backbone, notify=said.append)
        assert not [line for line in said if "versions" in line]

    def test_still_broken_stays_failed(self, broken, backbone, tmp_path) -> None:
        _, run = extracted(broken, tmp_path / "run", backbone)
        before = content(run)
        write_json(run.folder / "scores" / "x.json", {}, digest=True)
        done, run = extracted(broken, tmp_path / "run", backbone, redo=Redo(failed=True))
        assert done.failed[0][:2] == ("green.v", "corrupt")
        assert content(run) == before
        assert check_files(run.folder).damaged == ()
        assert (run.folder / "scores" / "x.json").is_file()  # of the same faces


class TestWhatStays:
    def test_a_new_extraction_removes_what_was_made_from_the_old(
        self, colour_clips: Path, backbone, tmp_path: Path
    ) -> None:
        _, run = extracted(colour_clips, tmp_path / "run", backbone)
        stale = run.clustering("threshold_0.4") / "descriptors.parquet"
        write_json(run.folder / "scores" / "val_threshold_0.4.json", {})
        stale.parent.mkdir(parents=True)
        stale.write_bytes(b"x")
        run.linkage_path(0).parent.mkdir()
        run.linkage_path(0).write_bytes(b"x")
        (run.folder / "mine.txt").write_text("the user's own")
        extracted(colour_clips, tmp_path / "run", backbone)
        assert not stale.exists()
        assert not run.linkage_path(0).exists()
        assert not list((run.folder / "scores").iterdir())
        assert (run.folder / "mine.txt").exists()

    def test_run_directory_that_cannot_be_written(self, colour_clips, backbone, tmp_path) -> None:
        (tmp_path / "run").write_text("a file is in the way")
        with pytest.raises(VidfaceError, match=r"run directory .*run: "):
            extracted(colour_clips, tmp_path / "run", backbone)


class TestProfile:
    def test_says_where_the_time_went(self, colour_clips, backbone, tmp_path) -> None:
        _, run = extracted(colour_clips, tmp_path / "run", backbone, shard_clips=3, workers=2)
        profile = read_profile(run)
        assert (profile.clips, profile.frames, profile.faces, profile.workers) == (7, 26, 26, 2)
        assert profile.stages["decode"] > 0
        assert profile.stages["embed"] > 0
        assert profile.stages["detect"] == 0  # aligned already
        assert profile.limit in ("decode", "embed")
        assert f"limit: {profile.limit}" in str(profile)
        assert profile.to_dict()["stages"] == profile.stages

    @pytest.mark.parametrize("text", [None, "{", "[]", '{"stages": {}}'])
    def test_that_is_not_there_or_damaged(self, tmp_path: Path, text: str | None) -> None:
        if text is not None:
            (tmp_path / "profile.json").write_text(text)
        with pytest.raises(
            VidfaceError, match=r"profile\.json: (not there|no JSON|not a JSON object|not what)"
        ):
            read_profile(RunFolder(tmp_path))

    def test_limit_by_eye(self, tmp_path: Path) -> None:
        """Two workers decode for 8 s, that is 4 s of the clock; embedding takes 5."""
        document = {
            "stages": {"decode": 6.0, "detect": 2.0, "align": 0.0, "embed": 5.0},
            "wall_seconds": 6.0,
            "clips": 1,
            "frames": 60,
            "faces": 30,
            "workers": 2,
            "executor": "local",
            "runtime": "x",
        }
        for embed, limit in ((5.0, "embed"), (3.0, "decode")):
            document["stages"]["embed"] = embed  # type: ignore[index]
            (tmp_path / "profile.json").write_text(json.dumps(document))
            found = read_profile(RunFolder(tmp_path))
            assert found.limit == limit
        assert "10.0 frames/s and 5.0 faces/s" in str(found)


def forget_rules(about: Path) -> None:
    """Make an unfinished extraction one that an older vidface began."""
    recorded = json.loads(about.read_text())
    del recorded["made"]["rules"]
    about.write_text(json.dumps(recorded))


@pytest.mark.parametrize("older", [False, True])
def test_a_run_keeps_the_rules_it_began_with(
    colour_clips: Path, backbone, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, older: bool
) -> None:
    followed: list[ReadingRules] = []

    def decode_and_note(*arguments, rules: ReadingRules, **named):
        followed.append(rules)
        return decode_clips(*arguments, rules=rules, **named)

    monkeypatch.setattr(clip_extraction, "decode_clips", decode_and_note)
    run = tmp_path / "run"
    with pytest.raises(KeyboardInterrupt):
        extracted(colour_clips, run, backbone, shard_clips=2, progress=Interrupting(after=3))
    if older:
        forget_rules(run / STAGING / "extraction.json")
    said: list[str] = []
    _, folder = extracted(colour_clips, run, backbone, shard_clips=2, notify=said.append)
    rules = ReadingRules.as_before() if older else ReadingRules()
    assert followed == [ReadingRules(), rules]
    assert any("by its rules" in line for line in said) is older
    assert ReadingRules.from_record(folder.read_clips()[1].get("rules")) == rules
    extracted(colour_clips, run, backbone, shard_clips=2, force=True)
    assert followed[2] == ReadingRules()
