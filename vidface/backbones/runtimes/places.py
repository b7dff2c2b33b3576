"""Where a network's graph is worked on: in this process, or in one of its own that can be stopped.

A stranger's graph may loop for ever or ask for any amount of memory: when its shapes are inferred,
when a runtime loads it, at every batch. Libraries don't come back to Python meanwhile, and Ctrl-C
waits for that. In a process of its own (`OwnProcess`) all of this is bounded in time and in memory,
and can be killed at any moment. Vidface's own graphs, and files that it knows by their sha256, stay
in this one (`HERE`).
"""

from __future__ import annotations

import atexit
import contextlib
import itertools
import mmap
import os
import pickle
import socket
import subprocess
import threading
import time
import weakref
from collections.abc import Callable
from multiprocessing.connection import Connection
from typing import Any

from vidface.backbones.runtimes.base import (
    NetworkLimits,
    NetworkTimeoutError,
    Runner,
    library_errors,
)
from vidface.core.children import end_child, open_nameless_file, start_python
from vidface.core.errors import VidfaceError

_CODE = "from vidface.backbones.runtimes.worker import main; main()"
_TICK_SECONDS = 0.5  # between two looks at the time
BLOCK_BYTES = 1 << 26  # of memory that a child shares with us; what isn't used isn't taken
_ALIGNED = 64  # bytes
_EXIT_SECONDS = 1.0  # from a child's closed line to its end
_START_SECONDS = 60.0  # a child that isn't up by then never will be


class Place:
    """This process: work is done as it is asked for."""

    def call(self, function: Callable[..., Any], *arguments: Any) -> Any:
        """What a function gives."""
        return function(*arguments)

    def hold(self, make: Callable[..., Any], *arguments: Any) -> Any:
        """What a function makes: a thing that stays where it was made, to be `run`."""
        return make(*arguments)


HERE = Place()


class OwnProcess(Place):
    """A process for one network, started when it is first of use.

    Functions travel by their names, what they take and give by pickle. A process that had to be
    ended is followed by another, in which things that are run again are made anew.

    Args:
        name: of the network, for messages.
    """

    def __init__(self, name: str, limits: NetworkLimits | None = None) -> None:
        self.name, self.limits = name, limits or NetworkLimits()
        self.lock = threading.RLock()
        self._child: list[_Child] = []  # at most one
        self.forgotten: list[int] = []  # things that nobody here knows any more
        self.numbers = itertools.count()
        weakref.finalize(self, _give_back, self._child)

    def call(self, function: Callable[..., Any], *arguments: Any) -> Any:
        with self.lock:
            return self.ask(self.living_child(), None, function, arguments)

    def hold(self, make: Callable[..., Any], *arguments: Any) -> HeldThing:
        return HeldThing(self, make, arguments)

    def living_child(self) -> _Child:
        """The process, started anew where it has ended."""
        if self._child and not self._child[0].is_usable:
            self._child.pop().end()
        if not self._child:
            self._child.append(_take_child(self.limits.memory_bytes))
        return self._child[0]

    def ask(self, child: _Child, number: int | None, work: Any, arguments: tuple[Any, ...]) -> Any:
        """What `work` gives there; under the lock. See `vidface.backbones.runtimes.worker`."""
        forgotten = [self.forgotten.pop() for _ in range(len(self.forgotten))]
        with library_errors(f"weights {self.name}"):  # protobuf writes 2 GiB at most
            request = child.pack((forgotten, number, work, arguments), shared=work == "run")
        try:
            child.send(*request)
            kind, content = self._wait(child)
        except (EOFError, ConnectionError):
            self._child.clear()
            how = child.end(_EXIT_SECONDS)
            raise VidfaceError(
                f"weights {self.name}: its process {how}{self._hint('memory')}"
            ) from None
        except BaseException:  # Ctrl-C as well: nothing but its end stops what it is at
            self._child.clear()
            child.end()
            raise
        if kind == "result":
            return content
        what = "" if kind == "error" else f"weights {self.name}: "
        raise VidfaceError(what + content + self._hint(content))

    def _wait(self, child: _Child) -> tuple[str, Any]:
        """The answer; the time begins anew with each sign of progress."""
        tick = min(_TICK_SECONDS, self.limits.batch_seconds / 4)
        waited = 0.0
        while True:
            limit = max(self.limits.batch_seconds, 0.0 if child.is_up else _START_SECONDS)
            begun = time.monotonic()
            if child.connection.poll(tick):
                kind, content = child.connection.recv()
                if kind != "progress":
                    return kind, content
                waited, child.is_up = 0.0, True
                continue
            waited += min(time.monotonic() - begun, 2 * tick)  # we may have been stopped meanwhile
            if waited >= limit:
                raise NetworkTimeoutError(
                    f"weights {self.name}: stopped after {limit:g} s without a result; if it is "
                    "just slow, give it more with --batch-timeout (extract, run, verify), or "
                    "batch_timeout_seconds in [backbone]"
                )

    def _hint(self, text: str) -> str:
        """What to do where memory was, or may have been, too little."""
        if "alloc" not in text and "memory" not in text.lower():
            return ""
        size = f"{self.limits.memory_bytes / 2**30:.3g}GiB"
        return (
            f" (it may take {size}; more with --network-memory (extract, run, verify), or "
            "network_memory in [backbone])"
        )


class HeldThing(Runner):
    """A runner, or a session, in an `OwnProcess`; made anew where that had to be ended."""

    def __init__(
        self, place: OwnProcess, make: Callable[..., Any], arguments: tuple[Any, ...]
    ) -> None:
        self._place, self._make, self._arguments = place, make, arguments
        with place.lock:
            self._make_in(place.living_child())

    def _make_in(self, child: _Child) -> None:
        place, number = self._place, next(self._place.numbers)
        self.batch, self.gives_norm = place.ask(child, number, self._make, self._arguments)
        self._child, self._number = child, number
        weakref.finalize(self, place.forgotten.append, number).atexit = False

    def run(self, *arguments: Any) -> Any:
        with self._place.lock:
            child = self._place.living_child()
            if child is not self._child:
                self._make_in(child)
            return self._place.ask(child, self._number, "run", arguments)


class _Child:
    """A process that works for us, and our end of its line."""

    def __init__(self, memory_bytes: int) -> None:
        self.memory_bytes, self.is_up = memory_bytes, False
        self._owner = os.getpid()
        try:
            ours, theirs = socket.socketpair()
            with theirs, ours, open_nameless_file(size=BLOCK_BYTES) as block:
                kept = theirs.fileno(), block
                self.process = start_python(
                    _CODE, (*kept, memory_bytes), kept, {}, stderr=subprocess.DEVNULL
                )
                self._block = mmap.mmap(block, BLOCK_BYTES)
                self.connection = Connection(ours.detach())
        except (OSError, ValueError) as error:
            raise VidfaceError(f"a process for a network can't be started: {error}") from None

    @property
    def is_usable(self) -> bool:
        """Whether it still runs, and is ours: not that of a process that forked us."""
        return self._owner == os.getpid() and self.process.poll() is None

    def pack(self, request: Any, *, shared: bool) -> tuple[list[tuple[int, int]], bytes]:
        """A request as it travels: what lies where in the shared block, and the rest.

        Args:
            shared: lay arrays into the block, as far as there is room: half of the price. They are
                of use until the answer has come.
        """
        spans: list[tuple[int, int]] = []

        def stays_in_message(buffer: pickle.PickleBuffer) -> bool:
            data = buffer.raw()
            start = -(-spans[-1][1] // _ALIGNED) * _ALIGNED if spans else 0
            if start + data.nbytes > len(self._block):
                return True
            self._block[start : start + data.nbytes] = data
            spans.append((start, start + data.nbytes))
            return False

        callback = stays_in_message if shared else None
        return spans, pickle.dumps(request, pickle.HIGHEST_PROTOCOL, buffer_callback=callback)

    def send(self, spans: list[tuple[int, int]], message: bytes) -> None:
        self.connection.send(spans)
        self.connection.send_bytes(message)

    def end(self, grace_seconds: float = 0.0) -> str:
        """Kill it, whatever it is at; how it has ended."""
        self.connection.close()
        return end_child(self.process, grace_seconds) if self._owner == os.getpid() else ""


_idle: list[_Child] = []  # at most one, whose network is gone: the next need not wait for a start


def _take_child(memory_bytes: int) -> _Child:
    while _idle:
        child = _idle.pop()
        if child.is_usable and child.memory_bytes == memory_bytes:
            return child
        child.end()
    return _Child(memory_bytes)


def _give_back(children: list[_Child]) -> None:
    for child in children:
        if child.is_usable and not _idle:
            with contextlib.suppress(OSError):
                child.send(*child.pack(None, shared=False))  # forget all
                _idle.append(child)
                continue
        child.end()
    children.clear()


@atexit.register
def _end_idle() -> None:
    while _idle:
        _idle.pop().end()
