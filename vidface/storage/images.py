"""Still pictures, for folders of frames and galleries of photographs."""

from __future__ import annotations

import contextlib
import io
import re
import struct
from typing import TYPE_CHECKING

import numpy as np

from vidface.core.errors import ClipError, reason
from vidface.core.values import MAX_PIXELS, MOST_PICTURE_BYTES

if TYPE_CHECKING:
    from PIL.Image import Image

IMAGE_FORMATS = (  # PPM: Pillow's name for PBM and PGM too; DIB: a BMP without its file's header
    *("JPEG", "PNG", "WEBP", "BMP", "TIFF", "PPM", "AVIF", "JPEG2000", "DIB"),
)
_ORIENTATION = 0x0112  # EXIF's tag: how the stored picture is turned
_SWAPPING = (5, 6, 7, 8)  # rows are stored as columns
_FLIPS = {2: (1, -1), 3: (-1, -1), 4: (-1, 1), 6: (-1, 1), 7: (-1, -1), 8: (1, -1)}  # y, x
_STRIP_PIXELS = 2**18
_SIZ = struct.Struct(">8x8IHB")
_ANIMATED_FORMATS = ("WEBP", "PNG", "AVIF")  # TIFF's and JPEG's further pictures have no time


def decode_image(data: bytes, name: str) -> np.ndarray:
    """(height, width, 3) uint8 RGB of the bytes of a file in one of `IMAGE_FORMATS`.

    The EXIF orientation is applied; grey and palette become RGB; 16 bits are scaled to 8; what is
    transparent is laid on black; of several pictures the first is taken; colour profiles are not
    applied. `name` is for messages.

    Raises:
        ClipError: "corrupt", for anything else, a truncated file, more than 2^26 pixels, or what
            needs more than `MOST_PICTURE_BYTES`.
    """
    from PIL import Image

    try:
        with Image.open(io.BytesIO(data), formats=IMAGE_FORMATS) as opened:
            _check_size(opened, data, name)
            return to_rgb(opened)
    except ClipError:
        raise
    except Exception as error:  # Pillow's readers raise whatever the damage made them stumble on
        text = reason(error)
        raise ClipError(
            f"{name}: not a whole picture in one of {', '.join(IMAGE_FORMATS)} ({text}). "
            "Save it again or leave it out",
            "corrupt",
        ) from error


def _check_size(opened: Image, data: bytes, name: str) -> None:
    """Refuse what is too large before it is decoded."""
    pixels, needed_bytes = opened.width * opened.height, _count_decoding_bytes(opened, data)
    if pixels > MAX_PIXELS or needed_bytes > MOST_PICTURE_BYTES:
        raise ClipError(
            f"{name}: declares {opened.width} x {opened.height} pixels, for which decoding takes "
            f"{needed_bytes / 2**30:.2f} GiB; at most {MAX_PIXELS >> 20} megapixels and "
            f"{MOST_PICTURE_BYTES >> 30} GiB are read. Scale it down, save a JPEG 2000 in tiles, "
            "or leave it out",
            "corrupt",
        )


def _count_decoding_bytes(opened: Image, data: bytes) -> int:
    """How much a picture takes while it is decoded, from its headers alone.

    Of each pixel Pillow holds 4 bytes and the result 3. Before that is made, decoders hold at most
    8 more (a TIFF's strip of 16 bits, a progressive JPEG's coefficients), WebP's 12, AVIF's up to
    14 where it is deep, JPEG 2000's 4 and its depth for each channel of a tile.
    """
    pixels = opened.width * opened.height
    if opened.format == "JPEG2000":  # SOC and SIZ (A.5.1) say how large a tile is
        start = data.find(b"\xff\x4f\xff\x51")
        width, height, left, top, wide, high, *_, channels, depth = _SIZ.unpack_from(data, start)
        tile = min(width - left, wide) * min(height - top, high)
        return 4 * pixels + max(3 * pixels, tile * channels * (4 + ((depth & 0x7F) + 8) // 8))
    if opened.format == "AVIF":  # the third byte of av1C (AV1 in ISOBMFF, 2.3.3), alpha's too
        deep = any(found[0][-1] & 0x40 for found in re.finditer(b"av1C...", data, re.DOTALL))
        return pixels * (18 if deep else 14)
    return pixels * 16


def to_rgb(opened: Image) -> np.ndarray:
    """(height, width, 3) uint8 RGB of Pillow's current picture; raises whatever Pillow does.

    Beside Pillow's picture and the result nothing of its size is held: a few rows at a time are
    made RGB and written where the EXIF orientation has them.
    """
    opened.load()
    width, height = opened.size
    orientation = opened.getexif().get(_ORIENTATION, 1)
    swaps = orientation in _SWAPPING
    upright = np.empty((width, height, 3) if swaps else (height, width, 3), np.uint8)
    stored = upright.transpose(1, 0, 2) if swaps else upright  # upright, as the file has it
    flip_y, flip_x = _FLIPS.get(orientation, (1, 1))
    stored = stored[::flip_y, ::flip_x]
    rows = max(1, _STRIP_PIXELS // width)
    for top in range(0, height, rows):
        box = (0, top, width, min(top + rows, height))
        stored[top : top + rows] = _strip_to_rgb(opened.crop(box))
    return upright


def _strip_to_rgb(strip: Image) -> np.ndarray:
    """(rows, width, 3) uint8."""
    from PIL import Image

    if strip.mode.startswith("I") or strip.mode == "F":
        return _eight_bit(np.asarray(strip))
    if strip.has_transparency_data:
        strip = strip.convert("RGBA")
        black = Image.new("RGBA", strip.size, (0, 0, 0, 255))
        strip = Image.alpha_composite(black, strip)
    return np.asarray(strip.convert("RGB"))


def is_animated(data: bytes) -> bool:
    """Whether a file's bytes are an animated WebP, PNG or AVIF; False also for what is damaged."""
    from PIL import Image

    with (
        contextlib.suppress(Exception),  # of a stranger's file; `decode_image` says what is wrong
        Image.open(io.BytesIO(data), formats=_ANIMATED_FORMATS) as opened,
    ):
        return bool(getattr(opened, "is_animated", False))
    return False


def resize_crop(image: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """An aligned face (h, w, 3) uint8 in another size (height, width), not distorted.

    Scaled with the height; in width it is cut, or filled with black, at both sides alike, so that
    its landmarks come to lie where the template of that size has them.
    """
    from PIL import Image

    height, width = size
    scale = height / image.shape[0]
    wide = max(1, round(image.shape[1] * scale))
    scaled = Image.fromarray(image).resize((wide, height), Image.Resampling.BILINEAR)
    left = (wide - width) // 2
    return np.array(scaled.crop((left, 0, left + width, height)))


def _eight_bit(grey: np.ndarray) -> np.ndarray:
    """(height, width) 16-bit grey, in whatever type Pillow holds it -> (height, width, 3) uint8."""
    if not (np.issubdtype(grey.dtype, np.integer) and grey.min() >= 0 and grey.max() <= 65535):
        raise ValueError("pixels are neither 8 nor 16 bits")
    scaled = (grey.astype(np.uint32) * 255 + 32767) // 65535
    return np.repeat(scaled.astype(np.uint8)[:, :, None], 3, axis=2)
