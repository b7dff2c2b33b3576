"""Embeddings that somebody's own program computed: rows with clip ids, from arrays or files."""

from __future__ import annotations

import tokenize
import zipfile
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vidface.core.errors import VidfaceError, first_line
from vidface.core.files import named_errors
from vidface.core.values import cell_text
from vidface.datasets.iqiyi import video_key
from vidface.datasets.iqiyi_features import VideoFeatures
from vidface.datasets.lines import (
    FirstProblem,
    decoded_lines,
    named_columns,
    open_list,
    single_places,
)

COLUMNS: dict[str, tuple[str, ...]] = {
    "clip_id": ("clip_id", "clip_ids", "id", "ids"),
    "embedding": ("embedding", "embeddings", "vector", "vectors"),
    "frame_index": ("frame_index", "frame"),
    "identity": ("identity", "identities", "person", "label"),
    "split": ("split", "splits"),
}
"""What a file may call its columns; the first two must be there."""

ROWS_AT_ONCE = 2**14  # whose norms are computed
MOST_BYTES = 2**36  # that a file may say it unpacks to


@dataclass(frozen=True, eq=False)
class EmbeddingRows:
    """n rows of embeddings, each of one face. Checked when made."""

    what: str  # for messages
    clip_ids: list[str]  # (n,)
    embeddings: NDArray[Any]  # (n, d) real numbers
    frame_index: NDArray[Any] | None = None  # (n,) whole; rows of one frame are its faces
    labels: Mapping[str, list[str]] = field(default_factory=dict)  # identity and split, (n,) each

    def __post_init__(self) -> None:
        shape, dtype = self.embeddings.shape, self.embeddings.dtype
        if len(shape) != 2 or 0 in shape or dtype.kind not in "fiu":
            raise VidfaceError(
                f"{self.what}: embeddings must be a table of numbers, (n, d), got {shape} {dtype}"
            )
        frames = self.frame_index
        for name, column in {
            "clip_id": self.clip_ids,
            "frame_index": frames,
            **self.labels,
        }.items():
            if column is not None and len(column) != len(self.embeddings):
                raise VidfaceError(
                    f"{self.what}: {len(column)} of {name} for {len(self.embeddings)} embeddings"
                )
        for row, clip_id in enumerate(self.clip_ids):
            if not clip_id or clip_id != clip_id.strip():
                raise VidfaceError(f"{self.what}: row {row} (from 0) has the clip id {clip_id!r}")
        if frames is not None and not (
            frames.ndim == 1
            and frames.dtype.kind in "iu"
            and 0 <= frames.min() <= frames.max() < 2**31
        ):
            raise VidfaceError(f"{self.what}: frame_index must be whole numbers from 0 below 2^31")

    def __str__(self) -> str:
        n, d = self.embeddings.shape
        return f"EmbeddingRows({self.what}: ({n}, {d}) of {len(set(self.clip_ids))} clips)"

    def describe_lengths(self) -> str:
        """What is to be said of rows that are not of length 1; empty where all are.

        Raises:
            VidfaceError: a row that is NaN, infinite or zero, and so has no direction.
        """
        starts = range(ROWS_AT_ONCE, len(self.embeddings), ROWS_AT_ONCE)
        blocks = np.split(self.embeddings, starts)  # views: an .npy is read a block at a time
        with np.errstate(over="ignore", invalid="ignore"):
            norms = np.concatenate([np.linalg.norm(block.astype("f8"), axis=1) for block in blocks])
            usable = (norms > 0) & (norms < float(np.finfo("f4").max))
        if not usable.all():
            row = int(np.argmin(usable))
            raise VidfaceError(
                f"{self.what}: {int((~usable).sum())} of {len(norms)} rows are NaN, infinite or "
                f"zero, row {row} (from 0, clip '{self.clip_ids[row]}') first; leave them out"
            )
        low, high = float(norms.min()), float(norms.max())
        if max(high - 1, 1 - low) <= 1e-2:
            return ""
        return f"{self.what}: rows of length {low:.3g} to {high:.3g} are scaled to length 1"


def make_rows(what: str, columns: Mapping[str, Any]) -> EmbeddingRows:
    """Rows from columns as `COLUMNS` calls them; None stands for one that is not there.

    Raises:
        VidfaceError: no ids or no embeddings, counts that differ, no numbers.
    """
    there = {name: column for name, column in columns.items() if column is not None}
    for name in ("clip_id", "embedding"):
        if name not in there:
            known = ", ".join(COLUMNS[name])
            raise VidfaceError(f"{what}: no column {name} (known as: {known})")
    texts: dict[str, list[str]] = {
        name: [cell_text(value) for value in there[name]]
        for name in ("clip_id", "identity", "split")
        if name in there
    }
    try:
        vectors = np.asarray(there["embedding"])
        frames = np.asarray(there["frame_index"]) if "frame_index" in there else None
    except (ValueError, TypeError, RuntimeError) as error:  # ragged; a tensor that trains
        raise VidfaceError(f"{what}: want arrays of plain numbers ({first_line(error)})") from None
    return EmbeddingRows(what, texts.pop("clip_id"), vectors, frames, texts)


def read_embeddings(path: Path) -> EmbeddingRows:
    """The rows of a file with clip ids.

    Args:
        path: an .npy, whose ids stand in a .txt of the same name beside it, one a line, and which
            stays on disk; or an .npz or .parquet with columns as `COLUMNS` calls them.

    Raises:
        VidfaceError: no such file, damaged, without ids, counts that differ, no numbers.
    """
    what = f"embeddings {path}"
    reader = READERS.get(path.suffix.lower())
    if reader is None:
        raise VidfaceError(f"{what}: save them as {', '.join(READERS)}")
    try:
        with named_errors(what):
            return make_rows(what, reader(path, what))
    except DAMAGE as error:
        raise VidfaceError(f"{what}: damaged, or no plain numbers ({first_line(error)})") from None


def iter_embeddings(path: Path) -> Iterator[VideoFeatures]:
    """The rows of a file, clip after clip, in order of first appearance; as `iter_features`.

    Within a clip rows are in the order of their frames, if the file has such; else each row is a
    frame of its own.

    Raises:
        VidfaceError: as `read_embeddings`; ids that differ in `.mp4` alone.
    """
    listed = read_embeddings(path)
    rows: dict[str, list[int]] = {}
    id_of: dict[str, str] = {}
    for row, clip_id in enumerate(listed.clip_ids):
        video = video_key(clip_id)
        if id_of.setdefault(video, clip_id) != clip_id:
            raise VidfaceError(f"{listed.what}: '{video}' stands twice, with .mp4 and without")
        rows.setdefault(video, []).append(row)
    for video, its_rows in rows.items():
        chosen, frames = np.array(its_rows), np.arange(len(its_rows))
        if listed.frame_index is not None:
            chosen = chosen[np.argsort(listed.frame_index[chosen], kind="stable")]
            frames = listed.frame_index[chosen]
        vectors = np.asarray(listed.embeddings[chosen])
        with np.errstate(over="ignore"):  # beyond float32 is infinite
            kept = vectors if vectors.dtype == np.float16 else vectors.astype(np.float32)
        texts = tuple(map(str, frames.tolist()))
        yield VideoFeatures(video, texts, frames.astype(np.int32), None, None, None, kept)


def _read_npy(path: Path, what: str) -> dict[str, Any]:
    array = np.lib.format.open_memmap(path, mode="r")  # refuses what is not of plain values
    beside = path.with_suffix(".txt")
    if not beside.is_file():
        raise VidfaceError(
            f"{what}: no clip ids; write them to {beside.name} beside it, one a line, or save an "
            ".npz with clip_id and embedding"
        )
    ids = f"clip ids {beside}"
    with open_list(beside, ids) as file:
        lines = [text.strip() for _, text in decoded_lines(file, FirstProblem(ids))]
    while lines and not lines[-1]:  # as editors leave them
        lines.pop()
    return {"embedding": array, "clip_id": lines}


def _read_npz(path: Path, what: str) -> dict[str, Any]:
    with zipfile.ZipFile(path) as archive:
        _check_size(sum(member.file_size for member in archive.infolist()), what)
    with np.load(path, allow_pickle=False) as archive:
        columns = {
            name: np.asarray(archive[key]) for name, key in _find_columns(archive.files, what)
        }
    for name, column in columns.items():
        if name != "embedding" and column.ndim != 1:
            raise VidfaceError(f"{what}: {name} must be (n,), got {column.shape}")
    return columns


def _read_parquet(path: Path, what: str) -> dict[str, Any]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        metadata = pq.read_metadata(path)
        groups = [metadata.row_group(i) for i in range(metadata.num_row_groups)]
        _check_size(sum(group.total_byte_size for group in groups), what)
        names = _find_columns(metadata.schema.to_arrow_schema().names, what)
        table = pq.read_table(path, columns=[key for _, key in names])
        columns = {name: table[key].combine_chunks() for name, key in names}
        if (vectors := columns.pop("embedding", None)) is None:
            return columns
        values = vectors.flatten()
        widths = vectors.value_lengths().unique().to_pylist()
        if len(widths) > 1 or vectors.null_count or values.null_count:
            raise VidfaceError(f"{what}: its embeddings are null or of several lengths")
        columns = {name: column.to_pylist() for name, column in columns.items()}
        flat = values.to_numpy(zero_copy_only=False)
        return {**columns, "embedding": flat.reshape(len(vectors), *(widths or [0]))}
    except AttributeError as error:
        raise VidfaceError(f"{what}: no lists of numbers ({first_line(error)})") from None
    except pa.ArrowException as error:
        raise ValueError(error) from None


def _check_size(unpacked_bytes: int, what: str) -> None:
    if unpacked_bytes > MOST_BYTES:
        raise VidfaceError(f"{what}: unpacks to more than 64 GiB; save it as .npy, or as several")


def _find_columns(keys: Iterable[str], what: str) -> list[tuple[str, str]]:
    """Our name and the file's of each column that it has."""
    places = named_columns(fields := list(keys), COLUMNS)
    return [(name, fields[i]) for name, i in single_places(places, fields, what).items()]


READERS: dict[str, Callable[[Path, str], dict[str, Any]]] = {
    ".npy": _read_npy,
    ".npz": _read_npz,
    ".parquet": _read_parquet,
}

DAMAGE = (ValueError, EOFError, KeyError, MemoryError, NotImplementedError, RuntimeError,
          SystemError, tokenize.TokenError, zipfile.BadZipFile, zlib.error)  # fmt: skip
"""What NumPy and zipfile raise of files that they can't read."""
