"""A run directory at a URL: a local mirror of it, filled from there and stored there file by file.

Artefacts are mapped into memory, so they have to be files. `open_mirror` gives a folder in the
cache; `pull` makes it what lies at the URL, `push_new` stores what was written since.
Whoever stores holds the lock, an object `lock.json` that says whose it is and is refreshed as long
as its process lives. `clips.parquet`, whose presence means that an extraction is finished, goes
first and comes last here, too.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import shutil
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from vidface.core.errors import VidfaceError
from vidface.core.files import atomic_file, named_errors, read_json_object
from vidface.storage.cache import cache_folder
from vidface.storage.http_reads import Info
from vidface.storage.locks import hold_file
from vidface.storage.mirror_lock import LOCK_NAME, RemoteLock
from vidface.storage.objects import BLOCK_BYTES, Retries, Store
from vidface.storage.urls import Address

RUNS = "runs"  # folder of the cache: mirrors, by the hash of their address
INDEX = ".mirror.json"  # in a mirror: what lies at the address and what of it lies here
LOCAL_LOCK = ".mirror.lock"  # in a mirror: one process of this machine at a time changes it
LAST = "clips.parquet"
MAX_OBJECTS = 1_000_000
LOCAL_WAIT_SECONDS = 30.0  # for another process of this machine that fills the same mirror

Stamp = tuple[int, int, int]  # bytes, nanoseconds of the last change, inode: a rename keeps them


@dataclass(frozen=True)
class Entry:
    """An object at the address, and the stamp of its copy here; None where there is none."""

    size_bytes: int
    etag: str
    stamp: Stamp | None


class Mirror:
    """A run directory at an address, and its mirror `folder` on this machine.

    Every method raises VidfaceError: the server can't be reached or denies, it gives names that
    lead out of the folder, the disk is full or can't be written, the lock is another's.
    """

    def __init__(self, address: Address, folder: Path, retries: Retries, lock: RemoteLock) -> None:
        self.address = address
        self.folder = folder
        self._store = Store(address.protocol, retries)
        self._lock = lock
        self.is_held = False  # whether this object holds the run directory (`lock`)
        self._entries = _read_index(folder / INDEX)

    def __str__(self) -> str:
        return f"Mirror({self.address}: {len(self._entries)} files, in {self.folder})"

    def pull(self) -> list[str]:
        """Make the mirror what lies at the address; names of the files that were fetched.

        What lies here and not there is removed: it was of another run, or of one killed before it
        was stored.
        """
        with self._alone_here():
            listed = self._listed()
            for name in self._local_names():
                if name not in listed:
                    self._unlink(name)
            self._entries = {n: e for n, e in self._entries.items() if n in listed}
            missing = [name for name, info in listed.items() if not self._has(name, info)]
            for name in missing:
                self._unlink(name)  # never an old file beside new ones
                info = listed[name]
                self._entries[name] = Entry(info.size_bytes, info.etag, None)
            missing.sort(key=_last_last)
            self._check_room(sum(listed[name].size_bytes for name in missing))
            try:
                for name in missing:
                    self._fetch(name, listed[name])
            finally:
                self._write_index()
        return missing

    def push_new(self) -> list[str]:
        """Store all that is new or changed here, remove there what is gone here; names stored.

        Needs the lock, as all that changes what lies there. A new `clips.parquet` is stored last,
        and the old one removed first: nobody sees a mixture.
        """
        self._lock.check()
        here = self._local_names()
        changed = sorted((n for n in here if not self._is_stored(n)), key=_last_last)
        gone = [n for n, e in self._entries.items() if e.stamp is not None and n not in here]
        if not changed and not gone:
            return []
        try:
            if LAST in self._entries and (LAST in changed or LAST in gone):
                self._delete(LAST)
                gone = [name for name in gone if name != LAST]
            moved = {self._entries[name].stamp: name for name in gone}
            for name in changed:
                if name == LAST:
                    for old in gone:
                        self._delete(old)
                    gone = []
                self._lock.check()
                self._put(name, moved.get(_stamp(self.folder / name)))
            for old in gone:
                self._delete(old)
        finally:
            self._write_index()
        return changed

    @contextmanager
    def lock(self, what: str) -> Iterator[None]:
        """Hold the run directory at the address, on all machines; refused where another holds it.

        Args:
            what: is done with it, for the other's message.
        """
        with self._alone_here(), self._lock.held(what):
            yield

    def _listed(self) -> dict[str, Info]:
        with named_errors(f"{self.address}: cannot be read"):
            try:
                listed = self._store.tree(self.address)
            except FileNotFoundError as error:
                if "bucket" in str(error.strerror):
                    raise
                return {}
        if len(listed) > MAX_OBJECTS:
            raise VidfaceError(f"run directory {self.address}: {len(listed)} objects; not a run's")
        for name in listed:
            _check_name(name, self.address)
        return {n: i for n, i in listed.items() if n != LOCK_NAME and not _is_hidden(n)}

    def _has(self, name: str, info: Info) -> bool:
        entry = self._entries.get(name)
        return (
            entry is not None
            and (entry.size_bytes, entry.etag) == (info.size_bytes, info.etag)
            and entry.stamp is not None
            and entry.stamp == _stamp(self.folder / name)
        )

    def _is_stored(self, name: str) -> bool:
        entry = self._entries.get(name)
        return entry is not None and entry.stamp == _stamp(self.folder / name)

    def _fetch(self, name: str, info: Info) -> None:
        source, path = self.address / name, self.folder / name
        with atomic_file(path) as file, named_errors(f"{source}: cannot be read"):
            for start in range(0, info.size_bytes, BLOCK_BYTES):
                end = min(start + BLOCK_BYTES, info.size_bytes)
                piece = self._store.read_range(source, start, end, info)
                with named_errors(f"{path}: cannot be written"):
                    file.write(piece)
            if info.size_bytes > BLOCK_BYTES and self._store.info(source) != info:
                raise VidfaceError(f"{source}: changed while it was read; try again")
        self._entries[name] = Entry(info.size_bytes, info.etag, _stamp(path))

    def _put(self, name: str, moved_from: str | None = None) -> None:
        """Store a file; one that was only moved here is copied there, and not sent again."""
        path, target = self.folder / name, self.address / name
        stamp = _stamp(path)
        info = None
        if moved_from is not None and stamp is not None:
            with contextlib.suppress(OSError):
                info = self._store.copy(self.address / moved_from, target)
        if info is None or stamp is None or info.size_bytes != stamp[0]:
            with named_errors(f"{target}: cannot be stored"):
                info = self._store.put(path, target)
        self._entries[name] = Entry(info.size_bytes, info.etag, stamp)

    def _delete(self, name: str) -> None:
        with named_errors(f"{self.address / name}: cannot be removed"):
            self._store.delete(self.address / name)
        self._entries.pop(name, None)

    def _unlink(self, name: str) -> None:
        with named_errors(self.folder / name):
            (self.folder / name).unlink(missing_ok=True)

    def _local_names(self) -> list[str]:
        paths = (path for path in self.folder.rglob("*") if path.is_file())
        names = (path.relative_to(self.folder).as_posix() for path in paths)
        return sorted(name for name in names if not _is_hidden(name) and name != LOCK_NAME)

    def _check_room(self, needed_bytes: int) -> None:
        free = shutil.disk_usage(self.folder).free
        if needed_bytes > free:
            raise VidfaceError(
                f"run directory {self.address}: {needed_bytes} bytes are to be fetched, and the "
                f"disk of {self.folder} has {free} left; make room, or let VIDFACE_CACHE name "
                "another folder"
            )

    def _write_index(self) -> None:
        entries = {n: [e.size_bytes, e.etag, e.stamp] for n, e in self._entries.items()}
        document = {"address": str(self.address), "entries": entries}
        with atomic_file(self.folder / INDEX) as file:
            file.write(json.dumps(document).encode("utf-8"))

    @contextmanager
    def _alone_here(self) -> Iterator[None]:
        """Alone on this machine: a pull must not remove what another process is writing."""
        if self.is_held:
            yield
            return
        with hold_file(
            self.folder / LOCAL_LOCK,
            LOCAL_WAIT_SECONDS,
            busy=lambda: (
                f"run directory {self.address}: another process of this machine works on it; "
                "wait for it to end, or choose another --run"
            ),
            unwritable=lambda reason: (
                f"{self.folder}: cannot be written: {reason}; let VIDFACE_CACHE name another folder"
            ),
        ):
            self.is_held = True
            try:
                self._entries = _read_index(self.folder / INDEX)
                yield
            finally:
                self.is_held = False


def open_mirror(
    url: str | Address,
    *,
    cache: Path | None = None,
    retries: Retries | None = None,
    heartbeat_seconds: float = 60.0,
) -> Mirror:
    """The mirror of a run directory at a URL; nothing is fetched yet.

    Args:
        url: s3://bucket/folder, gs://, az:// or memory://; without user, password or query.
        cache: where mirrors lie (default: `runs` in vidface's cache folder).
        heartbeat_seconds: how often a lock that is held is refreshed.

    Raises:
        VidfaceError: a URL that is not allowed, or that can't be written to.
    """
    address = url if isinstance(url, Address) else Address(url)
    if not address.is_plain:
        raise VidfaceError(f"run directory {address}: an address without user, password or query")
    if address.is_http:
        raise VidfaceError(
            f"run directory {address}: nothing can be written over http; use s3://, gs:// or az://"
        )
    name = hashlib.sha256(f"{address.protocol}://{address.key}".encode()).hexdigest()[:32]
    folder = (cache or cache_folder() / RUNS) / name
    retries = retries or Retries()
    lock = RemoteLock(address, Store(address.protocol, retries), heartbeat_seconds)
    return Mirror(address, folder, retries, lock)


def _last_last(name: str) -> tuple[bool, str]:
    return name == LAST, name


def _is_hidden(name: str) -> bool:
    """Locks, the index and files that are being written; hidden folders are a run's own."""
    return PurePosixPath(name).name.startswith(".")


def _check_name(name: str, address: Address) -> None:
    """Refuse a name that would lie outside of the mirror, or nowhere on some systems."""
    parts = name.split("/")
    wrong = any(part in ("", ".", "..") or len(part.encode()) > 255 for part in parts)
    if wrong or "\\" in name or ":" in name or not name.isprintable():
        raise VidfaceError(
            f"run directory {address}: holds the object {name[:200]!r}, which is none of a run's "
            "and cannot be a file below a folder; remove it, or choose another --run"
        )


def _stamp(path: Path) -> Stamp | None:
    try:
        status = path.stat()
    except OSError:
        return None
    return status.st_size, status.st_mtime_ns, status.st_ino


def _read_index(path: Path) -> dict[str, Entry]:
    """What is remembered of a mirror; nothing where it is damaged: all is fetched again then."""
    try:
        entries: Iterable[tuple[str, list]] = read_json_object(path)["entries"].items()
        return {
            name: Entry(int(size), str(etag), None if stamp is None else tuple(stamp))
            for name, (size, etag, stamp) in entries
        }
    except (VidfaceError, ValueError, KeyError, TypeError, AttributeError):
        return {}
