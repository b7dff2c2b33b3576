from __future__ import annotations

import json
import multiprocessing
import os
import signal
from pathlib import Path

import pytest

from vidface.core.errors import VidfaceError
from vidface.storage.locks import OWNER, locked


def hold(folder: Path, ready, leave) -> None:
    with locked(folder, "extract"):
        ready.set()
        leave.wait(60)


def test_a_second_process_is_refused_and_told_who_it_is(tmp_path: Path) -> None:
    context = multiprocessing.get_context("spawn")
    ready, leave = context.Event(), context.Event()
    other = context.Process(target=hold, args=(tmp_path / "run", ready, leave))
    other.start()
    try:
        assert ready.wait(60)
        refused = rf"run: in use by process {other.pid} on .*, for \d+ s \(extract\); wait"
        with pytest.raises(VidfaceError, match=refused), locked(tmp_path / "run", "extract"):
            pass
        # Killed, it leaves its name behind, but not the lock.
        os.kill(other.pid or 0, signal.SIGKILL)
        other.join(60)
        assert (tmp_path / "run" / OWNER).exists()
        with locked(tmp_path / "run", "extract"):
            owner = json.loads((tmp_path / "run" / OWNER).read_text())
            assert owner["pid"] == os.getpid()
    finally:
        other.kill()
        other.join()
    assert not (tmp_path / "run" / OWNER).exists()


def test_held_twice_by_one_process_is_refused_too(tmp_path: Path) -> None:
    with (
        locked(tmp_path, "extract"),
        pytest.raises(VidfaceError, match="in use by process"),
        locked(tmp_path, "extract"),
    ):
        pass
    with locked(tmp_path, "extract"):
        pass


def test_an_owner_that_cannot_be_read_is_another_process(tmp_path: Path) -> None:
    with locked(tmp_path, "extract"):
        (tmp_path / OWNER).write_text("{")
        with pytest.raises(VidfaceError, match="in use by another"), locked(tmp_path, "extract"):
            pass


def test_a_place_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    for folder in (tmp_path / "file", tmp_path / "file" / "run"):
        with pytest.raises(VidfaceError, match="cannot be written"), locked(folder, "extract"):
            pass
