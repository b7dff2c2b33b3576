"""Extraction: clips → sampled frames → aligned faces → embeddings, shard by shard.

Decoding processes feed one embedder; each shard is written once, with its clips' states. Killed and
started again, it goes on with the first shard that is not done. On a cluster a shard is a task.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pyarrow as pa

from vidface.backbones.embedder import Embedder
from vidface.backbones.loading import open_backbone
from vidface.backbones.settings import BackboneSettings
from vidface.backbones.weights import weights_path
from vidface.core.clips import Clip
from vidface.core.errors import VidfaceError
from vidface.core.progress import ClipProgress, Notify, quiet
from vidface.core.states import FAILED_STATES
from vidface.core.values import available_cores
from vidface.executor.shards import Executor, map_shards
from vidface.faces.clip_faces import clip_bytes
from vidface.faces.events import ClipLimits
from vidface.faces.pool import decode_clips
from vidface.faces.settings import FaceSettings
from vidface.frames.settings import FrameSettings
from vidface.runs import artefacts
from vidface.runs.artefacts import RunFolder
from vidface.runs.embedding import EmbeddedClip, Extraction, embed_clips, summarise
from vidface.runs.staging import Shard, Staging, each_clip, link_or_copy, open_staging, shards_of
from vidface.settings.manifests import Manifest
from vidface.settings.run_settings import RunSettings
from vidface.storage.media import MediaRoot
from vidface.storage.urls import is_url


@dataclass(frozen=True)
class Work:
    """What is done to every clip, wherever: all of it can be sent to another process."""

    root: MediaRoot = field(repr=False)
    frames: FrameSettings
    faces: FaceSettings
    limits: ClipLimits
    workers: int
    detector: Path | None  # the file; None with aligned crops

    def embedded(self, clips: Sequence[Clip], backbone: Embedder) -> Iterator[EmbeddedClip]:
        """The clips with their embeddings, in order."""
        events = decode_clips(
            clips,
            self.root,
            self.frames,
            self.faces,
            workers=max(1, min(self.workers, len(clips))),
            limits=self.limits,
            detector_model=self.detector,
        )
        with contextlib.closing(events):
            yield from embed_clips(clips, events, backbone, keep_crops=self.faces.keep_crops)


@dataclass(frozen=True)
class Again:
    """A finished extraction, of which only the clips that failed are done once more."""

    run: Path
    failed: frozenset[str]  # clip ids

    def wanted(self, shard: Shard) -> tuple[Clip, ...]:
        return tuple(clip for clip in shard.clips if clip.clip_id in self.failed)


@dataclass(frozen=True)
class Job:
    """What another machine needs to do a shard: it loads the recogniser by itself."""

    work: Work
    staging: Staging
    backbone: BackboneSettings
    again: Again | None = None


def extract_clips(
    manifest: Manifest,
    run: RunFolder,
    backbone: Embedder,
    frames: FrameSettings,
    faces: FaceSettings,
    settings: Mapping[str, Any],
    how: RunSettings | None = None,
    *,
    backbone_settings: BackboneSettings | None = None,
    force: bool = False,
    retry_failed: bool = False,
    notify: Notify = quiet,
    progress: ClipProgress | None = None,
    store: Callable[[], None] = lambda: None,
) -> Extraction:
    """Extract every clip of a manifest into a run directory; one that was begun goes on.

    Args:
        settings: what the artefacts record and later stages compare.
        how: who does the work, and what a clip may cost; `dir` is not used.
        backbone_settings: how another machine loads the recogniser; only Dask needs it.
        force: begin again, whatever was begun.
        retry_failed: of the finished extraction in `run` do the failed clips again.
        progress: called after every clip with the numbers of clips, frames and faces it added.
        store: called whenever a shard was written.

    Returns:
        The summary; the artefacts lie in `run`, `clips.parquet` written last.

    Raises:
        VidfaceError: the run directory cannot be written, a setting is wrong, an extraction with
            other settings was begun there, decoding processes cannot start.
    """
    how = how or RunSettings(run.folder)
    begun = time.monotonic()
    again: Again | None = None
    if retry_failed:
        staging, again = _staging_again(run)
        shards = shards_of(manifest.clips, staging.shard_clips)
        _seed(staging, shards, again, keep_crops=faces.keep_crops)
    else:
        made = artefacts.provenance(
            "extract_clips",
            settings,
            manifest_sha256=manifest.sha256,
            runtime=str(backbone.plan),
            shard_clips=how.shard_clips,
        )
        staging, resumed = open_staging(run, made, how.shard_clips, force=force)
        if staging.folder.is_moving:  # killed at the very end
            run.replace_extraction(staging.folder)
            return summarise(run.read_clips()[0])
        shards = shards_of(manifest.clips, staging.shard_clips)
        if resumed:
            _say_resumed(staging, shards, notify)
    left = _shards_left(staging, shards, manifest, progress)
    counts = _Counts(progress)
    work = Work(
        manifest.root,
        frames,
        faces,
        ClipLimits(how.stall_timeout_seconds, how.clip_timeout_seconds, how.clip_memory_bytes),
        how.workers or available_cores(),
        _detector_file(faces),
    )
    if how.executor == "dask":
        if backbone_settings is None:
            raise VidfaceError(
                "executor dask: a recogniser that is a live object can't be sent to other "
                "machines; save it to a file and name that"
            )
        # Each machine finds the detector in its own cache.
        job = Job(replace(work, workers=1, detector=None), staging, backbone_settings, again)
        _extract_elsewhere(left, job, how, notify, counts, store)
    else:
        _extract_here(left, work, staging, backbone, again, counts, store)
    profile = {
        "wall_seconds": round(time.monotonic() - begun, 3),
        "frames": counts.frames,
        "faces": counts.faces,
        "workers": work.workers,
        "executor": how.executor or "local",
        "runtime": str(backbone.plan),
    }
    staging.finish(run, shards, profile)
    return summarise(run.read_clips()[0])


def _extract_here(
    shards: Sequence[Shard],
    work: Work,
    staging: Staging,
    backbone: Embedder,
    again: Again | None,
    progress: ClipProgress,
    store: Callable[[], None],
) -> None:
    """All shards in this process: decoding runs ahead into the next shard."""
    wanted = [again.wanted(shard) if again else shard.clips for shard in shards]
    stream = work.embedded([clip for clips in wanted for clip in clips], backbone)
    with contextlib.closing(stream):  # type: ignore[type-var]
        for shard, clips in zip(shards, wanted, strict=True):
            done = []
            for _ in clips:
                done.append(next(stream))
                progress(1, done[-1].frames, len(done[-1].rows))
            _write(shard, done, staging, backbone.dimension, again, work.faces.keep_crops)
            store()


def _write(
    shard: Shard,
    done: Sequence[EmbeddedClip],
    staging: Staging,
    dimension: int,
    again: Again | None,
    keep_crops: bool,
) -> None:
    clips = done if again is None else merged(shard, done, again)
    staging.write(shard, clips, dimension, keep_crops=keep_crops)


def extract_shard(shard: Shard, job: Job) -> tuple[int, int, int]:
    """One shard, in whatever process: its numbers of clips, frames and faces."""
    backbone = _backbone_of(job.backbone)
    wanted = job.again.wanted(shard) if job.again else shard.clips
    done = list(job.work.embedded(wanted, backbone))
    _write(shard, done, job.staging, backbone.dimension, job.again, job.work.faces.keep_crops)
    return len(done), sum(clip.frames for clip in done), sum(len(clip.rows) for clip in done)


_LOADED: dict[BackboneSettings, Embedder] = {}  # of a worker: a recogniser is loaded once


def _backbone_of(settings: BackboneSettings) -> Embedder:

    if settings not in _LOADED:
        _LOADED.clear()
        _LOADED[settings] = open_backbone(settings)
    return _LOADED[settings]


def _extract_elsewhere(
    shards: Sequence[Shard],
    job: Job,
    how: RunSettings,
    notify: Notify,
    progress: ClipProgress,
    store: Callable[[], None],
) -> None:

    executor = Executor("dask", workers=how.workers, scheduler=how.scheduler)
    done = map_shards(extract_shard, shards, executor=executor, shared=job, notify=notify)
    for counts in done:
        progress(*counts)
        store()


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


def _detector_file(faces: FaceSettings) -> Path | None:

    return weights_path(faces.detector) if faces.source == "detect" else None


def _shards_left(
    staging: Staging, shards: Sequence[Shard], manifest: Manifest, progress: ClipProgress | None
) -> list[Shard]:
    """Those that are not done, or whose clips changed since; the others count as progress."""
    left = []
    for shard in shards:
        found = staging.states(shard)
        if found is None or _changed(shard, found[0], manifest.root):
            left.append(shard)
        elif progress is not None:
            progress(len(shard.clips), 0, 0)
    return left


def _changed(shard: Shard, states: pa.Table, root: MediaRoot) -> bool:
    if root.remote:  # a question each would take hours
        return False
    sizes = states["bytes"].to_pylist()
    return any(
        not is_url(clip.path) and clip_bytes(clip, root) != n
        for clip, n in zip(shard.clips, sizes, strict=True)
    )


def _say_resumed(staging: Staging, shards: Sequence[Shard], notify: Notify) -> None:
    done = sum(staging.states_path(shard.number).is_file() for shard in shards)
    notify(f"going on with an extraction that was begun: {done} of {len(shards)} shards are done")


def _staging_again(run: RunFolder) -> tuple[Staging, Again]:
    """For the failed clips of a finished extraction."""
    table, made = run.read_clips()
    size = made.get("shard_clips")
    if not isinstance(size, int):
        raise VidfaceError(
            f"{run.clips_path}: made by an older vidface, whose shards can't be mended; "
            "extract_clips with --force"
        )
    states = zip(table["clip_id"].to_pylist(), table["state"].to_pylist(), strict=True)
    failed = frozenset(clip_id for clip_id, state in states if state in FAILED_STATES)
    staging, _ = open_staging(run, made, size, force=True)
    return staging, Again(run.folder, failed)


def _seed(staging: Staging, shards: Sequence[Shard], again: Again, *, keep_crops: bool) -> None:
    """Take over the shards without a failed clip as they are."""
    run = RunFolder(again.run)
    table, _ = run.read_clips()
    for shard in shards:
        if again.wanted(shard):
            continue
        link_or_copy(run.shard_path(shard.number), staging.folder.shard_path(shard.number))
        if keep_crops:
            link_or_copy(run.crops_path(shard.number), staging.folder.crops_path(shard.number))
        states = table.slice(shard.start, len(shard.clips))
        artefacts.write_parquet(staging.states_path(shard.number), states, staging.made)


def merged(shard: Shard, done: Sequence[EmbeddedClip], again: Again) -> list[EmbeddedClip]:
    """A shard's clips in order: those done again, and the others as they were."""
    run = RunFolder(again.run)
    old, _ = artefacts.read_shard(run.shard_path(shard.number))
    rows = dict(each_clip(old.table))
    crops: dict[str, list[bytes]] = {}
    if run.crops_path(shard.number).is_file():
        kept, _ = artefacts.read_parquet(run.crops_path(shard.number))
        for clip_id, part in each_clip(kept):
            crops[clip_id] = part["jpeg"].to_pylist()
    states = run.read_clips()[0].slice(shard.start, len(shard.clips)).to_pylist()
    new = {clip.clip.clip_id: clip for clip in done}
    return [
        new.get(clip.clip_id)
        or EmbeddedClip(
            clip,
            row["state"],
            row["message"],
            row["frames"],
            row["frames_without_face"],
            row["bytes"],
            rows.get(clip.clip_id, old.table.slice(0, 0)).replace_schema_metadata(None),
            tuple(crops.get(clip.clip_id, ())),
        )
        for clip, row in zip(shard.clips, states, strict=True)
    ]
