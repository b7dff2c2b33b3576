"""Tar shards as WebDataset writes them."""

from __future__ import annotations

import json
import posixpath
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from vidface.core.errors import VidfaceError
from vidface.core.files import named_errors
from vidface.storage.names import IMAGE_SUFFIXES, natural_key
from vidface.training.sources.base import PictureSource, open_pictures
from vidface.training.sources.packed_names import PackedNames
from vidface.training.sources.tars import FileReader, TarMember, TarPictures, read_tar_members

MAX_SHARDS = 100_000
MAX_LABEL_BYTES = 2**16  # of a .cls or .json
_LABEL_ENDINGS = ("cls", "json")
_IMAGE_ENDINGS = frozenset(suffix[1:] for suffix in IMAGE_SUFFIXES)


def open_shards(path: Path, *, resize: bool = False) -> PictureSource:
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
    shards = _find_shards(path)
    samples = [
        sample for number, shard in enumerate(shards) for sample in _read_samples(shard, number)
    ]
    if not samples:
        raise VidfaceError(f"{path}: no image in {len(shards)} shard(s)")
    places = [(sample.shard, sample.offset, sample.size) for sample in samples]
    names = PackedNames(sample.name for sample in samples)
    pictures = TarPictures.of(names, tuple(shards), places)
    people, note = _name_people(samples), f"{len(shards)} shard(s)"
    return open_pictures(str(path), people, pictures, pictures.sizes, resize, note)


class _Sample(NamedTuple):
    name: str  # shard.tar/key.jpg
    shard: int
    offset: int
    size: int
    person: str | int


def _find_shards(path: Path) -> list[Path]:
    if path.is_dir():
        tars = [p for p in path.glob("*.tar") if p.is_file() and p.name[0] != "."]
        if not tars:
            raise VidfaceError(f"{path}: no .tar in this folder")
        return sorted(tars, key=lambda p: natural_key(p.name))
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


def _read_samples(shard: Path, number: int) -> Iterator[_Sample]:
    by_key: dict[str, dict[str, TarMember]] = {}
    for member in read_tar_members(shard):
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
        yield _Sample(
            name, number, image.offset, image.size, _read_person(parts, key, reader, shard)
        )


def _read_person(
    parts: dict[str, TarMember], key: str, reader: FileReader, shard: Path
) -> str | int:
    """Who is in a sample, a name or a number."""
    label = parts.get("cls") or parts.get("json")
    if label is None:
        raise VidfaceError(f"{shard}: {key} has an image, but neither {key}.cls nor {key}.json")
    what = f"{shard}: {label.name}"
    if label.size > MAX_LABEL_BYTES:
        raise VidfaceError(f"{what}: {label.size:,} bytes, more than a class needs")
    with named_errors(what):
        data = reader.read(0, label.offset, label.size)
    if "cls" in parts:
        text = data.strip()
        if not re.fullmatch(rb"[0-9]{1,18}", text):
            raise VidfaceError(f"{what}: {text[:40]!r} is not a class, a whole number from 0")
        return int(text)
    return _parse_person(data, what)


def _parse_person(data: bytes, what: str) -> str | int:
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


def _name_people(samples: list[_Sample]) -> list[str]:
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
