"""A decoded picture as a viewer sees it: square pixels, SDR colours, upright."""

from __future__ import annotations

import struct
from fractions import Fraction
from math import sqrt
from typing import TYPE_CHECKING, Any

import numpy as np

from vidface.core.rules import ReadingRules
from vidface.frames.common import MAX_PIXELS
from vidface.frames.tone_mapping import DEFAULT_PEAK_NITS, HLG, PQ, map_tones

if TYPE_CHECKING:
    from av import VideoFrame
    from av.video.stream import VideoStream

_MAX_STRETCH = 8  # television's are within 3, lenses' within 2; beyond it the header is damaged
_SQUARE = Fraction(1)
_LEAST_STRETCH = Fraction(1, 100)  # encoders round sides to even numbers and make 370:369 of it
_DOLBY_VISION = ("dvh1", "dvhe", "dva1", "dvav", "dav1")  # MP4's names of its codecs
_UNSPECIFIED = 2  # transfer characteristics that a base layer for others would name


class PictureViewer:
    """Makes RGB images of one stream's pictures; to be made before the stream is decoded.

    How wide a pixel is, the container says before the codec, as ffmpeg has it. Where both say the
    same, or the codec alone, the codec is followed: broadcasts change it on the way.
    """

    def __init__(self, stream: VideoStream, rules: ReadingRules) -> None:
        self._codec = stream.codec_context
        self._rules = rules
        stated = stream.sample_aspect_ratio
        self._container_aspect = None if stated == self._codec.sample_aspect_ratio else stated

    def describe_change(self) -> str | None:
        """What `show` changes beside the rotation, as far as the headers say; None: nothing."""
        size = self._codec.width, self._codec.height
        if self._rules.square_pixels and find_square_size(*size, self._aspect) != size:
            return (
                f"its pixels are not square ({self._aspect.numerator}:{self._aspect.denominator})"
            )
        if self._rules.tone_mapping and self._codec.color_trc in (PQ, HLG):
            return "its colours are HDR (HLG or PQ)"
        return None

    @property
    def _aspect(self) -> Fraction:
        return self._container_aspect or self._codec.sample_aspect_ratio or _SQUARE

    def show(self, picture: VideoFrame) -> np.ndarray:
        """(height, width, 3) uint8 RGB; what a run's rules do not ask for is left as stored.

        Raises:
            ValueError, av.FFmpegError: its colours can't be converted.
        """
        width, height = picture.width, picture.height
        if self._rules.square_pixels:
            width, height = find_square_size(width, height, self._aspect)
        is_dolby = self._codec.codec_tag in _DOLBY_VISION and picture.color_trc == _UNSPECIFIED
        if is_dolby and self._rules.tone_mapping:
            raise ValueError("Dolby Vision without a base layer that others can show, profile 5")
        maps_tones = self._rules.tone_mapping and picture.color_trc in (PQ, HLG)
        # Bicubic as ffmpeg does; it matters where chroma is interpolated: odd sizes, 10 bits.
        # One thread: each frame would start some of its own, and keep them until it goes.
        image: Any = picture.to_ndarray(
            width=width,
            height=height,
            format="rgb48le" if maps_tones else "rgb24",
            interpolation="BICUBIC",
            threads=1,
        )
        if maps_tones:
            image = map_tones(image, picture.color_trc, find_peak_nits(picture))
        return _turn_upright(image, picture)


def find_square_size(width: int, height: int, aspect: Fraction) -> tuple[int, int]:
    """(width, height) of a picture whose pixels are made square: one side grows, none shrinks.

    Beyond the bound of pixels both shrink alike. An aspect beyond 1:8 or 8:1 is not believed; one
    within a hundredth of 1 is what rounding left, and no reason to resample a picture.

    >>> find_square_size(1440, 1080, Fraction(4, 3)), find_square_size(720, 480, Fraction(8, 9))
    ((1920, 1080), (720, 540))
    """
    believed = Fraction(1, _MAX_STRETCH) <= aspect <= _MAX_STRETCH
    if not believed or abs(aspect - _SQUARE) <= _LEAST_STRETCH:
        return width, height
    full_width, full_height = width * max(aspect, _SQUARE), height / min(aspect, _SQUARE)
    scale = min(1.0, sqrt(MAX_PIXELS / (full_width * full_height)))
    return max(1, round(full_width * scale)), max(1, round(full_height * scale))


def find_peak_nits(picture: VideoFrame) -> float:
    """cd/m² of the brightest pixel (MaxCLL), else of the mastering display, else 1000."""
    light_level: Any = picture.side_data.get("CONTENT_LIGHT_LEVEL")
    if light_level is not None:
        (brightest,) = struct.unpack_from("=I", bytes(light_level))
        if brightest:
            return float(brightest)
    mastering: Any = picture.side_data.get("MASTERING_DISPLAY_METADATA")
    if mastering is not None:  # AVRationals: 8 of colours, least and most light; 2 flags
        *_, numerator, denominator, _, has_light = struct.unpack_from("=22i", bytes(mastering))
        if has_light and numerator > 0 and denominator > 0:
            return numerator / denominator
    return DEFAULT_PEAK_NITS


def _turn_upright(image: np.ndarray, picture: VideoFrame) -> np.ndarray:
    """Apply the display matrix: any of the eight quarter turns and flips.

    Other angles go to the nearest quarter turn.
    """
    side_data: Any = picture.side_data.get("DISPLAYMATRIX")
    if side_data is None:
        return image
    # Row vectors: (x, y) is shown at (a x + c y, b x + d y), y downwards; 16.16 fixed point.
    a, b, _, c, d = np.frombuffer(bytes(side_data), dtype=np.int32)[:5].tolist()
    if abs(a) + abs(d) < abs(b) + abs(c):
        image = image.transpose(1, 0, 2)
        flip_x, flip_y = c < 0, b < 0
    else:
        flip_x, flip_y = a < 0, d < 0
    return image[:: -1 if flip_y else 1, :: -1 if flip_x else 1]
