"""Valid but unusual clips: that the golden ones are what they are named for, their frames, a face.

Their pictures are compared with ffmpeg's in test_frames.py, all of tests/golden.
"""

from __future__ import annotations

import subprocess
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest

from tests import make_golden_clips as maker
from vidface.core.errors import ClipError
from vidface.frames.sampling import sample_frames

GOLDEN = Path(__file__).parents[1] / "golden"


def stored(case: str) -> dict[str, np.ndarray]:
    with np.load(GOLDEN / f"{case}.npz") as file:
        return dict(file)


def frames_of(case: str):
    """(decoded frames, pts in the order of the file, video streams) by PyAV, nothing of ours."""
    import av

    with av.open(str(GOLDEN / case)) as container:
        stream = container.streams.best("video")
        assert stream is not None
        packets = [packet for packet in container.demux(stream) if packet.size]
        container.seek(0)
        return (
            list(container.decode(stream)),
            [packet.pts for packet in packets],
            list(container.streams.video),
        )


# --- the clips are odd -------------------------------------------------------------------------


@pytest.mark.parametrize("case", ["vfr.mp4", "vfr.mkv"])
def test_variable_rate(case: str) -> None:
    assert len(set(np.diff(stored(case)["ticks"]).tolist())) > 2


@pytest.mark.parametrize("case", ["bframes.mp4", "vfr.mp4", "open_gop.mkv"])
def test_unordered_timestamps(case: str) -> None:
    _, pts, _ = frames_of(case)
    assert pts != sorted(pts)


@pytest.mark.parametrize("case", ["start.mkv", "start.mp4", "ts.ts"])
def test_start_is_not_zero(case: str) -> None:
    frames, _, _ = frames_of(case)
    assert frames[0].time > 1
    assert next(sample_frames(GOLDEN / case)).source_time_seconds == 0


def test_two_streams() -> None:
    for case, film in (("two_first.mp4", 0), ("two_second.mkv", 1)):
        frames, _, streams = frames_of(case)
        assert len(streams) == 2
        assert streams[1 - film].average_rate == 50
        assert [maker.number_in(f.to_ndarray(format="rgb24")) for f in frames] == list(range(25))


@pytest.mark.parametrize(
    ("case", "formats"),
    [
        ("alpha_png.mov", {"rgba"}),
        ("alpha_prores.mov", {"yuva444p10le", "yuva444p12le"}),
        ("alpha.gif", {"bgra"}),
        ("ten_bit.mkv", {"yuv420p10le"}),
        ("ten_bit.webm", {"yuv420p10le"}),
        ("ten_bit.mp4", {"yuv422p10le"}),
        ("odd.mp4", {"yuv444p"}),
    ],
)
def test_pixel_formats(case: str, formats: set[str]) -> None:
    frames, _, _ = frames_of(case)
    assert {frame.format.name for frame in frames} <= formats


def test_alpha_of_webm_lies_beside_the_picture() -> None:
    _, _, streams = frames_of("alpha.webm")
    assert "1" in [v for k, v in streams[0].metadata.items() if k.lower() == "alpha_mode"]


@pytest.mark.parametrize("case", ["odd.webm", "odd.mp4"])
def test_odd_sizes(case: str) -> None:
    assert next(sample_frames(GOLDEN / case)).image.shape == (51, 67, 3)


@pytest.mark.parametrize("case", ["interlaced.mp4", "interlaced.ts"])
def test_interlaced(case: str) -> None:
    frames, _, _ = frames_of(case)
    assert all(frame.interlaced_frame for frame in frames)


# --- their frames ------------------------------------------------------------------------------

ODD = [
    *("vfr.mp4", "vfr.mkv", "bframes.mp4", "open_gop.mkv", "start.mkv", "start.mp4"),
    *("two_first.mp4", "two_second.mkv", "alpha.webm", "alpha_png.mov", "alpha_prores.mov"),
    *("alpha.gif", "ten_bit.mkv", "ten_bit.webm", "ten_bit.mp4", "odd.webm", "odd.mp4"),
    *("interlaced.mp4", "interlaced.ts"),
]


@pytest.mark.parametrize("case", ODD)
def test_every_frame_of_the_film_at_its_time(case: str) -> None:
    """At 100 FPS no frame is missed; the numbers were read off ffmpeg's frames."""
    g = stored(case)
    base = Fraction(*g["tick_seconds"].tolist())
    found: dict[int, float] = {}
    for frame in sample_frames(GOLDEN / case, 100, threads=1):
        found.setdefault(maker.number_in(frame.image), frame.source_time_seconds)
    wanted = {
        int(number): float(int(tick - g["ticks"][0]) * base)
        for number, tick in zip(g["numbers"], g["ticks"], strict=True)
    }
    assert found == pytest.approx(wanted, abs=1e-9)


# --- a face that lies on its side in the file ----------------------------------------------------


@pytest.mark.usefixtures("weights_at_hand")
@pytest.mark.parametrize("degrees", [90, 180, 270])
def test_a_rotated_clip_shows_its_face_upright(
    data: Path, ffmpeg: str, tmp_path: Path, degrees: int
) -> None:
    """The picture is turned one way, the display matrix turns it back."""
    from vidface.faces.detector import FaceDetector

    portrait = next(sample_frames(data / "clips" / "wlasl" / "01377.mp4")).image
    size = f"{portrait.shape[1]}x{portrait.shape[0]}"
    turns = {90: "transpose=1", 180: "hflip,vflip", 270: "transpose=2"}[degrees]
    lying, clip = tmp_path / "lying.mp4", tmp_path / "rotated.mp4"
    command = f"{ffmpeg} -v error -f rawvideo -pix_fmt rgb24 -s {size} -r 8 -i - -vf {turns}"
    encode = ["-c:v", "libx264", "-crf", "15", "-pix_fmt", "yuv420p", str(lying)]
    subprocess.run([*command.split(), *encode], input=portrait.tobytes() * 4, check=True)
    command = f"{ffmpeg} -v error -display_rotation {degrees} -i {lying} -c copy {clip}"
    subprocess.run(command.split(), check=True)

    detect = FaceDetector().detect
    wanted = detect(portrait)
    assert len(wanted) == 1
    sideways = next(sample_frames(lying)).image
    for frame in sample_frames(clip):
        assert frame.image.shape == portrait.shape
        faces = detect(frame.image)
        assert np.abs(faces.landmarks - wanted.landmarks).max() < 3  # pixels, of a face of 70
        assert np.abs(faces.boxes - wanted.boxes).max() < 6
        assert np.abs(frame.image.astype(int) - portrait).mean() < 4
    if degrees != 180:
        assert not np.array_equal(sideways, frame.image)


# --- real broken files -------------------------------------------------------------------------

HARD = {  # the others are whole; test_frames.py reads them with threads
    "audio_only.mov": "no_video_stream",
    "zero_frames.avi": "no_video_stream",
    "decord_corrupted.mp4": "corrupt",
}


@pytest.mark.slow
def test_hard_clips_with_one_thread(data: Path) -> None:
    """As in extraction: libav's log is listened to, and no whole clip may be called corrupt."""
    for clip in sorted((data / "clips" / "hard").iterdir()):
        state = None
        try:
            for _ in sample_frames(clip, 1, threads=1):
                pass
        except ClipError as error:
            state = error.state
        assert state == HARD.get(clip.name), clip.name
