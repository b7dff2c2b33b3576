"""Animated WebP, PNG, AVIF and GIF are clips: their pictures at their times, against Pillow."""

from __future__ import annotations

import io
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, features

from tests.conftest import absent
from vidface.core.errors import ClipError
from vidface.frames.sampling import sample_frames
from vidface.storage.images import is_animated

MILLISECONDS = [100, 200, 300, 100, 100, 200]
GREYS = [0, 40, 80, 120, 160, 200]


def animation(kind: str, greys=GREYS, milliseconds=MILLISECONDS) -> bytes:
    """Grey pictures of 48x32, each shown for its time."""
    pictures = [Image.new("RGB", (48, 32), (grey,) * 3) for grey in greys]
    more = {"lossless": True} if kind == "WEBP" else {}
    file = io.BytesIO()
    duration = milliseconds if len(pictures) > 1 else milliseconds[0]
    pictures[0].save(
        file, kind, save_all=True, append_images=pictures[1:], duration=duration, loop=0, **more
    )
    return file.getvalue()


def shown_at(moment: Fraction) -> int:
    """By hand: the picture whose time it is."""
    ends = np.cumsum(MILLISECONDS)
    return int(np.searchsorted(ends, float(moment * 1000), side="right"))


@pytest.mark.parametrize("kind", ["WEBP", "PNG", "AVIF", "GIF"])
def test_an_animation_is_a_clip(kind: str, tmp_path: Path) -> None:
    if kind == "AVIF" and not features.check("avif"):
        absent("this Pillow reads no AVIF")
    path = tmp_path / "clip"
    path.write_bytes(animation(kind))
    frames = list(sample_frames(path, 8, threads=1))
    moments = [Fraction(k, 8) for k in range(8)]  # of 1.0 s
    assert [frame.time_seconds for frame in frames] == [float(moment) for moment in moments]
    begins = [0, *np.cumsum(MILLISECONDS)[:-1] / 1000]
    for frame, moment in zip(frames, moments, strict=True):
        k = shown_at(moment)
        assert frame.source_time_seconds == pytest.approx(begins[k])
        assert abs(int(frame.image[5, 5, 1]) - GREYS[k]) <= 2
    window = list(sample_frames(path, 8, start_seconds=0.3, end_seconds=0.6, threads=1))
    assert [int(frame.image[0, 0, 0]) // 38 for frame in window] == [2, 2, 2]


@pytest.mark.parametrize(("kind", "right"), [("WEBP", True), ("PNG", True), ("AVIF", True)])
def test_what_is_animated(kind: str, right: bool) -> None:
    if kind == "AVIF" and not features.check("avif"):
        absent("this Pillow reads no AVIF")
    assert is_animated(animation(kind)) is right
    assert not is_animated(animation(kind, GREYS[:1], [100]))
    assert not is_animated(animation(kind)[:40])


def test_pages_of_a_tiff_are_no_clip() -> None:
    file = io.BytesIO()
    pages = [Image.new("L", (4, 4), grey) for grey in GREYS]
    pages[0].save(file, "TIFF", save_all=True, append_images=pages[1:])
    assert not is_animated(file.getvalue())


def test_times_that_are_not_said_are_a_browsers(tmp_path: Path) -> None:
    """Pillow writes 0 ms where nobody says more; up to 10 ms browsers show 100."""
    path = tmp_path / "clip.webp"
    path.write_bytes(animation("WEBP", GREYS[:4], [0, 10, 11, 0]))
    times = [frame.source_time_seconds for frame in sample_frames(path, 200, threads=1)]
    assert sorted(set(times)) == [0, 0.1, 0.2, 0.211]
    assert len(times) == pytest.approx(0.311 * 200, abs=1)


def test_a_damaged_animation_is_corrupt(tmp_path: Path) -> None:
    path = tmp_path / "clip.webp"
    path.write_bytes(animation("WEBP")[:-60])
    with pytest.raises(ClipError, match="damaged or not a video") as caught:
        list(sample_frames(path, 8, threads=1))
    assert caught.value.state == "corrupt"


def test_an_animation_does_not_last_for_days(tmp_path: Path) -> None:
    path = tmp_path / "clip.webp"
    path.write_bytes(animation("WEBP", GREYS, [2**23] * 6))  # 2.3 hours each
    with pytest.raises(ClipError, match="pictures are said to last"):
        list(sample_frames(path, 0.001, threads=1))


def test_a_canvas_without_bounds_is_refused(tmp_path: Path) -> None:
    data = bytearray(animation("WEBP"))
    data[24:30] = b"\xfe\x1f\x00" * 2  # of the VP8X chunk: 8191 x 8191 pixels, each less 1
    path = tmp_path / "clip.webp"
    path.write_bytes(data)
    with pytest.raises(ClipError, match="declares 8191 x 8191 pixels"):
        list(sample_frames(path, 8, threads=1))
