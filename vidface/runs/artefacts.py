"""Artefacts: what each stage hands to the next, with its provenance, written atomically.

A run directory holds

    embeddings/shard-00000.arrow …   a row a face (Arrow IPC, uncompressed: mapped, never copied)
    crops/shard-00000.parquet …      with keep_crops: the aligned faces as JPEGs, row for row
    clips.parquet                    a row for every line of the manifest; written last
    profile.json                     where the time went
    .extracting/                     an extraction that is not finished (`vidface.runs.staging`)
    linkage/shard-00000.arrow …      spanning trees of the faces, row for row: any threshold's cut
    linkage/apart_0.7/ …             likewise, where faces of one frame stay apart
    clusters/threshold_0.4/          faces.parquet (labels), descriptors.parquet (a row a clip)
    scores/, sweeps/                 JSON

Every dataset carries its provenance as JSON under the schema metadata key `vidface`. A stage
compares it with what it was asked for, and refuses what does not fit.
"""

from __future__ import annotations

import datetime
import json
import platform
import shlex
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any, cast

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from vidface.core.digests import check_digest
from vidface.core.errors import VidfaceError
from vidface.core.files import atomic_file
from vidface.core.redaction import redacted_argument
from vidface.core.version import __version__
from vidface.frames.decoders import DECODERS
from vidface.runs.columns import check_columns

FORMAT_VERSION = 1
METADATA_KEY = b"vidface"
CLIPS_SHA256 = "manifest.clips_sha256"
"""The setting that says of which clips an artefact is."""


def provenance(stage: str, settings: Mapping[str, Any], **more: Any) -> dict[str, Any]:
    """What a dataset says of its making: the command, versions, settings, and when."""
    return {
        "format_version": FORMAT_VERSION,
        "stage": stage,
        "settings": dict(settings),
        "vidface_version": __version__,
        "versions": _versions(),
        "command": _command(),
        "created": datetime.datetime.now(datetime.UTC).isoformat(timespec="microseconds"),
        **more,
    }


def _command() -> str | None:
    """What was typed, without secrets of URLs; None where a program calls vidface."""
    if Path(sys.argv[0]).name not in ("vidface", "vidface.exe", "__main__.py"):
        return None
    return shlex.join(["vidface", *map(redacted_argument, sys.argv[1:])])


def _versions() -> dict[str, str]:
    names = (
        "numpy",
        "pyarrow",
        *(name for decoder in DECODERS.values() for name in decoder.distributions),
        "opencv-python-headless",
        "onnxruntime",
        "openvino",
        "torch",
    )
    versions = {"python": platform.python_version()}
    for name in names:
        try:
            versions[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return versions


def list_differences(made: Mapping[str, Any], wanted: Mapping[str, Any]) -> list[str]:
    """`fps: 8.0 (there) ≠ 4.0 (asked for)` for every setting that differs."""
    lines = []
    for key in sorted(set(made) | set(wanted)):
        # JSON turns tuples into lists: compare what would be read back.
        there, asked = made.get(key), json.loads(json.dumps(wanted.get(key)))
        if there != asked:
            lines.append(f"{key}: {_short(there)} (there) ≠ {_short(asked)} (asked for)")
    return lines


def _short(value: Any) -> str:
    text = "none" if value is None else str(value)
    return text[:12] + "…" if len(text) == 64 else text


def check_fit(made: Mapping[str, Any], wanted: Mapping[str, Any], what: Path, remedy: str) -> None:
    """Refuse an input whose provenance does not fit, and say which setting differs.

    Of which clips it is may differ: that is compared clip by clip (`vidface.runs.clip_changes`).

    Raises:
        VidfaceError: another format version, or settings that differ.
    """
    version = made.get("format_version")
    if version != FORMAT_VERSION:
        raise VidfaceError(f"{what}: format version {version}, this vidface reads {FORMAT_VERSION}")
    there, asked = ({**settings, CLIPS_SHA256: None} for settings in (made["settings"], wanted))
    lines = list_differences(there, asked)
    if lines:
        raise VidfaceError(f"{what} was made with other settings: {'; '.join(lines)}; {remedy}")


def write_arrow(path: Path, table: pa.Table, made: Mapping[str, Any]) -> None:
    """Write one shard as an uncompressed Arrow IPC file of a single batch."""
    table = table.replace_schema_metadata(_stamp(made)).combine_chunks()
    with atomic_file(path, digest=True) as file, pa.ipc.new_file(file, table.schema) as writer:
        writer.write_table(table, max_chunksize=max(1, table.num_rows))


def write_parquet(path: Path, table: pa.Table, made: Mapping[str, Any]) -> None:
    """Write a table as Parquet, with its provenance."""
    with parquet_writer(path, table.schema, made) as write:
        write(table)


@contextmanager
def parquet_writer(
    path: Path, schema: pa.Schema, made: Mapping[str, Any]
) -> Iterator[Callable[[pa.Table], None]]:
    """A function that adds tables to a Parquet file, which appears when all are written."""
    stamp = _stamp(made)
    stamped = schema.with_metadata(stamp)
    with (
        atomic_file(path, digest=True) as file,
        pq.ParquetWriter(file, stamped, compression="zstd") as writer,
    ):
        yield lambda table: writer.write_table(table.replace_schema_metadata(stamp))


def read_arrow(path: Path) -> tuple[pa.Table, dict[str, Any]]:
    """A mapped Arrow artefact and its provenance.

    Raises:
        VidfaceError: damaged, or not one of vidface's.
    """
    check_digest(path, remake_remedy(path))
    with _readable(path):
        table = pa.ipc.open_file(pa.memory_map(str(path))).read_all()
        table.validate(full=True)  # a stranger's offsets may lead anywhere
        check_columns(table, path)
    return table, _provenance_of(table.schema, path)


def _stamp(made: Mapping[str, Any]) -> dict[bytes, str]:
    return {METADATA_KEY: json.dumps(dict(made))}


def read_parquet(
    path: Path, filters: list[tuple[str, str, Any]] | None = None
) -> tuple[pa.Table, dict[str, Any]]:
    """A Parquet artefact and its provenance.

    Args:
        filters: of its rows, as pyarrow takes them; None for all rows.

    Raises:
        VidfaceError: damaged, or not one of vidface's.
    """
    check_digest(path, remake_remedy(path))
    with _readable(path):
        table = pq.read_table(path, filters=filters, partitioning=None)
        check_columns(table, path)
    return table, _provenance_of(table.schema, path)


def read_provenance(path: Path) -> dict[str, Any]:
    """The provenance of an artefact, Parquet or Arrow, without its rows.

    Raises:
        VidfaceError: damaged, or not one of vidface's.
    """
    with _readable(path):
        if path.suffix == ".arrow":
            schema = pa.ipc.open_file(pa.memory_map(str(path))).schema
        else:
            schema = pq.read_schema(path)
    return _provenance_of(schema, path)


def read_dimension(path: Path) -> int:
    """d of the embeddings of a shard.

    Raises:
        VidfaceError: damaged, or not one of vidface's.
    """
    with _readable(path):
        schema = pa.ipc.open_file(pa.memory_map(str(path))).schema
        return int(schema.field("embedding").type.list_size)


@contextmanager
def _readable(path: Path) -> Iterator[None]:
    """Say in one line what Arrow says of a damaged file."""
    try:
        yield
    except (
        pa.ArrowException,
        OSError,
        LookupError,
        AttributeError,
        ValueError,
        SystemError,
    ) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise VidfaceError(
            f"{path}: unreadable artefact ({reason}); {remake_remedy(path)}"
        ) from None


def remake_remedy(path: Path) -> str:
    """The words that say which command makes an artefact again."""
    if path.parent.name in ("scores", "sweeps"):
        return f"`vidface {path.parent.name.removesuffix('s')}` makes it again"
    if path.parent.parent.name == "clusters":
        return "`vidface cluster` makes it again"
    if "linkage" in (path.parent.name, path.parent.parent.name):
        return "remove it, and `vidface cluster` makes it again"
    return "`vidface extract --force` makes it again"


def _provenance_of(schema: pa.Schema, path: Path) -> dict[str, Any]:
    try:
        made = json.loads((schema.metadata or {})[METADATA_KEY])
        whole = isinstance(made["settings"], dict) and isinstance(made["created"], str)
    except (KeyError, ValueError, TypeError, RecursionError):
        whole = False
    if not whole:
        raise VidfaceError(f"{path}: no vidface provenance in it; it is not an artefact")
    return cast(dict[str, Any], made)


@dataclass(frozen=True)
class EmbeddingShard:
    """One shard of embeddings, mapped. Clip c owns the rows [offsets[c], offsets[c+1])."""

    path: Path
    clip_ids: tuple[str, ...]  # (n_clips,)
    offsets: np.ndarray  # (n_clips + 1,) int64
    embeddings: np.ndarray  # (n_faces, d) float32, read-only view of the file
    table: pa.Table

    def __post_init__(self) -> None:
        if len(self.offsets) != len(self.clip_ids) + 1 or self.offsets[-1] != len(self.embeddings):
            raise VidfaceError(f"{self.path}: offsets do not fit the rows; extract again")

    @property
    def frames(self) -> np.ndarray:
        """(n_faces,) int32: which frame of its clip each face is in."""
        return self.table.column("frame_index").to_numpy()

    def __str__(self) -> str:
        faces, dimension = self.embeddings.shape
        return f"EmbeddingShard({len(self.clip_ids)} clips, {faces} faces x {dimension} float32)"


def read_shard(path: Path) -> tuple[EmbeddingShard, dict[str, Any]]:
    """Map one embeddings shard; nothing is copied.

    Raises:
        VidfaceError: damaged, or clips that do not stand together.
    """
    table, made = read_arrow(path)
    with _readable(path):
        column = table.column("embedding")
        dimension = column.type.list_size
        flat = [chunk.flatten().to_numpy(zero_copy_only=True) for chunk in column.chunks]
        clip_ids, offsets = runs_of(table.column("clip_id"))
    values = flat[0] if len(flat) == 1 else np.concatenate([np.empty(0, np.float32), *flat])
    if len(set(clip_ids)) != len(clip_ids):
        raise VidfaceError(f"{path}: a clip's rows do not stand together; extract again")
    return EmbeddingShard(path, clip_ids, offsets, values.reshape(-1, dimension), table), made


def runs_of(column: pa.ChunkedArray) -> tuple[tuple[str, ...], np.ndarray]:
    """Distinct neighbours of a column, and where their runs begin and end."""
    array = column.combine_chunks()
    if isinstance(array, pa.ChunkedArray):
        array = array.chunk(0) if array.num_chunks else pa.array([], pa.string())
    runs = pc.run_end_encode(array, run_end_type=pa.int64())
    ends = runs.run_ends.to_numpy(zero_copy_only=False)
    return tuple(runs.values.to_pylist()), np.concatenate([[0], ends]).astype(np.int64)


def fixed_lists(values: np.ndarray, present: Sequence[bool] | np.ndarray | None = None) -> pa.Array:
    """(n, d) float32 → an Arrow array of fixed-size lists; rows that are not present are null."""
    flat = pa.array(np.ascontiguousarray(values, dtype=np.float32).reshape(-1))
    mask = None if present is None else pa.array(~np.asarray(present, dtype=bool))
    return pa.FixedSizeListArray.from_arrays(flat, list_size=values.shape[1], mask=mask)


def unpack_fixed_lists(column: pa.ChunkedArray) -> np.ndarray:
    """A column that `fixed_lists` made → (n, d) float32; rows that are null are zero."""
    lists = column.combine_chunks()
    values = np.zeros((len(lists), lists.type.list_size), np.float32)
    present = ~lists.is_null().to_numpy(zero_copy_only=False)
    rows = lists.drop_null().flatten().to_numpy(zero_copy_only=False)
    values[present] = np.asarray(rows, np.float32).reshape(-1, values.shape[1])
    return values
