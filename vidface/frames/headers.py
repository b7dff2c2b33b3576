"""What the headers of a file say, read without libav: lengths, an index that is lost or a trap."""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import BinaryIO

_MAX_EDITS = 1000  # entries of an edit list; each one may show the whole film again
_MAX_INDEX = 10_000_000  # samples of a track that are counted without a table; libav's: 24 B each
_MAX_UNPACKED_BYTES = 1 << 26  # of a compressed index (QuickTime's cmov)
_FIRST_BOXES = (b"ftyp", b"moov", b"mdat", b"free", b"skip", b"wide", b"pnot")
_EBML, _SEGMENT = b"\x1a\x45\xdf\xa3", b"\x18\x53\x80\x67"
_CLUSTER = b"\x1f\x43\xb6\x75"
_HOLD_OTHERS = (b"trak", b"edts", b"mdia", b"minf", b"stbl")


def unfinished_part(file: BinaryIO) -> bytes | None:
    """Which part of an MP4/MOV, Matroska or AVI is longer than the file; None: none, or unknown.

    Leaves the file at its beginning. Boxes of MP4: ISO/IEC 14496-12, 4.2; EBML: RFC 8794.
    """
    size = file.seek(0, os.SEEK_END)
    file.seek(0)
    head = file.read(64)
    part, end = None, 0
    if head[4:8] in _FIRST_BOXES:
        while len(head) >= 8 and end <= size:
            part, length = head[4:8], int.from_bytes(head[:4])
            if length == 1:
                length = int.from_bytes(head[8:16])
            if length < 8:  # 0: to the end of the file
                break
            end += length
            file.seek(min(end, size))
            head = file.read(16)
    elif head[:4] == b"RIFF" and head[8:12] == b"AVI ":
        part, end = b"RIFF", int.from_bytes(head[4:8], "little") + 8
    elif head[:4] == _EBML:
        header_length, at = _vint(head, 4)
        file.seek(min(at + (header_length or 0), size))
        head = file.read(12)
        if head[:4] == _SEGMENT:
            length_or_none, behind = _vint(head, 4)
            part, end = b"Segment", file.tell() - len(head) + behind + (length_or_none or 0)
    file.seek(0)
    return part if end > size else None


def lost_its_index(file: BinaryIO) -> bool:
    """Whether it begins as an MP4 and no moov box is in it. Leaves the file at its beginning."""
    names = (name for name, _, _ in _boxes(file, 0, file.seek(0, os.SEEK_END)))
    lost = next(names, None) == b"ftyp" and b"moov" not in names
    file.seek(0)
    return lost


def header_fault(file: BinaryIO) -> str | None:
    """What libav does not complain about: a trap in an MP4's index, a lost first Cluster; or None.

    A trap costs memory or time out of proportion, or tells no time. Leaves the file at its
    beginning. Boxes: ISO/IEC 14496-12, 8.2 to 8.7; QuickTime's cmov; Matroska: RFC 9559.
    """
    size = file.seek(0, os.SEEK_END)
    file.seek(0)
    head = file.read(64)
    why = None
    if head[4:8] in _FIRST_BOXES:
        for name, begin, end in _boxes(file, 0, size):
            if name == b"moov" and why is None:
                why = _trap_in(file, begin, end, size)
    elif head[:4] == _EBML and _begins_with_an_empty_cluster(file, head):
        why = "its first cluster is empty"
    file.seek(0)
    return why


def _begins_with_an_empty_cluster(file: BinaryIO, head: bytes) -> bool:
    """libav skips what lies behind it until the next one."""
    length, at = _vint(head, 4)
    at += length or 0
    size = file.seek(0, os.SEEK_END)
    for _ in range(100):  # elements in front of it: a dozen in practice
        file.seek(min(at, size))
        head = file.read(12)
        if len(head) < 12 or not head[0]:
            return False
        length, behind = _vint(head, 9 - head[0].bit_length())
        if head[:4] == _CLUSTER:
            return length == 0
        if head[:4] == _SEGMENT:
            length = 0  # go into it
        if length is None:
            return False
        at += behind + length
    return False


def _trap_in(file: BinaryIO, begin: int, end: int, size: int, deep: int = 1) -> str | None:
    """The same for the boxes within moov (deep = 1), trak, mdia, minf, stbl."""
    timeless = False
    for name, start, stop in _boxes(file, begin, end):
        file.seek(start)
        head = file.read(min(32, stop - start)).ljust(32, b"\0")
        count = int.from_bytes(head[4:8])
        if name in _HOLD_OTHERS and deep < 5:
            why = _trap_in(file, start, stop, size, deep + 1)
            if why is not None:
                return why
        elif name == b"cmov":
            for inner, at, _ in _boxes(file, start, stop):
                file.seek(at)
                length = int.from_bytes(file.read(4))
                if inner == b"cmvd" and length > _MAX_UNPACKED_BYTES:
                    return f"a compressed index of {length} bytes"
        elif name == b"elst" and count > _MAX_EDITS:
            return f"an edit list of {count} entries"
        elif name == b"stsz" and count:
            samples = int.from_bytes(head[8:12])
            if samples > max(size, _MAX_INDEX):
                return f"an index of {samples} samples in {size} bytes"
        elif name == b"mdhd":
            at = 20 if head[0] == 1 else 12
            timeless = not any(head[at : at + 4])
        elif name == b"hdlr" and head[8:12] == b"vide" and timeless:
            return "0 ticks a second"
    return None


def _boxes(file: BinaryIO, begin: int, end: int) -> Iterator[tuple[bytes, int, int]]:
    """(name, begin, end) of each box's content."""
    while begin + 8 <= end:
        file.seek(begin)
        head = file.read(16)
        length, header = int.from_bytes(head[:4]), 8
        if length == 1:
            length, header = int.from_bytes(head[8:16]), 16
        elif length == 0:
            length = end - begin
        if length < header:
            return
        yield head[4:8], begin + header, min(begin + length, end)
        begin += length


def _vint(data: bytes, at: int) -> tuple[int | None, int]:
    """(value, position behind it) of EBML's variable-length integer; None = stated as unknown."""
    length = 9 - data[at].bit_length() if len(data) > at and data[at] else 8
    value = int.from_bytes(data[at : at + length]) & ((1 << 7 * length) - 1)
    return None if value == (1 << 7 * length) - 1 else value, at + length
