"""Changes of a training face that leave the person who they are.

By default a face is only mirrored: that is what the challenge's rules allow for its evaluation, and
what the paper trains with. The others are there by name. Each is a small record of its settings,
called with a face (112, 112, 3) uint8 RGB and a random generator; it returns a new face.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields
from typing import Any

import numpy as np

from vidface.core.errors import VidfaceError

Augmentation = Callable[[np.ndarray, np.random.Generator], np.ndarray]


def _check_share(name: str, value: float) -> None:
    if not (isinstance(value, int | float) and 0 <= value <= 1):
        raise VidfaceError(f"augmentation: {name} must lie in [0, 1], not {value}")


def _check_positive(name: str, value: float) -> None:
    if not (isinstance(value, int | float) and math.isfinite(value) and value >= 0):
        raise VidfaceError(f"augmentation: {name} must be a finite number ≥ 0, not {value}")


@dataclass(frozen=True)
class Flip:
    """Mirrors a share of the faces left to right.

    >>> face = np.arange(6, dtype=np.uint8).reshape(1, 2, 3)
    >>> Flip(share=1.0)(face, np.random.default_rng(0))[0, :, 0].tolist()
    [3, 0]
    """

    share: float = 0.5

    def __post_init__(self) -> None:
        _check_share("flip share", self.share)

    def __call__(self, face: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        return np.ascontiguousarray(face[:, ::-1]) if rng.random() < self.share else face


@dataclass(frozen=True)
class Move:
    """A small similarity about the middle, as detectors err: all are standard deviations."""

    shift_pixels: float = 1.5
    turn_degrees: float = 3.0
    scale: float = 0.04

    def __post_init__(self) -> None:
        for name in ("shift_pixels", "turn_degrees", "scale"):
            _check_positive(f"move {name}", getattr(self, name))

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
class Colour:
    """Light: gain and gamma (log-normal), offset in grey levels, saturation, tint, some in grey."""

    gain: float = 0.15
    gamma: float = 0.15
    offset_levels: float = 10.0
    saturation: float = 0.25
    tint: float = 0.05
    grey_share: float = 0.1

    def __post_init__(self) -> None:
        _check_share("colour grey_share", self.grey_share)
        for name in ("gain", "gamma", "offset_levels", "saturation", "tint"):
            _check_positive(f"colour {name}", getattr(self, name))

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
class Degrade:
    """A poorer camera for a share of the faces: smaller and back, blurred, noisy, JPEG."""

    share: float = 0.4
    smallest_pixels: int = 24
    blur_pixels: float = 1.2
    noise_levels: float = 6.0
    worst_quality: int = 25

    def __post_init__(self) -> None:
        _check_share("degrade share", self.share)
        _check_positive("degrade blur_pixels", self.blur_pixels)
        _check_positive("degrade noise_levels", self.noise_levels)
        for name in ("smallest_pixels", "worst_quality"):
            if not isinstance(getattr(self, name), int):
                raise VidfaceError(f"augmentation: degrade {name} must be a whole number")
        if not 8 <= self.smallest_pixels <= 112:
            raise VidfaceError(
                f"augmentation: degrade smallest_pixels in [8, 112], not {self.smallest_pixels}"
            )
        if not 1 <= self.worst_quality <= 95:
            raise VidfaceError(
                f"augmentation: degrade worst_quality in [1, 95], not {self.worst_quality}"
            )

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
class Occlude:
    """A rectangle of one colour over a share of the faces, up to `largest` of the side."""

    share: float = 0.2
    largest: float = 0.4

    def __post_init__(self) -> None:
        _check_share("occlude share", self.share)
        _check_share("occlude largest", self.largest)

    def __call__(self, face: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        if rng.random() >= self.share:
            return face
        side = face.shape[0]
        height, width = (1 + rng.random(2) * self.largest * side).astype(int)
        top, left = rng.integers(0, side - height + 1), rng.integers(0, side - width + 1)
        covered = face.copy()
        covered[top : top + height, left : left + width] = rng.integers(0, 256, 3)
        return covered


AUGMENTATIONS: dict[str, type] = {
    "move": Move,
    "colour": Colour,
    "degrade": Degrade,
    "occlude": Occlude,
    "flip": Flip,
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
    for name, given in settings.items():
        if name not in AUGMENTATIONS:
            raise VidfaceError(
                f"augmentation '{name}': unknown (known: {', '.join(AUGMENTATIONS)})"
            )
        known = [each.name for each in fields(AUGMENTATIONS[name])]
        if not isinstance(given, bool | Mapping):
            raise VidfaceError(f"augmentation '{name}': true, false or a table of settings")
        for key in given if isinstance(given, Mapping) else ():
            if key not in known:
                raise VidfaceError(
                    f"augmentation '{name}': unknown setting '{key}' (known: {', '.join(known)})"
                )
    return Chain(
        tuple(
            kind(**(settings[name] if isinstance(settings[name], Mapping) else {}))
            for name, kind in AUGMENTATIONS.items()
            if settings.get(name, False) is not False
        )
    )
