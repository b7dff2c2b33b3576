"""The faces of iQIYI-VID as its makers found them: boxes, scores, qualities and 512-d features.

`face_train_v2.pickle`, `face_val_v2.pickle` and `face_test.pickle` are Python 2 pickles of
{video: [[frame, (x1, y1, x2, y2), det_score, quality, feature], …]}. They hold millions of faces,
so one video is read after the other, and they are never run as a pickle would be
(`vidface.datasets.inert_pickle`).

Source: iQIYI-VID challenges 2018 and 2019; the files' form as public solutions read it.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vidface.core.errors import VidfaceError
from vidface.core.values import check_array
from vidface.datasets.inert_pickle import SHORT, iter_items
from vidface.datasets.iqiyi import video_key
from vidface.datasets.pickled_arrays import PickledArray

MAX_FACES = 200_000
"""The most faces of a video; iQIYI-VID has 30 in the mean."""

MAX_VIDEOS = 2**22
"""The most videos of a file, whose names are all remembered; iQIYI-VID has 211,000."""

_FIELDS = 5  # of a face
_LARGEST_INDEX = 2**31 - 1  # of a frame, in the artefact
_LAST_DIGITS = re.compile(r"([0-9]+)[^0-9]*$")
_EXTENSION = re.compile(r"\.[A-Za-z][A-Za-z0-9]*$")  # its digits number nothing: .mp4


@dataclass(frozen=True, eq=False)
class VideoFeatures:
    """The n faces of one video, in the file's order; n may be 0. Checked when made.

    A frame may come several times, with one face each. Boxes are pixels, x to the right, y down.
    Scores and qualities are the makers' own: a quality may be negative. Nothing is said of NaN
    and infinity, in features or elsewhere: whoever uses the values decides.
    """

    video: str  # without .mp4
    frames: tuple[str, ...]  # n texts as the file has them: "12", "xxx_000123.jpg"
    frame_index: NDArray[np.int32]  # (n,) ≥ 0: the number in that text, or else the face's place
    boxes: NDArray[np.float32] | None  # (n, 4) x1, y1, x2, y2; None: the file does not say
    det_scores: NDArray[np.float32] | None  # (n,)
    qualities: NDArray[np.float32] | None  # (n,)
    features: NDArray[np.float16] | NDArray[np.float32]  # (n, d); (0, 0) without a face

    def __post_init__(self) -> None:
        n, where = len(self.frames), f"video '{self.video}'"
        check_array(f"{where}: frame_index", self.frame_index, (n,), "int32")
        for name, shape in {"boxes": (n, 4), "det_scores": (n,), "qualities": (n,)}.items():
            if getattr(self, name) is not None:
                check_array(f"{where}: {name}", getattr(self, name), shape, "float32")
        features = self.features
        is_table = features.ndim == 2 and len(features) == n and (n > 0) == (features.shape[1] > 0)
        if not is_table or features.dtype not in (np.float16, np.float32):
            raise VidfaceError(
                f"{where}: features must be ({n}, d) float16 or float32, "
                f"got {features.shape} {features.dtype}"
            )
        if n and self.frame_index.min() < 0:
            raise VidfaceError(f"{where}: a frame_index is negative")

    def __str__(self) -> str:
        n, d = self.features.shape
        return (
            f"VideoFeatures({self.video}: {n} faces; boxes ({n}, 4), det_scores, qualities ({n},) "
            f"float32, features ({n}, {d}) {self.features.dtype})"
        )


def iter_features(path: str | Path) -> Iterator[VideoFeatures]:
    """The videos of a feature pickle, one after the other, in the file's order.

    Memory is that of two videos, of their names, and of what the file shares between videos (with
    pickles of Python 2's `pickle`, not cPickle, about 100 bytes a face). Features remain float16
    where the file has them so, and are float32 otherwise; the arrays may be read-only. Errors come
    when the iteration reaches them, the first when it begins.

    Args:
        path: written by Python 2's pickle or cPickle or by Python 3 (protocols 0 to 5). Keys are
            bytes or text, with `.mp4` or without.

    Raises:
        VidfaceError: the file can't be read, is cut off (after how many videos), asks for anything
            but plain values and NumPy arrays of plain numbers, names a video twice, or a face is
            not [frame, box, det_score, quality, feature] with as many dimensions as those before.

    >>> import pickle, tempfile
    >>> face = [b"12", (1.0, 2.0, 3.0, 4.0), 0.9, -5.0, np.zeros(512, np.float16)]
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     path = Path(folder) / "face_val_v2.pickle"
    ...     _ = path.write_bytes(pickle.dumps({b"a.mp4": [face], b"b.mp4": []}, protocol=2))
    ...     for video in iter_features(path):
    ...         print(video.video, video.frame_index, video.features.shape)
    a [12] (1, 512)
    b [] (0, 0)
    """
    path = Path(path)
    dimensions = 0
    for name, faces in _named_items(path):
        try:
            video = _video_features(name, faces)
        except ValueError as error:
            raise VidfaceError(f"{path}: video '{name}': {error}") from None
        if len(video.frames):
            d = video.features.shape[1]
            if dimensions and d != dimensions:
                raise VidfaceError(
                    f"{path}: video '{name}': features of {d} dimensions, "
                    f"but of {dimensions} in the videos before"
                )
            dimensions = d
        yield video


def feature_videos(path: str | Path) -> list[tuple[str, int]]:
    """(video, number of faces) of a feature pickle, in its order; faces are not looked at.

    The distractors of a split are named here alone: they are the videos that the ground truth does
    not know.

    Raises:
        VidfaceError: as `iter_features`, but for what is wrong with single faces.
    """
    return [(name, len(faces)) for name, faces in _named_items(Path(path))]


def _named_items(path: Path) -> Iterator[tuple[str, list[Any]]]:
    """Each video's name, once, and its list of faces."""
    seen: set[str] = set()
    for key, faces in iter_items(path):
        try:
            name = video_key(_text(key))
        except ValueError as error:
            raise VidfaceError(f"{path}: the video after {len(seen):,} others: {error}") from None
        if not name:
            raise VidfaceError(f"{path}: the video after {len(seen):,} others has an empty name")
        if name in seen:
            raise VidfaceError(f"{path}: video '{name}' stands twice, with .mp4 or without")
        if len(seen) == MAX_VIDEOS:
            raise VidfaceError(f"{path}: more than {MAX_VIDEOS:,} videos; split the file")
        seen.add(name)
        if type(faces) is not list and type(faces) is not tuple:
            raise VidfaceError(f"{path}: video '{name}' has no list of faces")
        if len(faces) > MAX_FACES:
            raise VidfaceError(
                f"{path}: video '{name}' has {len(faces):,} faces; at most {MAX_FACES:,} are read"
            )
        yield name, list(faces)


def _video_features(name: str, faces: list[Any]) -> VideoFeatures:
    for k, face in enumerate(faces):
        if type(face) not in (list, tuple) or len(face) != _FIELDS:
            raise ValueError(
                f"face {k} (from 0) is not a list of frame, box, det_score, quality, feature"
            )
    n = len(faces)
    if n == 0:
        return VideoFeatures(
            video=name,
            frames=(),
            frame_index=np.zeros(0, np.int32),
            boxes=np.zeros((0, 4), np.float32),
            det_scores=np.zeros(0, np.float32),
            qualities=np.zeros(0, np.float32),
            features=np.zeros((0, 0), np.float16),
        )
    frames, boxes, det_scores, qualities, features = zip(*faces, strict=True)
    texts, numbers = zip(*map(_frame, frames), strict=True)
    corners = _rows(boxes, "box")
    if corners.shape[1] != 4:
        raise ValueError(f"boxes have {corners.shape[1]} numbers, not x1, y1, x2, y2")
    rows = _rows(features, "feature")
    if rows.shape[1] == 0:
        raise ValueError("features have no dimension")
    return VideoFeatures(
        video=name,
        frames=texts,
        frame_index=np.array(
            [k if number is None else number for k, number in enumerate(numbers)], np.int32
        ),
        boxes=_float32(corners),
        det_scores=_float32(_column(det_scores, "det_score")),
        qualities=_float32(_column(qualities, "quality")),
        features=_half_or_single(rows),
    )


def _text(value: Any) -> str:
    """A name; the file's text is a stranger's and ends up in messages and tables."""
    text = value.decode("utf-8", "replace") if isinstance(value, bytes) else value
    if not isinstance(text, str):
        raise ValueError(f"a name that is no text but {type(value).__name__}")
    if len(value) > SHORT:
        raise ValueError(f"a name of {len(value):,} characters; at most {SHORT} are read")
    if not text.isprintable() or "\ufffd" in text:
        raise ValueError(f"a name that is no printable UTF-8: {ascii(value)[:80]}")
    return text


def _frame(value: Any) -> tuple[str, int | None]:
    """A frame's text and the number in it; True and unhashable values are no frames."""
    if type(value) not in (bytes, str, int):
        raise ValueError(f"a frame that is no text but {type(value).__name__}")
    return _frame_of(value)


@lru_cache(maxsize=2**14)  # most videos have the same ones
def _frame_of(value: bytes | str | int) -> tuple[str, int | None]:
    """The last number in a frame's text, where it has one that can be an index.

    >>> [_frame_of(text)[1] for text in (b"12", "shot2_000123.jpg", 5, "3.mp4", "?", "9" * 30)]
    [12, 123, 5, 3, None, None]
    """
    text = str(value) if isinstance(value, int) else _text(value)
    match = _LAST_DIGITS.search(_EXTENSION.sub("", text))
    number = int(match[1]) if match else _LARGEST_INDEX + 1
    return text, number if number <= _LARGEST_INDEX else None


def _column(values: Sequence[Any], what: str) -> NDArray[np.float64]:
    """(n,): one number a face, also where it is an array of one."""
    if set(map(type, values)) <= {float, int}:
        return np.array(values, dtype=np.float64)
    kinds = (PickledArray, list, tuple)
    parts = [value if type(value) in kinds else [value] for value in values]
    rows = [_row(part, what, k) for k, part in enumerate(parts)]
    for k, row in enumerate(rows):
        if len(row) != 1:
            raise ValueError(f"the {what} of face {k} (from 0) is not one number")
    return np.concatenate(rows)


def _rows(values: Sequence[Any], what: str) -> NDArray[Any]:
    """(n, width): of the arrays' own type where all have the same, of float64 otherwise."""
    first = values[0]
    if type(first) is PickledArray:
        alike = all(
            type(value) is PickledArray
            and value.dtype == first.dtype
            and value.shape == first.shape
            and value.data is not None
            for value in values
        )
        if alike:
            width = len(_row(first, what, 0))  # refuses tables
            data = b"".join([value.data for value in values])
            return np.frombuffer(data, dtype=first.dtype).reshape(len(values), width)
    elif set(map(type, values)) <= {list, tuple} and len(set(map(len, values))) == 1:
        flat = list(chain.from_iterable(values))
        if set(map(type, flat)) <= {float, int}:
            return np.array(flat, dtype=np.float64).reshape(len(values), len(first))
    rows = [_row(value, what, k) for k, value in enumerate(values)]
    for k, row in enumerate(rows):
        if len(row) != len(rows[0]):
            raise ValueError(
                f"the {what} of face {k} (from 0) has {len(row)} numbers, "
                f"that of face 0 has {len(rows[0])}"
            )
    return np.stack(rows)


def _row(value: Any, what: str, k: int) -> NDArray[Any]:
    if type(value) is PickledArray and value.dtype.kind != "b":
        try:
            return value.numbers()
        except ValueError as error:
            raise ValueError(f"the {what} of face {k} (from 0) is {error}") from None
    if type(value) not in (list, tuple) or not set(map(type, value)) <= {float, int}:
        raise ValueError(f"the {what} of face {k} (from 0) is not made of numbers")
    return np.array(value, dtype=np.float64)


def _half_or_single(array: NDArray[Any]) -> NDArray[np.float16] | NDArray[np.float32]:
    if array.dtype.kind == "f" and array.dtype.itemsize == 2:  # in either byte order
        return array.astype(np.float16, copy=False)
    return _float32(array)


def _float32(array: NDArray[Any]) -> NDArray[np.float32]:
    with np.errstate(over="ignore"):  # beyond float32 is infinite
        return array.astype(np.float32, copy=False)
