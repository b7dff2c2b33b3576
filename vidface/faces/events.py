"""What decoding tells: faces as they are found, and how each clip ended; what a clip may cost."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import numpy as np

from vidface.core.clips import FileState
from vidface.core.errors import VidfaceError
from vidface.core.states import STATES

MIN_CLIP_MEMORY_BYTES = 64 * 2**20


@dataclass(frozen=True)
class ClipLimits:
    """What a clip may cost, before it is given up and its worker replaced.

    Attributes:
        stall_seconds: without a newly decoded frame; > 0. Waiting for the reader doesn't count.
        clip_seconds: for the whole clip; > 0, None = no limit. Waiting doesn't count.
        clip_memory_bytes: beyond what a worker takes at its start; at least 64 MiB.

    >>> print(ClipLimits())
    ClipLimits(60 s without a frame, 2.0 GiB a clip)
    """

    stall_seconds: float = 60.0
    clip_seconds: float | None = None
    clip_memory_bytes: int = 2 * 2**30

    def __post_init__(self) -> None:
        for name in ("stall_seconds", "clip_seconds"):
            seconds = getattr(self, name)
            if seconds is not None and not 0 < seconds < math.inf:
                raise VidfaceError(f"ClipLimits: {name} must be above 0, not {seconds}")
        if not MIN_CLIP_MEMORY_BYTES <= self.clip_memory_bytes < 2**63:
            raise VidfaceError(
                f"ClipLimits: clip_memory_bytes must be at least {MIN_CLIP_MEMORY_BYTES} (64 MiB), "
                f"not {self.clip_memory_bytes}"
            )

    def __str__(self) -> str:
        total = "" if self.clip_seconds is None else f"{self.clip_seconds:g} s a clip, "
        memory = f"{self.clip_memory_bytes / 2**30:.1f} GiB a clip"
        return f"ClipLimits({self.stall_seconds:g} s without a frame, {total}{memory})"


@dataclass(frozen=True)
class Face:
    """One face of a clip; its crop comes beside it."""

    frame_index: int  # k, or the image's place in its folder
    time_seconds: float | None
    source_time_seconds: float | None
    file: str | None
    face_index: int
    box: np.ndarray | None  # (4,) float32: left, top, right, bottom, pixels of the frame
    landmarks: np.ndarray | None  # (5, 2) float32: x, y, pixels of the frame
    det_score: float | None


@dataclass
class Seconds:
    """Seconds that a clip took in the worker, by what they went into.

    Attributes:
        decode: reading, decoding, converting to RGB.
        detect: finding faces.
        align: cutting crops.
        waiting: for the reader of the crops.

    >>> print(Seconds(1.0, 2.0, 0.5))
    Seconds(decode 1.00, detect 2.00, align 0.50, waiting 0.00)
    """

    decode: float = 0.0
    detect: float = 0.0
    align: float = 0.0
    waiting: float = 0.0

    @property
    def total(self) -> float:
        return self.decode + self.detect + self.align + self.waiting

    def __str__(self) -> str:
        parts = ", ".join(f"{name} {value:.2f}" for name, value in self.__dict__.items())
        return f"Seconds({parts})"


@dataclass(frozen=True)
class FoundFaces:
    """Some faces of a clip, in the order of its frames; more may follow until its `ClipEnd`.

    Attributes:
        clip_number: the clip's place among those given to `decode_clips`, from 0.
        faces: n ≥ 1 faces.
        crops: (n, height, width, 3) uint8 RGB, the reader's own.
    """

    clip_number: int
    faces: tuple[Face, ...]
    crops: np.ndarray = field(repr=False)

    def __post_init__(self) -> None:
        n, *shape = self.crops.shape
        if n != len(self.faces) or len(shape) != 3 or self.crops.dtype != np.uint8:
            raise VidfaceError(
                f"FoundFaces: {len(self.faces)} faces, but crops {self.crops.shape} "
                f"{self.crops.dtype}; want (n, height, width, 3) uint8"
            )

    def __str__(self) -> str:
        return f"FoundFaces(clip {self.clip_number}: crops {self.crops.shape})"


@dataclass(frozen=True)
class ClipEnd:
    """How a clip ended; comes exactly once, after all of its faces.

    Attributes:
        clip_number: as in `FoundFaces`.
        state: one of `vidface.core.states.STATES`; of a clip whose state isn't in `KEPT_STATES` the
            faces that came before count for nothing.
        message: what went wrong and what to do, one line; of "ok" mostly "", else what to note.
        frames: sampled frames, or images; 0 where nothing is kept.
        frames_without_face: of these.
        file: what a changed clip is noticed by.
        seconds: where the time went; all 0 where the worker died.
    """

    clip_number: int
    state: str
    message: str = ""
    frames: int = 0
    frames_without_face: int = 0
    file: FileState = field(default_factory=FileState)
    seconds: Seconds = field(default_factory=Seconds)

    def __post_init__(self) -> None:
        if self.state not in STATES:
            raise VidfaceError(
                f"ClipEnd: unknown state '{self.state}' (known: {', '.join(STATES)})"
            )

    def __str__(self) -> str:
        return f"ClipEnd(clip {self.clip_number}: {self.state}, {self.frames} frames)"


Event = FoundFaces | ClipEnd
