"""Child processes that nobody outlives: they leave Ctrl-C to us, and end when we do."""

from __future__ import annotations

import contextlib
import mmap
import os
import resource  # of Unix, as such processes are
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

_KILL_SECONDS = 5.0  # a killed process is gone by then, or hangs in the kernel
_IGNORE_INTERRUPTS = "import signal; signal.signal(signal.SIGINT, signal.SIG_IGN); "


def start_python(
    code: str,
    arguments: Iterable[int],
    descriptors: tuple[int, ...],
    environment: Mapping[str, str],
    **more: Any,
) -> subprocess.Popen[bytes]:
    """Start a Python that runs `code` and finds the modules that we find; it keeps `descriptors`.

    Not multiprocessing: it runs the caller's own script once more in every process, which a script
    without `if __name__ == "__main__"` does not survive, and starts none from a daemon (dask).

    Raises:
        OSError, ValueError: the system starts none.
    """
    if sys.platform == "win32":
        raise OSError("processes of vidface's own need Linux or macOS")
    places = (os.path.abspath(place) for place in sys.path)  # noqa: PTH100
    return subprocess.Popen(
        [sys.executable, "-P", "-c", _IGNORE_INTERRUPTS + code, *map(str, arguments)],
        stdin=subprocess.PIPE,  # its end tells the child that we are gone
        stdout=subprocess.DEVNULL,
        pass_fds=descriptors,
        env={**os.environ, **environment, "PYTHONPATH": os.pathsep.join(dict.fromkeys(places))},
        **more,
    )


def end_child(process: subprocess.Popen[bytes], grace_seconds: float = 0.0) -> str:
    """Kill a process of ours, whatever it is at; how it ended, by itself or so.

    Args:
        grace_seconds: for one that is about to end by itself: how is worth knowing.
    """
    with contextlib.suppress(subprocess.TimeoutExpired):
        process.wait(grace_seconds)
    with contextlib.suppress(OSError):
        process.kill()
    with contextlib.suppress(subprocess.TimeoutExpired):
        process.wait(_KILL_SECONDS)
    if process.stdin is not None:
        with contextlib.suppress(OSError):
            process.stdin.close()
    return "no longer answers" if process.returncode is None else name_end(process.returncode)


def name_end(code: int) -> str:
    """How a process ended, by its return code.

    >>> name_end(3), name_end(-9)
    ('ended with exit code 3', 'was killed by SIGKILL')
    """
    if code >= 0:
        return f"ended with exit code {code}"
    try:
        return f"was killed by {signal.Signals(-code).name}"
    except ValueError:
        return f"was killed by signal {-code}"


@contextlib.contextmanager
def open_nameless_file(content: bytes = b"", size: int = 0) -> Iterator[int]:
    """A descriptor of a file without a name, in memory where the system can, closed at the end.

    Args:
        size: bytes; 0 = as large as its content.
    """
    if hasattr(os, "memfd_create"):
        descriptor = os.memfd_create("vidface")
    else:
        with tempfile.TemporaryFile() as file:
            descriptor = os.dup(file.fileno())
    try:
        rest = memoryview(content)
        while rest:
            rest = rest[os.write(descriptor, rest) :]
        if size:
            os.ftruncate(descriptor, size)
        yield descriptor
    finally:
        os.close(descriptor)


def end_with_parent() -> None:
    """Let this process end with the one that started it, be it by SIGKILL, whatever it is at.

    Standard input ends then. Linux says so by a signal, whose default is the end: a library that
    holds Python's lock for ever doesn't hold that up.
    """
    if sys.platform == "linux":
        import fcntl

        signal.signal(signal.SIGIO, signal.SIG_DFL)
        fcntl.fcntl(0, fcntl.F_SETOWN, os.getpid())
        fcntl.fcntl(0, fcntl.F_SETFL, fcntl.fcntl(0, fcntl.F_GETFL) | os.O_ASYNC)
    threading.Thread(target=_end_with_standard_input, daemon=True).start()


def _end_with_standard_input() -> None:
    with contextlib.suppress(OSError):
        while os.read(0, 1):
            pass
    os._exit(1)


def forbid_core_dumps() -> None:
    """Let a crash write no file."""
    with contextlib.suppress(OSError, ValueError):
        resource.setrlimit(resource.RLIMIT_CORE, (0, resource.getrlimit(resource.RLIMIT_CORE)[1]))


class DataLimit:
    """A bound, kept by the system where it can (Linux), on what data this process adds from now."""

    def __init__(self, limit_bytes: int) -> None:
        self._limit_bytes = limit_bytes
        self._start_bytes = _data_bytes()
        if self._start_bytes is not None:
            self._bound(self._start_bytes + limit_bytes)

    @property
    def kept_share(self) -> float:
        """What was not given back since the start, as a share of the limit."""
        now = _data_bytes()
        if now is None or self._start_bytes is None:
            return 0.0
        return (now - self._start_bytes) / self._limit_bytes

    def unbound(self) -> None:
        """Room to say that there is none."""
        if self._start_bytes is not None:
            self._bound(None)

    @staticmethod
    def _bound(size_bytes: int | None) -> None:
        with contextlib.suppress(OSError, ValueError):
            hard = resource.getrlimit(resource.RLIMIT_DATA)[1]
            soft = hard if size_bytes is None else size_bytes
            if hard != resource.RLIM_INFINITY:
                soft = min(soft, hard)
            resource.setrlimit(resource.RLIMIT_DATA, (soft, hard))


def _data_bytes() -> int | None:
    """Private writable memory, as RLIMIT_DATA counts it; None where the system doesn't tell."""
    try:
        pages = int(Path("/proc/self/statm").read_bytes().split()[5])
        return pages * mmap.PAGESIZE
    except (OSError, ValueError, IndexError):
        return None
