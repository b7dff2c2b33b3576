"""A run directory at a URL: its mirror here, against a real S3 server and memory://."""

from __future__ import annotations

import errno
import json
import os
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.s3_server import (
    SECRET_KEY,
    S3Server,
    moto_port_fixture,  # noqa: F401
    s3_fixture,  # noqa: F401
)
from vidface.core import files
from vidface.core.errors import VidfaceError
from vidface.storage import mirror as remote
from vidface.storage import mirror_lock as remote_lock
from vidface.storage.mirror import INDEX, LOCAL_LOCK, Mirror, open_mirror
from vidface.storage.mirror_lock import LOCK_NAME, STALE_SECONDS
from vidface.storage.objects import Retries, Store
from vidface.storage.urls import Address

QUICK = Retries(tries=4, sleep=lambda _: None)
URL = "memory://runs/one"
RUN = {
    "clips.parquet": b"clips 1",
    "embeddings/shard-00000.arrow": b"faces " * 100,
    "crops/shard-00000.parquet": b"jpegs",
    ".extracting/clips/shard-00000.parquet": b"states",
    "scores/empty.json": b"",
}


@pytest.fixture
def memory() -> Iterator[dict[str, bytes]]:
    """The bytes at memory://runs/one, by name."""
    import fsspec

    system = fsspec.filesystem("memory")

    class Objects(dict):
        def __setitem__(self, name: str, data: bytes) -> None:
            system.pipe_file(f"/runs/one/{name}", data)

        def now(self) -> dict[str, bytes]:
            found = system.find("/runs/one")
            # Not `cat_file`: all readers of such a file share one position, the heartbeat too.
            return {n.removeprefix("/runs/one/"): system.store[n].getvalue() for n in found}

        def __delitem__(self, name: str) -> None:
            system.rm_file(f"/runs/one/{name}")

    system.pipe_file("/runs/other", b"")
    yield Objects()
    system.rm("/runs", recursive=True)


def mirror_at(folder: Path, url: str = URL, **options) -> Mirror:
    return open_mirror(url, cache=folder, retries=QUICK, **options)


def fill(folder: Path, contents: dict[str, bytes] = RUN) -> None:
    for name, data in contents.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)


def contents(folder: Path) -> dict[str, bytes]:
    own = {INDEX, LOCAL_LOCK}
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file() and path.name not in own
    }


@pytest.mark.parametrize("where", ["memory", "s3"])
def test_a_run_goes_there_and_comes_back(
    where: str, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    """On S3 every fourth request fails, in four ways; what arrives is the same bytes."""
    url = URL
    request.getfixturevalue(where)
    if where == "s3":
        s3: S3Server = request.getfixturevalue("s3")
        url = "s3://bucket/runs/one"
        s3.faults.every, s3.faults.methods = 4, ("GET", "HEAD", "PUT", "DELETE")
        s3.faults.ways = ("500", "503", "reset")
    first = mirror_at(tmp_path / "a", url)
    with first.lock("extract"):
        assert first.pull() == []
        fill(first.folder)
        (first.folder / "embeddings" / ".shard.123.part").write_bytes(b"half")
        assert first.push_new()[-1] == "clips.parquet"
        assert first.push_new() == []
    if where == "s3":
        s3.faults.ways = ("500", "cut", "503", "reset")
        assert len(s3.faults.made) > 3
    second = mirror_at(tmp_path / "b", url)
    assert sorted(second.pull()) == sorted(RUN)
    assert contents(second.folder) == RUN
    assert second.pull() == []
    assert mirror_at(tmp_path / "b", url).pull() == []  # remembered from process to process
    with second.lock("cluster"):
        fill(second.folder, {"scores/new.json": b"{}"})
        (second.folder / "crops" / "shard-00000.parquet").unlink()
        assert second.push_new() == ["scores/new.json"]
    assert first.pull() == ["scores/new.json"]
    wanted = {**RUN, "scores/new.json": b"{}"}
    del wanted["crops/shard-00000.parquet"]
    there = contents(first.folder)
    assert there.pop("embeddings/.shard.123.part") == b"half"
    assert there == contents(second.folder) == wanted


def test_clips_parquet_is_removed_first_and_stored_last(s3: S3Server, tmp_path: Path) -> None:
    mirror = mirror_at(tmp_path, "s3://bucket/run")
    with mirror.lock("extract"):
        fill(mirror.folder)
        mirror.push_new()
        fill(mirror.folder, {"clips.parquet": b"clips 2", "embeddings/shard-00001.arrow": b"new"})
        (mirror.folder / "crops" / "shard-00000.parquet").unlink()
        s3.faults.requests.clear()
        assert mirror.push_new() == ["embeddings/shard-00001.arrow", "clips.parquet"]
        changing = [
            (method, path.split("?")[0].removeprefix("/bucket/run/"))
            for method, path in s3.faults.requests
            if method in ("PUT", "DELETE") and LOCK_NAME not in path
        ]
        assert changing == [
            ("DELETE", "clips.parquet"),
            ("PUT", "embeddings/shard-00001.arrow"),
            ("DELETE", "crops/shard-00000.parquet"),
            ("PUT", "clips.parquet"),
        ]
        s3.faults.requests.clear()
        fill(mirror.folder, {"scores/b.json": b"2"})  # clips.parquet stays where it is
        assert mirror.push_new() == ["scores/b.json"]
        assert not [path for _, path in s3.faults.requests if "clips.parquet" in path]


def test_a_moved_file_is_copied_there_and_not_sent_again(s3: S3Server, tmp_path: Path) -> None:
    mirror = mirror_at(tmp_path, "s3://bucket/run")
    with mirror.lock("extract"):
        fill(mirror.folder, {".extracting/embeddings/shard-00000.arrow": b"x" * 5000})
        mirror.push_new()
        (mirror.folder / "embeddings").mkdir()
        old = mirror.folder / ".extracting" / "embeddings" / "shard-00000.arrow"
        old.replace(mirror.folder / "embeddings" / "shard-00000.arrow")
        sent: list[Path] = []
        put = mirror._store.put
        mirror._store.put = lambda path, address: sent.append(path) or put(path, address)  # type: ignore[method-assign, func-returns-value]
        assert mirror.push_new() == ["embeddings/shard-00000.arrow"]
        assert sent == []
        fill(mirror.folder, {"scores/b.json": b"2"})
        mirror.push_new()
        assert [path.name for path in sent] == ["b.json"]
    assert s3.keys() == ["run/embeddings/shard-00000.arrow", "run/scores/b.json"]
    assert s3.get("run/embeddings/shard-00000.arrow") == b"x" * 5000


def test_pull_makes_the_mirror_what_is_there(memory, tmp_path: Path) -> None:
    for name, data in RUN.items():
        memory[name] = data
    mirror = mirror_at(tmp_path)
    mirror.pull()
    fill(mirror.folder, {"clusters/stale.parquet": b"old", "clips.parquet": b"edited here"})
    memory["embeddings/shard-00000.arrow"] = b"FACES " * 100  # the same size
    del memory["scores/empty.json"]
    assert mirror.pull() == ["embeddings/shard-00000.arrow", "clips.parquet"]
    assert contents(mirror.folder) == memory.now()


def test_a_pull_that_is_cut_off_leaves_the_others_known(memory, tmp_path: Path) -> None:
    for name, data in RUN.items():
        memory[name] = data
    mirror = mirror_at(tmp_path)
    fetch, fetched = mirror._fetch, []

    def fetch_two(name: str, info) -> None:
        if len(fetched) == 2:
            raise KeyboardInterrupt
        fetched.append(name)
        fetch(name, info)

    mirror._fetch = fetch_two  # type: ignore[method-assign]
    with pytest.raises(KeyboardInterrupt):
        mirror.pull()
    mirror._fetch = fetch  # type: ignore[method-assign]
    with mirror.lock("score"):
        assert mirror.push_new() == []  # what was not fetched is not gone
    assert memory.now() == RUN
    assert len(mirror.pull()) == len(RUN) - 2


@pytest.mark.parametrize("name", ["../out.json", "a/../../out.json", "a\\..\\out", "C:x", "a\nb"])
def test_names_that_lead_out_are_refused(name: str, tmp_path: Path) -> None:
    mirror = mirror_at(tmp_path / "cache")
    mirror._store = _Listing({"clips.parquet": b"x", name: b"evil"})  # type: ignore[assignment]
    with pytest.raises(VidfaceError, match="none of a run's"):
        mirror.pull()
    assert sorted(p.name for p in tmp_path.rglob("*") if p.is_file()) == [LOCAL_LOCK]


class _Listing:
    """A store that gives the names that a hostile one might."""

    def __init__(self, objects: dict[str, bytes]) -> None:
        self.objects = objects

    def tree(self, _: Address):
        from vidface.storage.http_reads import Info

        return {name: Info(len(data), "1") for name, data in self.objects.items()}


def test_a_server_that_gives_less_than_it_lists(memory, tmp_path: Path, monkeypatch) -> None:
    memory["clips.parquet"] = b"x" * 100
    mirror = mirror_at(tmp_path)
    system = mirror._store.system
    monkeypatch.setattr(type(system), "cat_file", lambda *_, **__: b"x" * 99)
    with pytest.raises(VidfaceError, match=r"clips.parquet: cannot be read: ends after 99 of 100"):
        mirror.pull()
    monkeypatch.setattr(type(system), "cat_file", lambda *_, **__: b"x" * 101)
    with pytest.raises(VidfaceError, match="101 bytes where 100"):
        mirror.pull()
    assert contents(mirror.folder) == {}  # never a part of a file
    monkeypatch.undo()
    assert mirror.pull() == ["clips.parquet"]


def test_a_large_file_that_changes_meanwhile(memory, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr(remote, "BLOCK_BYTES", 10)
    memory["clips.parquet"] = b"x" * 25
    mirror = mirror_at(tmp_path)
    read = Store.read_range

    def reading(self, address, start, end, info):
        data = read(self, address, start, end, info)
        if start == 10:
            memory["clips.parquet"] = b"y" * 25
        return data

    monkeypatch.setattr(Store, "read_range", reading)
    with pytest.raises(VidfaceError, match="changed while"):
        mirror.pull()
    assert contents(mirror.folder) == {}
    monkeypatch.undo()
    mirror.pull()
    assert contents(mirror.folder) == {"clips.parquet": b"y" * 25}


def test_a_full_disk_is_one_clear_error(memory, tmp_path: Path, monkeypatch) -> None:
    memory["clips.parquet"] = b"x" * 100
    mirror = mirror_at(tmp_path)
    usage = remote.shutil.disk_usage(tmp_path)
    monkeypatch.setattr(remote.shutil, "disk_usage", lambda _: usage._replace(free=99))
    with pytest.raises(VidfaceError, match=r"100 bytes are to be fetched.* 99 left"):
        mirror.pull()
    monkeypatch.setattr(remote.shutil, "disk_usage", lambda _: usage._replace(free=100))

    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(files.os, "fsync", full)
    with pytest.raises(VidfaceError, match="cannot be written: No space left"):
        mirror.pull()
    assert "clips.parquet" not in contents(mirror.folder)


def test_a_folder_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "cache").write_bytes(b"a file where the folder should be")
    with pytest.raises(VidfaceError, match=r"cannot be written.*VIDFACE_CACHE"):
        mirror_at(tmp_path / "cache").pull()


def test_a_damaged_index_only_costs_fetching(memory, tmp_path: Path) -> None:
    memory["clips.parquet"] = b"x"
    mirror = mirror_at(tmp_path)
    mirror.pull()
    for text in ("", "[]", '{"entries": {"clips.parquet": 3}}', '{"entries": []}'):
        (mirror.folder / INDEX).write_text(text)
        assert mirror_at(tmp_path).pull() == ["clips.parquet"]


def test_s3_denied_and_no_bucket(s3: S3Server, tmp_path: Path) -> None:
    with pytest.raises(VidfaceError, match="no such bucket"):
        mirror_at(tmp_path, "s3://nobucket/run").pull()
    mirror = mirror_at(tmp_path, "s3://bucket/denied/run")
    with pytest.raises(VidfaceError, match="denied") as caught, mirror.lock("extract"):
        pytest.fail("locked")
    assert SECRET_KEY not in str(caught.value)
    assert mirror_at(tmp_path, "s3://bucket/nothing/yet").pull() == []


@pytest.mark.parametrize(
    ("url", "message"),
    [
        ("https://h/run", "nothing can be written over http"),
        ("s3://key:secret@bucket/run", "credentials"),
        ("s3://bucket/run?token=secret", "without user, password or query"),
        ("file:///tmp/run", "plain path"),
        ("simplecache::s3://bucket/run", "chained"),
    ],
)
def test_refused_run_urls(url: str, message: str, tmp_path: Path) -> None:
    with pytest.raises(VidfaceError, match=message) as caught:
        open_mirror(url, cache=tmp_path)
    assert "secret" not in str(caught.value)


def test_mirrors_have_their_own_folders(tmp_path: Path) -> None:
    folders = {open_mirror(u, cache=tmp_path).folder for u in ("s3://b/a", "s3://b/b", "gs://b/a")}
    assert len(folders) == 3
    assert {f.parent for f in folders} == {tmp_path}
    assert open_mirror("s3://b/a/", cache=tmp_path).folder in folders  # the same run


# --- locks ---


def lock_document(**more) -> bytes:
    owner = {"token": "t", "host": "far", "pid": 7, "what": "extract", "time": time.time(), **more}
    return json.dumps(owner).encode()


@pytest.mark.parametrize("where", ["memory", "s3"])
def test_a_second_process_is_refused(
    where: str, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    request.getfixturevalue(where)
    url = URL if where == "memory" else "s3://bucket/run"
    first, second = mirror_at(tmp_path / "a", url), mirror_at(tmp_path / "b", url)
    with first.lock("extract"):
        with pytest.raises(VidfaceError) as caught, second.lock("cluster"):
            pytest.fail("two at once")
        text = str(caught.value)
        for part in (f"process {os.getpid()}", "(extract)", "last seen ", "5 min after",
                     f"remove {url}/{LOCK_NAME}"):  # fmt: skip
            assert part in text
        with pytest.raises(VidfaceError, match="not locked"):
            second.push_new()
    with second.lock("cluster"):
        second.push_new()
    assert not Store(second.address.protocol).tree(second.address)  # none is left


@pytest.mark.parametrize(
    ("written", "free"),
    [
        (-STALE_SECONDS - 30, True),  # seconds from now
        (-STALE_SECONDS + 30, False),
        (1e6, False),  # a clock that is ahead
        (b'{"time": "yesterday"}', False),
        (b'{"time": true}', False),
        (b"not json", False),
        (b"[" * 60_000, False),
        (b"x" * (1 << 17), False),
    ],
)
def test_old_locks_are_taken_over_and_others_not(
    written: float | bytes, free: bool, memory, tmp_path: Path
) -> None:
    document = written if isinstance(written, bytes) else lock_document(time=time.time() + written)
    memory[LOCK_NAME] = document
    mirror = mirror_at(tmp_path)
    if free:
        with mirror.lock("extract"):
            mirror.push_new()
            assert json.loads(memory.now()[LOCK_NAME])["pid"] == os.getpid()
        return
    with pytest.raises(VidfaceError), mirror.lock("extract"):
        pytest.fail("locked")
    assert memory.now()[LOCK_NAME] == document


def test_two_that_take_an_old_lock_over_at_once(memory, tmp_path: Path) -> None:
    memory[LOCK_NAME] = lock_document(time=0)

    def other(_: float) -> None:
        memory[LOCK_NAME] = lock_document(pid=9)

    mirror = open_mirror(URL, cache=tmp_path, retries=Retries(sleep=other))
    with pytest.raises(VidfaceError, match="process 9"), mirror.lock("extract"):
        pytest.fail("two at once")
    assert json.loads(memory.now()[LOCK_NAME])["pid"] == 9


def test_the_lock_is_refreshed_and_its_loss_noticed(memory, tmp_path: Path) -> None:
    mirror = mirror_at(tmp_path, heartbeat_seconds=0.01)
    with mirror.lock("extract"):
        first = json.loads(memory.now()[LOCK_NAME])["time"]
        assert _soon(lambda: json.loads(memory.now()[LOCK_NAME])["time"] > first)

        def is_lost() -> bool:  # a heartbeat that had read its own just before wins once
            memory[LOCK_NAME] = lock_document(pid=9)
            return bool(mirror._lock._lost)

        assert _soon(is_lost)
        fill(mirror.folder, {"clips.parquet": b"x"})
        with pytest.raises(VidfaceError, match=r"lost \(taken by process 9"):
            mirror.push_new()
    assert json.loads(memory.now()[LOCK_NAME])["pid"] == 9  # another's is not removed
    assert "clips.parquet" not in memory.now()


def test_a_lock_that_cannot_be_refreshed_is_lost(memory, tmp_path: Path, monkeypatch) -> None:
    mirror = mirror_at(tmp_path, heartbeat_seconds=0.01)
    with mirror.lock("extract"):
        failing = threading.Event()

        def read(*_: object) -> bytes:
            failing.set()
            raise OSError(errno.EIO, "no answer")

        monkeypatch.setattr(Store, "read", read)
        assert failing.wait(5)
        mirror._lock.check()  # a short failure is none
        monkeypatch.setattr(remote_lock, "STALE_SECONDS", 0.02)
        assert _soon(lambda: bool(mirror._lock._lost))


def _soon(condition) -> bool:
    end = time.monotonic() + 5
    while time.monotonic() < end:
        if condition():
            return True
        time.sleep(0.01)
    return False


def test_no_pull_while_another_process_writes_here(memory, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr(remote, "LOCAL_WAIT_SECONDS", 0)
    writer, reader = mirror_at(tmp_path), mirror_at(tmp_path)
    with writer.lock("extract"):
        fill(writer.folder, {"embeddings/shard-00000.arrow": b"not stored yet"})
        with pytest.raises(VidfaceError, match="another process of this machine"):
            reader.pull()
        assert writer.folder.joinpath("embeddings/shard-00000.arrow").is_file()
    reader.pull()
    assert contents(reader.folder) == {}


def test_settings_and_texts(tmp_path: Path) -> None:
    for seconds in (0, STALE_SECONDS):
        with pytest.raises(VidfaceError, match="heartbeat_seconds"):
            mirror_at(tmp_path, heartbeat_seconds=seconds)
    mirror = mirror_at(tmp_path)
    assert str(mirror) == f"Mirror({URL}: 0 files, in {mirror.folder})"
    assert str(mirror._lock) == f"RemoteLock({URL}/{LOCK_NAME}, not held)"
