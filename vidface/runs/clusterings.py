"""Clusterings: noise removal as it is stored, and read again."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from vidface.core.errors import VidfaceError
from vidface.core.progress import Notify, quiet
from vidface.core.values import UNUSABLE
from vidface.executor.shards import Executor, executor_of, map_shards
from vidface.noise.diagnostics import DiagnosticBounds, Diagnostics, combine, diagnose
from vidface.runs import artefacts
from vidface.runs.denoising import (
    NAMED_UNUSABLE,
    Clips,
    Denoised,
    Denoising,
    Part,
    ShardWork,
    What,
    meant,
)
from vidface.runs.run import Run, writing

if TYPE_CHECKING:
    import pyarrow as pa

    from vidface.noise.diagnostics import Diagnostics
    from vidface.runs.artefacts import EmbeddingShard

_DIAGNOSTIC_COLUMNS = (
    "lowest_similarity",
    "second_size",
    "second_share",
    "second_cosine",
    "chained",
    "contested",
    "thin",
)


@writing("cluster")
def cluster(
    run: Run, what: What, *, executor: Executor | None = None, notify: Notify = quiet
) -> Denoised:
    """Embeddings → labels, descriptors and diagnostics, written as the clustering of `what`.

    Shard by shard: what is in memory is one shard, the working arrays and a row a clip. In this
    process, unless the pipeline or `executor` says otherwise: a shard's noise removal uses all
    cores by itself. Whoever does it, the result is the same.

    Args:
        executor: who works on the shards (default: the pipeline's).
        notify: told of workers that were lost.

    Raises:
        VidfaceError: no extraction, or one made with other settings; see `map_shards`.
    """

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
    executor = executor or executor_of(run.pipeline.run)
    with artefacts.parquet_writer(folder / "faces.parquet", artefacts.LABELS_SCHEMA, made) as write:
        for work, (part, found) in _denoised(run, clips, denoising, executor, notify):
            shard = work.embeddings()
            collected.add(shard, part, work.noise)
            # Of its faces a shard's similarities are written at once and forgotten.
            parts.append(replace(found, similarity=found.similarity[:0]))
            places.append(clips.places(shard))
            write(_labels_of(shard, part, found))
    diagnostics = combine(parts, places, len(clips.clip_ids))
    denoised = collected.finish(diagnostics)
    artefacts.write_parquet(folder / "descriptors.parquet", _table_of(denoised), made)
    return denoised


def _denoised(
    run: Run, clips: Clips, denoising: Denoising, executor: Executor, notify: Notify
) -> Iterator[tuple[ShardWork, tuple[Part, Diagnostics]]]:
    """Every shard with what came of it, in their order."""
    given: deque[ShardWork] = deque()

    def works() -> Iterator[ShardWork]:
        for number, shard in run.each_shard():
            given.append(clips.work(number, shard, denoising, executor))
            yield given[-1]

    for result in map_shards(denoise_shard, works(), executor=executor, notify=notify):
        yield given.popleft(), result


def denoise_shard(work: ShardWork) -> tuple[Part, Diagnostics]:
    """One shard's labels, descriptors and diagnostics; the linkage tree is written."""

    one = work.open()
    part = one.denoise(work.denoising)
    found = diagnose(
        one.shard.embeddings,
        one.shard.offsets,
        part.labels,
        part.descriptors,
        clustered=work.denoising.clusters,
    )
    return part, found


def _labels_of(shard: EmbeddingShard, part: Part, found: Diagnostics) -> pa.Table:
    """The rows of a shard in the labels' artefact."""
    import pyarrow as pa

    columns = shard.table.select(["clip_id", "frame_index", "face_index"])
    columns = columns.append_column("cluster", pa.array(part.labels, pa.int32()))
    similarity = pa.array(found.similarity, mask=np.isnan(found.similarity))
    columns = columns.append_column("similarity", similarity)
    return columns.cast(artefacts.LABELS_SCHEMA)


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


def cluster_once(
    run: Run, what: What, *, executor: Executor | None = None, notify: Notify = quiet
) -> Denoised:
    """`cluster`, unless it is done already with the same settings.

    Where a truth is given it is done again: precision and recall are not stored.
    """
    denoising = meant(run, what)
    if denoising.truth_path is not None:
        return cluster(run, denoising, executor=executor, notify=notify)
    found = read_clustering(run, denoising)
    if found is None:
        return cluster(run, denoising, executor=executor, notify=notify)
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

    names = ("clusters", "kept", "dropped", "unusable", *_DIAGNOSTIC_COLUMNS)
    columns = {name: table.column(name).to_numpy() for name in names}
    return Diagnostics(bounds=DiagnosticBounds(), **columns, similarity=np.empty(0, np.float32))


def _unusable_rows(path: Path) -> tuple[str, ...]:
    """The first unusable faces of a clustering, as `cluster` names them."""

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
