"""Embeddings: faces of clips, as decoding finds them, → rows; batches fill across clips.

Artefact: see `vidface.runs.embeddings_schema`.
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
from vidface.core.clips import Clip, FileState
from vidface.core.redaction import redacted
from vidface.core.states import FAILED_STATES, KEPT_STATES, STATES
from vidface.faces.events import ClipEnd, Face, FoundFaces
from vidface.runs import artefacts
from vidface.runs.columns import embeddings_schema
from vidface.runs.trying import Trial
from vidface.settings.manifests import clip_key

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
    file: FileState
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
            "bytes": self.file.bytes,
            "state": self.state,
            "message": self.message,
            "frames": self.frames,
            "frames_without_face": self.frames_without_face,
            "faces": len(self.rows),
            "key": clip_key(self.clip.path, self.clip.start_seconds, self.clip.end_seconds),
            "modified_ns": self.file.modified_ns,
            "content": self.file.content,
        }


class _Waiting:
    """A clip on its way: faces so far, how many still wait to be embedded, its end if it came.

    A crop that comes again, bit for bit, is the picture that it was: pictures are numbered, and
    each is embedded, and held, once.
    """

    def __init__(self, clip: Clip) -> None:
        self.clip = clip
        self.faces: list[Face] = []
        self.numbers: list[int] = []  # of each face: its picture
        self.pictures: dict[bytes, int] = {}  # a crop's digest → its number
        self.vectors: list[np.ndarray] = []  # of each picture: (d,) float32, its norm behind it
        self.jpegs: list[bytes] = []  # likewise, with keep_crops
        self.unembedded = 0
        self.end: ClipEnd | None = None

    @property
    def thrown_away(self) -> bool:
        return self.end is not None and self.end.state not in KEPT_STATES

    def add(self, faces: Sequence[Face], crops: np.ndarray) -> np.ndarray:
        """Add faces with their crops; the crops of pictures that are new."""
        self.faces += faces
        self.unembedded += len(faces)
        new = []
        for place, crop in enumerate(crops):
            digest = hashlib.blake2b(crop.tobytes(), digest_size=16).digest()
            if digest not in self.pictures:
                self.pictures[digest] = len(self.pictures)
                new.append(place)
            self.numbers.append(self.pictures[digest])
        return crops if len(new) == len(crops) else crops[new]


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
    schema = embeddings_schema(backbone.dimension)
    on_the_way: dict[int, _Waiting] = {}
    queue: deque[tuple[_Waiting, int, np.ndarray]] = deque()  # clip, n faces, new pictures
    queued, next_number, embed_seconds = 0, 0, 0.0

    def embed_all() -> None:
        nonlocal queued, embed_seconds
        begun = time.perf_counter()
        wanted = [entry for entry in queue if not entry[0].thrown_away]
        if wanted:
            if trial is not None:
                trial.try_faces()
            crops = np.concatenate([crops for *_, crops in wanted])
            vectors = np.column_stack(backbone.embed_faces(crops, whole_batches=True))
            start = 0
            for waiting, _, new_crops in wanted:
                waiting.vectors += list(vectors[start : start + len(new_crops)])
                start += len(new_crops)
                if keep_crops:
                    waiting.jpegs += [encode_jpeg(crop) for crop in new_crops]
        for waiting, n_faces, _ in queue:
            waiting.unembedded -= n_faces
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
            new_crops = waiting.add(event.faces, event.crops)
            queue.append((waiting, len(event.faces), new_crops))
            if trial is not None:
                trial.see(waiting.clip, new_crops)
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


def _embedded(
    waiting: _Waiting, end: ClipEnd, schema: pa.Schema, seconds: Mapping[str, float]
) -> EmbeddedClip:
    kept = end.state in KEPT_STATES  # of a damaged clip nothing is trusted
    pictures = waiting.numbers if kept and waiting.jpegs else []
    return EmbeddedClip(
        waiting.clip,
        end.state,
        " ".join(end.message.split()),
        end.frames if kept else 0,
        end.frames_without_face if kept else 0,
        end.file,
        _rows(waiting, schema) if kept and waiting.faces else schema.empty_table(),
        tuple(waiting.jpegs[number] for number in pictures),
        seconds,
    )


def _rows(waiting: _Waiting, schema: pa.Schema) -> pa.Table:
    """Rows of a clip's faces."""
    faces = waiting.faces
    vectors = np.stack([waiting.vectors[number] for number in waiting.numbers])  # (n, d + 1)
    alike = ("frame_index", "time_seconds", "source_time_seconds", "file", "face_index", "box")
    columns: dict[str, Any] = {
        "clip_id": [waiting.clip.clip_id] * len(faces),
        **{name: [getattr(face, name) for face in faces] for name in (*alike, "det_score")},
        "landmarks": [None if face.landmarks is None else face.landmarks.ravel() for face in faces],
        "norm": vectors[:, -1],
        "embedding": artefacts.fixed_lists(vectors[:, :-1]),
    }
    return pa.Table.from_pydict(columns, schema=schema)


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
