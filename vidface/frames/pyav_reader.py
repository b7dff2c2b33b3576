"""Frames through PyAV (libav). What it leaves to its caller is done here.

That is: rotation, files that end too early, frames dropped without a word, which frames are certain
when a film breaks off, playlists that would open other files.
"""

from __future__ import annotations

import contextlib
import itertools
import os
from collections.abc import Generator, Iterator
from dataclasses import dataclass
from fractions import Fraction
from typing import TYPE_CHECKING, Any, BinaryIO

import numpy as np

from vidface.frames.common import (
    MAX_GAP_SECONDS,
    MAX_PIXELS,
    Source,
    Window,
    closing,
    corrupt,
    file_or_path,
    frozen,
    no_video,
    shown_at,
    truncated,
    unreadable,
)

if TYPE_CHECKING:
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
_MAX_STEP_BACK_SECONDS = 1  # a late frame is never shown; a longer jump is damage
# The declared length may exceed what is decoded by this many frames before the clip counts as
# truncated. Edit lists that drop a frame too many make 1.0 in ordinary files, half a frame is room.
_SLACK_FRAMES = Fraction(3, 2)


def decode_with_pyav(
    source: Source, name: str, window: Window, threads: int
) -> Iterator[tuple[int, Fraction, np.ndarray]]:
    """A `Decoder`: right in every case that is measured."""
    import av

    with contextlib.ExitStack() as stack:
        try:
            # Through Python's open: libav would take "http://…" or "img%03d.png" at their word.
            file, path = file_or_path(source)
            if path is not None:
                file = stack.enter_context(path.open("rb"))
        except OSError as error:
            raise unreadable(name, error) from error
        try:
            unfinished = _unfinished_part(file)
            if file.seek(0, os.SEEK_END) == 0:
                raise ValueError("the file is empty")
            file.seek(0)
            if unfinished == b"moov":
                raise ValueError("cut off: its index, the moov atom, is incomplete")
            if _lost_its_index(file):
                raise ValueError("cut off: its index, the moov atom, is missing")
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
            raise corrupt(name, error) from error
        stream = _film_stream(container, name)
        stream.thread_count = threads
        cut = unfinished is not None
        changes = stack.enter_context(closing(_changes(container, stream, name, cut)))
        last: tuple[Any, np.ndarray] | None = None
        for k, begin, picture in shown_at(changes, window):
            if last is None or last[0] is not picture:
                try:
                    last = picture, frozen(_upright(picture))
                except (av.error.FFmpegError, ValueError) as error:
                    raise corrupt(name, error, begin) from error
            yield k, begin, last[1]


def _film_stream(container: InputContainer, name: str) -> VideoStream:
    """libav's best video stream, as ffprobe and players choose; a cover picture is not a film."""
    from av.stream import Disposition

    films = [s for s in container.streams.video if not s.disposition & Disposition.attached_pic]
    if not films:
        raise no_video(name)
    best = container.streams.best("video")
    stream = next((film for film in films if best is not None and film.index == best.index), None)
    stream = stream or films[0]
    codec = stream.codec_context
    if codec is None:
        raise corrupt(name, "no decoder for its codec")
    if codec.width * codec.height > MAX_PIXELS:
        raise corrupt(name, f"declares {codec.width} x {codec.height} pixels")
    codec.options = {"max_pixels": str(MAX_PIXELS)}
    stream.thread_type = "AUTO"
    return stream


class _Film:
    """What has been shown so far, in ticks, and the frames' way out of the decoder."""

    def __init__(self, base: Fraction, ticks_per_frame: int, kind: str) -> None:
        self.base = base  # seconds per tick
        self.is_avi = kind == "avi"
        self.has_exact_times = "mov" in kind or "matroska" in kind  # a stored pts for each packet
        self.first: int | None = None
        self.last: int | None = None
        self.gap = 0  # the longest that a frame was shown
        self.duration = ticks_per_frame  # of the last frame
        # Sent to the decoder, frame still to come: pts -> (packet's number, dts).
        self.sent: dict[int | None, tuple[int, int | None]] = {}

    def times(self, pictures: list[Any]) -> list[int]:
        """Ticks of frames that are to be shown next."""
        ticks: list[int] = []
        for picture in pictures:
            # AVI stores no presentation times: libav's are in decoding order, its dts in ours.
            pts = picture.dts if self.is_avi or picture.pts is None else picture.pts
            if pts is None:
                last = ticks[-1] if ticks else self.last
                pts = 0 if last is None else last + self.duration
            ticks.append(pts)
        return ticks

    def stated(self, picture: VideoFrame) -> int:
        """The duration that the file states for a frame, 0 if none; AVI's is always one tick."""
        return 0 if self.is_avi else picture.duration

    def play(
        self, pictures: list[Any]
    ) -> Generator[tuple[Fraction, VideoFrame], None, _Damage | None]:
        """Yield (begin_seconds, frame); return the damage that ended it, if any."""
        for picture, pts in zip(pictures, self.times(pictures), strict=True):
            if picture.is_corrupt:
                number, _ = self.sent.get(picture.pts, (0, None))
                if self.last is not None:
                    self.duration = max(pts - self.last, 0)
                return _Damage("a frame with decoding errors", number, pts)
            if self.last is not None:
                step_seconds = (pts - self.last) * self.base
                if not -_MAX_STEP_BACK_SECONDS <= step_seconds <= MAX_GAP_SECONDS:
                    why = f"the next frame's time is {float(step_seconds):.0f} s away"
                    return _Damage(why, 0, self.last + self.duration)
                if step_seconds < 0:
                    continue  # too late to be shown
                # libav may drop a broken frame without a word.
                lost = [p for p in self.sent if p is not None and self.last < p < pts]
                if lost and self.has_exact_times:
                    self.duration = min(lost) - self.last
                    return _Damage("a frame is lost in decoding", 0, min(lost))
                self.gap = max(self.gap, pts - self.last)
                self.duration = pts - self.last or self.duration
            self.duration = self.stated(picture) or self.duration
            self.first = pts if self.first is None else self.first
            self.last = pts
            self.sent = {p: v for p, v in self.sent.items() if p is not None and p > pts}
            yield (pts - self.first) * self.base, picture
        return None


@dataclass(frozen=True)
class _Damage:
    why: object
    packet: int  # number of the first packet that was lost, from 1; 0 = not known
    limit: int | None  # ticks: frames before it are certain


def _changes(
    container: InputContainer, stream: VideoStream, name: str, cut: bool
) -> Iterator[tuple[Fraction, VideoFrame | None]]:
    """(begin_seconds, frame) in the order of being shown, then (end_seconds, None).

    Raises ClipError after the None if the stream is damaged or ends too early. The None then
    stands where knowledge ends: what was shown before it is certain. cut: the file is shorter
    than its own header says.
    """
    import av

    base, is_avi = _base(stream), container.format.name == "avi"
    film = _Film(base, _ticks_per_frame(stream), container.format.name)
    declared = _declared_end(container, stream)
    # With nothing declared for the video itself, the container's length covers all its streams.
    packets = container.demux([stream] if declared is not None else list(container.streams))
    others_end = Fraction(0)  # seconds
    number, next_dts = 0, None
    damage: _Damage | None = None
    error: Exception | None = None

    # Errors are looked at below, once the decoder has handed out what it still holds.
    while damage is None and error is None:
        try:
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
            pictures = packet.decode()
        except StopIteration:
            break
        except (av.error.FFmpegError, OSError, ValueError) as failure:
            error = failure
        else:
            damage = yield from film.play(pictures)

    rest: list[Any] = []
    if damage is None:
        rest, late_error = _drain(stream)
        error = error or late_error
    came = {picture.pts for picture in rest}
    lost = [(*packet, pts) for pts, packet in film.sent.items() if pts not in came]
    first_lost = min(lost, key=lambda packet: packet[0], default=(number, next_dts, None))
    limit = first_lost[1] if first_lost[1] is not None else first_lost[2]
    if error is not None:
        damage = _Damage(error, first_lost[0], limit)

    # Truncated: the file says so, or it ends well before the length that it declares.
    times = film.times(rest)
    last = max(times, default=film.last)
    duration = (film.stated(rest[-1]) if rest else 0) or film.duration
    end = Fraction(0) if last is None else (last + duration) * base
    slack = duration / Fraction(2) if cut else _SLACK_FRAMES * max(film.gap, duration)
    if declared is None and container.duration and container.format.name in _DECLARING and number:
        declared = Fraction(container.duration, av.time_base)
    first = times[0] if film.first is None and times else film.first or 0
    if declared is not None and not (is_avi or "mov" in container.format.name):
        declared -= first * base  # counts from the file's zero, not from the first frame
    too_short = _index_runs_past_the_file(container, stream) or (
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
        damage_in_rest, film.duration = damage_in_rest or _Damage(why, 0, film.last), 0
    damage = damage or damage_in_rest
    known = Fraction(0)
    if film.last is not None:
        known = (film.last + film.duration - first) * base
        broken = too_short or damage is not None
        if broken and limit is not None and not is_avi and damage_in_rest is None:
            known = max(known, (limit - first) * base)
        yield known, None

    if damage is not None:
        if damage.packet == number and not _more(packets, stream):  # cut in mid-packet
            raise truncated(name, known, declared)
        raise corrupt(name, damage.why, known)
    if too_short:
        raise truncated(name, known, declared)
    if film.last is None:
        raise no_video(name)


# Whose headers state a length; elsewhere libav guesses it from what is there.
_DECLARING = ("mov,mp4,m4a,3gp,3g2,mj2", "matroska,webm", "avi", "flv")


def _declared_end(container: InputContainer, stream: VideoStream) -> Fraction | None:
    """The video's own declared end in seconds; None where only the container states one, or none.

    MP4/MOV: the track's length, behind its edit list. AVI: the header's frame count (libav scales
    the duration by the file's size). Matroska: the DURATION tag that ffmpeg and mkvmerge write.
    """
    kind = container.format.name
    if "mov" in kind and stream.duration:
        return stream.duration * _base(stream)
    if kind == "avi" and stream.frames:
        return stream.frames * _base(stream)
    if "matroska" in kind:
        for key, value in stream.metadata.items():
            if key.upper().startswith("DURATION"):
                with contextlib.suppress(ValueError):
                    hours, minutes, seconds = value.split(":")
                    return int(hours) * 3600 + int(minutes) * 60 + Fraction(seconds)
    return None


def _base(stream: VideoStream) -> Fraction:
    """Seconds per tick; libav always states it for a demuxed stream."""
    return stream.time_base or Fraction(1, 1_000_000)


def _unfinished_part(file: BinaryIO) -> bytes | None:
    """Which part of an MP4/MOV, Matroska or AVI is longer than the file; None: none, or unknown.

    Leaves the file at its beginning. Boxes of MP4: ISO/IEC 14496-12, 4.2; EBML: RFC 8794.
    """
    size = file.seek(0, os.SEEK_END)
    file.seek(0)
    head = file.read(64)
    part, end = None, 0
    if head[4:8] in (b"ftyp", b"moov", b"mdat", b"free", b"skip", b"wide", b"pnot"):
        while len(head) >= 8 and end <= size:
            part, length = head[4:8], int.from_bytes(head[:4])
            if length == 1:
                length = int.from_bytes(head[8:16])
            if length < 8:  # 0: to the end of the file
                break
            end += length
            file.seek(min(end, size))
            head = file.read(16)
    elif head[:4] == b"RIFF" and head[8:12] == b"AVI ":
        part, end = b"RIFF", int.from_bytes(head[4:8], "little") + 8
    elif head[:4] == b"\x1a\x45\xdf\xa3":
        header_length, at = _vint(head, 4)
        file.seek(at + (header_length or 0))
        head = file.read(12)
        if head[:4] == b"\x18\x53\x80\x67":
            length_or_none, behind = _vint(head, 4)
            part, end = b"Segment", file.tell() - len(head) + behind + (length_or_none or 0)
    file.seek(0)
    return part if end > size else None


def _lost_its_index(file: BinaryIO) -> bool:
    """Whether it begins as an MP4 and no moov box is in it. Leaves the file at its beginning."""
    size = file.seek(0, os.SEEK_END)
    begins_as_mp4 = found = False
    at = 0
    while not found and at < size:
        file.seek(at)
        head = file.read(16)
        begins_as_mp4 = begins_as_mp4 or (at == 0 and head[4:8] == b"ftyp")
        found = head[4:8] == b"moov"
        length = int.from_bytes(head[8:16] if head[:4] == b"\0\0\0\1" else head[:4])
        if length < 8 or not begins_as_mp4:
            break
        at += length
    file.seek(0)
    return begins_as_mp4 and not found


def _vint(data: bytes, at: int) -> tuple[int | None, int]:
    """(value, position behind it) of EBML's variable-length integer; None = stated as unknown."""
    length = 9 - data[at].bit_length() if len(data) > at and data[at] else 8
    value = int.from_bytes(data[at : at + length]) & ((1 << 7 * length) - 1)
    return None if value == (1 << 7 * length) - 1 else value, at + length


def _ticks_per_frame(stream: VideoStream) -> int:
    rate = stream.average_rate or stream.guessed_rate or Fraction(25)
    return max(1, round(1 / (rate * _base(stream))))


def _index_runs_past_the_file(container: InputContainer, stream: VideoStream) -> bool:
    """MP4/MOV list every sample's place up front: exact, be it one frame that is missing."""
    if "mov" not in container.format.name or container.size <= 0:
        return False
    size = container.size
    return any(e.pos + e.size > size for e in stream.index_entries if not e.is_discard)


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


def _upright(picture: VideoFrame) -> np.ndarray:
    """RGB with the display matrix applied: any of the eight quarter turns and flips.

    Other angles go to the nearest quarter turn.
    """
    # Bicubic as ffmpeg does; it matters where chroma is interpolated: odd sizes, 10 bits.
    image = picture.to_ndarray(format="rgb24", interpolation="BICUBIC")
    side_data: Any = picture.side_data.get("DISPLAYMATRIX")
    if side_data is None:
        return image
    # Row vectors: (x, y) is shown at (a x + c y, b x + d y), y downwards; 16.16 fixed point.
    a, b, _, c, d = np.frombuffer(bytes(side_data), dtype=np.int32)[:5].tolist()
    if abs(a) + abs(d) < abs(b) + abs(c):
        image = image.transpose(1, 0, 2)
        flip_x, flip_y = c < 0, b < 0
    else:
        flip_x, flip_y = a < 0, d < 0
    return image[:: -1 if flip_y else 1, :: -1 if flip_x else 1]
