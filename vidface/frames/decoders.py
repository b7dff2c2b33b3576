"""The decoders by name; a decoder's verb loads its body, and with that NumPy and libav."""

from __future__ import annotations

from collections.abc import Callable, Generator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from fractions import Fraction

    import numpy as np

    from vidface.frames.common import VideoSource, Window


@dataclass(frozen=True)
class Decoder:
    """One way to decode videos; an entry of `DECODERS`.

    Attributes:
        distributions: of the libraries that do it, whose versions the provenance records.
        decode: yields (k, begin_seconds, (height, width, 3) uint8 RGB) for each moment of a window;
            given a source, its name in messages, the window and the number of threads (0 = as many
            as it likes). It may raise ClipError after any of them.
    """

    name: str
    help: str
    distributions: tuple[str, ...]
    decode: Callable[[VideoSource, str, Window, int], Generator[tuple[int, Fraction, np.ndarray]]]


def _decode_with_pyav(*arguments: Any) -> Generator[tuple[int, Fraction, np.ndarray]]:
    from vidface.frames.with_pyav import decode_with_pyav

    return decode_with_pyav(*arguments)


def _decode_with_decord(*arguments: Any) -> Generator[tuple[int, Fraction, np.ndarray]]:
    from vidface.frames.with_decord import decode_with_decord

    return decode_with_decord(*arguments)


PYAV = Decoder(
    "pyav", "PyAV (libav), right in every case that is measured", ("av",), _decode_with_pyav
)
DECORD = Decoder(
    "decord",
    "decord 0.6, with faults of its own (vidface/frames/sampling.py lists them)",
    ("decord", "decord2"),
    _decode_with_decord,
)
DECODERS: dict[str, Decoder] = {decoder.name: decoder for decoder in (PYAV, DECORD)}
DEFAULT_DECODER = PYAV.name
