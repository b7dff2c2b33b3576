"""Files of a finished extraction that are deleted, cut off or another run's are made again."""

from __future__ import annotations

import os
import shutil
import signal
from pathlib import Path

import pytest

from tests.runs.test_extraction import content
from vidface.cli import commands
from vidface.core.errors import VidfaceError
from vidface.reports.gather import gather_run
from vidface.runs.checking import check_files
from vidface.runs.extraction import extract
from vidface.runs.noise_removal import cluster
from vidface.runs.run import Run, open_run
from vidface.settings.pipeline import load_pipeline

LOST = ("embeddings/shard-00001.arrow", "crops/shard-00001.parquet")


def open_in(folder: Path, pipeline: Path) -> Run:
    overrides = {("run", "dir"): str(folder), ("run", "shard_clips"): 3}
    return open_run(load_pipeline(pipeline, overrides))


@pytest.fixture
def run(tmp_path: Path, colour_pipeline: Path) -> Run:
    opened = open_in(tmp_path / "run", colour_pipeline)
    extract(opened)
    cluster(opened, 0.5)
    return opened


def cut_off(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-9])


DAMAGES = {
    "deleted": Path.unlink,
    "empty": lambda path: path.write_bytes(b""),
    "cut off": cut_off,
}


@pytest.mark.parametrize("name", LOST)
@pytest.mark.parametrize("damage", DAMAGES)
def test_what_is_lost_is_made_again_and_nothing_else(run: Run, name: str, damage: str) -> None:
    before, other = content(run.folder), run.folder.shard_path(0).stat().st_ino
    clusterings = run.folder.clusterings()
    DAMAGES[damage](run.folder.folder / name)
    notes = "\n".join(gather_run(run.folder.folder).notes)
    assert f"1 file(s) are lost or damaged ({name})" in notes
    said: list[str] = []
    clips_done: list[int] = []
    extract(run, notify=said.append, progress=lambda n, frames, faces: clips_done.append(frames))
    assert f"extraction: 1 file(s) are lost or damaged ({name}): made again" in said
    assert sum(frames > 0 for frames in clips_done) == 3  # the clips of one shard
    assert content(run.folder) == before
    assert run.folder.shard_path(0).stat().st_ino == other
    assert run.folder.clusterings() == clusterings  # of the same faces
    assert check_files(run.folder.folder).damaged == ()
    said.clear()
    extract(run, notify=said.append)
    assert "already done" in said[0]


def test_a_shard_of_another_extraction_is_none(
    run: Run, tmp_path: Path, colour_pipeline: Path
) -> None:
    before = content(run.folder)
    other = open_in(tmp_path / "other", colour_pipeline)
    extract(other)
    shutil.copyfile(other.folder.shard_path(0), run.folder.shard_path(0))
    said: list[str] = []
    extract(run, notify=said.append)
    assert "shard-00000.arrow): made again" in said[0]
    assert content(run.folder) == before


def test_a_folder_in_a_files_place_is_named(run: Run) -> None:
    run.folder.shard_path(0).unlink()
    run.folder.shard_path(0).mkdir()
    with pytest.raises(VidfaceError, match="a folder in a file's place; remove it"):
        extract(run)


def test_sigterm_ends_a_command_like_an_interrupt(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from vidface.core.files import atomic_file

    def write_until_killed(**named: object) -> None:
        with atomic_file(tmp_path / "figures", digest=True) as file:
            file.write(b"half")
            os.kill(os.getpid(), signal.SIGTERM)
            pytest.fail("it went on")

    before = signal.getsignal(signal.SIGTERM)
    monkeypatch.setattr(commands.cli, "main", write_until_killed)
    with pytest.raises(SystemExit) as stop:
        commands.main([])
    assert stop.value.code == 1
    assert commands.INTERRUPTED in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []
    assert signal.getsignal(signal.SIGTERM) == before
