"""The faces of one clip, whatever it is stored as, and the state that an error leaves it in.

Runs in decoding processes: nothing here may need torch or pyarrow.
"""

from __future__ import annotations

import contextlib
import errno
import io
import os
import posixpath
import time
from collections.abc import Callable, Generator, Iterable, Iterator
from dataclasses import dataclass, field
from typing import BinaryIO

import numpy as np

from vidface.backbones.preprocessing import USUAL, Preprocessing
from vidface.core.clips import Clip, FileState
from vidface.core.errors import ClipError, VidfaceError
from vidface.core.redaction import redacted, redacted_text
from vidface.core.rules import NEW_RULES, ReadingRules
from vidface.faces.cutting import cut_face
from vidface.faces.detector import DroppedFaces, FaceDetector
from vidface.faces.events import Face, Seconds
from vidface.faces.recent import RecentPictures
from vidface.faces.settings import FaceSettings
from vidface.frames.sampling import sample_frames
from vidface.frames.settings import FrameSettings
from vidface.storage.images import decode_image, is_animated, resize_crop
from vidface.storage.media import MediaRoot
from vidface.storage.names import is_image_name, is_unread_picture_name, may_be_animated
from vidface.storage.urls import base_name

MESSAGE_CHARACTERS = 1000
_NAMED = 10  # files that a note names


@dataclass(frozen=True)
class Picture:
    """The faces of one sampled frame or image of a clip."""

    faces: tuple[Face, ...]
    crops: tuple[np.ndarray, ...] = field(repr=False)  # of each face: `fed.shape` uint8 RGB
    dropped: DroppedFaces = field(default_factory=DroppedFaces)


@dataclass
class Tools:
    """What finding faces needs beside the clip.

    Attributes:
        detector: None with source = "aligned", where images are used as they are.
        on_frame: to be called at every sign of life: a frame decoded, an image read.
        rules: of the run that the clips are read for.
        fed: what faces are cut out for: their template and size.
        seconds: spent so far on the clip at hand.
        notes: what to say of the clip at hand whatever becomes of it, such as files passed over.
    """

    root: MediaRoot
    frames: FrameSettings
    faces: FaceSettings
    detector: FaceDetector | None = None
    on_frame: Callable[[], None] = lambda: None
    rules: ReadingRules = NEW_RULES
    fed: Preprocessing = USUAL
    seconds: Seconds = field(default_factory=Seconds)
    notes: list[str] = field(default_factory=list)


ClipWork = Callable[[Clip, Tools], Iterable[Picture]]  # what a worker does with a clip


def find_faces(clip: Clip, tools: Tools) -> Iterator[Picture]:
    """The pictures of a clip with their faces, one by one.

    Raises:
        ClipError, OSError: what the clip is; `state_after_error` says which state that makes.
        VidfaceError: what concerns every clip, such as a decoder that isn't installed.
    """
    images = _sample_images(clip, tools)
    recent: RecentPictures[_PictureFaces] = RecentPictures()
    with contextlib.closing(images):
        while True:
            begun = time.perf_counter()
            sampled = next(images, None)
            tools.seconds.decode += time.perf_counter() - begun
            if sampled is None:
                return
            image, index, moment, source_moment, file = sampled
            if (found := recent.recall(image)) is None:  # a picture may be shown for long
                found = _detect_faces(image, tools)
                recent.remember(image, found)
            detections, crops, dropped = found
            faces = (Face(index, moment, source_moment, file, *face) for face in detections)
            yield Picture(tuple(faces), crops, dropped)


_Sampled = tuple[np.ndarray, int, float | None, float | None, str | None]
"""RGB image, k, time_seconds, source_time_seconds, file: the latter four as a `Face` has them."""

_Detection = tuple[int, np.ndarray | None, np.ndarray | None, float | None]
"""face_index, box, landmarks, det_score, as a `Face` has them."""

_PictureFaces = tuple[list[_Detection], tuple[np.ndarray, ...], DroppedFaces]
"""The faces of one picture, their crops, and what was found and not taken."""


def _sample_images(clip: Clip, tools: Tools) -> Generator[_Sampled]:
    """Every frame of a clip, and where it stands."""
    root, faces = tools.root, tools.faces
    kind = root.kind(clip.path)
    if kind is None:
        raise FileNotFoundError(errno.ENOENT, "no such file or folder", clip.path)
    if kind == "folder":
        yield from _read_folder(clip.path, tools)
        return
    if site := root.other_site(clip.path):
        tools.notes.append(f"{redacted(clip.path)}: comes from {site}, where its server redirects")
    source: str | BinaryIO | None = None
    if is_image_name(clip.path, tools.rules):
        data = root.read(clip.path)
        if not (tools.rules.all_pictures and is_animated(data)):
            if clip.start_seconds is not None or clip.end_seconds is not None:
                raise ClipError(
                    f"{redacted(clip.path)}: one picture, which has no time; leave start_seconds "
                    "and end_seconds out",
                    "corrupt",
                )
            # Without what signs a URL.
            yield from _read_images([(clip.path, base_name(clip.path), data)], tools)
            return
        source = io.BytesIO(data)
    if faces.source == "aligned":
        raise ClipError(
            f"{clip.path}: a video file where aligned crops are expected; "
            'set [faces] source = "detect"',
            state="corrupt",
        )
    if is_unread_picture_name(clip.path):
        raise ClipError(
            f"{redacted(clip.path)}: no way to read pictures of this kind; save it as JPEG or PNG",
            "corrupt",
        )
    source = source or root.open_video(clip.path)
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
            rules=tools.rules,
            keep_damaged=tools.frames.keep_damaged,
        ):
            yield frame.image, frame.index, frame.time_seconds, frame.source_time_seconds, None


def _read_folder(path: str, tools: Tools) -> Iterator[_Sampled]:
    names = tools.root.image_names(path, tools.rules)
    unread = tools.root.unread_names(path) if tools.rules.all_pictures else []
    if unread:
        tools.notes.append(
            f"{path}: {len(unread)} of {len(names) + len(unread)} files passed over: "
            f"{_list_names(unread)}. Save pictures as JPEG or PNG; a video is a clip of its own"
        )
    if not names:
        raise ClipError(f"{path}: no images in this folder", state="no_video_stream")
    animated: list[str] = []

    def read_file(name: str) -> tuple[str, str, bytes]:
        file = posixpath.join(path, name)
        data = tools.root.read(file)
        if tools.rules.all_pictures and may_be_animated(name) and is_animated(data):
            animated.append(name)
        return file, name, data

    yield from _read_images(map(read_file, names), tools)
    if animated:
        tools.notes.append(
            f"{path}: {len(animated)} of {len(names)} pictures are animations, of which the first "
            f"picture alone is used: {_list_names(animated)}. An animation is a clip of its own"
        )


def _list_names(names: list[str]) -> str:
    return ", ".join(names[:_NAMED]) + (", …" if len(names) > _NAMED else "")


def _read_images(files: Iterable[tuple[str, str, bytes]], tools: Tools) -> Iterator[_Sampled]:
    """The pictures of files: (path, name, content)."""
    damaged: list[ClipError] = []
    index = -1
    for index, (file, name, data) in enumerate(files):
        tools.on_frame()
        try:
            image = decode_image(data, redacted(file))
            if tools.faces.source == "aligned" and image.shape != tools.fed.shape:
                image = _resize_aligned(image, redacted(file), tools)
        except ClipError as error:
            if not tools.frames.keep_damaged:
                raise
            damaged.append(error)
            continue
        yield image, index, None, None, name
    if damaged:
        why = f"{len(damaged)} of {index + 1} pictures are no good, the first: {damaged[0]}"
        raise ClipError(why, state="corrupt")


def _resize_aligned(image: np.ndarray, name: str, tools: Tools) -> np.ndarray:
    """An aligned crop of another size than the recogniser's, made to fit if that is asked for."""
    if tools.faces.resize:
        return resize_crop(image, tools.fed.shape[:2])
    height, width, _ = image.shape
    if image.shape == USUAL.shape:  # a set aligned as usual: so are all the others
        raise VidfaceError(
            f"{name}: aligned crops of {USUAL.size_text}, but the recogniser takes "
            f"{tools.fed.size_text} pixels (height x width): --resize scales them, or align the "
            "set anew"
        )
    raise ClipError(
        f"{name}: {width}x{height} pixels, but aligned crops are "
        f'{tools.fed.size_text}; set [faces] source = "detect" for whole frames',
        state="corrupt",
    )


def _detect_faces(image: np.ndarray, tools: Tools) -> _PictureFaces:
    if tools.detector is None:
        return [(0, None, None, None)], (image,), DroppedFaces()
    begun = time.perf_counter()
    faces = tools.detector.detect(image)
    detected = time.perf_counter()
    detections: list[_Detection] = []
    crops: list[np.ndarray] = []
    for box, landmarks, score in zip(faces.boxes, faces.landmarks, faces.scores, strict=True):
        try:
            crops.append(cut_face(image, box, landmarks, tools.fed))
        except VidfaceError:  # landmarks that coincide: nothing to align by
            continue
        detections.append((len(detections), box, landmarks, float(score)))
    tools.seconds.detect += detected - begun
    tools.seconds.align += time.perf_counter() - detected
    return detections, tuple(crops), faces.dropped


def state_after_error(error: Exception, clip: Clip, certain_frames: int = 0) -> tuple[str, str]:
    """(state, message) of a clip that ended with this error.

    Args:
        certain_frames: how many frames of a damaged clip are to be kept.

    Raises:
        MemoryError: the error is a want of memory, whatever it was made into on its way.
        VidfaceError: the error concerns every clip.
    """
    if _is_want_of_memory(error):
        raise MemoryError from error
    if isinstance(error, ClipError):
        if error.state == "corrupt" and certain_frames:
            return "damaged", make_one_line(f"{error}. {certain_frames} frames are kept")
        return error.state, make_one_line(error)
    if isinstance(error, VidfaceError):
        raise error
    if isinstance(error, FileNotFoundError):
        return "missing", make_one_line(f"{clip.path}: {error.strerror or error}")
    if isinstance(error, OSError):
        if error.errno in (errno.EMFILE, errno.ENFILE):
            raise VidfaceError("too many open files; raise the limit (ulimit -n)") from None
        why = error.strerror or error
        return "corrupt", make_one_line(f"{clip.path}: cannot be read: {why}")
    return "corrupt", make_one_line(f"{clip.path}: {type(error).__name__}: {error}")


def state_at_end(
    clip: Clip, frames: int, faces: int, dropped: DroppedFaces, settings: FaceSettings
) -> tuple[str, str]:
    """(state, message) of a clip that was read to its end.

    Args:
        dropped: of all its frames; said where no face was taken.
    """
    if faces:
        return "ok", ""
    if not frames:
        return "no_face", make_one_line(
            f"{clip.path}: start_seconds lies behind the end of the clip"
        )
    message = f"{clip.path}: no face in {frames} frames"
    if dropped != DroppedFaces():
        limits = dropped.describe(
            min_face_pixels=settings.min_face_pixels, min_det_score=settings.min_det_score
        )
        message += f"; {limits}"
    return "no_face", make_one_line(message)


def clip_state(clip: Clip, root: MediaRoot, rules: ReadingRules = NEW_RULES) -> FileState:
    """What a changed clip is noticed by; nothing where it can't be read."""
    try:
        return root.state(clip.path, rules)
    except (OSError, VidfaceError):
        return FileState()


def make_one_line(text: object) -> str:
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
