"""The columns of the artefacts in a run directory, and the check that a file has them."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa

from vidface.noise.diagnostics import FLAGS

CLIPS_SCHEMA = pa.schema(
    [
        ("clip_id", pa.string()),
        ("path", pa.string()),
        ("bytes", pa.int64()),  # of the file, or of the folder's images, as it was read
        ("state", pa.string()),
        ("message", pa.string()),
        ("frames", pa.int32()),
        ("frames_without_face", pa.int32()),
        ("faces", pa.int32()),
        ("key", pa.string()),  # of path and times: `Manifest.clip_keys`
        ("modified_ns", pa.int64()),  # of the file, or of a folder's pictures and of itself
        ("content", pa.string()),  # XXH3 of what was read, or the server's tag
    ]
)
LABELS_SCHEMA = pa.schema(
    [
        ("clip_id", pa.string()),
        ("frame_index", pa.int32()),
        ("face_index", pa.int32()),
        ("cluster", pa.int32()),  # 0 kept; 1, 2, … other clusters; -1 unusable
        ("similarity", pa.float32()),  # cosine to the clip's descriptor; null without one
    ]
)
# vidface.noise.clusters.LinkageTree
LINKAGE_SCHEMA = pa.schema([("order", pa.int32()), ("similarity", pa.float32())])
CROPS_SCHEMA = pa.schema(
    [
        ("clip_id", pa.string()),
        ("frame_index", pa.int32()),
        ("face_index", pa.int32()),
        ("jpeg", pa.binary()),
    ]
)


def embeddings_schema(dimension: int, *, quality: bool = False) -> pa.Schema:
    """Columns of the embeddings, a row a face; a clip's stand together.

    Clips are in the manifest's order, or in that of the files that the features come from.

    `frame_index` is k, `time_seconds` start + k/fps and `source_time_seconds` when the frame shown
    then began; both count from the clip's first frame and are null for image folders, which name
    their `file`. `box` is left, top, right, bottom and `landmarks` five (x, y), both in pixels of
    the upright frame, null for aligned crops, as is `det_score`, in [0, 1]. `embedding` is as the
    network gave it, `norm` its length, or what the network itself gives as its norm.

    Args:
        dimension: d of the embeddings.
        quality: with the column `quality`, as feature files have it: any number, higher is better.
    """
    return pa.schema(
        [
            ("clip_id", pa.string()),
            ("frame_index", pa.int32()),
            ("time_seconds", pa.float64()),
            ("source_time_seconds", pa.float64()),
            ("file", pa.string()),
            ("face_index", pa.int32()),
            ("box", pa.list_(pa.float32(), 4)),
            ("landmarks", pa.list_(pa.float32(), 10)),
            ("det_score", pa.float32()),
            *([("quality", pa.float32())] if quality else []),
            ("norm", pa.float32()),
            ("embedding", pa.list_(pa.float32(), dimension)),
        ]
    )


def descriptors_schema(dimension: int) -> pa.Schema:
    """Columns of the descriptors, a row for every line of the manifest; null = no direction.

    From `lowest_similarity` on they are what `vidface.noise.diagnostics.Diagnostics` says.
    """
    counts = ("frames", "faces", "clusters", "kept", "dropped", "unusable")
    return pa.schema(
        [
            ("clip_id", pa.string()),
            ("state", pa.string()),
            *((name, pa.int32()) for name in counts),
            ("descriptor", pa.list_(pa.float32(), dimension)),
            ("lowest_similarity", pa.float32()),
            ("second_size", pa.int32()),
            ("second_share", pa.float64()),
            ("second_cosine", pa.float32()),
            ("still_share", pa.float64()),
            *((flag, pa.bool_()) for flag in FLAGS),
        ]
    )


_ADDED_COLUMNS = {"twice": False, "still": False, "still_share": None}


CLIPS_ADDED = ("key", "modified_ns", "content")


def complete_clips(table: pa.Table) -> pa.Table:
    """Add the columns that clips.parquet of an older vidface lacks, of which nothing is known."""
    for name in CLIPS_ADDED:
        if name not in table.column_names:
            field = CLIPS_SCHEMA.field(name)
            table = table.append_column(field, pa.nulls(len(table), field.type))
    return table


def complete_descriptors(table: pa.Table) -> pa.Table:
    """Add the columns that descriptors of an older vidface lack: no flag, and nothing to say."""
    for name, value in _ADDED_COLUMNS.items():
        if name not in table.column_names:
            field = descriptors_schema(1).field(name)
            table = table.append_column(field, pa.array([value] * len(table), field.type))
    return table


_MAY_LACK = {*_ADDED_COLUMNS, *CLIPS_ADDED, "quality"}
_NEVER_NULL = {"clip_id", "state", "frames", "faces", "clusters", "kept", "unusable", "cluster",
               "frame_index", "face_index", "order", "jpeg", "embedding"}  # fmt: skip


def check_columns(table: pa.Table, path: Path) -> None:
    """Raise ValueError unless an artefact has its columns, of their types: strangers write them.

    Args:
        path: tells which artefact it is. Those of no run directory are not looked at.
    """
    wanted = _schema_of(path) or pa.schema([])
    missing = set(wanted.names) - set(table.column_names)
    if missing - _MAY_LACK:
        raise ValueError(f"no column {', '.join(sorted(missing - _MAY_LACK))}")
    for field in wanted:
        if field.name in missing:
            continue
        column = table.column(field.name)
        lists = pa.types.is_fixed_size_list(field.type) and pa.types.is_fixed_size_list(column.type)
        alike = lists and column.type.value_type == field.type.value_type
        if column.type != field.type and not alike:
            raise ValueError(f"column {field.name} is {column.type}, not {field.type}")
        if column.null_count and field.name in _NEVER_NULL:
            raise ValueError(f"column {field.name} has {column.null_count} empty cells")


def _schema_of(path: Path) -> pa.Schema | None:
    folders = path.parent.name, path.parent.parent.name
    if path.name == "clips.parquet":
        return CLIPS_SCHEMA
    if "linkage" in folders:
        return LINKAGE_SCHEMA
    if folders[1] == "clusters":
        return LABELS_SCHEMA if path.name == "faces.parquet" else descriptors_schema(1)
    return {"embeddings": embeddings_schema(1, quality=True), "crops": CROPS_SCHEMA}.get(folders[0])
