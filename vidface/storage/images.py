"""Still pictures, for folders of frames and galleries of photographs."""

from __future__ import annotations

import contextlib
import io
from typing import TYPE_CHECKING

import numpy as np

from vidface.core.errors import ClipError, reason
from vidface.core.values import MAX_PIXELS

if TYPE_CHECKING:
    from PIL.Image import Image

IMAGE_FORMATS = (  # PPM: Pillow's name for PBM and PGM too; DIB: a BMP without its file's header
    *("JPEG", "PNG", "WEBP", "BMP", "TIFF", "PPM", "AVIF", "JPEG2000", "DIB"),
)
_ANIMATED_FORMATS = ("WEBP", "PNG", "AVIF")  # TIFF's and JPEG's further pictures have no time


def decode_image(data: bytes, name: str) -> np.ndarray:
    """(height, width, 3) uint8 RGB of the bytes of a file in one of `IMAGE_FORMATS`.

    The EXIF orientation is applied; grey and palette become RGB; 16 bits are scaled to 8; what is
    transparent is laid on black; of several pictures the first is taken; colour profiles are not
    applied. Raises ClipError("corrupt") for anything else, a truncated file, or more than 2^26
    pixels. `name` is for messages.
    """
    from PIL import Image

    try:
        with Image.open(io.BytesIO(data), formats=IMAGE_FORMATS) as opened:
            if opened.width * opened.height > MAX_PIXELS:
                raise ValueError(f"declares {opened.width} x {opened.height} pixels")
            return to_rgb(opened)
    except Exception as error:  # Pillow's readers raise whatever the damage made them stumble on
        text = reason(error)
        raise ClipError(
            f"{name}: not a whole picture in one of {', '.join(IMAGE_FORMATS)} ({text}). "
            "Save it again or leave it out",
            "corrupt",
        ) from error


def to_rgb(opened: Image) -> np.ndarray:
    """(height, width, 3) uint8 RGB of Pillow's current picture; raises whatever Pillow does."""
    from PIL import Image, ImageOps

    opened.load()
    picture = ImageOps.exif_transpose(opened)
    if picture.mode.startswith("I") or picture.mode == "F":
        return _eight_bit(np.asarray(picture))
    if picture.has_transparency_data:
        picture = picture.convert("RGBA")
        black = Image.new("RGBA", picture.size, (0, 0, 0, 255))
        picture = Image.alpha_composite(black, picture)
    return np.array(picture.convert("RGB"))


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
