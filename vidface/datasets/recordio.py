"""MXNet's indexed RecordIO (train.rec with train.idx), read without MXNet; memory-mapped.

A record in the file: magic 0xced7230a, a word whose upper 3 bits say which part of a record this is
(0 all of it, 1 the first part, 2 one in the middle, 3 the last) and whose lower 29 bits give the
length, the data, zeros up to a multiple of 4. A record that holds the magic's four bytes at a
multiple of 4 is split there, and the magic left out. Image records begin with IRHeader: flag
uint32, label float32, id and id2 uint64; flag > 0 means that as many float32 labels follow and
replace `label`. All little-endian. The index has a line `key TAB offset` for each record.

Source: github.com/dmlc/dmlc-core, include/dmlc/recordio.h and src/recordio.cc; apache/mxnet,
python/mxnet/recordio.py.
"""

from __future__ import annotations

import io
import mmap
import os
import re
import struct
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vidface.core.errors import VidfaceError
from vidface.core.files import named_errors

MAGIC = 0xCED7230A
_FRAME = struct.Struct("<II")
_HEADER = struct.Struct("<IfQQ")
_LENGTH_MASK = 2**29 - 1
_LOOKED_AT = 64  # records that opening checks
_LABELS_AT_MOST = 8  # of a record without a picture
_ROWS = 2**16  # headers that are read at once


@dataclass(frozen=True, eq=False)
class Record:
    """An image record. labels: (1,) float32, or (flag,) where flag > 0; data: the picture file."""

    flag: int
    labels: NDArray[np.float32]
    id: int
    id2: int
    data: bytes

    def __str__(self) -> str:
        return (
            f"Record(flag {self.flag}, labels ({len(self.labels)},), id {self.id}, "
            f"{len(self.data)} bytes)"
        )


@dataclass(frozen=True, eq=False)
class Heads:
    """What the headers of m records say."""

    flags: NDArray[np.int64]  # (m,)
    labels: NDArray[np.float32]  # (m, 2), NaN where there is no second one
    data_bytes: NDArray[np.int64]  # (m,) of the picture file

    def __str__(self) -> str:
        m = len(self.flags)
        return f"Heads(flags ({m},), labels ({m}, 2), data_bytes ({m},))"


class RecordIO:
    """Records by position 0 … n − 1, in the file's order; made by `RecordIO(rec, idx)`.

    keys: (n,) int64, the index's names of the records, none twice; offsets: (n,) int64, bytes.
    Every record read is checked: magic, and that it ends where the next one begins. Can be pickled
    (the file is mapped again on first use), forked and shared by threads. The file must not be cut
    while it is in use: the system ends a process that reads a mapped file beyond its end.

    Raises:
        VidfaceError: a file is missing or empty; a line of the index that is not two numbers; keys
            or offsets twice, offsets beyond the file; the last record does not end with the file
            (one of the two files is cut off), or one of 64 others is no record.
    """

    def __init__(self, rec: str | Path, idx: str | Path) -> None:
        self.path, self.idx = Path(rec), Path(idx)
        keys, offsets = read_idx(self.idx)
        with named_errors(self.path):
            self.size_bytes = self.path.stat().st_size
        order = np.argsort(offsets, kind="stable")
        self.keys, self.offsets = keys[order], offsets[order]
        self._check_index()
        self._by_key = np.argsort(self.keys, kind="stable")
        self._map: mmap.mmap | None = None
        for position in np.linspace(0, len(self) - 1, _LOOKED_AT).astype(np.int64).tolist():
            self.payload(position)

    def __len__(self) -> int:
        return len(self.keys)

    def __str__(self) -> str:
        n = len(self)
        return f"RecordIO({self.path}: {n:,} records, {self.size_bytes:,} bytes; keys ({n},))"

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_map": None}

    def positions(self, keys: NDArray[np.int64]) -> NDArray[np.int64]:
        """(m,) keys → (m,) positions; VidfaceError if there is no such key."""
        rank = np.searchsorted(self.keys, keys, sorter=self._by_key)
        positions = self._by_key[np.minimum(rank, len(self) - 1)]
        lacking = np.flatnonzero(self.keys[positions] != keys)
        if len(lacking):
            raise VidfaceError(
                f"{self.idx}: no record {int(keys[lacking[0]])} ({len(lacking)} of {len(keys)} "
                "are missing); are the .rec and .idx of one set, and whole?"
            )
        return positions

    def payload(self, position: int) -> bytes:
        """The bytes of a record, its parts joined; VidfaceError if it is damaged."""
        if not 0 <= position < len(self):
            raise VidfaceError(f"{self.path}: record {position} of {len(self)}, counted from 0")
        data, at, end = self._mapped(), int(self.offsets[position]), self._end(position)
        parts: list[bytes] = []
        while True:
            if at + 8 > end:
                raise self._damage(position, f"its head at byte {at:,} goes beyond")
            magic, word = _FRAME.unpack_from(data, at)
            part, length = word >> 29, word & _LENGTH_MASK
            if magic != MAGIC:
                raise self._damage(position, f"no record begins at byte {at:,}")
            if part not in ((2, 3) if parts else (0, 1)):
                raise self._damage(position, f"part {part} of a record at byte {at:,}")
            stop = at + 8 + -(-length // 4) * 4
            if stop > end:
                raise self._damage(position, f"{length:,} bytes are due from byte {at + 8:,}")
            parts.append(data[at + 8 : at + 8 + length])
            at = stop
            if part in (0, 3):
                break
        if at != end:
            raise self._damage(position, f"it ends at byte {at:,}")
        return MAGIC.to_bytes(4, "little").join(parts)

    def record(self, position: int) -> Record:
        """An image record; VidfaceError if it is damaged, or shorter than its header."""
        payload = self.payload(position)
        n_bytes = len(payload)
        if n_bytes < _HEADER.size:
            raise self._damage(position, f"{n_bytes} bytes where its header has {_HEADER.size}")
        flag, label, number, number2 = _HEADER.unpack_from(payload)
        start = _HEADER.size + 4 * flag
        if n_bytes < start:
            raise self._damage(position, f"{n_bytes:,} bytes where {flag:,} labels are due")
        labels = np.array([label], dtype=np.float32)
        if flag:
            labels = np.frombuffer(payload, "<f4", flag, _HEADER.size).astype(np.float32)
        return Record(flag, labels, number, number2, payload[start:])

    def heads(self, positions: NDArray[np.int64]) -> Heads:
        """The headers of (m,) positions, many at a time; VidfaceError if a record is damaged."""
        m = len(positions)
        flags, data_bytes = np.zeros(m, dtype=np.int64), np.zeros(m, dtype=np.int64)
        labels = np.full((m, 2), np.nan, dtype=np.float32)
        words = np.frombuffer(self._mapped(), "<u4", self.size_bytes // 4)
        bounds = np.append(self.offsets, self.size_bytes)
        for start in range(0, m, _ROWS):
            some = positions[start : start + _ROWS]
            rows = slice(start, start + len(some))
            # A row of words: magic, length, flag, label, 4 of ids, up to 2 labels.
            at = self.offsets[some] // 4
            row = words[np.minimum(at[:, None] + np.arange(10), len(words) - 1)]
            length, flag = row[:, 1].astype(np.int64), row[:, 2].astype(np.int64)
            flags[rows] = flag
            floats = row[:, [3, 8, 9]].view("<f4")
            labels[rows, 0] = np.where(flag > 0, floats[:, 1], floats[:, 0])
            labels[rows, 1] = np.where(flag > 1, floats[:, 2], np.nan)
            data_bytes[rows] = length - _HEADER.size - 4 * flag
            ends = bounds[some + 1]
            whole = (row[:, 0] == MAGIC) & (length <= _LENGTH_MASK) & (data_bytes[rows] >= 0)
            whole &= self.offsets[some] + 8 + -(-length // 4) * 4 == ends
            for i in start + np.flatnonzero(~whole):  # in several parts, or damaged: this raises
                record = self.record(int(positions[i]))
                flags[i], data_bytes[i] = record.flag, len(record.data)
                labels[i] = np.append(record.labels, np.float32(np.nan))[:2]
        return Heads(flags, labels, data_bytes)

    def find_empty(self, positions: NDArray[np.int64]) -> NDArray[np.int64]:
        """Those of (m,) positions whose picture has no byte; by the index few are looked at."""
        spans = np.diff(np.append(self.offsets, self.size_bytes))[positions]
        short = positions[spans <= _FRAME.size + _HEADER.size + 4 * _LABELS_AT_MOST]
        return short[self.heads(short).data_bytes == 0]

    def _check_index(self) -> None:
        offsets, size = self.offsets, self.size_bytes
        bad = np.flatnonzero((offsets < 0) | (offsets + 8 > size) | (offsets % 4 != 0))
        if len(bad):
            i = bad[0]
            raise VidfaceError(
                f"{self.path}: {size:,} bytes, but {self.idx.name} has record {self.keys[i]} at "
                f"byte {offsets[i]:,} ({len(bad)} such records); one of the files is cut off, or "
                "they are not of one set"
            )
        for what, values in (("offset", offsets), ("key", np.sort(self.keys))):
            twice = np.flatnonzero(values[1:] == values[:-1])
            if len(twice):
                raise VidfaceError(f"{self.idx}: {what} {values[twice[0]]} stands twice")

    def _end(self, position: int) -> int:
        """Where the record has to end: the next one's beginning, or the file's end."""
        last = position + 1 == len(self)
        return self.size_bytes if last else int(self.offsets[position + 1])

    def _damage(self, position: int, what: str) -> VidfaceError:
        last = position + 1 == len(self)
        end = "the file ends" if last else f"record {self.keys[position + 1]} begins"
        return VidfaceError(
            f"{self.path}: record {self.keys[position]} (from byte {self.offsets[position]:,}) is "
            f"damaged: {what}, {end} at byte {self._end(position):,} of {self.size_bytes:,}; fetch "
            f"the .rec and .idx again, of one set"
        )

    def _mapped(self) -> mmap.mmap:
        if self._map is None:
            try:
                with self.path.open("rb") as file:
                    if os.fstat(file.fileno()).st_size != self.size_bytes:
                        raise VidfaceError(f"{self.path}: has changed since it was opened")
                    self._map = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
            except (OSError, ValueError) as error:
                text = getattr(error, "strerror", None) or error
                raise VidfaceError(f"{self.path}: {text}") from None
        return self._map


def read_idx(path: Path) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """The keys and offsets of an index, each (n,) int64, n ≥ 1, as they stand in it.

    Raises:
        VidfaceError: missing, empty, or a line that is not two whole numbers.
    """
    with named_errors(path):
        text = path.read_bytes()
    text = text.replace(b"\r\n", b"\n") if b"\r" in text else text
    text = text if text.endswith(b"\n") else text + b"\n"
    n = text.count(b"\n")
    if text.translate(None, b"0123456789") == b"\t\n" * n:
        numbers = np.fromstring(text, dtype=np.int64, sep=" ")  # what is too large becomes 2^63 - 1
        if len(numbers) == 2 * n:
            return numbers[::2].copy(), numbers[1::2].copy()
    lines = enumerate(io.BytesIO(text), start=1)
    number, line = next(x for x in lines if not re.fullmatch(rb"[0-9]+\t[0-9]+\n", x[1]))
    raise VidfaceError(
        f"{path}, line {number}: {line[:60]!r} is not key TAB offset, as RecordIO's index has it"
    )
