"""The faces of one clip, whatever it is stored as, and the state that an error leaves it in.

Runs in decoding processes: nothing here may need torch or pyarrow.
"""

from __future__ import annotations

import contextlib
import errno
import os
import posixpath
import time
from collections.abc import Callable, Generator, Iterable, Iterator
from dataclasses import dataclass, field

import numpy as np

from vidface.core.clips import Clip
from vidface.core.errors import ClipError, VidfaceError
from vidface.core.values import CROP_SIZE
from vidface.faces.detector import FaceDetector, align_face
from vidface.faces.events import CROP_SHAPE, Seconds
from vidface.faces.settings import FaceSettings
from vidface.frames.sampling import sample_frames
from vidface.frames.settings import FrameSettings
from vidface.storage.images import decode_image
from vidface.storage.media import MediaRoot
from vidface.storage.names import is_image_name
from vidface.storage.urls import base_name, redacted, redacted_text

MESSAGE_CHARACTERS = 1000


@dataclass(frozen=True)
class Detected:
    """One face of a picture, and its crop."""

    face_index: int
    box: np.ndarray | None  # (4,) float32
    landmarks: np.ndarray | None  # (5, 2) float32
    det_score: float | None
    crop: np.ndarray = field(repr=False)  # (112, 112, 3) uint8 RGB


@dataclass(frozen=True)
class Picture:
    """One sampled frame or image of a clip."""

    index: int  # k, or the image's place in its folder
    time_seconds: float | None
    source_time_seconds: float | None
    file: str | None
    faces: tuple[Detected, ...]


@dataclass
class Tools:
    """What finding faces needs beside the clip.

    Attributes:
        detector: None with source = "aligned", where images are used as they are.
        on_frame: to be called at every sign of life: a frame decoded, an image read.
        decode, detect, align: seconds spent so far.
    """

    root: MediaRoot
    frames: FrameSettings
    faces: FaceSettings
    detector: FaceDetector | None = None
    on_frame: Callable[[], None] = lambda: None
    decode: float = 0.0
    detect: float = 0.0
    align: float = 0.0

    def seconds(self, waiting: float = 0.0) -> Seconds:
        return Seconds(self.decode, self.detect, self.align, waiting)


Work = Callable[[Clip, Tools], Iterable[Picture]]  # what a worker does with a clip


def find_faces(clip: Clip, tools: Tools) -> Iterator[Picture]:
    """The pictures of a clip with their faces, one by one.

    Raises:
        ClipError, OSError: what the clip is; `state_of` says which state that makes.
        VidfaceError: what concerns every clip, such as a decoder that isn't installed.
    """
    images = _images(clip, tools)
    last: tuple[np.ndarray, tuple[Detected, ...]] | None = None
    with contextlib.closing(images):
        while True:
            begun = time.perf_counter()
            found = next(images, None)
            tools.decode += time.perf_counter() - begun
            if found is None:
                return
            index, times, file, image = found
            if last is None or last[0] is not image:  # a picture may be shown for long
                last = image, tuple(_faces_of(image, tools))
            moment, source_moment = times or (None, None)
            yield Picture(index, moment, source_moment, file, last[1])


Image = tuple[int, tuple[float, float] | None, str | None, np.ndarray]


def _images(clip: Clip, tools: Tools) -> Generator[Image]:
    """(k, times, file, RGB image) of every frame of a clip."""
    root, faces = tools.root, tools.faces
    kind = root.kind(clip.path)
    if kind is None:
        raise FileNotFoundError(errno.ENOENT, "no such file or folder", clip.path)
    if kind == "folder" or is_image_name(clip.path):
        yield from _still_images(clip.path, kind == "folder", tools)
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
            tools.frames.fps,
            start_seconds=clip.start_seconds,
            end_seconds=clip.end_seconds,
            decoder=tools.frames.decoder,
            threads=1,  # clips run side by side
            name=redacted(clip.path),
            on_frame=tools.on_frame,
        ):
            times = (frame.time_seconds, frame.source_time_seconds)
            yield frame.index, times, None, frame.image


def _still_images(path: str, is_folder: bool, tools: Tools) -> Iterator[Image]:
    if is_folder:
        files = [(posixpath.join(path, name), name) for name in tools.root.image_names(path)]
    else:
        files = [(path, base_name(path))]  # without what signs a URL
    if not files:
        raise ClipError(f"{path}: no images in this folder", state="no_video_stream")
    for index, (file, name) in enumerate(files):
        image = decode_image(tools.root.read(file), redacted(file))
        tools.on_frame()
        if tools.faces.source == "aligned" and image.shape != CROP_SHAPE:
            raise ClipError(
                f"{redacted(file)}: {image.shape[1]}x{image.shape[0]} pixels, but aligned crops "
                f'are {CROP_SIZE}x{CROP_SIZE}; set [faces] source = "detect" for whole frames',
                state="corrupt",
            )
        yield index, None, name, image


def _faces_of(image: np.ndarray, tools: Tools) -> Iterator[Detected]:
    """The faces of one picture."""
    if tools.detector is None:
        yield Detected(0, None, None, None, image)
        return
    begun = time.perf_counter()
    found = tools.detector.detect(image)
    detected = time.perf_counter()
    number = 0
    for box, landmarks, score in zip(found.boxes, found.landmarks, found.scores, strict=True):
        try:
            crop = align_face(image, landmarks)
        except VidfaceError:  # landmarks that coincide: nothing to align by
            continue
        yield Detected(number, box, landmarks, float(score), crop)
        number += 1
    tools.detect += detected - begun
    tools.align += time.perf_counter() - detected


def state_of(error: Exception, clip: Clip) -> tuple[str, str]:
    """(state, message) of a clip that ended with this error.

    Raises:
        MemoryError: the error is a want of memory, whatever it was made into on its way.
        VidfaceError: the error concerns every clip.
    """
    if _is_want_of_memory(error):
        raise MemoryError from error
    if isinstance(error, ClipError):
        return error.state, one_line(error)
    if isinstance(error, VidfaceError):
        raise error
    if isinstance(error, FileNotFoundError):
        return "missing", one_line(f"{clip.path}: {error.strerror or error}")
    if isinstance(error, OSError):
        if error.errno in (errno.EMFILE, errno.ENFILE):
            raise VidfaceError("too many open files; raise the limit (ulimit -n)") from None
        why = error.strerror or error
        return "corrupt", one_line(f"{clip.path}: cannot be read: {why}")
    return "corrupt", one_line(f"{clip.path}: {type(error).__name__}: {error}")


def state_without_error(clip: Clip, frames: int, faces: int) -> tuple[str, str]:
    """(state, message) of a clip that was read to its end."""
    if faces:
        return "ok", ""
    if not frames:
        return "no_face", one_line(f"{clip.path}: start_seconds lies behind the end of the clip")
    return "no_face", one_line(f"{clip.path}: no face in {frames} frames")


def clip_bytes(clip: Clip, root: MediaRoot) -> int:
    """The size by which a changed clip is noticed; 0 where it can't be read."""
    try:
        return root.size(clip.path)
    except (OSError, VidfaceError):
        return 0


def one_line(text: object) -> str:
    """A message in one line, of bounded length, that any terminal and file can hold."""
    line = " ".join(redacted_text(str(text)).split())
    line = line.encode("utf-8", "replace").decode("utf-8")  # lone surrogates of odd file names
    return line[:MESSAGE_CHARACTERS]


def _is_want_of_memory(error: BaseException) -> bool:
    """Whether memory ran out: libav's, OpenCV's, NumPy's way of saying so, or behind another."""
    seen = 0
    cause: BaseException | None = error
    while cause is not None and seen < 20:
        numbers = (getattr(cause, "errno", None), getattr(cause, "code", None))
        if isinstance(cause, MemoryError) or numbers[0] == errno.ENOMEM:
            return True
        if type(cause).__module__.startswith("cv2") and numbers[1] == -4:  # StsNoMem
            return True
        if os.strerror(errno.ENOMEM) in str(cause):  # a ClipError repeats what libav said
            return True
        cause, seen = cause.__cause__ or cause.__context__, seen + 1
    return False
