"""A lock that is an object at an address: whose it is, refreshed as long as its process lives."""

from __future__ import annotations

import json
import os
import secrets
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

from vidface.core.errors import VidfaceError
from vidface.core.files import named_errors
from vidface.storage.locks import age_text
from vidface.storage.objects import Store
from vidface.storage.urls import Address

LOCK_NAME = "lock.json"
STALE_SECONDS = 300.0  # a lock that was not refreshed for so long is a dead process's
SETTLE_SECONDS = 1.0  # for another that takes the same stale lock over at the same moment
MAX_LOCK_BYTES = 1 << 16


class RemoteLock:
    """One process at a time on what lies at an address. Clocks may differ by minutes, not more.

    Where the server knows conditional writes (S3, Google, Azure do) two can't get it at once.
    """

    def __init__(self, address: Address, store: Store, heartbeat_seconds: float) -> None:
        if not 0 < heartbeat_seconds < STALE_SECONDS / 2:
            raise VidfaceError(f"heartbeat_seconds must lie between 0 and {STALE_SECONDS / 2:g}")
        self._folder = address
        self._address = address / LOCK_NAME
        self._store = store
        self._period_seconds = heartbeat_seconds
        self._token = ""  # of the lock that is held
        self._lost = ""  # why it is not held any more

    def __str__(self) -> str:
        return f"RemoteLock({self._address}, {'held' if self._token else 'not held'})"

    def check(self) -> None:
        """Raise VidfaceError unless the lock is held, and has not been taken away."""
        if not self._token:
            raise VidfaceError(f"run directory {self._folder}: not locked by this process")
        if self._lost:
            raise VidfaceError(f"run directory {self._folder}: the lock was lost ({self._lost})")

    @contextmanager
    def held(self, what: str) -> Iterator[None]:
        """Hold it; VidfaceError that names the owner where another process does."""
        token = secrets.token_hex(8)
        with named_errors(f"{self._address}: cannot be written"):
            self._acquire(token, what)
        self._token, self._lost = token, ""
        ended = threading.Event()
        thread = threading.Thread(target=self._beat, args=(token, what, ended), daemon=True)
        thread.start()
        try:
            yield
        finally:
            ended.set()
            thread.join(timeout=STALE_SECONDS)
            self._token = ""
            with suppress(OSError, VidfaceError):  # it goes stale by itself
                if self._owner().get("token") == token:
                    self._store.delete(self._address)

    def _acquire(self, token: str, what: str) -> None:
        if self._store.write(self._address, self._document(token, what), only_new=True):
            return
        owner = self._owner()
        if owner.get("token") == token:  # written by a try whose answer was lost
            return
        age_seconds = _age_seconds(owner)
        if age_seconds is None or age_seconds < STALE_SECONDS:
            raise VidfaceError(self._refusal(owner, age_seconds))
        self._store.write(self._address, self._document(token, what))
        self._store.retries.sleep(SETTLE_SECONDS)
        owner = self._owner()
        if owner.get("token") != token:
            raise VidfaceError(self._refusal(owner, _age_seconds(owner)))

    def _refusal(self, owner: dict[str, Any], age_seconds: float | None) -> str:
        who = "another process"
        if isinstance(owner.get("pid"), int):
            host, for_what = str(owner.get("host"))[:80], str(owner.get("what"))[:80]
            who = f"process {owner['pid']} on {host!r} ({for_what})"
        seen = "" if age_seconds is None else f", last seen {age_text(age_seconds)} ago"
        return (
            f"run directory {self._folder}: in use by {who}{seen}; wait for it to end, or choose "
            f"another --run. If it is dead: its lock ends {age_text(STALE_SECONDS)} after it was "
            f"last seen, or remove {self._address}"
        )

    def _document(self, token: str, what: str) -> bytes:
        owner = {
            "token": token,
            "host": socket.gethostname(),
            "pid": os.getpid(),
            "what": what,
            "time": time.time(),
        }
        return json.dumps(owner).encode("utf-8")

    def _owner(self) -> dict[str, Any]:
        """What the lock says; nothing where it is gone or says nothing."""
        try:
            owner = json.loads(self._store.read(self._address, MAX_LOCK_BYTES))
        except (FileNotFoundError, ValueError, RecursionError):
            return {}
        return owner if isinstance(owner, dict) else {}

    def _beat(self, token: str, what: str, ended: threading.Event) -> None:
        seen = time.monotonic()
        while not ended.wait(self._period_seconds):
            try:
                owner = self._owner()
                if owner.get("token") != token:
                    self._lost = f"taken by process {owner.get('pid')} on {owner.get('host')!r}"
                    return
                self._store.write(self._address, self._document(token, what))
                seen = time.monotonic()
            except (OSError, VidfaceError) as error:
                if time.monotonic() - seen > STALE_SECONDS:
                    self._lost = f"it could not be refreshed: {error}"
                    return


def _age_seconds(owner: dict[str, Any]) -> float | None:
    """Since it was refreshed, by its owner's clock; None where it doesn't say."""
    written = owner.get("time")
    if isinstance(written, bool) or not isinstance(written, int | float):
        return None
    if not 0 <= written < 2**63:  # no time, and more than a float holds
        return None
    return max(0.0, time.time() - written)
