"""Clusterings: noise removal as it is stored, and read again."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from vidface import artefacts
from vidface.denoising import NAMED_UNUSABLE, Clips, Denoised, Denoising, What, meant
from vidface.errors import VidfaceError
from vidface.runs import Run

if TYPE_CHECKING:
    from vidface.diagnostics import Diagnostics

_DIAGNOSTIC_COLUMNS = (
    "lowest_similarity",
    "second_size",
    "second_share",
    "second_cosine",
    "chained",
    "contested",
    "thin",
)


def cluster(run: Run, what: What) -> Denoised:
    """Embeddings → labels, descriptors and diagnostics, written as the clustering of `what`.

    Shard by shard: what is in memory is one shard, the working arrays and a row a clip.

    Raises:
        VidfaceError: no extraction, or one made with other settings.
    """
    import pyarrow as pa

    from vidface.diagnostics import combine, diagnose

    denoising = meant(run, what)
    clips = Clips(run)
    folder = run.folder.clustering(denoising.name)
    made = artefacts.provenance(
        "cluster",
        {**run.extraction_settings, **denoising.settings},
        manifest_sha256=run.manifest.sha256,
        extraction_created=clips.created,
        denoiser={**denoising.denoiser.used(), "pooling": denoising.pooling},
    )
    collected = clips.collect(denoising)
    parts, places = [], []
    with artefacts.parquet_writer(folder / "faces.parquet", artefacts.LABELS_SCHEMA, made) as write:
        for one in clips.each_shard():
            shard, part = one.shard, one.denoise(denoising)
            collected.add(one, part)
            found = diagnose(
                shard.embeddings,
                shard.offsets,
                part.labels,
                part.descriptors,
                clustered=denoising.clusters,
            )
            # Of its faces a shard's similarities are written at once and forgotten.
            parts.append(replace(found, similarity=found.similarity[:0]))
            places.append(one.places)
            columns = shard.table.select(["clip_id", "frame_index", "face_index"])
            columns = columns.append_column("cluster", pa.array(part.labels, pa.int32()))
            similarity = pa.array(found.similarity, mask=np.isnan(found.similarity))
            columns = columns.append_column("similarity", similarity)
            write(columns.cast(artefacts.LABELS_SCHEMA))
    diagnostics = combine(parts, places, len(clips.clip_ids))
    denoised = collected.finish(diagnostics)
    artefacts.write_parquet(folder / "descriptors.parquet", _table_of(denoised), made)
    return denoised


def _table_of(denoised: Denoised) -> Any:
    """The descriptors' artefact."""
    import pyarrow as pa

    columns: dict[str, Any] = {
        "clip_id": denoised.clip_ids,
        "state": denoised.states,
        "frames": denoised.frames,
        "faces": denoised.faces,
        "clusters": denoised.clusters,
        "kept": denoised.kept,
        "dropped": denoised.faces - denoised.kept,
        "unusable": denoised.unusable,
        "descriptor": artefacts.fixed_lists(denoised.descriptors, denoised.has_descriptor),
    }
    for name in _DIAGNOSTIC_COLUMNS:
        values = getattr(denoised.diagnostics, name)
        missing = np.isnan(values) if values.dtype.kind == "f" else None
        columns[name] = pa.array(values, mask=missing)
    schema = artefacts.descriptors_schema(denoised.descriptors.shape[1])
    arrays = [pa.array(columns[f.name]).cast(f.type) for f in schema]
    return pa.Table.from_arrays(arrays, schema=schema)


def cluster_once(run: Run, what: What) -> Denoised:
    """`cluster`, unless it is done already with the same settings.

    Where a truth is given it is done again: precision and recall are not stored.
    """
    denoising = meant(run, what)
    if denoising.truth_path is not None:
        return cluster(run, denoising)
    found = read_clustering(run, denoising)
    if found is None:
        return cluster(run, denoising)
    if not found.unusable.any():
        return found
    path = run.folder.clustering(denoising.name) / "faces.parquet"
    return replace(found, unusable_rows=_unusable_rows(path))


def read_clustering(run: Run, what: What) -> Denoised | None:
    """The clustering of `what` from its artefact; None where it is not there or outdated."""
    denoising = meant(run, what)
    path = run.folder.clustering(denoising.name) / "descriptors.parquet"
    if not path.is_file():
        return None
    table, made = artefacts.read_parquet(path)
    _, extraction = run.folder.read_clips()
    wanted = {**run.extraction_settings, **denoising.settings}
    remedy = "run `vidface cluster` again, or give the settings it was made with"
    artefacts.check_fit(made, wanted, path, remedy)
    if made.get("extraction_created") != extraction["created"]:
        return None
    column = table.column("descriptor").combine_chunks()
    present = ~column.is_null().to_numpy(zero_copy_only=False)
    descriptors = np.zeros((len(column), column.type.list_size), np.float32)
    descriptors[present] = (
        column.drop_null().flatten().to_numpy().reshape(-1, column.type.list_size)
    )

    def counts(name: str) -> np.ndarray:
        return table.column(name).to_numpy().astype(np.int64)

    return Denoised(
        threshold=denoising.threshold,
        clip_ids=tuple(table.column("clip_id").to_pylist()),
        states=tuple(table.column("state").to_pylist()),
        frames=counts("frames"),
        faces=counts("faces"),
        clusters=counts("clusters"),
        kept=counts("kept"),
        unusable=counts("unusable"),
        descriptors=descriptors,
        denoising=denoising,
        diagnostics=_diagnostics_of(table),
    )


def _diagnostics_of(table: Any) -> Diagnostics:
    """What `cluster` found, from the descriptors' artefact; without the faces' similarities."""
    from vidface.diagnostics import DiagnosticBounds, Diagnostics

    names = ("clusters", "kept", "dropped", "unusable", *_DIAGNOSTIC_COLUMNS)
    columns = {name: table.column(name).to_numpy() for name in names}
    return Diagnostics(bounds=DiagnosticBounds(), **columns, similarity=np.empty(0, np.float32))


def _unusable_rows(path: Path) -> tuple[str, ...]:
    """The first unusable faces of a clustering, as `cluster` names them."""
    from vidface.clusters import UNUSABLE

    faces, _ = artefacts.read_rows(path, [("cluster", "=", UNUSABLE)])
    rows = faces.slice(0, NAMED_UNUSABLE).to_pylist()
    return tuple(f"{row['clip_id']}, frame {row['frame_index']}" for row in rows)


def latest(run: Run) -> Denoising:
    """The noise removal of the clustering that was made last.

    Raises:
        VidfaceError: there is none.
    """
    made = run.folder.clusterings()
    if not made:
        raise VidfaceError(
            f"run directory {run.folder.folder}: no clustering; run `vidface cluster` first, "
            "or name one with --threshold"
        )
    used = dict(made[-1])
    asked = Denoising.of(run.pipeline)
    pooling = used.pop("pooling")
    if used["method"] == "oracle" and asked.truth_path is None:
        raise VidfaceError(
            f"run directory {run.folder.folder}: the clustering made last is that of a truth file; "
            "name the file (--truth), or another clustering (--threshold, --method)"
        )
    return replace(asked, denoiser=replace(asked.denoiser, **used), pooling=pooling)
