"""Frames of an animated WebP through Pillow: libav decodes none of them."""

from __future__ import annotations

from collections.abc import Generator
from fractions import Fraction
from typing import BinaryIO

import numpy as np

from vidface.frames.common import (
    MAX_GAP_SECONDS,
    MAX_PIXELS,
    MAX_SECONDS_PER_FRAME,
    Window,
    corrupt_error,
    freeze_image,
    select_shown,
)
from vidface.storage.images import to_rgb

_MIN_MILLISECONDS = 10  # browsers take up to that, 0 too, for not said …
_UNSAID_MILLISECONDS = 100  # … and show the picture so long
_ANIMATION = 0x02  # a flag of the VP8X chunk (RFC 9649, 2.7.1)


def is_animated_webp(file: BinaryIO) -> bool:
    """Whether a file, read from its beginning and left there, is an animated WebP."""
    head = file.read(21)
    file.seek(0)
    is_extended = head[:4] == b"RIFF" and head[8:16] == b"WEBPVP8X"
    return len(head) == 21 and is_extended and bool(head[20] & _ANIMATION)


def decode_with_pillow(
    file: BinaryIO, name: str, window: Window
) -> Generator[tuple[int, Fraction, np.ndarray]]:
    """Decode an animated WebP; see `Decoder.decode`."""
    yield from select_shown(_changes(file, name), window)


def _changes(file: BinaryIO, name: str) -> Generator[tuple[Fraction, np.ndarray | None]]:
    """(begin_seconds, image) in the order of being shown, then (end_seconds, None)."""
    from PIL import Image

    begin = Fraction(0)
    try:
        with Image.open(file, formats=("WEBP",)) as opened:
            if opened.width * opened.height > MAX_PIXELS:
                raise ValueError(f"declares {opened.width} x {opened.height} pixels")
            for k in range(getattr(opened, "n_frames", 1)):
                opened.seek(k)
                image = freeze_image(to_rgb(opened))  # Pillow knows the duration once it is loaded
                milliseconds = int(opened.info.get("duration", 0))
                if milliseconds <= _MIN_MILLISECONDS:
                    milliseconds = _UNSAID_MILLISECONDS
                yield begin, image
                begin += Fraction(milliseconds, 1000)
                if milliseconds > MAX_GAP_SECONDS * 1000 or begin > (
                    MAX_GAP_SECONDS + MAX_SECONDS_PER_FRAME * (k + 1)
                ):
                    raise ValueError(f"{k + 1} pictures are said to last {float(begin):.0f} s")
    except Exception as error:  # Pillow's readers raise whatever the damage made them stumble on
        raise corrupt_error(name, error, begin) from error
    yield begin, None
