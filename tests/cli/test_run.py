"""`vidface run`: what its argument is, its content says; what it writes, assumes and hints at."""

from __future__ import annotations

import shutil
import tomllib
from pathlib import Path

import pytest

from tests.conftest import write_crop
from vidface.settings.initialise import pipeline_text
from vidface.settings.pipeline import parse_pipeline


@pytest.fixture
def clips(tmp_path: Path) -> Path:
    """Two people with two clips each, of three frames: red and green."""
    for person in ("red", "green"):
        for clip in ("1", "2"):
            write_clip(tmp_path / "clips" / person / clip, person)
    return tmp_path / "clips"


def write_clip(folder: Path, colour: str) -> None:
    for k in range(3):
        write_crop(folder / f"{k}.png", colour, seed=k)


@pytest.fixture
def flags(colour_network: Path) -> tuple[object, ...]:
    return ("--source", "aligned", "--weights", colour_network, "--color", "rgb", "--mean", 127.5,
            "--std", 127.5, "--workers", 1)  # fmt: skip


def test_a_folder_of_clips_is_enough(vidface, clips: Path, flags, tmp_path: Path) -> None:
    done = vidface("run", "clips", *flags)
    assert done.code == 0, done.err
    assert "vidface: manifest.csv: 4 clips, 2 identities (train 2, val 2)\n" in done.err
    assert "vidface: vidface.toml: the settings, to be changed there\n" in done.err
    assert "mAP@100  1.0000" in done.out
    assert f"report: {tmp_path}/runs/clips/report.html: 4 clips, 4 of them in pictures" in done.out
    assert "next: vidface show green.1   (its faces, dropped ones framed)" in done.out
    assert done.out.endswith("next: vidface sweep   (the figures at other thresholds)\n")
    again = vidface("run", "clips", *flags)  # the settings that are here are about these clips
    assert "already done" in again.err
    assert "manifest.csv: 4 clips" not in again.err
    document = vidface("run", *flags, "--json").json
    assert document["retrieval"]["map_at_100"] == 1.0
    assert document["report"]["pictures"] == 4
    assert "already done" in vidface("run", "runs/clips").err  # without any flag
    assert vidface("show", "green.1", "--run", "runs/clips").code == 0


def test_what_has_come_since_is_said_and_added(vidface, clips: Path, flags) -> None:
    assert vidface("run", clips, *flags).code == 0
    manifest = Path("manifest.csv")
    manifest.write_text(
        manifest.read_text().replace("red.2", "mine").replace("\r\n", "\n").rstrip()
    )
    write_clip(clips / "red" / "3", "red")
    write_clip(clips / "blue" / "1", "blue")
    done = vidface("run", clips, *flags)
    assert "not in " in done.err
    assert "2 clip(s) of" in done.err
    assert "(blue/1, red/3)" in done.err.replace("clips/", "")
    assert "vidface init clips --add adds them" in done.err
    assert (
        "vidface init clips --add adds them" in vidface("run", *flags).err
    )  # without a folder, too
    before = manifest.read_bytes()
    added = vidface("init", clips, "--add")
    assert "manifest.csv: 2 clips added, 4 were there\n" in added.out
    lines = manifest.read_text().splitlines()
    assert manifest.read_bytes().startswith(before)
    assert lines[-2:] == ["blue.1,clips/blue/1,blue,train", "red.3,clips/red/3,red,val"]
    nothing = vidface("init", clips, "--add", "--json").json
    assert nothing == {"manifest": "manifest.csv", "added": [], "listed": 6}


def test_two_that_fit_are_named(vidface, clips: Path, flags, tmp_path: Path) -> None:
    shutil.copytree(clips, tmp_path / "demo")
    done = vidface("run", "demo")
    assert done.code == 2
    assert "demo: both a shipped recipe (--pipeline NAME) and a folder of clips; ./demo" in done.err
    assert vidface("run", "./demo", *flags).code == 0
    done = vidface("run", clips)
    assert (done.code, "vidface.toml here is about other clips than" in done.err) == (2, True)
    (tmp_path / "runs" / "demo" / "vidface.toml").write_text("")
    done = vidface("run", "runs/demo")
    assert (done.code, "both a run directory and the folder of a" in done.err) == (2, True)
    done = vidface("run", clips / "red" / "1" / "0.png")
    assert (done.code, "clips are given by their folder" in done.err) == (2, True)
    (tmp_path / "vidface.toml").unlink()
    done = vidface("run", clips)
    assert (done.code, "manifest.csv is here, but no vidface.toml" in done.err) == (2, True)


def test_a_project_is_run_from_elsewhere(
    vidface, clips: Path, flags, tmp_path: Path, monkeypatch
) -> None:
    (tmp_path / "project").mkdir()
    clips.rename(tmp_path / "project" / "clips")
    assert vidface("init", "project/clips", "--out", "project/manifest.csv").code == 0
    done = vidface("run", "project", *flags)
    assert done.code == 0, done.err
    assert (tmp_path / "project" / "runs" / "clips" / "report.html").is_file()
    assert "next: vidface sweep project/runs/clips " in done.out
    assert vidface("sweep", "project/runs/clips").code == 0


def test_a_pipeline_runs_into_a_directory_of_its_own(vidface, colour_pipeline: Path) -> None:
    done = vidface("run", colour_pipeline, "--run", "elsewhere", "--json")
    assert done.json["retrieval"]["map_at_100"] == 1.0
    assert Path("elsewhere/clips.parquet").is_file()
    assert vidface("score", colour_pipeline, "--run", "elsewhere").code == 0
    done = vidface("run", "elsewhere", "--run", "other")
    assert (done.code, "give one run directory" in done.err) == (2, True)


def test_without_two_clips_of_a_person_nothing_is_scored(vidface, tmp_path: Path, flags) -> None:
    for name in ("red", "green"):
        write_clip(tmp_path / "clips" / name, name)  # folders of pictures alone: nobody known
    done = vidface("run", "clips", *flags)
    assert done.code == 0, done.err
    assert "no person folders: nobody is known yet" in done.err
    assert "not scored: no clip has an identity; write who is in them into" in done.out
    assert "1.0000" not in done.out
    manifest = tmp_path / "manifest.csv"
    manifest.write_text(manifest.read_text().replace(",,val", ",ann,val", 1))
    assert "not scored: nobody has two clips" in vidface("run", *flags).out
    assert vidface("run", *flags, "--json").json["not_scored"].startswith("nobody has two clips")
    done = vidface("run", *flags, "--split", "val")  # asked for by name: refused before anything
    assert (done.code, "--gallery train: no clip of the manifest" in done.err) == (2, True)


def test_a_failed_clip_stops_nothing_and_a_lost_gallery_is_said(
    vidface, clips: Path, flags
) -> None:
    (clips / "red" / "1" / "1.png").write_bytes(b"no picture")
    done = vidface("run", clips, *flags)
    assert done.code == 3
    assert "next: vidface clips --status corrupt   (the clips that failed)" in done.out
    assert (
        "next: red is in the split and not in the gallery: make another clip `train` in "
        in done.out
    )
    assert "mAP@100" in done.out
    assert vidface("run", clips, *flags, "--strict").code == 1


def test_every_setting_that_init_comments_may_be_uncommented() -> None:
    text = pipeline_text("manifest.csv", "runs/clips", keep_crops=True)
    lines = text.splitlines()
    keys = [line[2:] for line in lines if line.startswith("# ") and " = " in line]
    keys = [line for line in keys if line.split(" = ")[0].isidentifier()]
    assert len(keys) > 10
    document = tomllib.loads("\n".join(line[2:] if line[2:] in keys else line for line in lines))
    everything = parse_pipeline(document, Path("vidface.toml").absolute())
    plain = parse_pipeline(tomllib.loads(text), Path("vidface.toml").absolute())
    assert everything == plain  # what is commented is the default
    assert plain.faces.keep_crops
    assert plain.cluster.parameters["threshold"] == 0.4
    assert max(map(len, lines)) <= 100
