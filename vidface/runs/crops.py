"""The crops that an extraction kept, clip by clip."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray

from vidface.core.errors import UsageError, VidfaceError
from vidface.runs.artefacts import read_parquet, read_shard
from vidface.runs.clip_drawing import ClipFaces
from vidface.runs.columns import CROPS_SCHEMA, check_columns
from vidface.runs.denoising import Denoising
from vidface.runs.run import Run
from vidface.runs.run_folder import RunFolder

_LOOK_FOR_NAMES_IN = 200_000  # clip ids; difflib needs one or two seconds for them


def read_clip_faces(run: Run, clip_id: str, denoising: Denoising) -> ClipFaces:
    """The faces of a clip with their crops, as a clustering sees them.

    Args:
        denoising: whose clustering.

    Raises:
        VidfaceError: as `find_crops`; no such clustering, or one that does not fit the crops.
    """
    number, crops = find_crops(run.folder, clip_id)
    shard, _ = read_shard(run.folder.shard_path(number))
    folder = run.folder.clustering(denoising.name)
    if not (folder / "faces.parquet").is_file():
        raise VidfaceError(
            f"run directory {run.folder.folder}: no clustering at {denoising}; "
            "run `vidface cluster` with these settings first"
        )
    faces, made = read_parquet(folder / "faces.parquet", [("clip_id", "=", clip_id)])
    _, of_descriptors = read_parquet(folder / "descriptors.parquet")
    if made["created"] != of_descriptors["created"]:  # a `cluster` was killed in between
        raise VidfaceError(f"{folder}: of two clusterings; `vidface cluster` again")
    keys = ("frame_index", "face_index")
    if [crops.column(k).to_pylist() for k in keys] != [faces.column(k).to_pylist() for k in keys]:
        raise VidfaceError(
            f"clip {clip_id}: crops and clusters do not fit; `vidface cluster` again"
        )
    clusters = faces.column("cluster").to_numpy()
    if not denoising.denoiser.makes_clusters:
        # Dropped, and no second person: 2 is drawn without a second frame.
        clusters = np.where(clusters == 1, 2, clusters)
    return ClipFaces(
        clip_id,
        crops.column("jpeg").to_pylist(),
        clusters,
        faces.column("similarity").to_numpy(zero_copy_only=False).astype(np.float32),
        caption_faces(shard.table.filter(pc.equal(shard.table.column("clip_id"), clip_id))),
    )


def find_crops(folder: RunFolder, clip_id: str) -> tuple[int, pa.Table]:
    """The crops of one clip, in time order, and the number of the shard that holds them.

    Of each shard only the column `clip_id` is read; then, of the shard that has the clip, the rows
    of the clip, a few hundred at a time.

    Returns:
        number: of the shard, as in `folder.crops_path(number)` and `folder.shard_path(number)`.
        table: the columns of `vidface.runs.CROPS_SCHEMA`, a row a face.

    Raises:
        VidfaceError: no finished extraction, one without crops, a clip that is not in it (with
            names that are close) or that has no face, a damaged shard.
    """
    clips, _ = folder.read_clips()
    row = pc.index(clips.column("clip_id"), pa.scalar(clip_id, pa.string())).as_py()
    if row < 0:
        raise UsageError(_unknown_clip(folder, clip_id, clips.column("clip_id")))
    shards = _crops_shards(folder)
    if not shards:
        raise VidfaceError(
            f"run directory {folder.folder} was extracted without crops; extract with --keep-crops"
        )
    for number, path in shards:
        table = _read_rows_of(path, clip_id)
        if len(table):
            return number, table
    state, message = (clips.column(name)[row].as_py() for name in ("state", "message"))
    raise VidfaceError(
        f"clip {_quoted(clip_id)} has no faces to show ({state}{message and ': '}{message})"
    )


def _crops_shards(folder: RunFolder) -> list[tuple[int, Path]]:
    names = re.compile(r"shard-([0-9]+)\.parquet")
    paths = (folder.folder / "crops").glob("shard-*.parquet")
    matches = ((names.fullmatch(path.name), path) for path in paths)
    return sorted((int(match[1]), path) for match, path in matches if match)


def _read_rows_of(path: Path, clip_id: str) -> pa.Table:
    with open_crops(path) as shard:
        ids = shard.read(columns=["clip_id"]).column("clip_id")
        rows = np.flatnonzero(pc.equal(ids, clip_id).to_numpy(zero_copy_only=False))
        batches = list(take_crops(shard, rows))
        table = pa.Table.from_batches(batches, batches[0].schema if batches else CROPS_SCHEMA)
        check_columns(table, path)
        return table


@contextmanager
def open_crops(path: Path) -> Iterator[pq.ParquetFile]:
    """A shard of crops, open for reading.

    Raises:
        VidfaceError: it cannot be read, now or within the block.
    """
    try:
        # Buffered ahead, the column with its 64,000 JPEGs would be read at once.
        with pq.ParquetFile(path, pre_buffer=False, buffer_size=2**20) as shard:
            # Columns that are not there would be passed over in silence.
            check_columns(shard.schema_arrow.empty_table(), path)
            yield shard
    except (pa.ArrowException, OSError, KeyError, ValueError) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise VidfaceError(
            f"{path}: unreadable crops ({reason}); run `vidface extract` again with --force"
        ) from None


def take_crops(shard: pq.ParquetFile, rows: NDArray[np.int64]) -> Iterator[pa.RecordBatch]:
    """The rows of a shard, which rise; a few hundred crops are read at once."""
    start = 0
    batches = shard.iter_batches(batch_size=256, columns=CROPS_SCHEMA.names) if len(rows) else ()
    for batch in batches:
        stop = start + len(batch)
        here = rows[(rows >= start) & (rows < stop)] - start
        if len(here):
            yield batch.take(pa.array(here))
        if stop > rows[-1]:
            break
        start = stop


def caption_faces(rows: pa.Table) -> list[str]:
    """When each face was seen, or the name of its file, or the number of its frame."""
    columns = (rows.column(name).to_pylist() for name in ("time_seconds", "file", "frame_index"))
    return [
        f"{time:.2f} s" if time is not None else Path(file or "").name or f"frame {frame}"
        for time, file, frame in zip(*columns, strict=True)
    ]


def _unknown_clip(folder: RunFolder, clip_id: str, ids: pa.ChunkedArray) -> str:
    text = f"clip {_quoted(clip_id)} is not in run directory {folder.folder} ({len(ids):,} clips)"
    names = ids.slice(0, _LOOK_FOR_NAMES_IN).to_pylist()
    close = difflib.get_close_matches(clip_id[:200], names)
    if close:
        return f"{text}; did you mean {' or '.join(map(_quoted, close))}?"
    return f"{text}; the first is {_quoted(names[0])}" if names else text


def _quoted(clip_id: str) -> str:
    return repr(clip_id if len(clip_id) <= 200 else clip_id[:199] + "…")
