"""Extraction: clips → sampled frames → aligned faces → embeddings, batched across clips.

Decoding, detection and alignment run in worker threads (all three leave Python's lock); one thread
embeds what they hand over. Artefact: see `vidface.artefacts.embeddings_schema`.
"""

from __future__ import annotations

import contextlib
import io
import os
import posixpath
import threading
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pyarrow as pa

from vidface import artefacts
from vidface.artefacts import RunFolder
from vidface.backbones.base import BATCH_SIZE, Backbone
from vidface.errors import VidfaceError
from vidface.faces import CROP_SIZE, FaceDetector, align_face
from vidface.frames import ClipError, decode_image, sample_frames
from vidface.manifests import Clip, Manifest
from vidface.media import MediaRoot
from vidface.pipeline import FaceSettings, FrameSettings

SHARD_CLIPS = 1024
EMBED_AT_ONCE = 16 * BATCH_SIZE  # faces gathered, across clips, before they are embedded
JPEG_QUALITY = 95


@dataclass(frozen=True)
class Face:
    """One face of a clip, before it is embedded."""

    frame_index: int  # k, or the image's place in its folder
    time_seconds: float | None
    source_time_seconds: float | None
    file: str | None
    face_index: int
    box: np.ndarray | None  # (4,) float32
    landmarks: np.ndarray | None  # (5, 2) float32
    det_score: float | None
    crop: np.ndarray = field(repr=False)  # (112, 112, 3) uint8 RGB


@dataclass(frozen=True)
class ClipFaces:
    """What came of one clip. `frames` counts the sampled frames or the images."""

    clip: Clip
    state: str
    message: str
    frames: int
    frames_without_face: int
    faces: tuple[Face, ...]

    def __str__(self) -> str:
        return f"ClipFaces({self.clip.clip_id}: {self.state}, {len(self.faces)} faces)"


@dataclass(frozen=True)
class Extraction:
    """Summary of an extraction, read from clips.parquet."""

    clips: int
    states: Mapping[str, int]
    frames: int
    frames_without_face: int
    faces: int
    failed: tuple[tuple[str, str, str], ...]  # clip_id, state, message

    def to_dict(self) -> dict[str, Any]:
        return {
            "clips": self.clips,
            "states": dict(self.states),
            "frames": self.frames,
            "frames_without_face": self.frames_without_face,
            "faces": self.faces,
            "failed": [
                {"clip_id": clip_id, "state": state, "message": message}
                for clip_id, state, message in self.failed
            ],
        }


Progress = Callable[[int, int, int], None]  # clips, frames and faces done since the last call


def clip_faces(
    clip: Clip,
    root: MediaRoot,
    frames: FrameSettings,
    faces: FaceSettings,
    detector: FaceDetector | None,
) -> ClipFaces:
    """Sample, detect and align one clip. Damage to the clip becomes its state, never an exception.

    Args:
        detector: None with source = "aligned", where images are used as they are.

    Raises:
        VidfaceError: only what concerns every clip, such as a decoder that is not installed.
    """
    found: list[Face] = []
    indexes: set[int] = set()
    state, message = "", ""
    try:
        for index, times, file, image in _images(clip, root, frames, faces):
            indexes.add(index)
            found.extend(_faces_of(index, times, file, image, detector))
    except ClipError as error:
        state, message = error.state, str(error)
    except VidfaceError:
        raise
    except FileNotFoundError as error:
        state, message = "missing", f"{clip.path}: {error.strerror}"
    except Exception as error:  # a stranger's file never stops a run
        state, message = "corrupt", f"{clip.path}: {type(error).__name__}: {error}"
    if state in artefacts.FAILED_STATES and state != "truncated":
        found, indexes = [], set()  # of a damaged clip nothing is trusted
    if not state:
        state = "ok" if found else "no_face"
        message = "" if found else f"{clip.path}: no face in {len(indexes)} frames"
    without = len(indexes) - len({face.frame_index for face in found})
    message = " ".join(message.split())
    return ClipFaces(clip, state, message, len(indexes), without, tuple(found))


Times = tuple[float, float] | None


def _images(
    clip: Clip, root: MediaRoot, frames: FrameSettings, faces: FaceSettings
) -> Iterator[tuple[int, Times, str | None, np.ndarray]]:
    """(k, times, file, RGB image) of every frame of a clip, whatever it is stored as."""
    from vidface.media import is_image_name

    kind = root.kind(clip.path)
    if kind is None:
        raise FileNotFoundError(2, "no such file or folder", clip.path)
    if kind == "folder" or is_image_name(clip.path):
        folder, names = clip.path, []
        if kind == "folder":
            names = root.image_names(clip.path)
        else:
            folder, name = posixpath.split(clip.path)
            names = [name]
        if not names:
            raise ClipError(f"{clip.path}: no images in this folder", state="no_video_stream")
        for index, name in enumerate(names):
            path = posixpath.join(folder, name)
            image = decode_image(root.read(path), path)
            if faces.source == "aligned" and image.shape != (CROP_SIZE, CROP_SIZE, 3):
                raise ClipError(
                    f"{path}: {image.shape[1]}x{image.shape[0]} pixels, but aligned crops are "
                    f'{CROP_SIZE}x{CROP_SIZE}; set [faces] source = "detect" for whole frames',
                    state="corrupt",
                )
            yield index, None, name, image
        return
    if faces.source == "aligned":
        raise ClipError(
            f"{clip.path}: a video file where aligned crops are expected; "
            'set [faces] source = "detect"',
            state="corrupt",
        )
    source = root.open_video(clip.path)
    with contextlib.nullcontext() if isinstance(source, str) else source:
        for frame in sample_frames(
            source,
            frames.fps,
            start_seconds=clip.start_seconds,
            end_seconds=clip.end_seconds,
            decoder=frames.decoder,
            name=clip.path,
        ):
            times = (frame.time_seconds, frame.source_time_seconds)
            yield frame.index, times, None, frame.image


def _faces_of(
    index: int, times: Times, file: str | None, image: np.ndarray, detector: FaceDetector | None
) -> Iterator[Face]:
    time, source_time = times or (None, None)
    if detector is None:
        yield Face(index, time, source_time, file, 0, None, None, None, image)
        return
    found = detector.detect(image)
    for number in range(len(found)):
        landmarks = found.landmarks[number]
        crop = align_face(image, landmarks)
        score = float(found.scores[number])
        box = found.boxes[number]
        yield Face(index, time, source_time, file, number, box, landmarks, score, crop)


def extract(
    manifest: Manifest,
    run: RunFolder,
    backbone: Backbone,
    frames: FrameSettings,
    faces: FaceSettings,
    settings: Mapping[str, Any],
    *,
    workers: int | None = None,
    progress: Progress | None = None,
) -> Extraction:
    """Extract every clip of a manifest into a run directory.

    Args:
        settings: what the artefacts record and later stages compare.
        workers: decoding threads (default: one a core).
        progress: called after every clip with the numbers of clips, frames and faces it added.

    Returns:
        The summary; the artefacts lie in `run`, `clips.parquet` written last.

    Raises:
        VidfaceError: the run directory cannot be written, or a setting is wrong.
    """
    made = artefacts.provenance("extract", settings, manifest_sha256=manifest.sha256)
    try:
        run.clear_extraction()
        states = _extract_shards(manifest, run, backbone, frames, faces, made, workers, progress)
        table = pa.Table.from_pylist(states, schema=artefacts.CLIPS_SCHEMA)
        artefacts.write_parquet(run.clips_path, table, made)
    except OSError as error:
        raise VidfaceError(f"run directory {run.folder}: {error.strerror or error}") from None
    return summarise(table)


def _extract_shards(
    manifest: Manifest,
    run: RunFolder,
    backbone: Backbone,
    frames: FrameSettings,
    faces: FaceSettings,
    made: Mapping[str, Any],
    workers: int | None,
    progress: Progress | None,
) -> list[dict[str, Any]]:
    states = []
    results = _results(manifest, frames, faces, workers or available_cores())
    shard = _Shard(backbone, keep_crops=faces.keep_crops)
    number = 0
    for count, result in enumerate(results, start=1):
        states.append(_state_row(result))
        shard.add(result)
        if progress is not None:
            progress(1, result.frames, len(result.faces))
        if count % SHARD_CLIPS == 0 or count == len(manifest.clips):
            shard.write(run, number, made)
            shard = _Shard(backbone, keep_crops=faces.keep_crops)
            number += 1
    return states


def available_cores() -> int:
    """Cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _results(
    manifest: Manifest, frames: FrameSettings, faces: FaceSettings, workers: int
) -> Iterator[ClipFaces]:
    """The clips' faces, in the manifest's order, a few clips ahead of the reader."""
    import cv2
    from joblib import Parallel, delayed

    own = threading.local()  # a detector is not for two threads at once

    def work(clip: Clip) -> ClipFaces:
        if faces.source == "detect" and not hasattr(own, "detector"):
            own.detector = make_detector(faces)
        return clip_faces(clip, manifest.root, frames, faces, getattr(own, "detector", None))

    if faces.source == "detect":
        own.detector = make_detector(faces)  # fetches the weights before threads start
    cv2.setNumThreads(1)  # the workers are the parallelism
    pool = Parallel(
        n_jobs=workers, backend="threading", return_as="generator", pre_dispatch="2*n_jobs"
    )
    yield from pool(delayed(work)(clip) for clip in manifest.clips)


def make_detector(faces: FaceSettings) -> FaceDetector:
    """The detector that the settings describe."""
    from vidface.weights import weights_path

    return FaceDetector(
        min_score=faces.min_det_score,
        min_face_pixels=faces.min_face_pixels,
        which=faces.which,
        long_side=faces.detector_long_side,
        model=weights_path(faces.detector),
    )


class _Shard:
    """Rows of one shard as they come in; faces are embedded once a full load of them waits."""

    def __init__(self, backbone: Backbone, *, keep_crops: bool) -> None:
        self._backbone = backbone
        self._keep_crops = keep_crops
        self._columns: dict[str, list[Any]] = {}
        self._waiting: list[np.ndarray] = []
        self._embeddings: list[np.ndarray] = [np.empty((0, backbone.dimension), np.float32)]
        self._jpegs: list[bytes] = []

    def add(self, result: ClipFaces) -> None:
        for face in result.faces:
            for name, value in (
                ("clip_id", result.clip.clip_id),
                ("frame_index", face.frame_index),
                ("time_seconds", face.time_seconds),
                ("source_time_seconds", face.source_time_seconds),
                ("file", face.file),
                ("face_index", face.face_index),
                ("box", None if face.box is None else face.box.tolist()),
                ("landmarks", None if face.landmarks is None else face.landmarks.ravel().tolist()),
                ("det_score", face.det_score),
            ):
                self._columns.setdefault(name, []).append(value)
            self._waiting.append(face.crop)
            if self._keep_crops:
                self._jpegs.append(encode_jpeg(face.crop))
            if len(self._waiting) >= EMBED_AT_ONCE:
                self._embed()

    def _embed(self) -> None:
        if self._waiting:
            self._embeddings.append(self._backbone.embed(np.stack(self._waiting)))
            self._waiting = []

    def write(self, run: RunFolder, number: int, made: Mapping[str, Any]) -> None:
        self._embed()
        embeddings = np.concatenate(self._embeddings)  # (n_faces, d) float32
        schema = artefacts.embeddings_schema(self._backbone.dimension)
        with np.errstate(over="ignore", invalid="ignore"):
            norms = np.linalg.norm(embeddings, axis=1).astype(np.float32)
        columns: dict[str, Any] = {
            name: pa.array(self._columns.get(name, []), schema.field(name).type)
            for name in schema.names
            if name not in ("norm", "embedding")
        }
        columns["norm"] = pa.array(norms)
        columns["embedding"] = artefacts.fixed_lists(embeddings)
        table = pa.table(columns, schema=schema)
        if self._keep_crops:
            keys = ("clip_id", "frame_index", "face_index")
            crops = {name: columns[name] for name in keys}
            crops["jpeg"] = pa.array(self._jpegs, pa.binary())
            kept = pa.table(crops, schema=artefacts.CROPS_SCHEMA)
            artefacts.write_parquet(run.crops_path(number), kept, made)
        artefacts.write_arrow(run.shard_path(number), table, made)


def encode_jpeg(crop: np.ndarray) -> bytes:
    """A (112, 112, 3) uint8 RGB crop as JPEG bytes."""
    from PIL import Image

    buffer = io.BytesIO()
    Image.fromarray(crop).save(buffer, format="JPEG", quality=JPEG_QUALITY)
    return buffer.getvalue()


def _state_row(result: ClipFaces) -> dict[str, Any]:
    return {
        "clip_id": result.clip.clip_id,
        "path": result.clip.path,
        "state": result.state,
        "message": result.message,
        "frames": result.frames,
        "frames_without_face": result.frames_without_face,
        "faces": len(result.faces),
    }


def summarise(clips: pa.Table) -> Extraction:
    """The summary of clips.parquet."""
    rows: Sequence[dict[str, Any]] = clips.to_pylist()
    states = Counter(row["state"] for row in rows)
    return Extraction(
        clips=len(rows),
        states={state: states[state] for state in artefacts.STATES if states[state]},
        frames=sum(row["frames"] for row in rows),
        frames_without_face=sum(row["frames_without_face"] for row in rows),
        faces=sum(row["faces"] for row in rows),
        failed=tuple(
            (row["clip_id"], row["state"], row["message"])
            for row in rows
            if row["state"] in artefacts.FAILED_STATES
        ),
    )
