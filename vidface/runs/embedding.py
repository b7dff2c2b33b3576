"""Embeddings: faces of clips, as decoding finds them, → rows; batches fill across clips.

Artefact: see `vidface.runs.artefacts.embeddings_schema`.
"""

from __future__ import annotations

import hashlib
import io
import time
from collections import deque
from collections.abc import Generator, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from vidface.backbones.embedder import Embedder
from vidface.core.clips import Clip
from vidface.core.redaction import redacted
from vidface.core.states import FAILED_STATES, KEPT_STATES, STATES
from vidface.faces.events import ClipEnd, Face, FoundFaces
from vidface.runs import artefacts
from vidface.runs.trying import Trial

EMBED_AT_ONCE = 128  # faces gathered, across clips, before they are embedded
JPEG_QUALITY = 95


@dataclass(frozen=True)
class EmbeddedClip:
    """A clip that is done: its state, and a row for every face that counts."""

    clip: Clip
    state: str
    message: str
    frames: int
    frames_without_face: int
    size_bytes: int
    rows: pa.Table = field(repr=False)  # of embeddings_schema
    jpegs: tuple[bytes, ...] = field(default=(), repr=False)  # with keep_crops, one a row
    seconds: Mapping[str, float] = field(default_factory=dict)  # of each stage

    def __str__(self) -> str:
        return f"EmbeddedClip({self.clip.clip_id}: {self.state}, {len(self.rows)} faces)"

    def to_row(self) -> dict[str, Any]:
        """Its row of clips.parquet."""
        return {
            "clip_id": self.clip.clip_id,
            "path": redacted(self.clip.path),
            "bytes": self.size_bytes,
            "state": self.state,
            "message": self.message,
            "frames": self.frames,
            "frames_without_face": self.frames_without_face,
            "faces": len(self.rows),
        }


class _Waiting:
    """A clip on its way: rows so far, faces that still wait to be embedded, its end if it came.

    A crop that comes again, bit for bit, is the picture that it was: pictures are numbered, and
    each is embedded once.
    """

    def __init__(self, clip: Clip) -> None:
        self.clip = clip
        self.batches: list[pa.RecordBatch] = []
        self.pictures: dict[bytes, int] = {}  # a crop's digest → its number
        self.vectors: list[np.ndarray] = []  # of each picture: (d + 1,) float32
        self.picture_jpegs: list[bytes] = []
        self.jpegs: list[bytes] = []  # of each face
        self.unembedded = 0
        self.end: ClipEnd | None = None

    @property
    def thrown_away(self) -> bool:
        return self.end is not None and self.end.state not in KEPT_STATES

    def number_pictures(self, crops: np.ndarray) -> tuple[list[int], np.ndarray]:
        """Give each crop its picture's number, and the crops of pictures that are new."""
        numbers, new = [], []
        for place, crop in enumerate(crops):
            digest = hashlib.blake2b(crop.tobytes(), digest_size=16).digest()
            if digest not in self.pictures:
                self.pictures[digest] = len(self.pictures)
                new.append(place)
            numbers.append(self.pictures[digest])
        return numbers, crops if len(new) == len(crops) else crops[new]


def embed_clips(
    clips: Sequence[Clip],
    events: Iterable[FoundFaces | ClipEnd],
    backbone: Embedder,
    *,
    keep_crops: bool = False,
    trial: Trial | None = None,
) -> Generator[EmbeddedClip]:
    """Clips with their embeddings, in the order of `clips`, from what decoding finds of them.

    Faces are embedded in batches of one shape whatever clip they are of, so that a row has the
    same bits however the clips came in. Memory: rows of clips that are not done yet, a few hundred
    crops. Of a clip every bit-equal crop is embedded once.

    Args:
        clips: what was decoded; an event's `clip_number` counts from 0 in them.
        events: of `vidface.faces.pool.decode_clips`.
        keep_crops: keep every face that counts as a JPEG.
        trial: of the recogniser, which its first faces go through before any is embedded.

    Raises:
        VidfaceError: the recogniser fails its trial.
    """
    schema = artefacts.embeddings_schema(backbone.dimension)
    on_the_way: dict[int, _Waiting] = {}
    queue: deque[tuple[_Waiting, tuple[Face, ...], list[int], np.ndarray]] = deque()
    queued, next_number, embed_seconds = 0, 0, 0.0

    def embed_all() -> None:
        nonlocal queued, embed_seconds
        begun = time.perf_counter()
        wanted = [entry for entry in queue if not entry[0].thrown_away]
        if wanted:
            if trial is not None:
                trial.try_faces()
            crops = np.concatenate([crops for *_, crops in wanted])
            # The norm is the last column.
            vectors = np.empty((0, backbone.dimension + 1), np.float32)
            if len(crops):
                vectors = np.column_stack(backbone.embed_faces(crops, whole_batches=True))
            start = 0
            for waiting, faces, pictures, new_crops in wanted:
                rows = vectors[start : start + len(new_crops)]
                start += len(new_crops)
                waiting.vectors += list(rows)
                if len(rows) < len(faces):
                    rows = np.stack([waiting.vectors[number] for number in pictures])
                waiting.batches.append(_rows(waiting.clip, faces, rows, schema))
                if keep_crops:
                    waiting.picture_jpegs += [encode_jpeg(crop) for crop in new_crops]
                    waiting.jpegs += [waiting.picture_jpegs[number] for number in pictures]
        for waiting, faces, *_ in queue:
            waiting.unembedded -= len(faces)
        queue.clear()
        queued = 0
        embed_seconds += time.perf_counter() - begun

    def finished() -> Generator[EmbeddedClip]:
        nonlocal next_number, embed_seconds
        while (waiting := on_the_way.get(next_number)) is not None:
            if waiting.end is None or (waiting.unembedded and not waiting.thrown_away):
                return
            del on_the_way[next_number]
            next_number += 1
            seconds = {**vars(waiting.end.seconds), "embed": embed_seconds}
            embed_seconds = 0.0
            yield _embedded(waiting, waiting.end, schema, seconds)

    for event in events:
        number = event.clip_number
        waiting = on_the_way.setdefault(number, _Waiting(clips[number]))
        if isinstance(event, FoundFaces):
            pictures, new_crops = waiting.number_pictures(event.crops)
            queue.append((waiting, event.faces, pictures, new_crops))
            if trial is not None:
                trial.see(waiting.clip, new_crops)
            waiting.unembedded += len(event.faces)
            queued += len(new_crops)
            if queued >= EMBED_AT_ONCE:
                embed_all()
        else:
            waiting.end = event
        yield from finished()
    embed_all()
    if trial is not None:
        trial.finish()
    yield from finished()


def _rows(
    clip: Clip, faces: Sequence[Face], vectors: np.ndarray, schema: pa.Schema
) -> pa.RecordBatch:
    """Rows of some faces of a clip; vectors (n, d + 1) float32 with their norms behind them."""
    alike = ("frame_index", "time_seconds", "source_time_seconds", "file", "face_index", "box")
    columns: dict[str, Any] = {
        "clip_id": [clip.clip_id] * len(faces),
        **{name: [getattr(face, name) for face in faces] for name in (*alike, "det_score")},
        "landmarks": [None if face.landmarks is None else face.landmarks.ravel() for face in faces],
        "norm": vectors[:, -1],
        "embedding": artefacts.fixed_lists(np.ascontiguousarray(vectors[:, :-1])),
    }
    return pa.RecordBatch.from_pydict(columns, schema=schema)


def _embedded(
    waiting: _Waiting, end: ClipEnd, schema: pa.Schema, seconds: Mapping[str, float]
) -> EmbeddedClip:
    kept = end.state in KEPT_STATES
    return EmbeddedClip(
        waiting.clip,
        end.state,
        " ".join(end.message.split()),
        end.frames if kept else 0,  # of a damaged clip nothing is trusted
        end.frames_without_face if kept else 0,
        end.bytes,
        pa.Table.from_batches(waiting.batches if kept else [], schema),
        tuple(waiting.jpegs) if kept else (),
        seconds,
    )


def encode_jpeg(crop: np.ndarray) -> bytes:
    """A (height, width, 3) uint8 RGB crop as JPEG bytes."""
    from PIL import Image

    buffer = io.BytesIO()
    Image.fromarray(crop).save(buffer, format="JPEG", quality=JPEG_QUALITY)
    return buffer.getvalue()


@dataclass(frozen=True)
class ExtractionSummary:
    """Summary of an extraction, read from clips.parquet."""

    clips: int
    states: Mapping[str, int]
    frames: int
    frames_without_face: int
    faces: int
    failed: tuple[tuple[str, str, str], ...]  # clip_id, state, message
    no_face: tuple[tuple[str, str, str], ...] = ()  # likewise
    noted: tuple[tuple[str, str, str], ...] = ()  # likewise, clips that are ok with a message

    def to_dict(self) -> dict[str, Any]:
        names = ("clip_id", "state", "message")
        named = {
            key: [dict(zip(names, clip, strict=True)) for clip in getattr(self, key)]
            for key in ("failed", "no_face", "noted")
        }
        return {**vars(self), "states": dict(self.states), **named}


def summarise(clips: pa.Table) -> ExtractionSummary:
    """The summary of clips.parquet."""
    counted = {row["values"]: row["counts"] for row in clips["state"].value_counts().to_pylist()}

    def name_clips(states: Iterable[str]) -> tuple[tuple[str, str, str], ...]:
        there = clips.filter(pc.is_in(clips["state"], pa.array(sorted(states))))
        columns = [there[name].to_pylist() for name in ("clip_id", "state", "message")]
        return tuple(zip(*columns, strict=True))

    return ExtractionSummary(
        clips=len(clips),
        states={state: counted[state] for state in STATES if state in counted},
        frames=pc.sum(clips["frames"]).as_py(),
        frames_without_face=pc.sum(clips["frames_without_face"]).as_py(),
        faces=pc.sum(clips["faces"]).as_py(),
        failed=name_clips(FAILED_STATES),
        no_face=name_clips(["no_face"]),
        noted=tuple(clip for clip in name_clips(["ok"]) if clip[2]),
    )
