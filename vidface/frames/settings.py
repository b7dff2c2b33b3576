"""The table [frames] of a pipeline file."""

from __future__ import annotations

import math
from dataclasses import dataclass

from vidface.core.values import check, check_choice
from vidface.frames.decoders import DECODERS, DEFAULT_DECODER


@dataclass(frozen=True)
class FrameSettings:
    """Which frames of a video: sampled by time, `fps` a second."""

    fps: float = 8.0
    decoder: str = DEFAULT_DECODER

    def __post_init__(self) -> None:
        fits = math.isfinite(self.fps) and self.fps > 0
        check(fits, "[frames] fps", f"must be above 0, not {self.fps}")
        check_choice("[frames] decoder", self.decoder, tuple(DECODERS))
