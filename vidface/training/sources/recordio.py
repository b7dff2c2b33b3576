"""InsightFace's training sets (MS1M-RetinaFace, faces_emore, Glint360K), read without MXNet.

The file's record 0 may be a header without a picture, whose two labels [a, b) say which records
stand for people; the images are records 1 … a − 1. A person's record has no picture either, and its
two labels [c, d) say which records are the person's images. The class is each image's first label.
Sets without such a header have images alone.

Source: github.com/deepinsight/insightface, recognition/arcface_torch/dataset.py and
recognition/common/face2rec2.py.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vidface.core.errors import VidfaceError
from vidface.core.files import named_errors
from vidface.core.values import CROP_SIZE
from vidface.datasets.recordio import RecordIO
from vidface.training.sources.base import Pictures, PictureSource, check_size

_EXACT = 2**24  # float32 holds whole numbers up to here; larger sets' ranges are rounded
_FILES = ("train.rec", "train.idx", "property")


def open_recordio(path: Path, *, resize: bool = False) -> PictureSource:
    """The images of `train.rec`, `train.idx` and `property` ("classes,height,width") in a folder.

    People's names are their class numbers, with leading zeros. Where the set has ranges of people,
    two headers a person are read, else one an image. An image whose own label disagrees raises when
    it is read.

    Raises:
        VidfaceError: a file is missing, cut off, or not of this format; a label beyond the
            property's classes; a class without an image; a picture without a byte, or of a size
            other than 112x112.
    """
    if not path.is_dir():
        raise VidfaceError(f"{path}: no such folder; give the one with {', '.join(_FILES)}")
    for name in _FILES:
        if not (path / name).is_file():
            raise VidfaceError(f"{path}: no {name} in it; a set is {', '.join(_FILES)}")
    n_classes, size = _read_property(path / "property", resize)
    records = RecordIO(path / "train.rec", path / "train.idx")
    positions, raw = _find_images(records)
    empty = records.find_empty(positions)
    if len(empty):
        raise VidfaceError(
            f"{records.path}: {len(empty):,} of {len(positions):,} pictures have no byte in them, "
            f"record {records.keys[empty[0]]} for one; fetch the set again, or pack it without them"
        )
    labels = _check_classes(raw, positions, records, n_classes)
    if n_classes > len(labels):  # before names are made for them
        raise VidfaceError(
            f"{path / 'property'}: {n_classes:,} classes, {len(labels):,} images; every class "
            "needs one at least"
        )
    width = len(str(n_classes - 1))
    return PictureSource(
        title=str(path),
        identities=tuple(f"{c:0{width}d}" for c in range(n_classes)),
        labels=labels,
        fingerprint=_fingerprint(records, positions, labels, size),
        pictures=RecordPictures(RecordNames(records, positions), records, positions, labels),
        resize=resize,
    )


class RecordNames(Sequence[str]):
    """Names made from record numbers when they are asked for."""

    def __init__(self, records: RecordIO, positions: NDArray[np.int64]) -> None:
        self._records, self._positions = records, positions

    def __len__(self) -> int:
        return len(self._positions)

    def __getitem__(self, index: Any) -> Any:
        return f"record {self._records.keys[self._positions[index]]}"


@dataclass(frozen=True, eq=False)
class RecordPictures(Pictures):
    records: RecordIO
    positions: NDArray[np.int64]
    labels: NDArray[np.int64]

    def read(self, index: int) -> bytes:
        record = self.records.record(int(self.positions[index]))
        if record.labels[0] != self.labels[index]:
            raise VidfaceError(
                f"{self.records.path}: {self.names[index]} has the label {record.labels[0]:g}, its "
                f"person's record says {self.labels[index]}; fetch the set again"
            )
        check_size(f"{self.records.path}: {self.names[index]}", len(record.data))
        return record.data


def _read_property(path: Path, resize: bool) -> tuple[int, tuple[int, int]]:
    """(classes, (height, width))"""
    with named_errors(path), path.open("rb") as file:
        text = file.read(100)
    match = re.fullmatch(rb"\s*([0-9]{1,9})\s*,\s*([0-9]{1,9})\s*,\s*([0-9]{1,9})\s*", text)
    if match is None or int(match[1]) < 1:
        raise VidfaceError(f"{path}: {text[:60]!r} is not 'classes,height,width'")
    height, width = int(match[2]), int(match[3])
    if (height, width) != (CROP_SIZE, CROP_SIZE) and not resize:
        raise VidfaceError(
            f"{path}: images of {width}x{height}, not {CROP_SIZE}x{CROP_SIZE}; set resize = true "
            "for square ones"
        )
    return int(match[1]), (height, width)


def _find_images(records: RecordIO) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    """(n,) positions of the images, and their labels as they are stored."""
    everything = np.arange(len(records), dtype=np.int64)
    zero = np.flatnonzero(records.keys == 0)
    header = records.record(int(zero[0])) if len(zero) else None
    if header is None or header.data or not header.flag:
        return everything, records.heads(everything).labels[:, 0]
    first, end = _read_range(header.labels, records, 0)
    if end > _EXACT:  # then people's records are told by having no picture
        heads = records.heads(everything)
        with_picture = (heads.data_bytes > 0) | (heads.flags == 0)  # people have two labels
        return everything[with_picture], heads.labels[with_picture, 0]
    if not 1 <= first <= end or end - first > len(records) or first > len(records):
        raise VidfaceError(
            f"{records.path}: record 0 says that people have the records {first} … {end - 1}, "
            f"there are {len(records):,} records"
        )
    positions = records.positions(np.arange(1, first, dtype=np.int64))
    people = np.arange(first, end, dtype=np.int64)
    return positions, _labels_by_person(records, positions, people)


def _read_range(labels: NDArray[np.float32], records: RecordIO, key: int) -> tuple[int, int]:
    if len(labels) != 2 or not np.isfinite(labels).all() or (labels != np.floor(labels)).any():
        raise VidfaceError(
            f"{records.path}: record {key} has the labels {labels[:4].tolist()}, not the first and "
            "the end of a range"
        )
    return int(labels[0]), int(labels[1])


def _labels_by_person(
    records: RecordIO, positions: NDArray[np.int64], people: NDArray[np.int64]
) -> NDArray[np.float32]:
    """(n,) stored labels of the images 1 … n, at `positions`, from people's ranges.

    A range's label is that of its first image. Where the last image has another, or the ranges
    leave images out or overlap, all images' labels are read.
    """
    n = len(positions)
    heads = records.heads(records.positions(people))
    starts, stops = heads.labels.astype(np.float64).T
    good = (heads.flags == 2) & (starts == np.floor(starts)) & (stops == np.floor(stops))
    good &= (starts >= 1) & (starts <= stops) & (stops <= n + 1)
    if not good.all():
        i = int(np.flatnonzero(~good)[0])
        raise VidfaceError(
            f"{records.path}: record {people[i]} of a person says that the images are the records "
            f"[{starts[i]:g}, {stops[i]:g}); images are 1 … {n}"
        )
    filled = starts < stops
    starts, stops = starts[filled].astype(np.int64) - 1, stops[filled].astype(np.int64) - 1
    order = np.argsort(starts, kind="stable")
    starts, stops = starts[order], stops[order]
    gapless = np.array_equal(np.append(starts, n), np.insert(stops, 0, 0))
    if gapless:
        ends = records.heads(positions[np.concatenate([starts, stops - 1])]).labels[:, 0]
        first, last = ends.reshape(2, -1)
        if np.array_equal(first, last):
            return np.repeat(first, stops - starts)
    return records.heads(positions).labels[:, 0]


def _check_classes(
    raw: NDArray[np.float32], positions: NDArray[np.int64], records: RecordIO, n_classes: int
) -> NDArray[np.int64]:
    """Labels as class numbers, (n,) int64."""
    good = (raw >= 0) & (raw < n_classes) & (raw == np.floor(raw))
    if not good.all():
        i = int(np.flatnonzero(~good)[0])
        raise VidfaceError(
            f"{records.path}: record {records.keys[positions[i]]} has the label {raw[i]:g}; "
            f"property names {n_classes:,} classes, 0 … {n_classes - 1}"
        )
    return raw.astype(np.int64)


def _fingerprint(
    records: RecordIO,
    positions: NDArray[np.int64],
    labels: NDArray[np.int64],
    size: tuple[int, int],
) -> str:
    digest = hashlib.sha256(repr((records.size_bytes, size)).encode())
    for numbers in (records.keys, records.offsets, positions, labels):
        digest.update(len(numbers).to_bytes(8, "little"))
        digest.update(numbers.astype("<i8").tobytes())
    return digest.hexdigest()
