"""The Lightweight Face Recognition Challenge's files: its list of videos and its submissions.

Track 3 is iQIYI-VID: aligned 112x112 crops in a folder a video, a list that fixes the videos'
order, and a submission `.bin` with one descriptor a video in that order.

Source: challenges/iccv19-lfr/README.md and gen_video_feature.py in
github.com/deepinsight/insightface.
"""

from __future__ import annotations

import hashlib
import posixpath
import re
import struct
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vidface.core.errors import VidfaceError
from vidface.core.files import atomic_file
from vidface.datasets.lines import Problems, numbered_words

FILELIST = "filelist.txt"
CROP_FOLDER = "iQIYI_VID_FACE"
"""The folder of crops that the challenge's archive unpacks to."""

MOST_BYTES = 2**26
"""The largest list that is read; the challenge's has 203,848 short lines."""

MOST_COLUMNS = 512
"""The challenge's limit."""

_HEADER = struct.Struct("<4i")  # rows, cols, bytes of a row, type
_FLOAT32 = 5  # the header's last number: OpenCV's CV_32F
_LARGEST_INT32 = 2**31 - 1
_BLOCK_ROWS = 4096  # 8 MiB of 512 columns

_ABSOLUTE = re.compile(r"[/\\]|[A-Za-z]:")


def read_filelist(path: str | Path) -> tuple[str, ...]:
    """The videos that a `filelist.txt` names, in its order: the first word of each line.

    Further words of a line are passed over, and so are blank lines. `v1/`, `./v1` and `v1` are
    one name, `v1`.

    Returns:
        Names of folders, relative, with "/" between parts: at least one, each once.

    Raises:
        VidfaceError: no such file, more than 64 MiB, no video in it; or, with their lines, text
            that is not UTF-8, control characters, names that are absolute, lead upwards (`..`) or
            stand twice.

    >>> with tempfile.TemporaryDirectory() as folder:
    ...     path = Path(folder, "filelist.txt")
    ...     _ = path.write_text("video_2 31\\nvideo_1/\\n")
    ...     read_filelist(path)
    ('video_2', 'video_1')
    """
    path = Path(path)
    problems = Problems(f"filelist {path}")
    lines: dict[str, int] = {}
    for line, words in numbered_words(path, problems, MOST_BYTES):
        try:
            name = _video_name(words[0])
        except ValueError as error:
            problems.add(line, str(error))
            continue
        if name in lines:
            problems.add(line, f"{name[:80]!r} stands on line {lines[name]} already")
        lines.setdefault(name, line)
    problems.refuse()
    if not lines:
        raise VidfaceError(f"filelist {path}: names no video; is the file empty?")
    return tuple(lines)


def _video_name(word: str) -> str:
    """A folder's name without needless parts; ValueError if it may lead out of its root.

    >>> _video_name("./a//b/")
    'a/b'
    """
    if _ABSOLUTE.match(word):
        raise ValueError(f"{word[:80]!r} is an absolute path; name the folder below the crops")
    if ".." in word and ".." in re.split(r"[/\\]", word):
        raise ValueError(f"{word[:80]!r} leads upwards; name the folder below the crops")
    name = posixpath.normpath(word) if "/" in word else word  # slow, and names are many
    if name == ".":
        raise ValueError(f"{word[:80]!r} names no folder")
    return name


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


def write_submission(
    path: str | Path, descriptors: NDArray[np.float32], *, block_rows: int = _BLOCK_ROWS
) -> Submission:
    """Write descriptors as a submission file, then read it back and compare every value.

    The file appears complete or not at all, and is overwritten if it is there. Memory is needed for
    `block_rows` rows.

    Args:
        path: the `.bin` file.
        descriptors: (n, d) float32, n ≥ 1, d ≥ 1, finite, in any memory layout; a video without a
            descriptor is a row of zeros.
        block_rows: rows written at once, ≥ 1.

    Raises:
        VidfaceError: no such array, one too large for the header's int32, NaN or infinity (with
            the row), the file cannot be written, or the disk gives back something else.

    >>> with tempfile.TemporaryDirectory() as folder:
    ...     print(write_submission(Path(folder, "y1.bin"), np.eye(2, 3, dtype=np.float32)))
    Submission(y1.bin: (2, 3) float32, 0 rows of zeros, 40 bytes, sha256 3bce5473f2b0…)
    """
    path = Path(path)
    what = f"submission {path}"
    if block_rows < 1:
        raise VidfaceError(f"{what}: block_rows must be at least 1, got {block_rows}")
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
    with atomic_file(path) as file:
        file.write(_HEADER.pack(rows, cols, cols * 4, _FLOAT32))
        for start in range(0, rows, block_rows):
            block = _little_endian(descriptors[start : start + block_rows])
            _check_finite(block, start, what)
            file.write(block.data)
    return _survey(path, block_rows, written=descriptors)


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
    said = f"{what}: the header says rows {rows}, cols {cols}, cols * 4 {row_bytes}, type {kind}"
    if row_bytes != cols * 4 or kind != _FLOAT32:
        _, other_cols, other_row_bytes, other_kind = struct.unpack(">4i", head)
        if other_kind == _FLOAT32 and other_row_bytes == other_cols * 4:
            raise VidfaceError(f"{what}: is big-endian; a submission is little-endian")
        wrong = "the third must be 4 times the second"
        if kind != _FLOAT32:
            wrong = f"the fourth must be {_FLOAT32}, float32"
        raise VidfaceError(f"{said}; {wrong}: not a submission")
    if min(rows, cols) < 1:
        raise VidfaceError(f"{said}; rows and cols must be at least 1")
    return rows, cols


def check_submission(
    path: str | Path, filelist: str | Path, *, max_columns: int = MOST_COLUMNS
) -> Submission:
    """Read a submission in full and check that the challenge's server would take it.

    Args:
        path: the `.bin` file.
        filelist: as `read_filelist` reads it; the submission has a row for each of its videos.
        max_columns: the challenge's limit.

    Raises:
        VidfaceError: what `read_filelist` and `read_submission` refuse, too many columns, another
            number of rows than videos, or NaN or infinity (with the row).
    """
    path = Path(path)
    videos = len(read_filelist(filelist))
    rows, cols = read_submission(path).shape
    if cols > max_columns:
        raise VidfaceError(f"submission {path}: {cols} columns where {max_columns} are allowed")
    if rows != videos:
        raise VidfaceError(
            f"submission {path}: {rows} rows, but {filelist} names {videos} videos; each needs a "
            "row, zeros if it has no descriptor"
        )
    return _survey(path, _BLOCK_ROWS)


def _survey(
    path: Path, block_rows: int, *, written: NDArray[np.float32] | None = None
) -> Submission:
    """Read every value of the file, and compare it with what was written if that is given."""
    what = f"submission {path}"
    matrix = read_submission(path)
    rows, cols = matrix.shape
    differs = f"{what}: the disk gave back something else than was written; write it again"
    if written is not None and written.shape != matrix.shape:
        raise VidfaceError(differs)
    digest = hashlib.sha256(_HEADER.pack(rows, cols, cols * 4, _FLOAT32))
    zero_rows = 0
    for start in range(0, rows, block_rows):
        block = matrix[start : start + block_rows]
        if written is not None:
            expected = _little_endian(written[start : start + block_rows])
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
