"""Changes of a training face that leave the person who they are.

By default a face is only mirrored: that is what the challenge's rules allow for its evaluation, and
what the paper trains with. The others are there by name. Each is a small record of its settings,
called with a face (112, 112, 3) uint8 RGB and a random generator; it returns a new face.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from vidface.core.errors import VidfaceError
from vidface.core.settings import build_settings, check_settings, setting
from vidface.core.values import check_name


class Augmentation(ABC):
    """A change of a face; its settings check themselves.

    Raises:
        VidfaceError: a setting of another type or out of its bounds.
    """

    name: ClassVar[str]

    def __post_init__(self) -> None:
        check_settings(self, f"augmentation {self.name}")

    @abstractmethod
    def __call__(self, face: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """(112, 112, 3) uint8 RGB → a face of the same form, changed or not; `face` stays."""


@dataclass(frozen=True)
class Flip(Augmentation):
    """Mirrors a share of the faces left to right.

    >>> face = np.arange(6, dtype=np.uint8).reshape(1, 2, 3)
    >>> Flip(share=1.0)(face, np.random.default_rng(0))[0, :, 0].tolist()
    [3, 0]
    """

    name = "flip"

    share: float = setting(0.5, bounds="[0, 1]", help="Share of the faces that are mirrored.")

    def __call__(self, face: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        return np.ascontiguousarray(face[:, ::-1]) if rng.random() < self.share else face


@dataclass(frozen=True)
class Move(Augmentation):
    """A small similarity about the middle, as detectors err: all are standard deviations."""

    name = "move"

    shift_pixels: float = setting(1.5, bounds="[0, inf)", help="Shift along each axis.")
    turn_degrees: float = setting(3.0, bounds="[0, inf)", help="Turn.")
    scale: float = setting(0.04, bounds="[0, inf)", help="Logarithm of the scale.")

    def __call__(self, face: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        import cv2

        side = face.shape[0]
        dx, dy, turn, size = rng.normal(size=4)
        matrix = cv2.getRotationMatrix2D(
            (side / 2, side / 2), float(turn * self.turn_degrees), float(np.exp(size * self.scale))
        )
        matrix[:, 2] += np.array([dx, dy]) * self.shift_pixels
        return cv2.warpAffine(
            face, matrix, (side, side), flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REFLECT_101
        )


@dataclass(frozen=True)
class Colour(Augmentation):
    """Light: gain and gamma (log-normal), offset in grey levels, saturation, tint, some in grey."""

    name = "colour"

    gain: float = setting(0.15, bounds="[0, inf)", help="Spread of the gain's logarithm.")
    gamma: float = setting(0.15, bounds="[0, inf)", help="Spread of gamma's logarithm.")
    offset_levels: float = setting(10.0, bounds="[0, inf)", help="Spread of the offset.")
    saturation: float = setting(0.25, bounds="[0, inf)", help="Spread of the saturation.")
    tint: float = setting(0.05, bounds="[0, inf)", help="Spread of a channel's own gain.")
    grey_share: float = setting(0.1, bounds="[0, 1]", help="Share of the faces without colour.")

    def __call__(self, face: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        import cv2

        gain, gamma, offset, saturation, *tint = rng.normal(size=7)
        value = np.power(np.arange(256) / 255, np.exp(gamma * self.gamma))[:, None]
        value = value * np.exp(gain * self.gain + np.array(tint) * self.tint)
        value = value * 255 + offset * self.offset_levels
        table = np.clip(value + 0.5, 0, 255).astype(np.uint8)  # a column a channel
        face = cv2.LUT(face, table.reshape(1, 256, 3))
        kept = 0.0 if rng.random() < self.grey_share else math.exp(saturation * self.saturation)
        grey = np.array([0.299, 0.587, 0.114])  # of red, green, blue: ITU-R BT.601
        return cv2.transform(face, kept * np.eye(3) + (1 - kept) * grey)


@dataclass(frozen=True)
class Degrade(Augmentation):
    """A poorer camera for a share of the faces: smaller and back, blurred, noisy, JPEG."""

    name = "degrade"

    share: float = setting(0.4, bounds="[0, 1]", help="Share of the faces that are degraded.")
    smallest_pixels: int = setting(24, bounds="[8, 112]", help="Side of the smallest picture.")
    blur_pixels: float = setting(1.2, bounds="[0, inf)", help="Strongest blur.")
    noise_levels: float = setting(6.0, bounds="[0, inf)", help="Strongest noise.")
    worst_quality: int = setting(25, bounds="[1, 95]", help="Lowest quality of a JPEG.")

    def __call__(self, face: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        import cv2

        if rng.random() >= self.share:
            return face
        side = face.shape[0]
        kinds = rng.random(4) < 0.5
        if kinds[0]:
            small = round(math.exp(rng.uniform(math.log(self.smallest_pixels), math.log(side))))
            face = cv2.resize(face, (small, small), interpolation=cv2.INTER_AREA)
            face = cv2.resize(face, (side, side), interpolation=cv2.INTER_LINEAR)
        if kinds[1]:
            face = cv2.GaussianBlur(face, (0, 0), 0.3 + float(rng.random()) * self.blur_pixels)
        if kinds[2]:
            noise = rng.standard_normal(face.shape, np.float32)
            noise *= np.float32(rng.random() * self.noise_levels)
            face = np.clip(face + noise + np.float32(0.5), 0, 255).astype(np.uint8)
        if kinds[3]:
            quality = int(rng.integers(self.worst_quality, 96))
            _, coded = cv2.imencode(".jpg", face, [cv2.IMWRITE_JPEG_QUALITY, quality])
            face = np.asarray(cv2.imdecode(coded, cv2.IMREAD_UNCHANGED))
        return face


@dataclass(frozen=True)
class Occlude(Augmentation):
    """A rectangle of one colour over a share of the faces, up to `largest` of the side."""

    name = "occlude"

    share: float = setting(0.2, bounds="[0, 1]", help="Share of the faces that are covered.")
    largest: float = setting(0.4, bounds="[0, 1]", help="Largest side covered, of the face's.")

    def __call__(self, face: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        if rng.random() >= self.share:
            return face
        side = face.shape[0]
        height, width = (1 + rng.random(2) * self.largest * side).astype(int)
        top, left = rng.integers(0, side - height + 1), rng.integers(0, side - width + 1)
        covered = face.copy()
        covered[top : top + height, left : left + width] = rng.integers(0, 256, 3)
        return covered


AUGMENTATIONS: dict[str, type[Augmentation]] = {
    kind.name: kind for kind in (Move, Colour, Degrade, Occlude, Flip)
}


@dataclass(frozen=True)
class Chain:
    """Augmentations one after the other, in the registry's order."""

    parts: tuple[Augmentation, ...] = ()

    def __call__(self, face: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        for part in self.parts:
            face = part(face, rng)
        return face


def build_augmentation(settings: Mapping[str, Any]) -> Chain:
    """The chain that a pipeline's `[augment]` table describes: name → true, false or its settings.

    >>> build_augmentation({"flip": True, "occlude": {"share": 0.1}, "move": False}).parts
    (Occlude(share=0.1, largest=0.4), Flip(share=0.5))

    Raises:
        VidfaceError: unknown augmentation or setting (the known ones are listed).
    """
    for name, wanted in settings.items():
        check_name("augmentation", name, AUGMENTATIONS)
        if not isinstance(wanted, bool | Mapping):
            raise VidfaceError(f"augmentation '{name}': true, false or a table of settings")
    tables = {name: {} if wanted is True else wanted for name, wanted in settings.items()}
    return Chain(
        tuple(
            build_settings(kind, tables[name], f"augmentation '{name}'")
            for name, kind in AUGMENTATIONS.items()
            if tables.get(name, False) is not False
        )
    )
