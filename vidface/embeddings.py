"""Extraction: clips → sampled frames → aligned faces → embeddings, batched across clips.

Decoding, detection and alignment run in worker threads (all three leave Python's lock); one thread
embeds what they hand over. Artefact: see `vidface.artefacts.embeddings_schema`.
"""

from __future__ import annotations

import contextlib
import errno
import io
import posixpath
import threading
from collections import deque
from collections.abc import Callable, Generator, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from vidface import artefacts
from vidface.artefacts import RunFolder
from vidface.backbones.embedder import Embedder, available_cores
from vidface.errors import VidfaceError
from vidface.faces import CROP_SIZE, FaceDetector, align_face
from vidface.frames import ClipError, decode_image, sample_frames
from vidface.manifests import Clip, Manifest
from vidface.media import MediaRoot, is_image_name
from vidface.pipeline import FaceSettings, FrameSettings

SHARD_CLIPS = 1024
SHARD_FACES = 65_536  # a shard ends with the clip that reaches either
EMBED_AT_ONCE = 256  # faces gathered, across clips, before they are embedded
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
    bytes: int = 0  # of the file, or of the folder's images

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
    count = 0
    state, message = "", ""
    previous: tuple[np.ndarray, list[Face]] | None = None
    try:
        for index, times, file, image in _images(clip, root, frames, faces):
            if previous is None or previous[0] is not image:  # a picture may be shown for long
                previous = image, list(_faces_of(image, detector))
            time, source_time = times or (None, None)
            found.extend(
                replace(
                    face,
                    frame_index=index,
                    time_seconds=time,
                    source_time_seconds=source_time,
                    file=file,
                )
                for face in previous[1]
            )
            count += 1
    except ClipError as error:
        state, message = error.state, str(error)
    except VidfaceError:
        raise
    except FileNotFoundError as error:
        state, message = "missing", f"{clip.path}: {error.strerror}"
    except OSError as error:
        if error.errno in (errno.EMFILE, errno.ENFILE):
            raise VidfaceError("too many open files; raise the limit (ulimit -n)") from None
        state, message = "corrupt", f"{clip.path}: cannot be read: {error.strerror or error}"
    except Exception as error:  # a stranger's file never stops a run
        state, message = "corrupt", f"{clip.path}: {type(error).__name__}: {error}"
    if state in artefacts.FAILED_STATES and state != "truncated":
        found, count = [], 0  # of a damaged clip nothing is trusted
    if not state:
        state = "ok" if found else "no_face"
        message = "" if found else f"{clip.path}: no face in {count} frames"
        if not count:
            message = f"{clip.path}: start_seconds lies behind the end of the clip"
    without = count - len({face.frame_index for face in found})
    message = " ".join(message.split())
    return ClipFaces(clip, state, message, count, without, tuple(found), clip_bytes(clip, root))


def clip_bytes(clip: Clip, root: MediaRoot) -> int:
    """The size by which a changed clip is noticed; 0 where it cannot be read."""
    try:
        return root.size(clip.path)
    except OSError:
        return 0


Times = tuple[float, float] | None


def _images(
    clip: Clip, root: MediaRoot, frames: FrameSettings, faces: FaceSettings
) -> Iterator[tuple[int, Times, str | None, np.ndarray]]:
    """(k, times, file, RGB image) of every frame of a clip, whatever it is stored as."""
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
            threads=1,  # clips run side by side
            name=clip.path,
        ):
            times = (frame.time_seconds, frame.source_time_seconds)
            yield frame.index, times, None, frame.image


def _faces_of(image: np.ndarray, detector: FaceDetector | None) -> Iterator[Face]:
    """The faces of one picture, not yet placed in time."""
    if detector is None:
        yield Face(0, None, None, None, 0, None, None, None, image)
        return
    found = detector.detect(image)
    number = 0
    for box, landmarks, score in zip(found.boxes, found.landmarks, found.scores, strict=True):
        try:
            crop = align_face(image, landmarks)
        except VidfaceError:  # landmarks that coincide: nothing to align by
            continue
        yield Face(0, None, None, None, number, box, landmarks, float(score), crop)
        number += 1


def extract(
    manifest: Manifest,
    run: RunFolder,
    backbone: Embedder,
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
    made = artefacts.provenance(
        "extract", settings, manifest_sha256=manifest.sha256, runtime=str(backbone.plan)
    )
    staging = run.new_staging()  # what is there stays until all of the new is
    table = _extract_shards(manifest, staging, backbone, frames, faces, made, workers, progress)
    artefacts.write_parquet(staging.clips_path, table, made)
    run.replace_extraction(staging)
    return summarise(table)


def _extract_shards(
    manifest: Manifest,
    run: RunFolder,
    backbone: Embedder,
    frames: FrameSettings,
    faces: FaceSettings,
    made: Mapping[str, Any],
    workers: int | None,
    progress: Progress | None,
) -> pa.Table:
    """The clips' states; of what a shard holds only those stay in memory, as columns."""
    tables, states, done = [], [], 0
    results = _results(manifest, frames, faces, workers or available_cores())
    shard = _Shard(backbone, keep_crops=faces.keep_crops)
    number = 0
    with contextlib.closing(results):
        for result in results:
            states.append(_state_row(result))
            shard.add(result)
            if progress is not None:
                progress(1, result.frames, len(result.faces))
            full = shard.clips >= SHARD_CLIPS or shard.faces >= SHARD_FACES
            done += 1
            if full or done == len(manifest.clips):
                shard.write(run, number, made)
                shard = _Shard(backbone, keep_crops=faces.keep_crops)
                number += 1
                tables.append(pa.Table.from_pylist(states, schema=artefacts.CLIPS_SCHEMA))
                states = []
    return pa.concat_tables(tables).combine_chunks()


def _results(
    manifest: Manifest, frames: FrameSettings, faces: FaceSettings, workers: int
) -> Generator[ClipFaces]:
    """The clips' faces, in the manifest's order, at most two clips a worker ahead of the reader.

    Not joblib: its generator works on however slowly it is read, and would fill the memory.
    """
    import cv2

    own = threading.local()  # a detector is not for two threads at once

    def work(clip: Clip) -> ClipFaces:
        if faces.source == "detect" and not hasattr(own, "detector"):
            own.detector = make_detector(faces)
        detector = getattr(own, "detector", None)
        return clip_faces(clip, manifest.root, frames, faces, detector)

    waiting: deque[Future[ClipFaces]] = deque()
    pool = ThreadPoolExecutor(max_workers=workers)
    opencv_threads = cv2.getNumThreads()
    cv2.setNumThreads(1)  # the workers are the parallelism
    try:
        for clip in manifest.clips:
            waiting.append(pool.submit(work, clip))
            if len(waiting) == 2 * workers:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    finally:
        pool.shutdown(cancel_futures=True)
        cv2.setNumThreads(opencv_threads)


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

    def __init__(self, backbone: Embedder, *, keep_crops: bool) -> None:
        self._backbone = backbone
        self._keep_crops = keep_crops
        self.clips = self.faces = 0
        self._columns: dict[str, list[Any]] = {}
        self._waiting: list[np.ndarray] = []
        self._embeddings: list[np.ndarray] = [np.empty((0, backbone.dimension), np.float32)]
        self._jpegs: list[bytes] = []

    def add(self, result: ClipFaces) -> None:
        self.clips += 1
        self.faces += len(result.faces)
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
        "bytes": result.bytes,
        "state": result.state,
        "message": result.message,
        "frames": result.frames,
        "frames_without_face": result.frames_without_face,
        "faces": len(result.faces),
    }


def summarise(clips: pa.Table) -> Extraction:
    """The summary of clips.parquet."""
    counted = {row["values"]: row["counts"] for row in clips["state"].value_counts().to_pylist()}
    failed = clips.filter(pc.is_in(clips["state"], pa.array(sorted(artefacts.FAILED_STATES))))
    columns = [failed[name].to_pylist() for name in ("clip_id", "state", "message")]
    return Extraction(
        clips=len(clips),
        states={state: counted[state] for state in artefacts.STATES if state in counted},
        frames=pc.sum(clips["frames"]).as_py(),
        frames_without_face=pc.sum(clips["frames_without_face"]).as_py(),
        faces=pc.sum(clips["faces"]).as_py(),
        failed=tuple(zip(*columns, strict=True)),
    )
