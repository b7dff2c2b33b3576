"""A run directory that can't be written to: whoever only reads gets his answer all the same."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from vidface.core import files


@pytest.fixture
def read_only(vidface, colour_pipeline: Path, tmp_path: Path, monkeypatch) -> Path:
    """A clustered run; whoever writes into it fails, and the system says that he would."""
    assert vidface("extract", "--pipeline", colour_pipeline).code == 0
    assert vidface("cluster", "--pipeline", colour_pipeline).code == 0
    run, access, create = tmp_path / "run", os.access, files.create_file

    def is_inside(path) -> bool:
        return run in (path := Path(path).absolute(), *path.parents)

    def refuse(path: Path, mode: int | None = None):
        if is_inside(path):
            raise PermissionError(13, "Permission denied", str(path))
        return create(path, mode)

    monkeypatch.setattr(
        os,
        "access",
        lambda path, mode: not (mode & os.W_OK and is_inside(path)) and access(path, mode),
    )
    monkeypatch.setattr(files, "create_file", refuse)
    return run


@pytest.mark.parametrize(
    "command",
    [
        ("score",),
        ("score", "--threshold", "0.7"),
        ("sweep",),
        ("sweep", "--folds", "3"),
        ("clips",),
        ("show", "red.v", "--out", "red.png"),
        ("report", "run", "--out", "report.html"),
        ("check", "run"),
        ("compare", "run", "run"),
    ],
    ids=" ".join,
)
def test_it_is_read(vidface, colour_pipeline: Path, read_only: Path, command) -> None:
    before = sorted(path for path in read_only.rglob("*"))
    flags = () if command[0] in ("report", "check", "compare") else ("--pipeline", colour_pipeline)
    done = vidface(*command, *flags)
    assert done.code == 0, done.err
    assert done.out
    is_said = "can't be written to: the figures are shown, not stored" in done.err
    assert is_said == (command[0] in ("score", "sweep"))
    assert sorted(path for path in read_only.rglob("*")) == before


@pytest.mark.parametrize("command", [("cluster",), ("extract", "--force")], ids=" ".join)
def test_what_is_to_be_written_is_one_clear_line(
    vidface, colour_pipeline: Path, read_only: Path, command
) -> None:
    done = vidface(*command, "--pipeline", colour_pipeline)
    assert done.code == 1
    assert "Permission denied" in done.err
    assert len(done.err.splitlines()) == 1
