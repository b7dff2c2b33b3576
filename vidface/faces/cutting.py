"""How faces are cut out of pictures: one function a template that recognisers name."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from vidface.backbones.preprocessing import ARCFACE, FACENET, Preprocessing
from vidface.core.errors import VidfaceError
from vidface.faces.detector import align_face

FACENET_MARGIN = 32 / (160 - 32)  # of the box, in all: facenet's 32 of 160 pixels are around it


def cut_face(
    image: np.ndarray, box: np.ndarray, landmarks: np.ndarray, fed: Preprocessing
) -> np.ndarray:
    """Cut one face out of an image as a recogniser wants it.

    Args:
        image: (height, width, 3) uint8 RGB.
        box: (4,) left, top, right, bottom, pixels of the image.
        landmarks: (5, 2) x, y in pixels of the image.
        fed: names template and size.

    Returns:
        `fed.shape` uint8 RGB.

    Raises:
        VidfaceError: landmarks that coincide, a box outside of the image.
    """
    return CUTTERS[fed.template or ARCFACE](image, box, landmarks, fed.shape[:2])


def _cut_by_landmarks(
    image: np.ndarray, box: np.ndarray, landmarks: np.ndarray, size: tuple[int, int]
) -> np.ndarray:
    return align_face(image, landmarks, size)


def _cut_by_box(
    image: np.ndarray, box: np.ndarray, landmarks: np.ndarray, size: tuple[int, int]
) -> np.ndarray:
    """The box with facenet's margin, as far as it lies in the image, resized, not turned.

    As facenet-pytorch's `extract_face` does it, with the margin that Sandberg's networks were
    trained with; their boxes were MTCNN's, which differ from YuNet's.
    """
    import cv2

    height, width = image.shape[:2]
    sides = box[2:] - box[:2]
    low = np.maximum(box[:2] - sides * (FACENET_MARGIN / 2), 0).astype(int)
    high = np.minimum(box[2:] + sides * (FACENET_MARGIN / 2), (width, height)).astype(int)
    part = image[low[1] : high[1], low[0] : high[0]]
    if not part.size:
        raise VidfaceError("the face's box lies outside of the image")
    return cv2.resize(part, (size[1], size[0]), interpolation=cv2.INTER_AREA)


Cutter = Callable[[np.ndarray, np.ndarray, np.ndarray, tuple[int, int]], np.ndarray]

CUTTERS: dict[str, Cutter] = {ARCFACE: _cut_by_landmarks, FACENET: _cut_by_box}
"""Every template of `vidface.backbones.preprocessing.TEMPLATES`."""
