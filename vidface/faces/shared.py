"""What a decoding process and its supervisor share: one block of memory, one socket.

The block holds crops and a few numbers by which the supervisor sees, at no cost to either, what the
worker is at. It has no name in the file system: the kernel frees it with the last process that maps
it, however that one ends. The socket carries small pickled messages, each after its length; the
supervisor's end never blocks, so that a worker that dies or hangs within a message harms nobody.
"""

from __future__ import annotations

import mmap
import pickle
import socket
import struct
from collections.abc import Iterator
from typing import Any

import numpy as np

SLOTS = 64  # crops a worker can have on their way; 2.4 MB at 112x112
MAX_MESSAGE_BYTES = 1 << 24

_HEADER_BYTES = 4096
_READ_BYTES = 1 << 16
_LENGTH = struct.Struct("<I")

# What a worker is at.
STARTING, WAITING, WORKING = range(3)


class _Number:
    """An int64 of a block's header as an attribute of the block."""

    def __init__(self, place: int) -> None:
        self._place = place

    def __get__(self, block: SharedBlock, kind: type) -> int:
        return int(block.header[self._place])

    def __set__(self, block: SharedBlock, value: int) -> None:
        block.header[self._place] = min(value, 2**63 - 1)


class SharedBlock:
    """The shared memory of one worker. Its numbers are written by the worker alone.

    Attributes:
        crops: (SLOTS, *crop_shape) uint8; who may write a slot is agreed by messages.
        activity: STARTING, WAITING (for a clip, or for the reader) or WORKING.
        beats: signs of life so far: frames decoded, images read.
        clip_bytes: of the clip that is worked on, once it is known.
    """

    activity = _Number(0)
    beats = _Number(1)
    clip_bytes = _Number(2)
    _clip_place = _Number(3)  # 0: none

    def __init__(self, descriptor: int, crop_shape: tuple[int, int, int]) -> None:
        self._memory = mmap.mmap(descriptor, block_bytes(crop_shape))
        self.header = np.frombuffer(self._memory, np.int64, 4)
        flat = np.frombuffer(self._memory, np.uint8, offset=_HEADER_BYTES)
        self.crops = flat.reshape(SLOTS, *crop_shape)

    def close(self) -> None:
        """Let go of it (a mapping keeps a descriptor open); nothing of it can be used any more."""
        del self.header, self.crops
        self._memory.close()

    def beat(self) -> None:
        self.beats += 1

    @property
    def clip_number(self) -> int | None:
        """The clip that is worked on."""
        place = self._clip_place  # read once: the worker may go on meanwhile
        return place - 1 if place else None

    @clip_number.setter
    def clip_number(self, number: int | None) -> None:
        self._clip_place = 0 if number is None else number + 1


def block_bytes(crop_shape: tuple[int, int, int]) -> int:
    return _HEADER_BYTES + SLOTS * int(np.prod(crop_shape))


def pack_message(message: Any) -> bytes:
    """A message as it travels."""
    body = pickle.dumps(message, protocol=pickle.HIGHEST_PROTOCOL)
    return _LENGTH.pack(len(body)) + body


class WorkerChannel:
    """The worker's end: blocks until sent, blocks until something has come."""

    def __init__(self, connection: socket.socket) -> None:
        self._socket = connection
        self._incoming = connection.makefile("rb")

    def send(self, message: Any) -> None:
        self._socket.sendall(pack_message(message))

    def receive(self) -> Any:
        """The next message.

        Raises:
            EOFError: the supervisor is gone.
        """
        (length,) = _LENGTH.unpack(self._read(_LENGTH.size))
        return pickle.loads(self._read(length))

    def _read(self, n_bytes: int) -> bytes:
        data = self._incoming.read(n_bytes)
        if len(data) < n_bytes:
            raise EOFError
        return data


class SupervisorChannel:
    """The supervisor's end: never blocks."""

    def __init__(self, connection: socket.socket) -> None:
        connection.setblocking(False)
        self.socket = connection
        self._received = bytearray()
        self._unsent = bytearray()

    @property
    def has_unsent(self) -> bool:
        return bool(self._unsent)

    def send(self, message: Any) -> None:
        """Send what can be sent now; `flush` sends the rest."""
        self._unsent += pack_message(message)
        self.flush()

    def flush(self) -> None:
        try:
            while self._unsent:
                del self._unsent[: self.socket.send(self._unsent)]
        except BlockingIOError:
            pass
        except OSError:  # the worker is gone; reading tells
            self._unsent.clear()

    def messages(self) -> Iterator[Any]:
        """All messages that have come.

        Raises:
            EOFError: after them, if the worker is gone.
            ValueError: what came is damaged, or states a length that no message has.
        """
        open_still = True
        while open_still:
            try:
                data = self.socket.recv(_READ_BYTES)
                open_still = bool(data)
            except BlockingIOError:
                return
            except OSError:
                open_still, data = False, b""
            self._received += data
            while (message := self._pop()) is not None:
                yield message
        raise EOFError

    def _pop(self) -> Any:
        """The next whole message, or None."""
        if len(self._received) < _LENGTH.size:
            return None
        (length,) = _LENGTH.unpack_from(self._received)
        if length > MAX_MESSAGE_BYTES:
            raise ValueError(f"a message of {length} bytes")
        end = _LENGTH.size + length
        if len(self._received) < end:
            return None
        body = bytes(self._received[_LENGTH.size : end])
        del self._received[:end]
        try:
            return pickle.loads(body)
        except Exception as error:  # damaged bytes make it stumble on anything
            raise ValueError(f"{type(error).__name__} in a message") from None
