"""What tests make decoding processes do with a clip; its path says what: `KIND-NUMBER-…`."""

from __future__ import annotations

import ctypes
import errno
import mmap
import os
import signal
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np

from vidface.core.clips import Clip
from vidface.core.errors import ClipError, VidfaceError
from vidface.faces.clip_faces import Picture, Tools, find_faces
from vidface.faces.events import Face

KEPT: list[bytearray] = []


def picture(index: int, shade: int, file: str | None = None) -> Picture:
    """A picture with one face of one shade."""
    crop = np.full((112, 112, 3), shade % 251, np.uint8)
    return Picture((Face(index, None, None, file, 0, None, None, None),), (crop,))


def shade_of(path: str, index: int) -> int:
    """By which a test knows the crop again."""
    return (sum(path.encode()) * 7 + index) % 251


def faulty(clip: Clip, tools: Tools) -> Iterator[Picture]:
    """Two good faces, then the fault that the path names."""
    kind, number = clip.path.split("-")[:2]
    good = int(number) if kind == "good" else 2
    for index in range(good):
        tools.on_frame()
        yield picture(index, shade_of(clip.path, index))
    if kind != "good":
        yield from FAULTS[kind](clip, tools) or ()


def _segfault(clip: Clip, tools: Tools) -> None:
    ctypes.string_at(0)


def _exit(clip: Clip, tools: Tools) -> None:
    os._exit(3)


def _killed(clip: Clip, tools: Tools) -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def _hang(clip: Clip, tools: Tools) -> None:
    time.sleep(1000)


def _hang_in_c(clip: Clip, tools: Tools) -> None:
    ctypes.PyDLL(None).sleep(1000)  # Python's lock held: no thread of the process runs


def _greedy(clip: Clip, tools: Tools) -> None:
    KEPT.append(bytearray(10 * 2**30))


def _greedy_slowly(clip: Clip, tools: Tools) -> None:
    """Memory that the system's limit doesn't count."""
    shared = mmap.mmap(-1, 2**30)
    for start in range(0, 2**30, 2**20):
        shared[start : start + 2**20] = b"x" * 2**20
        tools.on_frame()
        time.sleep(0.002)


def _memory_in_libav(clip: Clip, tools: Tools) -> None:
    raise ClipError("damaged ([Errno 12] Cannot allocate memory)", "corrupt")


def _raise(clip: Clip, tools: Tools) -> None:
    raise ZeroDivisionError("by\nzero")


def _truncated(clip: Clip, tools: Tools) -> None:
    raise ClipError("ends too early", "truncated")


def _system_exit(clip: Clip, tools: Tools) -> None:
    raise SystemExit(4)


def _nonsense(clip: Clip, tools: Tools) -> None:
    os.write(int(sys.argv[1]), b"\xff" * 100)
    time.sleep(1000)


def _wrong_kind(clip: Clip, tools: Tools) -> None:
    os.write(int(sys.argv[1]), b"\x05\0\0\0\x80\x04K\x01.")  # a pickle of 1
    time.sleep(1000)


def _out_of_files(clip: Clip, tools: Tools) -> None:
    raise OSError(errno.EMFILE, "too many open files")


def _fatal(clip: Clip, tools: Tools) -> None:
    raise VidfaceError("decoder 'x' is not installed")


def _breathing(clip: Clip, tools: Tools) -> None:
    """Signs of life for 1 s, without a picture."""
    for _ in range(10):
        time.sleep(0.1)
        tools.on_frame()


def _endless(clip: Clip, tools: Tools) -> None:
    while True:
        time.sleep(0.01)
        tools.on_frame()


def _slow(clip: Clip, tools: Tools) -> None:
    time.sleep(0.4)


def _tell_limit(clip: Clip, tools: Tools) -> None:
    import resource

    raise ClipError(str(resource.getrlimit(resource.RLIMIT_DATA)[0]), "corrupt")


def _leaky(clip: Clip, tools: Tools) -> Iterator[Picture]:
    KEPT.append(bytearray(b"x") * (40 * 2**20))
    yield picture(2, 0, file=str(os.getpid()))


def _until_told(clip: Clip, tools: Tools) -> None:
    while not (Path(tools.root.location) / "go").exists():
        time.sleep(0.01)
        tools.on_frame()


def _many(clip: Clip, tools: Tools) -> Iterator[Picture]:
    """Faces without end; the file `count` has a byte for each."""
    with (Path(tools.root.location) / "count").open("ab", buffering=0) as count:
        for index in range(2, 10**9):
            count.write(b".")
            yield picture(index, index)


FAULTS: dict[str, Callable[[Clip, Tools], Iterator[Picture] | None]] = {
    name[1:]: value
    for name, value in list(globals().items())
    if name.startswith("_") and not name.startswith("__")
}


def tell_modules(clip: Clip, tools: Tools) -> Iterator[Picture]:
    """Find the faces, then name the modules that a worker should do without."""
    yield from find_faces(clip, tools)
    heavy = {"torch", "pyarrow", "scipy", "pandas", "onnxruntime", "sklearn", "matplotlib"}
    loaded = sorted(heavy & set(sys.modules))
    import cv2

    raise ClipError(f"heavy {loaded}, OpenCV threads {cv2.getNumThreads()}", "corrupt")
