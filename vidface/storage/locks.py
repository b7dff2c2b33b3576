"""Who works in a folder: commands that replace what others read or replace exclude each other."""

from __future__ import annotations

import datetime
import json
import os
import socket
import uuid
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from vidface.core.errors import VidfaceError
from vidface.core.files import (
    create_file,
    make_folder,
    make_private_folder,
    named_errors,
    read_json_object,
)

LOCK = ".lock"  # held while a command puts itself down or is checked against the others
WORKERS = ".at_work"  # in it a file a command that works here, locked as long as its process lives
_WAIT_SECONDS = 30.0  # for LOCK, which is held for milliseconds


@dataclass(frozen=True)
class Worker:
    """A command that works in a folder: whose it is, and what it reads and replaces there."""

    what: str
    replaces: frozenset[str]
    reads: frozenset[str]
    pid: int
    host: str
    since: str  # ISO 8601

    def __str__(self) -> str:
        """`process 12 on host, for 3 min (extract)`."""
        begun = datetime.datetime.fromisoformat(self.since)
        seconds = (datetime.datetime.now(datetime.UTC) - begun).total_seconds()
        return f"process {self.pid} on {self.host}, for {age_text(seconds)} ({self.what})"

    def excludes(self, other: Worker) -> bool:
        """Whether one of the two replaces what the other reads or replaces."""
        return bool(self.replaces & (other.reads | other.replaces) or other.replaces & self.reads)


@contextmanager
def at_work(
    folder: Path, what: str, *, replaces: Iterable[str], reads: Iterable[str] = ()
) -> Iterator[None]:
    """Work in a folder beside those who work on other things; refused at once where they clash.

    The locks are the operating system's: nobody need remove what a killed process left. Between
    machines they hold where the file system passes locks on (NFS 4 does).

    Args:
        folder: it is made if it is not there.
        what: is done, for the others' messages.
        replaces, reads: names of what is written anew there, and of what must stay as it is.

    Raises:
        VidfaceError: another process works on the same; the folder cannot be written.
    """
    from filelock import FileLock

    now = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
    worker = Worker(
        what, frozenset(replaces), frozenset(reads), os.getpid(), socket.gethostname(), now
    )
    with hold_file(
        folder / LOCK,
        _WAIT_SECONDS,
        busy=lambda: f"{folder}: another process begins there; try again",
        unwritable=lambda reason: f"{folder}: cannot be written: {reason}",
    ):
        for other in list_workers(folder):
            if worker.excludes(other):
                raise VidfaceError(
                    f"{folder}: in use by {other}; wait for it to end, or choose another --run"
                )
        with named_errors(f"{folder}: cannot be written"):
            make_folder(folder / WORKERS)
            path = folder / WORKERS / f".{worker.pid}-{uuid.uuid4().hex}.json"
            lock = FileLock(path.with_suffix(".lock"))
            lock.acquire()  # first: readers don't wait for LOCK, and remove what nobody holds
            with create_file(path) as file:
                file.write(json.dumps(vars(worker), default=sorted).encode())
    try:
        yield
    finally:
        path.unlink(missing_ok=True)
        lock.release()
        with suppress(OSError):
            path.with_suffix(".lock").unlink(missing_ok=True)


def list_workers(folder: Path) -> list[Worker]:
    """Who works in a folder now; what killed ones left is removed where it can be."""
    return [
        worker
        for path in sorted((folder / WORKERS).glob("*.json"))
        if _is_held(path.with_suffix(".lock")) and (worker := _read_worker(path)) is not None
    ]


def _is_held(path: Path) -> bool:
    """Whether the process that made a lock's file still holds it."""
    from filelock import FileLock, Timeout

    lock = FileLock(path, timeout=0)
    try:
        lock.acquire()
    except Timeout:
        return True
    except (OSError, NotImplementedError):  # a folder that can't be written: nobody works there
        return False
    with suppress(OSError):
        path.with_suffix(".json").unlink(missing_ok=True)
        path.unlink(missing_ok=True)
    lock.release()
    return False


def _read_worker(path: Path) -> Worker | None:
    """Who put himself down; nothing where the file went in the meantime."""
    try:
        about = read_json_object(path)
        # One without a time zone can't be compared: it isn't ours.
        datetime.datetime.fromisoformat(about["since"]) - datetime.datetime.now(datetime.UTC)
        names = {name: frozenset(map(str, about[name])) for name in ("replaces", "reads")}
        return Worker(
            str(about["what"]), **names, pid=int(about["pid"]), host=str(about["host"]),
            since=about["since"],
        )  # fmt: skip
    except (VidfaceError, ValueError, KeyError, TypeError, OverflowError):
        return None


@contextmanager
def hold_file(
    path: Path,
    wait_seconds: float,
    *,
    busy: Callable[[], str],
    unwritable: Callable[[object], str],
) -> Iterator[None]:
    """Hold the system's lock on a file, whose folder is made; VidfaceError with one of the texts.

    Args:
        wait_seconds: for another process that holds it; then `busy` says what is wrong.
    """
    from filelock import FileLock, Timeout

    try:
        make_private_folder(path.parent)
        with suppress(FileExistsError):
            create_file(path).close()
        lock = FileLock(path, timeout=wait_seconds)
        lock.acquire()
    except Timeout:
        raise VidfaceError(busy()) from None
    except (OSError, NotImplementedError) as error:
        raise VidfaceError(unwritable(getattr(error, "strerror", None) or error)) from None
    try:
        yield
    finally:
        lock.release()


def age_text(seconds: float) -> str:
    """How long something lasts, in the unit that suits it.

    >>> age_text(42), age_text(190), age_text(7300), age_text(200_000)
    ('42 s', '3 min', '2 h 2 min', '2.3 days')
    """
    if seconds < 90:
        return f"{max(seconds, 0):.0f} s"
    if seconds < 5400:
        return f"{seconds / 60:.0f} min"
    if seconds < 172_800:
        hours, minutes = divmod(round(seconds / 60), 60)
        return f"{hours} h {minutes} min"
    return f"{seconds / 86_400:.1f} days"
