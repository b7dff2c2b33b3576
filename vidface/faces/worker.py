"""A decoding process: takes clips, finds their faces, until its supervisor is gone.

Started by `vidface.faces.pool` with three descriptors: its socket, its block of shared memory,
and a pickle of what all clips need. It may be killed at any moment.
"""

from __future__ import annotations

import contextlib
import mmap
import os
import pickle
import signal
import socket
import sys
import time
import traceback
from collections import deque
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

import numpy as np

from vidface.backbones.preprocessing import Preprocessing
from vidface.core.children import DataLimit, end_with_parent, forbid_core_dumps
from vidface.core.clips import Clip
from vidface.core.errors import VidfaceError
from vidface.core.redaction import redacted_text
from vidface.core.rules import ReadingRules
from vidface.core.states import KEPT_STATES
from vidface.faces.clip_faces import (
    ClipWork,
    Picture,
    Tools,
    clip_state,
    make_one_line,
    state_after_error,
    state_at_end,
)
from vidface.faces.detector import DroppedFaces, FaceDetector
from vidface.faces.events import ClipEnd, ClipLimits, Face, Seconds
from vidface.faces.settings import FaceSettings
from vidface.faces.shared import SLOTS, WAITING, WORKING, SharedBlock, WorkerChannel
from vidface.frames.settings import FrameSettings
from vidface.storage.contents import with_content
from vidface.storage.media import MediaRoot

SENT_AT_ONCE = 16  # faces of a message, at most …
SENT_AFTER_SECONDS = 0.2  # … and how long the first of them waits
_RETIRED_SHARE = 0.5  # of the clip memory: a worker that has kept so much is replaced


@dataclass(frozen=True)
class WorkerSetup:
    """What all clips need; sent to every worker once."""

    work: ClipWork
    root: MediaRoot
    frames: FrameSettings
    faces: FaceSettings
    limits: ClipLimits
    detector_model: Path | None
    rules: ReadingRules
    fed: Preprocessing


def main() -> NoReturn:
    """The process: descriptors in `sys.argv`. Ends it without Python's own clearing up."""
    code = 1
    try:
        code = _main(*(int(number) for number in sys.argv[1:4]))
    except (EOFError, ConnectionError):
        pass  # the supervisor is gone
    except BaseException:  # a decoder that calls sys.exit, an error of this module
        print(redacted_text(traceback.format_exc()), file=sys.stderr, end="")
    finally:
        os._exit(code)


def _main(socket_number: int, block_number: int, setup_number: int) -> int:
    _be_killed_with_the_supervisor()
    end_with_parent()
    forbid_core_dumps()
    channel = WorkerChannel(socket.socket(fileno=socket_number))
    try:
        setup = _read_setup(setup_number)
        block = SharedBlock(block_number, setup.fed.shape)
        tools = _make_tools(setup, block)
    except Exception as error:
        text = str(error) if isinstance(error, VidfaceError) else f"{type(error).__name__}: {error}"
        channel.send(("fatal", f"a decoding process can't start: {make_one_line(text)}"))
        return 1
    return _Worker(setup, tools, block, channel).run()


def _be_killed_with_the_supervisor() -> None:
    """Linux kills it when the supervising thread ends, even while no thread of its own runs."""
    if sys.platform == "linux":
        import ctypes

        pr_set_pdeathsig = 1
        with contextlib.suppress(OSError, AttributeError):
            ctypes.CDLL(None).prctl(pr_set_pdeathsig, signal.SIGKILL)


def _read_setup(descriptor: int) -> WorkerSetup:
    with mmap.mmap(descriptor, 0, access=mmap.ACCESS_READ) as content:
        return pickle.loads(content)


def _make_tools(setup: WorkerSetup, block: SharedBlock) -> Tools:
    detector = None
    if setup.faces.source == "detect":
        import cv2

        cv2.setNumThreads(1)  # the workers are the parallelism
        detector = FaceDetector(
            min_score=setup.faces.min_det_score,
            min_face_pixels=setup.faces.min_face_pixels,
            which=setup.faces.which,
            long_side=setup.faces.detector_long_side,
            model=setup.detector_model,
        )
        side = setup.faces.detector_long_side
        detector.detect(np.zeros((side, side, 3), np.uint8))  # what it allocates once is no clip's
    return Tools(
        setup.root, setup.frames, setup.faces, detector, block.beat, setup.rules, setup.fed
    )


class _Worker:
    def __init__(
        self, setup: WorkerSetup, tools: Tools, block: SharedBlock, channel: WorkerChannel
    ) -> None:
        self._work = setup.work
        self._tools = tools
        self._block = block
        self._channel = channel
        self._memory = DataLimit(setup.limits.clip_memory_bytes)
        self._clips: deque[tuple[int, Clip]] = deque()
        self._free = list(range(SLOTS))
        self._unsent: list[tuple[int, Face]] = []  # slots and faces, to be sent together
        self._sent_at = 0.0

    def run(self) -> int:
        """ClipWork until the supervisor is gone (EOFError), or until another should take over."""
        self._channel.send(("ready",))
        while True:
            self._block.activity = WAITING
            while not self._clips:
                self._receive()
            fit = self._do(*self._clips.popleft())
            if not fit or self._memory.kept_share > _RETIRED_SHARE:
                self._channel.send(("retire",))
                return 0

    def _receive(self) -> None:
        kind, *content = self._channel.receive()
        if kind == "clip":
            self._clips.append((content[0], content[1]))
        else:
            self._free.extend(content[0])

    def _do(self, number: int, clip: Clip) -> bool:
        """One clip, its end sent; False: this process is no longer fit for another."""
        self._block.clip_bytes = 0
        self._block.clip_number = number
        self._block.beat()
        self._block.activity = WORKING
        fit = True
        try:
            end = self._end_of(number, clip)
        except MemoryError:
            self._memory.unbound()
            end, fit = ("out_of_memory", number, self._block.clip_bytes), False
        except VidfaceError as error:
            end, fit = ("fatal", make_one_line(error)), False
        self._channel.send(end)
        self._block.clip_number = None
        return fit

    def _end_of(self, number: int, clip: Clip) -> tuple[Any, ...]:
        """The clip's faces sent, its end returned."""
        tools = self._tools
        tools.seconds, tools.notes = Seconds(), []
        self._unsent.clear()
        self._sent_at = time.monotonic()
        file = clip_state(clip, tools.root, tools.rules)
        self._block.clip_bytes = file.bytes
        frames = without = faces = 0
        dropped = DroppedFaces()
        state = ""
        try:
            for picture in self._work(clip, tools):
                frames += 1
                without += not picture.faces
                faces += len(picture.faces)
                dropped += picture.dropped
                self._add(number, picture)
        except Exception as error:  # a stranger's file never stops a run
            state, message = state_after_error(
                error, clip, frames if tools.frames.keep_damaged else 0
            )
        if not state:
            state, message = state_at_end(clip, frames, faces, dropped, tools.faces)
        message = make_one_line("; ".join(filter(None, [message, *tools.notes])))
        if state not in KEPT_STATES:
            frames = without = 0  # of a damaged clip nothing is trusted
        self._send_faces(number)
        file = with_content(file, clip.path, tools.root, tools.rules, tools.on_frame)
        return ("end", ClipEnd(number, state, message, frames, without, file, tools.seconds))

    def _add(self, number: int, picture: Picture) -> None:
        """Put a picture's crops into free slots, and its faces to those that wait to be sent."""
        for face, crop in zip(picture.faces, picture.crops, strict=True):
            if not self._free:
                self._send_faces(number)
                self._wait_for_slots()
            slot = self._free.pop()
            self._block.crops[slot] = crop
            self._unsent.append((slot, face))
        old = time.monotonic() - self._sent_at > SENT_AFTER_SECONDS
        if len(self._unsent) >= SENT_AT_ONCE or old:
            self._send_faces(number)

    def _send_faces(self, number: int) -> None:
        if self._unsent:
            slots, faces = zip(*self._unsent, strict=True)
            self._channel.send(("faces", number, list(slots), faces))
        self._unsent.clear()
        self._sent_at = time.monotonic()

    def _wait_for_slots(self) -> None:
        begun = time.perf_counter()
        self._block.activity = WAITING
        while not self._free:
            self._receive()
        self._block.activity = WORKING
        self._tools.seconds.waiting += time.perf_counter() - begun
