"""The table [frames] of a pipeline file."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from vidface.core.settings import check_settings, setting
from vidface.frames.decoders import DECODERS, DEFAULT_DECODER


@dataclass(frozen=True)
class FrameSettings:
    """Which frames of a video are looked at."""

    GROUP: ClassVar[str] = "Frames and faces"

    fps: float = setting(
        8.0, help="Frames sampled a second of video, by presentation time.", bounds="(0, inf)"
    )
    decoder: str = setting(
        DEFAULT_DECODER,
        metavar="NAME",
        help="What decodes videos: pyav, or decord (vidface/frames/sampling.py lists what it "
        "gets wrong).",
        choices=DECODERS,
        rare=True,
    )

    def __post_init__(self) -> None:
        check_settings(self, "[frames]")
