"""Frames through PyAV (libav). What it leaves to its caller is done here.

That is: playlists that would open other files, traps in headers, which stream is the film. What is
damaged and what is certain: frames/reading.py. How a picture looks: frames/pictures.py.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Generator
from fractions import Fraction
from typing import TYPE_CHECKING, Any, BinaryIO

from vidface.core.errors import ClipError
from vidface.core.rules import ReadingRules
from vidface.frames.common import (
    MAX_PIXELS,
    VideoSource,
    Window,
    corrupt_error,
    freeze_image,
    no_video_error,
    open_or_locate,
    select_shown,
    unreadable_error,
)
from vidface.frames.headers import header_fault, lost_its_index, unfinished_part
from vidface.frames.log import LogListener
from vidface.frames.pictures import PictureViewer
from vidface.frames.reading import Reading
from vidface.frames.with_pillow import decode_with_pillow, is_animated_webp

if TYPE_CHECKING:
    import numpy as np
    from av.container import InputContainer
    from av.video.stream import VideoStream

# Demuxers that read one file and nothing else. A playlist (HLS, DASH, concat) named .mp4 would
# open other files or addresses; the text demuxers would draw a text file as a film.
_DEMUXERS = (
    "mov,matroska,webm,avi,mpegts,mpeg,mpegvideo,flv,asf,ogg,nut,mxf,ivf,obu,h264,hevc,m4v,"
    "mjpeg,yuv4mpegpipe,rm,dv,wtv,gif,apng,jpeg_pipe,png_pipe,webp_pipe,wav,mp3,aac,flac"
)
_READ_BYTES = 1 << 16


def decode_with_pyav(
    source: VideoSource, name: str, window: Window, threads: int
) -> Generator[tuple[int, Fraction, np.ndarray]]:
    """Decode with libav, right in every case that is measured; see `Decoder.decode`."""
    import av

    log = LogListener(listens=threads == 1)
    with contextlib.ExitStack() as stack:
        try:
            # Through Python's open: libav would take "http://…" or "img%03d.png" at their word.
            file, path = open_or_locate(source)
            if path is not None:
                file = stack.enter_context(path.open("rb"))
        except OSError as error:
            raise unreadable_error(name, error) from error
        try:
            unfinished = unfinished_part(file)
            if file.seek(0, os.SEEK_END) == 0:
                raise ValueError("the file is empty")
            file.seek(0)
            if is_animated_webp(file):
                yield from decode_with_pillow(file, name, window)
                return
            if unfinished == b"moov":
                raise ValueError("cut off: its index, the moov atom, is incomplete")
            if lost_its_index(file):
                raise ValueError("cut off: its index, the moov atom, is missing")
            if (fault := header_fault(file)) is not None:
                raise ValueError(fault)
            with log:
                container = stack.enter_context(_open_container(file))
        except (av.error.FFmpegError, OSError, ValueError) as error:
            raise corrupt_error(name, error) from error
        stream = _film_stream(container, name)
        stream.thread_count = threads
        viewer = PictureViewer(stream, window.rules)
        reading = Reading(container, stream, name, unfinished is not None, log, window)
        changes = stack.enter_context(contextlib.closing(reading.changes()))
        last: tuple[Any, np.ndarray] | None = None
        for k, begin, picture in select_shown(changes, window):
            if last is None or last[0] is not picture:
                try:
                    last = picture, freeze_image(viewer.show(picture))
                except (av.error.FFmpegError, ValueError) as error:
                    raise corrupt_error(name, error, begin) from error
            yield k, begin, last[1]
        if reading.passed_over is not None:
            raise reading.passed_over
        if log.heard is not None:
            raise corrupt_error(name, log.heard)


def describe_change(source: VideoSource, rules: ReadingRules) -> str | None:
    """What is not as a film's headers have it stored, once decoded here: its shape, its colours.

    None: nothing, or it can't be opened. A file object is left at its beginning.
    """
    import av

    change = None
    with contextlib.ExitStack() as stack:
        file, path = open_or_locate(source)
        file = stack.enter_context(path.open("rb")) if path is not None else file
        with contextlib.suppress(av.error.FFmpegError, ClipError, OSError, ValueError):
            container = stack.enter_context(_open_container(file))
            change = PictureViewer(_film_stream(container, ""), rules).describe_change()
    if path is None:
        file.seek(0)
    return change


def _open_container(file: BinaryIO) -> InputContainer:
    import av

    return av.open(
        file,
        "r",
        metadata_errors="replace",
        buffer_size=_READ_BYTES,
        container_options={"format_whitelist": _DEMUXERS},
        options={"max_pixels": str(MAX_PIXELS)},
    )


def _film_stream(container: InputContainer, name: str) -> VideoStream:
    """libav's best video stream, as ffprobe and players choose; a cover picture is not a film."""
    from av.stream import Disposition

    films = [s for s in container.streams.video if not s.disposition & Disposition.attached_pic]
    if not films:
        raise no_video_error(name)
    best = container.streams.best("video")
    stream = next((film for film in films if best is not None and film.index == best.index), None)
    stream = stream or films[0]
    codec = stream.codec_context
    if codec is None:
        raise corrupt_error(name, "no decoder for its codec")
    if codec.width * codec.height > MAX_PIXELS:
        raise corrupt_error(name, f"declares {codec.width} x {codec.height} pixels")
    # explode: some decoders (JPEG's) paint over damage and say so in the log alone.
    codec.options = {"max_pixels": str(MAX_PIXELS), "err_detect": "explode"}
    stream.thread_type = "AUTO"
    return stream
