"""The decoders by name, one file each; importing them loads neither NumPy nor libav."""

from __future__ import annotations

from vidface.frames.common import Decoder
from vidface.frames.with_decord import DECORD
from vidface.frames.with_pyav import PYAV

DECODERS: dict[str, Decoder] = {decoder.name: decoder for decoder in (PYAV, DECORD)}
DEFAULT_DECODER = PYAV.name
