from __future__ import annotations

import json
import multiprocessing
import os
import signal
from pathlib import Path

import pytest

from vidface.core.errors import VidfaceError
from vidface.storage.locks import LOCK, WORKERS, at_work, list_workers


def extract(folder: Path):
    return at_work(folder, "extract", replaces=["extraction"])


def cluster(folder: Path, name: str):
    return at_work(folder, "cluster", replaces=[name], reads=["extraction"])


def hold(folder: Path, ready, leave) -> None:
    with extract(folder):
        ready.set()
        leave.wait(60)


def test_a_second_process_is_refused_and_told_who_it_is(tmp_path: Path) -> None:
    context = multiprocessing.get_context("spawn")
    ready, leave = context.Event(), context.Event()
    run = tmp_path / "run"
    other = context.Process(target=hold, args=(run, ready, leave))
    other.start()
    try:
        assert ready.wait(60)
        refused = rf"run: in use by process {other.pid} on .*, for \d+ s \(extract\); wait"
        for second in (extract(run), cluster(run, "a")):
            with pytest.raises(VidfaceError, match=refused), second:
                pass
        # Killed, it leaves its files behind, but not the lock; the next one clears them away.
        os.kill(other.pid or 0, signal.SIGKILL)
        other.join(60)
        assert len(list((run / WORKERS).iterdir())) == 2
        with extract(run):
            [worker] = list_workers(run)
            assert worker.pid == os.getpid()
            assert len(list((run / WORKERS).iterdir())) == 2
    finally:
        other.kill()
        other.join()
    assert list((run / WORKERS).iterdir()) == []


def test_what_clashes(tmp_path: Path) -> None:
    """Two that read, or that write other things, go side by side; all else is refused."""
    with cluster(tmp_path, "a"), cluster(tmp_path, "b"):
        assert [worker.what for worker in list_workers(tmp_path)] == ["cluster"] * 2
        for clash in (cluster(tmp_path, "a"), extract(tmp_path)):
            with pytest.raises(VidfaceError, match="in use by process"), clash:
                pass
        reader = at_work(tmp_path, "score", replaces=["s"], reads=["extraction", "b"])
        with pytest.raises(VidfaceError, match=r"\(cluster\)"), reader:
            pass
    with at_work(tmp_path, "score", replaces=["s"], reads=["extraction", "b"]):
        with pytest.raises(VidfaceError, match=r"\(score\)"), cluster(tmp_path, "b"):
            pass
        with cluster(tmp_path, "c"):
            pass
    with extract(tmp_path):
        pass


def test_what_cannot_be_read_is_nobody(tmp_path: Path) -> None:
    with extract(tmp_path):
        [path] = (tmp_path / WORKERS).glob(".*.json")
        for text in ("{", "[]", json.dumps({"what": "x", "since": 3})):
            path.write_text(text)
            assert list_workers(tmp_path) == []


def test_a_place_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    for folder in (tmp_path / "file", tmp_path / "file" / "run"):
        with pytest.raises(VidfaceError, match="cannot be written"), extract(folder):
            pass


def test_nothing_is_left_but_the_lock(tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt), extract(tmp_path / "run"):
        raise KeyboardInterrupt
    left = {path.name for path in (tmp_path / "run").rglob("*")}
    assert left == {WORKERS, LOCK}


def test_a_reader_who_looks_while_one_begins_hides_nobody(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import filelock

    acquire = filelock.FileLock.acquire

    def look_first(lock, *arguments, **named):  # a reader, just before the lock is taken
        if Path(lock.lock_file).parent.name == WORKERS:
            monkeypatch.setattr(filelock.FileLock, "acquire", acquire)
            assert list_workers(tmp_path) == []
        return acquire(lock, *arguments, **named)

    monkeypatch.setattr(filelock.FileLock, "acquire", look_first)
    with extract(tmp_path):
        assert [worker.what for worker in list_workers(tmp_path)] == ["extract"]
        with pytest.raises(VidfaceError, match="in use by"), extract(tmp_path):
            pass
