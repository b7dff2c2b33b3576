"""Feature files as an extraction: faces that somebody else found and embedded.

A clip's path names a pickle as iQIYI-VID has them (`vidface.datasets.iqiyi_features`) or a table of
embeddings (`vidface.datasets.embedding_files`), its clip_id a video in it, without `.mp4`. No
detector and no recogniser is run; what comes out is the artefact that every later stage reads. A
pickle is read once, a video at a time.

An artefact's settings name the files, by the clips' paths; their sizes are in clips.parquet, and
their hashes in the provenance (`features`). So a file that was replaced by one of another size is
noticed before anything is reused, as it is with clips.
"""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from vidface.core.clips import Clip, FileState
from vidface.core.errors import VidfaceError
from vidface.core.files import named_errors
from vidface.core.progress import ClipProgress, Notify, quiet
from vidface.core.rules import NEW_RULES
from vidface.datasets.embedding_files import READERS, iter_embeddings
from vidface.datasets.iqiyi import video_key
from vidface.datasets.iqiyi_features import VideoFeatures, iter_features
from vidface.runs import artefacts
from vidface.runs.columns import CLIPS_SCHEMA, embeddings_schema
from vidface.runs.embedding import ExtractionSummary, summarise
from vidface.runs.run_folder import RunFolder
from vidface.settings.manifests import Manifest
from vidface.storage.cache import sha256_of
from vidface.storage.contents import with_content
from vidface.storage.media import FolderRoot

SHARD_CLIPS = 1024
SHARD_FACES = 65_536  # a shard ends with the video that reaches either


def extract_features(
    manifest: Manifest,
    run: RunFolder,
    settings: Mapping[str, Any],
    *,
    notify: Notify = quiet,
    progress: ClipProgress | None = None,
    shard_clips: int = SHARD_CLIPS,
    shard_faces: int = SHARD_FACES,
) -> ExtractionSummary:
    """Put the features of a manifest's clips into a run directory.

    A clip's state is "ok", "no_face" (an empty list) or "missing" (the file has no such video, or
    there is no such file). Its frames are the different frame numbers of its faces. float16 becomes
    float32. NaN, infinite and zero features stay; later stages call them unusable. Videos that the
    manifest does not name are passed over, with a word.

    Memory is that of a shard: `shard_faces` or the largest video, 6 bytes a value where the file
    has float16.

    Args:
        manifest: clips in any order; those of a file may be spread.
        settings: what the artefacts record and later stages compare.
        progress: called after every clip with the numbers of clips, frames and faces it added.
        shard_clips, shard_faces: a shard ends with the clip that reaches either; clips without a
            face don't count.

    Raises:
        VidfaceError: what is wrong with a file, features of several dimensions, no face at all,
            clips with start_seconds or end_seconds, a root that is no folder, a run directory that
            can't be written. What was in the run directory then stays.
    """
    files = _group_by_file(manifest)
    described = {name: _describe_file(file.path) for name, file in files.items() if file.exists}
    made = artefacts.provenance(
        "extract", settings, manifest_sha256=manifest.sha256, features=described
    )
    staging = run.new_staging()  # what is there stays until all of the new is
    try:
        rows = _States(manifest.clips, progress)
        shards = _Shards(staging, made, shard_clips, shard_faces)
        for name, file in files.items():
            _read_file(name, file, rows, shards, notify)
        shards.finish()
        if shards.dimension == 0:
            named = ", ".join(files)
            raise VidfaceError(
                f"none of the manifest's {len(manifest.clips)} videos has a face in {named}; are "
                "these the right files?"
            )
        states = {name: _read_state(name, manifest) for name in described}
        table = rows.table(states, manifest.clip_keys)
        artefacts.write_parquet(staging.clips_path, table, made)
    except BaseException:
        shutil.rmtree(staging.folder, ignore_errors=True)  # gigabytes that nobody would look for
        raise
    run.replace_extraction(staging)
    return summarise(table)


@dataclass
class _File:
    """A feature file, and the rows of the manifest's clips in it by the video's name."""

    path: Path
    exists: bool
    rows: dict[str, int] = field(default_factory=dict)


def _group_by_file(manifest: Manifest) -> dict[str, _File]:
    """The files that the clips' paths name, in order of first appearance."""
    root = manifest.root
    if not isinstance(root, FolderRoot):
        raise VidfaceError(
            f"root {root.location}: feature files are read from a folder on this machine; unpack "
            "or fetch it"
        )
    files: dict[str, _File] = {}
    for row, clip in enumerate(manifest.clips):
        if clip.start_seconds is not None or clip.end_seconds is not None:
            raise VidfaceError(
                f"{manifest.locate(clip)}: features have no times; leave "
                "start_seconds and end_seconds out"
            )
        if clip.path not in files:
            path = root.location / clip.path
            with named_errors(path):
                kind = root.kind(clip.path)
            if kind == "folder":
                raise VidfaceError(f"{path}: a folder, not a feature file")
            files[clip.path] = _File(path, kind == "file")
        rows, video = files[clip.path].rows, video_key(clip.clip_id)
        if rows.setdefault(video, row) != row:
            raise VidfaceError(
                f"{manifest.locate(clip)}: video '{video}' stands twice, with .mp4 and without"
            )
    return files


def _describe_file(path: Path) -> dict[str, Any]:
    """Size and hash of a file, by which others can tell whether they have the same."""
    with named_errors(path):
        return {"bytes": path.stat().st_size, "sha256": sha256_of(path)}


def _read_state(name: str, manifest: Manifest) -> FileState:
    """What a file that changes later is noticed by."""
    state = manifest.root.state(name)
    return with_content(state, name, manifest.root, NEW_RULES)


def _read_file(name: str, file: _File, rows: _States, shards: _Shards, notify: Notify) -> None:
    rows_left, passed_over = dict(file.rows), 0
    if file.exists:
        is_table = file.path.suffix.lower() in READERS
        for video in (iter_embeddings if is_table else iter_features)(file.path):
            row = rows_left.pop(video.video, None)
            if row is None:
                passed_over += 1
            else:
                rows.note_video(row, video)
                shards.add(rows.clips[row].clip_id, video)
    for video_name, row in rows_left.items():
        reason = f"no video '{video_name}' in it" if file.exists else "no such file"
        rows.note_missing(row, f"{name}: {reason}")
    if passed_over:
        notify(f"{name}: {passed_over} videos that the manifest does not name are passed over")


class _States:
    """What became of the clips, in the manifest's order."""

    def __init__(self, clips: tuple[Clip, ...], progress: ClipProgress | None) -> None:
        self.clips = clips
        self._progress = progress
        self._states = ["missing"] * len(clips)
        self._messages = [""] * len(clips)
        self._frames = np.zeros(len(clips), np.int32)
        self._faces = np.zeros(len(clips), np.int32)

    def note_video(self, row: int, video: VideoFeatures) -> None:
        faces = len(video.frames)
        self._faces[row], self._frames[row] = faces, len(np.unique(video.frame_index))
        self._states[row] = "ok" if faces else "no_face"
        if not faces:
            self._messages[row] = f"{self.clips[row].path}: no face of '{video.video}' in it"
        self._tell_progress(row)

    def note_missing(self, row: int, message: str) -> None:
        self._messages[row] = message
        self._tell_progress(row)

    def _tell_progress(self, row: int) -> None:
        if self._progress is not None:
            self._progress(1, int(self._frames[row]), int(self._faces[row]))

    def table(self, files: Mapping[str, FileState], keys: pa.Array) -> pa.Table:
        """clips.parquet; `files` are those that there are."""
        paths = [clip.path for clip in self.clips]
        states = [files.get(path, FileState()) for path in paths]
        columns = {
            "clip_id": [clip.clip_id for clip in self.clips],
            "path": paths,
            "bytes": [state.bytes for state in states],
            "state": self._states,
            "message": self._messages,
            "frames": self._frames,
            "frames_without_face": np.zeros(len(paths), np.int32),
            "faces": self._faces,
            "key": keys,
            "modified_ns": [state.modified_ns for state in states],
            "content": [state.content for state in states],
        }
        return pa.table(columns, schema=CLIPS_SCHEMA)


class _Shards:
    """Videos with faces as they come, written out a shard at a time."""

    def __init__(
        self, run: RunFolder, made: Mapping[str, Any], shard_clips: int, shard_faces: int
    ) -> None:
        self._run, self._made = run, made
        self._limits = shard_clips, shard_faces
        self._waiting: list[tuple[str, VideoFeatures]] = []
        self._faces = self._written = 0
        self.dimension = 0  # until a face has come

    def add(self, clip_id: str, video: VideoFeatures) -> None:
        n, d = video.features.shape
        if n == 0:
            return
        self.dimension = self.dimension or d
        if d != self.dimension:
            raise VidfaceError(
                f"video '{video.video}': features of {d} dimensions, but of {self.dimension} in "
                "the file before; a run holds one kind"
            )
        self._waiting.append((clip_id, video))
        self._faces += n
        if len(self._waiting) >= self._limits[0] or self._faces >= self._limits[1]:
            self.finish()

    def finish(self) -> None:
        """Write what waits."""
        if self._waiting:
            table = _make_table(self._waiting, self._faces, self.dimension)
            artefacts.write_arrow(self._run.shard_path(self._written), table, self._made)
            self._waiting, self._faces = [], 0
            self._written += 1


def _make_table(videos: list[tuple[str, VideoFeatures]], n_faces: int, dimension: int) -> pa.Table:
    """The rows of a shard."""
    counts = [len(video.frames) for _, video in videos]
    embeddings = np.empty((n_faces, dimension), np.float32)
    np.concatenate([video.features for _, video in videos], out=embeddings)
    with np.errstate(over="ignore", invalid="ignore"):
        norms = np.sqrt(np.einsum("ij,ij->i", embeddings, embeddings, dtype=np.float64))
    clip_ids = pa.array([clip_id for clip_id, _ in videos], pa.string())
    columns: dict[str, Any] = {
        "clip_id": clip_ids.take(pa.array(np.repeat(np.arange(len(videos)), counts))),
        "frame_index": np.concatenate([video.frame_index for _, video in videos]),
        "file": [name for _, video in videos for name in _list_file_names(video)],
        "face_index": np.concatenate([_number_faces(video.frame_index) for _, video in videos]),
        "norm": norms.astype(np.float32),
        "embedding": artefacts.fixed_lists(embeddings),
    }
    kept = {"box": "boxes", "det_score": "det_scores", "quality": "qualities"}
    for name, attribute in kept.items():
        parts = [getattr(video, attribute) for _, video in videos]
        if all(part is not None for part in parts):
            column = np.concatenate(parts)
            columns[name] = artefacts.fixed_lists(column) if column.ndim == 2 else column
    schema = embeddings_schema(dimension, quality=True)
    nulls = {f.name: pa.nulls(n_faces, f.type) for f in schema if f.name not in columns}
    return pa.table({**columns, **nulls}, schema=schema)


def _list_file_names(video: VideoFeatures) -> list[str | None]:
    """The frames' texts where they say more than the frame's number."""
    numbers = video.frame_index.tolist()
    return [
        None if text == str(number) else text
        for text, number in zip(video.frames, numbers, strict=True)
    ]


def _number_faces(frame_index: NDArray[np.int32]) -> NDArray[np.int32]:
    """Faces of one frame, numbered in their order.

    >>> _number_faces(np.array([3, 8, 3, 3, 9], np.int32))
    array([0, 0, 1, 2, 0], dtype=int32)
    """
    order = np.argsort(frame_index, kind="stable")
    frames = frame_index[order]
    new = np.ones(len(frames), dtype=bool)
    new[1:] = frames[1:] != frames[:-1]
    firsts = np.flatnonzero(new)
    numbers = np.empty(len(frames), np.int32)
    numbers[order] = np.arange(len(frames)) - firsts[np.cumsum(new) - 1]
    return numbers
