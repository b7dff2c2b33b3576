"""One decoding process as its supervisor sees it: started, watched, killed."""

from __future__ import annotations

import contextlib
import signal
import socket
import subprocess

import psutil

from vidface.core.children import end_child, name_end, open_nameless_file, start_python
from vidface.core.clips import Clip
from vidface.core.errors import VidfaceError
from vidface.faces.events import ClipLimits
from vidface.faces.shared import (
    STARTING,
    WORKING,
    SharedBlock,
    SupervisorChannel,
    block_bytes,
)

START_SECONDS = 60.0  # a worker that isn't ready by then never will be
_EXIT_SECONDS = 1.0  # from a worker's closed socket to its end
_NEAR_LIMIT = 0.8  # of the clip memory: a worker that dies there died of it

_CODE = "from vidface.faces.worker import main; main()"
_ONE_THREAD = dict.fromkeys(
    ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "VECLIB_MAXIMUM_THREADS"), "1"
)


class DecodingProcess:
    """A worker, and what is known of it.

    Attributes:
        assigned: the clips it has been given and has not ended, by number.
        ready: it takes clips; set by `note_ready`.
        retired: it has said that another should take over.

    Raises:
        VidfaceError: the system starts no process, or is out of files.
    """

    def __init__(
        self, setup_descriptor: int, limits: ClipLimits, crop_shape: tuple[int, int, int]
    ) -> None:
        self.assigned: dict[int, Clip] = {}
        self.ready = self.retired = self._ended_itself = False
        self._verdict: tuple[int | None, str, str] | None = None  # clip, state, message
        self._limits = limits
        self._beats = 0
        self._idle_seconds = self._clip_seconds = 0.0
        self._timed: int | None = None  # the clip that _clip_seconds is of
        self._memory_start = self._memory_grown = 0  # bytes
        try:
            self._start(setup_descriptor, crop_shape)
        except (OSError, ValueError) as error:
            raise VidfaceError(f"a decoding process can't be started: {error}") from None

    def _start(self, setup_descriptor: int, crop_shape: tuple[int, int, int]) -> None:
        ours, theirs = socket.socketpair()
        with theirs, contextlib.ExitStack() as undo:
            undo.callback(ours.close)
            with open_nameless_file(size=block_bytes(crop_shape)) as block_descriptor:
                self.block = SharedBlock(block_descriptor, crop_shape)
                descriptors = (theirs.fileno(), block_descriptor, setup_descriptor)
                self.process = start_python(_CODE, descriptors, descriptors, _ONE_THREAD)
            undo.pop_all()
        self.channel = SupervisorChannel(ours)

    def __str__(self) -> str:
        return f"DecodingProcess({self.process.pid}: {len(self.assigned)} clips)"

    def give(self, number: int, clip: Clip) -> None:
        self.assigned[number] = clip
        self.channel.send(("clip", number, clip))

    def return_slots(self, slots: list[int]) -> None:
        self.channel.send(("slots", slots))

    def wait(self) -> None:
        """Let it end by itself: it has closed its socket, and how it ends is worth knowing."""
        with contextlib.suppress(subprocess.TimeoutExpired):
            self.process.wait(_EXIT_SECONDS)

    def kill(self) -> None:
        """End it, whatever it is at."""
        self._ended_itself = self._ended_itself or self.process.poll() is not None
        end_child(self.process)

    def close(self) -> None:
        """Kill it, and let go of all that belongs to it."""
        self.kill()
        self.channel.socket.close()
        self.block.close()

    def record_verdict(self, state: str, message: str) -> None:
        """Say what the clip that it is at will have come to, before it is killed for it."""
        if self._verdict is None:
            self._verdict = self.block.clip_number, state, message

    def lost_clip(self) -> int | None:
        """The clip that is lost with it; `kill` comes first."""
        number = self.block.clip_number
        if self._verdict is not None and self._verdict[0] != number:
            return None  # it has gone on to the next, which did nothing
        return number if number in self.assigned else None

    def why_ended(self) -> tuple[str, str]:
        """(state, message) of the clip that it was at when it ended; `kill` comes first."""
        if self._verdict is not None:
            return self._verdict[1:]
        if self._memory_grown > _NEAR_LIMIT * self._limits.clip_memory_bytes:
            return "crashed", self.out_of_memory()
        code = self.process.returncode
        if code is None or not self._ended_itself:
            return "crashed", "its decoding process no longer answers"
        hint = ""
        if -code == signal.SIGKILL:
            hint = ", by somebody, or by the system because memory ran out"
        return "crashed", f"its decoding process {name_end(code)}{hint}"

    def out_of_memory(self) -> str:
        size = f"{self._limits.clip_memory_bytes / 2**30:.2g} GiB"
        return (
            f"needs, or claims to need, more than --clip-memory ({size}); raise it if the clip "
            "is worth it"
        )

    def watch(self, seconds: float) -> tuple[str, str] | None:
        """(state, message) if it has been at its clip for too long; `seconds` since the last look.

        Raises:
            VidfaceError: it doesn't even start.
        """
        activity, beats, number = self.block.activity, self.block.beats, self.block.clip_number
        if activity not in (STARTING, WORKING) or beats != self._beats:
            self._beats, self._idle_seconds = beats, 0.0
        else:
            self._idle_seconds += seconds
        if activity == STARTING:
            if self._idle_seconds > max(START_SECONDS, self._limits.stall_seconds):
                raise VidfaceError(
                    f"a decoding process isn't ready after {self._idle_seconds:.0f} s: the machine "
                    "is overloaded, or a file that it reads is on a disk that doesn't answer"
                )
            return None
        if number != self._timed:
            self._timed, self._clip_seconds = number, 0.0
        elif activity == WORKING:
            self._clip_seconds += seconds
        return None if number is None else self._too_slow()

    def _too_slow(self) -> tuple[str, str] | None:
        stall, total = self._limits.stall_seconds, self._limits.clip_seconds
        if self._idle_seconds > stall:
            return "timeout", (
                f"no new frame for {stall:g} s; give it more with --stall-timeout, or leave the "
                "clip out"
            )
        if total is not None and self._clip_seconds > total:
            return "timeout", (
                f"not done after {total:g} s; give it more with --clip-timeout, or leave the "
                "clip out"
            )
        return None

    def watch_memory(self) -> tuple[str, str] | None:
        """(state, message) if it has taken too much memory; None also where nobody can tell."""
        if not self.ready:
            return None
        self._memory_grown = self._resident_bytes() - self._memory_start
        if self._memory_grown > self._limits.clip_memory_bytes:
            return "crashed", self.out_of_memory()
        return None

    def note_ready(self) -> None:
        """It waits for its first clip: what it takes now is no clip's."""
        self.ready = True
        self._memory_start = self._resident_bytes()

    def _resident_bytes(self) -> int:
        try:
            return psutil.Process(self.process.pid).memory_info().rss
        except (psutil.Error, OSError):
            return 0
