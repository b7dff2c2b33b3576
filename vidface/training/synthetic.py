"""Faces of nobody: mixtures and warps of a few people's faces, for a teacher to describe.

Ninety-four people are few, and a network that is to repeat a teacher's embeddings must see how the
teacher's answer changes between people. A face mixed of two aligned faces, its shape bent a little,
is a face of nobody, and the teacher says where it lies. Face `i` is a pure function of (seed, i):
only the teacher's answers need to be kept.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

import cv2
import numpy as np

from vidface.core.errors import VidfaceError
from vidface.training.augment import Colour, Move
from vidface.training.settings import TeacherSettings

_MOVE, _COLOUR = Move(), Colour()


class FaceImages(Protocol):
    """Faces by number: a `vidface.training.sources.FaceSource` without its people."""

    def __len__(self) -> int: ...
    def image(self, index: int) -> np.ndarray: ...


def read_blocks(
    faces: FaceImages, numbers: Sequence[int] | np.ndarray, size: int = 256
) -> Iterator[tuple[slice, np.ndarray]]:
    """Read faces, at most `size` in memory at once: (places among the numbers, their pictures)."""
    for start in range(0, len(numbers), size):
        block = slice(start, start + size)
        yield block, np.stack([faces.image(int(number)) for number in numbers[block]])


@dataclass(frozen=True)
class SyntheticFaces:
    """`settings.count` faces: first the source's own, unchanged, then faces of nobody.

    Args:
        source: faces (112, 112, 3) uint8 RGB, all aligned alike.
        settings: how many there are in all, and how they are mixed and bent.

    `image(i)` reads at most two faces of the source.
    """

    source: FaceImages
    settings: TeacherSettings

    def __post_init__(self) -> None:
        if len(self) < len(self.source):
            raise VidfaceError(
                f"synthetic faces: count {len(self)} is less than the source's {len(self.source)} "
                "faces, which come first"
            )

    def __len__(self) -> int:
        return self.settings.count

    def image(self, index: int) -> np.ndarray:
        """Face `index` (112, 112, 3) uint8 RGB; the same at every call."""
        if not 0 <= index < len(self):
            raise VidfaceError(f"synthetic faces: there is no face {index} of {len(self)}")
        if index < len(self.source):
            return self.source.image(index)
        settings = self.settings
        rng = np.random.default_rng([settings.seed, index])
        face = self._draw(rng)
        if rng.random() < settings.mix_share:
            face = mix_faces(face, self._draw(rng), rng)
        if rng.random() < settings.bend_share:
            face = bend_face(face, settings.bend_pixels, rng)
        for change in (_MOVE, _COLOUR):
            if rng.random() < 0.5:
                face = change(face, rng)
        return face

    def _draw(self, rng: np.random.Generator) -> np.ndarray:
        return self.source.image(int(rng.integers(len(self.source))))


def mix_faces(first: np.ndarray, second: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Mix a face of two: half of them blended evenly, half by a smooth random mask of regions."""
    if rng.random() < 0.5:
        second = np.ascontiguousarray(second[:, ::-1])
    side = first.shape[0]
    if rng.random() < 0.5:
        mask = np.full((side, side), rng.uniform(0.25, 0.75), np.float32)
    else:
        coarse = rng.normal(rng.normal(0, 0.5), 2.0, (4, 4)).astype(np.float32)
        fine = cv2.resize(coarse, (side, side), interpolation=cv2.INTER_CUBIC)
        mask = (1 / (1 + np.exp(-2 * fine))).astype(np.float32)
    # The second face gets the first one's mean colour in part, as one light falls on a face.
    shift = np.array(cv2.mean(first)[:3]) - np.array(cv2.mean(second)[:3])
    shift *= rng.random()
    table = np.clip(np.arange(256)[:, None] + shift + 0.5, 0, 255).astype(np.uint8)
    second = cv2.LUT(second, table.reshape(1, 256, 3))
    return cv2.blendLinear(first, second, mask, 1 - mask)


def bend_face(face: np.ndarray, pixels: float, rng: np.random.Generator) -> np.ndarray:
    """Bend a face by a smooth displacement: standard deviation `pixels` at 5x5 knots."""
    side = face.shape[0]
    knots = rng.normal(0, pixels, (5, 5, 2)).astype(np.float32)
    field = cv2.resize(knots, (side, side), interpolation=cv2.INTER_CUBIC)
    y, x = np.mgrid[:side, :side].astype(np.float32)
    return cv2.remap(
        face, x + field[..., 0], y + field[..., 1], cv2.INTER_LINEAR,
        borderMode=cv2.BORDER_REFLECT_101,
    )  # fmt: skip
