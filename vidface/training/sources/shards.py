"""Tar shards as WebDataset writes them; and the reading of tars in place, for `folders` too."""

from __future__ import annotations

import json
import os
import posixpath
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from vidface.core.errors import VidfaceError
from vidface.storage.names import IMAGE_SUFFIXES, natural_key
from vidface.training.sources import (
    Faces,
    PackedNames,
    check_size,
    fingerprint_of,
    numbered,
)

MAX_SHARDS = 100_000
MAX_LABEL_BYTES = 2**16  # of a .cls or .json
MAX_OPEN_FILES = 256  # a worker may have 1024 in all
_LABEL_ENDINGS = ("cls", "json")
_IMAGE_ENDINGS = frozenset(suffix[1:] for suffix in IMAGE_SUFFIXES)


def open_faces(path: Path, *, resize: bool = False) -> Faces:
    """WebDataset's layout: in each tar, `key.jpg` (or .png, …) with `key.cls` or `key.json`.

    The key is a member's name up to the first dot of its last part. A .cls holds the class as a
    whole number in text; a .json an object with "identity" (text or number) or "label" (number).
    Numbers become names with leading zeros, so that they sort as numbers: where 0 … C − 1 all
    occur, they are the class numbers. Other members are passed over.

    Args:
        path: a folder of .tar files, one .tar, or a pattern such as `train-{000..011}.tar`.

    Raises:
        VidfaceError: a shard that is missing, cut off, compressed or no tar; an image without a
            class or the other way round; a .cls or .json with something else in it; no image.
    """
    shards = _shards(path)
    samples: list[_Sample] = []
    for number, shard in enumerate(shards):
        samples += _samples(shard, number)
    if not samples:
        raise VidfaceError(f"{path}: no image in {len(shards)} shard(s)")
    identities, labels = numbered(_people(samples))
    sizes = np.array([sample.size for sample in samples], dtype=np.int64)
    names = PackedNames(sample.name for sample in samples)
    return Faces(
        title=str(path),
        identities=identities,
        labels=labels,
        fingerprint=fingerprint_of(identities, labels, names, sizes),
        pictures=TarPictures(
            reader=FileReader(tuple(shards)),
            files=np.array([sample.shard for sample in samples], dtype=np.int32),
            offsets=np.array([sample.offset for sample in samples], dtype=np.int64),
            sizes=sizes,
            names=names,
        ),
        resize=resize,
        note=f"{len(shards)} shard(s)",
    )


class _Sample(NamedTuple):
    name: str  # shard.tar/key.jpg
    shard: int
    offset: int
    size: int
    person: str | int


def _shards(path: Path) -> list[Path]:
    if path.is_dir():
        found = [p for p in path.glob("*.tar") if p.is_file() and p.name[0] != "."]
        if not found:
            raise VidfaceError(f"{path}: no .tar in this folder")
        return sorted(found, key=lambda p: natural_key(p.name))
    shards = [path] if path.exists() else [Path(name) for name in expand_braces(str(path))]
    for shard in shards:
        if not shard.is_file():
            raise VidfaceError(
                f"{shard}: no such shard; give a folder of .tar files, or a pattern such as "
                "train-{000..011}.tar"
            )
    return shards


def expand_braces(pattern: str) -> list[str]:
    """A pattern with ranges of numbers, as WebDataset and bash have it.

    Raises:
        VidfaceError: a range that runs backwards, or more than 100,000 names.

    >>> expand_braces("{8..9}/train-{08..11}.tar")[3:5]
    ['8/train-11.tar', '9/train-08.tar']
    """
    match = re.search(r"\{([0-9]{1,9})\.\.([0-9]{1,9})\}", pattern)
    if match is None:
        return [pattern]
    first, last = int(match[1]), int(match[2])
    if last < first:
        raise VidfaceError(f"{pattern}: the range {match[0]} runs backwards")
    rest = expand_braces(pattern[match.end() :])
    if (last - first + 1) * len(rest) > MAX_SHARDS:
        raise VidfaceError(f"{pattern}: more than {MAX_SHARDS:,} shards")
    padded = any(text[0] == "0" and len(text) > 1 for text in match.groups())
    width = max(map(len, match.groups())) if padded else 0
    start = pattern[: match.start()]
    return [f"{start}{k:0{width}d}{end}" for k in range(first, last + 1) for end in rest]


def _samples(shard: Path, number: int) -> Iterator[_Sample]:
    by_key: dict[str, dict[str, Member]] = {}
    for member in tar_members(shard):
        folder, base = posixpath.split(member.name)
        stem, _, ending = base.partition(".")
        ending = ending.lower()
        if member.kind != "file" or not stem:
            continue
        if ending not in _LABEL_ENDINGS and ending not in _IMAGE_ENDINGS:
            continue
        parts = by_key.setdefault(posixpath.join(folder, stem), {})
        sort = "image" if ending in _IMAGE_ENDINGS else ending
        if sort in parts:
            raise VidfaceError(
                f"{shard}: {parts[sort].name} and {member.name}, one sample has two of them"
            )
        parts[sort] = member
    reader = FileReader((shard,))
    for key, parts in by_key.items():
        image = parts.get("image")
        if image is None:
            raise VidfaceError(f"{shard}: {key} has a class, but no image")
        name = f"{shard.name}/{image.name}"
        check_size(f"{shard}: {image.name}", image.size)
        yield _Sample(name, number, image.offset, image.size, _person(parts, key, reader, shard))


def _person(parts: dict[str, Member], key: str, reader: FileReader, shard: Path) -> str | int:
    """Who is in a sample, a name or a number."""
    label = parts.get("cls") or parts.get("json")
    if label is None:
        raise VidfaceError(f"{shard}: {key} has an image, but neither {key}.cls nor {key}.json")
    what = f"{shard}: {label.name}"
    if label.size > MAX_LABEL_BYTES:
        raise VidfaceError(f"{what}: {label.size:,} bytes, more than a class needs")
    try:
        data = reader.read(0, label.offset, label.size)
    except OSError as error:
        raise VidfaceError(f"{what}: {error.strerror or error}") from None
    if "cls" in parts:
        text = data.strip()
        if not re.fullmatch(rb"[0-9]{1,18}", text):
            raise VidfaceError(f"{what}: {text[:40]!r} is not a class, a whole number from 0")
        return int(text)
    return _person_of_json(data, what)


def _person_of_json(data: bytes, what: str) -> str | int:
    try:
        value = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise VidfaceError(f"{what}: not JSON ({type(error).__name__})") from None
    fields: dict[str, Any] = value if isinstance(value, dict) else {}
    person = fields.get("identity", fields.get("label"))
    if isinstance(person, str) and "identity" in fields and len(person) <= 500:
        return person
    if isinstance(person, int) and not isinstance(person, bool) and 0 <= person < 10**18:
        return person
    raise VidfaceError(
        f'{what}: needs "identity" (a name or a number) or "label" (a whole number from 0), '
        f"got {repr(value)[:80]}"
    )


def _people(samples: list[_Sample]) -> list[str]:
    """The names; numbers with leading zeros."""
    first: dict[type, _Sample] = {}
    for sample in samples:
        first.setdefault(type(sample.person), sample)
    if len(first) > 1:
        raise VidfaceError(
            f"{first[str].name} has a person's name, {first[int].name} a number; use one of both"
        )
    width = max(len(str(sample.person)) for sample in samples)
    return [
        f"{sample.person:0{width}d}" if isinstance(sample.person, int) else sample.person
        for sample in samples
    ]


# Tars, read in place


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


class TarPictures(NamedTuple):
    """n picture files inside tars."""

    reader: FileReader
    files: NDArray[np.int32]  # (n,) which of the reader's files
    offsets: NDArray[np.int64]  # (n,) bytes
    sizes: NDArray[np.int64]  # (n,) bytes
    names: PackedNames

    def read(self, index: int) -> bytes:
        at = int(self.offsets[index]), int(self.sizes[index])
        return self.reader.read(int(self.files[index]), *at)

    def name(self, index: int) -> str:
        return self.names[index]


class Member(NamedTuple):
    """A member of a tar; "other" is a link, a device, or one whose name leads out of the tar."""

    kind: Literal["file", "folder", "other"]
    name: str  # normalised, without a slash at either end
    offset: int  # of its data, bytes
    size: int


_BLOCK = 512
_MAX_NAME_BYTES = 2**16
_MAX_PAX_BYTES = 2**20
_FILES, _NO_DATA, _ABOUT_THE_NEXT = b"0\x007", b"123456", b"LKxg"  # kinds of header


def tar_members(path: Path) -> Iterator[Member]:
    """The members of an uncompressed tar (ustar, GNU, pax), in order; nothing is unpacked.

    Written for tars of strangers and of millions of members: every step leads forward, nothing is
    read but headers, and those in small pieces (`tarfile` keeps an object for each member, and
    some of its versions can be led in a circle).

    Raises:
        VidfaceError: no such file; no tar, or a compressed one; cut off; a member stored sparse.
    """
    try:
        with path.open("rb", buffering=0) as file:
            yield from _members(file.fileno(), os.fstat(file.fileno()).st_size)
    except OSError as error:
        raise VidfaceError(f"{path}: {error.strerror or error}") from None
    except ValueError as error:
        raise VidfaceError(
            f"{path}: not a whole uncompressed tar: {error}. Fetch or pack it again, decompress it "
            "first (gunzip, unxz)"
        ) from None


def _members(file: int, end: int) -> Iterator[Member]:
    at = 0
    told_name, told_size = "", -1  # what headers before a member's own say of it
    while True:
        block = os.pread(file, _BLOCK, at)
        if len(block) < _BLOCK:
            raise ValueError(f"cut off at byte {end:,}, the mark of a tar's end is missing")
        if not block.strip(b"\0"):
            return
        stored, size = _header(block, at)
        kind = block[156:157]
        name = told_name or stored
        if kind in _NO_DATA:
            size = 0
        elif told_size >= 0 and kind not in _ABOUT_THE_NEXT:
            size = told_size
        at += _BLOCK
        if at + size > end:
            raise ValueError(f"cut off: {name[:200]!r} has {end - at:,} of {size:,} bytes")
        if kind == b"L":
            told_name = _text(_small(file, at, size, _MAX_NAME_BYTES))
        elif kind == b"x":
            told = _pax(_small(file, at, size, _MAX_PAX_BYTES))
            told_name = _text(told.get(b"path", b"")) or told_name
            told_size = _whole(told[b"size"]) if b"size" in told else told_size
        elif kind not in _ABOUT_THE_NEXT:
            yield _member(kind, name, at, size)
            told_name, told_size = "", -1
        at += -(-size // _BLOCK) * _BLOCK


def _header(block: bytes, at: int) -> tuple[str, int]:
    """(name, size) of a member; ValueError unless the block is a tar's header."""
    total = sum(block) - sum(block[148:156]) + 8 * ord(" ")
    if _octal(block[148:156], at) != total:
        raise ValueError(f"no header at byte {at:,} (its checksum is wrong)")
    name = _text(block[:100])
    prefix = _text(block[345:500]) if block[257:263] == b"ustar\0" else ""
    return (f"{prefix}/{name}" if prefix else name), _octal(block[124:136], at)


def _octal(field: bytes, at: int) -> int:
    if field[0] == 0x80:  # GNU's way with large numbers
        return int.from_bytes(field[1:], "big")
    digits = field.partition(b"\0")[0].strip(b" ")
    if not re.fullmatch(rb"[0-7]*", digits):
        raise ValueError(f"no header at byte {at:,} ({field!r} is not a number)")
    return int(digits or b"0", 8)


def _small(file: int, at: int, size: int, largest: int) -> bytes:
    if size > largest:
        raise ValueError(f"a header of {size:,} bytes at byte {at:,}")
    return os.pread(file, size, at)


def _text(field: bytes) -> str:
    return field.partition(b"\0")[0].decode("utf-8", "surrogateescape")


def _pax(data: bytes) -> dict[bytes, bytes]:
    """The records `length key=value` of a pax header; ValueError if they are none."""
    told: dict[bytes, bytes] = {}
    at = 0
    while at < len(data):
        digits = data[at : at + 10].partition(b" ")[0]
        length = _whole(digits)
        record = data[at + len(digits) + 1 : at + length]
        key, sign, value = record.partition(b"=")
        if at + length > len(data) or not sign or not value.endswith(b"\n"):
            raise ValueError("a pax header that is damaged")
        if key.startswith(b"GNU.sparse."):
            raise ValueError("a member is stored sparse; pack it without --sparse")
        told[key] = value[:-1]
        at += length
    return told


def _whole(digits: bytes) -> int:
    if not re.fullmatch(rb"[0-9]{1,19}", digits):
        raise ValueError(f"{digits[:20]!r} in a pax header is not a number")
    return int(digits)


def _member(kind: bytes, name: str, at: int, size: int) -> Member:
    if kind == b"S":
        raise ValueError(f"{name[:200]!r} is stored sparse; pack it without --sparse")
    inside = posixpath.normpath(name)
    if inside.startswith(("/", "../")) or inside == "..":
        return Member("other", inside, at, size)
    inside = "" if inside == "." else inside
    if kind == b"5" or (kind in _FILES and name.endswith("/")):
        return Member("folder", inside, at, 0)
    return Member("file" if kind in _FILES else "other", inside, at, size)
