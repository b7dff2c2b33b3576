"""What waits between the supervisor of decoding processes, its caller's clips and their reader."""

from __future__ import annotations

import contextlib
import socket
import threading
from collections import deque
from collections.abc import Iterator
from queue import SimpleQueue

from vidface.core.clips import Clip
from vidface.faces.events import Event, FoundFaces

QUEUED_FACES = 512  # that wait for the reader before the workers do; 19 MB


class EventQueue:
    """The queue to the reader. `wake` is a socket to write to when there is room again."""

    def __init__(self, wake: socket.socket) -> None:
        self._wake = wake
        self._events: SimpleQueue[Event | BaseException | None] = SimpleQueue()
        self._changing = threading.Lock()
        self._weight = 0

    @property
    def is_full(self) -> bool:
        return self._weight >= QUEUED_FACES

    def put(self, event: Event | BaseException | None) -> None:
        """Add an event, or what the reader gets after all events: an error, or None, the end."""
        with self._changing:
            self._weight += _weight(event)
        self._events.put(event)

    def take(self) -> Event | None:
        """The next event, once there is one; None at the end."""
        event = self._events.get()
        if isinstance(event, BaseException):
            raise event
        with self._changing:
            was_full = self.is_full
            self._weight -= _weight(event)
            has_room = was_full and not self.is_full
        if has_room:
            with contextlib.suppress(OSError):
                self._wake.send(b"!")
        return event


def _weight(event: object) -> int:
    return len(event.faces) if isinstance(event, FoundFaces) else 1


class ClipQueue:
    """The clips that are to be given out, taken from the caller one by one."""

    def __init__(self, clips: Iterator[Clip], ahead: int) -> None:
        self._clips = enumerate(clips)
        self._ahead = ahead
        self._next = 0  # number of the next clip to be taken
        self._exhausted = False
        self._waiting: deque[tuple[int, Clip]] = deque()  # in order
        self.open: dict[int, None] = {}  # taken and not ended, in order

    def __len__(self) -> int:
        return len(self._waiting)

    def fill(self, count: int) -> None:
        """Have `count` clips waiting, if there are as many."""
        while len(self._waiting) < count and not self._exhausted:
            if self._next >= next(iter(self.open), self._next) + self._ahead:
                return
            numbered_clip = next(self._clips, None)
            if numbered_clip is None:
                self._exhausted = True
            else:
                self._waiting.append(numbered_clip)
                self._next = numbered_clip[0] + 1
                self.open[numbered_clip[0]] = None

    def pop(self) -> tuple[int, Clip]:
        return self._waiting.popleft()

    def put_back(self, clips: dict[int, Clip]) -> None:
        both = [*self._waiting, *clips.items()]
        self._waiting = deque(sorted(both, key=lambda item: item[0]))

    def end(self, number: int) -> None:
        del self.open[number]

    @property
    def all_ended(self) -> bool:
        return self._exhausted and not self.open
