"""Clips → sampled frames → aligned faces → embeddings, shard by shard.

Decoding processes feed one embedder; each shard is written once, with its clips' states. Killed and
started again, it goes on with the first shard that is not done. On a cluster a shard is a task.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from vidface.backbones.embedder import Embedder
from vidface.backbones.loading import open_backbone
from vidface.backbones.settings import BackboneSettings
from vidface.backbones.weights import weights_path
from vidface.core.clips import Clip
from vidface.core.errors import VidfaceError
from vidface.core.progress import ClipProgress, Notify, quiet
from vidface.core.rules import ReadingRules
from vidface.core.values import available_cores
from vidface.executor.shards import Executor, map_shards
from vidface.faces.events import ClipLimits
from vidface.faces.pool import decode_clips
from vidface.faces.settings import FaceSettings
from vidface.frames.settings import FrameSettings
from vidface.runs import artefacts
from vidface.runs.artefacts import read_dimension
from vidface.runs.clips_before import (
    Redo,
    find_clips_before,
    merge_shard,
    read_finished,
    read_staged,
)
from vidface.runs.embedding import (
    EmbeddedClip,
    ExtractionSummary,
    embed_clips,
    summarise,
)
from vidface.runs.run import Run
from vidface.runs.staging import (
    ClipShard,
    Staging,
    check_runtime,
    list_other_versions,
    open_staging,
)
from vidface.runs.trying import Trial
from vidface.settings.doubles import warn_of_equal_contents
from vidface.storage.media import MediaRoot


def extract_clips(
    run: Run,
    *,
    force: bool = False,
    redo: Redo | None = None,
    notify: Notify = quiet,
    progress: ClipProgress | None = None,
) -> ExtractionSummary:
    """Extract every clip of a run's manifest into its directory; one that was begun goes on.

    Args:
        force: begin again, whatever was begun.
        redo: the finished extraction is extended by the clips that it lacks, and this done again.
        progress: called after every clip with the numbers of clips, frames and faces it added.

    Returns:
        The summary; the artefacts lie in the run directory, `clips.parquet` written last.

    Raises:
        VidfaceError: the run directory cannot be written, a setting is wrong, an extraction with
            other settings was begun there, decoding processes cannot start.
    """
    manifest, settings = run.manifest, run.pipeline.run
    frames, faces = run.pipeline.frames, run.pipeline.faces
    if redo is not None and run.folder.has_crops:
        faces = replace(faces, keep_crops=True)  # as the shards that stay
    backbone: Embedder | None = None
    if redo is None:
        backbone, trial = _open_recogniser(run, notify)
    begun = time.monotonic()
    made = artefacts.provenance(
        "extract",
        run.extraction_settings,
        manifest_sha256=manifest.sha256,
        runtime=None if backbone is None else str(backbone.plan),
        shard_clips=settings.shard_clips,
        rules=run.new_rules.to_record(),
    )
    now, sources, shard_clips = made, [], settings.shard_clips
    if redo is not None:
        sources = [read_finished(run, redo.lost)]
        _, made = run.folder.read_clips()
        shard_clips = made.setdefault("shard_clips", shard_clips)
    stagings, resumed = open_staging(
        run.folder, made, shard_clips, manifest.clips_sha256, extends=redo is not None, force=force
    )
    staging = stagings[0]
    sources = [read_staged(one, run, keep_crops=faces.keep_crops) for one in stagings] + sources
    clips_before = find_clips_before(run, sources, staging.made, redo)
    shards = clips_before.cut_into_shards(run, staging.shard_clips)
    shards_left = clips_before.link_whole_shards(shards, staging, keep_crops=faces.keep_crops)
    shards_to_do = [shard for shard in shards_left if shard.clips_to_do]
    if resumed:
        n_done = len(shards) - len(shards_to_do)
        notify(
            f"going on with an extraction that was begun: {n_done} of {len(shards)} shards are done"
        )
    if redo is not None and shards_to_do:
        remedy = "give that one (--runtime, --precision, --device), or --force to do all again"
        backbone, trial = _open_recogniser(run, notify)
        check_runtime(made, str(backbone.plan), run.folder.clips_path, remedy)
    if progress is not None:
        left = {shard.number: len(shard.clips_to_do) for shard in shards_left}
        for shard in shards:
            if n_taken_over := len(shard.clips) - left.get(shard.number, 0):
                progress(n_taken_over, 0, 0)
    if other_versions := list_other_versions(staging.made, now):
        notify(
            f"clips done before had other versions, frames and faces may differ: {other_versions}"
        )
    rules = ReadingRules.from_record(staging.made.get("rules"))
    if shards_to_do and rules != run.new_rules:
        notify(
            "an older vidface began this extraction: clips are read by its rules "
            "(docs/running.md); --force reads all of them by today's"
        )
    if shards_to_do and redo is None:
        for warning in warn_of_equal_contents(manifest):
            notify(warning)
    counts = _Counts(progress)
    clip_work = ClipEmbedder(
        manifest.root,
        frames,
        faces,
        ClipLimits(
            settings.stall_timeout_seconds,
            settings.clip_timeout_seconds,
            settings.clip_memory_bytes,
        ),
        settings.workers or available_cores(),
        weights_path(faces.detector) if faces.source == "detect" else None,
        rules,
    )
    job = ShardJob(clip_work, staging, run.pipeline.backbone)
    for shard in shards_left:
        if not shard.clips_to_do:
            dimension = (
                read_dimension(run.folder.shard_paths[0])
                if backbone is None
                else backbone.dimension
            )
            job.write(shard, [], dimension)
    if settings.executor == "dask" and shards_to_do:
        if run.backbone is not None:
            raise VidfaceError(
                "executor dask: a recogniser that is a live object can't be sent to other "
                "machines; save it to a file and name that"
            )
        # Each machine finds the detector in its own cache.
        job = replace(job, embedder=replace(clip_work, workers=1, detector=None))
        executor = Executor("dask", workers=settings.workers, scheduler=settings.scheduler)
        for added in map_shards(
            extract_shard, shards_to_do, executor=executor, shared=job, notify=notify
        ):
            counts(*added)
            run.store()
    elif backbone is not None:
        _extract_here(shards_to_do, job, backbone, trial, counts, run.store)
    profile = {
        "wall_seconds": round(time.monotonic() - begun, 3),
        "frames": counts.frames,
        "faces": counts.faces,
        "workers": clip_work.workers,
        "executor": settings.executor or "local",
        "runtime": staging.made.get("runtime"),
    }
    if backbone is not None and trial.forced:  # now, for its first faces may be what it fails on
        staging = replace(staging, made={**staging.made, "forced": trial.forced})
    staging.finish(run.folder, shards, profile, manifest)
    return summarise(run.folder.read_clips()[0])


def _open_recogniser(run: Run, notify: Notify) -> tuple[Embedder, Trial]:
    """The recogniser, loaded and tried on made-up pictures."""
    backbone = run.backbone or open_backbone(run.pipeline.backbone, notify)
    trial = Trial(backbone, notify)
    trial.try_pictures()
    return backbone, trial


@dataclass(frozen=True)
class ClipEmbedder:
    """What is done to every clip, wherever: all of it can be sent to another process."""

    root: MediaRoot = field(repr=False)
    frames: FrameSettings
    faces: FaceSettings
    limits: ClipLimits
    workers: int
    detector: Path | None  # the file; None with aligned crops
    rules: ReadingRules

    def embed(
        self, clips: Sequence[Clip], backbone: Embedder, trial: Trial
    ) -> Iterator[EmbeddedClip]:
        """Yield the clips with their embeddings, in order."""
        events = decode_clips(
            clips,
            self.root,
            self.frames,
            self.faces,
            workers=max(1, min(self.workers, len(clips))),
            limits=self.limits,
            detector_model=self.detector,
            rules=self.rules,
            fed=backbone.preprocessing,
        )
        with contextlib.closing(events):
            yield from embed_clips(
                clips, events, backbone, keep_crops=self.faces.keep_crops, trial=trial
            )


@dataclass(frozen=True)
class ShardJob:
    """What another machine needs to do a shard: it loads the recogniser by itself."""

    embedder: ClipEmbedder
    staging: Staging
    backbone: BackboneSettings

    def write(self, shard: ClipShard, clips: Sequence[EmbeddedClip], dimension: int) -> None:
        """Write a shard whose clips are done, with those that were done before."""
        if len(clips) < len(shard.clips):
            clips = merge_shard(shard, clips, dimension)
        self.staging.write(shard, clips, dimension, keep_crops=self.embedder.faces.keep_crops)


def _extract_here(
    shards: Sequence[ClipShard],
    job: ShardJob,
    backbone: Embedder,
    trial: Trial,
    progress: ClipProgress,
    store: Callable[[], None],
) -> None:
    """Do all shards in this process: decoding runs ahead into the next shard."""
    clips = [shard.clips_to_do for shard in shards]
    stream = job.embedder.embed(
        [clip for shard_clips in clips for clip in shard_clips], backbone, trial
    )
    with contextlib.closing(stream):  # type: ignore[type-var]
        for shard, shard_clips in zip(shards, clips, strict=True):
            embedded = []
            for _ in shard_clips:
                embedded.append(next(stream))
                progress(1, embedded[-1].frames, len(embedded[-1].rows))
            job.write(shard, embedded, backbone.dimension)
            store()


def extract_shard(shard: ClipShard, job: ShardJob) -> tuple[int, int, int]:
    """Do one shard, in whatever process: its numbers of clips, frames and faces."""
    backbone = _load_once(job.backbone)
    embedded = list(job.embedder.embed(shard.clips_to_do, backbone, Trial(backbone)))
    job.write(shard, embedded, backbone.dimension)
    frames = sum(clip.frames for clip in embedded)
    return len(embedded), frames, sum(len(clip.rows) for clip in embedded)


_LOADED: dict[BackboneSettings, Embedder] = {}  # of a worker: a recogniser is loaded once


def _load_once(settings: BackboneSettings) -> Embedder:
    if settings not in _LOADED:
        _LOADED.clear()
        _LOADED[settings] = open_backbone(settings)
    return _LOADED[settings]


class _Counts:
    """What this session did, passed on to who shows it."""

    def __init__(self, progress: ClipProgress | None) -> None:
        self._progress = progress
        self.frames = self.faces = 0

    def __call__(self, clips: int, frames: int, faces: int) -> None:
        self.frames += frames
        self.faces += faces
        if self._progress is not None:
            self._progress(clips, frames, faces)
