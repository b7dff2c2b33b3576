"""Pictures as a viewer sees them: square pixels and SDR colours, against ffmpeg and by hand."""

from __future__ import annotations

import math
import subprocess
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from vidface.core.errors import ClipError
from vidface.core.rules import ReadingRules
from vidface.frames.common import MAX_PIXELS
from vidface.frames.pictures import find_peak_nits, find_square_size
from vidface.frames.sampling import sample_frames
from vidface.frames.tone_mapping import HLG, PQ, map_tones, roll_off

SQUARE_ONLY = ReadingRules(tone_mapping=False)
BT709 = "setparams=color_primaries=bt709:color_trc=bt709:colorspace=bt709:range=tv"
LOSSLESS = ["-c:v", "libx264", "-qp", "0", "-preset", "ultrafast"]


def run_ffmpeg(ffmpeg: str, *arguments: object) -> bytes:
    command = [ffmpeg, "-v", "error", "-y", *map(str, arguments)]
    return subprocess.run(command, check=True, capture_output=True).stdout


def pictures_by_ffmpeg(ffmpeg: str, clip: Path, filters: str, shape: tuple[int, ...]) -> np.ndarray:
    raw = run_ffmpeg(ffmpeg, "-i", clip, "-vf", filters, "-f", "rawvideo", "-pix_fmt", "rgb24", "-")
    return np.frombuffer(raw, np.uint8).reshape(-1, *shape, 3)


def images_of(clip: Path, **options) -> list[np.ndarray]:
    return [frame.image for frame in sample_frames(clip, 8, threads=1, **options)]


# --- square pixels ------------------------------------------------------------------------------


def make_clip(ffmpeg: str, clip: Path, aspect: str, size: str = "96x72") -> Path:
    """Full chroma: where half of it lies, ffmpeg's filter knows better (test_frames.py, CHROMA)."""
    filters = f"scale=out_color_matrix=bt709,setsar={aspect},{BT709}"
    source = ["-f", "lavfi", "-i", f"testsrc2=s={size}:r=8:d=0.5", "-vf", filters]
    run_ffmpeg(ffmpeg, *source, *LOSSLESS, "-pix_fmt", "yuv444p", clip)
    return clip


@pytest.mark.parametrize(
    ("name", "aspect", "shape"),
    [
        ("hdv.mp4", "4/3", (72, 128)),
        ("pal.mkv", "64/45", (72, 137)),
        ("ntsc.avi", "8/9", (81, 96)),  # the codec alone says it
        ("broadcast.ts", "4/3", (72, 128)),
        ("square.mp4", "1/1", (72, 96)),
        ("damaged.mkv", "100/1", (72, 96)),  # not believed
    ],
)
def test_pixels_become_square_as_ffmpeg_makes_them(
    ffmpeg: str, tmp_path: Path, name: str, aspect: str, shape: tuple[int, int]
) -> None:
    clip = make_clip(ffmpeg, tmp_path / name, aspect)
    images = images_of(clip)
    filters = f"scale={shape[1]}:{shape[0]}:flags=bicubic"
    expected = pictures_by_ffmpeg(ffmpeg, clip, filters, shape)
    assert len(images) == len(expected) == 4
    for image, wanted in zip(images, expected, strict=True):
        assert image.shape[:2] == shape
        assert np.abs(image.astype(int) - wanted).max() <= 2
    as_stored = images_of(clip, rules=ReadingRules.as_before())
    assert as_stored[0].shape == (72, 96, 3)


@pytest.mark.parametrize("name", ["clip.mkv", "clip.mp4"])
def test_the_container_goes_before_the_codec(ffmpeg: str, tmp_path: Path, name: str) -> None:
    clip = make_clip(ffmpeg, tmp_path / "codec.mp4", "4/3")
    run_ffmpeg(ffmpeg, "-i", clip, "-c", "copy", "-aspect", "2:1", tmp_path / name)
    assert images_of(tmp_path / name)[0].shape == (72, 144, 3)


def test_a_broadcast_changes_its_shape_on_the_way(ffmpeg: str, tmp_path: Path) -> None:
    parts = [make_clip(ffmpeg, tmp_path / f"{a[0]}.ts", a) for a in ("4/3", "1/1")]
    joined = tmp_path / "joined.ts"
    joined.write_bytes(b"".join(part.read_bytes() for part in parts))
    widths = [image.shape[1] for image in images_of(joined)]
    assert sorted(set(widths)) == [96, 128]
    assert widths[0] == 128
    assert widths[-1] == 96


def test_stretched_before_it_is_turned(ffmpeg: str, tmp_path: Path) -> None:
    clip = make_clip(ffmpeg, tmp_path / "lying.mp4", "4/3")
    turned = tmp_path / "turned.mp4"
    run_ffmpeg(ffmpeg, "-display_rotation", 90, "-i", clip, "-c", "copy", turned)
    image = images_of(turned)[0]
    assert image.shape == (128, 72, 3)
    np.testing.assert_array_equal(image, np.rot90(images_of(clip)[0], 1))


def test_beyond_the_bound_of_pixels_both_sides_shrink() -> None:
    assert find_square_size(8192, 4096, Fraction(2)) == (11585, 2896)  # 2^25 pixels at 4:1


@given(st.integers(1, 8192), st.integers(1, 4096), st.integers(1, 10_000), st.integers(1, 10_000))
def test_square_size(width: int, height: int, numerator: int, denominator: int) -> None:
    aspect = Fraction(numerator, denominator)
    square = find_square_size(width, height, aspect)
    if not 1 / 8 <= aspect <= 8 or abs(aspect - 1) <= Fraction(1, 100):
        assert square == (width, height)
        return
    stretched = width * aspect / height
    # A pixel more or less is what rounding may do; of a side of one pixel it is much.
    assert (
        (square[0] - 1) / (square[1] + 1) <= stretched <= (square[0] + 1) / max(square[1] - 1, 0.5)
    )
    assert square[0] * square[1] <= MAX_PIXELS * 1.001
    if width * height * max(aspect, 1 / aspect) <= MAX_PIXELS:
        assert square[0] >= width
        assert square[1] >= height
        assert square[0] == width or square[1] == height


def test_what_rounding_left_is_square() -> None:
    """A hundredth at most: those pictures stay as they are, to the last bit."""
    assert find_square_size(640, 368, Fraction(370, 369)) == (640, 368)
    assert find_square_size(1000, 1000, Fraction(101, 100)) == (1000, 1000)
    assert find_square_size(1000, 1000, Fraction(1011, 1000)) == (1011, 1000)
    assert find_square_size(1000, 1000, Fraction(989, 1000)) == (1000, 1011)


# --- HDR ----------------------------------------------------------------------------------------


def map_slowly(pixel: tuple[int, int, int], transfer: int, peak: float) -> list[float]:
    """The naive twin: one pixel by the formulas of BT.2100, BT.2390 and BT.1886, in [0, 255]."""
    m1, m2, c1, c2, c3 = 2610 / 16384, 2523 / 32, 3424 / 4096, 2413 / 128, 2392 / 128

    def to_nits(e: float) -> float:
        p = e ** (1 / m2)
        return 10000 * (max(p - c1, 0) / (c2 - c3 * p)) ** (1 / m1)

    def to_pq(n: float) -> float:
        y = (n / 10000) ** m1
        return ((c1 + c2 * y) / (1 + c3 * y)) ** m2

    def to_light(e: float) -> float:
        a, b, c = 0.17883277, 0.28466892, 0.55991073
        return e * e / 3 if e <= 0.5 else (math.exp((e - c) / a) + b) / 12

    signal = [value / 65535 for value in pixel]
    if transfer == PQ:
        nits = [to_nits(e) for e in signal]
    else:
        light = [to_light(e) for e in signal]
        y = 0.2627 * light[0] + 0.6780 * light[1] + 0.0593 * light[2]
        nits = [1000 * y**0.2 * e for e in light] if y else [0.0, 0.0, 0.0]
        peak = 1000
    y = 0.2627 * nits[0] + 0.6780 * nits[1] + 0.0593 * nits[2]
    if not y:
        return [0, 0, 0]
    brightest = to_pq(203) / to_pq(peak)
    e, knee = min(to_pq(y) / to_pq(peak), 1), 1.5 * brightest - 0.5
    if e >= knee:
        t = (e - knee) / (1 - knee)
        e = (2 * t**3 - 3 * t**2 + 1) * knee + (t**3 - 2 * t**2 + t) * (1 - knee)
        e += (-2 * t**3 + 3 * t**2) * brightest
    gain = to_nits(e * to_pq(peak)) / y / 203
    r, g, b = (value * gain for value in nits)
    mapped = (
        1.660491 * r - 0.587641 * g - 0.072850 * b,
        -0.124550 * r + 1.132900 * g - 0.008349 * b,
        -0.018151 * r - 0.100579 * g + 1.118730 * b,
    )
    return [255 * min(max(value, 0), 1) ** (1 / 2.4) for value in mapped]


@pytest.mark.parametrize(("transfer", "peak"), [(PQ, 1000), (PQ, 400), (PQ, 4000), (HLG, 1000)])
def test_tones_equal_the_naive_twin(transfer: int, peak: float) -> None:
    rng = np.random.default_rng(1)
    image = rng.integers(0, 65536, (70, 5, 3)).astype(np.uint16)  # two bands of rows
    image[0] = [[0, 0, 0], [65535, 65535, 65535], [1, 1, 1], [65535, 0, 0], [0, 30, 0]]
    before = image.copy()
    mapped = map_tones(image, transfer, peak)
    np.testing.assert_array_equal(image, before)
    wanted = [map_slowly(pixel, transfer, peak) for pixel in image.reshape(-1, 3).tolist()]
    assert np.abs(mapped.reshape(-1, 3) - np.array(wanted)).max() < 1


def test_grey_by_eye() -> None:
    """PQ's 50 cd/m² is 50/203 of SDR's white; HLG's 75 % is BT.2408's white; peaks are white."""
    pq_50_nits = 0.44028
    fifty = round(255 * (50 / 203) ** (1 / 2.4))  # 142
    grey = lambda signal: np.full((1, 1, 3), round(65535 * signal), np.uint16)  # noqa: E731
    assert abs(int(map_tones(grey(pq_50_nits), PQ, 1000)[0, 0, 0]) - fifty) <= 1
    shown_white = round(255 * (159 / 203) ** (1 / 2.4))
    assert abs(int(map_tones(grey(0.75), HLG, 1000)[0, 0, 0]) - shown_white) <= 1
    for transfer in (PQ, HLG):
        assert map_tones(grey(1), transfer, 1000)[0, 0].tolist() == [255, 255, 255]


@pytest.mark.parametrize("peak", [0, 1, 203, 1000, 10_000, 1e9])
def test_roll_off_is_monotonic_and_ends_at_white(peak: float) -> None:
    bounded = min(max(peak, 203), 10_000)
    nits = np.linspace(0, 10_000, 5001)
    shown = roll_off(nits, bounded)
    assert (np.diff(shown) >= -1e-6).all()
    assert shown.max() == pytest.approx(203)
    assert shown[0] == pytest.approx(0, abs=1e-6)
    image = np.full((2, 2, 3), 65535, np.uint16)
    assert map_tones(image, PQ, peak).min() == 255  # any peak that a file states


def make_hdr(
    ffmpeg: str, sdr: Path, hdr: Path, transfer: str, codec: tuple[str, ...] = ("-c:v", "ffv1")
) -> Path:
    """The SDR clip as a display with a white of 203 cd/m² shows it, in 10 bits."""
    filters = (
        "zscale=t=linear:npl=203,format=gbrpf32le,"
        f"zscale=p=bt2020:t={transfer}:m=bt2020nc:r=tv:npl=203,format=yuv444p10le"
    )
    run_ffmpeg(ffmpeg, "-i", sdr, "-vf", filters, *codec, hdr)
    return hdr


def make_dark(ffmpeg: str, clip: Path) -> Path:
    """Nothing of it lies above the knee, 86 of 203 cd/m² or 178 of 255."""
    darken = (
        "hue=s=0.5,lutrgb=r=val*0.55:g=val*0.55:b=val*0.55,gblur=2,scale=out_color_matrix=bt709"
    )
    source = ["-f", "lavfi", "-i", "testsrc2=s=160x120:r=8:d=0.25", "-vf", f"{darken},{BT709}"]
    run_ffmpeg(ffmpeg, *source, *LOSSLESS, "-pix_fmt", "yuv444p", clip)
    return clip


def test_dark_pq_is_what_ffmpeg_makes_of_it(ffmpeg: str, tmp_path: Path) -> None:
    """Below the knee nothing is compressed, and ffmpeg's plain conversion is the same."""
    sdr = make_dark(ffmpeg, tmp_path / "sdr.mp4")
    hdr = make_hdr(ffmpeg, sdr, tmp_path / "hdr.mkv", "smpte2084")
    image = images_of(hdr)[0].astype(int)
    back = "zscale=t=linear:npl=203,format=gbrpf32le,zscale=p=bt709:t=bt709:m=gbr:r=pc:npl=203"
    wanted = pictures_by_ffmpeg(ffmpeg, hdr, f"{back},format=gbrp", (120, 160))[0]
    assert np.abs(image - wanted).mean() < 1
    assert np.abs(image - images_of(sdr)[0]).mean() < 2
    assert np.abs(images_of(hdr, rules=SQUARE_ONLY)[0] - images_of(sdr)[0].astype(int)).mean() > 10


@pytest.mark.slow  # ffmpeg computes its table for seconds
@pytest.mark.parametrize("transfer", ["smpte2084", "arib-std-b67"])
def test_dark_hdr_is_near_what_libswscale_maps(ffmpeg: str, tmp_path: Path, transfer: str) -> None:
    sdr = make_dark(ffmpeg, tmp_path / "sdr.mp4")
    hdr = make_hdr(ffmpeg, sdr, tmp_path / "hdr.mkv", transfer)
    image = images_of(hdr)[0].astype(int)
    filters = "scale=out_primaries=bt709:out_transfer=bt709:flags=bicubic,format=rgb24"
    wanted = pictures_by_ffmpeg(ffmpeg, hdr, filters, (120, 160))[0]
    print("\nMEAN", np.abs(image - wanted).mean(), np.abs(image - wanted).max())
    assert np.abs(image - wanted).mean() < 4


def test_the_peak_is_what_the_file_states(ffmpeg: str, tmp_path: Path) -> None:
    import av

    sdr = make_clip(ffmpeg, tmp_path / "sdr.mp4", "1/1")
    mastering = ":master-display=G(13250,34500)B(7500,3000)R(34000,16000)WP(15635,16450)L({}0000,1)"
    cases = {
        1000.0: "",
        400.0: mastering.format(400),
        600.0: mastering.format(400) + ":max-cll=600,50",
    }
    for peak, options in cases.items():
        codec = "-c:v", "libx265", "-preset", "ultrafast", "-x265-params", f"hdr10=1{options}"
        hdr = make_hdr(ffmpeg, sdr, tmp_path / f"{peak}.mp4", "smpte2084", codec)
        with av.open(str(hdr)) as container:
            assert find_peak_nits(next(container.decode(video=0))) == peak


def test_colours_that_nobody_converts_are_refused(ffmpeg: str, tmp_path: Path) -> None:
    """Dolby Vision's own colours would come out green and purple; ICtCp is none of libswscale's."""
    plain, dolby, ictcp = (tmp_path / name for name in ("plain.mp4", "dolby.mp4", "ictcp.mkv"))
    source = ["-f", "lavfi", "-i", "testsrc2=s=64x64:r=8:d=0.25"]
    codec = ["-c:v", "libx265", "-x265-params", "log-level=error", "-pix_fmt", "yuv420p10le"]
    run_ffmpeg(ffmpeg, *source, *codec, "-tag:v", "hvc1", plain)
    run_ffmpeg(ffmpeg, "-i", plain, "-c", "copy", "-tag:v", "dvh1", dolby)
    assert len(images_of(plain)) == 2
    with pytest.raises(ClipError, match="Dolby Vision without a base layer"):
        images_of(dolby)
    assert len(images_of(dolby, rules=ReadingRules.as_before())) == 2
    convert = (
        "format=gbrp,zscale=m=ictcp:r=tv:p=bt2020:t=smpte2084:tin=bt709:pin=bt709:min=gbr:rin=pc"
    )
    run_ffmpeg(ffmpeg, *source, "-vf", f"{convert},format=yuv444p10le", "-c:v", "ffv1", ictcp)
    with pytest.raises(ClipError, match="not supported"):
        images_of(ictcp)


# --- decord says what it does not do ------------------------------------------------------------


def test_decord_refuses_what_it_would_show_wrongly(ffmpeg: str, tmp_path: Path) -> None:
    pytest.importorskip("decord")
    clip = make_clip(ffmpeg, tmp_path / "hdv.mp4", "4/3")
    with pytest.raises(ClipError, match=r"not square \(4:3\), which decord.*Use decoder 'pyav'"):
        images_of(clip, decoder="decord")
    assert images_of(clip, decoder="decord", rules=ReadingRules.as_before())
    hdr = make_hdr(ffmpeg, clip, tmp_path / "hdr.mkv", "smpte2084")
    with pytest.raises(ClipError, match="its colours are HDR"):
        images_of(hdr, decoder="decord", rules=ReadingRules(square_pixels=False))


# --- a face -------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.usefixtures("weights_at_hand")
def test_a_face_keeps_its_embedding(ffmpeg: str, data: Path, tmp_path: Path) -> None:
    """Cosines to the square SDR clip; as stored they were 0.85 and less."""
    from vidface.backbones.loading import open_backbone
    from vidface.backbones.settings import BackboneSettings
    from vidface.faces.detector import FaceDetector, align_face

    detector, backbone = FaceDetector(), open_backbone(BackboneSettings())

    def embedding(clip: Path, rules: ReadingRules) -> np.ndarray:
        image = images_of(clip, rules=rules)[2]
        crop = align_face(image, detector.detect(image).landmarks[0])
        vector = backbone.embed(crop[None])[0]
        return vector / np.linalg.norm(vector)

    sdr, hdv = tmp_path / "sdr.mp4", tmp_path / "hdv.mp4"
    filters = "scale=640:360:out_color_matrix=bt709,setsar=1," + BT709
    clip = data / "clips" / "wlasl" / "31978.mp4"
    run_ffmpeg(ffmpeg, "-i", clip, "-an", "-t", 0.3, "-vf", filters, *LOSSLESS, sdr)
    run_ffmpeg(ffmpeg, "-i", sdr, "-vf", "scale=480:360,setsar=4/3", *LOSSLESS, hdv)
    new, old = ReadingRules(), ReadingRules.as_before()
    wanted = embedding(sdr, new)
    assert wanted @ embedding(hdv, new) > 0.97
    assert wanted @ embedding(hdv, old) < 0.95
    for transfer in ("smpte2084", "arib-std-b67"):
        hdr = make_hdr(ffmpeg, sdr, tmp_path / f"{transfer}.mkv", transfer)
        similarity = wanted @ embedding(hdr, new)
        print(transfer, similarity, wanted @ embedding(hdr, old))
        assert similarity > 0.97
        assert similarity > wanted @ embedding(hdr, old)
