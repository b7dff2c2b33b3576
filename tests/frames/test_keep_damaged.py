"""With keep_damaged: what is certain of a film with a bad place, and nothing else."""

from __future__ import annotations

import io
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.conftest import absent
from tests.frames.test_joined_clocks import encoded
from tests.media_judge import STRIDE, judge
from vidface.core.errors import ClipError, VidfaceError
from vidface.frames.common import Window, select_shown
from vidface.frames.sampling import sample_frames
from vidface.frames.settings import FrameSettings

GOLDEN = Path(__file__).parents[1] / "golden"
FILMS = ["fps25.mp4", "bframes.mp4", "rich.mp4", "rich.mov", "rich.mkv", "av1.mkv", "ts.ts"]
FILMS += ["interlaced.ts"]


def packets_of(film: bytes) -> list[tuple[int, int, Fraction, bool]]:
    """(place in the file, bytes, seconds after the first frame, key frame), in decoding order."""
    import av

    with av.open(io.BytesIO(film)) as container:
        [stream] = container.streams.video
        packets = [p for p in container.demux(stream) if p.size]
        first = min(p.pts for p in packets)
        base = stream.time_base
        return [(p.pos, p.size, (p.pts - first) * base, p.is_keyframe) for p in packets]


def with_bad_place(film: bytes, packet: tuple[int, int, Fraction, bool]) -> bytes:
    """Most of a packet overwritten; in a transport stream, where small ones end 188 bytes on."""
    at, size, *_ = packet
    end = at + (188 if film[:1] == b"\x47" else size)
    begin = max(at + size // 4, end - size * 3 // 4)
    return film[:begin] + b"\xff" * (end - begin) + film[end:]


def read(film: bytes, fps: float = 100, **options) -> tuple[dict[float, np.ndarray], str]:
    """(pictures by the time since which they are shown, the state)."""
    shown: dict[float, np.ndarray] = {}
    try:
        for frame in sample_frames(io.BytesIO(film), fps, threads=1, name="film", **options):
            shown[frame.source_time_seconds] = frame.image
    except ClipError as error:
        return shown, error.state
    return shown, "ok"


@pytest.mark.parametrize("case", FILMS)
def test_frames_before_the_damage_and_from_the_next_key_frame_on(case: str) -> None:
    """A dozen packets in turn: never a wrong frame, and nothing certain missing."""
    film = (GOLDEN / case).read_bytes()
    whole, state = read(film)
    assert state == "ok"
    packets = packets_of(film)
    keys = [seconds for _, _, seconds, is_key in packets if is_key]
    went_on = 0
    inner = [
        packet for packet in packets if 16 <= packet[1] < 1000
    ]  # none of the container's bytes
    for packet in inner[1 :: max(1, len(packets) // 12)]:
        kept, state = read(with_bad_place(film, packet), keep_damaged=True)
        if state == "ok":  # the decoder sees nothing, as it is without keep_damaged
            continue
        assert state in ("corrupt", "truncated")
        for seconds, image in kept.items():
            assert (image == whole[seconds]).all(), f"at {seconds} s"
        # The decoder may already hold the next key frame when the damage shows.
        later = [float(key) for key in keys if key > packet[2] + Fraction(1, 4)]
        wanted = [s for s in whole if later and s >= later[0]]
        kept_later = [s for s in kept if later and s >= later[0]]
        went_on += bool(kept_later)
        # A transport stream tells its decoder's settings in its key frames: they may be lost.
        assert kept_later == wanted or (case.endswith(".ts") and not kept_later)
    assert went_on or case == "rich.mp4"  # its second and last key frame is too near the end


def test_b_frames_in_front_of_the_key_frame_are_left_out() -> None:
    """Open groups of pictures: those at 0.40 and 0.44 s build on what was lost as well."""
    film = encoded("matroska", "mpeg2video", Fraction(25), 36, bf="2", sc_threshold="1000000000")
    packets = packets_of(film)  # key frames at 0, 0.48, 0.96, 1.4 s
    whole, _ = read(film)
    kept, state = read(with_bad_place(film, packets[4]), keep_damaged=True)
    assert state == "corrupt"
    assert list(kept) == [0.0, *(seconds for seconds in whole if seconds > 0.47)]
    assert all((image == whole[seconds]).all() for seconds, image in kept.items())


@pytest.mark.parametrize("case", ["fps25.mp4", "rich.mkv", "interlaced.ts"])
def test_what_is_kept_is_what_ffmpeg_decodes(case: str, ffmpeg: str, tmp_path: Path) -> None:
    film = (GOLDEN / case).read_bytes()
    packets = packets_of(film)
    bad = with_bad_place(film, packets[8 if case == "interlaced.ts" else len(packets) // 3])
    path = tmp_path / case
    path.write_bytes(bad)
    verdict = judge(ffmpeg, path)
    assert verdict.faults
    theirs = {round(float(seconds), 6): image for seconds, image in verdict.frames}
    kept, state = read(bad, keep_damaged=True)
    assert state == "corrupt"
    assert len(packets) // 2 < len(kept) < len(packets) - 1
    for seconds, image in kept.items():
        wanted = theirs[round(seconds, 6)].astype(int)
        assert np.abs(image[::STRIDE, ::STRIDE].astype(int) - wanted).max() <= 2


def test_moments_keep_their_numbers_and_windows_their_ends() -> None:
    film = (GOLDEN / "fps25.mp4").read_bytes()  # 2 s, key frames at 0, 0.48, 0.96, 1.44, 1.92
    bad = with_bad_place(film, packets_of(film)[17])

    def moments(**options) -> tuple[list[tuple[int, float]], str]:
        samples = []
        try:
            for s in sample_frames(io.BytesIO(bad), 8, threads=1, keep_damaged=True, **options):
                samples.append((s.index, s.time_seconds))
        except ClipError as error:
            return samples, error.state
        return samples, "ok"

    samples, state = moments()
    assert state == "corrupt"
    assert [k for k, _ in samples] == [*range(6), *range(8, 16)]
    assert all(seconds == k / 8 for k, seconds in samples)
    assert moments(end_seconds=0.5) == ([(k, k / 8) for k in range(4)], "ok")  # behind the window
    samples, state = moments(start_seconds=0.5, end_seconds=1.25)
    assert samples == [(0, 0.5), (1, 0.625), (4, 1.0), (5, 1.125)]
    assert state == "corrupt"  # also where the window ends before the film does


def test_times_count_from_the_first_frame_also_where_it_is_bad() -> None:
    film = (GOLDEN / "fps25.mp4").read_bytes()
    kept, state = read(with_bad_place(film, packets_of(film)[0]), keep_damaged=True)
    assert state == "corrupt"
    assert list(kept) == [seconds for seconds in read(film)[0] if seconds >= 0.48]
    film = (GOLDEN / "single.mp4").read_bytes()  # one frame
    kept, state = read(with_bad_place(film, packets_of(film)[0]), keep_damaged=True)
    assert kept == {}
    assert state != "ok"


def test_an_open_group_of_pictures_is_no_way_on_for_h264() -> None:
    """Its decoder complains of the pictures in front; what is before the damage is kept."""
    film = (GOLDEN / "open_gop.mkv").read_bytes()
    whole, _ = read(film)
    kept, state = read(with_bad_place(film, packets_of(film)[30]), keep_damaged=True)
    assert state == "corrupt"
    assert list(kept) == list(whole)[: len(kept)]
    assert len(kept) > 24


def test_few_frames_are_held_where_one_never_comes() -> None:
    """A packet whose frame is never seen would hold all that come after it."""
    import av

    from vidface.frames.log import LogListener
    from vidface.frames.reading import Reading

    window = Window(Fraction(1, 8), Fraction(0), None, keep_damaged=True)
    with av.open(str(GOLDEN / "ts.ts")) as container:
        stream = container.streams.video[0]
        reading = Reading(container, stream, "film", False, LogListener(True), window)
        reading.film.sent[1 << 40] = 0, None
        most = max(len(reading.held) for _ in reading.changes())
    assert most <= 16


def test_an_avi_counts_its_frames_and_so_keeps_only_those_before() -> None:
    film = (GOLDEN / "rich.avi").read_bytes()
    whole, _ = read(film)
    kept, state = read(with_bad_place(film, packets_of(film)[12]), keep_damaged=True)
    assert state == "corrupt"
    assert list(kept) == list(whole)[: len(kept)]
    assert 8 <= len(kept) < 12


def test_a_sound_film_is_the_same_with_it() -> None:
    for case in ("fps25.mp4", "bframes.mp4", "mpeg4.avi", "vfr.mkv", "ts.ts", "alpha.gif"):
        film = (GOLDEN / case).read_bytes()
        plain, state = read(film)
        kept, also = read(film, keep_damaged=True)
        assert state == also == "ok"
        assert list(plain) == list(kept)


def test_a_decoder_that_cannot_tell_what_is_certain_is_refused() -> None:
    with pytest.raises(VidfaceError, match="keep_damaged"):
        FrameSettings(decoder="decord", keep_damaged=True)


@settings(max_examples=40)
@given(
    st.lists(st.tuples(st.integers(0, 30), st.booleans()), min_size=1, max_size=8),
    st.integers(1, 9),
    st.integers(0, 40),
)
def test_holes_equal_a_naive_twin(steps: list[tuple[int, bool]], step: int, start: int) -> None:
    """Of each moment: the last begin at or before it, if that is not a hole."""
    changes: list[tuple[Fraction, int | None]] = [(Fraction(0), 0)]
    for number, (gap, is_hole) in enumerate(steps, 1):
        changes.append((changes[-1][0] + Fraction(gap, 10), None if is_hole else number))
    changes.append((changes[-1][0] + 1, None))
    window = Window(Fraction(step, 10), Fraction(start, 10), None)
    wanted = []
    for k in range(300):
        moment = window.start + k * window.step
        shown = [item for begin, item in changes if begin <= moment][-1]
        if shown is not None:
            wanted.append((k, shown))
    assert [(k, item) for k, _, item in select_shown(changes, window)] == wanted


def test_the_bad_place_of_a_real_case(data: Path) -> None:
    path = data / "cases" / "one_bad_frame" / "midhit.mp4"
    if not path.is_file():
        absent(f"no {path}")
    kept, state = read(path.read_bytes(), 8, keep_damaged=True)
    assert state == "corrupt"
    assert len(kept) >= 88  # 11 of 12 seconds; the damage is at 7.04 s, the key frame at 8 s
    assert not [seconds for seconds in kept if 7.04 <= seconds < 8]
