"""Truth: which frames of a clip are known to be noise, and how well a denoiser found them.

A truth is a CSV file (UTF-8) with the columns `clip_id`; `file` or `frame_index`; and `kind` ("own"
is the clip's person, anything else is noise) or `noise` (0 or 1). It speaks of frames: every face
of a frame that is noise is noise.
"""

from __future__ import annotations

import posixpath
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from vidface.core.errors import VidfaceError
from vidface.core.files import csv_rows
from vidface.storage.media import TarRoot

if TYPE_CHECKING:
    import pyarrow as pa

OWN = "own"
"""The `kind` that is not noise."""

MOST_BYTES = 2**26
"""The largest truth that is read."""

FRAME_COLUMNS = ("file", "frame_index")
VERDICT_COLUMNS = ("kind", "noise")
_WANTED = "clip_id, one of file and frame_index, and one of kind and noise"
_LARGEST_INDEX = 2**31 - 1  # what the artefact's frame_index can hold

Frame = tuple[str, str | int]  # clip_id, and a file's base name or a frame_index


@dataclass(frozen=True)
class Truth:
    """What is known of a set of frames. `frame_column` is "file" or "frame_index"."""

    path: Path
    frame_column: str
    noise: Mapping[Frame, bool] = field(repr=False)

    def __str__(self) -> str:
        count = sum(self.noise.values())
        return f"Truth({self.path.name}: {len(self.noise)} frames, {count} of them noise)"

    def noise_of(self, table: pa.Table) -> NDArray[np.bool_]:
        """Which faces of an embeddings artefact are noise.

        Frames of the truth without a face in the table are passed over: there, no face was found.

        Args:
            table: rows of embeddings (`vidface.runs.columns.embeddings_schema`): clip_id, and the
                column that the truth goes by. A file is known by its name without folders.

        Returns:
            (n_rows,) bool.

        Raises:
            VidfaceError: a column that is missing or null (videos have no files), or faces in
                frames that the truth does not know: how many, and the first one's clip and frame.
        """
        for column in ("clip_id", self.frame_column):
            if column not in table.column_names:
                raise VidfaceError(f"truth {self.path}: the embeddings have no column '{column}'")
        clip_ids = table.column("clip_id").to_pylist()
        frames = table.column(self.frame_column).to_pylist()
        if None in frames:
            row = frames.index(None)
            raise VidfaceError(
                f"truth {self.path} goes by {self.frame_column}, but a face of clip "
                f"'{clip_ids[row]}' has none ({frames.count(None)} of {len(frames)} faces); "
                "a truth for videos goes by frame_index"
            )
        if self.frame_column == "file":
            frames = [posixpath.basename(name) for name in frames]
        verdicts = [self.noise.get(key) for key in zip(clip_ids, frames, strict=True)]
        if None in verdicts:
            row = verdicts.index(None)
            raise VidfaceError(
                f"truth {self.path} says nothing of {verdicts.count(None)} of {len(verdicts)} "
                f"faces; the first is of clip '{clip_ids[row]}', "
                f"{self.frame_column} {frames[row]}; "
                "add their frames, or take the truth of these clips"
            )
        return np.array(verdicts, dtype=np.bool_)


def read_truth(path: str | Path) -> Truth:
    """Read and check a truth.

    Args:
        path: a CSV file on disk, or one inside an uncompressed tar, which is read in place:
            `clips.tar/folder/truth.csv`.

    Raises:
        VidfaceError: no such file, more than 64 MiB, not UTF-8, columns that are missing, unknown
            or too many, or a line that is wrong or says again what another one says; with the file
            and the line.
    """
    path = Path(path)
    data = _read_bytes(path)
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise VidfaceError(f"truth {path}, line {line}: not UTF-8; save it as UTF-8") from None
    rows = csv_rows(text, f"truth {path}")
    _, header = next(rows, (0, []))
    frame_column, verdict_column = _find_columns(header, path)
    places = [header.index(name) for name in ("clip_id", frame_column, verdict_column)]

    noise: dict[Frame, bool] = {}
    lines: dict[Frame, int] = {}
    for line, fields in rows:
        try:
            if len(fields) != len(header):
                raise ValueError(f"{len(fields)} fields where the header has {len(header)}")
            clip_id, frame, verdict = (fields[place] for place in places)
            if not clip_id:
                raise ValueError("empty clip_id")
            key = clip_id, _parse_frame(frame, frame_column)
            if key in lines:
                raise ValueError(
                    f"clip '{clip_id}', {frame_column} {key[1]} stands on line {lines[key]} already"
                )
            noise[key] = _parse_verdict(verdict, verdict_column)
        except ValueError as error:
            raise VidfaceError(f"truth {path}, line {line}: {error}") from None
        lines[key] = line
    if not noise:
        raise VidfaceError(f"truth {path}: no frames below the header")
    return Truth(path, frame_column, noise)


@dataclass(frozen=True)
class NoiseRemoval:
    """How well noise was found. Counts are of faces.

    >>> NoiseRemoval(dropped=4, noise=6, both=3).precision
    0.75
    """

    dropped: int
    noise: int
    both: int  # noise that was dropped

    def __add__(self, other: NoiseRemoval) -> NoiseRemoval:
        """The counts of both, of different faces, together."""
        return NoiseRemoval(
            self.dropped + other.dropped, self.noise + other.noise, self.both + other.both
        )

    @property
    def precision(self) -> float | None:
        """Which share of what was dropped is noise, in [0, 1]; None where nothing was dropped."""
        return self.both / self.dropped if self.dropped else None

    @property
    def recall(self) -> float | None:
        """Which share of the noise was dropped, in [0, 1]; None where there is no noise."""
        return self.both / self.noise if self.noise else None

    def to_dict(self) -> dict[str, Any]:
        return {**asdict(self), "precision": self.precision, "recall": self.recall}


def precision_recall(dropped: NDArray[np.bool_], noise: NDArray[np.bool_]) -> NoiseRemoval:
    """Compare what was dropped with what is noise.

    Args:
        dropped: (n,) bool, a face each: `labels != 0` for all that a denoiser does not keep.
        noise: (n,) bool, as `Truth.noise_of` gives it.

    Raises:
        VidfaceError: not two bool arrays of one length.

    >>> import numpy as np
    >>> precision_recall(np.array([True, True, False]), np.array([True, False, False])).to_dict()
    {'dropped': 2, 'noise': 1, 'both': 1, 'precision': 0.5, 'recall': 1.0}
    """
    dropped, noise = np.asarray(dropped), np.asarray(noise)
    fit = dropped.ndim == 1 and dropped.shape == noise.shape
    if not fit or dropped.dtype != np.bool_ or noise.dtype != np.bool_:
        raise VidfaceError(
            "dropped and noise must be (n,) bool, one a face, got the shapes "
            f"{dropped.shape} of {dropped.dtype} and {noise.shape} of {noise.dtype}"
        )
    counts = (np.count_nonzero(faces) for faces in (dropped, noise, dropped & noise))
    return NoiseRemoval(*(int(count) for count in counts))


def _read_bytes(path: Path) -> bytes:
    try:
        if path.is_file():
            with path.open("rb") as file:
                data = file.read(MOST_BYTES + 1)
            return _check_size(data, len(data), path)
        archive = next((parent for parent in path.parents if parent.is_file()), None)
        if archive is not None:
            return _read_member(archive, path)
        reason = "is a folder; name the CSV file in it" if path.is_dir() else "no such file"
    except (OSError, ValueError) as error:  # ValueError: a NUL byte
        reason = getattr(error, "strerror", None) or str(error)
    raise VidfaceError(f"truth {path}: {reason}")


def _read_member(archive: Path, path: Path) -> bytes:
    name = path.relative_to(archive).as_posix()
    try:
        root = TarRoot(archive)
    except VidfaceError as error:
        raise VidfaceError(f"truth {path}: {error}") from None
    if root.kind(name) != "file":
        raise VidfaceError(f"truth {path}: no file '{name}' in {archive}")
    _check_size(b"", root.size(name), path)
    return root.read(name)


def _check_size(data: bytes, size: int, path: Path) -> bytes:
    if size > MOST_BYTES:
        raise VidfaceError(f"truth {path}: more than {MOST_BYTES} bytes; is it a truth?")
    return data


def _find_columns(header: Sequence[str], path: Path) -> tuple[str, str]:
    """Which columns name the frame and the verdict."""
    frames = [name for name in header if name in FRAME_COLUMNS]
    verdicts = [name for name in header if name in VERDICT_COLUMNS]
    if (
        len(frames) != 1
        or len(verdicts) != 1
        or sorted(header) != sorted(["clip_id", *frames, *verdicts])
    ):
        named = ",".join(header)[:200] or "nothing"
        raise VidfaceError(
            f"truth {path}, line 1: the header must name {_WANTED}, and nothing else; "
            f"it names {named}"
        )
    return frames[0], verdicts[0]


def _parse_frame(text: str, column: str) -> str | int:
    if column == "file":
        name = posixpath.basename(text)
        if not name:
            raise ValueError(f"file '{text[:80]}' names no file")
        return name
    if not (text.isascii() and text.isdigit() and len(text) <= 10 and int(text) <= _LARGEST_INDEX):
        raise ValueError(f"frame_index '{text[:80]}' is not a whole number from 0 to 2³¹ − 1")
    return int(text)


def _parse_verdict(text: str, column: str) -> bool:
    if column == "noise":
        if text not in ("0", "1"):
            raise ValueError(f"noise '{text[:80]}' is neither 0 nor 1")
        return text == "1"
    # "Own" would pass for noise, and nobody would see it.
    if not text or (text != OWN and text.casefold() == OWN):
        raise ValueError(f"kind '{text[:80]}': write '{OWN}', or what kind of noise it is")
    return text != OWN
