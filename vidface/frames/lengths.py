"""How long a film is said to be, and in which ticks."""

from __future__ import annotations

import contextlib
from fractions import Fraction
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from av.container import InputContainer
    from av.video.stream import VideoStream

# Whose headers state a length; elsewhere libav guesses it from what is there.
DECLARING = ("mov,mp4,m4a,3gp,3g2,mj2", "matroska,webm", "avi", "flv", "mxf")


def find_declared_end(container: InputContainer, stream: VideoStream) -> Fraction | None:
    """The video's own declared end in seconds; None where only the container states one, or none.

    MP4/MOV: the track's length, behind its edit list. AVI: the header's frame count (libav scales
    the duration by the file's size). Matroska: the DURATION tag that ffmpeg and mkvmerge write.
    """
    kind = container.format.name
    if "mov" in kind and stream.duration:
        return stream.duration * tick_seconds_of(stream)
    if kind == "avi" and stream.frames:
        return stream.frames * tick_seconds_of(stream)
    if "matroska" in kind:
        return _matroska_end(container, stream)
    return None


def _matroska_end(container: InputContainer, stream: VideoStream) -> Fraction | None:
    """The stream's DURATION tag; the container's length if no stream's tag accounts for it."""
    import av

    ends = {other.index: _duration_tag(other.metadata) for other in container.streams}
    stream_end = ends[stream.index]
    stated = [end for end in ends.values() if end is not None]
    if stream_end is not None and len(stated) == len(ends) and container.duration:
        whole = Fraction(container.duration, av.time_base)
        if whole > max(stated) + Fraction(1, 2):
            return whole
    return stream_end


def _duration_tag(metadata: dict[str, str]) -> Fraction | None:
    """Seconds."""
    for key, value in metadata.items():
        if key.upper().startswith("DURATION"):
            with contextlib.suppress(ValueError, ZeroDivisionError):
                hours, minutes, seconds = value.split(":")
                return int(hours) * 3600 + int(minutes) * 60 + Fraction(seconds)
    return None


def tick_seconds_of(stream: VideoStream) -> Fraction:
    """Seconds per tick; libav always states it for a demuxed stream."""
    return stream.time_base or Fraction(1, 1_000_000)


def count_ticks_per_frame(stream: VideoStream) -> int:
    rate = stream.average_rate or stream.guessed_rate or Fraction(25)
    return max(1, round(1 / (rate * tick_seconds_of(stream))))


def has_index_beyond_file(container: InputContainer, stream: VideoStream) -> bool:
    """MP4/MOV list every sample's place up front: exact, be it one frame that is missing."""
    if "mov" not in container.format.name or container.size <= 0:
        return False
    size = container.size
    return any(e.pos + e.size > size for e in stream.index_entries if not e.is_discard)
