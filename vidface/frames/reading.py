"""Packets to frames with libav: what is damaged, what is certain, where a damaged film goes on.

What libav leaves to its caller is done here: files that end too early, frames dropped without a
word, which frames are certain when a film breaks off.
"""

from __future__ import annotations

import functools
import itertools
from collections import deque
from collections.abc import Generator, Iterator
from fractions import Fraction
from typing import TYPE_CHECKING, Any

from vidface.core.errors import ClipError
from vidface.frames.common import (
    MAX_GAP_SECONDS,
    Window,
    corrupt_error,
    no_video_error,
    truncated_error,
)
from vidface.frames.film import Damage, Film
from vidface.frames.lengths import (
    DECLARING,
    count_ticks_per_frame,
    find_declared_end,
    has_index_beyond_file,
    tick_seconds_of,
)
from vidface.frames.log import LogListener

if TYPE_CHECKING:
    from av import Packet, VideoFrame
    from av.container import InputContainer
    from av.video.stream import VideoStream

_FORESEES_JUMPS = 0x200  # libav's AVFMT_TS_DISCONT: MPEG-TS, MPEG-PS, Ogg
_MAX_AVI_FPS = 10_000  # beyond it the header is damaged
# The declared length may exceed what is decoded by this many frames before the clip counts as
# truncated. Edit lists that drop a frame too many make 1.0 in ordinary files, half a frame is room.
_SLACK_FRAMES = Fraction(3, 2)
_MAX_REORDERED = 16  # frames that come before one they build on (H.264, H.265: A.4)
# A broadcast may be joined late; the others' odd headers are judged by the frames that come.
_FORGIVEN_IN_OPENING = ("mpegts", "mov", "avi")
_MOST_BEHIND_MARK = 2  # packets from one that MPEG-TS marks to the next part's first: its parser's
_MAX_READ_ERRORS = 100  # in a row, on the way to where a damaged film is certain again


class Reading:
    """A film on its way out of its container, and where that is damaged.

    Args:
        cut: the file is shorter than its own header says.
    """

    def __init__(
        self,
        container: InputContainer,
        stream: VideoStream,
        name: str,
        cut: bool,
        log: LogListener,
        window: Window,
    ) -> None:
        self.container, self.stream, self.name, self.cut = container, stream, name, cut
        self.log, self.keeps_damaged = log, window.keep_damaged
        if not container.format.name.startswith(_FORGIVEN_IN_OPENING):
            decoders = (other.codec_context for other in container.streams if other != stream)
            log.begin(stream.codec_context.name, [codec.name for codec in decoders if codec])
        base = tick_seconds_of(stream)
        if container.format.name == "avi" and base < Fraction(1, _MAX_AVI_FPS):
            raise corrupt_error(name, f"it is said to have {float(1 / base):.3g} frames a second")
        self.film = Film(
            base,
            count_ticks_per_frame(stream),
            container.format.name,
            stream.codec_context.name,
            has_jumps=bool(container.format.flags & _FORESEES_JUMPS),
            joins_clocks=window.rules.joined_clocks,
        )
        self.declared = find_declared_end(container, stream)
        # With nothing declared for the video itself, the container's length covers all its streams.
        self.read = [stream] if self.declared is not None else list(container.streams)
        self.packets: Iterator[Packet] = container.demux(self.read)
        self.next_packet: Packet | None = None  # that was read already
        self.others_end = Fraction(0)  # seconds
        self.number = 0  # of packets
        self.next_dts: int | None = None
        # With keep_damaged: (packet's number, begin_seconds, frame) that may build on one to come.
        self.held: deque[tuple[int, Fraction, VideoFrame]] = deque()
        self.passed_over: ClipError | None = None  # the first damage, where the film went on

    def changes(self) -> Generator[tuple[Fraction, VideoFrame | None]]:
        """(begin_seconds, frame) in the order of being shown, then (end_seconds, None).

        Raises ClipError after the None if the stream is damaged or ends too early. The None then
        stands where knowledge ends: what was shown before it is certain. Where damage is passed
        over, the film goes on with frames that are certain again.
        """
        while (error := (yield from self._play_on())) is not None:
            self.passed_over = self.passed_over or error
            if not (self.keeps_damaged and error.state == "corrupt" and self._find_key()):
                raise self.passed_over

    def _play_on(self) -> Generator[tuple[Fraction, VideoFrame | None], None, ClipError | None]:
        """Until the film ends or is damaged: what it is then."""
        import av

        container, stream, film, log = self.container, self.stream, self.film, self.log
        base, is_avi = film.base, film.is_avi
        damage: Damage | None = None
        error: Exception | None = None
        rest: list[Any] = []

        # Errors are looked at below, once the decoder has handed out what it still holds.
        while damage is None and error is None:
            try:
                with log:
                    packet = self.next_packet or next(self.packets)
                self.next_packet = None
                if packet.stream.index != stream.index:
                    if packet.pts is not None and packet.time_base:
                        end = (packet.pts + (packet.duration or 0)) * packet.time_base
                        self.others_end = max(self.others_end, end)
                    continue
                if not packet.size:
                    break  # the flush packet
                self.number += 1
                self.next_dts = None if packet.dts is None else packet.dts + (packet.duration or 0)
                if not (packet.is_discard or film.is_left_out(packet.pts)):
                    film.sent[packet.pts] = self.number, packet.dts
                log.begun = log.begun or packet.is_keyframe
                if film.certain_from is not None:  # what is left out may lack what it builds on
                    log.begun = not film.is_left_out(packet.pts)
                if packet.is_corrupt and log.begun and not self._ends_a_part():
                    raise ValueError("a packet that is cut or damaged")
                with log:
                    pictures = packet.decode()
                log.begun = log.begun or bool(pictures)
            except StopIteration:
                break
            except (av.error.FFmpegError, OSError, ValueError) as failure:
                error = failure
            else:
                if self.keeps_damaged and log.heard is not None:
                    break
                damage = yield from self._play(pictures)

        if damage is None:
            with log:
                rest, late_error = _drain(stream)
            error = error or late_error
        came = {picture.pts for picture in rest}
        lost = [(*packet, pts) for pts, packet in film.sent.items() if pts not in came]
        first_lost = min(
            lost, key=lambda packet: packet[0], default=(self.number, self.next_dts, None)
        )
        limit = first_lost[1] if first_lost[1] is not None else first_lost[2]
        if error is not None:
            damage = Damage(error, first_lost[0], limit)
        elif self.keeps_damaged and damage is None and log.heard is not None:
            damage = Damage(log.heard, 0, film.last)

        # Truncated: the file says so, or it ends well before the length that it declares.
        times = film.times(rest)
        last = max(times, default=film.last)
        duration = (film.stated(rest[-1]) if rest else 0) or film.duration
        end = Fraction(0) if last is None else (last + duration) * base
        slack = duration / Fraction(2) if self.cut else _SLACK_FRAMES * max(film.gap, duration)
        declared = self.declared
        if (
            declared is None
            and container.duration
            and container.format.name in DECLARING
            and self.number
        ):
            declared = Fraction(container.duration, av.time_base)
        first = times[0] if film.first is None and times else film.first or 0
        if film.parts > 1:
            declared = None  # of one part, or of nothing
        if declared is not None and not (is_avi or "mov" in container.format.name):
            declared -= first * base  # counts from the file's zero, not from the first frame
        too_short = self._is_cut_in_its_index or (
            declared is not None
            and max(end, self.others_end) - first * base + slack * base < declared
        )

        # What the decoder still held. Every packet to come has pts >= dts >= the last one's dts:
        # where a film breaks off, frames from there on may have others missing in front of them.
        if damage is not None or too_short:
            limit = limit if damage is None else damage.limit
            holds = not (is_avi or self._withdraws_at(damage))
            certain = [holds and (limit is None or time < limit) for time in times]
            rest = list(itertools.compress(rest, certain))
        damage_in_rest = yield from self._play(rest)
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
            if self._withdraws_at(damage):
                known = self.held[0][1] if self.held else film.seconds_until(film.last)
                self.held.clear()
            yield from ((begin, picture) for _, begin, picture in self.held)
            self.held.clear()
            yield known, None

        if damage is not None:
            if self._is_cut_in(damage):
                return truncated_error(self.name, known, declared)
            return corrupt_error(self.name, damage.why, known)
        if too_short:
            return truncated_error(self.name, known, declared)
        return no_video_error(self.name) if film.last is None else self.passed_over

    def _play(
        self, pictures: list[Any]
    ) -> Generator[tuple[Fraction, VideoFrame], None, Damage | None]:
        """Pass on what the film shows; with keep_damaged once all is there that it may build on."""
        shown = self.film.play(pictures)
        if not self.keeps_damaged:
            return (yield from shown)
        while True:
            try:
                begin, picture = next(shown)
            except StopIteration as end:
                return end.value
            self.held.append((self.film.packet, begin, picture))
            while self.held and (
                self.held[0][0] < self.film.oldest_pending or len(self.held) > _MAX_REORDERED
            ):
                yield self.held.popleft()[1:]

    def _withdraws_at(self, damage: Damage | None) -> bool:
        """With keep_damaged: the damage may begin in the last frame that was shown."""
        return self.keeps_damaged and damage is not None and not self._is_cut_in(damage)

    def _ends_a_part(self) -> bool:
        """Where parts were joined, MPEG-TS's packet counter leaps and marks one just before it."""
        if not self.container.format.flags & _FORESEES_JUMPS:
            return False
        ahead: list[Packet] = []
        films: list[Packet] = []
        for packet in self.packets:
            ahead.append(packet)
            if packet.stream.index == self.stream.index:
                films.append(packet)
            if len(films) == _MOST_BEHIND_MARK or (films and films[-1].is_keyframe):
                break
        self.packets = itertools.chain(ahead, self.packets)
        return any(packet.is_keyframe for packet in films)

    def _is_cut_in(self, damage: Damage) -> bool:
        """Whether the file ends with the packet that is damaged."""
        import av

        if damage.packet != self.number:
            return False
        index = self.stream.index
        try:
            films = (p for p in self.packets if p.stream.index == index and p.size)
            self.next_packet = self.next_packet or next(films, None)
        except (av.error.FFmpegError, OSError, ValueError):
            return True
        return self.next_packet is None

    def _find_key(self) -> bool:
        """Read on to a picture that builds on no other, where one comes and times are stored."""
        import av

        if not self.film.can_go_on:
            return False
        waiting = [] if self.next_packet is None else [self.next_packet]
        for _ in range(_MAX_READ_ERRORS):
            self.packets = self.container.demux(self.read)  # the last one may have ended
            try:
                with self.log:
                    for packet in itertools.chain(waiting, self.packets):
                        if self._is_key(packet) and packet.pts is not None:
                            self.stream.codec_context.flush_buffers()
                            self.film.go_on_at(packet.pts)
                            self.next_packet, self.log.heard = packet, None
                            return True
                return False
            except av.error.FFmpegError:
                waiting = []
            except (OSError, ValueError):
                return False
        return False

    def _is_key(self, packet: Packet) -> bool:
        clean = packet.is_keyframe and not (packet.is_corrupt or packet.is_discard)
        return clean and packet.stream.index == self.stream.index and packet.size > 0

    @functools.cached_property
    def _is_cut_in_its_index(self) -> bool:
        return has_index_beyond_file(self.container, self.stream)


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
