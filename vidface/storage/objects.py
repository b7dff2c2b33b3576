"""Reading and writing at an address: every request bounded, checked for length, and tried again.

fsspec's file systems do the work. What they leave open is done here: answers over http are read
only as far as was asked (a server may ignore ranges, or never end), lengths are compared, short
troubles are tried again after a pause, and reasons are told in few words without any credentials.
"""

from __future__ import annotations

import errno
import importlib
import os
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from vidface.core.errors import VidfaceError
from vidface.storage.http_reads import (
    CONNECT_SECONDS,
    REQUEST_SECONDS,
    SILENCE_SECONDS,
    Info,
    http_info,
    http_range,
    http_read,
)
from vidface.storage.reach import OWN_REACH, Reach, check_public, open_session
from vidface.storage.store_failures import check_length, too_large_error, translate_failure
from vidface.storage.urls import HTTP, PROTOCOLS, Address

BLOCK_BYTES = 8 << 20  # of one request, where a file is copied

T = TypeVar("T")


@dataclass(frozen=True)
class Retries:
    """How often a request is made, and the pauses in between, each twice the one before."""

    tries: int = 4
    first_pause_seconds: float = 0.5
    sleep: Callable[[float], None] = time.sleep

    def __post_init__(self) -> None:
        if self.tries < 1 or self.first_pause_seconds < 0:
            raise VidfaceError("retries: tries must be ≥ 1 and the pause ≥ 0 seconds")


class Store:
    """One protocol's objects. Can be handed to other processes: each connects on its own.

    Every method raises FileNotFoundError for what isn't there, PermissionError for what is denied,
    OSError with a reason for other failures, and VidfaceError where the protocol's library isn't
    installed.
    """

    def __init__(
        self, protocol: str, retries: Retries | None = None, reach: Reach = OWN_REACH
    ) -> None:
        self.protocol = protocol
        self.reach = reach
        self.retries = retries or Retries()
        self._system: Any = None
        self._process = 0
        self._opening = threading.Lock()

    def __reduce__(self) -> tuple[Any, ...]:
        return Store, (self.protocol, self.retries, self.reach)

    @property
    def system(self) -> Any:
        """fsspec's file system, made on first use and again after a fork."""
        with self._opening:
            if self._system is None or self._process != os.getpid():
                if self.reach.public_only and self.protocol not in HTTP:
                    check_public(Address(f"{self.protocol}://bucket"))
                self._system, self._process = _file_system(self.protocol), os.getpid()
            return self._system

    def info(self, address: Address) -> Info:
        """Size and mark of an object; that of a folder for a prefix that holds something."""
        if address.is_http:
            return self._tried(lambda: self._sync(http_info, address.url), address)
        return _info(self._tried(lambda: self.system.info(address.key), address))

    def read(self, address: Address, limit_bytes: int, info: Info | None = None) -> bytes:
        """All bytes of an object of at most `limit_bytes`."""
        if address.is_http:
            return self._tried(lambda: self._sync(http_read, address.url, limit_bytes), address)
        info = info or self.info(address)
        if info.is_folder:
            raise IsADirectoryError(errno.EISDIR, "a folder, not a file")
        if info.size_bytes > limit_bytes:
            raise too_large_error(info.size_bytes, limit_bytes)
        return self.read_range(address, 0, info.size_bytes, info)

    def read_range(self, address: Address, start: int, end: int, info: Info) -> bytes:
        """The bytes [start, end) of an object, exactly as many; `info` is the object's."""
        if start >= end:
            return b""
        if address.is_http:
            return self._tried(
                lambda: self._sync(http_range, address.url, start, end, info), address
            )

        def once() -> bytes:
            data = self.system.cat_file(address.key, start=start, end=end)
            check_length(len(data), end - start)
            return data

        return self._tried(once, address)

    def folder(self, address: Address) -> dict[str, Info]:
        """Name → what is known, of all that lies directly in a folder; not over http."""
        self._needs_listing(address)
        entries = self._tried(lambda: self.system.ls(address.key, detail=True), address)
        return _below(address, entries)

    def tree(self, address: Address) -> dict[str, Info]:
        """Relative name → what is known, of all objects below; not over http."""
        self._needs_listing(address)
        entries = self._tried(lambda: self.system.find(address.key, detail=True), address)
        below = _below(address, list(entries.values()))
        return {name: info for name, info in below.items() if not info.is_folder}

    def _needs_listing(self, address: Address) -> None:
        if address.is_http:
            raise OSError(errno.ENOTSUP, "http has no listings; name files, not folders")

    def put(self, path: Path, address: Address) -> Info:
        """Store a local file; the object appears whole. Its size there is checked."""
        self._needs_writing(address)
        size = path.stat().st_size

        def once() -> Info:
            self.system.put_file(str(path), address.key)
            stored = _info(self.system.info(address.key))
            check_length(stored.size_bytes, size)
            return stored

        return self._tried(once, address)

    def copy(self, source: Address, target: Address) -> Info:
        """Copy an object on the server."""
        self._needs_writing(target)
        self._tried(lambda: self.system.cp_file(source.key, target.key), target)
        return self.info(target)

    def write(self, address: Address, data: bytes, *, only_new: bool = False) -> bool:
        """Store a few bytes. With `only_new`, False where the object is there already."""
        self._needs_writing(address)
        mode = {"mode": "create"} if only_new else {}
        try:
            self._tried(lambda: self.system.pipe_file(address.key, data, **mode), address)
        except FileExistsError:
            return False
        return True

    def delete(self, address: Address) -> None:
        """Remove an object; one that isn't there is fine."""
        self._needs_writing(address)
        try:
            self._tried(lambda: self.system.rm_file(address.key), address)
        except FileNotFoundError:
            return

    def _needs_writing(self, address: Address) -> None:
        if address.is_http:
            raise VidfaceError(f"{address}: http can't be written to; use s3, gs or az")

    def _sync(self, coroutine: Callable[..., Any], *arguments: Any) -> Any:
        """Run a coroutine in fsspec's own thread, bounded in time."""
        sync = importlib.import_module("fsspec.asyn").sync
        system = self.system
        return sync(
            system.loop, coroutine, system, self.reach, *arguments, timeout=REQUEST_SECONDS + 5
        )

    def _tried(self, once: Callable[[], T], address: Address) -> T:
        pause_seconds = self.retries.first_pause_seconds
        for attempt in range(1, self.retries.tries + 1):
            try:
                return once()
            except VidfaceError:
                raise
            except Exception as error:  # all that a network and its libraries can do
                failure, may_pass = translate_failure(error)
                if not may_pass:
                    raise failure from None
                if attempt == self.retries.tries:
                    reason = f"{failure.strerror}, tried {attempt} times"
                    raise OSError(errno.EIO, reason) from None
            self.retries.sleep(pause_seconds)
            pause_seconds *= 2
        raise AssertionError("the last try returns or raises")


def _file_system(protocol: str) -> Any:
    extra = PROTOCOLS[protocol]
    options: dict[str, Any] = {"use_listings_cache": False, "skip_instance_cache": True}
    if protocol in HTTP:
        # Unpacking is refused: a packed answer can be of any size. trust_env: ~/.netrc and proxies.
        options["client_kwargs"] = {"auto_decompress": False, "trust_env": True}
        options["get_client"] = open_session
    elif protocol == "s3":
        # The tries are counted here, not in three layers one within the other.
        options["config_kwargs"] = {
            "retries": {"total_max_attempts": 1},
            "connect_timeout": CONNECT_SECONDS,
            "read_timeout": SILENCE_SECONDS,
        }
        options["max_concurrency"] = 2  # parts of 50 MiB held at once
    try:
        system = importlib.import_module("fsspec").filesystem(protocol, **options)
    except ImportError:
        raise VidfaceError(
            f"{protocol}:// needs a library that isn't installed: pip install 'vidface[{extra}]'"
        ) from None
    except Exception as error:  # a wrong setting in the environment
        failure, _ = translate_failure(error)
        raise VidfaceError(f"{protocol}:// cannot be used: {failure.strerror}") from None
    if hasattr(system, "retries"):
        system.retries = 1
    return system


def _info(entry: dict[str, Any]) -> Info:
    marks = (entry.get(k) for k in ("ETag", "etag", "md5Hash", "created", "LastModified"))
    mark = next((m for m in marks if m), "")
    if hasattr(mark, "timestamp"):  # the same moment is a number in a listing of memory://
        mark = mark.timestamp()
    mark = f"{mark:.6f}" if isinstance(mark, float) else str(mark)
    return Info(int(entry.get("size") or 0), mark, entry.get("type") == "directory")


def _below(address: Address, entries: list[dict[str, Any]]) -> dict[str, Info]:
    """Names relative to an address; markers of folders (`name/`, empty) are passed over."""
    start = address.key.rstrip("/") + "/"
    names = {}
    for entry in entries:
        name = str(entry["name"])
        if name.startswith(start) and (relative := name.removeprefix(start)):
            if relative.endswith("/"):
                continue
            names[relative] = _info(entry)
    return names
