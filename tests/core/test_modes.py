"""Who may read what vidface writes: faces are nobody's but their owner's to show."""

from __future__ import annotations

import os
import stat
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from vidface.core.digests import digest_path
from vidface.core.files import atomic_file, make_private_folder, output_file

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="Windows has no modes")


@pytest.fixture(autouse=True)
def _umask() -> Iterator[None]:
    """That of most machines: what is made is open to all, unless something says otherwise."""
    before = os.umask(0o022)
    yield
    os.umask(before)


def mode_of(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def write_artefact(path: Path) -> tuple[int, int]:
    """Modes (while it is written, and then) of an artefact; its digest has the same."""
    with atomic_file(path, digest=True) as file:
        unfinished = stat.S_IMODE(os.fstat(file.fileno()).st_mode)
    assert mode_of(digest_path(path)) == mode_of(path)
    return unfinished, mode_of(path)


def test_a_new_run_is_its_owners_alone(tmp_path: Path) -> None:
    tmp_path.chmod(0o755)
    run = tmp_path / "runs" / "new"
    make_private_folder(run)
    assert write_artefact(run / "linkage" / "apart" / "shard.arrow") == (0o600, 0o600)
    assert write_artefact(run / "run.json") == (0o600, 0o600)
    made = (run, run / "linkage", run / "linkage" / "apart", run.parent)
    assert [mode_of(folder) for folder in made] == [0o700, 0o700, 0o700, 0o755]


@pytest.mark.parametrize(
    ("folder_mode", "umask", "file_mode", "below"),
    [
        (0o755, 0o022, 0o644, 0o755),  # a run of before
        (0o750, 0o022, 0o640, 0o750),  # a group reads
        (0o770, 0o002, 0o660, 0o770),  # a group writes
        (0o755, 0o077, 0o600, 0o700),  # the umask is stricter
        (0o700, 0o000, 0o600, 0o700),
    ],
)
def test_an_existing_folder_says_who_reads(
    tmp_path: Path, folder_mode: int, umask: int, file_mode: int, below: int
) -> None:
    tmp_path.chmod(folder_mode)
    os.umask(umask)
    make_private_folder(tmp_path)  # keeps what it is
    assert write_artefact(tmp_path / "scores" / "s.json") == (file_mode, file_mode)
    assert (mode_of(tmp_path), mode_of(tmp_path / "scores")) == (folder_mode, below)
    assert write_artefact(tmp_path / "scores" / "s.json") == (file_mode, file_mode)  # again


@pytest.mark.parametrize(("before", "after"), [(None, 0o644), (0o600, 0o600), (0o664, 0o664)])
def test_what_the_user_names_has_the_umasks_mode_or_keeps_its_own(
    tmp_path: Path, before: int | None, after: int
) -> None:
    out = tmp_path / "report.html"
    if before is not None:
        out.touch()
        out.chmod(before)
    with output_file(out) as file:
        file.write(b"<html>")
        assert stat.S_IMODE(os.fstat(file.fileno()).st_mode) == after
    assert mode_of(out) == after


def test_modes_that_cannot_be_set_are_no_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise PermissionError(1, "Operation not permitted")

    for name in ("chmod", "fchmod"):
        monkeypatch.setattr(os, name, refuse)
    make_private_folder(tmp_path / "run")
    write_artefact(tmp_path / "run" / "a.json")
    for content in (b"1", b"2"):
        with output_file(tmp_path / "out") as file:
            file.write(content)
    assert (tmp_path / "out").read_bytes() == b"2"
