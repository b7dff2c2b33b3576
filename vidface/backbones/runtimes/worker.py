"""A process that works on strangers' networks for `vidface.backbones.runtimes.places`.

It may be killed at any moment, and bounds its own memory.
"""

from __future__ import annotations

import contextlib
import mmap
import os
import pickle
import sys
import threading
import time
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, NoReturn

from vidface.backbones.runtimes.base import on_progress
from vidface.core.children import DataLimit, end_with_parent, forbid_core_dumps
from vidface.core.errors import VidfaceError, first_line

_SILENT_SECONDS = 0.05  # between two words on progress, which cost more than a small batch


def main() -> NoReturn:
    """The process: its line, the shared block and its memory's bound in `sys.argv`."""
    try:
        end_with_parent()
        forbid_core_dumps()
        with contextlib.suppress(OSError):  # where memory runs out, Linux ends this process first
            Path("/proc/self/oom_score_adj").write_text("1000", encoding="ascii")
        line, block, memory_bytes = map(int, sys.argv[1:4])
        _serve(Connection(line), mmap.mmap(block, 0), memory_bytes)
    finally:
        os._exit(1)


def _serve(connection: Connection, block: mmap.mmap, memory_bytes: int) -> None:
    """Do what is asked for until nobody is there to ask (EOFError)."""
    held: dict[int, Any] = {}
    memory = DataLimit(memory_bytes)
    lock = threading.Lock()  # runtimes tell of their progress from threads of theirs
    told_at = 0.0

    def tell_progress() -> None:
        nonlocal told_at
        with lock:
            if time.monotonic() - told_at > _SILENT_SECONDS:
                connection.send(("progress", None))
                told_at = time.monotonic()

    tell_progress()  # we are up: the time of what is asked for begins
    on_progress.append(tell_progress)
    while True:
        spans, message = connection.recv(), connection.recv_bytes()
        try:
            views = [memoryview(block)[start:stop] for start, stop in spans]
            request = pickle.loads(message, buffers=views)
            if request is None:
                held.clear()
                memory = DataLimit(memory_bytes)
                continue
            answer = pickle.dumps(("result", _do(held, *request)), pickle.HIGHEST_PROTOCOL)
        except VidfaceError as error:
            answer = pickle.dumps(("error", str(error)))
        except MemoryError:
            memory.unbound()
            answer = pickle.dumps(("failure", "out of memory"))
        except Exception as error:  # of libraries, by what a stranger's file holds
            answer = pickle.dumps(("failure", first_line(error)))
        del message
        with lock:
            connection.send_bytes(answer)


def _do(
    held: dict[int, Any], forgotten: list[int], number: int | None, work: Any, arguments: Any
) -> Any:
    """What a function gives; a thing is made under a number, and run by it."""
    for each in forgotten:
        held.pop(each, None)
    if number is None:
        return work(*arguments)
    if work == "run":
        return held[number].run(*arguments)
    held[number] = thing = work(*arguments)
    return getattr(thing, "batch", 0), getattr(thing, "gives_norm", False)
