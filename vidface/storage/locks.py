"""One process at a time on a run directory."""

from __future__ import annotations

import datetime
import json
import os
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from vidface.core.errors import VidfaceError
from vidface.core.files import create_file, make_private_folder, named_errors, read_json_object

LOCK = ".lock"  # the system's lock, which goes with its process, however that ends
OWNER = ".lock.json"  # whose it is, for the message


@contextmanager
def locked(folder: Path, what: str) -> Iterator[None]:
    """Hold a run directory, or refuse at once, naming who holds it and for how long.

    The lock is the operating system's: nobody need remove one that a killed process left. Between
    machines it holds where the file system passes locks on (NFS 4 does).

    Args:
        folder: the run directory; it is made if it is not there.
        what: is done with it, for the other's message.

    Raises:
        VidfaceError: another process holds it; the directory cannot be written.
    """
    with hold_file(
        folder / LOCK,
        0,
        busy=lambda: (
            f"run directory {folder}: {_describe_owner(folder / OWNER)}; wait for it to end, or "
            "choose another --run"
        ),
        unwritable=lambda reason: f"run directory {folder}: cannot be written: {reason}",
    ):
        try:
            _write_owner(folder / OWNER, what)
            yield
        finally:
            with suppress(OSError):
                (folder / OWNER).unlink(missing_ok=True)


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


def _write_owner(path: Path, what: str) -> None:
    now = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
    owner = {"host": socket.gethostname(), "pid": os.getpid(), "since": now, "what": what}
    with named_errors(f"run directory {path.parent}: cannot be written"):
        path.unlink(missing_ok=True)
        with create_file(path) as file:
            file.write(json.dumps(owner).encode())


def _describe_owner(path: Path) -> str:
    """`in use by process 12 on host, for 3 min (extract)`, as far as it is known."""
    try:
        owner = read_json_object(path)
        since = datetime.datetime.fromisoformat(owner["since"])
        minutes = (datetime.datetime.now(datetime.UTC) - since).total_seconds() / 60
        return (
            f"in use by process {int(owner['pid'])} on {owner['host']}, for "
            f"{age_text(60 * minutes)} ({owner['what']})"
        )
    except (VidfaceError, ValueError, KeyError, TypeError):
        return "in use by another process"


def age_text(seconds: float) -> str:
    """How long something lasts, in the unit that suits it.

    >>> age_text(42), age_text(190), age_text(7300), age_text(200_000)
    ('42 s', '3 min', '2.0 h', '2.3 days')
    """
    if seconds < 90:
        return f"{max(seconds, 0):.0f} s"
    if seconds < 5400:
        return f"{seconds / 60:.0f} min"
    return f"{seconds / 3600:.1f} h" if seconds < 172_800 else f"{seconds / 86_400:.1f} days"
