"""The table [frames] of a pipeline file."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from vidface.core.settings import check_settings, setting
from vidface.core.values import check
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

    keep_damaged: bool = setting(
        False,
        help="Of a damaged clip use what is certain (state damaged): frames before a bad place and "
        "from the next key frame on, pictures of a folder that decode. Needs pyav.",
        rare=True,
    )

    def __post_init__(self) -> None:
        check_settings(self, "[frames]")
        fits = not self.keep_damaged or self.decoder == DEFAULT_DECODER
        check(fits, "[frames] keep_damaged", f"decoder '{self.decoder}' can't tell what is certain")
