"""Frames through PyAV (libav). What it leaves to its caller is done here.

That is: files that end too early, frames dropped without a word, which frames are certain when a
film breaks off, playlists that would open other files. How a picture looks: frames/pictures.py.
"""

from __future__ import annotations

import contextlib
import itertools
import os
from collections.abc import Generator, Iterator
from fractions import Fraction
from typing import TYPE_CHECKING, Any

from vidface.core.errors import ClipError
from vidface.core.rules import ReadingRules
from vidface.frames.common import (
    MAX_GAP_SECONDS,
    MAX_PIXELS,
    VideoSource,
    Window,
    corrupt_error,
    freeze_image,
    no_video_error,
    open_or_locate,
    select_shown,
    truncated_error,
    unreadable_error,
)
from vidface.frames.film import Damage, Film
from vidface.frames.headers import header_fault, lost_its_index, unfinished_part
from vidface.frames.lengths import (
    DECLARING,
    count_ticks_per_frame,
    find_declared_end,
    has_index_beyond_file,
    tick_seconds_of,
)
from vidface.frames.log import LogListener
from vidface.frames.pictures import PictureViewer
from vidface.frames.with_pillow import decode_with_pillow, is_animated_webp

if TYPE_CHECKING:
    import numpy as np
    from av import VideoFrame
    from av.container import InputContainer
    from av.video.stream import VideoStream

# Demuxers that read one file and nothing else. A playlist (HLS, DASH, concat) named .mp4 would
# open other files or addresses; the text demuxers would draw a text file as a film.
_DEMUXERS = (
    "mov,matroska,webm,avi,mpegts,mpeg,mpegvideo,flv,asf,ogg,nut,mxf,ivf,obu,h264,hevc,m4v,"
    "mjpeg,yuv4mpegpipe,rm,dv,wtv,gif,apng,jpeg_pipe,png_pipe,webp_pipe,wav,mp3,aac,flac"
)
_READ_BYTES = 1 << 16
_FORESEES_JUMPS = 0x200  # libav's AVFMT_TS_DISCONT: MPEG-TS, MPEG-PS, Ogg
_MAX_AVI_FPS = 10_000  # beyond it the header is damaged
# The declared length may exceed what is decoded by this many frames before the clip counts as
# truncated. Edit lists that drop a frame too many make 1.0 in ordinary files, half a frame is room.
_SLACK_FRAMES = Fraction(3, 2)


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
                container = stack.enter_context(
                    av.open(
                        file,
                        metadata_errors="replace",
                        buffer_size=_READ_BYTES,
                        container_options={"format_whitelist": _DEMUXERS},
                        options={"max_pixels": str(MAX_PIXELS)},
                    )
                )
        except (av.error.FFmpegError, OSError, ValueError) as error:
            raise corrupt_error(name, error) from error
        stream = _film_stream(container, name)
        stream.thread_count = threads
        viewer = PictureViewer(stream, window.rules)
        cut = unfinished is not None
        changes = stack.enter_context(
            contextlib.closing(_changes(container, stream, name, cut, log, window.rules))
        )
        last: tuple[Any, np.ndarray] | None = None
        for k, begin, picture in select_shown(changes, window):
            if last is None or last[0] is not picture:
                try:
                    last = picture, freeze_image(viewer.show(picture))
                except (av.error.FFmpegError, ValueError) as error:
                    raise corrupt_error(name, error, begin) from error
            yield k, begin, last[1]
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
            container = stack.enter_context(
                av.open(
                    file,
                    "r",
                    metadata_errors="replace",
                    container_options={"format_whitelist": _DEMUXERS},
                )
            )
            change = PictureViewer(_film_stream(container, ""), rules).describe_change()
    if path is None:
        file.seek(0)
    return change


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


def _changes(
    container: InputContainer,
    stream: VideoStream,
    name: str,
    cut: bool,
    log: LogListener,
    rules: ReadingRules,
) -> Generator[tuple[Fraction, VideoFrame | None]]:
    """(begin_seconds, frame) in the order of being shown, then (end_seconds, None).

    Raises ClipError after the None if the stream is damaged or ends too early. The None then
    stands where knowledge ends: what was shown before it is certain. cut: the file is shorter
    than its own header says.
    """
    import av

    base, is_avi = tick_seconds_of(stream), container.format.name == "avi"
    if is_avi and base < Fraction(1, _MAX_AVI_FPS):
        raise corrupt_error(name, f"it is said to have {float(1 / base):.3g} frames a second")
    film = Film(
        base,
        count_ticks_per_frame(stream),
        container.format.name,
        stream.codec_context.name,
        has_jumps=bool(container.format.flags & _FORESEES_JUMPS),
        joins_clocks=rules.joined_clocks,
    )
    declared = find_declared_end(container, stream)
    # With nothing declared for the video itself, the container's length covers all its streams.
    packets = container.demux([stream] if declared is not None else list(container.streams))
    others_end = Fraction(0)  # seconds
    number, next_dts = 0, None
    damage: Damage | None = None
    error: Exception | None = None

    # Errors are looked at below, once the decoder has handed out what it still holds.
    while damage is None and error is None:
        try:
            with log:
                packet = next(packets)
            if packet.stream.index != stream.index:
                if packet.pts is not None and packet.time_base:
                    end = (packet.pts + (packet.duration or 0)) * packet.time_base
                    others_end = max(others_end, end)
                continue
            if not packet.size:
                break  # the flush packet
            number += 1
            next_dts = None if packet.dts is None else packet.dts + (packet.duration or 0)
            if not packet.is_discard:
                film.sent[packet.pts] = number, packet.dts
            with log:
                pictures = packet.decode()
            log.begun = log.begun or bool(pictures)
        except StopIteration:
            break
        except (av.error.FFmpegError, OSError, ValueError) as failure:
            error = failure
        else:
            damage = yield from film.play(pictures)

    rest: list[Any] = []
    if damage is None:
        with log:
            rest, late_error = _drain(stream)
        error = error or late_error
    came = {picture.pts for picture in rest}
    lost = [(*packet, pts) for pts, packet in film.sent.items() if pts not in came]
    first_lost = min(lost, key=lambda packet: packet[0], default=(number, next_dts, None))
    limit = first_lost[1] if first_lost[1] is not None else first_lost[2]
    if error is not None:
        damage = Damage(error, first_lost[0], limit)

    # Truncated: the file says so, or it ends well before the length that it declares.
    times = film.times(rest)
    last = max(times, default=film.last)
    duration = (film.stated(rest[-1]) if rest else 0) or film.duration
    end = Fraction(0) if last is None else (last + duration) * base
    slack = duration / Fraction(2) if cut else _SLACK_FRAMES * max(film.gap, duration)
    if declared is None and container.duration and container.format.name in DECLARING and number:
        declared = Fraction(container.duration, av.time_base)
    first = times[0] if film.first is None and times else film.first or 0
    if film.parts > 1:
        declared = None  # of one part, or of nothing
    if declared is not None and not (is_avi or "mov" in container.format.name):
        declared -= first * base  # counts from the file's zero, not from the first frame
    too_short = has_index_beyond_file(container, stream) or (
        declared is not None and max(end, others_end) - first * base + slack * base < declared
    )

    # What the decoder still held. Every packet to come has pts >= dts >= the last one's dts: where
    # a film breaks off, frames from there on may have others missing in front of them.
    if damage is not None or too_short:
        limit = limit if damage is None else damage.limit
        certain = [not is_avi and (limit is None or time < limit) for time in times]
        rest = list(itertools.compress(rest, certain))
    damage_in_rest = yield from film.play(rest)
    if film.duration * base > MAX_GAP_SECONDS:
        why = f"its last frame is said to last {float(film.duration * base):.0f} s"
        damage_in_rest, film.duration = damage_in_rest or Damage(why, 0, film.last), 0
    damage = damage or damage_in_rest
    known = Fraction(0)
    if film.last is not None:
        known = film.seconds_until(film.last + film.duration)
        broken = (too_short or damage is not None) and damage_in_rest is None
        if broken and limit is not None and not is_avi and film.is_on_this_clock(limit):
            known = max(known, film.seconds_until(limit))
        yield known, None

    if damage is not None:
        if damage.packet == number and not _more(packets, stream):  # cut in mid-packet
            raise truncated_error(name, known, declared)
        raise corrupt_error(name, damage.why, known)
    if too_short:
        raise truncated_error(name, known, declared)
    if film.last is None:
        raise no_video_error(name)


def _drain(stream: VideoStream) -> tuple[list[Any], Exception | None]:
    """The frames that the decoder still holds, and what went wrong on the way."""
    import av

    pictures: list[Any] = []
    try:
        while more := stream.codec_context.decode(None):
            pictures += more
    except av.error.EOFError:
        pass
    except (av.error.FFmpegError, ValueError) as error:
        return pictures, error
    return pictures, None


def _more(packets: Iterator[Any], stream: VideoStream) -> bool:
    import av

    try:
        return any(packet.stream.index == stream.index and packet.size for packet in packets)
    except (av.error.FFmpegError, OSError, ValueError):
        return False
