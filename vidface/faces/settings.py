"""The table [faces] of a pipeline file."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from vidface.core.settings import check_settings, setting
from vidface.core.values import check


@dataclass(frozen=True)
class FaceSettings:
    """Where faces come from, and which of them are embedded."""

    GROUP: ClassVar[str] = "Frames and faces"

    source: str = setting(
        "detect",
        metavar="KIND",
        help="Where faces come from: detect finds them in frames; aligned takes images as crops "
        "of the recogniser's size (112x112, usually), never re-aligned; features takes embeddings "
        "from files (iQIYI's pickles, .npy, .npz, Parquet) and runs no recogniser (a clip's path "
        "is the file, its clip_id the video).",
        choices=("detect", "aligned", "features"),
    )
    which: str = setting(
        "largest",
        metavar="WHICH",
        help="Which faces of a frame are taken: largest, or all.",
        choices=("largest", "all"),
    )
    detector: str = setting("yunet", flag=None, help="The face detector.", rare=True)
    detector_long_side: int = setting(
        640,
        flag=None,
        help="Larger frames are shrunk to this long side, for detection only.",
        unit="pixels",
        bounds="[64, inf)",
        rare=True,
    )
    min_det_score: float = setting(
        0.7, help="The lowest detection score of a face that is taken, 0 to 1.", bounds="[0, 1]"
    )
    min_face_pixels: float = setting(
        20.0,
        help="The shortest side of a face's box that is taken, in the frame.",
        unit="pixels",
        bounds="[0, inf)",
    )
    resize: bool = setting(
        False,
        help="Scale aligned crops of another size than the recogniser's, instead of refusing them.",
        rare=True,
    )
    keep_crops: bool = setting(False, help="Keep the aligned faces as JPEGs, for pictures.")

    def __post_init__(self) -> None:
        check_settings(self, "[faces]")
        pictures = not self.keep_crops or self.source != "features"
        check(pictures, "[faces] keep_crops", "features have no pictures to keep")
