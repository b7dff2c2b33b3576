"""Pictures become RGB by the strip: as Pillow does it whole, in a third of the memory."""

from __future__ import annotations

import io
import re
import struct
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageOps

from vidface.core.errors import ClipError
from vidface.core.values import MAX_PIXELS, MOST_PICTURE_BYTES
from vidface.storage import images, media
from vidface.storage.images import decode_image
from vidface.storage.media import open_root

RGBA = np.random.default_rng(0).integers(0, 256, (7, 11, 4), dtype=np.uint8)
SIDE = 8192


def encode(picture: Image.Image, kind: str, **options: object) -> bytes:
    buffer = io.BytesIO()
    picture.save(buffer, kind, **options)
    return buffer.getvalue()


def decode_whole(data: bytes) -> np.ndarray:
    """The slow twin: four whole copies, each made by Pillow."""
    with Image.open(io.BytesIO(data)) as opened:
        picture = ImageOps.exif_transpose(opened)
    if picture.mode.startswith("I"):
        grey = np.asarray(picture).astype(float)
        return np.repeat(np.floor(grey / 257 + 0.5).astype(np.uint8)[..., None], 3, axis=2)
    if picture.has_transparency_data:
        black = Image.new("RGBA", picture.size, (0, 0, 0, 255))
        picture = Image.alpha_composite(black, picture.convert("RGBA"))
    return np.array(picture.convert("RGB"))


@pytest.mark.parametrize("strip_pixels", [1, 25, 10_000])  # a row, two and a last one, all
@pytest.mark.parametrize("orientation", range(10))  # 1 … 8 are EXIF's
def test_strips_give_what_the_whole_gives(
    orientation: int, strip_pixels: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(images, "_STRIP_PIXELS", strip_pixels)
    exif = Image.Exif()
    exif[0x0112] = orientation
    whole = Image.fromarray(RGBA)
    deep = Image.fromarray(RGBA[..., 0].astype(np.uint16) * 256 + RGBA[..., 1])
    kinds = {
        "PNG": [*(whole.convert(mode) for mode in ("RGBA", "RGB", "L", "LA", "P", "1")), deep],
        "JPEG": [whole.convert(mode) for mode in ("RGB", "L", "CMYK")],
        "TIFF": [*(whole.convert(mode) for mode in ("RGBA", "CMYK", "YCbCr")), deep],
        "WEBP": [whole],
    }
    pictures = [encode(p, kind, exif=exif) for kind, group in kinds.items() for p in group]
    pictures.append(encode(whole.convert("P"), "PNG", exif=exif, transparency=3))
    for data in pictures:
        image = decode_image(data, "x")
        assert image.flags.c_contiguous
        np.testing.assert_array_equal(image, decode_whole(data))


def declare_jpeg2000(width: int, height: int, tile: int, channels: int, depth: int) -> bytes:
    """A JPEG 2000 whose headers declare this, and that has no such pixels."""
    data = bytearray(encode(Image.fromarray(RGBA[..., :3]), "JPEG2000"))
    struct.pack_into(">IIH", data, data.find(b"ihdr") + 4, height, width, 3)
    start = data.find(b"\xff\x4f\xff\x51") + 8
    struct.pack_into(
        ">8IHB", data, start, width, height, 0, 0, tile, tile, 0, 0, channels, depth - 1
    )
    return bytes(data)


@pytest.mark.parametrize(
    ("tile", "channels", "depth", "needed"),
    [
        (SIDE, 3, 8, "1.19 GiB"),  # 4 + 3 · 5 bytes a pixel
        (SIDE, 3, 16, "1.38 GiB"),
        (2**32 - 1, 4, 8, "1.50 GiB"),
    ],
)
def test_a_picture_whose_decoding_takes_too_much_is_refused_before(
    tile: int, channels: int, depth: int, needed: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(images, "to_rgb", lambda opened: pytest.fail("it was decoded"))
    with pytest.raises(ClipError, match=f"8192 x 8192 pixels, .* {needed}.*Scale it down"):
        decode_image(declare_jpeg2000(SIDE, SIDE, tile, channels, depth), "x.jp2")


def test_what_is_within_the_bounds_is_decoded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(images, "to_rgb", lambda opened: opened.size)
    tiled = declare_jpeg2000(SIDE, SIDE, 1024, 3, 8)
    assert decode_image(tiled, "x") == (SIDE, SIDE)
    assert decode_image(b"P5 8192 8192 255\n", "x") == (SIDE, SIDE)  # exactly 2^26
    with pytest.raises(ClipError, match="at most 64 megapixels"):
        decode_image(b"P5 8193 8192 255\n", "x")
    assert 16 * MAX_PIXELS == MOST_PICTURE_BYTES  # so that only two formats can reach it


def test_deep_avif_counts_for_more() -> None:
    data = encode(Image.fromarray(RGBA), "AVIF")
    at = [found.start() + 6 for found in re.finditer(b"av1C", data)]
    assert len(at) == 2  # colours, and what is transparent
    deep = bytearray(data)
    deep[at[1]] |= 0x40
    with Image.open(io.BytesIO(data)) as opened:
        counts = [images._count_decoding_bytes(opened, bytes(d)) for d in (data, deep)]
    assert counts == [77 * 14, 77 * 18]


def test_a_file_larger_than_any_picture_is_not_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "a.png").write_bytes(b"12345")
    monkeypatch.setattr(media, "MOST_PICTURE_BYTES", 5)
    assert open_root(tmp_path).read("a.png") == b"12345"
    monkeypatch.setattr(media, "MOST_PICTURE_BYTES", 4)
    with pytest.raises(OSError, match="a picture of 0 MiB"):
        open_root(tmp_path).read("a.png")


PEAK = """
import sys
from PIL import Image
from vidface.storage.images import decode_image
Image.init()
data = open(sys.argv[1], "rb").read()
def status(key):
    line = next(line for line in open("/proc/self/status") if line.startswith(key))
    return int(line.split()[1]) * 1024
start = status("VmRSS")
decode_image(data, "x")
print(status("VmHWM") - start)
"""


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
@pytest.mark.parametrize(
    ("kind", "mode", "options", "most"),
    [
        ("PNG", "RGB", {}, 8),
        ("PNG", "LA", {}, 8),
        ("JPEG", "CMYK", {"progressive": True}, 13),
        ("JPEG", "RGB", {"exif": True}, 8),
        ("TIFF", "RGB", {"compression": "tiff_lzw"}, 8),
    ],
)
def test_peak_memory(tmp_path: Path, kind: str, mode: str, options: dict, most: float) -> None:
    """Bytes a pixel of 4096 x 4096; 18 to 22 before rows were converted by the strip."""
    if "exif" in options:
        exif = Image.Exif()
        exif[0x0112] = 6
        options = {"exif": exif}
    Image.new(mode, (4096, 4096), 9).save(tmp_path / "x", kind, **options)
    command = [sys.executable, "-c", PEAK, str(tmp_path / "x")]
    peak = int(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
    assert peak / 4096**2 < most
