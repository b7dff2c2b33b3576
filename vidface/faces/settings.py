"""The table [faces] of a pipeline file."""

from __future__ import annotations

import math
from dataclasses import dataclass

from vidface.core.values import check, check_choice


@dataclass(frozen=True)
class FaceSettings:
    """Which faces of a frame. `source = "aligned"`: images are 112x112 crops, used as they are.

    `source = "features"`: a clip is a video in a pickle of embeddings (`vidface.runs.features`),
    and no recogniser is run.
    """

    source: str = "detect"
    which: str = "largest"
    detector: str = "yunet"
    detector_long_side: int = 640  # pixels; larger frames are shrunk for the detector alone
    min_det_score: float = 0.7
    min_face_pixels: float = 20.0  # shorter side of the box, in pixels of the frame
    keep_crops: bool = False

    def __post_init__(self) -> None:
        check_choice("[faces] source", self.source, ("detect", "aligned", "features"))
        check_choice("[faces] which", self.which, ("largest", "all"))
        score = self.min_det_score
        check(0 <= score <= 1, "[faces] min_det_score", f"must lie in [0, 1], not {score}")
        pixels = self.min_face_pixels
        check(0 <= pixels < math.inf, "[faces] min_face_pixels", f"must be ≥ 0, not {pixels}")
        side = self.detector_long_side
        check(side >= 64, "[faces] detector_long_side", f"must be ≥ 64, not {side}")
        pictures = not self.keep_crops or self.source != "features"
        check(pictures, "[faces] keep_crops", "features have no pictures to keep")
