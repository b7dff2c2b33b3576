"""Noise removal over a whole run: embeddings → labels, descriptors and diagnostics."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import replace

import numpy as np
import pyarrow as pa

from vidface.core.errors import VidfaceError
from vidface.core.progress import Notify, quiet
from vidface.executor.shards import Executor, map_shards
from vidface.noise.denoisers import name_of_denoiser
from vidface.noise.diagnostics import Diagnostics, combine_diagnostics
from vidface.runs import artefacts
from vidface.runs.artefacts import EmbeddingShard
from vidface.runs.clusterings import (
    descriptors_table,
    name_unusable_faces,
    read_clustering,
)
from vidface.runs.columns import LABELS_SCHEMA
from vidface.runs.denoised import Denoised, DenoisedCollector, ExtractedClips
from vidface.runs.denoising import Denoising, DenoisingOrThreshold, resolve_denoising
from vidface.runs.run import Run
from vidface.runs.shard_denoising import (
    DenoisedShard,
    ShardDenoiser,
    ShardWork,
    denoise_shard,
    make_tree,
)
from vidface.settings.run_settings import choose_executor


def denoise(
    run: Run, denoising: DenoisingOrThreshold, executor: Executor | None = None
) -> Denoised:
    """Label every face and pool what is kept; nothing is written but the linkage tree.

    Args:
        executor: who makes the linkage trees that are missing (default: the pipeline's).
    """
    [denoised] = _denoise_each(run, [resolve_denoising(run, denoising)], executor)
    return denoised


def denoise_all(
    run: Run, thresholds: Sequence[float | None], executor: Executor | None = None
) -> Iterator[Denoised]:
    """Remove noise as the pipeline says at several thresholds, one after the other.

    No similarity is computed twice: union-find cuts a tree that is stored. A clip is pooled again
    only where another face is kept than at the threshold before.

    Raises:
        VidfaceError: a method that has no threshold.
    """
    denoising = Denoising.of_run(run)
    if not denoising.has_threshold:
        raise VidfaceError(
            f"the method '{name_of_denoiser(denoising.denoiser)}' has no threshold to sweep; "
            "`vidface score` scores it"
        )
    wanted = [denoising.with_threshold(threshold) for threshold in thresholds]
    return _denoise_each(run, wanted, executor)


def _denoise_each(
    run: Run, wanted: Sequence[Denoising], executor: Executor | None
) -> Iterator[Denoised]:
    if not wanted:
        return
    clips = ExtractedClips(run)
    executor = executor or choose_executor(run.pipeline.run)
    if executor.name != "serial" and wanted[0].denoiser.uses_tree:
        _make_missing_trees(run, clips, wanted[0], executor)
    shards = (ShardDenoiser(work) for work in clips.shard_works(wanted[0], Executor()))
    # For one threshold a shard is forgotten with its result; for more, all are kept.
    shards_again = list(shards) if len(wanted) > 1 else shards
    for number, denoising in enumerate(wanted, start=1):
        collector = DenoisedCollector(clips, denoising)
        for shard in shards_again:
            denoised = shard.denoise(denoising, again=number < len(wanted))
            collector.add(shard.shard, denoised, shard.noise)
        yield collector.finish()


def _make_missing_trees(
    run: Run, clips: ExtractedClips, denoising: Denoising, executor: Executor
) -> None:
    """Make the linkage trees that are missing, a shard a task."""
    kind = denoising.repeats, denoising.denoiser.same_person
    works = (
        work
        for work in clips.shard_works(denoising, executor)
        if not run.folder.linkage_path(work.number, *kind).is_file()
    )
    for _ in map_shards(make_tree, works, executor=executor):
        pass


def cluster(
    run: Run,
    denoising: DenoisingOrThreshold,
    *,
    executor: Executor | None = None,
    notify: Notify = quiet,
) -> Denoised:
    """Write the labels, descriptors and diagnostics of a run's noise removal: a clustering.

    Shard by shard: what is in memory is one shard, the working arrays and a row a clip. In this
    process, unless the pipeline or `executor` says otherwise: a shard's noise removal uses all
    cores by itself. Whoever does it, the result is the same.

    Args:
        executor: who works on the shards (default: the pipeline's).
        notify: told of workers that were lost.

    Raises:
        VidfaceError: no extraction, or one made with other settings; see `map_shards`.
    """
    denoising = resolve_denoising(run, denoising)
    with run.writing("cluster", replaces=[denoising.resource]):
        return _cluster(run, denoising, executor, notify)


def _cluster(run: Run, denoising: Denoising, executor: Executor | None, notify: Notify) -> Denoised:
    clips = ExtractedClips(run)
    folder = run.folder.clustering(denoising.name)
    made = artefacts.provenance(
        "cluster",
        {**run.extraction_settings, **denoising.settings},
        manifest_sha256=run.manifest.sha256,
        extraction_created=clips.source.extraction_created,
        denoiser=denoising.record,
        number=run.folder.next_clustering_number(),
    )
    collector = DenoisedCollector(clips, denoising)
    parts, rows = [], []
    executor = executor or choose_executor(run.pipeline.run)
    with artefacts.parquet_writer(folder / "faces.parquet", LABELS_SCHEMA, made) as write:
        for work, denoised, diagnostics in _denoise_shards(clips, denoising, executor, notify):
            shard = work.open_shard()
            collector.add(shard, denoised, work.noise)
            # Of its faces a shard's similarities are written at once and forgotten.
            parts.append(replace(diagnostics, similarity=diagnostics.similarity[:0]))
            rows.append(clips.rows_of(shard))
            write(_labels_table(shard, denoised, diagnostics))
    result = collector.finish(combine_diagnostics(parts, rows, len(clips.clip_ids)))
    artefacts.write_parquet(folder / "descriptors.parquet", descriptors_table(result), made)
    return result


def _denoise_shards(
    clips: ExtractedClips, denoising: Denoising, executor: Executor, notify: Notify
) -> Iterator[tuple[ShardWork, DenoisedShard, Diagnostics]]:
    """Every shard with what came of it, in their order."""
    waiting: deque[ShardWork] = deque()

    def works() -> Iterator[ShardWork]:
        for work in clips.shard_works(denoising, executor):
            waiting.append(work)
            yield work

    for denoised, diagnostics in map_shards(
        denoise_shard, works(), executor=executor, notify=notify
    ):
        yield waiting.popleft(), denoised, diagnostics


def _labels_table(
    shard: EmbeddingShard, denoised: DenoisedShard, diagnostics: Diagnostics
) -> pa.Table:
    """The rows of a shard in the labels' artefact."""
    columns = shard.table.select(["clip_id", "frame_index", "face_index"])
    columns = columns.append_column("cluster", pa.array(denoised.labels, pa.int32()))
    similarity = pa.array(diagnostics.similarity, mask=np.isnan(diagnostics.similarity))
    columns = columns.append_column("similarity", similarity)
    return columns.cast(LABELS_SCHEMA)


def cluster_once(
    run: Run,
    denoising: DenoisingOrThreshold,
    *,
    executor: Executor | None = None,
    notify: Notify = quiet,
) -> Denoised:
    """`cluster`, unless it is done already with the same settings.

    Where a truth is given it is done again: precision and recall are not stored.
    """
    denoising = resolve_denoising(run, denoising)
    stored = None if denoising.truth_path is not None else read_clustering(run, denoising)
    if stored is None:
        return cluster(run, denoising, executor=executor, notify=notify)
    return replace(stored, unusable_rows=name_unusable_faces(run, stored))
