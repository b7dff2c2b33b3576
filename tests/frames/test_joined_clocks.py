"""Films whose clock starts anew: parts joined in containers that have no single clock."""

from __future__ import annotations

import io
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest

from tests import make_golden_clips as maker
from tests.conftest import absent
from tests.media_judge import STRIDE, judge
from vidface.core.errors import ClipError
from vidface.core.rules import ReadingRules
from vidface.frames.film import Film
from vidface.frames.sampling import sample_frames

GOLDEN = Path(__file__).parents[1] / "golden"
FRAMES, FPS = 60, 25  # of ts.ts; interlaced.ts has 25 frames, one second
HOUR = 3600 * 90_000  # ticks


def part(kind: str, later_ticks: int = 0, name: str = "ts.ts") -> bytes:
    """The film of MPEG-TS again, as `kind`, its clock that much later."""
    import av

    file = io.BytesIO()
    with (
        av.open(str(GOLDEN / name)) as source,
        av.open(file, "w", format=kind, options={"mpegts_copyts": "1"}) as target,
    ):
        stream = target.add_stream_from_template(source.streams.video[0])
        for packet in source.demux(source.streams.video[0]):
            if packet.size:
                packet.pts, packet.dts = packet.pts + later_ticks, packet.dts + later_ticks
                packet.stream = stream
                target.mux(packet)
    return file.getvalue()


def numbers_and_times(film: bytes, fps: float = 100, **options) -> tuple[list[int], list[float]]:
    """Of each frame that is shown, once."""
    shown = {
        frame.source_time_seconds: maker.number_in(frame.image)
        for frame in sample_frames(io.BytesIO(film), fps, threads=1, name="joined", **options)
    }
    return list(shown.values()), list(shown)


@pytest.mark.parametrize(
    ("kind", "clocks"),
    [
        ("mpegts", (0, 0)),
        ("mpegts", (0, 0, 0)),
        ("mpegts", (5 * HOUR, 0)),
        ("mpegts", (0, 5 * HOUR, 0)),
        ("mpegts", (0, 20 * 90_000)),
        ("mpegts", (0, 2**33 - HOUR // 2)),  # the clock has 33 bits
        ("vob", (0, 0)),
        ("vob", (HOUR, 0, 2 * HOUR)),
    ],
)
def test_every_frame_of_every_part_in_order_and_time_goes_on(
    kind: str, clocks: tuple[int, ...]
) -> None:
    film = b"".join(part(kind, later) for later in clocks)
    numbers, times = numbers_and_times(film)
    assert numbers == list(range(FRAMES)) * len(clocks)
    wanted = [k / FPS for k in range(FRAMES * len(clocks))]
    assert times == pytest.approx(wanted, abs=1e-9)


def test_parts_of_less_than_a_second() -> None:
    one = part("mpegts", name="interlaced.ts")
    numbers, times = numbers_and_times(one * 3)
    assert numbers == list(range(25)) * 3
    assert times[-1] == pytest.approx(74 / FPS)


def test_a_gap_that_the_format_allows_is_a_pause() -> None:
    film = part("mpegts") + part("mpegts", 8 * 90_000)  # 5.6 s later than where the first ended
    numbers, times = numbers_and_times(film)
    assert numbers == list(range(FRAMES)) * 2
    assert times[FRAMES] == pytest.approx(8.0)


def encoded(kind: str, codec: str, rate: Fraction, count: int, **options: str) -> bytes:
    """A film of grey pictures that grow brighter."""
    import av

    file = io.BytesIO()
    with av.open(file, "w", format=kind) as target:
        stream = target.add_stream(codec, rate=rate, options=options)
        stream.width, stream.height, stream.pix_fmt = 48, 32, "yuv420p"
        for k in range(count):
            picture = np.full((32, 48, 3), 5 * k, np.uint8)
            target.mux(stream.encode(av.VideoFrame.from_ndarray(picture)))
        target.mux(stream.encode(None))
    return file.getvalue()


def test_frames_that_are_shown_for_long_are_no_jumps() -> None:
    """A time lapse: each frame begins where the one before it ends, 20 s later."""
    film = encoded("mpegts", "libx264", Fraction(1, 20), 4)
    times = {frame.source_time_seconds for frame in sample_frames(io.BytesIO(film * 2), 0.1)}
    assert sorted(times) == pytest.approx([20 * k for k in range(8)])


def test_b_frames_that_build_on_another_part_are_not_shown() -> None:
    """The second part begins at the first one's second key frame: two B frames lack theirs."""
    import av

    film = encoded("mpegts", "mpeg2video", Fraction(FPS), 24, bf="2", sc_threshold="1000000000")
    with av.open(io.BytesIO(film)) as container:
        key = [packet.pos for packet in container.demux() if packet.is_keyframe][1]
    joined = {
        frame.source_time_seconds: int(frame.image[5, 5, 1])
        for frame in sample_frames(io.BytesIO(film + film[key:]), 100)
    }
    greys = list(joined.values())
    assert greys[24:] == greys[12:24]
    assert list(joined) == pytest.approx([k / FPS for k in range(36)])


def test_a_flash_stream_that_broke_off_and_came_back() -> None:
    """FLV foresees no jumps: more than a second back is a new clock."""
    long, short = (encoded("flv", "flv", Fraction(FPS), count) for count in (40, 5))
    film = long + short[13:]  # without its header
    times = {frame.source_time_seconds for frame in sample_frames(io.BytesIO(film), 100)}
    assert sorted(times) == pytest.approx([k / FPS for k in range(45)], abs=2e-3)


def test_samples_and_windows_count_on_the_joined_clock() -> None:
    film = part("mpegts") + part("mpegts")  # 2.4 s each
    for start, stop in ((0.0, 4.8), (2.0, 3.0), (2.4, 2.5), (3.1, 9.0), (5.0, 6.0)):
        samples = list(sample_frames(io.BytesIO(film), 8, start_seconds=start, end_seconds=stop))
        # The naive rule: frame floor(25 t) of the 120, at each start + k / 8 before the end.
        moments = [Fraction(str(start)) + Fraction(k, 8) for k in range(80)]
        wanted = [int(t * FPS) for t in moments if t < min(Fraction(str(stop)), Fraction(24, 5))]
        assert [maker.number_in(s.image) for s in samples] == [k % FRAMES for k in wanted]
        assert [s.source_time_seconds for s in samples] == pytest.approx([k / FPS for k in wanted])


def test_older_runs_and_containers_with_one_clock_keep_their_rule() -> None:
    with pytest.raises(ClipError) as caught:
        numbers_and_times(part("mpegts") * 2, rules=ReadingRules.as_before())
    assert caught.value.state == "corrupt"
    for kind, clocks in (("mov,mp4,m4a,3gp,3g2,mj2", False), ("avi", False), ("flv", True)):
        film = Film(Fraction(1, 25), 1, kind, "h264", has_jumps=kind == "flv", joins_clocks=True)
        assert film.joins_clocks is clocks


def test_damage_in_a_later_part_is_damage() -> None:
    second = bytearray(part("mpegts"))
    second[len(second) // 2 : len(second) // 2 + 600] = b"\xff" * 600
    with pytest.raises(ClipError) as caught:
        numbers_and_times(part("mpegts") + bytes(second))
    assert caught.value.state == "corrupt"


@pytest.mark.parametrize("name", ["parts.ts", "parts.mpg"])
def test_the_frames_that_ffmpeg_decodes(data: Path, ffmpeg: str, name: str) -> None:
    film = data / "cases" / "parts_with_reset_times" / name
    if not film.is_file():
        absent(f"no {film}")
    verdict = judge(ffmpeg, film)
    shown = {
        frame.source_time_seconds: frame.image[::STRIDE, ::STRIDE].astype(int)
        for frame in sample_frames(film, 100, threads=1)
    }
    assert len(shown) == len(verdict.frames) == 100
    for image, (_, wanted) in zip(shown.values(), verdict.frames, strict=True):
        assert np.abs(image - wanted).max() <= 2
    assert list(shown) == pytest.approx([k / FPS for k in range(100)])
