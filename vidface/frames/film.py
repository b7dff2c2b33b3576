"""A film as it comes out of libav: which pictures are certain, and when each one is shown."""

from __future__ import annotations

import math
from collections.abc import Generator
from dataclasses import dataclass
from fractions import Fraction
from typing import TYPE_CHECKING, Any

from vidface.frames.common import MAX_GAP_SECONDS, MAX_SECONDS_PER_FRAME

if TYPE_CHECKING:
    from av import VideoFrame

# Their decoders know by themselves when the first pictures have something to build on.
_KEEP_COUNT_OF_REFERENCES = ("h264", "hevc")
_NONE, _BIDIRECTIONAL, _PREDICTED = 0, 3, (2, 3, 4)  # AVPictureType: B; P, B, S
# Back: a late frame is never shown, a longer jump is damage or a new clock. Where a format foresees
# jumps (MPEG-TS and -PS, Ogg), ffmpeg's own bounds: ahead of where the last frame ends.
_STEPS_SECONDS = (-1, MAX_GAP_SECONDS)
_STEPS_SECONDS_OF_JUMPY_FORMATS = (-Fraction(1, 10), 10)


@dataclass(frozen=True)
class Damage:
    """What ended a film too early.

    Attributes:
        packet: number of the first packet that was lost, from 1; 0 = not known.
        limit: ticks: frames before it are certain.
    """

    why: object
    packet: int
    limit: int | None


class Film:
    """What has been shown so far, in ticks, and the frames' way out of the decoder.

    Args:
        base: seconds per tick.
        kind: libav's name of the container.
        has_jumps: its format foresees clocks that jump.
        joins_clocks: where a container has no single clock, go on counting at a jump.
    """

    def __init__(
        self,
        base: Fraction,
        ticks_per_frame: int,
        kind: str,
        codec: str,
        *,
        has_jumps: bool,
        joins_clocks: bool,
    ) -> None:
        self.base = base
        self.is_avi = kind == "avi"
        self.has_exact_times = "mov" in kind or "matroska" in kind  # a stored pts for each packet
        self.joins_clocks = joins_clocks and not (self.has_exact_times or self.is_avi)
        self.may_lack_references = codec not in _KEEP_COUNT_OF_REFERENCES
        self.expects_jumps = self.joins_clocks and has_jumps
        self.frames = 0
        self.first: int | None = None  # on the clock that counts now
        self.last: int | None = None
        self.gap = 0  # the longest that a frame was shown
        self.duration = ticks_per_frame  # of the last frame
        self.packet = 0  # number of the packet whose frame came last
        self.newest_packet = 0  # number of the last packet among those whose frames came
        self.parts = 1  # whose clocks were joined
        self.stores_times = self.has_exact_times or kind in ("mpegts", "mpeg")
        self.certain_from: int | None = None  # after damage: frames before it lack others
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

    def seconds_until(self, ticks: int) -> Fraction:
        """From the first frame shown, on the clock that counts now."""
        return (ticks - (self.first or 0)) * self.base

    def is_on_this_clock(self, ticks: int) -> bool:
        """Whether a time may follow the last one shown."""
        if self.last is None:
            return True
        least, most = _STEPS_SECONDS_OF_JUMPY_FORMATS if self.expects_jumps else _STEPS_SECONDS
        step = ticks - self.last
        ahead = step - self.duration if self.expects_jumps else step
        return least <= step * self.base and ahead * self.base <= most

    def play(
        self, pictures: list[Any]
    ) -> Generator[tuple[Fraction, VideoFrame], None, Damage | None]:
        """Yield (begin_seconds, frame); return the damage that ended it, if any."""
        for picture, pts in zip(pictures, self.times(pictures), strict=True):
            packet, _ = self.sent.get(picture.pts, (0, None))
            begins = self.first is None
            if self.certain_from is not None:
                if pts < self.certain_from:
                    continue
                self.certain_from, begins = None, True
            if self.joins_clocks and not self.is_on_this_clock(pts):
                if picture.pict_type == _BIDIRECTIONAL and self.may_lack_references:
                    continue  # between a picture of the other part and the one that comes now
                self._join_clock(pts)
                begins = True
            if picture.is_corrupt:
                if self.last is not None:
                    self.duration = max(pts - self.last, 0)
                return Damage("a frame with decoding errors", packet, pts)
            self.frames += 1
            if self.first is not None:
                length = self.seconds_until(pts)
                if length > MAX_GAP_SECONDS + MAX_SECONDS_PER_FRAME * self.frames:
                    why = f"{self.frames} frames are said to last {float(length):.0f} s"
                    return Damage(why, 0, self.last)
            if (begins and self.may_lack_references) and (
                picture.pict_type in _PREDICTED
                or (picture.pict_type == _NONE and not picture.key_frame)
            ):
                return Damage("the frame that its first one builds on is missing", 0, pts)
            if self.last is not None:
                step_seconds = (pts - self.last) * self.base
                if not self.is_on_this_clock(pts):
                    why = f"the next frame's time is {float(step_seconds):.0f} s away"
                    return Damage(why, 0, self.last + self.duration)
                if step_seconds < 0:
                    continue  # too late to be shown
                # libav may drop a broken frame without a word.
                lost = [p for p in self.sent if p is not None and self.last < p < pts]
                if lost and self.has_exact_times:
                    self.duration = min(lost) - self.last
                    return Damage("a frame is lost in decoding", 0, min(lost))
                if not begins:
                    self.gap = max(self.gap, pts - self.last)
                    self.duration = pts - self.last or self.duration
            self.duration = self.stated(picture) or self.duration
            self.first = pts if self.first is None else self.first
            self.last = pts
            self.packet = packet
            self.newest_packet = max(self.newest_packet, packet)
            self.sent = {p: v for p, v in self.sent.items() if p is not None and p > pts}
            yield self.seconds_until(pts), picture
        return None

    @property
    def can_go_on(self) -> bool:
        """Whether later frames' times are known, whatever was lost in front of them."""
        begin_is_known = self.first is not None or (self.has_exact_times and bool(self.sent))
        return self.stores_times and begin_is_known

    def go_on_at(self, pts: int) -> None:
        """Behind damage, at the time of a picture that builds on no other."""
        if self.first is None:  # nothing was shown: the film began with its first packet's frame
            self.first = self.last = min(self.sent.items(), key=lambda packet: packet[1])[0]
        self.certain_from, self.sent = pts, {}

    @property
    def oldest_pending(self) -> float:
        """Number of the first packet whose frame is still to come."""
        return min((number for number, _ in self.sent.values()), default=math.inf)

    def is_left_out(self, pts: int | None) -> bool:
        """Whether it is a frame in front of the picture with which the film goes on."""
        return self.certain_from is not None and (pts is None or pts < self.certain_from)

    def _join_clock(self, pts: int) -> None:
        """Another part begins: what was shown is counted on its clock, as if just before it."""
        if self.first is None or self.last is None:
            return
        jump = pts - (self.last + self.duration)
        self.first, self.last = self.first + jump, self.last + jump
        self.parts += 1
        self.sent = {p: v for p, v in self.sent.items() if v[0] > self.newest_packet}
