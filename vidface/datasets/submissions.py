"""What is submitted to challenges: LFRC's file of descriptors, iQIYI-VID's ranked lists.

Whatever is written is read back and compared.

Source: gen_video_feature.py of challenges/iccv19-lfr in github.com/deepinsight/insightface;
iQIYI-VID challenge 2018/2019, evaluation.
"""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vidface.core.errors import VidfaceError
from vidface.core.files import output_file
from vidface.datasets.iqiyi import (
    MOST_BYTES,
    SUFFIX,
    check_ranks,
    parse_video,
    split_labelled_line,
    video_key,
)
from vidface.datasets.lfrc import read_filelist
from vidface.datasets.lines import FirstProblem, numbered_words
from vidface.storage.names import natural_key

MOST_COLUMNS = 512
"""The most columns that LFRC takes."""

_HEADER = struct.Struct("<4i")  # rows, cols, bytes of a row, type
_FLOAT32 = 5  # the header's last number: OpenCV's CV_32F
_LARGEST_INT32 = 2**31 - 1
_BLOCK_ROWS = 4096  # 8 MiB of 512 columns


@dataclass(frozen=True)
class Submission:
    """A submission file that was read in full and found right. Checked when made."""

    path: Path
    rows: int
    cols: int
    bytes: int  # of the whole file, header included
    sha256: str  # of the whole file
    zero_rows: int  # videos without a descriptor

    def __post_init__(self) -> None:
        if min(self.rows, self.cols) < 1 or not 0 <= self.zero_rows <= self.rows:
            raise VidfaceError(
                f"submission {self.path}: ({self.rows}, {self.cols}) with {self.zero_rows} rows of "
                "zeros cannot be"
            )
        if self.bytes != _size_bytes(self.rows, self.cols):
            raise VidfaceError(
                f"submission {self.path}: ({self.rows}, {self.cols}) float32 is "
                f"{_size_bytes(self.rows, self.cols)} bytes, not {self.bytes}"
            )

    def __str__(self) -> str:
        return (
            f"Submission({self.path.name}: ({self.rows}, {self.cols}) float32, {self.zero_rows} "
            f"rows of zeros, {self.bytes} bytes, sha256 {self.sha256[:12]}…)"
        )

    def to_dict(self) -> dict[str, Any]:
        """The fields, ready for JSON."""
        return {**asdict(self), "path": str(self.path)}


def _size_bytes(rows: int, cols: int) -> int:
    """Bytes of a submission file; the challenge's:

    >>> _size_bytes(203_848, 512)
    417480720
    """
    return _HEADER.size + rows * cols * 4


def write_submission(path: str | Path, descriptors: NDArray[np.float32]) -> Submission:
    """Write descriptors as a submission file, then read it back and compare every value.

    The file appears complete or not at all, and is overwritten if it is there. Memory is needed for
    4,096 rows.

    Args:
        path: the `.bin` file.
        descriptors: (n, d) float32, n ≥ 1, d ≥ 1, finite, in any memory layout; a video without a
            descriptor is a row of zeros.

    Raises:
        VidfaceError: no such array, one too large for the header's int32, NaN or infinity (with
            the row), the file cannot be written, or the disk gives back something else.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     print(write_submission(Path(folder, "y1.bin"), np.eye(2, 3, dtype=np.float32)))
    Submission(y1.bin: (2, 3) float32, 0 rows of zeros, 40 bytes, sha256 3bce5473f2b0…)
    """
    path = Path(path)
    what = f"submission {path}"
    if descriptors.ndim != 2 or descriptors.dtype != np.float32 or 0 in descriptors.shape:
        raise VidfaceError(
            f"{what}: descriptors must be (n, d) float32 with n and d at least 1, "
            f"got {descriptors.shape} {descriptors.dtype}"
        )
    rows, cols = descriptors.shape
    if max(rows, cols * 4) > _LARGEST_INT32:
        raise VidfaceError(
            f"{what}: ({rows}, {cols}) does not fit the header: rows and cols * 4 are int32, "
            f"at most {_LARGEST_INT32}"
        )
    with output_file(path) as file:
        file.write(_HEADER.pack(rows, cols, cols * 4, _FLOAT32))
        for start in range(0, rows, _BLOCK_ROWS):
            block = _little_endian(descriptors[start : start + _BLOCK_ROWS])
            _check_finite(block, start, what)
            file.write(block.data)
    return _survey(path, written=descriptors)


def read_submission(path: str | Path) -> NDArray[np.float32]:
    """(rows, cols) float32 of a submission file: memory-mapped, read-only, little-endian.

    Values are not looked at here: there may be NaN among them, which `check_submission` refuses.

    Raises:
        VidfaceError: no such file, shorter than its header, a header that is not a submission's
            (or big-endian), or whose sizes disagree with the file's.
    """
    path = Path(path)
    what = f"submission {path}"
    try:
        size = path.stat().st_size
        if size < _HEADER.size:
            raise VidfaceError(
                f"{what}: {size} bytes, shorter than the header of {_HEADER.size} bytes"
            )
        with path.open("rb") as file:
            head = file.read(_HEADER.size)
        rows, cols = _checked_header(head, what)
        # Before anything of the declared size is mapped.
        if size != _size_bytes(rows, cols):
            raise VidfaceError(
                f"{what}: the header says ({rows}, {cols}) float32, which is "
                f"{_size_bytes(rows, cols)} bytes; the file has {size}"
            )
        return np.memmap(path, dtype="<f4", mode="r", offset=_HEADER.size, shape=(rows, cols))
    except (OSError, ValueError, OverflowError) as error:  # the latter two: no room to map it
        reason = getattr(error, "strerror", None) or error
        raise VidfaceError(f"{what}: {reason}") from None


def _checked_header(head: bytes, what: str) -> tuple[int, int]:
    """Rows and columns."""
    rows, cols, row_bytes, kind = _HEADER.unpack(head)
    header = f"{what}: the header says rows {rows}, cols {cols}, cols * 4 {row_bytes}, type {kind}"
    if row_bytes != cols * 4 or kind != _FLOAT32:
        _, other_cols, other_row_bytes, other_kind = struct.unpack(">4i", head)
        if other_kind == _FLOAT32 and other_row_bytes == other_cols * 4:
            raise VidfaceError(f"{what}: is big-endian; a submission is little-endian")
        wrong = "the third must be 4 times the second"
        if kind != _FLOAT32:
            wrong = f"the fourth must be {_FLOAT32}, float32"
        raise VidfaceError(f"{header}; {wrong}: not a submission")
    if min(rows, cols) < 1:
        raise VidfaceError(f"{header}; rows and cols must be at least 1")
    return rows, cols


def check_submission(path: str | Path, filelist: str | Path) -> Submission:
    """Read a submission in full and check that the challenge's server would take it.

    Args:
        path: the `.bin` file.
        filelist: as `read_filelist` reads it; the submission has a row for each of its videos.

    Raises:
        VidfaceError: what `read_filelist` and `read_submission` refuse, too many columns, another
            number of rows than videos, or NaN or infinity (with the row).
    """
    path = Path(path)
    videos = len(read_filelist(filelist))
    rows, cols = read_submission(path).shape
    if cols > MOST_COLUMNS:
        raise VidfaceError(f"submission {path}: {cols} columns where {MOST_COLUMNS} are allowed")
    if rows != videos:
        raise VidfaceError(
            f"submission {path}: {rows} rows, but {filelist} names {videos} videos; each needs a "
            "row, zeros if it has no descriptor"
        )
    return _survey(path)


def _survey(path: Path, *, written: NDArray[np.float32] | None = None) -> Submission:
    """Read every value of the file, and compare it with what was written if that is given."""
    what = f"submission {path}"
    matrix = read_submission(path)
    rows, cols = matrix.shape
    differs = f"{what}: the disk gave back something else than was written; write it again"
    if written is not None and written.shape != matrix.shape:
        raise VidfaceError(differs)
    digest = hashlib.sha256(_HEADER.pack(rows, cols, cols * 4, _FLOAT32))
    zero_rows = 0
    for start in range(0, rows, _BLOCK_ROWS):
        block = matrix[start : start + _BLOCK_ROWS]
        if written is not None:
            expected = _little_endian(written[start : start + _BLOCK_ROWS])
            # As bits: -0.0 is not 0.0 here.
            if not np.array_equal(block.view("<u4"), expected.view("<u4")):
                raise VidfaceError(differs)
        _check_finite(block, start, what)
        digest.update(block.data.cast("B"))
        zero_rows += int(np.count_nonzero(~block.any(axis=1)))
    return Submission(path, rows, cols, _size_bytes(rows, cols), digest.hexdigest(), zero_rows)


def _little_endian(block: NDArray[np.float32]) -> NDArray[np.float32]:
    """As the file holds it: C order, little-endian; a view where it is that already."""
    return np.ascontiguousarray(block, dtype="<f4")


def _check_finite(block: NDArray[np.float32], start: int, what: str) -> None:
    finite = np.isfinite(block).all(axis=1)
    if not finite.all():
        row = start + int(finite.argmin())
        raise VidfaceError(
            f"{what}: row {row} (from 0) holds NaN or infinity; a video without a descriptor is "
            "a row of zeros"
        )


def read_ranked_list(path: str | Path) -> dict[str, tuple[str, ...]]:
    """Ranked lists as the challenge takes them: a line `<identity> v1.mp4 v2.mp4 …` each.

    Lists stay as they are, with more than 100 videos and repeated ones (`score_ranked_list` passes
    over these).

    Args:
        path: UTF-8 text; any white space separates.

    Returns:
        identity → its videos without .mp4, best first; the file's order.

    Raises:
        VidfaceError: with the line: an identity that stands twice or ends in .mp4, control
            characters, no UTF-8. Or: no line at all, or too large.
    """
    what = f"ranked list {path}"
    ranking: dict[str, tuple[str, ...]] = {}
    for line, words in numbered_words(Path(path), FirstProblem(what), MOST_BYTES):
        where = f"{what}, line {line}"
        identity, names = split_labelled_line(words, "val", where)
        if identity in ranking:
            raise VidfaceError(f"{where}: identity '{identity}' stands twice; one line each")
        ranking[identity] = tuple(parse_video(name, where) for name in names)
    if not ranking:
        raise VidfaceError(f"{what}: no line in it; is the file empty?")
    return ranking


def write_ranked_list(
    path: str | Path, ranking: Mapping[str, Sequence[str]], *, k: int = 100
) -> None:
    """Write ranked lists as the challenge takes them, and read them back to compare.

    Args:
        path: appears complete or not at all. A line an identity, in natural order (2 before 10).
        ranking: identity → videos, best first, with .mp4 or without. Each list is written without
            repeated videos, and of these the first k.
        k: the challenge takes at most 100.

    Raises:
        VidfaceError: a name is empty or has white space or control characters, an identity ends in
            .mp4, the ranking is empty, k below 1, the file can't be written or does not give
            back the same lists.
    """
    path = Path(path)
    what = f"ranked list {path}"
    check_ranks(k)
    if not ranking:
        raise VidfaceError(f"{what}: there is no list to write")
    written: dict[str, tuple[str, ...]] = {}
    for identity in sorted(ranking, key=natural_key):
        _check_word(identity, f"{what}: identity")
        videos = tuple(dict.fromkeys(map(video_key, ranking[identity])))[:k]
        for video in videos:
            _check_word(video, f"{what}: identity '{identity}': video")
        written[identity] = videos
    lines = [
        " ".join([identity, *(video + SUFFIX for video in videos)])
        for identity, videos in written.items()
    ]
    with output_file(path) as file:
        file.write(("\n".join(lines) + "\n").encode("utf-8"))
    if read_ranked_list(path) != written:
        raise VidfaceError(f"{what}: does not read back as it was written; write it again")


def _check_word(name: str, what: str) -> None:
    """Whether a name comes back when it is read as a word of a line."""
    if not name.isprintable() or name.split() != [name] or name.endswith(SUFFIX):
        raise VidfaceError(
            f"{what} {name!r} can't stand in a list: names have no white space, "
            f"are printable and don't end in {SUFFIX}"
        )
