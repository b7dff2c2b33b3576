"""Tars, read in place: members listed without unpacking, bytes read by many threads and workers."""

from __future__ import annotations

import os
import posixpath
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from vidface.core.errors import VidfaceError
from vidface.core.files import named_errors
from vidface.training.sources.base import Pictures

MAX_OPEN_FILES = 256  # a worker may have 1024 in all


class FileReader:
    """Bytes out of a fixed list of files by pread; the files stay open (at most 256 of them).

    For threads and forked workers: nobody shares a position. A pickle holds the paths alone.
    """

    def __init__(self, paths: tuple[Path, ...]) -> None:
        self.paths = paths
        self._open: dict[int, _Handle] = {}

    def __getstate__(self) -> dict[str, Any]:
        return {"paths": self.paths, "_open": {}}

    def read(self, number: int, offset: int, size: int) -> bytes:
        """`size` bytes of file `number`; OSError if it cannot be read or ends before."""
        handle = self._open.get(number)
        if handle is None:
            if len(self._open) >= MAX_OPEN_FILES:
                self._open = {}  # a thread in the middle of a read keeps its handle
            handle = self._open[number] = _Handle(self.paths[number])
        data = os.pread(handle.descriptor, size, offset)
        if len(data) != size:
            raise OSError(f"cut off since it was opened: {len(data)} of {size} bytes")
        return data


class _Handle:
    """A file descriptor that is closed with its last user."""

    def __init__(self, path: Path) -> None:
        self.descriptor = os.open(path, os.O_RDONLY)

    def __del__(self) -> None:
        if hasattr(self, "descriptor"):
            os.close(self.descriptor)


@dataclass(frozen=True, eq=False)
class TarPictures(Pictures):
    """n picture files inside tars."""

    reader: FileReader
    files: NDArray[np.int32]  # (n,) which of the reader's files
    offsets: NDArray[np.int64]  # (n,) bytes
    sizes: NDArray[np.int64]  # (n,) bytes

    @classmethod
    def of(
        cls, names: Sequence[str], tars: tuple[Path, ...], places: Sequence[tuple[int, int, int]]
    ) -> TarPictures:
        """Pictures by their `places`: (which of `tars`, offset and size in bytes)."""
        files, offsets, sizes = np.array(places, dtype=np.int64).reshape(-1, 3).T
        return cls(names, FileReader(tars), files.astype(np.int32), offsets.copy(), sizes.copy())

    def read(self, index: int) -> bytes:
        place = int(self.offsets[index]), int(self.sizes[index])
        return self.reader.read(int(self.files[index]), *place)


class TarMember(NamedTuple):
    """A member of a tar; "other" is a link, a device, or one whose name leads out of the tar."""

    kind: Literal["file", "folder", "other"]
    name: str  # normalised, without a slash at either end
    offset: int  # of its data, bytes
    size: int


_BLOCK = 512
_MAX_NAME_BYTES = 2**16
_MAX_PAX_BYTES = 2**20
_FILES, _NO_DATA, _ABOUT_THE_NEXT = b"0\x007", b"123456", b"LKxg"  # kinds of header


def read_tar_members(path: Path) -> Iterator[TarMember]:
    """The members of an uncompressed tar (ustar, GNU, pax), in order; nothing is unpacked.

    Written for tars of strangers and of millions of members: every step leads forward, nothing is
    read but headers, and those in small pieces (`tarfile` keeps an object for each member, and
    some of its versions can be led in a circle).

    Raises:
        VidfaceError: no such file; no tar, or a compressed one; cut off; a member stored sparse.
    """
    try:
        with named_errors(path), path.open("rb", buffering=0) as file:
            yield from _read_members(file.fileno(), os.fstat(file.fileno()).st_size)
    except ValueError as error:
        raise VidfaceError(
            f"{path}: not a whole uncompressed tar: {error}. Fetch or pack it again, decompress it "
            "first (gunzip, unxz)"
        ) from None


def _read_members(file: int, end: int) -> Iterator[TarMember]:
    at = 0
    next_name, next_size = "", -1  # what headers before a member's own say of it
    while True:
        block = os.pread(file, _BLOCK, at)
        if len(block) < _BLOCK:
            raise ValueError(f"cut off at byte {end:,}, the mark of a tar's end is missing")
        if not block.strip(b"\0"):
            return
        stored, size = _parse_header(block, at)
        kind = block[156:157]
        name = next_name or stored
        if kind in _NO_DATA:
            size = 0
        elif next_size >= 0 and kind not in _ABOUT_THE_NEXT:
            size = next_size
        at += _BLOCK
        if at + size > end:
            raise ValueError(f"cut off: {name[:200]!r} has {end - at:,} of {size:,} bytes")
        if kind == b"L":
            next_name = _decode(_read_small(file, at, size, _MAX_NAME_BYTES))
        elif kind == b"x":
            records = _parse_pax(_read_small(file, at, size, _MAX_PAX_BYTES))
            next_name = _decode(records.get(b"path", b"")) or next_name
            next_size = _parse_whole(records[b"size"]) if b"size" in records else next_size
        elif kind not in _ABOUT_THE_NEXT:
            yield _make_member(kind, name, at, size)
            next_name, next_size = "", -1
        at += -(-size // _BLOCK) * _BLOCK


def _parse_header(block: bytes, at: int) -> tuple[str, int]:
    """(name, size) of a member; ValueError unless the block is a tar's header."""
    total = sum(block) - sum(block[148:156]) + 8 * ord(" ")
    if _parse_octal(block[148:156], at) != total:
        raise ValueError(f"no header at byte {at:,} (its checksum is wrong)")
    name = _decode(block[:100])
    prefix = _decode(block[345:500]) if block[257:263] == b"ustar\0" else ""
    return (f"{prefix}/{name}" if prefix else name), _parse_octal(block[124:136], at)


def _parse_octal(field: bytes, at: int) -> int:
    if field[0] == 0x80:  # GNU's way with large numbers
        return int.from_bytes(field[1:], "big")
    digits = field.partition(b"\0")[0].strip(b" ")
    if not re.fullmatch(rb"[0-7]*", digits):
        raise ValueError(f"no header at byte {at:,} ({field!r} is not a number)")
    return int(digits or b"0", 8)


def _read_small(file: int, at: int, size: int, largest: int) -> bytes:
    if size > largest:
        raise ValueError(f"a header of {size:,} bytes at byte {at:,}")
    return os.pread(file, size, at)


def _decode(field: bytes) -> str:
    return field.partition(b"\0")[0].decode("utf-8", "surrogateescape")


def _parse_pax(data: bytes) -> dict[bytes, bytes]:
    """The records `length key=value` of a pax header; ValueError if they are none."""
    records: dict[bytes, bytes] = {}
    at = 0
    while at < len(data):
        digits = data[at : at + 10].partition(b" ")[0]
        length = _parse_whole(digits)
        record = data[at + len(digits) + 1 : at + length]
        key, sign, value = record.partition(b"=")
        if at + length > len(data) or not sign or not value.endswith(b"\n"):
            raise ValueError("a pax header that is damaged")
        if key.startswith(b"GNU.sparse."):
            raise ValueError("a member is stored sparse; pack it without --sparse")
        records[key] = value[:-1]
        at += length
    return records


def _parse_whole(digits: bytes) -> int:
    if not re.fullmatch(rb"[0-9]{1,19}", digits):
        raise ValueError(f"{digits[:20]!r} in a pax header is not a number")
    return int(digits)


def _make_member(kind: bytes, name: str, at: int, size: int) -> TarMember:
    if kind == b"S":
        raise ValueError(f"{name[:200]!r} is stored sparse; pack it without --sparse")
    inside = posixpath.normpath(name)
    if inside.startswith(("/", "../")) or inside == "..":
        return TarMember("other", inside, at, size)
    inside = "" if inside == "." else inside
    if kind == b"5" or (kind in _FILES and name.endswith("/")):
        return TarMember("folder", inside, at, 0)
    return TarMember("file" if kind in _FILES else "other", inside, at, size)
