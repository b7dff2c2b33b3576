"""DetectedFaces: detect with YuNet, align by five landmarks to the 112x112 ArcFace template."""

from __future__ import annotations

import threading
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from vidface.backbones.weights import weights_path
from vidface.core.errors import VidfaceError
from vidface.core.values import CROP_SIZE, check_choice

_LOG_LEVEL = threading.Lock()  # OpenCV's log level is the process's; detectors are made in threads

# Where the five landmarks come to lie in the crop, (x, y) in pixels: the eye on the image's left,
# the eye on its right, nose tip, mouth corner left, right (InsightFace, arcface `face_align.py`).
ARCFACE_TEMPLATE = (
    (38.2946, 51.6963),
    (73.5318, 51.5014),
    (56.0252, 71.7366),
    (41.5493, 92.3655),
    (70.7299, 92.2041),
)


FAINT_SCORE = 0.3
"""Candidates below this score are not even counted: on frames without a face hardly any reach it
(11 of 197 frames; from 0.2 on 40)."""


@dataclass(frozen=True)
class DroppedFaces:
    """How many faces were found and not taken, each counted once.

    >>> dropped = DroppedFaces(small=2) + DroppedFaces(small=10, faint=5)
    >>> for reason in dropped.describe(min_face_pixels=20.0, min_det_score=0.7).split("; "):
    ...     print(reason)
    12 faces under 20 px: lower --min-face-pixels
    5 faces under the score 0.7: lower --min-det-score
    """

    small: int = 0
    faint: int = 0  # from FAINT_SCORE on
    both: int = 0

    def __add__(self, other: DroppedFaces) -> DroppedFaces:
        return DroppedFaces(
            self.small + other.small, self.faint + other.faint, self.both + other.both
        )

    def describe(self, *, min_face_pixels: float, min_det_score: float) -> str:
        """Say how many, and which setting takes them; "" where there are none."""
        size, score = f"{min_face_pixels:g} px", f"the score {min_det_score:g}"
        reasons = (
            (self.small, f"under {size}: lower --min-face-pixels"),
            (self.faint, f"under {score}: lower --min-det-score"),
            (self.both, f"under {size} and {score}: lower --min-face-pixels and --min-det-score"),
        )
        return "; ".join(
            f"{count} face{'s' * (count != 1)} {reason}" for count, reason in reasons if count
        )


@dataclass(frozen=True)
class DetectedFaces:
    """The faces of one frame, best first in the order that was asked for."""

    boxes: np.ndarray  # (n, 4) float32: left, top, right, bottom, pixels of the frame
    landmarks: np.ndarray  # (n, 5, 2) float32: x, y, pixels of the frame
    scores: np.ndarray  # (n,) float32 in [0, 1]
    dropped: DroppedFaces = field(default_factory=DroppedFaces)

    def __post_init__(self) -> None:
        n = len(self.boxes)
        shapes = (self.boxes.shape, self.landmarks.shape, self.scores.shape)
        if shapes != ((n, 4), (n, 5, 2), (n,)):
            raise VidfaceError(
                f"DetectedFaces: shapes {shapes} do not fit; want (n, 4), (n, 5, 2), (n,)"
            )

    def __len__(self) -> int:
        return len(self.boxes)

    def __str__(self) -> str:
        shapes = f"boxes {self.boxes.shape}, landmarks {self.landmarks.shape}"
        return f"DetectedFaces({len(self)}: {shapes})"


class FaceDetector:
    """YuNet (Wu et al. 2023) through OpenCV. Not for two threads at once: make one for each.

    Args:
        min_score: detections below this score are dropped, in [0, 1].
        min_face_pixels: shorter side of the box, in pixels of the frame.
        which: "largest" (area of the box; equal areas: higher score) or "all", largest first.
        long_side: frames with a longer side are shrunk to it for detection; boxes and landmarks
            are given in pixels of the frame all the same, and crops are cut from the full frame.
        model: the .onnx file; by default the weights named "yunet", fetched on first use.
    """

    def __init__(
        self,
        *,
        min_score: float = 0.7,
        min_face_pixels: float = 20.0,
        which: str = "largest",
        long_side: int = 640,
        model: Path | None = None,
    ) -> None:
        check_choice("which faces", which, ("largest", "all"))
        if model is None:
            model = weights_path("yunet")
        import cv2

        self._min_score, self._min_face_pixels = np.float32(min_score), min_face_pixels
        self._which = which
        self._long_side = long_side
        logging = cv2.utils.logging
        with _LOG_LEVEL:
            # OpenCV 5 warns of a harmless fallback each time that it loads the network.
            level = logging.setLogLevel(logging.LOG_LEVEL_ERROR)
            try:
                self._network = cv2.FaceDetectorYN.create(
                    str(model), "", (320, 320), score_threshold=min(float(min_score), FAINT_SCORE)
                )
            except cv2.error as error:
                raise VidfaceError(f"detector {model}: not a YuNet network ({error.err})") from None
            finally:
                logging.setLogLevel(level)

    def detect(self, image: np.ndarray) -> DetectedFaces:
        """DetectedFaces of an RGB image.

        Args:
            image: (height, width, 3) uint8, RGB, upright.

        Returns:
            The faces that pass the limits; one at most with which = "largest".
        """
        import cv2

        check_image(image)
        height, width = image.shape[:2]
        scale = min(1.0, self._long_side / max(height, width))
        if scale < 1.0:
            size = (max(1, round(width * scale)), max(1, round(height * scale)))
            small = cv2.resize(image, size, interpolation=cv2.INTER_AREA)
        else:
            small = image
        self._network.setInputSize((small.shape[1], small.shape[0]))
        _, detections = self._network.detect(cv2.cvtColor(small, cv2.COLOR_RGB2BGR))
        # x, y, width, height, five landmarks, score
        rows = (
            np.zeros((0, 15), np.float32) if detections is None else detections.astype(np.float32)
        )
        rows = rows[np.isfinite(rows).all(axis=1)]
        rows[:, :14] /= np.float32(scale)
        rows = rows[(rows[:, 2:4] > 0).all(axis=1)]
        # Fainter candidates come too, to be counted: none of them suppresses a better one.
        is_small = rows[:, 2:4].min(axis=1, initial=np.inf) < self._min_face_pixels
        is_faint = rows[:, 14] < self._min_score
        small, faint, both = (
            int(np.count_nonzero(which))
            for which in (is_small & ~is_faint, is_faint & ~is_small, is_small & is_faint)
        )
        rows = rows[~is_small & ~is_faint]
        order = np.lexsort((-rows[:, 14], -rows[:, 2] * rows[:, 3]))
        rows = rows[order if self._which == "all" else order[:1]]
        boxes = np.concatenate([rows[:, :2], rows[:, :2] + rows[:, 2:4]], axis=1)
        landmarks = rows[:, 4:14].reshape(-1, 5, 2)
        return DetectedFaces(boxes, landmarks, rows[:, 14].copy(), DroppedFaces(small, faint, both))


def similarity_transform(landmarks: np.ndarray, template: np.ndarray) -> np.ndarray:
    """The least-squares similarity (rotation, scale, shift; no mirroring) of points to a template.

    Args:
        landmarks: (n, 2) source points x, y; n ≥ 2, not all the same point.
        template: (n, 2) where they should come to lie.

    Returns:
        (2, 3) float64 matrix [a −b tx; b a ty] that minimises Σ|M·p − q|². In the plane this is
        Umeyama's (1991) solution wherever that one does not mirror.

    Raises:
        VidfaceError: the points coincide, or are not finite.
    """
    points = np.asarray(landmarks, dtype=np.float64)
    targets = np.asarray(template, dtype=np.float64)
    # As complex numbers the similarity is q ≈ m·p + t: one ratio of sums.
    p = points[:, 0] + 1j * points[:, 1]
    q = targets[:, 0] + 1j * targets[:, 1]
    centred = p - p.mean()
    spread = float(np.sum(np.abs(centred) ** 2))
    if not np.isfinite(spread) or spread < 1e-12:
        raise VidfaceError("landmarks coincide or are not finite: no similarity transform")
    m = np.sum(np.conj(centred) * (q - q.mean())) / spread
    t = q.mean() - m * p.mean()
    return np.array([[m.real, -m.imag, t.real], [m.imag, m.real, t.imag]])


def scale_template(size: tuple[int, int]) -> np.ndarray:
    """The ArcFace template in crops of this height and width, (5, 2) float64.

    Scaled with the height, and in the middle of the width: at 112x96 it is the template that
    SphereFace and MobileFaceNet's first versions were trained with.
    """
    height, width = size
    scale = height / CROP_SIZE
    return np.array(ARCFACE_TEMPLATE) * scale - [(CROP_SIZE * scale - width) / 2, 0]


def align_face(
    image: np.ndarray, landmarks: np.ndarray, size: tuple[int, int] = (CROP_SIZE, CROP_SIZE)
) -> np.ndarray:
    """Cut one face out of an image, its landmarks moved onto the ArcFace template.

    Args:
        image: (height, width, 3) uint8 RGB.
        landmarks: (5, 2) x, y in pixels of the image, in YuNet's order, which is the template's.
        size: height and width of the crop.

    Returns:
        (*size, 3) uint8 RGB, bilinear; outside of the image black.
    """
    import cv2

    check_image(image)
    matrix = similarity_transform(landmarks, scale_template(size))
    return cv2.warpAffine(image, matrix, (size[1], size[0]), flags=cv2.INTER_LINEAR)


def check_image(image: np.ndarray) -> None:
    """Refuse what is not an RGB image of bytes."""
    if image.ndim != 3 or image.shape[2] != 3 or image.dtype != np.uint8 or image.size == 0:
        raise VidfaceError(
            f"image: want (height, width, 3) uint8 RGB, got {image.shape} {image.dtype}"
        )
