"""What is known before hours of work, and runs of a few clips."""

from __future__ import annotations

import re
import shutil
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from vidface.runs import sampling
from vidface.runs.preflight import Preflight, check_run
from vidface.runs.run import open_run
from vidface.runs.run_folder import RunFolder
from vidface.settings.pipeline import load_pipeline


def test_a_limited_run_goes_all_the_way_in_its_own_directory(
    vidface, colour_pipeline: Path
) -> None:
    flags = ("--pipeline", colour_pipeline, "--limit", "6")
    for command in (("extract",), ("cluster",), ("score", "--bootstrap", "0")):
        result = vidface(*command, *flags)
        assert result.code == 0, result.err
    whole, limited = (RunFolder(colour_pipeline.parent / name) for name in ("run", "run-limit-6"))
    assert not whole.folder.exists()
    clips = limited.read_clips()[0]["clip_id"].to_pylist()
    assert clips == ["red.t", "red.v", "green.t", "green.v", "blue.t", "blue.v"]
    assert '"limit": 6' in limited.pipeline_path.read_text()
    # One of all clips is never cut down to a few.
    assert vidface("extract", *flags[:2]).code == 0
    refused = vidface("extract", *flags, "--run", whole.folder)
    assert refused.code == 1
    assert "manifest.limit: none (there) ≠ 6 (asked for)" in refused.err


def texts_of(found: Preflight, level: str, about: str) -> str:
    return "\n".join(r.text for r in found.remarks if (r.level, r.about) == (level, about))


def figures_of(found: Preflight, key: str) -> Any:
    [value] = [r.figures[key] for r in found.remarks if key in r.figures]
    return value


def check(pipeline: Path, overrides: dict | None = None, **options: Any) -> Preflight:
    run = open_run(load_pipeline(pipeline, overrides), check_files=False)
    return check_run(run, **options)


@pytest.fixture
def faulty(colour_pipeline: Path, colour_clips: Path) -> Path:
    """The colours with one fault of every kind in the manifest and its files."""
    folder = colour_clips.parent
    shutil.copytree(folder / "red" / "train", folder / "red copy")
    shutil.copytree(folder / "red copy", folder / "red copy 2")
    (folder / "empty").mkdir()
    lines = colour_clips.read_text(encoding="utf-8").splitlines()
    lines = [f"{line}," for line in lines]
    lines[0] += "age"
    lines += [
        "leak,red copy,red,val,",  # red.t's pictures, which are the gallery
        "again,red copy 2,red,val,",
        "jose1,green/val,José,val,30",
        "jose2,blue/val,Jose\u0301,val,30",
        "gone,nowhere.mp4,blue,val,",
        "empty,empty,blue,val,",
    ]
    colour_clips.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return colour_pipeline


def test_every_fault_is_named(faulty: Path) -> None:
    found = check(faulty)
    manifest, files = (texts_of(found, "look", about) for about in ("manifest", "files"))
    assert "columns not used: age" in manifest
    assert "'Jos\\xe9' (line 11) and 'Jose\\u0301' (line 12) in Unicode form" in manifest
    assert "the same file in two splits or under two identities: 'green/val' (line 5" in manifest
    assert "the same content in two splits or under two identities: 'red/train' (line 2" in files
    assert "1 empty (line 14: 'empty'): they will fail" in files
    stops = texts_of(found, "stop", "files")
    assert "1 not there (line 13: no file or folder 'nowhere.mp4')" in stops
    assert "--allow-missing" in stops
    assert figures_of(found, "there") == 12
    assert found.stops
    allowed = check(faulty, {("manifest", "allow_missing"): True}, sample=0)
    assert not allowed.stops
    assert "they will count as missing" in texts_of(allowed, "look", "files")


def test_what_the_pairs_can_tell(colour_pipeline: Path) -> None:
    """Val: red, green and blue with one clip each, and a stranger."""
    found = check(colour_pipeline, {("score", "fars"): "0.5,0.4,0.1,0.01"}, sample=0)
    assert figures_of(found, "genuine_pairs") == 0
    assert figures_of(found, "impostor_pairs") == 6
    scores = texts_of(found, "look", "scores").splitlines()
    assert scores[0] == "3 of 3 people have one clip in val, so no genuine pair"
    assert scores[1].startswith("FAR 0.5 (3), 0.4 (2): so few accepted pairs")
    assert scores[2] == "FAR ≤ 0.1 needs ≥ 10 impostor pairs; there are 6"
    assert scores[3].startswith("no genuine pair, so no TAR")
    assert not found.stops
    nowhere = check(colour_pipeline, sample=0, split="probe")
    assert "--split probe: no clip" in texts_of(nowhere, "stop", "scores")


def test_nobody_known_is_no_stop(colour_pipeline: Path, colour_clips: Path) -> None:
    rows = [line.split(",") for line in colour_clips.read_text().splitlines()]
    lines = [",".join([clip, path, "", split]) for clip, path, _, split in rows[1:]]
    colour_clips.write_text("\n".join([",".join(rows[0]), *lines]), encoding="utf-8")
    found = check(colour_pipeline, sample=0)
    assert "nothing will be scored: no clip has an identity" in texts_of(found, "look", "scores")
    assert not found.stops


def test_a_trial_takes_clips_as_the_run_would(colour_pipeline: Path, colour_clips: Path) -> None:
    (colour_clips.parent / "red" / "train" / "0.png").write_bytes(b"no picture")
    found = check(colour_pipeline)
    assert figures_of(found, "states") == {"ok": 6, "corrupt": 1}
    assert figures_of(found, "faces") == 6 + 15 + 2
    assert "1 of 7 without a face or damaged: red.t" in texts_of(found, "look", "sample")
    assert "passed its trial" in texts_of(found, "ok", "recogniser")
    least, about, most = figures_of(found, "extraction_seconds")
    assert 0 < least < about < most < 600
    sizes = figures_of(found, "extraction_bytes")
    assert sizes[0] == sizes[1] == sizes[2] > 0  # all clips were in the sample
    assert not (colour_pipeline.parent / "run").exists()


def test_what_few_clips_say_of_all_has_a_range_and_a_disk_that_is_too_small_stops(
    colour_pipeline: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sampling.shutil, "disk_usage", lambda _: SimpleNamespace(free=1000))
    found = check(colour_pipeline, sample=2)
    assert sum(figures_of(found, "states").values()) == 2
    least, about, most = figures_of(found, "extraction_bytes")
    assert least < about < most
    assert "1 kB are free" in texts_of(found, "stop", "disk")
    assert str(found).splitlines()[-1].endswith("to mend first: 1 (stop)")


@pytest.mark.parametrize("weights", ["nowhere.onnx", "broken.onnx"])
def test_a_recogniser_that_cannot_run_stops(weights: str, colour_pipeline: Path) -> None:
    (colour_pipeline.parent / "broken.onnx").write_bytes(b"no network")
    path = str(colour_pipeline.parent / weights)
    found = check(colour_pipeline, {("backbone", "weights"): path})
    assert weights in texts_of(found, "stop", "trial")


def test_clips_without_any_face_stop(colour_pipeline: Path, colour_clips: Path) -> None:
    for picture in colour_clips.parent.glob("*/**/*.png"):
        picture.write_bytes(b"no picture")
    assert "not one face" in texts_of(check(colour_pipeline), "stop", "sample")


def test_lines_fit_80_columns_and_a_run_may_be_dry(
    vidface, colour_pipeline: Path, tmp_path: Path
) -> None:
    result = vidface("check", "--pipeline", colour_pipeline, "--sample", "1")
    assert result.code == 0, result.err
    shown = result.out.replace(str(tmp_path), "")  # a path is not broken
    assert max(map(len, shown.splitlines()[:-1])) <= 80
    dry = vidface("run", colour_pipeline, "--dry-run", "--json")
    assert (dry.code, dry.json["stops"]) == (0, False)
    abouts = [remark["about"] for remark in dry.json["remarks"]]
    assert list(dict.fromkeys(abouts)) == [
        "manifest", "files", "scores", "recogniser", "sample", "time", "disk"
    ]  # fmt: skip
    lines = result.out.splitlines()[:-1]
    assert [line[6:18].strip() for line in lines if line[:5].strip()] == abouts
    assert not (colour_pipeline.parent / "run").exists()


def test_a_finished_run_is_looked_at_itself(
    vidface, colour_pipeline: Path, colour_clips: Path
) -> None:
    assert vidface("extract", "--pipeline", colour_pipeline).code == 0
    run = colour_pipeline.parent / "run"
    whole = vidface("check", run, "--json")
    assert (whole.code, whole.json["damaged"], whole.json["intact"]) == (0, [], 5)
    abouts = [remark["about"] for remark in whole.json["remarks"]]
    assert (abouts[0], abouts[-1]) == ("artefacts", "clips")
    shutil.copytree(colour_clips.parent / "stranger", colour_clips.parent / "new")
    with colour_clips.open("a", encoding="utf-8") as manifest:
        manifest.write("new,new,,val\n")
    more = vidface("check", run)
    assert more.code == 0
    assert re.search(
        r"^look  clips .*1 (clip )?added", " ".join(more.out.split("\n ")), re.MULTILINE
    )
    (run / "profile.json").write_text("{}", encoding="utf-8")
    damaged = vidface("check", run)
    assert damaged.code == 1
    assert re.search(r"^stop  artefacts +\S*profile.json", damaged.out, re.MULTILINE)
    (run / "profile.json").unlink()
    (run / "run.json").unlink()
    (run / "run.json.digest").unlink(missing_ok=True)
    alone = vidface("check", run)
    assert "look  settings    nothing else is checked:" in alone.out
    nothing = vidface("check", colour_pipeline.parent / "nowhere")
    assert (nothing.code, nothing.out) == (2, "")
